"""One process per row: what a program is asked, how it is run, and how its answer is read."""

import concurrent.futures
import contextlib
import json
import subprocess
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._host_process import ending, kill, start, strike
from ._host_worker import Plan, Row, UnusableError, as_numbers, stack

Answer = bytes | str  # standard output, or why there is none


def run_program(command: Sequence[str], plan: Plan, theta: np.ndarray, timeout: float, workers: int) -> list[Row]:
    """Run a program once for every row of theta `(n, dim)`; see `host.executable` for what it reads and prints."""
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
