"""Posteriors: final, immutable values that sample, evaluate and summarise."""

import abc
import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from ...core.batches import bucket, put
from ...core.prior import Prior
from ...core.solution import Array, Key, rng_of
from .space import Gaussian, Space

NUM_POINTS = 4096  # at which the moments and quantiles of a proposal are computed
SUMMARY_LEVELS = (0.05, 0.5, 0.95)
CLOUD, NUM_CLOUDS = 1024, 10  # of the search for the highest density


class AbstractPosterior(eqx.Module):
    """p(theta | x), or an estimate of it, for one data set."""

    @property
    @abc.abstractmethod
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust it as it stands."""

    @property
    @abc.abstractmethod
    def prior(self) -> Prior:
        """Of the parameters; no draw leaves its support."""

    @abc.abstractmethod
    def sample(self, key: Key, num_samples: int) -> jax.Array:
        """Draws of theta `(num_samples, dim)`."""

    @abc.abstractmethod
    def log_prob(self, theta: Array) -> jax.Array:
        """Log density `(...)` at theta `(..., dim)`; -inf outside the prior's support."""

    @property
    @abc.abstractmethod
    def points(self) -> jax.Array:
        """theta `(n, dim)`, spread like draws; moments and quantiles are taken over them."""

    @property
    def mean(self) -> jax.Array:
        """E[theta] `(dim,)`."""
        return _moments(self.points)[0]

    @property
    def std(self) -> jax.Array:
        """Standard deviations `(dim,)` of the parameters."""
        return _moments(self.points)[1]

    def quantile(self, level: float | Sequence[float] | Array) -> jax.Array:
        """Marginal quantiles `(*level.shape, dim)` at levels in [0, 1]."""
        return _quantiles(self.points, np.asarray(level, np.float32))

    @property
    def map(self) -> np.ndarray:
        """theta `(dim,)` where the density over theta is highest, by a search that begins at the densest of `points`.

        Where the highest densities are at an end of the prior's support, it is near that end.
        """
        return _highest(self)

    def interval(self, level: float = 0.95) -> jax.Array:
        """Central intervals `(2, dim)`: lower and upper ends."""
        return self.quantile([(1 - level) / 2, (1 + level) / 2])

    def to_arviz(self, key: Key, num_samples: int = 4000) -> Any:
        """Draws, derived quantities among them, as a DataTree of ArviZ with the group `posterior`, in one chain.

        Raises `ImportError` without the package `arviz-base`, which the extra `arviz` installs.
        """
        try:
            import arviz_base
        except ImportError as error:
            raise ImportError('to_arviz needs arviz-base: pip install "quincunx[arviz]"') from error
        prior, theta = self.prior, self.sample(key, num_samples)
        named = {name: np.asarray(value)[None] for name, value in prior.unpack(theta).items()}
        if prior.derived_columns:
            named |= dict(zip(prior.derived_columns, np.asarray(prior.derive(theta)).T[:, None], strict=True))
        return arviz_base.from_dict({"posterior": named})

    def summary(self) -> dict[str, dict[str, float]]:
        """Per column of theta, and then per derived quantity of the prior: mean, std, q05, q50, q95."""
        points, prior = self.points, self.prior
        if prior.derived_columns:
            points = np.concatenate([points, prior.derive(points)], axis=1)
        rows = [*_moments(points), *_quantiles(points, np.asarray(SUMMARY_LEVELS, np.float32))]
        names = ["mean", "std", *(f"q{round(100 * level):02d}" for level in SUMMARY_LEVELS)]
        table = np.stack([np.asarray(row) for row in rows])
        return {
            column: dict(zip(names, table[:, i].tolist(), strict=True))
            for i, column in enumerate((*prior.columns, *prior.derived_columns))
        }


