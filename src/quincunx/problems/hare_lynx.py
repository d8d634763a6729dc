"""Hares and lynx of Canada, 1900 to 1920: two simulators of the pelts that were bought from trappers each year.

With u hares and v lynx, in thousands of pelts, and time in years, a hare is born at the rate alpha u and eaten at
beta u v, a lynx is born at delta u v and dies at gamma v (Lotka 1925, Volterra 1926).

- `hare_lynx`: many animals, so that the rates are slopes, du/dt = (alpha - beta v) u and dv/dt = (delta u - gamma) v.
  Priors and noise are those of Carpenter's case study (2018, "Predator-Prey Population Dynamics: the Lotka-Volterra
  model in Stan"). Its likelihood is known.
- `hare_lynx_gillespie`: few animals, born and dying one by one (Gillespie 1977, J. Phys. Chem. 81, 2340: the direct
  method). Its likelihood is not known.

Both make the same x, and `pelts()` is the one that was observed.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ..core.prior import Prior
from ..core.simulator import Exact
from ..core.solution import Key
from ..core.tables import read_observations
from ..sample.black_box import simulator
from .measured import data_file
from .sbibm.runge_kutta import solved

DATA = "hare_lynx_1900_1920"
YEARS = 21
STEPS = 50  # in a year
PER_THOUSAND = 4.0  # animals of the stochastic simulator for a thousand pelts
MOST_EVENTS = 2048  # in a year
AT_ONCE = 8  # events for which random numbers are drawn together

RATES = ("alpha", "beta", "gamma", "delta")
FIRST, NOISE = ("hares", "lynx"), ("hare_noise", "lynx_noise")


def pelts() -> np.ndarray:
    """The one observation `(1, 21, 2)`: thousands of pelts of hares and of lynx, for every year from 1900 to 1920."""
    return read_observations(data_file(DATA), columns=("hare", "lynx")).astype(np.float32)[None]


def _vector(theta: Mapping[str, jax.Array], names: tuple[str, ...]) -> jax.Array:
    return jnp.stack([theta[name] for name in names])


def _seen(key: Key, log_median: jax.Array, noise: jax.Array) -> jax.Array:
    """x `(21, 2)`: each number with a factor LogNormal(0, noise of its kind)."""
    return jnp.exp(log_median + noise * jax.random.normal(key, log_median.shape))


# -- many animals: a differential equation ----------------------------------------------------------


def log_populations(theta: jax.Array) -> jax.Array:
    """Logs of hares and lynx `(21, 2)`, for theta that begins with (alpha, beta, gamma, delta, hares, lynx)."""
    alpha, beta, gamma, delta = theta[:4]

    def slope(state: jax.Array) -> jax.Array:
        hares, lynx = jnp.exp(state)
        return jnp.stack([alpha - beta * lynx, delta * hares - gamma])

    return solved(slope, jnp.log(theta[4:6]), interval=1.0, count=YEARS, steps=STEPS)


def _log_likelihood(theta: jax.Array, x: jax.Array) -> jax.Array:
    log_x, noise = jnp.log(jnp.where(x > 0, x, 1.0)), theta[6:]
    deviation = (log_x - log_populations(theta)) / noise
    log_density = -0.5 * deviation**2 - jnp.log(noise * np.sqrt(2 * np.pi)) - log_x
    return jnp.where(jnp.all(x > 0), jnp.sum(log_density), -jnp.inf)


def _positive(mean: float, std: float) -> dist.Distribution:
    """Normal, cut at 0."""
    return dist.TruncatedNormal(mean, std, low=0.0)


@simulator(
    Prior(
        alpha=_positive(1.0, 0.5),
        beta=_positive(0.05, 0.05),
        gamma=_positive(1.0, 0.5),
        delta=_positive(0.05, 0.05),
        hares=dist.LogNormal(float(np.log(10)), 1.0),
        lynx=dist.LogNormal(float(np.log(10)), 1.0),
        hare_noise=dist.LogNormal(-1.0, 1.0),
        lynx_noise=dist.LogNormal(-1.0, 1.0),
    ),
    source="Carpenter 2018, Stan case studies: Predator-Prey Population Dynamics",
    exact=Exact(log_likelihood=_log_likelihood),
)
def hare_lynx(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """x `(21, 2)`: thousands of pelts of hares and of lynx, in 21 years, by the differential equation.

    It starts from (hares, lynx) in the first year. Each number of x is a population times a factor LogNormal(0,
    hare_noise) or LogNormal(0, lynx_noise).

    Solved by 50 steps a year in logarithms, in which nothing becomes negative. Of 400 draws from the prior the logs are
    wrong by less than 3e-4 at 99 %, and by 0.005 at most.
    """
    median = log_populations(_vector(theta, RATES + FIRST))
    return _seen(key, median, _vector(theta, NOISE))


# -- few animals: births and deaths one by one ------------------------------------------------------


def _year(key: Key, rates: jax.Array, start: jax.Array) -> jax.Array:
    """Hares and lynx `(2,)` a year after `start`; NaN where that takes more than `MOST_EVENTS` events."""

    def going(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return (state[0] < 1) & (state[2] < MOST_EVENTS)

    def block(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        time, animals, count = state
        bits = jax.random.uniform(jax.random.fold_in(key, count), (2, AT_ONCE))
        for wait, place in zip(-jnp.log1p(-bits[0]), bits[1], strict=True):
            time, animals = _event(rates, time, animals, wait, place)
        return time, animals, count + AT_ONCE

    time, animals, _ = jax.lax.while_loop(going, block, (jnp.zeros(()), start, jnp.zeros((), int)))
    return jnp.where(time < 1, jnp.nan, animals)


def _event(
    rates: jax.Array, time: jax.Array, animals: jax.Array, wait: jax.Array, place: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The next event, if it is in this year: after `wait`, in units of the mean, the one that `place` in [0, 1) picks.

    What is left of the last waiting time is dropped at the end of a year: it is exponential, and remembers nothing.
    """
    alpha, beta, gamma, delta = rates
    hares, lynx = animals
    meetings = hares * lynx / PER_THOUSAND
    eaten = alpha * hares + beta * meetings
    bred = eaten + delta * meetings
    total = bred + gamma * lynx
    place, then = place * total, time + wait / total  # infinite where all are dead
    hare_born, hare_event, lynx_born = place < alpha * hares, place < eaten, place < bred
    change = jnp.stack([jnp.where(hare_born, 1.0, -1.0) * hare_event, jnp.where(lynx_born, 1.0, -1.0) * ~hare_event])
    return jnp.where(time < 1, then, time), animals + jnp.where(then < 1, change, 0.0)


