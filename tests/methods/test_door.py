"""`train` and `infer`: what they return, what they refuse, and that they add nothing to what the verbs say."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import tiny_machine

import quincunx as qx
from quincunx.checks.plots import plot_inference
from quincunx.core.tables import estimate_text
from quincunx.problems import gaussian, poisson

X = np.array([3.0, 4.0, 5.0, 2.0, 3.0, 4.0, 1.0, 6.0, 3.0, 2.0, 7.0, 4.0])
KEY = jax.random.key(5)
QUIET = qx.NoProgress()


@pytest.fixture(scope="module")
def inference() -> qx.Inference:
    return qx.infer(KEY, poisson, X, machine=tiny_machine.trained(), progress=QUIET)


def test_infer_is_run_on_the_trained_machine(inference):
    own = qx.run(jax.random.split(KEY)[1], tiny_machine.trained().value, X)
    np.testing.assert_array_equal(inference.proposal.psi, own.value.psi)
    assert inference.summary() == own.value.summary()


def test_calls_of_training_and_run_are_added_up(inference):
    trained = tiny_machine.OPTIONS["num_simulations"] * tiny_machine.OPTIONS["num_observations"]
    assert inference.training.statistics["num_simulator_calls"] == trained
    in_run = 4 * 4 * 5 if inference.machine.live else 0  # iterations, parameters, observations
    assert inference.num_simulator_calls == trained + in_run
    banked = qx.infer(KEY, poisson, X, machine=tiny_machine.trained().value.with_bank(), progress=QUIET)
    assert banked.num_simulator_calls == 0


def test_the_dictionary_is_json_and_complete(inference):
    found = json.loads(json.dumps(inference.to_dict()))
    assert set(found["parameters"]["log_rate"]) == {"mean", "std", "q05", "q50", "q95"}
    assert (found["seed"], found["method"], found["num_observations"]) == (5, "alfi", len(X))
    assert found["warnings"] == list(inference.warnings)


def test_warnings_of_training_come_along(inference):
    many = qx.infer(KEY, None, np.repeat(X, 5), machine=tiny_machine.trained(), progress=QUIET)
    assert any("60 observations" in warning for warning in many.warnings)


def test_a_figure_names_the_result_and_shows_data_in_the_right_bins(inference, tmp_path):
    figure = plot_inference(inference.solution, inference.machine, inference.x)
    row = inference.summary()["log_rate"]
    assert estimate_text(row["mean"], row["std"]) in figure.get_suptitle()
    data = next(line for line in figure.axes[-1].get_lines() if line.get_label() == "data")
    values, counts = np.unique(X, return_counts=True)
    shares = dict(zip(data.get_xdata(), data.get_ydata(), strict=True))
    assert {v: s for v, s in shares.items() if s} == pytest.approx(dict(zip(values, counts / len(X), strict=True)))
    mle = next(line for line in figure.axes[0].get_lines() if line.get_label() == "maximum likelihood")
    assert mle.get_ydata()[0] == pytest.approx(np.log(X.mean()), rel=1e-5)
    inference.plot(tmp_path / "new" / "figure.png")
    assert (tmp_path / "new" / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: qx.infer(KEY, poisson, X, method="alfy"), ValueError, "did you mean 'alfi'"),
        (lambda m: qx.infer(KEY, poisson, X, num_simulation=9), ValueError, "did you mean 'num_simulations'"),
        (lambda m: qx.infer(KEY, poisson, X, machine=m, num_simulations=9), ValueError, "takes no training options"),
        (lambda m: qx.infer(KEY, None, X), ValueError, "give a simulator, a trained machine, or both"),
        (lambda m: qx.infer(KEY, gaussian, X, machine=m), ValueError, "trained for the simulator 'poisson'"),
        (lambda m: qx.infer(KEY, poisson, X, machine=3), TypeError, "expected a RecurrentMachine"),
        (lambda m: qx.infer(KEY, poisson, [1.0, np.nan]), ValueError, "the first in row 1"),
        (lambda m: qx.infer(KEY, gaussian, X), ValueError, r"shape \('m', 2\); got \(12,\)"),
        (lambda m: qx.infer(KEY, poisson, X[:0], machine=m), ValueError, "at least one"),
        (lambda m: qx.train(KEY, poisson, machine_options={"widht": 3}), ValueError, "did you mean 'width'"),
        (lambda m: qx.train(KEY, poisson, num_simulations=0), ValueError, "num_simulations must be at least 1, got 0"),
    ],
)
def test_misuse_is_refused_before_any_work(call, error, message):
    machine = tiny_machine.trained()
    with pytest.raises(error, match=message):
        call(machine)


def test_failed_simulations_are_a_warning_and_host_simulators_are_not_run_in_the_loop(monkeypatch):
    monkeypatch.setattr(sys.modules["quincunx.methods.door"], "fit", tiny_machine.untrained)

    @qx.numpy_simulator(qx.Prior(rate=dist.Uniform(1.0, 9.0)), workers=0)
    def brittle(rng, theta):
        if theta["rate"] < 1.5:
            raise RuntimeError("too slow")
        return rng.poisson(theta["rate"])

    solution = qx.train(KEY, brittle, **tiny_machine.OPTIONS)
    assert any("too slow" in warning for warning in solution.warnings)
    result = qx.infer(KEY, brittle, jnp.asarray(X), machine=solution, progress=QUIET)
    assert result.num_simulator_calls == solution.statistics["num_simulator_calls"] == 800
    axes = plot_inference(result.solution, result.machine, result.x).axes
    labels = {label for axis in axes for label in axis.get_legend_handles_labels()[1]}
    assert "the simulated set nearest to the answer" in labels
