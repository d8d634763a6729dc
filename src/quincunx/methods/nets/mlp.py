"""Multilayer perceptrons, and ensembles of them that train in one `vmap`."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from ...core.solution import Key
from .layers import Dense

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"silu": jax.nn.silu, "tanh": jnp.tanh}


class MLP(eqx.Module):
    """`(..., in)` -> `(..., out)`. The last layer starts at zero: an untrained network predicts nothing."""

    layers: tuple[Dense, ...]
    activation: str = eqx.field(static=True, default="silu")

    @staticmethod
    def make(key: Key, num_in: int, widths: tuple[int, ...], num_out: int, activation: str = "silu") -> "MLP":
        sizes = (num_in, *widths, num_out)
        keys = jax.random.split(key, len(sizes) - 1)
        layers = [Dense.make(k, i, o) for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)]
        layers[-1] = jax.tree.map(jnp.zeros_like, layers[-1])
        return MLP(tuple(layers), activation)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers[:-1]:
            x = ACTIVATIONS[self.activation](layer(x))
        return self.layers[-1](x)


class Ensemble(eqx.Module):
    """K networks of one shape: `(..., in)` -> `(K, ..., out)`.

    Fields
    ------
    members: an `MLP` whose arrays have a leading axis K.
    """

    members: MLP

    @staticmethod
    def make(
        key: Key, num_members: int, num_in: int, widths: tuple[int, ...], num_out: int, activation: str = "silu"
    ) -> "Ensemble":
        if num_members < 1:
            raise ValueError(f"num_members must be at least 1, got {num_members}")
        if not widths or min(widths) < 1:
            raise ValueError(f"widths must be a tuple of positive numbers, one for each hidden layer, got {widths}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        make = lambda k: MLP.make(k, num_in, widths, num_out, activation)
        return Ensemble(eqx.filter_vmap(make)(jax.random.split(key, num_members)))

    @property
    def num_members(self) -> int:
        return len(self.members.layers[0].weight)

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.num_members == 1:  # a batch of one matrix product is slower than the product
            return jax.tree.map(lambda leaf: leaf[0], self.members)(x)[None]
        return eqx.filter_vmap(lambda member: member(x))(self.members)
