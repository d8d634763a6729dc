"""How well a trained machine estimates: errors and coverage over many problems, beside exact yardsticks."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..answers.bayes.posterior import MixturePosterior
from ..answers.bayes.space import Space
from ..core.solution import Key
from ..methods.machine import RecurrentMachine, trajectories
from ..sample.black_box import AbstractJaxSimulator
from ..sample.simulate import simulate


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Estimates of one machine on test problems.

    Fields
    ------
    theta: the truth `(n, dim)`.
    x: the observations `(n, m, *event)`.
    mean: E_q[theta] after each of `iterations`, `(len(iterations), n, dim)`.
    low, high: central 95 % intervals, likewise.
    yardstick: the exact posterior mean, or the maximum likelihood estimate, `(n, dim)`.
    iterations: numbers of iterations at which the estimates were read.
    """

    theta: np.ndarray
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    yardstick: np.ndarray
    iterations: tuple[int, ...]

    def errors(self, at: int = 0) -> np.ndarray:
        """|E_q[theta] - theta*| `(n, dim)`."""
        return np.abs(self.mean[at] - self.theta)

    @property
    def yardstick_errors(self) -> np.ndarray:
        return np.abs(self.yardstick - self.theta)

    def rmse(self, at: int = 0) -> np.ndarray:
        """Root mean squared error `(dim,)`."""
        return np.sqrt(np.mean(self.errors(at) ** 2, axis=0))

    def rmse_ratio(self, at: int = 0) -> np.ndarray:
        """RMSE over that of the yardstick `(dim,)`."""
        return self.rmse(at) / np.sqrt(np.mean(self.yardstick_errors**2, axis=0))

    def quantile_ratio(self, level: float, at: int = 0) -> np.ndarray:
        """A quantile of the absolute error over that of the yardstick's `(dim,)`."""
        return np.quantile(self.errors(at), level, axis=0) / np.quantile(self.yardstick_errors, level, axis=0)

    def coverage(self, at: int = 0) -> np.ndarray:
        """Share of problems whose truth lies in the 95 % interval `(dim,)`."""
        return np.mean((self.low[at] <= self.theta) & (self.theta <= self.high[at]), axis=0)


def evaluate(
    key: Key,
    machine: RecurrentMachine,
    simulator: AbstractJaxSimulator,
    *,
    num_problems: int = 1000,
    num_observations: int = 100,
    iterations: tuple[int, ...] | None = None,
    yardstick: str = "posterior_mean",
) -> Evaluation:
    """Run a machine on fresh problems from the prior.

    Parameters
    ----------
    iterations: numbers of iterations at which to read the estimates; the machine's own by default.
    yardstick: which exact answer of the simulator to compare with, `posterior_mean` or `mle`.

    Raises
    ------
    ValueError: the simulator has no such exact answer.
    """
    exact = getattr(simulator.exact, yardstick)
    if exact is None:
        raise ValueError(f"the simulator {simulator.name!r} has no exact {yardstick}")
    data_key, run_key = jax.random.split(key)
    sims = simulate(data_key, simulator, num_simulations=num_problems, num_observations=num_observations)
    counts = iterations or (machine.num_iterations,)
    psi = trajectories(machine, run_key, sims.x, max(counts))
    mean, interval = _estimates(machine.space, psi[:, np.asarray(counts) - 1].swapaxes(0, 1))
    return Evaluation(
        np.asarray(sims.theta),
        np.asarray(sims.x),
        np.asarray(mean),
        np.asarray(interval[:, :, 0]),
        np.asarray(interval[:, :, 1]),
        np.asarray(_over_sets(exact, sims.x)),
        counts,
    )


@eqx.filter_jit
def _summaries(space: Space, psi: jax.Array) -> tuple[jax.Array, jax.Array]:
    def one(psi: jax.Array) -> tuple[jax.Array, jax.Array]:
        proposal = MixturePosterior(space, psi[None])
        return proposal.mean, proposal.interval(0.95)

    return jax.lax.map(jax.vmap(one), psi)


def _estimates(space: Space, psi: jax.Array) -> tuple[jax.Array, ...]:
    """Means `(k, n, dim)` and 95 % intervals `(k, n, 2, dim)` for psi `(k, n, p)`, in blocks to bound memory."""
    blocks = [_summaries(space, psi[:, start : start + 250]) for start in range(0, psi.shape[1], 250)]
    return tuple(jnp.concatenate(parts, axis=1) for parts in zip(*blocks, strict=True))


def _over_sets(function, x: jax.Array) -> jax.Array:
    return _mapped(function)(x)


@functools.lru_cache(maxsize=32)
def _mapped(function):
    return jax.jit(lambda x: jax.lax.map(function, x, batch_size=50))
