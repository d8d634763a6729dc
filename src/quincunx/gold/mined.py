"""Simulators whose latent path can be scored, so that gold can be mined from them.

A mined simulator draws an observation x together with the latent path z that led to it, and knows the joint
log-probability of both at any theta. From that come, here and only here, the joint score (by autodiff) and the
joint log-probabilities at other thetas, whose differences are joint log-ratios (Brehmer et al. 2018,
arXiv:1805.12244, section II). `MinedSimulator` is a pair of plain JAX functions; NumPyro models are in `control/`.
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..core.batches import bucket, filled
from ..core.prior import Prior
from ..core.simulator import AbstractSimulator, Exact, check_prior, mark_failures
from ..core.solution import Array, Failure, Key
from ..sample.black_box import AbstractJaxSimulator, in_jax, name_of

Path = tuple[jax.Array, Any]  # one observation, and the latent path that led to it (a pytree)
NamedTheta = Mapping[str, jax.Array]


class Gold(NamedTuple):
    """What one run of a mined simulator gives, for n rows and J alternative thetas.

    Fields
    ------
    x: observations `(n, *event)`, float32.
    log_prob: log p(x, z | alternative) `(n, J)`. Only differences between columns mean anything: terms that no
        theta changes may be missing.
    score: grad_theta log p(x, z | theta) `(n, dim)`, at the theta that x was drawn from.
    failures: rows that failed; their numbers are NaN.
    """

    x: np.ndarray
    log_prob: np.ndarray
    score: np.ndarray
    failures: tuple[Failure, ...]


class AbstractMinedSimulator(AbstractSimulator):
    """A simulator that gives gold.

    Fields
    ------
    rate: for counting experiments, named theta -> expected number of events `()`; None where an experiment has a
        number of events that says nothing about theta.
    """

    rate: eqx.AbstractVar[Callable[[NamedTheta], jax.Array] | None]

    @abc.abstractmethod
    def mine(self, key: Key, theta: Array, alternatives: Array) -> Gold:
        """One observation at each row of theta `(n, dim)`, with its gold.

        alternatives: `(J, dim)`, the same for all rows, or `(n, J, dim)`.
        """


class MinedSimulator(AbstractMinedSimulator, AbstractJaxSimulator):
    """Two plain JAX functions: one draws `(x, z)`, one gives log p(x, z | theta).

    Calling the simulator calls the first.

    Fields
    ------
    function: `(key, theta) -> (x, z)`, where `theta` maps names to values, x is an array and z any pytree.
    joint_log_prob: `(theta, x, z) -> ()`, differentiable in theta; terms without theta may be left out.
    """

    function: Callable[[Key, NamedTheta], Path] = eqx.field(static=True)
    joint_log_prob: Callable[[NamedTheta, jax.Array, Any], jax.Array] = eqx.field(static=True)
    prior: Prior = eqx.field(static=True)
    name: str = eqx.field(static=True)
    source: str = eqx.field(static=True, default="")
    exact: Exact = eqx.field(static=True, default=Exact())
    rate: Callable[[NamedTheta], jax.Array] | None = eqx.field(static=True, default=None)

    def __call__(self, key: Key, theta: NamedTheta) -> Path:
        return self.function(key, theta)

    def sample(self, key: Key, theta: jax.Array) -> jax.Array:
        return self.path(key, theta)[0]

    def path(self, key: Key, theta: jax.Array) -> Path:
        """One observation `(*event)`, as float32, and its latent path, at theta `(dim,)`."""
        x, z = in_jax(lambda: self.function(key, self.prior.unpack(theta)), self.name, self.prior)
        return jnp.asarray(x, dtype=jnp.float32), z

    def log_prob(self, theta: jax.Array, x: jax.Array, z: Any) -> jax.Array:
        """log p(x, z | theta) `()` at theta `(dim,)`."""
        return in_jax(lambda: self.joint_log_prob(self.prior.unpack(theta), x, z), self.name, self.prior)

    def mine(self, key: Key, theta: Array, alternatives: Array) -> Gold:
        return mine_rows(self.path, self.log_prob, self.prior, key, theta, alternatives)


def mined_simulator(
    prior: Prior,
    *,
    joint_log_prob: Callable[[NamedTheta, jax.Array, Any], jax.Array],
    name: str | None = None,
    source: str = "",
    exact: Exact = Exact(),
    rate: Callable[[NamedTheta], jax.Array] | None = None,
) -> Callable[[Callable], MinedSimulator]:
    """Decorator that makes a `MinedSimulator` of a JAX function `(key, theta) -> (x, z)`.

    Parameters
    ----------
    prior: of the parameters.
    joint_log_prob: `(theta, x, z) -> ()`, the log-probability of what the function drew.
    name, source, exact, rate: see the fields of `MinedSimulator`.

    Examples
    --------
    >>> import jax, numpyro.distributions as dist
    >>> def log_prob(theta, x, z):
    ...     return dist.Normal(theta["mean"], 1.0).log_prob(z)  # p(x | z) holds no theta
    >>> @mined_simulator(Prior(mean=dist.Normal(0, 1)), joint_log_prob=log_prob)
    ... def smeared(key, theta):
    ...     z_key, x_key = jax.random.split(key)
    ...     z = theta["mean"] + jax.random.normal(z_key)
    ...     return z + 0.5 * jax.random.normal(x_key), z
    >>> smeared.event_shape
    ()
    """
    check_prior(prior)
    known = {"joint_log_prob": joint_log_prob, "prior": prior, "source": source, "exact": exact, "rate": rate}
    return lambda function: MinedSimulator(function=function, name=name_of(function, name), **known)


def mine_rows(
    path: Callable[[Key, jax.Array], Path],
    log_prob: Callable[[jax.Array, jax.Array, Any], jax.Array],
    prior: Prior,
    key: Key,
    theta: Array,
    alternatives: Array,
) -> Gold:
    """The gold of every row, from functions of one: `path(key, theta) -> (x, z)`, `log_prob(theta, x, z) -> ()`.

    Rows and alternatives are filled up to buckets; what a row gives does not depend on that, up to rounding.
    """
    theta, alternatives = np.asarray(theta, np.float32), np.asarray(alternatives, np.float32)
    num_rows, num_others = len(theta), alternatives.shape[-2]
    size, width = bucket(num_rows), bucket(num_others, 8)
    others = alternatives[..., np.arange(width) % num_others, :]
    others = others if others.ndim == 2 else filled(others, size)
    x, log_probs, score = map(np.asarray, _mine(path, log_prob, key, filled(theta, size), others))
    cut = log_probs[:num_rows, :num_others].copy()
    return finish(prior, theta, x[:num_rows].copy(), cut, score[:num_rows].copy(), {})


def finish(
    prior: Prior, theta: np.ndarray, x: np.ndarray, log_prob: np.ndarray, score: np.ndarray, reasons: Mapping[int, str]
) -> Gold:
    """Rows with a NaN anywhere, or an infinite x or score, become failures and hold only NaN."""
    reasons = dict(reasons)
    for row in np.flatnonzero(np.isnan(log_prob).any(axis=1) | ~np.isfinite(score).all(axis=1)):
        if int(row) not in reasons and np.isfinite(x[row]).all():
            reasons[int(row)] = "the joint log-probability or its gradient is NaN or infinite where x is finite"
    failures = mark_failures(prior, theta, x[:, None], reasons)
    bad = [failure.row for failure in failures]
    x[bad], log_prob[bad], score[bad] = np.nan, np.nan, np.nan
    return Gold(x, log_prob, score, failures)


@eqx.filter_jit
def _mine(path, log_prob, key: Key, theta: Array, alternatives: Array) -> tuple[jax.Array, ...]:
    def one(key, theta, others):
        x, z = path(key, theta)
        score = jax.grad(log_prob)(theta, x, z)
        return x, jax.vmap(lambda other: log_prob(other, x, z))(others), score

    shared = None if alternatives.ndim == 2 else 0
    return jax.vmap(one, in_axes=(0, 0, shared))(jax.random.split(key, len(theta)), theta, alternatives)
