"""A mined simulator whose every ratio and score is known in closed form: z ~ N(mean, 1), x ~ N(z, 0.5)."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

import quincunx as qx

VARIANCE = 1.25  # of x given the mean


def _joint(theta, x, z):
    return dist.Normal(theta["mean"], 1.0).log_prob(z)


def _log_likelihood(theta, x):
    return jnp.sum(dist.Normal(theta[0], jnp.sqrt(VARIANCE)).log_prob(x))


@qx.mined_simulator(
    qx.Prior(mean=dist.Uniform(-1, 1)),
    joint_log_prob=_joint,
    exact=qx.Exact(log_likelihood=_log_likelihood),
    rate=lambda theta: 20.0 + 5.0 * theta["mean"],
)
def chain(key, theta):
    z_key, x_key = jax.random.split(key)
    z = theta["mean"] + jax.random.normal(z_key)
    return z + 0.5 * jax.random.normal(x_key), z


def log_density(theta, x):
    """log p(x | theta) `(n,)`, for theta `(n, 1)` or `(1,)` and x `(n,)`."""
    return -((x - theta[..., 0]) ** 2) / (2 * VARIANCE) - 0.5 * jnp.log(2 * jnp.pi * VARIANCE)
