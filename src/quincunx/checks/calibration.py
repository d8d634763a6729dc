"""Calibration of ratios by simulation, one theta after the other.

Any statistic s(x) has a ratio p(s | theta) / p(s | reference) of its own, which simulations give, and which is the
ratio of x where s is a monotone function of it (Cranmer, Pavez, Louppe 2015, arXiv:1506.02169, section 3; Brehmer,
Cranmer, Louppe, Pavez 2018, arXiv:1805.00020). Here s is an estimated log-ratio. At every theta of a grid a map from s
to the calibrated log-ratio is learned; between them the correction (calibrated less estimated log-ratio of x, both at
the points of the grid) is interpolated linearly in theta, and added to the estimate at theta itself. So a good estimate
stays what it is between the points.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from ..answers.estimates import AbstractRatio
from ..core.loss import AbstractFrozen
from ..core.prior import Prior
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key
from ..gold.reference import AbstractReference, MarginalReference, PointReference
from ..methods.binning.bins import equal_shares, joined
from ..methods.binning.grid import ThetaGrid
from ..sample.simulate import simulate

MOST_LOG_RATIO = 100.0  # estimates are cut there: infinite where the density of an observation is 0
PSEUDO_COUNT = 0.5  # of either hypothesis, for each bin or step: no ratio is 0 or infinite
MOST_STEPS = 100  # of an isotonic map: smaller ones are joined
FEWEST = 20


class AbstractCalibration(eqx.Module):
    """A way to learn p(s | theta) / p(s | reference)."""

    @abc.abstractmethod
    def knots(self, s: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The map through points (s, calibrated log-ratio), both `(Q,)`, s increasing; float64.

        s: estimated log-ratios `(n,)`. label: `(n,)`, 1 where x is from the numerator, 0 where from the reference.
        """


