"""Calibration: the mean and the scale of a machine's answers, corrected by what was found on fresh simulations."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...answers.bayes.space import Gaussian
from ...core.batches import over_rows
from ...core.loss import AbstractFrozen

PRIOR_ROWS = 40.0  # the corrections are pulled to constants as by so many sets
MOST = 6.0  # an error of more standard deviations counts as so many
ROUNDS = 20
FOLDS = 5
FAR, FEW = 4.0, 20  # size by size: an error of more standard deviations counts as so many; of so few sets, half
BEYOND = 2.0  # standard deviations of the features, where they were fitted
SHIFT = 0.4  # the largest correction of the mean, in standard deviations
LARGEST = 1.2  # correction of the log of the scale


class Calibration(AbstractFrozen):
    """Corrections of normal answers, regressed on the answer itself and on the number of observations.

    For u_j ~ N(m_j, s_j^2) as a machine has it, m_j becomes m_j + s_j a_j and s_j becomes s_j exp(b_j), where a_j and
    b_j are linear in (1, c, c^2, m_j, m_j^2, m_j c, log s_j), c = log(number of observations): the maximum of the
    normal likelihood of the errors on sets that had no part in the training, pulled to constants a little. Large
    corrections are bounded by a tanh, so that a scale is changed by a factor of 3.3 at most. Last, the scale is
    multiplied, size by size, by what errors of sets that were left out of that fit are in its units.

    Fields
    ------
    middle, spread: of the features `(d, k)`.
    shift, widen: `(d, k)`, the coefficients of a and b.
    sizes: `(s,)`, log numbers of observations.
    left: `(s, d)`, log factors of the scales there.
    """

    middle: jax.Array
    spread: jax.Array
    shift: jax.Array
    widen: jax.Array
    sizes: jax.Array
    left: jax.Array

    @staticmethod
    def of(psi: np.ndarray, count: np.ndarray, u: np.ndarray) -> tuple["Calibration", np.ndarray]:
        """From answers psi `(n, p)` about sets of `count` (n,) observations made at u `(n, d)`.

        Also the answers as corrected by others that did not see them, for counting coverage.
        """
        d, sizes = u.shape[1], np.unique(count)
        fold = np.random.default_rng(0).permutation(len(u)) % FOLDS
        crossed = np.empty_like(psi, dtype=np.float32)
        for number in range(FOLDS):
            inside, rest = fold == number, fold != number
            crossed[inside] = _mended(Calibration._fitted(psi[rest], count[rest], u[rest]), psi[inside], count[inside])
        error = (u - crossed[:, :d]) / np.exp(crossed[:, d : 2 * d])
        ratio = np.stack([np.sqrt(np.mean(np.minimum(error[count == m] ** 2, FAR**2), axis=0)) for m in sizes])
        enough = np.array([np.sum(count == m) for m in sizes])[:, None]
        left = np.log(ratio) * enough / (enough + FEW)
        found = dataclasses.replace(Calibration._fitted(psi, count, u), sizes=_held(np.log(sizes)), left=_held(left))
        crossed[:, d : 2 * d] += left[np.searchsorted(sizes, count)]
        return found, crossed

    @staticmethod
    def _fitted(psi: np.ndarray, count: np.ndarray, u: np.ndarray) -> "Calibration":
        d = u.shape[1]
        raw = np.asarray(_raw(psi[:, :d], psi[:, d : 2 * d], count, np), np.float64)
        middle, spread = raw.mean(axis=0), raw.std(axis=0)
        spread = np.where(spread > 1e-6, spread, 1.0)
        features = _bounded((raw - middle) / spread, np)
        error = np.clip((u - psi[:, :d]) / np.exp(psi[:, d : 2 * d]), -MOST, MOST)
        fits = [_corrections(features[:, j], error[:, j]) for j in range(d)]
        shift, widen = (np.stack(each) for each in zip(*fits, strict=True))
        return Calibration(*map(_held, (middle, spread, shift, widen, np.zeros(1), np.zeros((1, d)))))

    def __call__(self, psi: jax.Array, count: jax.Array) -> jax.Array:
        """psi `(p,)` of an answer about `count` observations `()`, corrected."""
        d = len(self.shift)
        mean, log_scale = psi[:d], psi[d : 2 * d]
        features = _bounded((_raw(mean, log_scale, count, jnp) - self.middle) / self.spread, jnp)
        shift, widen = (
            most * jnp.tanh(jnp.sum(each * features, axis=1) / most)
            for each, most in ((self.shift, SHIFT), (self.widen, LARGEST))
        )
        left = jax.vmap(lambda each: jnp.interp(jnp.log(count), self.sizes, each), in_axes=1)(self.left)
        mean, log_scale = mean + jnp.exp(log_scale) * shift, log_scale + widen + left
        return psi.at[: 2 * d].set(jnp.concatenate([mean, log_scale]))


def _held(values: np.ndarray) -> jax.Array:
    return jnp.asarray(values, jnp.float32)


@eqx.filter_jit
def _mapped(calibration: Calibration, psi: jax.Array, count: jax.Array) -> jax.Array:
    return jax.vmap(calibration)(psi, count)


def _mended(calibration: Calibration, psi: np.ndarray, count: np.ndarray) -> np.ndarray:
    return over_rows(lambda rows, counts: _mapped(calibration, rows, counts), psi, count.astype(np.float32))


def covered(psi: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Share of u `(n, d)` in the 95 % of the answers psi `(n, p)`, `(d,)`."""
    d = u.shape[1]
    standard = jax.vmap(lambda one, at: Gaussian.of(one, d).standard(at))(jnp.asarray(psi), jnp.asarray(u))
    return np.mean(np.abs(np.asarray(standard)) < 1.96, axis=0)


def _raw(mean, log_scale, count, numpy):
    """Features `(..., d, k)` of means and log scales `(..., d)`, before standardisation; the first is 1."""
    c = numpy.broadcast_to(numpy.log(count)[..., None], mean.shape)
    return numpy.stack([c, c**2, mean, mean**2, mean * c, log_scale], axis=-1)


def _bounded(features, numpy):
    """With a 1 in front, and no further out than what was seen."""
    one = numpy.ones((*features.shape[:-1], 1))
    return numpy.concatenate([one, numpy.clip(features, -BEYOND, BEYOND)], axis=-1)


def _corrections(features: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients `(k,)` of the mean of errors `(n,)`, and of the log of their spread, by Newton's steps."""
    n, k = features.shape
    pull = PRIOR_ROWS * (np.arange(k) > 0)
    shift, widen = np.zeros(k), np.zeros(k)
    for _ in range(ROUNDS):
        weight = np.exp(-2 * features @ widen)
        gram = (features * weight[:, None]).T @ features
        shift = np.linalg.solve(gram + np.diag(pull), features.T @ (weight * error))
        left = (error - features @ shift) ** 2 * n / max(n - k, 1)
        ratio = left * weight
        slope = features.T @ (ratio - 1) - pull * widen
        curvature = 2 * (features * np.minimum(ratio, 4.0)[:, None]).T @ features + np.diag(pull + 1e-3)
        widen = widen + np.clip(np.linalg.solve(curvature, slope), -0.5, 0.5)
    return shift, widen
