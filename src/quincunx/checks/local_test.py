"""Is the posterior right for these data? A test at one x, where ranks and coverage are averages over all x.

    f(z, x) = 1 for theta that made x, -1 for theta drawn from q(. | x), as well as it can be told
    z       = (theta - mean of q(. | x)) / its standard deviations, by further draws
    t       = mean of f(z, x_o)^2 over draws of q(. | x_o)

Where q is the posterior, nothing can be told: f is about 0. How large t becomes by chance is known from the same
regression with the two thetas of each x exchanged at random, which changes nothing if q is right (local classifier
two-sample test; Linhart, Gramfort and Rodrigues 2023, arXiv:2306.03580). The classifier is a ridge regression on random
features of both, solved once for all exchanges. It sees all of z, and of x what `_summaries` says: theta in the units
of its own posterior is as easy to judge from a thousand observations as from one.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..answers.answer import posterior
from ..answers.bayes.product import AbstractSampler
from ..answers.estimates import AbstractEstimator
from ..core.names import options_checked
from ..core.progress import AbstractProgress
from ..core.solution import Array, Key, Solution, rng_of
from .classifier import MOST_COMPONENTS, features_of
from .posterior_tests import problems, trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVEL = 0.01  # a p-value below it fails
NUM_DRAWS = 1000  # of the posterior in question, and as many that say where it is
NUM_EACH = 101  # of the posterior of every problem: one to compare, the others say where it is
RIDGE = 1.0
MOST_EXCESS = 0.9


@dataclasses.dataclass(frozen=True)
class LocalTest:
    """Whether a posterior is right for one data set.

    Fields
    ------
    statistic: t, between 0 and about 1.
    by_chance: the same `(k,)` of regressions with thetas exchanged at random.
    level: a p-value below it fails; an exact posterior fails so often by chance.
    draws: theta `(n, dim)` of the posterior.
    excess: f `(n,)` there: above 0 where theta is likelier than the posterior says.
    columns: the names of the parameters.
    """

    statistic: float
    by_chance: np.ndarray
    level: float
    draws: np.ndarray
    excess: np.ndarray
    columns: tuple[str, ...]

    @property
    def p_value(self) -> float:
        return float((1 + np.sum(self.by_chance >= self.statistic)) / (1 + len(self.by_chance)))

    @property
    def passed(self) -> bool:
        return self.p_value >= self.level

    @property
    def message(self) -> str:
        told = f"local: thetas that made data like these and draws of the posterior (p = {self.p_value:.2g})"
        if self.passed:
            return f"{told} cannot be told apart."
        faults = "; ".join(
            f"{name} should be {move:+.2f} standard deviations from where it is, and {times:.2f} times as wide"
            for name, move, times in zip(self.columns, *self.fault, strict=True)
        )
        return f"{told} can be told apart. As far as the classifier sees: {faults}."

    @property
    def fault(self) -> tuple[np.ndarray, np.ndarray]:
        """By how many of its standard deviations each parameter is off `(dim,)`, and how wide it should be `(dim,)`.

        By weighting the draws with the ratio of densities (1 + f) / (1 - f) that the classifier found.
        """
        f = np.clip(self.excess, -MOST_EXCESS, MOST_EXCESS)
        mean, std = self.draws.mean(axis=0), self.draws.std(axis=0)
        weight = (1 + f) / (1 - f)
        true_mean = np.average(self.draws, axis=0, weights=weight)
        true_std = np.sqrt(np.average((self.draws - true_mean) ** 2, axis=0, weights=weight))
        return (true_mean - mean) / std, true_std / std

    def to_dict(self) -> dict[str, Any]:
        """All that is worth keeping as JSON."""
        shift, width = (dict(zip(self.columns, each.tolist(), strict=True)) for each in self.fault)
        return {
            "test": "local",
            "columns": list(self.columns),
            "statistic": self.statistic,
            "p_value": self.p_value,
            "shift": shift,
            "width": width,
            "passed": self.passed,
            "message": self.message,
        }

    def plot(self, ax: "Axes") -> "Axes":
        """The statistic among those by chance."""
        ax.hist(self.by_chance, bins=30, color="0.8", label="exact posteriors")
        ax.axvline(self.statistic, color="C3", label="this one")
        ax.set(title="local", xlabel="how well the two can be told apart")
        ax.legend(fontsize=8, frameon=False)
        return ax


@options_checked()
def local_test(
    key: Key,
    estimator: AbstractEstimator | Solution[Any],
    x: Array,
    *,
    num_problems: int = 2000,
    num_exchanges: int = 500,
    sampler: AbstractSampler | None = None,
    level: float = LEVEL,
    progress: AbstractProgress | None = None,
) -> LocalTest:
    """Test the posterior of one data set by simulations of others.

    Parameters
    ----------
    key: random key.
    estimator: what `train` returned, or its value; its simulator makes the problems.
    x: observations `(m, *event)` whose posterior is in question.
    num_problems: simulated data sets of as many observations.
    num_exchanges: random exchanges that say what happens by chance.
    sampler: see `posterior_tests`.
    level: a p-value below it fails.
    progress: told about every problem.

    Raises
    ------
    ValueError: observations of the wrong shape or with NaN, or in a number that the estimator is not for.
    """
    net = trained(estimator)
    observed = np.asarray(net.observations(x))
    problem_key, own_key, draws_key, random_key = jax.random.split(key, 4)
    theta, draws, seen = [], [], []
    for true, data, found, sample_key in problems(
        problem_key, net, num_problems, NUM_EACH, len(observed), sampler, progress
    ):
        theta.append(true)
        draws.append(np.asarray(found.sample(sample_key, NUM_EACH)))
        seen.append(data)
    here = np.asarray(posterior(net, observed, key=own_key, sampler=sampler).sample(draws_key, 2 * NUM_DRAWS))
    pairs = np.asarray(theta), np.asarray(draws), np.asarray(seen), here, observed
    rng = rng_of(random_key)
    return compared(rng, *pairs, columns=net.prior.columns, num_exchanges=num_exchanges, level=level)


def compared(
    rng: np.random.Generator, theta: np.ndarray, draws: np.ndarray, x: np.ndarray, here: np.ndarray,
    observed: np.ndarray, *, columns: tuple[str, ...], num_exchanges: int = 500, level: float = LEVEL,
) -> LocalTest:  # fmt: skip
    """The test, from theta `(n, dim)` that made x `(n, m, *event)`, draws for it `(n, S, dim)`, and for the data.

    The last are `here` `(s, dim)`, given `observed`. Of the draws for one x the first stands beside theta, the others
    say where they are and how wide, and so does half of `here`.
    """
    centre, scale = draws[:, 1:].mean(axis=1), draws[:, 1:].std(axis=1) + 1e-30
    n, half = len(theta), len(here) // 2
    shown, rest = here[:half], here[half:]
    z = np.concatenate([(theta - centre) / scale, (draws[:, 0] - centre) / scale, (shown - rest.mean(0)) / rest.std(0)])
    told = _summaries(rng, np.concatenate([x, observed[None]]), MOST_COMPONENTS - theta.shape[1])
    rows = np.concatenate([z, np.concatenate([told[:n], told[:n], np.repeat(told[n:], half, axis=0)])], axis=1)
    features = np.concatenate(features_of(rng, rows[: 2 * n], rows[2 * n :], [np.zeros(len(rows))]))
    unlike = features[:n] - features[n : 2 * n]
    signs = np.concatenate([np.ones((n, 1)), rng.choice([-1.0, 1.0], size=(n, num_exchanges))], axis=1)
    curvature = features[: 2 * n].T @ features[: 2 * n] + RIDGE * np.eye(features.shape[1])
    excess = features[2 * n :] @ np.linalg.solve(curvature, unlike.T @ signs)
    found = np.mean(excess**2, axis=0)
    return LocalTest(float(found[0]), found[1:], level, shown, excess[:, 0], tuple(columns))


def _summaries(rng: np.random.Generator, x: np.ndarray, most: int) -> np.ndarray:
    """Of data sets x `(n, m, *event)`, `(n, k)` with k at most `most`.

    One observation as it is; of several mean, deviation, smallest and largest of every component. Where those are more
    than `most`, random directions of them.
    """
    flat = x.reshape(*x.shape[:2], -1).astype(np.float64)
    several = x.shape[1] > 1
    told = (
        np.concatenate([each(flat, axis=1) for each in (np.mean, np.std, np.min, np.max)], 1) if several else flat[:, 0]
    )
    if told.shape[1] <= max(most, 1):
        return told
    told = (told - told.mean(axis=0)) / np.maximum(told.std(axis=0), 1e-30)
    return told @ rng.normal(size=(told.shape[1], max(most, 1))) / np.sqrt(told.shape[1])
