"""Tests that posteriors must pass on simulations: ranks, coverage of highest-density regions, TARP. Pure functions.

Each places the truth theta* of n simulated problems in the posterior of its own data, by a number between 0 and 1 that
is uniform over problems where the posteriors are exact. How far the numbers are from uniform is judged by Kolmogorov's
test; what it looks like says what is wrong.

| test            | the place of theta*                                    | source                                |
|-----------------|--------------------------------------------------------|---------------------------------------|
| `rank_test`     | its rank among draws, parameter by parameter (SBC)     | Talts et al. 2018, arXiv:1804.06788   |
| `coverage_test` | the level of the densest region that ends where it is  | Hermans et al. 2022, arXiv:2110.06581 |
| `tarp_test`     | the share of draws nearer than it to a point at random | Lemos et al. 2023, arXiv:2302.03026   |

A posterior that is the prior, whatever the data, passes the first two: they say whether widths are true, not whether
they are small. TARP, with points that depend on the data, may see it.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import jax
import numpy as np
from scipy.stats import kstest, kstwo

from ..answers.answer import posterior
from ..answers.bayes.posterior import AbstractPosterior
from ..answers.bayes.product import AbstractSampler
from ..answers.bayes.sampling.tempered import Tempered
from ..answers.estimates import AbstractAmortised, AbstractEstimator, AbstractRatio
from ..core.names import options_checked
from ..core.progress import AbstractProgress, NoProgress
from ..core.solution import Array, Key, Solution
from ..sample.simulate import simulate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVEL = 0.01  # p-values below it fail
FEWEST_SAMPLED = 1024  # draws of a posterior that is sampled, of which half or more count; at least 3 for each wanted


@dataclasses.dataclass(frozen=True)
class UniformityTest:
    """Whether the places of the truth are uniform.

    Fields
    ------
    name: "rank", "coverage" or "tarp".
    columns: what was placed: the parameters, or all of them together.
    places: `(n, k)`, numbers in [0, 1].
    p_values: Kolmogorov's `(k,)`, already multiplied by k.
    level: a p-value below it fails; an exact posterior fails so often by chance.
    """

    name: str
    columns: tuple[str, ...]
    places: np.ndarray
    p_values: np.ndarray
    level: float

    @property
    def statistic(self) -> float:
        """The largest distance of a distribution function from the uniform one."""
        return float(max(kstest(column, "uniform").statistic for column in self.places.T))

    @property
    def p_value(self) -> float:
        return float(min(1.0, self.p_values.min()))

    @property
    def passed(self) -> bool:
        return self.p_value >= self.level

    @property
    def message(self) -> str:
        told = f"{self.name}: over {len(self.places)} problems"
        if self.passed:
            return f"{told} the truth lies where it should (p = {self.p_value:.2g})."
        bad = [i for i in range(len(self.columns)) if self.p_values[i] < self.level]
        faults = ", ".join(f"{self.columns[i]} {self._fault(self.places[:, i])}" for i in bad)
        return f"{told} the truth does not lie where it should (p = {self.p_value:.2g}): {faults}."

    def _fault(self, places: np.ndarray) -> str:
        """What kind of posteriors give such places."""
        n, shift = len(places), places.mean() - 0.5
        if self.name == "coverage":
            return "too narrow" if shift > 0 else "too wide"
        spread = np.mean((places - 0.5) ** 2) - 1 / 12
        if abs(shift) * np.sqrt(12 * n) > abs(spread) * np.sqrt(180 * n):  # each in its own standard errors
            return ("too low" if shift > 0 else "too high") if self.name == "rank" else "off"
        return "too narrow" if spread > 0 else "too wide"

    def to_dict(self) -> dict[str, Any]:
        """All that is worth keeping as JSON."""
        return {
            "test": self.name,
            "columns": list(self.columns),
            "num_problems": len(self.places),
            "statistic": self.statistic,
            "p_values": self.p_values.tolist(),
            "passed": self.passed,
            "message": self.message,
        }

    def plot(self, ax: "Axes") -> "Axes":
        """The distribution functions minus the uniform one, and the band that `1 - level` of exact ones keep to."""
        n, k = self.places.shape
        band = float(kstwo.ppf(1 - self.level / k, n))
        ax.axhspan(-band, band, color="0.9", label=f"{100 * (1 - self.level):g} % of exact posteriors")
        for column, places in zip(self.columns, self.places.T, strict=True):
            ax.step(np.sort(places), np.arange(1, n + 1) / n - np.sort(places), where="post", label=column)
        ax.set(title=self.name, xlabel="place of the truth", ylabel="share below it - expected", xlim=(0, 1))
        ax.legend(fontsize=8, frameon=False)
        return ax


def trained(estimator: AbstractEstimator | Solution[Any]) -> AbstractEstimator:
    """The estimator of a solution, or itself; raises `TypeError` for what is neither."""
    net = estimator.value if isinstance(estimator, Solution) else estimator
    if not isinstance(net, AbstractEstimator):
        raise TypeError(f"estimator: expected what `train` returned, got {type(net).__name__}")
    return net


def problems(
    key: Key, net: AbstractEstimator, num_problems: int, num_draws: int, num_observations: int | None,
    sampler: AbstractSampler | None, progress: AbstractProgress | None,
) -> Iterator[tuple[np.ndarray, np.ndarray, AbstractPosterior, Key]]:  # fmt: skip
    """Theta `(dim,)` from the prior, data `(m, *event)`, their posterior, and a key to draw so many of it with."""
    if sampler is None and isinstance(net, AbstractRatio):
        sampler = Tempered(num_draws=max(FEWEST_SAMPLED, 3 * num_draws))
    reporter = progress or NoProgress()
    data_key, draw_key = jax.random.split(key)
    theta, x = simulated(data_key, net, num_problems, num_observations, reporter)
    reporter.start("check", len(theta))
    for row in range(len(theta)):
        posterior_key, sample_key = jax.random.split(jax.random.fold_in(draw_key, row))
        yield theta[row], x[row], posterior(net, x[row], key=posterior_key, sampler=sampler), sample_key
        reporter.advance(1)
    reporter.finish()


def simulated(
    key: Key, net: AbstractEstimator, num_problems: int, num_observations: int | None, progress: AbstractProgress
) -> tuple[np.ndarray, np.ndarray]:
    """Theta `(n, dim)` from the prior, and data `(n, m, *event)` of the size that the estimator is for."""
    count = num_observations or getattr(net, "num_observations", 1)
    sims = simulate(key, net.simulator, num_simulations=num_problems, num_observations=count, progress=progress)
    return np.asarray(sims.theta), np.asarray(sims.x)


def rank_test(theta: Array, draws: Array, *, columns: Sequence[str] = (), level: float = LEVEL) -> UniformityTest:
    """Simulation-based calibration: the rank of the truth among draws, in every parameter.

    Parameters
    ----------
    theta: the truth `(n, dim)`, drawn from the prior.
    draws: of the posterior given data made at each `(n, S, dim)`.
    columns: names of the parameters.
    level: see `UniformityTest`.

    Raises
    ------
    ValueError: shapes that do not fit, or NaN.
    """
    theta, draws = _checked(theta, draws)
    below = (draws < theta[:, None]).sum(axis=1)
    names = tuple(columns) or tuple(f"theta[{i}]" for i in range(theta.shape[1]))
    return _tested("rank", names, _placed(below, draws.shape[1]), level)


def coverage_test(log_prob: Array, log_prob_of_draws: Array, *, level: float = LEVEL) -> UniformityTest:
    """Expected coverage: the share of draws of higher density than the truth.

    Parameters
    ----------
    log_prob: of the truth in the posterior of its data `(n,)`, up to a constant of each problem.
    log_prob_of_draws: `(n, S)`, with the same constants.
    level: see `UniformityTest`.
    """
    truth, draws = _checked(np.asarray(log_prob)[:, None], np.asarray(log_prob_of_draws)[..., None], infinite=True)
    return _tested("coverage", ("all together",), _placed((draws > truth[:, None]).sum(axis=1), draws.shape[1]), level)


def tarp_test(theta: Array, draws: Array, *, points: Array | None = None, level: float = LEVEL) -> UniformityTest:
    """Tests of accuracy with random points: the share of draws nearer to a point than the truth is.

    Parameters
    ----------
    theta, draws, level: as in `rank_test`; distances are in standard deviations of theta.
    points: `(n, dim)`, chosen without knowing theta; the truths of other problems if None.
    """
    theta, draws = _checked(theta, draws)
    points = np.roll(theta, 1, axis=0) if points is None else np.asarray(points, np.float64)
    if points.shape != theta.shape:
        raise ValueError(f"points: expected one for each problem, {theta.shape}, got {points.shape}")
    unit = np.maximum(theta.std(axis=0), 1e-30)
    distance = lambda at: np.sum(((at - points.reshape(len(at), *[1] * (at.ndim - 2), -1)) / unit) ** 2, axis=-1)
    nearer = (distance(draws) < distance(theta)[:, None]).sum(axis=1)
    return _tested("tarp", ("all together",), _placed(nearer[:, None], draws.shape[1]), level)


@options_checked()
def posterior_tests(
    key: Key,
    estimator: AbstractEstimator | Solution[Any],
    *,
    num_problems: int = 300,
    num_draws: int = 300,
    num_observations: int | None = None,
    sampler: AbstractSampler | None = None,
    progress: AbstractProgress | None = None,
) -> tuple[UniformityTest, ...]:
    """Ranks, coverage and TARP of an estimator's posteriors, on fresh simulations at draws from the prior.

    Parameters
    ----------
    key: random key.
    estimator: what `train` returned, or its value; its simulator makes the problems.
    num_problems: simulated data sets.
    num_draws: of the posterior of each.
    num_observations: in each data set; 1 if None, or what the estimator is for.
    sampler: for estimators of a ratio or likelihood, as in `posterior`. If None it is `Tempered` with 1,024 draws, or 3
        for each of `num_draws`: a seventh of the time of its default, with which single posteriors are sampled.
    progress: told about every problem, but where an estimator answers for many at a time, which takes seconds.

    Raises
    ------
    TypeError: a sampler for an estimator that has its posterior at once.
    ValueError: a number of observations that the estimator is not for.
    """
    net = trained(estimator)
    if isinstance(net, AbstractAmortised) and sampler is None:
        placed = _all_at_once(key, net, num_problems, num_draws, num_observations, progress)
    else:
        placed = _one_by_one(key, net, num_problems, num_draws, num_observations, sampler, progress)
    theta, draws, densities = placed
    names = net.prior.columns
    coverage = coverage_test(densities[:, 0], densities[:, 1:])
    return rank_test(theta, draws, columns=names), coverage, tarp_test(theta, draws)


# theta (n, dim), draws (n, S, dim), log densities of both (n, 1 + S)
Placed = tuple[np.ndarray, np.ndarray, np.ndarray]


def _all_at_once(
    key: Key, net: AbstractAmortised, num_problems: int, num_draws: int, num_observations: int | None,
    progress: AbstractProgress | None,
) -> Placed:  # fmt: skip
    data_key, draw_key = jax.random.split(key)
    theta, x = simulated(data_key, net, num_problems, num_observations, progress or NoProgress())
    draws = np.asarray(net.sample(draw_key, x, num_draws))
    densities = net.log_prob(np.concatenate([theta[None], draws]), x)
    return theta, np.swapaxes(draws, 0, 1), np.asarray(densities).T


def _one_by_one(
    key: Key, net: AbstractEstimator, num_problems: int, num_draws: int, num_observations: int | None,
    sampler: AbstractSampler | None, progress: AbstractProgress | None,
) -> Placed:  # fmt: skip
    theta, draws, densities = [], [], []
    for true, _, found, sample_key in problems(key, net, num_problems, num_draws, num_observations, sampler, progress):
        drawn = np.asarray(found.sample(sample_key, num_draws))
        densities.append(np.asarray(found.log_prob(np.concatenate([true[None], drawn]))))
        theta.append(true)
        draws.append(drawn)
    return np.stack(theta), np.stack(draws), np.stack(densities)


class Plotted(Protocol):
    """What has a picture of itself."""

    def plot(self, ax: "Axes") -> "Axes":
        """Drawn there."""
        ...


def plot_tests(tests: Sequence[Plotted], path: str | Path | None = None) -> Any:
    """All of them side by side, as a figure; saved where a path is given."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(tests), 3.6), layout="constrained")
    for axes, test in zip(figure.subplots(1, len(tests), squeeze=False)[0], tests, strict=True):
        test.plot(axes)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _placed(below: np.ndarray, count: int) -> np.ndarray:
    """From ranks 0 ... count to numbers that are uniform where ranks are: within its own step, by a fixed lot."""
    return (below + np.random.default_rng(0).uniform(size=below.shape)) / (count + 1)


