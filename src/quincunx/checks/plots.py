"""Figures: pure functions from records to Matplotlib figures. They touch nothing global, and no screen."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..answers.answer import Answer
from ..answers.bayes.posterior import MixturePosterior
from ..core.solution import Solution
from ..core.tables import estimate_text, observation_columns
from ..methods.machine import RecurrentMachine
from ..sample.black_box import AbstractJaxSimulator

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

MOST_PARAMETERS, MOST_COMPONENTS = 6, 4
NUM_REPLICATES, MOST_SIMULATED = 40, 5000
BLUE, ORANGE, DARK = "#3b6ea5", "#d9822b", "#222222"


def plot(answer: Answer, path: str | Path | None = None) -> "Figure":
    """What was learned, in one figure; saved (PNG, PDF or SVG, by the name) where a path is given.

    Of a posterior by a recurrent machine: left, for each parameter (at most six), the median and the central 50 and
    95 % of the proposal after every iteration, with the maximum likelihood estimate where the simulator knows it; for
    one or two parameters also the width, on a logarithmic axis. Right, for each component of an observation (at most
    four), the share of the data in each bin, and that of simulations at draws from the answer (median, central
    90 %). A simulator that runs on the host is not started for a figure: the set of the bank nearest to the
    answer is shown instead. Of a likelihood: the confidence region of every parameter at 95 %, and of two together.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    machine, solution = answer.estimator, answer.inferred
    if solution is None or not isinstance(machine, RecurrentMachine):
        _regions(figure, answer)
    else:
        _inference(figure, solution, machine, np.asarray(answer.x))
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    return figure


def _regions(figure: "Figure", answer: Answer) -> None:
    regions = answer.regions()
    figure.set_size_inches(4.5 * len(regions), 4)
    for region, axes in zip(regions, figure.subplots(1, len(regions), squeeze=False)[0], strict=True):
        region.plot(axes)


def _inference(figure: "Figure", solution: Solution[Any], machine: RecurrentMachine, x: np.ndarray) -> None:
    dim = min(machine.prior.dim, MOST_PARAMETERS)
    components = min(int(np.prod(x.shape[1:], dtype=int)), MOST_COMPONENTS)
    tall = 2.2 + 2.2 * max(math.ceil(dim / 2), math.ceil(components / 2), 1.3)
    figure.set_size_inches(11, min(tall, 10))
    figure.suptitle(_title(solution.value, machine.simulator.name, len(x)), fontsize=12)
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=(1.1, 1)))
    _closing_in(left, solution, machine, x)
    _against_simulations(right, solution.value, machine, x)


def _title(proposal: MixturePosterior, name: str, count: int) -> str:
    texts = [f"{column} = {estimate_text(row['mean'], row['std'])}" for column, row in proposal.summary().items()]
    more = f", and {len(texts) - 3} more" if len(texts) > 3 else ""
    observations = "1 observation" if count == 1 else f"{count:,} observations"
    return f"{name}: {', '.join(texts[:3])}{more}\nfrom {observations}"


# -- left: iterations ------------------------------------------------------------------------------


def _closing_in(
    figure: "SubFigure", solution: Solution[MixturePosterior], machine: RecurrentMachine, x: np.ndarray
) -> None:
    psi = np.asarray(solution.history["psi"])
    first = int(solution.statistics["num_iterations"]) + 1 - len(psi)
    iterations = np.arange(first, first + len(psi))
    bands = _bands(machine, psi)
    known = _known(machine, x)
    columns = machine.prior.columns[:MOST_PARAMETERS]
    with_width = len(columns) <= 2
    shape = (2, len(columns)) if with_width else (math.ceil(len(columns) / 2), 2)
    axes = np.atleast_2d(figure.subplots(*shape, squeeze=False, sharex=True))
    top = axes[0] if with_width else axes.ravel()
    for index, column in enumerate(columns):
        _band(top[index], iterations, bands[..., index], None if known is None else known[index])
        top[index].set_ylabel(column)
        if with_width:
            axes[1, index].semilogy(iterations, np.asarray(solution.history["std"])[:, index], color=BLUE, marker=".")
            axes[1, index].set_ylabel(f"std of {column}")
    for empty in axes.ravel()[len(columns) * (1 + with_width) :]:
        empty.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("iteration")
    top[0].legend(fontsize=8, frameon=False)
    figure.suptitle("The proposal closes in", fontsize=11)


