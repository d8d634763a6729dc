"""Encoders of sets of observations: what the machine sees of data."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.batches import over_rows
from ...core.loss import AbstractFrozen
from ...core.solution import Array, Key
from .regression import RegressionSummary

MAX_MOMENT_DIM = 8  # above this the Gaussian fit of a set has too many numbers to be a good summary


class Warp(AbstractFrozen):
    """Robust features of numbers of any scale: `(..., d)` -> `(..., 4 d)`.

    Each component is seen at three magnifications, `arcsinh((x - centre) / scale)` with the centre and
    the local scale at the 5th, 50th and 95th percentile. The functions are near-linear around their centre and
    logarithmic far from it: counts from one to thousands keep their resolution at both ends, and heavy tails do
    no harm. The fourth is the component itself, clipped. All are standardised.
    """

    centre: jax.Array
    scale: jax.Array
    mean: jax.Array
    std: jax.Array

    @staticmethod
    def of(x: Array) -> "Warp":
        """Statistics of x `(n, d)`."""
        x = np.asarray(x, dtype=np.float64)
        q05, q25, q50, q75, q95 = np.quantile(x, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
        std = np.std(x, axis=0)
        std = np.where(std > 0, std, 1.0)
        scales = [np.where(gap > 0, gap, std) for gap in ((q25 - q05) / 2, (q75 - q25) / 2, (q95 - q75) / 2)]
        centre, scale = np.stack([q05, q50, q95]), np.stack(scales)
        features = _magnify(x, centre, scale, np)
        spread = np.std(features, axis=0)
        arrays = centre, scale, np.mean(features, axis=0), np.where(spread > 0, spread, 1.0)
        return Warp(*(jnp.asarray(a, jnp.float32) for a in arrays))

    @property
    def num_features(self) -> int:
        return self.mean.size

    def linear(self, x: jax.Array) -> jax.Array:
        """x in units of half its interquartile range, from the median: `(..., d)` -> `(..., d)`."""
        return (x - self.centre[1]) / self.scale[1]

    def __call__(self, x: jax.Array) -> jax.Array:
        features = (_magnify(x, self.centre, self.scale, jnp) - self.mean) / self.std
        return features.reshape(x.shape[:-1] + (-1,))


def _magnify(x, centre, scale, xp):
    """The four features `(..., 4, d)` of x `(..., d)`, before standardisation."""
    z = (x[..., None, :] - centre) / scale
    return xp.concatenate([xp.arcsinh(z), xp.clip(z[..., 1:2, :], -4.0, 4.0)], axis=-2)


class Summary(NamedTuple):
    """What an encoder makes of a set: features `(f,)`, and a first estimate of u with its log error, `(d,)` each."""

    features: jax.Array
    mean: jax.Array
    log_scale: jax.Array


class SetEncoder(eqx.Module):
    """Summary of a set of i.i.d. observations `(m, *event)`, of any size.

    A network looks at each observation; half of its features are averaged over the set (Pesah et
    al. 2018, section 3), half are maximised, which sees the edges of a distribution that no mean
    can see. Beside them stand fixed statistics of the set: the means of the warped components, the Gaussian
    fit of the set (for events of up to 8 numbers), the number of observations, and the estimate that a
    closed-form regression on those statistics gives.
    """

    warp: Warp
    moment_warp: Warp | None
    regression: RegressionSummary
    hidden: eqx.nn.Linear
    output: eqx.nn.Linear
    direct: eqx.nn.Linear
    event_dim: int = eqx.field(static=True)

    @staticmethod
    def make(key: Key, sets: Sequence[tuple[Array, Array]], *, width: int, num_pooled: int) -> "SetEncoder":
        """An encoder for sets like these; each of `sets` is u `(n, d)` with x `(n, m, *event)` made by it."""
        first = np.asarray(sets[0][1], dtype=np.float32)
        event_dim = int(np.prod(first.shape[2:], dtype=int))
        flat = first.reshape(-1, event_dim)
        warp = Warp.of(flat[:: max(1, len(flat) // 100_000)])
        moment_warp = None
        if event_dim <= MAX_MOMENT_DIM:
            moment_warp = Warp.of(_over_sets(_moments, np.asarray(sets[0][1])[:2000], None, warp))
        regression = _regress(warp, moment_warp, sets)
        hidden_key, output_key, direct_key = jax.random.split(key, 3)
        num_in = warp.num_features
        return SetEncoder(
            warp,
            moment_warp,
            regression,
            eqx.nn.Linear(num_in, width, key=hidden_key),
            eqx.nn.Linear(width, num_pooled, key=output_key),
            eqx.nn.Linear(num_in, num_pooled, use_bias=False, key=direct_key),
            event_dim,
        )

    @property
    def num_features(self) -> int:
        """f, the length of `Summary.features`."""
        return len(self.output.weight) + len(self.regression.centre) + 2 * self.regression.mean_weights.shape[1]

    def __call__(self, x: jax.Array, weight: jax.Array | None = None) -> Summary:
        """The summary of the observations in x `(m, *event)` whose `weight` (m,) is 1; 0 leaves one out."""
        x = x.reshape(len(x), self.event_dim)
        weight = jnp.ones(len(x)) if weight is None else weight
        fixed = _statistics(x, weight, self.warp, self.moment_warp)
        mean, log_scale = self.regression(fixed)
        learned = self._pool(x, weight)
        features = jnp.concatenate([learned, jnp.clip(fixed, -10.0, 10.0), mean, log_scale / 3 + 1])
        return Summary(features, mean, log_scale)

    def _pool(self, x: jax.Array, weight: jax.Array) -> jax.Array:
        h = jax.vmap(lambda one: self.output(jax.nn.silu(self.hidden(one))) + self.direct(one))(self.warp(x))
        half = h.shape[-1] // 2
        mean = jnp.sum(jnp.where(weight[:, None] > 0, jnp.tanh(h[:, :half]), 0.0), axis=0) / jnp.sum(weight)
        peak = jnp.max(jnp.where(weight[:, None] > 0, h[:, half:], -jnp.inf), axis=0)
        return jnp.concatenate([mean, peak])


def _moments(x: jax.Array, weight: jax.Array, warp: Warp) -> jax.Array:
    return gaussian_fit(warp.linear(x), weight)


def _statistics(x: jax.Array, weight: jax.Array, warp: Warp, moment_warp: Warp | None) -> jax.Array:
    """Fixed statistics of the weighted observations in x `(m, d)`; the log of their number comes last."""
    count = jnp.sum(weight)
    parts = [jnp.sum(weight[:, None] * warp(x), axis=0) / count, jnp.log(count)[None] / 3 - 1.5]
    if moment_warp is not None:
        parts.insert(0, moment_warp(gaussian_fit(warp.linear(x), weight)))
    return jnp.concatenate(parts)


def _regress(warp: Warp, moment_warp: Warp | None, sets: Sequence[tuple[Array, Array]]) -> RegressionSummary:
    """A regression over sets of all sizes: every set whole, and twice with a random part of its observations."""
    rng, rows, fewest, before = np.random.default_rng(0), [], 10, 0
    for u, x in sets:
        n, m = x.shape[:2]
        number, before = before + np.arange(n), before + n
        for whole in (True, False, False):
            count = np.full(n, m) if whole else np.exp(rng.uniform(np.log(min(fewest, m)), np.log(m), n)).astype(int)
            weight = (np.arange(m) < count[:, None])[:, rng.permutation(m)].astype(np.float32)
            statistics = _over_sets(_statistics, x, weight, warp, moment_warp)
            rows.append((statistics, np.asarray(u), count, number))
        fewest = m
    order = rng.permutation(sum(len(row[0]) for row in rows))
    return RegressionSummary.of(*(np.concatenate(column)[order] for column in zip(*rows, strict=True)))


def _over_sets(function: Callable, x: Array, weight: Array | None, *given: Any) -> np.ndarray:
    """`function(x (m, d), weight (m,), *given)` for every set in x `(n, m, *event)`."""
    x = np.asarray(x, np.float32).reshape(*x.shape[:2], -1)
    weight = np.ones(x.shape[:2], np.float32) if weight is None else weight
    return over_rows(lambda x, w: _mapped(function, x, w, given), x, weight)


@eqx.filter_jit
def _mapped(function: Callable, x: jax.Array, weight: jax.Array, given: tuple[Any, ...]) -> jax.Array:
    return jax.vmap(lambda one, own: function(one, own, *given))(x, weight)


def gaussian_fit(x: jax.Array, weight: jax.Array) -> jax.Array:
    """The normal fitted to x `(m, d)`, as each component's regression on the others.

    Returns means (d), intercepts (d), coefficients (d (d - 1)), log residual spreads (d); for d = 1
    only the mean and the log spread. A QR factorisation of the centred data keeps float32 accurate
    where an inverse of the covariance would not.
    """
    d = x.shape[1]
    count = jnp.sum(weight)
    mean = jnp.sum(weight[:, None] * x, axis=0) / count
    centred = weight[:, None] * (x - mean)
    floor = 1e-6
    if d == 1:
        return jnp.concatenate([mean, jnp.log(jnp.sqrt(jnp.sum(centred**2) / count + floor**2))[None]])
    root = _triangle(centred) / jnp.sqrt(count)
    root += jnp.diag(floor + 1e-6 * jnp.diag(root))
    inverse = _inverse_triangle(root)
    precision = inverse @ inverse.T
    diagonal = jnp.diag(precision)
    coefficients = -precision / diagonal[:, None]
    off = ~np.eye(d, dtype=bool)
    intercept = mean - jnp.sum(jnp.where(off, coefficients, 0.0) * mean[None, :], axis=1)
    return jnp.concatenate([mean, intercept, coefficients[off], -0.5 * jnp.log(diagonal)])


# Written out, because a batch of LAPACK calls inside a compiled training step waits for the very threads that XLA
# runs the step on: on two cores it was seen to stand still for good. These sizes are small enough to be fast.


def _triangle(a: jax.Array) -> jax.Array:
    """The upper triangular factor R of a `(m, d)`, with a positive diagonal, by modified Gram-Schmidt."""
    rows = []
    for j in range(a.shape[1]):
        norm = jnp.sqrt(jnp.sum(a[:, j] ** 2) + 1e-20)
        q = a[:, j] / norm
        row = (q @ a) * (np.arange(a.shape[1]) > j)
        rows.append(row.at[j].set(norm))
        a = a - q[:, None] * row[None, :]
    return jnp.stack(rows)


def _inverse_triangle(r: jax.Array) -> jax.Array:
    """The inverse of an upper triangular matrix, by back substitution."""
    d = len(r)
    inverse = jnp.zeros((d, d))
    for i in reversed(range(d)):
        inverse = inverse.at[i].set((jnp.eye(d)[i] - r[i] @ inverse) / r[i, i])
    return inverse
