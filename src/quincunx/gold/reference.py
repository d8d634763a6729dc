"""The denominator of likelihood ratios. A numerator is p(x | theta) at the theta of a row; the reference is one of

- `PointReference`: p(x | theta_ref), one fixed hypothesis (CARL's choice, Cranmer et al. 2015, arXiv:1506.02169);
- `PairReference`: p(x | theta_ref) with a theta_ref of its own for every row, for doubly parameterised estimators;
- `MarginalReference`: the mixture mean_j p(x | theta_j) over a pool of prior draws. The numerators are of the pool,
  so no joint ratio exceeds the pool's size, and the ratio is the likelihood-to-evidence ratio of AALR.
"""

import abc
from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from ..core.batches import put
from ..core.loss import AbstractFrozen
from ..core.prior import Prior
from ..core.solution import Array, Key, rng_of

POOL_SIZE = 256


class Plan(NamedTuple):
    """What to simulate: hypothesis and origin of every row, and where to evaluate the joint log-probability.

    Fields
    ------
    theta: numerators `(n, dim)`.
    drawn_at: `(n, dim)`, where x is drawn.
    label: `(n,)`, 1 where that is the numerator; None without a reference.
    theta_reference: `(n, dim)` or None.
    alternatives: `(n, J, dim)`, such as numerator and denominator; or the same for all rows, `(J, dim)`.
    numerator: `(n,)`, the numerator's place among the alternatives.
    denominator: where the thetas whose mixture is the denominator begin; they are all the rest.
    """

    theta: np.ndarray
    drawn_at: np.ndarray
    label: np.ndarray | None
    theta_reference: np.ndarray | None
    alternatives: np.ndarray
    numerator: np.ndarray
    denominator: int

    def log_ratio(self, log_prob: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Joint log-ratios `(k,)`, in float64, of k rows from their log-probabilities `(k, J)` at the alternatives."""
        log_prob = log_prob.astype(np.float64)
        mixture = log_prob[:, self.denominator :]
        top = mixture.max(axis=1, keepdims=True)
        top = np.where(np.isneginf(top), 0.0, top)  # a path that the reference cannot take
        with np.errstate(divide="ignore"):
            evidence = top[:, 0] + np.log(np.mean(np.exp(mixture - top), axis=1))
        return log_prob[np.arange(len(rows)), self.numerator[rows]] - evidence


class AbstractReference(AbstractFrozen):
    """The denominator of likelihood ratios."""

    @abc.abstractmethod
    def prepare(self, key: Key, prior: Prior, theta: Array | None) -> "AbstractReference":
        """The same reference, made concrete: a pool is drawn, unless theta `(K, dim)` is one; values are checked."""

    @abc.abstractmethod
    def plan(self, key: Key, prior: Prior, theta: Array | None, num_rows: int) -> Plan:
        """Rows for `num_rows` simulations, with numerators from theta `(K, dim)`, or from the prior if None."""


class PointReference(AbstractReference):
    """p(x | theta) at one fixed theta: `(dim,)`, or values by name, which `prepare` puts in order."""

    theta: jax.Array | Mapping[str, float] = eqx.field(converter=lambda theta: _point(theta))

    def prepare(self, key: Key, prior: Prior, theta: Array | None) -> "PointReference":
        rows = self.theta if isinstance(self.theta, Mapping) else np.asarray(self.theta)[None]
        return PointReference(prior.rows(rows, "the theta of a PointReference")[0])

    def plan(self, key: Key, prior: Prior, theta: Array | None, num_rows: int) -> Plan:
        numerators = _numerators(key, prior, theta, num_rows)
        references = np.broadcast_to(np.asarray(self.theta), numerators.shape)
        return _two_sided(numerators, references)._replace(theta_reference=None)


def _point(theta: Any) -> Any:
    return dict(theta) if isinstance(theta, Mapping) else put(np.array(theta, np.float32, ndmin=1))


class PairReference(AbstractReference):
    """p(x | theta_ref), every row with a theta_ref of its own, drawn like the numerators."""

    def prepare(self, key: Key, prior: Prior, theta: Array | None) -> "PairReference":
        if theta is not None and len(theta) < 2:
            raise ValueError("pairs need at least 2 thetas to choose from; give more, or a PointReference")
        return self

    def plan(self, key: Key, prior: Prior, theta: Array | None, num_rows: int) -> Plan:
        first, second, order = jax.random.split(key, 3)
        references = rng_of(order).permutation(_numerators(second, prior, theta, num_rows))
        return _two_sided(_numerators(first, prior, theta, num_rows), references)


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
        given = theta if self.pool is None else self.pool
        pool = prior.rows(prior.sample(key, self.pool_size) if given is None else given)
        if len(pool) < 2:
            raise ValueError("a mixture needs at least 2 thetas; give more, or a PointReference")
        return MarginalReference(len(pool), put(pool))

    def plan(self, key: Key, prior: Prior, theta: Array | None, num_rows: int) -> Plan:
        pool, rng = np.asarray(self.pool), rng_of(key)
        if num_rows < len(pool):
            raise ValueError(f"{num_rows} simulations are fewer than the {len(pool)} thetas of the mixture; give more")
        origin, other = (rng.permutation(np.arange(num_rows) % len(pool)) for _ in range(2))
        label = _labels(num_rows)
        # In a row of label 0, x comes from the mixture: its hypothesis is any of the pool, whatever x came from.
        numerator = np.where(label == 1, origin, other)
        return Plan(pool[numerator], pool[origin], label, None, pool, numerator, 0)


def scores_alone(key: Key, prior: Prior, theta: Array | None, num_rows: int) -> Plan:
    """A plan without a reference: every row is drawn at its theta."""
    numerators = _numerators(key, prior, theta, num_rows)
    return Plan(numerators, numerators, None, None, numerators[:, None], np.zeros(num_rows, int), 0)


def check_reference(reference: object) -> None:
    if not isinstance(reference, AbstractReference):
        raise TypeError(
            f"reference: expected PointReference(theta), PairReference() or MarginalReference(), got "
            f"{type(reference).__name__}"
        )


def _numerators(key: Key, prior: Prior, theta: Array | None, num_rows: int) -> np.ndarray:
    """`(num_rows, dim)`: those given, in turn, each as often with label 1 as with label 0; or draws from the prior."""
    if theta is None:
        return np.asarray(prior.sample(key, num_rows), np.float32)
    order = rng_of(key).permutation(len(theta))
    return np.asarray(theta, np.float32)[order[np.arange(num_rows) // 2 % len(theta)]]


def _two_sided(numerators: np.ndarray, references: np.ndarray) -> Plan:
    label = _labels(len(numerators))
    drawn_at = np.where(label[:, None] == 1, numerators, references)
    pair = np.stack([numerators, references], axis=1)
    return Plan(numerators, drawn_at, label, references, pair, np.zeros(len(label), int), 1)


def _labels(num_rows: int) -> np.ndarray:
    return (np.arange(num_rows) % 2 == 0).astype(np.float32)
