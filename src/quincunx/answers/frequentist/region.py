"""Confidence regions of one or two parameters: where the test statistic does not exceed its critical value."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from contourpy import FillType, LineType, contour_generator
from scipy.interpolate import RegularGridInterpolator

from ...core.names import nearest
from ...core.solution import Array
from .hypothesis import TIE, CriticalValues, Sided, check_made_for, critical_at, of_interest, statistic
from .likelihood import Box, Likelihood, support_box
from .maximum import Fit, check_likelihood, checked_grid, conditional, grid_points, highest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID_SIZES = {1: 121, 2: 41}  # points along each axis, by the number of parameters
MOST_ZOOMS = 10
FAR = 1e6  # stands for an infinite statistic where a finite one is needed


@dataclasses.dataclass(frozen=True)
class ConfidenceRegion:
    """The hypotheses that the data do not exclude. Made by `confidence_region`.

    Fields
    ------
    names: one or two parameters of interest.
    axes: grid of each, `(G_i,)`, in the units of the parameters.
    q: test statistic on the grid, `(G_1[, G_2])`.
    critical: critical values, likewise.
    level: nominal confidence.
    sided: which test statistic.
    best: the maximum likelihood estimate.
    """

    names: tuple[str, ...]
    axes: tuple[np.ndarray, ...]
    q: np.ndarray
    critical: np.ndarray
    level: float
    sided: Sided
    best: Fit

    @property
    def margin(self) -> np.ndarray:
        """sqrt(q) - sqrt(critical) on the grid: 0 at the region's edge, and near it close to linear in theta."""
        return margin(self.q, self.critical)

    @property
    def best_fit(self) -> dict[str, float]:
        """The best fit of the parameters of interest."""
        return {name: self.best.named[name] for name in self.names}

    def contains(self, theta: Mapping[str, float] | Array | float) -> np.ndarray:
        """Whether the region holds theta: named values, or an array `(..., len(names))`, or for one parameter `(...)`.

        Interpolated on the grid; False outside it.
        """
        points = self._points(theta)
        inside = RegularGridInterpolator(self.axes, self.margin, bounds_error=False, fill_value=np.inf)
        return np.asarray(inside(points) <= 0)

    def _points(self, theta: Mapping[str, float] | Array | float) -> np.ndarray:
        if isinstance(theta, Mapping):
            for name in [*theta, *self.names]:
                if name not in self.names or name not in theta:
                    raise ValueError(
                        f"the region is one of {self.names}, got {tuple(theta)}{nearest(name, self.names)}"
                    )
            return np.stack([np.asarray(theta[name], np.float64) for name in self.names], axis=-1)
        values = np.asarray(theta, np.float64)
        if len(self.names) == 1 and values.shape[-1:] != (1,):
            values = values[..., None]
        if values.shape[-1:] != (len(self.names),):
            raise ValueError(
                f"theta: expected shape (..., {len(self.names)}), values of {self.names}, got {values.shape}"
            )
        return values

    @property
    def interval(self) -> list[tuple[float, float]]:
        """The region of one parameter: disjoint intervals, in order, with interpolated ends."""
        self._expect(1)
        return intervals(self.axes[0], self.margin)

    @property
    def contour(self) -> list[np.ndarray]:
        """The edge of the region of two parameters: polylines `(k, 2)`; open where they end at the grid's edge."""
        self._expect(2)
        return [np.asarray(line) for line in self._generator(line_type=LineType.Separate).lines(0.0)]

    @property
    def area(self) -> float:
        """Length, or area, in units of the parameters."""
        if len(self.names) == 1:
            return float(sum(high - low for low, high in self.interval))
        points, offsets = self._generator(fill_type=FillType.OuterOffset).filled(-FAR, 0.0)
        total = 0.0
        for vertices, cuts in zip(points, offsets, strict=True):
            rings = [abs(_shoelace(vertices[a:b])) for a, b in itertools.pairwise(cuts)]
            total += rings[0] - sum(rings[1:])  # the outer ring, less its holes
        return float(total)

    def _generator(self, **options: Any) -> Any:
        return contour_generator(self.axes[0], self.axes[1], self.margin.T, **options)

    def _expect(self, dim: int) -> None:
        if len(self.names) != dim:
            other = "contour" if len(self.names) == 2 else "interval"
            raise ValueError(f"this region has the parameters {', '.join(self.names)}; use .{other}")

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw q and its critical value (one parameter), or the contour (two), on `ax` or on a figure of its own."""
        from matplotlib.figure import Figure

        ax = Figure(layout="constrained").add_subplot() if ax is None else ax
        label = f"{100 * self.level:g} %"
        if len(self.names) == 1:
            ax.plot(self.axes[0], self.q, label="q")
            ax.plot(self.axes[0], self.critical, ls="--", label=label)
            for low, high in self.interval:
                ax.axvspan(low, high, alpha=0.15)
            ax.set(xlabel=self.names[0], ylabel="test statistic q", ylim=(0, 3 * float(np.max(self.critical)) + 1))
        else:
            lines = [ax.plot(*line.T, color="C0")[0] for line in self.contour]
            ax.plot(*self.best_fit.values(), "x", color="C0", label="best fit")
            for line in lines[:1]:
                line.set_label(label)
            ax.set(xlabel=self.names[0], ylabel=self.names[1])
        ax.legend(frameon=False)
        return ax

    def to_dict(self) -> dict[str, Any]:
        shape = {"intervals": [list(each) for each in self.interval]} if len(self.names) == 1 else {}
        return {
            "parameters": list(self.names),
            "level": self.level,
            "sided": self.sided,
            "best": self.best.to_dict(),
            "area": self.area,
            **(shape or {"contours": [line.tolist() for line in self.contour]}),
            "grid": [axis.tolist() for axis in self.axes],
            "q": np.minimum(self.q, FAR).tolist(),
            "critical": self.critical.tolist(),
        }


def _shoelace(ring: np.ndarray) -> float:
    x, y = ring.T - ring[0][:, None]
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)


# -- how it is made ----------------------------------------------------------------------------------


def confidence_region(
    likelihood: Likelihood,
    level: float = 0.95,
    *,
    parameters: Sequence[str] | str | None = None,
    critical_values: CriticalValues | None = None,
    grid: Array | Sequence[Array] | None = None,
    sided: Sided = "two",
) -> ConfidenceRegion:
    """The region of one or two parameters that the data do not exclude; the others are profiled.

    Parameters
    ----------
    likelihood: from `likelihood`.
    level: nominal confidence.
    parameters: one or two names; all if there are no more than two.
    critical_values: None for Wilks' theorem. A `NeymanConstruction` or `AmortisedCritical` of the same level,
        parameters and `sided`, or any function of theta `(G, dim)`; the profiled parameters have their conditional
        best fit there. A number, or an array in the shape of `grid`.
    grid: increasing values `(G,)`, or a pair of such. If None, a grid over the support is narrowed, or widened where
        the support has no end, until the region fills it. A second hill narrower than its first
        spacing (a 120th of the support, for two parameters a 40th) can be missed.
    sided: "upper" gives an upper limit, "lower" a lower limit; see `test_statistic`.

    Raises
    ------
    TypeError: not a likelihood.
    ValueError: unknown names (the nearest is named), more than two, a level out of (0, 1), critical values
        that were made for something else, or a bad grid.
    """
    check_likelihood(likelihood)
    prior = likelihood.prior
    interest = of_interest(prior, parameters, sided, level)
    names = tuple(prior.columns[i] for i in interest)
    if len(names) > 2:
        raise ValueError(
            f"a region has one or two parameters, got {len(names)}; name them with parameters= "
            f"out of {', '.join(prior.columns)}, and the others are profiled"
        )
    check_made_for(critical_values, level, names, sided)
    axes = None if grid is None else checked_grid(prior, interest, grid)
    if not callable(critical_values) and np.ndim(critical_values) > 0:  # pyright: ignore
        critical_values = _on_grid(critical_values, axes)

    def ask(axes: tuple[np.ndarray, ...], best: Fit | None) -> ConfidenceRegion:
        points, shape = grid_points(prior, interest, axes), tuple(map(len, axes))
        best, relative, theta = conditional(likelihood, points, interest, best)
        q = statistic(relative, points[:, interest[0]], best.theta[interest[0]], sided)
        critical = critical_at(critical_values, theta, level, len(interest), sided)
        return ConfidenceRegion(names, axes, q.reshape(shape), critical.reshape(shape), level, sided, best)

    return _zoom(ask, support_box(prior), list(interest), highest(likelihood)) if axes is None else ask(axes, None)


def _on_grid(critical: Any, axes: tuple[np.ndarray, ...] | None) -> np.ndarray:
    if axes is None:
        raise ValueError("critical_values: an array needs the grid that it belongs to; give grid=")
    shape = tuple(len(axis) for axis in axes)
    if np.shape(critical) != shape:
        raise ValueError(f"critical_values: expected the grid's shape {shape}, got {np.shape(critical)}")
    return np.ravel(np.asarray(critical))


def _zoom(
    ask: Callable[[tuple[np.ndarray, ...], Fit], ConfidenceRegion], box: Box, index: list[int], best: Fit
) -> ConfidenceRegion:
    """The answer on a grid that the region fills."""
    ends = np.stack([box.low[index], box.high[index]]).astype(np.float64)
    reach = np.stack([best.theta[index] - box.scale[index], best.theta[index] + box.scale[index]])
    span = np.where(np.isfinite(ends), ends, reach)
    region = ask(tuple(np.linspace(span[0], span[1], GRID_SIZES[len(index)], axis=1)), best)
    for _ in range(MOST_ZOOMS - 1):
        wanted = np.stack([_window(region, j, index[j], ends[:, j]) for j in range(len(index))], axis=1)
        width, old = wanted[1] - wanted[0], span[1] - span[0]
        enough = (width > 0.5 * old) & (wanted[0] >= span[0]) & (wanted[1] <= span[1])
        enough |= width < 1e-5 * np.max(np.abs(span), axis=0)  # of what float32 tells apart
        if enough.all():
            break
        span = np.where(enough, span, wanted)
        region = ask(tuple(np.linspace(span[0], span[1], GRID_SIZES[len(index)], axis=1)), region.best)
    return region


def _window(region: ConfidenceRegion, j: int, column: int, ends: np.ndarray) -> np.ndarray:
    """The part of axis j that holds the region and some room about it; more than the axis where it runs over."""
    axis, inside = region.axes[j], (region.margin <= 0).swapaxes(0, j)
    inside = inside.reshape(len(axis), -1).any(axis=1)
    cell, held = axis[1] - axis[0], np.append(axis[inside], np.clip(region.best.theta[column], axis[0], axis[-1]))
    room = max(cell, 0.15 * (held.max() - held.min()))
    low, high = held.min() - room, held.max() + room
    if held.min() == axis[0] > ends[0]:
        low = axis[0] - (axis[-1] - axis[0])
    if held.max() == axis[-1] < ends[1]:
        high = axis[-1] + (axis[-1] - axis[0])
    return np.clip([low, high], *ends)


# -- where a curve on a grid crosses 0 ---------------------------------------------------------------


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