def _tested(name: str, columns: tuple[str, ...], places: np.ndarray, level: float) -> UniformityTest:
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}")
    if places.shape[1] != len(columns):
        raise ValueError(f"columns: expected {places.shape[1]} names, got {len(columns)}")
    p_values = np.array([kstest(column, "uniform").pvalue for column in places.T]) * len(columns)
    return UniformityTest(name, columns, places, np.minimum(p_values, 1.0), level)


def _checked(theta: Array, draws: Array, infinite: bool = False) -> tuple[np.ndarray, np.ndarray]:
    truth, drawn = np.asarray(theta, np.float64), np.asarray(draws, np.float64)
    if truth.ndim != 2 or drawn.ndim != 3 or drawn.shape[::2] != truth.shape:
        raise ValueError(f"expected the truth (n, dim) and draws (n, S, dim), got {truth.shape} and {drawn.shape}")
    if len(truth) < 2:
        raise ValueError(f"expected at least 2 problems, got {len(truth)}")
    good = (lambda values: ~np.isnan(values)) if infinite else np.isfinite
    bad = ~np.concatenate([good(each).reshape(len(truth), -1) for each in (truth, drawn)], axis=1).all(axis=1)
    if bad.any():
        raise ValueError(f"{bad.sum()} of {len(truth)} problems have NaN or infinity, the first in row {bad.argmax()}")
    return truth, drawn
