"""Draws from prior times likelihood, where the likelihood or a ratio can be evaluated: tempered sequential Monte Carlo.

Many draws of the prior are weighted by the likelihood raised to a small power, such that enough of them count, and as
many as are wanted are taken; then the power rises to 1 in steps, with moves between them (Del Moral, Doucet and Jasra
2006; the steps keep the effective number at half). A particle's move adds the difference of two others, of the half
that does not move meanwhile (differential evolution; ter Braak 2006), which follows any scale and any direction, and,
where the difference is taken whole, leaps from one mode to another.

It is done several times, each from draws of its own, and each counts in proportion to its evidence: one that missed a
mode has less. What they disagree about is not known yet.
"""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ....core.batches import bucket, put
from ....core.names import check_count
from ....core.solution import Array, Key
from ...estimates import AbstractRatio
from ..product import AbstractSampler, LikelihoodPosterior, Target, without_nan
from .convergence import DISAGREEMENT, agreement

NUM_DRAWS, FEW_DRAWS = 10_240, 1024  # in all repeats, at most and at least
WORK = 65_536  # draws times observations that are tried for, between these
FEWEST_PARTICLES = 64  # in a repeat
LEAPS = 0.2  # share of moves that add a difference whole
EFFECTIVE = 0.5  # share of particles that count after a step
SMALLEST_STEP = 1e-7  # of the power
MOST_STEPS = 200
EVIDENCE_SPREAD = 0.5  # standard deviation of the repeats' log-evidences, above which there is a warning


class Tempered(AbstractSampler):
    """Tempered sequential Monte Carlo: from many draws of the prior to the posterior, in steps.

    It needs no gradient, finds modes that lie apart with their weights, and gives the evidence. `diagnostics` of the
    posterior are `r_hat` and `log_evidence_std`, of and between repeats, and `ess`, which is rough for few repeats.

    Fields
    ------
    num_draws: in all repeats; if None 10,240 for up to 4 observations, fewer for more, such as 2,048 for 20, and 1,024
        for 48 and more.
    num_repeats: each from draws of its own; they are compared.
    num_first: draws of the prior for each draw that is wanted; more find narrower modes.
    num_sweeps: moves of every particle between two steps.
    num_last_sweeps: moves at the end.
    """

    num_draws: int | None = eqx.field(static=True, default=None)
    num_repeats: int = eqx.field(static=True, default=4)
    num_first: int = eqx.field(static=True, default=40)
    num_sweeps: int = eqx.field(static=True, default=16)
    num_last_sweeps: int = eqx.field(static=True, default=80)

    def __check_init__(self):
        for name in ("num_repeats", "num_first", "num_sweeps", "num_last_sweeps"):
            check_count(name, getattr(self, name))
        if self.num_draws is None and self.num_repeats > FEW_DRAWS // FEWEST_PARTICLES:
            raise ValueError(f"num_repeats: {self.num_repeats} are too many for num_draws=None, give num_draws too")
        if self.num_repeats < 2:
            raise ValueError(f"num_repeats must be at least 2, got {self.num_repeats}: they are compared")
        if self.num_draws is not None:
            check_count("num_draws", self.num_draws)
            if self.num_draws < FEWEST_PARTICLES * self.num_repeats:
                raise ValueError(
                    f"num_draws must be at least {FEWEST_PARTICLES} in each of {self.num_repeats} repeats, "
                    f"{FEWEST_PARTICLES * self.num_repeats} together; got {self.num_draws}"
                )

    def posterior(self, key: Key, estimator: AbstractRatio, x: Array) -> LikelihoodPosterior:
        target_key, *keys = jax.random.split(key, self.num_repeats + 1)
        target = Target.of(target_key, estimator, x)
        count = (self.num_draws or _num_draws(len(x))) // self.num_repeats
        return self._pooled(target, x, [_repeat(self, target, each, count) for each in keys])

    def _pooled(self, target: Target, x: Array, found: list["_Repeat"]) -> LikelihoodPosterior:
        evidence = np.array([float(one.log_evidence) for one in found])
        check_found(evidence)
        theta = np.stack([np.asarray(one.theta) for one in found])
        disagreement, ess = agreement(np.stack([np.asarray(one.u, np.float64) for one in found]))
        doubts = _doubts(disagreement, evidence, np.array([float(one.accepted) for one in found]))
        doubts += nan_doubts(max(float(one.broken) for one in found))
        log_evidence = put(np.asarray(np.logaddexp.reduce(evidence) - np.log(len(found)), np.float32))
        told = {"r_hat": float(disagreement.max()), "ess": float(ess.min())}
        told["log_evidence_std"] = float(np.std(evidence, ddof=1))
        draws, x = put(_pooled(theta, evidence)), put(np.asarray(x, np.float32))
        return LikelihoodPosterior(target.space, target.estimator, x, draws, log_evidence, told, doubts)


