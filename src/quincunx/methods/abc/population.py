"""ABC in rounds: a population of parameters moves to where simulations come near, and epsilon falls with it.

    round 0       draws of the prior
    each round    theta ~ q_t, a mixture of Student's t at the parameters kept so far, and x ~ p(x | theta)
                  w = prior(theta) / sum_t (n_t / n) q_t(theta)       over all rounds, q_0 being the prior
                  epsilon: the smallest within which the weights are worth `num_particles` draws
                  keep what is within it, of this round and of those before

It is the population Monte Carlo ABC of Beaumont, Cornuet, Marin and Robert (2009) and of Toni et al. (2009), whose
weights make up for where theta was proposed; with epsilon from the distances themselves (Del Moral, Doucet and Jasra
2012); and with three changes that lose no simulation: those of earlier rounds stay where they are near enough
(Lenormand, Jabot and Deffuant 2013), every weight is over the mixture of all rounds (Cornuet, Marin, Mira and Robert
2012), and each part of a proposal is as wide as the population is around it (Filippi et al. 2013), so that separate
modes do not widen each other. Since draws of the prior are a part of the mixture, no weight exceeds n / n_0.

Summaries that are learnt are learnt from the first round; and once more, from what has been kept, when two fifths of
the budget are spent (Fearnhead and Prangle 2012): what tells near parameters apart is not what tells all apart.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import numpy as np
from scipy.special import gammaln, logsumexp

from ...answers.bayes.draws import DrawnPosterior, systematic
from ...answers.bayes.posterior import AbstractPosterior
from ...core.progress import AbstractProgress
from ...core.simulator import AbstractSimulator
from ...core.solution import Key, Solution
from ..local.zoom import QUANTILES
from ..method import AbstractSearch, Budget, Card
from .distance import Choice, Ruler, check_choice
from .outcome import Kept, Story, concluded, effective, none_within, normalised
from .rejection import check_epsilon
from .trials import FEWEST, Lab, Source, Tally, Trials, num_sets

PER_PARTICLE = 8  # data sets, at least, for each particle that is asked for
CENTRES = 400  # parts of a proposal, at most
NEIGHBOURS = 0.2  # of them, whose spread a part has
INFLATION = 2.0  # of its covariance
FREEDOM = 5.0  # degrees: tails heavier than those of the normal, so that weights stay bounded far out
FEWEST_AGAIN = 50  # data sets that summaries are learnt anew from
RELEARN = 0.4  # of the budget, after which summaries are learnt anew from what was kept
STANDSTILL, STILL = 0.999, 3  # epsilon falls no more if so many rounds leave more of it,
PLENTY = 2.0  # and there are so many times the particles that are wanted: data sets that are alike, as of counts

CARD = Card("smc-abc", "Beaumont et al. 2009, arXiv:0805.2256", "posterior", 300_000)


class SMCABC(AbstractSearch):
    """Sequential Monte Carlo ABC: a population of parameters follows an epsilon that falls from round to round.

    Fields
    ------
    num_particles: how many independent draws what is kept is worth, at least; fewer for a small budget.
    share: of the budget, for every round.
    epsilon: where to stop, in units of the summaries' spread under the prior; by default with the budget.
    summaries: what is compared: "raw", the observations themselves; "learned", the parameters as regressed on
        statistics; or a function x `(m, *event)` -> `(k,)` in JAX or NumPy. "auto" is raw for one observation of up to
        ten numbers, and learned otherwise.
    adjust: whether what is kept is adjusted by regression.
    card: its name and paper.
    """

    num_particles: int = eqx.field(static=True, default=1000)
    share: float = eqx.field(static=True, default=0.1)
    epsilon: float | None = eqx.field(static=True, default=None)
    summaries: Choice = eqx.field(static=True, default="auto")
    adjust: bool = eqx.field(static=True, default=True)
    card: Card = eqx.field(static=True, default=CARD)
    needs: ClassVar[tuple[str, ...]] = ()
    training: ClassVar[None] = None

    def __check_init__(self):
        check_choice(self.summaries)
        check_epsilon(self.epsilon)
        if self.num_particles < 10:
            raise ValueError(f"num_particles must be at least 10, got {self.num_particles}")
        if not 0 < self.share <= 0.5:
            raise ValueError(f"share must be above 0 and at most 0.5, got {self.share}")

    def search(
        self,
        key: Key,
        simulator: AbstractSimulator,
        x: jax.Array,
        budget: Budget,
        progress: AbstractProgress,
        start: AbstractPosterior | None = None,
    ) -> Solution[DrawnPosterior]:
        count = num_sets(self.name, budget, len(x))
        each = max(FEWEST, round(self.share * count))
        lab = Lab.of(key, simulator, x, progress).keeping(self.summaries, each)
        rng, source = lab.rng, Source.of(lab, start)
        wanted = min(self.num_particles, count // PER_PARTICLE)
        ruler, first, tally = lab.opened(rng, self.summaries, source.draw(rng, each))
        goal = Goal(wanted, self.epsilon or 0.0)
        now = Population.begun(lab, source, first, tally).narrowed(lab, goal, 0)
        relearn = lab.keeps and self.epsilon is None
        while now.size < count and not now.settled(goal):
            if relearn and now.size >= RELEARN * count and len(now.trials) >= FEWEST_AGAIN:
                ruler, trials = lab.relearnt(rng, ruler, now.trials, now.epsilon[-1])
                now, first, relearn = now._replace(trials=trials), lab.measured(ruler, first), False
            rounds = max(1, round((count - now.size) / each))
            now = now.moved(rng, lab, ruler, goal, (count - now.size) // rounds)
        now = now if self.epsilon is None else now.within(self.epsilon)
        if not len(now.trials):
            raise none_within(self.name, goal.epsilon, now.tally, now.nearest)
        stopped = f"it stopped at {now.size:,} of {count:,} data sets, since epsilon had come to where it could"
        story = Story(now.tally, now.history, len(now.counts), notes=(stopped,) if now.size < count else ())
        kept = Kept(now.trials, now.log_weight, now.epsilon[-1], source.share(first, now.epsilon[-1]))
        return concluded(self.name, lab, rng, ruler, kept, story, self.adjust)


class Mixture(NamedTuple):
    """Student's t distributions at parameters, each as wide as the population around it.

    Fields
    ------
    weight: `(k,)`.
    centre: `(k, d)`.
    root: `(k, d, d)`, lower triangular.
    """

    weight: np.ndarray
    centre: np.ndarray
    root: np.ndarray

    @staticmethod
    def around(rng: np.random.Generator, u: np.ndarray, weight: np.ndarray) -> "Mixture":
        """Of a population u `(n, d)` with weights `(n,)`."""
        rows, times = np.unique(systematic(rng, weight, CENTRES), return_counts=True)
        centre, d = u[rows], u.shape[1]
        unit = np.maximum(np.std(centre, axis=0), 1e-9)
        near = min(len(rows), max(round(NEIGHBOURS * len(rows)), 2 * d + 2))
        apart = np.sum(((centre[:, None] - centre) / unit) ** 2, axis=2)
        around = centre[np.argsort(apart, axis=1, kind="stable")[:, :near]] - centre[:, None]
        covariance = INFLATION * np.einsum("kni,knj->kij", around, around) / near
        return Mixture(times / times.sum(), centre, np.linalg.cholesky(covariance + np.diag(1e-6 * unit**2)))

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """u `(n, d)`."""
        rows = systematic(rng, self.weight, count)
        tail = np.sqrt(FREEDOM / rng.chisquare(FREEDOM, (count, 1)))
        step = np.einsum("nij,nj->ni", self.root[rows], rng.normal(size=(count, self.centre.shape[1])))
        return self.centre[rows] + tail * step

    def log_prob(self, u: np.ndarray) -> np.ndarray:
        """Log density `(n,)` at u `(n, d)`."""
        d = u.shape[1]
        log_norm = gammaln((FREEDOM + d) / 2) - gammaln(FREEDOM / 2) - d / 2 * np.log(FREEDOM * np.pi)
        log_norm = log_norm - np.log(np.einsum("kii->ki", self.root)).sum(axis=1) + np.log(self.weight)
        whiten, found = np.linalg.inv(self.root), []
        for some in np.array_split(u, -(-len(u) // 500)) if len(u) else [u]:
            square = np.sum(((some - self.centre[:, None]) @ whiten.swapaxes(1, 2)) ** 2, axis=2)
            found.append(logsumexp(log_norm[:, None] - (FREEDOM + d) / 2 * np.log1p(square / FREEDOM), axis=0))
        return np.concatenate(found)


class Goal(NamedTuple):
    """When to stop: at so many effective particles within an epsilon of so much."""

    wanted: int
    epsilon: float


class Population(NamedTuple):
    """What has been kept so far.

    Fields
    ------
    trials: the data sets within epsilon, or all until there are enough of them.
    log_prior: `(n,)`, at them.
    log_proposed: `(n, t)`, log density of every round's proposal at them.
    proposals: of the rounds, and `counts` of data sets in them.
    tally: of all simulations.
    nearest: the smallest distance of all.
    epsilon, accepted, ess, quantiles `(5, dim)` of theta: by round.
    """

    trials: Trials
    log_prior: np.ndarray
    log_proposed: np.ndarray
    proposals: tuple[Source | Mixture, ...]
    counts: tuple[int, ...]
    tally: Tally
    nearest: float
    epsilon: tuple[float, ...] = ()
    accepted: tuple[float, ...] = ()
    ess: tuple[float, ...] = ()
    quantiles: tuple[np.ndarray, ...] = ()

    @property
    def size(self) -> int:
        """Data sets simulated."""
        return sum(self.counts)

    @property
    def history(self) -> dict[str, Sequence[float] | np.ndarray]:
        """By round."""
        found = {"epsilon": self.epsilon[: len(self.counts)], "acceptance_rate": self.accepted, "ess": self.ess}
        return {**found, "quantiles": np.stack(self.quantiles)}

    @property
    def log_weight(self) -> np.ndarray:
        """Log of the prior over the mixture of all proposals, `(n,)`."""
        return self.log_prior - logsumexp(self.log_proposed + np.log(np.array(self.counts) / self.size), axis=1)

    @staticmethod
    def begun(lab: Lab, source: Source, trials: Trials, tally: Tally) -> "Population":
        found = trials[np.isfinite(trials.distance)]
        proposed = source.log_prob(found.u)[:, None]
        log_prior, nearest = lab.log_prior(found.u), float(found.distance.min())
        return Population(found, log_prior, proposed, (source,), (len(trials),), tally, nearest)

    def moved(self, rng: np.random.Generator, lab: Lab, ruler: Ruler, goal: Goal, count: int) -> "Population":
        """After one more round, of so many data sets."""
        mixture = Mixture.around(rng, self.trials.u, normalised(self.log_weight))
        trials, cost = lab.tried(ruler, len(self.counts), mixture.draw(rng, count))
        new, old = trials[trials.distance <= self.epsilon[-1]], len(self.trials)
        proposals = (*self.proposals, mixture)
        at_new = np.stack([proposal.log_prob(new.u) for proposal in proposals], axis=1)
        both = np.concatenate([self.log_proposed, mixture.log_prob(self.trials.u)[:, None]], axis=1)
        grown = self._replace(
            trials=self.trials.joined(new),
            log_prior=np.concatenate([self.log_prior, lab.log_prior(new.u)]),
            log_proposed=np.concatenate([both, at_new]),
            proposals=proposals,
            counts=(*self.counts, len(trials)),
            tally=self.tally.plus(cost),
            nearest=min(self.nearest, float(trials.distance.min())),
        )
        return grown.narrowed(lab, goal, old)

    def narrowed(self, lab: Lab, goal: Goal, old: int) -> "Population":
        """Only what is within the smallest epsilon that leaves enough; the first `old` rows are not of this round."""
        order = np.argsort(self.trials.distance, kind="stable")
        weight = normalised(self.log_weight)[order]
        enough = np.cumsum(weight) ** 2 / np.cumsum(weight**2) >= goal.wanted
        last = int(np.argmax(enough)) if enough.any() else len(order) - 1
        epsilon = max(float(self.trials.distance[order[last]]), goal.epsilon)
        new = float(np.sum(self.trials.distance[old:] <= epsilon)) / self.counts[-1]
        found = self.within(epsilon)
        weight = normalised(found.log_weight)
        return found._replace(
            accepted=(*self.accepted, new), ess=(*self.ess, effective(weight)),
            quantiles=(*self.quantiles, _quantiles(lab.decode(found.trials.u), weight)),
        )  # fmt: skip

    def within(self, epsilon: float) -> "Population":
        """What is so near, with that epsilon on the record."""
        near = self.trials.distance <= epsilon
        return self._replace(
            trials=self.trials[near], log_prior=self.log_prior[near], log_proposed=self.log_proposed[near],
            epsilon=(*self.epsilon, epsilon),
        )  # fmt: skip

    def settled(self, goal: Goal) -> bool:
        """Whether more rounds would change nothing: epsilon is what it should be, or falls no more."""
        if self.ess[-1] >= goal.wanted and self.epsilon[-1] <= goal.epsilon:
            return True
        plenty = len(self.ess) > STILL and self.ess[-1] >= PLENTY * goal.wanted
        return plenty and self.epsilon[-1] > STANDSTILL * self.epsilon[-STILL - 1]


def _quantiles(theta: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`(5, dim)` of theta `(n, dim)` with weights `(n,)`."""
    order = np.argsort(theta, axis=0)
    ends = np.cumsum(weight[order], axis=0)
    rows = [[np.searchsorted(column, level * column[-1]) for column in ends.T] for level in QUANTILES]
    return np.take_along_axis(np.take_along_axis(theta, order, axis=0), np.array(rows), axis=0)
