"""The Neyman construction: critical values and p-values of a test statistic from toys, without Wilks' theorem.

At each theta of a set, T toys give the distribution of q under that hypothesis. The critical value is the order
statistic of rank ceil(level (T + 1)): a further toy is exchangeable with the T, so that it exceeds this value with
probability 1 - level at most, however few or discrete the data (Neyman 1937; Vovk et al. 2005, section 2.2).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

from ...core.prior import Prior
from ...core.simulator import AbstractSimulator
from ...core.solution import Array, Key
from ..estimates import AbstractRatio
from .likelihood import Rate, column_indices
from .statistic import TIE, Sided, check_level, check_sided
from .toys import check_experiment, toy_statistics

NUM_TOYS = 2000


@dataclasses.dataclass(frozen=True)
class NeymanConstruction:
    """Toys and critical values at a set of hypotheses. As a function, it interpolates critical values.

    Fields
    ------
    prior: of the parameters.
    theta: hypotheses `(K, dim)`, at which the toys were drawn.
    names: parameters of interest; the toys profile the others.
    toys: q of each toy `(K, T)`, NaN where the simulator failed.
    level: of the confidence regions that `critical` makes.
    sided: which test statistic.
    """

    prior: Prior
    theta: np.ndarray
    names: tuple[str, ...]
    toys: np.ndarray
    level: float
    sided: Sided

    @property
    def critical(self) -> np.ndarray:
        """`(K,)`: a hypothesis is excluded where the observed q exceeds this."""
        return self.critical_at(self.level)

    @property
    def num_failed(self) -> int:
        return int(np.isnan(self.toys).sum())

    def critical_at(self, level: float) -> np.ndarray:
        """Critical values `(K,)` at another level, from the same toys.

        Raises
        ------
        ValueError: a level out of (0, 1), or one that needs more toys.
        """
        check_level(level)
        ordered = np.sort(self.toys, axis=1)  # NaN at the end
        counts = np.sum(~np.isnan(ordered), axis=1)
        rank = np.ceil(level * (counts + 1) - 1e-9).astype(int)
        if (rank > counts).any():
            raise ValueError(
                f"a level of {level} needs at least {_least(level)} toys per theta, got {int(counts.min())}"
            )
        return ordered[np.arange(len(ordered)), rank - 1]

    def p_value(self, q: Array | Sequence[float]) -> np.ndarray:
        """(1 + #{toys with at least the observed q}) / (T + 1), `(K,)`, for q `(K,)`, one at each hypothesis.

        A toy that is within 0.001 below counts as a tie, so that rounding cannot make a p-value too small.
        """
        observed = np.asarray(q, np.float64)
        if observed.shape != (len(self.theta),):
            raise ValueError(f"q: expected shape ({len(self.theta)},), one for each theta, got {observed.shape}")
        counts = np.sum(~np.isnan(self.toys), axis=1)
        return (1 + np.sum(self.toys >= observed[:, None] - TIE, axis=1)) / (counts + 1)

    def __call__(self, theta: Array) -> np.ndarray:
        """Critical values `(G,)` at theta `(G, dim)`.

        For one parameter of interest, the larger of the two neighbours' values; beyond the ends, that of the end. For
        more, linear between the thetas and that of the nearest outside. Other parameters are not looked at: of thetas
        that differ only in them, the largest value counts.
        """
        columns = list(column_indices(self.prior, self.names))
        known, place = np.unique(self.theta[:, columns], axis=0, return_inverse=True)
        wanted, critical = np.asarray(theta)[:, columns], np.full(len(known), -np.inf)
        np.maximum.at(critical, place.ravel(), self.critical)
        if len(columns) == 1:
            return _larger_neighbour(known[:, 0], critical, wanted[:, 0])
        spread = np.maximum(np.ptp(known, axis=0), 1e-30)
        nearest = NearestNDInterpolator(known / spread, critical)(wanted / spread)
        if len(known) <= len(columns) + 1:
            return nearest
        between = LinearNDInterpolator(known / spread, critical)(wanted / spread)
        return np.where(np.isnan(between), nearest, between)

    def to_dict(self) -> dict[str, Any]:
        return {
            "parameters": list(self.names),
            "level": self.level,
            "sided": self.sided,
            "num_toys": self.toys.shape[1],
            "num_failed": self.num_failed,
            "theta": [dict(zip(self.prior.columns, row, strict=True)) for row in self.theta.tolist()],
            "critical": self.critical.tolist(),
        }


def _larger_neighbour(known: np.ndarray, critical: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    # A point within float32 of a theta is that theta, not a point just beside it.
    slack = 1e-6 * np.maximum(np.abs(wanted), np.ptp(known))
    left = np.clip(np.searchsorted(known, wanted + slack, side="right") - 1, 0, len(known) - 1)
    right = np.clip(np.searchsorted(known, wanted - slack, side="left"), 0, len(known) - 1)
    return np.maximum(critical[left], critical[right])


def _least(level: float) -> int:
    """The fewest toys with a critical value at this level."""
    return int(np.ceil(level / (1 - level) - 1e-9))


def critical_values(
    key: Key,
    ratio: AbstractRatio,
    simulator: AbstractSimulator,
    theta: Array,
    *,
    num_toys: int = NUM_TOYS,
    num_observations: int | None = None,
    rate: Rate | None = None,
    level: float = 0.95,
    sided: Sided = "two",
    parameters: Sequence[str] | str | None = None,
) -> NeymanConstruction:
    """Simulate toys at each theta, and find what their test statistics do not exceed.

    Parameters
    ----------
    key: random key.
    ratio: the estimate that the data will be analysed with. Coverage does not depend on its quality, only power does.
        Toys are fitted from fewer starts than data are: where a likelihood has many hills, that can cost coverage.
    simulator: what makes the toys.
    theta: hypotheses `(K, dim)`.
    num_toys: T, at each theta.
    num_observations: m of each toy; or rate: named theta -> expected number, then each toy has a Poisson number.
    level: probability with which the true hypothesis is kept.
    sided: see `test_statistic`.
    parameters: names of interest. The others are profiled in each toy, and the toys are drawn at their values
        in theta: coverage is then guaranteed at those values only.

    Raises
    ------
    TypeError, ValueError: misuse, such as fewer toys than the level needs, priors that disagree, unknown names.
    SimulationError: more than half of the toys failed.
    """
    points = check_experiment(ratio, simulator, theta, num_observations, rate)
    interest = column_indices(ratio.prior, parameters)
    check_sided(sided, len(interest))
    check_level(level)
    if num_toys < _least(level):
        raise ValueError(f"num_toys: a level of {level} needs at least {_least(level)} toys per theta, got {num_toys}")
    q = toy_statistics(
        key,
        ratio,
        simulator,
        np.repeat(points, num_toys, axis=0),
        num_observations=num_observations,
        rate=rate,
        interest=interest,
        sided=sided,
    )
    names = tuple(ratio.prior.columns[i] for i in interest)
    return NeymanConstruction(ratio.prior, points, names, q.reshape(len(points), num_toys), level, sided)
