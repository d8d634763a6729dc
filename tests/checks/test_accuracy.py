"""How well a machine estimates, counted by hand, and over problems whose answer is known."""

import equinox as eqx
import jax
import numpy as np
import pytest
import tiny
from chain import chain

from quincunx.checks.accuracy import Evaluation, evaluate
from quincunx.methods.machine import trajectories
from quincunx.problems import poisson

KEY = jax.random.key(2)


def test_errors_and_coverage_are_counted():
    theta = np.array([[0.0], [1.0], [2.0], [3.0]])
    mean = np.array([[0.5], [1.0], [2.0], [1.0]])
    found = Evaluation(
        theta, np.zeros((4, 1)), mean[None], mean[None] - 0.6, mean[None] + 0.6, theta + np.array([[0.1]]), (3,)
    )
    np.testing.assert_array_equal(found.errors()[:, 0], [0.5, 0, 0, 2])
    assert found.coverage() == 0.75
    assert found.rmse() == pytest.approx(np.sqrt(4.25 / 4))
    assert found.rmse_ratio() == pytest.approx(np.sqrt(4.25 / 4) / 0.1)
    assert found.quantile_ratio(0.5) == pytest.approx(0.25 / 0.1)


def test_fresh_problems_with_the_estimates_after_every_number_of_iterations():
    machine = tiny.trained("alfi", poisson).value.with_bank()
    found = evaluate(KEY, machine, poisson, num_problems=30, num_observations=10, iterations=(2, 4))
    assert (found.theta.shape, found.x.shape, found.mean.shape, found.low.shape) == (
        (30, 1), (30, 10), (2, 30, 1), (2, 30, 1)
    )  # fmt: skip
    psi = trajectories(machine, jax.random.split(KEY)[1], found.x, 4)
    middle = np.asarray(eqx.filter_jit(machine.space.decode)(psi[:, [1, 3], :1])).swapaxes(0, 1)
    assert np.all((found.low < middle) & (middle < found.high))
    np.testing.assert_allclose(found.yardstick[0], jax.jit(poisson.exact.posterior_mean)(found.x[0]), rtol=1e-5)
    assert not np.array_equal(found.mean[0], found.mean[1])
    with pytest.raises(ValueError, match="'chain' has no exact posterior_mean"):
        evaluate(KEY, machine, chain)
