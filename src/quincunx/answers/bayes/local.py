"""The posterior by a local emulator: a normal likelihood of summary statistics whose mean is a polynomial in theta."""

from itertools import combinations_with_replacement
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.batches import traced
from ...core.prior import Prior
from ...core.solution import Array, Key
from .box import Box
from .posterior import AbstractPosterior, picked


def powers(z: Array, degree: int) -> Any:
    """All products `(n, k)` of up to `degree` components of z `(n, d)`, from 1 on."""
    numpy = jnp if traced(z) else np
    which = [list(c) for k in range(degree + 1) for c in combinations_with_replacement(range(z.shape[1]), k)]
    return numpy.stack([z[:, c].prod(axis=1) for c in which], axis=1)


class Emulator(eqx.Module):
    """t_obs - t ~ N(f(z), V(z)) for the summaries t of data made at z: f a polynomial, V what noise there is.

    t is whitened: the noise of one simulated set has covariance 1. That of the observed set is `share` of it, and to
    it comes the error of f itself, which is least where most was simulated.

    Fields
    ------
    centre, scale: `(d,)`, of z.
    coefficients: `(k, q)`, of f.
    spread: `(k, k)`, such that p S p is the error of f at powers p, in units of the noise of a set.
    share: `()`.
    degree: of f.
    """

    centre: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    spread: np.ndarray
    share: np.ndarray
    degree: int = eqx.field(static=True)

    def _terms(self, z: Array) -> tuple[Any, Any]:
        """|f(z)|^2 and the variance, `(n,)` each."""
        p = powers((z - self.centre) / self.scale, self.degree)
        return ((p @ self.coefficients) ** 2).sum(axis=1), self.share + ((p @ self.spread) * p).sum(axis=1)

    def distance(self, z: Array) -> Any:
        """How far the observed summaries are from those made at z `(n, d)`: squared, in standard deviations `(n,)`."""
        square, variance = self._terms(z)
        return square / variance

    def log_likelihood(self, z: Array) -> Any:
        """Of the observed summaries at z `(n, d)`, `(n,)`, up to a constant."""
        numpy = jnp if traced(z) else np
        square, variance = self._terms(z)
        return -0.5 * (square / variance + self.coefficients.shape[1] * numpy.log(variance))


class Region(eqx.Module):
    """Where a round does not rule parameters out: distance(z) - least <= most."""

    emulator: Emulator
    least: np.ndarray
    most: np.ndarray

    def contains(self, z: Array) -> Any:
        """Booleans `(n,)` for z `(n, d)`."""
        return self.emulator.distance(z) - self.least <= self.most


class LocalPosterior(AbstractPosterior):
    """prior(theta) N(t_obs; f(theta), V(theta)) on the region that simulations were narrowed down to.

    Fields
    ------
    box: the coordinates of the emulator.
    emulator: of the last round.
    regions: of the rounds before; outside of them the posterior is taken for zero.
    draws: theta `(n, dim)`, which `sample` and the moments are taken from.
    log_evidence: log of the integral of prior times likelihood, `()`.
    warnings: reasons not to trust it as it stands.
    """

    box: Box
    emulator: Emulator
    regions: tuple[Region, ...]
    draws: jax.Array
    log_evidence: jax.Array
    warnings: tuple[str, ...] = eqx.field(static=True, default=())

    @property
    def prior(self) -> Prior:
        return self.box.prior

    @property
    def points(self) -> jax.Array:
        return self.draws

    def sample(self, key: Key, num_samples: int) -> jax.Array:
        return picked(key, self.draws, num_samples)

    def log_prob(self, theta: Array) -> jax.Array:
        theta = np.asarray(theta) if not traced(theta) else theta
        rows = theta.reshape(-1, theta.shape[-1])
        inside = self.prior.contains(rows)
        numpy = jnp if traced(theta) else np
        z = self.box.encode(numpy.where(inside[:, None], rows, self.draws[0]))
        for region in self.regions:
            inside = inside & region.contains(z)
        value = self.prior.log_prob(rows) + self.emulator.log_likelihood(z) - self.log_evidence
        return jnp.where(inside, value, -jnp.inf).reshape(theta.shape[:-1])
