"""A line with an unknown slope angle and offset, seen through noise."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr

from ..core.prior import Prior
from ..core.simulator import Exact
from ..core.solution import Key
from ..sample.black_box import simulator
from .quadrature import mean_and_std, zoomed_grid

NOISE = 0.1

# float32 rounds pi / 2 up, where the tangent is negative; this is the last number below it, of slope 1.3e7.
_STEEPEST = np.nextafter(np.float32(np.pi / 2), np.float32(0))


def _slope(angle: jax.Array) -> jax.Array:
    return jnp.tan(jnp.minimum(angle, _STEEPEST))


def _log_likelihood(theta: jax.Array, x: jax.Array) -> jax.Array:
    residual = (x[:, 1] - _slope(theta[0]) * x[:, 0] - theta[1]) / NOISE
    normaliser = 0.5 * np.log(2 * np.pi) + np.log(NOISE) + np.log(2)
    inside = jnp.all(jnp.abs(x[:, 0]) <= 1)
    return jnp.where(inside, -0.5 * jnp.sum(residual**2) - x.shape[0] * normaliser, -jnp.inf)


# -- least squares inside the support ---------------------------------------------------------


class _Line(NamedTuple):
    """A line near the data, and what the data say about the rest: all that the posterior needs.

    Over lines (slope + d, offset + e) the sum of squares is, up to a constant,
    spread * (d - slope_rest)^2 + m * (e - offset_rest + d * centre)^2.
    """

    slope: jax.Array
    offset: jax.Array
    slope_rest: jax.Array
    offset_rest: jax.Array
    spread: jax.Array
    centre: jax.Array


def _fit(x: jax.Array) -> _Line:
    """The least-squares line with slope >= 0 and |offset| <= 1.

    The second pass regresses the residuals of the first, so that rounding in steep slopes (the sums hold
    numbers of the order of the slope, the noise is 0.1) does not reach the offset.
    """
    centre = jnp.mean(x[:, 0])
    spread = jnp.sum((x[:, 0] - centre) ** 2)
    slope, offset = jnp.zeros(()), jnp.zeros(())
    for _ in range(2):
        d, e = _regress(x, slope, offset, centre, spread)
        slope, offset = _into_support(x, slope + d, e + offset - d * centre)
    d, e = _regress(x, slope, offset, centre, spread)
    return _Line(slope, offset, d, e, spread, centre)


def _regress(
    x: jax.Array, slope: jax.Array, offset: jax.Array, centre: jax.Array, spread: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Slope of the residuals on x, and their mean."""
    residual = x[:, 1] - slope * x[:, 0] - offset
    mean = jnp.mean(residual)
    d = jnp.sum((x[:, 0] - centre) * (residual - mean)) / jnp.where(spread > 0, spread, 1.0)
    return jnp.where(spread > 0, d, 0.0), mean


