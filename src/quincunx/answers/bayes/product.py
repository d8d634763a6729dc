"""Prior times likelihood, where the likelihood or a ratio can be evaluated, what samples it, and its draws."""

import abc
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.batches import bucket, filled, over_rows, put, traced
from ...core.prior import Prior
from ...core.simulations import as_observations
from ...core.solution import Array, Key
from ..estimates import AbstractRatio
from .posterior import AbstractPosterior, picked
from .space import Space

BLOCK = 256  # thetas at which the likelihood is evaluated at once
NUM_STANDARD = 4096  # draws of the prior that the space is standardised by


class LikelihoodPosterior(AbstractPosterior):
    """prior(theta) times the product of r(x_i | theta), by an estimator of the ratio or of the likelihood.

    Fields
    ------
    space: the space of u.
    estimator: of the ratio.
    x: the observations `(m, *event)`.
    draws: theta `(n, dim)`, which `sample` and the moments are taken from.
    log_evidence: log of the integral of prior times ratios, `()`; for a likelihood, of p(x).
    diagnostics: what the sampler says of its draws, by name.
    warnings: reasons not to trust it as it stands.
    """

    space: Space
    estimator: AbstractRatio
    x: jax.Array
    draws: jax.Array
    log_evidence: jax.Array
    diagnostics: Mapping[str, float]
    warnings: tuple[str, ...] = eqx.field(static=True, default=())

    @property
    def prior(self) -> Prior:
        return self.space.prior

    @property
    def points(self) -> jax.Array:
        return self.draws

    def sample(self, key: Key, num_samples: int) -> jax.Array:
        return picked(key, self.draws, num_samples)

    def log_prob(self, theta: Array) -> jax.Array:
        theta = theta if traced(theta) else np.asarray(theta)
        target = Target(self.estimator, self.space, *padded(self.x))
        found = lambda rows: _log_prob(target, self.log_evidence, rows)
        rows = theta.reshape(-1, theta.shape[-1])
        return put(found(rows) if traced(theta) else over_rows(found, rows)).reshape(theta.shape[:-1])


class Target(eqx.Module):
    """What is sampled: prior times likelihood over u, up to the evidence.

    Fields
    ------
    estimator: of a ratio or of the likelihood.
    space: the space of u.
    x, weight: observations `(k, *event)`, filled up to one of few sizes, and `(k,)`: 0 for those that were added.
    """

    estimator: AbstractRatio
    space: Space
    x: jax.Array
    weight: jax.Array

    @staticmethod
    def of(key: Key, estimator: AbstractRatio, x: Array) -> "Target":
        """Standardised by draws of the prior. Raises `ValueError` for observations of the wrong shape or with NaN."""
        x = as_observations(x, estimator.event_shape, f"the simulator {estimator.simulator.name!r}")
        return Target(estimator, Space.of(estimator.prior, estimator.prior.sample(key, NUM_STANDARD)), *padded(x))

    def raw(self, u: jax.Array) -> jax.Array:
        """Log-likelihood `(n,)` at u `(n, d)`, with NaN where the estimator gives it."""
        return log_likelihood(self.estimator, self.space, self.x, self.weight, u)

    def log_likelihood(self, u: jax.Array) -> jax.Array:
        """The same, -inf for NaN. Whoever samples counts how often `raw` is NaN, and says so."""
        return without_nan(self.raw(u))

    def log_density(self, u: jax.Array) -> jax.Array:
        """Of prior times likelihood, over u: `(n,)` at u `(n, d)`."""
        return self.log_likelihood(u) + self.space.log_prior(u)


class AbstractSampler(eqx.Module):
    """How draws of prior times likelihood are made: an option of `qx.posterior`."""

    @abc.abstractmethod
    def posterior(self, key: Key, estimator: AbstractRatio, x: Array) -> LikelihoodPosterior:
        """The posterior given observations x `(m, *event)`, with draws of it.

        Raises
        ------
        ValueError: observations of the wrong shape or with NaN, or that no theta of the prior can have made.
        """


def without_nan(log_likelihood: jax.Array) -> jax.Array:
    return jnp.where(jnp.isnan(log_likelihood), -jnp.inf, log_likelihood)


def padded(x: Array) -> tuple[jax.Array, jax.Array]:
    """Observations filled up, so that a few more compile nothing, and their weights."""
    size = bucket(len(x), 8)
    return put(filled(x, size)), put((np.arange(size) < len(x)).astype(np.float32))


@eqx.filter_jit
def _log_prob(target: Target, log_evidence: jax.Array, theta: jax.Array) -> jax.Array:
    u, inside = target.space.inside(theta)
    value = target.space.prior.log_prob(theta) + target.raw(u) - log_evidence
    return jnp.where(inside, value, -jnp.inf)


@eqx.filter_jit
def log_likelihood(estimator: AbstractRatio, space: Space, x: jax.Array, weight: jax.Array, u: jax.Array) -> jax.Array:
    """Sum of the log-ratios `(n,)` at u `(n, d)`, of the observations whose weight `(m,)` is not 0."""

    def one(u: jax.Array) -> jax.Array:
        found = estimator.log_ratio(space.decode(u), x)
        return jnp.sum(jnp.where(weight > 0, found, 0.0))

    return jax.lax.map(one, u, batch_size=BLOCK)
