"""Counts at an unknown rate: the simplest simulator of the ALFI paper."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ..core.prior import Prior
from ..core.simulator import Exact
from ..core.solution import Key
from ..sample.black_box import simulator
from .poisson_sampling import sample_poisson
from .quadrature import mean_and_std, zoomed_grid

LOW, HIGH = 0.2, 7.0


def _log_likelihood(theta: jax.Array, x: jax.Array) -> jax.Array:
    # Written as minus half the deviance, which is of order one, minus what is left of log x!. The sums
    # x log_rate and log x! themselves reach 1e7 for 3,000 counts at a rate of 1,100, where float32 has units.
    rate = jnp.exp(theta[0])
    excess = jnp.where(x > 0, (x - rate) / rate, 0.0)
    log_mass = x - rate - x * jnp.log1p(excess) - _stirling_rest(x)
    return jnp.sum(jnp.where((x >= 0) & (x == jnp.floor(x)), log_mass, -jnp.inf))


def _stirling_rest(x: jax.Array) -> jax.Array:
    """log x! - x log x + x, without cancellation."""
    few, many = jnp.clip(x, 0.0, 10.0), jnp.maximum(x, 10.0)
    series = 0.5 * jnp.log(2 * jnp.pi * many) + 1 / (12 * many) - 1 / (360 * many**3) + 1 / (1260 * many**5)
    return jnp.where(x < 10, jax.lax.lgamma(few + 1) - jax.scipy.special.xlogy(few, few) + few, series)


def _mle(x: jax.Array) -> jax.Array:
    return jnp.clip(jnp.log(jnp.mean(x)), LOW, HIGH)[None]


def _posterior(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    centre = _mle(x)[0]
    total, expected = jnp.sum(x), x.shape[0] * jnp.exp(centre)

    def log_density(t: jax.Array) -> jax.Array:
        growth = jnp.expm1(t)
        return total * (t - growth) + (total - expected) * growth

    mean, std = mean_and_std(*zoomed_grid(log_density, LOW - centre, HIGH - centre))
    return (centre + mean)[None], std[None]


@simulator(
    Prior(log_rate=dist.Uniform(LOW, HIGH)),
    source="Pesah, Wehenkel, Louppe 2018, arXiv:1811.12932, appendix B.2",
    exact=Exact.of(_log_likelihood, _mle, _posterior),
)
def poisson(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """One count `()` ~ Poisson(exp(log_rate)), as float32.

    The posterior is integrated on a grid in log_rate, around its maximum; the mean of the counts is
    sufficient. The MLE is the log of that mean, clipped into the prior's support.
    """
    return sample_poisson(key, jnp.exp(theta["log_rate"]))
