"""Estimates of parameters: final, immutable values that sample, evaluate and summarise."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from ...core.prior import Prior
from ...core.solution import Array, Key
from .space import Gaussian, Space

NUM_POINTS = 4096  # at which the moments and quantiles of a proposal are computed
SUMMARY_LEVELS = (0.05, 0.5, 0.95)


class Proposal(eqx.Module):
    """q(theta | psi): an equal mixture of normals on the unconstrained space, carried back to the parameters.

    One recurrent machine's answer is one normal; marginalised over initial proposals it is a mixture.
    No draw can leave the prior's support.

    Fields
    ------
    space: the space of u.
    psi: `(K, p)`, one row (mean, log scale, shear) per component.
    """

    space: Space
    psi: jax.Array

    @property
    def prior(self) -> Prior:
        return self.space.prior

    @property
    def num_components(self) -> int:
        return len(self.psi)

    @property
    def mean(self) -> jax.Array:
        """E_q[theta] `(dim,)`."""
        return jnp.mean(self._points, axis=0)

    @property
    def std(self) -> jax.Array:
        """Standard deviations `(dim,)` of the parameters under q."""
        return jnp.std(self._points, axis=0)

    def quantile(self, level: float | Array) -> jax.Array:
        """Marginal quantiles `(*level.shape, dim)` at levels in [0, 1]."""
        return jnp.quantile(self._points, jnp.asarray(level), axis=0)

    def interval(self, level: float = 0.95) -> jax.Array:
        """Central intervals `(2, dim)`: lower and upper ends."""
        return self.quantile(jnp.array([(1 - level) / 2, (1 + level) / 2]))

    def sample(self, key: Key, num_samples: int) -> jax.Array:
        """Draws of theta `(num_samples, dim)`."""
        component_key, normal_key = jax.random.split(key)
        component = jax.random.randint(component_key, (num_samples,), 0, self.num_components)
        standard = jax.random.normal(normal_key, (num_samples, self.space.dim))
        return self.space.decode(jax.vmap(self._at)(self.psi[component], standard))

    def log_prob(self, theta: Array) -> jax.Array:
        """Log density `(...)` at theta `(..., dim)`; -inf outside the prior's support."""
        inside = self.prior.contains(theta)
        middle = self.space.decode(jnp.zeros(self.space.dim))
        u = self.space.encode(jnp.where(inside[..., None], theta, middle))
        terms = jax.vmap(lambda psi: Gaussian.of(psi, self.space.dim).log_prob(u))(self.psi)
        log_q = jax.scipy.special.logsumexp(terms, axis=0) - jnp.log(self.num_components)
        return jnp.where(inside, log_q - self.space.log_volume(u), -jnp.inf)

    def summary(self) -> dict[str, dict[str, float]]:
        """Per column of theta: mean, std, q05, q50, q95."""
        rows = [self.mean, self.std, *self.quantile(jnp.array(SUMMARY_LEVELS))]
        names = ["mean", "std", *(f"q{round(100 * level):02d}" for level in SUMMARY_LEVELS)]
        table = np.asarray(jnp.stack(rows))
        return {
            column: dict(zip(names, table[:, i].tolist(), strict=True)) for i, column in enumerate(self.prior.columns)
        }

    @property
    def _points(self) -> jax.Array:
        """theta `(n, dim)` at fixed, evenly spread standard coordinates, the same for every component."""
        standard = jnp.asarray(_spread_points(self.space.dim, max(16, NUM_POINTS // self.num_components)))
        u = jax.vmap(lambda psi: self._at(psi, standard))(self.psi)
        return self.space.decode(u.reshape(-1, self.space.dim))

    def _at(self, psi: jax.Array, standard: jax.Array) -> jax.Array:
        return Gaussian.of(psi, self.space.dim).at(standard)


@functools.lru_cache(maxsize=8)
def _spread_points(dim: int, count: int) -> np.ndarray:
    """`(count, dim)` standard normal points, a scrambled Sobol sequence and its mirror image: moments converge fast."""
    half = qmc.Sobol(dim, scramble=True, rng=0).random(2 ** max(3, (count // 2 - 1).bit_length()))
    normal = ndtri(half)
    return np.concatenate([normal, -normal]).astype(np.float32)
