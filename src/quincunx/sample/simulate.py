"""`simulate`: the verb that makes data."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np

from ..core.progress import AbstractProgress, NoProgress
from ..core.simulations import Simulations
from ..core.simulator import AbstractSimulator, mark_failures
from ..core.solution import Array, Failure, Key

CHUNK = 2_000_000  # numbers simulated between two reports of progress


class SimulationError(RuntimeError):
    """Too many simulations failed. `failures` lists them all."""

    def __init__(self, message: str, failures: tuple[Failure, ...]):
        self.message = message
        self.failures = failures

    def __str__(self) -> str:
        return self.message


def simulate(
    key: Key,
    simulator: AbstractSimulator,
    *,
    num_simulations: int | None = None,
    num_observations: int = 1,
    theta: Array | None = None,
    progress: AbstractProgress | None = None,
) -> Simulations:
    """Simulate observations at draws from the prior, or at given parameters.

    Parameters
    ----------
    key: random key.
    simulator: what to run.
    num_simulations: how many theta to draw from the prior. Give this or `theta`.
    num_observations: m, the number of i.i.d. observations at each theta.
    theta: parameters `(n, dim)` to simulate at, instead of draws from the prior.
    progress: told about every chunk of rows; silent by default.

    Returns
    -------
    Simulations with theta `(n, dim)` and x `(n, m, *event)`. Rows whose simulation raised, or gave
    NaN or infinity, are dropped, and listed in `failures`.

    Raises
    ------
    ValueError: both or none of num_simulations and theta, a count below 1, a theta of the wrong
        shape or outside the prior's support.
    SimulationError: more than half of the rows failed.
    """
    theta_key, x_key = jax.random.split(key)
    if (num_simulations is None) == (theta is None):
        raise ValueError(
            "give num_simulations (draws from the prior) or theta (parameters to simulate at), one of the two"
        )
    for name, count in [("num_simulations", num_simulations), ("num_observations", num_observations)]:
        if count is not None and count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if num_simulations is not None:
        theta = simulator.prior.sample(theta_key, num_simulations)
    theta = np.asarray(theta, dtype=np.float32)
    if theta.ndim != 2 or theta.shape[1] != simulator.prior.dim:
        raise ValueError(
            f"theta: expected shape (n, {simulator.prior.dim}), a column for each of "
            f"{simulator.prior.columns}, got {theta.shape}"
        )
    simulator.prior.check(theta)
    x, failures = _draw(x_key, simulator, theta, num_observations, progress or NoProgress())
    if 2 * len(failures) > len(theta):
        raise SimulationError(
            f"{len(failures)} of {len(theta)} simulations by {simulator.name!r} failed, more than half. "
            f"The first: {failures[0]}. Run the simulator there and mend it, or narrow the prior.",
            failures,
        )
    kept = np.setdiff1d(np.arange(len(theta)), [failure.row for failure in failures])
    return Simulations(jnp.asarray(theta[kept]), jnp.asarray(x[kept]), simulator, failures)


def _draw(
    key: Key, simulator: AbstractSimulator, theta: np.ndarray, num_observations: int, progress: AbstractProgress
) -> tuple[np.ndarray, tuple[Failure, ...]]:
    if len(theta) == 0:
        raise ValueError("theta has no rows; give at least one row of parameters to simulate at")
    rows = max(1, min(len(theta), CHUNK // num_observations // 10))
    parts, reasons = [], {}
    progress.start("simulate", len(theta))
    try:
        for chunk, start in enumerate(range(0, len(theta), rows)):
            part = theta[start : start + rows]
            x, failed = simulator.draw(jax.random.fold_in(key, chunk), part, num_observations)
            parts.append(x)
            reasons |= {start + failure.row: failure.reason for failure in failed}
            progress.advance(len(part), f"{len(reasons)} failed" if reasons else "")
    finally:
        progress.finish()
    x = _join(parts, reasons)
    return x, mark_failures(simulator.prior, theta, x, reasons)


def _join(parts: list[np.ndarray], reasons: dict[int, str]) -> np.ndarray:
    """Chunks of rows as one x `(n, m, *event)`. The commonest event shape counts; rows of another go to `reasons`.

    Only simulators on the host can change their shape from one chunk to the next. A chunk of failures has none.
    """
    starts = np.cumsum([0] + [len(part) for part in parts[:-1]]).tolist()
    good = [
        [row for row in range(start, start + len(part)) if row not in reasons]
        for start, part in zip(starts, parts, strict=True)
    ]
    votes: Counter[tuple[int, ...]] = Counter()
    for part, rows in zip(parts, good, strict=True):
        votes[part.shape[2:]] += len(rows)
    shape = votes.most_common(1)[0][0]
    for chunk, (part, rows) in enumerate(zip(parts, good, strict=True)):
        if part.shape[2:] != shape:
            reasons |= dict.fromkeys(rows, f"returned shape {part.shape[2:]}, others {shape}")
            parts[chunk] = np.full(part.shape[:2] + shape, np.nan, dtype=np.float32)
    return np.concatenate(parts)
