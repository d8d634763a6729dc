"""Coverage of confidence regions: Wilks beside Neyman, with learned ratios, on three simulators."""

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from ...answers.estimates import AbstractRatio, ExactRatio
from ...answers.frequentist.coverage import coverage_map
from ...answers.frequentist.experiment import Experiment
from ...answers.frequentist.neyman import critical_values
from ...core.fit import Training
from ...core.solution import Key
from ...methods import ALICES, NRE
from ...methods.door import train
from ...methods.method import Method
from ...methods.nets.mlp import MLP
from ...problems import eft, galton, weinberg
from ...sample.black_box import AbstractJaxSimulator
from .figures import save

LEVELS = (0.68, 0.95)
NUM_TOYS = 2000
NUM_CALIBRATION_TOYS = 10_000
NUM_STEPS = 6000


class Case(NamedTuple):
    """A simulator, how its ratio is learnt, how many observations an experiment has, and five truths.

    `method` is None for the exact ratio: with 120 events to a toy, fits of a network's ratio take too long here.
    `num_observations` is None where an experiment has a Poisson number, by the simulator's own rate.
    """

    simulator: AbstractJaxSimulator
    method: Method | None
    num_observations: int | None
    theta: tuple[tuple[float, ...], ...]


CASES = {
    "galton": Case(
        galton, ALICES(network=MLP((50, 50))), 20, ((-0.99,), (-0.85,), (-0.7,), (-0.55,), (-0.41,))
    ),
    "weinberg": Case(
        weinberg, NRE(network=MLP((50, 50))), 20, ((42.0, 0.9), (45.0, 1.0), (40.1, 0.51), (49.0, 1.4), (47.0, 0.7))
    ),
    "eft": Case(
        eft, None, None,
        ((0.0, 0.0), (0.3, -0.2), (-0.4, 0.4), (0.95, 0.9), (-0.9, 0.0)),
    ),
}  # fmt: skip


def run(say, num_toys: int = NUM_TOYS, num_calibration_toys: int = NUM_CALIBRATION_TOYS) -> dict[str, Any]:
    """Covered fractions by simulator, kind of critical value and level."""
    results: dict[str, Any] = {}
    for name, case in CASES.items():
        begun = time.perf_counter()
        key = jax.random.key(11)
        ratio = _ratio(key, case)
        experiment = Experiment(case.simulator, num_observations=case.num_observations)
        theta = np.array(case.theta)
        toys = critical_values(key, ratio, experiment, theta, num_toys=num_calibration_toys, level=0.95)
        limits = {level: toys.critical_at(level) for level in LEVELS}
        cover = functools.partial(coverage_map, key, ratio, experiment, theta, levels=LEVELS, num_toys=num_toys)
        maps = {"wilks": cover(), "neyman": cover(critical_values=limits)}
        results[name] = {
            "theta": theta.tolist(),
            "num_observations": case.num_observations,
            **{kind: np.asarray(each.covered).tolist() for kind, each in maps.items()},
            "error": np.asarray(maps["neyman"].error).tolist(),
            "critical": {str(level): values.tolist() for level, values in limits.items()},
        }
        for kind, each in maps.items():
            say(f"{name} {kind}:\n{each.table()}")
        say(f"{name}: {time.perf_counter() - begun:.0f} s")
    return results


def _ratio(key: Key, case: Case) -> AbstractRatio:
    if case.method is None:
        return ExactRatio(case.simulator)
    training = Training(num_steps=NUM_STEPS)
    return train(key, case.simulator, case.method, num_simulations=100_000, training=training).value


def tables(results: Mapping[str, Any]) -> str:
    """The numbers as Markdown, one row per truth."""
    lines = ["| simulator | theta | Neyman 68 % | Neyman 95 % | Wilks 68 % | Wilks 95 % |", "|---|---|---|---|---|---|"]
    for name, result in results.items():
        for i, theta in enumerate(result["theta"]):
            at = ", ".join(f"{value:g}" for value in theta)
            cells = [f"{100 * result[kind][i][j]:.1f}" for kind in ("neyman", "wilks") for j in range(len(LEVELS))]
            lines.append(f"| {name} | {at} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def figure(results: Mapping[str, Any], path: Path) -> None:
    """Coverage at the five truths of every simulator, with two binomial errors."""
    drawing = Figure(figsize=(10, 3.6), layout="constrained")
    row = drawing.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, (name, result) in zip(row, results.items(), strict=True):
        places = np.arange(len(result["theta"]))
        for kind, marker, shift in (("neyman", "o", -0.1), ("wilks", "x", 0.1)):
            for j, level in enumerate(LEVELS):
                values, errors = np.array(result[kind])[:, j], np.array(result["error"])[:, j]
                axes.errorbar(
                    places + shift, values, 2 * errors, fmt=marker, color="C0" if kind == "neyman" else "C1",
                    label=kind if j == 0 else None,
                )  # fmt: skip
                axes.axhline(level, color="gray", ls=":")
        labels = ["\n".join(f"{value:g}" for value in theta) for theta in result["theta"]]
        axes.set_xticks(places, labels, fontsize=8)
        axes.set(title=name, xlabel="truth", ylabel="covered" if name == "galton" else "")
        axes.legend(fontsize=8)
    save(drawing, path)
