"""Simulators that are programs in any language, started once for every row of theta.

What a program is asked, how it is run, and how its answer is read. A row whose program fails, says nothing in time or
prints something other than numbers becomes a recorded `Failure`; the other rows are not touched by it.
"""

import concurrent.futures
import contextlib
import json
import math
import os
import pathlib
import shlex
import shutil
import subprocess
import threading
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import numpy as np

from ..core.prior import Prior
from ..core.simulator import AbstractSimulator, check_prior
from ..core.solution import Array, Failure, Key
from .pool import check_workers, collect, plan_of
from .process import ending, kill, start, strike
from .worker import Plan, Row, UnusableError, as_numbers, stack

Answer = bytes | str  # standard output, or why there is none


def run_program(command: Sequence[str], plan: Plan, theta: np.ndarray, timeout: float, workers: int) -> list[Row]:
    """Run a program once for every row of theta `(n, dim)`; see `executable` for what it reads and prints."""
    questions = [_question(plan, row, values) for row, values in enumerate(theta)]
    running: set[subprocess.Popen[bytes]] = set()
    stop = threading.Event()

    def run(question: bytes) -> Row:
        return _read_answer(_ask(command, question, timeout, running, stop), plan.num_observations)

    with concurrent.futures.ThreadPoolExecutor(workers) as threads:
        try:
            return list(threads.map(run, questions))
        except BaseException:  # KeyboardInterrupt above all
            stop.set()
            for process in list(running):
                strike(process)
            threads.shutdown(wait=True, cancel_futures=True)
            raise


def _question(plan: Plan, row: int, theta: np.ndarray) -> bytes:
    named = {name: np.asarray(value).tolist() for name, value in plan.parameters(theta).items()}
    # 31 bits: what the random number generators of every language take.
    seed = int(plan.sequence(row).generate_state(1, np.uint32)[0]) >> 1
    question = {"parameters": named, "num_observations": plan.num_observations, "seed": seed}
    return json.dumps(question).encode() + b"\n"


def _ask(
    command: Sequence[str],
    question: bytes,
    timeout: float,
    running: set[subprocess.Popen[bytes]],
    stop: threading.Event,
) -> Answer:
    try:
        process = start(command, errors=subprocess.PIPE)
    except OSError as error:
        return f"{command[0]} could not be started: {error.strerror or error}"
    running.add(process)
    if stop.is_set():
        strike(process)
    try:
        output, errors = process.communicate(question, timeout)
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:g} s"
    finally:
        running.discard(process)
        kill(process)
    if process.returncode == 0:
        return output
    return ": ".join([ending(process.returncode), *_last_line(errors)])


def _last_line(errors: bytes) -> list[str]:
    return [line.strip()[:300] for line in errors.decode(errors="replace").splitlines() if line.strip()][-1:]


def _read_answer(answer: Answer, num_observations: int) -> Row:
    """Observations `(m, *event)` of what a program printed, or why there are none."""
    if isinstance(answer, str):
        return answer
    text = answer.decode("utf-8-sig", errors="replace")
    try:
        observations = [as_numbers(value) for value in _parse(text)]
        if len(observations) != num_observations:
            raise UnusableError(f"{len(observations)} observations, {num_observations} were asked for")
        return stack(observations)
    except UnusableError as error:
        return f"the program returned {error}"


def _parse(text: str) -> list[Any]:
    if not text.strip():
        raise UnusableError("nothing on standard output")
    if text.strip()[0] not in "[{":
        return _parse_csv(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"broken JSON: {error}") from None
    if isinstance(value, dict):
        value = value.get("observations")
    if not isinstance(value, list):
        raise UnusableError('a JSON object without a list "observations"')
    return value


