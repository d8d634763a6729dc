"""A simulator in NumPy: a queue at a counter. How fast do people arrive, and how long are they served?

The function runs in two worker processes. Settings are small, so that this takes about a minute.
"""

import jax
import numpyro.distributions as dist

import quincunx as qx

prior = qx.Prior(arrivals=dist.Uniform(0.2, 2.0), service=dist.Uniform(0.2, 2.0))


@qx.numpy_simulator(prior)
def queue(rng, theta):
    """How long the tenth person waits, and when that person leaves."""
    arrive, free, start = 0.0, 0.0, 0.0
    for _ in range(10):
        arrive += rng.exponential(1 / theta["arrivals"])
        start = max(arrive, free)
        free = start + rng.exponential(theta["service"])
    return [start - arrive, free]


if __name__ == "__main__":
    key = jax.random.key(0)
    observed = qx.simulate(key, queue, theta={"arrivals": 0.8, "service": 1.2}, num_observations=100).x[0]
    method = qx.ALFI(num_observations=100, max_observations=100)
    answer = qx.infer(key, queue, observed, method, num_simulations=60_000, training=qx.Training(num_steps=500))
    for name, estimate in answer.posterior.summary().items():
        print(f"{name}: {estimate['mean']:.2f} +- {estimate['std']:.2f}")
    print("true: arrivals 0.80, service 1.20;", f"{answer.num_simulator_calls:,} simulated observations")
