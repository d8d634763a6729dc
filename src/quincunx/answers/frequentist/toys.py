"""Toy experiments: simulated data sets and their test statistics, many at a time; and the Asimov data set.

A toy at theta is m observations, or Poisson(nu(theta)) of them where a rate is given. Sets of different sizes are
padded to one shape, and the padding has weight 0.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.simulator import AbstractSimulator
from ...core.solution import Array, Key
from ...sample.simulate import SimulationError
from ..estimates import AbstractRatio
from .climb import CHUNK, best_starts, map_batches, maximise
from .likelihood import Box, LikelihoodRatio, Rate, check_rate, check_ratio, starting_points, support_box
from .statistic import Sided, check_rows, statistic

NUM_CANDIDATES, NUM_STARTS, NUM_STEPS = 32, 2, 30
SIMULATED = 2_000_000  # numbers simulated at a time


def draw_toys(
    key: Key, simulator: AbstractSimulator, theta: np.ndarray, num_observations: int | None, rate: Rate | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """One toy at each row of theta `(n, dim)`: x `(n, m, *event)` and weights `(n, m)`; rows that failed hold NaN."""
    count_key, x_key = jax.random.split(key)
    if rate is None or num_observations is not None:
        return simulator.draw(x_key, theta, int(num_observations or 1))[0], None
    expected = np.asarray(_expected(rate, simulator, theta), np.float64)
    if not (np.isfinite(expected).all() and (expected >= 0).all()):
        raise ValueError("rate: expected finite numbers that are not negative at every theta")
    seed = int(jax.random.randint(count_key, (), 0, np.iinfo(np.int32).max))
    counts = np.random.default_rng(seed).poisson(expected)
    # Sizes in steps of a quarter, so that few different shapes are compiled.
    width = 4
    while width < counts.max(initial=1):
        width = int(np.ceil(1.25 * width))
    x, _ = simulator.draw(x_key, theta, width)
    counted = np.arange(width) < counts[:, None]
    # Padding repeats the first observation: no worse for the log-ratio than a real one.
    x = np.where(counted.reshape(counted.shape + (1,) * (x.ndim - 2)), x, x[:, :1])
    return x, counted.astype(np.float32)


def _expected(rate: Rate, simulator: AbstractSimulator, theta: np.ndarray) -> jax.Array:
    return jax.vmap(lambda each: jnp.asarray(rate(simulator.prior.unpack(each)), jnp.float32))(jnp.asarray(theta))


def toy_statistics(
    key: Key,
    ratio: AbstractRatio,
    simulator: AbstractSimulator,
    theta: np.ndarray,
    *,
    num_observations: int | None,
    rate: Rate | None,
    interest: tuple[int, ...],
    sided: Sided,
    num_starts: int = NUM_STARTS,
) -> np.ndarray:
    """q `(n,)` of the true hypothesis in one toy at each row of theta `(n, dim)`; NaN where the simulator failed.

    Simulated and reduced in chunks, so that memory does not grow with n.

    Raises
    ------
    ValueError: a likelihood that cannot be maximised.
    SimulationError: more than half of the toys failed.
    """
    event = int(np.prod(ratio.event_shape, dtype=int))
    size = (
        num_observations or float(np.max(_expected(rate, simulator, theta))) if rate is not None else num_observations
    )
    rows = max(1, min(len(theta), int(SIMULATED / max(1.0, float(size or 1)) / event)))
    chunks = -(-len(theta) // rows)
    rows = -(-len(theta) // chunks)
    padded = theta[np.minimum(np.arange(rows * chunks), len(theta) - 1)]  # every chunk has one shape
    box = jax.tree.map(jnp.asarray, support_box(ratio.prior))
    candidates = jnp.asarray(starting_points(ratio.prior, NUM_CANDIDATES))
    free = np.ones(ratio.prior.dim, bool)
    free[list(interest)] = False
    parts = []
    for chunk in range(chunks):
        here = padded[chunk * rows : (chunk + 1) * rows]
        x, weight = draw_toys(jax.random.fold_in(key, chunk), simulator, here, num_observations, rate)
        q = _statistics(
            ratio, rate, x, weight, here, candidates, free, box, interest[0], sided, num_starts, bool(free.any())
        )
        failed = ~np.isfinite(x.reshape(len(x), -1)).all(axis=1)
        check_finite(np.asarray(q)[~failed])
        parts.append(np.where(failed, np.nan, np.asarray(q)))
    found = np.concatenate(parts)[: len(theta)]
    if 2 * np.isnan(found).sum() > len(found):
        raise SimulationError(f"{int(np.isnan(found).sum())} of {len(found)} toys by {simulator.name!r} failed", ())
    return found


@eqx.filter_jit
def _statistics(
    ratio: AbstractRatio,
    rate: Rate | None,
    x: Array,
    weight: Array | None,
    theta: Array,
    candidates: Array,
    free: Array,
    box: Box,
    index: int,
    sided: Sided,
    num_starts: int,
    nuisance: bool,
) -> jax.Array:
    free = jnp.asarray(free)

    def one(toy: tuple[jax.Array, jax.Array | None, jax.Array]) -> jax.Array:
        x, weight, truth = toy
        # Anchored at the truth, log L there is 0 and all that matters is small.
        likelihood = LikelihoodRatio(ratio, x, weight, rate).anchored(truth)
        starts = jnp.concatenate([truth[None], best_starts(likelihood, jnp.asarray(candidates), num_starts)])
        best, top, _ = maximise(likelihood, starts, jnp.ones_like(free), box, NUM_STEPS)
        if not nuisance:
            q = statistic(-jnp.maximum(top, 0.0), truth[index], best[index], sided)
            return jnp.where(jnp.isfinite(top), q, jnp.nan)
        starts = jnp.stack([truth, jnp.where(free, best, truth)])
        _, held, _ = maximise(likelihood, starts, free, box, NUM_STEPS)
        q = statistic(held - jnp.maximum(top, held), truth[index], best[index], sided)
        return jnp.where(jnp.isfinite(top), q, jnp.nan)

    rows = (jnp.asarray(x), None if weight is None else jnp.asarray(weight), jnp.asarray(theta))
    return map_batches(one, rows, CHUNK // (x.shape[1] * (num_starts + 1)))


def check_finite(q: np.ndarray) -> None:
    """Raise where a toy's likelihood could not be maximised: it would look as if the hypothesis fitted perfectly."""
    if np.isnan(q).any():
        raise ValueError(
            f"the likelihood of {int(np.isnan(q).sum())} of {q.size} toys is NaN, or its derivatives in theta are; "
            "log_ratio must be differentiable twice wherever the data are possible"
        )


