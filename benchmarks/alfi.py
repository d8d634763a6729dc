"""Speed of the recurrent machine, and what a tenth of the simulations gives.

    python benchmarks/alfi.py speed     # milliseconds and problem-iterations per second, bank and live
    python benchmarks/alfi.py budget    # the accuracy table with 1e5 instead of 1e6 simulated observations

The accuracy table itself is made by `quincunx reproduce alfi`.
"""

import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

import quincunx as qx
from quincunx.cli.reproduce.paper import PROBLEMS, main, table
from quincunx.core.loss import partition


def milliseconds_per_step(machine: qx.RecurrentMachine, loss: qx.ALFI, batch: object, repeats: int = 20) -> float:
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
        sims = qx.simulate_bank(jax.random.key(0), problem.simulator, num_simulations=1300)
        machine = qx.RecurrentMachine.for_simulations(sims)
        batch = tuple(part[: max(1, len(part) * 512 // len(sims[0]))] for part in sims)
        loss = qx.ALFI()
        num_problems = loss.num_problems + sum(
            max(1, min(len(part), loss.max_draws // part.num_observations)) for part in batch[1:]
        )
        took = milliseconds_per_step(machine, loss, batch)
        rate = num_problems * machine.num_iterations / took * 1e3
        print(f"{problem.name}: bank {took:.1f} ms a step of {num_problems} problems, {rate:,.0f} problem-iterations/s")
        wide = 64 if problem.name == "weinberg" else 20
        live = qx.RecurrentMachine.for_simulations(
            sims, num_iterations=15, num_proposed=8 if wide == 64 else 20, num_simulated=wide, bandwidth=0.0, width=50,
            memory=40,
        )  # fmt: skip
        loss = qx.ALFI(num_problems=16, live=True, weighting=qx.ExponentialWeighting())
        took = milliseconds_per_step(live, loss, sims[0][:40])
        print(
            f"{problem.name}: live {took:.1f} ms a step of 16 problems x 15 iterations at the paper's sizes", flush=True
        )


if __name__ == "__main__":
    if sys.argv[1:] == ["speed"]:
        speed()
    elif sys.argv[1:] == ["budget"]:
        print(table(main(Path("benchmark-budget"), say=print, num_simulations=1000)))
    else:
        sys.exit(__doc__)
