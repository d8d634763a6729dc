"""Does the posterior predict data like those observed? Data sets made at its draws, and a test against the real ones.

At each of n draws theta of the posterior two data sets of the observed size are simulated (posterior predictive check;
Rubin 1984, Gelman, Meng and Stern 1996). For a statistic T of a data set two things are asked.

    far    d = |T(x) - median| / the median of such distances among the simulated sets on the same side
           p = the share of simulated sets whose farthest statistic is at least as far as d

    spread s^2 = Var E[T | theta] / E Var[T | theta], over draws theta of the posterior

The first is two-sided, and corrected for the number of statistics: a simulated set is taken at its farthest (the
single-step maximum of Westfall and Young 1993). Where simulator and posterior are right, p below a level is at least as
rare as that in most cases, and often much rarer: the data were used before, to find the posterior (Meng 1994, Annals of
Statistics 22, 1142: for one statistic, at most twice the level).

No p-value of one data set shows a posterior that is too wide about the right place. The spread may. T(x) itself
estimates E[T | theta], with the variance Var[T | theta]; the mean of an exact posterior does no worse, on the average
over data sets, so that s^2 is at most 1 if numerator and denominator are averaged over them. Of one data set it may be
larger; beyond s = 2 the test fails. It is worked out from the rank correlation r of T between the two sets of a
draw, s^2 = r / (1 - r).

Blind to: what no statistic sees; a posterior that is too narrow about the right place, or less than twice too wide,
which `posterior_tests` sees over many simulated problems.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..answers.bayes.posterior import AbstractPosterior, not_a_posterior
from ..core.names import options_checked
from ..core.simulations import Simulations, as_observations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key
from ..methods.door import event_shape_of
from ..sample.simulate import not_a_simulator, simulate
from .discrepancies import Statistic, chosen, distances, sets_of, spread_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVEL = 0.01  # p-values below it fail
WIDEST = 2.0  # spread of a statistic above which the posterior is too wide
FEWEST_DRAWS = 50  # with statistics that are numbers, or nothing can be told


@dataclasses.dataclass(frozen=True)
class PredictiveTest:
    """Whether data look like what a posterior predicts, by k statistics.

    Fields
    ------
    columns: names of the statistics.
    observed: of the data `(k,)`.
    simulated: of two data sets at each of n draws `(n, 2, k)`.
    p_values: two-sided, corrected for their number `(k,)`.
    spread: how many times as far the posterior spreads a statistic as chance does `(k,)`; above 2 it is too wide.
    num_failed: draws at which the simulator failed, or a statistic of the simulated data was no finite number.
    level: a p-value below it fails.
    """

    columns: tuple[str, ...]
    observed: np.ndarray
    simulated: np.ndarray
    p_values: np.ndarray
    spread: np.ndarray
    num_failed: int
    level: float

    @property
    def conclusive(self) -> bool:
        """Whether enough draws are left to tell, and more than failed."""
        return len(self.simulated) >= max(FEWEST_DRAWS, self.num_failed)

    @property
    def statistic(self) -> float:
        """The largest distance of a statistic of the data from the median of the simulated ones."""
        return float(distances(self.observed, sets_of(self.simulated)).max())

    @property
    def p_value(self) -> float:
        return float(self.p_values.min())

    @property
    def passed(self) -> bool:
        return self.conclusive and self.p_value >= self.level and float(self.spread.max()) <= WIDEST

    @property
    def message(self) -> str:
        if not self.conclusive:
            return (
                f"Nothing can be told: {len(self.simulated)} draws have statistics, and {self.num_failed} failed; at "
                f"least {FEWEST_DRAWS} are needed, and as many as failed. Use more draws, or mend the simulator there."
            )
        told = [self._far(), *self._wide()]
        if self.num_failed:
            told.append(f"{self.num_failed} draws, at which the simulator or a statistic failed, were left out.")
        return " ".join(told)

    def _far(self) -> str:
        count = f"{len(self.columns)} statistic{'s' * (len(self.columns) != 1)}"
        if self.p_value >= self.level:
            return f"The data look like what the posterior predicts, by {count} (p = {self.p_value:.2g})."
        bad = [i for i in np.argsort(self.p_values, kind="stable") if self.p_values[i] < self.level]
        low, middle, high = np.quantile(sets_of(self.simulated), [0.025, 0.5, 0.975], axis=0)
        faults = [
            f"{self.columns[i]} is too {'high' if self.observed[i] > middle[i] else 'low'}: {self.observed[i]:.4g}, "
            f"95 % of predictions from {low[i]:.4g} to {high[i]:.4g}"
            for i in bad[:3]
        ]
        more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
        start = f"The data do not look like what the posterior predicts, by {count} (p = {self.p_value:.2g})"
        return f"{start}: {'; '.join(faults)}{more}."

    def _wide(self) -> list[str]:
        worst = int(np.argmax(self.spread))
        if self.spread[worst] <= WIDEST:
            return []
        return [
            f"The posterior is wider than such data leave it: it spreads {self.columns[worst]} "
            f"{self.spread[worst]:.3g} times as far as chance does ({WIDEST:g} allowed)."
        ]

    def to_dict(self) -> dict[str, Any]:
        """All that is worth keeping as JSON."""
        low, middle, high = np.quantile(sets_of(self.simulated), [0.025, 0.5, 0.975], axis=0).tolist()
        return {
            "test": "predictive",
            "columns": list(self.columns),
            "observed": self.observed.tolist(),
            "predicted": {"q025": low, "q50": middle, "q975": high},
            "p_values": self.p_values.tolist(),
            "spread": [float(value) if np.isfinite(value) else None for value in self.spread],
            "num_draws": len(self.simulated),
            "num_failed": self.num_failed,
            "level": self.level,
            "passed": self.passed,
            "message": self.message,
        }

    def plot(self, ax: "Axes") -> "Axes":
        """Every statistic on a line of its own, in units of half the width of the central 95 % of predictions."""
        low, middle, high = np.quantile(sets_of(self.simulated), [0.025, 0.5, 0.975], axis=0)
        unit = np.where(high > low, (high - low) / 2, 1.0)
        rows = np.arange(len(self.columns))
        ends = (low - middle) / unit, (high - low) / unit
        ax.barh(rows, ends[1], left=ends[0], height=0.6, color="0.85", label="95 % of predictions")
        place = (self.observed - middle) / unit
        for bad, color, label in [(False, "#222222", "data"), (True, "#c0392b", f"data, p < {self.level:g}")]:
            chosen = (self.p_values < self.level) == bad
            if chosen.any():
                ax.plot(place[chosen], rows[chosen], "o", color=color, ms=4, label=label)
        ax.set(yticks=rows, xlabel="distance from the median of predictions", ylim=(len(rows) - 0.4, -0.6))
        ax.set_yticklabels(self.columns, fontsize=8 if len(rows) <= 16 else 5)
        ax.legend(fontsize=8, frameon=False)
        return ax


@options_checked()
def posterior_predictive(
    key: Key,
    simulator: AbstractSimulator,
    posterior: AbstractPosterior,
    *,
    num_draws: int = 1000,
    num_observations: int = 1,
) -> Simulations:
    """Data sets made at draws of a posterior.

    Parameters
    ----------
    key: random key.
    simulator: what to run; it may be another than the posterior's, with the same parameters.
    posterior: that theta is drawn from.
    num_draws: n, of theta, with one data set each.
    num_observations: m, in each data set.

    Returns
    -------
    Simulations with theta `(n, dim)` and x `(n, m, *event)`. Rows that failed are dropped, and listed in `failures`.

    Raises
    ------
    TypeError: no posterior, no simulator.
    ValueError: other parameters than the simulator's, or a draw outside the support of its prior.
    SimulationError: more than half of the rows failed.
    """
    _check(simulator, posterior)
    theta_key, x_key = jax.random.split(key)
    theta = np.asarray(posterior.sample(theta_key, num_draws))
    return simulate(x_key, simulator, theta=theta, num_observations=num_observations)


@options_checked()
def predictive_test(
    key: Key,
    simulator: AbstractSimulator,
    posterior: AbstractPosterior,
    x: Array,
    *,
    num_draws: int = 500,
    statistics: Mapping[str, Statistic] | None = None,
    level: float = LEVEL,
) -> PredictiveTest:
    """Whether data look like what a posterior predicts; see the top of this page.

    Parameters
    ----------
    key: random key.
    simulator, posterior: as in `posterior_predictive`.
    x: the data `(m, *event)`.
    num_draws: n, of theta; 2 n data sets are simulated.
    statistics: name -> function of a data set `(m, *event)`, in NumPy, that gives a number. If None: of two
        observations or more the mean, standard deviation, minimum and maximum of every component; of a single one its
        components. Where those are more than 64, their mean, standard deviation, minimum and maximum stand for them.
    level: a p-value below it fails.

    Raises
    ------
    ValueError: data of the wrong shape or with NaN, a statistic of the data that is no finite number, a level that is
        not between 0 and 1; and see `posterior_predictive`.
    TypeError: statistics that are no mapping of names to functions.
    SimulationError: more than half of the simulations failed.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}")
    _check(simulator, posterior)
    x = as_observations(x, event_shape_of(simulator), f"the simulator {simulator.name!r}")
    data = np.asarray(x, np.float64)
    columns, evaluate = chosen(statistics, data.shape[1:], len(data))
    observed = evaluate(data[None])[0]
    if not np.isfinite(observed).all():
        bad = columns[int(np.argmin(np.isfinite(observed)))]
        raise ValueError(f"statistics: {bad!r} of the data is no finite number; choose another, or mend the data")
    sims = posterior_predictive(key, simulator, posterior, num_draws=num_draws, num_observations=2 * len(data))
    sets = np.asarray(sims.x, np.float64).reshape(-1, *data.shape)
    return _tested(columns, observed, evaluate(sets).reshape(len(sims), 2, -1), len(sims.failures), level)


