"""The classifier of `diagnostics.roc_test`: can it tell a numerator from a reweighted reference? In NumPy's float64."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

MOST_COMPONENTS = 24  # numbers of an observation that the classifier sees; projections of larger ones
NUM_RANDOM_FEATURES = 48


def features_of(
    rng: np.random.Generator, numerator: np.ndarray, reference: np.ndarray, logs: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Features `(n, F)` of both samples: functions of x alone, chosen before any label is seen."""
    both = np.concatenate([numerator, reference]).reshape(len(numerator) + len(reference), -1).astype(np.float64)
    z = _tamed(both)
    if z.shape[1] > MOST_COMPONENTS:
        moments = np.stack([z.mean(axis=1), z.std(axis=1)], axis=1)
        z = np.concatenate(
            [moments, z @ rng.normal(size=(z.shape[1], MOST_COMPONENTS)) / math.sqrt(z.shape[1])], axis=1
        )
    log_ratio = np.clip(np.concatenate(logs), -50, 50)
    z = _tamed(np.concatenate([z, log_ratio[:, None]], axis=1))
    directions = rng.normal(size=(z.shape[1], NUM_RANDOM_FEATURES)) * np.sqrt(4 / z.shape[1])
    waves = np.tanh(z @ directions + rng.normal(size=NUM_RANDOM_FEATURES))
    features = np.concatenate([np.ones((len(z), 1)), z, z**2, waves], axis=1)
    return [features[: len(numerator)], features[len(numerator) :]]


def _tamed(values: np.ndarray) -> np.ndarray:
    """Columns centred and scaled by quartiles, long tails drawn in."""
    quartiles = np.asarray(np.quantile(values, np.array([0.25, 0.5, 0.75]), axis=0))
    low, middle, high = quartiles[0], quartiles[1], quartiles[2]
    spread = np.where(high > low, high - low, np.std(values, axis=0))
    return np.arcsinh((values - middle) / np.where(spread > 0, spread, 1))


def logistic(numerator: np.ndarray, reference: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Coefficients `(F,)` that tell the numerator (label 1) from the weighted reference, by Newton's method.

    Both sides weigh as much as the effective samples of the smaller; the prior of each coefficient is Normal(0, 1).
    """
    total = weight.sum()
    size = min(len(numerator), total**2 / np.sum(weight**2))
    mass = np.concatenate([np.full(len(numerator), size / len(numerator)), weight * (size / total)])
    features, label = np.concatenate([numerator, reference]), np.repeat([1.0, 0.0], [len(numerator), len(reference)])
    slope = np.zeros(features.shape[1])
    for _ in range(8):
        p = special.expit(features @ slope)
        gradient = features.T @ (mass * (label - p)) - slope
        curvature = (features * (mass * np.maximum(p * (1 - p), 1e-3))[:, None]).T @ features + np.eye(len(slope))
        slope = slope + np.linalg.solve(curvature, gradient)
    return slope


def weighted_auc(numerator: np.ndarray, reference: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """P(score of a numerator > score of a weighted reference), ties half, and its standard error.

    The error is that of two independent means (DeLong et al. 1988), the second with weights that are normalised.
    """
    share = weight / weight.sum()
    order = np.argsort(reference)
    cumulative = np.concatenate([[0.0], np.cumsum(share[order])])
    below = [cumulative[np.searchsorted(reference[order], numerator, side)] for side in ("left", "right")]
    of_numerator = (below[0] + below[1]) / 2
    ordered = np.sort(numerator)
    above = [1 - np.searchsorted(ordered, reference, side) / len(ordered) for side in ("left", "right")]
    of_reference = (above[0] + above[1]) / 2
    auc = float(np.mean(of_numerator))
    variance = np.var(of_numerator, ddof=1) / len(numerator) + np.sum((share * (of_reference - auc)) ** 2)
    return auc, float(max(math.sqrt(variance), 1e-12))
