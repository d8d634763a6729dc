"""Estimators of the likelihood ratio: CARL, ROLR, CASCAL, ALICE, RASCAL, ALICES, and NRE.

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

NRE (AALR, Hermans et al. 2020, arXiv:1903.04057) is CARL against the marginal reference. From simulations without
labels the reference is made in the batch, by pairing every x with the theta of another row.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..answers.estimates import AbstractRatio
from ..core.loss import AbstractFrozen, AbstractLoss, Batch
from ..core.prior import Prior
from ..core.simulations import Simulations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key
from ..gold.reference import AbstractReference, MarginalReference, PairReference, PointReference
from .gold import column, require
from .nets.encoder import Warp
from .nets.inputs import ThetaInput
from .nets.mlp import Ensemble

WIDTHS = (100, 100, 100)
NUM_MEMBERS = 1
MOST_LOG_RATIO = 30.0  # beyond it squared errors of ratios would overflow
FORMS = ("plain", "anchored", "antisymmetric")


class Scales(AbstractFrozen):
    """Statistics of the simulations that losses and networks share.

    Fields
    ------
    score: root mean square `(dim,)` of the joint scores; ones without scores.
    anchor: the hypothesis `(dim,)` of a point reference; for other references the mean theta, which is only where
        `log_ratio` of a doubly parameterised estimator puts its denominator.
    """

    score: jax.Array
    anchor: jax.Array


class RatioEstimator(AbstractRatio):
    """An ensemble of networks for log r(x | theta). Made by `RatioEstimator.for_simulations`.

    Fields
    ------
    ensemble: the networks.
    theta_input, x_input: how parameters and observations enter them.
    scales: see `Scales`.
    reference: what the ratio is relative to.
    simulator: what the simulations came from.
    event: shape of one observation.
    form: "plain": f(theta, x). "anchored": (theta - theta_ref) . g(theta, x), which is zero at the point reference, as
        the truth is. "antisymmetric": f(theta, theta_ref, x) - f(theta_ref, theta, x), doubly parameterised;
        "plain" with a pair reference is f(theta, theta_ref, x).
    """

    ensemble: Ensemble
    theta_input: ThetaInput
    x_input: Warp
    scales: Scales
    reference: AbstractReference
    simulator: AbstractSimulator = eqx.field(static=True)
    event: tuple[int, ...] = eqx.field(static=True)
    form: str = eqx.field(static=True)

    @staticmethod
    def for_simulations(
        sims: Simulations,
        *,
        key: Key | None = None,
        widths: tuple[int, ...] = WIDTHS,
        num_members: int = NUM_MEMBERS,
        activation: str = "silu",
        form: str | None = None,
    ) -> "RatioEstimator":
        """An untrained estimator, scaled to the simulations. It starts at log r = 0.

        Parameters
        ----------
        sims: what it will be trained on, of one observation per row.
        key: random key of the weights; a fixed one if None.
        widths: of the hidden layers.
        num_members: networks in the ensemble; `log_ratio` is their mean.
        activation: "silu" or "tanh".
        form: see the fields; by default "anchored" for a point reference, "antisymmetric" for pairs, else "plain".
        """
        if sims.num_observations != 1:
            raise ValueError(
                f"ratios are of single observations; these simulations have {sims.num_observations} a row: "
                "simulate with num_observations=1 (log-ratios of a data set add up)"
            )
        reference = sims.reference or MarginalReference(2)
        if not isinstance(reference, AbstractReference):
            raise TypeError(f"reference: expected one made by `mine`, got {type(reference).__name__}")
        form = _form(reference, form)
        theta_input = ThetaInput.of(sims.prior, np.concatenate([sims.theta, sims.source]))
        x_input = Warp.of(np.asarray(sims.x).reshape(len(sims), -1)[:100_000])
        double = isinstance(reference, PairReference)
        num_in = x_input.num_features + theta_input.num_features * (2 if double else 1)
        num_out = theta_input.num_features if form == "anchored" else 1
        ensemble = Ensemble.make(
            jax.random.key(0) if key is None else key, num_members, num_in, widths, num_out, activation
        )
        anchor = reference.theta if isinstance(reference, PointReference) else jnp.mean(sims.theta, axis=0)
        scales = Scales(rms_score(sims), anchor)
        return RatioEstimator(ensemble, theta_input, x_input, scales, reference, sims.simulator, sims.event_shape, form)

    @property
    def prior(self) -> Prior:
        return self.simulator.prior

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.event

    @property
    def score_scale(self) -> jax.Array:
        """Root mean square `(dim,)` of the joint scores it is trained on."""
        return self.scales.score

    def log_ratio(self, theta: Array, x: Array) -> jax.Array:
        return jnp.mean(self.members(theta, x), axis=0)

    def log_ratio_between(self, theta: Array, theta_reference: Array, x: Array) -> jax.Array:
        """log p(x | theta) - log p(x | theta_reference) `(n,)`, for single observations x `(n, *event)`."""
        if not isinstance(self.reference, PairReference):
            return self.log_ratio(theta, x) - self.log_ratio(theta_reference, x)
        x = jnp.asarray(x)
        rows = lambda t: jnp.broadcast_to(jnp.asarray(t, jnp.float32), (len(x), self.prior.dim))
        return jnp.mean(self.contrast(rows(theta), rows(theta_reference), x), axis=0)

    def members(self, theta: Array, x: Array) -> jax.Array:
        """log r `(K, n)` by every network, at one theta `(dim,)`."""
        x = jnp.asarray(x)
        rows = jnp.broadcast_to(jnp.asarray(theta, jnp.float32), (len(x), self.prior.dim))
        return self.contrast(rows, jnp.broadcast_to(self.scales.anchor, rows.shape), x)

    def contrast(self, theta: jax.Array, theta_reference: jax.Array, x: jax.Array) -> jax.Array:
        """log r `(K, n)` by every network, row by row: theta `(n, dim)`, theta_reference `(n, dim)`, x `(n, *event)`.

        theta_reference matters to doubly parameterised estimators only.
        """
        features = self.x_input(x.reshape(len(x), -1))
        own = self.theta_input(theta)
        if not isinstance(self.reference, PairReference):
            values = self.ensemble(jnp.concatenate([own, features], axis=-1))
            if self.form == "plain":
                return values[..., 0]
            return jnp.sum((own - self.theta_input(self.scales.anchor)) * values, axis=-1)
        other = self.theta_input(theta_reference)
        there = self.ensemble(jnp.concatenate([own, other, features], axis=-1))[..., 0]
        if self.form == "plain":
            return there
        return there - self.ensemble(jnp.concatenate([other, own, features], axis=-1))[..., 0]


def _form(reference: AbstractReference, form: str | None) -> str:
    kind = type(reference)
    allowed = {PointReference: ("anchored", "plain"), PairReference: ("antisymmetric", "plain")}.get(kind, ("plain",))
    if form is None:
        return allowed[0]
    if form not in allowed:
        raise ValueError(f"form: with a {kind.__name__} expected one of {', '.join(allowed)}, got {form!r}")
    return form


def rms_score(sims: Simulations) -> jax.Array:
    """Root mean square `(dim,)` of the joint scores; ones without scores."""
    if sims.score is None:
        return jnp.ones(sims.prior.dim)
    return jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(sims.score), axis=0)), 1e-12)


# -- the parts -------------------------------------------------------------------------------------


def cross_entropy(log_ratio: jax.Array, sims: Simulations) -> jax.Array:
    """`(K, n)`: of sigmoid(log_ratio) with the label."""
    return _binary_cross_entropy(log_ratio, column(sims, "label"))


def augmented_cross_entropy(log_ratio: jax.Array, sims: Simulations) -> jax.Array:
    """`(K, n)`: of sigmoid(log_ratio) with the soft label r_xz / (1 + r_xz)."""
    return _binary_cross_entropy(log_ratio, jax.nn.sigmoid(column(sims, "log_ratio")))


def ratio_squared_error(log_ratio: jax.Array, sims: Simulations) -> jax.Array:
    """`(K, n)`: of the ratio where x is from the reference, of its inverse where x is from the numerator."""
    sign = 1 - 2 * column(sims, "label")
    joint = jnp.clip(column(sims, "log_ratio"), -MOST_LOG_RATIO, MOST_LOG_RATIO)
    clipped = jnp.clip(log_ratio, -MOST_LOG_RATIO, MOST_LOG_RATIO)
    return jnp.square(jnp.exp(sign * clipped) - jnp.exp(sign * joint))


def score_squared_error(gradient: jax.Array, sims: Simulations, scale: jax.Array) -> jax.Array:
    """`(K, n)`: |gradient - t_xz|^2 / E|t_xz|^2, each parameter in its own units, mean over the parameters."""
    return jnp.mean(jnp.square((gradient - column(sims, "score")) / scale), axis=-1)


def gradient_of(log_ratio: Callable[[jax.Array], jax.Array], theta: jax.Array) -> jax.Array:
    """The derivative `(K, n, dim)` of log_ratio `(n, dim)` -> `(K, n)`, each row in its own theta."""
    basis = jnp.eye(theta.shape[-1])
    along = lambda e: jax.jvp(log_ratio, (theta,), (jnp.broadcast_to(e, theta.shape),))[1]
    return jnp.stack([along(e) for e in basis], axis=-1)


def _binary_cross_entropy(logit: jax.Array, label: jax.Array) -> jax.Array:
    return jax.nn.softplus(logit) - label * logit


@runtime_checkable
class Contrasts(Protocol):
    """What a loss asks of a network: log-ratios row by row, see `RatioEstimator`."""

    reference: AbstractReference

    @property
    def score_scale(self) -> jax.Array: ...

    def contrast(self, theta: jax.Array, theta_reference: jax.Array, x: jax.Array) -> jax.Array: ...


# -- the losses ------------------------------------------------------------------------------------

ValuePart = Callable[[jax.Array, Simulations], jax.Array]


class RatioLoss(AbstractLoss):
    """value part + alpha * score part. `CARL()`, `ALICES()` and the others are named sums of these parts.

    Fields
    ------
    method: the name, for messages.
    value: `cross_entropy`, `augmented_cross_entropy` or `ratio_squared_error`.
    alpha: weight of the score part, in units of 1 / E|t|^2; 0 for none.
    batch_size: rows in a step.
    """

    method: str = eqx.field(static=True)
    value: ValuePart = eqx.field(static=True)
    alpha: float = eqx.field(static=True, default=0.0)
    batch_size: int = eqx.field(static=True, default=128)

    def __check_init__(self):
        if self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, got {self.batch_size}")

    def check(self, net: Contrasts, batch: Batch) -> None:
        """Raise `ValueError` when gold is missing (the columns, and the methods that would work, are named)."""
        require(self.method, batch)
        if isinstance(batch, Simulations) and self.method == "nre" and not isinstance(net.reference, MarginalReference):
            raise ValueError("nre is against the marginal; these simulations have another reference: use CARL()")

    def __call__(self, net: Contrasts, batch: Simulations, key: Key) -> jax.Array:
        if batch.label is None:
            batch = contrasted(key, batch)
        if self.value is cross_entropy and batch.theta_reference is None:
            batch = repaired(key, batch)
        x = batch.x[:, 0]
        other = batch.theta if batch.theta_reference is None else batch.theta_reference
        total = jnp.mean(self.value(net.contrast(batch.theta, other, x), batch))
        if self.alpha == 0:
            return total
        if batch.theta_reference is not None:  # the hypothesis that x was not drawn from
            other = jnp.where(column(batch, "label")[:, None] == 1, batch.theta_reference, batch.theta)
        gradient = gradient_of(lambda theta: net.contrast(theta, other, x), batch.source)
        return total + self.alpha * jnp.mean(score_squared_error(gradient, batch, net.score_scale))


def contrasted(key: Key, batch: Simulations) -> Simulations:
    """Unlabelled simulations against the marginal: every row, then every x with the theta of another row."""
    n = len(batch)
    shift = jax.random.randint(key, (), 1, n)
    theta = jnp.concatenate([batch.source, jnp.roll(batch.source, shift, axis=0)])
    twice = lambda value: jnp.concatenate([value, value])
    label = jnp.concatenate([jnp.ones(n), jnp.zeros(n)])
    score = None if batch.score is None else twice(batch.score)
    return Simulations(theta, twice(batch.x), batch.simulator, score=score, label=label, drawn_at=twice(batch.source))


def repaired(key: Key, batch: Simulations) -> Simulations:
    """The same rows, with new numerators where x is from the reference: there theta and x are independent."""
    theta = jax.random.permutation(key, batch.theta)
    return dataclasses.replace(
        batch,
        theta=jnp.where(column(batch, "label")[:, None] == 1, batch.theta, theta),
        log_ratio=None,
        drawn_at=batch.source,
    )


def CARL(*, batch_size: int = 128) -> RatioLoss:
    """Cross entropy of the label. Needs no gold."""
    return RatioLoss(method="carl", value=cross_entropy, batch_size=batch_size)


def NRE(*, batch_size: int = 128) -> RatioLoss:
    """The likelihood-to-evidence ratio (AALR): cross entropy against the marginal. Needs no gold."""
    return RatioLoss(method="nre", value=cross_entropy, batch_size=batch_size)


def ROLR(*, batch_size: int = 128) -> RatioLoss:
    """Squared error of the ratio. Needs the joint ratio."""
    return RatioLoss(method="rolr", value=ratio_squared_error, batch_size=batch_size)


def CASCAL(*, alpha: float = 1.0, batch_size: int = 128) -> RatioLoss:
    """CARL with the score part. Needs the joint score."""
    return RatioLoss(method="cascal", value=cross_entropy, alpha=alpha, batch_size=batch_size)


def RASCAL(*, alpha: float = 1.0, batch_size: int = 128) -> RatioLoss:
    """ROLR with the score part. Needs the joint ratio and score."""
    return RatioLoss(method="rascal", value=ratio_squared_error, alpha=alpha, batch_size=batch_size)


def ALICE(*, batch_size: int = 128) -> RatioLoss:
    """Augmented cross entropy. Needs the joint ratio."""
    return RatioLoss(method="alice", value=augmented_cross_entropy, batch_size=batch_size)


def ALICES(*, alpha: float = 1.0, batch_size: int = 128) -> RatioLoss:
    """ALICE with the score part. Needs the joint ratio and score."""
    return RatioLoss(method="alices", value=augmented_cross_entropy, alpha=alpha, batch_size=batch_size)
