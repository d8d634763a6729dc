"""Multilayer perceptrons, and ensembles of them that train in one `vmap`."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from ...core.solution import Key

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"silu": jax.nn.silu, "tanh": jnp.tanh}


class MLP(eqx.Module):
    """What a network is to be made like. It has no weights yet.

    Fields
    ------
    widths: of the hidden layers.
    members: networks in the ensemble; the estimate is their mean.
    activation: "silu" or "tanh".
    """

    widths: tuple[int, ...] = eqx.field(static=True, default=(100, 100, 100))
    members: int = eqx.field(static=True, default=1)
    activation: str = eqx.field(static=True, default="silu")

    def __check_init__(self):
        if self.members < 1:
            raise ValueError(f"members must be at least 1, got {self.members}")
        if min(self.widths, default=0) < 1:
            raise ValueError(
                f"widths must be a tuple of positive numbers, one for each hidden layer, got {self.widths}"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")

    def make(self, key: Key, num_in: int, num_out: int) -> "Ensemble":
        """Networks `(in,)` -> `(out,)`. The last layer starts at zero: untrained, they predict nothing."""
        sizes = (num_in, *self.widths, num_out)

        @eqx.filter_vmap
        def one(key: Key) -> tuple[eqx.nn.Linear, ...]:
            keys = jax.random.split(key, len(sizes) - 1)
            layers = [eqx.nn.Linear(i, o, key=k) for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)]
            return (*layers[:-1], jax.tree.map(jnp.zeros_like, layers[-1]))

        return Ensemble(one(jax.random.split(key, self.members)), self.activation)


class Ensemble(eqx.Module):
    """K networks of one shape. Made by `MLP.make`.

    Fields
    ------
    layers: affine layers, whose arrays have a leading axis K.
    activation: between them.
    """

    layers: tuple[eqx.nn.Linear, ...]
    activation: str = eqx.field(static=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(n, in)` -> `(K, n, out)`."""

        def one(layers: tuple[eqx.nn.Linear, ...], x: jax.Array) -> jax.Array:
            for layer in layers[:-1]:
                x = ACTIVATIONS[self.activation](layer(x))
            return layers[-1](x)

        over_rows = eqx.filter_vmap(one, in_axes=(None, 0))
        if len(jax.tree.leaves(self.layers)[0]) == 1:  # a batch of one matrix product is slower than the product
            return over_rows(jax.tree.map(lambda leaf: leaf[0], self.layers), x)[None]
        return eqx.filter_vmap(over_rows, in_axes=(0, None))(self.layers, x)
