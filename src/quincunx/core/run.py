"""`run`: the verb that iterates towards an answer for one set of observations."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .batches import bucket, filled
from .names import options_checked
from .progress import AbstractProgress, NoProgress
from .solution import Array, InferenceError, Key, Solution, Status


class AbstractKernel(eqx.Module):
    """An iterative algorithm, written as one step."""

    @property
    @abc.abstractmethod
    def num_iterations(self) -> int:
        """How many steps `run` takes unless told otherwise."""

    @abc.abstractmethod
    def observations(self, x: Array) -> jax.Array:
        """Observations `(m, *event)` as float32; raises `ValueError` for what the kernel cannot use."""

    @abc.abstractmethod
    def doubts(self, x: jax.Array) -> tuple[str, ...]:
        """Reasons not to trust an answer for these observations."""

    @abc.abstractmethod
    def init(self, key: Key, x: jax.Array, weight: jax.Array) -> Any:
        """The state before the first step, for the observations in x `(m, *event)` whose weight `(m,)` is 1, not 0."""

    @abc.abstractmethod
    def step(self, key: Key, state: Any) -> tuple[Any, dict[str, jax.Array]]:
        """The next state, and what to record of it."""

    @abc.abstractmethod
    def estimate(self, state: Any) -> Any:
        """The answer that a state stands for."""

    @abc.abstractmethod
    def calls_per_iteration(self) -> int:
        """Simulated observations that one step asks of the simulator."""


@options_checked()
def run(
    key: Key,
    kernel: AbstractKernel,
    x: Array,
    *,
    num_iterations: int | None = None,
    progress: AbstractProgress | None = None,
    throw: bool = True,
) -> Solution[Any]:
    """Iterate a kernel on one set of observations.

    Parameters
    ----------
    key: random key; the same key gives the same answer.
    kernel: such as a trained `RecurrentMachine`.
    x: observations `(m, *event)`.
    num_iterations: steps to take; the kernel's own number by default.
    progress: told when the steps are done.
    throw: raise when the estimate is not finite; otherwise the status says so.

    Returns
    -------
    Solution with the estimate, `statistics` (num_observations, num_iterations, num_simulator_calls),
    `history` (one record per iteration), and warnings.

    Raises
    ------
    TypeError: no kernel, or a number of iterations that is no whole number.
    ValueError: observations of the wrong shape or with NaN, or num_iterations < 1.
    InferenceError: the estimate is not finite.
    """
    if not isinstance(kernel, AbstractKernel):
        raise TypeError(f"kernel: expected one, such as a trained RecurrentMachine, got {type(kernel).__name__}")
    return iterate(key, kernel, kernel.observations(x), num_iterations, progress, throw)


def iterate(
    key: Key,
    kernel: AbstractKernel,
    x: jax.Array,
    num_iterations: int | None = None,
    progress: AbstractProgress | None = None,
    throw: bool = True,
) -> Solution[Any]:
    """`run` for observations that were checked before."""
    count = kernel.num_iterations if num_iterations is None else num_iterations
    reporter = progress or NoProgress()
    reporter.start("infer", count)
    try:
        size = bucket(len(x))
        weight = (np.arange(size) < len(x)).astype(np.float32)
        value, history, finite = _iterate(kernel, key, filled(x, size), weight, count)
        reporter.advance(count)
    finally:
        reporter.finish()
    solution = Solution(
        value,
        Status.SUCCESS if finite else Status.NOT_FINITE,
        {
            "num_observations": len(x),
            "num_iterations": count,
            "num_simulator_calls": count * kernel.calls_per_iteration(),
        },
        {name: np.asarray(values) for name, values in history.items()},
        kernel.doubts(x),
    )
    if throw and not finite:
        raise InferenceError(solution, "Look for extreme observations, and at the training's history.")
    return solution


@eqx.filter_jit
def _iterate(
    kernel: AbstractKernel, key: Key, x: Array, weight: Array, count: int
) -> tuple[Any, dict[str, jax.Array], jax.Array]:
    init_key, step_key = jax.random.split(key)
    state = kernel.init(init_key, jnp.asarray(x), jnp.asarray(weight))
    state, history = jax.lax.scan(lambda s, k: kernel.step(k, s), state, jax.random.split(step_key, count))
    value = kernel.estimate(state)
    leaves = jax.tree.leaves((value, history))
    return value, history, jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
