"""What every method is: a small frozen value that says how to get from a simulator to an estimator, or to an answer.

A learner is trained in four steps, the same for all: `gather` simulations, `build` a network, `fit` it with the `loss`,
and `finish`. A search answers for one data set. What differs between methods is a field or a step of theirs.
"""

import abc
import dataclasses
import functools
import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from ..answers.bayes.posterior import AbstractPosterior
from ..core.fit import Training, fit
from ..core.loss import AbstractLoss, Batch
from ..core.prior import Prior
from ..core.progress import AbstractProgress
from ..core.simulations import Simulations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key, Solution, Status
from ..gold.mine import contrast, mine
from ..gold.reference import AbstractReference

GOLD = ("log_ratio", "score")  # columns that only a simulator with gold can give
Theta = Array | Mapping[str, float]


class Budget(NamedTuple):
    """What may be spent.

    Fields
    ------
    num_simulations: observations to simulate, in all.
    num_observations: of the one data set that the answer is for; None for an estimator that is to serve any.
    refined: whether the estimator only has to find where a search begins.
    """

    num_simulations: int
    num_observations: int | None = None
    refined: bool = False


class Job(NamedTuple):
    """What `finish` may use beside the trained network.

    Fields
    ------
    simulator: None where nothing more can be simulated.
    sims: what the network was trained on.
    budget: in all; `sims` were made from it.
    progress: told about more simulations.
    """

    simulator: AbstractSimulator | None
    sims: Batch
    budget: Budget
    progress: AbstractProgress


class Card(NamedTuple):
    """What is known of a method before it is used.

    Fields
    ------
    name: as in the catalogue, files and messages.
    paper: where it comes from.
    gives: "posterior" or "likelihood": the answer that its estimators give.
    num_simulations: the budget that it has by default, in observations.
    training: how it is trained by default.
    """

    name: str
    paper: str
    gives: str = "likelihood"
    num_simulations: int = 100_000
    training: Training = Training(num_steps=10_000)


class AbstractMethod(eqx.Module):
    """A way to learn about the parameters of a simulator.

    Fields
    ------
    card: what is known of it before it is used.
    """

    card: eqx.AbstractVar[Card]

    def __check_init__(self):
        for name, kinds in _module_fields(type(self)).items():
            if not isinstance(value := getattr(self, name), kinds):
                known = " or ".join(f"qx.{kind.__name__}()" for kind in kinds)
                raise TypeError(f"{name} of {self.name}: expected {known}, got {type(value).__name__}")

    @property
    def name(self) -> str:
        return self.card.name

    @property
    @abc.abstractmethod
    def needs(self) -> tuple[str, ...]:
        """The columns of `Simulations` that it learns from, besides theta and x."""


@functools.cache
def _module_fields(kind: type) -> dict[str, tuple[type, ...]]:
    """The fields that take nothing but values of our own, none of them abstract, such as networks."""
    found = {name: typing.get_args(hint) or (hint,) for name, hint in typing.get_type_hints(kind).items()}
    ours = lambda each: inspect.isclass(each) and issubclass(each, eqx.Module) and not inspect.isabstract(each)
    return {name: kinds for name, kinds in found.items() if all(ours(each) for each in kinds)}


class AbstractSearch(AbstractMethod):
    """A method that answers for one data set, and learns nothing that would serve for another."""

    @property
    @abc.abstractmethod
    def training(self) -> Training | None:
        """How it trains in every round; None where it trains nothing."""

    @abc.abstractmethod
    def search(
        self,
        key: Key,
        simulator: AbstractSimulator,
        x: jax.Array,
        budget: Budget,
        progress: AbstractProgress,
        start: AbstractPosterior | None = None,
    ) -> Solution[Any]:
        """The posterior given observations x `(m, *event)` that were checked; `start` is an answer to begin from.

        Raises `ValueError` for a budget that is too small, `SimulationError` where more than half of it failed.
        """


class Refinement(eqx.Module):
    """How `infer` improves on what a trained estimator says of one data set.

    Fields
    ------
    search: begins from the estimator's answer.
    share: of the budget, for the search; 0 for no search at all.
    num_steps: of the estimator's training, which only has to find where the search begins.
    """

    search: AbstractSearch
    share: float = eqx.field(static=True, default=0.5)
    num_steps: int = eqx.field(static=True, default=250)

    def __check_init__(self):
        if not 0 <= self.share < 1:
            raise ValueError(f"share must be in [0, 1), got {self.share}")
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")


