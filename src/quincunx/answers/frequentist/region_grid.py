"""The grids of confidence regions: the test statistic on them, where it crosses its critical value, and zooming in."""

import numpy as np

from .likelihood import LikelihoodRatio, support_box
from .maximum import Fit, conditional
from .statistic import TIE, Critical, Sided, critical_at, statistic, wilks_critical

GRID_SIZES = {1: 121, 2: 41}  # points along each axis, by the number of parameters
MOST_ZOOMS = 10
FAR = 1e6  # stands for an infinite statistic where a finite one is needed


def margin(q: np.ndarray, critical: np.ndarray) -> np.ndarray:
    """sqrt(q) - sqrt(critical), finite; a q that exceeds its critical value by rounding alone does not exceed it."""
    return np.sqrt(np.minimum(np.asarray(q, np.float64), FAR)) - np.sqrt(np.minimum(critical, FAR) + TIE)


def intervals(axis: np.ndarray, margins: np.ndarray) -> list[tuple[float, float]]:
    """Where the margins `(G,)` are not positive: intervals with linearly interpolated ends."""
    padded = np.concatenate([[False], margins <= 0, [False]])
    starts, stops = np.flatnonzero(padded[1:] & ~padded[:-1]), np.flatnonzero(padded[:-1] & ~padded[1:]) - 1
    ends = []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        low = axis[0] if start == 0 else _crossing(axis, margins, start, start - 1)
        high = axis[-1] if stop == len(axis) - 1 else _crossing(axis, margins, stop, stop + 1)
        ends.append((float(low), float(high)))
    return ends


def _crossing(axis: np.ndarray, margins: np.ndarray, inside: int, outside: int) -> float:
    share = -margins[inside] / (margins[outside] - margins[inside])
    # Nothing can be interpolated where the likelihood drops to 0: the region goes as far as it may.
    share = 1.0 if margins[outside] > np.sqrt(FAR) / 2 else share
    return axis[inside] + share * (axis[outside] - axis[inside])


def evaluate(
    likelihood: LikelihoodRatio,
    axes: tuple[np.ndarray, ...],
    interest: tuple[int, ...],
    critical: Critical | None,
    level: float,
    sided: Sided,
    best: Fit,
) -> tuple[Fit, np.ndarray, np.ndarray]:
    """The best fit, q and critical values in the grid's shape."""
    shape = tuple(len(axis) for axis in axes)
    points = np.zeros((int(np.prod(shape)), likelihood.prior.dim), np.float32)
    points[:, list(interest)] = np.stack([each.ravel() for each in np.meshgrid(*axes, indexing="ij")], axis=1)
    best, relative, theta = conditional(likelihood, points, interest, best=best)
    q = statistic(relative, points[:, interest[0]], best.theta[interest[0]], sided)
    if critical is None:
        return best, q.reshape(shape), np.full(shape, wilks_critical(level, len(interest), sided))
    if not callable(critical) and np.ndim(critical) > 0:
        if np.shape(critical) != shape:
            raise ValueError(f"critical: expected the grid's shape {shape}, got {np.shape(critical)}")
        critical = np.ravel(np.asarray(critical))
    return best, q.reshape(shape), critical_at(critical, theta).reshape(shape)


def zoom(
    likelihood: LikelihoodRatio,
    interest: tuple[int, ...],
    critical: Critical | None,
    level: float,
    sided: Sided,
    best: Fit,
) -> tuple[tuple[np.ndarray, ...], Fit, np.ndarray, np.ndarray]:
    box, index = support_box(likelihood.prior), list(interest)
    ends = np.stack([box.low[index], box.high[index]]).astype(np.float64)
    reach = np.stack([best.theta[index] - box.scale[index], best.theta[index] + box.scale[index]])
    span = np.where(np.isfinite(ends), ends, reach)
    axes, q, limits = (), np.zeros(0), np.zeros(0)
    for _ in range(MOST_ZOOMS):
        axes = tuple(np.linspace(low, high, GRID_SIZES[len(index)]) for low, high in span.T)
        best, q, limits = evaluate(likelihood, axes, interest, critical, level, sided, best)
        wanted = _windows(axes, margin(q, limits) <= 0, best.theta[index], ends)
        width, old = wanted[1] - wanted[0], span[1] - span[0]
        enough = (width > 0.5 * old) & (wanted[0] >= span[0]) & (wanted[1] <= span[1])
        enough |= width < 1e-5 * np.max(np.abs(span), axis=0)  # of what float32 tells apart
        if enough.all():
            break
        span = np.where(enough, span, wanted)
    return axes, best, q, limits


def _windows(axes: tuple[np.ndarray, ...], inside: np.ndarray, best: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """For each axis the part that is wanted next, `(2, d)`, given which points of the grid are inside."""
    others = [tuple(set(range(len(axes))) - {j}) for j in range(len(axes))]
    parts = [_window(axis, np.asarray(inside.any(axis=others[j])), best[j], ends[:, j]) for j, axis in enumerate(axes)]
    return np.stack(parts, axis=1)


def _window(axis: np.ndarray, inside: np.ndarray, best: float, ends: np.ndarray) -> np.ndarray:
    """The part of the axis that holds the region and some room about it; more than the axis where it runs over."""
    cell, held = axis[1] - axis[0], np.append(axis[inside], np.clip(best, axis[0], axis[-1]))
    room = max(cell, 0.15 * (held.max() - held.min()))
    low, high = held.min() - room, held.max() + room
    if held.min() == axis[0] > ends[0]:
        low = axis[0] - (axis[-1] - axis[0])
    if held.max() == axis[-1] < ends[1]:
        high = axis[-1] + (axis[-1] - axis[0])
    return np.clip([low, high], *ends)
