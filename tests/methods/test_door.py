"""`train` and `infer`: what they return, what they refuse, and that they add nothing to what the verbs say."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import tiny
from chain import chain

import quincunx as qx
from quincunx.methods import door
from quincunx.methods.method import Budget, Refinement
from quincunx.methods.recurrent.machine import UNCALIBRATED
from quincunx.problems import gaussian, poisson

X = np.array([3.0, 4.0, 5.0, 2.0, 3.0, 4.0, 1.0, 6.0, 3.0, 2.0, 7.0, 4.0])
KEY = jax.random.key(5)
QUIET = qx.NoProgress()


@pytest.fixture(scope="module")
def answer() -> qx.Answer:
    return qx.infer(KEY, poisson, X, estimator=tiny.trained("alfi", poisson), progress=QUIET)


# -- what infer adds to train: nothing -------------------------------------------------------------


def test_infer_is_run_on_the_trained_machine(answer):
    own = qx.run(jax.random.split(KEY)[1], tiny.trained("alfi", poisson).value, X)
    np.testing.assert_array_equal(answer.posterior.psi, own.value.psi)
    assert answer.posterior.summary() == own.value.summary()
    assert answer.warnings == (*answer.training.warnings, *own.warnings)


@pytest.mark.parametrize("name", ["alfi", "alices"])
def test_infer_trains_for_the_data_at_hand(name, monkeypatch):
    """By `train`, with half of the key, for as many observations as there are."""
    monkeypatch.setattr("quincunx.methods.method.fit", tiny.untrained)
    x = np.linspace(-1, 1, 300)
    alone = Refinement(qx.Zoom(), 0)
    method = qx.ALFI(network=qx.Machine(**tiny.MACHINE), refinement=alone) if name == "alfi" else tiny.method(name)
    found = qx.infer(KEY, chain, x, method, num_simulations=8000, progress=QUIET)
    own = qx.train(jax.random.split(KEY)[0], chain, method, num_simulations=8000, num_observations=300)
    assert eqx.tree_equal(found.estimator, own.value)
    assert found.training.statistics == own.statistics
    assert (found.method, found.seed) == (name, 5)
    if name == "alfi":
        assert found.estimator.observation_range[1] == 100  # of 345 there are too few sets


def test_infer_improves_on_the_machine_by_rounds_of_its_own_share(monkeypatch):
    monkeypatch.setattr("quincunx.methods.method.fit", tiny.untrained)
    x, zoom = np.linspace(-1, 1, 50), qx.Zoom(num_sets=100)
    method = tiny.method("alfi", refinement=Refinement(zoom, 0.25))
    found = qx.infer(KEY, chain, x, method, num_simulations=8000, progress=QUIET)
    first = {"simulator": chain, "method": method, "sims": None, "training": method.training_for_one}
    own = door._trained(
        jax.random.split(KEY)[0], budget=Budget(6000, 50, refined=True), progress=QUIET, keeping={}, **first
    )
    assert eqx.tree_equal(found.estimator, own.value)
    assert found.estimator.calibration is None  # it only has to find where the rounds begin
    before = own.value.infer(jax.random.split(KEY)[1], found.estimator.observations(x))
    np.testing.assert_array_equal(found.before.value.psi, before.value.psi)
    after = zoom.search(jax.random.split(KEY)[1], chain, found.x, Budget(2000, 50), QUIET, before.value)
    assert after.value.summary() == found.posterior.summary()
    assert found.num_simulator_calls == sum(each.statistics["num_simulator_calls"] for each in (own, before, after))
    assert found.warnings == (*own.warnings, *after.warnings)


def test_training_for_one_data_set_is_shorter_where_the_answer_is_improved_on():
    assert qx.ALFI().training_for_one == dataclasses.replace(qx.ALFI().card.training, num_steps=250)
    assert qx.ALFI(refinement=Refinement(qx.Zoom(), 0)).training_for_one == qx.ALFI().card.training
    assert qx.ALICES().training_for_one == qx.ALICES().card.training


def test_of_a_method_that_gives_a_likelihood_there_are_regions():
    found = qx.infer(KEY, chain, X[:3] - 3, estimator=tiny.trained("alices"), progress=QUIET)
    assert found.inferred is None
    theta = jnp.array([0.3])
    assert float(found.likelihood(theta)) == float(qx.likelihood(tiny.trained("alices").value, X[:3] - 3)(theta))
    (region,) = found.regions(0.9)
    (own,) = (qx.confidence_region(found.likelihood, 0.9),)
    assert (region.names, region.level, region.interval) == (("mean",), 0.9, own.interval)
    assert found.posterior is found.posterior  # sampled when it is first asked for
    assert bool(chain.prior.contains(found.posterior.draws).all())
    written = json.loads(json.dumps(found.to_dict()))
    assert written["regions"][0]["intervals"] == [list(each) for each in found.region().interval]
    assert written["num_simulator_calls"] == tiny.NUM_SIMULATIONS


def test_of_a_method_that_gives_a_posterior_there_is_no_likelihood(answer):
    with pytest.raises(TypeError, match="has no likelihood"):
        _ = answer.likelihood


# -- what an answer says of itself -----------------------------------------------------------------


def test_calls_of_training_and_run_are_added_up(answer):
    assert answer.training.statistics["num_simulator_calls"] == tiny.NUM_SIMULATIONS
    assert answer.num_simulator_calls == tiny.NUM_SIMULATIONS  # the bank asks for nothing
    in_run = 4 * 4 * 5  # iterations, parameters, observations
    live = qx.infer(KEY, poisson, X, estimator=tiny.trained("alfi", poisson).value.with_simulator(), progress=QUIET)
    assert live.num_simulator_calls == in_run


def test_the_dictionary_is_json_and_complete(answer):
    found = json.loads(json.dumps(answer.to_dict()))
    assert found["parameters"] == {"log_rate": answer.posterior.summary()["log_rate"]}
    assert set(found["parameters"]["log_rate"]) == {"mean", "std", "q05", "q50", "q95"}
    assert (found["simulator"], found["seed"], found["method"]) == ("poisson", 5, None)
    assert found["num_observations"] == len(X)
    assert found["warnings"] == list(answer.warnings)


def test_warnings_of_training_come_along():
    many = qx.infer(KEY, None, np.repeat(X, 5), estimator=tiny.trained("alfi", poisson), progress=QUIET)
    assert any("60 observations" in warning for warning in many.warnings)


def test_failed_simulations_are_a_warning_and_host_simulators_are_not_run_in_the_loop(monkeypatch):
    monkeypatch.setattr("quincunx.methods.method.fit", tiny.untrained)

    @qx.numpy_simulator(qx.Prior(rate=dist.Uniform(1.0, 9.0)), workers=0)
    def brittle(rng, theta):
        if theta["rate"] < 1.5:
            raise RuntimeError("too slow")
        return rng.poisson(theta["rate"])

    solution = tiny.train("alfi", brittle)
    (warning,) = solution.warnings
    assert "of 100 simulations failed" in warning
    assert "too slow" in warning
    found = qx.infer(KEY, brittle, jnp.asarray(X), estimator=solution, progress=QUIET)
    assert found.num_simulator_calls == solution.statistics["num_simulator_calls"] == 1000
    assert found.warnings[:2] == (warning, UNCALIBRATED)  # a budget of 1,000 leaves too few sets


# -- misuse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: qx.infer(KEY, poisson, X, "alfy"), ValueError, "did you mean 'alfi'"),
        (lambda m: qx.infer(KEY, poisson, X, 3), TypeError, r"such as qx\.ALFI\(\), or its name, got int"),
        (lambda m: qx.infer(KEY, poisson, X, "alices"), TypeError, "'poisson' is a black box"),
        (lambda m: qx.infer(KEY, poisson, X, estimator=m, num_simulations=9), TypeError, "drop num_simulations"),
        (lambda m: qx.infer(KEY, poisson, X, "alfi", estimator=m), TypeError, "drop method, or the estimator"),
        (lambda m: qx.infer(KEY, None, X), ValueError, "give a simulator, a trained estimator, or both"),
        (lambda m: qx.infer(KEY, gaussian, X, estimator=m), ValueError, "trained for the simulator 'poisson'"),
        (lambda m: qx.infer(KEY, poisson, X, estimator=3), TypeError, "expected what `train` returned, got int"),
        (lambda m: qx.infer(KEY, poisson, [1.0, np.nan]), ValueError, "the first in row 1"),
        (lambda m: qx.infer(KEY, gaussian, X), ValueError, r"shape \(m, 2\); got \(12,\)"),
        (lambda m: qx.infer(KEY, poisson, X[:0], estimator=m), ValueError, "at least one"),
        (lambda m: qx.infer(KEY, poisson, X, num_simulations=0), ValueError, "num_simulations must be at least 1"),
        (lambda m: qx.train(KEY, poisson, num_simulations=0), ValueError, "num_simulations must be at least 1, got 0"),
        (lambda m: qx.train(KEY, poisson, num_observations=0), ValueError, "num_observations must be at least 1"),
        (lambda m: qx.train(KEY, chain, qx.ALICES(alpha=-1.0)), ValueError, "alpha must not be negative"),
        (lambda m: qx.train(KEY, chain, qx.CARL(batch_size=1)), ValueError, "batch_size must be at least 2"),
        (lambda m: qx.train(KEY, chain, qx.SCANDAL(alpha=-1.0)), ValueError, "alpha must not be negative"),
        (lambda m: qx.train(KEY, chain, qx.NRE(reference=qx.PairReference())), ValueError, "nre is against the marg"),
    ],
)  # fmt: skip
def test_misuse_is_refused_before_any_work(call, error, message, monkeypatch):
    machine = tiny.trained("alfi", poisson)
    work = lambda *given, **options: pytest.fail("it was let in")
    monkeypatch.setattr("quincunx.methods.method.fit", work)
    for kind, name in [(type(poisson), "draw"), (type(chain), "draw"), (type(chain), "mine")]:
        monkeypatch.setattr(kind, name, work)
    with pytest.raises(error, match=message):
        call(machine)


@pytest.mark.parametrize(
    "x", [np.zeros((10, 2)), np.zeros(0), np.array(["a", "b"]), np.array([1j, 2.0]), [0.0, np.nan]]
)
def test_unusable_observations_are_refused_alike_at_every_door(x):
    machine, ratio = tiny.trained("alfi", poisson), tiny.trained("alices")
    refused = []
    for call in (
        lambda: qx.posterior(machine.value, x),
        lambda: qx.run(KEY, machine.value, x),
        lambda: qx.infer(KEY, poisson, x, estimator=machine, progress=QUIET),
        lambda: qx.infer(KEY, poisson, x, progress=QUIET),
        lambda: qx.likelihood(ratio.value, x, rate=None),
    ):
        with pytest.raises((ValueError, TypeError)) as error:
            call()
        refused.append(str(error.value).replace("chain", "poisson"))
    assert len(set(refused)) == 1


SETS = qx.simulate(KEY, chain, num_simulations=9, num_observations=2)


@pytest.mark.parametrize(
    ("name", "sims", "message"),
    [
        ("nre", lambda: SETS, "nre takes one observation per row, these simulations have 2"),
        ("nle", lambda: (SETS, SETS), "nle takes one record of simulations, not several"),
        ("nre", lambda: qx.contrast(KEY, chain, num_simulations=9, reference=qx.PointReference([0.1])), "use carl"),
        ("nle", lambda: unplaced(), "nle must know where x was drawn"),
        ("histogram", lambda: unplaced(), "histogram must know where x was drawn"),
        ("alfi", lambda: SETS, "9 simulations are too few to meta-train on"),
    ],
)
def test_simulations_that_a_method_cannot_learn_from(name, sims, message):
    with pytest.raises(ValueError, match=message):
        tiny.train(name, None, sims=sims())


def unplaced():
    """Rows of a file that does not say where x was drawn."""
    sims = qx.contrast(KEY, chain, num_simulations=40)
    return qx.Simulations(sims.theta, sims.x, chain, label=sims.label)
