"""Climbing a likelihood, in JAX: damped Newton steps, projected on the support.

The active set and the projection follow Bertsekas 1982 (SIAM J. Control Optim. 20, 221): a maximum at the end of an
interval is reached, not approached. Where the Hessian is not positive definite, the sum of the outer products of
the scores takes its place (Berndt, Hall, Hall, Hausman 1974). The equations are solved by code written out for
few parameters, because batches of LAPACK calls can stand still inside compiled loops.

Where the support of a parameter depends on others, its edge is no side of a box. A logarithmic barrier keeps climbs
inside, so weak that it does not show, and they slide along the edge (Nocedal and Wright 2006, section 19.6).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...core.prior import Prior
from .likelihood import Box, Likelihood

NUM_STEPS = 40
TOLERANCE = 1e-5  # in log L: what another Newton step would gain, when a climb ends
CONVERGED = 1e-3  # in log L: what it may gain at most, where a climb counts as converged
STUCK = 1e7  # damping beyond which nothing moves in float32
BARRIER = 1e-4  # in log L: what keeps a climb from an end that depends on other parameters
MARGIN = 1e-4  # of a parameter's scale: how far inside such an end a climb starts
CHUNK = 250_000  # log-ratios in memory at once


class _Local(NamedTuple):
    """log L `()` at a point, its gradient `(d,)`, minus its Hessian `(d, d)`, the scores' outer product `(d, d)`."""

    value: jax.Array
    gradient: jax.Array
    curvature: jax.Array
    outer: jax.Array