def check_experiment(
    ratio: AbstractRatio,
    simulator: AbstractSimulator,
    theta: Array,
    num_observations: int | None,
    rate: Rate | None,
) -> np.ndarray:
    """Theta as `(K, dim)`, after checks of what toys are made of.

    Raises
    ------
    TypeError: not a ratio, or not a simulator.
    ValueError: ratio and simulator with different priors, both or none of num_observations and rate, bad theta.
    """
    check_ratio(ratio)
    if not isinstance(simulator, AbstractSimulator):
        raise TypeError(f"expected a simulator, got {type(simulator).__name__}")
    if simulator.prior != ratio.prior:
        raise ValueError(f"the ratio's prior is {ratio.prior}, the simulator's is {simulator.prior}; they must agree")
    if (num_observations is None) == (rate is None):
        raise ValueError("give num_observations (a fixed number) or rate (a Poisson number), one of the two")
    if num_observations is not None and num_observations < 1:
        raise ValueError(f"num_observations must be at least 1, got {num_observations}")
    check_rate(rate, ratio.prior)
    return check_rows(ratio.prior, theta)


def asimov(
    key: Key,
    ratio: AbstractRatio,
    simulator: AbstractSimulator,
    theta: Array,
    *,
    num_observations: int | None = None,
    rate: Rate | None = None,
    num_simulations: int = 100_000,
) -> LikelihoodRatio:
    """The likelihood of the data set that is typical of theta in every respect (arXiv:1007.1727, section 3.2).

    N simulated observations stand for it, each with weight m/N, or nu(theta)/N where a rate is given. Its statistics
    are the medians to expect, with a Monte Carlo error that falls as 1/sqrt(N).

    Parameters
    ----------
    theta: `(dim,)`, where the observations are drawn.
    num_observations, rate: the size m of the experiment, or named theta -> its expected size.
    num_simulations: N.

    Raises
    ------
    ValueError, TypeError: as `check_experiment`; fewer than 2 simulations.
    SimulationError: the simulator failed.
    """
    point = check_experiment(ratio, simulator, np.asarray(theta)[None], num_observations, rate)
    if num_simulations < 2:
        raise ValueError(f"num_simulations must be at least 2, got {num_simulations}")
    x, failures = simulator.draw(key, point, num_simulations)
    if failures:
        raise SimulationError(f"the simulation of the Asimov set failed: {failures[0]}", failures)
    size = float(_expected(rate, simulator, point)[0]) if rate is not None else float(num_observations or 1)
    weight = jnp.full(num_simulations, size / num_simulations, jnp.float32)
    return LikelihoodRatio(ratio, jnp.asarray(x[0]), weight, rate).anchored(point[0])
