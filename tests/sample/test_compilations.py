"""Another number of rows or observations in the same bucket compiles nothing; and fills change nothing."""

import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from compiling import compiled

import quincunx as qx
from quincunx.core.progress import AbstractProgress
from quincunx.gold.mined import AbstractMinedSimulator

KEY = jax.random.key(0)


@qx.numpy_simulator(qx.Prior(mean=dist.Uniform(0, 1), shift=dist.Normal(0, 1).expand((2,))), workers=0)
def host(rng, theta):
    return rng.normal(theta["mean"] + theta["shift"])


@qx.program(qx.Prior(mean=dist.Normal(0, 1)), observable="x")
def program(mean):
    z = numpyro.sample("z", dist.Normal(mean, 1.0))
    numpyro.sample("x", dist.Normal(z, 0.5))


@qx.program(qx.Prior(chance=dist.Uniform(0.2, 0.6)))
def tosses(chance):
    for toss in range(2):
        if numpyro.sample(f"toss{toss}", dist.BernoulliProbs(chance)):
            return toss
    return 2


class Told(AbstractProgress):
    """Hands on how far the work has come."""

    hear: Callable[[int], None]

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, steps: int, note: str = "") -> None:
        self.hear(steps)

    def finish(self) -> None: ...


SIMULATORS = {**qx.problems.CATALOGUE, "host": host, "program": program, "tosses": tosses}
MINED = [name for name, each in SIMULATORS.items() if isinstance(each, AbstractMinedSimulator)]
NUMBERS = [(65, 33), (96, 36), (80, 35)]  # of one bucket each: of up to 96 rows, and of up to 36 observations
FEW = [(5, 2), (6, 2)]  # for what runs row by row, and is slow


def assert_compiles_once(call, numbers=NUMBERS):
    """The first call may compile, the others must not."""
    call(*numbers[0])
    for number in numbers[1:]:
        with compiled() as names:
            call(*number)
        assert names == []


@pytest.mark.parametrize("name", SIMULATORS)
def test_simulate_and_contrast_compile_once(name):
    simulator, numbers = SIMULATORS[name], FEW if name == "tosses" else NUMBERS
    theta = np.asarray(simulator.prior.sample(KEY, 96))
    for call in (
        lambda n, m: qx.simulate(KEY, simulator, num_simulations=n, num_observations=m),
        lambda n, m: qx.simulate(KEY, simulator, theta=theta[:n], num_observations=m),
        lambda n, m: qx.contrast(KEY, simulator, num_simulations=n)[: n // 2],
        lambda n, m: qx.contrast(KEY, simulator, num_simulations=n, theta=theta[:m]),
    ):
        assert_compiles_once(call, numbers)


@pytest.mark.parametrize("name", MINED)
def test_mine_compiles_once(name):
    simulator, numbers = SIMULATORS[name], FEW if name == "tosses" else NUMBERS
    pool = np.asarray(simulator.prior.sample(KEY, 36))
    for call in (
        lambda n, k: qx.mine(KEY, simulator, num_simulations=n, reference=None),
        lambda n, k: qx.mine(KEY, simulator, num_simulations=n, reference=qx.PairReference()),
        lambda n, k: qx.mine(KEY, simulator, num_simulations=n, theta=pool[:k]),
    ):
        assert_compiles_once(call, numbers)


@pytest.mark.parametrize("name", ["poisson", "program"])
def test_chunks_compile_once_and_are_reported(name, monkeypatch):
    module = sys.modules["quincunx.sample.simulate"]
    monkeypatch.setattr(module, "FEW", 1)
    monkeypatch.setattr(module, "CHUNK", 12 * module.PER_OBSERVATION * 34)  # 6 rows of 36, or 12 of 33
    told = []
    progress = Told(told.append)
    call = lambda n, m: qx.simulate(KEY, SIMULATORS[name], num_simulations=n, num_observations=m, progress=progress)
    assert_compiles_once(call)
    assert told[:2] == [6, 6] and sum(told) == sum(n for n, _ in NUMBERS)


@pytest.mark.parametrize("name", SIMULATORS)
def test_priors_compile_once(name):
    prior = SIMULATORS[name].prior
    rows = np.asarray(prior.sample(KEY, 96))
    assert_compiles_once(lambda n, _: prior.sample(KEY, n))
    for method in (prior.rows, prior.check, prior.contains, prior.log_prob, prior.unconstrain):
        assert_compiles_once(lambda n, _, method=method: method(rows[:n]))
    for method in (prior.constrain, prior.log_prob_unconstrained):
        assert_compiles_once(lambda n, _, method=method: method(np.zeros((n, prior.unconstrained_dim))))
    assert_compiles_once(lambda n, _: prior.pack(prior.unpack(rows[:n])))


def test_what_is_compiled_is_heard():
    with compiled() as names:
        qx.simulate(KEY, program, num_simulations=1025)
    assert any("_draw" in name for name in names) and any("_sample" in name for name in names)
    with compiled() as names:
        jnp.sin(np.ones(1237, np.float32))
    assert names != []


@pytest.mark.parametrize("name", ["gaussian", "galton", "program", "tosses"])
def test_rows_do_not_depend_on_how_many_others_there_are(name):
    """Compiled for another shape, they may be rounded differently."""
    simulator, same = SIMULATORS[name], lambda one, two: np.testing.assert_allclose(one, two, rtol=2e-5, atol=2e-5)
    theta = np.asarray(simulator.prior.sample(KEY, 19))
    same(theta[:3], simulator.prior.sample(KEY, 3))
    same(simulator.draw(KEY, theta[:7], 5)[0][:3, :2], simulator.draw(KEY, theta[:3], 2)[0])
    if name in MINED:
        gold, some = simulator.mine(KEY, theta[:7], theta), simulator.mine(KEY, theta[:3], theta[:17])
        same(gold.log_prob[:3, :17], some.log_prob)
        same(gold.score[:3], some.score)
