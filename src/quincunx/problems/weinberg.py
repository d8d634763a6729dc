"""Electron-positron collisions to muon pairs: the forward-backward asymmetry below the Z boson's mass.

The density of x, the cosine of the muon's scattering angle, is proportional to 1 + x^2 + A x on [-1, 1],
where the asymmetry A is a function of the beam energy and the Fermi constant. In 4 % of the prior's box
|A| > 2 and that would be negative near one end: there it is 0 instead, and the rest is normalised.

x depends on theta only through A, so (energy, fermi) is not identifiable. However much data there is,
the posterior is a ridge, and no estimate gets closer to theta than the posterior mean does.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ..core.prior import Prior
from ..core.simulator import Exact
from ..core.solution import Array, Key
from ..sample.black_box import simulator
from .quadrature import peak

ENERGY = (40.0, 50.0)
FERMI = (0.5, 1.5)

_CELLS = 2000, 1000  # of energy and fermi, in the integral over the prior
_NODES = 1025  # of the asymmetry, in the likelihood
_MOST = 2 * np.tanh(10 * (2 * ENERGY[1] - 90) / 90) * FERMI[1]
_ASYMMETRIES = np.linspace(-_MOST, _MOST, _NODES).astype(np.float32)


def asymmetry(theta: Array) -> jax.Array:
    """A = 2 tanh(10 (2 energy - 90) / 90) fermi, `(...)`, at theta `(..., 2)`; energies in GeV."""
    theta = jnp.asarray(theta)
    return _strength(theta[..., 0]) * theta[..., 1]


def _strength(energy: jax.Array) -> jax.Array:
    return 2 * jnp.tanh(10 * (2 * energy - 90) / 90)


# -- the density of one observation -----------------------------------------------------------


def _edge(steepness: jax.Array) -> jax.Array:
    """Where the density begins, for A = steepness >= 0: at -1, or at its upper root if A > 2."""
    beyond = jnp.maximum(steepness, 2.0)
    excess = (beyond - 2) * (beyond + 2)
    root = jnp.where(excess > 0, jnp.sqrt(jnp.where(excess > 0, excess, 1.0)), 0.0)  # no NaN in the derivative at 0
    return -2 / (beyond + root)


def _area(steepness: jax.Array) -> jax.Array:
    """Integral of 1 + x^2 + A x from the edge to 1, for A = steepness >= 0: 8/3 up to A = 2."""
    edge = _edge(steepness)
    return 4 / 3 - edge - edge**3 / 3 + steepness * (1 - edge) * (1 + edge) / 2


def _log_shape(a: jax.Array, x: jax.Array) -> jax.Array:
    """log [(1 + x^2 + A x) / (1 + x^2)], -inf where the density is clipped; `a` and `x` broadcast."""
    return jnp.log1p(jnp.maximum(a * (x / (1 + x**2)), -1.0))


def _log_likelihood(theta: jax.Array, x: jax.Array) -> jax.Array:
    a = asymmetry(theta)
    log_density = _log_shape(a, x) + jnp.log1p(x**2) - jnp.log(_area(jnp.abs(a)))
    return jnp.sum(jnp.where(jnp.abs(x) <= 1, log_density, -jnp.inf))


def _quantile(a: jax.Array, u: jax.Array) -> jax.Array:
    """The x at which the CDF is u; below A = 0 the mirror image, so that the thin end is always the left.

    The distance t from the edge solves a cubic, f0 t + f1 t^2 / 2 + t^3 / 3 = u * area, monotone on the
    support. Bisection brackets it to 1e-4, where Newton's steps are safe even near a zero of the density.
    """
    steepness = jnp.abs(a)
    edge = _edge(steepness)
    f0 = jnp.maximum(2 - steepness, 0.0)
    f1 = jnp.where(steepness > 2, 2 * edge + steepness, steepness - 2)
    mass = lambda t: t * (f0 + t * (f1 / 2 + t / 3))
    goal = u * mass(1 - edge)
    low, high = jnp.zeros_like(u), 1 - edge
    for _ in range(14):
        middle = (low + high) / 2
        below = mass(middle) < goal
        low, high = jnp.where(below, middle, low), jnp.where(below, high, middle)
    t = (low + high) / 2
    for _ in range(3):
        density = jnp.maximum(f0 + t * (f1 + t), 1e-12)
        t = jnp.clip(t - (mass(t) - goal) / density, low, high)
    return jnp.where(a < 0, -1.0, 1.0) * jnp.minimum(edge + t, 1.0)


# -- the posterior, through the asymmetry -----------------------------------------------------


def _log_likelihood_of_asymmetry(a: jax.Array, x: jax.Array) -> jax.Array:
    """At a grid of asymmetries `(n,)`, up to a constant that depends on x alone."""
    return jnp.sum(_log_shape(a[:, None], x), axis=1) - x.shape[0] * jnp.log(_area(jnp.abs(a)))


@functools.cache
def _prior_moments() -> np.ndarray:
    """Integrals of 1, e, g, e^2, g^2 over the prior at each node of the asymmetry, `(_NODES, 5)`.

    e and g are the distances of energy and fermi from the prior's centre. Each cell of a fine grid is shared
    between the two nodes next to its asymmetry, so that a likelihood interpolated between the nodes
    is integrated over the box exactly.
    """
    e, g = (np.ravel(axis) for axis in np.meshgrid(_middles(ENERGY, _CELLS[0]), _middles(FERMI, _CELLS[1])))
    place = (2 * np.tanh(20 * e / 90) * (np.mean(FERMI) + g) / _MOST + 1) / 2 * (_NODES - 1)
    node = np.clip(np.floor(place).astype(int), 0, _NODES - 2)
    right = place - node
    columns = []
    for moment in (np.ones_like(e), e, g, e**2, g**2):
        left_sum = np.bincount(node, (1 - right) * moment, _NODES)
        columns.append(left_sum + np.bincount(node + 1, right * moment, _NODES))
    return (np.stack(columns, axis=1) / len(e)).astype(np.float32)


def _middles(limits: tuple[float, float], cells: int) -> np.ndarray:
    """Middles of equal cells, as distances from the middle of the limits."""
    return (limits[1] - limits[0]) * ((np.arange(cells) + 0.5) / cells - 0.5)


def _posterior(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    log_likelihood = _log_likelihood_of_asymmetry(jnp.asarray(_ASYMMETRIES), x)
    likelihood = jnp.exp(log_likelihood - jnp.max(log_likelihood))
    moments = jnp.matmul(likelihood, _prior_moments(), precision="highest")
    means, squares = moments[1:3] / moments[0], moments[3:5] / moments[0]
    return jnp.array([np.mean(ENERGY), np.mean(FERMI)]) + means, jnp.sqrt(squares - means**2)


def _mle(x: jax.Array) -> jax.Array:
    """A point of the ridge: the one of fermi nearest to 1. The ridge through it is the whole MLE."""
    best = peak(lambda a: _log_likelihood_of_asymmetry(a, x), jnp.asarray(_ASYMMETRIES))
    energy = jnp.clip(45 + 4.5 * jnp.arctanh(jnp.clip(best / 2, -0.999, 0.999)), *ENERGY)
    strength = _strength(energy)
    fermi = jnp.where(jnp.abs(best) > jnp.abs(strength), best / jnp.where(strength == 0, 1.0, strength), 1.0)
    return jnp.stack([energy, jnp.clip(fermi, *FERMI)])


@simulator(
    Prior(energy=dist.Uniform(*ENERGY), fermi=dist.Uniform(*FERMI)),
    source="Louppe, Cranmer 2017, arXiv:1707.07113; Pesah, Wehenkel, Louppe 2018, arXiv:1811.12932, appendix B.4",
    exact=Exact.of(_log_likelihood, _mle, _posterior),
)
def weinberg(key: Key, theta: Mapping[str, jax.Array]) -> jax.Array:
    """One cosine of the scattering angle `()`, in [-1, 1], at a beam energy in GeV and a Fermi constant.

    Drawn by inverting the CDF, without rejection. The posterior is integrated over the asymmetry A, with
    the moments of (energy, fermi) given A worked out beforehand. The MLE is not unique: `exact.mle`
    gives the point of its ridge with `fermi` nearest to 1.
    """
    a = _strength(theta["energy"]) * theta["fermi"]
    return _quantile(a, jax.random.uniform(key))