def picked(key: Key, draws: jax.Array, num_samples: int) -> jax.Array:
    """So many of the draws `(n, dim)`, in random order; none comes again before all have come as often."""
    rng = rng_of(key)
    turns = [rng.permutation(len(draws)) for _ in range(-(-num_samples // len(draws)))]
    return put(np.asarray(draws)[np.concatenate(turns)[:num_samples]])


def _highest(posterior: AbstractPosterior) -> np.ndarray:
    """Clouds of points about the best so far, in unconstrained coordinates, each half as wide as the one before."""
    prior, rng = posterior.prior, np.random.default_rng(0)
    points = np.asarray(posterior.points)[:NUM_POINTS]
    density = lambda theta: np.nan_to_num(np.asarray(posterior.log_prob(theta)), nan=-np.inf)
    best = points[np.argmax(density(points))]
    v = np.asarray(prior.unconstrain(points), np.float64)
    root = np.linalg.cholesky(np.atleast_2d(np.cov(v.T)) + 1e-9 * np.eye(v.shape[1]))
    for halvings in range(NUM_CLOUDS):
        steps = 0.5**halvings * rng.normal(size=(CLOUD, v.shape[1])) @ root.T
        near = np.asarray(prior.constrain(np.asarray(prior.unconstrain(best), np.float64) + steps), np.float32)
        candidates = np.concatenate([best[None], near])[:CLOUD]
        best = candidates[np.argmax(density(candidates))]
    return best


class MixturePosterior(AbstractPosterior):
    """An equal mixture of normals on the unconstrained space, carried back to the parameters.

    One recurrent machine's answer is one normal; marginalised over initial proposals it is a mixture.
    No draw can leave the prior's support.

    Fields
    ------
    space: the space of u.
    psi: `(K, p)`, one row (mean, log scale, shear) per component.
    warnings: reasons not to trust it as it stands.
    """

    space: Space
    psi: jax.Array
    warnings: tuple[str, ...] = eqx.field(static=True, default=())

    @property
    def prior(self) -> Prior:
        return self.space.prior

    def sample(self, key: Key, num_samples: int) -> jax.Array:
        return jnp.asarray(np.asarray(_draw(self.space, self.psi, key, bucket(num_samples)))[:num_samples])

    def log_prob(self, theta: Array) -> jax.Array:
        return _log_prob(self.space, self.psi, jnp.asarray(theta))

    @property
    def points(self) -> jax.Array:
        """theta `(n, dim)` at fixed, evenly spread standard coordinates, the same for every component."""
        return _points(self.space, self.psi)


# Of the arrays alone: the warnings of an answer are no reason to compile anew.


@eqx.filter_jit
def _draw(space: Space, psi: jax.Array, key: Key, num_samples: int) -> jax.Array:
    component_key, normal_key = jax.random.split(key)
    component = jax.random.randint(component_key, (num_samples,), 0, len(psi))
    standard = jax.random.normal(normal_key, (num_samples, space.dim))
    return space.decode(jax.vmap(lambda one, at: Gaussian.of(one, space.dim).at(at))(psi[component], standard))


@eqx.filter_jit
def _log_prob(space: Space, psi: jax.Array, theta: jax.Array) -> jax.Array:
    def mixture(u: jax.Array) -> jax.Array:
        terms = jax.vmap(lambda one: Gaussian.of(one, space.dim).log_prob(u))(psi)
        return jax.scipy.special.logsumexp(terms, axis=0) - jnp.log(len(psi))

    return space.density(theta, mixture)


@eqx.filter_jit
def _points(space: Space, psi: jax.Array) -> jax.Array:
    standard = jnp.asarray(_spread_points(space.dim, max(16, NUM_POINTS // len(psi))))
    u = jax.vmap(lambda one: Gaussian.of(one, space.dim).at(standard))(psi)
    return space.decode(u.reshape(-1, space.dim))


@jax.jit
def _moments(points: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.mean(points, axis=0), jnp.std(points, axis=0)


@jax.jit
def _quantiles(points: jax.Array, level: jax.Array) -> jax.Array:
    return jnp.quantile(points, level, axis=0)


@functools.lru_cache(maxsize=8)
def _spread_points(dim: int, count: int) -> np.ndarray:
    """`(count, dim)` standard normal points, a scrambled Sobol sequence and its mirror image: moments converge fast."""
    half = qmc.Sobol(dim, scramble=True, rng=0).random(2 ** max(3, (count // 2 - 1).bit_length()))
    normal = ndtri(half)
    return np.concatenate([normal, -normal]).astype(np.float32)


def not_a_posterior(given: object) -> TypeError:
    """The error for what was given in place of a posterior."""
    found = type(given).__name__
    such = "one such as qx.posterior(estimator, x), or the field `posterior` of an answer"
    return TypeError(f"posterior: expected {such}, got {found}")
