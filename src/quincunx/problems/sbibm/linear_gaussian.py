"""Ten means, each seen once with normal noise: under a normal prior, and under a uniform one."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ...core.prior import Prior
from ...core.simulator import Exact
from ...core.solution import Key
from ...sample.black_box import simulator

DIM = 10
PRIOR_VARIANCE, NOISE_VARIANCE = 0.1, 0.1
NOISE = np.float32(np.sqrt(NOISE_VARIANCE))
BOUND = 1.0


def _log_likelihood(theta: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(-0.5 * ((x - theta) / NOISE) ** 2 - 0.5 * np.log(2 * np.pi * NOISE_VARIANCE))


def _observed(key: Key, mean: jax.Array) -> jax.Array:
    return mean + NOISE * jax.random.normal(key, (DIM,))


@simulator(
    Prior(mean=dist.Normal(0, float(np.sqrt(PRIOR_VARIANCE))).expand((DIM,))),
    source="Lueckmann et al. 2021, arXiv:2101.04653, T.1",
    exact=Exact(log_likelihood=_log_likelihood),
)
def gaussian_linear(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """x `(10,)` ~ Normal(mean, variance 0.1); the prior of each mean is Normal(0, variance 0.1)."""
    return _observed(key, theta["mean"])


@simulator(
    Prior(mean=dist.Uniform(-BOUND, BOUND).expand((DIM,))),
    source="Lueckmann et al. 2021, arXiv:2101.04653, T.2",
    exact=Exact(log_likelihood=_log_likelihood),
)
def gaussian_linear_uniform(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """x `(10,)` ~ Normal(mean, variance 0.1); the prior of each mean is Uniform(-1, 1), which cuts the posterior."""
    return _observed(key, theta["mean"])
