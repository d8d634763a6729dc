"""Where machines and chains work: standardised unconstrained parameters, and normal distributions on them."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.batches import over_rows, put
from ...core.loss import AbstractFrozen
from ...core.prior import Prior
from ...core.solution import Array

LOG_2PI = float(np.log(2 * np.pi))
FARTHEST = 20.0  # standard deviations, for what is infinitely far; of 7 million uniform draws one is at an end
JITTER = 1e-6  # of the variance of points, so that their covariance has a root


class Space(AbstractFrozen):
    """Unconstrained parameters, standardised, written u. Nothing on this space can leave the prior's support.

    Fields
    ------
    location, spread: mean and standard deviation `(d,)` of the unconstrained parameters of the simulations.
    prior: the prior.
    """

    location: jax.Array
    spread: jax.Array
    prior: Prior = eqx.field(static=True)

    @staticmethod
    def of(prior: Prior, theta: Array) -> "Space":
        """The space standardised by theta `(n, dim)`."""
        v = over_rows(lambda rows: _unconstrained(prior, rows), theta).astype(np.float64)
        v = v[np.isfinite(v).all(axis=1)]  # a draw at an end of the support is not
        location, spread = np.mean(v, axis=0), np.maximum(np.std(v, axis=0), 1e-6)
        return Space(jnp.asarray(location, jnp.float32), jnp.asarray(spread, jnp.float32), prior)

    @property
    def dim(self) -> int:
        """d, the number of unconstrained parameters."""
        return len(self.location)

    def encode(self, theta: Array) -> jax.Array:
        """theta `(..., dim)` -> u `(..., d)`; an end of the support, infinitely far, is taken to be 20 away."""
        return jnp.nan_to_num(self._encode(theta), nan=jnp.nan, posinf=FARTHEST, neginf=-FARTHEST)

    def _encode(self, theta: Array) -> jax.Array:
        return (self.prior.unconstrain(theta) - self.location) / self.spread

    def encoded(self, theta: Array) -> np.ndarray:
        """`encode` for rows of theta `(n, dim)` that are data, not part of a computation."""
        v = over_rows(lambda rows: _unconstrained(self.prior, rows), theta)
        u = (v - np.asarray(self.location)) / np.asarray(self.spread)
        return np.nan_to_num(u, nan=np.nan, posinf=FARTHEST, neginf=-FARTHEST)

    def decode(self, u: Array) -> jax.Array:
        """u `(..., d)` -> theta `(..., dim)`, inside the prior's support."""
        return self.prior.constrain(u * self.spread + self.location)

    def log_prior(self, u: Array) -> jax.Array:
        """Log density `(...)` of the prior at u `(..., d)`."""
        return self.prior.log_prob_unconstrained(u * self.spread + self.location) + jnp.sum(jnp.log(self.spread))

    def log_volume(self, u: Array) -> jax.Array:
        """log |d theta / d u| `(...)` at u `(..., d)`."""
        return self.log_prior(u) - self.prior.log_prob(self.decode(u))

    def inside(self, theta: Array) -> tuple[jax.Array, jax.Array]:
        """u `(..., d)` of theta `(..., dim)`, and whether it is inside the prior's support; where not, u is 0.

        The ends of the support, where u is infinite, are not inside.
        """
        u = self._encode(jnp.where(self.prior.contains(theta)[..., None], theta, self.decode(jnp.zeros(self.dim))))
        within = self.prior.contains(theta) & jnp.all(jnp.isfinite(u), axis=-1)
        return jnp.where(within[..., None], u, 0.0), within

    def density(self, theta: Array, log_q: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """Log density `(...)` at theta `(..., dim)` where over u it is `log_q`; -inf outside the support."""
        u, within = self.inside(theta)
        return jnp.where(within, log_q(u) - self.log_volume(u), -jnp.inf)


@functools.partial(jax.jit, static_argnums=0)
def _unconstrained(prior: Prior, theta: jax.Array) -> jax.Array:
    return prior.unconstrain(theta)


class Gaussian(NamedTuple):
    """A normal on u, with covariance `diag(scale) R R^T diag(scale)`, R unit lower triangular.

    mean `(d,)`, scale `(d,)`, and `shear`: R's entries below the diagonal, `(0,)` when R is the identity.
    """

    mean: jax.Array
    scale: jax.Array
    shear: jax.Array

    @staticmethod
    def of(psi: jax.Array, dim: int) -> "Gaussian":
        """From the flat vector psi = (mean, log scale, shear)."""
        return Gaussian(psi[:dim], jnp.exp(psi[dim : 2 * dim]), psi[2 * dim :])

    @staticmethod
    def num_parameters(dim: int, full_covariance: bool) -> int:
        """The length of psi."""
        return 2 * dim + (dim * (dim - 1) // 2 if full_covariance else 0)

    def widened(self, width: float) -> "Gaussian":
        """The same, with `width` added to every scale in quadrature."""
        return self._replace(scale=jnp.sqrt(self.scale**2 + width**2))

    @property
    def root(self) -> jax.Array:
        """R `(d, d)`."""
        d = len(self.mean)
        return jnp.eye(d).at[np.tril_indices(d, -1)].set(self.shear) if len(self.shear) else jnp.eye(d)

    def at(self, standard: jax.Array) -> jax.Array:
        """The points `(..., d)` with these standard coordinates `(..., d)`."""
        return self.mean + self.scale * (standard @ self.root.T if len(self.shear) else standard)

    def standard(self, u: jax.Array) -> jax.Array:
        """Standard coordinates `(..., d)` of u `(..., d)`, by forward substitution."""
        y = (u - self.mean) / self.scale
        if not len(self.shear):
            return y
        root, w = self.root, []
        for i in range(len(self.mean)):
            w.append(y[..., i] - sum(root[i, j] * w[j] for j in range(i)))
        return jnp.stack(w, axis=-1)

    def log_prob(self, u: jax.Array) -> jax.Array:
        """Log density `(...)` at u `(..., d)`."""
        return -0.5 * jnp.sum(self.standard(u) ** 2 + LOG_2PI, axis=-1) - jnp.sum(jnp.log(self.scale))

    def gradient(self, u: jax.Array) -> jax.Array:
        """grad_psi log q(u | psi) `(..., p)` at u `(..., d)`, each entry in units of the proposal's own scales."""
        w = self.standard(u)
        parts = [w, w**2 - 1]
        if len(self.shear):
            low, high = np.tril_indices(len(self.mean), -1)
            parts.append(w[..., low] * w[..., high])
        return jnp.concatenate(parts, axis=-1)


class Frame(NamedTuple):
    """u = centre + root z: `(d,)` and `(d, d)`, lower triangular, so that z of some points have covariance 1."""

    centre: jax.Array
    root: jax.Array

    @staticmethod
    def of(u: np.ndarray) -> "Frame":
        """Of points u `(n, d)`, in float64."""
        covariance = np.atleast_2d(np.cov(u.T))
        root = np.linalg.cholesky(covariance + JITTER * np.diag(np.diag(covariance) + JITTER))
        return Frame(put(np.mean(u, axis=0), np.float32), put(root, np.float32))

    def encode(self, u: np.ndarray) -> jax.Array:
        """z `(n, d)` of u."""
        return put(np.linalg.solve(np.asarray(self.root, np.float64), (u - np.asarray(self.centre)).T).T, np.float32)

    def decode(self, z: Array) -> np.ndarray:
        """u `(..., d)` of z, in float64."""
        return np.asarray(z, np.float64) @ np.asarray(self.root, np.float64).T + np.asarray(self.centre)
