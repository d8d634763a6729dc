"""`mine`: simulate with gold, and set numerators against a reference.

A ratio needs a denominator. A numerator is p(x | theta) at the theta of a row; the reference is one of

- `PointReference`: p(x | theta_ref), one fixed hypothesis (CARL's choice, Cranmer et al. 2015, arXiv:1506.02169);
- `PairReference`: p(x | theta_ref) with a theta_ref of its own for every row, for doubly parameterised estimators;
- `MarginalReference`: the mixture mean_j p(x | theta_j) over a pool of prior draws. The numerators are of the pool,
  so no joint ratio exceeds the pool's size, and the ratio is the likelihood-to-evidence ratio of AALR.
"""

import abc
import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._types import Array, Key
from .mined import AbstractMinedSimulator, Gold
from .nets.frozen import AbstractFrozen
from .prior import Prior
from .progress import AbstractProgress, NoProgress
from .simulate import SimulationError, simulate
from .simulations import Simulations
from .simulator import AbstractJaxSimulator, AbstractSimulator

POOL_SIZE = 256
CHUNK = 4_000_000  # joint log-probabilities between two reports of progress


class Plan(NamedTuple):
    """What to simulate: hypothesis and origin of every row, and where to evaluate the joint log-probability.

    Fields
    ------
    theta: numerators `(n, dim)`.
    drawn_at: `(n, dim)`, where x is drawn.
    label: `(n,)`, 1 where that is the numerator.
    theta_reference: `(n, dim)` or None.
    alternatives: `(n, 2, dim)`: numerator and denominator; or the pool `(K, dim)`.
    numerator: `(n,)`, the numerator's place among the alternatives.
    """

    theta: np.ndarray
    drawn_at: np.ndarray
    label: np.ndarray
    theta_reference: np.ndarray | None
    alternatives: np.ndarray
    numerator: np.ndarray


class AbstractReference(AbstractFrozen):
    """The denominator of likelihood ratios."""

    @abc.abstractmethod
    def prepare(self, key: Key, prior: Prior, theta: Array | None) -> "AbstractReference":
        """The same reference, made concrete: a pool is drawn, unless theta `(K, dim)` is one; values are checked."""

    @abc.abstractmethod
    def plan(self, key: Key, prior: Prior, theta: Array | None, num_rows: int) -> Plan:
        """Rows for `num_rows` simulations, with numerators from theta `(K, dim)`, or from the prior if None."""

    @abc.abstractmethod
    def log_ratio(self, log_prob: np.ndarray, numerator: np.ndarray) -> np.ndarray:
        """Joint log-ratios `(n,)` from the log-probabilities `(n, J)` at the plan's alternatives."""


class PointReference(AbstractReference):
    """p(x | theta) at one fixed theta `(dim,)`."""

    theta: jax.Array = eqx.field(converter=lambda theta: jnp.atleast_1d(jnp.asarray(theta, jnp.float32)))

    def prepare(self, key: Key, prior: Prior, theta: Array | None) -> "PointReference":
        if self.theta.shape != (prior.dim,):
            raise ValueError(
                f"PointReference: expected a theta of shape ({prior.dim},), a value for each of {prior.columns}, "
                f"got {self.theta.shape}"
            )
        prior.check(self.theta)
        return self

    def plan(self, key: Key, prior: Prior, theta: Array | None, num_rows: int) -> Plan:
        numerators = _numerators(key, prior, theta, num_rows)
        references = np.broadcast_to(np.asarray(self.theta), numerators.shape)
        return _two_sided(numerators, references)._replace(theta_reference=None)

    def log_ratio(self, log_prob: np.ndarray, numerator: np.ndarray) -> np.ndarray:
        return _difference(log_prob)


class PairReference(AbstractReference):
    """p(x | theta_ref), every row with a theta_ref of its own, drawn like the numerators."""

    def prepare(self, key: Key, prior: Prior, theta: Array | None) -> "PairReference":
        if theta is not None and len(theta) < 2:
            raise ValueError("pairs need at least 2 thetas to choose from; give more, or a PointReference")
        return self

    def plan(self, key: Key, prior: Prior, theta: Array | None, num_rows: int) -> Plan:
        first, second, order = jax.random.split(key, 3)
        references = np.random.default_rng(_seed(order)).permutation(_numerators(second, prior, theta, num_rows))
        return _two_sided(_numerators(first, prior, theta, num_rows), references)

    def log_ratio(self, log_prob: np.ndarray, numerator: np.ndarray) -> np.ndarray:
        return _difference(log_prob)


