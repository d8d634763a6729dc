"""Regular grids of parameters: where to simulate, and linear interpolation between their points."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ...core.loss import AbstractFrozen
from ...core.prior import Prior
from ...core.solution import Array


def theta_grid(prior: Prior, num_per_parameter: int | Sequence[int]) -> jax.Array:
    """A regular grid `(K, dim)` of parameters to simulate at.

    A parameter between two finite bounds is spread over all of its support; any other over the central 99 % of its
    prior (of 10,000 draws with a fixed key).

    Raises
    ------
    ValueError: fewer than 2 values of a parameter, or not one number for each column; a support that depends on other
        parameters, so that no grid fills it.
    """
    counts = [num_per_parameter] * prior.dim if isinstance(num_per_parameter, int) else list(num_per_parameter)
    if len(counts) != prior.dim or min(counts) < 2:
        raise ValueError(
            f"num_per_parameter: expected a number of at least 2, or one for each of {prior.columns}; "
            f"got {num_per_parameter}"
        )
    low, high = np.quantile(np.asarray(prior.sample(jax.random.key(0), 10_000)), [0.005, 0.995], axis=0)
    bounded = np.isfinite(prior.ends).all(axis=0)
    low, high = (np.where(bounded, end, central) for end, central in zip(prior.ends, (low, high), strict=True))
    axes = [np.linspace(*limits, dtype=np.float32) for limits in zip(low, high, counts, strict=True)]
    points = np.array(list(itertools.product(*axes)), np.float32)
    if prior.conditional and not np.asarray(prior.contains(points)).all():
        raise ValueError(
            f"the support of {' and '.join(map(repr, prior.conditional))} depends on other parameters, so that no "
            "regular grid fills that of the prior; give a grid that lies inside it, or use a method that learns from "
            "draws of the prior"
        )
    return jnp.asarray(points)


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
