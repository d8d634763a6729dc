"""How parameters enter a network as inputs."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions.transforms import biject_to

from .._types import Array
from ..prior import Prior
from .frozen import AbstractFrozen


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
        theta = jnp.asarray(theta)
        distances = []
        for name, value in prior.unpack(theta).items():
            low, high = _ends(prior, name)
            away = jnp.ones_like(value) if (low is None) == (high is None) else _distance(value, low, high)
            typical = jnp.median(away, axis=0)
            distances.append(jnp.where(typical > 0, typical, 1.0).ravel())
        distance = jnp.concatenate(distances)
        raw = _raw(prior, theta, distance)
        spread = jnp.std(raw, axis=0)
        return ThetaInput(jnp.mean(raw, axis=0), jnp.where(spread > 1e-6, spread, 1.0), distance, prior)

    @property
    def num_features(self) -> int:
        return len(self.location)

    def __call__(self, theta: jax.Array) -> jax.Array:
        return (_raw(self.prior, theta, self.distance) - self.location) / self.spread


def _ends(prior: Prior, name: str) -> tuple[Any, Any]:
    """The ends of a support that bounds each component by itself; None where there is none."""
    support: Any = prior.distributions[name].support
    while getattr(support, "base_constraint", None) is not None:
        support = support.base_constraint
    return getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)


def _distance(value: jax.Array, low: Any, high: Any) -> jax.Array:
    """From the only end."""
    return high - value if low is None else value - low


def _raw(prior: Prior, theta: jax.Array, distance: jax.Array) -> jax.Array:
    lead, start, parts = theta.ndim - 1, 0, []
    for name, value in prior.unpack(theta).items():
        low, high = _ends(prior, name)
        shape = prior.shapes[name]
        typical = distance[start : start + int(np.prod(shape, dtype=int))].reshape(shape)
        start += typical.size
        if low is not None and high is not None:
            raw = value
        elif low is not None or high is not None:
            raw = jnp.log1p(_distance(value, low, high) / typical)
        else:
            raw = biject_to(prior.distributions[name].support).inv(value)
        parts.append(raw.reshape(raw.shape[:lead] + (-1,)))
    return jnp.concatenate(parts, axis=-1)
