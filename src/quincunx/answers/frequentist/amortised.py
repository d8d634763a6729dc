"""Critical values as a smooth function of theta, from one toy at each of many thetas.

A quantile regression of q on theta (Koenker, Bassett 1978) takes the place of many toys at every theta (Dalmasso,
Izbicki, Lee 2020, arXiv:2002.10399, algorithm 1; Masserano et al. 2023, arXiv:2205.15680). The model is a
polynomial for sqrt(q), whose quantiles are those of q; its degree is the one that does best on toys left out.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from scipy import special
from scipy.optimize import linprog

from ...core.prior import Prior
from ...core.solution import Array, Key
from ..estimates import AbstractRatio
from .experiment import Experiment, check_experiment
from .hypothesis import TIE, AbstractCriticalValues, Sided, of_interest, plain
from .likelihood import starting_points, support_box
from .toys import toy_statistics

DEGREES = (0, 1, 2, 3, 4, 6, 8)
MOST_FEATURES = 45  # beyond, a toy at each of some thousand thetas does not determine a quantile
FEWEST = 200  # toys
HELD_OUT = 0.2  # of the toys: they choose the degree and tell the coverage


@dataclasses.dataclass(frozen=True)
class AmortisedCritical(AbstractCriticalValues):
    """Critical values as a function of theta.

    Fields
    ------
    prior: of the parameters.
    names: parameters of interest.
    level, sided: of the regions, and which test statistic.
    degree: of the polynomial.
    coefficients: `(F,)`.
    num_toys: toys it was learned from, those left out included.
    held_out: share of the left-out toys with q at most the critical value; it should be `level`.
    error: binomial standard error of `held_out`. The same toys have chosen the degree among a few, so that it is
        slightly optimistic; `coverage_map` has toys of its own.
    """

    prior: Prior
    names: tuple[str, ...]
    level: float
    sided: Sided
    degree: int
    coefficients: np.ndarray
    num_toys: int
    held_out: float
    error: float

    @property
    def made_for(self) -> tuple[float, tuple[str, ...], Sided]:
        return self.level, self.names, self.sided

    def __call__(self, theta: Array) -> np.ndarray:
        """Critical values `(G,)` at theta `(G, dim)`."""
        values = np.asarray(theta)
        if values.ndim != 2 or values.shape[1] != self.prior.dim:
            raise ValueError(f"theta: expected shape (G, {self.prior.dim}), got {values.shape}")
        root = _features(self.prior, values, self.degree) @ self.coefficients
        return np.maximum(root, 0.0) ** 2

    def to_dict(self) -> dict[str, Any]:
        known = {"parameters": self.names}
        return plain(self, "level sided degree coefficients num_toys held_out error", known)


def amortised_critical_values(
    key: Key,
    ratio: AbstractRatio,
    experiment: Experiment,
    *,
    num_toys: int = 10_000,
    level: float = 0.95,
    sided: Sided = "two",
    parameters: Sequence[str] | str | None = None,
) -> AmortisedCritical:
    """Learn the critical value as a function of theta, all over the prior.

    It is approximate where the polynomial is: near ends of the support, where q changes within a fraction of its
    width, prefer `critical_values` there. Parameters are those of `critical_values`, with `num_toys` in
    total, one at each of as many draws from the prior; parameters that are not of interest are profiled.

    Raises
    ------
    TypeError, ValueError: misuse, or fewer than 200 toys.
    SimulationError: more than half of the toys failed.
    """
    check_experiment(ratio, experiment, starting_points(ratio.prior, 1))
    interest = of_interest(ratio.prior, parameters, sided, level)
    if num_toys < FEWEST:
        raise ValueError(f"num_toys must be at least {FEWEST}, got {num_toys}")
    theta_key, toy_key = jax.random.split(key)
    theta = np.asarray(ratio.prior.sample(theta_key, num_toys), np.float32)
    q = toy_statistics(toy_key, ratio, experiment, theta, interest, sided)[:, 0]
    good = ~np.isnan(q)
    degree, coefficients, held_out, error = _regress(ratio.prior, theta[good], q[good].astype(np.float64), level)
    names = tuple(ratio.prior.columns[i] for i in interest)
    return AmortisedCritical(ratio.prior, names, level, sided, degree, coefficients, int(good.sum()), held_out, error)


# -- the regression, in float64 ----------------------------------------------------------------------


def _regress(prior: Prior, theta: np.ndarray, q: np.ndarray, level: float) -> tuple[int, np.ndarray, float, float]:
    cut = int((1 - HELD_OUT) * len(q))  # the draws come in no order
    root = np.sqrt(q)
    trials = []
    for degree in DEGREES:
        features = _features(prior, theta, degree)
        if features.shape[1] > min(MOST_FEATURES, cut // 50):
            break
        coefficients = quantile_regression(features[:cut], root[:cut], level)
        loss = _pinball(root[cut:] - features[cut:] @ coefficients, level)
        trials.append((loss, degree, coefficients))
    _, degree, coefficients = min(trials, key=lambda trial: trial[0])
    kept = q[cut:] <= np.maximum(_features(prior, theta[cut:], degree) @ coefficients, 0.0) ** 2 + TIE
    share = float(np.mean(kept))
    return degree, coefficients, share, float(np.sqrt(level * (1 - level) / len(kept)))


def _pinball(residual: np.ndarray, level: float) -> float:
    return float(np.mean(np.maximum(level * residual, (level - 1) * residual)))


def quantile_regression(features: np.ndarray, y: np.ndarray, level: float) -> np.ndarray:
    """Coefficients `(F,)` that minimise the pinball loss of y `(n,)` on features `(n, F)`, exactly.

    The dual of the linear program of Koenker and Bassett 1978 (Econometrica 46, 33): F equations in n bounded
    unknowns, whose multipliers are the coefficients.
    """
    goal = (1 - level) * features.sum(axis=0)
    found = linprog(-y, A_eq=features.T, b_eq=goal, bounds=(0, 1), method="highs-ds")
    if found.status != 0:
        raise ValueError(f"the quantile regression failed: {found.message}")
    return -np.asarray(found.eqlin.marginals)


def _features(prior: Prior, theta: np.ndarray, degree: int) -> np.ndarray:
    """Products of Legendre polynomials `(n, F)` of total degree at most `degree`, on the support made [-1, 1]."""
    unit = _unit(prior, np.asarray(theta, np.float64))
    powers = np.stack([special.eval_legendre(k, unit) for k in range(degree + 1)])
    index = [each for each in itertools.product(range(degree + 1), repeat=prior.dim) if sum(each) <= degree]
    columns = [np.prod([powers[k, :, j] for j, k in enumerate(each)], axis=0) for each in index]
    return np.stack(columns, axis=1)


def _unit(prior: Prior, theta: np.ndarray) -> np.ndarray:
    """Intervals carried to [-1, 1] linearly, unbounded supports through the normal distribution function."""
    box = support_box(prior)
    finite = np.isfinite(box.low) & np.isfinite(box.high)
    low = np.where(finite, box.low, 0.0)
    middle = np.median(starting_points(prior, 255), axis=0)
    linear = 2 * (theta - low) / box.scale - 1
    return np.where(finite, np.clip(linear, -1, 1), special.erf((theta - middle) / (box.scale / 4 * np.sqrt(2))))
