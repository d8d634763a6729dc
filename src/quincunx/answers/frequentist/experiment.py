"""An experiment: a simulator, and how many observations it makes. Toys and Asimov data sets are drawn from it."""

import operator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from ...core.batches import bucket, over_rows, put
from ...core.prior import Prior
from ...core.simulator import AbstractSimulator
from ...core.solution import Array, Key
from ...sample.simulate import SimulationError
from ..estimates import AbstractRatio
from .likelihood import Likelihood, Rate, check_rate, check_ratio, rate_of

RARE = 1e-9  # how often a Poisson number may be larger than the places foreseen for it; then there are made more


class Experiment(eqx.Module):
    """A simulator that is run a fixed number of times, or a Poisson number that depends on theta.

    Parameters
    ----------
    simulator: what makes the observations.
    num_observations: their fixed number m.
    rate: instead, named theta -> expected number nu `()`, in pure JAX. With neither, that of the simulator.

    Raises
    ------
    TypeError: not a simulator, a rate that is not a function.
    ValueError: both or none of the two, a number below 1, a rate that is not a scalar, a prior whose parameters cannot
        vary one by one.

    Examples
    --------
    >>> import quincunx as qx
    >>> qx.Experiment(qx.problems.galton, num_observations=20).expected([[-0.8], [-0.7]])
    array([20., 20.])
    """

    simulator: AbstractSimulator = eqx.field(static=True)
    num_observations: int | None = eqx.field(static=True)
    rate: Rate | None = eqx.field(static=True)

    def __init__(self, simulator: AbstractSimulator, *, num_observations: int | None = None, rate: Rate | None = None):
        if not isinstance(simulator, AbstractSimulator):
            raise TypeError(f"expected a simulator, got {type(simulator).__name__}")
        if num_observations is None and rate is None:
            rate = rate_of(simulator)
        if (num_observations is None) == (rate is None):
            raise ValueError(
                "give num_observations (a fixed number) or rate (for a Poisson number), one of the two; the simulator "
                f"{simulator.name!r} has {'no' if rate is None else 'a'} rate of its own"
            )
        if num_observations is not None and operator.index(num_observations) < 1:
            raise ValueError(f"num_observations must be at least 1, got {num_observations}")
        check_rate(rate, simulator.prior)
        self.simulator, self.num_observations, self.rate = simulator, num_observations, rate

    def expected(self, theta: Array) -> np.ndarray:
        """The expected number of observations `(n,)` at theta `(n, dim)`.

        Raises
        ------
        ValueError: a rate that is negative or not finite.
        """
        if self.rate is None:
            return np.full(len(theta), float(self.num_observations or 0))
        found = over_rows(lambda rows: _rates(self.rate, self.simulator.prior, rows), np.asarray(theta, np.float32))
        if not (np.isfinite(found).all() and (found >= 0).all()):
            raise ValueError("rate: expected finite numbers that are not negative at every theta")
        return found.astype(np.float64)

    def places(self, theta: Array) -> int:
        """How many observations a toy at any of these thetas `(n, dim)` has room for: a bucket."""
        most = self.expected(theta).max()
        return bucket(int(most if self.rate is None else stats.poisson.isf(RARE, most)))

    def draw(self, key: Key, theta: Array, places: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """One toy at each row of theta `(n, dim)`: x `(n, M, *event)` and weights `(n, M)`.

        M is at least `places`, by default as many as these thetas need. What does not count has weight 0. Rows that
        failed hold NaN.
        """
        count_key, x_key = jax.random.split(key)
        counts = self.expected(theta)
        if self.rate is not None:
            counts = np.random.default_rng(np.asarray(jax.random.key_data(count_key))).poisson(counts)
        most = max(1, int(counts.max()))
        size = max(places or self.places(theta), bucket(most))
        # What is compiled is drawn for one size; what is not, no oftener than is needed.
        x, _ = self.simulator.draw(x_key, theta, size if self.simulator.compiled else most)
        counted = np.arange(size) < counts[:, None]
        # Filling repeats the first observation: no worse for the log-ratio than a real one.
        chosen = np.where(counted, np.arange(size), 0)
        return x[np.arange(len(x))[:, None], chosen], counted.astype(np.float32)


@eqx.filter_jit
def _rates(rate: Any, prior: Prior, theta: Array) -> jax.Array:
    return jax.vmap(lambda each: jnp.asarray(rate(prior.unpack(each)), jnp.float32))(theta)


def check_experiment(ratio: AbstractRatio, experiment: Experiment, theta: Array) -> np.ndarray:
    """Theta as `(K, dim)`, after checks that these belong together."""
    if not isinstance(experiment, Experiment):
        got = type(experiment).__name__
        raise TypeError(f"expected an experiment, such as Experiment(simulator, num_observations=20), got {got}")
    check_ratio(ratio)
    if not experiment.simulator.prior.same_law(ratio.prior):
        raise ValueError(
            f"the ratio's prior is {ratio.prior}, the simulator's is {experiment.simulator.prior}; they must agree"
        )
    return ratio.prior.rows(theta)


def asimov(
    key: Key, ratio: AbstractRatio, experiment: Experiment, theta: Array, *, num_simulations: int = 100_000
) -> Likelihood:
    """The likelihood of the data set that is typical of theta in every respect (arXiv:1007.1727, section 3.2).

    N simulated observations stand for it, each with weight m/N, or nu(theta)/N where the experiment has a rate. Its
    statistics are the medians to expect, with a Monte Carlo error that falls as 1/sqrt(N).

    Parameters
    ----------
    ratio: the estimate that the data will be analysed with.
    theta: `(dim,)`, where the observations are drawn.
    num_simulations: N.

    Raises
    ------
    TypeError, ValueError: a ratio and an experiment that do not belong together, a theta outside the support, fewer
        than 2 simulations.
    SimulationError: the simulator failed.
    """
    point = check_experiment(ratio, experiment, np.asarray(theta)[None])
    if num_simulations < 2:
        raise ValueError(f"num_simulations must be at least 2, got {num_simulations}")
    x, failures = experiment.simulator.draw(key, point, num_simulations)
    if failures:
        raise SimulationError(f"the simulation of the Asimov set failed: {failures[0]}", failures)
    weight = np.full(num_simulations, experiment.expected(point)[0] / num_simulations, np.float32)
    return Likelihood.of(ratio, put(x[0]), put(weight), experiment.rate)
