"""Limits to expect of an experiment: the median and bands over toys, and those of the Asimov data set."""

import dataclasses
from typing import Any

import jax
import numpy as np

from ...core.solution import Array, Key
from ..estimates import AbstractRatio
from .experiment import Experiment, asimov, check_experiment
from .hypothesis import CriticalValues, Sided, check_made_for, critical_at, of_interest, plain
from .maximum import checked_grid
from .region import confidence_region, intervals, margin
from .toys import toy_statistics

BANDS = (0.025, 0.16, 0.5, 0.84, 0.975)


@dataclasses.dataclass(frozen=True)
class ExpectedLimits:
    """Limits on one parameter in toys at one theta.

    Fields
    ------
    name: of the parameter.
    theta: where the toys were drawn, `(dim,)`.
    level, sided: of the limits.
    lower, upper: ends of each toy's region, `(T,)`; of a union of intervals, the outermost. NaN where the region
        holds no point of the grid.
    asimov: ends of the region of the Asimov data set.
    """

    name: str
    theta: np.ndarray
    level: float
    sided: Sided
    lower: np.ndarray
    upper: np.ndarray
    asimov: tuple[float, float]

    @property
    def bands(self) -> dict[str, np.ndarray]:
        """Quantiles of `lower` and `upper` at 2.5, 16, 50, 84, 97.5 %."""
        return {"lower": np.nanquantile(self.lower, BANDS), "upper": np.nanquantile(self.upper, BANDS)}

    @property
    def median(self) -> tuple[float, float]:
        return float(np.nanmedian(self.lower)), float(np.nanmedian(self.upper))

    def to_dict(self) -> dict[str, Any]:
        known = {"parameter": self.name, "num_toys": len(self.lower), "quantiles": BANDS, **self.bands}
        return plain(self, "theta level sided asimov", known)


def expected_limits(
    key: Key,
    ratio: AbstractRatio,
    experiment: Experiment,
    theta: Array,
    parameter: str,
    *,
    grid: Array,
    level: float = 0.95,
    sided: Sided = "two",
    critical_values: CriticalValues | None = None,
    num_toys: int = 500,
    num_simulations: int = 100_000,
) -> ExpectedLimits:
    """The limits that an experiment would set on a parameter if theta were true.

    Parameters
    ----------
    ratio, experiment: what the limits are made with, and what makes the data.
    theta: `(dim,)`, at which toys and the Asimov data set are drawn.
    parameter: name of the parameter; the others are profiled.
    grid: its values `(G,)`, increasing, wide enough for the limits.
    level, sided: of the limits; "upper" for upper limits.
    critical_values: None for Wilks' theorem; else a number, an array `(G,)`, or a function of theta `(G, dim)`, taken
        at the grid's values of the parameter and theta's of the others.
    num_toys: T.
    num_simulations: of the Asimov data set.

    Raises
    ------
    TypeError, ValueError: misuse; a toy whose simulation failed.
    """
    points = check_experiment(ratio, experiment, np.asarray(theta)[None])
    interest = of_interest(ratio.prior, parameter, sided, level)
    check_made_for(critical_values, level, (parameter,), sided)
    (axis,) = checked_grid(ratio.prior, interest, grid)
    if num_toys < 1:
        raise ValueError(f"num_toys must be at least 1, got {num_toys}")
    tested = np.repeat(points, len(axis), axis=0)
    tested[:, interest[0]] = axis
    limits = critical_at(critical_values, tested, level, 1, sided)
    toy_key, asimov_key = jax.random.split(key)
    q = toy_statistics(toy_key, ratio, experiment, np.repeat(points, num_toys, axis=0), interest, sided, tested)
    failed = int(np.isnan(q).any(axis=1).sum())
    if failed:
        name = experiment.simulator.name
        raise ValueError(f"{failed} of {num_toys} toys by {name!r} failed; mend the simulator there")
    lower, upper = np.array([_outermost(axis, margin(each, limits)) for each in q]).T
    typical = asimov(asimov_key, ratio, experiment, points[0], num_simulations=num_simulations)
    region = confidence_region(typical, level, parameters=parameter, critical_values=limits, grid=axis, sided=sided)
    return ExpectedLimits(parameter, points[0], level, sided, lower, upper, _outermost(axis, region.margin))


def _outermost(axis: np.ndarray, margins: np.ndarray) -> tuple[float, float]:
    found = intervals(axis, margins)
    return (found[0][0], found[-1][1]) if found else (float("nan"), float("nan"))
