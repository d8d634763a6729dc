"""Every method of the catalogue at settings that train in a moment, and what it learns then: nothing good."""

import functools
import typing
from typing import Any

import jax
from chain import chain

import quincunx as qx
from quincunx.cli.config import options_of
from quincunx.core.simulator import AbstractSimulator
from quincunx.core.solution import Solution
from quincunx.methods import CATALOGUE
from quincunx.methods.method import AbstractMethod

SEED = 3
KEY = jax.random.key(SEED)
NUM_SIMULATIONS = 1000
TRAINING = qx.Training(num_steps=4)
MACHINE = {"num_iterations": 4, "num_proposed": 4, "num_simulated": 5, "width": 8, "memory": 8}
NETWORKS = {qx.MLP: qx.MLP((8,)), qx.Flow: qx.Flow(1, 8, 4), qx.Machine: qx.Machine(**MACHINE)}
NETWORKS |= {
    qx.Velocity: qx.Velocity((8,), 2),
    qx.Denoiser: qx.Denoiser(8, 1, 2),
    qx.Transformer: qx.Transformer(8, 2, 1, 2),
}
SEARCH = {
    "learner": qx.NPE(network=qx.Flow(1, 8, 4), batch_size=64),
    "number": 2,
    "population": 4,
    "set_size": 4,
    "critic_steps": 1,
}
SMALL = {"batch_size": 64, "num_observations": 10, "max_observations": 10, "num_problems": 8, **SEARCH}

TOML = f"""
simulations = {NUM_SIMULATIONS}
seed = {SEED}
[training]
num_steps = {TRAINING.num_steps}
[options]
batch_size = 64
num_observations = 10
max_observations = 10
num_problems = 8
[options.network]
""" + "".join(f"{name} = {value}\n" for name, value in MACHINE.items())  # `tiny.method("alfi")`


def network_of(name: str) -> Any:
    """The kind of network that a method has by default, or the first of several; None if it has none."""
    hint = options_of(CATALOGUE[name]).get("network")
    return next(iter(typing.get_args(hint)), hint)


def method(name: str, **options: Any) -> AbstractMethod:
    """By the types of its options: a new method of a known kind needs no line here."""
    known = options_of(CATALOGUE[name])
    small = {option: value for option, value in SMALL.items() if option in known}
    if "network" in known:
        small["network"] = NETWORKS[network_of(name)]
    return CATALOGUE[name](**{**small, **options})


def train(name: str, simulator: AbstractSimulator | None = chain, key: jax.Array = KEY, **given: Any) -> Solution[Any]:
    """`qx.train` at the tiny settings."""
    given = {"num_simulations": NUM_SIMULATIONS, "training": TRAINING, **given}
    return qx.train(key, simulator, method(name), **given)


@functools.cache
def trained(name: str, simulator: AbstractSimulator = chain) -> Solution[Any]:
    """The same, once for all tests of a process."""
    return train(name, simulator)


def untrained(key: jax.Array, net: Any, *others: Any, **settings: Any) -> Solution[Any]:
    """Takes the place of `fit`, to save its time."""
    return qx.Solution(net, qx.Status.SUCCESS, {"num_steps": 0}, {})


def perturbed(weights, size=0.3):
    """The same with random weights, in place of an output layer of zeros."""
    leaves, tree = jax.tree.flatten(weights)
    keys = jax.random.split(KEY, len(leaves))
    noisy = [leaf + size * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, noisy)
