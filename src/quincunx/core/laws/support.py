"""Supports of distributions: their ends, what lies in them, and what distributions are called."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.truncated import (
    LeftTruncatedDistribution,
    RightTruncatedDistribution,
    TwoSidedTruncatedDistribution,
)
from numpyro.distributions.util import lazy_property

from ..batches import traced

MOST_SHOWN = 9  # numbers of a matrix

_CUT = (LeftTruncatedDistribution, RightTruncatedDistribution, TwoSidedTruncatedDistribution)
_SIDES = (("lower_bound", -np.inf), ("upper_bound", np.inf))


def inside(law: dist.Distribution, value: jax.Array) -> jax.Array:
    """Whether a value `(*batch, *event)` lies in the support, as booleans `(*batch)`."""
    return jnp.asarray(support_of(law)(value))


def ends_of(law: dist.Distribution) -> tuple[Any, Any]:
    """The ends of the support, `(size,)` each: infinite where there is none, NaN where components cannot vary alone."""
    shape, support = law.batch_shape + law.event_shape, _base(law)
    bounds = [getattr(support, side, np.nan if _joint(support) else none) for side, none in _SIDES]
    numpy = jnp if traced(bounds) else np
    low, high = (numpy.broadcast_to(numpy.asarray(bound, np.float32), shape).ravel() for bound in bounds)
    return low, high


def has_ends(law: dist.Distribution) -> tuple[bool, bool]:
    """Whether the support has a lower end, and an upper one, when its values are not known yet."""
    support = _base(law)
    low, high = (not _joint(support) and getattr(support, side, None) is not None for side, _ in _SIDES)
    return low, high


def support_of(law: dist.Distribution) -> Any:
    return law.support  # typed as optional by NumPyro; every distribution has one


def _base(law: dist.Distribution) -> Any:
    support = support_of(law)
    while (base := getattr(support, "base_constraint", None)) is not None:
        support = base
    return support


def _joint(support: Any) -> bool:
    return getattr(support, "event_dim", 0) > 0


def kind_of(law: dist.Distribution) -> str:
    """The name of the distribution's class, or of the one that it repeats."""
    wrapped = isinstance(law, (dist.Independent, dist.ExpandedDistribution))
    return kind_of(law.base_dist) if wrapped else type(law).__name__


def describe(law: object) -> str:
    """A one-line description of a NumPyro distribution, such as `Uniform(low=40, high=50)`."""
    if isinstance(law, (dist.Independent, dist.ExpandedDistribution)):
        return f"{describe(law.base_dist)} of shape {law.batch_shape + law.event_shape}"
    if not isinstance(law, dist.Distribution):
        return str(law)
    settings = [
        f"{name}={_number(np.asarray(getattr(law, name)))}"
        for name in law.arg_constraints
        if not _follows(law, name) and getattr(law, name, None) is not None
    ]
    if isinstance(law, _CUT):
        settings.insert(0, describe(law.base_dist))
    return f"{type(law).__name__}({', '.join(settings)})"


def _follows(law: dist.Distribution, name: str) -> bool:
    """Whether a setting is worked out from others when it is asked for, such as the inverse of a matrix."""
    return isinstance(getattr(type(law), name, None), lazy_property) and name not in vars(law)


def _number(value: np.ndarray) -> str:
    """The value, or of a larger matrix, its shape: it would fill a page."""
    if value.ndim > 1 and value.size > MOST_SHOWN:
        return f"array of shape {value.shape}"
    return np.array2string(value, precision=6)
