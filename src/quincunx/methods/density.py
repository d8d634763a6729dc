"""NDE and SCANDAL: the density p(x | theta) by a conditional flow.

A flow q(x | theta) minimises -log q(x | theta) over simulations at theta (neural density estimation, NDE); SCANDAL adds
alpha |grad_theta log q(x | theta) - t_xz|^2, the score part (Brehmer, Cranmer, Louppe, Pavez 2018, arXiv:1805.12244).
Its optimum is the true density; the likelihood ratio is a difference of two log-densities, so no reference is needed.

Whole numbers have no density. When every x of the simulations is a whole number, uniform noise between -1/2 and 1/2 is
added in training, and the log-probability of a number is the log of the mean density over its unit cell.
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
from .gold import require
from .nets.flows import Flow
from .nets.inputs import ThetaInput
from .ratio import gradient_of, rms_score, score_squared_error

CELL_POINTS = 16  # in a unit cell of whole numbers


class Standard(AbstractFrozen):
    """Mean and spread `(d,)` of the observations, and the root mean square `(dim,)` of the joint scores."""

    mean: jax.Array
    spread: jax.Array
    score: jax.Array


class DensityEstimator(AbstractRatio):
    """A conditional flow for p(x | theta). Made by `DensityEstimator.for_simulations`.

    Fields
    ------
    flow: the network.
    theta_input: how parameters enter it.
    standard: see `Standard`.
    simulator: what the simulations came from.
    event: shape of one observation.
    whole: whether observations are whole numbers.
    """

    flow: Flow
    theta_input: ThetaInput
    standard: Standard
    simulator: AbstractSimulator = eqx.field(static=True)
    event: tuple[int, ...] = eqx.field(static=True)
    whole: bool = eqx.field(static=True)

    @staticmethod
    def for_simulations(
        sims: Simulations, *, key: Key | None = None, layers: int = 2, width: int = 50, knots: int = 8
    ) -> "DensityEstimator":
        """An untrained estimator, scaled to the simulations.

        Parameters
        ----------
        sims: what it will be trained on, of one observation per row.
        key: random key of the weights; a fixed one if None.
        layers, width, knots: of the flow, see `Flow.make`.
        """
        require("nde", sims)
        x = np.asarray(sims.x, np.float64).reshape(len(sims), -1)
        spread = np.std(x, axis=0)
        standard = Standard(
            jnp.asarray(np.mean(x, axis=0), jnp.float32),
            jnp.asarray(np.where(spread > 0, spread, 1.0), jnp.float32),
            rms_score(sims),
        )
        theta_input = ThetaInput.of(sims.prior, sims.source)
        key = jax.random.key(0) if key is None else key
        flow = Flow.make(key, x.shape[1], theta_input.num_features, layers=layers, width=width, knots=knots)
        whole = bool(np.all(x == np.round(x)))
        return DensityEstimator(flow, theta_input, standard, sims.simulator, sims.event_shape, whole)

    @property
    def prior(self) -> Prior:
        return self.simulator.prior

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.event

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
        inside = jax.vmap(lambda offset: self.log_density(rows, x + offset.reshape(self.event)))(offsets)
        return jax.scipy.special.logsumexp(inside, axis=0) - jnp.log(len(offsets))

    def log_density(self, theta: jax.Array, x: jax.Array) -> jax.Array:
        """log q `(n,)`, row by row: theta `(n, dim)`, x `(n, *event)`."""
        y = (x.reshape(len(x), -1) - self.standard.mean) / self.standard.spread
        return self.flow.log_prob(y, self.theta_input(theta)) - jnp.sum(jnp.log(self.standard.spread))


def _lattice(dim: int) -> np.ndarray:
    """64 points `(64, dim)` of a Korobov-like lattice in the cell [-1/2, 1/2)^dim."""
    roots = np.sqrt([2, 3, 5, 7, 11, 13, 17, 19, 23, 29])
    if dim > len(roots):
        raise ValueError(f"whole-number observations of more than {len(roots)} components are not supported, got {dim}")
    return (np.outer(np.arange(64) + 0.5, roots[:dim]) % 1 - 0.5).astype(np.float32)


class DensityLoss(AbstractLoss):
    """-log q + alpha * score part. `NDE()` and `SCANDAL()` make it.

    Fields
    ------
    method: the name, for messages.
    alpha: weight of the score part, in units of 1 / E|t|^2; 0 for none.
    batch_size: rows in a step.
    """

    method: str = eqx.field(static=True)
    alpha: float = eqx.field(static=True, default=0.0)
    batch_size: int = eqx.field(static=True, default=128)

    def __check_init__(self):
        if self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def check(self, net: DensityEstimator, batch: Batch) -> None:
        """Raise `ValueError` when gold is missing."""
        require(self.method, batch)

    def __call__(self, net: DensityEstimator, batch: Simulations, key: Key) -> jax.Array:
        x = batch.x[:, 0]
        if net.whole:
            x = x + jax.random.uniform(key, x.shape, minval=-0.5, maxval=0.5)
        if self.alpha == 0 or batch.score is None:
            return -jnp.mean(net.log_density(batch.source, x))
        density = lambda theta: net.log_density(theta, x)[None]
        error = score_squared_error(gradient_of(density, batch.source), batch, net.standard.score)
        return -jnp.mean(density(batch.source)) + self.alpha * jnp.mean(error)


def NDE(*, batch_size: int = 128) -> DensityLoss:
    """Maximum likelihood of a conditional flow. Needs no gold."""
    return DensityLoss(method="nde", batch_size=batch_size)


def SCANDAL(*, alpha: float = 1.0, batch_size: int = 128) -> DensityLoss:
    """NDE with the score part. Needs the joint score."""
    return DensityLoss(method="scandal", alpha=alpha, batch_size=batch_size)