class MarginalReference(AbstractReference):
    """The mixture mean_j p(x | theta_j) over a pool of prior draws.

    Fields
    ------
    pool_size: how many thetas to draw; those given to `mine` take their place. The work of mining grows with it.
    pool: the thetas `(K, dim)`, once drawn.
    """

    pool_size: int = eqx.field(static=True, default=POOL_SIZE)
    pool: jax.Array | None = None

    def prepare(self, key: Key, prior: Prior, theta: Array | None) -> "MarginalReference":
        if self.pool_size < 2:
            raise ValueError(f"pool_size must be at least 2, got {self.pool_size}")
        if self.pool is not None and theta is not None:
            raise ValueError("theta is the pool of a MarginalReference; give a pool or theta, one of the two")
        drawn = prior.sample(key, self.pool_size) if theta is None else theta
        pool = _hypotheses(prior, drawn if self.pool is None else self.pool)
        if len(pool) < 2:
            raise ValueError("a mixture needs at least 2 thetas; give more, or a PointReference")
        return MarginalReference(len(pool), jnp.asarray(pool))

    def plan(self, key: Key, prior: Prior, theta: Array | None, num_rows: int) -> Plan:
        pool = np.asarray(self.pool)
        if num_rows < len(pool):
            raise ValueError(f"{num_rows} simulations are fewer than the {len(pool)} thetas of the mixture; give more")
        rng = np.random.default_rng(_seed(key))
        origin = rng.permutation(np.arange(num_rows) % len(pool))
        label = _labels(num_rows)
        # In a row of label 0, x comes from the mixture: its hypothesis is any of the pool, whatever x came from.
        numerator = np.where(label == 1, origin, rng.permutation(np.arange(num_rows) % len(pool)))
        return Plan(pool[numerator], pool[origin], label, None, pool, numerator)

    def log_ratio(self, log_prob: np.ndarray, numerator: np.ndarray) -> np.ndarray:
        log_prob = log_prob.astype(np.float64)
        top = log_prob.max(axis=1, keepdims=True)
        evidence = top[:, 0] + np.log(np.mean(np.exp(log_prob - top), axis=1))
        return log_prob[np.arange(len(log_prob)), numerator] - evidence


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


def _hypotheses(prior: Prior, theta: Array) -> np.ndarray:
    theta = np.asarray(theta, dtype=np.float32)
    if theta.ndim != 2 or theta.shape[1] != prior.dim or len(theta) == 0:
        raise ValueError(
            f"theta: expected shape (K, {prior.dim}), a column for each of {prior.columns}, got {theta.shape}"
        )
    prior.check(theta)
    return theta


def _check_reference(reference: object) -> None:
    if not isinstance(reference, AbstractReference):
        raise TypeError(
            f"reference: expected PointReference(theta), PairReference() or MarginalReference(), got "
            f"{type(reference).__name__}"
        )


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


def _numerators(key: Key, prior: Prior, theta: Array | None, num_rows: int) -> np.ndarray:
    """`(num_rows, dim)`: those given, in turn, each as often with label 1 as with label 0; or draws from the prior."""
    if theta is None:
        return np.asarray(prior.sample(key, num_rows), np.float32)
    order = np.random.default_rng(_seed(key)).permutation(len(theta))
    return np.asarray(theta, np.float32)[order[np.arange(num_rows) // 2 % len(theta)]]


def _two_sided(numerators: np.ndarray, references: np.ndarray) -> Plan:
    label = _labels(len(numerators))
    drawn_at = np.where(label[:, None] == 1, numerators, references)
    pair = np.stack([numerators, references], axis=1)
    return Plan(numerators, drawn_at, label, references, pair, np.zeros(len(label), int))


def _labels(num_rows: int) -> np.ndarray:
    return (np.arange(num_rows) % 2 == 0).astype(np.float32)


def _difference(log_prob: np.ndarray) -> np.ndarray:
    return log_prob[:, 0].astype(np.float64) - log_prob[:, 1]


def _seed(key: Key) -> int:
    return int(jax.random.randint(key, (), 0, np.iinfo(np.int32).max))
