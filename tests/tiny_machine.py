"""One machine, trained in seconds and shared by the tests of the edges: it is not a good one, and need not be."""

import functools

import jax

import quincunx as qx
from quincunx.core.solution import Solution
from quincunx.problems import poisson

SEED = 3
OPTIONS = {
    "num_simulations": 80,
    "num_observations": 10,
    "max_observations": 10,
    "machine_options": {"width": 8, "memory": 8, "num_iterations": 4, "num_proposed": 4, "num_simulated": 5},
}
TRAINING = {"num_steps": 4}
TOML = """
simulations = 80
observations = 10
max_observations = 10
[training]
num_steps = 4
[machine]
width = 8
memory = 8
num_iterations = 4
num_proposed = 4
num_simulated = 5
"""


@functools.cache
def trained() -> Solution:
    """What `train` returns for the Poisson simulator; the settings are those of `TOML`."""
    return qx.train(jax.random.key(SEED), poisson, training=qx.Training(**TRAINING), **OPTIONS)


def untrained(key, net, *others, **settings) -> Solution:
    """Takes the place of `fit`, to save its time."""
    return qx.Solution(net, qx.Status.SUCCESS, {"num_steps": 0}, {})
