"""How parameters enter a network as inputs."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions.transforms import biject_to

from ...core.batches import over_rows
from ...core.laws.support import ends_of
from ...core.loss import AbstractFrozen
from ...core.prior import Prior
from ...core.solution import Array


class ThetaInput(AbstractFrozen):
    """theta `(..., dim)` -> features `(..., k)`, standardised by the parameters of the simulations.

    An estimate of a ratio must be good at the ends of a support too, where the unconstrained parameter is infinite.
    So a parameter between two finite ends enters as it is, one with a single end as log(1 + distance / typical
    distance), and any other as its unconstrained parameter. Ends that depend on other parameters are taken at theirs.

    Fields
    ------
    location, spread: `(k,)`.
    distance: typical distance `(dim,)` from an end; 1 where there is none.
    prior: the prior.
    """

    location: jax.Array
    spread: jax.Array
    distance: jax.Array
    prior: Prior = eqx.field(static=True)

    @staticmethod
    def of(prior: Prior, theta: Array) -> "ThetaInput":
        """Statistics of theta `(n, dim)`; parameters that do not vary keep their scale."""
        theta = np.asarray(theta, np.float32)
        ends = np.asarray(prior.ends_at(theta)) if prior.conditional else np.stack(prior.ends)[None]
        low, high = ends[:, 0], ends[:, 1]
        away = np.where(np.isfinite(low), theta - low, high - theta)
        typical = np.where((np.isfinite(low) ^ np.isfinite(high)).all(axis=0), np.median(away, axis=0), 1.0)
        distance = jnp.asarray(np.where(typical > 0, typical, 1.0), jnp.float32)
        raw = over_rows(lambda rows: _compiled(prior, rows, distance), theta)
        spread = np.std(raw, axis=0)
        spread = np.where(spread > 1e-6, spread, 1.0)
        return ThetaInput(jnp.asarray(np.mean(raw, axis=0)), jnp.asarray(spread, jnp.float32), distance, prior)

    @property
    def num_features(self) -> int:
        return len(self.location)

    def __call__(self, theta: jax.Array) -> jax.Array:
        return (_raw(self.prior, theta, self.distance) - self.location) / self.spread


def _raw(prior: Prior, theta: jax.Array, distance: jax.Array) -> jax.Array:
    one = functools.partial(_features, prior, distance)
    for _ in theta.shape[:-1]:
        one = jax.vmap(one)
    return one(theta)


def _features(prior: Prior, distance: jax.Array, theta: jax.Array) -> jax.Array:
    """Features `(k,)` of one theta `(dim,)`, not standardised."""
    named, start, parts = prior.unpack(theta), 0, []
    for name, law in prior.laws(named):
        value, (low, high) = jnp.ravel(named[name]), ends_of(law)
        columns = slice(start, start := start + len(value))
        has_low, has_high = prior.bounded[name]
        if has_low and has_high:
            parts.append(value)
        elif has_low or has_high:
            parts.append(jnp.log1p((value - low if has_low else high - value) / distance[columns]))
        else:
            parts.append(jnp.ravel(biject_to(law.support).inv(named[name])))
    return jnp.concatenate(parts)


_compiled = jax.jit(_raw, static_argnums=0)
