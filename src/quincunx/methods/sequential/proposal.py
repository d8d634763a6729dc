"""From what each round simulates, and how what is learnt of that becomes the posterior under the prior.

Four answers to one question: a learner that saw theta from elsewhere than the prior, what has it learnt?
"""

import abc
import dataclasses
from collections.abc import Sequence

import equinox as eqx

from ...answers.bayes.posterior import AbstractPosterior
from ...answers.bayes.restricted import RestrictedPosterior
from ...answers.bayes.reweighted import ReweightedPosterior
from ...core.simulations import Simulations
from ...core.solution import Key
from ..method import AbstractLearner
from ..posterior_flow import NPE
from .place import Place, kept, weighted


class AbstractProposal(eqx.Module):
    """Where theta of the next round is drawn, and what that means for what is learnt of it."""

    @abc.abstractmethod
    def check(self, learner: AbstractLearner, later: AbstractLearner) -> None:
        """Whether these, the second from the second round on, would learn what is asked for; ValueError otherwise."""

    @abc.abstractmethod
    def next(self, key: Key, place: Place, answer: AbstractPosterior, count: int) -> Place:
        """The place after one that led to this answer, for `count` theta."""

    @abc.abstractmethod
    def known(self, places: Sequence[Place], rounds: Sequence[Simulations]) -> Simulations:
        """What the last of these rounds learns from."""

    @abc.abstractmethod
    def answer(self, key: Key, found: AbstractPosterior, place: Place) -> AbstractPosterior:
        """The posterior under the prior, from what was learnt of simulations of that place."""


class TruncatedProposal(AbstractProposal):
    """Draws of the prior, cut to where the last answer is dense.

    All simulations that lie there are draws of one law, the prior inside, so the learner needs no correction
    (Deistler, Goncalves and Macke 2022, arXiv:2210.04815).
    """

    def check(self, learner: AbstractLearner, later: AbstractLearner) -> None:
        _check_posterior(learner)

    def next(self, key: Key, place: Place, answer: AbstractPosterior, count: int) -> Place:
        return place.narrowed(key, answer, count)

    def known(self, places: Sequence[Place], rounds: Sequence[Simulations]) -> Simulations:
        return kept(rounds, places[-1].regions)

    def answer(self, key: Key, found: AbstractPosterior, place: Place) -> AbstractPosterior:
        return RestrictedPosterior.of(key, found, place.regions)


class PosteriorProposal(AbstractProposal):
    """Draws of the last answer, for what learns the same wherever theta is drawn.

    A likelihood and a ratio do (Papamakarios et al. 2019, arXiv:1805.07226; Durkan et al. 2020, arXiv:2002.03712), and
    so does a posterior with the loss of SNPE-C (Greenberg et al. 2019, arXiv:1905.07488).
    """

    def check(self, learner: AbstractLearner, later: AbstractLearner) -> None:
        if learns_posterior(later) and not (isinstance(later, NPE) and later.atoms):
            raise ValueError(
                f"{later.name} would learn the posterior under the last answer instead of the prior: give "
                "then=qx.NPE(atoms=10), or another proposal"
            )

    def next(self, key: Key, place: Place, answer: AbstractPosterior, count: int) -> Place:
        return dataclasses.replace(place, last=answer)

    def known(self, places: Sequence[Place], rounds: Sequence[Simulations]) -> Simulations:
        return kept(rounds)

    def answer(self, key: Key, found: AbstractPosterior, place: Place) -> AbstractPosterior:
        return found


class WeightedProposal(AbstractProposal):
    """Draws of the last answer; every simulation weighs prior over proposal in the loss.

    Source: SNPE-B, Lueckmann et al. 2017, arXiv:1711.01861.
    """

    def check(self, learner: AbstractLearner, later: AbstractLearner) -> None:
        _check_posterior(learner)

    def next(self, key: Key, place: Place, answer: AbstractPosterior, count: int) -> Place:
        return dataclasses.replace(place, last=answer)

    def known(self, places: Sequence[Place], rounds: Sequence[Simulations]) -> Simulations:
        return weighted(kept(rounds), places)

    def answer(self, key: Key, found: AbstractPosterior, place: Place) -> AbstractPosterior:
        return found


class DividedProposal(AbstractProposal):
    """Draws of the last answer; the learner sees these alone, and its answer is multiplied by prior over proposal.

    Source: SNPE-A, Papamakarios and Murray 2016, arXiv:1605.06376.
    """

    def check(self, learner: AbstractLearner, later: AbstractLearner) -> None:
        _check_posterior(learner)

    def next(self, key: Key, place: Place, answer: AbstractPosterior, count: int) -> Place:
        return dataclasses.replace(place, last=answer)

    def known(self, places: Sequence[Place], rounds: Sequence[Simulations]) -> Simulations:
        return rounds[-1]

    def answer(self, key: Key, found: AbstractPosterior, place: Place) -> AbstractPosterior:
        return found if place.last is None else ReweightedPosterior.of(key, found, found.prior, place.last)


def learns_posterior(learner: AbstractLearner) -> bool:
    """And so from sets of observations; what learns a likelihood does so from single ones."""
    return learner.card.gives == "posterior"


def _check_posterior(learner: AbstractLearner) -> None:
    if not learns_posterior(learner):
        raise ValueError(
            f"{learner.name} learns the same wherever theta is drawn, and nothing elsewhere: give "
            "proposal=qx.PosteriorProposal()"
        )