def _num_draws(num_observations: int) -> int:
    """A power of two, so that few are compiled."""
    return min(NUM_DRAWS, max(FEW_DRAWS, 1 << ((WORK // bucket(num_observations)).bit_length() - 1)))


def check_found(log_evidence: np.ndarray) -> None:
    """Raise `ValueError` where draws of the prior found nothing."""
    if not np.isfinite(log_evidence).all():
        raise ValueError(
            "prior times likelihood is zero or NaN wherever the prior was looked at, or too narrow to be found: "
            "these observations cannot have been made under this prior, or the estimator is broken; compare x with "
            "what it was trained on"
        )


def nan_doubts(broken: float) -> tuple[str, ...]:
    """A warning, if an estimator gives NaN at a share of the prior."""
    share = f"{100 * broken:.2g} %"
    told = f"the estimator gives NaN at {share} of the prior; these parameters were taken for impossible"
    return (told,) if broken else ()


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
def _repeat(sampler: Tempered, target: Target, key: Key, count: int) -> _Repeat:
    first_key, pick_key, step_key, last_key = jax.random.split(key, 4)
    moved = functools.partial(_moved, target=target)
    begun, broken = opened(first_key, pick_key, target, count, sampler.num_first, 1.0 * count)

    def step(state: tuple[_Particles, jax.Array]) -> tuple[_Particles, jax.Array]:
        now, turn = state
        move_key, raise_key = jax.random.split(jax.random.fold_in(step_key, turn))
        return _raised(raise_key, moved(move_key, now, sampler.num_sweeps), count, EFFECTIVE * count), turn + 1

    going = lambda state: (state[0].power < 1) & jnp.isfinite(state[0].log_evidence) & (state[1] < MOST_STEPS)
    now, _ = jax.lax.while_loop(going, step, (begun, jnp.zeros((), int)))
    evidence = jnp.where(now.power < 1, jnp.nan, now.log_evidence)
    now = moved(last_key, now, sampler.num_last_sweeps)
    return _Repeat(target.space.decode(now.u), now.u, evidence, now.accepted, broken)


def opened(
    draw_key: Key, pick_key: Key, target: Target, count: int, num_first: int, effective: float
) -> tuple[_Particles, jax.Array]:
    """So many particles at the first power, out of `num_first` times as many draws of the prior.

    The power is the highest, up to 1, at which so many of the draws count. Also returns the share of NaN among them.
    """
    u = target.space.encode(target.space.prior.sample(draw_key, count * num_first))
    within = jnp.all(jnp.isfinite(u), axis=-1)  # a draw may lie at an end of the support, where u is infinite
    u = jnp.where(within[:, None], u, 0.0)
    found = jnp.where(within, target.raw(u), -jnp.inf)
    begun = _Particles(u, without_nan(found), target.space.log_prior(u), jnp.zeros(()), jnp.zeros(()), jnp.ones(()))
    return _raised(pick_key, begun, count, effective), jnp.mean(jnp.isnan(found))


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


def _moved(key: Key, now: _Particles, sweeps: int, target: Target) -> _Particles:
    """Moves of one half by differences of the other, in turns."""
    half, d = len(now.u) // 2, target.space.dim
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
        log_likelihood, log_prior = target.log_likelihood(proposed), target.space.log_prior(proposed)
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


def _doubts(disagreement: np.ndarray, log_evidence: np.ndarray, accepted: np.ndarray) -> tuple[str, ...]:
    found, spread, repeats = [], float(np.std(log_evidence, ddof=1)), len(log_evidence)
    if spread > EVIDENCE_SPREAD:
        found.append(
            f"{repeats} repeats of the sampler scatter by {spread:.1f} in the log of the evidence (a warning is given "
            f"above {EVIDENCE_SPREAD:g}): the weights of the posterior's modes are uncertain"
        )
    if not disagreement.max() <= DISAGREEMENT:
        found.append(
            f"{repeats} repeats of the sampler disagree: Gelman and Rubin's R is {disagreement.max():.2f} (a warning "
            f"is given above {DISAGREEMENT:g}); the posterior has modes that are hard to find, or the "
            "estimator is rough"
        )
    if accepted.min() < 0.01:
        share = f"{100 * accepted.min():.1f} %"
        found.append(f"only {share} of the sampler's last moves were accepted: many of its draws are copies")
    return tuple(found)
