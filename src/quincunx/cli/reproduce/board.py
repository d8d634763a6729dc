"""The Galton board: error of the log-ratio against the number of simulations, by ten methods, and a stress test."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from ...answers.estimates import AbstractRatio
from ...core.fit import Training, fit
from ...gold.mine import mine
from ...gold.mined import MinedSimulator
from ...gold.reference import AbstractReference, MarginalReference, PointReference
from ...methods import density, ratio, score
from ...methods.binning.grid import theta_grid
from ...methods.histogram import ProjectedHistogramRatio
from ...methods.train_ratio import DENSITY_LOSSES, RATIO_LOSSES
from ...problems import galton, galton_board, galton_distribution, galton_positions
from ...sample.simulate import simulate
from .figures import save

PAIR = (-0.8, -0.6)
SIZES = (200, 500, 1000, 2000, 5000, 10_000)
METHODS = ("carl", "rolr", "cascal", "alice", "rascal", "alices", "nde", "scandal", "sally", "sallino")
NUM_SEEDS = 10
NUM_STEPS = 1500

# Mean squared error of log r under p(x | theta_1), read off the plot in the authors' repository
# `johannbrehmer/simulator-mining-example`. The other methods were never run on this board.
PUBLISHED: Mapping[str, tuple[float, ...]] = {
    "carl": (0.133, 0.150, 0.115, 0.088, 0.048, 0.020),
    "nde": (0.082, 0.077, 0.069, 0.052, 0.018, 0.004),
    "rolr": (0.058, 0.029, 0.013, 0.005, 0.003, 0.003),
    "rascal": (0.019, 0.0105, 0.007, 0.004, 0.002, 0.002),
    "scandal": (0.0175, 0.0055, 0.0035, 0.0022, 0.0015, 0.0012),
}

STRESS_ROWS, STRESS_NAILS, STRESS_PAIR, STRESS_SIZE = 200, 301, (-1.0, -0.4), 20_000
STRESS_METHODS = ("rolr", "alice", "rascal", "alices")


def train(
    board: MinedSimulator,
    method: str,
    num_simulations: int,
    seed: int,
    reference: AbstractReference | None = None,
    form: str | None = None,
) -> AbstractRatio:
    """One estimator, from `num_simulations` simulations in all. Every method has the same network and training."""
    data_key, net_key, fit_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), num_simulations), 3)
    reference = reference or PointReference([PAIR[1]])
    training = Training(num_steps=NUM_STEPS, weight_decay=1000 / num_simulations, validation_fraction=0.0)
    network: dict[str, Any] = {"key": net_key, "widths": (32, 32), "num_members": 5, "activation": "tanh"}
    batch = {"batch_size": min(128, num_simulations)}
    if method in RATIO_LOSSES:
        sims = mine(data_key, board, num_simulations=num_simulations, reference=reference)
        net = ratio.RatioEstimator.for_simulations(sims, form=form, **network)
        return fit(fit_key, net, RATIO_LOSSES[method](**batch), sims, training=training).value
    if method in DENSITY_LOSSES:
        sims = mine(data_key, board, num_simulations=num_simulations, reference=None)
        flow = density.DensityEstimator.for_simulations(sims, key=net_key, width=16, knots=6)
        return fit(fit_key, flow, DENSITY_LOSSES[method](**batch), sims, training=training).value
    at = reference.theta if isinstance(reference, PointReference) else jnp.array([PAIR[1]])
    share = num_simulations if method == "sally" else num_simulations // 2
    sims = mine(data_key, board, num_simulations=share, theta=at[None], reference=None)
    scores = fit(
        fit_key, score.ScoreEstimator.for_simulations(sims, **network), score.SALLY(**batch), sims, training=training
    ).value
    if method == "sally":
        return score.local_ratio(scores, sims)
    filled = _on_grid(board, jax.random.fold_in(data_key, 1), num_simulations - share)
    return ProjectedHistogramRatio.for_simulations(filled, summary=scores, theta_reference=at)


def _on_grid(board: MinedSimulator, key: jax.Array, num_simulations: int):
    grid = np.asarray(theta_grid(board.prior, 10))
    return simulate(key, board, theta=grid[np.arange(num_simulations) % len(grid)])


def error(board: MinedSimulator, estimate: AbstractRatio, pair: Sequence[float]) -> float:
    """E_{p(x | theta_1)} of (estimated log r - log r)^2, exactly, for the pair (theta_0, theta_1)."""
    x = jnp.asarray(galton_positions(board), jnp.float32)
    law = [np.asarray(galton_distribution(board, jnp.array([theta])), np.float64) for theta in pair]
    found = [np.asarray(estimate.log_ratio(jnp.array([theta]), x), np.float64) for theta in pair]
    possible = law[1] > 0
    difference = (found[0] - found[1] - np.log(law[0] / law[1]))[possible]
    return float(np.sum(law[1][possible] * difference**2))


def nothing(board: MinedSimulator, pair: Sequence[float]) -> float:
    """The same error for the estimate r = 1."""
    law = [np.asarray(galton_distribution(board, jnp.array([theta])), np.float64) for theta in pair]
    possible = law[1] > 0
    return float(np.sum((law[1] * np.log(law[0] / law[1]) ** 2)[possible]))


def run(say, sizes: Sequence[int] = SIZES, num_seeds: int = NUM_SEEDS) -> dict[str, Any]:
    """Errors by method and size, one for each seed, and of the stress test."""
    errors: dict[str, dict[str, list[float]]] = {}
    for method in METHODS:
        begun = time.perf_counter()
        errors[method] = {
            str(size): [error(galton, train(galton, method, size, seed), PAIR) for seed in range(num_seeds)]
            for size in sizes
        }
        medians = " ".join(f"{np.median(values):.5f}" for values in errors[method].values())
        say(f"galton {method}: {medians} ({time.perf_counter() - begun:.0f} s)")
    return {"nothing": nothing(galton, PAIR), "errors": errors, "stress": stress(say)}


def stress(say, num_seeds: int = 3) -> dict[str, Any]:
    """200 rows and a distant pair: joint ratios to a point are wild, to the marginal they are not."""
    board = galton_board(STRESS_ROWS, num_nails=STRESS_NAILS)
    point = PointReference([STRESS_PAIR[1]])
    references = {"point": point, "point, plain": point, "marginal": MarginalReference()}
    errors: dict[str, dict[str, list[float]]] = {name: {} for name in references}
    for name, reference in references.items():
        form = "plain" if "plain" in name else None
        for method in STRESS_METHODS:
            found = [train(board, method, STRESS_SIZE, seed, reference, form) for seed in range(num_seeds)]
            errors[name][method] = [error(board, each, STRESS_PAIR) for each in found]
            say(f"stress, {name} reference, {method}: {np.median(errors[name][method]):.4g}")
    errors["none"] = {}
    for method in ("scandal", "nde"):
        found = [train(board, method, STRESS_SIZE, seed) for seed in range(num_seeds)]
        errors["none"][method] = [error(board, each, STRESS_PAIR) for each in found]
        say(f"stress, no reference, {method}: {np.median(errors['none'][method]):.4g}")
    spread = {}
    for name, reference in references.items():
        log_ratio = np.asarray(mine(jax.random.key(9), board, num_simulations=20_000, reference=reference).log_ratio)
        spread[name] = float(np.std(log_ratio)), float(np.max(log_ratio))
    return {"nothing": nothing(board, STRESS_PAIR), "errors": errors, "std_and_max_of_joint_log_ratio": spread}


def tables(results: Mapping[str, Any]) -> str:
    """The numbers as Markdown."""
    sizes = list(next(iter(results["errors"].values())))
    lines = ["| method | " + " | ".join(sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    for method, by_size in results["errors"].items():
        lines.append(f"| {method} | " + " | ".join(f"{np.median(v):.4f}" for v in by_size.values()) + " |")
        if method in PUBLISHED:
            row = [PUBLISHED[method][SIZES.index(int(size))] for size in sizes]
            lines.append(f"| published {method} | " + " | ".join(f"{value:.4f}" for value in row) + " |")
    lines += ["", "| reference | method | error, median of three seeds |", "|---|---|---|"]
    for name, by_method in results["stress"]["errors"].items():
        lines += [f"| {name} | {method} | {np.median(values):.4g} |" for method, values in by_method.items()]
    lines += [f"|  | r = 1 everywhere | {results['stress']['nothing']:.4g} |", ""]
    return "\n".join(lines)


def figure(results: Mapping[str, Any], path: Path) -> None:
    """Error against size: ours as lines, the published as crosses of the same colour."""
    drawing = Figure(figsize=(8, 5), layout="constrained")
    axes = drawing.subplots()
    for index, (method, by_size) in enumerate(results["errors"].items()):
        sizes, values = [int(size) for size in by_size], np.array(list(by_size.values()))
        colour = f"C{index}"
        axes.plot(sizes, np.median(values, axis=1), marker="o", ms=3, color=colour, label=method)
        if method in PUBLISHED:
            published = [PUBLISHED[method][SIZES.index(size)] for size in sizes]
            axes.plot(sizes, published, "x", color=colour)
    axes.axhline(results["nothing"], color="gray", ls=":", label="predicting r = 1")
    axes.set(
        xscale="log", yscale="log", xlabel="simulations", ylabel="mean squared error of log r",
        title="Galton board, theta = -0.8 against -0.6; crosses: published",
    )  # fmt: skip
    axes.legend(fontsize=8, ncols=2)
    save(drawing, path)
