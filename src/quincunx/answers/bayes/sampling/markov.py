"""Markov chains for prior times likelihood: NUTS, slice sampling and random-walk Metropolis, by BlackJAX.

    z -> u = centre + root z -> theta,      log density of z = log prior(u) + log r(x | u)

All chains move side by side, in one compiled function. They begin at draws of the prior that were weighted by the
likelihood, or by a power of it that leaves enough of them; the mean and the covariance of many such draws are the first
`centre` and `root root^T`. While chains warm up their steps are adapted, and, where `rounds` are more than one, centre
and root are taken again from the second half of each round. Neither moves afterwards.

Chains hardly leap between modes that lie apart: where they began decides how many stay in each. R-hat sees it, so long
as they began in more than one.

| sampler               | needs                | source                                            |
|-----------------------|----------------------|---------------------------------------------------|
| `NUTS`                | a gradient           | Hoffman and Gelman 2014, JMLR 15:1593             |
| `Slice`               | nothing              | Neal 2003, Annals of Statistics 31:705            |
| `MetropolisHastings`  | nothing              | Metropolis et al. 1953; Roberts et al. 1997       |
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ....core.batches import put
from ....core.names import check_count
from ....core.solution import Array, Key, rng_of
from ...estimates import AbstractRatio
from ..product import AbstractSampler, LikelihoodPosterior, Target
from ..space import Frame
from .convergence import DISAGREEMENT, bulk_ess, r_hat
from .evidence import evidence
from .tempered import check_found, nan_doubts, opened

Density = Callable[[jax.Array], jax.Array]

NUM_OPENING, NUM_FIRST = 1024, 40  # particles that the chains begin among, and draws of the prior for each
COUNTING = 4.0  # draws of the prior that count there, for each chain
FEWEST = 400  # effective draws, below which there is a warning (Vehtari et al. 2021)
MOST_DIVERGENT = 0.01  # share of the steps of NUTS, likewise
ACCEPTED = 0.234  # share of moves that a random walk is adapted to (Roberts, Gelman and Gilks 1997)
STEP_WIDTH = 2.0  # of slices, in standard deviations


class AbstractChains(AbstractSampler):
    """What chains have in common.

    Fields
    ------
    num_chains: side by side; they are compared.
    num_warmup: steps of each chain that are dropped, in which it adapts.
    num_samples: draws that are kept of each.
    num_between: steps for each draw that is kept.
    """

    num_chains: eqx.AbstractVar[int]
    num_warmup: eqx.AbstractVar[int]
    num_samples: eqx.AbstractVar[int]
    num_between: eqx.AbstractVar[int]
    rounds: eqx.AbstractClassVar[int]

    def __check_init__(self):
        least = {"num_chains": 4, "num_warmup": 20 * self.rounds, "num_samples": 20, "num_between": 1}
        for name, fewest in least.items():
            check_count(name, getattr(self, name))
            if getattr(self, name) < fewest:
                raise ValueError(f"{name} must be at least {fewest}, got {getattr(self, name)}")
        if self.num_chains > NUM_OPENING:
            raise ValueError(f"num_chains must be at most {NUM_OPENING}, got {self.num_chains}")

    @abc.abstractmethod
    def warmed(self, key: Key, density: Density, z: jax.Array) -> tuple[Any, jax.Array]:
        """How one chain, from z `(d,)`, shall move from now on, and its path `(t, d)` so far, in one round."""

    @abc.abstractmethod
    def algorithm(self, density: Density, adapted: Any) -> Any:
        """That of BlackJAX."""

    @abc.abstractmethod
    def noted(self, info: Any) -> Mapping[str, jax.Array]:
        """Of one step, what goes into the diagnostics as a mean, by name."""

    def posterior(self, key: Key, estimator: AbstractRatio, x: Array) -> LikelihoodPosterior:
        target_key, open_key, warm_key, run_key, evidence_key = jax.random.split(key, 5)
        target = Target.of(target_key, estimator, x)
        begun, broken = _begun(target, open_key, self.num_chains * COUNTING)
        check_found(np.asarray(begun.log_evidence))
        place, adapted, z = self._warm_up(target, warm_key, np.asarray(begun.u, np.float64))
        z, noted = _ran(self, target, place, jax.random.split(run_key, self.num_chains), z, adapted)
        told = {name: float(np.mean(each)) for name, each in noted.items()}
        return _concluded(target, evidence_key, x, place.decode(z), told, nan_doubts(float(broken)))

    def _warm_up(self, target: Target, key: Key, u: np.ndarray) -> tuple[Frame, Any, jax.Array]:
        """Where the chains are to move, how, and where they are, from particles u `(n, d)`."""
        pick_key, *early, last = jax.random.split(key, self.rounds + 1)
        place, at = Frame.of(u), u[rng_of(pick_key).permutation(len(u))[: self.num_chains]]
        for each in early:
            _, path = _warmed(self, target, place, jax.random.split(each, self.num_chains), place.encode(at))
            paths = place.decode(path)
            place, at = Frame.of(paths[:, paths.shape[1] // 2 :].reshape(-1, target.space.dim)), paths[:, -1]
        adapted, path = _warmed(self, target, place, jax.random.split(last, self.num_chains), place.encode(at))
        return place, adapted, put(np.asarray(path)[:, -1])


class NUTS(AbstractChains):
    """The no-U-turn sampler: Hamiltonian steps as long as they lead away, with windows of adaptation as Stan has them.

    It needs a smooth log-ratio, and is at its best where parameters are many. `diagnostics` of the posterior have
    `divergent`, the share of steps that left the trajectory, and `gradients`, their mean number in a step, beside
    `r_hat` and `ess`, of the worst parameter, and `log_evidence_std`, `evidence_ess`, `evidence_pareto_k`.

    Fields
    ------
    num_chains: side by side; they are compared.
    num_warmup: steps of each chain that are dropped, in which it adapts.
    num_samples: draws that are kept of each.
    num_between: steps for each draw that is kept.
    """

    num_chains: int = eqx.field(static=True, default=20)
    num_warmup: int = eqx.field(static=True, default=300)
    num_samples: int = eqx.field(static=True, default=500)
    num_between: int = eqx.field(static=True, default=1)
    rounds: ClassVar[int] = 1

    def warmed(self, key: Key, density: Density, z: jax.Array) -> tuple[Any, jax.Array]:
        import blackjax  # here, for it takes 0.8 s

        seen = lambda state, info, adaptation: state.position
        warm_up: Any = blackjax.window_adaptation(blackjax.nuts, density, adaptation_info_fn=seen)
        found, path = warm_up.run(key, z, num_steps=self.num_warmup)
        return (found.parameters["step_size"], found.parameters["inverse_mass_matrix"]), path

    def algorithm(self, density: Density, adapted: Any) -> Any:
        import blackjax

        return blackjax.nuts(density, *adapted)

    def noted(self, info: Any) -> Mapping[str, jax.Array]:
        return {"divergent": info.is_divergent, "gradients": info.num_integration_steps}


class Slice(AbstractChains):
    """Slice sampling along random directions: no step width to choose, no gradient.

    `diagnostics` of the posterior are those of `NUTS`, with `evaluations`, their mean number in a step.

    Fields
    ------
    num_chains: side by side; they are compared.
    num_warmup: steps of each chain that are dropped, in three rounds, after which directions are scaled anew.
    num_samples: draws that are kept of each.
    num_between: steps for each draw that is kept.
    """

    num_chains: int = eqx.field(static=True, default=50)
    num_warmup: int = eqx.field(static=True, default=300)
    num_samples: int = eqx.field(static=True, default=200)
    num_between: int = eqx.field(static=True, default=5)
    rounds: ClassVar[int] = 3

    def warmed(self, key: Key, density: Density, z: jax.Array) -> tuple[Any, jax.Array]:
        return (), _path(self.algorithm(density, ()), key, z, self.num_warmup // self.rounds)

    def algorithm(self, density: Density, adapted: Any) -> Any:
        import blackjax
        from blackjax.mcmc.slice import stepping_out

        return blackjax.slice_sampling(density, interval=stepping_out, width=STEP_WIDTH)

    def noted(self, info: Any) -> Mapping[str, jax.Array]:
        return {"evaluations": 2 + info.num_expansions + info.num_shrink}


class MetropolisHastings(AbstractChains):
    """A random walk: normal moves of the posterior's shape, each chain's as long as a quarter of them is accepted.

    The plainest, and the slowest to mix where parameters are many. `diagnostics` of the posterior are those of `NUTS`,
    with `accepted`, the share of the moves.

    Fields
    ------
    num_chains: side by side; they are compared.
    num_warmup: steps of each chain that are dropped, in four rounds, after which moves are scaled anew.
    num_samples: draws that are kept of each.
    num_between: steps for each draw that is kept.
    """

    num_chains: int = eqx.field(static=True, default=100)
    num_warmup: int = eqx.field(static=True, default=1000)
    num_samples: int = eqx.field(static=True, default=100)
    num_between: int = eqx.field(static=True, default=20)
    rounds: ClassVar[int] = 4

    def warmed(self, key: Key, density: Density, z: jax.Array) -> tuple[Any, jax.Array]:
        count = self.num_warmup // self.rounds

        def step(now: tuple[Any, jax.Array], each: tuple[Key, jax.Array]) -> tuple[Any, jax.Array]:
            (state, log_size), (key, turn) = now, each
            state, info = self.algorithm(density, jnp.exp(log_size)).step(key, state)
            log_size = log_size + (info.acceptance_rate - ACCEPTED) * turn**-0.6  # Robbins and Monro 1951
            return (state, log_size), state.position

        log_size = jnp.log(2.38 / np.sqrt(len(z)))
        begun = self.algorithm(density, jnp.exp(log_size)).init(z)
        (_, log_size), path = jax.lax.scan(
            step, (begun, log_size), (jax.random.split(key, count), 1.0 + jnp.arange(count))
        )
        return jnp.exp(log_size), path

    def algorithm(self, density: Density, adapted: Any) -> Any:
        import blackjax

        move = lambda key, z: adapted * jax.random.normal(key, z.shape)
        return blackjax.additive_step_random_walk(density, move)

    def noted(self, info: Any) -> Mapping[str, jax.Array]:
        return {"accepted": info.is_accepted}


@eqx.filter_jit
def _begun(target: Target, key: Key, effective: float) -> tuple[Any, jax.Array]:
    draw_key, pick_key = jax.random.split(key)
    return opened(draw_key, pick_key, target, NUM_OPENING, NUM_FIRST, effective)


def _over(place: Frame, target: Target) -> Density:
    return lambda z: target.log_density((place.centre + place.root @ z)[None])[0]


@eqx.filter_jit
def _warmed(sampler: AbstractChains, target: Target, place: Frame, keys: Key, z: jax.Array) -> tuple[Any, jax.Array]:
    return jax.vmap(lambda key, z: sampler.warmed(key, _over(place, target), z))(keys, z)


@eqx.filter_jit
def _ran(
    sampler: AbstractChains, target: Target, place: Frame, keys: Key, z: jax.Array, adapted: Any
) -> tuple[jax.Array, Mapping[str, jax.Array]]:
    """Draws `(c, n, d)` of all chains, and what was noted of their steps."""

    def one(key: Key, z: jax.Array, adapted: Any) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        algorithm = sampler.algorithm(_over(place, target), adapted)

        def step(state: Any, key: Key) -> tuple[Any, Any]:
            state, info = algorithm.step(key, state)
            return state, sampler.noted(info)

        def kept(state: Any, key: Key) -> tuple[Any, Any]:
            state, noted = jax.lax.scan(step, state, jax.random.split(key, sampler.num_between))
            return state, (state.position, noted)

        return jax.lax.scan(kept, algorithm.init(z), jax.random.split(key, sampler.num_samples))[1]

    return jax.vmap(one)(keys, z, adapted)


def _path(algorithm: Any, key: Key, z: jax.Array, count: int) -> jax.Array:
    def step(state: Any, key: Key) -> tuple[Any, jax.Array]:
        state, _ = algorithm.step(key, state)
        return state, state.position

    return jax.lax.scan(step, algorithm.init(z), jax.random.split(key, count))[1]


def _concluded(
    target: Target, key: Key, x: Array, u: np.ndarray, told: dict[str, float], doubts: tuple[str, ...]
) -> LikelihoodPosterior:
    """The posterior from the draws u `(c, n, d)` of chains."""
    pick_key, evidence_key = jax.random.split(key)
    told = {"r_hat": float(r_hat(u).max()), "ess": float(bulk_ess(u).min()), **told}
    mixed = rng_of(pick_key).permutation(u.reshape(-1, u.shape[-1]))
    found = evidence(evidence_key, target, mixed)
    draws = put(np.asarray(target.space.decode(mixed.astype(np.float32))))
    doubts = _doubts(told, len(u)) + found.doubts + doubts
    return LikelihoodPosterior(
        target.space, target.estimator, put(np.asarray(x, np.float32)), draws,
        put(np.asarray(found.value, np.float32)), {**told, **found.told}, doubts,
    )  # fmt: skip


def _doubts(told: Mapping[str, float], num_chains: int) -> tuple[str, ...]:
    found = []
    if not told["r_hat"] <= DISAGREEMENT:
        found.append(
            f"{num_chains} chains disagree: R-hat is {told['r_hat']:.2f} (a warning is given above {DISAGREEMENT:g}); "
            "the posterior may have modes that chains do not leave, for which there is sampler=qx.Tempered(), or they "
            "need more num_warmup and num_samples"
        )
    if not told["ess"] >= FEWEST:
        found.append(
            f"the chains are worth {told['ess']:.0f} independent draws (a warning is given below {FEWEST}); give more "
            "num_samples, or more num_between"
        )
    if told.get("divergent", 0.0) > MOST_DIVERGENT:
        found.append(
            f"{100 * told['divergent']:.2g} % of the steps diverged: the posterior has an edge or a neck that NUTS "
            "does not follow, and draws near it are missing; try sampler=qx.Tempered() or qx.Slice()"
        )
    return tuple(found)
