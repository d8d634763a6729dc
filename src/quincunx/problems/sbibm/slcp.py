"""SLCP, simple likelihood and complex posterior: four draws of a normal in the plane, alone and among distractors."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ...core.prior import Prior
from ...core.simulator import Exact
from ...core.solution import Key
from ...sample.black_box import simulator

DRAWS = 4
BOUND = 3.0
PARAMETERS = ("m1", "m2", "s1", "s2", "r")
EPSILON = 1e-6  # added to both variances by sbibm, from which the reference posteriors are

SEED = 42
DISTRACTORS, MIXED, FREEDOM = 92, 20, 2.0

_PRIOR = Prior(**{name: dist.Uniform(-BOUND, BOUND) for name in PARAMETERS})


class _Normal(NamedTuple):
    """A normal in the plane: the mean `(2,)`, and the lower triangle of the root of its covariance."""

    mean: jax.Array
    first: jax.Array
    cross: jax.Array
    second: jax.Array


def _normal(theta: jax.Array) -> _Normal:
    m1, m2, s1, s2, r = theta
    one, two, correlation = s1**2, s2**2, jnp.tanh(r)
    variance = one**2 + EPSILON
    left = 1 / jnp.cosh(r) ** 2 + correlation**2 * EPSILON / variance  # 1 - correlation^2, without cancellation
    first = jnp.sqrt(variance)
    second = jnp.sqrt(two**2 * left + EPSILON)
    return _Normal(jnp.stack([m1, m2]), first, correlation * one * two / first, second)


def _four(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """Four draws, one after the other `(8,)`."""
    law = _normal(jnp.stack([theta[name] for name in PARAMETERS]))
    a, b = jax.random.normal(key, (2, DRAWS))
    return (law.mean + jnp.stack([law.first * a, law.cross * a + law.second * b], axis=-1)).ravel()


def _log_likelihood(theta: jax.Array, x: jax.Array) -> jax.Array:
    law = _normal(theta)
    one, two = jnp.moveaxis(x.reshape(-1, 2) - law.mean, -1, 0)
    a = one / law.first
    b = (two - law.cross * a) / law.second
    return jnp.sum(-0.5 * (a**2 + b**2) - jnp.log(2 * np.pi * law.first * law.second))


@simulator(
    _PRIOR,
    source="Lueckmann et al. 2021, arXiv:2101.04653, T.3; Papamakarios, Sterratt, Murray 2019, arXiv:1805.07226",
    exact=Exact(log_likelihood=_log_likelihood),
)
def slcp(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """x `(8,)`: four draws, one after the other, of a normal in the plane with mean (m1, m2).

    Its standard deviations are s1^2 and s2^2, and its correlation tanh(r). The posterior has four modes, for the signs
    of s1 and s2, and edges where the prior ends. The variances are larger by 1e-6, as in the authors' code.
    """
    return _four(key, theta)


# -- among distractors ------------------------------------------------------------------------------


@functools.cache
def _figures() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres `(20, 92)` and roots `(20, 92, 92)` of the distractors' laws, and where things go `(100,)`.

    The benchmark drew them once. They are drawn again here: the numbers of NumPy's old generator are fixed for good.
    """
    rng = np.random.RandomState(SEED)
    centres = 15 * rng.normal(size=(MIXED, DISTRACTORS))
    roots = []
    for _ in range(MIXED):
        below = np.tril(rng.normal(size=(DISTRACTORS, DISTRACTORS)))
        roots.append(3 * (below + np.diag(np.exp(rng.normal(size=DISTRACTORS)))))
    order = rng.permutation(2 * DRAWS + DISTRACTORS)
    return centres.astype(np.float32), np.stack(roots).astype(np.float32), order


def _noise(key: Key) -> jax.Array:
    which_key, normal_key, scale_key = jax.random.split(key, 3)
    centres, roots, _ = map(jnp.asarray, _figures())
    which = jax.random.randint(which_key, (), 0, MIXED)
    normal = jax.random.normal(normal_key, (DISTRACTORS,))
    scale = jnp.sqrt(jax.random.chisquare(scale_key, FREEDOM) / FREEDOM)

    def add(total: jax.Array, one: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        place, root = one
        return total + jnp.matmul(root, jnp.where(which == place, normal, 0.0), precision="highest"), None

    # One law after the other, for its rows: picked by `roots[which]`, a thousand rows would copy 34 MB of them.
    correlated, _ = jax.lax.scan(add, jnp.zeros(DISTRACTORS), (jnp.arange(MIXED), roots))
    return centres[which] + correlated / scale


def _log_likelihood_among(theta: jax.Array, x: jax.Array) -> jax.Array:
    places = np.argsort(_figures()[2])[: 2 * DRAWS]
    return _log_likelihood(theta, x[:, places])


@simulator(
    _PRIOR,
    source="Lueckmann et al. 2021, arXiv:2101.04653, T.4; Greenberg, Nonnenmacher, Macke 2019, arXiv:1905.07488",
    exact=Exact(log_likelihood=_log_likelihood_among),
)
def slcp_distractors(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """x `(100,)`: the eight numbers of `slcp` and 92 that tell nothing, in an order that is always the same.

    The 92 are one draw from a mixture of 20 Student laws of two degrees of freedom, whose variance is infinite. The
    exact log-likelihood leaves out their density, which does not depend on theta.
    """
    own_key, noise_key = jax.random.split(key)
    both = jnp.concatenate([_four(own_key, theta), _noise(noise_key)])
    return both[_figures()[2]]
