"""Conditional normalising flows: FlowJAX behind one small class."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import paramax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import StandardNormal
from flowjax.flows import masked_autoregressive_flow

from ...core.solution import Key

INTERVAL = 4.0  # standard deviations of y within which the splines bend; outside, the tails of a normal


class Shape(NamedTuple):
    """All that a flow is made from, its weights aside.

    Fields
    ------
    event_dim, condition_dim: sizes of y and of the condition.
    layers: autoregressive layers; one is enough for a single dimension.
    width: of the two hidden layers of the network in each of them.
    knots: of the splines.
    """

    event_dim: int
    condition_dim: int
    layers: int
    width: int
    knots: int


class Flow(eqx.Module):
    """A masked autoregressive spline flow for p(y | condition), y standardised.

    Papamakarios et al. 2017, arXiv:1705.07057; Durkan et al. 2019, arXiv:1906.04032.

    Fields
    ------
    weights: the trained arrays, in the order in which FlowJAX's object holds them.
    shape: the rest of that object is made again from it.
    """

    weights: tuple[jax.Array, ...]
    shape: tuple[int, ...] = eqx.field(static=True)

    def __check_init__(self):
        _split(self.shape)  # now, into the cache: FlowJAX's objects cannot be made inside a compiled function

    @staticmethod
    def make(
        key: Key, event_dim: int, condition_dim: int, *, layers: int = 2, width: int = 50, knots: int = 8
    ) -> "Flow":
        """An untrained flow; the options are fields of `Shape`."""
        for name, value in [("layers", layers), ("width", width), ("knots", knots)]:
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        shape = Shape(event_dim, condition_dim, layers if event_dim > 1 else 1, width, knots)
        weights, _ = _parts(_distribution(key, shape))
        return Flow(tuple(jax.tree.leaves(weights)), tuple(shape))

    def log_prob(self, y: jax.Array, condition: jax.Array) -> jax.Array:
        """Log density `(n,)` of y `(n, event_dim)` under conditions `(n, condition_dim)`."""
        trained, fixed = _split(self.shape)
        weights = jax.tree.unflatten(jax.tree.structure(trained), self.weights)
        distribution = paramax.unwrap(eqx.combine(weights, fixed))
        return jax.vmap(distribution.log_prob)(y, condition)


@functools.cache
def _split(values: tuple[int, ...]) -> tuple[Any, Any]:
    """The trainable arrays of one distribution of this shape, and everything else.

    The key is fixed: it only says how the dimensions are permuted between layers, the weights come from elsewhere, and
    flows that differ in nothing else share their compiled functions.
    """
    return _parts(_distribution(jax.random.key(0), Shape(*values)))


def _distribution(key: Key, shape: Shape) -> Any:
    return masked_autoregressive_flow(
        key,
        base_dist=StandardNormal((shape.event_dim,)),
        transformer=RationalQuadraticSpline(knots=shape.knots, interval=INTERVAL),
        cond_dim=shape.condition_dim,
        flow_layers=shape.layers,
        nn_width=shape.width,
        nn_depth=2,
    )


def _parts(distribution: Any) -> tuple[Any, Any]:
    fixed = lambda leaf: isinstance(leaf, paramax.NonTrainable)
    trainable = jax.tree.map(lambda leaf: not fixed(leaf) and eqx.is_inexact_array(leaf), distribution, is_leaf=fixed)
    return eqx.partition(distribution, trainable, is_leaf=fixed)
