"""NPE: the posterior p(theta | x) itself, by a conditional flow.

A flow q(theta | x) minimises -log q(theta | x) over draws of the prior with their simulations (neural posterior
estimation; Papamakarios and Murray 2016, arXiv:1605.06376, with their mixtures; with flows Greenberg, Nonnenmacher and
Macke 2019, arXiv:1905.07488). Its optimum is the posterior under the prior that theta was drawn from, for every x at
once. The flow is over unconstrained parameters, so no draw can leave the prior's support.

What it sees of x is what the recurrent machine sees: an encoder of a set of observations, trained with the flow.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..answers.bayes.posterior import NUM_POINTS, AbstractPosterior
from ..answers.bayes.space import Space
from ..answers.estimates import AbstractAmortised
from ..core.batches import bucket, filled, put
from ..core.fit import Training
from ..core.loss import AbstractLoss, Batch
from ..core.names import check_count
from ..core.prior import Prior
from ..core.progress import AbstractProgress
from ..core.simulations import Simulations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key, Solution, Status
from ..sample.simulate import simulate
from .method import AbstractLearner, Budget, Card, Job, require_origin
from .nets.continuous.denoiser import Denoiser, DenoisingField
from .nets.continuous.transformer import ConditionalTokens
from .nets.continuous.velocity import Velocity, VelocityField
from .nets.densities.conditional import AbstractConditional
from .nets.densities.flows import Flow
from .nets.densities.mixture import Mixture
from .nets.encoder import AbstractEncoder, as_encoder
from .nets.novelty import Novelty
from .nets.set_encoder import SetEncoder

WIDTH = 64  # of the encoder
FEWEST_SETS = 100
TrainedFlow = AbstractConditional | VelocityField | DenoisingField
AnyFlow = TrainedFlow | ConditionalTokens
BLOCK = 1024  # draws, or densities, in one call of what was compiled
SETS = 16  # data sets whose posteriors are drawn from, or evaluated, side by side


class FlowPosterior(AbstractPosterior):
    """q(theta | x) for one data set, by a conditional flow over the unconstrained parameters.

    Fields
    ------
    space: the space of u.
    flow: q(u | condition).
    condition: what is seen of the data `(k,)`.
    draws: theta `(n, dim)`, which the moments are taken from.
    warnings: reasons not to trust it as it stands.
    """

    space: Space
    flow: AnyFlow
    condition: jax.Array
    draws: jax.Array
    warnings: tuple[str, ...] = eqx.field(static=True, default=())

    @staticmethod
    def of(key: Key, space: Space, flow: AnyFlow, condition: jax.Array, warnings: tuple[str, ...]) -> "FlowPosterior":
        return FlowPosterior(space, flow, condition, _drawn(space, flow, condition, key, NUM_POINTS), warnings)

    @property
    def prior(self) -> Prior:
        return self.space.prior

    @property
    def points(self) -> jax.Array:
        return self.draws

    def sample(self, key: Key, num_samples: int) -> jax.Array:
        return _drawn(self.space, self.flow, self.condition, key, num_samples)

    def log_prob(self, theta: Array) -> jax.Array:
        rows = np.asarray(theta, np.float32).reshape(-1, np.shape(theta)[-1])
        blocks = filled(rows, -(-len(rows) // BLOCK) * BLOCK).reshape(-1, BLOCK, rows.shape[1])
        found = [np.asarray(_log_prob(self.space, self.flow, self.condition, block)) for block in blocks]
        return put(np.concatenate(found)[: len(rows)].reshape(np.shape(theta)[:-1]))


def _drawn(space: Space, flow: AnyFlow, condition: jax.Array, key: Key, count: int) -> jax.Array:
    """Draws of theta `(count, dim)`, made in blocks: one is compiled for all counts."""
    keys = (jax.random.fold_in(key, turn) for turn in range(-(-count // BLOCK)))
    return put(np.concatenate([np.asarray(_block(space, flow, condition, each)) for each in keys])[:count])


@eqx.filter_jit
def _block(space: Space, flow: AnyFlow, condition: jax.Array, key: Key) -> jax.Array:
    return space.decode(flow.sample(key, condition, BLOCK))


@eqx.filter_jit
def _log_prob(space: Space, flow: AnyFlow, condition: jax.Array, theta: Array) -> jax.Array:
    return space.density(theta, lambda u: flow.log_prob(u, jnp.broadcast_to(condition, (len(u), *condition.shape))))


class PosteriorFlow(AbstractAmortised):
    """An amortised posterior: the flow, and the encoder of the data that it is conditional on.

    Fields
    ------
    space: the space of u.
    encoder: of sets of observations.
    flow: q(u | features).
    novelty: tells whether data look like anything simulated.
    simulator: what the simulations came from.
    event_shape: shape of one observation.
    num_observations: in every set that it was trained on; it is for no other number.
    """

    space: Space
    encoder: SetEncoder
    flow: TrainedFlow
    novelty: Novelty
    simulator: AbstractSimulator = eqx.field(static=True)
    event_shape: tuple[int, ...] = eqx.field(static=True)
    num_observations: int = eqx.field(static=True)

    def infer(self, key: Key, x: jax.Array) -> Solution[FlowPosterior]:
        check_size(self, x)
        doubts = self.novelty.warnings(x)
        found = FlowPosterior.of(key, self.space, self.flow, _seen(self.encoder, x), doubts)
        return Solution(found, Status.SUCCESS, {}, {}, warnings=doubts)

    def sample(self, key: Key, x: Array, num_samples: int) -> jax.Array:
        """Draws theta `(num_samples, B, dim)` of the posteriors of B data sets x `(B, m, *event)`, many at a time.

        Raises `ValueError` for data sets of another shape, or with NaN.
        """
        check_count("num_samples", num_samples)
        x = self._sets(x)
        keys, rows = jax.random.split(key, bucket(len(x))), filled(x, bucket(len(x)))
        return put(np.swapaxes(np.asarray(_drawn_each(self, keys, rows, num_samples))[: len(x)], 0, 1))

    def log_prob(self, theta: Array, x: Array) -> jax.Array:
        """Log density `(S, B)` at theta `(S, B, dim)` of the posteriors of B data sets x `(B, m, *event)`.

        Raises `ValueError` for shapes that do not fit, or NaN in x.
        """
        x, theta = self._sets(x), np.asarray(theta, np.float32)
        if theta.ndim != 3 or theta.shape[1:] != (len(x), self.prior.dim):
            raise ValueError(f"theta: expected shape (S, {len(x)}, {self.prior.dim}), got {theta.shape}")
        rows, size = np.swapaxes(theta, 0, 1), bucket(len(x))
        return put(np.asarray(_log_prob_each(self, filled(rows, size), filled(x, size)))[: len(x)].T)

    def _sets(self, x: Array) -> np.ndarray:
        if np.ndim(x) != 2 + len(self.event_shape):
            raise ValueError(
                f"x: expected data sets (B, m, *event), an event of shape {self.event_shape}; got {np.shape(x)}"
            )
        rows = self.observations(np.reshape(x, (-1, *np.shape(x)[2:]))).reshape(np.shape(x))
        check_size(self, rows[0])
        return np.asarray(rows)


@eqx.filter_jit
def _drawn_each(net: PosteriorFlow, keys: Key, x: Array, count: int) -> jax.Array:
    one = lambda given: net.space.decode(net.flow.sample(given[0], net.encoder(given[1][None]).features[0], count))
    return jax.lax.map(one, (keys, jnp.asarray(x)), batch_size=SETS)


@eqx.filter_jit
def _log_prob_each(net: PosteriorFlow, theta: Array, x: Array) -> jax.Array:
    def one(given: tuple[jax.Array, jax.Array]) -> jax.Array:
        theta, x = given
        seen = net.encoder(x[None]).features
        return net.space.density(theta, lambda u: net.flow.log_prob(u, jnp.repeat(seen, len(u), axis=0)))

    return jax.lax.map(one, (jnp.asarray(theta), jnp.asarray(x)), batch_size=SETS)


@eqx.filter_jit
def _seen(encoder: SetEncoder, x: jax.Array) -> jax.Array:
    return encoder(x[None]).features[0]


class PosteriorLoss(AbstractLoss):
    """-log q(u | x), times the weight of a row where rows have one.

    With atoms, -log of the share of q(u | x) / p(u) in its sum over as many u, of which one made x: its optimum is the
    posterior wherever theta was drawn (equation 6 of Greenberg et al. 2019).

    Fields
    ------
    batch_size: sets in a step.
    atoms: u that each x stands beside, its own and those of other sets; None for the first loss. Of an ensemble it is
        the mean density that is judged then, and with weights; otherwise every member by itself.
    """

    batch_size: int = eqx.field(static=True, default=128)
    atoms: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.atoms is not None and not 2 <= self.atoms <= self.batch_size:
            raise ValueError(f"atoms must be from 2 to batch_size ({self.batch_size}), or None, got {self.atoms}")

    def check(self, net: PosteriorFlow, batch: Batch) -> None:
        check_sets(net, batch)

    def __call__(self, net: PosteriorFlow, batch: Simulations, key: Key) -> jax.Array:
        u, seen = net.space.encode(batch.drawn_from), net.encoder(batch.x).features
        if batch.weight is not None:
            return -jnp.mean(batch.weight * net.flow.log_prob(u, seen))
        if self.atoms is None:
            return net.flow.loss(key, u, seen)
        beside = jnp.concatenate([jnp.roll(u, turn, axis=0) for turn in range(self.atoms)])
        found = net.flow.log_prob(beside, jnp.tile(seen, (self.atoms, 1))) - net.space.log_prior(beside)
        found = found.reshape(self.atoms, len(u))
        return jnp.mean(jax.scipy.special.logsumexp(found, axis=0) - found[0])


TRAINING = Training(6000, 1e-3, patience=0.25)
CARD = Card("npe", "Papamakarios and Murray 2016, arXiv:1605.06376", "posterior", training=TRAINING)


class NPE(AbstractLearner):
    """Neural posterior estimation: a conditional flow for the posterior. Needs no gold.

    Fields
    ------
    network: what the flow is like: in layers, `Flow`; a `Mixture` of normals; continuous, `Velocity` or `Denoiser`.
    encoder: what is seen of one observation, see `ALFI`; by its shape if None.
    batch_size: sets in a step.
    atoms: None where theta is drawn from the prior; a number, such as 10, where it is drawn elsewhere, see
        `PosteriorLoss`. A step costs as many times more.
    card: its name and paper.
    """

    network: Flow | Mixture | Velocity | Denoiser = Flow()
    encoder: AbstractEncoder | Callable[[jax.Array], jax.Array] | None = None
    batch_size: int = eqx.field(static=True, default=128)
    atoms: int | None = eqx.field(static=True, default=None)
    card: Card = eqx.field(static=True, default=CARD)
    refinement: ClassVar[None] = None
    needs: ClassVar[tuple[str, ...]] = ()

    def __check_init__(self):
        as_encoder(self.encoder, ())
        if self.atoms is not None and not self.network.has_density:
            raise ValueError("atoms: a continuous flow has no density at hand in training; give network=qx.Flow()")

    @property
    def loss(self) -> PosteriorLoss:
        return PosteriorLoss(self.batch_size, self.atoms)

    def check(self, sims: Batch) -> None:
        sims = one_record(sims)
        require_origin(self.name, sims)
        if sims.weight is not None and self.atoms is not None:
            raise ValueError("weights and atoms both put right where theta was drawn: drop one of them")
        if sims.weight is not None and not self.network.has_density:
            raise ValueError("weights: a continuous flow has no density at hand in training; give network=qx.Flow()")

    def gather(self, key: Key, simulator: AbstractSimulator, budget: Budget, progress: AbstractProgress) -> Simulations:
        return sets(key, simulator, budget, progress)

    def build(self, key: Key, sims: Simulations) -> PosteriorFlow:
        encoder_key, flow_key = jax.random.split(key)
        theta = np.asarray(sims.drawn_from)
        space = Space.of(sims.prior, theta)
        encoder = SetEncoder.make(
            encoder_key,
            [(space.encoded(theta), sims.x)],
            as_encoder(self.encoder, sims.event_shape),
            width=WIDTH,
            num_pooled=WIDTH,
            regression=sims.num_observations > 1,
        )
        return PosteriorFlow(
            space=space,
            encoder=encoder,
            flow=self.network.make(flow_key, space.dim, encoder.num_features),
            novelty=Novelty.of(sims, encoder.lens, encoder.statistics.warp),
            simulator=sims.simulator,
            event_shape=sims.event_shape,
            num_observations=sims.num_observations,
        )

    def finish(self, key: Key, trained: Solution[Any], job: Job) -> Solution[Any]:
        return trained


def FMPE(
    *,
    network: Velocity = Velocity(),
    encoder: AbstractEncoder | Callable[[jax.Array], jax.Array] | None = None,
    batch_size: int = 128,
) -> NPE:
    """Flow matching: NPE by a continuous flow, whose training evaluates no density. Needs no gold."""
    card = Card("fmpe", "Wildberger et al. 2023, arXiv:2305.17161", "posterior", training=Training(20_000, 1e-3))
    return NPE(network=network, encoder=encoder, batch_size=batch_size, card=card)


def NPSE(
    *,
    network: Denoiser = Denoiser(),
    encoder: AbstractEncoder | Callable[[jax.Array], jax.Array] | None = None,
    batch_size: int = 256,
) -> NPE:
    """Score estimation: NPE by denoising diffusion, which follows sharp and curved posteriors. Needs no gold."""
    card = Card("npse", "Geffner et al. 2023, arXiv:2209.14249", "posterior", training=Training(4000, 1e-3, 0.5))
    return NPE(network=network, encoder=encoder, batch_size=batch_size, card=card)


def sets(key: Key, simulator: AbstractSimulator, budget: Budget, progress: AbstractProgress) -> Simulations:
    """Simulations of sets of the size that is asked about, as many as the budget makes."""
    m = budget.num_observations or 1
    count = budget.num_simulations // m
    if count < FEWEST_SETS:
        raise ValueError(
            f"num_simulations: {budget.num_simulations} observations make {count} sets of {m}, too few to learn "
            f"from; give at least {FEWEST_SETS * m}, better a hundred times that, or take a method that learns "
            "from single observations, such as qx.NRE()"
        )
    return simulate(key, simulator, num_simulations=count, num_observations=m, progress=progress)


def check_sets(net: Any, batch: Batch) -> None:
    """Raise `ValueError` unless the estimator is for these simulations and for sets of their size."""
    sims = one_record(batch)
    net.require(sims.simulator)
    if sims.num_observations != net.num_observations:
        raise ValueError(
            f"these simulations have {sims.num_observations} observations a row, the estimator is for "
            f"{net.num_observations}"
        )


def check_size(net: Any, x: jax.Array) -> None:
    """Raise `ValueError` unless the estimator is for sets of as many observations as x `(m, *event)` has."""
    if len(x) != net.num_observations:
        raise ValueError(
            f"{len(x)} observations: this estimator is for sets of {net.num_observations}; train one with "
            f"num_observations={len(x)}"
        )


def one_record(batch: Batch) -> Simulations:
    if not isinstance(batch, Simulations):
        raise ValueError("npe takes one record of simulations, all with the same number of observations, not several")
    return batch
