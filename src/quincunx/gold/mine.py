"""`mine`: simulate with gold. `contrast`: the same of a black box, without the gold."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ..core.progress import AbstractProgress, NoProgress
from ..core.simulations import Simulations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key
from ..sample.black_box import AbstractJaxSimulator
from ..sample.simulate import SimulationError, simulate
from .mined import AbstractMinedSimulator, Gold
from .reference import AbstractReference, MarginalReference, _check_reference, _hypotheses, _numerators

CHUNK = 4_000_000  # joint log-probabilities between two reports of progress


def mine(
    key: Key,
    simulator: AbstractSimulator,
    *,
    num_simulations: int,
    theta: Array | None = None,
    reference: AbstractReference | None = MarginalReference(),
    progress: AbstractProgress | None = None,
) -> Simulations:
    """Simulate observations together with their joint log-ratios and joint scores.

    Half of the rows are drawn from the numerator p(x | theta) and have label 1; the others are drawn from the
    reference and have label 0. Without a reference all are drawn at their theta, and there are only scores.

    Parameters
    ----------
    key: random key.
    simulator: what to run; a black box gives no gold.
    num_simulations: n, how many observations.
    theta: numerators `(K, dim)`, taken in turn; draws from the prior if None.
    reference: what the ratios are relative to; None for scores alone.
    progress: told about every chunk of rows; silent by default.

    Returns
    -------
    Simulations of one observation per row. Failed rows are dropped, and listed in `failures`.

    Raises
    ------
    TypeError: the simulator gives no gold.
    ValueError: fewer than 2 simulations, a theta of the wrong shape or outside the prior's support.
    SimulationError: more than half of the rows failed.
    """
    if not isinstance(simulator, AbstractMinedSimulator):
        raise TypeError(
            f"the simulator {simulator.name!r} is a black box and gives no gold; write it as a NumPyro model "
            "(@qx.program) or with its joint log-probability (@qx.mined_simulator), or use simulate() or contrast()"
        )
    theta = _checked(simulator, num_simulations, theta)
    prior, (pool_key, plan_key, run_key) = simulator.prior, jax.random.split(key, 3)
    if reference is None:
        numerators = _numerators(plan_key, prior, theta, num_simulations)
        gold = _run(run_key, simulator, numerators, numerators[:, None], progress or NoProgress())
        return _record(simulator, gold, {"theta": numerators, "score": gold.score})
    _check_reference(reference)
    ready = reference.prepare(pool_key, prior, theta)
    plan = ready.plan(plan_key, prior, theta, num_simulations)
    gold = _run(run_key, simulator, plan.drawn_at, plan.alternatives, progress or NoProgress())
    rows = {
        "theta": plan.theta,
        "score": gold.score,
        "log_ratio": ready.log_ratio(gold.log_prob, plan.numerator),
        "label": plan.label,
        "drawn_at": plan.drawn_at,
        "theta_reference": plan.theta_reference,
    }
    return _record(simulator, gold, rows, ready)


def contrast(
    key: Key,
    simulator: AbstractSimulator,
    *,
    num_simulations: int,
    theta: Array | None = None,
    reference: AbstractReference = MarginalReference(),
    progress: AbstractProgress | None = None,
) -> Simulations:
    """What `mine` gives, without the gold: observations of numerators and of the reference, and their labels.

    It runs any simulator. Parameters, returns and errors are those of `mine`, but that a mixture without a pool has a
    theta for every row: there are no joint log-probabilities to evaluate over it.
    """
    theta = _checked(simulator, num_simulations, theta)
    prior, (pool_key, plan_key, run_key) = simulator.prior, jax.random.split(key, 3)
    _check_reference(reference)
    if isinstance(reference, MarginalReference) and reference.pool is None and theta is None:
        reference = MarginalReference(num_simulations)  # no gold to mine: a larger pool costs nothing
    ready = reference.prepare(pool_key, prior, theta)
    plan = ready.plan(plan_key, prior, theta, num_simulations)
    sims = simulate(run_key, simulator, theta=plan.drawn_at, progress=progress)
    kept = np.setdiff1d(np.arange(num_simulations), [failure.row for failure in sims.failures])
    rows = {
        "theta": plan.theta,
        "label": plan.label,
        "drawn_at": plan.drawn_at,
        "theta_reference": plan.theta_reference,
    }
    arrays = {name: jnp.asarray(value[kept]) for name, value in rows.items() if value is not None}
    return dataclasses.replace(sims, reference=ready, **arrays)


def _checked(simulator: AbstractSimulator, num_simulations: int, theta: Array | None) -> np.ndarray | None:
    if num_simulations < 2:
        raise ValueError(f"num_simulations must be at least 2, got {num_simulations}")
    return None if theta is None else _hypotheses(simulator.prior, theta)


def _run(
    key: Key, simulator: AbstractMinedSimulator, theta: np.ndarray, alternatives: np.ndarray, progress: AbstractProgress
) -> Gold:
    """`simulator.mine` in chunks of equal size, so that it is compiled once; row numbers are those of the whole."""
    per_row, num_rows = alternatives.ndim == 3, len(theta)
    size = min(num_rows, max(1, CHUNK // alternatives.shape[-2]))
    parts, failures = [], []
    progress.start("mine", num_rows)
    try:
        for chunk, start in enumerate(range(0, num_rows, size)):
            kept = min(size, num_rows - start)
            filled = size if isinstance(simulator, AbstractJaxSimulator) else kept  # so that it is compiled once
            rows = np.arange(start, start + filled) % num_rows
            others = alternatives[rows] if per_row else alternatives
            part = simulator.mine(jax.random.fold_in(key, chunk), theta[rows], others)
            parts.append([part.x[:kept], part.log_prob[:kept], part.score[:kept]])
            failures += [dataclasses.replace(f, row=start + f.row) for f in part.failures if f.row < kept]
            progress.advance(kept, f"{len(failures)} failed" if failures else "")
    finally:
        progress.finish()
    x, log_prob, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Gold(x, log_prob, score, tuple(failures))


def _record(
    simulator: AbstractMinedSimulator,
    gold: Gold,
    rows: dict[str, np.ndarray | None],
    reference: AbstractReference | None = None,
) -> Simulations:
    num_rows = len(gold.x)
    if 2 * len(gold.failures) > num_rows:
        raise SimulationError(
            f"{len(gold.failures)} of {num_rows} simulations by {simulator.name!r} failed, more than half. "
            f"The first: {gold.failures[0]}. Run the simulator there and mend it, or narrow the prior.",
            gold.failures,
        )
    kept = np.setdiff1d(np.arange(num_rows), [failure.row for failure in gold.failures])
    arrays = {name: jnp.asarray(value[kept], jnp.float32) for name, value in rows.items() if value is not None}
    return Simulations(
        x=jnp.asarray(gold.x[kept])[:, None], simulator=simulator, failures=gold.failures, reference=reference, **arrays
    )
