"""What conditional densities have in common that a network gives in one pass: flows in layers, mixtures of normals."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ....core.solution import Key


class AbstractConditional(eqx.Module):
    """p(y | condition), y standardised, by an ensemble of networks, of which it is the mean."""

    @abc.abstractmethod
    def each(self, y: jax.Array, condition: jax.Array) -> jax.Array:
        """Log density `(members, n)` by every member, of y `(n, event_dim)` under conditions `(n, condition_dim)`."""

    @abc.abstractmethod
    def sample(self, key: Key, condition: jax.Array, num_samples: int) -> jax.Array:
        """Draws of y `(num_samples, event_dim)` under one condition `(condition_dim,)`, of all members alike."""

    def loss(self, key: Key, y: jax.Array, condition: jax.Array) -> jax.Array:
        """Minus the mean log density, `()`; every member for itself."""
        return -jnp.mean(self.each(y, condition))

    def log_prob(self, y: jax.Array, condition: jax.Array) -> jax.Array:
        """Log density `(n,)` of y `(n, event_dim)` under conditions `(n, condition_dim)`."""
        found = self.each(y, condition)
        return jax.scipy.special.logsumexp(found, axis=0) - np.log(len(found))
