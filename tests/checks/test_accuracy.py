"""How well a machine estimates, counted by hand, and over problems whose answer is known."""

import equinox as eqx
import jax
import numpy as np
import pytest
import tiny

from quincunx.checks.accuracy import Accuracy, accuracy
from quincunx.methods.recurrent.machine import trajectories
from quincunx.problems import poisson

KEY = jax.random.key(2)


def test_errors_and_coverage_are_counted():
    theta = np.array([[0.0], [1.0], [2.0], [3.0]])
    mean = np.array([[0.5], [1.0], [2.0], [1.0]])
    std = np.full((1, 4, 1), 0.3)
    found = Accuracy(
        ("a",), theta, np.zeros((4, 1)), mean[None], std, mean[None] - 0.6, mean[None] + 0.6,
        theta + np.array([[0.1]]), (3,),
    )  # fmt: skip
    np.testing.assert_array_equal(found.errors()[:, 0], [0.5, 0, 0, 2])
    assert found.coverage() == 0.75
    assert found.rmse() == pytest.approx(np.sqrt(4.25 / 4))
    assert found.std_ratio() == pytest.approx(0.3 / np.sqrt(4.25 / 4))
    assert found.rmse_ratio() == pytest.approx(np.sqrt(4.25 / 4) / 0.1)
    assert found.quantile_ratio(0.5) == pytest.approx(0.25 / 0.1)


def test_fresh_problems_with_the_estimates_after_every_number_of_iterations():
    machine = tiny.trained("alfi", poisson).value.with_bank()
    found = accuracy(KEY, machine, num_problems=30, num_observations=10, iterations=(2, 4))
    assert (found.theta.shape, found.x.shape, found.mean.shape, found.low.shape) == (
        (30, 1), (30, 10), (2, 30, 1), (2, 30, 1)
    )  # fmt: skip
    psi = trajectories(machine, jax.random.split(KEY)[1], found.x, 4)
    middle = np.asarray(eqx.filter_jit(machine.space.decode)(psi[:, [1, 3], :1])).swapaxes(0, 1)
    assert np.all((found.low < middle) & (middle < found.high))
    np.testing.assert_allclose(found.yardstick[0], jax.jit(poisson.exact.posterior_mean)(found.x[0]), rtol=1e-5)
    assert not np.array_equal(found.mean[0], found.mean[1])
    with pytest.raises(ValueError, match="'poisson' has no exact mode; it has posterior_mean, mle"):
        accuracy(KEY, machine, yardstick="mode")


def test_it_is_summed_up_and_drawn():
    found = accuracy(KEY, tiny.trained("alfi", poisson), num_problems=10, num_observations=10)
    assert found.summary() == {
        "log_rate": {
            "rmse": float(found.rmse()[0]),
            "coverage_95": float(found.coverage()[0]),
            "std_ratio": float(found.std_ratio()[0]),
            "rmse_ratio": float(found.rmse_ratio()[0]),
        }
    }
    (axes,) = found.plot().axes
    assert axes.get_title() == f"{100 * found.coverage()[0]:.0f} % of 10 intervals hold the truth"
    np.testing.assert_allclose(axes.get_lines()[0].get_xydata(), np.column_stack([found.theta, found.mean[0]]))


def test_without_an_exact_answer_there_is_no_yardstick():
    found = accuracy(KEY, tiny.trained("alfi").value, num_problems=10, num_observations=10)
    assert found.yardstick is None
    assert set(found.summary()["mean"]) == {"rmse", "coverage_95", "std_ratio"}
    with pytest.raises(ValueError, match="no exact answer is known"):
        found.rmse_ratio()
    with pytest.raises(TypeError, match=r"expected a trained machine, got RatioEstimator; .* qx\.coverage_map"):
        accuracy(KEY, tiny.trained("alices").value)
