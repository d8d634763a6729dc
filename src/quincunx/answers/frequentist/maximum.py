"""The maximum of a likelihood, over all parameters or over those that are not held fixed, and profiles of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.prior import Prior
from ...core.solution import Array
from .climb import CHUNK, NUM_STEPS, TOLERANCE, best_starts, map_batches, maximise
from .likelihood import LikelihoodRatio, check_inside, column_indices, starting_points, support_box

NUM_CANDIDATES = 64  # points among which the starts are chosen
NUM_STARTS = 8


@dataclasses.dataclass(frozen=True)
class Fit:
    """A maximum of the likelihood.

    Fields
    ------
    names: of the parameters.
    theta: `(dim,)`, in the units of the parameters.
    log_likelihood: log L there, relative to the likelihood's anchor.
    at_boundary: parameters at an end of their support, other than those held fixed.
    converged: whether another step would gain less than 0.001 in log L.
    fixed: parameters that were held fixed.
    """

    names: tuple[str, ...]
    theta: np.ndarray
    log_likelihood: float
    at_boundary: tuple[str, ...]
    converged: bool
    fixed: tuple[str, ...] = ()

    @property
    def named(self) -> dict[str, float]:
        return dict(zip(self.names, self.theta.tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        return {
            "theta": self.named,
            "log_likelihood": self.log_likelihood,
            "at_boundary": list(self.at_boundary),
            "converged": self.converged,
            "fixed": list(self.fixed),
        }


@dataclasses.dataclass(frozen=True)
class Profile:
    """The likelihood maximised over the other parameters, on a grid of one or two.

    Fields
    ------
    names: parameters of interest.
    axes: grid of each, `(G_i,)`.
    log_likelihood: max log L(theta) - max log L, `(G_1[, G_2])`; never positive.
    theta: where the conditional maxima lie, `(G_1[, G_2], dim)`.
    best: the global maximum.
    """

    names: tuple[str, ...]
    axes: tuple[np.ndarray, ...]
    log_likelihood: np.ndarray
    theta: np.ndarray
    best: Fit


# The likelihood comes bare and is anchored inside, so that one compiled function serves every anchor.


@eqx.filter_jit
def _search(bare, anchor, candidates, given, free, box, num_starts: int, num_steps: int):
    likelihood = bare.anchored(anchor)
    starts = jnp.concatenate([given, best_starts(likelihood, candidates, num_starts)])
    return maximise(likelihood, starts, free, box, num_steps)


@eqx.filter_jit
def _search_each(bare, anchor, points, candidates, free, box, num_starts: int):
    """Conditional maxima at points `(G, dim)`; climbs start from the anchor's values too."""
    likelihood = bare.anchored(anchor)

    def one(point: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        others = best_starts(likelihood, jnp.where(free, candidates, point), num_starts - 1)
        return maximise(likelihood, jnp.concatenate([jnp.where(free, anchor, point)[None], others]), free, box)

    return map_batches(one, points, CHUNK // (len(bare.x) * num_starts))


@eqx.filter_jit
def _evaluate_each(bare, anchor, points):
    return map_batches(bare.anchored(anchor), points, CHUNK // len(bare.x))


@eqx.filter_jit
def _evaluate(likelihood, theta):
    return likelihood(theta)


def maximum_likelihood(
    likelihood: LikelihoodRatio,
    *,
    fixed: Mapping[str, float] | None = None,
    num_starts: int = NUM_STARTS,
    num_steps: int = NUM_STEPS,
) -> Fit:
    """The parameters at which the data are likeliest, inside the prior's support.

    Climbs from the likeliest `num_starts` of 64 points spread over the support. A maximum at an end of the support is
    found as such. Where the likelihood has several, the highest that was reached is returned.

    Parameters
    ----------
    likelihood: from `likelihood_ratio`.
    fixed: values of columns that are held where they are; the fit is then conditional.
    num_starts, num_steps: climbs, and steps of each at most.

    Raises
    ------
    TypeError: not a likelihood.
    ValueError: an unknown name in `fixed` (the nearest is named), a value outside the support, a count below 1,
        or a likelihood that is finite and differentiable nowhere.
    """
    _check(likelihood, num_starts, num_steps)
    fixed = dict(fixed or {})
    indices = column_indices(likelihood.prior, tuple(fixed)) if fixed else ()
    for index, value in zip(indices, fixed.values(), strict=True):
        check_inside(likelihood.prior, index, value)
    candidates = starting_points(likelihood.prior, NUM_CANDIDATES).copy()
    candidates[:, list(indices)] = np.asarray(list(fixed.values()), np.float32)
    peak = _climb_from(likelihood, candidates[0], candidates, indices, num_starts, num_steps)
    return _fit(likelihood, peak, indices)


class _Peak(NamedTuple):
    """theta `(dim,)`, log L relative to the anchor of the search, and whether it converged."""

    theta: np.ndarray
    value: float
    converged: bool


def _climb_from(
    likelihood: LikelihoodRatio,
    anchor: np.ndarray,
    candidates: np.ndarray,
    held: tuple[int, ...] = (),
    num_starts: int = NUM_STARTS,
    num_steps: int = NUM_STEPS,
) -> _Peak:
    """The best of climbs from the anchor and the likeliest candidates, which have their values where they are held."""
    prior = likelihood.prior
    free = np.ones(prior.dim, bool)
    free[list(held)] = False
    theta, value, converged = _search(
        _bare(likelihood), anchor, candidates, anchor[None], free, support_box(prior), num_starts, num_steps
    )
    if not np.isfinite(float(value)):
        raise ValueError(
            "the likelihood is zero or NaN at every point that was tried, or its derivatives in theta are NaN; are all "
            "observations possible, and is log_ratio differentiable?"
        )
    return _Peak(np.asarray(theta), float(value), bool(converged))


def _bare(likelihood: LikelihoodRatio) -> LikelihoodRatio:
    return LikelihoodRatio(likelihood.ratio, likelihood.x, likelihood.weights, likelihood.rate)


def _fit(likelihood: LikelihoodRatio, peak: _Peak, held: tuple[int, ...] = ()) -> Fit:
    box, columns, theta = support_box(likelihood.prior), likelihood.prior.columns, peak.theta
    at_end = (theta <= box.low) | (theta >= box.high)
    at_boundary = tuple(name for i, name in enumerate(columns) if at_end[i] and i not in held)
    value = float(_evaluate(likelihood, theta))
    return Fit(columns, theta, value, at_boundary, peak.converged, tuple(columns[i] for i in held))


def _check(likelihood: object, num_starts: int = 1, num_steps: int = 1) -> None:
    if not isinstance(likelihood, LikelihoodRatio):
        raise TypeError(f"expected a LikelihoodRatio from likelihood_ratio(ratio, x), got {type(likelihood).__name__}")
    for name, count in [("num_starts", num_starts), ("num_steps", num_steps)]:
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")


def conditional(
    likelihood: LikelihoodRatio, points: np.ndarray, interest: tuple[int, ...], *, best: Fit | None = None
) -> tuple[Fit, np.ndarray, np.ndarray]:
    """The global maximum, and the conditional maxima where the columns of interest have the values in `points`.

    points: `(G, dim)`; columns that are not of interest are ignored. Returns the fit, log L relative to its maximum
    `(G,)`, and the conditional thetas `(G, dim)`.
    """
    start = maximum_likelihood(likelihood) if best is None else best
    candidates = starting_points(likelihood.prior, NUM_CANDIDATES)
    # Anchored at the maximum, so that what is subtracted below is small; then once more from there.
    anchor = start.theta
    peak = _climb_from(likelihood, anchor, candidates)
    theta, values = _conditional(likelihood, anchor, points, interest)
    if values.max(initial=-np.inf) > peak.value + 10 * TOLERANCE:  # the grid has found a higher hill
        anchor = theta[np.argmax(values)]
        peak = _climb_from(likelihood, anchor, candidates)
        theta, values = _conditional(likelihood, anchor, points, interest)
    return _fit(likelihood, peak), values - max(peak.value, float(values.max(initial=-np.inf))), theta


def _conditional(
    likelihood: LikelihoodRatio, anchor: np.ndarray, points: np.ndarray, interest: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Conditional maxima `(G, dim)`, and log L there `(G,)` relative to the anchor."""
    prior, bare, points = likelihood.prior, _bare(likelihood), np.asarray(points, np.float32)
    free = np.ones(prior.dim, bool)
    free[list(interest)] = False
    if not free.any():
        values = np.asarray(_evaluate_each(bare, anchor, points))
        return points, np.where(np.isnan(values), -np.inf, values)
    candidates = starting_points(prior, NUM_CANDIDATES // 4)
    theta, values, _ = _search_each(bare, anchor, points, candidates, free, support_box(prior), 3)
    return np.asarray(theta), np.asarray(values)


def profile_likelihood(
    likelihood: LikelihoodRatio, parameters: Sequence[str] | str, grid: Array | Sequence[Array]
) -> Profile:
    """The likelihood as a function of one or two parameters, maximised over all others at each point.

    Parameters
    ----------
    likelihood: from `likelihood_ratio`.
    parameters: one or two names of the prior's columns.
    grid: for one parameter, increasing values `(G,)`; for two, a pair of such arrays.

    Raises
    ------
    TypeError: not a likelihood.
    ValueError: unknown names (the nearest is named), more than two, a grid that does not increase or leaves the
        support.
    """
    _check(likelihood)
    interest = column_indices(likelihood.prior, parameters)
    axes = check_grid(likelihood.prior, interest, grid)
    points = np.zeros((int(np.prod([len(axis) for axis in axes])), likelihood.prior.dim), np.float32)
    points[:, list(interest)] = np.stack([each.ravel() for each in np.meshgrid(*axes, indexing="ij")], axis=1)
    best, values, theta = conditional(likelihood, points, interest)
    shape = tuple(len(axis) for axis in axes)
    names = tuple(likelihood.prior.columns[i] for i in interest)
    return Profile(names, axes, values.reshape(shape), theta.reshape(*shape, -1), best)


def check_grid(prior: Prior, interest: tuple[int, ...], grid: Array | Sequence[Array]) -> tuple[np.ndarray, ...]:
    """The grid as one or two increasing arrays inside the support."""
    if len(interest) > 2:
        raise ValueError(f"expected one or two parameters of interest, got {len(interest)}; name them with parameters=")
    axes = [grid] if len(interest) == 1 and np.ndim(grid[0]) == 0 else list(grid)
    if len(axes) != len(interest):
        raise ValueError(f"grid: expected {len(interest)} arrays, one per parameter of interest, got {len(axes)}")
    checked = []
    for index, axis in zip(interest, axes, strict=True):
        values = np.asarray(axis, np.float64)
        if values.ndim != 1 or len(values) < 2 or not (np.diff(values) > 0).all():
            raise ValueError(f"grid of {prior.columns[index]!r}: expected two or more increasing values")
        check_inside(prior, index, values[[0, -1]])
        checked.append(values)
    return tuple(checked)
