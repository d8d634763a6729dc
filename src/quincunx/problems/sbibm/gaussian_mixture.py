"""A common mean of two normals, one of which is ten times as wide as the other."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ...core.prior import Prior
from ...core.simulator import Exact
from ...core.solution import Key
from ...sample.black_box import simulator

BOUND = 10.0
WIDE, NARROW = 1.0, 0.1


def _log_likelihood(theta: jax.Array, x: jax.Array) -> jax.Array:
    square = jnp.sum((x - theta) ** 2, axis=-1)
    log_normal = lambda std: -0.5 * square / std**2 - np.log(2 * np.pi * std**2)
    return jnp.sum(jnp.logaddexp(log_normal(WIDE), log_normal(NARROW)) + np.log(0.5))


@simulator(
    Prior(mean=dist.Uniform(-BOUND, BOUND).expand((2,))),
    source="Lueckmann et al. 2021, arXiv:2101.04653, T.7; Sisson, Fan, Tanaka 2007",
    exact=Exact(log_likelihood=_log_likelihood),
)
def gaussian_mixture(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """x `(2,)` ~ 1/2 Normal(mean, 1) + 1/2 Normal(mean, 0.1).

    The second argument is a standard deviation; both components of x are of the same normal.
    """
    which_key, normal_key = jax.random.split(key)
    std = jnp.where(jax.random.bernoulli(which_key), WIDE, NARROW)
    return theta["mean"] + std * jax.random.normal(normal_key, (2,))
