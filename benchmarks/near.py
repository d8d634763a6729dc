"""Approximate Bayesian computation, `abc`, `smc-abc` and `mcmc-abc`, beside exact posteriors, at default budgets.

    python benchmarks/near.py                            # every case
    python benchmarks/near.py poisson:20:40 two_moons:3  # simulator:observations:data sets, or task:data sets

For simulators with exact moments the numbers are those of zoom.py. For tasks with two or four modes, C2ST between the
draws and as many of the exact posterior (0.5 where a network cannot tell them apart), sampled from the exact
likelihood; needs scikit-learn. Draws that are there more than once count against a method, as they should.
"""

import sys
import time

import jax
import numpy as np
from slcp import c2st
from zoom import bench

import quincunx as qx

METHODS = ("abc", "smc-abc", "mcmc-abc")
CASES = ("gaussian:1:60", "poisson:20:60", "poisson:200:40", "two_moons:3", "slcp:3")


def modes(name: str, count: int) -> None:
    """C2ST, for data sets at draws from the prior."""
    simulator = qx.problems.SBIBM[name]
    sims = qx.simulate(jax.random.key(7), simulator, num_simulations=count)
    for row in range(count):
        x, exact = sims.x[row], qx.ExactRatio(simulator)
        truth = np.asarray(qx.posterior(exact, x, key=jax.random.key(1)).points)
        truth = truth[np.random.default_rng(0).permutation(len(truth))]
        for method in METHODS:
            begun = time.perf_counter()
            answer = qx.infer(jax.random.key(row), simulator, x, method, progress=qx.NoProgress())
            took = time.perf_counter() - begun
            draws = np.asarray(answer.posterior.points)
            score, found = c2st(draws, truth[: len(draws)]), answer.inferred.statistics
            print(
                f"{name} {row} {method}: C2ST {score:.3f}, epsilon {found['epsilon']:.3g}, ess {found['ess']:.0f}, "
                f"{answer.num_simulator_calls:,} simulated, {took:.1f} s, {answer.warnings or 'ok'}",
                flush=True,
            )


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        words = case.split(":")
        if len(words) == 2:
            modes(words[0], int(words[1]))
            continue
        for each in METHODS:
            bench(words[0], int(words[1]), int(words[2]), method=each)
