"""A crescent, shifted by parameters of which only a magnitude counts: a posterior of two crescents."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ...core.prior import Prior
from ...core.simulator import Exact
from ...core.solution import Key
from ...sample.black_box import simulator

RADIUS, WIDTH = 0.1, 0.01  # mean and standard deviation
OFFSET = 0.25


def _shift(theta: jax.Array) -> jax.Array:
    a, b = theta
    return jnp.stack([-jnp.abs(a + b), b - a]) / np.sqrt(2)


def _log_likelihood(theta: jax.Array, x: jax.Array) -> jax.Array:
    across, along = jnp.moveaxis(x - _shift(theta), -1, 0)
    across = across - OFFSET
    radius = jnp.hypot(across, along)
    log_normal = -0.5 * ((radius - RADIUS) / WIDTH) ** 2 - np.log(WIDTH * np.sqrt(2 * np.pi))
    log_density = log_normal - jnp.log(np.pi * radius)  # the angle's density, and the Jacobian of polar coordinates
    return jnp.sum(jnp.where(across >= 0, log_density, -jnp.inf))


@simulator(
    Prior(theta=dist.Uniform(-1.0, 1.0).expand((2,))),
    source="Lueckmann et al. 2021, arXiv:2101.04653, T.8; Greenberg, Nonnenmacher, Macke 2019, arXiv:1905.07488",
    exact=Exact(log_likelihood=_log_likelihood),
)
def two_moons(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """x `(2,)` = r (cos a, sin a) + (0.25, 0) + (-|theta0 + theta1|, theta1 - theta0) / sqrt 2,

    with a ~ Uniform(-pi / 2, pi / 2) and r ~ Normal(0.1, standard deviation 0.01). The posterior does not change when
    (theta0, theta1) becomes (-theta1, -theta0).
    """
    angle_key, radius_key = jax.random.split(key)
    angle = jax.random.uniform(angle_key, minval=-np.pi / 2, maxval=np.pi / 2)
    radius = RADIUS + WIDTH * jax.random.normal(radius_key)
    crescent = jnp.stack([radius * jnp.cos(angle) + OFFSET, radius * jnp.sin(angle)])
    return crescent + _shift(theta["theta"])
