"""`train` and `infer`: from a simulator to a machine, and to an answer, in one call."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..answers.bayes.proposal import Proposal
from ..campaigns import save as io
from ..checks.plots import plot_inference
from ..core import defaults as defaults
from ..core.defaults import version
from ..core.fit import Training, fit
from ..core.names import nearest
from ..core.progress import AbstractProgress, RichProgress
from ..core.run import run
from ..core.simulations import Simulations, as_observations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key, Solution
from ..sample.black_box import AbstractJaxSimulator
from ..sample.simulate import simulate
from .alfi import ALFI, simulate_bank
from .machine import RecurrentMachine

METHODS = ("alfi",)
TRAIN_STREAM = 0x54524149


def train(
    key: Key,
    simulator: AbstractSimulator,
    *,
    method: str = defaults.METHOD,
    num_simulations: int = defaults.NUM_SIMULATIONS,
    num_observations: int = defaults.NUM_OBSERVATIONS,
    max_observations: int = defaults.MAX_OBSERVATIONS,
    training: Training = Training(),
    loss: ALFI = ALFI(),
    machine_options: Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: AbstractProgress | None = None,
    throw: bool = True,
) -> Solution[RecurrentMachine]:
    """Simulate a bank and train a recurrent machine on it.

    Parameters
    ----------
    key: random key; the same key gives the same machine.
    simulator: what to run.
    method: "alfi", the only one there is.
    num_simulations, num_observations, max_observations: the budget, see `simulate_bank`.
    training, checkpoint, resume, throw: see `fit`.
    loss: the objective, see `ALFI`.
    machine_options: options of `RecurrentMachine.for_simulations`, by name.
    progress: told about simulating and training; silent by default.

    Returns
    -------
    Solution of `fit`, with `num_simulator_calls` (observations simulated, the validation of live training aside)
    among its statistics and a warning when simulations failed.

    Raises
    ------
    ValueError: an unknown method or option of the machine, or counts below 1.
    SimulationError: more than half of the simulations failed.
    InferenceError: training diverged.
    """
    _check_method(method)
    options = _machine_options(machine_options or {}, loss)
    # A stream of its own, so that the same key may be given to `infer` afterwards.
    bank_key, net_key, fit_key = jax.random.split(jax.random.fold_in(key, TRAIN_STREAM), 3)
    for name, count in [("num_simulations", num_simulations), ("num_observations", num_observations)]:
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    sims = simulate_bank(
        bank_key,
        simulator,
        num_simulations=num_simulations,
        num_observations=num_observations,
        max_observations=max_observations,
        progress=progress,
    )
    net = RecurrentMachine.for_simulations(sims, key=net_key, **options)
    solution = fit(
        fit_key,
        net,
        loss,
        sims,
        training=training,
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
        throw=throw,
    )
    calls = sum(part.num_simulator_calls for part in sims) + _live_calls(solution, loss)
    return dataclasses.replace(
        solution,
        statistics={**solution.statistics, "num_simulator_calls": calls},
        warnings=(*solution.warnings, *failure_warnings(sims)),
    )


@dataclasses.dataclass(frozen=True)
class Inference:
    """What `infer` returns: the answer and all that led to it.

    Fields
    ------
    solution: of `run`; its value is the proposal.
    machine: the trained machine.
    x: the observations `(m, *event)`.
    method: the method's name.
    training: the solution of the training; None when a machine was given without it.
    seed: of the key, where the key was made by `jax.random.key(seed)`.
    """

    solution: Solution[Proposal]
    machine: RecurrentMachine
    x: jax.Array
    method: str = defaults.METHOD
    training: Solution[RecurrentMachine] | None = None
    seed: int | None = None

    @property
    def proposal(self) -> Proposal:
        """The answer, q(theta | X)."""
        return self.solution.value

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust the answer as it stands."""
        return (*(self.training.warnings if self.training else ()), *self.solution.warnings)

    @property
    def num_simulator_calls(self) -> int:
        """Observations simulated to get here, for the machine's training (if that is known) and in the run."""
        trained = self.training.statistics.get("num_simulator_calls", 0) if self.training else 0
        return int(trained + self.solution.statistics["num_simulator_calls"])

    def summary(self) -> dict[str, dict[str, float]]:
        """Per column of theta: mean, std, q05, q50, q95."""
        return self.proposal.summary()

    def marginalise(self, key: Key, num_proposals: int = 500) -> Proposal:
        """The mixture of the answers from many initial proposals; see `RecurrentMachine.marginalise`."""
        return self.machine.marginalise(key, self.x, num_proposals=num_proposals)

    def to_dict(self) -> dict[str, Any]:
        """All that is worth keeping as JSON."""
        return {
            "simulator": self.machine.simulator.name,
            "method": self.method,
            "seed": self.seed,
            "num_observations": len(self.x),
            "num_simulator_calls": self.num_simulator_calls,
            "parameters": self.summary(),
            "warnings": list(self.warnings),
            "library_version": version(),
        }

    def plot(self, path: str | Path) -> None:
        """Save a figure (PNG, PDF or SVG, by the name): the proposal closing in, and the data against simulations."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        plot_inference(self.solution, self.machine, self.x).savefig(path, dpi=150)

    def save(self, folder: str | Path) -> None:
        """Save all of it; `load(folder)` gives it back bit for bit."""
        io.save(folder, self, seed=self.seed)


def infer(
    key: Key,
    simulator: AbstractSimulator | None,
    x: Array,
    *,
    machine: RecurrentMachine | Solution[RecurrentMachine] | None = None,
    method: str = defaults.METHOD,
    progress: AbstractProgress | None = None,
    **options: Any,
) -> Inference:
    """Which parameters made these observations, and how sure are we?

    Parameters
    ----------
    key: random key; the same key gives the same answer.
    simulator: what to run; None for the one that the given machine was trained for.
    x: observations `(m, *event)`.
    machine: a trained machine, or what `train` returned. Without it one is trained now.
    method: "alfi", the only one there is.
    progress: bars in the terminal by default; `NoProgress()` for silence.
    **options: those of `train`, when no machine is given. Unless one of
        the budget's options is given, a million observations are laid out for data sets of this size: `layout_for`.

    Raises
    ------
    ValueError: observations of the wrong shape or with NaN, a machine that was trained for another
        simulator, or an unknown option.
    InferenceError: training diverged, or the estimate is not finite.
    """
    _check_method(method)
    reporter = RichProgress() if progress is None else progress
    train_key, run_key = jax.random.split(key)
    if machine is None:
        if simulator is None:
            raise ValueError("give a simulator, a trained machine, or both")
        _check_options(options)
        x = as_observations(x, event_shape_of(simulator), f"the simulator {simulator.name!r}")
        layout = {} if layout_for(1).keys() & options.keys() else layout_for(len(x))
        machine = train(train_key, simulator, method=method, progress=reporter, **layout, **options)
    elif options:
        raise ValueError(f"a trained machine takes no training options, got {', '.join(options)}; drop these, or it")
    training = machine if isinstance(machine, Solution) else None
    net = machine.value if isinstance(machine, Solution) else machine
    if not isinstance(net, RecurrentMachine):
        raise TypeError(f"machine: expected a RecurrentMachine, or what `train` returned, got {type(net).__name__}")
    if simulator is not None:
        net.require(simulator)
    x = as_observations(x, net.novelty.event_shape, f"the simulator {net.simulator.name!r}")
    solution = run(run_key, net, x, progress=reporter)
    return Inference(solution, net, x, method, training, _seed_of(key))


def layout_for(count: int) -> dict[str, int]:
    """Options of `simulate_bank` that spend the default budget for data sets of about `count` observations.

    Sets of a quarter of the count, but of 100 to 1,000 observations, leave enough theta to learn from.
    """
    budget = defaults.NUM_SIMULATIONS * defaults.NUM_OBSERVATIONS
    size = min(max(count // 4, 100), 1000)
    most = max(size, round(1.15 * count))
    return {"num_simulations": budget // size, "num_observations": size, "max_observations": most}


def options_of(function: Callable, *others: str) -> tuple[str, ...]:
    """The names of a function's parameters, without `others`."""
    return tuple(name for name in inspect.signature(function).parameters if name not in others)


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}{nearest(method, METHODS)}; there is {', '.join(METHODS)}")


