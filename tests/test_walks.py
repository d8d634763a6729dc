"""How far a user's call goes: the files and functions of the package that it enters, when nothing is left to compile.

Lambdas, comprehensions and functions inside functions are read where they stand, and do not count; nor do `__hash__`
and `__eq__`, which dictionaries call or not, as it happens, nor `same_law`, which the `__eq__` of priors calls. The
simulator is the user's own.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from typer.testing import CliRunner

import quincunx as qx
from quincunx.cli.app import app

PACKAGE = str(Path(qx.__file__).parent)
KEY = jax.random.key(0)
SIMULATOR = """
import jax, numpyro.distributions as dist, quincunx as qx

@qx.simulator(qx.Prior(place=dist.Uniform(0.0, 3.0)))
def drawn(key, theta):
    return theta["place"] + jax.random.normal(key)
"""
SETTINGS = """
simulations = 1000
[training]
num_steps = 4
[options]
num_observations = 10
max_observations = 10
batch_size = 32
num_problems = 8
network = { num_iterations = 3, num_proposed = 4, num_simulated = 5, width = 8, memory = 8 }
"""
MACHINE = qx.Machine(num_iterations=3, num_proposed=4, num_simulated=5, width=8, memory=8)
ALFI = qx.ALFI(network=MACHINE, num_observations=10, max_observations=10, batch_size=32, num_problems=8)
ALICES = qx.ALICES(network=qx.MLP((8,)))
TRAINING = qx.Training(num_steps=4)
X = np.linspace(0.5, 2.5, 20)


@qx.simulator(qx.Prior(place=dist.Uniform(0.0, 3.0)))
def drawn(key, theta):
    return theta["place"] + jax.random.normal(key)


def normal(theta, x, z):
    return dist.Normal(theta["place"], 1.0).log_prob(z)


@qx.mined_simulator(qx.Prior(place=dist.Uniform(0.0, 3.0)), joint_log_prob=normal)
def mined(key, theta):
    z_key, x_key = jax.random.split(key)
    z = theta["place"] + jax.random.normal(z_key)
    return z + 0.5 * jax.random.normal(x_key), z


def infer(folder: Path) -> None:
    qx.infer(KEY, drawn, X, ALFI, num_simulations=1000, training=TRAINING, progress=qx.NoProgress())


def machine(folder: Path) -> None:
    trained = qx.train(KEY, drawn, ALFI, num_simulations=1000, training=TRAINING)
    qx.posterior(trained.value, X).summary()


def search(folder: Path) -> None:
    qx.infer(KEY, drawn, X, "zoom", num_simulations=800, progress=qx.NoProgress())


def region(folder: Path) -> None:
    ratio = qx.train(KEY, mined, ALICES, num_simulations=1000, training=TRAINING).value
    qx.confidence_region(qx.likelihood(ratio, X))


def command(folder: Path) -> None:
    (folder / "model.py").write_text(SIMULATOR)
    (folder / "x.csv").write_text("x\n" + "\n".join(map(str, X)))
    (folder / "settings.toml").write_text(SETTINGS)
    words = ["infer", f"{folder}/model.py:drawn", "--data", f"{folder}/x.csv", "--config", f"{folder}/settings.toml"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output


def walk(call: Callable[[], None]) -> list[str]:
    entered = set()

    def note(frame, event, _):
        code = frame.f_code
        own = code.co_filename.startswith(PACKAGE) and "<" not in code.co_qualname
        if event == "call" and own and code.co_name not in ("__hash__", "__eq__", "same_law"):
            entered.add(f"{code.co_filename[len(PACKAGE) + 1 :]} {code.co_qualname}")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return sorted(entered)


# Aimed at: 15 files and 90 functions for the machine, 15 and 100 for the region, 20 and 140 for the command. `infer` is
# a training and a search.
WALKS = [(machine, 24, 95), (search, 18, 101), (infer, 30, 165), (region, 24, 102), (command, 41, 227)]


@pytest.mark.parametrize(("call", "files", "functions"), WALKS)
def test_a_call_goes_no_further_than(call, files, functions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call(tmp_path)
    # Twice: what JAX happens to trace again, because its caches were full, is no part of the way.
    entered = sorted(set(walk(lambda: call(tmp_path))) & set(walk(lambda: call(tmp_path))))
    assert len(entered) > 30  # it was seen at all
    assert (len({each.split()[0] for each in entered}) <= files) & (len(entered) <= functions), (
        f"{len({each.split()[0] for each in entered})} files, {len(entered)} functions:\n" + "\n".join(entered)
    )
