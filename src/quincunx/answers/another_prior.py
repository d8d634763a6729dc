"""A posterior asked again under another prior, with nothing simulated or trained anew."""

import dataclasses

import jax
import numpy as np

from ..core.names import options_checked
from ..core.prior import Prior
from ..core.solution import Key
from .bayes.posterior import AbstractPosterior, not_a_posterior
from .bayes.reweighted import NUM_DRAWS, ReweightedPosterior

MOST_OUTSIDE = 0.01  # of the new prior, where the old one is zero


@options_checked()
def reweighted(
    key: Key, posterior: AbstractPosterior, prior: Prior, *, num_draws: int = NUM_DRAWS
) -> ReweightedPosterior:
    """The posterior under another prior.

    Parameters
    ----------
    key: random key.
    posterior: of any method.
    prior: of the same parameters, in the same order.
    num_draws: of the posterior, which are weighted by the ratio of the priors.

    Returns
    -------
    A posterior with as many draws. A warning says when too few of them count, and when the new prior reaches beyond the
    old one, where nothing was learnt.

    Raises
    ------
    TypeError: no posterior, or no prior.
    ValueError: other parameters, or no draw inside the new prior.
    """
    if not isinstance(posterior, AbstractPosterior):
        raise not_a_posterior(posterior)
    if not isinstance(prior, Prior):
        raise TypeError(f"prior: expected one such as qx.Prior(...), got {type(prior).__name__}")
    if prior.columns != posterior.prior.columns:
        raise ValueError(
            f"the posterior is of {', '.join(posterior.prior.columns)}, the prior of {', '.join(prior.columns)}: give "
            "a prior of the same parameters in the same order"
        )
    key, prior_key = jax.random.split(key)
    found = ReweightedPosterior.of(key, posterior, prior, None, num_draws)
    outside = 1 - float(np.mean(np.asarray(posterior.prior.contains(prior.sample(prior_key, 4096)))))
    beyond = (_beyond(outside),) if outside > MOST_OUTSIDE else ()
    return dataclasses.replace(found, warnings=(*beyond, *found.warnings))


def _beyond(share: float) -> str:
    return (
        f"{100 * share:.2g} % of the new prior lies where the old one is zero: nothing was learnt there, and the "
        "posterior is zero; learn with a wider prior"
    )
