"""Draws in NumPy from regions and posteriors that are cheap to evaluate: tempering, resampling, random walks.

Chopin 2002, "A sequential particle filter method for static models".
"""

from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp

MOVES = 12  # random walks after each resampling
LEFT = 0.35  # share of the particles that survives a cut
CENTRES = 256  # of the normals of an integral

Function = Callable[[np.ndarray], np.ndarray]


def tempered(rng: np.random.Generator, z: np.ndarray, log_prior: Function, log_likelihood: Function) -> np.ndarray:
    """Draws from prior times likelihood, given draws z `(n, d)` from the prior."""
    power = 0.0
    base, level = log_prior(z), log_likelihood(z)
    while power < 1:
        step = _step(level, 1 - power)
        weight = np.exp(step * (level - level.max()))
        power += step
        places = (rng.random() + np.arange(len(z))) / len(z)
        picked = np.minimum(np.searchsorted(np.cumsum(weight) / weight.sum(), places), len(z) - 1)
        z, base, level = z[picked], base[picked], level[picked]
        root = _root(z)
        for _ in range(MOVES):
            proposed = z + _walk(rng, z.shape) @ root.T
            new_base, new_level = log_prior(proposed), log_likelihood(proposed)
            accepted = np.log(rng.random(len(z))) < new_base - base + power * (new_level - level)
            z, base, level = _where(accepted, (proposed, new_base, new_level), (z, base, level))
    return z


def log_integral(rng: np.random.Generator, z: np.ndarray, log_density: Function) -> float:
    """Log of the integral of a density over `(d,)`, given draws z `(n, d)` from it, by importance sampling.

    Its points come from normals around some of the draws.
    """
    n, d = z.shape
    centres = z[rng.integers(0, n, CENTRES)]
    root = _root(z) * CENTRES ** (-1 / (d + 4))
    points = centres[rng.integers(0, CENTRES, n)] + rng.normal(size=(n, d)) @ root.T
    solved = np.linalg.solve(root, (points[:, None] - centres).reshape(-1, d).T).T.reshape(n, CENTRES, d)
    kernel = logsumexp(-0.5 * np.sum(solved**2, axis=2), axis=1) - np.log(CENTRES)
    kernel -= np.log(np.abs(np.diag(root))).sum() + d / 2 * np.log(2 * np.pi)
    return float(logsumexp(log_density(points) - kernel) - np.log(n))


def cut(
    rng: np.random.Generator,
    z: np.ndarray,
    log_prior: Function,
    distance: Function,
    most: float,
    narrowest: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Draws from the prior where `distance` is at most `most`, given draws z `(n, d)` from the prior; and that `most`.

    It is larger where in some direction they would spread by less than `narrowest` `(d,)`.
    """
    while True:
        values = distance(z)
        bound = max(most, float(np.quantile(values, LEFT)))
        kept = z[values <= bound]
        root = _root(kept)
        z = kept[rng.integers(0, len(kept), len(z))]
        base = log_prior(z)
        for _ in range(MOVES):
            proposed = z + _walk(rng, z.shape) @ root.T
            new_base = log_prior(proposed)
            accepted = np.log(rng.random(len(z))) < new_base - base
            accepted[accepted] = distance(proposed[accepted]) <= bound
            z, base = _where(accepted, (proposed, new_base), (z, base))
        if bound <= most or np.any(z.std(axis=0) < narrowest):
            return z, bound


def _step(level: np.ndarray, most: float) -> float:
    """The largest step, up to `most`, that leaves half of the particles effective."""

    def effective(step: float) -> float:
        weight = np.exp(step * (level - level.max()))
        return weight.sum() ** 2 / (weight**2).sum()

    if effective(most) >= len(level) / 2:
        return most
    low, high = 0.0, most
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if effective(middle) > len(level) / 2 else (low, middle)
    return low


def _root(z: np.ndarray) -> np.ndarray:
    covariance = np.atleast_2d(np.cov(z.T))
    return np.linalg.cholesky(covariance + np.diag(1e-12 * np.diag(covariance) + 1e-300))


def _walk(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard steps of mixed lengths: long ones for a round cloud, short ones for a thin, curved one."""
    return 2.38 / np.sqrt(shape[1]) * rng.choice([1.0, 0.5, 0.2, 0.05]) * rng.normal(size=shape)


def _where(accepted: np.ndarray, new: tuple[np.ndarray, ...], old: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    lift = lambda each: accepted.reshape(-1, *[1] * (each.ndim - 1))
    return tuple(np.where(lift(a), a, b) for a, b in zip(new, old, strict=True))
