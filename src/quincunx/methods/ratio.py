"""Estimators of the likelihood ratio: CARL, ROLR, CASCAL, ALICE, RASCAL, ALICES; NRE, and balanced NRE.

A network f(theta, x) stands for the log-ratio of p(x | theta) to a reference. Every method minimises a sum over
numerators theta, with observations x half from p(x | theta) (label y = 1) and half from the reference (y = 0):

| method | value part                                                               | score part | gold           |
|--------|--------------------------------------------------------------------------|------------|----------------|
| CARL   | cross entropy of sigmoid(f) with y                                       |            | none           |
| ROLR   | y (exp(-f) - 1 / r_xz)^2 + (1 - y) (exp(f) - r_xz)^2                     |            | ratio          |
| CASCAL | as CARL                                                                  | yes        | score          |
| ALICE  | cross entropy of sigmoid(f) with the soft label r_xz / (1 + r_xz)        |            | ratio          |
| RASCAL | as ROLR                                                                  | yes        | ratio, score   |
| ALICES | as ALICE                                                                 | yes        | ratio, score   |

The score part is alpha |grad_theta f - t_xz|^2, at the theta that x was drawn from. All have their optimum at the true
f = log r(x | theta), for joint ratios and scores scatter around those of x alone (Brehmer, Cranmer, Louppe, Pavez 2018,
arXiv:1805.12244 and 1805.00020; Stoye et al. 2018, arXiv:1808.00973; Cranmer et al. 2015, arXiv:1506.02169).

The papers take the score part from rows with label 1. Here rows drawn from the reference give theirs too: at the point
itself where the reference is a point, at their theta of the pool where it is a mixture.

NRE (AALR, Hermans et al. 2020, arXiv:1903.04057) is CARL against the marginal reference, which is made in the batch, by
pairing every x with the theta of another row: all rows serve on both sides. Balanced NRE adds a part that makes it err
on the side of caution: `Balance`. With more than one other theta beside every x there is `contrastive`.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypedDict, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..core.loss import AbstractLoss
from ..core.progress import AbstractProgress
from ..core.simulations import Simulations
from ..core.simulator import AbstractSimulator
from ..core.solution import Key, Solution
from ..gold.reference import AbstractReference, MarginalReference
from .method import AbstractLearner, Budget, Card, Job, Theta, column, labelled, single, with_notes  # fmt: skip
from .nets.contrast import RatioEstimator, mean_ratio
from .nets.mlp import MLP

MOST_LOG_RATIO = 30.0  # beyond it squared errors of ratios would overflow
UNSURE = 0.1  # a mean ratio under the reference further than this from 1 gives a warning

# -- the parts -------------------------------------------------------------------------------------


class View(NamedTuple):
    """What a part of a loss sees: a network, a batch, and the network's log-ratios `(K, n)` of its rows."""

    net: "RatioEstimator"
    batch: Simulations
    log_ratio: jax.Array


class AbstractPart(eqx.Module):
    """A term of a loss."""

    @property
    @abc.abstractmethod
    def needs(self) -> tuple[str, ...]:
        """The columns of the simulations that it looks at."""

    @abc.abstractmethod
    def __call__(self, view: View) -> jax.Array:
        """The term `()`."""


class CrossEntropy(AbstractPart):
    """Of sigmoid(f) with the label."""

    needs: ClassVar[tuple[str, ...]] = ("label",)

    def __call__(self, view: View) -> jax.Array:
        return _cross_entropy(view.log_ratio, column(view.batch, "label"))


class AugmentedCrossEntropy(AbstractPart):
    """Of sigmoid(f) with the soft label r_xz / (1 + r_xz)."""

    needs: ClassVar[tuple[str, ...]] = ("label", "log_ratio")

    def __call__(self, view: View) -> jax.Array:
        return _cross_entropy(view.log_ratio, jax.nn.sigmoid(column(view.batch, "log_ratio")))


