"""What the recurrent machine learnt: what its encoder tells of a set, and where its updates point."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from ...core.fit import Training
from ...core.progress import NoProgress
from ...core.simulator import Exact
from ...methods.door import train
from ...methods.method import Budget
from ...methods.recurrent.alfi import ALFI
from ...methods.recurrent.machine import Machine, RecurrentMachine, trajectories
from ...sample.simulate import simulate
from .figures import save
from .paper import PROBLEMS, Problem

BUDGET, STEPS = 350_000, 500
COUNT = 100  # observations in a set
NUM_PROBED, NUM_FOLLOWED = 2000, 200  # sets, for the probes and along the trajectories
RIDGE = 1e-4
QUANTITIES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {  # of sets (n, m, d), averaged over components
    "mean": lambda x: x.mean(axis=1),
    "variance": lambda x: np.log(x.var(axis=1) + 1e-12),
    "maximum": lambda x: x.max(axis=1),
    "log-mean": lambda x: np.log(np.abs(x).mean(axis=1) + 1e-12),
}
MACHINES: Mapping[str, Machine] = {
    "whole": Machine(),
    "learnt features alone": Machine(fixed_statistics=False, regression=False),
}


def run(
    say: Callable[[str], None], problems: Sequence[Problem] = PROBLEMS, machines: Mapping[str, Machine] = MACHINES
) -> dict[str, Any]:
    """R^2 of linear probes, and cosines of the updates with the exact score, per simulator and machine."""
    found: dict[str, Any] = {}
    for problem in problems:
        rows = found[problem.name] = {}
        for name, shape in machines.items():
            say(f"{problem.name}: {name}")
            key, method = jax.random.key(0), ALFI(network=shape)
            sims = method.gather(key, problem.simulator, Budget(BUDGET, refined=True), NoProgress())
            trained = train(key, None, method, sims=sims, training=Training(num_steps=STEPS)).value
            rows[name] = {
                "probes": {
                    "before training": _probed(_untrained(trained)),
                    "after training": _probed(trained),
                },
                "cosines": _followed(trained),
            }
    return found


def _untrained(machine: RecurrentMachine) -> RecurrentMachine:
    """The same machine with an encoder whose weights are drawn anew."""
    sims = simulate(jax.random.key(8), machine.simulator, num_simulations=500, num_observations=COUNT)
    return machine.shape.make(jax.random.key(9), sims)


def _probed(machine: RecurrentMachine) -> dict[str, float]:
    """R^2 of a linear regression of each quantity on what the encoder learnt, on sets that it was not fitted to."""
    sims = simulate(jax.random.key(3), machine.simulator, num_simulations=NUM_PROBED, num_observations=COUNT)
    features = np.asarray(_features(machine, sims.x), np.float64)
    x = np.asarray(sims.x, np.float64).reshape(NUM_PROBED, COUNT, -1)
    return {name: _explained(features, function(x)) for name, function in QUANTITIES.items()}


@eqx.filter_jit
def _features(machine: RecurrentMachine, x: jax.Array) -> jax.Array:
    learnt = len(machine.encoder.output.weight)
    return jax.lax.map(lambda one: machine.encoder(one[None]).features[0, :learnt], x)


def _explained(features: np.ndarray, target: np.ndarray) -> float:
    half = len(features) // 2
    unit = features[:half].std(axis=0)
    features = np.column_stack([features[:, unit > 1e-8] / unit[unit > 1e-8], np.ones(len(features))])
    target = (target - target[:half].mean(axis=0)) / np.maximum(target[:half].std(axis=0), 1e-12)
    gram = features[:half].T @ features[:half] + RIDGE * half * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, features[:half].T @ target[:half])
    error = np.mean((target[half:] - features[half:] @ weights) ** 2, axis=0)
    return float(np.mean(1 - error / np.var(target[half:], axis=0)))


def _followed(machine: RecurrentMachine) -> dict[str, list[float]]:
    """Mean cosine of the steps of the mean, in units of u, at each iteration: with the score, with the way to the end.

    The score is that of the exact posterior in u at the mean before the step; places where it is not finite, such as
    beyond an edge, are left out. The end is the mean after the last iteration.
    """
    exact: Exact = machine.simulator.exact  # type: ignore[attr-defined]
    sims = simulate(jax.random.key(4), machine.simulator, num_simulations=NUM_FOLLOWED, num_observations=COUNT)
    d, space = machine.space.dim, machine.space
    mean = trajectories(machine, jax.random.key(5), sims.x)[:, :, :d]
    before, step = mean[:, :-1], jnp.diff(mean, axis=1)

    def log_posterior(u: jax.Array, x: jax.Array) -> jax.Array:
        known: Any = exact.log_likelihood
        return known(space.decode(u), x) + space.log_prior(u)

    score = jax.jit(lambda u, x: jax.lax.map(lambda each: jax.vmap(jax.grad(log_posterior), (0, None))(*each), (u, x)))
    return {
        "score": _cosines(np.asarray(step), np.asarray(score(before, sims.x))),
        "end": _cosines(np.asarray(step[:, :-1]), np.asarray(mean[:, -1:] - before[:, :-1])),
    }


def _cosines(a: np.ndarray, b: np.ndarray) -> list[float]:
    """Mean cosine `(t,)` of vectors `(n, t, d)`, over those that are finite and not zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.sum(a * b, axis=2) / (np.linalg.norm(a, axis=2) * np.linalg.norm(b, axis=2))
    return np.nanmean(np.where(np.isfinite(cosine), cosine, np.nan), axis=0).tolist()


def tables(results: Mapping[str, Any]) -> str:
    """The probes, and the cosines at a few iterations."""
    lines = [f"| simulator | encoder | {' | '.join(QUANTITIES)} |", "|---" * (2 + len(QUANTITIES)) + "|"]
    for name, machines in results.items():
        for machine, result in machines.items():
            for when, values in result["probes"].items():
                cells = " | ".join(f"{values[each]:.3f}" for each in QUANTITIES)
                lines.append(f"| {name} | {machine}, {when} | {cells} |")
    shown = (2, 3, 5, 8, 12)
    lines += ["", f"| simulator | machine | with | {' | '.join(f'step {t}' for t in shown)} |", "|---" * 8 + "|"]
    for name, machines in results.items():
        for machine, result in machines.items():
            for what, values in result["cosines"].items():
                cells = " | ".join(f"{values[t - 2]:.2f}" for t in shown)
                lines.append(f"| {name} | {machine} | {what} | {cells} |")
    return "\n".join(lines) + "\n"


def figure(results: Mapping[str, Any], path: Path) -> None:
    """Cosines against the iteration."""
    drawn = Figure(figsize=(11, 4), layout="constrained")
    for axes, what, title in zip(
        drawn.subplots(1, 2), ("score", "end"), ("the exact score", "the way to the last mean"), strict=True
    ):
        for name, machines in results.items():
            values = machines["whole"]["cosines"][what]
            axes.plot(np.arange(2, len(values) + 2), values, marker=".", label=name)
        axes.axhline(0.0, color="gray", linestyle=":")
        axes.set(title=f"cosine of a step with {title}", xlabel="iteration", ylim=(-1.05, 1.05))
    drawn.axes[0].legend(fontsize=8)
    save(drawn, path)
