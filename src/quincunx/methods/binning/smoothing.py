"""Probabilities of bins at every theta, from few simulations or many; in NumPy's float64.

A histogram for each theta alone wastes simulations. Here several candidates are mixed: the log-probability of a bin is
a penalised cubic polynomial in theta, so that neighbours share their strength, under penalties from heavy to light;
where there are many simulations, also histograms for each theta, with pseudo-counts from that polynomial; and the
ratio 1. The share of a candidate is exp(its log-ratio to the mean over theta, less a standard error) on simulations
left out, in five folds. So few simulations shrink the ratio to 1, and many leave the histograms as they are. The
number of bins is the best of three about the cube root of the number of simulations (fourth root, for each of two).
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from .bins import Bins

PENALTIES = (1000.0, 100.0, 10.0, 1.0, 0.1, 0.01)  # of linear terms, relative to the information of one simulation
STEEPER = 100.0  # penalty of a degree, over that of the degree below
DEGREE = 3
PSEUDO_COUNTS = 100.0, 10.0
ENOUGH_PER_THETA = 200.0  # simulations, for histograms of their own
NUM_FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Setting:
    """How smooth a histogram is, see the top of `smoothing`.

    Fields
    ------
    num_bins: asked for.
    shares: of the candidates in the mixture, the ratio 1 first.
    gain: log of the mean candidate's weight: how much better than the ratio 1, in nats, on simulations left out.
    """

    num_bins: int
    shares: tuple[float, ...]
    gain: float


class Rows(NamedTuple):
    """Where simulations come from: `points` `(T, dim)`, the point `(n,)` and the fold `(n,)` of every row."""

    points: np.ndarray
    point: np.ndarray
    fold: np.ndarray

    @staticmethod
    def of(theta: np.ndarray) -> "Rows":
        points, point = np.unique(theta, axis=0, return_inverse=True)
        fold = np.random.default_rng(0).permutation(len(theta)) % NUM_FOLDS
        return Rows(points, point.ravel(), fold)

    def find(self, theta: np.ndarray) -> np.ndarray:
        """The places `(K,)` of theta `(K, dim)` among the points."""
        return np.argmin(np.abs(self.points[None] - theta[:, None]).sum(axis=2), axis=1)

    def counts(self, bins: Bins, s: np.ndarray) -> np.ndarray:
        """`(NUM_FOLDS, T, B)`."""
        table = np.zeros((NUM_FOLDS, len(self.points), bins.num_bins))
        np.add.at(table, (self.fold, self.point, bins.places(s)), 1)
        return table

    @property
    def design(self) -> tuple[np.ndarray, np.ndarray]:
        """Polynomials `(T, J)` up to degree 3, orthonormal over the simulations, and their degrees `(J,)`."""
        spread = np.ptp(self.points.astype(np.float64), axis=0)
        z = 2 * (self.points - self.points.min(axis=0)) / np.where(spread > 0, spread, 1) - 1
        weight = np.bincount(self.point) / len(self.point)
        columns, degrees = [np.ones(len(z))], [0]
        for degree in range(1, DEGREE + 1):
            for factors in itertools.combinations_with_replacement(range(z.shape[1]), degree):
                raw = np.prod(z[:, factors], axis=1)
                rest = raw
                for _ in range(2):  # once more, for what rounding left over
                    rest = rest - sum(c * np.sum(weight * c * rest) for c in columns)
                norm = np.sqrt(np.sum(weight * rest**2))
                if norm > 1e-6:  # a column that the others make up is left out
                    columns.append(rest / norm)
                    degrees.append(degree)
        return np.stack(columns[1:], axis=1), np.array(degrees[1:])


def _marginal(counts: np.ndarray) -> np.ndarray:
    total = counts.sum(axis=0) + 0.5
    return np.log(total / total.sum())


def _polynomial(
    counts: np.ndarray, design: tuple[np.ndarray, np.ndarray], penalty: float, start: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """log q `(T, B)` for counts `(T, B)`: the penalised maximum likelihood, and its coefficients to start from."""
    basis, degree = design
    marginal, shape = _marginal(counts), (basis.shape[1], counts.shape[1])
    stiffness = penalty * counts.shape[1] * STEEPER ** (degree[:, None] - 1.0) * np.exp(marginal)
    size = counts.sum(axis=1, keepdims=True)
    unit = 1 / np.sqrt(stiffness + size.sum() * np.exp(marginal))  # the objective is about as steep in all directions

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients = unit * flat.reshape(shape)
        logits = marginal + basis @ coefficients
        log_q = logits - special.logsumexp(logits, axis=1, keepdims=True)
        value = 0.5 * np.sum(stiffness * coefficients**2) - np.sum(counts * log_q)
        slope = stiffness * coefficients + basis.T @ (size * np.exp(log_q) - counts)
        return float(value), (unit * slope).ravel()

    first = np.zeros(shape) if start is None else start / unit
    options = {"maxiter": 100, "gtol": 0.1}  # of coefficients in units of their standard errors: 0.005 nats each
    # Conjugate gradients in plain NumPy: the small factorisations of L-BFGS-B cost ten times the rest.
    found = optimize.minimize(objective, first.ravel(), jac=True, method="CG", options=options)
    coefficients = unit * found.x.reshape(shape)
    return special.log_softmax(marginal + basis @ coefficients, axis=1), coefficients


def _candidates(counts: np.ndarray, rows: Rows) -> np.ndarray:
    """Log-probabilities `(C, T, B)` for counts `(T, B)` by every candidate, the ratio 1 first."""
    marginal, design, start = _marginal(counts), rows.design, None
    own = len(rows.point) >= ENOUGH_PER_THETA * len(rows.points)
    size = counts.sum(axis=1, keepdims=True)
    found = [np.broadcast_to(np.exp(marginal), counts.shape)]
    for penalty in PENALTIES:
        log_q, start = _polynomial(counts, design, penalty, start)
        found.append(np.exp(log_q))
        for pseudo_counts in PSEUDO_COUNTS if own else ():
            found.append((counts + pseudo_counts * np.exp(log_q)) / (size + pseudo_counts))
    # One more pseudo-count, from the mean over theta: no ratio is beyond what the number of simulations can show.
    return np.log((size * np.stack(found) + np.exp(marginal)) / (size + 1))


def choose(views: Sequence[np.ndarray], rows: Rows, num_bins: int | None) -> Setting:
    """The best setting for summaries `(n, k)`, taken together where there are several."""
    k = views[0].shape[1]
    about = len(rows.point) ** (k / (k + 2))
    tried = {max(2, round(about * factor)) for factor in (0.5, 1, 2)} if num_bins is None else {num_bins}
    return max((_judged(views, rows, each) for each in sorted(tried)), key=lambda setting: setting.gain)


def _judged(views: Sequence[np.ndarray], rows: Rows, num_bins: int) -> Setting:
    gain, square = 0.0, 0.0
    for s in views:
        folds = rows.counts(Bins.of(s, num_bins), s)
        for left_out in folds:
            counts = folds.sum(axis=0) - left_out
            log_ratio = _candidates(counts, rows) - _marginal(counts)
            gain = gain + np.sum(left_out * log_ratio, axis=(1, 2))
            square = square + np.sum(left_out * log_ratio**2, axis=(1, 2))
    weight = gain - np.sqrt(square)
    mean = special.logsumexp(weight) - np.log(len(weight))
    return Setting(num_bins, tuple(special.softmax(weight).tolist()), float(mean))


def log_probabilities(s: np.ndarray, rows: Rows, setting: Setting) -> tuple[Bins, np.ndarray]:
    """Bins, and the log-probability `(T, B)` of each at every point."""
    bins = Bins.of(s, setting.num_bins)
    found = _candidates(rows.counts(bins, s).sum(axis=0), rows)
    return bins, np.log(np.tensordot(setting.shares, np.exp(found), axes=1))
