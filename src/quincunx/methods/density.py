"""NLE and SCANDAL: the density p(x | theta) by a conditional flow.

A flow q(x | theta) minimises -log q(x | theta) over simulations at theta (neural likelihood estimation, NLE;
Papamakarios, Sterratt, Murray 2019, arXiv:1805.07226); SCANDAL adds alpha |grad_theta log q(x | theta) - t_xz|^2, the
score part (Brehmer, Cranmer, Louppe, Pavez 2018, arXiv:1805.12244). Its optimum is the true density; the likelihood
ratio is a difference of two log-densities, so no reference is needed.

Whole numbers have no density. When every x of the simulations is a whole number, uniform noise between -1/2 and 1/2 is
added in training, and the log-probability of a number is the log of the mean density over its unit cell.
"""

from typing import Any, ClassVar, TypedDict, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..answers.estimates import AbstractDensity
from ..core.loss import AbstractFrozen, AbstractLoss, Batch
from ..core.progress import AbstractProgress
from ..core.simulations import Simulations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key, Solution
from ..gold.mine import mine
from ..sample.simulate import simulate
from .method import AbstractLearner, Budget, Card, Job, Theta, column, points, require_origin, single
from .nets.contrast import rms_score
from .nets.densities.conditional import AbstractConditional
from .nets.densities.flows import Flow
from .nets.densities.mixture import Mixture
from .nets.inputs import ThetaInput
from .ratio import gradient_of, score_squared_error

CELL_POINTS = 16  # in a unit cell of whole numbers


class Standard(AbstractFrozen):
    """Mean and spread `(d,)` of the observations, and the root mean square `(dim,)` of the joint scores."""

    mean: jax.Array
    spread: jax.Array
    score: jax.Array


class DensityEstimator(AbstractDensity):
    """A conditional flow for p(x | theta). Made by `DensityEstimator.for_simulations`.

    Fields
    ------
    flow: the network.
    theta_input: how parameters enter it.
    standard: see `Standard`.
    simulator: what the simulations came from.
    event_shape: shape of one observation.
    whole: whether observations are whole numbers.
    """

    flow: AbstractConditional
    theta_input: ThetaInput
    standard: Standard
    simulator: AbstractSimulator = eqx.field(static=True)
    event_shape: tuple[int, ...] = eqx.field(static=True)
    whole: bool = eqx.field(static=True)

    @staticmethod
    def for_simulations(
        sims: Simulations, *, key: Key | None = None, network: Flow | Mixture = Flow()
    ) -> "DensityEstimator":
        """An untrained estimator, scaled to the simulations.

        Parameters
        ----------
        sims: what it will be trained on, of one observation per row.
        key: random key of the weights; a fixed one if None.
        network: what the flow is like, or the mixture of normals.
        """
        x = np.asarray(sims.x, np.float64).reshape(len(sims), -1)
        spread = np.std(x, axis=0)
        standard = Standard(
            jnp.asarray(np.mean(x, axis=0), jnp.float32),
            jnp.asarray(np.where(spread > 0, spread, 1.0), jnp.float32),
            rms_score(sims),
        )
        theta_input = ThetaInput.of(sims.prior, sims.drawn_from)
        key = jax.random.key(0) if key is None else key
        flow = network.make(key, x.shape[1], theta_input.num_features)
        whole = bool(np.all(x == np.round(x)))
        return DensityEstimator(
            flow=flow, theta_input=theta_input, standard=standard, simulator=sims.simulator,
            event_shape=sims.event_shape, whole=whole,
        )  # fmt: skip

    def log_ratio(self, theta: Array, x: Array) -> jax.Array:
        """log q(x | theta) `(n,)`: log p(x | theta) itself."""
        x = jnp.asarray(x)
        rows = jnp.broadcast_to(jnp.asarray(theta, jnp.float32), (len(x), self.prior.dim))
        if not self.whole:
            return self.log_density(rows, x)
        if len(self.standard.mean) > 1:  # a grid would grow too fast: the same low-discrepancy points for all cells
            offsets = jnp.asarray(_lattice(len(self.standard.mean)))
        else:
            offsets = ((jnp.arange(CELL_POINTS) + 0.5) / CELL_POINTS - 0.5)[:, None]
        inside = jax.vmap(lambda offset: self.log_density(rows, x + offset.reshape(self.event_shape)))(offsets)
        return jax.scipy.special.logsumexp(inside, axis=0) - jnp.log(len(offsets))

    def log_density(self, theta: jax.Array, x: jax.Array) -> jax.Array:
        """log q `(n,)`, row by row: theta `(n, dim)`, x `(n, *event)`."""
        found = self.members(theta, x)
        return jax.scipy.special.logsumexp(found, axis=0) - jnp.log(len(found))

    def members(self, theta: jax.Array, x: jax.Array) -> jax.Array:
        """As `log_density`, `(K, n)` by every flow of the ensemble."""
        y = (x.reshape(len(x), -1) - self.standard.mean) / self.standard.spread
        return self.flow.each(y, self.theta_input(theta)) - jnp.sum(jnp.log(self.standard.spread))


