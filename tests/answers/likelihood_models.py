"""Small models whose likelihoods are known by hand, for the tests of frequentist inference."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist

import quincunx as qx
from quincunx.answers.estimates import AbstractPosteriorEstimator, AbstractRatio
from quincunx.core.simulator import AbstractSimulator, Exact, NamedSimulator
from quincunx.gold.mined import mined_simulator
from quincunx.sample.black_box import simulator

BACKGROUND = 3.0


def normal(name, prior, centre):
    """x ~ Normal(centre(theta), 1), with `centre` a function of theta `(dim,)`."""
    log_likelihood = lambda theta, x: -0.5 * jnp.sum((x - centre(theta)) ** 2)

    @simulator(prior, name=name, exact=Exact(log_likelihood=log_likelihood))
    def draw(key, theta):
        return centre(prior.pack(theta)) + jax.random.normal(key)

    return draw


mean = normal("mean", qx.Prior(mean=dist.Uniform(-5, 5)), lambda theta: theta[0])
positive = normal("positive", qx.Prior(mean=dist.Uniform(0, 5)), lambda theta: theta[0])
square = normal("square", qx.Prior(root=dist.Uniform(-3, 3)), lambda theta: theta[0] ** 2)


@simulator(qx.Prior(signal=dist.Uniform(0, 40)), name="counting")
def counting(key, theta):
    """Events that say nothing; only their number does."""
    return jax.random.uniform(key)


lost = NamedSimulator("counting", counting.prior, "it is lost")


class Flat(AbstractRatio):
    """log r = 0."""

    simulator: AbstractSimulator = eqx.field(static=True, default=counting)
    event_shape: tuple[int, ...] = eqx.field(static=True, default=())

    def log_ratio(self, theta, x):
        return jnp.zeros(len(x)) * theta[0]


class Machine(AbstractPosteriorEstimator):
    """Has a posterior only."""

    simulator: AbstractSimulator = eqx.field(static=True, default=counting)
    event_shape: tuple[int, ...] = eqx.field(static=True, default=())

    def infer(self, key, x):
        raise AssertionError("the posterior is not asked for here")


class Kinked(AbstractRatio):
    """The log-ratio of `mean`, with a derivative that is NaN everywhere."""

    simulator: AbstractSimulator = eqx.field(static=True, default=mean)
    event_shape: tuple[int, ...] = eqx.field(static=True, default=())

    def log_ratio(self, theta, x):
        return -0.5 * (x - theta[0]) ** 2 + jnp.sqrt(0 * theta[0])


class Asymmetry(AbstractRatio):
    """weinberg where |A| is at most 2: log (1 + A x / (1 + x^2)), smooth there."""

    simulator: AbstractSimulator = eqx.field(static=True, default=qx.problems.weinberg)
    event_shape: tuple[int, ...] = eqx.field(static=True, default=())

    def log_ratio(self, theta, x):
        return jnp.log1p(jnp.maximum(qx.problems.asymmetry(theta) * x / (1 + x**2), -0.999))


# A bump on a flat background, with both yields unknown: mined, with a Poisson number of events.

_BUMP = qx.Prior(signal=dist.Uniform(0, 40), background=dist.Uniform(5, 60))


def _bump_density(theta, x):
    peak = theta[0] * jnp.exp(-0.5 * (x / 0.3) ** 2) / (0.3 * jnp.sqrt(2 * jnp.pi))
    return (peak + theta[1] / 6) / (theta[0] + theta[1])


def _joint(theta, x, is_signal):
    total = theta["signal"] + theta["background"]
    return jnp.log(jnp.where(is_signal, theta["signal"], theta["background"]) / total)


@mined_simulator(
    _BUMP,
    joint_log_prob=_joint,
    exact=Exact(log_likelihood=lambda theta, x: jnp.sum(jnp.log(_bump_density(theta, x)))),
    rate=lambda theta: theta["signal"] + theta["background"],
)
def bump(key, theta):
    first, second, third = jax.random.split(key, 3)
    is_signal = jax.random.uniform(first) < theta["signal"] / (theta["signal"] + theta["background"])
    x = jnp.where(is_signal, 0.3 * jax.random.normal(second), jax.random.uniform(third, minval=-3, maxval=3))
    return x, is_signal
