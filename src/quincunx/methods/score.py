"""SALLY and SALLINO: the score of x at one reference theta, and the likelihood ratio near it.

A network t(x) minimises |t(x) - t_xz|^2 over x drawn at theta_ref. Its optimum is the score of x, which near theta_ref
is a sufficient statistic: the best compression to one number per parameter (Brehmer, Cranmer, Louppe, Pavez 2018,
arXiv:1805.00013 and 1805.00020). A likelihood ratio comes from it in one of three ways:

- `local_ratio`: the exponential model p(x | theta) = p(x | theta_ref) exp(t(x) . (theta - theta_ref)) / Z(theta), whose
  Z is a mean over simulations at theta_ref. No more simulations, right only near theta_ref.
- SALLY: `HistogramRatio` with the score as its summary, filled with simulations at a grid of thetas.
- SALLINO: `ProjectedHistogramRatio`, the same in the one dimension t(x) . (theta - theta_ref).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, TypedDict, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..answers.estimates import AbstractEstimator, AbstractRatio
from ..core.loss import AbstractFrozen, AbstractLoss, Batch
from ..core.prior import Prior
from ..core.progress import AbstractProgress
from ..core.simulations import Simulations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key, Solution
from ..gold.mine import mine
from .histogram import HistogramRatio, ProjectedHistogramRatio, grid_of, on_grid
from .method import (
    AbstractLearner,
    Budget,
    Card,
    Job,
    Theta,
    column,
    failure_warnings,
    points,
    single,
    with_notes,
)
from .nets.contrast import rms_score
from .nets.lens import Warp
from .nets.mlp import MLP, Ensemble

MOST_REFERENCE_SCORES = 20_000
PAPER = "Brehmer et al. 2018, arXiv:1805.00020"


class ScoreScales(AbstractFrozen):
    """Statistics `(dim,)`: the reference theta, and the root mean square of the joint scores there."""

    theta: jax.Array
    rms: jax.Array


class ScoreEstimator(AbstractEstimator):
    """An ensemble of networks x -> t(x), the score at theta_ref. Made by `ScoreEstimator.for_simulations`.

    Calling it on one observation `(*event)` gives `(dim,)`.

    Fields
    ------
    ensemble: the networks.
    x_input: how observations enter them.
    scales: see `ScoreScales`.
    simulator: what the simulations came from.
    event_shape: shape of one observation.
    """

    ensemble: Ensemble
    x_input: Warp
    scales: ScoreScales
    simulator: AbstractSimulator = eqx.field(static=True)
    event_shape: tuple[int, ...] = eqx.field(static=True)

    @staticmethod
    def for_simulations(sims: Simulations, *, key: Key | None = None, network: MLP = MLP()) -> "ScoreEstimator":
        """An untrained estimator, scaled to simulations that were all drawn at one theta. It starts at score 0.

        Parameters
        ----------
        sims: what it will be trained on, with scores, of one observation per row.
        key: random key of the weights; a fixed one if None.
        network: what the networks are like.

        Raises
        ------
        ValueError: no scores, or simulations drawn at more than one theta.
        """
        column(sims, "score")
        theta = np.asarray(sims.drawn_from)
        if np.any(theta != theta[0]):
            raise ValueError(
                "a score estimator is trained at one theta; mine with theta=theta_ref[None] and reference=None"
            )
        x_input = Warp.of(np.asarray(sims.x).reshape(len(sims), -1)[:100_000])
        key = jax.random.key(0) if key is None else key
        ensemble = network.make(key, x_input.num_features, sims.prior.dim)
        scales = ScoreScales(jnp.asarray(theta[0]), rms_score(sims))
        return ScoreEstimator(
            ensemble=ensemble, x_input=x_input, scales=scales, simulator=sims.simulator, event_shape=sims.event_shape
        )

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
    """|t(x) - t_xz|^2 / E|t_xz|^2, the loss of SALLY and of SALLINO.

    Fields
    ------
    batch_size: rows in a step.
    """

    batch_size: int = eqx.field(static=True, default=128)

    def __check_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def check(self, net: ScoreEstimator, batch: Batch) -> None:
        column(single("a score", batch), "score")

    def __call__(self, net: ScoreEstimator, batch: Simulations, key: Key) -> jax.Array:
        error = (net.members(batch.x[:, 0]) - column(batch, "score")) / net.scales.rms
        return jnp.mean(jnp.square(error))


class LocalRatio(AbstractRatio):
    """The exponential model around theta_ref. Made by `local_ratio`.

    Fields
    ------
    estimator: of the score.
    reference_scores: estimated scores `(n, dim)` of simulations at theta_ref, for the normalisation.
    """

    estimator: ScoreEstimator
    reference_scores: jax.Array
    simulator: AbstractSimulator = eqx.field(static=True)
    event_shape: tuple[int, ...] = eqx.field(static=True)

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
    if np.any(np.asarray(sims.drawn_from) != np.asarray(estimator.theta_reference)):
        raise ValueError(
            "these simulations were not drawn at the estimator's reference theta; give those it learnt from"
        )
    scores = estimator.scores(sims.x[:MOST_REFERENCE_SCORES, 0])
    return LocalRatio(
        estimator=estimator,
        reference_scores=scores,
        simulator=estimator.simulator,
        event_shape=estimator.event_shape,
    )


class ScoreMethod(AbstractLearner):
    """Learns the score at one theta, then fills histograms of it at a grid of thetas. `SALLY` and `SALLINO` make it.

    Half of the budget goes to the score, half to the histograms. Where nothing more can be simulated, or histograms
    would be too sparse, the answer is the local model (`local_ratio`) and all goes to the score.

    Fields
    ------
    card: its name and paper.
    fill: makes histograms of simulations on the grid, given the score and its theta.
    most_parameters: with more, histograms would be too sparse; None for no end.
    theta_reference: where the score is taken: `(dim,)`, or values by name; the prior's mean if None.
    theta: the grid `(K, dim)`; a regular one over the prior for 1 or 2 parameters if None.
    network: what the networks are like.
    batch_size: rows in a step.
    """

    card: Card = eqx.field(static=True)
    fill: Callable[[Simulations, ScoreEstimator], AbstractRatio] = eqx.field(static=True)
    most_parameters: int | None = eqx.field(static=True)
    theta_reference: Theta | None = None
    theta: Theta | None = None
    network: MLP = MLP()
    batch_size: int = eqx.field(static=True, default=128)
    needs: ClassVar[tuple[str, ...]] = ("score",)
    refinement: ClassVar[None] = None

    @property
    def loss(self) -> ScoreLoss:
        return ScoreLoss(self.batch_size)

    def check(self, sims: Batch) -> None:
        single(self.name, sims)

    def gather(self, key: Key, simulator: AbstractSimulator, budget: Budget, progress: AbstractProgress) -> Simulations:
        prior = simulator.prior
        fills = self._fills(prior)
        if fills:
            grid_of(prior, self.theta, self.name)  # refused now, not after the training
        share = budget.num_simulations // 2 if fills else budget.num_simulations
        at = _centre(prior) if self.theta_reference is None else self.theta_reference
        where = points(prior, at)
        return mine(key, simulator, num_simulations=max(2, share), theta=where, reference=None, progress=progress)

    def build(self, key: Key, sims: Simulations) -> ScoreEstimator:
        return ScoreEstimator.for_simulations(sims, key=key, network=self.network)

    def finish(self, key: Key, trained: Solution[Any], job: Job) -> Solution[Any]:
        sims: Any = job.sims
        if job.simulator is None or not self._fills(sims.prior):
            return dataclasses.replace(trained, value=local_ratio(trained.value, sims))
        filled = on_grid(key, job.simulator, self.theta, self.name, job.budget.num_simulations // 2, job.progress)
        calls = trained.statistics["num_simulator_calls"] + filled.num_simulator_calls
        value = self.fill(filled, trained.value)
        return with_notes(trained, {"num_simulator_calls": calls}, failure_warnings(filled), value=value)

    def _fills(self, prior: Prior) -> bool:
        return self.most_parameters is None or prior.dim <= self.most_parameters


class ScoreOptions(TypedDict, total=False):
    """What both methods take; see the fields of `ScoreMethod`."""

    theta_reference: Theta | None
    theta: Theta | None
    network: MLP
    batch_size: int


def SALLY(**options: Unpack[ScoreOptions]) -> ScoreMethod:
    """Histograms of the score, in one or two dimensions. Needs the joint score."""
    return ScoreMethod(Card("sally", PAPER), _whole, 2, **options)


def SALLINO(**options: Unpack[ScoreOptions]) -> ScoreMethod:
    """Histograms of the score's component along theta - theta_ref, in one dimension. Needs the joint score."""
    return ScoreMethod(Card("sallino", PAPER), _projected, None, **options)


def _whole(sims: Simulations, score: ScoreEstimator) -> HistogramRatio:
    return HistogramRatio.for_simulations(sims, summary=score)


def _projected(sims: Simulations, score: ScoreEstimator) -> ProjectedHistogramRatio:
    at = score.theta_reference
    return ProjectedHistogramRatio.for_simulations(sims, summary=score, theta_reference=at)


def _centre(prior: Prior) -> np.ndarray:
    return np.mean(np.asarray(prior.sample(jax.random.key(0), 10_000)), axis=0)
