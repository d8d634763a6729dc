"""Sequential inference: a learner asked again and again, each time from simulations where the last answer leaves room.

    round 1       theta from the prior
    next rounds   "truncated": theta from the prior, cut to where the last answer is dense. All simulations that lie
                  there are draws of one law, the prior inside, so the learner needs no correction (TSNPE; Deistler,
                  Goncalves and Macke 2022, arXiv:2210.04815).
                  "posterior": theta from the last answer. A likelihood, or a ratio, does not depend on where theta
                  came from (SNLE, Papamakarios et al. 2019, arXiv:1805.07226; SNRE, Durkan et al. 2020,
                  arXiv:2002.03712); a posterior does, and its loss must not: the atoms of SNPE-C (APT, Greenberg,
                  Nonnenmacher and Macke 2019, arXiv:1905.07488).

Every round learns anew, from all simulations so far that are of use: a network is scaled to where they are. With atoms
it goes on from the last network: they say nothing of where no theta was drawn, which the first round has seen. The
answer is for one data set.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import numpy as np

from ..answers.answer import posterior
from ..answers.bayes.box import Box
from ..answers.bayes.posterior import AbstractPosterior
from ..answers.bayes.restricted import Dense, RestrictedPosterior
from ..core.batches import filled, put
from ..core.fit import Training
from ..core.progress import AbstractProgress
from ..core.simulations import Simulations
from ..core.simulator import AbstractSimulator
from ..core.solution import Key, Solution, Status, rng_of
from ..sample.simulate import simulate
from .density import NLE
from .local import particles
from .local.zoom import QUANTILES
from .method import AbstractLearner, AbstractSearch, Budget, Card, Job, failure_warnings, learn
from .nets.flows import Flow
from .nets.mlp import MLP
from .posterior_flow import NPE
from .ratio import NRE

FEWEST_SETS = 100  # in a round
NUM_PARTICLES = 2048  # at least, that follow a region as it narrows
LEFT_OUT = 1e-3  # of an answer, beyond where it is taken to be dense
WAYS = ("truncated", "posterior")


class Rounds(AbstractSearch):
    """Rounds of a learner, for one data set.

    Fields
    ------
    learner: what learns, such as `qx.NPE()`; one that needs nothing but simulations at parameters of its choice.
    then: what learns from the second round on, and goes on from the network before; the learner, anew, if None.
    way: "truncated" or "posterior", where theta comes from after the first round; see above.
    number: of rounds, which share the budget alike.
    training: of every round.
    card: its name and paper.
    """

    learner: AbstractLearner = NPE()
    then: AbstractLearner | None = None
    way: str = eqx.field(static=True, default="truncated")
    number: int = eqx.field(static=True, default=5)
    training: Training = eqx.field(static=True, default=Training(4000, 5e-4))
    card: Card = eqx.field(
        static=True, default=Card("tsnpe", "Deistler et al. 2022, arXiv:2210.04815", "posterior", 20_000)
    )
    needs: ClassVar[tuple[str, ...]] = ()

    def __check_init__(self):
        if self.way not in WAYS:
            raise ValueError(f"way must be one of {', '.join(WAYS)}, got {self.way!r}")
        if self.number < 1:
            raise ValueError(f"number must be at least 1, got {self.number}")
        for each in (self.learner, self.then or self.learner):
            if not isinstance(each, AbstractLearner):
                raise TypeError(f"learner: expected a method that trains, such as qx.NPE(), got {type(each).__name__}")
            if each.needs or each.refinement is not None:
                why = f"needs {' and '.join(each.needs)}" if each.needs else "closes in by itself"
                raise ValueError(f"rounds are for methods such as qx.NPE(), qx.NLE() or qx.NRE(); {each.name} {why}")
        if self.way == "truncated" and not self._sets:
            raise ValueError(
                f"{self.learner.name} says nothing outside the simulations of a round: give way='posterior'"
            )

    @property
    def _sets(self) -> bool:
        """Whether it learns from sets of observations; what learns a likelihood does so from single ones."""
        return self.learner.card.gives == "posterior"

    def search(
        self,
        key: Key,
        simulator: AbstractSimulator,
        x: jax.Array,
        budget: Budget,
        progress: AbstractProgress,
        start: AbstractPosterior | None = None,
    ) -> Solution[AbstractPosterior]:
        size = len(x) if self._sets else 1
        count = budget.num_simulations // (self.number * size)
        if count < FEWEST_SETS:
            raise ValueError(
                f"num_simulations: {budget.num_simulations} observations make {count} sets of {size} in each of "
                f"{self.number} rounds; give at least {FEWEST_SETS * self.number * size}, or fewer rounds"
            )
        place, rounds = Place(Box(simulator.prior), start), []
        for turn in range(self.number):
            theta_key, x_key, ask_key, cut_key, *keys = jax.random.split(jax.random.fold_in(key, turn), 7)
            theta = place.sample(theta_key, count)
            sims = simulate(x_key, simulator, theta=theta, num_observations=size, progress=progress)
            known = place.kept([*(each.sims for each in rounds), sims])
            found = self._learnt(keys, rounds, known, Job(simulator, known, budget, progress))
            answer = RestrictedPosterior.of(cut_key, posterior(found.value, x, key=ask_key), place.regions)
            rounds.append(Round(sims, answer, found.value, found.warnings))
            if self.way == "posterior":
                place = dataclasses.replace(place, last=answer)
            elif turn + 1 < self.number:
                place = place.narrowed(cut_key, answer, count)
        return _solution(rounds)

    def _learnt(self, keys: Sequence[Key], before: Sequence["Round"], sims: Simulations, job: Job) -> Solution[Any]:
        after = self.then if before else None
        learner = after or self.learner
        learner.check(sims)
        return learn(keys, learner, job, self.training, before[-1].net if after else None)


class Round(NamedTuple):
    """What one round simulated, its answer, the estimator behind it, and the warnings of its training."""

    sims: Simulations
    answer: AbstractPosterior
    net: Any
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where theta may still be.

    Fields
    ------
    box: coordinates z of the prior.
    last: the answer that theta is drawn from; None for the prior.
    regions: which theta must lie in; there z are draws of the prior `(n, d)`.
    """

    box: Box
    last: AbstractPosterior | None = None
    regions: tuple[Dense, ...] = ()
    z: np.ndarray | None = None

    def sample(self, key: Key, count: int) -> np.ndarray:
        """theta `(count, dim)`."""
        if self.last is not None:
            return np.asarray(self.last.sample(key, count))
        if self.z is None:
            return np.asarray(self.box.prior.sample(key, count))
        rng = rng_of(key)
        picked = rng.permutation(len(self.z))[:count]
        return np.asarray(self.box.decode(self.z[picked]), np.float32)

    def narrowed(self, key: Key, answer: AbstractPosterior, count: int) -> "Place":
        """Where that answer is dense too, with at least `count` draws of the prior."""
        region_key, prior_key, walk_key = jax.random.split(key, 3)
        region, count = Dense.of(region_key, answer, LEFT_OUT), max(count, NUM_PARTICLES)
        z = self.box.encode(self.box.prior.sample(prior_key, count)) if self.z is None else self.z
        depth = lambda z: region.depth(np.asarray(self.box.decode(filled(z, count)), np.float32))[: len(z)]
        z, _ = particles.cut(rng_of(walk_key), z, self._log_prior, depth, 0.0, np.zeros(self.box.dim))
        return dataclasses.replace(self, regions=(*self.regions, region), z=z)

    def _log_prior(self, z: np.ndarray) -> np.ndarray:
        value = self.box.log_prior(z)
        theta = np.asarray(self.box.decode(z), np.float32)
        for region in self.regions:
            value = np.where(region.contains(theta), value, -np.inf)
        return value

    def kept(self, rounds: Sequence[Simulations]) -> Simulations:
        """The simulations of all rounds that lie in the regions."""
        theta, x = (np.concatenate([np.asarray(getattr(each, name)) for each in rounds]) for name in ("theta", "x"))
        inside = np.ones(len(theta), bool)
        for region in self.regions:
            inside &= region.contains(theta)
        return Simulations(put(theta[inside]), put(x[inside]), rounds[0].simulator)


