"""The door: `train` and `infer`, by any method."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..answers.answer import Answer
from ..answers.estimates import AbstractEstimator, AbstractPosteriorEstimator
from ..core.defaults import METHOD
from ..core.fit import Training, of_training
from ..core.loss import Batch
from ..core.names import nearest, option_names, options_checked
from ..core.progress import AbstractProgress, NoProgress, RichProgress
from ..core.simulations import as_observations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key, Solution
from ..gold.mined import AbstractMinedSimulator
from ..sample.black_box import AbstractJaxSimulator
from ..sample.simulate import not_a_simulator, simulate
from . import CATALOGUE
from .method import (
    GOLD,
    AbstractLearner,
    AbstractSearch,
    Budget,
    Job,
    Method,
    Refinement,
    columns,
    learn,
)

TRAIN_STREAM = 0x54524149  # a stream of its own, so that the same key may be given to `infer` afterwards


def named(method: str | Method, **options: Any) -> Method:
    """The method of that name in the catalogue, with options; a method is returned as it is.

    Raises
    ------
    ValueError: an unknown name (the nearest is named).
    TypeError: what is neither, or an option that the method does not have.
    """
    if isinstance(method, Method) and not options:
        return method
    if not isinstance(method, str):
        call = f"; call it: {method.__name__}()" if method in CATALOGUE.values() else ""
        raise TypeError(f"method: expected one such as qx.ALFI(), or its name, got {type(method).__name__}{call}")
    if method not in CATALOGUE:
        raise ValueError(f"unknown method {method!r}{nearest(method, CATALOGUE)}; there are {', '.join(CATALOGUE)}")
    return CATALOGUE[method](**options)


def _elsewhere(name: str, value: Any, given: Mapping[str, Any]) -> str | None:
    """Where to write an option of the training or of the method that was chosen."""
    method = given.get("method") or METHOD
    own = method.card.name if isinstance(method, Method) else method
    makers = {maker.__name__: maker for maker in CATALOGUE.values() if name in option_names(maker)}
    chosen = CATALOGUE[own].__name__ if own in CATALOGUE else None
    if chosen in makers:
        return f"give it to the method: method=qx.{chosen}({name}={value!r})"
    advice = of_training(name, value, given)
    if advice and own in CATALOGUE and isinstance(CATALOGUE[own](), AbstractSearch):
        return f"{own} takes no training: its budget is num_simulations"
    return advice or (f"it is an option of {', '.join(makers)}" if makers else None)


@options_checked(_elsewhere)
def train(
    key: Key,
    simulator: AbstractSimulator | None = None,
    method: str | Method = METHOD,
    *,
    num_simulations: int | None = None,
    num_observations: int | None = None,
    sims: Batch | None = None,
    training: Training | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: AbstractProgress | None = None,
    throw: bool = True,
) -> Solution[Any]:
    """Learn from simulations of a simulator, by any method.

    Parameters
    ----------
    key: random key; the same key gives the same estimator.
    simulator: what to run; not needed where `sims` has all that the method takes.
    method: such as `qx.ALFI()` or `qx.ALICES(alpha=5)`, or the name of one, with its defaults: "alices".
    num_simulations: observations to simulate, in all; the method's own number by default.
    num_observations: of the data sets that the estimator is for, where there is one size; methods that learn from
        sets lay out their simulations for it.
    sims: simulations made before, instead of new ones.
    training: the method's own by default.
    checkpoint, resume, throw: see `fit`.
    progress: told about simulating and training; silent by default.

    Returns
    -------
    Solution whose value is the estimator. Its statistics have `num_simulator_calls`, and there is a warning when
    simulations failed.

    Raises
    ------
    ValueError: an unknown method, counts below 1, neither a simulator nor simulations, or simulations that lack what
        the method needs.
    TypeError: a method that needs gold, and a simulator that gives none.
    SimulationError: more than half of the simulations failed.
    InferenceError: training diverged.
    """
    method, reporter = named(method), progress or NoProgress()
    if not isinstance(method, AbstractLearner):
        raise TypeError(
            f"{method.name} answers for one data set, and keeps nothing that would serve for another: call "
            f"qx.infer(key, simulator, x, {method.name!r})"
        )
    if not isinstance(training, Training | None):
        raise TypeError(f"training: expected one such as qx.Training(num_steps=1000), got {type(training).__name__}")
    budget = Budget(num_simulations or method.card.num_simulations, num_observations)
    keeping = {"checkpoint": checkpoint, "resume": resume, "throw": throw}
    return _trained(key, simulator, method, budget, sims, training or method.card.training, reporter, keeping)


def _trained(
    key: Key, simulator: AbstractSimulator | None, method: AbstractLearner, budget: Budget, sims: Batch | None,
    training: Training, progress: AbstractProgress, keeping: Mapping[str, Any],
) -> Solution[Any]:  # fmt: skip
    _ = method.loss  # which refuses options that it cannot use
    gather_key, *keys = jax.random.split(jax.random.fold_in(key, TRAIN_STREAM), 4)
    if sims is None:
        if simulator is None:
            raise ValueError(f"{method.name}: give a simulator, or simulations that it can learn from")
        _check_simulator(method, simulator)
        sims = method.gather(gather_key, simulator, budget, progress)
    else:
        _check_columns(method, sims)
        method.check(sims)
    return learn(keys, method, Job(simulator, sims, budget, progress), training, **keeping)


def possible(sims: Batch) -> list[str]:
    """The names of the methods that these simulations have all the columns for."""
    return [name for name, make in CATALOGUE.items() if columns(sims) >= set(make().needs)]


def _check_simulator(method: Method, simulator: AbstractSimulator) -> None:
    if not isinstance(simulator, AbstractSimulator):
        raise not_a_simulator(simulator)
    gold = [name for name in method.needs if name in GOLD]
    if gold and not isinstance(simulator, AbstractMinedSimulator):
        free = [name for name, make in CATALOGUE.items() if not set(make().needs) & set(GOLD)]
        raise TypeError(
            f"{method.name} needs {' and '.join(gold)}, and the simulator {simulator.name!r} is a black box. Methods "
            f"that work with it: {', '.join(free)}. Or write it as a NumPyro model (@qx.program), or give its joint "
            "log-probability (@qx.mined_simulator)"
        )


def _check_columns(method: Method, sims: Batch) -> None:
    missing = [name for name in method.needs if name not in columns(sims)]
    if missing:
        raise ValueError(
            f"{method.name} needs {' and '.join(missing)}, which these simulations do not have. Methods that would "
            f"work: {', '.join(possible(sims))}. Gold is mined by `mine`, from simulators with a joint log-probability"
        )


@options_checked(_elsewhere)
def infer(
    key: Key,
    simulator: AbstractSimulator | None,
    x: Array,
    method: str | Method | None = None,
    *,
    estimator: AbstractEstimator | Solution[Any] | None = None,
    num_simulations: int | None = None,
    training: Training | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: AbstractProgress | None = None,
) -> Answer:
    """Which parameters made these observations, and how sure are we?

    Parameters
    ----------
    key: random key; the same key gives the same answer.
    simulator: what to run; None for the one that the given estimator was trained for.
    x: observations `(m, *event)`.
    method: see `train`; `qx.ALFI()` by default. Also one that answers for one data set alone, such as `qx.Zoom()`.
    estimator: a trained one, or the solution that `train` returned. Without it one is trained now, and its answer
        improved on where the method has a `refinement`, which shares the budget.
    num_simulations, training, checkpoint, resume: see `train`; a method with a refinement is trained for fewer steps.
    progress: bars in the terminal by default; `NoProgress()` for silence.

    Raises
    ------
    ValueError: observations of the wrong shape or with NaN, or an estimator that was trained for another simulator.
    TypeError: both an estimator and what is for training one, or a training for a method that takes none.
    InferenceError: training diverged, or the estimate is not finite.
    """
    reporter = RichProgress() if progress is None else progress
    train_key, infer_key = jax.random.split(key)
    if estimator is not None:
        for option, value in [("method", method), ("num_simulations", num_simulations), ("training", training)]:
            if value is not None:
                raise TypeError(f"an estimator is trained already: drop {option}, or the estimator")
        net = _checked(estimator, simulator)
        x = net.observations(x)
        trained = estimator if isinstance(estimator, Solution) else None
        return Answer(net.simulator, x, net, _inferred(infer_key, net, x, reporter), trained, None, _seed_of(key))
    if simulator is None:
        raise ValueError("give a simulator, a trained estimator, or both")
    if not isinstance(simulator, AbstractSimulator):
        raise not_a_simulator(simulator)
    chosen = named(method or METHOD)
    x = as_observations(x, event_shape_of(simulator), f"the simulator {simulator.name!r}")
    budget = Budget(num_simulations or chosen.card.num_simulations, len(x))
    if isinstance(chosen, AbstractSearch):
        if training is not None:
            if chosen.training is None:
                raise TypeError(f"{chosen.name} takes no training: drop it")
            chosen = dataclasses.replace(chosen, training=training)
        found = chosen.search(infer_key, simulator, x, budget, reporter)
        return Answer(simulator, x, None, found, None, chosen.name, _seed_of(key))
    after, share = _after(chosen, budget)
    first = Budget(budget.num_simulations - share, len(x), refined=after is not None)
    keeping = {"checkpoint": checkpoint, "resume": resume}
    how = training or chosen.training_for_one
    solution = _trained(train_key, simulator, chosen, first, None, how, reporter, keeping)
    net, before = solution.value, None
    inferred = _inferred(infer_key, net, x, reporter)
    if after is not None and inferred is not None:
        before, rest = inferred, Budget(share, len(x))
        inferred = after.search.search(infer_key, simulator, x, rest, reporter, before.value)
    return Answer(simulator, x, net, inferred, solution, chosen.name, _seed_of(key), before)


def _after(method: AbstractLearner, budget: Budget) -> tuple[Refinement | None, int]:
    """The refinement, if there is any, and the observations that it may simulate."""
    share = 0 if method.refinement is None else round(method.refinement.share * budget.num_simulations)
    return (method.refinement, share) if share else (None, 0)


def _inferred(key: Key, net: AbstractEstimator, x: jax.Array, progress: AbstractProgress) -> Solution[Any] | None:
    """The posterior by an estimator that has one."""
    if not isinstance(net, AbstractPosteriorEstimator):
        return None
    progress.start("infer", 1)
    found = net.infer(key, x)
    progress.advance(1)
    progress.finish()
    return found


def _checked(estimator: Any, simulator: AbstractSimulator | None) -> AbstractEstimator:
    net = estimator.value if isinstance(estimator, Solution) else estimator
    if not isinstance(net, AbstractEstimator):
        raise TypeError(f"estimator: expected what `train` returned, got {type(net).__name__}")
    if simulator is not None:
        if not isinstance(simulator, AbstractSimulator):
            raise not_a_simulator(simulator)
        net.require(simulator)
    return net


def event_shape_of(simulator: AbstractSimulator) -> tuple[int, ...]:
    """Shape of one observation. A simulator on the host is run four times to find out."""
    if isinstance(simulator, AbstractJaxSimulator):
        return simulator.event_shape
    return simulate(jax.random.key(0), simulator, num_simulations=4).event_shape


def _seed_of(key: Key) -> int | None:
    words = np.asarray(jax.random.key_data(key)).ravel().tolist()
    return int(words[1]) if len(words) == 2 and words[0] == 0 else None
