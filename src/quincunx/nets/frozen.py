"""Which leaves of a network are trained."""

from typing import Any, TypeVar

import equinox as eqx
import jax

Net = TypeVar("Net")


class AbstractFrozen(eqx.Module):
    """A part of a network that training leaves alone: statistics of the data, reference sets."""


def partition(net: Net) -> tuple[Net, Net]:
    """`(trainable, rest)`: the float arrays outside any `AbstractFrozen`, and everything else."""

    def trainable(node: Any) -> Any:
        if isinstance(node, AbstractFrozen):
            return jax.tree.map(lambda _: False, node)
        return eqx.is_inexact_array(node)

    return eqx.partition(net, jax.tree.map(trainable, net, is_leaf=lambda node: isinstance(node, AbstractFrozen)))
