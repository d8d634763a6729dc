"""Fixed statistics of sets of observations, chosen by the shape of one observation. In NumPy, in float64.

| one observation                  | statistics of a set                                                              |
|----------------------------------|----------------------------------------------------------------------------------|
| a number, or up to 32            | means of warped components, quantiles, a fitted normal (above 8: correlations)   |
| a longer vector: a sequence      | mean log power: of the sine transform, of the tapered periodogram; mean, spread  |
| an image, or more axes           | means over a coarse grid, quantiles of the pixels, radial log spectrum           |

For short vectors there are learnt directions too, see `Extremes`.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..nets.lens import coarse, kind_of, periodogram, radial_power, sine_power
from ..nets.moments import MOST_REGRESSED

LEVELS = (0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 1.0)
FEW_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
GROUPS = ("moments", "extremes", "sine", "periodogram", "spectrum")  # few enough to be summaries by themselves

Groups = Mapping[str, np.ndarray]


class AbstractStatistics(abc.ABC):
    """Statistics of sets x `(n, m, *event)`, by group `(n, k)`."""

    @property
    @abc.abstractmethod
    def in_words(self) -> str:
        """What they are, for people."""

    @abc.abstractmethod
    def __call__(self, x: np.ndarray) -> Groups: ...


def statistics_for(x: np.ndarray) -> AbstractStatistics:
    """What suits sets like x `(n, m, *event)`, scaled to them."""
    return {"vector": VectorStatistics, "sequence": SequenceStatistics, "image": ImageStatistics}[kind_of(x.shape[2:])](
        x
    )


class VectorStatistics(AbstractStatistics):
    """Of vectors of at most 32 components."""

    @property
    def in_words(self) -> str:
        return "numbers: warped means, quantiles, second moments, extremes along learnt directions"

    def __init__(self, x: np.ndarray):
        flat = _vectors(x).reshape(-1, int(np.prod(x.shape[2:], dtype=int)))
        q05, q25, q50, q75, q95 = np.quantile(_thinned(flat), [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
        std = np.std(flat, axis=0)
        std = np.where(std > 0, std, 1.0)
        gaps = ((q25 - q05) / 2, (q75 - q25) / 2, (q95 - q75) / 2)
        self.centre = np.stack([q05, q50, q95])
        self.scale = np.stack([np.where(gap > 0, gap, std) for gap in gaps])
        count = x.shape[1]
        self.levels = LEVELS if count >= 20 else FEW_LEVELS if count >= 4 else ()
        self.enough = count >= flat.shape[1] + 2  # observations, for a covariance

    def __call__(self, x: np.ndarray) -> Groups:
        x = _vectors(x)
        n = len(x)
        warped = np.arcsinh((x[:, :, None] - self.centre) / self.scale)
        middle = (x - self.centre[1]) / self.scale[1]
        groups = {"warps": warped.mean(axis=1).reshape(n, -1), "moments": _moments(middle, self.enough)}
        if self.levels:
            groups["quantiles"] = np.quantile(middle, self.levels, axis=1).swapaxes(0, 1).reshape(n, -1)
        return groups


def _moments(y: np.ndarray, enough: bool) -> np.ndarray:
    """The normal fitted to each set y `(n, m, d)`: means, and regressions on the others, or correlations.

    Without enough observations for that: means, and mean products.
    """
    _, m, d = y.shape
    mean = y.mean(axis=1)
    if not enough:
        products = np.einsum("nmi,nmj->nij", y, y) / m
        return np.concatenate([mean, products[:, *np.triu_indices(d)]], axis=1)
    centred = y - mean[:, None]
    covariance = np.einsum("nmi,nmj->nij", centred, centred) / m
    variance = np.einsum("nii->ni", covariance)
    floor = 1e-12 + 1e-10 * variance
    spread = np.sqrt(variance + floor)
    if d == 1:
        return np.concatenate([mean, np.log(spread)], axis=1)
    if d > MOST_REGRESSED:
        correlation = covariance / (spread[:, :, None] * spread[:, None])
        return np.concatenate([mean, np.log(spread), correlation[:, *np.triu_indices(d, 1)]], axis=1)
    precision = np.linalg.inv(covariance + floor[:, :, None] * np.eye(d))
    diagonal = np.einsum("nii->ni", precision)
    off = ~np.eye(d, dtype=bool)
    slopes = np.where(off, -precision / diagonal[:, :, None], 0.0)
    intercept = mean - np.einsum("nij,nj->ni", slopes, mean)
    return np.concatenate([mean, intercept, slopes[:, off], -0.5 * np.log(diagonal)], axis=1)


class SequenceStatistics(AbstractStatistics):
    """Of sequences: what hangs on the lag between two moments, not on the moments, is in the spectrum."""

    @property
    def in_words(self) -> str:
        return "a sequence: log spectra of its sine transform and its periodogram, mean, log spread"

    def __init__(self, x: np.ndarray):
        self.floor = 1e-6 * np.var(x) + 1e-300

    def __call__(self, x: np.ndarray) -> Groups:
        power = periodogram(x, np)
        whole = [np.log(power.mean(axis=1) + self.floor), x.mean(axis=(1, 2))[:, None]]
        return {
            "sine": np.log(sine_power(x, np) + self.floor).mean(axis=1),
            "periodogram": np.log(power + self.floor).mean(axis=1),
            "whole": np.concatenate([*whole, np.log(x.std(axis=2).mean(axis=1) + self.floor)[:, None]], axis=1),
        }


class ImageStatistics(AbstractStatistics):
    """Of arrays of two or more axes; the first two are those of the image, others are channels."""

    @property
    def in_words(self) -> str:
        return "an image: coarse means, quantiles of the pixels, radial log spectrum"

    def __init__(self, x: np.ndarray):
        self.floor = 1e-6 * np.var(x) + 1e-300

    def __call__(self, x: np.ndarray) -> Groups:
        x = x.reshape(*x.shape[:4], -1)
        n = len(x)
        spectrum = np.log(radial_power(x, np) + self.floor).mean(axis=1)
        pixels = x.reshape(*x.shape[:2], -1)
        return {
            "spectrum": spectrum.reshape(n, -1),
            "coarse": coarse(x.mean(axis=1), np).reshape(n, -1),
            "pixels": np.quantile(pixels, LEVELS, axis=2).mean(axis=2).T,
            "spread": np.log(pixels.std(axis=2) + self.floor).mean(axis=1, keepdims=True),
        }


class Extremes(NamedTuple):
    """How far sets reach along learnt directions `(k, d)`: max_i w . x_i.

    A parameter that is an edge of the distribution shows in no mean. Theta is regressed on the means first; then, again
    and again, on the observation of every set that lies furthest along the direction found so far. Along the true
    normal of the edge that observation is next to the edge, and the regression finds the normal better.
    """

    directions: np.ndarray

    @staticmethod
    def learnt(sets: Sequence[tuple[np.ndarray, np.ndarray]], start: "Extremes | None", rounds: int = 6) -> "Extremes":
        """From sets x `(n, m, d)` made by z `(n, k)`, of one or more sizes: for every z its upper and lower edge."""
        scale = np.std(sets[-1][0], axis=(0, 1))
        scale = np.where(scale > 0, scale, 1.0)
        sets = [(x / scale, z) for x, z in sets]
        if start is None:
            slope = _slopes([x.mean(axis=1) for x, _ in sets], [z for _, z in sets])
            directions = np.concatenate([slope, -slope], axis=1).T
        else:
            directions = start.directions * scale
        number = len(directions) // 2
        for _ in range(rounds):
            for index, direction in enumerate(directions):
                furthest = [x[np.arange(len(x)), np.argmax(x @ direction, axis=1)] for x, _ in sets]
                column = index % number
                slope = _slopes(furthest, [z[:, column : column + 1] for _, z in sets])[:, 0]
                upwards = 1 if index < number else -1
                directions[index] = upwards * slope / max(float(np.linalg.norm(slope)), 1e-30)
        return Extremes(directions / scale)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """`(n, k)` of sets x `(n, m, d)`."""
        return (x @ self.directions.T).max(axis=1)


def _slopes(features: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> np.ndarray:
    """Regression of targets `(n, k)` on features `(n, d)`, each record about its own mean and in its own units."""
    units = [max(float(np.mean(target.std(axis=0))), 1e-12) for target in targets]
    a = np.concatenate([(f - f.mean(axis=0)) / unit for f, unit in zip(features, units, strict=True)])
    b = np.concatenate([(t - t.mean(axis=0)) / unit for t, unit in zip(targets, units, strict=True)])
    gram = a.T @ a
    return np.linalg.solve(gram + 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram)), a.T @ b)


def _vectors(x: Any) -> np.ndarray:
    return x.reshape(*x.shape[:2], -1)


def _thinned(rows: np.ndarray, most: int = 50_000) -> np.ndarray:
    return rows[:: max(1, len(rows) // most)]
