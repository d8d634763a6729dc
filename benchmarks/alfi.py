"""Speed of the recurrent machine, and what a tenth of the simulations gives.

    python benchmarks/alfi.py speed     # milliseconds and problem-iterations per second, bank and live
    python benchmarks/alfi.py budget    # the accuracy of Poisson and Weinberg with 1e5 instead of 1e6 observations

The accuracy table itself is made by `quincunx reproduce alfi`.
"""

import sys
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

import quincunx as qx
from quincunx.cli.reproduce.paper import PROBLEMS, main, table
from quincunx.core.fit import partition
from quincunx.methods.method import Budget


def milliseconds_per_step(machine: qx.RecurrentMachine, loss: Any, batch: object, repeats: int = 20) -> float:
    """Median time of one loss with its gradient."""
    params, static = partition(machine)
    step = eqx.filter_jit(lambda p, k: jax.value_and_grad(lambda p: loss(eqx.combine(p, static), batch, k))(p))
    times = []
    for key in jax.random.split(jax.random.key(1), repeats + 1):
        begun = time.perf_counter()
        jax.block_until_ready(step(params, key))
        times.append(time.perf_counter() - begun)
    return 1e3 * float(np.median(times[1:]))  # the first compiles


def speed() -> None:
    for problem in PROBLEMS:
        method = qx.ALFI()
        sims = method.gather(jax.random.key(0), problem.simulator, Budget(130_000, refined=True), qx.NoProgress())
        machine, loss = method.build(jax.random.key(0), sims), method.loss
        batch = tuple(part[: max(1, len(part) * 512 // len(sims[0]))] for part in sims)
        num_problems = loss.num_problems + sum(
            max(1, min(len(part), loss.max_draws // part.num_observations)) for part in batch[1:]
        )
        took = milliseconds_per_step(machine, loss, batch)
        rate = num_problems * machine.num_iterations / took * 1e3
        print(f"{problem.name}: bank {took:.1f} ms a step of {num_problems} problems, {rate:,.0f} problem-iterations/s")
        wide = 64 if problem.name == "weinberg" else 20
        shape = qx.Machine(15, 8 if wide == 64 else 20, wide, width=50, memory=40)
        live = qx.ALFI(network=shape, num_problems=16, live=True, weighting=qx.ExponentialWeighting())
        took = milliseconds_per_step(live.build(jax.random.key(0), sims), live.loss, sims[0][:40])
        print(
            f"{problem.name}: live {took:.1f} ms a step of 16 problems x 15 iterations at the paper's sizes", flush=True
        )


if __name__ == "__main__":
    if sys.argv[1:] == ["speed"]:
        speed()
    elif sys.argv[1:] == ["budget"]:
        print(table(main(Path("benchmark-budget"), say=print, names=("poisson", "weinberg"), num_simulations=100_000)))
    else:
        sys.exit(__doc__)
