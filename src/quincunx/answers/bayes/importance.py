"""Draws of one posterior, weighted so that they are draws of another: what a network says, put right by a likelihood.

    w = prior(theta) r(x | theta) / q(theta)         for theta ~ q, an approximate posterior

The mean of w is the evidence, and what is drawn again in proportion to w are draws of prior times likelihood, whatever
q was, so long as q is nowhere far too small (sampling-importance-resampling; Rubin 1988; of amortised posteriors Dax et
al. 2023, arXiv:2210.05686). Whether it is shows in the largest weights: the shape k of the Pareto law that they follow
(Vehtari et al. 2024, arXiv:1507.02646).
"""

import jax
import numpy as np
from scipy.special import logsumexp
from scipy.stats import genpareto

from ...core.batches import put
from ...core.names import options_checked
from ...core.simulations import as_observations
from ...core.solution import Array, Key, rng_of
from ..estimates import AbstractRatio
from .draws import systematic
from .posterior import AbstractPosterior
from .product import LikelihoodPosterior, log_likelihood, padded
from .space import Space

FEWEST = 100  # effective draws
MOST_K = 0.7  # of Pareto's shape: beyond it weights are not to be trusted (Vehtari et al.)


@options_checked()
def importance_sampling(
    key: Key, posterior: AbstractPosterior, estimator: AbstractRatio, x: Array, *, num_draws: int = 20_000
) -> LikelihoodPosterior:
    """The posterior by an estimator of a ratio or of the likelihood, from draws of another posterior.

    Parameters
    ----------
    key: random key.
    posterior: where to look, such as that of NPE; it must not be far too narrow.
    estimator: of the ratio or the likelihood; `ExactRatio(simulator)` for an exact one.
    x: observations `(m, *event)`, those that the posterior was made for.
    num_draws: of the posterior, which are weighted.

    Returns
    -------
    A posterior with as many draws, its evidence, and `diagnostics`: `ess`, the number of draws that count, and
    `pareto_k`, the shape of the law of the largest weights. A warning says when they are not to be trusted.

    Raises
    ------
    ValueError: observations of the wrong shape or with NaN, another prior, or no draw that can have made x.
    """
    x = as_observations(x, estimator.event_shape, f"the simulator {estimator.simulator.name!r}")
    prior = estimator.prior
    if not prior.same_law(posterior.prior):
        raise ValueError(f"the posterior is under {posterior.prior}, the estimator under {prior}; they must agree")
    draw_key, pick_key = jax.random.split(key)
    theta = posterior.sample(draw_key, num_draws)
    space = Space.of(prior, theta)
    u, inside = space.inside(theta)
    found = log_likelihood(estimator, space, *padded(x), u)
    log_w = np.asarray(prior.log_prob(theta) + found - posterior.log_prob(theta), np.float64)
    log_w = np.where(np.asarray(inside) & ~np.isnan(log_w), log_w, -np.inf)
    if not np.isfinite(log_w).any():
        raise ValueError("no draw of this posterior can have made x: the estimator says so of all; is it the same x?")
    log_evidence, weight, ess, k = weighed(log_w)
    draws = np.asarray(theta)[systematic(rng_of(pick_key), weight, num_draws)]
    told = {"ess": ess, "pareto_k": k}
    evidence = put(np.asarray(log_evidence, np.float32))
    return LikelihoodPosterior(space, estimator, x, put(draws), evidence, told, doubts(ess, k, num_draws))


def weighed(log_w: np.ndarray) -> tuple[float, np.ndarray, float, float]:
    """Of log-weights `(n,)`, some finite: the log of their mean, the weights up to a factor, how many count, and k."""
    log_w = np.asarray(log_w, np.float64)
    weight = np.exp(log_w - log_w.max())
    mean = float(logsumexp(log_w) - np.log(len(log_w)))
    return mean, weight, float(weight.sum() ** 2 / (weight**2).sum()), pareto_k(weight)


def pareto_k(weight: np.ndarray) -> float:
    """The shape of the generalised Pareto law of the largest weights `(n,)`; the smaller, the better."""
    count = int(min(0.2 * len(weight), 3 * np.sqrt(len(weight))))
    largest = np.sort(weight)[-count - 1 :]
    beyond = largest[1:] - largest[0]
    if count < 5 or beyond[-1] <= 1e-9 * largest[-1]:
        return -np.inf  # they are all alike
    return float(genpareto.fit(beyond / beyond.mean(), floc=0)[0])


def doubts(ess: float, k: float, num_draws: int) -> tuple[str, ...]:
    """What speaks against weighted draws of which so many count."""
    found = []
    if k > MOST_K:
        found.append(
            f"a few weights rule: Pareto's k is {k:.2f} (a warning is given above {MOST_K:g}); the posterior that was "
            "drawn from is too narrow somewhere, give more num_draws, or a wider one"
        )
    if ess < FEWEST:
        found.append(f"only {ess:.0f} of {num_draws} draws count; give more num_draws, or a better posterior")
    return tuple(found)
