"""Joint: one network for every conditional of the joint law of parameters and data.

Parameters u (unconstrained, standardised) and data are the numbers y of one row. Each is known, asked for, or absent,
and a transformer takes noise away from what is asked for (Simformer; Gloeckler et al. 2024, arXiv:2404.09636):

    loss = mean over what is asked for of  (1 + s^2) / s^2  |D(y + s e, s, known) - y|^2

over rows with states drawn anew in every step: of eight, three ask for the parameters given all data, two given a part
of the data, one for some parameters given the others and all data, one for the data given the parameters, one for
anything given anything. The optimum is the mean of every conditional at every noise level, so
that one training gives the posterior, also where data are missing, the posterior of some parameters where others are
given, and the simulator's own law.

The noise is that of `nets/continuous/denoiser.py`. All numbers of all observations are tokens of their own: this is for
small data, and a set of observations is not known to be in random order.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..answers.bayes.space import Space
from ..answers.estimates import AbstractPosteriorEstimator
from ..core.batches import put
from ..core.fit import Training
from ..core.loss import AbstractLoss, Batch
from ..core.names import nearest
from ..core.progress import AbstractProgress
from ..core.simulations import Simulations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key, Solution, Status
from .method import AbstractLearner, Budget, Card, Job, require_origin
from .nets.continuous.transformer import ABSENT, ASKED, KNOWN, ConditionalTokens, TokenField, Transformer
from .nets.lens import Components, Warp
from .nets.novelty import Novelty
from .posterior_flow import FlowPosterior, check_sets, check_size, one_record, sets

MOST_TOKENS = 64
KINDS = 8  # of rows in turn, see `_states`


class JointEstimator(AbstractPosteriorEstimator):
    """The joint law of parameters and data, by its conditionals.

    Fields
    ------
    space: the space of u.
    warp: of the numbers of a data set, which are tokens as arcsinh of them, standardised.
    field: the network.
    novelty: tells whether data look like anything simulated.
    simulator: what the simulations came from.
    event_shape: shape of one observation.
    num_observations: in every set that it was trained on; it is for no other number.
    """

    space: Space
    warp: Warp
    field: TokenField
    novelty: Novelty
    simulator: AbstractSimulator = eqx.field(static=True)
    event_shape: tuple[int, ...] = eqx.field(static=True)
    num_observations: int = eqx.field(static=True)

    def infer(self, key: Key, x: jax.Array) -> Solution[FlowPosterior]:
        found = self.conditional(key, x=x)
        return Solution(found, Status.SUCCESS, {}, {}, warnings=found.warnings)

    def conditional(
        self, key: Key, theta: Mapping[str, float] | None = None, *, x: Array, missing: Array | None = None
    ) -> FlowPosterior:
        """The posterior given data, some of which may be missing, and given some of the parameters.

        Parameters
        ----------
        key: random key, for the draws that its moments are taken from.
        theta: values of parameters that are given; draws have them, and the density is that of the other parameters.
        x: observations `(m, *event)`.
        missing: which numbers of x are not known, an array of booleans of its shape. What x has there is not looked
            at, so it may be NaN. Where there are any, x is not compared with what was simulated.

        Raises
        ------
        ValueError: x of another shape, NaN that is not said to be missing, an unknown parameter, one outside its
            support, or all of them; and parameters that cannot be given: vectors, or of a prior whose laws depend on
            one another.
        """
        absent = np.zeros(np.shape(x), bool) if missing is None else _checked(missing, x)
        if np.isnan(np.where(absent, 0.0, x)).any():
            raise ValueError("x has NaN: if these numbers are unknown, say so with missing=np.isnan(x)")
        x = self.observations(np.where(absent, np.median(self.novelty.x, axis=(0, 1)), x))
        check_size(self, x)
        u, given = self._given(theta or {})
        known = np.where(absent, ABSENT, KNOWN).ravel()
        state = np.concatenate([np.where(given, KNOWN, ASKED), known]).astype(np.float32)
        condition = put(np.concatenate([u, _standardised(self.warp, x), state]))
        flow = ConditionalTokens(self.field, self.space, tuple(np.flatnonzero(~given).tolist()))
        return FlowPosterior.of(key, self.space, flow, condition, () if absent.any() else self.novelty.warnings(x))

    def emulate(self, key: Key, theta: Mapping[str, Any] | Array, num_samples: int) -> np.ndarray:
        """Draws of data `(num_samples, m, *event)` at one theta `(dim,)`, or values by name, without the simulator.

        Raises `ValueError` for theta of another shape or outside the prior's support.
        """
        u = self.space.encoded(self.prior.rows(theta if isinstance(theta, Mapping) else np.atleast_2d(theta)))[0]
        drawn = np.asarray(_emulated(self.field, self.warp, key, put(u, np.float32), num_samples))
        return drawn.reshape(num_samples, self.num_observations, *self.event_shape)

    def _given(self, theta: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """u `(d,)` with what is given, and which of them that is `(d,)`."""
        prior = self.prior
        for name in theta:
            if name not in prior.names:
                raise ValueError(f"unknown parameter {name!r}{nearest(name, prior.names)}; the prior has {prior.names}")
        if theta and (prior.conditional or prior.unconstrained_dim != prior.dim or any(prior.shapes[n] for n in theta)):
            raise ValueError("theta: only single parameters can be given, of a prior whose laws are independent")
        if len(theta) == len(prior.names):
            raise ValueError("theta: all parameters are given, so none is asked for; draws of the data: emulate")
        middle = np.asarray(self.space.decode(jnp.zeros(self.space.dim)))
        row = prior.rows({**prior.unpack(middle), **theta})
        return self.space.encoded(row)[0], np.isin(prior.columns, list(theta))


def _checked(missing: Array, x: Array) -> np.ndarray:
    missing = np.asarray(missing)
    if missing.dtype != bool or missing.shape != np.shape(x):
        raise ValueError(
            f"missing: expected booleans of the shape of x, {np.shape(x)}, got {missing.dtype} of shape {missing.shape}"
        )
    return missing


@eqx.filter_jit
def _standardised(warp: Warp, x: jax.Array) -> jax.Array:
    return warp(x.reshape(-1))


@eqx.filter_jit
def _emulated(field: TokenField, warp: Warp, key: Key, u: jax.Array, num_samples: int) -> jax.Array:
    size = len(warp.mean[0])
    state = jnp.concatenate([jnp.full(len(u), KNOWN), jnp.full(size, ASKED)])
    return warp.undone(field.sample(key, jnp.concatenate([u, jnp.zeros(size)]), state, num_samples)[:, len(u) :])


class JointLoss(AbstractLoss):
    """The error of what is asked for, in rows with states drawn anew.

    Fields
    ------
    batch_size: sets in a step.
    """

    batch_size: int = eqx.field(static=True, default=256)

    def __check_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def check(self, net: JointEstimator, batch: Batch) -> None:
        check_sets(net, batch)

    def __call__(self, net: JointEstimator, batch: Simulations, key: Key) -> jax.Array:
        state_key, noise_key = jax.random.split(key)
        u, x = net.space.encode(batch.drawn_from), net.warp(batch.x.reshape(len(batch), -1))
        y = jnp.concatenate([u, x], axis=1)
        return net.field.loss(noise_key, y, _states(state_key, y, net.space.dim))


def _states(key: Key, y: jax.Array, dim: int) -> jax.Array:
    """What each of the numbers y `(n, t)` is, of which the first `dim` are parameters."""
    share_key, token_key = jax.random.split(key)
    kind, theta = jnp.arange(len(y))[:, None] % KINDS, jnp.arange(y.shape[1]) < dim
    chance, share = jax.random.uniform(token_key, y.shape), jax.random.uniform(share_key, (2, len(y), 1))
    posterior = jnp.where(theta, ASKED, KNOWN)
    missing = jnp.where(theta, ASKED, jnp.where(chance < share[0], ABSENT, KNOWN))
    given = jnp.where(theta & (chance < share[0]), ASKED, KNOWN)
    likelihood = jnp.where(theta, KNOWN, ASKED)
    any_way = jnp.where(chance < share[0], ASKED, jnp.where(chance < jnp.maximum(*share), ABSENT, KNOWN))
    return jnp.select([kind < 3, kind < 5, kind < 6, kind < 7], [posterior, missing, given, likelihood], any_way)


CARD = Card("joint", "Gloeckler et al. 2024, arXiv:2404.09636", "posterior", training=Training(5_000, 1e-3))


class Joint(AbstractLearner):
    """All conditionals of parameters and data from one network: missing data, given parameters. Needs no gold.

    Fields
    ------
    network: the transformer.
    batch_size: sets in a step.
    card: its name and paper.
    """

    network: Transformer = Transformer()
    batch_size: int = eqx.field(static=True, default=256)
    card: Card = eqx.field(static=True, default=CARD)
    refinement: ClassVar[None] = None
    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def loss(self) -> JointLoss:
        return JointLoss(self.batch_size)

    def check(self, sims: Batch) -> None:
        sims = one_record(sims)
        require_origin(self.name, sims)
        if sims.weight is not None:
            raise ValueError("weights: joint has no loss for them; take qx.NPE()")

    def gather(self, key: Key, simulator: AbstractSimulator, budget: Budget, progress: AbstractProgress) -> Simulations:
        return sets(key, simulator, budget, progress)

    def build(self, key: Key, sims: Simulations) -> JointEstimator:
        theta, x = np.asarray(sims.drawn_from), np.asarray(sims.x).reshape(len(sims), -1)
        space, warp = Space.of(sims.prior, theta), Warp.of(x, 1)
        if (tokens := space.dim + x.shape[1]) > MOST_TOKENS:
            raise ValueError(
                f"joint: {space.dim} parameters and {x.shape[1]} numbers of data are {tokens} tokens, more than "
                f"{MOST_TOKENS}; simulate fewer summaries, or take a method with an encoder, such as qx.NPSE()"
            )
        lens = Components()
        return JointEstimator(
            space=space,
            warp=warp,
            field=self.network.make(key, tokens),
            novelty=Novelty.of(sims, lens, Warp.of(x.reshape(len(sims) * sims.num_observations, -1))),
            simulator=sims.simulator,
            event_shape=sims.event_shape,
            num_observations=sims.num_observations,
        )

    def finish(self, key: Key, trained: Solution[Any], job: Job) -> Solution[Any]:
        return trained