def _around(median: float, std: float) -> dist.Distribution:
    return dist.LogNormal(float(np.log(median)), std)


@simulator(
    Prior(
        alpha=_around(0.6, 0.5),
        beta=_around(0.03, 0.5),
        gamma=_around(0.6, 0.5),
        delta=_around(0.03, 0.5),
        hares=_around(30.0, 0.5),
        lynx=_around(5.0, 0.5),
        hare_noise=_around(0.2, 0.5),
        lynx_noise=_around(0.2, 0.5),
    ),
    source="Gillespie 1977, J. Phys. Chem. 81, 2340",
)
def hare_lynx_gillespie(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """x `(21, 2)`: thousands of pelts of hares and of lynx, in 21 years, by births and deaths one by one.

    Four animals stand for a thousand pelts: the smaller that number, the more chance there is in births and deaths. It
    starts from (hares, lynx) thousands of pelts, rounded to animals up or down such that they are right in the mean.
    Noise is that of `hare_lynx`; a kind that died out is seen as if half an animal were left.

    Where there are more than 2,048 events in a year x is NaN, and the simulation counts as failed: about a fifth of
    draws from the prior, although it is narrower than that of `hare_lynx`.
    """
    start_key, event_key, seen_key = jax.random.split(key, 3)
    start = jnp.floor(PER_THOUSAND * _vector(theta, FIRST) + jax.random.uniform(start_key, (2,)))

    def leg(animals: jax.Array, key: Key) -> tuple[jax.Array, jax.Array]:
        animals = _year(key, _vector(theta, RATES), animals)
        return animals, animals

    later = jax.lax.scan(leg, start, jax.random.split(event_key, YEARS - 1))[1]
    animals = jnp.concatenate([start[None], later])
    return _seen(seen_key, jnp.log(jnp.maximum(animals, 0.5) / PER_THOUSAND), _vector(theta, NOISE))
