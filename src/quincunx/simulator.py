"""The first rung of the ladder of simulators: black boxes, in JAX here and on the host in `host.py`.

A simulator takes a key and parameters and gives one observation. `AbstractSimulator` is all that most of the
library knows of it. The next rung, simulators whose latent path can be scored, is in `mined.py`.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._types import Array, Failure, Key
from .prior import Prior


class AbstractSimulator(eqx.Module):
    """Anything that can draw observations at given parameters.

    Fields
    ------
    name: how the simulator is called in files and messages.
    prior: the prior of its parameters.
    """

    name: eqx.AbstractVar[str]
    prior: eqx.AbstractVar[Prior]

    @abc.abstractmethod
    def draw(self, key: Key, theta: Array, num_observations: int) -> tuple[np.ndarray, tuple[Failure, ...]]:
        """`num_observations` (m) independent observations at each row of theta `(n, dim)`.

        Returns the observations `(n, m, *event)` as float32, and the rows that failed. A failed row
        holds NaN. An observation that is not finite makes its row a failed one.
        """


@dataclasses.dataclass(frozen=True)
class Exact:
    """What is known exactly about a benchmark simulator; a field is None where nothing is.

    All functions are pure JAX. `x` is a set of m i.i.d. observations `(m, *event)`.

    Fields
    ------
    log_likelihood: `(theta (dim,), x) -> scalar`, the log-density of the whole set.
    mle: `x -> theta (dim,)`, the maximum likelihood estimate inside the prior's support.
    posterior_mean: `x -> theta (dim,)`, under the simulator's own prior.
    posterior_std: `x -> (dim,)`, likewise.
    """

    log_likelihood: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    mle: Callable[[jax.Array], jax.Array] | None = None
    posterior_mean: Callable[[jax.Array], jax.Array] | None = None
    posterior_std: Callable[[jax.Array], jax.Array] | None = None


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


def mark_failures(prior: Prior, theta: np.ndarray, x: np.ndarray, reasons: Mapping[int, str]) -> tuple[Failure, ...]:
    """Fill failed rows of `x` with NaN, in place, and list them: those in `reasons`, and those not finite."""
    finite = np.all(np.isfinite(x).reshape(len(x), -1), axis=1, keepdims=True)[:, 0]
    failures = []
    for row in range(len(x)):
        if row in reasons or not finite[row]:
            bad = int(np.sum(~np.isfinite(x[row]).reshape(x.shape[1], -1).all(axis=1)))
            reason = reasons.get(row, f"{bad} of {x.shape[1]} observations are NaN or infinite")
            failures.append(Failure(row, dict(zip(prior.columns, theta[row].tolist(), strict=True)), reason))
            x[row] = np.nan
    return tuple(failures)


def check_prior(prior: object) -> None:
    if not isinstance(prior, Prior):
        raise TypeError(f"expected a Prior, got {type(prior).__name__}; write qx.Prior(name=distribution, ...)")


class NamedSimulator(AbstractSimulator):
    """Stands for a simulator that is not here: it has a name and a prior, and cannot run.

    Fields
    ------
    advice: how the simulator itself can be had, for the error when it is asked to run.
    """

    name: str = eqx.field(static=True)
    prior: Prior = eqx.field(static=True)
    advice: str = eqx.field(static=True)

    def draw(self, key: Key, theta: Array, num_observations: int) -> tuple[np.ndarray, tuple[Failure, ...]]:
        raise ValueError(f"the simulator {self.name!r} cannot be run: {self.advice}")
