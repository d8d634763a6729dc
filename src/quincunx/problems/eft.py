"""Effective field theory in miniature: pairs of fermions scatter, and two Wilson coefficients bend their law.

A toy after quark-antiquark annihilation to muon pairs. The structure is that of the problems in Brehmer, Cranmer,
Louppe, Pavez 2018, arXiv:1805.00013 and arXiv:1805.00020; the model and all its numbers are made up here.

**Partons.** An event has an invariant mass E in TeV and a scattering angle with cosine c. The outgoing fermion has the
helicity of the incoming one (h = +1) or the opposite (h = -1). With k = (E / 1 TeV)^2 the amplitudes

    M_h = g_h + (c1 + h c2) k,    g_+ = 1 + 0.3 i,    g_- = 0.5 + 0.3 i,

are those of the Standard Model and of two contact operators, whose effect grows with the energy; c1 treats both
helicities alike and c2 does not. The imaginary parts keep the law positive everywhere. From 0.25 to 4 TeV

    d sigma / (d log E  d c) = E^-4 sum_h |M_h|^2 (1 + h c)^2,

a sum of six known components, with the factors 1, c1, c2, c1^2, c1 c2 and c2^2: the morphing of arXiv:1805.00020.

**Detector.** log E is measured with a Gaussian error of 0.12 and the cosine with one of 0.15. An event is kept if its
measured energy lies between 0.4 and 3 TeV and its measured cosine between -0.9 and 0.9.

Powers of E and polynomials in c, smeared by a Gaussian, have closed forms: the law of what is measured is exact.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import ndtr
from jax.scipy.stats import norm
from scipy import special

from ..core.prior import Prior
from ..core.simulator import Exact
from ..core.solution import Key
from ..gold.mined import NamedTheta, mined_simulator

EVENTS = 36.0  # expected at the Standard Model

PARTONS = ((float(np.log(0.25)), float(np.log(4.0))), (-1.0, 1.0))  # limits of log E and of the cosine
CUTS = ((float(np.log(0.4)), float(np.log(3.0))), (-0.9, 0.9))  # of what is measured
ERRORS = (0.12, 0.15)

_LOW, _HIGH = np.array(CUTS, np.float32).T
_HELICITIES = (1.0, -1.0)
_COUPLINGS = ((1.0, 0.3), (0.5, 0.3))  # real and imaginary part of g_h
_POWERS = (-4.0, -2.0, 0.0)  # of E, in the terms with k^0, k^1 and k^2
_HALVINGS = 12
_CELLS = 2**_HALVINGS  # of log E and of the cosine, in their distribution functions


class Parton(NamedTuple):
    """The latent part of an event: log E (E in TeV) and the cosine of the scattering angle, both `()`."""

    log_energy: jax.Array
    cosine: jax.Array


class _Accepted(NamedTuple):
    """Integrals over the partons that pass the cuts, in float64, up to the edges of equal cells.

    Fields
    ------
    energy: of E^power, for each of `_POWERS`, `(_CELLS + 1, 3)`.
    cosine: of (1 + h c)^2, for each of `_HELICITIES`, `(_CELLS + 1, 2)`.
    """

    energy: np.ndarray
    cosine: np.ndarray


# -- cross sections -------------------------------------------------------------------------------


def _coefficients(theta: NamedTheta) -> jax.Array:
    """|M_h|^2 as a polynomial in k: the factors of k^0, k^1 and k^2 for both helicities, `(2, 3)`."""
    rows = []
    for h, (real, imaginary) in zip(_HELICITIES, _COUPLINGS, strict=True):
        shift = jnp.asarray(theta["c1"] + h * theta["c2"])
        rows.append(jnp.stack([jnp.full_like(shift, real**2 + imaginary**2), 2 * real * shift, shift**2]))
    return jnp.stack(rows)


def _squared_amplitude(theta: NamedTheta, z: Parton) -> jax.Array:
    growth = jnp.exp(2 * z.log_energy)
    total = jnp.zeros_like(growth)
    for h, (real, imaginary) in zip(_HELICITIES, _COUPLINGS, strict=True):
        amplitude = real + (theta["c1"] + h * theta["c2"]) * growth
        total = total + (amplitude**2 + imaginary**2) * (1 + h * z.cosine) ** 2
    return total


def _cross_sections(theta: NamedTheta) -> jax.Array:
    """Of the events that pass the cuts, for each helicity `(2,)`; their unit means nothing."""
    energy, cosine = (jnp.asarray(each[-1], jnp.float32) for each in _accepted())
    return jnp.matmul(_coefficients(theta), energy, precision="highest") * cosine


def _rate(theta: NamedTheta) -> jax.Array:
    energy, cosine = (each[-1] for each in _accepted())
    standard_model = sum((r**2 + i**2) * energy[0] * angle for (r, i), angle in zip(_COUPLINGS, cosine, strict=True))
    return EVENTS / float(standard_model) * jnp.sum(_cross_sections(theta))


@functools.cache
def _accepted() -> _Accepted:
    energy = [_cumulative(lambda t, p=power: np.exp(p * t), axis=0) for power in _POWERS]
    cosine = [_cumulative(lambda c, h=h: (1 + h * c) ** 2, axis=1) for h in _HELICITIES]
    return _Accepted(np.stack(energy, axis=1), np.stack(cosine, axis=1))


def _cumulative(shape: Callable[[np.ndarray], np.ndarray], *, axis: int) -> np.ndarray:
    """Integral of the shape times the chance to pass the cuts, up to each edge; four Gauss nodes in a cell."""
    (low, high), (cut, other_cut), error = PARTONS[axis], CUTS[axis], ERRORS[axis]
    nodes, weights = np.polynomial.legendre.leggauss(4)
    width = (high - low) / _CELLS
    points = low + width * (np.arange(_CELLS)[:, None] + (nodes + 1) / 2)
    passing = special.ndtr((other_cut - points) / error) - special.ndtr((cut - points) / error)
    return np.concatenate([[0.0], np.cumsum(width / 2 * (shape(points) * passing) @ weights)])


# -- the law of what is measured ------------------------------------------------------------------


def _smeared_powers(y: jax.Array) -> jax.Array:
    """Integrals of E^power Normal(y; log E, error) over log E, for each power, `(3,)`: squares are completed."""
    (low, high), error, powers = PARTONS[0], ERRORS[0], np.array(_POWERS, np.float32)
    centre = y + powers * error**2
    inside = ndtr((high - centre) / error) - ndtr((low - centre) / error)
    return inside * jnp.exp(powers * y + (powers * error) ** 2 / 2)


def _smeared_angles(y: jax.Array) -> jax.Array:
    """Integrals of (1 + h c)^2 Normal(y; c, error) over the cosine c, for each helicity, `(2,)`.

    With c = y + error t they are moments of a standard normal t between two limits.
    """
    (low, high), error, h = PARTONS[1], ERRORS[1], jnp.array(_HELICITIES, jnp.float32)
    a, b = (low - y) / error, (high - y) / error
    zeroth, first = ndtr(b) - ndtr(a), norm.pdf(a) - norm.pdf(b)
    second = zeroth + a * norm.pdf(a) - b * norm.pdf(b)
    return (1 + h * y) ** 2 * zeroth + 2 * (1 + h * y) * h * error * first + error**2 * second


def _log_density(theta: NamedTheta, x: jax.Array) -> jax.Array:
    """log p(x | theta) `()` of one event `(2,)`."""
    inside = jnp.all((x >= _LOW) & (x <= _HIGH))
    y = jnp.clip(x, _LOW, _HIGH)
    energies = jnp.matmul(_coefficients(theta), _smeared_powers(y[0]), precision="highest")
    log_density = jnp.log(jnp.sum(energies * _smeared_angles(y[1]))) - jnp.log(jnp.sum(_cross_sections(theta)))
    return jnp.where(inside, log_density, -jnp.inf)


def _log_likelihood(theta: jax.Array, x: jax.Array) -> jax.Array:
    named = {"c1": theta[0], "c2": theta[1]}
    return jnp.sum(jax.vmap(lambda each: _log_density(named, each))(x))


# -- events -----------------------------------------------------------------------------------------


def _quantile(cumulative: np.ndarray, factors: jax.Array, u: jax.Array, limits: tuple[float, float]) -> jax.Array:
    """Where the distribution function `cumulative @ factors` comes to u of its whole, between the limits.

    Bisection finds the cell; inside one, the law is taken as uniform.
    """
    table = jnp.asarray(cumulative, jnp.float32)
    reached = lambda edge: jnp.sum(table[edge] * factors)
    goal, cell = u * reached(_CELLS), jnp.int32(0)
    for halving in range(1, _HALVINGS + 1):
        middle = cell + (_CELLS >> halving)
        cell = jnp.where(reached(middle) <= goal, middle, cell)
    before, after = reached(cell), reached(cell + 1)
    part = jnp.clip((goal - before) / jnp.where(after > before, after - before, 1.0), 0.0, 1.0)
    return limits[0] + (limits[1] - limits[0]) / _CELLS * (cell + part)


def _draw_parton(key: Key, theta: NamedTheta) -> Parton:
    """One of the partons that pass the cuts. Given the helicity, energy and angle are independent."""
    u, parts = jax.random.uniform(key, (3,)), _cross_sections(theta)
    same = u[0] * jnp.sum(parts) < parts[0]
    factors = jnp.where(same, *_coefficients(theta))
    tables, helicity = _accepted(), jnp.where(same, *np.eye(2, dtype=np.float32))
    return Parton(
        _quantile(tables.energy, factors, u[1], PARTONS[0]), _quantile(tables.cosine, helicity, u[2], PARTONS[1])
    )


def _joint_log_prob(theta: NamedTheta, x: jax.Array, z: Parton) -> jax.Array:
    """log p(z | theta) `()`, short of terms without theta, such as all of p(x | z)."""
    return jnp.log(_squared_amplitude(theta, z)) - jnp.log(jnp.sum(_cross_sections(theta)))


@mined_simulator(
    Prior(c1=dist.Uniform(-1.0, 1.0), c2=dist.Uniform(-1.0, 1.0)),
    joint_log_prob=_joint_log_prob,
    source="a toy after Brehmer, Cranmer, Louppe, Pavez 2018, arXiv:1805.00020",
    exact=Exact(log_likelihood=_log_likelihood),
    rate=_rate,
)
def eft(key: Key, theta: NamedTheta) -> tuple[jax.Array, Parton]:
    """One event that passes the cuts: measured (log E, cosine) `(2,)`, with E in TeV, and its parton.

    The parton is drawn by inverting its distribution function, already weighted with the chance to pass the cuts, and
    the detector's errors are drawn from what the cuts leave of them: nothing is rejected. `rate` is the expected number
    of events in an experiment that sees 36 at the Standard Model, c1 = c2 = 0.
    """
    parton_key, error_key = jax.random.split(key)
    z = _draw_parton(parton_key, theta)
    true, errors = jnp.stack(z), np.array(ERRORS, np.float32)
    noise = jax.random.truncated_normal(error_key, (_LOW - true) / errors, (_HIGH - true) / errors)
    return jnp.clip(true + errors * noise, _LOW, _HIGH), z
