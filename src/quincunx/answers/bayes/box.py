"""Parameters between two ends as shares of the way, the others unconstrained: where local fits are made."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions.transforms import biject_to

from ...core.batches import traced
from ...core.prior import Prior
from ...core.solution import Array

TINY = 1e-7  # of the way, from an end: the resolution of float32


class Box(eqx.Module):
    """The coordinates z of a prior: linear in a parameter between two finite ends, which are 0 and 1 there.

    A smooth statistic is as smooth in z as in theta, up to the ends, where the unconstrained parameter is infinite.
    What is not traced is computed in float64, but for the prior's own transforms.
    """

    prior: Prior = eqx.field(static=True)

    @property
    def between(self) -> np.ndarray:
        """Which coordinates lie between two ends, booleans `(d,)`."""
        return _between(self.prior)

    @property
    def dim(self) -> int:
        return len(self.between)

    def encode(self, theta: Array) -> Any:
        """theta `(..., dim)` -> z `(..., d)`."""
        u, numpy = _either(self.prior.unconstrain(theta))
        return numpy.where(self.between, 1 / (1 + numpy.exp(-u)), u)

    def decode(self, z: Array) -> Any:
        """z `(..., d)` -> theta `(..., dim)`, inside the prior's support."""
        return _either(self.prior.constrain(self._unconstrained(z)[0]))[0]

    def log_prior(self, z: Array) -> Any:
        """Log density `(...)` of the prior at z `(..., d)`; -inf outside the box."""
        u, log_slope = self._unconstrained(z)
        inside = ((z > 0) & (z < 1) | ~self.between).all(axis=-1)
        value, numpy = _either(self.prior.log_prob_unconstrained(u))
        return numpy.where(inside, value + log_slope, -np.inf)

    def _unconstrained(self, z: Array) -> tuple[Any, Any]:
        """The unconstrained parameters, and log |du / dz|."""
        z, numpy = _either(z)
        share = numpy.where(self.between, numpy.clip(z, TINY, 1 - TINY), 0.5)
        u = numpy.where(self.between, numpy.log(share) - numpy.log1p(-share), z)
        steep = -numpy.log(share) - numpy.log1p(-share)
        return u, numpy.where(self.between, steep, 0.0).sum(axis=-1)


@functools.lru_cache(maxsize=64)
def _between(prior: Prior) -> np.ndarray:
    named, each = prior.unpack(prior.sample(jax.random.key(0), 1)[0]), []
    for name, law in prior.laws(named):
        size = int(np.prod(biject_to(law.support).inverse_shape(prior.shapes[name]), dtype=int))
        each.append(np.full(size, prior.bounded[name] == (True, True)))
    return np.concatenate(each)


def _either(values: Array) -> tuple[Any, Any]:
    """The values, and the module that computes with them: JAX inside a trace, NumPy in float64 outside."""
    return (values, jnp) if traced(values) else (np.asarray(values, np.float64), np)
