"""`simulate`: the verb that makes data, and the one loop over chunks of rows."""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import jax
import numpy as np

from ..core.batches import bucket, put
from ..core.names import options_checked
from ..core.progress import AbstractProgress, NoProgress
from ..core.simulations import Simulations
from ..core.simulator import AbstractSimulator, list_failures, stack_rows
from ..core.solution import Array, Failure, Key

CHUNK = 1 << 22  # numbers made between two reports of progress
FEW = 1 << 20  # so many are made at once, at half as many again if need be; of more, an eighth of them at a time
PER_OBSERVATION = 16  # numbers that an observation is taken for


class SimulationError(RuntimeError):
    """Too many simulations failed. `failures` lists them all."""

    def __init__(self, message: str, failures: tuple[Failure, ...]):
        self.message = message
        self.failures = failures

    def __str__(self) -> str:
        return self.message


@options_checked()
def simulate(
    key: Key,
    simulator: AbstractSimulator,
    *,
    num_simulations: int | None = None,
    num_observations: int = 1,
    theta: Array | Mapping[str, Any] | None = None,
    progress: AbstractProgress | None = None,
) -> Simulations:
    """Simulate observations at draws from the prior, or at given parameters.

    Parameters
    ----------
    key: random key.
    simulator: what to run.
    num_simulations: how many theta to draw from the prior. Give this or `theta`.
    num_observations: m, the number of i.i.d. observations at each theta.
    theta: parameters `(n, dim)` to simulate at, instead of draws from the prior; or by name, numbers or arrays `(n,)`.
    progress: told about every chunk of rows; silent by default.

    Returns
    -------
    Simulations with theta `(n, dim)` and x `(n, m, *event)`. Rows whose simulation raised, or gave
    NaN or infinity, are dropped, and listed in `failures`.

    Raises
    ------
    ValueError: both or none of num_simulations and theta, a count below 1, a theta of the wrong
        shape or outside the prior's support.
    TypeError: a count that is no whole number, no simulator or no key.
    SimulationError: more than half of the rows failed.
    """
    if (num_simulations is None) == (theta is None):
        raise ValueError(
            "give num_simulations (draws from the prior) or theta (parameters to simulate at), one of the two"
        )
    if not isinstance(simulator, AbstractSimulator):
        raise not_a_simulator(simulator)
    theta_key, x_key = jax.random.split(key)
    prior = simulator.prior
    rows = np.asarray(prior.sample(theta_key, num_simulations or 0)) if theta is None else prior.rows(theta)

    def draw(chunk: int, some: np.ndarray) -> tuple[Any, ...]:
        return simulator.draw(jax.random.fold_in(x_key, chunk), rows[some], num_observations)

    weight = PER_OBSERVATION * bucket(num_observations, 8)  # what a draw is filled up to
    parts, reasons = in_chunks("simulate", simulator, len(rows), weight, draw, progress or NoProgress())
    drawn = [x for (x,) in parts]
    if len({x.shape[1:] for x in drawn}) == 1:
        x = drawn[0] if len(drawn) == 1 else np.concatenate(drawn)
    else:
        found: list[Any] = [reasons.get(row, x) for row, x in enumerate(chain.from_iterable(drawn))]
        x, reasons = stack_rows(found, num_observations)
    kept, failures = settle(simulator, rows, reasons)
    return Simulations(put(rows[kept]), put(x[kept]), simulator, failures)


def not_a_simulator(simulator: object) -> TypeError:
    """The error for what was given in place of a simulator."""
    found = type(simulator).__name__
    return TypeError(f"simulator: expected what @qx.simulator and its kin make, or one of qx.problems, got {found}")


def in_chunks(
    stage: str,
    simulator: AbstractSimulator,
    num_rows: int,
    weight: int,
    run: Callable[[int, np.ndarray], tuple[Any, ...]],
    progress: AbstractProgress,
) -> tuple[list[list[np.ndarray]], dict[int, str]]:
    """Run rows 0 to n - 1 in chunks of one size, which depends on the bucket that n is in.

    Parameters
    ----------
    weight: numbers that are made for a row, roughly.
    run: `(chunk, rows) -> (array, ..., failures)`, arrays of one entry per row, and which of them failed. For a
        simulator that is compiled the last chunk is filled up with rows that do not count.

    Returns
    -------
    The arrays of every chunk, and why rows of the whole failed.
    """
    size = _chunk_size(num_rows, weight)
    parts, reasons = [], {}
    progress.start(stage, num_rows)
    try:
        for chunk, start in enumerate(range(0, num_rows, size)):
            kept = min(size, num_rows - start)
            rows = np.arange(start, start + (size if simulator.compiled else kept)) % num_rows
            *arrays, failed = run(chunk, rows)
            parts.append([array[:kept] for array in arrays])
            reasons |= {start + failure.row: failure.reason for failure in failed if failure.row < kept}
            progress.advance(kept, f"{len(reasons)} failed" if reasons else "")
    finally:
        progress.finish()
    return parts, reasons


def _chunk_size(num_rows: int, weight: int) -> int:
    size = bucket(num_rows)
    most = max(FEW, min(CHUNK, size * weight // 8))
    while size > 1 and size * weight > most:
        size = (size + 1) // 2  # a bucket again
    return size


def settle(
    simulator: AbstractSimulator, theta: np.ndarray, reasons: Mapping[int, str]
) -> tuple[np.ndarray | slice, tuple[Failure, ...]]:
    """Which rows of theta `(n, dim)` did not fail, and those that did; `SimulationError` if they are more than half."""
    failures = list_failures(simulator.prior, theta, reasons)
    if 2 * len(failures) > len(theta):
        raise SimulationError(
            f"{len(failures)} of {len(theta)} simulations by {simulator.name!r} failed, more than half. "
            f"The first: {failures[0]}. Run the simulator there and mend it, or narrow the prior.",
            failures,
        )
    kept = np.setdiff1d(np.arange(len(theta)), list(reasons)) if reasons else slice(None)  # a view: nothing is copied
    return kept, failures
