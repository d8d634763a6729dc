"""The encoder of a set of observations: what the machine sees of data."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from ...core.batches import over_rows, put
from ...core.loss import AbstractFrozen
from ...core.solution import Array, Key
from ..local.statistics import Extremes
from ..local.summaries import FEWEST_FOR_EXTREMES
from .encoder import AbstractEncoder
from .lens import MOST_COMPONENTS, AbstractLens, Components, Warp
from .moments import MOST_REGRESSED, fitted_normal
from .regression import RegressionSummary

KEPT = "kept"  # what a training step does not compute twice
LARGE = 200  # observations; the gradient of a larger set comes from a few of them
FEW = 24  # taken for the gradient of a mean


class Summary(NamedTuple):
    """What an encoder makes of n sets: features `(n, f)`, and a first estimate of u with its log error, `(n, d)`."""

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
        if not short or all(x.shape[1] == 1 for _, x in sets):  # one observation has no moments
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

    def __call__(self, numbers: jax.Array, warped: jax.Array, weight: jax.Array) -> jax.Array:
        """`(f,)` of the numbers `(m, d)` whose weight `(m,)` is 1, and which the warp makes `(m, k)`."""
        count, linear = jnp.sum(weight), self.warp.linear(numbers)
        parts = [weight @ warped / count, jnp.log(count)[None] / 3 - 1.5]
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
    """Summaries of sets of i.i.d. observations, of any size.

    A network looks at each observation; half of its features are averaged over the set (Pesah et
    al. 2018, section 3), half are maximised, which sees the edges of a distribution that no mean
    can see. Beside them stand fixed statistics of the set, and the estimate that a closed-form regression on those
    statistics gives.

    In sets of more than 200 the gradient of the averaged features is that of the first 24 observations' average, which
    is right on average where observations are in random order; that of the maximised ones is exact.
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
        """The summaries of n sets x `(n, m, *event)`: of the observations whose `weight` (n, m) is 1; 0 leaves one out.

        All sets at once, not one under `vmap`: products of two matrices took half the time of a batch of them.
        """
        weight = jnp.ones(x.shape[:2]) if weight is None else weight
        n, m = x.shape[:2]
        flat = x.reshape(n * m, *x.shape[2:])
        numbers = jax.vmap(self.lens)(flat)
        warped = checkpoint_name(self.statistics.warp(numbers), KEPT)
        noticed = self._noticed(flat, warped).reshape(n, m, -1)
        learned = _pooled(noticed, weight)
        if m > LARGE:
            learned = jax.lax.stop_gradient(learned)
            few = self._pooled_of_few(x, warped.reshape(n, m, -1), noticed, weight)
            learned += few - jax.lax.stop_gradient(few)
        mean = log_scale = jnp.zeros((n, self.dim))
        if not self.fixed:
            return Summary(learned, mean, log_scale)
        fixed = jax.vmap(self.statistics)(numbers.reshape(n, m, -1), warped.reshape(n, m, -1), weight)
        told = [jnp.clip(fixed, -10.0, 10.0)]
        if self.regression is not None:
            mean, log_scale = self.regression(fixed)
            told += [mean, log_scale / 3 + 1]
        told, mean, log_scale = checkpoint_name((jnp.concatenate(told, axis=-1), mean, log_scale), KEPT)
        return Summary(jnp.concatenate([learned, told], axis=-1), mean, log_scale)

    def _noticed(self, x: jax.Array, warped: jax.Array) -> jax.Array:
        """What is learnt to see of observations x `(k, *event)`, warped `(k, f)`: half is averaged, half maximised."""
        front: Any = self.front
        seen = warped if front is None else jnp.concatenate([warped, jax.vmap(front)(x)], axis=-1)
        h = jnp.concatenate([jax.nn.silu(over_all(self.hidden, seen)), seen], axis=-1)
        bias: Any = self.output.bias
        h = h @ jnp.concatenate([self.output.weight, self.direct.weight], axis=-1).T + bias
        half = h.shape[-1] // 2
        return jnp.concatenate([jnp.tanh(h[:, :half]), h[:, half:]], axis=-1)

    def _pooled_of_few(self, x: jax.Array, warped: jax.Array, noticed: jax.Array, weight: jax.Array) -> jax.Array:
        """`_pooled` of the first observations and of each maximum's own, whose gradient estimates that of all."""
        n, half = len(x), noticed.shape[-1] // 2
        top = jnp.argmax(jnp.where(weight[..., None] > 0, noticed[..., half:], -jnp.inf), axis=1)
        rows = jnp.concatenate([jnp.broadcast_to(jnp.arange(FEW), (n, FEW)), top], axis=1)
        taken = [jax.vmap(lambda one, own: one[own])(each, rows).reshape(-1, *each.shape[2:]) for each in (x, warped)]
        few = self._noticed(*taken).reshape(n, FEW + top.shape[1], -1)
        share = weight[:, :FEW] / jnp.maximum(jnp.sum(weight[:, :FEW], axis=1), 1.0)[:, None]
        mean = jnp.sum(share[..., None] * few[:, :FEW, :half], axis=1)
        return jnp.concatenate([mean, jnp.diagonal(few[:, FEW:, half:], axis1=1, axis2=2)], axis=-1)


def _pooled(noticed: jax.Array, weight: jax.Array) -> jax.Array:
    """Means of the first half of what is noticed `(n, m, k)`, maxima of the second, over observations of weight 1."""
    counted, half = weight[..., None] > 0, noticed.shape[-1] // 2
    mean = jnp.sum(jnp.where(counted, noticed[..., :half], 0.0), axis=1) / jnp.sum(weight, axis=1)[:, None]
    return jnp.concatenate([mean, jnp.max(jnp.where(counted, noticed[..., half:], -jnp.inf), axis=1)], axis=-1)


def over_all(layer: eqx.nn.Linear, x: jax.Array) -> jax.Array:
    """The layer at every x `(..., k)`, as one product of two matrices."""
    flat = x.reshape(-1, x.shape[-1]) @ layer.weight.T
    return (flat if layer.bias is None else flat + layer.bias).reshape(*x.shape[:-1], -1)


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
    numbers = jax.vmap(lens)(x)
    return statistics(numbers, statistics.warp(numbers), weight)


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
