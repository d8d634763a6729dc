"""Learnt summaries: theta regressed on statistics, group by group, out of fold for the sets it was learnt from."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..nets.lens import MOST_COMPONENTS
from .statistics import GROUPS, AbstractStatistics, Extremes, Groups, statistics_for

FOLDS = 5
RIDGES = 10.0 ** np.arange(-6, 2.1)
MAIN = 8  # directions of the statistics whose products are tried
BETTER = 0.97  # products are taken when the error out of fold falls below this share
FEWEST_FOR_EXTREMES = 8  # observations in a set


class Scaling(NamedTuple):
    """Statistics `(n, p)` as numbers of order one: bounded, centred, and with the products of their main directions."""

    middle: np.ndarray
    scale: np.ndarray
    kept: np.ndarray
    mean: np.ndarray
    main: np.ndarray

    @staticmethod
    def of(s: np.ndarray) -> "Scaling":
        low, middle, high = np.quantile(s, [0.25, 0.5, 0.75], axis=0)
        std = np.std(s, axis=0)
        scale = np.where(high > low, (high - low) / 1.349, np.where(std > 0, std, 1.0))
        kept = std > 1e-9 * (np.abs(middle) + 1e-12)
        y = _bounded(((s - middle) / scale)[:, kept], 4.0)
        mean = y.mean(axis=0)
        values, vectors = np.linalg.eigh((y - mean).T @ (y - mean) / len(y))
        top = np.argsort(values)[::-1][:MAIN]
        top = top[values[top] > 1e-8]
        return Scaling(middle, scale, kept, mean, vectors[:, top] / np.sqrt(values[top]))

    def __call__(self, s: np.ndarray, products: bool) -> np.ndarray:
        y = _bounded(((s - self.middle) / self.scale)[:, self.kept], 4.0) - self.mean
        if not products:
            return y
        g = _bounded(y @ self.main, 3.0)
        first, second = np.triu_indices(g.shape[1])
        return np.concatenate([y, g[:, first] * g[:, second]], axis=1)


def _bounded(z: np.ndarray, at: float) -> np.ndarray:
    """z up to about `at`, logarithmic beyond: the rare extreme set must not carry a regression away."""
    return at * np.arcsinh(z / at)


class Regression(NamedTuple):
    """Ridge regression of z `(n, d)` on statistics, as five regressions that each leave out a fifth of the sets.

    own: the predictions `(n, d)` for the sets it was made from, each by the one that did not see it. Others get the
    mean of the five.
    """

    scaling: Scaling
    products: bool
    weights: np.ndarray
    offset: np.ndarray
    own: np.ndarray

    @staticmethod
    def of(rng: np.random.Generator, s: np.ndarray, z: np.ndarray) -> "Regression":
        scaling, fold = Scaling.of(s), rng.permutation(len(s)) % FOLDS
        fits = {products: _cross_fitted(scaling(s, products), z, fold) for products in (False, True)}
        error = [float(np.sum(np.mean((own - z) ** 2, axis=0) / np.var(z, axis=0))) for own, *_ in fits.values()]
        products = bool(error[1] < BETTER * error[0])
        own, weights, offset = fits[products]
        return Regression(scaling, products, weights, offset, own)

    def __call__(self, s: np.ndarray) -> np.ndarray:
        return self.scaling(s, self.products) @ self.weights + self.offset


def _cross_fitted(features: np.ndarray, z: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions out of fold `(n, d)`, and the mean weights `(p, d)` and offset `(d,)`; a ridge for every column."""
    unit = np.std(features, axis=0)
    unit = np.where(unit > 1e-9, unit, 1.0)
    features = features / unit
    own, fits = np.empty((len(RIDGES), *z.shape)), []
    for number in range(FOLDS):
        held = fold == number
        mean, target = features[~held].mean(axis=0), z[~held].mean(axis=0)
        weights = _ridges(features[~held] - mean, z[~held] - target)
        own[:, held] = (features[held] - mean) @ weights + target
        fits.append((weights, mean, target))
    chosen, columns = np.argmin(np.mean((own - z) ** 2, axis=1), axis=0), np.arange(z.shape[1])
    weights = [each[0][chosen, :, columns].T for each in fits]
    offsets = [target - mean @ own_weights for own_weights, (_, mean, target) in zip(weights, fits, strict=True)]
    return own[chosen, :, columns].T, np.mean(weights, axis=0) / unit[:, None], np.mean(offsets, axis=0)


def _ridges(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Ridge regressions of b `(n, d)` on a `(n, p)` for every strength, `(r, p, d)`."""
    n, p = a.shape
    if p <= n:
        values, vectors = np.linalg.eigh(a.T @ a)
        moment = vectors.T @ (a.T @ b)
        return np.stack([vectors @ (moment / (values + n * ridge)[:, None]) for ridge in RIDGES])
    values, vectors = np.linalg.eigh(a @ a.T)
    moment = vectors.T @ b
    return np.stack([a.T @ (vectors @ (moment / (np.maximum(values, 0) + n * ridge)[:, None])) for ridge in RIDGES])


class Summaries(NamedTuple):
    """t `(n, q)` of sets: z as regressed on all their statistics, and on each small group of them.

    own: of the sets that it was learnt from, out of fold.
    """

    statistics: AbstractStatistics
    extremes: Extremes | None
    regressions: dict[str, Regression]

    @staticmethod
    def learnt(
        rng: np.random.Generator, sets: Sequence[tuple[np.ndarray, np.ndarray]], before: "Summaries | None"
    ) -> "Summaries":
        """From the last of the records of sets x `(n, m, *event)` made by z `(n, d)`; directions from all of them."""
        x, z = sets[-1]
        extremes = None
        if x.ndim == 3 and x.shape[2] <= MOST_COMPONENTS and x.shape[1] >= FEWEST_FOR_EXTREMES:
            extremes = Extremes.learnt(sets, before.extremes if before else None)
        bare = Summaries(statistics_for(x), extremes, {})
        return bare._replace(regressions={name: Regression.of(rng, s, z) for name, s in bare.groups(x).items()})

    def groups(self, x: np.ndarray) -> Groups:
        """Statistics `(n, k)` by group; "all" is all of them."""
        found = dict(self.statistics(x))
        if self.extremes is not None:
            found["extremes"] = self.extremes(x)
        return {"all": np.concatenate(list(found.values()), axis=1), **{k: v for k, v in found.items() if k in GROUPS}}

    @property
    def own(self) -> np.ndarray:
        return np.concatenate([regression.own for regression in self.regressions.values()], axis=1)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        groups = self.groups(x)
        return np.concatenate([regression(groups[name]) for name, regression in self.regressions.items()], axis=1)


def mean_over(function: Any, blocks: Sequence[np.ndarray]) -> np.ndarray:
    """The mean `(k,)` of `function(x (n, m, *event)) -> (n, k)` over all sets, weighted by their observations."""
    sizes = [block.shape[0] * block.shape[1] for block in blocks]
    return np.average([function(block).mean(axis=0) for block in blocks], axis=0, weights=sizes)


def in_blocks(rng: np.random.Generator, x: np.ndarray, size: int) -> list[np.ndarray]:
    """Observations `(m, *event)`, shuffled, as sets of about `size`: `(j, b, *event)`, and some of one fewer."""
    count = -(-len(x) // size)
    small, larger = divmod(len(x), count)
    x = x[rng.permutation(len(x))]
    cut = larger * (small + 1)
    blocks = [x[:cut].reshape(larger, small + 1, *x.shape[1:]), x[cut:].reshape(count - larger, small, *x.shape[1:])]
    return [block for block in blocks if len(block)]
