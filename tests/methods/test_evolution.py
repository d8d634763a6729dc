"""Searches against maxima of the likelihood, and what they are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import quincunx as qx
from quincunx.methods.evolution import energy_distance, worths

KEY = jax.random.key(0)
QUIET = qx.NoProgress()


@qx.simulator(qx.Prior(place=dist.Uniform(-5, 5)))
def normal(key, theta):
    return theta["place"] + jax.random.normal(key)


X = 2.0 + np.random.default_rng(0).normal(size=400).astype(np.float32)


@pytest.mark.parametrize(("method", "off"), [(qx.NES(), 0.1), (qx.AVO(), 0.5)])
def test_it_ends_near_the_mean(method, off):
    """The mean has an error of .05. NES compares 64 of the 400 observations at a time, and AVO is a duel."""
    answer = qx.infer(KEY, normal, X, method, num_simulations=150_000, progress=QUIET)
    assert float(answer.posterior.mean[0]) == pytest.approx(X.mean(), abs=off)
    assert any("no posterior" in warning for warning in answer.warnings)
    assert answer.posterior.warnings == answer.warnings
    assert 0.97 * 150_000 < answer.num_simulator_calls <= 150_000
    steps = answer.inferred.statistics["num_iterations"]
    assert answer.inferred.history["psi"].shape == (steps, 2)


def test_more_weight_of_the_entropy_makes_the_proposal_narrower():
    ask = lambda method: qx.infer(KEY, normal, X, method, num_simulations=150_000, progress=QUIET)
    widths = [float(ask(qx.AVO(gamma=gamma, critic_steps=10)).posterior.std[0]) for gamma in (0.0, 5.0)]
    assert widths[1] < widths[0] / 2


def test_the_energy_distance_of_two_normals():
    """Between N(0, 1) and N(2, 1): 2 E|2 + sqrt2 z| - 2 E|sqrt2 z| = 2.0098, with an error of about .03."""
    rng = np.random.default_rng(1)
    one, other = jnp.asarray(rng.normal(size=(3000, 1))), jnp.asarray(2 + rng.normal(size=(3000, 1)))
    folded = 2 * np.sqrt(2) * np.exp(-1) / np.sqrt(2 * np.pi) + 2 * (1 - 2 * 0.0786496)
    assert float(energy_distance(one, other)) == pytest.approx(2 * folded - 4 / np.sqrt(np.pi), abs=0.15)
    assert float(energy_distance(one, one)) == pytest.approx(0, abs=1e-5)


def test_only_ranks_count_and_the_better_half_counts_for_more():
    found = worths(8)
    assert found.sum() == pytest.approx(0)
    assert (np.diff(found) <= 0).all()
    assert found[4:] == pytest.approx(-1 / 8)


@pytest.mark.parametrize("method", [qx.NES(), qx.AVO()])
def test_misuse_is_told(method):
    @qx.numpy_simulator(qx.Prior(place=dist.Uniform(-5, 5)))
    def outside(rng, theta):
        return theta["place"] + rng.normal()

    with pytest.raises(TypeError, match=f"{method.name} runs the simulator inside its loop, and needs one in JAX"):
        qx.infer(KEY, outside, X, method, progress=QUIET)
    with pytest.raises(ValueError, match="1000 observations are too few for one step, which takes"):
        qx.infer(KEY, normal, X, method, num_simulations=1000, progress=QUIET)
    with pytest.raises(ValueError, match="must be positive, got 0"):
        qx.NES(population=0) if method.name == "nes" else qx.AVO(critic_steps=0)
