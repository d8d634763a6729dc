"""The likelihood of observed data as a function of theta, from any estimate of the likelihood ratio.

Observations are i.i.d., so their log-ratios add. Where the number of events says something about theta as well, the
Poisson term of the extended likelihood (Barlow 1990, NIM A 297, 496) stands beside them:
log L(theta) = sum_i log r(x_i | theta) + n log nu(theta) - nu(theta), up to a constant.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from ...core.names import nearest
from ...core.prior import Prior
from ...core.simulations import as_observations
from ...core.solution import Array
from ..estimates import AbstractRatio

NamedTheta = Mapping[str, jax.Array]
Rate = Callable[[NamedTheta], jax.Array]

MOST_PARAMETERS = 8  # small systems of equations are written out; beyond some parameters that gets slow
NUM_DRAWS = 4096  # of the prior, for its spread where the support has no end


class LikelihoodRatio(eqx.Module):
    """log L(theta) of one set of observations, up to a constant. Made by `likelihood_ratio`.

    Fields
    ------
    ratio: the estimate of log r(x | theta).
    x: observations `(m, *event)`.
    weight: `(m,)`, how much each counts: 0 for padding, fractions for Asimov sets; None where every one counts once.
    rate: named theta -> expected number of events nu `()`; None where the number of events says nothing.
    anchor: theta `(dim,)` at which log L is 0, or None. The sum is taken over differences from the anchor: the
        sum itself grows with m, and in float32 it would lose the differences between thetas.
    offset: `(m,)`, log r(x_i | anchor).
    """

    ratio: AbstractRatio
    x: jax.Array
    weight: jax.Array | None = None
    rate: Rate | None = eqx.field(static=True, default=None)
    anchor: jax.Array | None = None
    offset: jax.Array | None = None

    @property
    def prior(self) -> Prior:
        return self.ratio.prior

    @property
    def weights(self) -> jax.Array:
        """`(m,)`."""
        return jnp.ones(len(self.x)) if self.weight is None else self.weight

    def __call__(self, theta: Array) -> jax.Array:
        """log L `()` at theta `(dim,)`, relative to the anchor."""
        terms, weights = self.log_ratios(theta), self.weights
        return jnp.sum(jnp.where(weights > 0, weights * terms, 0.0)) + self.rate_term(theta)

    def log_ratios(self, theta: Array) -> jax.Array:
        """log r(x_i | theta) - log r(x_i | anchor) `(m,)`, without weights."""
        terms = self.ratio.log_ratio(jnp.asarray(theta, jnp.float32), self.x)
        return terms if self.offset is None else terms - self.offset

    def rate_term(self, theta: Array) -> jax.Array:
        """n log(nu / nu_anchor) - (nu - nu_anchor) `()`, n being the sum of the weights; 0 without a rate."""
        if self.rate is None:
            return jnp.zeros(())
        count, expected = jnp.sum(self.weights), self.expected(theta)
        reference = jnp.ones(()) if self.anchor is None else self.expected(self.anchor)
        growth = expected / jnp.where(reference > 0, reference, 1.0)
        # Without events the logarithm drops out, also where nu is 0.
        logarithm = jnp.log(jnp.where(count > 0, growth, 1.0))
        return count * logarithm - (expected - reference)

    def expected(self, theta: Array) -> jax.Array:
        """nu(theta) `()`, the expected number of events."""
        if self.rate is None:
            raise ValueError("this likelihood has no rate; give likelihood_ratio(..., rate=...)")
        return jnp.asarray(self.rate(self.prior.unpack(jnp.asarray(theta, jnp.float32))), jnp.float32)

    def anchored(self, theta: Array) -> "LikelihoodRatio":
        """The same function of theta, less its value at theta `(dim,)`."""
        theta = jnp.asarray(theta, jnp.float32)
        offset = self.ratio.log_ratio(theta, self.x)
        # An observation that is impossible at the anchor keeps its own log-ratio.
        offset = jnp.where(jnp.isfinite(offset), offset, 0.0)
        return LikelihoodRatio(self.ratio, self.x, self.weight, self.rate, theta, offset)


def likelihood_ratio(
    ratio: AbstractRatio, x: Array, *, rate: Rate | None = None, weight: Array | None = None
) -> LikelihoodRatio:
    """The likelihood of observed data.

    Parameters
    ----------
    ratio: an estimate of log r(x | theta), or `ExactRatio`.
    x: observations `(m, *event)`. With a rate, m may be 0.
    rate: for counting experiments, named theta -> expected number of events `()`, in pure JAX.
    weight: `(m,)`, not negative; see `LikelihoodRatio`.

    Raises
    ------
    TypeError: `ratio` is not a ratio, or x is not numeric.
    ValueError: wrong shapes, NaN or infinity, a rate that is not a scalar, a prior whose parameters cannot vary
        one by one (a simplex, a covariance).
    """
    check_ratio(ratio)
    check_rate(rate, ratio.prior)
    support_box(ratio.prior)
    values = np.asarray(x)
    if rate is not None and values.shape == (0, *ratio.event_shape):
        values, weight = np.zeros((1, *ratio.event_shape), np.float32), np.zeros(1)  # one row, that does not count
    observed = as_observations(values, ratio.event_shape, "the simulator of this ratio")
    return LikelihoodRatio(ratio, observed, _checked_weight(weight, len(observed)), rate)


def check_ratio(ratio: object) -> None:
    if not isinstance(ratio, AbstractRatio):
        raise TypeError(f"expected a likelihood ratio such as ExactRatio(simulator), got {type(ratio).__name__}")


def check_rate(rate: Rate | None, prior: Prior) -> None:
    """Raise unless the rate is None, or gives one number at a theta in the middle of the prior."""
    if rate is None:
        return
    if not callable(rate):
        raise TypeError(f"rate: expected a function of the named theta, got {type(rate).__name__}")
    value = np.asarray(rate(prior.unpack(jnp.asarray(starting_points(prior, 1)[0]))))
    if value.shape != ():
        raise ValueError(f"rate: expected one number per theta, shape (), got shape {value.shape}")
    if not (np.isfinite(value) and value >= 0):
        raise ValueError(f"rate: expected a finite number that is not negative, got {float(value):g}")


def _checked_weight(weight: Array | None, count: int) -> jax.Array | None:
    if weight is None:
        return None
    values = np.asarray(weight, np.float32)
    if values.shape != (count,):
        raise ValueError(f"weight: expected shape ({count},), one for each observation, got {values.shape}")
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise ValueError("weight: expected finite numbers that are not negative")
    return jnp.asarray(values)


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
    spread = np.diff(np.quantile(_prior_draws(prior), [0.16, 0.84], axis=0), axis=0)[0]
    scale = np.where(finite, np.where(finite, high, 0) - np.where(finite, low, 0), 2 * spread)
    return Box(low, high, scale.astype(np.float32))


@functools.cache
def _prior_draws(prior: Prior) -> np.ndarray:
    return np.asarray(prior.sample(jax.random.key(0), NUM_DRAWS), np.float32)


@functools.cache
def starting_points(prior: Prior, number: int) -> np.ndarray:
    """Points `(number, dim)` spread over the prior's support (Sobol'); where it has no end, over the prior's mass."""
    box = support_box(prior)
    unit = qmc.Sobol(prior.dim, scramble=False).random_base2(int(np.ceil(np.log2(number + 1))))[1 : number + 1]
    finite = np.isfinite(box.low) & np.isfinite(box.high)
    inside = np.where(finite, box.low, 0) + unit * np.where(finite, box.high - np.where(finite, box.low, 0), 0)
    drawn = np.sort(_prior_draws(prior), axis=0)
    mass = np.take_along_axis(drawn, np.floor(unit * NUM_DRAWS).astype(int), axis=0)
    return np.where(finite, inside, mass).astype(np.float32)


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
    for value in np.ravel(np.asarray(values, np.float64)):
        if not np.isfinite(value) or np.float32(value) < box.low[index] or np.float32(value) > box.high[index]:
            raise ValueError(
                f"parameter {name!r}: {value:g} is outside the support of its prior, "
                f"[{box.low[index]:g}, {box.high[index]:g}]"
            )
