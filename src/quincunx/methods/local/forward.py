"""Summaries as a function of theta: a polynomial with normal noise, near where the data are. Classical calibration."""

from typing import NamedTuple

import numpy as np

from ...answers.bayes.local import Emulator, powers
from .summaries import FOLDS

HIGHEST = 5  # degree
PER_TERM = 8  # sets, at least
PENALTY = 3.0  # in log error, times q / n for every term: of five degrees the luckiest must not win
NEAR, FEWEST = 100.0, 150  # fitted are sets within ten standard deviations, and never fewer than these
INFORMED = 3.0  # times k / n, what k coefficients explain of noise alone


class Fit(NamedTuple):
    """An emulator, and what it was fitted to.

    near: which of the sets `(n,)`.
    z: where they were made, `(k, d)`.
    noise: what the emulator leaves of their summaries, in standard deviations `(k, q)`.
    """

    emulator: Emulator
    near: np.ndarray
    z: np.ndarray
    noise: np.ndarray

    def coverage(self) -> float:
        """Share of the sets whose z lies within the 95 % that they themselves would be given, direction by direction.

        To first order, in the directions that summaries tell of.
        """
        e, step = self.emulator, 1e-3
        mean = lambda u: powers(u, e.degree) @ e.coefficients
        u = (self.z - e.centre) / e.scale
        sides = [(mean(u + step * way) - mean(u - step * way)) / (2 * step) for way in np.eye(u.shape[1])]
        left, size, _ = np.linalg.svd(np.stack(sides, axis=2), full_matrices=False)
        score = np.einsum("kqr,kq->kr", left, self.noise)
        return float(np.mean(np.abs(score[size > 0.1 * size.max(axis=1, keepdims=True)]) < 1.96))


def emulate(rng: np.random.Generator, t: np.ndarray, z: np.ndarray, observed: np.ndarray, share: float) -> Fit:
    """The emulator of t `(n, q)` at z `(n, d)` around the z that made `observed` `(q,)`.

    share: of a set's noise that the observed mean has.
    """
    near = np.ones(len(z), bool)
    for _ in range(3):
        found = _fitted(rng, t[near], z[near], observed, share)
        distance = found.emulator.distance(z)
        reach = max(NEAR, float(np.sort(distance - distance.min())[min(FEWEST, len(z)) - 1]))
        closer = distance - distance.min() <= reach
        if closer.sum() >= 0.9 * near.sum():
            break
        near = closer
    else:
        found = _fitted(rng, t[near], z[near], observed, share)
    return found._replace(near=near, z=z[near])


def _fitted(rng: np.random.Generator, t: np.ndarray, z: np.ndarray, observed: np.ndarray, share: float) -> Fit:
    centre, scale, unit = z.mean(axis=0), z.std(axis=0) + 1e-30, t.std(axis=0) + 1e-30
    u = (z - centre) / scale
    t, observed = t / unit, observed / unit
    noise = _polynomial(rng, u, t)[2]
    line = powers(u, 1)
    turn = _informed(line @ _least_squares(line, t), noise, line.shape[1])
    p, coefficients, noise, degree = _polynomial(rng, u, t @ turn)
    free = len(z) - p.shape[1]
    # The turn was chosen on the same sets: their noise along it looks smaller than that of the observed set.
    optimism = free / max(free - t.shape[1] + turn.shape[1], free / 2)
    whiten = np.linalg.inv(np.linalg.cholesky(noise * optimism**2)).T
    spread = np.linalg.inv(p.T @ p + 1e-9 * len(z) * np.eye(p.shape[1]))
    left = (t @ turn - p @ coefficients) @ whiten
    coefficients[0] -= observed @ turn
    emulator = Emulator(centre, scale, coefficients @ whiten, spread, np.asarray(share), int(degree))
    return Fit(emulator, np.ones(len(z), bool), z, left)


def _polynomial(rng: np.random.Generator, u: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, ...]:
    """Powers of u, coefficients for t, the covariance of what is left, and the degree, by cross-validation."""
    n, q = t.shape
    fold = rng.permutation(n) % FOLDS
    best, least = (powers(u, 1), 1), np.inf
    for degree in range(1, HIGHEST + 1):
        p = powers(u, degree)
        if degree > 1 and PER_TERM * p.shape[1] > n:
            break
        left = np.empty_like(t)
        for number in range(FOLDS):
            held = fold == number
            left[held] = t[held] - p[held] @ _least_squares(p[~held], t[~held])
        error = np.linalg.slogdet(left.T @ left / n + 1e-18 * np.eye(q))[1]
        if error < least - PENALTY * q * (p.shape[1] - best[0].shape[1]) / n:
            best, least = (p, degree), error
    p, degree = best
    coefficients = _least_squares(p, t)
    left = t - p @ coefficients
    noise = left.T @ left / max(n - p.shape[1] - 1, 1)
    return p, coefficients, noise + 1e-9 * np.trace(noise) / q * np.eye(q), np.asarray(degree)


def _least_squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(a, b, rcond=None)[0]


def _informed(line: np.ndarray, noise: np.ndarray, terms: int) -> np.ndarray:
    """Combinations `(q, r)` of summaries, with uncorrelated noise, that vary with z more than noise would seem to.

    They are as many as z has dimensions, at most. Others would differ from these by how they are bent alone, and their
    noise would hang on z: with it taken for constant, intervals of Weinberg's energy were seen to cover .85.
    """
    values, vectors = np.linalg.eigh(noise)
    white = vectors / np.sqrt(values)
    signal, turn = np.linalg.eigh(np.atleast_2d(np.cov((line @ white).T)))
    kept = signal > max(INFORMED * terms / len(line), 1e-3 * signal.max())
    kept[-1] = True
    return white @ turn[:, kept]
