"""Effective field theory: error of the log-ratio against the number of simulations, and what gold is worth."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from ...answers.estimates import AbstractRatio, ExactRatio
from ...core.fit import Training
from ...gold.reference import PointReference
from ...methods import ALICE, ALICES, CARL, CASCAL, NLE, RASCAL, ROLR, SALLINO, SALLY, SCANDAL, Histogram
from ...methods.door import train
from ...methods.method import Method
from ...methods.nets.densities.flows import Flow
from ...problems import eft
from ...sample.simulate import simulate
from .figures import save

SIZES = (1000, 10_000, 100_000, 1_000_000)
STANDARD_MODEL = jnp.zeros(2)
NUM_SEEDS = 3
BATCHES = {1_000_000: 512, 100_000: 256}  # 128 for fewer
STEPS = {1_000_000: 10_000, 100_000: 6000}  # 4,000 for fewer

# Prior-averaged error on the lecture's example 1 at 1e7 events: WBF h -> 4l, 42 observables, joint ratios and scores
# that hold almost no latent noise (notebooks of Brehmer, Cranmer, Louppe, Pavez). Another problem: the order, not the
# numbers, can be compared.
PUBLISHED = {
    "alice": 0.0004, "cascal": 0.0008, "rascal": 0.0009, "alices": 0.0012, "rolr": 0.0032, "carl": 0.0124,
    "sally": 0.0132, "sallino": 0.0213, "histogram": 0.0561,
}  # fmt: skip


class Judge:
    """E over theta ~ prior and x ~ p(x | Standard Model) of (estimated log r(x | theta, SM) - log r)^2."""

    def __init__(self, num_thetas: int = 200, num_events: int = 2000):
        self.theta = eft.prior.sample(jax.random.key(77), num_thetas)
        self.x = simulate(jax.random.key(5), eft, theta=STANDARD_MODEL[None], num_observations=num_events).x[0]
        self.truth = self.log_ratios(ExactRatio(eft))

    def log_ratios(self, estimate: AbstractRatio) -> np.ndarray:
        """`(num_thetas, num_events)`."""
        at = jax.jit(lambda theta: estimate.log_ratio(theta, self.x))
        return np.stack([np.asarray(at(theta) - at(STANDARD_MODEL), np.float64) for theta in self.theta])

    def __call__(self, estimate: AbstractRatio) -> float:
        return float(np.mean((self.log_ratios(estimate) - self.truth) ** 2))

    @property
    def nothing(self) -> float:
        """The error of r = 1."""
        return float(np.mean(self.truth**2))


def methods(batch_size: int) -> dict[str, Method]:
    """Every method, against the Standard Model."""
    at = PointReference(STANDARD_MODEL)
    batch: Any = {"batch_size": batch_size}
    return {
        "histogram": Histogram(reference=at),
        **{make().name: make(reference=at, **batch) for make in (CARL, ROLR, CASCAL, ALICE, RASCAL, ALICES)},
        **{make().name: make(network=Flow(layers=2, width=32), **batch) for make in (NLE, SCANDAL)},
        **{make().name: make(theta_reference=STANDARD_MODEL, **batch) for make in (SALLY, SALLINO)},
    }


def estimate(name: str, num_simulations: int, seed: int) -> AbstractRatio:
    """One estimator from `num_simulations` simulations in all."""
    key = jax.random.fold_in(jax.random.key(seed), num_simulations)
    training = Training(num_steps=STEPS.get(num_simulations, 4000), weight_decay=1000 / num_simulations)
    method = methods(BATCHES.get(num_simulations, 128))[name]
    return train(key, eft, method, num_simulations=num_simulations, training=training).value


def run(say, sizes: Sequence[int] = SIZES, num_seeds: int = NUM_SEEDS, names: Sequence[str] = ()) -> dict[str, Any]:
    """Errors by method and size, one for each seed."""
    judge, errors = Judge(), {}
    for method in names or methods(128):
        begun = time.perf_counter()
        errors[method] = {
            str(size): [judge(estimate(method, size, seed)) for seed in range(1 if size > 100_000 else num_seeds)]
            for size in sizes
        }
        medians = " ".join(f"{np.median(values):.5f}" for values in errors[method].values())
        say(f"eft {method}: {medians} ({time.perf_counter() - begun:.0f} s)")
    return {"nothing": judge.nothing, "errors": errors}


def worth(results: Mapping[str, Any]) -> dict[str, list[float]]:
    """How many simulations CARL needs for the error of each method at each size, per simulation of the method's own.

    On CARL's curve, straight between its points in the logarithms. Infinite where CARL's largest size is not enough; 0
    where its smallest is too good.
    """
    sizes = np.array([float(size) for size in results["errors"]["carl"]])
    medians = {method: np.median(list(by_size.values()), axis=1) for method, by_size in _errors(results).items()}
    curve = np.minimum.accumulate(medians["carl"])
    needed = {
        method: np.exp(np.interp(-np.log(errors), -np.log(curve), np.log(sizes), left=-np.inf, right=np.inf))
        for method, errors in medians.items()
    }
    return {method: (numbers / sizes).tolist() for method, numbers in needed.items()}


def _errors(results: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """With one number a cell: medians over however many seeds there were."""
    return {
        method: {size: [float(np.median(values))] for size, values in by_size.items()}
        for method, by_size in results["errors"].items()
    }


def tables(results: Mapping[str, Any]) -> str:
    """The numbers as Markdown."""
    factors, sizes = worth(results), [float(size) for size in results["errors"]["carl"]]
    heads = [f"1e{round(np.log10(size))}" for size in sizes]
    columns = [f"error at {head}" for head in heads] + [f"CARL's, at {head}" for head in heads[:-1]]
    lines = ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for method, by_size in _errors(results).items():
        cells = [f"{value:.5f}" for (value,) in by_size.values()]
        for size, factor in zip(sizes[:-1], factors[method], strict=False):
            far = f"> {sizes[-1] / size:.3g}" if np.isinf(factor) else f"< {sizes[0] / size:.3g}"
            cells.append(f"{factor:.3g}" if 0 < factor < np.inf else far)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def figure(results: Mapping[str, Any], path: Path) -> None:
    """Error against size."""
    drawing = Figure(figsize=(8, 5), layout="constrained")
    axes = drawing.subplots()
    for index, (method, by_size) in enumerate(results["errors"].items()):
        sizes, values = [int(size) for size in by_size], [np.median(v) for v in by_size.values()]
        axes.plot(sizes, values, "o--" if index > 9 else "o-", color=f"C{index}", label=method)
    axes.axhline(results["nothing"], color="gray", ls=":", label="predicting r = 1")
    axes.set(
        xscale="log", yscale="log", xlabel="simulations", ylabel="mean squared error of log r, prior average",
        title="Two Wilson coefficients, against the Standard Model",
    )  # fmt: skip
    axes.legend(fontsize=8, ncols=2)
    save(drawing, path)
