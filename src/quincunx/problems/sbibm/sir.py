"""An epidemic: the susceptible, the infected and the recovered, of whom some are tested now and then."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from scipy.special import gammaln

from ...core.prior import Prior
from ...core.simulator import Exact
from ...core.solution import Key
from ...sample.black_box import simulator
from .runge_kutta import solved

POPULATION = 1e6
TESTED = 1000
TIMES, INTERVAL = 10, 17.0  # in days
STEPS = 68  # in an interval, a quarter of a day each

# One is infected at first. In logarithms nothing becomes negative, however far the epidemic fades.
_START = np.array([np.log1p(-1 / POPULATION), -np.log(POPULATION)])
_LOG_CHOOSE = (
    gammaln(TESTED + 1) - gammaln(np.arange(TESTED + 1) + 1) - gammaln(TESTED - np.arange(TESTED + 1) + 1)
).astype(np.float32)


def log_infected(theta: jax.Array) -> jax.Array:
    """Log of the share of people who are infected `(10,)`, at the times of x, for theta = (beta, gamma)."""
    beta, gamma = theta

    def slope(state: jax.Array) -> jax.Array:
        susceptible, infected = jnp.exp(state)
        return jnp.stack([-beta * infected, beta * susceptible - gamma])

    return solved(slope, _START, interval=INTERVAL, count=TIMES, steps=STEPS)[:, 1]


def _log_likelihood(theta: jax.Array, x: jax.Array) -> jax.Array:
    log_share = log_infected(theta)
    possible = jnp.all((x >= 0) & (x <= TESTED) & (x == jnp.floor(x)))
    choices = jnp.asarray(_LOG_CHOOSE)[jnp.clip(x, 0, TESTED).astype(int)]
    log_mass = choices + x * log_share + (TESTED - x) * jnp.log1p(-jnp.exp(log_share))
    return jnp.where(possible, jnp.sum(log_mass), -jnp.inf)


@simulator(
    Prior(beta=dist.LogNormal(float(np.log(0.4)), 0.5), gamma=dist.LogNormal(float(np.log(0.125)), 0.2)),
    source="Lueckmann et al. 2021, arXiv:2101.04653, T.9",
    exact=Exact(log_likelihood=_log_likelihood),
)
def sir(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """x `(10,)`: how many of 1,000 people are found infected, on the days 0, 17, ..., 153.

    Of a million people one is infected on day 0. With shares S, I and R of them, dS/dt = -beta S I,
    dI/dt = beta S I - gamma I and dR/dt = gamma I; beta is the rate of contacts and gamma that of recovery, per day.
    Those tested are drawn anew, x ~ Binomial(1000, I).

    Solved by steps of a quarter of a day. At draws from the prior I is wrong by less than 0.001 of the standard
    deviation of x / 1000; so it is 4.5 standard deviations of the prior away.
    """
    share = jnp.exp(log_infected(jnp.stack([theta["beta"], theta["gamma"]])))
    return jax.random.binomial(key, TESTED, share)
