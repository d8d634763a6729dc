"""A summary of a set by regression: a first estimate of the parameters, in closed form."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ...core.loss import AbstractFrozen
from ...core.solution import Array

NUM_RANDOM = 300  # random features
ROUNDS = 4  # of reweighting
POWER = 1.0  # weights are error^-1: precise where it can be, without forgetting the rest
RIDGES = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
SQUASH = 0.9  # tanh(0.9 u) is linear in theta for a uniform prior


class RegressionSummary(AbstractFrozen):
    """E[u | X] and the log of its error, regressed on simulations: features `(f,)` -> mean `(d,)`, log scale `(d,)`.

    The posterior mean is the best summary statistic for point estimates, and regression on simulations
    estimates it (Fearnhead and Prangle 2012, "semi-automatic ABC"). The regression is ridge regression on
    whitened features of the set and fixed random functions of them, weighted by the inverse of its own
    error, which is regressed likewise. In the tails of an unbounded prior it is poorer than in the bulk.

    Fields
    ------
    centre, whiten: standardisation `(f,)`, `(f, k)` of the features.
    turn, shift: of the random functions, `(k, r)` and `(r,)`.
    mean_weights, scale_weights: `(r + k + 1, d)`.
    """

    centre: jax.Array
    whiten: jax.Array
    turn: jax.Array
    shift: jax.Array
    mean_weights: jax.Array
    scale_weights: jax.Array

    @staticmethod
    def of(features: Array, u: Array, count: Array, group: Array) -> "RegressionSummary":
        """Fit to features `(n, f)` of `count` (n,) observations made by u `(n, d)`; a group shares observations."""
        features, u = np.asarray(features, np.float64), np.asarray(u, np.float64)
        centre = features.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(features.T))
        kept = values > 1e-6 * values.max()
        whiten = vectors[:, kept] / np.sqrt(values[kept] + 1e-3 * values.max())
        rng = np.random.default_rng(0)  # fixed: the functions are part of the method, like a grid
        turn = rng.normal(size=(whiten.shape[1], NUM_RANDOM)) * 1.2 / np.sqrt(whiten.shape[1])
        shift = rng.uniform(-1.5, 1.5, NUM_RANDOM)
        basis = _basis((features - centre) @ whiten, turn, shift, np)
        target, held = np.tanh(SQUASH * u), np.asarray(group) % 5 == 0
        solved = [_reweighted(basis, target[:, j], np.asarray(count, np.float64), held) for j in range(u.shape[1])]
        mean_weights, scale_weights = (np.stack(w, axis=1) for w in zip(*solved, strict=True))
        arrays = centre, whiten, turn, shift, mean_weights, scale_weights
        return RegressionSummary(*(jnp.asarray(a, jnp.float32) for a in arrays))

    def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        basis = _basis((features - self.centre) @ self.whiten, self.turn, self.shift, jnp)
        log_scale = jnp.clip(basis @ self.scale_weights, -9.0, -0.5)
        edge = jnp.minimum(1 - jnp.exp(log_scale) / 8, 0.999)  # no nearer to the edge than a part of its width
        squashed = jnp.clip(basis @ self.mean_weights, -edge, edge)
        # At the edge the slope of tanh would blow the error up; an estimate there is no vaguer than the prior.
        return jnp.arctanh(squashed) / SQUASH, jnp.minimum(log_scale - jnp.log(SQUASH * (1 - squashed**2)), 0.0)


def _basis(g, turn, shift, xp):
    """Functions `(..., r + k + 1)` of whitened features `(..., k)`."""
    g = 3 * xp.tanh(g / 3)  # bounded: a regression must not run away on the rare extreme set
    return xp.concatenate([xp.tanh(g @ turn + shift), g, xp.ones((*g.shape[:-1], 1))], axis=-1)


def _best(*losses: Sequence[float]) -> int:
    """The candidate with the smallest sum of losses, each relative to its own minimum."""
    return int(np.argmin(sum(np.asarray(loss) / np.min(loss) for loss in losses)))


def _reweighted(
    basis: np.ndarray, target: np.ndarray, count: np.ndarray, held: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of the mean and of the log error; the ridge is chosen on the rows held out."""
    plain = np.ones(held.sum())
    weight = count / count.mean()
    for _ in range(ROUNDS):
        fits = _ridges(basis[~held], target[~held], weight[~held], RIDGES)
        errors = [np.abs(target[held] - basis[held] @ fit) for fit in fits]
        best = _best([float(np.mean(weight[held] * e**2)) for e in errors], [float(np.mean(e**2)) for e in errors])
        # E log |N(0, 1)| = -0.635
        log_error = np.log(np.maximum(errors[best], 1e-6)) + 0.635
        (scale_weights,) = _ridges(basis[held], log_error, plain, (1e-4,))
        weight = np.exp(-POWER * np.clip(basis @ scale_weights, -9.0, 1.0))
        weight /= weight.mean()
    return _ridges(basis, target, weight, (RIDGES[best],))[0], scale_weights


def _ridges(basis: np.ndarray, target: np.ndarray, weight: np.ndarray, ridges: tuple[float, ...]) -> list[np.ndarray]:
    """Weighted ridge regressions, one for each strength, relative to the mean square of the functions."""
    weighted = basis * weight[:, None]
    gram, moment = weighted.T @ basis, weighted.T @ target
    unit = np.trace(gram) / len(gram) * np.eye(len(gram))
    return [np.linalg.solve(gram + ridge * unit, moment) for ridge in ridges]