def _bands(machine: RecurrentMachine, psi: np.ndarray) -> np.ndarray:
    """Marginal quantiles `(T, 5, dim)` of every proposal."""
    levels = jnp.array([0.025, 0.25, 0.5, 0.75, 0.975])
    return np.stack(
        [np.asarray(MixturePosterior(machine.space, jnp.asarray(each)[None]).quantile(levels)) for each in psi]
    )


def _known(machine: RecurrentMachine, x: np.ndarray) -> np.ndarray | None:
    """The maximum likelihood estimate `(dim,)`, where the simulator knows it."""
    simulator = machine.simulator
    if not isinstance(simulator, AbstractJaxSimulator) or simulator.exact.mle is None:
        return None
    return np.asarray(simulator.exact.mle(jnp.asarray(x)))


def _band(axis: "Axes", iterations: np.ndarray, band: np.ndarray, known: Any) -> None:
    axis.fill_between(iterations, band[:, 0], band[:, 4], color=BLUE, alpha=0.2, lw=0, label="95 % of the proposal")
    axis.fill_between(iterations, band[:, 1], band[:, 3], color=BLUE, alpha=0.4, lw=0, label="50 %")
    axis.plot(iterations, band[:, 2], color=BLUE, label="median")
    if known is not None:
        axis.axhline(float(known), color=DARK, ls="--", lw=1, label="maximum likelihood")


# -- right: data -----------------------------------------------------------------------------------


def _against_simulations(
    figure: "SubFigure", proposal: MixturePosterior, machine: RecurrentMachine, x: np.ndarray
) -> None:
    simulated, label = _simulated(proposal, machine, len(x))
    data, simulated = x.reshape(len(x), -1), simulated.reshape(*simulated.shape[:2], -1)
    names = observation_columns(x.shape[1:])[:MOST_COMPONENTS]
    columns = 1 if len(names) == 1 else 2
    axes = figure.subplots(math.ceil(len(names) / columns), columns, squeeze=False).ravel()
    for index, name in enumerate(names):
        _histogram(axes[index], data[:, index], simulated[..., index], label)
        axes[index].set_xlabel(name)
    for empty in axes[len(names) :]:
        empty.set_visible(False)
    axes[0].set_ylabel("share of the observations")
    axes[0].legend(fontsize=8, frameon=False)
    figure.suptitle("The data, and simulations at the answer", fontsize=11)


def _simulated(proposal: MixturePosterior, machine: RecurrentMachine, count: int) -> tuple[np.ndarray, str]:
    """Simulated sets `(r, m, *event)`, and what they are."""
    if isinstance(machine.simulator, AbstractJaxSimulator):
        theta_key, x_key = jax.random.split(jax.random.key(0))  # a fixed key: the same answer gives the same figure
        theta = proposal.sample(theta_key, NUM_REPLICATES)
        x, _ = machine.simulator.draw(x_key, theta, min(count, MOST_SIMULATED))
        return x[np.isfinite(x).reshape(len(x), -1).all(axis=1)], "simulated at the answer, 90 %"
    u = np.asarray(machine.space.encode(machine.novelty.theta))
    answer = np.asarray(machine.space.encode(proposal.mean))
    nearest = int(np.argmin(np.linalg.norm(u - answer, axis=-1)))
    return np.asarray(machine.novelty.x)[nearest : nearest + 1], "the simulated set nearest to the answer"


def _histogram(axis: "Axes", data: np.ndarray, simulated: np.ndarray, label: str) -> None:
    edges = _edges(data)
    middles = (edges[1:] + edges[:-1]) / 2
    share = lambda values: np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
    shares = np.stack([share(values) for values in simulated])
    low, middle, high = np.quantile(shares, [0.05, 0.5, 0.95], axis=0)
    axis.stairs(high, edges, baseline=low, fill=True, color=ORANGE, alpha=0.35, label=label)
    axis.stairs(middle, edges, color=ORANGE)
    axis.plot(middles, share(data), "o", color=DARK, ms=3.5, label="data")
    axis.set_ylim(bottom=0)


def _edges(data: np.ndarray) -> np.ndarray:
    """Edges of about 40 bins at most; whole numbers stand in the middle of theirs. The outer bins take the rest."""
    whole = bool(np.all(data == np.round(data)))
    low, high = (data.min(), data.max()) if whole else np.quantile(data, [0.005, 0.995])
    if whole:
        width = max(1.0, np.ceil((high - low) / 40))
        return np.arange(low - width, high + 2.5 * width, width) - 0.5
    margin = 0.1 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, 31)