class AbstractLearner(AbstractMethod):
    """A method that trains an estimator."""

    @property
    @abc.abstractmethod
    def refinement(self) -> Refinement | None:
        """What `infer` does after it; None for nothing."""

    @property
    def training_for_one(self) -> Training:
        """How it is trained by default where only one data set is asked about."""
        after, training = self.refinement, self.card.training
        if after is None or not after.share:
            return training
        return dataclasses.replace(training, num_steps=after.num_steps)

    @property
    @abc.abstractmethod
    def loss(self) -> AbstractLoss | None:
        """What to minimise; None for a method that has nothing to fit."""

    @abc.abstractmethod
    def check(self, sims: Batch) -> None:
        """Raise `ValueError` for simulations that have the columns, and that this method still cannot learn from."""

    @abc.abstractmethod
    def gather(self, key: Key, simulator: AbstractSimulator, budget: Budget, progress: AbstractProgress) -> Batch:
        """What to learn from: simulated, or mined."""

    @abc.abstractmethod
    def build(self, key: Key, sims: Batch) -> Any:
        """The untrained network, scaled to the simulations; None where there is nothing to fit."""

    @abc.abstractmethod
    def finish(self, key: Key, trained: Solution[Any], job: Job) -> Solution[Any]:
        """The solution of a fit that did not fail, with an estimator for its value, and more to say about it."""


Method = AbstractLearner | AbstractSearch  # every method is one of the two


def learn(
    keys: Sequence[Key], method: AbstractLearner, job: Job, training: Training, net: Any = None, **keeping: Any
) -> Solution[Any]:
    """An estimator from simulations that were checked, with three keys; `keeping` is what `fit` takes besides.

    It begins from a network of the method, or builds one.
    """
    build_key, fit_key, finish_key = keys
    net, loss = method.build(build_key, job.sims) if net is None else net, method.loss
    if loss is None:
        solution: Solution[Any] = Solution(None, Status.SUCCESS, {}, {})
    else:
        solution = fit(fit_key, net, loss, job.sims, training=training, progress=job.progress, **keeping)
    parts = (job.sims,) if isinstance(job.sims, Simulations) else job.sims
    calls = sum(part.num_simulator_calls for part in parts)
    failed = failure_warnings(job.sims) if any(part.failures for part in parts) else ()
    solution = with_notes(solution, {"num_simulator_calls": calls}, failed)
    return solution if solution.status is Status.DIVERGED else method.finish(finish_key, solution, job)


def columns(sims: Batch) -> set[str]:
    """The optional columns that simulations have."""
    parts = (sims,) if isinstance(sims, Simulations) else sims
    known = ("label", *GOLD)
    return {name for name in known if all(getattr(part, name) is not None for part in parts)}


def labelled(
    key: Key,
    simulator: AbstractSimulator,
    needs: tuple[str, ...],
    num_simulations: int,
    reference: AbstractReference,
    theta: Theta | None,
    progress: AbstractProgress,
) -> Simulations:
    """Numerators and reference: with gold where the method needs it, and of a black box without."""
    make = mine if set(needs) & set(GOLD) else contrast
    at = None if theta is None else points(simulator.prior, theta)
    return make(key, simulator, num_simulations=num_simulations, theta=at, reference=reference, progress=progress)


def points(prior: Prior, theta: Theta) -> np.ndarray:
    """theta `(K, dim)` from such an array, from one point `(dim,)`, or from values by name."""
    return prior.rows(theta if isinstance(theta, Mapping) else np.atleast_2d(np.asarray(theta, np.float32)))


def single(name: str, sims: Batch) -> Simulations:
    """One record of single observations, or an error that says what there is instead."""
    if not isinstance(sims, Simulations):
        raise ValueError(f"{name} takes one record of simulations, not several")
    if sims.num_observations != 1:
        raise ValueError(
            f"{name} takes one observation per row, these simulations have {sims.num_observations}: simulate with "
            "num_observations=1 (log-ratios of a data set add up)"
        )
    return sims


def require_origin(name: str, sims: Simulations) -> None:
    """Raise `ValueError` unless it is known at which theta every x was drawn."""
    if sims.label is not None and sims.drawn_at is None and not bool(np.all(np.asarray(sims.label) == 1)):
        raise ValueError(
            f"{name} must know where x was drawn, and rows of label 0 do not say: give the columns drawn_at_NAME"
        )


def column(sims: Simulations, name: str) -> Any:
    """A column that must be there."""
    value = getattr(sims, name)
    if value is None:
        raise ValueError(f"these simulations have no {name}; it is mined by `mine`, or read from a file by `read_gold`")
    return value


def with_notes(
    solution: Solution[Any], statistics: Mapping[str, float], warnings: tuple[str, ...] = (), **changes: Any
) -> Solution[Any]:
    """The solution with more statistics and warnings."""
    return dataclasses.replace(
        solution,
        statistics={**solution.statistics, **statistics},
        warnings=(*solution.warnings, *warnings),
        **changes,
    )


def failure_warnings(sims: Batch) -> tuple[str, ...]:
    """One warning when simulations failed, or none."""
    parts = (sims,) if isinstance(sims, Simulations) else sims
    failures = [failure for part in parts for failure in part.failures]
    total = sum(len(part) for part in parts) + len(failures)
    return failures_in_words(len(failures), total, str(failures[0]) if failures else "")


def failures_in_words(failed: int, total: int, first: str) -> tuple[str, ...]:
    """One warning where so many of all failed, `first` being the first of them, or none."""
    if not failed:
        return ()
    return (f"{failed} of {total} simulations failed and were left out, as if they could not happen; {first}",)
