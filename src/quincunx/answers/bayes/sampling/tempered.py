"""Draws from prior times likelihood, where the likelihood or a ratio can be evaluated: tempered sequential Monte Carlo.

Many draws of the prior are weighted by the likelihood raised to a small power, such that enough of them count, and as
many as are wanted are taken; then the power rises to 1 in steps, with moves between them (Del Moral, Doucet and Jasra
2006; the steps keep the effective number at half). A particle's move adds the difference of two others, of the half
that does not move meanwhile (differential evolution; ter Braak 2006), which follows any scale and any direction, and,
where the difference is taken whole, leaps from one mode to another.

It is done several times, each from draws of its own, and each counts in proportion to its evidence: one that missed a
mode has less. What they disagree about is not known yet.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.batches import bucket, filled, put
from ...core.simulations import as_observations
from ...core.solution import Array, Key
from ..estimates import AbstractRatio
from .product import LikelihoodPosterior, log_likelihood
from .space import Space

REPEATS = 4
NUM_DRAWS, FEW_DRAWS = 10_240, 1024  # in all repeats; the second for data sets of more than MANY observations
MANY = 30
NUM_FIRST = 40  # draws of the prior for each that is wanted
SWEEPS, LAST_SWEEPS = 16, 80  # moves of every particle, between steps and at the end
LEAPS = 0.2  # share of moves that add a difference whole
EFFECTIVE = 0.5  # share of particles that count after a step
SMALLEST_STEP = 1e-7  # of the power
MOST_STEPS = 200
DISAGREEMENT = 1.05  # of the repeats (Gelman and Rubin's R), above which there is a warning
EVIDENCE_SPREAD = 0.5  # standard deviation of their log-evidences, likewise


def tempered(key: Key, estimator: AbstractRatio, x: Array) -> LikelihoodPosterior:
    """The posterior given observations x `(m, *event)`, by an estimator of a ratio or of the likelihood.

    A ratio to a fixed reference is the likelihood up to a factor that does not depend on theta.

    Raises
    ------
    ValueError: observations of the wrong shape or with NaN, or that no theta of the prior can have made.
    """
    prior = estimator.prior
    x = as_observations(x, estimator.event_shape, f"the simulator {estimator.simulator.name!r}")
    size = bucket(len(x), 8)
    padded, weight = put(filled(x, size)), put((np.arange(size) < len(x)).astype(np.float32))
    space_key, *keys = jax.random.split(key, REPEATS + 1)
    space = Space.of(prior, prior.sample(space_key, 4096))
    count = (NUM_DRAWS if len(x) <= MANY else FEW_DRAWS) // REPEATS
    found = [_repeat(estimator, space, padded, weight, each, count) for each in keys]
    if not all(np.isfinite(float(one.log_evidence)) for one in found):
        raise ValueError(
            "prior times likelihood is zero or NaN wherever the prior was looked at, or too narrow to be found: "
            "these observations cannot have been made under this prior, or the estimator is broken; compare x with "
            "what it was trained on"
        )
    theta = np.stack([np.asarray(one.theta) for one in found])
    agreement = _agreement(np.stack([np.asarray(one.u) for one in found]))
    evidence = np.array([float(one.log_evidence) for one in found])
    doubts = _doubts(agreement, evidence, np.array([float(one.accepted) for one in found]))
    if broken := max(float(one.broken) for one in found):
        share = f"{100 * broken:.2g} %"
        doubts += (f"the estimator gives NaN at {share} of the prior; these parameters were taken for impossible",)
    draws = jnp.asarray(_pooled(theta, evidence))
    log_evidence = jnp.asarray(np.logaddexp.reduce(evidence) - np.log(REPEATS), jnp.float32)
    found_out = {"r_hat": float(agreement.max()), "log_evidence_std": float(np.std(evidence, ddof=1))}
    return LikelihoodPosterior(space, estimator, x, draws, log_evidence, found_out, doubts)


class _Repeat(NamedTuple):
    """theta and u `(n, d)`; the log-evidence, the share of the last moves accepted, and that of the prior with NaN."""

    theta: jax.Array
    u: jax.Array
    log_evidence: jax.Array
    accepted: jax.Array
    broken: jax.Array


class _Particles(NamedTuple):
    """u `(n, d)`, their log-likelihoods and log-priors `(n,)`; the power, the log-evidence up to it, moves accepted."""

    u: jax.Array
    log_likelihood: jax.Array
    log_prior: jax.Array
    power: jax.Array
    log_evidence: jax.Array
    accepted: jax.Array


ROWS = ("u", "log_likelihood", "log_prior")  # of particles


@eqx.filter_jit
def _repeat(estimator: AbstractRatio, space: Space, x: jax.Array, weight: jax.Array, key: Key, count: int) -> _Repeat:
    raw = lambda u: log_likelihood(estimator, space, x, weight, u)
    without_nan = lambda values: jnp.where(jnp.isnan(values), -jnp.inf, values)
    evaluated = lambda u: without_nan(raw(u))
    first_key, pick_key, step_key, last_key = jax.random.split(key, 4)
    u = space.encode(space.prior.sample(first_key, count * NUM_FIRST))
    found = raw(u)
    broken = jnp.mean(jnp.isnan(found))
    begun = _Particles(u, without_nan(found), space.log_prior(u), jnp.zeros(()), jnp.zeros(()), jnp.ones(()))
    begun = _raised(pick_key, begun, count, 1.0 * count)

    def step(state: tuple[_Particles, jax.Array]) -> tuple[_Particles, jax.Array]:
        now, turn = state
        move_key, raise_key = jax.random.split(jax.random.fold_in(step_key, turn))
        moved = _moved(move_key, now, evaluated, space, SWEEPS)
        return _raised(raise_key, moved, count, EFFECTIVE * count), turn + 1

    going = lambda state: (state[0].power < 1) & jnp.isfinite(state[0].log_evidence) & (state[1] < MOST_STEPS)
    now, _ = jax.lax.while_loop(going, step, (begun, jnp.zeros((), int)))
    evidence = jnp.where(now.power < 1, jnp.nan, now.log_evidence)
    now = _moved(last_key, now, evaluated, space, LAST_SWEEPS)
    return _Repeat(space.decode(now.u), now.u, evidence, now.accepted, broken)


def _raised(key: Key, now: _Particles, count: int, effective: float) -> _Particles:
    """The power raised as far as so many particles count, and so many taken in proportion to their weights."""

    def enough(power: jax.Array) -> jax.Array:
        w = jax.nn.softmax((power - now.power) * now.log_likelihood)
        return 1 / jnp.sum(w**2) >= effective

    def halved(ends: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
        low, high = ends
        # the first power may be of any order of magnitude: the middle is that of the logarithms there
        middle = jnp.where(low > 0, (low + high) / 2, jnp.sqrt(SMALLEST_STEP * high))
        right = enough(middle)
        return (jnp.where(right, middle, low), jnp.where(right, high, middle)), None

    (low, _), _ = jax.lax.scan(halved, (now.power, jnp.ones(())), length=30)
    power = jnp.where(enough(jnp.ones(())), 1.0, jnp.maximum(low, now.power + SMALLEST_STEP))
    log_w = (power - now.power) * now.log_likelihood
    cumulative = jnp.cumsum(jax.nn.softmax(log_w))
    places = (jnp.arange(count) + jax.random.uniform(key)) / count
    index = jnp.minimum(jnp.searchsorted(cumulative, places * cumulative[-1]), len(log_w) - 1)
    gained = jax.scipy.special.logsumexp(log_w) - jnp.log(len(log_w))
    taken = {name: getattr(now, name)[index] for name in ROWS}
    return now._replace(**taken, power=power, log_evidence=now.log_evidence + gained)


def _moved(
    key: Key, now: _Particles, evaluated: Callable[[jax.Array], jax.Array], space: Space, sweeps: int
) -> _Particles:
    """Moves of one half by differences of the other, in turns."""
    half, d = len(now.u) // 2, space.dim
    order_key, key = jax.random.split(key)
    order = jax.random.permutation(order_key, len(now.u))
    shuffled = now._replace(**{name: getattr(now, name)[order] for name in ROWS})

    def sweep(state: _Particles, key: Key) -> tuple[_Particles, jax.Array]:
        pick_key, size_key, leap_key, noise_key, accept_key = jax.random.split(key, 5)
        mine, theirs = state.u[:half], state.u[half:]
        first = jax.random.randint(pick_key, (half,), 0, len(theirs))
        other = (first + jax.random.randint(leap_key, (half,), 1, len(theirs))) % len(theirs)
        size = 2.38 / np.sqrt(2 * d) * jax.random.uniform(size_key, (half,), minval=0.2, maxval=1.2)
        size = jnp.where(jnp.arange(half) < LEAPS * half, 1.0, size)
        noise = 1e-3 * jax.random.normal(noise_key, mine.shape) * jnp.std(state.u, axis=0)
        proposed = mine + size[:, None] * (theirs[first] - theirs[other]) + noise
        log_likelihood, log_prior = evaluated(proposed), space.log_prior(proposed)
        gain = state.power * (log_likelihood - state.log_likelihood[:half]) + log_prior - state.log_prior[:half]
        accept = jnp.log(jax.random.uniform(accept_key, (half,))) < gain
        found = state._replace(u=proposed, log_likelihood=log_likelihood, log_prior=log_prior)

        def swapped(new: jax.Array, old: jax.Array) -> jax.Array:
            """The halves change places, so that the other one moves next."""
            kept = jnp.where(accept.reshape(-1, *[1] * (new.ndim - 1)), new, old[:half])
            return jnp.concatenate([old[half:], kept])

        values = {name: swapped(getattr(found, name), getattr(state, name)) for name in ROWS}
        return state._replace(**values), jnp.mean(accept)

    moved, accepted = jax.lax.scan(sweep, shuffled, jax.random.split(key, 2 * sweeps))
    return moved._replace(accepted=jnp.mean(accepted))


def _pooled(theta: np.ndarray, log_evidence: np.ndarray) -> np.ndarray:
    """Draws `(r n, dim)` from repeats `(r, n, dim)`, from each as many as its evidence weighs."""
    weight = np.exp(log_evidence - log_evidence.max())
    places = (np.arange(theta.shape[0] * theta.shape[1]) + 0.5) / (theta.shape[0] * theta.shape[1])
    ends = np.cumsum(np.repeat(weight, theta.shape[1]))
    return theta.reshape(-1, theta.shape[-1])[np.searchsorted(ends / ends[-1], places)]


def _agreement(u: np.ndarray) -> np.ndarray:
    """Gelman and Rubin's R `(d,)` between repeats u `(r, n, d)`."""
    within = np.mean(np.var(u, axis=1, ddof=1), axis=0)
    return np.sqrt(1 + np.var(np.mean(u, axis=1), axis=0, ddof=1) / np.maximum(within, 1e-30))


def _doubts(agreement: np.ndarray, log_evidence: np.ndarray, accepted: np.ndarray) -> tuple[str, ...]:
    found, spread = [], float(np.std(log_evidence, ddof=1))
    if spread > EVIDENCE_SPREAD:
        found.append(
            f"{REPEATS} repeats of the sampler scatter by {spread:.1f} in the log of the evidence (a warning is given "
            f"above {EVIDENCE_SPREAD:g}): the weights of the posterior's modes are uncertain"
        )
    if not np.isfinite(agreement).all() or agreement.max() > DISAGREEMENT:
        found.append(
            f"{REPEATS} repeats of the sampler disagree: Gelman and Rubin's R is {agreement.max():.2f} (a warning is "
            f"given above {DISAGREEMENT:g}); the posterior has modes that are hard to find, or the estimator is rough"
        )
    if accepted.min() < 0.01:
        share = f"{100 * accepted.min():.1f} %"
        found.append(f"only {share} of the sampler's last moves were accepted: many of its draws are copies")
    return tuple(found)
