"""The maximum of a likelihood, over all parameters or over those that are not held fixed, and profiles of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.batches import bucket, filled
from ...core.prior import Prior
from ...core.solution import Array
from .climb import CHUNK, NUM_STEPS, TOLERANCE, best_starts, map_batches, maximise
from .likelihood import Likelihood, check_inside, column_indices, starting_points, support_box

NUM_CANDIDATES = 64  # points among which the starts are chosen
NUM_STARTS = 8
NEAR = 1e-3  # of a parameter's scale: how close to an end that depends on others counts as there


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


def maximum_likelihood(
    likelihood: Likelihood,
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
    likelihood: from `likelihood`.
    fixed: values of columns that are held where they are; the fit is then conditional.
    num_starts, num_steps: climbs, and steps of each at most.

    Raises
    ------
    TypeError: not a likelihood.
    ValueError: an unknown name in `fixed` (the nearest is named), a value outside the support, a count below 1,
        or a likelihood that is finite and differentiable nowhere.
    """
    check_likelihood(likelihood)
    for name, count in [("num_starts", num_starts), ("num_steps", num_steps)]:
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    fixed = dict(fixed or {})
    held = column_indices(likelihood.prior, tuple(fixed)) if fixed else ()
    for index, value in zip(held, fixed.values(), strict=True):
        check_inside(likelihood.prior, index, value)
    return highest(likelihood, dict(zip(held, fixed.values(), strict=True)), num_starts=num_starts, num_steps=num_steps)


def check_likelihood(likelihood: object) -> None:
    if not isinstance(likelihood, Likelihood):
        raise TypeError(f"expected a Likelihood from likelihood(estimator, x), got {type(likelihood).__name__}")


def highest(
    likelihood: Likelihood,
    held: Mapping[int, float] | None = None,
    *,
    start: np.ndarray | None = None,
    num_starts: int = NUM_STARTS,
    num_steps: int = NUM_STEPS,
) -> Fit:
    """`maximum_likelihood` with checked values of the columns that are held; climbs from `start` `(dim,)` too."""
    prior, fixed = likelihood.prior, list(held or {})
    box, candidates, free = support_box(prior), starting_points(prior, NUM_CANDIDATES).copy(), np.ones(prior.dim, bool)
    if held:
        candidates[:, fixed], free[fixed] = list(held.values()), False
    anchor = candidates[0] if start is None else start
    found = _search(likelihood, anchor, candidates, free, box, num_starts, num_steps)
    theta, here, value, converged = map(np.asarray, found)
    if not np.isfinite(here):
        raise ValueError(
            "the likelihood is zero or NaN at every point that was tried, or its derivatives in theta are NaN; are all "
            "observations possible, is log_ratio differentiable, and is the rate positive?"
        )
    low, high = np.asarray(prior.ends_at(theta)) if prior.conditional else (box.low, box.high)
    close = NEAR * box.scale * np.isin(np.arange(prior.dim), prior.conditional_columns)
    at_end, columns = free & ((theta <= low + close) | (theta >= high - close)), np.array(prior.columns)
    boundary, fixed = tuple(columns[at_end].tolist()), tuple(columns[fixed].tolist())
    return Fit(prior.columns, theta, float(value), boundary, bool(converged), fixed)


@eqx.filter_jit
def _search(likelihood: Likelihood, anchor, candidates, free, box, num_starts: int, num_steps: int):
    """theta `(dim,)`, log L there relative to a theta nearby, and to the likelihood's anchor; whether it converged."""
    anchor = jnp.asarray(anchor)
    starts = jnp.concatenate([anchor[None], best_starts(likelihood.anchored(anchor), candidates, num_starts)])

    def climb(_, found):
        anchor, starts, _, _ = found
        theta, value, converged = maximise(likelihood.anchored(anchor), starts, free, box, num_steps)
        return theta, jnp.broadcast_to(theta, starts.shape), value, converged

    # Once more from what was found, anchored there: the closer the anchor, the finer float32 sees.
    theta, _, here, converged = jax.lax.fori_loop(0, 2, climb, (anchor, starts, jnp.zeros(()), jnp.asarray(False)))
    return theta, here, likelihood(theta), converged


