"""Sequential inference: a learner asked again and again, each time from simulations where the last answer leaves room.

The first round simulates at draws of the prior, the next ones, by the way that is chosen:

    "truncated"   at draws of the prior, cut to where the last answer is dense. All simulations that lie there are draws
                  of one law, the prior inside, so the learner needs no correction (TSNPE; Deistler, Goncalves and Macke
                  2022, arXiv:2210.04815).
    "posterior"   at draws of the last answer. A likelihood, or a ratio, does not depend on where theta came from (SNLE,
                  Papamakarios et al. 2019, arXiv:1805.07226; SNRE, Durkan et al. 2020, arXiv:2002.03712); a posterior
                  does, and its loss must not: the atoms of SNPE-C (Greenberg et al. 2019, arXiv:1905.07488).
    "weighted"    the same, and every simulation weighs prior over proposal in the loss (SNPE-B; Lueckmann et al. 2017,
                  arXiv:1711.01861).
    "divided"     the same; the learner sees the last round alone, and its answer is multiplied by prior over proposal
                  (SNPE-A; Papamakarios and Murray 2016, arXiv:1605.06376).

Every round learns anew: a network is scaled to where its simulations are. With atoms it goes on from the last network:
they say nothing of where no theta was drawn, which the first round has seen. The answer is for one data set.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import numpy as np

from ...answers.answer import posterior
from ...answers.bayes.box import Box
from ...answers.bayes.posterior import AbstractPosterior
from ...answers.bayes.restricted import RestrictedPosterior
from ...answers.bayes.reweighted import ReweightedPosterior
from ...core.fit import Training
from ...core.progress import AbstractProgress
from ...core.simulations import Simulations
from ...core.simulator import AbstractSimulator
from ...core.solution import Key, Solution, Status
from ...sample.simulate import simulate
from ..local.zoom import QUANTILES
from ..method import AbstractLearner, AbstractSearch, Budget, Card, Job, failure_warnings, learn
from ..posterior_flow import NPE
from .place import Place, weighted

FEWEST_SETS = 100  # in a round
WAYS = ("truncated", "posterior", "weighted", "divided")


class Rounds(AbstractSearch):
    """Rounds of a learner, for one data set.

    Fields
    ------
    learner: what learns, such as `qx.NPE()`; one that needs nothing but simulations at parameters of its choice.
    then: what learns from the second round on, and goes on from the network before; the learner, anew, if None.
    before: a search, such as `qx.ABC()`, that has a share of the budget like a round's and says where the first round
        simulates; None for the prior.
    way: "truncated", "posterior", "weighted" or "divided", see above.
    number: of rounds, which share the budget alike.
    training: of every round.
    card: its name and paper.
    """

    learner: AbstractLearner = NPE()
    then: AbstractLearner | None = None
    before: AbstractSearch | None = None
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
        if self.way != "posterior" and not self._sets:
            raise ValueError(
                f"{self.learner.name} learns the same wherever theta is drawn, and nothing elsewhere: give "
                "way='posterior'"
            )
        later = self.then or self.learner
        if self.way == "posterior" and self._sets and not (isinstance(later, NPE) and later.atoms):
            raise ValueError(
                f"{later.name} would learn the posterior under the last answer instead of the prior: give "
                "then=qx.NPE(atoms=10), or another way"
            )
        if not isinstance(self.before, AbstractSearch | None):
            raise TypeError(f"before: expected a search such as qx.ABC(), got {type(self.before).__name__}")
        if self.before is not None and self.way != "truncated":
            raise ValueError("before: what it finds is where the prior is cut to; give way='truncated'")

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
        size, parts = len(x) if self._sets else 1, self.number + (self.before is not None)
        count = budget.num_simulations // (parts * size)
        if count < FEWEST_SETS:
            raise ValueError(
                f"num_simulations: {budget.num_simulations} observations make {count} sets of {size} in each of "
                f"{parts} rounds; give at least {FEWEST_SETS * parts * size}, or fewer rounds"
            )
        first_key, start_key, key = jax.random.split(key, 3)
        place, begun = self._begun(first_key, simulator, x, budget._replace(num_simulations=count * size), progress)
        if start is not None:
            place = self._next(start_key, place, start, count)
        rounds: list[Round] = []
        for turn in range(self.number):
            theta_key, x_key, ask_key, cut_key, next_key, *keys = jax.random.split(jax.random.fold_in(key, turn), 8)
            theta = place.sample(theta_key, count)
            sims = simulate(x_key, simulator, theta=theta, num_observations=size, progress=progress)
            known = self._known([*rounds, Round(place, sims)])
            found = self._learnt(keys, rounds, known, Job(simulator, known, budget, progress))
            answer = self._answer(cut_key, posterior(found.value, x, key=ask_key), place)
            rounds.append(Round(place, sims, answer, found.value, found.warnings))
            if turn + 1 < self.number:
                place = self._next(next_key, place, answer, count)
        return _solution(rounds, begun)

    def _begun(
        self, key: Key, simulator: AbstractSimulator, x: jax.Array, share: Budget, progress: AbstractProgress
    ) -> tuple[Place, tuple[Solution[Any], ...]]:
        """Where the first round simulates, and the search that said so, if there was one."""
        place = Place(Box(simulator.prior))
        if self.before is None:
            return place, ()
        search_key, cut_key = jax.random.split(key)
        found = self.before.search(search_key, simulator, x, share, progress)
        return place.narrowed(cut_key, found.value, share.num_simulations // len(x)), (found,)

    def _next(self, key: Key, place: Place, answer: AbstractPosterior, count: int) -> Place:
        if self.way == "truncated":
            return place.narrowed(key, answer, count)
        return dataclasses.replace(place, last=answer)

    def _known(self, rounds: Sequence["Round"]) -> Simulations:
        """What a round learns from."""
        if self.way == "divided":
            return rounds[-1].sims
        known = rounds[-1].place.kept([each.sims for each in rounds])
        return weighted(known, [each.place for each in rounds]) if self.way == "weighted" else known

    def _learnt(self, keys: Sequence[Key], before: Sequence["Round"], sims: Simulations, job: Job) -> Solution[Any]:
        after = self.then if before else None
        learner = after or self.learner
        learner.check(sims)
        return learn(keys, learner, job, self.training, before[-1].net if after else None)

    def _answer(self, key: Key, found: AbstractPosterior, place: Place) -> AbstractPosterior:
        """The posterior, from what was learnt of simulations of that place."""
        if self.way == "divided" and place.last is not None:
            return ReweightedPosterior.of(key, found, found.prior, place.last)
        return RestrictedPosterior.of(key, found, place.regions)


class Round(NamedTuple):
    """Where one round simulated and what; its answer, the estimator behind it, and the warnings of its training."""

    place: Place
    sims: Simulations
    answer: Any = None
    net: Any = None
    warnings: tuple[str, ...] = ()


def _solution(rounds: Sequence[Round], begun: Sequence[Solution[Any]]) -> Solution[AbstractPosterior]:
    final, sims = rounds[-1].answer, tuple(each.sims for each in rounds)
    warnings = (*failure_warnings(sims), *rounds[-1].warnings, *final.warnings)
    spent = [int(each.statistics["num_simulator_calls"]) for each in begun]
    history = {
        "num_simulated": [*spent, *(each.num_simulator_calls for each in sims)],
        "mean": np.stack([np.asarray(each.answer.mean) for each in rounds]),
        "std": np.stack([np.asarray(each.answer.std) for each in rounds]),
        "quantiles": np.stack([np.asarray(each.answer.quantile(QUANTILES)) for each in rounds]),
    }
    statistics = {"num_rounds": len(rounds), "num_simulator_calls": sum(history["num_simulated"])}
    return Solution(final, Status.SUCCESS, statistics, history, tuple(dict.fromkeys(warnings)))