def _into_support(x: jax.Array, slope: jax.Array, offset: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The best line of the support: this one, or, if it is outside, the best of the three edges."""
    inside = (slope >= 0) & (jnp.abs(offset) <= 1)
    flat = jnp.clip(jnp.mean(x[:, 1]), -1.0, 1.0)
    candidates = [(jnp.zeros(()), flat), *((_slope_through(x, edge), jnp.full((), edge)) for edge in (-1.0, 1.0))]
    slopes, offsets = map(jnp.stack, zip(*candidates, strict=True))
    residuals = x[:, 1] - slopes[:, None] * x[:, 0] - offsets[:, None]
    best = jnp.argmin(jnp.sum(residuals**2, axis=1))
    return jnp.where(inside, slope, slopes[best]), jnp.where(inside, offset, offsets[best])


def _slope_through(x: jax.Array, offset: float) -> jax.Array:
    squares = jnp.sum(x[:, 0] ** 2)
    return jnp.maximum(jnp.sum(x[:, 0] * (x[:, 1] - offset)) / jnp.where(squares > 0, squares, 1.0), 0.0)


def _mle(x: jax.Array) -> jax.Array:
    line = _fit(x)
    return jnp.stack([jnp.minimum(jnp.arctan(line.slope), _STEEPEST), line.offset])


# -- posterior --------------------------------------------------------------------------------


def _posterior(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean `(2,)` and standard deviation `(2,)`.

    Given the slope, the offset is a truncated normal; what is left is one integral over the angle,
    taken over its difference from the fitted angle, because float32 has only 13 angles per 1e-6 near pi / 2.
    """
    line, tau = _fit(x), NOISE / x.shape[0] ** 0.5

    def steepening(turn: jax.Array) -> jax.Array:
        # tan(angle + turn) - tan(angle). Towards the vertical it stops where its square still is a float32.
        cosine = jnp.maximum(jnp.cos(turn) - line.slope * jnp.sin(turn), 1e-20)
        return jnp.clip((1 + line.slope**2) * jnp.sin(turn) / cosine, -line.slope, 1e15)

    def offset_law(turn: jax.Array) -> _Truncated:
        return _truncated_normal(line.offset + line.offset_rest - steepening(turn) * line.centre, tau)

    def log_density(turn: jax.Array) -> jax.Array:
        misfit = line.spread * (steepening(turn) - line.slope_rest) ** 2
        return -0.5 * misfit / NOISE**2 + offset_law(turn).log_mass

    angle = jnp.arctan(line.slope)
    turns, weights = zoomed_grid(log_density, -angle, jnp.arctan2(1.0, line.slope))
    turn, turn_std = mean_and_std(turns, weights)
    law = offset_law(turns)
    offset, offset_std = mean_and_std(law.mean, weights)
    offset_std = jnp.sqrt(offset_std**2 + jnp.sum(weights * law.variance))
    return jnp.stack([angle + turn, offset]), jnp.stack([turn_std, offset_std])


class _Truncated(NamedTuple):
    log_mass: jax.Array
    mean: jax.Array
    variance: jax.Array


def _truncated_normal(location: jax.Array, scale: float) -> _Truncated:
    """Normal(location, scale) cut to [-1, 1]: log mass, mean and variance, elementwise.

    Below the interval's middle everything is mirrored, so that the nearer edge is always the upper one.
    """
    side = jnp.where(location < 0, -1.0, 1.0)
    upper, lower = (1 - side * location) / scale, (-1 - side * location) / scale
    log_upper = log_ndtr(upper)
    log_mass = log_upper + jnp.log1p(-jnp.exp(log_ndtr(lower) - log_upper))
    at_upper, at_lower = (jnp.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - log_mass) for z in (upper, lower))
    shift = at_lower - at_upper
    variance = scale**2 * (1 + lower * at_lower - upper * at_upper - shift**2)
    reached = log_mass > -100  # further out the formulas overflow, and the weight is zero
    mean = jnp.where(reached, jnp.clip(location + side * scale * shift, -1.0, 1.0), side)
    return _Truncated(log_mass, mean, jnp.where(reached, jnp.maximum(variance, 0.0), 0.0))


@simulator(
    Prior(angle=dist.Uniform(0, np.pi / 2), offset=dist.Uniform(-1, 1)),
    source="Pesah, Wehenkel, Louppe 2018, arXiv:1811.12932, appendix B.1",
    exact=Exact.of(_log_likelihood, _mle, _posterior),
)
def linear_regression(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """One point `(2,)`, (x, y): x ~ Uniform(-1, 1), y = tan(angle) x + offset + n, n ~ Normal(0, 0.1).

    `angle` is in radians; 0.1 is the standard deviation of the noise, as in the authors' code.

    The MLE is least squares of y on x inside the prior's support. With a single observation many lines
    pass through it; the one of smallest slope is given.

    float32 sets limits near pi / 2: an angle resolves a slope s only to about 1e-7 s^2, so above slopes
    of about 300 `log_likelihood` jumps from one representable angle to the next. The MLE, the posterior
    mean and the posterior standard deviation don't go through the angle and hold up to slopes of 1e5,
    where the observations themselves lose the noise to rounding.
    """
    x_key, noise_key = jax.random.split(key)
    x = jax.random.uniform(x_key, minval=-1.0, maxval=1.0)
    y = _slope(theta["angle"]) * x + theta["offset"] + NOISE * jax.random.normal(noise_key)
    return jnp.stack([x, y])
