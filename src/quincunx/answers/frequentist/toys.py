"""Test statistics of toy experiments, many at a time."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.batches import bucket, filled
from ...core.solution import Key
from ...sample.simulate import SimulationError
from ..estimates import AbstractRatio
from .climb import CHUNK, best_starts, map_batches, maximise
from .experiment import Experiment
from .hypothesis import Sided, statistic
from .likelihood import Likelihood, starting_points, support_box

NUM_CANDIDATES, NUM_STARTS, NUM_STEPS = 32, 2, 30
SIMULATED = 2_000_000  # numbers simulated at a time
MOST_TOYS = 4096  # at a time: few enough that the filling of the last turn costs little


def toy_statistics(
    key: Key,
    ratio: AbstractRatio,
    experiment: Experiment,
    theta: np.ndarray,
    interest: tuple[int, ...],
    sided: Sided,
    tested: np.ndarray | None = None,
) -> np.ndarray:
    """q `(n, G)` in one toy at each row of theta `(n, dim)`; NaN where the simulator failed.

    tested: hypotheses `(G, dim)`, the same for all toys; if None, each toy tests its own truth, and G is 1.

    Simulated and reduced in turns, so that memory does not grow with n.

    Raises
    ------
    ValueError: a likelihood that cannot be maximised.
    SimulationError: more than half of the toys failed.
    """
    prior, places = ratio.prior, experiment.places(theta)
    free = np.ones(prior.dim, bool)
    free[list(interest)] = False
    room = max(1, SIMULATED // (places * int(np.prod(ratio.event_shape, dtype=int))))
    rows = min(bucket(len(theta)), MOST_TOYS, 1 << (room.bit_length() - 1))
    candidates, box = starting_points(prior, NUM_CANDIDATES), support_box(prior)
    found = []
    for turn, start in enumerate(range(0, len(theta), rows)):
        here = theta[start : start + rows]
        x, weight = experiment.draw(jax.random.fold_in(key, turn), here, places)
        toys = (filled(x, rows), filled(weight, rows), filled(here, rows))
        index, nuisance = np.asarray(interest[0]), bool(free.any())
        q = _statistics(ratio, experiment.rate, toys, tested, candidates, free, box, index, sided, nuisance)
        failed = ~np.all(np.isfinite(x), axis=tuple(range(1, x.ndim)))
        found.append(np.where(failed[:, None], np.nan, _checked(np.asarray(q)[: len(here)], failed)))
    found = np.concatenate(found)
    num_failed = int(np.isnan(found[:, 0]).sum())
    if 2 * num_failed > len(found):
        raise SimulationError(f"{num_failed} of {len(found)} toys by {experiment.simulator.name!r} failed", ())
    return found


def _checked(q: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """The statistics; raise where one is NaN without a failure, as if its hypothesis fitted perfectly."""
    bad = int((np.isnan(q).any(axis=1) & ~failed).sum())
    if bad:
        raise ValueError(
            f"the likelihood of {bad} of {len(q)} toys is NaN, or its derivatives in theta are; "
            "log_ratio must be differentiable twice wherever the data are possible"
        )
    return q


@eqx.filter_jit
def _statistics(ratio, rate, toys, tested, candidates, free, box, index, sided: Sided, nuisance: bool) -> jax.Array:
    """q `(n, G)` of toys: observations `(n, M, *event)`, weights `(n, M)` and truths `(n, dim)`."""
    free, candidates = jnp.asarray(free), jnp.asarray(candidates)

    def one(toy: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        x, weight, truth = toy
        points = truth[None] if tested is None else jnp.asarray(tested)
        # Anchored at the truth, log L there is 0 and all that matters is small.
        likelihood = Likelihood.of(ratio, x, weight, rate).anchored(truth)
        starts = jnp.concatenate([truth[None], best_starts(likelihood, candidates, NUM_STARTS)])
        best, top, _ = maximise(likelihood, starts, jnp.ones_like(free), box, NUM_STEPS)
        if nuisance:
            both = lambda point: jnp.stack([jnp.where(free, best, point), point])
            held = jax.vmap(lambda point: maximise(likelihood, both(point), free, box, NUM_STEPS)[1])(points)
        else:
            held = jax.vmap(likelihood)(points)
        q = statistic(held - jnp.maximum(top, jnp.max(held)), points[:, index], best[index], sided, jnp)
        return jnp.where(jnp.isfinite(top), q, jnp.nan)

    places = toys[0].shape[1]
    points = 1 if tested is None else len(tested)
    return map_batches(one, jax.tree.map(jnp.asarray, toys), CHUNK // (places * max(NUM_STARTS + 1, points)))
