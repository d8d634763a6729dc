"""How often confidence regions hold the truth, at each theta of a set, by toys of their own."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ...core.prior import Prior
from ...core.solution import Array, Key
from ..estimates import AbstractRatio
from .experiment import Experiment, check_experiment
from .hypothesis import TIE, CriticalValues, Sided, check_level, check_made_for, critical_at, of_interest, plain
from .toys import toy_statistics

# Folded into the key, so that a coverage map made with the key of a calibration still has toys of its own.
_OWN_TOYS = 0x636F7665


@dataclasses.dataclass(frozen=True)
class CoverageMap:
    """Covered fractions at K thetas and L levels.

    Fields
    ------
    prior: of the parameters.
    theta: `(K, dim)`.
    levels: nominal, `(L,)`.
    covered: `(K, L)`, the share of toys whose region holds the truth.
    error: `(K, L)`, binomial standard errors, at the nominal level.
    num_toys: at each theta.
    """

    prior: Prior
    theta: np.ndarray
    levels: tuple[float, ...]
    covered: np.ndarray
    error: np.ndarray
    num_toys: int

    @property
    def under_covers(self) -> np.ndarray:
        """`(K, L)`: below nominal by more than 2 errors. Of exact regions, 2.3 % of the entries will be marked."""
        return self.covered < np.asarray(self.levels) - 2 * self.error

    def table(self) -> str:
        """Plain text, a line per theta; `!` marks what under-covers."""
        heads = [*self.prior.columns, *(f"{100 * level:g} %" for level in self.levels)]
        rows = [
            [
                *(f"{value:.4g}" for value in theta),
                *(f"{c:.3f}{'!' if low else ' '}" for c, low in zip(*cells, strict=True)),
            ]
            for theta, *cells in zip(self.theta, self.covered, self.under_covers, strict=True)
        ]
        width = max(len(text) for row in [heads, *rows] for text in row)
        return "\n".join("  ".join(f"{text:>{width}}" for text in row) for row in [heads, *rows])

    def to_dict(self) -> dict[str, Any]:
        return plain(self, "levels num_toys theta covered error under_covers", {"parameters": self.prior.columns})


def coverage_map(
    key: Key,
    ratio: AbstractRatio,
    experiment: Experiment,
    theta: Array,
    *,
    levels: Sequence[float] = (0.68, 0.95),
    num_toys: int = 2000,
    critical_values: CriticalValues | Mapping[float, CriticalValues] | None = None,
    sided: Sided = "two",
    parameters: Sequence[str] | str | None = None,
) -> CoverageMap:
    """The probability that a confidence region holds the truth, at each theta.

    Parameters
    ----------
    key: random key; its toys are independent of those that `critical_values` makes of the same key.
    ratio, experiment: what the regions are made with, and what makes the data.
    theta: truths `(K, dim)`.
    levels: nominal coverages.
    num_toys: at each theta; 2,000 tell 0.95 from 0.94 with 2 standard errors.
    critical_values: None for Wilks' theorem; or, for one level, a number, an array `(K,)`, or a function of theta
        `(K, dim)` such as `NeymanConstruction` and `AmortisedCritical`; for more, a mapping from level to such.
    sided: see `test_statistic`.
    parameters: of interest; the others are profiled.

    Raises
    ------
    TypeError, ValueError: misuse, such as levels without a critical value.
    SimulationError: more than half of the toys failed.
    """
    points = check_experiment(ratio, experiment, theta)
    interest = of_interest(ratio.prior, parameters, sided)
    names, levels = tuple(ratio.prior.columns[i] for i in interest), tuple(float(level) for level in levels)
    by_level = _by_level(critical_values, levels, names, sided)
    limits = np.stack([critical_at(by_level[each], points, each, len(names), sided) for each in levels], axis=1)
    if num_toys < 1:
        raise ValueError(f"num_toys must be at least 1, got {num_toys}")
    own_key = jax.random.fold_in(key, _OWN_TOYS)
    q = toy_statistics(own_key, ratio, experiment, np.repeat(points, num_toys, axis=0), interest, sided)
    q = q.reshape(len(points), num_toys)
    usable = np.maximum(np.sum(~np.isnan(q), axis=1), 1)[:, None]
    covered = np.sum(q[:, :, None] <= limits[:, None, :] + TIE, axis=1) / usable
    nominal = np.asarray(levels)
    return CoverageMap(ratio.prior, points, levels, covered, np.sqrt(nominal * (1 - nominal) / usable), num_toys)


def _by_level(
    critical: CriticalValues | Mapping[float, CriticalValues] | None,
    levels: tuple[float, ...],
    names: tuple[str, ...],
    sided: Sided,
) -> Mapping[float, CriticalValues | None]:
    if len(levels) == 0:
        raise ValueError("levels: give at least one, such as (0.95,)")
    for level in levels:
        check_level(level)
    if critical is None:
        return dict.fromkeys(levels)
    given = critical if isinstance(critical, Mapping) else dict.fromkeys(levels[:1], critical)
    missing = [level for level in levels if level not in given]
    if missing:
        raise ValueError(
            f"no critical values for the levels {missing}; there are some for {list(given)}; give a mapping level -> "
            "critical values"
        )
    for level in levels:
        check_made_for(given[level], level, names, sided)
    return given
