"""One row of a simulator written in NumPy, and the worker process that runs such rows.

`pool.py` starts `main` in a process of its own, which imports NumPy and what the user's function needs, but
not JAX, and never runs the user's own script again: a script of ten lines needs no
`if __name__ == "__main__":`. For that this file imports nothing of the package but `names`.
"""

import dataclasses
import os
import pickle
import queue
import reprlib
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from ..core.names import nearest

IN_WORKER = "QUINCUNX_WORKER"  # set in the environment of a worker and of all that it starts
FLUSH_SECONDS = 0.1  # rows that are done wait at most this long for the next one before they are sent
LENGTH = struct.Struct("<Q")

Row = np.ndarray | str  # the observations `(m, *event)` of a row, or why there are none


class UnknownParameter(KeyError):
    """A name that the prior does not have."""

    def __str__(self) -> str:
        return self.args[0]


class UnusableError(ValueError):
    """What came back is not an observation."""


class Parameters(Mapping[str, "float | np.ndarray"]):
    """Named parameters, read-only: a float for a scalar parameter, a read-only array for any other."""

    def __init__(self, values: Mapping[str, "float | np.ndarray"]):
        self._values = values

    def __getitem__(self, name: str) -> "float | np.ndarray":
        try:
            return self._values[name]
        except KeyError:
            known = ", ".join(self._values)
            raise UnknownParameter(
                f"no parameter {name!r}{nearest(str(name), self._values)}; the prior has {known}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the rows of one draw have in common.

    Fields
    ------
    layout: name and shape of every parameter, in the order of theta's columns.
    seed: words of the random key.
    num_observations: m, the calls per row.
    """

    layout: tuple[tuple[str, tuple[int, ...]], ...]
    seed: tuple[int, ...]
    num_observations: int

    def parameters(self, theta: np.ndarray) -> Parameters:
        """Named values of one row of theta `(dim,)`."""
        named, start = {}, 0
        for name, shape in self.layout:
            stop = start + int(np.prod(shape, dtype=int))
            value = np.array(theta[start:stop]).reshape(shape)
            value.setflags(write=False)
            named[name] = value if shape else float(value)
            start = stop
        return Parameters(named)

    def sequence(self, row: int) -> np.random.SeedSequence:
        """The source of randomness of a row: the same wherever and whenever the row runs."""
        return np.random.SeedSequence(self.seed, spawn_key=(row,))


def run_row(function: Callable[..., Any], plan: Plan, row: int, theta: np.ndarray) -> Row:
    """m observations at theta `(dim,)` as float32 `(m, *event)`, or the reason for their absence."""
    rng, parameters = np.random.default_rng(plan.sequence(row)), plan.parameters(theta)
    try:
        observations = [as_numbers(function(rng, parameters)) for _ in range(plan.num_observations)]
        return stack(observations)
    except UnusableError as error:
        return f"the function returned {error}"
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's function raises fails its row alone
        return _describe(error)


def as_numbers(value: Any) -> np.ndarray:
    """An observation as a float32 array; raises `UnusableError` for anything that is not an array of numbers."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise UnusableError(f"{reprlib.repr(value)}, a nest of lists of unequal lengths") from None
    if array.dtype.kind not in "biuf":
        raise UnusableError(f"{reprlib.repr(value)}, which is not an array of real numbers")
    if array.size == 0:
        raise UnusableError(f"an array of shape {array.shape}, which holds no number")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which fails the row by itself
        return array.astype(np.float32)


def stack(observations: list[np.ndarray]) -> np.ndarray:
    """m observations of one shape as an array `(m, *event)`; raises `UnusableError` if the shapes differ."""
    first = observations[0].shape
    for observation in observations:
        if observation.shape != first:
            raise UnusableError(f"shape {observation.shape}, others {first}")
    return np.stack(observations)


def _describe(error: BaseException) -> str:
    """`TypeError: message (line 12 of model.py)`, the line being the last one in the function's own file."""
    message = (str(error).splitlines() or [""])[0][:300]
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    ours = run_row.__code__.co_filename
    lines = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    theirs = [(file, line) for file, line in lines if file != ours]
    if not theirs:
        return text
    file, line = [place for place in theirs if place[0] == theirs[0][0]][-1]
    return f"{text} (line {line} of {os.path.basename(file)})"


# -- messages between the library and a worker: a length, then a pickle --------------------------


def send(stream: BinaryIO, message: Any) -> None:
    data = pickle.dumps(message, protocol=5)
    stream.write(LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive(read: Callable[[int], bytes]) -> Any:
    """The next message; `read(n)` must give n bytes, and EOFError is raised where it gives fewer."""
    header = read(LENGTH.size)
    if len(header) < LENGTH.size:
        raise EOFError
    (size,) = LENGTH.unpack(header)
    data = read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)


# -- the worker ------------------------------------------------------------------------------------


def _serve(requests: queue.SimpleQueue, replies: BinaryIO) -> None:
    """Answer requests for ever: bytes are a function to load, a tuple is a plan and rows to run."""
    function: Any = None
    while True:
        request = requests.get()
        if isinstance(request, bytes):
            function, problem = _load(request)
            send(replies, problem)
        else:
            plan, rows = request
            _answer(function, Plan(*plan), rows, replies)


def _load(payload: bytes) -> tuple[Callable[..., Any] | None, str]:
    """The user's function, under the caller's import path, arguments and folder, or why it cannot be had."""
    try:
        sys.path[:], sys.argv[:], folder, function = pickle.loads(payload)
        os.chdir(folder)
        return pickle.loads(function), ""
    except (Exception, SystemExit) as error:  # noqa: BLE001 - unpickling runs any module that the function uses
        return None, f"{type(error).__name__}: {error}"


def _answer(function: Callable[..., Any], plan: Plan, rows: list[tuple[int, np.ndarray]], replies: BinaryIO) -> None:
    done, since = [], time.monotonic()
    for row, theta in rows:
        done.append((row, run_row(function, plan, row, theta)))
        if time.monotonic() - since > FLUSH_SECONDS:
            send(replies, done)
            done, since = [], time.monotonic()
    send(replies, done)


def _read(stream: BinaryIO, requests: queue.SimpleQueue) -> None:
    try:
        while True:
            requests.put(receive(stream.read))
    finally:
        os._exit(0)  # the library closed the pipe or died: stop at once, even inside a call


def main() -> None:
    # The pipes get numbers of their own, and what the function prints goes to standard error.
    incoming, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    requests: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_read, args=(incoming, requests), daemon=True).start()
    _serve(requests, replies)
