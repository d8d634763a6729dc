"""Five correlated observables from five latent ones, three of which carry a parameter each."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ..core.prior import Prior
from ..core.simulator import Exact
from ..core.solution import Key
from ..sample.black_box import simulator
from .quadrature import mean_and_std, zoomed_grid

LOW, HIGH = -3.0, 3.0
Z1_MEAN = 3.0
Z3_LOW = -5.0
Z4_RATE = 0.5

# x = MIXING z. Symmetric, positive definite, of determinant 1 (to 2e-8).
MIXING = np.array(
    [
        [1.31229955, 0.10499961, 0.48310515, -0.3249938, -0.26387927],
        [0.10499961, 1.15833058, -0.55865473, 0.25275522, -0.39790775],
        [0.48310515, -0.55865473, 2.25874579, -0.52087938, -0.39271231],
        [-0.3249938, 0.25275522, -0.52087938, 1.4034925, -0.63521059],
        [-0.26387927, -0.39790775, -0.39271231, -0.63521059, 1.0],
    ]
)
_UNMIXING = np.linalg.inv(MIXING).astype(np.float32)
_LOG_DET = float(np.linalg.slogdet(MIXING)[1])

# Going to x and back in float32 moves z by some 1e-6. An edge of the support must not turn a true
# observation into an impossible one.
_ROUNDING = 1e-5


def _latents(x: jax.Array) -> jax.Array:
    return jnp.matmul(x, _UNMIXING.T, precision="highest")


def _log_normal(z: jax.Array, mean: jax.Array | float, std: jax.Array | float) -> jax.Array:
    return -0.5 * ((z - mean) / std) ** 2 - jnp.log(std) - 0.5 * np.log(2 * np.pi)


def _log_likelihood(theta: jax.Array, x: jax.Array) -> jax.Array:
    z = _latents(x)
    mean, log_scale, bound = theta
    inside = (z[:, 3] >= Z3_LOW - _ROUNDING) & (z[:, 3] <= bound + _ROUNDING) & (z[:, 4] >= -_ROUNDING)
    log_density = (
        _log_normal(z[:, 0], mean, 1.0)
        + _log_normal(z[:, 1], Z1_MEAN, jnp.exp(log_scale / 3))
        + jnp.logaddexp(_log_normal(z[:, 2], -2.0, 0.5), _log_normal(z[:, 2], 2.0, 1.0))
        + np.log(0.5)
        - jnp.log(bound - Z3_LOW)
        + np.log(Z4_RATE)
        - Z4_RATE * z[:, 4]
        - _LOG_DET
    )
    return jnp.where(jnp.all(inside), jnp.sum(log_density), -jnp.inf)


def _mle(x: jax.Array) -> jax.Array:
    z = _latents(x)
    # A single z1 equal to its mean would give log 0; the clip makes it the lower edge.
    log_scale = 1.5 * jnp.log(jnp.mean((z[:, 1] - Z1_MEAN) ** 2))
    return jnp.clip(jnp.stack([jnp.mean(z[:, 0]), log_scale, jnp.max(z[:, 3])]), LOW, HIGH)


def _posterior(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean `(3,)` and standard deviation `(3,)`: the posterior is a product of three factors.

    Each is integrated over the distance t from the MLE: a truncated normal, the law of a scale, and a
    density proportional to (bound + 5)^-m above max z3.
    """
    z, m, centre = _latents(x), x.shape[0], _mle(x)
    excess = jnp.mean(z[:, 0]) - centre[0]
    squares = jnp.sum((z[:, 1] - Z1_MEAN) ** 2) * jnp.exp(-2 * centre[1] / 3)
    factors = [
        (lambda t: -0.5 * m * t**2 + m * excess * t, LOW - centre[0], HIGH - centre[0]),
        (lambda t: -m * t / 3 - 0.5 * squares * jnp.expm1(-2 * t / 3), LOW - centre[1], HIGH - centre[1]),
        (lambda t: -m * jnp.log1p(t / (centre[2] - Z3_LOW)), 0.0, HIGH - centre[2]),
    ]
    moments = [mean_and_std(*zoomed_grid(*factor)) for factor in factors]
    means, stds = map(jnp.stack, zip(*moments, strict=True))
    return centre + means, stds


@simulator(
    Prior(mean=dist.Uniform(LOW, HIGH), log_scale=dist.Uniform(LOW, HIGH), bound=dist.Uniform(LOW, HIGH)),
    source="Pesah, Wehenkel, Louppe 2018, arXiv:1811.12932, appendix B.3; the matrix is that of their code",
    exact=Exact.of(_log_likelihood, _mle, _posterior),
)
def multivariate(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """One observation `(5,)`, x = R z with independent latents

    z0 ~ Normal(mean, 1), z1 ~ Normal(3, exp(log_scale / 3)), z2 ~ 1/2 Normal(-2, 0.5) + 1/2 Normal(2, 1),
    z3 ~ Uniform(-5, bound), z4 ~ Exponential(rate 0.5).

    The second argument of every Normal is a standard deviation; the mixture is the paper's (the
    authors' code has the widths the other way round). R is invertible, so the likelihood is exact.
    The MLE is (mean of z0, 3 log of the standard deviation of z1 about 3, maximum of z3), clipped into the prior's
    support. The likelihood forgives edges of the support 1e-5, the rounding of R and its inverse.
    """
    normal_key, uniform_key = jax.random.split(key)
    normals = jax.random.normal(normal_key, (3,))
    which, height, depth = jax.random.uniform(uniform_key, (3,))
    z = jnp.stack(
        [
            theta["mean"] + normals[0],
            Z1_MEAN + jnp.exp(theta["log_scale"] / 3) * normals[1],
            jnp.where(which < 0.5, -2.0 + 0.5 * normals[2], 2.0 + normals[2]),
            Z3_LOW + (theta["bound"] - Z3_LOW) * height,
            -jnp.log1p(-depth) / Z4_RATE,
        ]
    )
    return jnp.matmul(MIXING.astype(np.float32), z, precision="highest")
