"""Mined simulators for the laws of gold: those of the catalogue, a plain pair of functions, and programs."""

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from quincunx.control.program import program
from quincunx.core.prior import Prior
from quincunx.core.simulator import Exact
from quincunx.gold.mined import AbstractMinedSimulator, mined_simulator
from quincunx.problems import eft, galton, galton_board

MEAN = Prior(mean=dist.Normal(0, 1))


def smeared_log_prob(theta, x, z):
    return dist.Normal(theta["mean"], jnp.exp(theta["log_scale"])).log_prob(z)


def smeared_log_likelihood(theta, x):
    return jnp.sum(dist.Normal(theta[0], jnp.sqrt(jnp.exp(2 * theta[1]) + 0.25)).log_prob(x))


@mined_simulator(
    Prior(mean=dist.Uniform(-3.0, 3.0), log_scale=dist.Uniform(-1.0, 1.0)),
    joint_log_prob=smeared_log_prob,
    exact=Exact(log_likelihood=smeared_log_likelihood),
)
def smeared(key, theta):
    z, noise = jax.random.normal(key, (2,))
    z = theta["mean"] + jnp.exp(theta["log_scale"]) * z
    return z + 0.5 * noise, z


longer = galton_board(40, num_nails=61, name="longer")


def chain(mean):
    z = numpyro.sample("z", dist.Normal(mean, 1.0))
    numpyro.sample("x", dist.Normal(z, 0.5))


def board(slope, rows=5, start=2):
    """Galton's board, with a slope that pushes to the side the ball is on."""
    position = jnp.array(start)
    for row in range(rows):
        side = 2 * position / (2 * start) - 1
        left = numpyro.sample(f"row{row}", dist.BernoulliProbs(jax.nn.sigmoid(slope * side)))
        position = position + jnp.where(left == 1, -1, 1) * (row % 2 == 0)
    return position


def mixed(rate, shift):
    """Discrete latents, a vector parameter, a plate, and an observable that is made of all sites."""
    count = numpyro.sample("count", dist.Poisson(jnp.exp(rate)))
    kind = numpyro.sample("kind", dist.Categorical(logits=jnp.array([0.0, 1.0, 2.0]) * shift[0]))
    with numpyro.plate("cells", 3):
        cell = numpyro.sample("cell", dist.Normal(shift[1] * kind, 1 + 0.1 * count))
    numpyro.deterministic("x", jnp.append(cell, jnp.stack([kind, count])))


PROGRAMS = {
    "chain": program(MEAN, observable="x")(chain),
    "board": program(Prior(slope=dist.Uniform(-1, 1)))(board),
    "mixed": program(Prior(rate=dist.Normal(0, 0.3), shift=dist.Normal(0, 0.5).expand([2])), observable="x")(mixed),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A simulator, thetas to draw at, and a numerator for each, near enough for joint ratios of finite variance.

    exact: the log-likelihood of a set, where it is known.
    edges: of the bins of x, along each of its axes; None where x counts something.
    """

    simulator: AbstractMinedSimulator
    thetas: tuple
    numerators: tuple
    exact: Callable | None = None
    edges: tuple | None = None


CASES = {
    "galton": Case(galton, ([-0.6], [-1.0]), ([-0.8], [-0.8]), galton.exact.log_likelihood),
    "longer": Case(longer, ([-0.6], [-0.9]), ([-0.7], [-0.8]), longer.exact.log_likelihood),
    "eft": Case(
        eft,
        ([0.0, 0.0], [-1.0, -1.0], [-0.6, 0.8], [1.0, 0.3]),
        ([-0.2, 0.1], [-0.8, -0.9], [-0.4, 0.6], [0.5, 0.5]),
        eft.exact.log_likelihood,
        (np.linspace(np.log(0.4), np.log(3.0), 13), np.linspace(-0.9, 0.9, 11)),
    ),
    "smeared": Case(
        smeared,
        ([0.0, 0.0], [1.0, -0.7]),
        ([0.2, -0.1], [0.9, -0.6]),
        smeared_log_likelihood,
        (np.linspace(-9, 10, 77),),
    ),
    "chain": Case(PROGRAMS["chain"], ([0.3],), ([0.5],)),
    "board": Case(PROGRAMS["board"], ([-0.4],), ([0.3],)),
    "mixed": Case(PROGRAMS["mixed"], ([0.1, -0.2, 0.3],), ([0.2, 0.0, 0.4],)),
}


def corners(prior: Prior, far: float = 3.0) -> np.ndarray:
    """Every combination of the ends of the support, `(2^dim, dim)`; values far out stand for ends at infinity."""
    ends = [np.where(np.isfinite(end), end, sign * far) for end, sign in zip(prior.ends, (-1, 1), strict=True)]
    return np.array(list(itertools.product(*np.transpose(ends))), np.float32)
