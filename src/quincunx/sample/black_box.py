"""Simulators that are functions in JAX: a key and parameters in, one observation out."""

import abc
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..core.batches import bucket, filled
from ..core.laws.function import ASKED_FOR_VALUES
from ..core.names import check_function, nearest
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
        return shape_of(self.sample, self.prior)

    @property
    def compiled(self) -> bool:
        return True

    def sample_set(self, key: Key, theta: jax.Array, num_observations: int) -> jax.Array:
        """Observations `(m, *event)` at theta `(dim,)`."""
        return _set(self.sample, key, theta, num_observations)

    def draw(self, key: Key, theta: Array, num_observations: int) -> tuple[np.ndarray, tuple[Failure, ...]]:
        return draw_rows(self.sample, self.prior, key, theta, num_observations)


Sample = Callable[[Key, jax.Array], jax.Array]  # one observation `(*event)` at theta `(dim,)`


def shape_of(sample: Sample, prior: Prior) -> tuple[int, ...]:
    """Shape of one observation; nothing is run."""
    return jax.eval_shape(sample, jax.random.key(0), jax.ShapeDtypeStruct((prior.dim,), np.float32)).shape


def draw_rows(
    sample: Sample, prior: Prior, key: Key, theta: Array, num_observations: int
) -> tuple[np.ndarray, tuple[Failure, ...]]:
    """What `draw` gives, from a function of one observation.

    Both numbers are filled up to buckets: of rows by half at most, of observations by an eighth. What is drawn for a
    row does not depend on that, up to rounding: JAX counts its random numbers.
    """
    theta = np.asarray(theta, np.float32)
    size, width = bucket(len(theta)), bucket(num_observations, 8)
    x = np.asarray(_draw(sample, key, filled(theta, size), width))[: len(theta), :num_observations].copy()
    return x, mark_failures(prior, theta, x, {})


def _set(sample: Sample, key: Key, theta: jax.Array, num_observations: int) -> jax.Array:
    return jax.vmap(sample, in_axes=(0, None))(jax.random.split(key, num_observations), theta)


@eqx.filter_jit
def _draw(sample: Sample, key: Key, theta: Array, num_observations: int) -> jax.Array:
    keys = jax.random.split(key, len(theta))
    return jax.vmap(lambda own, at: _set(sample, own, at, num_observations))(keys, theta)


def in_jax(call: Callable[[], Any], name: str, prior: Prior) -> Any:
    """What the call of a user's function gives, in a trace.

    Raises
    ------
    TypeError: the function leaves JAX, for NumPy or a Python `if`, or gives nothing.
    ValueError: it asks for a parameter that the prior does not have.
    """
    host = "@qx.numpy_simulator for a function (rng, theta) -> x in NumPy"
    try:
        value = call()
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            f"the function of simulator {name!r} calls NumPy, which JAX cannot trace; use jax.numpy, or {host}"
        ) from error
    except ASKED_FOR_VALUES as error:
        raise TypeError(
            f"the function of simulator {name!r} asks for a value while JAX traces it, as `if`, `float` and `range` "
            f"do; write it in JAX, with jnp.where, x.astype or jax.lax.fori_loop, or use {host}"
        ) from error
    except KeyError as error:
        asked = str(error.args[0]) if error.args else ""
        if asked in prior.names:
            raise
        raise ValueError(
            f"the function of simulator {name!r} asks for {asked!r}, which is no parameter"
            f"{nearest(asked, prior.names)}; the prior has {', '.join(prior.names)}"
        ) from error
    if value is None:
        raise TypeError(f"the function of simulator {name!r} gives nothing; let it return what it simulated")
    return value


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
        value = in_jax(lambda: self.function(key, self.prior.unpack(theta)), self.name, self.prior)
        return jnp.asarray(value, dtype=jnp.float32)


def simulator(
    prior: Prior, *, name: str | None = None, source: str = "", exact: Exact = Exact()
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

    def make(function: Callable) -> JaxSimulator:
        check_function(function, ("key", "theta"), "x")
        return JaxSimulator(function=function, prior=prior, name=name_of(function, name), source=source, exact=exact)

    return make


def name_of(function: Callable, name: str | None) -> str:
    """How a simulator is called: as it was told, or like its function."""
    return name or getattr(function, "__name__", "simulator")
