"""A Gaussian with unknown mean and a Gaussian prior: everything about it is known in closed form."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ..core.prior import Prior
from ..core.simulator import Exact
from ..core.solution import Array, Key
from ..sample.black_box import simulator

PRIOR_STD = 3.0
CORRELATION = 0.5

# The covariance and the (isotropic) prior are both diagonal along the sum and the difference of the components.
_AXES = np.array([[1, 1], [1, -1]], dtype=np.float32) / np.sqrt(np.float32(2))
_VARIANCES = np.array([1 + CORRELATION, 1 - CORRELATION], dtype=np.float32)


def _along_axes(vectors: Array) -> jax.Array:
    # Always in full float32: accelerators would round the product to fewer bits by default.
    return jnp.matmul(vectors, _AXES, precision="highest")  # symmetric, and its own inverse


def _log_likelihood(theta: jax.Array, x: jax.Array) -> jax.Array:
    normaliser = 0.5 * jnp.sum(jnp.log(2 * jnp.pi * _VARIANCES))
    return -0.5 * jnp.sum(_along_axes(x - theta) ** 2 / _VARIANCES) - x.shape[0] * normaliser


def _mle(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=0)


def _posterior_mean(x: jax.Array) -> jax.Array:
    shrinkage = PRIOR_STD**2 / (PRIOR_STD**2 + _VARIANCES / x.shape[0])
    return _along_axes(shrinkage * _along_axes(jnp.mean(x, axis=0)))


def _posterior_std(x: jax.Array) -> jax.Array:
    variances = 1 / (1 / PRIOR_STD**2 + x.shape[0] / _VARIANCES)
    return jnp.sqrt(jnp.full(2, jnp.mean(variances)))  # each component is half of either axis


@simulator(
    Prior(mean=dist.Normal(0, PRIOR_STD).expand((2,))),
    source="conjugate normal model, Gelman et al., Bayesian Data Analysis (3rd ed.), section 3.5",
    exact=Exact(log_likelihood=_log_likelihood, mle=_mle, posterior_mean=_posterior_mean, posterior_std=_posterior_std),
)
def gaussian(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """One point `(2,)` ~ Normal(mean, [[1, 0.5], [0.5, 1]]); the prior of each mean is Normal(0, 3).

    The one benchmark with a vector parameter on an unbounded support.
    """
    return theta["mean"] + _along_axes(np.sqrt(_VARIANCES) * jax.random.normal(key, (2,)))
