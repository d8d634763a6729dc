"""A posterior under another prior than the one it was learnt with.

    q'(theta | x) = q(theta | x) p'(theta) / p(theta), up to a factor

No network has to be trained again, and nothing simulated: draws are weighted by the ratio of the priors, and drawn
again in proportion. It is as good as the draws that still count are many; where the new prior is wider than the old
one, nothing is known beyond the old. With a proposal in the place of the old prior it is what SNPE-A does.
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.batches import put
from ...core.prior import Prior
from ...core.solution import Array, Key, rng_of
from .draws import systematic
from .importance import doubts, weighed
from .posterior import AbstractPosterior, picked

NUM_DRAWS = 20_000


class ReweightedPosterior(AbstractPosterior):
    """q(theta | x) p'(theta) / p(theta), p being what theta was drawn from where q was learnt. Made by `reweighted`.

    Fields
    ------
    whole: the posterior q.
    under: the prior p'.
    learnt_under: p, a prior, or a posterior that served as a proposal.
    draws: theta `(n, dim)`, which `sample` and the moments are taken from.
    log_evidence: log of the mean of p' / p over q, `()`: how much likelier the data are under p' than under p.
    diagnostics: `ess`, the number of draws that count, and `pareto_k`, see `importance_sampling`.
    warnings: reasons not to trust it as it stands.
    """

    whole: AbstractPosterior
    under: Prior = eqx.field(static=True)
    learnt_under: AbstractPosterior | None
    draws: jax.Array
    log_evidence: jax.Array
    diagnostics: Mapping[str, float]
    warnings: tuple[str, ...] = eqx.field(static=True, default=())

    @staticmethod
    def of(
        key: Key,
        whole: AbstractPosterior,
        under: Prior,
        learnt_under: AbstractPosterior | None,
        num_draws: int = NUM_DRAWS,
    ) -> "ReweightedPosterior":
        """By so many draws, of `whole`, or of the proposal, which is wider than what was learnt under it.

        Raises `ValueError` where none lies inside the new prior.
        """
        draw_key, pick_key = jax.random.split(key)
        source = learnt_under or whole
        theta = np.asarray(source.sample(draw_key, num_draws))
        log_w = np.asarray(_log_ratio(under, learnt_under or whole.prior, theta), np.float64)
        log_w += 0.0 if source is whole else np.asarray(whole.log_prob(theta) - source.log_prob(theta), np.float64)
        log_w = np.where(np.isnan(log_w), -np.inf, log_w)  # zero over zero
        if not np.isfinite(log_w).any():
            raise ValueError(
                f"no draw of the posterior lies inside {under}: the data contradict it, or it is the wrong one"
            )
        log_evidence, weight, ess, k = weighed(log_w)
        draws = put(theta[systematic(rng_of(pick_key), weight, num_draws)])
        told, evidence = {"ess": ess, "pareto_k": k}, put(np.asarray(log_evidence, np.float32))
        warnings = (*whole.warnings, *doubts(ess, k, num_draws))
        return ReweightedPosterior(whole, under, learnt_under, draws, evidence, told, warnings)

    @property
    def prior(self) -> Prior:
        return self.under

    @property
    def points(self) -> jax.Array:
        return self.draws

    def sample(self, key: Key, num_samples: int) -> jax.Array:
        return picked(key, self.draws, num_samples)

    def log_prob(self, theta: Array) -> jax.Array:
        ratio = _log_ratio(self.under, self.learnt_under or self.whole.prior, theta)
        whole = self.whole.log_prob(theta)
        nowhere = jnp.isneginf(ratio) | jnp.isneginf(whole)  # where the ratio may be one of zeros
        return jnp.where(nowhere, -jnp.inf, whole + ratio - self.log_evidence)


def _log_ratio(new: Prior, old: Prior | AbstractPosterior, theta: Array) -> jax.Array:
    """log p'(theta) - log p(theta) `(...)` at theta `(..., dim)`; -inf outside the new support."""
    theta = jnp.asarray(theta)
    inside = new.contains(theta)
    anywhere = jnp.asarray(new.sample(jax.random.key(0), 1)[0])
    within = jnp.where(inside[..., None], theta, anywhere)
    return jnp.where(inside, new.log_prob(within) - old.log_prob(theta), -jnp.inf)
