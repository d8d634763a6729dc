"""Limits to expect of an experiment: the median and bands over toys, and those of the Asimov data set."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.simulator import AbstractSimulator
from ...core.solution import Array, Key
from ..estimates import AbstractRatio
from .climb import CHUNK, best_starts, map_batches, maximise
from .likelihood import Box, LikelihoodRatio, Rate, column_indices, starting_points, support_box
from .maximum import check_grid
from .region import confidence_region
from .region_grid import intervals, margin
from .statistic import Critical, Sided, check_level, check_sided, critical_at, statistic, wilks_critical
from .toys import NUM_CANDIDATES, NUM_STARTS, NUM_STEPS, asimov, check_experiment, check_finite, draw_toys

BANDS = (0.025, 0.16, 0.5, 0.84, 0.975)


@dataclasses.dataclass(frozen=True)
class ExpectedLimits:
    """Limits on one parameter in toys at one theta.

    Fields
    ------
    name: of the parameter.
    theta: where the toys were drawn, `(dim,)`.
    level, sided: of the limits.
    lower, upper: ends of each toy's region, `(T,)`; of a union of intervals, the outermost. NaN where the region
        holds no point of the grid.
    asimov: ends of the region of the Asimov data set.
    """

    name: str
    theta: np.ndarray
    level: float
    sided: Sided
    lower: np.ndarray
    upper: np.ndarray
    asimov: tuple[float, float]

    @property
    def bands(self) -> dict[str, np.ndarray]:
        """Quantiles of `lower` and `upper` at 2.5, 16, 50, 84, 97.5 %."""
        return {"lower": np.nanquantile(self.lower, BANDS), "upper": np.nanquantile(self.upper, BANDS)}

    @property
    def median(self) -> tuple[float, float]:
        return float(np.nanmedian(self.lower)), float(np.nanmedian(self.upper))

    def to_dict(self) -> dict[str, Any]:
        return {
            "parameter": self.name,
            "theta": self.theta.tolist(),
            "level": self.level,
            "sided": self.sided,
            "num_toys": len(self.lower),
            "quantiles": list(BANDS),
            "asimov": list(self.asimov),
            **{name: values.tolist() for name, values in self.bands.items()},
        }


def expected_limits(
    key: Key,
    ratio: AbstractRatio,
    simulator: AbstractSimulator,
    theta: Array,
    parameter: str,
    *,
    grid: Array,
    level: float = 0.95,
    sided: Sided = "two",
    critical: Critical | None = None,
    num_toys: int = 500,
    num_observations: int | None = None,
    rate: Rate | None = None,
    num_simulations: int = 100_000,
) -> ExpectedLimits:
    """The limits that an experiment would set on a parameter if theta were true.

    Parameters
    ----------
    theta: `(dim,)`, at which toys and the Asimov data set are drawn.
    parameter: name of the parameter; the others are profiled.
    grid: its values `(G,)`, increasing, wide enough for the limits.
    level, sided: of the limits; "upper" for upper limits.
    critical: None for Wilks' theorem; else a number, an array `(G,)`, or a function of theta `(G, dim)`, taken at
        the grid's values of the parameter and theta's of the others.
    num_toys: T.
    num_observations, rate: the size m of a toy, or named theta -> its expected size.
    num_simulations: of the Asimov data set.

    Raises
    ------
    TypeError, ValueError: misuse; a toy whose simulation failed.
    """
    points = check_experiment(ratio, simulator, np.asarray(theta)[None], num_observations, rate)
    interest = column_indices(ratio.prior, (parameter,))
    check_sided(sided, 1)
    check_level(level)
    (axis,) = check_grid(ratio.prior, interest, grid)
    tested = np.repeat(points, len(axis), axis=0)
    tested[:, interest[0]] = axis
    limits = critical_at(wilks_critical(level, 1, sided) if critical is None else critical, tested)
    toy_key, asimov_key = jax.random.split(key)
    q = _toy_profiles(
        toy_key, ratio, simulator, points[0], tested, interest[0], sided, num_toys, num_observations, rate
    )
    ends = [_outermost(axis, margin(each, limits)) for each in q]
    typical = asimov(
        asimov_key,
        ratio,
        simulator,
        points[0],
        num_observations=num_observations,
        rate=rate,
        num_simulations=num_simulations,
    )
    region = confidence_region(typical, level, parameters=parameter, critical=limits, grid=axis, sided=sided)
    lower, upper = np.array(ends).T
    return ExpectedLimits(parameter, points[0], level, sided, lower, upper, _outermost(axis, region.margin))


def _outermost(axis: np.ndarray, margins: np.ndarray) -> tuple[float, float]:
    found = intervals(axis, margins)
    return (found[0][0], found[-1][1]) if found else (float("nan"), float("nan"))


def _toy_profiles(
    key, ratio, simulator, truth, tested, index: int, sided: Sided, num_toys: int, num_observations, rate
) -> np.ndarray:
    """q `(T, G)` of toys at `truth` `(dim,)`, at each row of `tested` `(G, dim)`."""
    if num_toys < 1:
        raise ValueError(f"num_toys must be at least 1, got {num_toys}")
    x, weight = draw_toys(key, simulator, np.repeat(truth[None], num_toys, axis=0), num_observations, rate)
    failed = ~np.isfinite(x.reshape(len(x), -1)).all(axis=1)
    if failed.any():
        raise ValueError(
            f"{int(failed.sum())} of {num_toys} toys by {simulator.name!r} failed; mend the simulator there"
        )
    free = np.ones(ratio.prior.dim, bool)
    free[index] = False
    candidates, box = starting_points(ratio.prior, NUM_CANDIDATES), support_box(ratio.prior)
    q = _profiles(ratio, rate, x, weight, truth, tested, candidates, free, box, index, sided, bool(free.any()))
    check_finite(np.asarray(q))
    return np.asarray(q)


@eqx.filter_jit
def _profiles(
    ratio: AbstractRatio,
    rate: Rate | None,
    x: Array,
    weight: Array | None,
    truth: Array,
    tested: Array,
    candidates: Array,
    free: Array,
    box: Box,
    index: int,
    sided: Sided,
    nuisance: bool,
) -> jax.Array:
    free = jnp.asarray(free)

    def one(toy: tuple[jax.Array, jax.Array | None]) -> jax.Array:
        likelihood = LikelihoodRatio(ratio, toy[0], toy[1], rate).anchored(truth)
        starts = jnp.concatenate([truth[None], best_starts(likelihood, jnp.asarray(candidates), NUM_STARTS)])
        best, top, _ = maximise(likelihood, starts, jnp.ones_like(free), box, NUM_STEPS)
        if nuisance:
            both = lambda point: jnp.stack([jnp.where(free, best, point), point])
            held = jax.vmap(lambda point: maximise(likelihood, both(point), free, box, NUM_STEPS)[1])(tested)
        else:
            held = jax.vmap(likelihood)(tested)
        q = statistic(held - jnp.maximum(top, jnp.max(held)), tested[:, index], best[index], sided)
        return jnp.where(jnp.isfinite(top), q, jnp.nan)

    rows = (jnp.asarray(x), None if weight is None else jnp.asarray(weight))
    return map_batches(one, rows, CHUNK // (x.shape[1] * len(tested)))
