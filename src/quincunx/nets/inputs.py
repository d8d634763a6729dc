"""How parameters enter a network as inputs."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from numpyro.distributions.transforms import biject_to

from .._types import Array
from ..prior import Prior
from .frozen import AbstractFrozen


class ThetaInput(AbstractFrozen):
    """theta `(..., dim)` -> features `(..., k)`, standardised by the parameters of the simulations.

    A parameter between two finite bounds enters as it is: an estimate of a ratio must be good at its bounds too, where
    the unconstrained parameter would be infinite. Any other enters as its unconstrained parameter.

    Fields
    ------
    location, spread: `(k,)`.
    prior: the prior.
    """

    location: jax.Array
    spread: jax.Array
    prior: Prior = eqx.field(static=True)

    @staticmethod
    def of(prior: Prior, theta: Array) -> "ThetaInput":
        """Statistics of theta `(n, dim)`; parameters that do not vary keep their scale."""
        raw = _raw(prior, jnp.asarray(theta))
        spread = jnp.std(raw, axis=0)
        return ThetaInput(jnp.mean(raw, axis=0), jnp.where(spread > 1e-6, spread, 1.0), prior)

    @property
    def num_features(self) -> int:
        return len(self.location)

    def __call__(self, theta: jax.Array) -> jax.Array:
        return (_raw(self.prior, theta) - self.location) / self.spread


def _raw(prior: Prior, theta: jax.Array) -> jax.Array:
    lead = theta.ndim - 1
    parts = []
    for name, value in prior.unpack(theta).items():
        support: Any = prior.distributions[name].support
        inner = getattr(support, "base_constraint", support)
        bounds = getattr(inner, "lower_bound", None), getattr(inner, "upper_bound", None)
        raw = value if None not in bounds else biject_to(support).inv(value)
        parts.append(raw.reshape(raw.shape[:lead] + (-1,)))
    return jnp.concatenate(parts, axis=-1)
