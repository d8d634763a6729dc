"""The Neyman construction: critical values and p-values of a test statistic from toys, without Wilks' theorem.

At each theta of a set, T toys give the distribution of q under that hypothesis. The critical value is the order
statistic of rank ceil(level (T + 1)): a further toy is exchangeable with the T, so that it exceeds this value with
probability 1 - level at most, however few or discrete the data (Neyman 1937; Vovk et al. 2005, section 2.2).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

from ...core.prior import Prior
from ...core.solution import Array, Key
from ..estimates import AbstractRatio
from .experiment import Experiment, check_experiment
from .hypothesis import TIE, AbstractCriticalValues, Sided, check_level, of_interest, plain
from .likelihood import Box, Likelihood, column_indices, support_box
from .maximum import check_likelihood, conditional, grid_points
from .region import ConfidenceRegion, confidence_region
from .toys import toy_statistics

NUM_TOYS = 2000
NUM_HYPOTHESES = {1: 15, 2: 5}  # along each axis, by the number of parameters
ROOM = 0.4  # about a region for which hypotheses are made, in its widths
MOST_TURNS = 6


@dataclasses.dataclass(frozen=True)
class NeymanConstruction(AbstractCriticalValues):
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
    def made_for(self) -> tuple[float, tuple[str, ...], Sided]:
        return self.level, self.names, self.sided

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
        theta = [dict(zip(self.prior.columns, row, strict=True)) for row in self.theta.tolist()]
        known = {"parameters": self.names, "num_toys": self.toys.shape[1], "theta": theta}
        return plain(self, "level sided num_failed critical", known)


def _larger_neighbour(known: np.ndarray, critical: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    # A point within float32 of a theta is that theta, not a point just beside it.
    slack = 1e-6 * np.maximum(np.abs(wanted), np.ptp(known))
    left = np.clip(np.searchsorted(known, wanted + slack, side="right") - 1, 0, len(known) - 1)
    right = np.clip(np.searchsorted(known, wanted - slack, side="left"), 0, len(known) - 1)
    return np.maximum(critical[left], critical[right])


def _least(level: float) -> int:
    """The fewest toys with a critical value at this level."""
    return int(np.ceil(level / (1 - level) - 1e-9))


def _check_toys(num_toys: int, level: float) -> None:
    if num_toys < _least(level):
        raise ValueError(f"num_toys: a level of {level} needs at least {_least(level)} toys per theta, got {num_toys}")


def critical_values(
    key: Key,
    ratio: AbstractRatio,
    experiment: Experiment,
    theta: Array,
    *,
    num_toys: int = NUM_TOYS,
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
    experiment: what makes the toys.
    theta: hypotheses `(K, dim)`.
    num_toys: T, at each theta.
    level: probability with which the true hypothesis is kept.
    sided: see `test_statistic`.
    parameters: names of interest. The others are profiled in each toy, and the toys are drawn at their values
        in theta: coverage is then guaranteed at those values only.

    Raises
    ------
    TypeError, ValueError: misuse, such as fewer toys than the level needs, priors that disagree, unknown names.
    SimulationError: more than half of the toys failed.
    """
    points = check_experiment(ratio, experiment, theta)
    interest = of_interest(ratio.prior, parameters, sided, level)
    _check_toys(num_toys, level)
    q = toy_statistics(key, ratio, experiment, np.repeat(points, num_toys, axis=0), interest, sided)
    names = tuple(ratio.prior.columns[i] for i in interest)
    return NeymanConstruction(ratio.prior, points, names, q.reshape(len(points), num_toys), level, sided)


def neyman_region(
    key: Key,
    likelihood: Likelihood,
    level: float = 0.95,
    *,
    parameters: Sequence[str] | str | None = None,
    num_toys: int = 1000,
    sided: Sided = "two",
    experiment: Experiment | None = None,
) -> ConfidenceRegion:
    """A confidence region whose critical values come from toys, at hypotheses around the region that Wilks gives.

    There are 15 hypotheses about one parameter, 5 x 5 about two; the other parameters have their conditional best fit
    there, and coverage is guaranteed for these values. Where the region comes out much larger than that of Wilks, the
    same is done once more around it.

    Parameters
    ----------
    key: random key.
    likelihood: from `likelihood`.
    level, parameters, sided: see `confidence_region`.
    num_toys: at each hypothesis.
    experiment: what makes the toys; by default the simulator of the estimator, with the number of observations, or
        the rate, of the likelihood.

    Raises
    ------
    TypeError, ValueError: misuse; weights that are not 0 or 1, and no experiment.
    SimulationError: more than half of the toys failed.
    """
    check_likelihood(likelihood)
    check_level(level)
    _check_toys(num_toys, level)
    experiment = experiment or _experiment(likelihood)
    region = confidence_region(likelihood, level, parameters=parameters, sided=sided)
    names, box = region.names, support_box(likelihood.prior)
    interest = column_indices(likelihood.prior, names)
    extents = _extents(region)
    for turn in range(MOST_TURNS):
        span = _around(extents, box, list(interest))
        axes = tuple(np.linspace(span[:, 0], span[:, 1], NUM_HYPOTHESES[len(names)], axis=1))
        theta = conditional(likelihood, grid_points(likelihood.prior, interest, axes), interest, region.best)[2]
        made = critical_values(
            jax.random.fold_in(key, turn), likelihood.ratio, experiment, theta,
            num_toys=num_toys, level=level, sided=sided, parameters=names,
        )  # fmt: skip
        region = confidence_region(likelihood, level, parameters=names, critical_values=made, sided=sided)
        before, extents = extents, _extents(region)
        if ((extents - before) * [-1, 1] <= 0.8 * ROOM * np.diff(before, axis=1)).all():
            break  # else it may go on where there were no toys
    return region


def _experiment(likelihood: Likelihood) -> Experiment:
    simulator, rate = likelihood.ratio.simulator, likelihood.rate
    if rate is not None:
        return Experiment(simulator, rate=rate)
    weight = np.asarray(likelihood.weight)
    if not np.isin(weight, (0, 1)).all():
        raise ValueError("with weights other than 0 and 1 it is not known what made the data; give experiment=")
    return Experiment(simulator, num_observations=int(weight.sum()))


def _extents(region: ConfidenceRegion) -> np.ndarray:
    """For each parameter the ends of the region `(k, 2)`; on the side where q is 0, the best fit is the end."""
    inside, ends = region.margin <= 0, []
    for i, (axis, best) in enumerate(zip(region.axes, region.best_fit.values(), strict=True)):
        kept = np.append(axis[inside.swapaxes(0, i).reshape(len(axis), -1).any(axis=1)], best)
        low, high = kept.min(), max(kept.max(), kept.min() + axis[1] - axis[0])
        ends.append((best if region.sided == "upper" else low, best if region.sided == "lower" else high))
    return np.array(ends)


def _around(extents: np.ndarray, box: Box, index: list[int]) -> np.ndarray:
    """The extents `(k, 2)` and some room about them, inside the support."""
    width = extents[:, 1] - extents[:, 0]
    inside = 1e-4 * width  # an open end of the support is not of it
    low = np.maximum(extents[:, 0] - ROOM * width, box.low[index] + inside)
    high = np.minimum(extents[:, 1] + ROOM * width, box.high[index] - inside)
    return np.stack([low, high], axis=1)
