"""The sequential methods of the literature, as rounds of one learner. None needs gold."""

import dataclasses

from ...core.fit import Training
from ..abc.rejection import ABC
from ..density import NLE
from ..method import AbstractSearch, Card
from ..nets.densities.flows import Flow
from ..nets.densities.mixture import Mixture
from ..nets.mlp import MLP
from ..posterior_flow import NPE
from ..ratio import NRE
from .proposal import DividedProposal, PosteriorProposal, WeightedProposal
from .rounds import Rounds

TRAINING = Training(4000, 5e-4)
AFFINE = Flow(knots=0)  # near to the normals that SNPE-A divides; splines bend where a quotient is large


def TSNPE(*, learner: NPE = NPE(), number: int = 5, training: Training = TRAINING) -> Rounds:
    """NPE in rounds, from the prior cut to where the answer is dense. Needs no gold."""
    return Rounds(learner=learner, number=number, training=training)


def PNPE(
    *, learner: NPE = NPE(), before: AbstractSearch = ABC(), number: int = 2, training: Training = TRAINING
) -> Rounds:
    """TSNPE whose first round is already cut, to where a short ABC run found something like the data. Needs no gold."""
    card = Card("pnpe", "Wang et al. 2024, arXiv:2404.13557", "posterior", 20_000)
    return Rounds(learner=learner, before=before, number=number, training=training, card=card)


def SNPEA(*, learner: NPE = NPE(network=AFFINE), number: int = 5, training: Training = TRAINING) -> Rounds:
    """NPE in rounds, from the last answer; what is learnt is divided by that. Needs no gold."""
    card = Card("snpe-a", "Papamakarios and Murray 2016, arXiv:1605.06376", "posterior", 20_000)
    return Rounds(learner=learner, proposal=DividedProposal(), number=number, training=training, card=card)


def SNPEB(*, learner: NPE = NPE(), number: int = 5, training: Training = TRAINING) -> Rounds:
    """NPE in rounds, from the last answer, where simulations have weights in the loss. Needs no gold."""
    card = Card("snpe-b", "Lueckmann et al. 2017, arXiv:1711.01861", "posterior", 20_000)
    return Rounds(learner=learner, proposal=WeightedProposal(), number=number, training=training, card=card)


def SNPEC(*, learner: NPE = NPE(), atoms: int = 10, number: int = 5, training: Training = TRAINING) -> Rounds:
    """NPE in rounds, from the last answer, with a loss that does not see where theta came from. Needs no gold."""
    card = Card("snpe-c", "Greenberg et al. 2019, arXiv:1905.07488", "posterior", 20_000)
    then = dataclasses.replace(learner, atoms=atoms)
    return Rounds(learner=learner, then=then, proposal=PosteriorProposal(), number=number, training=training, card=card)


def SNLE(*, network: Flow | Mixture = Flow(), number: int = 5, training: Training = Training(4000)) -> Rounds:
    """NLE in rounds, from the last answer. Needs no gold."""
    card = Card("snle", "Papamakarios et al. 2019, arXiv:1805.07226", "posterior", 20_000)
    return Rounds(
        learner=NLE(network=network), proposal=PosteriorProposal(), number=number, training=training, card=card
    )


def SNRE(*, network: MLP = MLP(), number: int = 5, training: Training = Training(4000)) -> Rounds:
    """NRE in rounds, from the last answer. Needs no gold."""
    card = Card("snre", "Durkan et al. 2020, arXiv:2002.03712", "posterior", 20_000)
    return Rounds(
        learner=NRE(network=network), proposal=PosteriorProposal(), number=number, training=training, card=card
    )
