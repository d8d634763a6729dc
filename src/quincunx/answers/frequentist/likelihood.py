"""The likelihood of observed data as a function of theta, from any estimate of the likelihood ratio.

Observations are i.i.d., so their log-ratios add. Where the number of events says something about theta as well, the
Poisson term of the extended likelihood (Barlow 1990, NIM A 297, 496) stands beside them:
log L(theta) = sum_i log r(x_i | theta) + n log nu(theta) - nu(theta), up to a constant.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from ...core.batches import bucket, filled, put
from ...core.names import nearest
from ...core.prior import Prior
from ...core.simulator import AbstractSimulator, NamedSimulator
from ...core.solution import Array
from ...gold.mined import AbstractMinedSimulator
from ..estimates import AbstractPosteriorEstimator, AbstractRatio

NamedTheta = Mapping[str, jax.Array]
Rate = Callable[[NamedTheta], jax.Array]

MOST_PARAMETERS = 8  # small systems of equations are written out; beyond some parameters that gets slow
NUM_DRAWS = 4096  # of the prior, for its spread where the support has no end


class Likelihood(eqx.Module):
    """log L(theta) of one set of observations, up to a constant. Made by `likelihood`.

    Where the support of a parameter depends on others, it is -inf outside.

    Fields
    ------
    ratio: the estimate of log r(x | theta).
    x: observations `(M, *event)`, filled up to a number M that other data share, so that they share compiled code.
    weight: `(M,)`, how much each counts: 0 for filling, fractions for Asimov sets.
    offset: `(M,)`, log r(x_i | anchor), which is taken from each log-ratio; 0 without an anchor. The sum is taken over
        differences: the sum itself grows with M, and in float32 it would lose the differences between thetas.
    unit: `()`, nu at the anchor; 1 without.
    rate: named theta -> expected number of events nu `()`; None where the number of events says nothing.
    """

    ratio: AbstractRatio
    x: Array
    weight: Array
    offset: Array
    unit: Array
    rate: Rate | None = eqx.field(static=True)

    @staticmethod
    def of(ratio: AbstractRatio, x: Array, weight: Array, rate: Rate | None) -> "Likelihood":
        """Without an anchor."""
        return Likelihood(ratio, x, weight, np.zeros(len(x), np.float32), np.ones((), np.float32), rate)

    @property
    def prior(self) -> Prior:
        return self.ratio.prior

    @property
    def num_observations(self) -> jax.Array:
        """The sum of the weights `()`."""
        return jnp.asarray(self.weight.sum())

    def __call__(self, theta: Array) -> jax.Array:
        """log L `()` at theta `(dim,)`, relative to the anchor."""
        terms = jnp.where(self.weight > 0, self.weight * self.log_ratios(theta), 0.0)
        return jnp.where(self.possible(theta), jnp.sum(terms) + self.rate_term(theta), -jnp.inf)

    def possible(self, theta: Array) -> jax.Array:
        """Whether theta `(dim,)` lies in the support of the prior `()`: its ends may depend on other parameters.

        What has fixed ends is kept inside them by those who climb.
        """
        return self.prior.contains(jnp.asarray(theta, jnp.float32)) if self.prior.conditional else jnp.asarray(True)

    def log_ratios(self, theta: Array) -> jax.Array:
        """log r(x_i | theta) - log r(x_i | anchor) `(M,)`, without weights."""
        return self.ratio.log_ratio(jnp.asarray(theta, jnp.float32), self.x) - self.offset

    def rate_term(self, theta: Array) -> jax.Array:
        """n log(nu / nu_anchor) - (nu - nu_anchor) `()`, n being the sum of the weights; 0 without a rate."""
        if self.rate is None:
            return jnp.zeros(())
        count, expected = self.num_observations, self.expected(theta)
        growth = expected / jnp.where(self.unit > 0, self.unit, 1.0)
        # Without events the logarithm drops out, also where nu is 0.
        return count * jnp.log(jnp.where(count > 0, growth, 1.0)) - (expected - self.unit)

    def expected(self, theta: Array) -> jax.Array:
        """nu(theta) `()`, the expected number of events; that of the data without a rate."""
        if self.rate is None:
            return self.num_observations
        return jnp.asarray(self.rate(self.prior.unpack(jnp.asarray(theta, jnp.float32))), jnp.float32)

    def anchored(self, theta: Array) -> "Likelihood":
        """The same function of theta, less its value at theta `(dim,)`."""
        offset = self.ratio.log_ratio(jnp.asarray(theta, jnp.float32), self.x)
        # An observation that is impossible at the anchor keeps its own log-ratio.
        offset = jnp.where(jnp.isfinite(offset), offset, 0.0)
        unit = jnp.ones(()) if self.rate is None else self.expected(theta)
        return Likelihood(self.ratio, self.x, self.weight, offset, unit, self.rate)


def likelihood(
    estimator: AbstractRatio,
    x: Array,
    *,
    rate: Rate | str | None = "simulator",
    weight: Array | None = None,
) -> Likelihood:
    """The likelihood of observed data.

    Parameters
    ----------
    estimator: an estimate of log r(x | theta), or `ExactRatio`.
    x: observations `(m, *event)`. With a rate, m may be 0.
    rate: for counting experiments, named theta -> expected number of events `()`, in pure JAX. By default that of the
        simulator, where it has one; None where the number of observations says nothing.
    weight: `(m,)`, how much each observation counts, not negative; if None, each counts once.

    Raises
    ------
    TypeError: no estimator of a ratio, or x is not numeric.
    ValueError: wrong shapes, NaN or infinity, a rate that is not a scalar or not known, a prior whose parameters cannot
        vary one by one (a simplex, a covariance).
    """
    check_ratio(estimator)
    support_box(estimator.prior)
    used: Any = rate_of(estimator.simulator) if rate == "simulator" else rate
    if used is not None:
        check_rate(used, estimator.prior)
    if used is not None and np.shape(x) == (0, *estimator.event_shape):
        x, weight = np.zeros((1, *estimator.event_shape), np.float32), np.zeros(1)  # one row, that does not count
    values = np.asarray(estimator.observations(x))
    size = bucket(len(values))
    counts = np.zeros(size, np.float32)
    counts[: len(values)] = _checked_weight(weight, len(values))
    return Likelihood.of(estimator, put(filled(values, size)), put(counts), used)


def check_ratio(estimator: object) -> None:
    if isinstance(estimator, AbstractPosteriorEstimator):
        raise TypeError(
            f"a {type(estimator).__name__} has no likelihood; it has a posterior: qx.posterior(estimator, x)"
        )
    if not isinstance(estimator, AbstractRatio):
        raise TypeError(
            "expected an estimator of the likelihood ratio, such as ExactRatio(simulator) or the value of what train "
            f"returns, got {type(estimator).__name__}"
        )


def rate_of(simulator: AbstractSimulator) -> Rate | None:
    """The simulator's own rate; None if it has none.

    Raises
    ------
    ValueError: the simulator is not here.
    """
    if isinstance(simulator, NamedSimulator):
        raise ValueError(
            f"the simulator {simulator.name!r} is not here, so that its rate is not known; give simulator= when "
            "loading (--simulator), or rate=None (--no-rate) where the number of observations says nothing"
        )
    return simulator.rate if isinstance(simulator, AbstractMinedSimulator) else None


def check_rate(rate: object, prior: Prior) -> None:
    """Raise unless the rate is None or gives one number at a theta."""
    if rate is None:
        return
    if not callable(rate):
        raise TypeError(f"rate: expected a function of the named theta, got {type(rate).__name__}")
    shape = np.shape(jax.eval_shape(lambda theta: rate(prior.unpack(theta)), np.zeros(prior.dim, np.float32)))
    if shape != ():
        raise ValueError(f"rate: expected one number per theta, shape (), got shape {shape}")


def _checked_weight(weight: Array | None, count: int) -> np.ndarray:
    values = np.ones(count, np.float32) if weight is None else np.asarray(weight, np.float32)
    if values.shape != (count,):
        raise ValueError(f"weight: expected shape ({count},), one for each observation, got {values.shape}")
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise ValueError("weight: expected finite numbers that are not negative")
    return values


# -- the parameters, one by one ----------------------------------------------------------------------


class Box(NamedTuple):
    """The support of the prior: `low`, `high` `(dim,)`, infinite if it has no end, and a typical `scale` `(dim,)`."""

    low: np.ndarray
    high: np.ndarray
    scale: np.ndarray


@functools.cache
def support_box(prior: Prior) -> Box:
    """The ends of every column's support.

    Raises
    ------
    ValueError: a parameter whose components cannot vary one by one, or more than `MOST_PARAMETERS` columns.
    """
    if prior.dim > MOST_PARAMETERS:
        raise ValueError(f"the prior has {prior.dim} parameters; likelihoods are maximised over {MOST_PARAMETERS}")
    low, high = prior.ends
    if np.isnan(low).any():
        column = prior.columns[int(np.argmax(np.isnan(low)))]
        raise ValueError(
            f"parameter {column!r}: the components of its support cannot vary one by one; likelihoods are maximised "
            "over intervals and the real line"
        )
    finite = np.isfinite(low) & np.isfinite(high)
    scale = np.where(finite, high, 0) - np.where(finite, low, 0)
    if not finite.all():
        spread = np.diff(np.quantile(_prior_draws(prior), [0.16, 0.84], axis=0), axis=0)[0]
        scale = np.where(finite, scale, 2 * spread)
    return Box(low, high, scale.astype(np.float32))


@functools.cache
def _prior_draws(prior: Prior) -> np.ndarray:
    return np.sort(np.asarray(prior.sample(jax.random.key(0), NUM_DRAWS), np.float32), axis=0)


@functools.cache
def starting_points(prior: Prior, number: int) -> np.ndarray:
    """Points `(number, dim)` spread over the prior's support (Sobol'); where it has no end, over the prior's mass.

    Draws of a prior whose distributions depend on each other: its support is no box.
    """
    box = support_box(prior)
    if prior.conditional:
        return np.asarray(prior.sample(jax.random.key(0), number), np.float32)
    unit = qmc.Sobol(prior.dim, scramble=False).random_base2(int(np.ceil(np.log2(number + 1))))[1 : number + 1]
    finite = np.isfinite(box.low) & np.isfinite(box.high)
    low = np.where(finite, box.low, 0)
    points = low + unit * (np.where(finite, box.high, 0) - low)
    if not finite.all():
        mass = np.take_along_axis(_prior_draws(prior), np.floor(unit * NUM_DRAWS).astype(int), axis=0)
        points = np.where(finite, points, mass)
    return points.astype(np.float32)


def column_indices(prior: Prior, names: Sequence[str] | str | None) -> tuple[int, ...]:
    """Places of these columns in theta; of all of them for None.

    Raises
    ------
    ValueError: an unknown name (the nearest is named), one given twice, or none.
    """
    if names is None:
        return tuple(range(prior.dim))
    wanted = (names,) if isinstance(names, str) else tuple(names)
    for name in wanted:
        if name not in prior.columns:
            raise ValueError(
                f"unknown parameter {name!r}{nearest(name, prior.columns)}; the prior has {', '.join(prior.columns)}"
            )
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(f"expected one or more different names of {', '.join(prior.columns)}, got {wanted}")
    return tuple(prior.columns.index(name) for name in wanted)


def check_inside(prior: Prior, index: int, values: Array | float) -> None:
    """Raise where a value of this column is not finite, or outside the support."""
    box, name = support_box(prior), prior.columns[index]
    value = np.ravel(np.asarray(values, np.float32))
    bad = ~(np.isfinite(value) & (value >= box.low[index]) & (value <= box.high[index]))
    if bad.any():
        raise ValueError(
            f"parameter {name!r}: {value[bad][0]:g} is outside the support of its prior, "
            f"[{box.low[index]:g}, {box.high[index]:g}]"
        )