def conditional(
    likelihood: Likelihood, points: np.ndarray, interest: tuple[int, ...], best: Fit | None = None
) -> tuple[Fit, np.ndarray, np.ndarray]:
    """The global maximum, and the conditional maxima where the columns of interest have the values in `points`.

    points: `(G, dim)`; columns that are not of interest are ignored. Returns the fit, log L relative to its maximum
    `(G,)`, and the conditional thetas `(G, dim)`.
    """
    best = highest(likelihood) if best is None else best
    theta, values = _conditional(likelihood, points, interest, best)
    if values.max() > 10 * TOLERANCE:  # the grid has found a higher hill
        best = highest(likelihood, start=theta[np.argmax(values)])
        theta, values = _conditional(likelihood, points, interest, best)
    return best, values - max(0.0, float(values.max())), theta


def _conditional(
    likelihood: Likelihood, points: np.ndarray, interest: tuple[int, ...], best: Fit
) -> tuple[np.ndarray, np.ndarray]:
    prior, free = likelihood.prior, np.ones(likelihood.prior.dim, bool)
    free[list(interest)] = False
    candidates, rows = starting_points(prior, NUM_CANDIDATES // 4), filled(points, bucket(len(points)))
    theta, values = _search_each(likelihood, best.theta, rows, candidates, free, support_box(prior), bool(free.any()))
    return np.asarray(theta)[: len(points)], np.asarray(values)[: len(points)]


@eqx.filter_jit
def _search_each(likelihood: Likelihood, best, points, candidates, free, box, nuisance: bool):
    """Conditional maxima at points `(G, dim)`, and log L there `(G,)` relative to that at `best` `(dim,)`."""
    likelihood = likelihood.anchored(best)
    if not nuisance:
        values = map_batches(likelihood, points, CHUNK // len(likelihood.x))
        return points, jnp.where(jnp.isnan(values), -jnp.inf, values)

    def one(point: jax.Array) -> tuple[jax.Array, jax.Array]:
        others = best_starts(likelihood, jnp.where(free, candidates, point), 2)
        return maximise(likelihood, jnp.concatenate([jnp.where(free, best, point)[None], others]), free, box)[:2]

    return map_batches(one, points, CHUNK // (len(likelihood.x) * 3))


def profile_likelihood(
    likelihood: Likelihood, parameters: Sequence[str] | str, grid: Array | Sequence[Array]
) -> Profile:
    """The likelihood as a function of one or two parameters, maximised over all others at each point.

    Parameters
    ----------
    likelihood: from `likelihood`.
    parameters: one or two names of the prior's columns.
    grid: for one parameter, increasing values `(G,)`; for two, a pair of such arrays.

    Raises
    ------
    TypeError: not a likelihood.
    ValueError: unknown names (the nearest is named), more than two, a grid that does not increase or leaves the
        support.
    """
    check_likelihood(likelihood)
    interest = column_indices(likelihood.prior, parameters)
    axes = checked_grid(likelihood.prior, interest, grid)
    best, values, theta = conditional(likelihood, grid_points(likelihood.prior, interest, axes), interest)
    shape = tuple(len(axis) for axis in axes)
    names = tuple(likelihood.prior.columns[i] for i in interest)
    return Profile(names, axes, values.reshape(shape), theta.reshape(*shape, -1), best)


def grid_points(prior: Prior, interest: tuple[int, ...], axes: Sequence[np.ndarray]) -> np.ndarray:
    """The points of a grid `(G, dim)`, with 0 for the columns that are not of interest."""
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    points = np.zeros((len(grid), prior.dim), np.float32)
    points[:, list(interest)] = grid
    return points


def checked_grid(prior: Prior, interest: tuple[int, ...], grid: Array | Sequence[Array]) -> tuple[np.ndarray, ...]:
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
