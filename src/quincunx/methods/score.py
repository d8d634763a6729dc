"""SALLY and SALLINO: the score of x at one reference theta, and the likelihood ratio near it.

A network t(x) minimises |t(x) - t_xz|^2 over x drawn at theta_ref. Its optimum is the score of x, which near theta_ref
is a sufficient statistic: the best compression to one number per parameter (Brehmer, Cranmer, Louppe, Pavez 2018,
arXiv:1805.00013 and 1805.00020). A likelihood ratio comes from it in one of three ways:

- `local_ratio`: the exponential model p(x | theta) = p(x | theta_ref) exp(t(x) . (theta - theta_ref)) / Z(theta), whose
  Z is a mean over simulations at theta_ref. No more simulations, right only near theta_ref.
- SALLY: `HistogramRatio` with the score as its summary, filled with simulations at a grid of thetas.
- SALLINO: `ProjectedHistogramRatio`, the same in the one dimension t(x) . (theta - theta_ref).
"""

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
from .gold import column, require
from .nets.encoder import Warp
from .nets.mlp import Ensemble
from .ratio import NUM_MEMBERS, WIDTHS, rms_score

MOST_REFERENCE_SCORES = 20_000


class ScoreScales(AbstractFrozen):
    """Statistics `(dim,)`: the reference theta, and the root mean square of the joint scores there."""

    theta: jax.Array
    rms: jax.Array


class ScoreEstimator(eqx.Module):
    """An ensemble of networks x -> t(x), the score at theta_ref. Made by `ScoreEstimator.for_simulations`.

    Calling it on one observation `(*event)` gives `(dim,)`.

    Fields
    ------
    ensemble: the networks.
    x_input: how observations enter them.
    scales: see `ScoreScales`.
    simulator: what the simulations came from.
    event: shape of one observation.
    """

    ensemble: Ensemble
    x_input: Warp
    scales: ScoreScales
    simulator: AbstractSimulator = eqx.field(static=True)
    event: tuple[int, ...] = eqx.field(static=True)

    @staticmethod
    def for_simulations(
        sims: Simulations,
        *,
        key: Key | None = None,
        widths: tuple[int, ...] = WIDTHS,
        num_members: int = NUM_MEMBERS,
        activation: str = "silu",
    ) -> "ScoreEstimator":
        """An untrained estimator, scaled to simulations that were all drawn at one theta. It starts at score 0.

        Parameters
        ----------
        sims: what it will be trained on, with scores, of one observation per row.
        key: random key of the weights; a fixed one if None.
        widths, num_members, activation: see `RatioEstimator.for_simulations`.

        Raises
        ------
        ValueError: no scores, or simulations drawn at more than one theta.
        """
        require("sally", sims)
        source = np.asarray(sims.source)
        if np.any(source != source[0]):
            raise ValueError(
                "a score estimator is trained at one theta; mine with theta=theta_ref[None] and reference=None"
            )
        x_input = Warp.of(np.asarray(sims.x).reshape(len(sims), -1)[:100_000])
        key = jax.random.key(0) if key is None else key
        ensemble = Ensemble.make(key, num_members, x_input.num_features, widths, sims.prior.dim, activation)
        scales = ScoreScales(sims.source[0], rms_score(sims))
        return ScoreEstimator(ensemble, x_input, scales, sims.simulator, sims.event_shape)

    @property
    def theta_reference(self) -> jax.Array:
        """Where the score is taken, `(dim,)`."""
        return self.scales.theta

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.scores(x[None])[0]

    def scores(self, x: Array) -> jax.Array:
        """Scores `(n, dim)` of single observations x `(n, *event)`, in 1 / units of the parameters."""
        return jnp.mean(self.members(jnp.asarray(x)), axis=0)

    def members(self, x: jax.Array) -> jax.Array:
        """Scores `(K, n, dim)` by every network."""
        return self.ensemble(self.x_input(x.reshape(len(x), -1))) * self.scales.rms


class ScoreLoss(AbstractLoss):
    """|t(x) - t_xz|^2 / E|t_xz|^2. `SALLY()` makes it.

    Fields
    ------
    batch_size: rows in a step.
    """

    batch_size: int = eqx.field(static=True, default=128)

    def __check_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def check(self, net: ScoreEstimator, batch: Batch) -> None:
        """Raise `ValueError` when there are no scores."""
        require("sally", batch)

    def __call__(self, net: ScoreEstimator, batch: Simulations, key: Key) -> jax.Array:
        error = (net.members(batch.x[:, 0]) - column(batch, "score")) / net.scales.rms
        return jnp.mean(jnp.square(error))


def SALLY(*, batch_size: int = 128) -> ScoreLoss:
    """The loss of SALLY and of SALLINO. Needs the joint score."""
    return ScoreLoss(batch_size)


class LocalRatio(AbstractRatio):
    """The exponential model around theta_ref. Made by `local_ratio`.

    Fields
    ------
    estimator: of the score.
    reference_scores: estimated scores `(n, dim)` of simulations at theta_ref, for the normalisation.
    """

    estimator: ScoreEstimator
    reference_scores: jax.Array

    @property
    def simulator(self) -> AbstractSimulator:
        """What the simulations came from."""
        return self.estimator.simulator

    @property
    def prior(self) -> Prior:
        return self.simulator.prior

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.estimator.event

    def log_ratio(self, theta: Array, x: Array) -> jax.Array:
        step = jnp.asarray(theta) - self.estimator.theta_reference
        log_z = jax.scipy.special.logsumexp(self.reference_scores @ step) - jnp.log(len(self.reference_scores))
        return self.estimator.scores(x) @ step - log_z


def local_ratio(estimator: ScoreEstimator, sims: Simulations) -> LocalRatio:
    """The likelihood ratio of the local model, from a trained estimator and simulations at its theta_ref.

    Raises
    ------
    ValueError: simulations at another theta.
    """
    if np.any(np.asarray(sims.source) != np.asarray(estimator.theta_reference)):
        raise ValueError(
            "these simulations were not drawn at the estimator's reference theta; give those it learnt from"
        )
    return LocalRatio(estimator, estimator.scores(sims.x[:MOST_REFERENCE_SCORES, 0]))
