"""Simulators that are functions in JAX: a key and parameters in, one observation out."""

import abc
import functools
from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..core.prior import Prior
from ..core.simulator import AbstractSimulator, Exact, check_prior, mark_failures
from ..core.solution import Array, Failure, Key


class AbstractJaxSimulator(AbstractSimulator):
    """A simulator in pure JAX, at whatever depth: one observation is traceable (`jit`, `vmap`).

    Fields
    ------
    source: where the simulator comes from (a paper, an equation), for lists and reports.
    exact: what is known exactly about it, for benchmarks.
    """

    source: eqx.AbstractVar[str]
    exact: eqx.AbstractVar[Exact]

    @abc.abstractmethod
    def sample(self, key: Key, theta: jax.Array) -> jax.Array:
        """One observation `(*event)` at theta `(dim,)`, as float32."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return jax.eval_shape(self.sample, jax.random.key(0), jnp.zeros(self.prior.dim)).shape

    def sample_set(self, key: Key, theta: jax.Array, num_observations: int) -> jax.Array:
        """Observations `(m, *event)` at theta `(dim,)`."""
        return jax.vmap(self.sample, in_axes=(0, None))(jax.random.split(key, num_observations), theta)

    def draw(self, key: Key, theta: Array, num_observations: int) -> tuple[np.ndarray, tuple[Failure, ...]]:
        theta = jnp.asarray(theta)
        x = np.array(_draw_rows(self, jax.random.split(key, len(theta)), theta, num_observations))
        return x, mark_failures(self.prior, np.asarray(theta), x, {})


class JaxSimulator(AbstractJaxSimulator):
    """A black box in JAX: `function(key, theta) -> x`, where `theta` maps names to values.

    One call gives one observation, an array of any fixed shape; m observations are m keys. The
    function must be traceable (`jit`, `vmap`). Calling the simulator calls the function.

    Fields
    ------
    function: the user's function.
    """

    function: Callable[[Key, Mapping[str, jax.Array]], jax.Array] = eqx.field(static=True)
    prior: Prior = eqx.field(static=True)
    name: str = eqx.field(static=True)
    source: str = eqx.field(static=True, default="")
    exact: Exact = eqx.field(static=True, default=Exact())

    def __call__(self, key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
        return self.function(key, theta)

    def sample(self, key: Key, theta: jax.Array) -> jax.Array:
        return jnp.asarray(self.function(key, self.prior.unpack(theta)), dtype=jnp.float32)


@functools.partial(eqx.filter_jit)
def _draw_rows(simulator: AbstractJaxSimulator, keys: Key, theta: jax.Array, num_observations: int) -> jax.Array:
    return jax.vmap(lambda k, t: simulator.sample_set(k, t, num_observations))(keys, theta)


def simulator(
    prior: Prior, *, name: str | None = None, source: str = "", exact: Exact | None = None
) -> Callable[[Callable], JaxSimulator]:
    """Decorator that makes a `JaxSimulator` of a JAX function `(key, theta) -> x`.

    `theta` is a mapping from the prior's names to arrays (scalars have shape `()`).

    Examples
    --------
    >>> import jax, numpyro.distributions as dist
    >>> @simulator(Prior(mean=dist.Normal(0, 1)))
    ... def shifted(key, theta):
    ...     return theta["mean"] + jax.random.normal(key)
    >>> shifted.event_shape
    ()
    """
    check_prior(prior)

    def wrap(function: Callable) -> JaxSimulator:
        return JaxSimulator(
            function=function,
            prior=prior,
            name=name or getattr(function, "__name__", "simulator"),
            source=source,
            exact=exact or Exact(),
        )

    return wrap
