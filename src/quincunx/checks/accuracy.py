"""How well a trained machine estimates: errors and coverage over many problems, beside exact answers where known."""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..answers.bayes.posterior import MixturePosterior
from ..answers.bayes.space import Space
from ..core.names import options_checked
from ..core.solution import Key, Solution
from ..methods.recurrent.machine import RecurrentMachine, trajectories
from ..sample.black_box import AbstractJaxSimulator
from ..sample.simulate import simulate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

YARDSTICKS = ("posterior_mean", "mle")


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Estimates of one machine on test problems.

    Fields
    ------
    columns: the parameters.
    theta: the truth `(n, dim)`.
    x: the observations `(n, m, *event)`.
    mean: E_q[theta] after each of `iterations`, `(len(iterations), n, dim)`.
    std: standard deviation of q, likewise.
    low, high: central 95 % intervals, likewise.
    yardstick: the exact posterior mean, or the maximum likelihood estimate, `(n, dim)`; None where neither is known.
    iterations: numbers of iterations at which the estimates were read.
    """

    columns: tuple[str, ...]
    theta: np.ndarray
    x: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    yardstick: np.ndarray | None
    iterations: tuple[int, ...]

    def errors(self, at: int = 0) -> np.ndarray:
        """|E_q[theta] - theta*| `(n, dim)`."""
        return np.abs(self.mean[at] - self.theta)

    @property
    def yardstick_errors(self) -> np.ndarray:
        """The same of the yardstick; raises `ValueError` where there is none."""
        if self.yardstick is None:
            raise ValueError("no exact answer is known for this simulator; look at rmse() and coverage()")
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

    def std_ratio(self, at: int = 0) -> np.ndarray:
        """Root mean squared standard deviation over the RMSE `(dim,)`: 1 for widths that are true on the average."""
        return np.sqrt(np.mean(self.std[at] ** 2, axis=0)) / self.rmse(at)

    def coverage(self, at: int = 0) -> np.ndarray:
        """Share of problems whose truth lies in the 95 % interval `(dim,)`."""
        return np.mean((self.low[at] <= self.theta) & (self.theta <= self.high[at]), axis=0)

    def summary(self) -> dict[str, dict[str, float]]:
        """Per column of theta: RMSE, coverage of 95 % intervals, widths over errors, RMSE over the yardstick's."""
        rows = {"rmse": self.rmse(), "coverage_95": self.coverage(), "std_ratio": self.std_ratio()}
        if self.yardstick is not None:
            rows["rmse_ratio"] = self.rmse_ratio()
        return {
            column: {name: float(values[i]) for name, values in rows.items()} for i, column in enumerate(self.columns)
        }

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Estimates and their 95 % intervals against the truth, for every parameter; saved where a path is given."""
        from matplotlib.figure import Figure

        count = len(self.columns)
        figure = Figure(figsize=(4 * count, 4), layout="constrained")
        for i, axes in enumerate(figure.subplots(1, count, squeeze=False)[0]):
            truth, middle = self.theta[:, i], self.mean[0, :, i]
            bars: Any = np.abs(np.stack([self.low[0, :, i], self.high[0, :, i]]) - middle)
            axes.errorbar(truth, middle, bars, fmt=".", ms=3, lw=0.6, alpha=0.5)
            axes.plot([truth.min(), truth.max()], [truth.min(), truth.max()], color="black", lw=1)
            axes.set(xlabel=f"true {self.columns[i]}", ylabel="estimate, 95 %")
            axes.set_title(f"{100 * self.coverage()[i]:.0f} % of {len(truth)} intervals hold the truth", fontsize=10)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure


@options_checked()
def accuracy(
    key: Key,
    estimator: RecurrentMachine | Solution[Any],
    *,
    num_problems: int = 200,
    num_observations: int = 100,
    iterations: tuple[int, ...] | None = None,
    yardstick: str | None = None,
) -> Accuracy:
    """Run a machine on fresh problems from the prior.

    Parameters
    ----------
    key: random key.
    estimator: a trained machine, or the solution that `train` returned; its simulator makes the problems.
    num_problems: data sets.
    num_observations: in each.
    iterations: numbers of iterations at which to read the estimates; the machine's own by default.
    yardstick: which exact answer of the simulator to compare with, `posterior_mean` or `mle`; by default the first that
        it has.

    Raises
    ------
    TypeError: an estimator that gives no posterior.
    ValueError: the simulator has no such exact answer.
    """
    machine = estimator.value if isinstance(estimator, Solution) else estimator
    if not isinstance(machine, RecurrentMachine):
        raise TypeError(
            f"accuracy is that of posteriors: expected a trained machine, got {type(machine).__name__}; the coverage "
            "of regions is counted by qx.coverage_map"
        )
    exact = _exact(machine.simulator, yardstick)
    data_key, run_key = jax.random.split(key)
    sims = simulate(data_key, machine.simulator, num_simulations=num_problems, num_observations=num_observations)
    counts = iterations or (machine.num_iterations,)
    psi = trajectories(machine, run_key, sims.x, max(counts))
    mean, std, interval = _estimates(machine.space, psi[:, np.asarray(counts) - 1].swapaxes(0, 1))
    return Accuracy(
        machine.prior.columns,
        np.asarray(sims.theta),
        np.asarray(sims.x),
        np.asarray(mean),
        np.asarray(std),
        np.asarray(interval[:, :, 0]),
        np.asarray(interval[:, :, 1]),
        None if exact is None else np.asarray(_over_sets(exact, sims.x)),
        counts,
    )


def _exact(simulator: Any, yardstick: str | None) -> Any:
    """The exact answer of that name, or the first that there is, or None."""
    known = simulator.exact if isinstance(simulator, AbstractJaxSimulator) else None
    found = {name: function for name in YARDSTICKS if (function := getattr(known, name, None)) is not None}
    if yardstick is None:
        return next(iter(found.values()), None)
    if yardstick not in found:
        raise ValueError(
            f"the simulator {simulator.name!r} has no exact {yardstick}; it has {', '.join(found) or 'none'}"
        )
    return found[yardstick]


@eqx.filter_jit
def _summaries(space: Space, psi: jax.Array) -> tuple[jax.Array, ...]:
    def one(psi: jax.Array) -> tuple[jax.Array, ...]:
        proposal = MixturePosterior(space, psi[None])
        return proposal.mean, proposal.std, proposal.interval(0.95)

    return jax.lax.map(jax.vmap(one), psi)


def _estimates(space: Space, psi: jax.Array) -> tuple[jax.Array, ...]:
    """Means and deviations `(k, n, dim)`, 95 % intervals `(k, n, 2, dim)`, for psi `(k, n, p)`; blocks bound memory."""
    blocks = [_summaries(space, psi[:, start : start + 250]) for start in range(0, psi.shape[1], 250)]
    return tuple(jnp.concatenate(parts, axis=1) for parts in zip(*blocks, strict=True))


def _over_sets(function, x: jax.Array) -> jax.Array:
    return _mapped(function)(x)


@functools.lru_cache(maxsize=32)
def _mapped(function):
    return jax.jit(lambda x: jax.lax.map(function, x, batch_size=50))
