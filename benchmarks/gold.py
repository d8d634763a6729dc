"""Speed of mining and of training, in one process: `python benchmarks/gold.py`.

Prints paths mined per second (20-row Galton board, score and one ratio, as plain functions and as a NumPyro model), and
training steps per second of a 3 x 100 network at batch 128. Everything is timed after compilation, best of five.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import quincunx as qx

NUM_PATHS, NUM_STEPS = 100_000, 2000
ROWS, NAILS, START = 20, 31, 15


@qx.program(qx.Prior(skew=dist.Uniform(-1.0, -0.4)))
def board(skew):
    """The board of `qx.problems.galton` as a NumPyro model: one site for each row."""
    position = START
    for row in range(ROWS):
        bend = np.sin(np.pi * row / (ROWS - 1))
        left = (1 - bend) / 2 + bend * jax.nn.sigmoid(10 * skew * (2 * position / (NAILS - 1) - 1))
        position = position + numpyro.sample(f"right_{row}", dist.Bernoulli(1 - left)) - row % 2
    return jnp.asarray(position, float)


def best(function) -> float:
    """Seconds."""
    function()
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return min(times)


def main() -> None:
    key = jax.random.key(0)
    theta, other = jnp.full((NUM_PATHS, 1), -0.8), jnp.array([[-0.8], [-0.6]])
    for name, simulator in {"plain functions": qx.problems.galton, "NumPyro model": board}.items():
        seconds = best(lambda simulator=simulator: simulator.mine(key, theta, other))
        print(f"galton as {name}: {NUM_PATHS / seconds:,.0f} paths/s with score and ratio")
    sims = qx.mine(key, qx.problems.galton, num_simulations=128 * NUM_STEPS)
    training = qx.Training(num_steps=NUM_STEPS, validation_fraction=0.0)
    for method in (qx.CARL(), qx.ALICES()):
        seconds = best(lambda method=method: qx.train(key, None, method, sims=sims, training=training))
        print(f"{method.name}, 3 x 100, batch 128: {NUM_STEPS / seconds:,.0f} steps/s")


if __name__ == "__main__":
    main()