def _solution(rounds: Sequence[Round]) -> Solution[AbstractPosterior]:
    final, sims = rounds[-1].answer, tuple(each.sims for each in rounds)
    warnings = (*failure_warnings(sims), *rounds[-1].warnings, *final.warnings)
    history = {
        "num_simulated": [each.num_simulator_calls for each in sims],
        "mean": np.stack([np.asarray(each.answer.mean) for each in rounds]),
        "std": np.stack([np.asarray(each.answer.std) for each in rounds]),
        "quantiles": np.stack([np.asarray(each.answer.quantile(QUANTILES)) for each in rounds]),
    }
    statistics = {"num_rounds": len(rounds), "num_simulator_calls": sum(history["num_simulated"])}
    return Solution(final, Status.SUCCESS, statistics, history, tuple(dict.fromkeys(warnings)))


# -- the named methods -----------------------------------------------------------------------------


def TSNPE(*, learner: NPE = NPE(), number: int = 5, training: Training = Training(4000, 5e-4)) -> Rounds:
    """NPE in rounds, from the prior cut to where the answer is dense. Needs no gold."""
    return Rounds(learner=learner, number=number, training=training)


def SNPEC(
    *, learner: NPE = NPE(), atoms: int = 10, number: int = 5, training: Training = Training(4000, 5e-4)
) -> Rounds:
    """NPE in rounds, from the last answer, with a loss that does not see where theta came from. Needs no gold."""
    card = Card("snpe-c", "Greenberg et al. 2019, arXiv:1905.07488", "posterior", 20_000)
    then = dataclasses.replace(learner, atoms=atoms)
    return Rounds(learner=learner, then=then, way="posterior", number=number, training=training, card=card)


def SNLE(*, network: Flow = Flow(), number: int = 5, training: Training = Training(4000)) -> Rounds:
    """NLE in rounds, from the last answer. Needs no gold."""
    card = Card("snle", "Papamakarios et al. 2019, arXiv:1805.07226", "posterior", 20_000)
    learner = NLE(network=network)
    return Rounds(learner=learner, way="posterior", number=number, training=training, card=card)


def SNRE(*, network: MLP = MLP(), number: int = 5, training: Training = Training(4000)) -> Rounds:
    """NRE in rounds, from the last answer. Needs no gold."""
    card = Card("snre", "Durkan et al. 2020, arXiv:2002.03712", "posterior", 20_000)
    learner = NRE(network=network)
    return Rounds(learner=learner, way="posterior", number=number, training=training, card=card)
