"""Conditional normalising flows: masked autoregressive layers of monotonic maps.

    z_i = T(y_i; what a network makes of the y before i, and of the condition),      z ~ N(0, 1) in the end

A network with masks gives all parameters of a layer in one pass, and so the density; a draw takes a pass for each
dimension (Germain et al. 2015, arXiv:1502.03509; Papamakarios et al. 2017, arXiv:1705.07057). Each layer has an order
of the dimensions of its own.

Written here, for what FlowJAX 19.1 takes: beside its flow of the same size (five spline layers, five dimensions, 64
conditions), once on a busy machine, 1,024 draws cost a tenth and a new flow a hundredth. In the pass for a dimension
only its own outputs are evaluated, and nothing is compiled to make a flow.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ....answers.bayes.space import LOG_2PI
from ....core.solution import Key, rng_of
from .conditional import AbstractConditional
from .elements import Affine, Spline

MOST_KNOTS = 100


class Flow(eqx.Module):
    """What a conditional flow is to be made like. It has no weights yet.

    Fields
    ------
    layers: autoregressive layers; of a single dimension there is one.
    width: of the two hidden layers of the network in each of them; at least as many as y has numbers.
    knots: how many pieces the splines have; 0 for affine layers, of which more are needed.
    members: flows in the ensemble, trained side by side; the estimate is their mean density.
    """

    layers: int = eqx.field(static=True, default=5)
    width: int = eqx.field(static=True, default=50)
    knots: int = eqx.field(static=True, default=8)
    members: int = eqx.field(static=True, default=1)
    has_density: ClassVar[bool] = True  # in training

    def __check_init__(self):
        for name, value in [("layers", self.layers), ("width", self.width), ("members", self.members)]:
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.knots and not 2 <= self.knots <= MOST_KNOTS:
            raise ValueError(f"knots must be 0, for affine layers, or from 2 to {MOST_KNOTS}, got {self.knots}")

    def make(self, key: Key, event_dim: int, condition_dim: int) -> "ConditionalFlow":
        """An untrained flow for y of so many numbers under conditions of so many: a standard normal."""
        element = Spline(self.knots) if self.knots else Affine()
        layers = self.layers if event_dim > 1 else 1
        rng, shape = rng_of(key), (self.members, layers)
        width = max(self.width, event_dim)  # or there were not ranks enough for all dimensions, see `_masks`
        sizes = (event_dim + condition_dim, width, width)
        hidden = tuple(_linear(rng, shape, *pair) for pair in pairwise(sizes))
        last = (
            np.zeros((*shape, event_dim, element.num_parameters, width), np.float32),
            np.zeros((*shape, event_dim, element.num_parameters), np.float32),
        )
        return ConditionalFlow(jax.tree.map(jnp.asarray, (*hidden, last)), element, event_dim)


def _linear(rng: np.random.Generator, shape: tuple[int, int], num_in: int, num_out: int) -> tuple[np.ndarray, ...]:
    """Weights `(*shape, out, in)` and biases `(*shape, out)`, uniform between -1 and 1 over the root of `in`."""
    drawn = lambda *size: (rng.uniform(-1, 1, (*shape, *size)) / np.sqrt(num_in)).astype(np.float32)
    return drawn(num_out, num_in), drawn(num_out)


class ConditionalFlow(AbstractConditional):
    """A masked autoregressive flow for p(y | condition), y standardised; or several, of which it is the mean.

    Fields
    ------
    weights: matrix and bias of every layer of the networks, with leading axes (members, layers).
    element: the map T.
    event_dim: of y.
    """

    weights: tuple[tuple[jax.Array, jax.Array], ...]
    element: Spline | Affine
    event_dim: int = eqx.field(static=True)

    def each(self, y: jax.Array, condition: jax.Array) -> jax.Array:
        return self._over_members(lambda weights: self._log_prob(weights, y, condition))

    def sample(self, key: Key, condition: jax.Array, num_samples: int) -> jax.Array:
        members = len(self.weights[0][0])
        z_key, order_key = jax.random.split(key)
        z = jax.random.normal(z_key, (members, -(-num_samples // members), self.event_dim))
        y = self._over_members(lambda weights, z: self._drawn(weights, z, condition), z).reshape(-1, self.event_dim)
        return (y if members == 1 else jax.random.permutation(order_key, y))[:num_samples]

    def _over_members(self, function: Callable[..., jax.Array], *each: jax.Array) -> jax.Array:
        if len(self.weights[0][0]) == 1:  # a batch of one matrix product is slower than the product
            weights, each = jax.tree.map(lambda leaf: leaf[0], (self.weights, each))
            return function(weights, *each)[None]
        return jax.vmap(function)(self.weights, *each)

    def _masked(self, weights: Any) -> tuple[jax.Array, ...]:
        """The weights of all layers, 0 where a number must not be seen, and the order of their dimensions."""
        (first, _), (second, _), (last, _) = weights
        order = _orders(len(first), self.event_dim)
        seen, passed, told = _masks(order, first.shape[2], first.shape[1])
        biases = (bias for _, bias in weights)
        return first * seen, second * passed, last * told[:, :, None], *biases, jnp.asarray(order)

    def _log_prob(self, weights: Any, y: jax.Array, condition: jax.Array) -> jax.Array:
        def layer(state: tuple[jax.Array, jax.Array], parts: Any) -> tuple[tuple[jax.Array, jax.Array], None]:
            (y, slope), (first, second, last, *biases, _) = state, parts
            hidden = jax.nn.relu(jnp.concatenate([y, condition], axis=1) @ first.T + biases[0])
            hidden = jax.nn.relu(hidden @ second.T + biases[1])
            raw = (hidden @ last.reshape(-1, last.shape[-1]).T).reshape(-1, *last.shape[:-1]) + biases[2]
            z, gained = self.element.forward(raw, y)
            return (z, slope + jnp.sum(gained, axis=1)), None

        (z, slope), _ = jax.lax.scan(layer, (y, jnp.zeros(len(y))), self._masked(weights))
        return slope - 0.5 * jnp.sum(z**2 + LOG_2PI, axis=1)

    def _drawn(self, weights: Any, z: jax.Array, condition: jax.Array) -> jax.Array:
        d = self.event_dim

        def layer(z: jax.Array, parts: Any) -> tuple[jax.Array, None]:
            first, second, last, *biases, order = parts
            begun = first[:, d:] @ condition + biases[0]

            def next_one(turn: jax.Array, y: jax.Array) -> jax.Array:
                i = order[turn]
                hidden = jax.nn.relu(jax.nn.relu(y @ first[:, :d].T + begun) @ second.T + biases[1])
                return y.at[:, i].set(self.element.inverse(hidden @ last[i].T + biases[2][i], z[:, i]))

            return jax.lax.fori_loop(0, d, next_one, jnp.zeros_like(z)), None

        return jax.lax.scan(layer, z, self._masked(weights), reverse=True)[0]


def _orders(layers: int, dim: int) -> np.ndarray:
    """In which order `(layers, dim)` the dimensions come: every second time the reverse of the one before."""
    rng = np.random.default_rng(0)
    pairs = [np.arange(dim), *(rng.permutation(dim) for _ in range(layers // 2))]
    return np.stack([pairs[layer // 2][:: 1 - 2 * (layer % 2)] for layer in range(layers)])


def _masks(order: np.ndarray, num_in: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a hidden unit sees of the inputs `(layers, width, in)`, of the units before, and outputs of the last ones.

    A unit of rank r knows the dimensions before the r-th, rank 0 nothing but the condition.
    """
    dim = order.shape[1]
    place = np.argsort(order, axis=1)
    inputs = np.concatenate([place + 1, np.zeros((len(order), num_in - dim), int)], axis=1)
    rank = np.arange(width) % dim
    passed = (rank[:, None] >= rank).astype(np.float32)
    seen = (rank[:, None] >= inputs[:, None]).astype(np.float32)
    return seen, passed, (place[:, :, None] >= rank).astype(np.float32)
