"""Integrals and maxima over one parameter, on grids that find by themselves where the mass is."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

POINTS = 513  # odd, for Simpson's rule
ROUNDS = 6  # each narrows the grid by up to 256; five come to the end of float32
DEPTH = 30.0  # density is dropped where it is below e^-30 of its maximum

_STEPS = np.linspace(0, 1, POINTS, dtype=np.float32)
_SIMPSON = np.where(np.arange(POINTS) % 2, 4.0, 2.0).astype(np.float32)
_SIMPSON[[0, -1]] = 1.0


def zoomed_grid(
    log_density: Callable[[jax.Array], jax.Array], low: jax.Array | float, high: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """Points `(POINTS,)` and normalised weights `(POINTS,)` for integrals against a unimodal density.

    The grid starts as the whole of [low, high] and is cut, round by round, to where the density is not
    negligible, so that its width comes to about 16 standard deviations or less. Write `log_density` as a
    function of the *distance* from a point near the mode: float32 cannot tell neighbouring points apart
    where the mass is 1e-7 of the coordinate, but it can near zero.

    Parameters
    ----------
    log_density: points `(POINTS,)` -> log density `(POINTS,)`, up to a constant; -inf is allowed.
    low, high: scalars, the support.
    """
    edges = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
    low, high = jax.lax.fori_loop(0, ROUNDS, lambda _, edges: _narrow(log_density, *edges), edges)
    points = low + (high - low) * jnp.asarray(_STEPS)
    values = log_density(points)
    weights = jnp.asarray(_SIMPSON) * jnp.exp(values - jnp.max(values))
    return points, weights / jnp.sum(weights)


def mean_and_std(points: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation, scalars, of points `(n,)` under normalised weights `(n,)`."""
    mean = jnp.sum(weights * points)
    return mean, jnp.sqrt(jnp.sum(weights * (points - mean) ** 2))


def peak(function: Callable[[jax.Array], jax.Array], points: jax.Array) -> jax.Array:
    """Where a function of points `(n,) -> (n,)` is largest, `()`: a ternary search beside the best of some points.

    Between neighbours of `points`, which are in order, the function must have one maximum.
    """
    best = jnp.argmax(function(points))

    def narrow(_: int, edges: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = edges
        inner = low + (high - low) * np.array([1 / 3, 2 / 3], np.float32)
        left, right = function(inner)
        return jnp.where(left < right, inner[0], low), jnp.where(left < right, high, inner[1])

    neighbours = points[jnp.maximum(best - 1, 0)], points[jnp.minimum(best + 1, len(points) - 1)]
    low, high = jax.lax.fori_loop(0, 15, narrow, neighbours)
    return (low + high) / 2


def _narrow(
    log_density: Callable[[jax.Array], jax.Array], low: jax.Array, high: jax.Array
) -> tuple[jax.Array, jax.Array]:
    points = low + (high - low) * jnp.asarray(_STEPS)
    values = log_density(points)
    kept = values >= jnp.max(values) - DEPTH  # equal when the maximum itself is too large for a difference of 30
    first, last = jnp.argmax(kept), POINTS - 1 - jnp.argmax(kept[::-1])
    return points[jnp.maximum(first - 1, 0)], points[jnp.minimum(last + 1, POINTS - 1)]
