"""Networks of theta and x that stand for a log-ratio."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...answers.estimates import AbstractRatio
from ...core.batches import over_rows
from ...core.loss import AbstractFrozen
from ...core.simulations import Simulations
from ...core.simulator import AbstractSimulator
from ...core.solution import Array, Key
from ...gold.reference import AbstractReference, MarginalReference, PairReference, PointReference
from .inputs import ThetaInput
from .lens import Warp
from .mlp import MLP, Ensemble


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
    event_shape: shape of one observation.
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
    event_shape: tuple[int, ...] = eqx.field(static=True)
    form: str = eqx.field(static=True)

    @staticmethod
    def for_simulations(
        sims: Simulations,
        *,
        key: Key | None = None,
        network: MLP = MLP(),
        form: str | None = None,
    ) -> "RatioEstimator":
        """An untrained estimator, scaled to the simulations. It starts at log r = 0.

        Parameters
        ----------
        sims: what it will be trained on, of one observation per row.
        key: random key of the weights; a fixed one if None.
        network: what the networks are like.
        form: see the fields; by default "anchored" for a point reference, "antisymmetric" for pairs, else "plain".
        """
        reference = sims.reference or MarginalReference()
        if not isinstance(reference, AbstractReference):
            raise TypeError(f"reference: expected one made by `mine`, got {type(reference).__name__}")
        form = _form(reference, form)
        theta_input = ThetaInput.of(sims.prior, np.concatenate([np.asarray(sims.theta), np.asarray(sims.drawn_from)]))
        x_input = Warp.of(np.asarray(sims.x).reshape(len(sims), -1)[:100_000])
        double = isinstance(reference, PairReference)
        num_in = x_input.num_features + theta_input.num_features * (2 if double else 1)
        num_out = theta_input.num_features if form == "anchored" else 1
        ensemble = network.make(jax.random.key(0) if key is None else key, num_in, num_out)
        anchor = reference.theta if isinstance(reference, PointReference) else np.mean(np.asarray(sims.theta), axis=0)
        scales = Scales(rms_score(sims), jnp.asarray(anchor))
        return RatioEstimator(
            ensemble=ensemble, theta_input=theta_input, x_input=x_input, scales=scales, reference=reference,
            simulator=sims.simulator, event_shape=sims.event_shape, form=form,
        )  # fmt: skip

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


def mean_ratio(estimator: RatioEstimator, sims: Simulations) -> tuple[float, float]:
    """The mean of the estimated ratio over rows drawn from the reference, and its standard error. A true one has 1."""
    rows = np.flatnonzero(np.asarray(sims.label) == 0)[:20_000]
    other = sims.theta if sims.theta_reference is None else sims.theta_reference
    theta, other, x = (np.asarray(each)[rows] for each in (sims.theta, other, np.asarray(sims.x)[:, 0]))
    values = np.exp(over_rows(lambda *given: _mean_log_ratio(estimator, *given), theta, other, x).astype(np.float64))
    return float(np.mean(values)), float(np.std(values) / np.sqrt(max(len(values), 1)))


@eqx.filter_jit
def _mean_log_ratio(estimator: RatioEstimator, theta: jax.Array, other: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.mean(estimator.contrast(theta, other, x), axis=0)


def rms_score(sims: Simulations) -> jax.Array:
    """Root mean square `(dim,)` of the joint scores; ones without scores."""
    if sims.score is None:
        return jnp.ones(sims.prior.dim)
    score = np.asarray(sims.score, np.float64)
    return jnp.asarray(np.maximum(np.sqrt(np.mean(score**2, axis=0)), 1e-12), jnp.float32)
