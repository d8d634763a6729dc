"""Ratios of histograms: the traditional baseline, of hand-picked or learned summaries.

At every theta of a grid, a histogram of one or two summaries s(x) stands for p(s | theta). Their ratio is the ratio of
x only as far as s is sufficient. With the estimated score as the summary this is SALLY, and with its projection on
theta - theta_ref, in one dimension, SALLINO (Brehmer, Cranmer, Louppe, Pavez 2018, arXiv:1805.00020).

How histograms are smoothed, so that few simulations do no harm: `smoothing`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from ..answers.estimates import AbstractRatio
from ..core.batches import over_rows
from ..core.loss import AbstractFrozen, Batch
from ..core.prior import Prior
from ..core.progress import AbstractProgress
from ..core.simulations import Simulations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key, Solution
from ..gold.reference import AbstractReference, MarginalReference, PointReference
from ..sample.simulate import simulate
from .binning.bins import Bins, filled
from .binning.grid import ThetaGrid, theta_grid
from .binning.smoothing import Rows, Setting, choose, log_probabilities
from .method import AbstractLearner, Budget, Card, Job, Theta, points, require_origin, single

Summary = Callable[[jax.Array], jax.Array]  # one observation (*event) -> (k,)

FEWEST_PER_THETA = 2
GRID_POINTS = {1: 21, 2: 9}  # per parameter, of the thetas at which histograms are filled


class FirstComponents(AbstractFrozen):
    """The first k numbers of an observation, as its summary."""

    count: int = eqx.field(static=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.ravel(x)[: self.count]


class HistogramRatio(AbstractRatio):
    """log p(s(x) | theta) - log p(s(x) | reference), by histograms. Made by `HistogramRatio.for_simulations`.

    Between the grid's points the log-probabilities are interpolated linearly in theta; beyond its edges they stay.

    Fields
    ------
    summary: one observation `(*event)` -> `(k,)`.
    bins: of the summaries.
    table: log-ratio `(K, B)` of every bin at every point of the grid.
    grid: the points.
    simulator: what the simulations came from.
    event_shape: shape of one observation.
    setting: how the histograms were smoothed.
    """

    summary: Summary
    bins: Bins
    table: jax.Array
    grid: ThetaGrid
    simulator: AbstractSimulator = eqx.field(static=True)
    event_shape: tuple[int, ...] = eqx.field(static=True)
    setting: Setting = eqx.field(static=True)

    @staticmethod
    def for_simulations(
        sims: Simulations,
        *,
        summary: Summary | None = None,
        reference: AbstractReference | None = None,
        num_bins: int | None = None,
    ) -> "HistogramRatio":
        """Fill the histograms.

        Parameters
        ----------
        sims: simulated on a regular grid of theta (`theta_grid`), with or without labels.
        summary: one observation `(*event)` -> `(k,)` with k at most 2, in JAX; for SALLY an estimated score. By
            default the first one or two numbers of the observation.
        reference: a `PointReference` on or inside the grid; any other stands for the mean over the grid. By default
            that of the simulations.
        num_bins: in all; chosen from the simulations if None.

        Raises
        ------
        ValueError: theta is not on a grid, more than two summaries, a summary that is not finite, fewer than 2
            simulations for every point, a reference outside the grid.
        """
        summary = FirstComponents(min(2, int(np.prod(sims.event_shape, dtype=int)))) if summary is None else summary
        reference = _reference(sims, reference)
        s, rows, grid = _filled_from(sims, summary, reference, num_bins)
        if s.shape[1] > 2:
            raise ValueError(
                f"summary: expected 1 or 2 numbers for an observation, got {s.shape[1]}; pick the best two"
            )
        setting = choose([s], rows, num_bins)
        bins, table = _log_ratios(s, rows, setting, grid, reference)
        return HistogramRatio(
            summary=summary, bins=bins, table=jnp.asarray(table), grid=grid, simulator=sims.simulator,
            event_shape=sims.event_shape, setting=setting,
        )  # fmt: skip

    def log_ratio(self, theta: Array, x: Array) -> jax.Array:
        index, weight = self.grid.corners(theta)
        of_bins = jnp.sum(weight[:, None] * self.table[index], axis=0)
        return of_bins[jax.vmap(lambda each: self.bins(_vector(self.summary, each)))(jnp.asarray(x))]


class ProjectedHistogramRatio(AbstractRatio):
    """SALLINO: at every theta, histograms of h = s(x) . (theta - theta_ref) / |theta - theta_ref|.

    For a score s at theta_ref, h is all that matters to the ratio near theta_ref. Its sign is of no account to a
    histogram, so that opposite directions share one. Made by `ProjectedHistogramRatio.for_simulations`.

    Fields
    ------
    summary: one observation `(*event)` -> `(dim,)`.
    directions: `(K, dim)` at every point of the grid; 0 at theta_ref, where log r is 0.
    cuts: `(K, B - 1)` between the bins of h.
    table: log-ratio `(K, B)`.
    grid, simulator, event_shape, setting: as in `HistogramRatio`.
    """

    summary: Summary
    directions: jax.Array
    cuts: jax.Array
    table: jax.Array
    grid: ThetaGrid
    simulator: AbstractSimulator = eqx.field(static=True)
    event_shape: tuple[int, ...] = eqx.field(static=True)
    setting: Setting = eqx.field(static=True)

    @staticmethod
    def for_simulations(
        sims: Simulations, *, summary: Summary, theta_reference: Array, num_bins: int | None = None
    ) -> "ProjectedHistogramRatio":
        """Fill the histograms, see `HistogramRatio.for_simulations`.

        Parameters
        ----------
        summary: one observation -> an estimate `(dim,)` of the score at theta_reference.
        theta_reference: `(dim,)`, on or inside the grid.

        Raises
        ------
        ValueError: as there, or a summary that does not have one number for each parameter.
        """
        reference = PointReference(theta_reference).prepare(jax.random.key(0), sims.prior, None)
        s, rows, grid = _filled_from(sims, summary, reference, num_bins)
        if s.shape[1] != sims.prior.dim:
            raise ValueError(
                f"summary: expected one number for each of {sims.prior.columns}, as a score has, got {s.shape[1]}"
            )
        setting = choose(list(s.T[:, :, None]), rows, num_bins)
        directions = _directions(grid.points - np.asarray(reference.theta))
        lines, line = np.unique(directions, axis=0, return_inverse=True)
        line = line.ravel()
        found = [_log_ratios((s @ each)[:, None], rows, setting, grid, reference) for each in lines]
        return ProjectedHistogramRatio(
            summary=summary,
            directions=jnp.asarray(directions),
            cuts=jnp.asarray(filled([np.asarray(bins.outer) for bins, _ in found], np.inf)[line]),
            table=jnp.asarray(filled([found[each][1][k] for k, each in enumerate(line)], 0.0)),
            grid=grid,
            simulator=sims.simulator,
            event_shape=sims.event_shape,
            setting=setting,
        )

    def log_ratio(self, theta: Array, x: Array) -> jax.Array:
        index, weight = self.grid.corners(theta)
        directions, cuts, table = self.directions[index], self.cuts[index], self.table[index]

        def one(x: jax.Array) -> jax.Array:
            h = jnp.sum(directions * _vector(self.summary, x), axis=1)
            place = jnp.sum(h[:, None] > cuts, axis=1)
            return jnp.sum(weight * jnp.take_along_axis(table, place[:, None], axis=1)[:, 0])

        return jax.vmap(one)(jnp.asarray(x))


class Histogram(AbstractLearner):
    """The traditional baseline: histograms of one or two summaries at a grid of thetas. Needs no gold, fits nothing.

    Fields
    ------
    card: its name and paper.
    summary: one observation `(*event)` -> `(k,)` with k at most 2, in JAX; its first one or two numbers if None.
    num_bins: in all; chosen from the simulations if None.
    reference: see `HistogramRatio.for_simulations`.
    theta: the grid `(K, dim)`; a regular one over the prior for 1 or 2 parameters if None.
    """

    summary: Summary | None = eqx.field(static=True, default=None)
    num_bins: int | None = eqx.field(static=True, default=None)
    reference: AbstractReference | None = None
    theta: Theta | None = None
    card: Card = eqx.field(static=True, default=Card("histogram", "Brehmer et al. 2018, arXiv:1805.00020"))
    needs: ClassVar[tuple[str, ...]] = ()
    refinement: ClassVar[None] = None
    loss: ClassVar[None] = None

    def check(self, sims: Batch) -> None:
        require_origin(self.name, single(self.name, sims))

    def gather(self, key: Key, simulator: AbstractSimulator, budget: Budget, progress: AbstractProgress) -> Simulations:
        return on_grid(key, simulator, self.theta, self.name, budget.num_simulations, progress)

    def build(self, key: Key, sims: Batch) -> None:
        return None

    def finish(self, key: Key, trained: Solution[Any], job: Job) -> Solution[Any]:
        sims: Any = job.sims
        value = HistogramRatio.for_simulations(
            sims, summary=self.summary, reference=self.reference, num_bins=self.num_bins
        )
        return dataclasses.replace(trained, value=value)


def on_grid(
    key: Key,
    simulator: AbstractSimulator,
    theta: Theta | None,
    name: str,
    num_simulations: int,
    progress: AbstractProgress,
) -> Simulations:
    """Simulations at the points of a grid, in turn, at least one at each."""
    grid = grid_of(simulator.prior, theta, name)
    rows = np.arange(max(num_simulations, len(grid))) % len(grid)
    return simulate(key, simulator, theta=grid[rows], progress=progress)


def grid_of(prior: Prior, theta: Theta | None, name: str) -> np.ndarray:
    """The grid `(K, dim)` that is given, or a regular one over the prior."""
    if theta is not None:
        return points(prior, theta)
    if prior.dim not in GRID_POINTS:
        raise ValueError(
            f"{name} fills histograms on a grid of thetas, by itself for 1 or 2 parameters; the prior has "
            f"{prior.columns}: give the grid, theta=qx.theta_grid(prior, 4), or use another method"
        )
    return np.asarray(theta_grid(prior, GRID_POINTS[prior.dim]))


# -- filling -----------------------------------------------------------------------------------------


def _vector(summary: Summary, x: jax.Array) -> jax.Array:
    return jnp.ravel(summary(x)).astype(jnp.float32)


@eqx.filter_jit
def _summaries(summary: Summary, x: jax.Array) -> jax.Array:
    return jax.vmap(lambda each: _vector(summary, each))(x)


def _reference(sims: Simulations, reference: AbstractReference | None) -> AbstractReference:
    chosen = sims.reference if reference is None else reference
    if isinstance(chosen, PointReference):
        return chosen.prepare(jax.random.key(0), sims.prior, None)
    return MarginalReference()


def _filled_from(
    sims: Simulations, summary: Summary, reference: AbstractReference, num_bins: int | None
) -> tuple[np.ndarray, Rows, ThetaGrid]:
    """Summaries `(n, k)`, where they come from, and the grid; checked."""
    if num_bins is not None and num_bins < 2:
        raise ValueError(f"num_bins must be at least 2, got {num_bins}")
    theta = np.repeat(np.asarray(sims.drawn_from, np.float32), sims.num_observations, axis=0)
    grid = _grid_of(sims, theta, reference)
    rows = Rows.of(theta)
    fewest = int(np.bincount(rows.point).min())
    if fewest < FEWEST_PER_THETA:
        raise ValueError(
            f"too few simulations: {len(theta)} at {len(rows.points)} different theta, and only {fewest} at one of "
            f"them; a histogram needs at least {FEWEST_PER_THETA} at each: simulate more, or on a coarser grid"
        )
    x = np.asarray(sims.x).reshape((-1, *sims.event_shape))
    s = over_rows(lambda rows: _summaries(summary, rows), x)
    if not np.isfinite(s).all():
        raise ValueError(
            f"summary: {int((~np.isfinite(s)).any(axis=1).sum())} of {len(s)} are NaN or infinite; mend it"
        )
    return s, rows, grid


def _grid_of(sims: Simulations, theta: np.ndarray, reference: AbstractReference) -> ThetaGrid:
    """Of the points simulated at, without a reference point that lies between them."""
    try:
        grid = ThetaGrid.of(sims.prior.columns, theta)
    except ValueError:
        if not isinstance(reference, PointReference):
            raise
        grid = ThetaGrid.of(sims.prior.columns, theta[(theta != np.asarray(reference.theta)).any(axis=1)])
    if isinstance(reference, PointReference):
        for name, axis, value in zip(sims.prior.columns, grid.axes, np.asarray(reference.theta), strict=True):
            if not axis[0] <= value <= axis[-1]:
                raise ValueError(
                    f"the reference has {name} = {value:g}, outside the grid's {axis[0]:g} to {axis[-1]:g}; "
                    "choose one inside, or widen the grid"
                )
    return grid


def _log_ratios(
    s: np.ndarray, rows: Rows, setting: Setting, grid: ThetaGrid, reference: AbstractReference
) -> tuple[Bins, np.ndarray]:
    """Bins of summaries `(n, k)`, and the log-ratio `(K, B)` of each at every point of the grid, float32."""
    bins, log_p = log_probabilities(s, rows, setting)
    on_grid = log_p[rows.find(grid.points)]
    return bins, (on_grid - _reference_row(log_p, on_grid, rows, grid, reference)).astype(np.float32)


def _reference_row(
    log_p: np.ndarray, on_grid: np.ndarray, rows: Rows, grid: ThetaGrid, reference: AbstractReference
) -> np.ndarray:
    """The reference's log-probability `(B,)` of every bin."""
    if not isinstance(reference, PointReference):
        return special.logsumexp(on_grid, axis=0) - np.log(len(on_grid))
    theta = np.asarray(reference.theta)
    own = rows.find(theta[None])[0]
    if np.array_equal(rows.points[own], theta):
        return log_p[own]
    index, weight = grid.corners(theta)
    return np.asarray(weight) @ on_grid[np.asarray(index)]


def _directions(steps: np.ndarray) -> np.ndarray:
    """Unit vectors `(K, dim)` along steps `(K, dim)`, up to their signs; 0 for no step."""
    length = np.linalg.norm(steps, axis=1, keepdims=True)
    unit = np.where(length > 0, steps / np.where(length > 0, length, 1), 0)
    unit = np.round(unit, 5).astype(np.float32)
    first = np.take_along_axis(unit, np.argmax(unit != 0, axis=1)[:, None], axis=1)
    return unit * np.where(first < 0, -1, 1).astype(np.float32) + 0.0
