"""A learnt likelihood as a term of a NumPyro model: for hierarchies, and for whatever else a model can say."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from ...core.simulations import as_observations
from ...core.solution import Array
from ..estimates import AbstractRatio


def as_factor(estimator: AbstractRatio, x: Array, *, name: str = "likelihood") -> Callable[..., None]:
    """A function that adds log p(x | theta) to a NumPyro model, up to a constant.

    Parameters
    ----------
    estimator: of a ratio or of the likelihood, what `train` returned as its value.
    x: observations `(m, *event)`; or of groups, `(G, m, *event)`, each with parameters of its own.
    name: of the factor.

    Returns
    -------
    A function of the estimator's parameters by name. For groups at least one of them has the leading axis `(G,)`; the
    others are the same for all. The estimator's own prior plays no part: the model says what is likely beforehand. What
    lies outside its support is impossible.

    Raises
    ------
    ValueError: observations of the wrong shape or with NaN; when the model runs, an unknown or a missing parameter, or
        another number of groups.

    Examples
    --------
    >>> import numpy as np, numpyro, numpyro.distributions as dist, quincunx as qx
    >>> add = qx.as_factor(qx.ExactRatio(qx.problems.poisson), np.array([[3, 4], [9, 11]]))
    >>> def model():
    ...     middle = numpyro.sample("middle", dist.Uniform(0, 5))
    ...     with numpyro.plate("groups", 2):
    ...         rate = numpyro.sample("rate", dist.Normal(middle, 1))
    ...     add(log_rate=rate)
    """
    grouped = np.ndim(x) == len(estimator.event_shape) + 2
    expected = f"the simulator {estimator.simulator.name!r}"
    sets = [as_observations(each, estimator.event_shape, expected) for each in (np.asarray(x) if grouped else [x])]
    data, prior = jnp.stack(sets), estimator.prior

    def one(theta: jax.Array, x: jax.Array) -> jax.Array:
        inside = prior.contains(theta)
        found = jnp.sum(estimator.log_ratio(jnp.where(inside, theta, _anywhere(estimator)), x))
        return jnp.where(inside, found, -jnp.inf)

    def add(**named: Any) -> None:
        theta = jnp.atleast_2d(prior.pack({key: jnp.asarray(value) for key, value in named.items()}))
        if len(theta) not in (1, len(data)) or theta.ndim != 2:
            raise ValueError(f"parameters of {theta.shape[:-1]} groups, and observations of {len(data)}")
        numpyro.factor(name, jax.vmap(one)(jnp.broadcast_to(theta, (len(data), prior.dim)), data).sum())

    return add


def _anywhere(estimator: AbstractRatio) -> np.ndarray:
    """A theta `(dim,)` of the support."""
    with jax.ensure_compile_time_eval():
        return np.asarray(estimator.prior.sample(jax.random.key(0), 1))[0]
