"""Figures: pure functions from records to Matplotlib figures. They touch nothing global, and no screen."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..answers.answer import Answer
from ..answers.bayes.posterior import AbstractPosterior, MixturePosterior
from ..core.tables import estimate_text, observation_columns
from ..methods.local.zoom import QUANTILES
from ..methods.recurrent.machine import RecurrentMachine
from ..sample.black_box import AbstractJaxSimulator

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

MOST_PARAMETERS, MOST_COMPONENTS = 6, 4
NUM_REPLICATES, MOST_SIMULATED = 40, 5000
BLUE, ORANGE, DARK = "#3b6ea5", "#d9822b", "#222222"


def plot(answer: Answer, path: str | Path | None = None) -> "Figure":
    """What was learned, in one figure; saved (PNG, PDF or SVG, by the name) where a path is given.

    Of a posterior: left, for each parameter (at most six), the median and the central 50 and 95 % after every iteration
    of a recurrent machine and every round of simulations, with the maximum likelihood estimate where the simulator
    knows it. Where there were rounds, the axis is stretched around the answer, so that the last can be seen. For one or
    two parameters also their posterior; for one, before the exact one where it is known.

    Right, for each component of an observation (at most four), the share of the data in each bin, and that of
    simulations at draws from the answer (median, central 90 %). A simulator that runs on the host is not started for a
    figure: of a machine, the set of its bank nearest to the answer is shown instead.

    Of a likelihood: the confidence region of every parameter at 95 %, and of two together.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    if answer.inferred is None:
        _regions(figure, answer)
    else:
        _inference(figure, answer)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    return figure


def _regions(figure: "Figure", answer: Answer) -> None:
    regions = answer.regions()
    figure.set_size_inches(4.5 * len(regions), 4)
    for region, axes in zip(regions, figure.subplots(1, len(regions), squeeze=False)[0], strict=True):
        region.plot(axes)


def _inference(figure: "Figure", answer: Answer) -> None:
    x = np.asarray(answer.x)
    dim = min(answer.simulator.prior.dim, MOST_PARAMETERS)
    components = min(int(np.prod(x.shape[1:], dtype=int)), MOST_COMPONENTS)
    tall = 2.2 + 2.2 * max(math.ceil(dim / 2), math.ceil(components / 2), 1.3)
    figure.set_size_inches(11, min(tall, 10))
    figure.suptitle(_title(answer.posterior, answer.simulator.name, len(x)), fontsize=12)
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=(1.1, 1)))
    _closing_in(left, answer)
    _against_simulations(right, answer, x)


def _title(proposal: AbstractPosterior, name: str, count: int) -> str:
    texts = [f"{column} = {estimate_text(row['mean'], row['std'])}" for column, row in proposal.summary().items()]
    more = f", and {len(texts) - 3} more" if len(texts) > 3 else ""
    observations = "1 observation" if count == 1 else f"{count:,} observations"
    return f"{name}: {', '.join(texts[:3])}{more}\nfrom {observations}"


# -- left: what led to the answer --------------------------------------------------------------------


def _closing_in(figure: "SubFigure", answer: Answer) -> None:
    names, bands = _trail(answer)
    known, columns = _known(answer), answer.simulator.prior.columns[:MOST_PARAMETERS]
    rounds = sum(name.startswith("R") for name in names)
    with_density = len(columns) <= 2
    shape = (2, len(columns)) if with_density else (math.ceil(len(columns) / 2), 2)
    axes = np.atleast_2d(figure.subplots(*shape, squeeze=False))
    for index, column in enumerate(columns):
        axis = axes[0, index] if with_density else axes.ravel()[index]
        _band(axis, bands[..., index], None if known is None else known[index])
        if rounds:
            _stretched(axis, bands[..., index])
        places = np.unique(np.linspace(0, len(names) - 1, 9).astype(int)) if not rounds else np.arange(len(names))
        shown = [place for place in places if names[place].startswith("R") or place % 5 == 0 or not rounds]
        axis.set_xticks(shown, [names[place] for place in shown])
        axis.set_ylabel(column)
        axis.set_xlabel(_steps(names))
        if with_density:
            _density(axes[1, index], answer, index)
    for empty in axes.ravel()[len(columns) * (1 + with_density) :]:
        empty.set_visible(False)
    axes[0, 0].legend(fontsize=8, frameon=False)
    figure.suptitle("Closing in", fontsize=11)


def _steps(names: list[str]) -> str:
    parts = ["iteration of the machine"] * any(not name.startswith("R") for name in names)
    return ", ".join([*parts, *["round of simulations (R)"] * any(name.startswith("R") for name in names)])


def _trail(answer: Answer) -> tuple[list[str], np.ndarray]:
    """What every step is called: iterations 1, 2, ..., rounds R1, R2, ...; and its quantiles `(steps, 5, dim)`."""
    names, parts = [], []
    for solution in (answer.before, answer.inferred):
        if solution is None:
            continue
        if "psi" in solution.history:
            psi = np.asarray(solution.history["psi"])
            first = int(solution.statistics["num_iterations"]) + 1 - len(psi)
            names += [str(first + k) for k in range(len(psi))]
            value: Any = solution.value
            parts.append(_bands(value, psi))
        else:
            rounds = solution.history.get("quantiles", [solution.value.quantile(QUANTILES)])
            names += [f"R{k + 1}" for k in range(len(rounds))]
            parts.append(np.asarray(rounds))
    return names, np.concatenate(parts)