class IsotonicCalibration(AbstractCalibration):
    """The increasing map of highest likelihood, by isotonic regression of the label on s.

    It has steps; the map goes through their middles, and stays constant beyond the outermost two.
    """

    def knots(self, s: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        unique, ones, counts = _tied(s, label)
        found: Any = optimize.isotonic_regression(ones / counts, weights=counts)
        steps = np.repeat(np.arange(len(found.blocks) - 1), np.diff(found.blocks))
        steps = joined(np.bincount(steps, counts), max(FEWEST, len(s) / MOST_STEPS))[steps]
        sums = [np.bincount(steps, values) for values in (unique * counts, ones, counts)]
        # Pseudo-counts and joining can turn the order of two neighbours: nothing that a running maximum cannot mend.
        return sums[0] / sums[2], np.maximum.accumulate(_log_ratio(sums[1], sums[2], label))


class HistogramCalibration(AbstractCalibration):
    """The ratio of two histograms of s, in bins of about equal numbers; the map need not increase.

    Fields
    ------
    num_bins: at most so many; values of s that are equal share one.
    """

    num_bins: int = eqx.field(static=True, default=20)

    def __check_init__(self):
        if self.num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {self.num_bins}")

    def knots(self, s: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        unique, ones, counts = _tied(s, label)
        _, bins = np.unique(equal_shares(counts, self.num_bins), return_inverse=True)
        sums = [np.bincount(bins, values) for values in (unique * counts, ones, counts)]
        return sums[0] / sums[2], _log_ratio(sums[1], sums[2], label)


def _tied(s: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct values of s, and for each the number of numerators and of all."""
    unique, place, counts = np.unique(s.astype(np.float64), return_inverse=True, return_counts=True)
    return unique, np.bincount(place, label), counts


def _log_ratio(ones: np.ndarray, counts: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Of probabilities, for either label's share; pseudo-counts are in proportion to the labels."""
    share = np.mean(label)
    numerator, reference = ones + 2 * PSEUDO_COUNT * share, counts - ones + 2 * PSEUDO_COUNT * (1 - share)
    return np.log(numerator / reference) - np.log(share / (1 - share))


# -- the calibrated ratio --------------------------------------------------------------------------


class CalibratedRatio(AbstractRatio):
    """An estimate, corrected. Made by `calibrate`.

    Fields
    ------
    ratio: the estimate.
    grid: where it was calibrated; beyond the grid's edges their corrections count.
    knots: of the maps, s and the calibrated log-ratio, both `(K, Q)`.
    reference: what the ratio is relative to.
    simulator: what it was calibrated by.
    event_shape: shape of one observation.
    """

    ratio: AbstractRatio
    grid: ThetaGrid
    knots: "Knots"
    reference: AbstractReference
    simulator: AbstractSimulator = eqx.field(static=True)
    event_shape: tuple[int, ...] = eqx.field(static=True)

    def log_ratio(self, theta: Array, x: Array) -> jax.Array:
        x = jnp.asarray(x)
        index, weight = self.grid.corners(theta)
        raw = lambda at: _statistic(self.ratio, self.reference, at, x)
        corrections = jax.vmap(lambda row: self.knots(row, raw(self.knots.theta[row])))(index)
        return raw(jnp.asarray(theta)) + jnp.sum(weight[:, None] * corrections, axis=0)


class Knots(AbstractFrozen):
    """Piecewise linear maps, one for each point of a grid.

    Fields
    ------
    theta: the points `(K, dim)`.
    s: `(K, Q)`, increasing; filled up with the last.
    log_ratio: `(K, Q)`.
    """

    theta: jax.Array
    s: jax.Array
    log_ratio: jax.Array

    def __call__(self, row: jax.Array, s: jax.Array) -> jax.Array:
        """What calibration adds `(n,)` to estimates s `(n,)` at the point `row`."""
        return jnp.interp(s, self.s[row], self.log_ratio[row]) - s


def _statistic(ratio: AbstractRatio, reference: AbstractReference, theta: Array, x: Array) -> jax.Array:
    """The estimated log-ratio `(n,)` to the reference, cut at +-100; for a point, the difference of two."""
    s = ratio.log_ratio(theta, x)
    if isinstance(reference, PointReference):
        s = s - ratio.log_ratio(jnp.asarray(reference.theta), x)
    return jnp.clip(s, -MOST_LOG_RATIO, MOST_LOG_RATIO)


_compiled_statistic = eqx.filter_jit(_statistic)


def calibrate(
    key: Key,
    ratio: AbstractRatio,
    simulator: AbstractSimulator,
    theta: Array,
    *,
    reference: AbstractReference,
    method: AbstractCalibration = IsotonicCalibration(),
    num_simulations: int = 10_000,
) -> CalibratedRatio:
    """Calibrate a ratio by simulations of its numerators and its reference.

    Parameters
    ----------
    key: random key.
    ratio: the estimate.
    simulator: the one that the estimate is for.
    theta: where to calibrate, a regular grid `(K, dim)`, or one point `(dim,)` whose correction holds everywhere.
    reference: a `PointReference`, or a `MarginalReference`: its pool, or draws from the prior.
    method: how the map is learned.
    num_simulations: of one observation, at each theta, and once for the reference: (K + 1) times as many in all.

    Raises
    ------
    TypeError: a reference of another kind.
    ValueError: an estimate with another prior, or that is NaN; theta of the wrong shape, outside the prior's support
        or not on a grid; fewer than 20 simulations.
    SimulationError: more than half of the simulations failed.
    """
    points, reference = _checked(ratio, simulator, theta, reference, num_simulations)
    grid = _grid(simulator.prior, points)
    draw_key, run_key, *keys = jax.random.split(key, len(grid.points) + 2)
    base = _draws(run_key, simulator, _reference_theta(draw_key, simulator.prior, reference, num_simulations))
    maps = []
    for own_key, point in zip(keys, grid.points, strict=True):
        own = _draws(own_key, simulator, np.broadcast_to(point, (num_simulations, len(point))))
        s = np.concatenate(
            [np.asarray(_compiled_statistic(ratio, reference, jnp.asarray(point), x)) for x in (own, base)]
        )
        if np.isnan(s).any():
            raise ValueError(
                f"the estimated log-ratio is NaN for {int(np.isnan(s).sum())} of {len(s)} at theta = {point}"
            )
        maps.append(method.knots(s, np.repeat([1.0, 0.0], [len(own), len(base)])))
    return CalibratedRatio(
        ratio=ratio,
        grid=grid,
        knots=_stacked(grid.points, maps),
        reference=reference,
        simulator=simulator,
        event_shape=ratio.event_shape,
    )


def _checked(
    ratio: AbstractRatio, simulator: AbstractSimulator, theta: Array, reference: AbstractReference, num_simulations: int
) -> tuple[np.ndarray, AbstractReference]:
    if not ratio.prior.same_law(simulator.prior):
        raise ValueError(f"the ratio's prior is {ratio.prior}, the simulator's is {simulator.prior}; they must agree")
    if not isinstance(reference, PointReference | MarginalReference):
        raise TypeError(
            f"reference: expected a PointReference or a MarginalReference, got {type(reference).__name__}; a doubly "
            "parameterised estimate is calibrated for one theta_ref at a time"
        )
    if num_simulations < FEWEST:
        raise ValueError(f"num_simulations must be at least {FEWEST}, got {num_simulations}")
    points = simulator.prior.rows(np.atleast_2d(np.asarray(theta, np.float32)))
    if isinstance(reference, PointReference):
        return points, reference.prepare(jax.random.key(0), simulator.prior, None)
    return points, reference


def _grid(prior: Prior, points: np.ndarray) -> ThetaGrid:
    if len(points) == 1:
        return ThetaGrid(tuple(jnp.asarray(points.T)))
    return ThetaGrid.of(prior.columns, points)


def _reference_theta(key: Key, prior: Prior, reference: AbstractReference, count: int) -> np.ndarray:
    if isinstance(reference, PointReference):
        return np.broadcast_to(np.asarray(reference.theta), (count, prior.dim))
    pool = reference.pool if isinstance(reference, MarginalReference) else None
    return np.asarray(prior.sample(key, count) if pool is None else pool[np.arange(count) % len(pool)])


def _draws(key: Key, simulator: AbstractSimulator, theta: np.ndarray) -> jax.Array:
    return simulate(key, simulator, theta=theta).x[:, 0]


def _stacked(points: np.ndarray, maps: list[tuple[np.ndarray, np.ndarray]]) -> Knots:
    most = max(len(s) for s, _ in maps)
    fill = lambda values: np.pad(values, (0, most - len(values)), mode="edge")
    s, log_ratio = (np.stack([fill(values) for values in each]).astype(np.float32) for each in zip(*maps, strict=True))
    return Knots(jnp.asarray(points), jnp.asarray(s), jnp.asarray(log_ratio))
