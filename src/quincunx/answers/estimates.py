"""What every estimator is: what training makes, and what answers are made from.

| an estimator of      | gives                                      | answer                        |
|----------------------|--------------------------------------------|-------------------------------|
| the likelihood ratio | `log_ratio(theta, x)`                      | `qx.likelihood(estimator, x)` |
| the posterior        | a posterior for one data set, by `infer`   | `qx.posterior(estimator, x)`  |
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..core.prior import Prior
from ..core.simulations import as_observations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key, Solution
from ..sample.black_box import AbstractJaxSimulator


class AbstractEstimator(eqx.Module):
    """What a method learns about one simulator.

    Fields
    ------
    simulator: what it was trained for.
    event_shape: shape of one observation.
    """

    simulator: eqx.AbstractVar[AbstractSimulator]
    event_shape: eqx.AbstractVar[tuple[int, ...]]

    @property
    def prior(self) -> Prior:
        """The prior of the parameters: their names, and the support that no estimate leaves."""
        return self.simulator.prior

    def observations(self, x: Array) -> jax.Array:
        """Observed data as float32 `(m, *event)`, checked; raises `ValueError` and `TypeError`."""
        return as_observations(x, self.event_shape, f"the simulator {self.simulator.name!r}")

    def require(self, simulator: AbstractSimulator) -> None:
        """Raise `ValueError` unless this estimator was trained for the simulator."""
        if simulator.name != self.simulator.name or not simulator.prior.same_law(self.prior):
            raise ValueError(
                f"this estimator was trained for the simulator {self.simulator.name!r} with {self.prior}, "
                f"not for {simulator.name!r} with {simulator.prior}; train one for it"
            )


class AbstractRatio(AbstractEstimator):
    """log r(x | theta) = log p(x | theta) - log p(x | reference), up to a term that depends on x alone.

    For i.i.d. observations the log-ratios add. Whatever holds a fixed reference can be compared between thetas:
    log r(x | theta_0, theta_1) = log_ratio(theta_0, x) - log_ratio(theta_1, x).
    """

    @abc.abstractmethod
    def log_ratio(self, theta: Array, x: Array) -> jax.Array:
        """log r `(n,)` of n single observations x `(n, *event)` at one theta `(dim,)`.

        Pure JAX: traceable, differentiable in theta, and fit for `vmap` over either argument.
        """


class AbstractDensity(AbstractRatio):
    """A ratio that is the likelihood itself: `log_ratio` is log p(x | theta)."""


class AbstractPosteriorEstimator(AbstractEstimator):
    """Gives a posterior for any data set, at once."""

    @abc.abstractmethod
    def infer(self, key: Key, x: jax.Array) -> Solution[Any]:
        """The posterior given observations x `(m, *event)` that were checked; its history, and warnings about it."""


class AbstractAmortised(AbstractPosteriorEstimator):
    """Gives posteriors for many data sets at a time, which is faster than one by one."""

    @abc.abstractmethod
    def sample(self, key: Key, x: Array, num_samples: int) -> jax.Array:
        """Draws theta `(num_samples, B, dim)` of the posteriors of B data sets x `(B, m, *event)`."""

    @abc.abstractmethod
    def log_prob(self, theta: Array, x: Array) -> jax.Array:
        """Log density `(S, B)` at theta `(S, B, dim)` of the posteriors of B data sets x `(B, m, *event)`."""


class ExactRatio(AbstractDensity):
    """The true log-density of a benchmark simulator, as a ratio to judge others by."""

    simulator: AbstractJaxSimulator = eqx.field(static=True)
    event_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, simulator: AbstractJaxSimulator):
        if simulator.exact.log_likelihood is None:
            raise ValueError(f"the simulator {simulator.name!r} has no exact log-likelihood")
        self.simulator = simulator
        self.event_shape = simulator.event_shape

    def log_ratio(self, theta: Array, x: Array) -> jax.Array:
        log_likelihood: Any = self.simulator.exact.log_likelihood
        return jax.vmap(lambda each: log_likelihood(jnp.asarray(theta), each[None]))(jnp.asarray(x))
