"""What the samplers of prior times likelihood cost, and how well they mix, on exact likelihoods.

    python benchmarks/samplers.py [PROBLEM ...]     # weinberg gaussian_linear_uniform slcp by default

Each with its defaults, on data made at one draw of the prior. Seconds are those of the processor, of all threads, in
the second call, which compiles nothing; those of the first are given beside them. An exact posterior, where it is
known, says how far off the means are, in standard deviations; elsewhere they are compared with those of `Tempered`.
"""

import sys
import time

import jax
import numpy as np

import quincunx as qx

SAMPLERS = (qx.Tempered(), qx.NUTS(), qx.Slice(), qx.MetropolisHastings())
OBSERVATIONS = {"weinberg": 100, "gaussian": 50, "eft": 50}
DATA_KEY = 5


def timed(run):
    start = time.process_time()
    return run(), time.process_time() - start


def main(names: list[str]) -> None:
    for name in names:
        simulator = (qx.problems.CATALOGUE | qx.problems.SBIBM)[name]
        sims = qx.simulate(
            jax.random.key(DATA_KEY), simulator, num_simulations=1, num_observations=OBSERVATIONS.get(name, 1)
        )
        estimator, x, reference = qx.ExactRatio(simulator), sims.x[0], None
        for sampler in SAMPLERS:
            ask = lambda seed, s=sampler, e=estimator, x=x: qx.posterior(e, x, key=jax.random.key(seed), sampler=s)
            _, first = timed(lambda ask=ask: ask(0))
            found, second = timed(lambda ask=ask: ask(1))
            reference = found if reference is None else reference
            exact = simulator.exact.posterior_mean
            centre = np.asarray(reference.mean if exact is None else exact(x))
            off = float(np.max(np.abs(np.asarray(found.mean) - centre) / np.asarray(found.std)))
            told = {each: float(f"{value:.3g}") for each, value in found.diagnostics.items()}
            seconds = f"{second:.2f} s ({first:.0f} s)"
            evidence = f"log-evidence {float(found.log_evidence):.2f}, {len(found.warnings)} warnings"
            print(f"{name} {type(sampler).__name__}: {seconds}, mean off by {off:.2f}, {evidence}, {told}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["weinberg", "gaussian_linear_uniform", "slcp"])
