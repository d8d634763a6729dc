"""Conditional normalising flows: FlowJAX behind one small class."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import paramax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import StandardNormal
from flowjax.flows import masked_autoregressive_flow

from ...core.solution import Key

INTERVAL = 4.0  # standard deviations of y within which the splines bend; outside, the tails of a normal


class Flow(eqx.Module):
    """What a conditional flow is to be made like. It has no weights yet.

    Fields
    ------
    layers: autoregressive layers; one is enough for a single dimension.
    width: of the two hidden layers of the network in each of them.
    knots: of the splines.
    """

    layers: int = eqx.field(static=True, default=2)
    width: int = eqx.field(static=True, default=50)
    knots: int = eqx.field(static=True, default=8)

    def __check_init__(self):
        for name, value in [("layers", self.layers), ("width", self.width), ("knots", self.knots)]:
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def make(self, key: Key, event_dim: int, condition_dim: int) -> "ConditionalFlow":
        """An untrained flow for y of so many numbers under conditions of so many."""
        shape = (event_dim, condition_dim, self.layers if event_dim > 1 else 1, self.width, self.knots)
        weights, _ = _parts(_distribution(key, shape))
        return ConditionalFlow(tuple(jax.tree.leaves(weights)), shape)


class ConditionalFlow(eqx.Module):
    """A masked autoregressive spline flow for p(y | condition), y standardised.

    Papamakarios et al. 2017, arXiv:1705.07057; Durkan et al. 2019, arXiv:1906.04032.

    Fields
    ------
    weights: the trained arrays, in the order in which FlowJAX's object holds them.
    shape: event_dim, condition_dim, layers, width, knots: the rest of that object is made again from it.
    """

    weights: tuple[jax.Array, ...]
    shape: tuple[int, ...] = eqx.field(static=True)

    def __check_init__(self):
        _split(self.shape)  # now, into the cache: FlowJAX's objects cannot be made inside a compiled function

    def loss(self, key: Key, y: jax.Array, condition: jax.Array) -> jax.Array:
        """Minus the mean log density, `()`."""
        return -jnp.mean(self.log_prob(y, condition))

    def log_prob(self, y: jax.Array, condition: jax.Array) -> jax.Array:
        """Log density `(n,)` of y `(n, event_dim)` under conditions `(n, condition_dim)`."""
        return jax.vmap(self._distribution.log_prob)(y, condition)

    def sample(self, key: Key, condition: jax.Array, num_samples: int) -> jax.Array:
        """Draws of y `(num_samples, event_dim)` under one condition `(condition_dim,)`."""
        return self._distribution.sample(key, (num_samples,), condition=condition)

    @property
    def _distribution(self) -> Any:
        trained, fixed = _split(self.shape)
        weights = jax.tree.unflatten(jax.tree.structure(trained), self.weights)
        return paramax.unwrap(eqx.combine(weights, fixed))


@functools.cache
def _split(values: tuple[int, ...]) -> tuple[Any, Any]:
    """The trainable arrays of one distribution of this shape, and everything else.

    The key is fixed: it only says how the dimensions are permuted between layers, the weights come from elsewhere, and
    flows that differ in nothing else share their compiled functions.
    """
    return _parts(_distribution(jax.random.key(0), values))


def _distribution(key: Key, shape: tuple[int, ...]) -> Any:
    event_dim, condition_dim, layers, width, knots = shape
    return masked_autoregressive_flow(
        key,
        base_dist=StandardNormal((event_dim,)),
        transformer=RationalQuadraticSpline(knots=knots, interval=INTERVAL),
        cond_dim=condition_dim,
        flow_layers=layers,
        nn_width=width,
        nn_depth=2,
    )


def _parts(distribution: Any) -> tuple[Any, Any]:
    fixed = lambda leaf: isinstance(leaf, paramax.NonTrainable)
    trainable = jax.tree.map(lambda leaf: not fixed(leaf) and eqx.is_inexact_array(leaf), distribution, is_leaf=fixed)
    return eqx.partition(distribution, trainable, is_leaf=fixed)
