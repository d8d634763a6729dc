"""The M/G/1 queue: `infer(..., "zoom")` beside a regression-ABC with twice the simulations.

    python benchmarks/mg1.py          # 100 data sets
    python benchmarks/mg1.py 300

A server serves one customer after the other: service times are uniform between theta1 and theta2, customers arrive at
the rate theta3 (Blum and Francois 2010; Fearnhead and Prangle 2012). An observation is five quantiles of the 50 times
between departures, a data set has 20 of them, and theta2 is at most 10 above theta1: a prior that depends on an earlier
parameter. The regression-ABC (Beaumont, Zhang and Balding 2002) is local-linear on the means and log spreads of the
quantiles, on unconstrained parameters, with the nearest tenth of its simulations, or the nearest fiftieth.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import quincunx as qx

CUSTOMERS, VECTORS, BUDGET = 50, 20, 30_000
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHARES = (0.1, 0.02)


@qx.simulator(
    qx.Prior(
        theta1=dist.Uniform(0, 10),
        theta2=lambda t: dist.Uniform(t["theta1"], t["theta1"] + 10),
        theta3=dist.Uniform(0.01, 1 / 3),
        derived={"gap": lambda t: t["theta2"] - t["theta1"]},
    )
)
def queue(key, theta):
    """Five quantiles of the times between departures."""
    service_key, arrival_key = jax.random.split(key)
    service = theta["theta1"] + (theta["theta2"] - theta["theta1"]) * jax.random.uniform(service_key, (CUSTOMERS,))
    arrival = jnp.cumsum(jax.random.exponential(arrival_key, (CUSTOMERS,)) / theta["theta3"])

    def depart(left, now):
        time = jnp.maximum(left, now[1]) + now[0]
        return time, time - left

    return jnp.quantile(jax.lax.scan(depart, 0.0, (service, arrival))[1], jnp.array(LEVELS))


def regression_abc(sims: qx.Simulations, x: np.ndarray, share: float) -> np.ndarray:
    """The posterior mean of theta `(3,)` for x `(20, 5)`: accepted draws, moved along a local-linear regression."""
    summaries = lambda x: np.concatenate([x.mean(axis=-2), np.log(x.std(axis=-2) + 1e-6)], axis=-1)
    s, observed = summaries(np.asarray(sims.x, np.float64)), summaries(x.astype(np.float64))
    distance = np.linalg.norm((s - observed) / s.std(axis=0), axis=1)
    taken = np.argsort(distance)[: int(share * len(s))]
    weight = 1 - (distance[taken] / distance[taken].max()) ** 2
    v = np.asarray(queue.prior.unconstrain(sims.theta), np.float64)[taken]
    design = np.column_stack([np.ones(len(taken)), (s[taken] - observed) / s[taken].std(axis=0)])
    gram = (design * weight[:, None]).T @ design
    slopes = np.linalg.solve(gram + 1e-8 * np.trace(gram) * np.eye(len(gram)), (design * weight[:, None]).T @ v)
    moved = v - design[:, 1:] @ slopes[1:]
    return np.average(np.asarray(queue.prior.constrain(jnp.asarray(moved, jnp.float32))), weights=weight, axis=0)


def main(problems: int) -> None:
    test = qx.simulate(jax.random.key(1), queue, num_simulations=problems, num_observations=VECTORS)
    bank = qx.simulate(jax.random.key(2), queue, num_simulations=2 * BUDGET // VECTORS, num_observations=VECTORS)
    truth, ours, inside, took, warned = np.asarray(test.theta), [], [], [], 0
    others = {share: [] for share in SHARES}
    for row in range(problems):
        begun = time.perf_counter()
        quiet = qx.NoProgress()
        answer = qx.infer(jax.random.key(row), queue, test.x[row], "zoom", num_simulations=BUDGET, progress=quiet)
        took.append(time.perf_counter() - begun)
        points = np.asarray(answer.posterior.points)
        ours.append(points.mean(axis=0))
        low, high = np.quantile(points, [0.025, 0.975], axis=0)
        inside.append((low <= truth[row]) & (truth[row] <= high))
        warned += bool(answer.warnings)
        for share in SHARES:
            others[share].append(regression_abc(bank, np.asarray(test.x[row]), share))
    rmse = lambda estimates: np.sqrt(np.mean((np.stack(estimates) - truth) ** 2, axis=0))
    show = lambda values: " ".join(f"{value:.3f}" for value in values)
    print(f"{problems} data sets; theta1, theta2, theta3; seconds a call {np.median(took):.2f}; warned {warned}")
    print(f"RMSE of zoom, {BUDGET:,} vectors: {show(rmse(ours))}; coverage of 95 % {show(np.mean(inside, axis=0))}")
    for share, found in others.items():
        ratio = rmse(ours) / rmse(found)
        print(f"RMSE of regression-ABC, {2 * BUDGET:,}, nearest {share}: {show(rmse(found))}; ratio {show(ratio)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 100)
