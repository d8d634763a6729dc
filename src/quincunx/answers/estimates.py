"""What every estimate of a likelihood ratio is: a function of theta and single observations."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from ..core.prior import Prior
from ..core.solution import Array
from ..sample.black_box import AbstractJaxSimulator


class AbstractRatio(eqx.Module):
    """log r(x | theta) = log p(x | theta) - log p(x | reference), up to a term that depends on x alone.

    For i.i.d. observations the log-ratios add. Whatever holds a fixed reference can be compared between thetas:
    log r(x | theta_0, theta_1) = log_ratio(theta_0, x) - log_ratio(theta_1, x).
    """

    @property
    @abc.abstractmethod
    def prior(self) -> Prior:
        """The prior of the parameters: their names, and the support that no estimate leaves."""

    @property
    @abc.abstractmethod
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""

    @abc.abstractmethod
    def log_ratio(self, theta: Array, x: Array) -> jax.Array:
        """log r `(n,)` of n single observations x `(n, *event)` at one theta `(dim,)`.

        Pure JAX: traceable, differentiable in theta, and fit for `vmap` over either argument.
        """


class ExactRatio(AbstractRatio):
    """The true log-density of a benchmark simulator, as a ratio to judge others by."""

    simulator: AbstractJaxSimulator = eqx.field(static=True)

    def __check_init__(self):
        if self.simulator.exact.log_likelihood is None:
            raise ValueError(f"the simulator {self.simulator.name!r} has no exact log-likelihood")

    @property
    def prior(self) -> Prior:
        return self.simulator.prior

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.simulator.event_shape

    def log_ratio(self, theta: Array, x: Array) -> jax.Array:
        log_likelihood = self.simulator.exact.log_likelihood
        if log_likelihood is None:
            raise ValueError(f"the simulator {self.simulator.name!r} has no exact log-likelihood")
        return jax.vmap(lambda each: log_likelihood(jnp.asarray(theta), each[None]))(jnp.asarray(x))
