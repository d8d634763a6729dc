"""Pesah, Wehenkel and Louppe (2018): Figures 2 to 6 and a table beside the paper's claims."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...answers.bayes.posterior import MixturePosterior
from ...checks.accuracy import Accuracy, accuracy
from ...core.fit import Training
from ...core.progress import NoProgress
from ...methods.door import train
from ...methods.method import Budget
from ...methods.recurrent.alfi import ALFI
from ...methods.recurrent.machine import RecurrentMachine, trajectories
from ...problems import CATALOGUE
from ...sample.black_box import AbstractJaxSimulator
from ...sample.simulate import simulate
from .figures import save


@dataclasses.dataclass(frozen=True)
class Problem:
    """One simulator of the paper, and what its answers are compared with."""

    name: str
    yardstick: str

    @property
    def simulator(self) -> AbstractJaxSimulator:
        return CATALOGUE[self.name]


PROBLEMS = (
    Problem("poisson", "posterior_mean"),
    Problem("weinberg", "posterior_mean"),
    Problem("multivariate", "mle"),
    Problem("linear_regression", "mle"),
)
COUNTS = (20, 100, 500, 3000)
NUM_PROBLEMS = 1000


def main(
    folder: str | Path,
    *,
    say: Callable[[str], None] = lambda text: None,
    names: Sequence[str] = tuple(problem.name for problem in PROBLEMS),
    num_simulations: int = ALFI().card.num_simulations,
    steps_factor: float = 1.0,
    num_problems: int = NUM_PROBLEMS,
) -> dict:
    """Train on every simulator, evaluate, and write figures, an animation, a table and all numbers to `folder`.

    Parameters
    ----------
    say: told what is being done.
    names: which simulators.
    num_simulations: observations in all; by default as many as `train` takes.
    steps_factor: multiplies the training steps.
    num_problems: test problems for each number of observations.

    Returns
    -------
    The numbers, as written to `results.json`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for problem in (p for p in PROBLEMS if p.name in names):
        say(f"{problem.name}: simulating and training")
        steps = max(1, round(ALFI().card.training.num_steps * steps_factor))
        untrained, machine, record = _train(problem.simulator, num_simulations, steps)
        say(f"{problem.name}: trained in {record['training_seconds']:.0f} s; evaluating")
        evaluations = _evaluate(problem, machine, num_problems)
        results[problem.name] = record | _numbers(problem, evaluations)
        _figures(folder, problem, untrained, machine, evaluations)
        (folder / "results.json").write_text(json.dumps(results, indent=1))
        (folder / "table.md").write_text(table(results))
    return results


def _train(
    simulator: AbstractJaxSimulator, num_simulations: int, num_steps: int
) -> tuple[RecurrentMachine, RecurrentMachine, dict]:
    key, method = jax.random.key(0), ALFI()
    begun = time.perf_counter()
    sims = method.gather(key, simulator, Budget(num_simulations), NoProgress())
    simulated = time.perf_counter()
    untrained = method.build(key, sims)
    training = Training(num_steps=num_steps)
    solution = train(key, simulator, method, sims=sims, num_simulations=num_simulations, training=training)
    done = time.perf_counter()
    return untrained, solution.value, {
        "simulated_observations": solution.statistics["num_simulator_calls"],
        "simulation_seconds": simulated - begun,
        "training_seconds": done - simulated,
        "training_steps": solution.statistics["num_steps"],
    }  # fmt: skip


