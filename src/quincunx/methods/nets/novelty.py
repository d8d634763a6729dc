"""Whether observed data look like anything that was simulated."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.batches import bucket, filled, put
from ...core.loss import AbstractFrozen
from ...core.simulations import Simulations
from ...core.solution import Array
from .lens import AbstractLens, Warp

NUM_SETS = 448
THRESHOLD = 2.0  # times the distance that 1 in 100 simulated sets has to its nearest neighbour


class Novelty(AbstractFrozen):
    """A bank of simulated sets, and the distance of observed data to the nearest of them.

    A set is described by the mean and the standard deviation of what is seen of its observations, standardised over
    the bank. The score is the distance to the nearest set of the bank, divided by the 99th percentile of that
    distance among the sets of the bank themselves: around or below 1 for data like the simulated.

    Fields
    ------
    theta: `(K, dim)`.
    x: `(K, m, *event)`.
    lens, warp: the encoder's.
    """

    theta: jax.Array
    x: jax.Array
    lens: AbstractLens
    warp: Warp

    @staticmethod
    def of(sims: Simulations, lens: AbstractLens, warp: Warp) -> "Novelty":
        most = min(len(sims), NUM_SETS)
        # A size that others share: with few sets, every number of them would be compiled anew.
        count = next(size for size in range(most, 0, -1) if bucket(size, 8) == size)
        theta, x = (put(np.asarray(each)[:count]) for each in (sims.theta, sims.x))
        return Novelty(theta, x, lens, warp)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.x.shape[2:]

    def warnings(self, x: jax.Array) -> tuple[str, ...]:
        """A warning when x `(m, *event)` is far from all simulated sets."""
        size = bucket(len(x))
        score = float(_score(self, filled(x, size), (np.arange(size) < len(x)).astype(np.float32)))
        if score <= THRESHOLD:
            return ()
        return (
            f"the observed data are far from anything simulated: their distance to the nearest simulated set is "
            f"{score:.1f} times what 99 in 100 simulated sets keep (a warning is given above {THRESHOLD:g}); "
            "the model may be wrong, or the data in other units",
        )

    def describe(self, x: Array, weight: Array) -> jax.Array:
        """Mean and standard deviation of the warped components, over the observations whose weight is 1."""
        features, share = self.warp(jax.vmap(self.lens)(jnp.asarray(x))), weight / jnp.sum(weight)
        mean = share @ features
        return jnp.concatenate([mean, jnp.sqrt(share @ jnp.square(features - mean))])


@eqx.filter_jit
def _score(novelty: Novelty, x: Array, weight: Array) -> jax.Array:
    """The score `()` of the observations in x `(m, *event)` whose weight `(m,)` is 1, not 0."""
    counted = (jnp.arange(novelty.x.shape[1]) < jnp.sum(weight)).astype(jnp.float32)
    bank = jax.vmap(lambda each: novelty.describe(each, counted))(novelty.x)
    spread = jnp.std(bank, axis=0) + 1e-6
    bank = bank / spread
    own = jnp.linalg.norm(bank[:, None] - bank[None], axis=-1) + jnp.where(jnp.eye(len(bank), dtype=bool), jnp.inf, 0)
    typical = jnp.quantile(jnp.min(own, axis=1), 0.99)
    return jnp.min(jnp.linalg.norm(bank - novelty.describe(x, weight) / spread, axis=-1)) / typical