class RatioSquaredError(AbstractPart):
    """Of the ratio where x is from the reference, of its inverse where x is from the numerator."""

    needs: ClassVar[tuple[str, ...]] = ("label", "log_ratio")

    def __call__(self, view: View) -> jax.Array:
        sign = 1 - 2 * column(view.batch, "label")
        cut = lambda log_ratio: jnp.clip(log_ratio, -MOST_LOG_RATIO, MOST_LOG_RATIO)
        error = jnp.exp(sign * cut(view.log_ratio)) - jnp.exp(sign * cut(column(view.batch, "log_ratio")))
        return jnp.mean(jnp.square(error))


class ScoreSquaredError(AbstractPart):
    """alpha |grad f - t_xz|^2 / E|t_xz|^2, each parameter in its own units, mean over the parameters."""

    alpha: float = 1.0
    needs: ClassVar[tuple[str, ...]] = ("score",)

    def __check_init__(self):
        if isinstance(self.alpha, float | int) and self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}")

    def __call__(self, view: View) -> jax.Array:
        net, batch = view.net, view.batch
        other = batch.theta
        if batch.theta_reference is not None:  # the hypothesis that x was not drawn from
            other = jnp.where(column(batch, "label")[:, None] == 1, batch.theta_reference, batch.theta)
        gradient = gradient_of(lambda theta: net.contrast(theta, other, batch.x[:, 0]), batch.drawn_from)
        return self.alpha * score_squared_error(gradient, batch, net.scales.score)


class Balance(AbstractPart):
    """strength (E[sigmoid f | numerator] + E[sigmoid f | reference] - 1)^2, which is 0 at the truth.

    A classifier that keeps to it is no more confident than the best one (Delaunoy et al. 2022, arXiv:2208.13624).
    """

    strength: float = 100.0
    needs: ClassVar[tuple[str, ...]] = ("label",)

    def __call__(self, view: View) -> jax.Array:
        label, probability = column(view.batch, "label"), jax.nn.sigmoid(view.log_ratio)
        mean = lambda weight: jnp.sum(probability * weight, axis=1) / jnp.maximum(jnp.sum(weight), 1)
        return self.strength * jnp.mean(jnp.square(mean(label) + mean(1 - label) - 1))


def _cross_entropy(logit: jax.Array, label: jax.Array) -> jax.Array:
    return jnp.mean(jax.nn.softplus(logit) - label * logit)


def score_squared_error(gradient: jax.Array, batch: Simulations, scale: jax.Array) -> jax.Array:
    """Mean over rows, networks and parameters for a gradient `(K, n, dim)`; scale `(dim,)`."""
    return jnp.mean(jnp.square((gradient - column(batch, "score")) / scale))


def gradient_of(log_ratio: Callable[[jax.Array], jax.Array], theta: jax.Array) -> jax.Array:
    """The derivative `(K, n, dim)` of log_ratio `(n, dim)` -> `(K, n)`, each row in its own theta."""
    basis = jnp.eye(theta.shape[-1])
    along = lambda e: jax.jvp(log_ratio, (theta,), (jnp.broadcast_to(e, theta.shape),))[1]
    return jnp.stack([along(e) for e in basis], axis=-1)


# -- which theta stands beside which x -------------------------------------------------------------


class AbstractPairing(eqx.Module):
    """What is done with the rows of a batch before the parts see them."""

    @property
    @abc.abstractmethod
    def makes(self) -> tuple[str, ...]:
        """The columns that it can supply."""

    @abc.abstractmethod
    def __call__(self, key: Key, batch: Simulations) -> Simulations: ...


class AsDrawn(AbstractPairing):
    """Nothing: gold belongs to the rows as they are."""

    makes: ClassVar[tuple[str, ...]] = ()

    def __call__(self, key: Key, batch: Simulations) -> Simulations:
        return batch


class Repaired(AbstractPairing):
    """New numerators where x is from the reference, in every step: there theta and x are independent.

    Joint ratios belong to the old numerators and are dropped. Rows with references of their own stay as they are.
    """

    makes: ClassVar[tuple[str, ...]] = ()

    def __call__(self, key: Key, batch: Simulations) -> Simulations:
        if batch.theta_reference is not None:
            return batch
        label, theta = column(batch, "label")[:, None], jax.random.permutation(key, batch.theta)
        theta = jnp.where(label == 1, batch.theta, theta)
        return dataclasses.replace(batch, theta=theta, log_ratio=None, drawn_at=batch.drawn_from)


