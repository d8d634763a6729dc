"""Sequential inference: a learner asked again and again, each time from simulations where the last answer leaves room.

The first round simulates at draws of the prior, the next ones at a proposal of four kinds (see proposal.py).

Every round learns anew: a network is scaled to where its simulations are. With atoms it goes on from the last network:
they say nothing of where no theta was drawn, which the first round has seen. The answer is for one data set.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import numpy as np

from ...answers.answer import posterior
from ...answers.bayes.box import Box
from ...answers.bayes.posterior import AbstractPosterior
from ...core.fit import Training
from ...core.progress import AbstractProgress
from ...core.simulations import Simulations
from ...core.simulator import AbstractSimulator
from ...core.solution import Key, Solution, Status
from ...sample.simulate import simulate
from ..local.zoom import QUANTILES
from ..method import AbstractLearner, AbstractSearch, Budget, Card, Job, failure_warnings, learn
from ..posterior_flow import NPE
from .place import Place
from .proposal import AbstractProposal, TruncatedProposal, learns_posterior

FEWEST_SETS = 100  # in a round


class Rounds(AbstractSearch):
    """Rounds of a learner, for one data set.

    Fields
    ------
    learner: what learns, such as `qx.NPE()`; one that needs nothing but simulations at parameters of its choice.
    then: what learns from the second round on, and goes on from the network before; the learner, anew, if None.
    before: a search, such as `qx.ABC()`, that has a share of the budget like a round's and says where the first round
        simulates; None for the prior.
    proposal: where the next rounds simulate, and what is made of that.
    number: of rounds, which share the budget alike.
    training: of every round.
    card: its name and paper.
    """

    learner: AbstractLearner = NPE()
    then: AbstractLearner | None = None
    before: AbstractSearch | None = None
    proposal: AbstractProposal = TruncatedProposal()
    number: int = eqx.field(static=True, default=5)
    training: Training = eqx.field(static=True, default=Training(4000, 5e-4))
    card: Card = eqx.field(
        static=True, default=Card("tsnpe", "Deistler et al. 2022, arXiv:2210.04815", "posterior", 20_000)
    )
    needs: ClassVar[tuple[str, ...]] = ()

    def __check_init__(self):
        if not isinstance(self.proposal, AbstractProposal):
            raise TypeError(
                f"proposal: expected one such as qx.TruncatedProposal(), got {type(self.proposal).__name__}"
            )
        if self.number < 1:
            raise ValueError(f"number must be at least 1, got {self.number}")
        for each in (self.learner, self.then or self.learner):
            if not isinstance(each, AbstractLearner):
                raise TypeError(f"learner: expected a method that trains, such as qx.NPE(), got {type(each).__name__}")
            if each.needs or each.refinement is not None:
                why = f"needs {' and '.join(each.needs)}" if each.needs else "closes in by itself"
                raise ValueError(f"rounds are for methods such as qx.NPE(), qx.NLE() or qx.NRE(); {each.name} {why}")
        self.proposal.check(self.learner, self.then or self.learner)
        if not isinstance(self.before, AbstractSearch | None):
            raise TypeError(f"before: expected a search such as qx.ABC(), got {type(self.before).__name__}")
        if self.before is not None and not isinstance(self.proposal, TruncatedProposal):
            raise ValueError("before: what it finds is where the prior is cut to; give proposal=qx.TruncatedProposal()")

    def search(
        self,
        key: Key,
        simulator: AbstractSimulator,
        x: jax.Array,
        budget: Budget,
        progress: AbstractProgress,
        start: AbstractPosterior | None = None,
    ) -> Solution[AbstractPosterior]:
        size, parts = len(x) if learns_posterior(self.learner) else 1, self.number + (self.before is not None)
        count = budget.num_simulations // (parts * size)
        if count < FEWEST_SETS:
            raise ValueError(
                f"num_simulations: {budget.num_simulations} observations make {count} sets of {size} in each of "
                f"{parts} rounds; give at least {FEWEST_SETS * parts * size}, or fewer rounds"
            )
        first_key, start_key, key = jax.random.split(key, 3)
        place, begun = self._begun(first_key, simulator, x, budget._replace(num_simulations=count * size), progress)
        if start is not None:
            place = self.proposal.next(start_key, place, start, count)
        places: list[Place] = []
        rounds: list[Round] = []
        simulated: list[Simulations] = []
        for turn in range(self.number):
            theta_key, x_key, ask_key, cut_key, next_key, *keys = jax.random.split(jax.random.fold_in(key, turn), 8)
            theta = place.sample(theta_key, count)
            places.append(place)
            simulated.append(simulate(x_key, simulator, theta=theta, num_observations=size, progress=progress))
            known = self.proposal.known(places, simulated)
            found = self._learnt(keys, rounds, Job(simulator, known, budget, progress))
            answer = self.proposal.answer(cut_key, posterior(found.value, x, key=ask_key), place)
            rounds.append(Round(answer, found))
            if turn + 1 < self.number:
                place = self.proposal.next(next_key, place, answer, count)
        return _solution(rounds, simulated, begun)

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

    def _learnt(self, keys: Sequence[Key], before: Sequence["Round"], job: Job) -> Solution[Any]:
        after = self.then if before else None
        learner = after or self.learner
        learner.check(job.sims)
        return learn(keys, learner, job, self.training, before[-1].learnt.value if after else None)


class Round(NamedTuple):
    """The answer of one round, and what was learnt for it."""

    answer: AbstractPosterior
    learnt: Solution[Any]


def _solution(
    rounds: Sequence[Round], simulated: Sequence[Simulations], begun: Sequence[Solution[Any]]
) -> Solution[AbstractPosterior]:
    final, answers = rounds[-1], [each.answer for each in rounds]
    warnings = (*failure_warnings(tuple(simulated)), *final.learnt.warnings, *final.answer.warnings)
    spent = [int(each.statistics["num_simulator_calls"]) for each in begun]
    history = {
        "num_simulated": [*spent, *(each.num_simulator_calls for each in simulated)],
        "mean": np.stack([np.asarray(each.mean) for each in answers]),
        "std": np.stack([np.asarray(each.std) for each in answers]),
        "quantiles": np.stack([np.asarray(each.quantile(QUANTILES)) for each in answers]),
    }
    statistics = {"num_rounds": len(rounds), "num_simulator_calls": sum(history["num_simulated"])}
    return Solution(final.answer, Status.SUCCESS, statistics, history, tuple(dict.fromkeys(warnings)))
