"""Prior times likelihood, where the likelihood or a ratio can be evaluated, with draws from it."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp

from ...core.prior import Prior
from ...core.solution import Array, Key
from ..estimates import AbstractRatio
from .posterior import AbstractPosterior, picked
from .space import Space

BLOCK = 256  # thetas at which the likelihood is evaluated at once


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
        theta = jnp.asarray(theta)
        rows = theta.reshape(-1, theta.shape[-1])
        u, inside = self.space.inside(rows)
        found = log_likelihood(self.estimator, self.space, self.x, jnp.ones(len(self.x)), u)
        value = self.prior.log_prob(rows) + found - self.log_evidence
        return jnp.where(inside, value, -jnp.inf).reshape(theta.shape[:-1])


@eqx.filter_jit
def log_likelihood(estimator: AbstractRatio, space: Space, x: jax.Array, weight: jax.Array, u: jax.Array) -> jax.Array:
    """Sum of the log-ratios `(n,)` at u `(n, d)`, of the observations whose weight `(m,)` is not 0."""

    def one(u: jax.Array) -> jax.Array:
        found = estimator.log_ratio(space.decode(u), x)
        return jnp.sum(jnp.where(weight > 0, found, 0.0))

    return jax.lax.map(one, u, batch_size=BLOCK)
