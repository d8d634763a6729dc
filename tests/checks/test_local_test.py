"""The local test: it passes an exact posterior, fails a wide, a narrow and a shifted one, and where they are so."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from matplotlib.figure import Figure

import quincunx as qx
from quincunx.checks.local_test import compared

N, STD = 2000, 0.6


def at(observed, width=lambda x: 1.0, shift=lambda x: 0.0, seed=1, dim=2, m=1):
    """For normal posteriors of a mean, as wide and as far off as functions of the first component's mean say.

    m observations N(theta, m STD^2) leave N(their mean, STD^2).
    """
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(N, dim))
    theta = middle + STD * rng.normal(size=(N, dim))
    noise = np.sqrt(m) * STD * rng.normal(size=(N, m, dim))
    x = middle[:, None] + noise - noise.mean(axis=1, keepdims=True)
    drawn = lambda middle, count: (
        middle[:, None]
        + STD * (shift(middle[:, None, :1]) + width(middle[:, None, :1]) * rng.normal(size=(len(middle), count, dim)))
    )
    point = np.full((1, dim), observed)
    names = tuple("abcdef"[:dim])
    spread = noise[0] - noise[0].mean(axis=0)
    here, observation = drawn(point, 2000)[0], (point + spread).reshape(m, dim)
    return compared(rng, theta, drawn(middle, 101), x, here, observation, columns=names, num_exchanges=300)


@pytest.mark.parametrize("observed", [-1.0, 0.5])
def test_an_exact_posterior_passes(observed):
    """p-values are uniform: ten of them below .01 would be one in 10^20, one is no news; fixed keys."""
    found = [at(observed, seed=seed).p_value for seed in range(10)]
    assert sum(p < 0.01 for p in found) <= 1
    assert 0.15 < np.mean(found) < 0.85  # the mean of ten is .5 +- .09


@pytest.mark.parametrize(
    ("wrong", "seen"),
    [
        ({"width": lambda x: 1.5}, lambda shift, width: width < 0.85),
        ({"width": lambda x: 1 / 1.5}, lambda shift, width: width > 1.15),
        ({"shift": lambda x: 0.5}, lambda shift, width: (shift < -0.25) & (width > 0.85)),
    ],
    ids=["too wide", "too narrow", "shifted"],
)
def test_a_wrong_one_fails_and_is_told_how(wrong, seen):
    found = at(0.5, **wrong)
    assert not found.passed
    assert "can be told apart. As far as the classifier sees: a should be" in found.message
    assert np.all(seen(*found.fault)), found.fault


@pytest.mark.parametrize("m", [20, 100])
def test_many_observations_hide_nothing(m):
    assert at(0.5, m=m).passed
    for fault in ({"width": lambda x: 1.5}, {"width": lambda x: 1 / 1.5}, {"shift": lambda x: 0.5}):
        assert not at(0.5, m=m, **fault).passed


def test_it_is_local():
    """Wrong for x above zero alone: a test at -1.5 does not mind, one at 1.5 does."""
    wide = lambda x: 1 + 1.0 * (x > 0)
    statistics = {observed: at(observed, width=wide).statistic for observed in (-1.5, 1.5)}
    assert statistics[1.5] > 5 * statistics[-1.5]
    assert not at(1.5, width=wide).passed


@qx.simulator(qx.Prior(shift=dist.Normal(0, 1)))
def shifted(key, theta):
    return theta["shift"] + 0.5 * jax.random.normal(key)


def test_of_an_estimator():
    net = qx.train(
        jax.random.key(0), shifted, qx.NPE(network=qx.Flow(1, 16, 0)), num_simulations=2000,
        training=qx.Training(num_steps=1, learning_rate=1e-9),
    )  # fmt: skip
    found = qx.local_test(jax.random.key(1), net, np.array([1.5]), num_problems=300, num_exchanges=200)
    assert not found.passed  # it is the prior, whatever x is: ranks and coverage would pass it
    axes = found.plot(Figure().subplots())
    assert len(axes.patches) > 5
    with pytest.raises(ValueError, match="this estimator is for sets of 1"):
        qx.local_test(jax.random.key(1), net, np.array([1.5, 2.0]), num_problems=10)
