"""What `fit` asks of a loss and of a network. The losses themselves stand in `methods/`, one file per family."""

import abc
from typing import Any

import equinox as eqx
import jax

from .simulations import Simulations
from .solution import Key

Batch = Simulations | tuple[Simulations, ...]


class AbstractLoss(eqx.Module):
    """A training objective: hyperparameters, and a scalar for a network on a batch of simulations.

    Fields
    ------
    batch_size: how many simulations one evaluation takes.
    """

    batch_size: eqx.AbstractVar[int]

    @abc.abstractmethod
    def check(self, net: Any, batch: Batch) -> None:
        """Raise `ValueError` when this network or these simulations cannot be used with this loss."""

    @abc.abstractmethod
    def __call__(self, net: Any, batch: Batch, key: Key) -> jax.Array:
        """The loss `()`, differentiable in `net`."""


class AbstractFrozen(eqx.Module):
    """A part of a network that training leaves alone: statistics of the data, reference sets."""