def _parse_csv(text: str) -> list[Any]:
    lines = [(number, line.split("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1)]
    cells = [(number, _cells(line)) for number, line in lines if line]
    if cells and not any(map(_is_number, cells[0][1])):
        cells = cells[1:]  # names
    observations = []
    for number, row in cells:
        for cell in row:
            if not _is_number(cell):
                raise UnusableError(f"{cell[:60]!r} where a number should be, in line {number} of standard output")
        values = [float(cell) for cell in row]
        observations.append(values if len(values) > 1 else values[0])
    return observations


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")] if "," in line else line.split()


def _is_number(cell: str) -> bool:
    with contextlib.suppress(ValueError):
        float(cell)
        return True
    return False


class ExecutableSimulator(AbstractSimulator):
    """A program in any language, started once for every row of theta. Made by `executable`.

    Fields
    ------
    command: the program and its arguments.
    source: where the simulator comes from (a paper, an equation), for lists and reports.
    timeout: seconds a row may take; then the program is killed with all that it started.
    workers: rows that run side by side.
    """

    command: tuple[str, ...] = eqx.field(static=True)
    prior: Prior = eqx.field(static=True)
    name: str = eqx.field(static=True)
    source: str = eqx.field(static=True, default="")
    timeout: float = eqx.field(static=True, default=60.0)
    workers: int = eqx.field(static=True, default=2)
    compiled: ClassVar[bool] = False

    def __check_init__(self):
        check_prior(self.prior, "qx.executable(command, qx.Prior(name=distribution, ...))")
        check_workers(self.workers, 1)
        if not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise ValueError(f"timeout must be a positive number of seconds, got {self.timeout}")

    def draw(self, key: Key, theta: Array, num_observations: int) -> tuple[np.ndarray, tuple[Failure, ...]]:
        theta, plan = np.asarray(theta), plan_of(key, self.prior, num_observations)
        rows = run_program(self.command, plan, theta, self.timeout, self.workers)
        return collect(self.prior, theta, rows, num_observations)


def executable(
    command: Sequence[str] | str,
    prior: Prior,
    *,
    name: str | None = None,
    source: str = "",
    timeout: float = 60.0,
    workers: int = 2,
) -> ExecutableSimulator:
    """A simulator that is a program in any language. It is started once for every row of theta.

    The program reads one line of JSON from standard input,

        {"parameters": {"rate": 3.5, "beta": [0.1, 0.2]}, "num_observations": 10, "seed": 1234}

    and prints its observations on standard output, in one of three forms: a JSON list of
    `num_observations` observations, a JSON object {"observations": that list}, or as many lines of
    numbers between commas (or blanks), with an optional first line of names and comments after '#'.
    A single column gives scalars. The seed is an integer from 0 to 2^31 - 1: a program that takes all
    its randomness from it makes results that depend on the key alone. Exit code 0 means success;
    otherwise the row fails, and the last line of standard error is the reason.

    Parameters
    ----------
    command: program and arguments, as a sequence, or as one string split the way a shell would. No
        shell is involved.
    prior: the prior of its parameters.
    name: how it is called in files and messages; the program's name if not given.
    source: where it comes from, for lists and reports.
    timeout: seconds a row may take; then the program is killed with all that it started.
    workers: rows that run side by side.

    Raises
    ------
    TypeError: prior is not a Prior.
    ValueError: the command is empty or not found, timeout is not positive, workers is below 1.
    """
    words = tuple(shlex.split(command) if isinstance(command, str) else map(os.fspath, command))
    if not words:
        raise ValueError("command is empty; give a program and its arguments, such as ['./simulate', '--fast']")
    if shutil.which(words[0]) is None:
        found = pathlib.Path(words[0]).exists()
        cure = "make it executable (chmod +x)" if found else "give the path of an executable file, or install it"
        raise ValueError(f"command not found: {words[0]!r} is not an executable program; {cure}")
    called = name or pathlib.Path(words[0]).stem
    return ExecutableSimulator(command=words, prior=prior, name=called, source=source, timeout=timeout, workers=workers)
