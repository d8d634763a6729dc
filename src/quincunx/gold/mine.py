"""`mine`: simulate with gold. `contrast`: the same of a black box, without the gold."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ..core.batches import bucket, put
from ..core.names import options_checked
from ..core.progress import AbstractProgress, NoProgress
from ..core.simulations import Simulations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key
from ..sample.simulate import in_chunks, not_a_simulator, settle, simulate
from .mined import AbstractMinedSimulator
from .reference import AbstractReference, MarginalReference, Plan, check_reference, scores_alone


@options_checked()
def mine(
    key: Key,
    simulator: AbstractSimulator,
    *,
    num_simulations: int,
    theta: Array | Mapping[str, Any] | None = None,
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
    theta: numerators `(K, dim)`, taken in turn, or by name, numbers or arrays `(K,)`; draws from the prior if None.
    reference: what the ratios are relative to; None for scores alone.
    progress: told about every chunk of rows; silent by default.

    Returns
    -------
    Simulations of one observation per row. Failed rows are dropped, and listed in `failures`.

    Raises
    ------
    TypeError: the simulator gives no gold, or is none, or a count is no whole number.
    ValueError: fewer than 2 simulations, a theta of the wrong shape or outside the prior's support.
    SimulationError: more than half of the rows failed.
    """
    if not isinstance(simulator, AbstractSimulator):
        raise not_a_simulator(simulator)
    if not isinstance(simulator, AbstractMinedSimulator):
        raise TypeError(
            f"the simulator {simulator.name!r} is a black box and gives no gold; write it as a NumPyro model "
            "(@qx.program) or with its joint log-probability (@qx.mined_simulator), or use simulate() or contrast()"
        )
    reference, plan, run_key = _planned(key, simulator, num_simulations, theta, reference)
    shared = plan.alternatives.ndim == 2

    def run(chunk: int, rows: np.ndarray) -> tuple[Any, ...]:
        others = plan.alternatives if shared else plan.alternatives[rows]
        gold = simulator.mine(jax.random.fold_in(run_key, chunk), plan.drawn_at[rows], others)
        return gold.x, gold.score, plan.log_ratio(gold.log_prob, rows), gold.failures

    weight = bucket(plan.alternatives.shape[-2], 8)
    parts, reasons = in_chunks("mine", simulator, num_simulations, weight, run, progress or NoProgress())
    x, score, log_ratio = (np.concatenate(column) for column in zip(*parts, strict=True))
    kept, failures = settle(simulator, plan.drawn_at, reasons)
    columns = _columns(plan, kept)
    if reference is not None:
        columns["log_ratio"] = put(log_ratio[kept], np.float32)
    return Simulations(
        x=put(x[kept][:, None]),
        score=put(score[kept]),
        simulator=simulator,
        failures=failures,
        reference=reference,
        **columns,
    )


@options_checked()
def contrast(
    key: Key,
    simulator: AbstractSimulator,
    *,
    num_simulations: int,
    theta: Array | Mapping[str, Any] | None = None,
    reference: AbstractReference = MarginalReference(),
    progress: AbstractProgress | None = None,
) -> Simulations:
    """What `mine` gives, without the gold: observations of numerators and of the reference, and their labels.

    It runs any simulator. Parameters, returns and errors are those of `mine`, but that a mixture without a pool has a
    theta for every row: there are no joint log-probabilities to evaluate over it.
    """
    if not isinstance(simulator, AbstractSimulator):
        raise not_a_simulator(simulator)
    check_reference(reference)
    anywhere = isinstance(reference, MarginalReference) and reference.pool is None and theta is None
    wanted = MarginalReference(num_simulations) if anywhere else reference  # no gold to mine: a larger pool is free
    ready, plan, run_key = _planned(key, simulator, num_simulations, theta, wanted)
    sims = simulate(run_key, simulator, theta=plan.drawn_at, progress=progress)
    kept = np.setdiff1d(np.arange(num_simulations), [failure.row for failure in sims.failures])
    return dataclasses.replace(sims, reference=reference if anywhere else ready, **_columns(plan, kept))


def _planned(
    key: Key,
    simulator: AbstractSimulator,
    num_simulations: int,
    theta: Array | Mapping[str, Any] | None,
    reference: AbstractReference | None,
) -> tuple[AbstractReference | None, Plan, Key]:
    """The reference, made concrete; what to simulate; and the key to do it with."""
    if num_simulations < 2:
        raise ValueError(f"num_simulations must be at least 2, got {num_simulations}")
    prior, (pool_key, plan_key, run_key) = simulator.prior, jax.random.split(key, 3)
    numerators = None if theta is None else prior.rows(theta)
    if reference is None:
        return None, scores_alone(plan_key, prior, numerators, num_simulations), run_key
    check_reference(reference)
    ready = reference.prepare(pool_key, prior, numerators)
    return ready, ready.plan(plan_key, prior, numerators, num_simulations), run_key


def _columns(plan: Plan, rows: np.ndarray | slice) -> dict[str, jax.Array]:
    """What the plan says of some rows, by the names that it has in `Simulations`."""
    if plan.label is None:
        return {"theta": put(plan.theta[rows])}
    names = ("theta", "label", "drawn_at", "theta_reference")
    return {name: put(getattr(plan, name)[rows]) for name in names if getattr(plan, name) is not None}
