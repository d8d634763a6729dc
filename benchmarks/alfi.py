"""Speed of the recurrent machine, and what a tenth of the simulations gives.

    python benchmarks/alfi.py speed           # milliseconds and problem-iterations per second, bank and live
    python benchmarks/alfi.py reference DIR   # the live step of Poisson beside that of the paper's code, in DIR
    python benchmarks/alfi.py budget          # the accuracy of two simulators with 1e5 instead of 1.3e6 observations

DIR is a copy of the public repository artix41/ALFI-pytorch, whose code needs torch and PyYAML; its settings are those
of its configs/poisson.yaml, at the sizes of the paper: 16 problems x 15 iterations x 20 x 20.

The accuracy table itself is made by `quincunx reproduce alfi`.
"""

import importlib
import subprocess
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
        took = milliseconds_of_live(problem.name, sims)
        print(
            f"{problem.name}: live {took:.1f} ms a step of 16 problems x 15 iterations at the paper's sizes", flush=True
        )


def milliseconds_of_live(name: str, sims: Any) -> float:
    """Of a step with the simulator in the loop, at the paper's sizes."""
    shape = qx.Machine(15, *((8, 64) if name == "weinberg" else (20, 20)), width=50, memory=40)
    live = qx.ALFI(network=shape, num_problems=16, live=True, weighting=qx.ExponentialWeighting())
    return milliseconds_per_step(live.build(jax.random.key(0), sims), live.loss, sims[0][:40])


def reference(folder: str) -> None:
    sims = qx.simulate(jax.random.key(0), qx.problems.poisson, num_simulations=400, num_observations=20)
    for _ in range(3):  # in turns, for the machine may be busy with other things
        # in a process of its own: beside XLA's threads its steps took ten times as long
        shown = subprocess.run([sys.executable, __file__, "theirs", folder], check=True, capture_output=True, text=True)
        theirs = float(shown.stdout)
        ours = milliseconds_of_live("poisson", (sims,))
        print(f"live step: {ours:.1f} ms, theirs {theirs:.1f} ms, ratio {ours / theirs:.2f}", flush=True)


def milliseconds_of_reference(folder: str, repeats: int = 30) -> float:
    """Median time of a training step of the paper's code."""
    if folder not in sys.path:
        sys.path.insert(0, folder)
    theirs = {name: importlib.import_module(name) for name in ("models", "simulators", "proposals", "yaml")}
    config = theirs["yaml"].safe_load((Path(folder) / "configs" / "poisson.yaml").read_text())
    training = config["train"] | {"nb_iter": 15, "meta_batch_size": 16, "nb_theta": 16 * repeats, "nb_epochs": 1}
    proposal = theirs["proposals"].GaussianProposal(config["proposal"])
    poisson = theirs["simulators"].PoissonSimulator()
    net = theirs["models"].ALFINet(config["networks"], training, poisson, proposal, verbose=0)
    times, step = [time.perf_counter()], net.backprop

    def timed(loss: Any) -> None:
        step(loss)
        times.append(time.perf_counter())

    net.backprop = timed
    net.train(training)
    return 1e3 * float(np.median(np.diff(times)[5:]))


if __name__ == "__main__":
    if sys.argv[1:] == ["speed"]:
        speed()
    elif sys.argv[1:2] == ["reference"] and len(sys.argv) == 3:
        reference(sys.argv[2])
    elif sys.argv[1:2] == ["theirs"]:
        print(milliseconds_of_reference(sys.argv[2]))
    elif sys.argv[1:] == ["budget"]:
        print(table(main(Path("benchmark-budget"), say=print, names=("poisson", "weinberg"), num_simulations=100_000)))
    else:
        sys.exit(__doc__)
