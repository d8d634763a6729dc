"""How parameters enter a network as inputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions.transforms import biject_to

from ...core.batches import over_rows
from ...core.loss import AbstractFrozen
from ...core.prior import Prior
from ...core.solution import Array


class ThetaInput(AbstractFrozen):
    """theta `(..., dim)` -> features `(..., k)`, standardised by the parameters of the simulations.

    An estimate of a ratio must be good at the ends of a support too, where the unconstrained parameter is infinite.
    So a parameter between two finite ends enters as it is, one with a single end as log(1 + distance / typical
    distance), and any other as its unconstrained parameter.

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
        low, high = prior.ends
        away = np.where(np.isfinite(low), theta - low, high - theta)
        typical = np.where(np.isfinite(low) ^ np.isfinite(high), np.median(away, axis=0), 1.0)
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
    lead, start, parts = theta.ndim - 1, 0, []
    for name, value in prior.unpack(theta).items():
        shape = prior.shapes[name]
        columns = slice(start, start := start + int(np.prod(shape, dtype=int)))
        flat, (low, high) = theta[..., columns], (end[columns] for end in prior.ends)
        has_low, has_high = np.isfinite(low).all(), np.isfinite(high).all()
        if has_low and has_high:
            parts.append(flat)
        elif has_low or has_high:
            parts.append(jnp.log1p((flat - low if has_low else high - flat) / distance[columns]))
        else:
            raw = biject_to(prior.distributions[name].support).inv(value)
            parts.append(raw.reshape(raw.shape[:lead] + (-1,)))
    return jnp.concatenate(parts, axis=-1)


_compiled = jax.jit(_raw, static_argnums=0)
