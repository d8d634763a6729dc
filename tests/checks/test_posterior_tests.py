"""Tests of posteriors: each passes an exact one, and fails one too wide, one too narrow and one that is off."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from matplotlib.figure import Figure

import quincunx as qx
from quincunx.checks.posterior_tests import coverage_test, plot_tests, posterior_tests, rank_test, tarp_test

KEY = jax.random.key(0)
N, S, DIM = 500, 200, 2
STD = 0.6


def all_three(width=1.0, shift=0.0):
    """All three for normal posteriors N(x, STD^2), whose draws are made wider and off."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(N, DIM))
    theta = x + STD * rng.normal(size=(N, DIM))
    draws = x[:, None] + shift * STD + width * STD * rng.normal(size=(N, S, DIM))
    centre = x + shift * STD
    log_prob = lambda t: -0.5 * np.sum(((t - centre.reshape(N, *[1] * (t.ndim - 2), DIM)) / width) ** 2, axis=-1)
    ranks = rank_test(theta, draws, columns=("a", "b"))
    return ranks, coverage_test(log_prob(theta), log_prob(draws)), tarp_test(theta, draws)


def test_an_exact_posterior_passes():
    # each of the three fails by chance once in a hundred times; the key is fixed
    for test in all_three():
        assert test.passed
        assert "where it should" in test.message
        assert json.loads(json.dumps(test.to_dict()))["passed"]


@pytest.mark.parametrize(
    ("width", "shift", "words"),
    [(0.6, 0.0, ("too narrow",) * 3), (1.6, 0.0, ("too wide",) * 3), (1.0, 0.5, ("too high", "too narrow", None))],
)
def test_a_wrong_posterior_fails_and_is_told_how(width, shift, words):
    for test, word in zip(all_three(width, shift), words, strict=True):
        if word is None:  # a shift to one side: seen from all sides TARP may not notice
            continue
        assert not test.passed
        assert word in test.message


def test_false_alarms_are_as_rare_as_they_say():
    rng = np.random.default_rng(2)
    passed = [rank_test(rng.normal(size=(60, 1)), rng.normal(size=(60, 40, 1)), level=0.1).passed for _ in range(400)]
    # 400 tests at 10 %: 40 +- 6 alarms, and five standard errors either way
    assert 10 <= 400 - sum(passed) <= 70


def test_the_picture_has_a_line_for_every_parameter_and_a_band(tmp_path):
    figure = plot_tests(all_three(), tmp_path / "tests.png")
    assert isinstance(figure, Figure)
    assert (tmp_path / "tests.png").stat().st_size > 5000
    assert [len(axes.lines) for axes in figure.axes] == [2, 1, 1]


@qx.simulator(qx.Prior(shift=dist.Normal(0, 1)))
def shifted(key, theta):
    return theta["shift"] + 0.5 * jax.random.normal(key)


def test_of_a_trained_estimator():
    method = qx.NPE(network=qx.Flow(1, 16, 6))
    solution = qx.train(
        KEY, shifted, method, num_simulations=10_000, training=qx.Training(num_steps=600, learning_rate=3e-3)
    )
    found = posterior_tests(KEY, solution, num_problems=150, num_draws=100)
    assert [test.name for test in found] == ["rank", "coverage", "tarp"]
    assert found[0].columns == ("shift",)
    assert found[0].places.shape == (150, 1)
    assert all(test.p_value > 1e-4 for test in found)  # a network of seconds is nearly right
    narrow = qx.NPE(network=qx.Flow(1, 16, knots=0))
    raw = qx.train(KEY, shifted, narrow, num_simulations=1000, training=qx.Training(num_steps=1, learning_rate=1e-9))
    bias = lambda net: net.flow.weights[-1][1]  # untrained it is the prior; with this, of a third of its width
    narrow = eqx.tree_at(bias, raw.value, bias(raw.value) + jnp.array([0.0, 2.5]))
    assert not all(test.passed for test in posterior_tests(KEY, narrow, num_problems=150, num_draws=100))


def test_what_does_not_fit_is_refused():
    good = np.zeros((4, 3, 2))
    with pytest.raises(ValueError, match=r"expected the truth \(n, dim\) and draws \(n, S, dim\), got \(4, 1\) and"):
        rank_test(np.zeros((4, 1)), good)
    with pytest.raises(ValueError, match="1 of 4 problems have NaN or infinity, the first in row 2"):
        rank_test(np.array([[0, 0], [0, 0], [np.nan, 0], [0, 0]]), good)
    with pytest.raises(ValueError, match="columns: expected 2 names, got 1"):
        rank_test(np.zeros((4, 2)), good, columns=("a",))
    with pytest.raises(ValueError, match="level must lie strictly between 0 and 1, got 2"):
        tarp_test(np.zeros((4, 2)), good, level=2)
    with pytest.raises(ValueError, match=r"points: expected one for each problem, \(4, 2\), got \(4,\)"):
        tarp_test(np.zeros((4, 2)), good, points=np.zeros(4))
    with pytest.raises(TypeError, match="expected what `train` returned, got int"):
        posterior_tests(KEY, 3)