class JointAndMarginal(AbstractPairing):
    """Every x with the theta that it was drawn at, then every x with the theta of another row.

    Rows with labels that do not say where x was drawn are `Repaired`.
    """

    makes: ClassVar[tuple[str, ...]] = ("label",)

    def __call__(self, key: Key, batch: Simulations) -> Simulations:
        if batch.label is not None and batch.drawn_at is None:
            return Repaired()(key, batch)
        n, theta = len(batch), batch.drawn_from
        shift = jax.random.randint(key, (), 1, n)
        twice = lambda value: jnp.concatenate([value, value])
        return Simulations(
            jnp.concatenate([theta, jnp.roll(theta, shift, axis=0)]),
            twice(batch.x),
            batch.simulator,
            label=jnp.concatenate([jnp.ones(n), jnp.zeros(n)]),
            drawn_at=twice(theta),
        )


# -- the loss, and the method ----------------------------------------------------------------------


class RatioLoss(AbstractLoss):
    """The sum of the parts, over a batch of rows that the pairing has made.

    Fields
    ------
    parts: the terms.
    pairing: which theta stands beside which x.
    batch_size: rows in a step.
    """

    parts: tuple[AbstractPart, ...]
    pairing: AbstractPairing
    batch_size: int = eqx.field(static=True, default=128)

    def __check_init__(self):
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, got {self.batch_size}")

    def check(self, net: "RatioEstimator", batch: Any) -> None:
        sims = single("a loss of ratios", batch)
        for name in _needs(self.parts, self.pairing):
            column(sims, name)

    def __call__(self, net: "RatioEstimator", batch: Simulations, key: Key) -> jax.Array:
        batch = self.pairing(key, batch)
        other = batch.theta if batch.theta_reference is None else batch.theta_reference
        view = View(net, batch, net.contrast(batch.theta, other, batch.x[:, 0]))
        return jnp.sum(jnp.stack([part(view) for part in self.parts]))


def _needs(parts: tuple[AbstractPart, ...], pairing: AbstractPairing) -> tuple[str, ...]:
    """In the order in which people speak of them, whatever the parts."""
    wanted = {name for part in parts for name in part.needs} | {"label"}
    return tuple(name for name in ("label", "log_ratio", "score") if name in wanted - set(pairing.makes))


class RatioMethod(AbstractLearner):
    """Learns the likelihood ratio. `CARL`, `ALICES` and the others are named sums of parts.

    Fields
    ------
    card: its name and paper.
    parts, pairing, batch_size: see `RatioLoss`.
    reference: what the ratio is relative to.
    theta: numerators `(K, dim)`; draws from the prior if None.
    network: what the networks are like.
    form: see `RatioEstimator`.
    free: whether a factor that depends on x alone is left free, so that the ratio's mean says nothing.
    """

    card: Card = eqx.field(static=True)
    refinement: ClassVar[None] = None
    parts: tuple[AbstractPart, ...]
    pairing: AbstractPairing = AsDrawn()
    reference: AbstractReference = MarginalReference()
    theta: Theta | None = None
    network: MLP = MLP()
    form: str | None = eqx.field(static=True, default=None)
    batch_size: int = eqx.field(static=True, default=128)
    free: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if "label" in self.pairing.makes and not isinstance(self.reference, MarginalReference):
            raise ValueError(f"{self.name} is against the marginal; for another reference use carl")

    @property
    def needs(self) -> tuple[str, ...]:
        return _needs(self.parts, self.pairing)

    @property
    def loss(self) -> RatioLoss:
        return RatioLoss(parts=self.parts, pairing=self.pairing, batch_size=self.batch_size)

    def check(self, sims: Any) -> None:
        own = single(self.name, sims).reference
        if "label" in self.pairing.makes and not isinstance(own, MarginalReference | None):
            raise ValueError(f"{self.name} is against the marginal; these simulations have another reference: use carl")

    def gather(self, key: Key, simulator: AbstractSimulator, budget: Budget, progress: AbstractProgress) -> Simulations:
        return labelled(key, simulator, self.needs, budget.num_simulations, self.reference, self.theta, progress)

    def build(self, key: Key, sims: Simulations) -> "RatioEstimator":
        return RatioEstimator.for_simulations(sims, key=key, network=self.network, form=self.form)

    def finish(self, key: Key, trained: Solution[Any], job: Job) -> Solution[Any]:
        sims: Any = job.sims
        if self.free or sims.label is None or bool(np.all(np.asarray(sims.label) == 1)):
            return trained
        mean, error = mean_ratio(trained.value, sims)
        warnings = ()
        if abs(mean - 1) > UNSURE + 4 * error:
            warnings = (
                f"the estimated ratio has mean {mean:.2f} +- {error:.2f} under the reference, where a true one has 1: "
                "train longer, simulate more, or use a marginal reference",
            )
        return with_notes(trained, {"mean_ratio": mean, "mean_ratio_error": error}, warnings)