def _bands(posterior: MixturePosterior, psi: np.ndarray) -> np.ndarray:
    """Marginal quantiles `(T, 5, dim)` of every proposal."""
    levels = jnp.array(QUANTILES)
    return np.stack(
        [np.asarray(MixturePosterior(posterior.space, jnp.asarray(each)[None]).quantile(levels)) for each in psi]
    )


def _known(answer: Answer) -> np.ndarray | None:
    """The maximum likelihood estimate `(dim,)`, where the simulator knows it."""
    simulator = answer.simulator
    if not isinstance(simulator, AbstractJaxSimulator) or simulator.exact.mle is None:
        return None
    return np.asarray(simulator.exact.mle(jnp.asarray(answer.x)))


def _band(axis: "Axes", band: np.ndarray, known: Any) -> None:
    steps = np.arange(len(band))
    axis.fill_between(steps, band[:, 0], band[:, 4], color=BLUE, alpha=0.2, lw=0, label="95 %")
    axis.fill_between(steps, band[:, 1], band[:, 3], color=BLUE, alpha=0.4, lw=0, label="50 %")
    axis.plot(steps, band[:, 2], color=BLUE, marker=".", label="median")
    if known is not None:
        axis.axhline(float(known), color=DARK, ls="--", lw=1, label="maximum likelihood")


def _stretched(axis: "Axes", band: np.ndarray) -> None:
    """Distances from the answer on an arcsinh axis: linear within its width, logarithmic beyond."""
    from matplotlib.ticker import NullLocator

    middle, width = band[-1, 2], max(float(band[-1, 4] - band[-1, 0]) / 4, 1e-12)
    stretch = lambda y: np.arcsinh((np.asarray(y) - middle) / width)
    axis.set_yscale("function", functions=(stretch, lambda s: middle + width * np.sinh(s)))
    low, high = float(band[:, 0].min()), float(band[:, 4].max())
    places = [middle + width * step for step in (-1000, -100, -10, -2, 0, 2, 10, 100, 1000)]
    axis.set_yticks([place for place in places if low <= place <= high])
    digits = max(0, 1 - math.floor(math.log10(width)))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.{digits}f}")
    axis.yaxis.set_minor_locator(NullLocator())


def _density(axis: "Axes", answer: Answer, index: int) -> None:
    """The posterior of one parameter, before the exact one where there is one parameter and its likelihood is known."""
    values = np.asarray(answer.posterior.points)[:, index]
    at = np.linspace(values.mean() - 5 * values.std(), values.mean() + 5 * values.std(), 400)
    exact = _exact_density(answer, at)
    if exact is not None:
        axis.fill_between(at, exact, color="0.8", lw=0, label="exact posterior")
    axis.hist(values, bins=40, density=True, histtype="step", color=BLUE, label="posterior")
    axis.set_xlabel(answer.simulator.prior.columns[index])
    axis.set_yticks([])
    axis.legend(fontsize=8, frameon=False)


def _exact_density(answer: Answer, at: np.ndarray) -> np.ndarray | None:
    simulator = answer.simulator
    if simulator.prior.dim > 1 or not isinstance(simulator, AbstractJaxSimulator):
        return None
    log_likelihood = simulator.exact.log_likelihood
    if log_likelihood is None:
        return None
    theta = jnp.asarray(at, jnp.float32)[:, None]
    value = np.asarray(jax.vmap(lambda each: log_likelihood(each, answer.x))(theta), np.float64)
    value = value + np.asarray(simulator.prior.log_prob(theta), np.float64)
    density = np.exp(value - value.max())
    return density / (density.sum() * (at[1] - at[0]))


# -- right: data -----------------------------------------------------------------------------------


def _against_simulations(figure: "SubFigure", answer: Answer, x: np.ndarray) -> None:
    simulated, label = _simulated(answer, len(x))
    data = x.reshape(len(x), -1)
    simulated = simulated.reshape(*simulated.shape[:2], data.shape[1])
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


def _simulated(answer: Answer, count: int) -> tuple[np.ndarray, str]:
    """Simulated sets `(r, m, *event)`, and what they are; none where the simulator cannot be run."""
    simulator, posterior, machine = answer.simulator, answer.posterior, answer.estimator
    if isinstance(simulator, AbstractJaxSimulator):
        theta_key, x_key = jax.random.split(jax.random.key(0))  # a fixed key: the same answer gives the same figure
        theta = posterior.sample(theta_key, NUM_REPLICATES)
        x, _ = simulator.draw(x_key, theta, min(count, MOST_SIMULATED))
        return x[np.isfinite(x).reshape(len(x), -1).all(axis=1)], "simulated at the answer, 90 %"
    if not isinstance(machine, RecurrentMachine):
        return np.empty((0, 1, *np.shape(answer.x)[1:])), ""
    u = np.asarray(machine.space.encode(machine.novelty.theta))
    middle = np.asarray(machine.space.encode(posterior.mean))
    nearest = int(np.argmin(np.linalg.norm(u - middle, axis=-1)))
    return np.asarray(machine.novelty.x)[nearest : nearest + 1], "the simulated set nearest to the answer"


def _histogram(axis: "Axes", data: np.ndarray, simulated: np.ndarray, label: str) -> None:
    edges = _edges(data)
    middles = (edges[1:] + edges[:-1]) / 2
    share = lambda values: np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values)
    if len(simulated):
        shares = np.stack([share(values) for values in simulated])
        low, middle, high = np.quantile(shares, [0.05, 0.5, 0.95], axis=0)
        axis.stairs(high, edges, baseline=low, fill=True, color=ORANGE, alpha=0.35, label=label)
        axis.stairs(middle, edges, color=ORANGE)
    if np.all(data == np.round(data)):
        axis.locator_params(axis="x", integer=True)
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
