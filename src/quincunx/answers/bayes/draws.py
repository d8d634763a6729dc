"""The posterior as draws: what is left of methods that can only say which parameters were kept."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.batches import over_rows, put, traced
from ...core.prior import Prior
from ...core.solution import Array, Key
from .posterior import AbstractPosterior, picked
from .space import LOG_2PI, Space

NUM_DRAWS = 4096
JITTER = 1e-9  # of a variance, so that draws in a plane have a density too
BLOCK = 64  # thetas whose density is evaluated at once


class DrawnPosterior(AbstractPosterior):
    """Draws of theta, and between them a kernel estimate of their density.

    The density is an estimate: that of normals at the draws, over unconstrained parameters whitened by the draws'
    covariance, with the bandwidth n^(-1 / (d + 4)) for n effective draws (Scott 1992). It is too wide where the
    posterior has separate modes or sharp edges. Moments, quantiles and `sample` are those of the draws, and know
    nothing of it.

    Fields
    ------
    space: the space of u.
    draws: theta `(n, dim)`, of equal weight; a draw that weighs more is there more than once.
    num_effective: how many independent draws they are worth, `()`.
    warnings: reasons not to trust it as it stands.
    """

    space: Space
    draws: jax.Array
    num_effective: jax.Array
    warnings: tuple[str, ...] = eqx.field(static=True, default=())

    @staticmethod
    def of(
        rng: np.random.Generator,
        space: Space,
        u: np.ndarray,
        weight: np.ndarray,
        num_effective: float,
        warnings: tuple[str, ...] = (),
    ) -> "DrawnPosterior":
        """From u `(n, d)` and weights `(n,)`: a fixed number of draws, by systematic resampling, in random order."""
        rows = rng.permutation(systematic(rng, weight, NUM_DRAWS))
        draws = over_rows(space.prior.constrain, u[rows] * np.asarray(space.spread) + np.asarray(space.location))
        return DrawnPosterior(space, put(draws, np.float32), put(np.asarray(num_effective, np.float32)), warnings)

    @property
    def prior(self) -> Prior:
        return self.space.prior

    @property
    def points(self) -> jax.Array:
        return self.draws

    def sample(self, key: Key, num_samples: int) -> jax.Array:
        return picked(key, self.draws, num_samples)

    def log_prob(self, theta: Array) -> jax.Array:
        found: Any = lambda rows: _density(self.space, self.draws, self.num_effective, rows)
        rows = theta.reshape(-1, theta.shape[-1])
        return put(found(rows) if traced(theta) else over_rows(found, rows)).reshape(theta.shape[:-1])


def systematic(rng: np.random.Generator, weight: np.ndarray, count: int) -> np.ndarray:
    """So many rows, each as often as its weight `(n,)` says, up to one."""
    ends = np.cumsum(weight)
    places = (np.arange(count) + rng.random()) / count
    return np.minimum(np.searchsorted(ends / ends[-1], places, side="right"), len(weight) - 1)


@eqx.filter_jit
def _density(space: Space, draws: jax.Array, num_effective: jax.Array, theta: jax.Array) -> jax.Array:
    u = space.encode(draws)
    d = space.dim
    covariance = jnp.cov(u.T).reshape(d, d)
    root = jnp.linalg.cholesky(covariance + JITTER * (1 + jnp.trace(covariance)) * jnp.eye(d))
    root = root * jnp.maximum(num_effective, 2.0) ** (-1 / (d + 4))
    whitened = lambda u: jax.scipy.linalg.solve_triangular(root, u.T, lower=True).T
    centres = whitened(u)
    log_norm = jnp.log(len(u)) + d * LOG_2PI / 2 + jnp.sum(jnp.log(jnp.diag(root)))

    def one(at: jax.Array) -> jax.Array:
        return jax.scipy.special.logsumexp(-0.5 * jnp.sum((centres - at) ** 2, axis=1)) - log_norm

    return space.density(theta, lambda u: jax.lax.map(one, whitened(u), batch_size=BLOCK))
