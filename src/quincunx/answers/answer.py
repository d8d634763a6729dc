"""From an estimator and data to an answer: by `posterior` or by `likelihood`; an `Answer` holds what was found.

`likelihood` is in `frequentist/`, with all that follows from it.
"""

import dataclasses
import functools
from typing import Any

import jax

from ..core.defaults import version
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key, Solution
from .bayes.posterior import AbstractPosterior
from .bayes.product import AbstractSampler
from .bayes.sampling.tempered import Tempered
from .estimates import AbstractEstimator, AbstractPosteriorEstimator, AbstractRatio
from .frequentist.likelihood import Likelihood, likelihood
from .frequentist.region import ConfidenceRegion, confidence_region


def posterior(
    estimator: AbstractEstimator, x: Array, *, key: Key | None = None, sampler: AbstractSampler | None = None
) -> AbstractPosterior:
    """The posterior of the parameters given data.

    An estimator of the posterior has it at once. From one of a ratio, or of the likelihood, it is sampled: prior times
    the product over observations (see `LikelihoodPosterior`).

    Parameters
    ----------
    estimator: what `train` returned as its value.
    x: observations `(m, *event)`.
    key: for what depends on chance a little: the sampler, and the recurrent machine; a fixed one if None.
    sampler: how prior times likelihood is sampled: `Tempered()`, which it is if None, `NUTS()`, `Slice()` or
        `MetropolisHastings()`.

    Raises
    ------
    TypeError: an estimator without a posterior, or a sampler for one that has it at once.
    ValueError: observations of the wrong shape or with NaN, or that no theta of the prior can have made.
    """
    key = jax.random.key(0) if key is None else key
    if sampler is not None and not isinstance(sampler, AbstractSampler):
        raise TypeError(f"sampler: expected one such as qx.NUTS(), got {sampler!r}")
    if isinstance(estimator, AbstractRatio):
        return (sampler or Tempered()).posterior(key, estimator, x)
    if not isinstance(estimator, AbstractPosteriorEstimator):
        raise TypeError(f"expected an estimator, what `train` returned as its value, got {type(estimator).__name__}")
    if sampler is not None:
        raise TypeError(
            f"sampler: {type(estimator).__name__} has its posterior at once, nothing is sampled from a likelihood; "
            "leave the option out"
        )
    return estimator.infer(key, estimator.observations(x)).value


@dataclasses.dataclass(frozen=True)
class Answer:
    """What `infer` returns: the answer and all that led to it.

    Fields
    ------
    simulator: what is taken to have made the observations.
    x: the observations `(m, *event)`.
    estimator: what was trained; None by a method that answers for one data set alone.
    inferred: the solution whose value is the posterior; None where the estimator has none.
    training: the solution of the training; None when an estimator was given without it.
    method: the method's name; None when an estimator was given.
    seed: of the key, where the key was made by `jax.random.key(seed)`.
    before: the estimator's own answer, where `inferred` improves on it.
    """

    simulator: AbstractSimulator
    x: jax.Array
    estimator: AbstractEstimator | None = None
    inferred: Solution[AbstractPosterior] | None = None
    training: Solution[Any] | None = None
    method: str | None = None
    seed: int | None = None
    before: Solution[AbstractPosterior] | None = None

    @functools.cached_property
    def posterior(self) -> AbstractPosterior:
        """p(theta | x). Where the estimator is one of a ratio it is sampled when it is first asked for."""
        return posterior(self._trained(), self.x) if self.inferred is None else self.inferred.value

    @property
    def known_posterior(self) -> AbstractPosterior | None:
        """The posterior, if it need not be sampled first."""
        return self.posterior if self.inferred is not None or "posterior" in vars(self) else None

    @functools.cached_property
    def likelihood(self) -> Likelihood:
        """log L(theta) of the observations; raises `TypeError` where the estimator has none."""
        estimator: Any = self._trained()  # which says what it has instead, if it is no ratio
        return likelihood(estimator, self.x)

    def _trained(self) -> AbstractEstimator:
        if self.estimator is None:
            raise TypeError(
                f"{self.method} keeps no estimator, and so no likelihood; it has a posterior: answer.posterior"
            )
        return self.estimator

    def region(self, level: float = 0.95, **options: Any) -> ConfidenceRegion:
        """The parameters that the data do not exclude; options are those of `confidence_region`."""
        return confidence_region(self.likelihood, level, **options)

    def regions(self, level: float = 0.95) -> tuple[ConfidenceRegion, ...]:
        """A region for every parameter, the others being profiled; for two, also of both together."""
        names = self.simulator.prior.columns
        groups = [*((name,) for name in names), *([names] if len(names) == 2 else [])]
        return tuple(self.region(level, parameters=group) for group in groups)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust the answer as it stands."""
        sampled = self.known_posterior if self.inferred is None else None
        told = (text for each in (self.training, self.inferred, sampled) if each is not None for text in each.warnings)
        return tuple(told)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen where nothing was said, in words."""
        told = (text for each in (self.training, self.inferred) if each is not None for text in each.notes)
        return tuple(dict.fromkeys(told))

    @property
    def num_simulator_calls(self) -> int:
        """Observations simulated to get here, for the training (if that is known) and for the answer."""
        known = [each.statistics for each in (self.training, self.before, self.inferred) if each is not None]
        return int(sum(statistics.get("num_simulator_calls", 0) for statistics in known))

    def to_dict(self) -> dict[str, Any]:
        """All that is worth keeping as JSON; of a posterior that must be sampled, only if it was asked for before."""
        found: dict[str, Any] = {}
        if self.known_posterior is not None:
            found["parameters"] = self.known_posterior.summary()
        if self.inferred is None:
            found["regions"] = [region.to_dict() for region in self.regions()]
        return {
            "simulator": self.simulator.name,
            "method": self.method,
            "seed": self.seed,
            "num_observations": len(self.x),
            "num_simulator_calls": self.num_simulator_calls,
            **found,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "library_version": version(),
        }
