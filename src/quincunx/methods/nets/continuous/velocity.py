"""Continuous flows: a network for the velocity that carries noise to draws.

    y_t = (1 - t) y_0 + t y,      y_0 ~ N(0, 1),   0 <= t <= 1
    loss = mean |v(t, y_t) - (y - y_0)|^2                                   (Lipman et al. 2023, arXiv:2210.02747)

Its optimum is the mean velocity of all paths through y_t. Following it from noise at t = 0 gives draws of p(y) at
t = 1; backwards, with its divergence, the density.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from ....core.solution import Key
from ..mlp import MLP, Ensemble
from .ode import RUNGE_KUTTA, Slope, density, followed

NUM_TIMES = 4  # for every row, in a step of training
NUM_WAVES = 6  # sines, and as many cosines, of the time


class Velocity(eqx.Module):
    """What a network of velocities is to be made like. It has no weights yet.

    Fields
    ------
    widths: of its hidden layers.
    num_steps: of Runge and Kutta's method of order 4, from noise to a draw.
    """

    widths: tuple[int, ...] = eqx.field(static=True, default=(128, 128, 128, 128))
    num_steps: int = eqx.field(static=True, default=20)
    has_density: ClassVar[bool] = False  # at hand in training

    def __check_init__(self):
        MLP(self.widths)
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")

    def make(self, key: Key, event_dim: int, condition_dim: int) -> "VelocityField":
        """An untrained field for y of so many numbers under conditions of so many; it begins as that of a normal."""
        network = MLP(self.widths).make(key, event_dim + condition_dim + 2 * NUM_WAVES, event_dim)
        return VelocityField(network, event_dim, self.num_steps)


class VelocityField(eqx.Module):
    """v(t, y | condition) for standardised y, and the density p(y | condition) that follows from it.

    Fields
    ------
    network: what is added to the velocity of a standard normal, which is known.
    event_dim: of y.
    num_steps: see `Velocity`.
    """

    network: Ensemble
    event_dim: int = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)

    def __call__(self, t: jax.Array, y: jax.Array, condition: jax.Array) -> jax.Array:
        """The velocity `(n, event_dim)` at times `(n, 1)`, y `(n, event_dim)` and conditions `(n, k)`."""
        wave = t * jnp.pi * jnp.arange(1, NUM_WAVES + 1)
        seen = jnp.concatenate([y, condition, jnp.sin(wave), jnp.cos(wave)], axis=1)
        return (2 * t - 1) / (t**2 + (1 - t) ** 2) * y + self.network(seen)[0]

    def loss(self, key: Key, y: jax.Array, condition: jax.Array) -> jax.Array:
        """`()`, for y `(n, event_dim)` under conditions `(n, k)`."""
        noise_key, time_key = jax.random.split(key)
        y, condition = (jnp.tile(each, (NUM_TIMES, 1)) for each in (y, condition))
        noise, t = jax.random.normal(noise_key, y.shape), jax.random.uniform(time_key, (len(y), 1))
        return jnp.mean((self(t, (1 - t) * noise + t * y, condition) - (y - noise)) ** 2)

    def sample(self, key: Key, condition: jax.Array, num_samples: int) -> jax.Array:
        """Draws of y `(num_samples, event_dim)` under one condition `(k,)`."""
        noise = jax.random.normal(key, (num_samples, self.event_dim))
        seen = jnp.broadcast_to(condition, (num_samples, *condition.shape))
        return followed(self._slope(seen), noise, self._times, RUNGE_KUTTA)

    def log_prob(self, y: jax.Array, condition: jax.Array) -> jax.Array:
        """Log density `(n,)` of y `(n, event_dim)` under conditions `(n, k)`."""
        return density(self._slope(condition), y, self._times[::-1], RUNGE_KUTTA)

    @property
    def _times(self) -> jax.Array:
        return jnp.linspace(0.0, 1.0, self.num_steps + 1)

    def _slope(self, condition: jax.Array) -> Slope:
        return lambda t, y: self(jnp.full((len(y), 1), t), y, condition)
