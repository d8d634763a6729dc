"""Ratios of histograms: the traditional baseline, of hand-picked or learned summaries.

At every theta of a grid, a histogram of one or two summaries s(x) stands for p(s | theta). Their ratio is the ratio of
x only as far as s is sufficient. With the estimated score as the summary this is SALLY, and with its projection on
theta - theta_ref, in one dimension, SALLINO (Brehmer, Cranmer, Louppe, Pavez 2018, arXiv:1805.00020).

A histogram for each theta alone wastes simulations. Here several candidates are mixed: the log-probability of a bin is
a penalised cubic polynomial in theta, so that neighbours share their strength, under penalties from heavy to light;
where there are many simulations, also histograms for each theta, with pseudo-counts from that polynomial; and the
ratio 1. The share of a candidate is exp(its log-ratio to the mean over theta, less a standard error) on simulations
left out, in five folds. So few simulations shrink the ratio to 1, and many leave the histograms as they are. The
number of bins is the best of three about the cube root of the number of simulations (fourth root, for each of two).
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, special

from .._types import Array
from ..mine import AbstractReference, MarginalReference, PointReference
from ..nets.frozen import AbstractFrozen
from ..prior import Prior
from ..ratio import AbstractRatio
from ..simulations import Simulations

Summary = Callable[[jax.Array], jax.Array]  # one observation (*event) -> (k,)

PENALTIES = (1000.0, 100.0, 10.0, 1.0, 0.1, 0.01)  # of linear terms, relative to the information of one simulation
STEEPER = 100.0  # penalty of a degree, over that of the degree below
DEGREE = 3
PSEUDO_COUNTS = 100.0, 10.0
ENOUGH_PER_THETA = 200.0  # simulations, for histograms of their own
NUM_FOLDS = 5
FEWEST_PER_THETA = 2


def theta_grid(prior: Prior, num_per_parameter: int | Sequence[int]) -> jax.Array:
    """A regular grid `(K, dim)` of parameters to simulate at.

    A parameter between two finite bounds is spread over all of its support; any other over the central 99 % of its
    prior (of 10,000 draws with a fixed key).

    Raises
    ------
    ValueError: fewer than 2 values of a parameter, or not one number for each column.
    """
    counts = [num_per_parameter] * prior.dim if isinstance(num_per_parameter, int) else list(num_per_parameter)
    if len(counts) != prior.dim or min(counts) < 2:
        raise ValueError(
            f"num_per_parameter: expected a number of at least 2, or one for each of {prior.columns}; "
            f"got {num_per_parameter}"
        )
    low, high = np.quantile(np.asarray(prior.sample(jax.random.key(0), 10_000)), [0.005, 0.995], axis=0)
    start = 0
    for name, shape in prior.shapes.items():
        support: Any = prior.distributions[name].support
        inner = getattr(support, "base_constraint", support)
        bounds = getattr(inner, "lower_bound", None), getattr(inner, "upper_bound", None)
        columns = slice(start, start := start + int(np.prod(shape, dtype=int)))
        if None not in bounds:
            low[columns], high[columns] = (np.ravel(np.broadcast_to(np.asarray(each), shape)) for each in bounds)
    axes = [np.linspace(*limits, dtype=np.float32) for limits in zip(low, high, counts, strict=True)]
    return jnp.asarray(list(itertools.product(*axes)), jnp.float32)


class ThetaGrid(AbstractFrozen):
    """A regular grid of parameters, for multilinear interpolation. Beyond its edges, its edges count.

    Fields
    ------
    axes: the values of every parameter, in increasing order; the points are their product, the last axis fastest.
    """

    axes: tuple[jax.Array, ...]

    @staticmethod
    def of(columns: Sequence[str], theta: Array) -> "ThetaGrid":
        """The grid whose points are the distinct rows of theta `(n, dim)`.

        Raises
        ------
        ValueError: they are not a grid: fewer than two, or a combination is missing.
        """
        points = np.unique(np.asarray(theta, np.float32), axis=0)
        axes = [np.unique(column) for column in points.T]
        expected = int(np.prod([len(axis) for axis in axes]))
        if len(points) < 2 or len(points) != expected:
            counts = ", ".join(f"{len(axis)} of {name}" for name, axis in zip(columns, axes, strict=True))
            raise ValueError(
                f"expected theta on a regular grid of at least 2 points, got {len(points)} different points where a "
                f"grid of their values ({counts}) has {expected}; simulate at theta_grid(prior, 10), repeated"
            )
        return ThetaGrid(tuple(jnp.asarray(axis) for axis in axes))

    @property
    def points(self) -> np.ndarray:
        """All points `(K, dim)`."""
        return np.array(list(itertools.product(*map(np.asarray, self.axes))), np.float32)

    def corners(self, theta: Array) -> tuple[jax.Array, jax.Array]:
        """Rows of `points` around theta `(dim,)`, and their weights, both `(2**dim,)`; pure JAX."""
        index, weight = jnp.zeros(1, jnp.int32), jnp.ones(1)
        for axis, value in zip(self.axes, jnp.asarray(theta, jnp.float32), strict=True):
            if len(axis) == 1:
                low, share = jnp.zeros((), jnp.int32), jnp.zeros(())
            else:
                low = jnp.clip(jnp.searchsorted(axis, value, side="right") - 1, 0, len(axis) - 2)
                share = jnp.clip((value - axis[low]) / (axis[low + 1] - axis[low]), 0.0, 1.0)
            pair = jnp.stack([low, jnp.minimum(low + 1, len(axis) - 1)])
            index = (index[:, None] * len(axis) + pair).ravel()
            weight = (weight[:, None] * jnp.stack([1 - share, share])).ravel()
        return index, weight


# -- bins ------------------------------------------------------------------------------------------


class Bins(AbstractFrozen):
    """Bins of about equal probability, in one dimension, or in a second within each bin of the first.

    Fields
    ------
    outer: cuts `(B1 - 1,)` of the first summary.
    inner: cuts `(B1, B2 - 1)` of the second, filled up with infinity.
    """

    outer: jax.Array
    inner: jax.Array

    @staticmethod
    def of(s: np.ndarray, num_bins: int) -> "Bins":
        """About `num_bins` bins for summaries `(n, k)`; values that are equal are never parted."""
        per_axis = num_bins if s.shape[1] == 1 else max(2, round(num_bins**0.5))
        outer = _cuts(s[:, 0], per_axis)
        place = np.searchsorted(outer, s[:, 0])
        inner = [_cuts(s[place == b, 1], per_axis) if s.shape[1] == 2 else outer[:0] for b in range(len(outer) + 1)]
        return Bins(jnp.asarray(outer), jnp.asarray(_filled(inner)))

    @property
    def num_bins(self) -> int:
        return self.inner.shape[0] * (self.inner.shape[1] + 1)

    def __call__(self, s: jax.Array) -> jax.Array:
        """The bin `()` of summaries `(k,)`."""
        first = jnp.sum(s[0] > self.outer)
        return first * (self.inner.shape[1] + 1) + jnp.sum(s[-1] > self.inner[first])

    def places(self, s: np.ndarray) -> np.ndarray:
        """The bins `(n,)` of summaries `(n, k)`, in NumPy: nothing is compiled for every number of bins tried."""
        first = np.searchsorted(np.asarray(self.outer), s[:, 0])
        second = np.zeros(len(s), int)
        for b, cuts in enumerate(np.asarray(self.inner)):
            second[first == b] = np.searchsorted(cuts, s[first == b, -1])
        return first * (self.inner.shape[1] + 1) + second


def _cuts(values: np.ndarray, num_bins: int) -> np.ndarray:
    """Between neighbouring different values, at about the quantiles of `num_bins` equal shares."""
    unique, count = np.unique(values, return_counts=True)
    share = np.floor((np.cumsum(count) - count / 2) * num_bins / max(len(values), 1))
    last = np.flatnonzero(np.diff(share))
    return ((unique[last].astype(np.float64) + unique[last + 1]) / 2).astype(np.float32)


def _filled(rows: Sequence[np.ndarray]) -> np.ndarray:
    longest = max(map(len, rows))
    return np.stack([np.pad(row, (0, longest - len(row)), constant_values=np.inf) for row in rows])


# -- probabilities of bins -------------------------------------------------------------------------


class Setting(NamedTuple):
    """How smooth a histogram is, see the top of the file.

    Fields
    ------
    num_bins: asked for.
    shares: of the candidates in the mixture, the ratio 1 first.
    gain: log of the mean candidate's weight: how much better than the ratio 1, in nats, on simulations left out.
    """

    num_bins: int
    shares: tuple[float, ...]
    gain: float


class Rows(NamedTuple):
    """Where simulations come from: `points` `(T, dim)`, the point `(n,)` and the fold `(n,)` of every row."""

    points: np.ndarray
    point: np.ndarray
    fold: np.ndarray

    @staticmethod
    def of(theta: np.ndarray) -> "Rows":
        points, point = np.unique(theta, axis=0, return_inverse=True)
        fold = np.random.default_rng(0).permutation(len(theta)) % NUM_FOLDS
        return Rows(points, point.ravel(), fold)

    def find(self, theta: np.ndarray) -> np.ndarray:
        """The places `(K,)` of theta `(K, dim)` among the points."""
        return np.argmin(np.abs(self.points[None] - theta[:, None]).sum(axis=2), axis=1)

    def counts(self, bins: Bins, s: np.ndarray) -> np.ndarray:
        """`(NUM_FOLDS, T, B)`."""
        table = np.zeros((NUM_FOLDS, len(self.points), bins.num_bins))
        np.add.at(table, (self.fold, self.point, bins.places(s)), 1)
        return table

    @property
    def design(self) -> tuple[np.ndarray, np.ndarray]:
        """Polynomials `(T, J)` up to degree 3, orthonormal over the simulations, and their degrees `(J,)`."""
        spread = np.ptp(self.points.astype(np.float64), axis=0)
        z = 2 * (self.points - self.points.min(axis=0)) / np.where(spread > 0, spread, 1) - 1
        weight = np.bincount(self.point) / len(self.point)
        columns, degrees = [np.ones(len(z))], [0]
        for degree in range(1, DEGREE + 1):
            for factors in itertools.combinations_with_replacement(range(z.shape[1]), degree):
                raw = np.prod(z[:, factors], axis=1)
                rest = raw
                for _ in range(2):  # once more, for what rounding left over
                    rest = rest - sum(c * np.sum(weight * c * rest) for c in columns)
                norm = np.sqrt(np.sum(weight * rest**2))
                if norm > 1e-6:  # a column that the others make up is left out
                    columns.append(rest / norm)
                    degrees.append(degree)
        return np.stack(columns[1:], axis=1), np.array(degrees[1:])


def _marginal(counts: np.ndarray) -> np.ndarray:
    total = counts.sum(axis=0) + 0.5
    return np.log(total / total.sum())


def _polynomial(
    counts: np.ndarray, design: tuple[np.ndarray, np.ndarray], penalty: float, start: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """log q `(T, B)` for counts `(T, B)`: the penalised maximum likelihood, and its coefficients to start from."""
    basis, degree = design
    marginal, shape = _marginal(counts), (basis.shape[1], counts.shape[1])
    stiffness = penalty * counts.shape[1] * STEEPER ** (degree[:, None] - 1.0) * np.exp(marginal)
    size = counts.sum(axis=1, keepdims=True)
    unit = 1 / np.sqrt(stiffness + size.sum() * np.exp(marginal))  # the objective is about as steep in all directions

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients = unit * flat.reshape(shape)
        logits = marginal + basis @ coefficients
        log_q = logits - special.logsumexp(logits, axis=1, keepdims=True)
        value = 0.5 * np.sum(stiffness * coefficients**2) - np.sum(counts * log_q)
        slope = stiffness * coefficients + basis.T @ (size * np.exp(log_q) - counts)
        return float(value), (unit * slope).ravel()

    first = np.zeros(shape) if start is None else start / unit
    options = {"maxiter": 100, "gtol": 0.1}  # of coefficients in units of their standard errors: 0.005 nats each
    # Conjugate gradients in plain NumPy: the small factorisations of L-BFGS-B cost ten times the rest.
    found = optimize.minimize(objective, first.ravel(), jac=True, method="CG", options=options)
    coefficients = unit * found.x.reshape(shape)
    return special.log_softmax(marginal + basis @ coefficients, axis=1), coefficients


def _candidates(counts: np.ndarray, design: tuple[np.ndarray, np.ndarray], own: bool) -> np.ndarray:
    """Log-probabilities `(C, T, B)` by every candidate, the ratio 1 first; `own`: with histograms for each theta."""
    marginal, start = _marginal(counts), None
    size = counts.sum(axis=1, keepdims=True)
    found = [np.broadcast_to(np.exp(marginal), counts.shape)]
    for penalty in PENALTIES:
        log_q, start = _polynomial(counts, design, penalty, start)
        found.append(np.exp(log_q))
        for pseudo_counts in PSEUDO_COUNTS if own else ():
            found.append((counts + pseudo_counts * np.exp(log_q)) / (size + pseudo_counts))
    # One more pseudo-count, from the mean over theta: no ratio is beyond what the number of simulations can show.
    return np.log((size * np.stack(found) + np.exp(marginal)) / (size + 1))


def _enough(rows: Rows) -> bool:
    return len(rows.point) >= ENOUGH_PER_THETA * len(rows.points)


def _choose(views: Sequence[np.ndarray], rows: Rows, num_bins: int | None) -> Setting:
    """The best setting for summaries `(n, k)`, taken together where there are several."""
    k = views[0].shape[1]
    about = len(rows.point) ** (k / (k + 2))
    tried = {max(2, round(about * factor)) for factor in (0.5, 1, 2)} if num_bins is None else {num_bins}
    return max((_judged(views, rows, each) for each in sorted(tried)), key=lambda setting: setting.gain)


def _judged(views: Sequence[np.ndarray], rows: Rows, num_bins: int) -> Setting:
    gain, square = 0.0, 0.0
    for s in views:
        folds = rows.counts(Bins.of(s, num_bins), s)
        for left_out in folds:
            counts = folds.sum(axis=0) - left_out
            log_ratio = _candidates(counts, rows.design, _enough(rows)) - _marginal(counts)
            gain = gain + np.sum(left_out * log_ratio, axis=(1, 2))
            square = square + np.sum(left_out * log_ratio**2, axis=(1, 2))
    weight = gain - np.sqrt(square)
    return Setting(
        num_bins, tuple(special.softmax(weight).tolist()), float(special.logsumexp(weight - np.log(len(weight))))
    )


def _log_probabilities(s: np.ndarray, rows: Rows, setting: Setting) -> tuple[Bins, np.ndarray]:
    """Bins, and the log-probability `(T, B)` of each at every point."""
    bins = Bins.of(s, setting.num_bins)
    found = _candidates(rows.counts(bins, s).sum(axis=0), rows.design, _enough(rows))
    return bins, np.log(np.tensordot(setting.shares, np.exp(found), axes=1))


# -- the ratios ------------------------------------------------------------------------------------


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
    setting: how the histograms were smoothed.
    """

    summary: Summary
    bins: Bins
    table: jax.Array
    grid: ThetaGrid
    parameters: Prior = eqx.field(static=True)
    event: tuple[int, ...] = eqx.field(static=True)
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
        setting = _choose([s], rows, num_bins)
        bins, log_p = _log_probabilities(s, rows, setting)
        on_grid = log_p[rows.find(grid.points)]
        table = on_grid - _reference_row(log_p, on_grid, rows, grid, reference)
        return HistogramRatio(
            summary, bins, jnp.asarray(table, jnp.float32), grid, sims.prior, sims.event_shape, setting
        )

    @property
    def prior(self) -> Prior:
        return self.parameters

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.event

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
    grid, setting: as in `HistogramRatio`.
    """

    summary: Summary
    directions: jax.Array
    cuts: jax.Array
    table: jax.Array
    grid: ThetaGrid
    parameters: Prior = eqx.field(static=True)
    event: tuple[int, ...] = eqx.field(static=True)
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
        reference = _reference(sims, PointReference(theta_reference))
        s, rows, grid = _filled_from(sims, summary, reference, num_bins)
        if s.shape[1] != sims.prior.dim:
            raise ValueError(
                f"summary: expected one number for each of {sims.prior.columns}, as a score has, got {s.shape[1]}"
            )
        setting = _choose(list(s.T[:, :, None]), rows, num_bins)
        directions = _directions(grid.points - np.asarray(theta_reference, np.float32))
        fits: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
        for direction in directions:
            if direction.tobytes() not in fits:
                bins, log_p = _log_probabilities((s @ direction)[:, None], rows, setting)
                on_grid = log_p[rows.find(grid.points)]
                ratios = on_grid - _reference_row(log_p, on_grid, rows, grid, reference)
                fits[direction.tobytes()] = np.asarray(bins.outer), ratios if direction.any() else 0 * ratios
        pairs = [fits[direction.tobytes()] for direction in directions]
        most = max(ratios.shape[1] for _, ratios in pairs)
        table = np.stack([np.pad(ratios[k], (0, most - ratios.shape[1])) for k, (_, ratios) in enumerate(pairs)])
        return ProjectedHistogramRatio(
            summary,
            jnp.asarray(directions),
            jnp.asarray(_filled([cuts for cuts, _ in pairs])),
            jnp.asarray(table, jnp.float32),
            grid,
            sims.prior,
            sims.event_shape,
            setting,
        )

    @property
    def prior(self) -> Prior:
        return self.parameters

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.event

    def log_ratio(self, theta: Array, x: Array) -> jax.Array:
        index, weight = self.grid.corners(theta)
        directions, cuts, table = self.directions[index], self.cuts[index], self.table[index]

        def one(x: jax.Array) -> jax.Array:
            h = jnp.sum(directions * _vector(self.summary, x), axis=1)
            place = jnp.sum(h[:, None] > cuts, axis=1)
            return jnp.sum(weight * jnp.take_along_axis(table, place[:, None], axis=1)[:, 0])

        return jax.vmap(one)(jnp.asarray(x))


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
    theta = np.repeat(np.asarray(sims.source, np.float32), sims.num_observations, axis=0)
    grid = _grid_of(sims, theta, reference)
    rows = Rows.of(theta)
    fewest = int(np.bincount(rows.point).min())
    if fewest < FEWEST_PER_THETA:
        raise ValueError(
            f"too few simulations: {len(theta)} at {len(rows.points)} different theta, and only {fewest} at one of "
            f"them; a histogram needs at least {FEWEST_PER_THETA} at each: simulate more, or on a coarser grid"
        )
    x = sims.x.reshape((-1, *sims.event_shape))
    s = np.asarray(_summaries(summary, x))
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
