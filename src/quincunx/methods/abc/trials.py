"""Simulated data sets as points of comparison: where they were made, and how far they came from the observations."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import logsumexp

from ...answers.bayes.box import Box
from ...answers.bayes.posterior import AbstractPosterior
from ...answers.bayes.space import Space
from ...core.progress import AbstractProgress
from ...core.simulator import AbstractSimulator
from ...core.solution import Key, rng_of
from ...sample.simulate import simulate
from ..method import Budget, failures_in_words
from .distance import Choice, Ruler, Summary, at_hand, learnt

FEWEST = 100  # data sets to begin with
PILOT = 10_000  # data sets, at most, that summaries are learnt from
NUMBERS = 1 << 26  # simulated at once, at most
NUM_SPACE = 4096  # draws of the prior that the space is scaled to
AROUND = 3.0  # times the widths of an answer to begin from
COLUMNS = ("u", "offsets", "distance", "sets")  # of trials
DRAWS, SPACE = 1 << 20, 1 << 21  # streams of random numbers, apart from those of the rounds


def num_sets(name: str, budget: Budget, num_observations: int) -> int:
    """How many data sets the budget pays for; `ValueError` for fewer than a hundred."""
    count, least = budget.num_simulations // num_observations, FEWEST * num_observations
    if count < FEWEST:
        raise ValueError(
            f"{name}: num_simulations: {budget.num_simulations} observations are {count} data sets of "
            f"{num_observations}, and it compares whole data sets; give {least} at least, better a hundred times as "
            "many. Zoom can do with parts of a data set"
        )
    return count


# -- what was simulated ----------------------------------------------------------------------------


class Tally(NamedTuple):
    """What simulating has cost, and what came to nothing.

    Fields
    ------
    calls: observations simulated.
    rows: data sets simulated, and how many of them `failed`.
    first: the first failure, in words.
    broken: data sets without finite summaries.
    """

    calls: int = 0
    rows: int = 0
    failed: int = 0
    first: str = ""
    broken: int = 0

    def plus(self, other: "Tally") -> "Tally":
        names = ("calls", "rows", "failed", "broken")
        counts = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Tally(**counts, first=self.first or other.first)

    @property
    def doubts(self) -> tuple[str, ...]:
        """A warning for what was left out."""
        found = failures_in_words(self.failed, self.rows, self.first)
        if self.broken:
            found += (
                f"{self.broken} of {self.rows} simulated data sets have summaries that are NaN or infinite and were "
                "left out, as if they could not happen",
            )
        return found


@dataclasses.dataclass(frozen=True)
class Trials:
    """Simulated data sets, one row each.

    Fields
    ------
    u: `(n, d)`, where they were made.
    offsets: `(n, k)`, their summaries less those of the data, in units of their spread.
    distance: `(n,)`, the length of these; infinite where nothing was simulated.
    sets: `(n, m, *event)`, the data sets themselves; `(n, 0)` where they are not kept.
    """

    u: np.ndarray
    offsets: np.ndarray
    distance: np.ndarray
    sets: np.ndarray

    def __len__(self) -> int:
        return len(self.u)

    def __getitem__(self, rows: np.ndarray | slice) -> "Trials":
        return Trials(*(getattr(self, name)[rows] for name in COLUMNS))

    def joined(self, other: "Trials") -> "Trials":
        return Trials(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in COLUMNS))

    @staticmethod
    def of(u: np.ndarray, offsets: np.ndarray, sets: np.ndarray) -> "Trials":
        distance = np.linalg.norm(offsets, axis=1)
        inside = np.isfinite(distance)
        return Trials(u, np.where(inside[:, None], offsets, 0.0), np.where(inside, distance, np.inf), sets)


class Lab(NamedTuple):
    """Where data sets are simulated and summarised.

    Fields
    ------
    key: of all simulations.
    simulator, space: what is run, and its parameters u.
    x: the observations `(m, *event)`.
    progress: told about simulating.
    keeps: whether data sets that were simulated are kept.
    """

    key: Key
    simulator: AbstractSimulator
    space: Space
    x: np.ndarray
    progress: AbstractProgress
    keeps: bool = False

    @staticmethod
    def of(key: Key, simulator: AbstractSimulator, x: jax.Array, progress: AbstractProgress) -> "Lab":
        draws = simulator.prior.sample(jax.random.fold_in(key, SPACE), NUM_SPACE)
        return Lab(key, simulator, Space.of(simulator.prior, draws), np.asarray(x), progress)

    def keeping(self, summaries: Choice, most: int) -> "Lab":
        """The same, where up to so many data sets are kept if summaries are to be learnt and there is the room."""
        return self._replace(keeps=at_hand(summaries, self.x) is None and most <= self.at_once)

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers for all but simulating, the same ones from one key."""
        return rng_of(self.key)

    @property
    def at_once(self) -> int:
        return max(FEWEST, NUMBERS // max(self.x.size, 1))

    def log_prior(self, u: np.ndarray) -> np.ndarray:
        """Log density `(n,)` of the prior at u `(n, d)`."""
        raw = np.asarray(self.space.prior.log_prob_unconstrained(self._raw(u)), np.float64)
        return raw + np.log(np.asarray(self.space.spread, np.float64)).sum()

    def decode(self, u: np.ndarray) -> np.ndarray:
        """theta `(n, dim)`."""
        return np.asarray(self.space.prior.constrain(self._raw(u)))

    def _raw(self, u: np.ndarray) -> np.ndarray:
        return u * np.asarray(self.space.spread) + np.asarray(self.space.location)

    def opened(self, rng: np.random.Generator, summaries: Choice, u: np.ndarray) -> tuple[Ruler, Trials, Tally]:
        """The distance, from the data sets at u `(n, d)`, and how far these came."""
        known, tally = at_hand(summaries, self.x), Tally()
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        if known is None:
            known, *own, tally = self._learnt(rng, u[: min(PILOT, self.at_once)])
            parts.append((own[0], own[1]))
        width, done = len(known.observed(self.x)), sum(len(s) for s, _ in parts)
        if done < len(u):
            *rest, cost = self._summarised(known, 0, u[done:], width)
            parts, tally = [*parts, (rest[0], rest[1])], tally.plus(cost)
        s, sets = (np.concatenate(each) for each in zip(*parts, strict=True))
        ruler = Ruler.of(known, s, self.x)
        return ruler, Trials.of(u, ruler.offsets(s), sets), tally

    def tried(self, ruler: Ruler, number: int, u: np.ndarray) -> tuple[Trials, Tally]:
        """Data sets at u `(n, d)`; `number` must be another one each time, from 1."""
        s, sets, tally = self._summarised(ruler.summary, number, u, len(ruler.observed))
        return Trials.of(u, ruler.offsets(s), sets), tally

    def relearnt(self, rng: np.random.Generator, ruler: Ruler, trials: Trials, epsilon: float) -> tuple[Ruler, Trials]:
        """With summaries that were learnt anew from these trials, which are within epsilon."""
        ruler, more = ruler.refined(rng, trials.sets, self.box(trials.u), self.x, epsilon)
        return ruler, Trials.of(trials.u, np.concatenate([trials.offsets, more], axis=1), trials.sets)

    def measured(self, ruler: Ruler, trials: Trials) -> Trials:
        """Trials that were kept, by another distance."""
        offsets = ruler.offsets(ruler.summary(trials.sets))
        offsets[np.isinf(trials.distance)] = np.nan
        return Trials.of(trials.u, offsets, trials.sets)

    def box(self, u: np.ndarray) -> np.ndarray:
        """z `(n, d)`, which summaries are regressed to."""
        return Box(self.space.prior).encode(self.decode(u))

    def _learnt(self, rng: np.random.Generator, u: np.ndarray) -> tuple[Summary, np.ndarray, np.ndarray, Tally]:
        x, kept, tally = self._simulated(jax.random.fold_in(self.key, DRAWS), self.decode(u))
        summary, own = learnt(rng, x, self.box(u[kept]), self.x, twice=not self.keeps)
        s, sets = np.full((len(u), own.shape[1]), np.nan), self._nothing(len(u))
        s[kept] = own
        if self.keeps:
            sets[kept] = x
        return summary, s, sets, tally

    def _nothing(self, count: int) -> np.ndarray:
        return np.zeros((count, *(self.x.shape if self.keeps else (0,))), np.float32)

    def _summarised(
        self, summary: Summary, number: int, u: np.ndarray, width: int
    ) -> tuple[np.ndarray, np.ndarray, Tally]:
        """Summaries `(n, k)`, NaN where there are none. What rounding puts outside of the prior is not simulated."""
        theta, tally = self.decode(u), Tally()
        rows = np.flatnonzero(np.asarray(self.space.prior.contains(theta)) & np.isfinite(self.log_prior(u)))
        s, sets = np.full((len(u), width), np.nan), self._nothing(len(u))
        own = jax.random.fold_in(self.key, number)
        for start in range(0, len(rows), self.at_once):
            some = rows[start : start + self.at_once]
            x, kept, cost = self._simulated(jax.random.fold_in(own, start), theta[some])
            found = summary(x)
            bad = np.any(~np.isfinite(found), axis=1)
            s[some[kept]] = np.where(bad[:, None], np.nan, found)
            if self.keeps:
                sets[some[kept]] = x
            tally = tally.plus(cost._replace(broken=int(bad.sum())))
        return s, sets, _usable(tally)

    def _simulated(self, key: Key, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, Tally]:
        """Data sets x `(n, m, *event)`, and the rows of theta that they belong to."""
        m = len(self.x)
        sims = simulate(key, self.simulator, theta=theta, num_observations=m, progress=self.progress)
        kept = np.delete(np.arange(len(theta)), [failure.row for failure in sims.failures])
        first = str(sims.failures[0]) if sims.failures else ""
        return np.asarray(sims.x), kept, Tally(sims.num_simulator_calls, len(theta), len(sims.failures), first)


def _usable(tally: Tally) -> Tally:
    if 2 * tally.broken > tally.rows:
        raise ValueError(
            f"summaries: {tally.broken} of {tally.rows} simulated data sets have some that are NaN or infinite, more "
            "than half; mend the function"
        )
    return tally


# -- where the first are made ----------------------------------------------------------------------


class Source(NamedTuple):
    """The prior; or, where there is an answer to begin from, half of it and half a normal three times as wide.

    With half of the prior in it, no weight is above 2, however wrong that answer is.
    """

    lab: Lab
    mean: np.ndarray
    root: np.ndarray

    @staticmethod
    def of(lab: Lab, start: AbstractPosterior | None) -> "Source":
        if start is None:
            return Source(lab, np.empty(0), np.empty((0, 0)))
        u = lab.space.encoded(start.points).astype(np.float64)
        spread = np.cov(u.T).reshape(lab.space.dim, lab.space.dim) + 1e-9 * np.eye(lab.space.dim)
        return Source(lab, u.mean(axis=0), AROUND * np.linalg.cholesky(spread))

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """u `(n, d)`."""
        prior = self.lab.space.prior
        u = self.lab.space.encoded(prior.sample(jax.random.fold_in(self.lab.key, DRAWS + 1), count)).astype(np.float64)
        if len(self.mean):
            half = count // 2
            u[:half] = self.mean + rng.normal(size=(half, len(self.mean))) @ self.root.T
            u = u[rng.permutation(count)]
        return u

    def log_prob(self, u: np.ndarray) -> np.ndarray:
        """Log density `(n,)` at u `(n, d)`."""
        log_prior = self.lab.log_prior(u)
        if not len(self.mean):
            return log_prior
        standard = np.linalg.solve(self.root, (u - self.mean).T)
        log_normal = -0.5 * np.sum(standard**2 + np.log(2 * np.pi), axis=0) - np.log(np.diag(self.root)).sum()
        return logsumexp([log_prior, log_normal], axis=0) - np.log(2)

    def log_weight(self, u: np.ndarray) -> np.ndarray:
        """Log of the prior over this `(n,)`: what draws count, as draws of the prior."""
        return self.lab.log_prior(u) - self.log_prob(u) if len(self.mean) else np.zeros(len(u))

    def share(self, trials: Trials, epsilon: float) -> float:
        """Of the draws of the prior, how many came within epsilon, from trials at draws of this."""
        weight = np.exp(self.log_weight(trials.u))
        return float(np.sum(weight * (trials.distance <= epsilon)) / np.sum(weight))
