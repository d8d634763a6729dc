"""Does a machine that was trained on one simulator learn another one faster?"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from ...core.fit import Training, fit, partition
from ...core.progress import NoProgress
from ...methods.method import Budget
from ...methods.recurrent.alfi import ALFI
from ...methods.recurrent.machine import RecurrentMachine
from ...problems import poisson, weinberg
from ...problems.poisson_sampling import sample_poisson
from ...problems.weinberg import asymmetry
from ...sample.black_box import AbstractJaxSimulator, simulator
from .figures import save

BUDGET, STEPS = 350_000, 500
DISPERSION = 5.0  # of the negative binomial: variance = mean + mean^2 / 5
REACH = 0.8  # of the scattering angle's cosine
NEAR = 0.05  # in the loss, of the best that training from scratch came to
GRID = np.linspace(-REACH, REACH, 801).astype(np.float32)


@simulator(poisson.prior)
def negative_binomial(key: jax.Array, theta: Mapping[str, jax.Array]) -> jax.Array:
    """One count `()`, Poisson with a gamma-distributed rate whose mean is exp(log_rate)."""
    rate_key, count_key = jax.random.split(key)
    rate = jnp.exp(theta["log_rate"]) * jax.random.gamma(rate_key, DISPERSION) / DISPERSION
    return sample_poisson(count_key, rate)


@simulator(weinberg.prior)
def narrow_weinberg(key: jax.Array, theta: Mapping[str, jax.Array]) -> jax.Array:
    """One cosine `()` of a detector that sees those up to 0.8; by the inverse of its distribution on a grid."""
    strength = asymmetry(jnp.stack([theta["energy"], theta["fermi"]]))
    density = jnp.maximum(1 + GRID**2 + strength * GRID, 0.0)
    middle = (density[1:] + density[:-1]) / 2
    cumulative = jnp.concatenate([jnp.zeros(1), jnp.cumsum(middle)]) / jnp.sum(middle)
    return jnp.interp(jax.random.uniform(key), cumulative, GRID)


PAIRS = {
    "poisson to negative binomial": (poisson, negative_binomial),
    "weinberg to its middle": (weinberg, narrow_weinberg),
}


def run(
    say: Callable[[str], None], pairs: Mapping[str, tuple[AbstractJaxSimulator, AbstractJaxSimulator]] = PAIRS
) -> dict[str, Any]:
    """Validation losses, epoch by epoch, of a machine from scratch and of one that knew another simulator."""
    found = {}
    for name, (known, new) in pairs.items():
        say(f"{name}: the first simulator")
        first, _ = _fitted(_gathered(known), None)
        sims = _gathered(new)
        say(f"{name}: from scratch")
        _, scratch = _fitted(sims, None)
        say(f"{name}: from the other one's weights")
        _, warm = _fitted(sims, first)
        found[name] = {"scratch": scratch, "transfer": warm, "steps": _steps_to(scratch, warm)}
    return found


def _gathered(known: AbstractJaxSimulator) -> Any:
    return ALFI().gather(jax.random.key(0), known, Budget(BUDGET, refined=True), NoProgress())


def _fitted(sims: Any, before: RecurrentMachine | None) -> tuple[RecurrentMachine, list[float]]:
    """A machine trained from new weights or from those of another; its fixed statistics are always the simulator's."""
    method, key = ALFI(), jax.random.key(1)
    net = method.build(key, sims)
    if before is not None:
        weights, rest = partition(net)  # the simulator is part of the structure, so leaves are put into the new one
        weights = jax.tree.unflatten(jax.tree.structure(weights), jax.tree.leaves(partition(before)[0]))
        net = eqx.combine(weights, rest)
    solution = fit(key, net, method.loss, sims, training=Training(num_steps=STEPS))
    return solution.value, np.asarray(solution.history["validation_loss"], float).tolist()


def _steps_to(scratch: list[float], warm: list[float]) -> dict[str, int]:
    """Steps until the loss is within `NEAR` of the best that scratch came to; -1 if it never is."""
    goal, per_epoch = min(scratch) + NEAR, STEPS / len(scratch)
    first = lambda losses: next((round((k + 1) * per_epoch) for k, loss in enumerate(losses) if loss <= goal), -1)
    return {"scratch": first(scratch), "transfer": first(warm)}


def tables(results: Mapping[str, Any]) -> str:
    """Steps to the same loss."""
    lines = [
        "| pair | steps from scratch | steps from the other's weights | best loss, scratch | best loss, transfer |",
        "|---" * 5 + "|",
    ]
    for name, each in results.items():
        best = " | ".join(f"{min(each[kind]):.3f}" for kind in ("scratch", "transfer"))
        lines.append(f"| {name} | {each['steps']['scratch']} | {each['steps']['transfer']} | {best} |")
    return "\n".join(lines) + "\n"


def figure(results: Mapping[str, Any], path: Path) -> None:
    """Validation losses against the step."""
    drawn = Figure(figsize=(11, 4), layout="constrained")
    for axes, (name, each) in zip(drawn.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True):
        for kind in ("scratch", "transfer"):
            axes.plot(np.arange(1, len(each[kind]) + 1) * STEPS / len(each[kind]), each[kind], label=kind)
        axes.set(title=name, xlabel="step", ylabel="validation loss", xscale="log")
        axes.legend()
    save(drawn, path)