def _check(simulator: AbstractSimulator, posterior: AbstractPosterior) -> None:
    if not isinstance(simulator, AbstractSimulator):
        raise not_a_simulator(simulator)
    if not isinstance(posterior, AbstractPosterior):
        raise not_a_posterior(posterior)
    if posterior.prior.columns != simulator.prior.columns:
        raise ValueError(
            f"the posterior is of {', '.join(posterior.prior.columns)}, and the simulator {simulator.name!r} takes "
            f"{', '.join(simulator.prior.columns)}; give the simulator that the posterior was made for"
        )


def _tested(
    columns: tuple[str, ...], observed: np.ndarray, simulated: np.ndarray, failed: int, level: float
) -> PredictiveTest:
    whole = np.asarray(np.isfinite(simulated).all(axis=(1, 2)))
    simulated, failed = simulated[whole], failed + int((~whole).sum())
    if len(simulated) < 2:
        raise ValueError(f"statistics: of {len(whole)} draws {len(simulated)} have statistics that are finite numbers")
    sets = sets_of(simulated)
    farthest = distances(sets, sets).max(axis=1)
    at_least = np.sum(farthest >= distances(observed, sets)[:, None], axis=1)
    p_values = (1 + at_least) / (1 + len(sets))
    return PredictiveTest(columns, observed, simulated, p_values, spread_of(simulated), failed, level)