def _evaluate(problem: Problem, machine: RecurrentMachine, num_problems: int) -> dict[int, Accuracy]:
    t = machine.num_iterations
    return {
        m: accuracy(
            jax.random.fold_in(jax.random.key(1), m),
            machine,
            num_problems=num_problems if m < 1000 else max(1, num_problems // 5),
            num_observations=m,
            iterations=(t, 2 * t, 4 * t) if m == 100 else (t,),
            yardstick=problem.yardstick,
        )
        for m in COUNTS
    }


def _numbers(problem: Problem, evaluations: dict[int, Accuracy]) -> dict:
    """All that the table shows, per number of observations and column of theta."""
    horizon = evaluations[100]
    counts = {
        str(m): {
            "rmse": e.rmse().tolist(),
            "rmse_ratio": e.rmse_ratio().tolist(),
            "median_ratio": e.quantile_ratio(0.5).tolist(),
            "p95_ratio": e.quantile_ratio(0.95).tolist(),
            "coverage": e.coverage().tolist(),
            "std_ratio": e.std_ratio().tolist(),
        }
        for m, e in evaluations.items()
    }
    return {
        "columns": list(problem.simulator.prior.columns),
        "yardstick": problem.yardstick,
        "observations": counts,
        "rmse_at_2T_over_T": (horizon.rmse(1) / horizon.rmse(0)).tolist(),
        "rmse_at_4T_over_T": (horizon.rmse(2) / horizon.rmse(0)).tolist(),
        "coverage_at_4T": horizon.coverage(2).tolist(),
    }


def table(results: dict) -> str:
    """The numbers as Markdown: one row per simulator and column of theta."""
    head = (
        "| simulator | parameter | yardstick | RMSE ratio | median error ratio | 95th percentile ratio "
        "| coverage of 95 % intervals | width / error | RMSE at 2T, 4T / T |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    rows = []
    for name, result in results.items():
        for i, column in enumerate(result["columns"]):
            at = lambda field, i=i, result=result: " / ".join(
                f"{counts[field][i]:.3f}" for counts in result["observations"].values()
            )
            horizon = f"{result['rmse_at_2T_over_T'][i]:.3f}, {result['rmse_at_4T_over_T'][i]:.3f}"
            rows.append(
                f"| {name} | {column} | {result['yardstick']} | {at('rmse_ratio')} | {at('median_ratio')} "
                f"| {at('p95_ratio')} | {at('coverage')} | {at('std_ratio')} | {horizon} |"
            )
    return head + "\n".join(rows) + "\n"


# -- figures ---------------------------------------------------------------------------------------


def _figures(
    folder: Path, problem: Problem, untrained: RecurrentMachine, machine: RecurrentMachine,
    evaluations: dict[int, Accuracy],
) -> None:  # fmt: skip
    number = {"poisson": "2 and 4", "weinberg": "3", "multivariate": "5", "linear_regression": "6"}[problem.name]
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _error_by_iteration(left, machine, evaluations[100])
    if problem.name == "weinberg":
        figure.delaxes(right)
        _histograms(figure, problem, evaluations[100])
    else:
        _boxes(right, problem, evaluations[100])
    figure.suptitle(f"{problem.name}: the machine of the paper's Figure {number}")
    save(figure, folder / f"{problem.name}.png")
    if problem.name == "poisson":
        _animate(folder / "proposal.gif", problem, untrained, machine)


def _error_by_iteration(axes, machine: RecurrentMachine, evaluation: Accuracy) -> None:
    """||theta* - E_q[theta]|| against the iteration, up to twice the training length, with its spread."""
    t = machine.num_iterations
    psi = trajectories(machine, jax.random.key(2), evaluation.x[:200], 2 * t)
    means = jax.jit(jax.vmap(jax.vmap(lambda psi: MixturePosterior(machine.space, psi[None]).mean)))(psi)
    error = np.linalg.norm(np.asarray(means) - evaluation.theta[:200, None], axis=-1)
    middle, spread = error.mean(axis=0), error.std(axis=0)
    steps = np.arange(1, 2 * t + 1)
    axes.fill_between(
        steps, np.maximum(middle - spread, 0), middle + spread, alpha=0.25, label="one standard deviation"
    )
    axes.plot(steps, middle, label="mean over 200 problems")
    axes.axvline(t, color="gray", linestyle=":", label=f"iterations in training, T = {t}")
    axes.set(xlabel="iteration", ylabel="|| theta* - E[theta] ||", ylim=(0, None))
    axes.legend()


def _boxes(axes, problem: Problem, evaluation: Accuracy) -> None:
    norm = lambda errors: np.linalg.norm(errors, axis=-1)
    name = {"mle": "maximum likelihood", "posterior_mean": "exact posterior mean"}[problem.yardstick]
    boxes = {
        "machine at T": norm(evaluation.errors(0)),
        "machine at 2T": norm(evaluation.errors(1)),
        name: norm(evaluation.yardstick_errors),
    }
    axes.boxplot(list(boxes.values()), tick_labels=list(boxes), flierprops={"markersize": 2})
    axes.set(
        ylabel="|| theta* - E[theta] ||", yscale="log", title=f"{len(evaluation.theta)} problems, 100 observations each"
    )


def _histograms(figure: Figure, problem: Problem, evaluation: Accuracy) -> None:
    """Real against simulated data at the inferred parameters, for three theta* (the paper's Figure 3, right)."""
    grid = figure.add_gridspec(3, 2)
    for row in range(3):
        axes = figure.add_subplot(grid[row, 1])
        truth, found = evaluation.theta[row], evaluation.mean[0, row]
        x = simulate(jax.random.key(3), problem.simulator, theta=jnp.stack([truth, found]), num_observations=20_000).x
        axes.hist(np.asarray(x[0]), bins=40, density=True, histtype="step", label="at theta*")
        axes.hist(np.asarray(x[1]), bins=40, density=True, alpha=0.4, label="at the machine's answer")
        show = lambda theta: "[" + ", ".join(f"{value:.2f}" for value in theta) + "]"
        axes.set_title(f"theta* {show(truth)}, machine {show(found)}", fontsize=9)
        if row == 0:
            axes.legend(fontsize=7)
        if row == 2:
            axes.set_xlabel("cosine of the scattering angle")


def _animate(path: Path, problem: Problem, untrained: RecurrentMachine, machine: RecurrentMachine) -> None:
    """The proposal's movement for one problem, before and after meta-training, as on the paper's poster."""
    truth = jnp.array([[3.0]])
    x = simulate(jax.random.key(4), problem.simulator, theta=truth, num_observations=100).x
    grid = np.linspace(0.21, 6.99, 400)[:, None]
    density = lambda m: np.exp(
        jax.vmap(lambda psi: MixturePosterior(m.space, psi[None]).log_prob(grid))(
            trajectories(m, jax.random.key(5), x)[0]
        )
    )
    curves = {"before meta-training": density(untrained), "after meta-training": density(machine)}
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    lines = {}
    for axes, (title, values) in zip(figure.subplots(1, 2), curves.items(), strict=True):
        (lines[title],) = axes.plot(grid[:, 0], values[0] / values[0].max())
        axes.axvline(3.0, color="gray", linestyle=":")
        axes.set(title=title, xlabel="log rate", yticks=[], ylim=(0, 1.1))

    def draw(frame: int) -> list:
        for title, line in lines.items():
            line.set_ydata(curves[title][frame] / curves[title][frame].max())
        figure.suptitle(f"q(theta | psi), height scaled, iteration {frame + 1}; dotted: theta*")
        return list(lines.values())

    frames = machine.num_iterations
    FuncAnimation(figure, draw, frames=frames).save(path, writer=PillowWriter(fps=3), dpi=70)
