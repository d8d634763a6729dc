"""Exact and fast sampling from Poisson laws, by inversion, without loops that wait for the slowest draw.

`jax.random.poisson` loops until its last draw is accepted, and splits keys in each round; in a batch
everyone pays for the unluckiest. Here one 32-bit word becomes one draw, in a fixed number of steps:

- rate below 10: the word is compared with the 32 upper-tail probabilities, summed from the far tail
  inwards, so that each of them keeps its relative precision;
- rate of 10 or more: the word becomes a standard normal quantile z, a Cornish-Fisher expansion names the
  one count k whose boundary has to be looked at, and z is compared with `boundary(k, rate)`, the normal
  quantile of the Poisson CDF at k.

Both compare with the exact CDF up to float32 rounding. The total variation distance from the Poisson law
is below 1e-6 up to a rate of 1,100, and below 1e-5 up to 100,000.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from ..core.solution import Key

SWITCH = 10.0  # rate from which the asymptotic boundary is used
TERMS = 32  # largest count below SWITCH: P(X > 32 | rate 10) is 1e-8

# boundary(k) = -sqrt(a) eta + [c_0(eta) + c_1(eta) / a + c_2(eta) / a^2] / sqrt(a), a = k + 1. The first
# row is the series of log(eta / mu) / eta, up to rounding. All were found by least squares on the exact
# CDF in float64, over rates from 10 to 3,000 and boundaries within 6.5, weighted by the normal density.
_CORRECTIONS = (
    (-1 / 3, 0.0277782, 0.0006205, -0.0010786, 0.0002477, -0.0000189),
    (-0.0080301, -0.0030887, 0.0014901, -0.0002055),
    (0.0039096, -0.0012262),
)


def sample_poisson(key: Key, rate: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    """Independent counts of the given shape at one rate, as float32.

    Works under `jit`, `vmap` and `scan`. A rate that is negative or not finite gives NaN.

    Parameters
    ----------
    key: random key.
    rate: mean of the law, a scalar, or an array that broadcasts to `shape`; at most about 1e6,
        where float32 begins to round the counts.
    shape: shape of the result; one word of random bits is used for each count.
    """
    return quantile(jax.random.bits(key, shape, jnp.uint32), rate)


def quantile(bits: jax.Array, rate: jax.Array) -> jax.Array:
    """The Poisson count that uniform 32-bit words stand for; `bits` and `rate` broadcast."""
    rate = jnp.asarray(rate, dtype=jnp.float32)
    count = jnp.where(
        rate < SWITCH,
        _small_rate_quantile(bits, jnp.minimum(rate, SWITCH)),
        _large_rate_quantile(bits, jnp.maximum(rate, SWITCH)),
    )
    return jnp.where(jnp.isfinite(rate) & (rate >= 0), count, jnp.nan)


def boundary(count: jax.Array, rate: jax.Array) -> jax.Array:
    """The normal quantile of P(X <= count) for X ~ Poisson(rate), for rates from 10 on.

    The CDF is the regularised incomplete gamma function Q(a, rate), a = count + 1. Its uniform expansion
    is -sqrt(a) eta with eta^2 / 2 = mu - log(1 + mu), mu = rate / a - 1 (Temme 1979, SIAM J. Math. Anal.
    10, 757), plus a correction of order 1 / sqrt(a) (Barndorff-Nielsen 1986, Biometrika 73, 307; the idea of
    inverting it for Poisson draws is Giles's: 2016, ACM TOMS 42, Algorithm 955).
    """
    a = count + 1
    eta = jnp.sign(rate - a) * jnp.sqrt(2 * _deviance(rate, a))
    first, second, third = (_polynomial(eta, row) for row in _CORRECTIONS)
    root = jnp.sqrt(a)
    return -root * eta + (first + (second + third / a) / a) / root


def _small_rate_quantile(bits: jax.Array, rate: jax.Array) -> jax.Array:
    upper = (bits.astype(jnp.float32) + 0.5) * 2.0**-32
    masses = [jnp.exp(-rate)]
    for count in range(1, TERMS + 1):
        masses.append(masses[-1] * (rate * (1 / count)))
    tail, count = jnp.zeros_like(rate), jnp.zeros_like(upper * rate)
    for mass in masses[:0:-1]:
        tail = tail + mass
        count = count + (upper <= tail)
    return count


def _large_rate_quantile(bits: jax.Array, rate: jax.Array) -> jax.Array:
    # The last bit chooses the tail and the other 31 the place in it, so both tails are equally fine.
    lower = ndtri(((bits >> 1).astype(jnp.float32) + 0.5) * 2.0**-32)
    z = jnp.where(bits & 1, -lower, lower)
    root = jnp.sqrt(rate)
    continuous = rate + root * z + (z * z - 1) / 6 - 0.5 + (z - z**3) / (72 * root)
    count = jnp.maximum(jnp.round(continuous), 0.0)
    return count + (z > boundary(count, rate))


def _deviance(rate: jax.Array, a: jax.Array) -> jax.Array:
    """mu - log(1 + mu) for mu = rate / a - 1, in s = mu / (2 + mu) where the difference would cancel."""
    mu, s = (rate - a) / a, (rate - a) / (rate + a)
    series = _polynomial(s * s, (1 / 3, 1 / 5, 1 / 7, 1 / 9, 1 / 11, 1 / 13))
    near = 2 * s * s * (1 / (1 - s) - s * series)
    return jnp.where(jnp.abs(s) < 0.25, near, mu - jnp.log1p(mu))


def _polynomial(x: jax.Array, coefficients: Sequence[float]) -> jax.Array:
    value = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value
