"""The encoder of a set of observations: what the machine sees of data."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.batches import over_rows, put
from ...core.loss import AbstractFrozen
from ...core.solution import Array, Key
from ..local.statistics import Extremes
from ..local.summaries import FEWEST_FOR_EXTREMES
from .encoder import AbstractEncoder
from .lens import MOST_COMPONENTS, AbstractLens, Components, Warp
from .moments import MOST_REGRESSED, fitted_normal
from .regression import RegressionSummary


class Summary(NamedTuple):
    """What an encoder makes of a set: features `(f,)`, and a first estimate of u with its log error, `(d,)` each."""

    features: jax.Array
    mean: jax.Array
    log_scale: jax.Array


class Statistics(AbstractFrozen):
    """Fixed statistics of sets of numbers `(m, d)`, that come from a lens.

    Means of the warped numbers; for the components of short vectors also the fitted normal and extremes; last the log
    of the number of observations.

    Fields
    ------
    warp: of the numbers.
    moments: of the fitted normal; None for none.
    directions: `(k, d)`, of numbers in the linear units of the warp, or None.
    reach: of how far sets extend along the directions.
    """

    warp: Warp
    moments: Warp | None
    directions: jax.Array | None
    reach: Warp | None

    @staticmethod
    def of(lens: AbstractLens, sets: Sequence[tuple[Array, Array]]) -> "Statistics":
        """Scaled to `sets`, each of them u `(n, d)` with x `(n, m, *event)` made by it."""
        first = np.asarray(sets[0][1], np.float32)
        flat = first.reshape(-1, *first.shape[2:])
        numbers = over_rows(lambda rows: _through(rows, lens), flat[:: max(1, len(flat) // 100_000)])
        short = isinstance(lens, Components) and numbers.shape[1] <= MOST_COMPONENTS
        warp, some = Warp.of(numbers, 3 if short else 1), first[:2000]
        if not short:
            return Statistics(warp, None, None, None)
        magnifications = 3 if numbers.shape[1] <= MOST_REGRESSED else 1
        moments = Warp.of(_over_sets(_moments, some, None, warp), magnifications)
        enough = [(np.asarray(x, np.float32), np.asarray(u)) for u, x in sets if x.shape[1] >= FEWEST_FOR_EXTREMES]
        if not enough:
            return Statistics(warp, moments, None, None)
        middle, scale = (np.asarray(each)[len(warp.centre) // 2] for each in (warp.centre, warp.scale))
        linear = [((x.reshape(*x.shape[:2], -1) - middle) / scale, u) for x, u in enough]
        directions = put(Extremes.learnt(linear, None).directions, np.float32)
        return Statistics(warp, moments, directions, Warp.of(_over_sets(_extents, some, None, warp, directions)))

    @property
    def num_features(self) -> int:
        parts = (self.warp, self.moments, self.reach)
        return 1 + sum(part.num_features for part in parts if part is not None)

    def __call__(self, numbers: jax.Array, weight: jax.Array) -> jax.Array:
        """`(f,)` of the numbers `(m, d)` whose weight `(m,)` is 1."""
        count, linear = jnp.sum(weight), self.warp.linear(numbers)
        parts = [jnp.sum(weight[:, None] * self.warp(numbers), axis=0) / count, jnp.log(count)[None] / 3 - 1.5]
        if self.reach is not None and self.directions is not None:
            parts.insert(0, self.reach(_reach(linear, weight, self.directions)))
        if self.moments is not None:
            parts.insert(0, self.moments(fitted_normal(linear, weight)))
        return jnp.concatenate(parts)


def _moments(x: jax.Array, weight: jax.Array, warp: Warp) -> jax.Array:
    return fitted_normal(warp.linear(x.reshape(len(x), -1)), weight)


def _extents(x: jax.Array, weight: jax.Array, warp: Warp, directions: jax.Array) -> jax.Array:
    return _reach(warp.linear(x.reshape(len(x), -1)), weight, directions)


def _reach(linear: jax.Array, weight: jax.Array, directions: jax.Array) -> jax.Array:
    """How far the observations `(m, d)` of weight 1 extend along directions `(k, d)`, `(k,)`."""
    return jnp.max(jnp.where(weight[:, None] > 0, linear @ directions.T, -jnp.inf), axis=0)


class SetEncoder(eqx.Module):
    """Summary of a set of i.i.d. observations `(m, *event)`, of any size.

    A network looks at each observation; half of its features are averaged over the set (Pesah et
    al. 2018, section 3), half are maximised, which sees the edges of a distribution that no mean
    can see. Beside them stand fixed statistics of the set, and the estimate that a closed-form regression on those
    statistics gives.
    """

    lens: AbstractLens
    statistics: Statistics
    regression: RegressionSummary | None
    front: eqx.Module | None
    hidden: eqx.nn.Linear
    output: eqx.nn.Linear
    direct: eqx.nn.Linear
    dim: int = eqx.field(static=True)
    fixed: bool = eqx.field(static=True)

    @staticmethod
    def make(
        key: Key,
        sets: Sequence[tuple[Array, Array]],
        like: AbstractEncoder,
        *,
        width: int,
        num_pooled: int,
        fixed: bool = True,
        regression: bool = True,
    ) -> "SetEncoder":
        """An encoder for sets like these; each of `sets` is u `(n, d)` with x `(n, m, *event)` made by it.

        fixed: whether the features have the fixed statistics. regression: whether they have its estimate; without, the
        first estimate is the middle of the prior, as wide as it.
        """
        hidden_key, output_key, direct_key, front_key = jax.random.split(key, 4)
        first = np.asarray(sets[0][1], np.float32)
        flat = first.reshape(-1, *first.shape[2:])
        lens = like.lens(flat)
        front: Any = like.front(front_key, flat)
        statistics = Statistics.of(lens, sets)
        num_in = statistics.warp.num_features
        if front is not None:
            num_in += eqx.filter_eval_shape(front, jax.ShapeDtypeStruct(first.shape[2:], jnp.float32)).shape[0]
        return SetEncoder(
            lens,
            statistics,
            _regress(lens, statistics, sets) if regression else None,
            front,
            eqx.nn.Linear(num_in, width, key=hidden_key),
            eqx.nn.Linear(width, num_pooled, key=output_key),
            eqx.nn.Linear(num_in, num_pooled, use_bias=False, key=direct_key),
            np.shape(sets[0][0])[1],
            fixed,
        )

    @property
    def num_features(self) -> int:
        """f, the length of `Summary.features`."""
        told = 0 if self.regression is None else 2 * self.dim
        return len(self.output.weight) + self.fixed * self.statistics.num_features + told

    def __call__(self, x: jax.Array, weight: jax.Array | None = None) -> Summary:
        """The summary of the observations in x `(m, *event)` whose `weight` (m,) is 1; 0 leaves one out."""
        weight = jnp.ones(len(x)) if weight is None else weight
        numbers = jax.vmap(self.lens)(x)
        learned = self._pool(x, self.statistics.warp(numbers), weight)
        if not self.fixed:
            return Summary(learned, jnp.zeros(self.dim), jnp.zeros(self.dim))
        fixed = self.statistics(numbers, weight)
        seen = [learned, jnp.clip(fixed, -10.0, 10.0)]
        if self.regression is None:
            return Summary(jnp.concatenate(seen), jnp.zeros(self.dim), jnp.zeros(self.dim))
        mean, log_scale = self.regression(fixed)
        return Summary(jnp.concatenate([*seen, mean, log_scale / 3 + 1]), mean, log_scale)

    def _pool(self, x: jax.Array, seen: jax.Array, weight: jax.Array) -> jax.Array:
        front: Any = self.front
        if front is not None:
            seen = jnp.concatenate([seen, jax.vmap(front)(x)], axis=-1)
        h = jax.vmap(lambda one: self.output(jax.nn.silu(self.hidden(one))) + self.direct(one))(seen)
        half = h.shape[-1] // 2
        mean = jnp.sum(jnp.where(weight[:, None] > 0, jnp.tanh(h[:, :half]), 0.0), axis=0) / jnp.sum(weight)
        peak = jnp.max(jnp.where(weight[:, None] > 0, h[:, half:], -jnp.inf), axis=0)
        return jnp.concatenate([mean, peak])


def _regress(lens: AbstractLens, statistics: Statistics, sets: Sequence[tuple[Array, Array]]) -> RegressionSummary:
    """A regression over sets of all sizes: every set whole, and twice with a random part of its observations."""
    rng, rows, fewest, before = np.random.default_rng(0), [], 10, 0
    for u, x in sets:
        n, m = x.shape[:2]
        number, before = before + np.arange(n), before + n
        for whole in (True, False, False):
            count = np.full(n, m) if whole else np.exp(rng.uniform(np.log(min(fewest, m)), np.log(m), n)).astype(int)
            weight = (np.arange(m) < count[:, None])[:, rng.permutation(m)].astype(np.float32)
            seen = _over_sets(_fixed, x, weight, lens, statistics)
            rows.append((seen, np.asarray(u), count, number))
        fewest = m
    order = rng.permutation(sum(len(row[0]) for row in rows))
    return RegressionSummary.of(*(np.concatenate(column)[order] for column in zip(*rows, strict=True)))


def _fixed(x: jax.Array, weight: jax.Array, lens: AbstractLens, statistics: Statistics) -> jax.Array:
    return statistics(jax.vmap(lens)(x), weight)


def _over_sets(function: Callable, x: Array, weight: Array | None, *given: Any) -> np.ndarray:
    """`function(x (m, *event), weight (m,), *given)` for every set in x `(n, m, *event)`."""
    x = np.asarray(x, np.float32)
    weight = np.ones(x.shape[:2], np.float32) if weight is None else weight
    return over_rows(lambda x, w: _mapped(function, x, w, given), x, weight)


@eqx.filter_jit
def _through(x: jax.Array, lens: AbstractLens) -> jax.Array:
    return jax.vmap(lens)(x)


@eqx.filter_jit
def _mapped(function: Callable, x: jax.Array, weight: jax.Array, given: tuple[Any, ...]) -> jax.Array:
    return jax.vmap(lambda one, own: function(one, own, *given))(x, weight)
