"""Worker processes that run rows of a function, kept between draws.

The workers are processes of our own rather than `multiprocessing`'s. Its `fork` is not safe beside
JAX's threads; its `spawn` and `forkserver` run the caller's script again, import JAX in every worker,
and leave a pool that cannot say which row killed a worker.
"""

import atexit
import concurrent.futures
import hashlib
import heapq
import os
import pathlib
import pickle
import select
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, cast

import cloudpickle
import jax
import numpy as np

from ..core.prior import Prior
from ..core.simulator import mark_failures, stack_rows
from ..core.solution import Failure, Key
from .process import ending, kill, start, strike
from .worker import IN_WORKER, Plan, Row, receive, send

START = (  # the caller's own path follows with the function; this is where the package is, wherever that came from
    f"import sys; sys.path.insert(0, {str(pathlib.Path(__file__).parents[2])!r}); "
    "from quincunx.sample.worker import main; main()"
)
MAX_BATCH = 1000  # rows sent to a worker at once, at most
HOPELESS = 20  # if so many first rows all kill their worker, the rest is not tried
ENVIRONMENT = {
    # One thread per worker: the workers are what runs in parallel. And a function that calls JAX
    # must not fight over the accelerator with the process that started it. A user's own settings win.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
}


def run_rows(function: Callable[..., Any], plan: Plan, theta: np.ndarray, workers: int, name: str) -> list[Row]:
    """Run every row of theta `(n, dim)` in worker processes; the result does not depend on how many.

    Raises
    ------
    ValueError: the function cannot be sent to another process, or cannot be loaded there.
    RuntimeError: no worker process would start.
    """
    payload = _pack(function, name)
    board = _Board(len(theta), workers)
    with concurrent.futures.ThreadPoolExecutor(workers) as threads:
        futures = [threads.submit(_drive, board, payload, plan, theta, name) for _ in range(min(workers, len(theta)))]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:  # KeyboardInterrupt above all
            board.abandon()
            raise
    return board.results


def _pack(function: Callable[..., Any], name: str) -> bytes:
    try:
        return pickle.dumps((sys.path, sys.argv, os.getcwd(), cloudpickle.dumps(function)))
    except Exception as error:
        raise ValueError(
            f"simulator {name!r} cannot be sent to worker processes ({type(error).__name__}: {error}). Make what "
            "cannot be pickled (an open file, a lock, a connection) inside the function, or give workers=0"
        ) from error