def _check_options(options: Mapping[str, Any]) -> None:
    known = options_of(train, "key", "simulator", "method", "progress", "throw")
    for name in options:
        if name not in known:
            raise ValueError(f"unknown option {name!r}{nearest(name, known)}; training takes {', '.join(known)}")


def event_shape_of(simulator: AbstractSimulator) -> tuple[int, ...]:
    """Shape of one observation. A simulator on the host is run four times to find out."""
    if isinstance(simulator, AbstractJaxSimulator):
        return simulator.event_shape
    return simulate(jax.random.key(0), simulator, num_simulations=4).event_shape


def _machine_options(options: Mapping[str, Any], loss: ALFI) -> dict[str, Any]:
    known = options_of(RecurrentMachine.for_simulations, "sims", "key")
    for name in options:
        if name not in known:
            raise ValueError(f"the machine has no option {name!r}{nearest(name, known)}; it has {', '.join(known)}")
    return {**({"bandwidth": 0.0} if loss.live else {}), **options}


def _live_calls(solution: Solution[RecurrentMachine], loss: ALFI) -> int:
    if not loss.live:
        return 0
    net = solution.value
    each = net.num_iterations * net.num_proposed * net.num_simulated
    return int(solution.statistics["num_steps"]) * loss.num_problems * each


def failure_warnings(sims: Sequence[Simulations]) -> tuple[str, ...]:
    """One warning when simulations failed, or none."""
    failures = [failure for part in sims for failure in part.failures]
    if not failures:
        return ()
    total = sum(len(part) for part in sims) + len(failures)
    return (
        f"{len(failures)} of {total} simulations failed and were left out, as if they could not happen; {failures[0]}",
    )


def _seed_of(key: Key) -> int | None:
    words = np.asarray(jax.random.key_data(key)).ravel().tolist()
    return int(words[1]) if len(words) == 2 and words[0] == 0 else None
