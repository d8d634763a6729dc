"""Differential equations by steps of equal length."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ...core.solution import Array


def solved(
    slope: Callable[[jax.Array], jax.Array], start: Array, *, interval: float, count: int, steps: int
) -> jax.Array:
    """States `(count, d)` at the times 0, interval, 2 interval, ... by Runge and Kutta's method of the fourth order.

    Equal steps, as many for every theta, are what `vmap` does at full speed; the problems say how accurate theirs are.

    Parameters
    ----------
    slope: state `(d,)` -> its derivative `(d,)`.
    start: the first state `(d,)`.
    interval: time between states.
    count: number of states, the first among them.
    steps: steps in an interval.
    """
    h = interval / steps

    def step(_: int, state: jax.Array) -> jax.Array:
        k1 = slope(state)
        k2 = slope(state + h / 2 * k1)
        k3 = slope(state + h / 2 * k2)
        k4 = slope(state + h * k3)
        return state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    def leg(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        state = jax.lax.fori_loop(0, steps, step, state)
        return state, state

    first = jnp.asarray(start, jnp.float32)
    return jnp.concatenate([first[None], jax.lax.scan(leg, first, None, length=count - 1)[1]])