class _Board:
    """What is still to run, what is done, and who is at work: shared by the threads of one draw."""

    def __init__(self, rows: int, workers: int):
        self._results: list[Row] = [""] * rows
        self._pending = [(0, rows)]  # a heap of half-open ranges, so that the first rows come first
        self._workers = workers
        self._busy: set[_Worker] = set()
        self._killers: set[int] = set()
        self.abandoned = False
        self._lock = threading.RLock()

    def take(self) -> range:
        """The next rows to run: large batches first, small ones last, so that the workers end together."""
        with self._lock:
            if self.abandoned or not self._pending:
                return range(0)
            start, stop = heapq.heappop(self._pending)
            size = min(MAX_BATCH, -(-(stop - start) // (4 * self._workers)))
            if start + size < stop:
                heapq.heappush(self._pending, (start + size, stop))
            return range(start, start + size)

    def put_back(self, rows: Iterable[int]) -> None:
        """Rows to run again, one at a time, because a worker died in one of them."""
        with self._lock:
            for row in rows:
                heapq.heappush(self._pending, (row, row + 1))

    def store(self, row: int, result: Row) -> None:
        self._results[row] = result

    def bury(self, row: int, how: str) -> None:
        """Note a row that killed its worker."""
        with self._lock:
            self._results[row] = f"the worker process ended in this row ({how})"
            self._killers.add(row)
            if self._hopeless:
                self.abandon()

    @property
    def results(self) -> list[Row]:
        if not self._hopeless:
            return self._results
        reason = f"not run: each of the first {HOPELESS} rows ended its worker process"
        return self._results[:HOPELESS] + [reason] * (len(self._results) - HOPELESS)

    @property
    def _hopeless(self) -> bool:
        """A rule on rows, not on time, so that the results do not depend on the number of workers."""
        return len(self._results) > HOPELESS and self._killers.issuperset(range(HOPELESS))

    def enter(self, worker: "_Worker") -> None:
        with self._lock:
            self._busy.add(worker)
            if self.abandoned:
                worker.strike()

    def leave(self, worker: "_Worker") -> None:
        with self._lock:
            self._busy.discard(worker)

    def abandon(self) -> None:
        """Kill all workers of this draw; their threads then find nothing more to do."""
        with self._lock:
            self.abandoned = True
            for worker in self._busy:
                worker.strike()


def _drive(board: _Board, payload: bytes, plan: Plan, theta: np.ndarray, name: str) -> None:
    """One thread's share of a draw: feed one worker, and replace it when it dies."""
    worker = None
    while rows := board.take():
        worker = worker or _hire(board, payload, name)
        if worker is None:
            break
        missing = set(rows)
        try:
            for row, result in worker.run(plan, rows, theta):
                board.store(row, result)
                missing.discard(row)
        except (EOFError, OSError):
            board.leave(worker)
            how, worker = worker.end(), None
            if missing and len(rows) == 1:
                board.bury(rows[0], how)
            else:
                board.put_back(missing)
    if worker:
        board.leave(worker)
        _idle().append(worker)


# -- workers ---------------------------------------------------------------------------------------

_IDLE: dict[int, list["_Worker"]] = {}  # by process id: a forked child must not use its parent's workers


def _idle() -> list["_Worker"]:
    return _IDLE.setdefault(os.getpid(), [])


@atexit.register
def _dismiss() -> None:
    while _idle():
        _idle().pop().end()


def _hire(board: _Board, payload: bytes, name: str) -> "_Worker | None":
    """A worker that has loaded the function, an idle one if there is one that still lives; None if it is too late."""
    while True:
        try:
            worker, fresh = _idle().pop(), False
        except IndexError:
            worker, fresh = _Worker(), True
        board.enter(worker)
        try:
            problem = worker.load(payload)
        except (EOFError, OSError):
            board.leave(worker)
            how = worker.end()
            if board.abandoned:
                return None
            if fresh:
                raise RuntimeError(
                    f"a worker process for simulator {name!r} ended while it loaded the function ({how}); "
                    "give workers=0 to run the function in this process and see why"
                ) from None
            continue
        if not problem:
            return worker
        board.leave(worker)
        worker.end()
        raise ValueError(
            f"simulator {name!r} cannot be loaded in a worker process: {problem}. Make the modules it uses "
            "importable there (install them, or put them on PYTHONPATH), or give workers=0"
        )


class _Worker:
    """A process that runs `worker.main`, in a process group of its own."""

    def __init__(self) -> None:
        self._process = start(
            [sys.executable, "-P", "-c", START],
            environment={**ENVIRONMENT, **os.environ, IN_WORKER: "1"},
        )
        # The buffer of standard output stays unused: `_wait` could not see what lies in it.
        self._requests, self._replies = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        self._loaded = b""

    def load(self, payload: bytes) -> str:
        """Send the function unless the worker has it; what went wrong, or nothing."""
        digest = hashlib.sha256(payload).digest()
        if self._process.poll() is not None:
            raise EOFError
        if digest == self._loaded:
            return ""
        send(self._requests, payload)
        problem = receive(self._read)
        self._loaded = b"" if problem else digest
        return problem

    def run(self, plan: Plan, rows: range, theta: np.ndarray) -> Iterator[tuple[int, Row]]:
        """Results as they come; EOFError or OSError when the worker dies."""
        # Plain tuples: unpickling one of our classes would import the package.
        words = (plan.layout, plan.seed, plan.num_observations)
        send(self._requests, (words, [(row, theta[row]) for row in rows]))
        missing = len(rows)
        while missing:
            done = receive(self._read)
            missing -= len(done)
            yield from done

    def strike(self) -> None:
        """Kill the worker; the thread that reads from it then finds the end of its pipe, and calls `end`."""
        strike(self._process)

    def end(self) -> str:
        """Kill the worker and all it started, and forget it; how it ended. For the thread that owns it."""
        kill(self._process)
        return ending(self._process.returncode)

    def _read(self, size: int) -> bytes:
        data, pipe = bytearray(), self._replies.fileno()
        while len(data) < size:
            self._wait(pipe)
            piece = os.read(pipe, min(size - len(data), 1 << 20))
            if not piece:
                break
            data += piece
        return bytes(data)

    def _wait(self, pipe: int) -> None:
        """Wait for something to read. A dead worker's pipe stays open if a process it forked lives on."""
        if os.name != "posix":
            return
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        while not poll.poll(1000):
            if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                raise EOFError


def plan_of(key: Key, prior: Prior, num_observations: int) -> Plan:
    words = np.asarray(jax.random.key_data(key)).ravel().tolist()
    return Plan(tuple(prior.shapes.items()), tuple(words), num_observations)


def collect(
    prior: Prior, theta: np.ndarray, rows: list[Row], num_observations: int
) -> tuple[np.ndarray, tuple[Failure, ...]]:
    """What `draw` gives, from its rows."""
    x, reasons = stack_rows(rows, num_observations)
    return x, mark_failures(prior, theta, x, reasons)


def check_workers(workers: object, least: int) -> None:
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < least:
        raise ValueError(f"workers must be a whole number, at least {least}, got {workers!r}")
