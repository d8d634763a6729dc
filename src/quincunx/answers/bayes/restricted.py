"""Where an answer is dense, and posteriors that are cut to such places."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.batches import bucket, put
from ...core.prior import Prior
from ...core.solution import Array, Key
from .posterior import AbstractPosterior

NUM_DRAWS = 4096  # of an answer, which say where it is dense
MOST_TRIES = 50


class Dense(eqx.Module):
    """The region of highest density of a posterior: log p(theta | x) >= least.

    Fields
    ------
    posterior: whose region it is.
    least: `()`.
    """

    posterior: AbstractPosterior
    least: jax.Array

    @staticmethod
    def of(key: Key, posterior: AbstractPosterior, left_out: float) -> "Dense":
        """The region that holds all but a share `left_out` of a posterior."""
        density = np.asarray(posterior.log_prob(posterior.sample(key, NUM_DRAWS)))
        return Dense(posterior, put(np.asarray(np.quantile(density, left_out), np.float32)))

    def depth(self, theta: Array) -> np.ndarray:
        """How far below the least density theta `(n, dim)` is, `(n,)`; not above 0 inside."""
        return float(self.least) - np.asarray(self.posterior.log_prob(theta), np.float64)

    def contains(self, theta: Array) -> np.ndarray:
        """Booleans `(n,)` for theta `(n, dim)`."""
        return self.depth(theta) <= 0


class RestrictedPosterior(AbstractPosterior):
    """A posterior inside regions, where what it was learnt from lies; it is 0 outside.

    Fields
    ------
    whole: the posterior.
    regions: which theta must lie in.
    share: of the whole that does, `()`.
    draws: theta `(n, dim)` that do, over which moments are taken.
    warnings: reasons not to trust it as it stands.
    """

    whole: AbstractPosterior
    regions: tuple[Dense, ...]
    share: jax.Array
    draws: jax.Array
    warnings: tuple[str, ...] = eqx.field(static=True, default=())

    @staticmethod
    def of(key: Key, whole: AbstractPosterior, regions: tuple[Dense, ...]) -> AbstractPosterior:
        """The posterior, cut to the regions; raises `ValueError` where nothing of it is inside them."""
        if not regions:
            return whole
        draws = np.asarray(whole.sample(key, NUM_DRAWS))
        inside = _inside(regions, draws)
        if not inside.any():
            raise ValueError(
                "nothing of an answer lies where the round before it found the last: the two contradict each other; "
                "simulate more in a round, or train for longer"
            )
        share = put(np.asarray(inside.mean(), np.float32))
        return RestrictedPosterior(whole, regions, share, put(draws[inside]), whole.warnings)

    @property
    def prior(self) -> Prior:
        return self.whole.prior

    @property
    def points(self) -> jax.Array:
        return self.draws

    def sample(self, key: Key, num_samples: int) -> jax.Array:
        parts, missing = [], num_samples
        for turn in range(MOST_TRIES):
            wanted = bucket(int(1.1 * num_samples / float(self.share)) + 16)
            draws = np.asarray(self.whole.sample(jax.random.fold_in(key, turn), wanted))
            parts.append(draws[_inside(self.regions, draws)][:missing])
            missing -= len(parts[-1])
            if not missing:
                break
        return put(np.concatenate(parts))

    def log_prob(self, theta: Array) -> jax.Array:
        theta = np.asarray(theta, np.float32)
        rows = theta.reshape(-1, theta.shape[-1])
        density = np.asarray(self.whole.log_prob(rows)) - np.log(np.asarray(self.share))
        return jnp.asarray(np.where(_inside(self.regions, rows), density, -np.inf).reshape(theta.shape[:-1]))


def _inside(regions: tuple[Dense, ...], theta: np.ndarray) -> np.ndarray:
    return np.all([region.contains(theta) for region in regions], axis=0)
