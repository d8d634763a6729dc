"""What each part of the recurrent machine adds: the same training with parts left out, on the paper's simulators."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from ...answers.bayes.posterior import MixturePosterior
from ...checks.accuracy import Accuracy, accuracy
from ...core.fit import Training
from ...core.progress import NoProgress
from ...methods.door import infer, train
from ...methods.local.zoom import Zoom
from ...methods.method import Budget
from ...methods.recurrent.alfi import ALFI, ExponentialWeighting
from ...methods.recurrent.machine import Machine, RecurrentMachine
from .figures import save
from .paper import COUNTS, PROBLEMS, Problem

BUDGET, STEPS = 350_000, 500  # of every machine
NUM_PROBLEMS, NUM_ZOOMED = 200, 20  # of each size; of those the first, for zoom
LIVE = 16  # problems in a step where the simulator is in the loop, as in the paper
ALONE, ZOOM = "regression alone", "zoom, one data set at a time"
WHOLE = "machine, bank"
VARIANTS: Mapping[str, ALFI] = {
    WHOLE: ALFI(),
    "machine, live": ALFI(live=True, num_problems=LIVE),
    "one iteration, bank": ALFI(network=Machine(num_iterations=1, clip=8.0)),
    "without regression, bank": ALFI(network=Machine(regression=False)),
    "without regression, live": ALFI(network=Machine(regression=False), live=True, num_problems=LIVE),
    "as published, live": ALFI(
        network=Machine(15, 20, 20, fixed_statistics=False, regression=False, width=50, memory=40),
        live=True,
        num_problems=LIVE,
        weighting=ExponentialWeighting(),
    ),
}


def run(
    say: Callable[[str], None], problems: Sequence[Problem] = PROBLEMS, variants: Mapping[str, ALFI] = VARIANTS
) -> dict[str, Any]:
    """RMSE over the yardstick's, per simulator, variant and number of observations, for every parameter."""
    found: dict[str, Any] = {}
    for problem in problems:
        found[problem.name] = {"columns": list(problem.simulator.prior.columns), "variants": {}}
        rows, sims = found[problem.name]["variants"], _gathered(problem)
        for name, method in variants.items():
            say(f"{problem.name}: {name}")
            jax.clear_caches()  # a process may map so much memory and no more: of all variants together it ended there
            machine = _trained(sims, method)
            rows[name] = {str(m): _ratios(_test(problem, machine, m)) for m in COUNTS}
            if name == WHOLE:
                tests = {m: _test(problem, machine, m) for m in COUNTS}
                rows[ALONE] = {str(m): _ratios(_regressed(machine, test)) for m, test in tests.items()}
                say(f"{problem.name}: {ZOOM}")
                rows[ZOOM] = {str(m): _zoomed(problem, test) for m, test in tests.items()}
    return found


def _gathered(problem: Problem) -> Any:
    return ALFI().gather(jax.random.key(0), problem.simulator, Budget(BUDGET, refined=True), NoProgress())


def _trained(sims: Any, method: ALFI) -> RecurrentMachine:
    """Without calibration, which needs the simulator: it is about widths."""
    return train(jax.random.key(0), None, method, sims=sims, training=Training(num_steps=STEPS)).value


def _test(problem: Problem, machine: RecurrentMachine, count: int) -> Accuracy:
    key = jax.random.fold_in(jax.random.key(1), count)
    how = {"num_problems": NUM_PROBLEMS, "num_observations": count, "yardstick": problem.yardstick}
    return accuracy(key, machine, **how)


def _ratios(test: Accuracy) -> list[float]:
    return test.rmse_ratio().tolist()


def _regressed(machine: RecurrentMachine, test: Accuracy) -> Accuracy:
    """The same problems, answered by the first estimate of the encoder."""

    def one(x: jax.Array) -> jax.Array:
        summary = machine.encoder(x[None])
        return MixturePosterior(machine.space, jnp.concatenate([summary.mean, summary.log_scale], axis=-1)).mean

    return dataclasses.replace(test, mean=np.asarray(jax.jit(lambda x: jax.lax.map(one, x))(test.x))[None])


def _zoomed(problem: Problem, test: Accuracy) -> list[float]:
    mean = []
    for row in range(NUM_ZOOMED):
        found = infer(jax.random.key(row), problem.simulator, test.x[row], Zoom(), progress=NoProgress())
        mean.append([each["mean"] for each in found.posterior.summary().values()])
    few = lambda each: each[:NUM_ZOOMED]
    yardstick = None if test.yardstick is None else few(test.yardstick)
    return _ratios(dataclasses.replace(test, theta=few(test.theta), mean=np.asarray(mean)[None], yardstick=yardstick))


def tables(results: Mapping[str, Any]) -> str:
    """One row for every simulator and variant; numbers for 20 / 100 / 500 / 3,000 observations."""
    lines = ["| simulator | variant | parameter: RMSE / yardstick's |", "|---|---|---|"]
    for name, result in results.items():
        for variant, counts in result["variants"].items():
            cells = [
                f"{column}: " + " / ".join(f"{each[i]:.2f}" for each in counts.values())
                for i, column in enumerate(result["columns"])
            ]
            lines.append(f"| {name} | {variant} | {'; '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figure(results: Mapping[str, Any], path: Path) -> None:
    """RMSE over the yardstick's against the number of observations, the mean over parameters of its logarithm."""
    drawn = Figure(figsize=(11, 7), layout="constrained")
    for axes, (name, result) in zip(drawn.subplots(2, 2).ravel(), results.items(), strict=False):
        for variant, counts in result["variants"].items():
            value = [np.exp(np.mean(np.log(each))) for each in counts.values()]
            axes.plot([int(m) for m in counts], value, marker="o", label=variant)
        axes.axhline(1.0, color="gray", linestyle=":")
        axes.set(title=name, xscale="log", yscale="log", xlabel="observations", ylabel="RMSE / yardstick's")
    drawn.axes[0].legend(fontsize=7)
    save(drawn, path)
