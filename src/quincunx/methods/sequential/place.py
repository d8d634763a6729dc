"""Where to simulate next: the prior, the prior cut to where answers are dense, or the last answer."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from ...answers.bayes.box import Box
from ...answers.bayes.posterior import AbstractPosterior
from ...answers.bayes.restricted import Dense
from ...core.batches import filled, put
from ...core.simulations import Simulations
from ...core.solution import Array, Key, rng_of
from ..local import particles

NUM_PARTICLES = 2048  # at least, that follow a region as it narrows
LEFT_OUT = 1e-3  # of an answer, beyond where it is taken to be dense


@dataclasses.dataclass(frozen=True)
class Place:
    """Where theta may still be.

    Fields
    ------
    box: coordinates z of the prior.
    last: the answer that theta is drawn from; None for the prior.
    regions: which theta must lie in; there z are draws of the prior `(n, d)`.
    """

    box: Box
    last: AbstractPosterior | None = None
    regions: tuple[Dense, ...] = ()
    z: np.ndarray | None = None

    def sample(self, key: Key, count: int) -> np.ndarray:
        """theta `(count, dim)`."""
        if self.last is not None:
            return np.asarray(self.last.sample(key, count))
        if self.z is None:
            return np.asarray(self.box.prior.sample(key, count))
        picked = rng_of(key).permutation(len(self.z))[:count]
        return np.asarray(self.box.decode(self.z[picked]), np.float32)

    def log_prob(self, theta: Array) -> np.ndarray:
        """Log density `(n,)` at theta `(n, dim)`, of the prior or of the last answer."""
        law = self.box.prior if self.last is None else self.last
        return np.asarray(law.log_prob(theta), np.float64)

    def narrowed(self, key: Key, answer: AbstractPosterior, count: int) -> "Place":
        """Where that answer is dense too, with at least `count` draws of the prior."""
        region_key, prior_key, walk_key = jax.random.split(key, 3)
        region, count = Dense.of(region_key, answer, LEFT_OUT), max(count, NUM_PARTICLES)
        z = self.box.encode(self.box.prior.sample(prior_key, count)) if self.z is None else self.z
        depth = lambda z: region.depth(np.asarray(self.box.decode(filled(z, count)), np.float32))[: len(z)]
        z, _ = particles.cut(rng_of(walk_key), z, self._log_prior, depth, 0.0, np.zeros(self.box.dim))
        return dataclasses.replace(self, regions=(*self.regions, region), z=z)

    def _log_prior(self, z: np.ndarray) -> np.ndarray:
        value = self.box.log_prior(z)
        theta = np.asarray(self.box.decode(z), np.float32)
        for region in self.regions:
            value = np.where(region.contains(theta), value, -np.inf)
        return value


def kept(rounds: Sequence[Simulations], regions: Sequence[Dense] = ()) -> Simulations:
    """The simulations of all rounds that lie in the regions."""
    theta, x = (np.concatenate([np.asarray(getattr(each, name)) for each in rounds]) for name in ("theta", "x"))
    inside = np.ones(len(theta), bool)
    for region in regions:
        inside &= region.contains(theta)
    return Simulations(put(theta[inside]), put(x[inside]), rounds[0].simulator)


def weighted(sims: Simulations, places: Sequence[Place]) -> Simulations:
    """Simulations from several places, as many from each, with weights that make draws of the prior of them.

    Each weighs p(theta) over the mean density of all places: no more than their number, where one is the prior.
    """
    theta = sims.theta
    mixture = np.logaddexp.reduce([place.log_prob(theta) for place in places]) - np.log(len(places))
    weight = np.exp(np.asarray(sims.prior.log_prob(theta), np.float64) - mixture)
    return dataclasses.replace(sims, weight=put(weight.astype(np.float32)))