def _derivatives(function: Callable[[jax.Array], jax.Array], theta: jax.Array) -> tuple[jax.Array, ...]:
    """Value, gradient and Hessian at theta `(d,)`, in forward mode, tracing the function once."""

    def value(theta: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = function(theta)
        return found, found

    def gradient(theta: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        slope, found = jax.jacfwd(value, has_aux=True)(theta)
        return slope, (found, slope)

    curvature, (found, slope) = jax.jacfwd(gradient, has_aux=True)(theta)
    return found, slope, curvature


def _expand(likelihood: Likelihood, theta: jax.Array) -> _Local:
    # Event by event, so that events without weight drop out even where their derivatives are NaN.
    lifted = lambda each, like: jnp.expand_dims(each, tuple(range(1, like.ndim)))
    weight = likelihood.weight
    total = lambda each: jnp.sum(jnp.where(lifted(weight > 0, each), lifted(weight, each) * each, 0.0), axis=0)
    terms, scores, curvatures = _derivatives(likelihood.log_ratios, theta)
    local = _Local(total(terms), total(scores), -total(curvatures), total(scores[:, :, None] * scores[:, None, :]))
    if likelihood.rate is not None:
        both = lambda theta: jnp.stack([likelihood.rate_term(theta), likelihood.expected(theta)])
        (term, expected), (gradient, slope), (curvature, _) = _derivatives(both, theta)
        outer = slope[:, None] * slope / jnp.maximum(expected, 1e-9)
        local = _Local(local.value + term, local.gradient + gradient, local.curvature - curvature, local.outer + outer)
    if likelihood.prior.conditional:
        value, slope, bend = _derivatives(lambda theta: _barrier(likelihood.prior, theta), theta)
        local = _Local(local.value + value, local.gradient + slope, local.curvature - bend, local.outer - bend)
    usable = jnp.isfinite(local.value) & jnp.isfinite(local.gradient).all() & jnp.isfinite(local.curvature).all()
    usable &= jnp.isfinite(local.outer).all() & likelihood.possible(theta)
    zeros = jax.tree.map(jnp.zeros_like, local)._replace(value=jnp.asarray(-jnp.inf))
    return jax.tree.map(lambda good, bad: jnp.where(usable, good, bad), local, zeros)


def _barrier(prior: Prior, theta: jax.Array) -> jax.Array:
    """A little less `()` the closer theta `(dim,)` is to an end that depends on other parameters: NaN beyond."""
    return BARRIER * jnp.sum(jnp.log(prior.room(theta)))


def _within(prior: Prior, theta: jax.Array, step: jax.Array) -> jax.Array:
    """The step, halved until it does not go all the way to an end that depends on other parameters."""
    if not prior.conditional:
        return step
    least, shares = 0.05 * prior.room(theta), 0.5 ** jnp.arange(20.0)
    fits = jax.vmap(lambda share: jnp.all(prior.room(theta + share * step) >= least))(shares)
    return jnp.where(fits.any(), shares[jnp.argmax(fits)], 0.0) * step


def _pulled_in(prior: Prior, theta: jax.Array, free: jax.Array, box: Box) -> jax.Array:
    """A start `(dim,)`, with what is free moved until it lies in the support: projected on its edges in turn."""
    if not prior.conditional:
        return theta
    for _ in range(3):
        slopes = jax.jacfwd(prior.room)(theta) * free
        for i in range(len(slopes)):
            lacking = jnp.maximum(MARGIN * jnp.max(box.scale) - prior.room(theta)[i], 0.0)
            move = lacking * slopes[i] / jnp.maximum(jnp.sum(slopes[i] ** 2), 1e-6)
            theta = jnp.clip(theta + jnp.where(jnp.isfinite(move), move, 0.0), box.low, box.high)
    return theta


def _solve(matrix: jax.Array, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The solution `(d,)` of `matrix @ y = vector` by L D L^T, and whether the matrix is safely positive definite.

    Pivots too small are raised, so that the solution is always an ascent along `vector`.
    """
    d = len(vector)
    low: list[list[Any]] = [[0.0] * d for _ in range(d)]
    pivots, y, definite = [], [], jnp.asarray(True)
    for j in range(d):
        pivot = matrix[j, j] - sum(low[j][k] ** 2 * pivots[k] for k in range(j))
        floor = 1e-4 * jnp.abs(matrix[j, j]) + 1e-30
        definite &= pivot > floor
        pivots.append(jnp.maximum(pivot, floor))
        for i in range(j + 1, d):
            low[i][j] = (matrix[i, j] - sum(low[i][k] * low[j][k] * pivots[k] for k in range(j))) / pivots[j]
        y.append(vector[j] - sum(low[j][k] * y[k] for k in range(j)))
    solution: list[Any] = [value / pivot for value, pivot in zip(y, pivots, strict=True)]
    for j in reversed(range(d)):
        solution[j] = solution[j] - sum(low[i][j] * solution[i] for i in range(j + 1, d))
    return jnp.stack(solution), definite


def _only(matrix: jax.Array, moving: jax.Array) -> jax.Array:
    """The matrix with the rows and columns of what does not move replaced by the identity's."""
    return jnp.where(moving[:, None] & moving, matrix, jnp.where(jnp.eye(len(moving), dtype=bool), 1.0, 0.0))


def _step(local: _Local, theta: jax.Array, damping: jax.Array, free: jax.Array, box: Box) -> tuple[jax.Array, ...]:
    """A damped step `(d,)` inside the box, and what an undamped one would gain `()`."""
    uphill = local.gradient
    moving = free & ~((theta <= box.low) & (uphill <= 0)) & ~((theta >= box.high) & (uphill >= 0))
    uphill = jnp.where(moving, uphill, 0.0)
    _, definite = _solve(_only(local.curvature, moving), uphill)
    matrix = _only(jnp.where(definite, local.curvature, local.outer), moving)
    diagonal = jnp.maximum(jnp.diagonal(matrix), jnp.where(moving, 1e-3 / box.scale**2, 1.0))
    gain = 0.5 * jnp.sum(uphill * _solve(matrix, uphill)[0])
    damped = matrix + jnp.where(jnp.eye(len(theta), dtype=bool), damping * diagonal, 0.0)
    step = _solve(damped, uphill)[0]
    # What would leave the box goes to its edge; the others take the step that is best given that.
    inside = jnp.clip(theta + step, box.low, box.high) - theta
    stopped = moving & (inside != step) & ((theta + step < box.low) | (theta + step > box.high))
    edge = jnp.where(stopped, inside, 0.0)
    rest = jnp.where(stopped, 0.0, uphill - jnp.sum(damped * edge, axis=1))
    step = jnp.where(stopped, edge, _solve(_only(damped, moving & ~stopped), rest)[0])
    step = step * jnp.minimum(1.0, 1.0 / jnp.maximum(jnp.max(jnp.abs(step) / box.scale), 1e-30))
    return jnp.where(moving, step, 0.0), gain


class _State(NamedTuple):
    theta: jax.Array
    local: _Local
    damping: jax.Array
    gain: jax.Array
    done: jax.Array
    count: jax.Array


def _climb(
    likelihood: Likelihood, start: jax.Array, free: jax.Array, box: Box, num_steps: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def body(state: _State) -> _State:
        step, gain = _step(state.local, state.theta, state.damping, free, box)
        step = _within(likelihood.prior, state.theta, step)
        theta = jnp.clip(state.theta + step, box.low, box.high)
        local = _expand(likelihood, theta)
        better = local.value >= state.local.value
        damping = jnp.where(better, jnp.where(state.damping < 1e-3, 0.0, state.damping / 10), state.damping * 5 + 1e-2)
        done = (gain < TOLERANCE) | (damping > STUCK) | ~jnp.isfinite(state.local.value)
        done &= state.count > 0  # the first turn only looks about
        pick = lambda new, old: jnp.where(better, new, old)
        return _State(
            pick(theta, state.theta), jax.tree.map(pick, local, state.local), damping, gain, done, state.count + 1
        )

    d = len(start)
    unseen = _Local(jnp.full((), -jnp.inf), jnp.zeros(d), jnp.zeros((d, d)), jnp.zeros((d, d)))
    first = _State(start, unseen, jnp.zeros(()), jnp.full((), jnp.inf), jnp.asarray(False), jnp.zeros((), jnp.int32))
    last = jax.lax.while_loop(lambda state: ~state.done & (state.count <= num_steps), body, first)
    return last.theta, last.local.value, (last.gain < CONVERGED) & jnp.isfinite(last.local.value)


def maximise(
    likelihood: Likelihood, starts: jax.Array, free: jax.Array, box: Box, num_steps: int = NUM_STEPS
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best of the climbs from `starts` `(S, dim)`: theta `(dim,)`, log L `()`, whether it converged `()`.

    Only the columns marked in `free` `(dim,)` move. Traceable, and fit for `vmap` over the likelihood's data.
    """
    climb = lambda start: _climb(likelihood, _pulled_in(likelihood.prior, start, free, box), free, box, num_steps)
    thetas, values, converged = map_batches(climb, starts, CHUNK // len(likelihood.x))
    best = jnp.argmax(values)
    value = likelihood(thetas[best]) if likelihood.prior.conditional else values[best]  # without the barrier
    return thetas[best], value, converged[best]


def best_starts(likelihood: Likelihood, candidates: jax.Array, number: int) -> jax.Array:
    """The `number` likeliest of the candidates `(C, dim)`; traceable."""
    values = map_batches(likelihood, candidates, CHUNK // len(likelihood.x))
    chosen = jax.lax.top_k(jnp.where(jnp.isnan(values), -jnp.inf, values), min(number, len(candidates)))[1]
    return candidates[chosen]


def map_batches(function: Callable[[Any], Any], rows: Any, at_once: int) -> Any:
    """`vmap` of the function over rows (a pytree with a leading axis), at most `at_once` of them at a time.

    Unlike `lax.map` with a batch size, it compiles the function once: the last batch is filled up.
    """
    count = len(jax.tree.leaves(rows)[0])
    turns = -(-count // max(1, at_once))
    if turns == 1:
        return jax.vmap(function)(rows)
    size = -(-count // turns)
    filled = np.minimum(np.arange(turns * size), count - 1)
    batches = jax.tree.map(lambda each: each[filled].reshape(turns, size, *each.shape[1:]), rows)
    found = jax.lax.map(jax.vmap(function), batches)
    return jax.tree.map(lambda each: each.reshape(turns * size, *each.shape[2:])[:count], found)