def _lattice(dim: int) -> np.ndarray:
    """64 points `(64, dim)` of a Korobov-like lattice in the cell [-1/2, 1/2)^dim."""
    roots = np.sqrt([2, 3, 5, 7, 11, 13, 17, 19, 23, 29])
    if dim > len(roots):
        raise ValueError(f"whole-number observations of more than {len(roots)} components are not supported, got {dim}")
    return (np.outer(np.arange(64) + 0.5, roots[:dim]) % 1 - 0.5).astype(np.float32)


class DensityLoss(AbstractLoss):
    """-log q + alpha * score part.

    Fields
    ------
    alpha: weight of the score part, in units of 1 / E|t|^2; None for no score part.
    batch_size: rows in a step.
    """

    alpha: float | None = eqx.field(static=True, default=None)
    batch_size: int = eqx.field(static=True, default=128)

    def __check_init__(self):
        if self.alpha is not None and self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def check(self, net: DensityEstimator, batch: Batch) -> None:
        sims = single("a density", batch)
        require_origin("a density", sims)
        if self.alpha is not None:
            column(sims, "score")

    def __call__(self, net: DensityEstimator, batch: Simulations, key: Key) -> jax.Array:
        x = batch.x[:, 0]
        if net.whole:
            x = x + jax.random.uniform(key, x.shape, minval=-0.5, maxval=0.5)
        if self.alpha is None:
            return -jnp.mean(net.members(batch.drawn_from, x))
        density = lambda theta: net.members(theta, x)
        error = score_squared_error(gradient_of(density, batch.drawn_from), batch, net.standard.score)
        return -jnp.mean(density(batch.drawn_from)) + self.alpha * error


class DensityMethod(AbstractLearner):
    """Learns the density of one observation. `NLE` and `SCANDAL` make it.

    Fields
    ------
    card: its name and paper.
    alpha: see `DensityLoss`.
    theta: where to simulate `(K, dim)`, in turn; draws from the prior if None.
    network: what the flow is like, or the mixture of normals.
    batch_size: rows in a step.
    """

    card: Card = eqx.field(static=True)
    refinement: ClassVar[None] = None
    alpha: float | None = eqx.field(static=True)
    theta: Theta | None = None
    network: Flow | Mixture = Flow()
    batch_size: int = eqx.field(static=True, default=128)

    @property
    def needs(self) -> tuple[str, ...]:
        return () if self.alpha is None else ("score",)

    @property
    def loss(self) -> DensityLoss:
        return DensityLoss(alpha=self.alpha, batch_size=self.batch_size)

    def check(self, sims: Batch) -> None:
        require_origin(self.name, single(self.name, sims))

    def gather(self, key: Key, simulator: AbstractSimulator, budget: Budget, progress: AbstractProgress) -> Simulations:
        at = None if self.theta is None else points(simulator.prior, self.theta)
        count = budget.num_simulations
        if self.needs:
            return mine(key, simulator, num_simulations=count, theta=at, reference=None, progress=progress)
        if at is None:
            return simulate(key, simulator, num_simulations=count, progress=progress)
        return simulate(key, simulator, theta=at[np.arange(count) % len(at)], progress=progress)

    def build(self, key: Key, sims: Simulations) -> DensityEstimator:
        return DensityEstimator.for_simulations(sims, key=key, network=self.network)

    def finish(self, key: Key, trained: Solution[Any], job: Job) -> Solution[Any]:
        return trained


class DensityOptions(TypedDict, total=False):
    """What both methods take; see the fields of `DensityMethod`."""

    theta: Theta | None
    network: Flow | Mixture
    batch_size: int


def NLE(**options: Unpack[DensityOptions]) -> DensityMethod:
    """Neural likelihood estimation: maximum likelihood of a conditional flow. Needs no gold."""
    return DensityMethod(Card("nle", "Papamakarios et al. 2019, arXiv:1805.07226"), None, **options)


def SCANDAL(*, alpha: float = 1.0, **options: Unpack[DensityOptions]) -> DensityMethod:
    """NLE with the score part. Needs the joint score."""
    return DensityMethod(Card("scandal", "Brehmer et al. 2018, arXiv:1805.12244"), alpha, **options)
