"""Ordinary differential equations between noise and draws: what every continuous flow follows.

    dy/dt = v(t, y)          from noise to a draw, dy
    d log p / dt = -div v    along the way, the log density (Chen et al. 2018, arXiv:1806.07366)

The divergence is exact, a derivative for each component: posteriors have few of them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Slope = Callable[[jax.Array, Any], Any]  # (time (), state) -> derivative, shaped like the state
Rule = tuple[tuple[float, ...], tuple[float, ...]]

# Where in a step each slope is taken, by following the one before it, and its share of the step.
HEUN: Rule = ((0.0, 1.0), (1 / 2, 1 / 2))
RUNGE_KUTTA: Rule = ((0.0, 1 / 2, 1 / 2, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6))


def followed(slope: Slope, state: Any, times: jax.Array, rule: Rule) -> Any:
    """The state at the last of the times `(k,)`, from that at the first."""
    add = lambda state, by, change: jax.tree.map(lambda a, b: a + by * b, state, change)

    def step(state: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        start, size = ends[0], ends[1] - ends[0]
        change, after = None, state
        for place, share in zip(*rule, strict=True):
            at = state if change is None else add(state, place * size, change)
            change = slope(start + place * size, at)
            after = add(after, share * size, change)
        return after, None

    return jax.lax.scan(step, state, (times[:-1], times[1:]))[0]


def density(slope: Slope, y: jax.Array, times: jax.Array, rule: Rule) -> jax.Array:
    """Log density `(n,)` of y `(n, d)`, where following the slope through the times makes normal noise of it."""
    dim = y.shape[1]

    def both(t: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        at = lambda y: slope(t, y)
        moved = [jax.jvp(at, (state[0],), (jnp.broadcast_to(e, y.shape),))[1] for e in jnp.eye(dim)]
        return at(state[0]), jnp.stack([each[:, i] for i, each in enumerate(moved)]).sum(axis=0)

    noise, gained = followed(both, (y, jnp.zeros(len(y))), times, rule)
    return jnp.sum(jax.scipy.stats.norm.logpdf(noise), axis=1) + gained
