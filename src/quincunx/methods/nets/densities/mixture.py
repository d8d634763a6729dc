"""Mixture density networks: normals whose weights, means and covariances a network gives (Bishop 1994, NCRG/94/004).

    q(y | c) = sum_k w_k(c) N(y; m_k(c), (L_k(c)^T L_k(c))^-1),      L_k lower triangular, positive on its diagonal

They are smooth where splines have knots, and a draw takes one pass. What is not near to a few normals takes a flow.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ....answers.bayes.space import LOG_2PI
from ....core.solution import Key, rng_of
from ..mlp import MLP, Ensemble
from .conditional import AbstractConditional
from .elements import SMALLEST, UNIT


class Mixture(eqx.Module):
    """What a mixture density network is to be made like. It has no weights yet.

    Fields
    ------
    components: normals, each with a covariance of its own.
    widths: of the hidden layers of the network.
    members: networks in the ensemble, trained side by side; the estimate is their mean density.
    """

    components: int = eqx.field(static=True, default=8)
    widths: tuple[int, ...] = eqx.field(static=True, default=(128, 128, 128))
    members: int = eqx.field(static=True, default=1)
    has_density: ClassVar[bool] = True  # in training

    def __check_init__(self):
        if self.components < 1:
            raise ValueError(f"components must be at least 1, got {self.components}")
        MLP(self.widths, self.members)  # says what is wrong with these

    def make(self, key: Key, event_dim: int, condition_dim: int) -> "ConditionalMixture":
        """Untrained, for y of so many numbers under conditions of so many: normals of width 1 at draws of another."""
        net_key, centre_key = jax.random.split(key)
        num_out = self.components * (1 + event_dim + event_dim * (event_dim + 1) // 2)
        net = MLP(self.widths, self.members).make(net_key, condition_dim, num_out)
        centres = rng_of(centre_key).normal(size=(self.members, self.components, event_dim))
        return ConditionalMixture(net, jnp.asarray(centres, jnp.float32), event_dim)


class ConditionalMixture(AbstractConditional):
    """A mixture of normals for p(y | condition), y standardised; or several, of which it is the mean.

    Fields
    ------
    net: of the condition.
    centres: where the means begin `(members, components, event_dim)`; without them all normals would stay alike.
    event_dim: of y.
    """

    net: Ensemble
    centres: jax.Array
    event_dim: int = eqx.field(static=True)

    def each(self, y: jax.Array, condition: jax.Array) -> jax.Array:
        log_weight, mean, root = self._normals(condition)
        z = jnp.sum(root * (y[None, :, None] - mean)[..., None, :], axis=-1)
        slope = jnp.sum(jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1)), axis=-1)
        return jax.scipy.special.logsumexp(log_weight + slope - 0.5 * jnp.sum(z**2 + LOG_2PI, axis=-1), axis=-1)

    def sample(self, key: Key, condition: jax.Array, num_samples: int) -> jax.Array:
        pick_key, z_key = jax.random.split(key)
        log_weight, mean, root = (part[:, 0] for part in self._normals(condition[None]))
        picked = jax.random.categorical(pick_key, log_weight.reshape(-1), shape=(num_samples,))
        z = jax.random.normal(z_key, (num_samples, self.event_dim))
        inverse = jax.scipy.linalg.solve_triangular(
            root, jnp.broadcast_to(jnp.eye(self.event_dim), root.shape), lower=True
        )
        flat = lambda part: part.reshape(-1, *part.shape[2:])[picked]
        return flat(mean) + jnp.sum(flat(inverse) * z[:, None], axis=-1)

    def _normals(self, condition: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Log weights `(members, n, K)`, means `(..., d)` and the L `(..., d, d)`."""
        d, components = self.event_dim, self.centres.shape[1]
        raw = self.net(condition)
        raw = raw.reshape(*raw.shape[:2], components, -1)
        below = np.tril_indices(d, -1)
        diagonal = SMALLEST + jax.nn.softplus(raw[..., 1 + d : 1 + 2 * d] + UNIT)
        root = (diagonal[..., None] * jnp.eye(d)).at[..., *below].set(raw[..., 1 + 2 * d :])
        return jax.nn.log_softmax(raw[..., 0]), self.centres[:, None] + raw[..., 1 : 1 + d], root
