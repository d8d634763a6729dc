"""Statistics of data sets, and how far those of one set are from those of others. NumPy alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from ..core.names import check_function
from ..core.tables import observation_columns

MOST_COMPONENTS = 64  # of an observation; larger ones are looked at by their mean, deviation, smallest and largest
MOMENTS: Mapping[str, Callable[..., np.ndarray]] = {"mean": np.mean, "sd": np.std, "min": np.min, "max": np.max}

Statistic = Callable[[np.ndarray], Any]  # of a data set `(m, *event)`, to a number
Evaluate = Callable[[np.ndarray], np.ndarray]  # data sets `(n, m, *event)` -> their statistics `(n, k)`


def chosen(
    statistics: Mapping[str, Statistic] | None, event: tuple[int, ...], count: int
) -> tuple[tuple[str, ...], Evaluate]:
    """Their names, and how they are evaluated: those given, or, if None, by the shape of an observation and how many.

    Raises
    ------
    TypeError: no mapping of names to functions. When evaluated, `ValueError` for one that gives no single number.
    """
    if statistics is None:
        return _by_shape(event, count)
    if not isinstance(statistics, Mapping) or not statistics:
        raise TypeError(
            "statistics: expected a mapping of names to functions of a data set, such as {'median': np.median}, got "
            f"{statistics!r}"
        )
    for function in statistics.values():
        check_function(function, ("x",), "number")

    def evaluate(sets: np.ndarray) -> np.ndarray:
        return np.stack([[_number(name, function(x)) for name, function in statistics.items()] for x in sets])

    return tuple(statistics), evaluate


def _number(name: str, value: Any) -> float:
    if np.size(value) != 1:
        raise ValueError(f"statistics: {name!r} must give one number, got shape {np.shape(value)}")
    return float(np.asarray(value).reshape(()))


def _by_shape(event: tuple[int, ...], count: int) -> tuple[tuple[str, ...], Evaluate]:
    """The components of one observation, and of several their moments and extremes."""
    names: Sequence[str] = observation_columns(event)
    few = len(names) <= MOST_COMPONENTS
    if not few:
        names = [f"{name} of a component" for name in MOMENTS]

    def components(sets: np.ndarray) -> np.ndarray:
        flat = sets.reshape(*sets.shape[:2], -1)
        return flat if few else np.stack([each(flat, axis=2) for each in MOMENTS.values()], axis=2)

    if count == 1:
        return tuple(names), lambda sets: components(sets)[:, 0]
    columns = tuple(f"{moment} {name}" for moment in MOMENTS for name in names)
    return columns, lambda sets: np.concatenate([each(components(sets), axis=1) for each in MOMENTS.values()], axis=1)


def sets_of(simulated: np.ndarray) -> np.ndarray:
    """Statistics of all simulated data sets `(2 n, k)`."""
    return simulated.reshape(-1, simulated.shape[-1])


def distances(values: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """From the median of the sets `(n, k)`, in units of the median distance of those beyond it on the same side.

    Where no set lies beyond it a value that does is infinitely far.
    """
    excess = sets - np.median(sets, axis=0)
    above, below = (_median_of_positive(sign * excess) for sign in (1, -1))
    off = values - np.median(sets, axis=0)
    unit = np.where(off > 0, above, below)
    return np.divide(np.abs(off), unit, out=np.where(off == 0, 0.0, np.inf), where=unit > 0)


def _median_of_positive(excess: np.ndarray) -> np.ndarray:
    return np.array([np.median(column[column > 0]) if (column > 0).any() else 0.0 for column in excess.T])


def spread_of(simulated: np.ndarray) -> np.ndarray:
    """Of every statistic `(k,)`, from two data sets at each draw `(n, 2, k)`; 0 for one that does not vary."""
    ranks = rankdata(sets_of(simulated), axis=0).reshape(simulated.shape)
    ranks = ranks - ranks.mean(axis=(0, 1))
    variance = np.mean(ranks**2, axis=(0, 1))
    shared = np.mean(ranks[:, 0] * ranks[:, 1], axis=0)
    correlation = np.divide(shared, variance, out=np.zeros_like(shared), where=variance > 0)
    between = np.clip(2 * np.sin(np.pi / 6 * correlation), 0.0, 1.0)  # of normal numbers with such a rank correlation
    return np.sqrt(np.divide(between, 1 - between, out=np.full_like(between, np.inf), where=between < 1))
