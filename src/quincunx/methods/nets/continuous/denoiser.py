"""Denoising diffusion: a network that takes noise away, and draws and densities that follow from it.

    y_s = y + s e,                     e ~ N(0, 1),    ln s ~ N(-1.2, 1.2^2)
    D(y_s, s) = c_skip(s) y_s + c_out(s) F(c_in(s) y_s, ln s)
    c_skip = 1 / (1 + s^2),    c_out = s / sqrt(1 + s^2),    c_in = 1 / sqrt(1 + s^2)
    loss = mean (1 + s^2) / s^2  |D(y_s, s) - y|^2
    dy / ds = (y - D(y, s)) / s,   or for c = c_in(s) y:   dc / ds = -F(c, ln s) / (1 + s^2)

for standardised y (Karras et al. 2022, arXiv:2206.00364). The optimum of D is the mean of y given y_s, and (D -
y_s) / s^2 is the score of the law of y_s. The coefficients keep what goes into F and what it is to give at variance
1, at every level. The equation for c, whose law at every level is as wide as that of y, carries normal noise at s =
20 to draws at s = .002, by Heun's method through levels evenly spaced in s^(1/7). Backwards, with its divergence,
it gives the density, by the method of Runge and Kutta: a density shows an error that draws do not.
"""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from ....core.solution import Key
from .ode import HEUN, RUNGE_KUTTA, Slope, density, followed
from .residual import Residual

NUM_LEVELS = 4  # of noise, for every row in a step of training
MEAN, SPREAD = -1.2, 1.2  # of the log noise levels in training
LOWEST, HIGHEST = 0.002, 20.0  # noise levels in sampling; the second is wide enough for standardised y
BEND = 7.0


class Denoiser(eqx.Module):
    """What a network that takes noise away is to be made like. It has no weights yet.

    Fields
    ------
    width: of its hidden layers.
    layers: of them; the condition is told in each.
    num_steps: of Heun's method, from noise to a draw.
    """

    width: int = eqx.field(static=True, default=128)
    layers: int = eqx.field(static=True, default=4)
    num_steps: int = eqx.field(static=True, default=30)
    has_density: ClassVar[bool] = False  # at hand in training

    def __check_init__(self):
        for name, value in [("width", self.width), ("layers", self.layers), ("num_steps", self.num_steps)]:
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def make(self, key: Key, event_dim: int, condition_dim: int) -> "DenoisingField":
        """An untrained one for y of so many numbers under conditions of so many; it begins as that of a normal."""
        network = Residual.make(key, event_dim, condition_dim, width=self.width, layers=self.layers)
        return DenoisingField(network, event_dim, self.num_steps)


class DenoisingField(eqx.Module):
    """D(y, s | condition) for standardised y, and the density p(y | condition) that follows from it.

    Fields
    ------
    network: F, of y at variance 1, the log noise level and the condition.
    event_dim: of y.
    num_steps: see `Denoiser`.
    """

    network: Residual
    event_dim: int = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)

    def loss(self, key: Key, y: jax.Array, condition: jax.Array) -> jax.Array:
        """`()`, for y `(n, event_dim)` under conditions `(n, k)`."""
        level_key, noise_key = jax.random.split(key)
        y = jnp.tile(y, (NUM_LEVELS, 1))
        level = noise_levels(level_key, len(y))
        noisy = y + level * jax.random.normal(noise_key, y.shape)
        return jnp.mean((denoised(self._network(condition), noisy, level) - y) ** 2 * weight(level))

    def sample(self, key: Key, condition: jax.Array, num_samples: int) -> jax.Array:
        """Draws of y `(num_samples, event_dim)` under one condition `(k,)`."""
        noise = jax.random.normal(key, (num_samples, self.event_dim))
        return followed(slope(self._network(condition[None])), noise, steps(self.num_steps), HEUN)

    def log_prob(self, y: jax.Array, condition: jax.Array) -> jax.Array:
        """Log density `(n,)` of y `(n, event_dim)` under conditions `(n, k)`."""
        return density(slope(self._network(condition)), y, steps(self.num_steps)[::-1], RUNGE_KUTTA)

    def _network(self, condition: jax.Array) -> "Network":
        return lambda y, level: self.network(y, level, condition)


# -- for any network F: (y `(n, d)` at variance 1, log levels `(n, 1)`) -> `(n, d)` ----------------------

Network = Callable[[jax.Array, jax.Array], jax.Array]


def noise_levels(key: Key, count: int) -> jax.Array:
    """Levels `(count, 1)`, one from each of so many equal parts of their law, in order."""
    share = jnp.clip((jnp.arange(count) + jax.random.uniform(key, (count,))) / count, 1e-5, 1 - 1e-5)
    return jnp.exp(MEAN + SPREAD * jax.scipy.special.ndtri(share))[:, None]


def denoised(network: Network, y: jax.Array, level: jax.Array) -> jax.Array:
    """D of y `(n, d)` at levels `(n, 1)`."""
    total = 1 + level**2
    return y / total + level / jnp.sqrt(total) * network(y / jnp.sqrt(total), jnp.log(level))


def weight(level: jax.Array) -> jax.Array:
    """Of the squared error of D, such that F's counts alike at every level."""
    return (1 + level**2) / level**2


def slope(network: Network) -> Slope:
    """dc / ds at a level `()` and c `(n, d)`; at the lowest level c is y."""
    return lambda level, y: -network(y, jnp.full((len(y), 1), jnp.log(level))) / (1 + level**2)


def steps(count: int) -> jax.Array:
    """Levels `(count + 1,)` from the highest to the lowest."""
    ends = HIGHEST ** (1 / BEND), LOWEST ** (1 / BEND)
    return jnp.linspace(*ends, count + 1) ** BEND
