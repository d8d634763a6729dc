"""A neuron that answers white noise with spikes: a generalised linear model, by its sufficient statistic and raw."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro import validation_enabled

from ...core.prior import Prior
from ...core.simulator import Exact
from ...core.solution import Key
from ...sample.black_box import simulator

TIMES, LAGS = 100, 9
SEED = 42
OFFSET_VARIANCE = 2.0


def _design() -> np.ndarray:
    """A column of ones, and the stimulus as it was 0 to 8 steps before `(100, 10)`.

    The benchmark drew the stimulus once. It is drawn again here: the numbers of NumPy's old generator are fixed for
    good.
    """
    stimulus = np.random.RandomState(SEED).randn(TIMES)
    before = np.stack([np.concatenate([np.zeros(lag), stimulus[: TIMES - lag]]) for lag in range(LAGS)], axis=1)
    return np.concatenate([np.ones((TIMES, 1)), before], axis=1).astype(np.float32)


def _smooth() -> dist.MultivariateNormal:
    """The prior of the filter: F filter ~ Normal(0, 1), where F holds second differences and a growing diagonal.

    It is put together from NumPy's arrays: the constructor would make JAX take a device when this module is imported.
    """
    difference = np.eye(LAGS) - np.eye(LAGS, k=-1)
    f = difference @ difference + np.diag(np.sqrt(np.arange(LAGS) / LAGS))
    mean, root = np.zeros(LAGS, np.float32), np.tril(np.linalg.inv(f)).astype(np.float32)
    with validation_enabled(False):
        abstract = jax.eval_shape(lambda mean, root: dist.MultivariateNormal(mean, scale_tril=root), mean, root)
    return jax.tree.map(lambda field: root if field.ndim == 2 else mean, abstract)  # NumPyro's order of them varies


DESIGN = _design()
_PRIOR = Prior(offset=dist.Normal(0, float(np.sqrt(OFFSET_VARIANCE))), filter=_smooth())


def _product(one: jax.Array | np.ndarray, other: jax.Array | np.ndarray) -> jax.Array:
    return jnp.matmul(one, other, precision="highest")


def _log_likelihood(theta: jax.Array, x: jax.Array) -> jax.Array:
    """Of statistics, up to how many trains of spikes have them."""
    return jnp.sum(_product(x, theta)) - len(x) * jnp.sum(jax.nn.softplus(_product(DESIGN, theta)))


def _log_likelihood_raw(theta: jax.Array, x: jax.Array) -> jax.Array:
    spikes = jnp.all((x == 0) | (x == 1))
    return jnp.where(spikes, _log_likelihood(theta, _product(x, DESIGN)), -jnp.inf)


def _train(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    drive = theta["offset"] + _product(DESIGN[:, 1:], theta["filter"])
    return jax.random.bernoulli(key, jax.nn.sigmoid(drive)).astype(jnp.float32)


@simulator(
    _PRIOR,
    source="Lueckmann et al. 2021, arXiv:2101.04653, T.5",
    exact=Exact(log_likelihood=_log_likelihood),
)
def bernoulli_glm(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """x `(10,)`: the number of spikes in 100 steps, and the sum of the stimulus 0 to 8 steps before each of them.

    A step has a spike with probability sigmoid(offset + filter * stimulus). The prior of the offset is Normal(0,
    variance 2), and that of the filter (9) is normal and smooth. x is sufficient: it has the posterior of the raw
    spikes. The exact log-likelihood is that of the spikes, which differs from that of x by a term without theta.
    """
    return _product(_train(key, theta), DESIGN)


@simulator(
    _PRIOR,
    source="Lueckmann et al. 2021, arXiv:2101.04653, T.6",
    exact=Exact(log_likelihood=_log_likelihood_raw),
)
def bernoulli_glm_raw(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """x `(100,)`: 1 for each step with a spike, 0 for the others, of the neuron of `bernoulli_glm`."""
    return _train(key, theta)