# -- the named methods -----------------------------------------------------------------------------

GOLD = "Brehmer et al. 2018, arXiv:1805.12244"
STOYE = "Stoye et al. 2018, arXiv:1808.00973"


class RatioOptions(TypedDict, total=False):
    """What every method of this page takes; see the fields of `RatioMethod`."""

    reference: AbstractReference
    theta: Theta | None
    network: MLP
    form: str | None
    batch_size: int


def CARL(**options: Unpack[RatioOptions]) -> RatioMethod:
    """Cross entropy of the label. Needs no gold."""
    return RatioMethod(Card("carl", "Cranmer et al. 2015, arXiv:1506.02169"), (CrossEntropy(),), Repaired(), **options)


def NRE(**options: Unpack[RatioOptions]) -> RatioMethod:
    """The likelihood-to-evidence ratio (AALR): cross entropy against the marginal. Needs no gold."""
    return RatioMethod(
        Card("nre", "Hermans et al. 2020, arXiv:1903.04057"), (CrossEntropy(),), JointAndMarginal(), **options
    )


def BalancedNRE(*, strength: float = 100.0, **options: Unpack[RatioOptions]) -> RatioMethod:
    """NRE that errs on the side of caution, by the part `Balance`. Needs no gold.

    Batches are of 2,048 by default: the squared mean of a small one carries its own variance, which flattens the ratio.
    """
    chosen: RatioOptions = {"batch_size": 2048, **options}
    card = Card("bnre", "Delaunoy et al. 2022, arXiv:2208.13624")
    return RatioMethod(card, (CrossEntropy(), Balance(strength)), JointAndMarginal(), **chosen)


def ROLR(**options: Unpack[RatioOptions]) -> RatioMethod:
    """Squared error of the ratio. Needs the joint ratio."""
    return RatioMethod(Card("rolr", GOLD), (RatioSquaredError(),), **options)


def CASCAL(*, alpha: float = 1.0, **options: Unpack[RatioOptions]) -> RatioMethod:
    """CARL with the score part. Needs the joint score."""
    return RatioMethod(Card("cascal", GOLD), (CrossEntropy(), ScoreSquaredError(alpha)), Repaired(), **options)


def RASCAL(*, alpha: float = 1.0, **options: Unpack[RatioOptions]) -> RatioMethod:
    """ROLR with the score part. Needs the joint ratio and score."""
    return RatioMethod(Card("rascal", GOLD), (RatioSquaredError(), ScoreSquaredError(alpha)), **options)


def ALICE(**options: Unpack[RatioOptions]) -> RatioMethod:
    """Augmented cross entropy. Needs the joint ratio."""
    return RatioMethod(Card("alice", STOYE), (AugmentedCrossEntropy(),), **options)


def ALICES(*, alpha: float = 1.0, **options: Unpack[RatioOptions]) -> RatioMethod:
    """ALICE with the score part. Needs the joint ratio and score."""
    return RatioMethod(Card("alices", STOYE), (AugmentedCrossEntropy(), ScoreSquaredError(alpha)), **options)
