"""A summary of a set by regression: a first estimate of the parameters, in closed form."""

import jax
import jax.numpy as jnp
import numpy as np

from ...core.loss import AbstractFrozen
from ...core.solution import Array

NUM_RANDOM = 300  # random features
ROUNDS = 4  # of reweighting
FOLDS = 5
RIDGES = tuple(10.0 ** np.arange(-10, -1))
PLAIN = 0.01  # of the ridge, for features that are not random
SCALE_RIDGE = 1e-4
SQUASH = 0.9  # tanh(0.9 u) is linear in theta for a uniform prior


class RegressionSummary(AbstractFrozen):
    """E[u | X] and the log of its error, regressed on simulations: features `(f,)` -> mean `(d,)`, log scale `(d,)`.

    The posterior mean is the best summary statistic for point estimates, and regression on simulations
    estimates it (Fearnhead and Prangle 2012, "semi-automatic ABC"). The regression is ridge regression on
    whitened features of the set and fixed random functions of them, weighted by the inverse square of its own
    error, which is regressed likewise. It is the mean of five regressions that each leave out a fifth of the sets:
    their errors are those for sets they did not see. In the tails of an unbounded prior it is poorer than in the bulk.

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
        target, fold = np.tanh(SQUASH * u), np.asarray(group) % FOLDS
        solved = [_reweighted(basis, column, np.asarray(count, np.float64), fold) for column in target.T]
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


def _reweighted(
    basis: np.ndarray, target: np.ndarray, count: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients `(k,)` of the mean and of the log error of a target `(n,)`; its ridge has the least error."""
    weight = count / count.mean()
    everywhere = _gram(basis, np.ones(len(basis)))
    for _ in range(ROUNDS):
        fits, own = _cross_fitted(basis, target, weight, fold)
        error = np.abs(own - target)
        best = int(np.argmin(np.mean(weight * error**2, axis=1)))
        # E log |N(0, 1)| = -0.635
        log_error = np.log(np.maximum(error[best], 1e-6)) + 0.635
        scale_weights = _solved(everywhere, basis.T @ log_error, np.full(basis.shape[1], SCALE_RIDGE))
        weight = np.exp(-2 * np.clip(basis @ scale_weights, -9.0, 1.0))
        weight /= weight.mean()
    return fits[best], scale_weights


def _cross_fitted(
    basis: np.ndarray, target: np.ndarray, weight: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For every ridge the mean coefficients `(r, k)` over folds, and what each fold is told by the others `(r, n)`."""
    parts = [fold == number for number in range(FOLDS)]
    grams = [_gram(basis[part], weight[part]) for part in parts]
    moments = [basis[part].T @ (weight[part] * target[part]) for part in parts]
    ridge = np.where(np.arange(basis.shape[1]) < NUM_RANDOM, 1.0, PLAIN)
    fits, own = np.zeros((len(RIDGES), basis.shape[1])), np.empty((len(RIDGES), len(basis)))
    for part, gram, moment in zip(parts, grams, moments, strict=True):
        rest, left = sum(grams) - gram, sum(moments) - moment
        found = np.stack([_solved(rest, left, strength * ridge) for strength in RIDGES])
        fits += found / FOLDS
        own[:, part] = found @ basis[part].T
    return fits, own


def _gram(basis: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return (basis * weight[:, None]).T @ basis


def _solved(gram: np.ndarray, moment: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """Ridge regression; ridges `(k,)` are relative to the mean square of the functions."""
    return np.linalg.solve(gram + np.trace(gram) / len(gram) * np.diag(ridge), moment)
