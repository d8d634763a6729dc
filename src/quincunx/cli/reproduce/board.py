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
from ...core.fit import Training
from ...gold.mine import mine
from ...gold.mined import MinedSimulator
from ...gold.reference import MarginalReference, PointReference
from ...methods import ALICE, ALICES, CARL, CASCAL, NLE, RASCAL, ROLR, SALLINO, SALLY, SCANDAL
from ...methods.door import train
from ...methods.method import Method
from ...methods.nets.densities.flows import Flow
from ...methods.nets.mlp import MLP
from ...problems import galton, galton_board, galton_distribution, galton_positions
from .figures import save

PAIR = (-0.8, -0.6)
SIZES = (200, 500, 1000, 2000, 5000, 10_000)
NUM_SEEDS = 10
NUM_STEPS = 1500

# Mean squared error of log r under p(x | theta_1), read off the plot in the authors' repository
# `johannbrehmer/simulator-mining-example`. The other methods were never run on this board.
PUBLISHED: Mapping[str, tuple[float, ...]] = {
    "carl": (0.133, 0.150, 0.115, 0.088, 0.048, 0.020),
    "nle": (0.082, 0.077, 0.069, 0.052, 0.018, 0.004),
    "rolr": (0.058, 0.029, 0.013, 0.005, 0.003, 0.003),
    "rascal": (0.019, 0.0105, 0.007, 0.004, 0.002, 0.002),
    "scandal": (0.0175, 0.0055, 0.0035, 0.0022, 0.0015, 0.0012),
}

STRESS_ROWS, STRESS_NAILS, STRESS_PAIR, STRESS_SIZE = 200, 301, (-1.0, -0.4), 20_000
LOCAL = "sally, local model"


NETWORK = MLP((32, 32), members=5, activation="tanh")
FLOW = Flow(width=16, knots=6)


def methods(theta_reference: float, batch_size: int) -> dict[str, Method]:
    """Every method of the family, with the same networks and batches, against one point."""
    at = [theta_reference]
    point: Any = {"reference": PointReference(at), "network": NETWORK, "batch_size": batch_size}
    score: Any = {"theta_reference": np.array(at), "network": NETWORK, "batch_size": batch_size}
    density: Any = {"network": FLOW, "batch_size": batch_size}
    return {
        **{make().name: make(**point) for make in (CARL, ROLR, CASCAL, ALICE, RASCAL, ALICES)},
        **{make().name: make(**density) for make in (NLE, SCANDAL)},
        **{make().name: make(**score) for make in (SALLY, SALLINO)},
    }


def estimate(board: MinedSimulator, method: Method, num_simulations: int, seed: int) -> AbstractRatio:
    """One estimator, from `num_simulations` simulations in all, as a user would train it."""
    key = jax.random.fold_in(jax.random.key(seed), num_simulations)
    return train(key, board, method, num_simulations=num_simulations, training=_training(num_simulations)).value


def local_estimate(board: MinedSimulator, method: Method, num_simulations: int, seed: int) -> AbstractRatio:
    """SALLY without a simulator to fill histograms: the local model, with all simulations in the score."""
    key = jax.random.fold_in(jax.random.key(seed), num_simulations)
    sims = mine(key, board, num_simulations=num_simulations, theta=np.array([[PAIR[1]]]), reference=None)
    return train(key, None, method, sims=sims, training=_training(num_simulations)).value


def _training(num_simulations: int) -> Training:
    return Training(num_steps=NUM_STEPS, weight_decay=1000 / num_simulations, validation_fraction=0.0)


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
    for name in [*methods(PAIR[1], 128), LOCAL]:
        begun = time.perf_counter()
        make = local_estimate if name == LOCAL else estimate
        errors[name] = {
            str(size): [
                error(galton, make(galton, methods(PAIR[1], min(128, size))[name.split(",")[0]], size, seed), PAIR)
                for seed in range(num_seeds)
            ]
            for size in sizes
        }
        medians = " ".join(f"{np.median(values):.5f}" for values in errors[name].values())
        say(f"galton {name}: {medians} ({time.perf_counter() - begun:.0f} s)")
    return {"nothing": nothing(galton, PAIR), "errors": errors, "stress": stress(say)}


def stress(say, num_seeds: int = 3) -> dict[str, Any]:
    """200 rows and a distant pair: joint ratios to a point are wild, to the marginal they are not."""
    board = galton_board(STRESS_ROWS, num_nails=STRESS_NAILS)
    point = PointReference([STRESS_PAIR[1]])
    references = {"point": point, "point, plain": point, "marginal": MarginalReference()}
    errors: dict[str, dict[str, list[float]]] = {name: {} for name in references}
    for name, reference in references.items():
        form = "plain" if "plain" in name else None
        for make in (ROLR, ALICE, RASCAL, ALICES):
            method = make(reference=reference, form=form, network=NETWORK)
            found = [estimate(board, method, STRESS_SIZE, seed) for seed in range(num_seeds)]
            errors[name][method.name] = [error(board, each, STRESS_PAIR) for each in found]
            say(f"stress, {name} reference, {method.name}: {np.median(errors[name][method.name]):.4g}")
    errors["none"] = {}
    for make in (SCANDAL, NLE):
        method = make(network=FLOW)
        found = [estimate(board, method, STRESS_SIZE, seed) for seed in range(num_seeds)]
        errors["none"][method.name] = [error(board, each, STRESS_PAIR) for each in found]
        say(f"stress, no reference, {method.name}: {np.median(errors['none'][method.name]):.4g}")
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
