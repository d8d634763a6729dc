"""Confidence regions of one or two parameters: where the test statistic does not exceed its critical value."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from contourpy import FillType, LineType, contour_generator
from scipy.interpolate import RegularGridInterpolator

from ...core.names import nearest
from ...core.prior import Prior
from ...core.solution import Array
from .amortised import AmortisedCritical
from .likelihood import LikelihoodRatio, column_indices
from .maximum import Fit, check_grid, maximum_likelihood
from .neyman import NeymanConstruction
from .region_grid import FAR, evaluate, intervals, margin, zoom
from .statistic import Critical, Sided, check_level, check_sided

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    likelihood: LikelihoodRatio,
    level: float = 0.95,
    *,
    parameters: Sequence[str] | str | None = None,
    critical: Critical | None = None,
    grid: Array | Sequence[Array] | None = None,
    sided: Sided = "two",
) -> ConfidenceRegion:
    """The region of one or two parameters that the data do not exclude; the others are profiled.

    Parameters
    ----------
    likelihood: from `likelihood_ratio`.
    level: nominal confidence.
    parameters: one or two names; all if there are no more than two.
    critical: None for Wilks' theorem. A `NeymanConstruction` or `AmortisedCritical` of the same level, parameters and
        `sided`, or any function of theta `(G, dim)`; the profiled parameters have their conditional
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
    check_level(level)
    best = maximum_likelihood(likelihood)
    interest = _interest(likelihood.prior, parameters)
    check_sided(sided, len(interest))
    names = tuple(likelihood.prior.columns[i] for i in interest)
    _check_critical(critical, level, names, sided, grid is not None)
    if grid is not None:
        axes = check_grid(likelihood.prior, interest, grid)
        best, q, limits = evaluate(likelihood, axes, interest, critical, level, sided, best)
    else:
        axes, best, q, limits = zoom(likelihood, interest, critical, level, sided, best)
    return ConfidenceRegion(names, axes, q, limits, level, sided, best)


def _interest(prior: Prior, parameters: Sequence[str] | str | None) -> tuple[int, ...]:
    interest = column_indices(prior, parameters)
    if len(interest) > 2:
        raise ValueError(
            f"a region has one or two parameters, got {len(interest)}; name them with parameters= "
            f"out of {', '.join(prior.columns)}, and the others are profiled"
        )
    return interest


def _check_critical(
    critical: Critical | None, level: float, names: tuple[str, ...], sided: Sided, has_grid: bool
) -> None:
    if isinstance(critical, NeymanConstruction | AmortisedCritical):
        made, wanted = (critical.level, critical.names, critical.sided), (level, names, sided)
        if made != wanted:
            raise ValueError(
                f"critical: made for (level, parameters, sided) {made}, and the region is to have {wanted}"
            )
    elif critical is not None and not callable(critical) and np.ndim(critical) > 0 and not has_grid:
        raise ValueError("critical: an array needs the grid that it belongs to; give grid=")
