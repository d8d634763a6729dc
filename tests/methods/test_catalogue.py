"""The laws that every method of the catalogue keeps, on a simulator with gold. A new method is under them at once."""

import dataclasses
import functools
import json
import types
import typing
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from chain import chain
from compiling import compiled
from typer.testing import CliRunner

import quincunx as qx
from quincunx.answers.bayes.posterior import AbstractPosterior
from quincunx.answers.estimates import AbstractPosteriorEstimator
from quincunx.cli.app import app
from quincunx.cli.config import method_of, options_of, settings
from quincunx.cli.options import TRAIN_TYPES
from quincunx.core.batches import bucket
from quincunx.methods import CATALOGUE, door
from quincunx.methods.door import possible
from quincunx.methods.method import GOLD, AbstractLearner, Budget, Refinement, columns

NAMES = tuple(CATALOGUE)
LEARNERS = tuple(name for name in NAMES if isinstance(CATALOGUE[name](), AbstractLearner))
SEARCHES = tuple(name for name in NAMES if name not in LEARNERS)
POSTERIORS = [name for name in LEARNERS if CATALOGUE[name]().card.gives == "posterior"]
X = np.array([0.4, -0.2, 0.9], np.float32)
THETA = jnp.array([[-0.7], [0.1], [0.8]])


def gathered(name, key=tiny.KEY):
    return tiny.method(name).gather(key, chain, Budget(tiny.NUM_SIMULATIONS), qx.NoProgress())


@eqx.filter_jit
def log_ratios(ratio, theta, x):
    return jax.vmap(lambda each: ratio.log_ratio(each, x))(theta)


def fitting(estimator, x=X):
    """As many of the observations as the estimator is for, where it is for one number of them."""
    return x[: getattr(estimator, "num_observations", len(x))]


def says(estimator, x=X):
    """Numbers that hang on all that an estimator has learnt."""
    if isinstance(estimator, AbstractPosteriorEstimator):
        return np.asarray(qx.posterior(estimator, fitting(estimator, x)).sample(tiny.KEY, 8))
    return np.asarray(log_ratios(estimator, THETA, estimator.observations(x)))


def same(one, other) -> bool:
    """The same tree with the same bits."""
    return bool(eqx.tree_equal(one, other)) and jax.tree.structure(one) == jax.tree.structure(other)


# -- what it needs, and gives ----------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNERS)
def test_it_gathers_what_it_needs_within_the_budget(name):
    sims, method = gathered(name), tiny.method(name)
    assert method.name == name
    assert set(method.needs) <= {field.name for field in dataclasses.fields(qx.Simulations)}
    assert set(method.needs) <= columns(sims)
    method.check(sims)
    assert method.card.paper.count("arXiv:") == 1
    calls = tiny.trained(name).statistics["num_simulator_calls"]
    assert 0.9 * tiny.NUM_SIMULATIONS < calls <= tiny.NUM_SIMULATIONS


@pytest.mark.parametrize(("name", "need"), [(name, need) for name in LEARNERS for need in CATALOGUE[name]().needs])
def test_it_names_the_column_that_is_not_there(name, need):
    sims = dataclasses.replace(gathered(name), **{need: None})
    assert name not in possible(sims)
    with pytest.raises(ValueError, match=rf"^{name} needs {need}, which .* would work: {', '.join(possible(sims))}\."):
        tiny.train(name, None, sims=sims)


class Allowed(Exception):
    """The simulator was let in."""


@pytest.mark.parametrize("name", LEARNERS)
def test_a_black_box_is_refused_by_the_methods_that_need_gold_and_by_no_other(name, monkeypatch):
    def gather(*given):
        raise Allowed

    monkeypatch.setattr(type(CATALOGUE[name]()), "gather", gather)
    free = [each for each in NAMES if not set(CATALOGUE[each]().needs) & set(GOLD)]
    refusal = rf"{name} needs .* 'poisson' is a black box\. .* work with it: {', '.join(free)}\."
    with pytest.raises(Allowed) if name in free else pytest.raises(TypeError, match=refusal):
        tiny.train(name, qx.problems.poisson)
    with pytest.raises(Allowed):
        tiny.train(name, chain)


@pytest.mark.parametrize("name", LEARNERS)
def test_it_gives_the_one_answer_that_it_says(name):
    estimator = tiny.trained(name).value
    if CATALOGUE[name]().card.gives == "posterior":
        posterior = qx.posterior(estimator, fitting(estimator))
        assert isinstance(posterior, AbstractPosterior)
        assert bool(chain.prior.contains(posterior.sample(tiny.KEY, 100)).all())
        with pytest.raises(TypeError, match=r"has no likelihood; .* qx\.posterior\(estimator, x\)"):
            qx.likelihood(estimator, X)
    else:
        assert CATALOGUE[name]().card.gives == "likelihood"
        found = float(qx.likelihood(estimator, X, rate=None)(THETA[0]))
        assert found == pytest.approx(float(says(estimator)[0].sum()), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_answers_for_one_data_set(name, tmp_path):
    with pytest.raises(TypeError, match=rf"{name} answers for one .* qx\.infer\(key, simulator, x, '{name}'\)"):
        qx.train(tiny.KEY, chain, name)
    budget = {"num_simulations": tiny.NUM_SIMULATIONS, "progress": qx.NoProgress()}
    if CATALOGUE[name]().training is None:
        with pytest.raises(TypeError, match=rf"{name} takes no training: drop it"):
            qx.infer(tiny.KEY, chain, X, name, training=tiny.TRAINING, **budget)
    else:
        budget["training"] = tiny.TRAINING
    ask = lambda key: qx.infer(key, chain, X, tiny.method(name), **budget)
    answer = ask(tiny.KEY)
    assert 0.9 * tiny.NUM_SIMULATIONS < answer.num_simulator_calls <= tiny.NUM_SIMULATIONS
    assert (answer.method, answer.estimator, answer.training) == (name, None, None)
    draws = answer.posterior.sample(tiny.KEY, 100)
    assert bool(chain.prior.contains(draws).all())
    np.testing.assert_array_equal(draws, ask(tiny.KEY).posterior.sample(tiny.KEY, 100))
    assert not np.array_equal(draws, ask(jax.random.key(4)).posterior.sample(tiny.KEY, 100))
    with pytest.raises(TypeError, match=f"{name} keeps no estimator"):
        _ = answer.likelihood
    qx.save(tmp_path / "a", answer)
    loaded = qx.load(tmp_path / "a", simulator=chain)
    np.testing.assert_array_equal(draws, loaded.posterior.sample(tiny.KEY, 100))
    np.testing.assert_array_equal(answer.posterior.log_prob(THETA), loaded.posterior.log_prob(THETA))
    assert json.loads(json.dumps(loaded.to_dict())) == json.loads(json.dumps(answer.to_dict()))
    assert qx.plot(loaded).axes


# -- the same call gives the same bits -------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNERS)
def test_same_key_same_bits_by_name_or_by_value(name, monkeypatch):
    assert same(door.named(name), CATALOGUE[name]())
    monkeypatch.setattr(door, "CATALOGUE", {name: functools.partial(tiny.method, name)})
    again = qx.train(tiny.KEY, chain, name, num_simulations=tiny.NUM_SIMULATIONS, training=tiny.TRAINING)
    first = tiny.trained(name)
    assert same(first.value, again.value)
    assert (first.history, first.statistics) == (again.history, again.statistics)
    other = tiny.train(name, key=jax.random.key(4))
    assert not np.array_equal(says(first.value), says(other.value))


@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_saved_answers_the_same(name, tmp_path):
    trained = tiny.trained(name)
    qx.save(tmp_path / "m", trained, seed=tiny.SEED)
    loaded = qx.load(tmp_path / "m", simulator=chain)
    assert same(trained.value, loaded.value)
    assert loaded.value.simulator is chain
    assert (trained.status, trained.statistics, trained.history, trained.warnings) == (
        loaded.status, loaded.statistics, loaded.history, loaded.warnings
    )  # fmt: skip
    np.testing.assert_array_equal(says(trained.value), says(loaded.value))


@pytest.mark.parametrize("name", LEARNERS)
def test_simulations_made_before_need_no_simulator(name):
    sims = gathered(name)
    solution = tiny.train(name, None, sims=sims)
    parts = sims if isinstance(sims, tuple) else (sims,)
    assert solution.statistics["num_simulator_calls"] == sum(part.num_simulator_calls for part in parts)
    assert np.isfinite(says(solution.value)).all()
    with pytest.raises(ValueError, match=f"{name}: give a simulator, or simulations"):
        tiny.train(name, None)


# -- a second call compiles nothing ----------------------------------------------------------------

FEWER = 998
OTHERWISE = qx.Training(num_steps=6, learning_rate=3e-3, weight_decay=0.01, clip_norm=0.5, patience=5)


@pytest.mark.parametrize("name", LEARNERS)
def test_other_numbers_compile_nothing(name):
    assert bucket(FEWER) == bucket(tiny.NUM_SIMULATIONS)
    tiny.train(name)
    with compiled() as names:
        solution = tiny.train(name, key=jax.random.key(5), num_simulations=FEWER, training=OTHERWISE)
    assert names == []
    assert solution.statistics["num_simulator_calls"] <= FEWER


@pytest.mark.parametrize("name", POSTERIORS)
def test_a_posterior_for_other_data_compiles_nothing(name):
    estimator = tiny.trained(name).value
    ask = lambda x: qx.infer(
        tiny.KEY, None, fitting(estimator, x), estimator=estimator, progress=qx.NoProgress()
    ).to_dict()
    ask(np.linspace(-1, 1, 11))
    with compiled() as names:
        ask(np.linspace(0, 1, 12))
    assert names == []


def test_compiling_is_seen():
    with compiled() as names:
        jax.jit(lambda x: x + len(NAMES))(1.0)
    assert len(names) == 1


# -- as text ---------------------------------------------------------------------------------------

VALUES: dict[Any, tuple[str, Any]] = {  # type or option -> what TOML says, and what Python says
    int: ("7", 7),
    float: ("0.5", 0.5),
    "num_sets": ("200", 200),
    "num_particles": ("200", 200),
    "summaries": ("'raw'", "raw"),
    "adjust": ("false", False),
    "before": ("'smc-abc'", qx.SMCABC()),
    "learner": ("{ batch_size = 64 }", qx.NPE(batch_size=64)),
    "refinement": ("{ search = 'zoom', share = 0.25 }", Refinement(qx.Zoom(), 0.25)),
    bool: ("true", True),
    qx.MLP: ("{ widths = [5, 6], members = 2, activation = 'tanh' }", qx.MLP((5, 6), 2, "tanh")),
    qx.Flow: ("{ layers = 3, width = 7, knots = 4 }", qx.Flow(3, 7, 4)),
    qx.Velocity: ("{ widths = [5, 6], num_steps = 3 }", qx.Velocity((5, 6), 3)),
    qx.Denoiser: ("{ width = 5, layers = 2, num_steps = 3 }", qx.Denoiser(5, 2, 3)),
    qx.Transformer: ("{ width = 6, heads = 2, layers = 2, num_steps = 3 }", qx.Transformer(6, 2, 2, 3)),
    qx.Machine: ("{ num_iterations = 5, bandwidth = 0.1 }", qx.Machine(num_iterations=5, bandwidth=0.1)),
    "encoder": ("{ name = 'image', channels = [4, 5] }", qx.ImageEncoder((4, 5))),
    "form": ("'plain'", "plain"),
    "theta": ("{ mean = 0.5 }", {"mean": 0.5}),
    "theta_reference": ("{ mean = 0.5 }", {"mean": 0.5}),
    "reference": ("{ name = 'marginal', pool_size = 16 }", qx.MarginalReference(16)),
    "partial_loss": ("'mean_squared_error'", qx.MeanSquaredError()),
    "weighting": ("{ name = 'exponential', beta = 2.0 }", qx.ExponentialWeighting(2.0)),
}
OPTIONS = [(name, option) for name in NAMES for option in options_of(CATALOGUE[name])]


def example(name: str, option: str) -> tuple[str, Any]:
    hint = options_of(CATALOGUE[name])[option]
    kinds = [hint, *(typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else ())]
    return next(VALUES[each] for each in (option, *kinds) if each in VALUES)


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_every_option_can_be_said_in_a_file_and_on_the_command_line(name, option, tmp_path):
    text, value = example(name, option)
    expected = CATALOGUE[name](**{option: value})
    assert not same(expected, CATALOGUE[name]())  # it is no default, so that taking no notice of it would be seen
    (tmp_path / "s.toml").write_text(f"method = '{name}'\n[options]\n{option} = {text}\n")
    assert same(method_of(settings(tmp_path / "s.toml", {}, TRAIN_TYPES)), expected)
    assert same(method_of(settings(None, {"method": name, "set": [f"{option}={text}"]}, TRAIN_TYPES)), expected)


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_an_option_that_is_nearly_right_is_told(name, option):
    with pytest.raises(ValueError, match=rf"^{name}: {option}s: unknown key \(did you mean '{option}'\?\)"):
        method_of(settings(None, {"method": name, "set": [f"{option}s=1"]}, TRAIN_TYPES))


def test_all_are_listed():
    rows = json.loads(CliRunner().invoke(app, ["methods", "--json"]).stdout)["methods"]
    assert [row["name"] for row in rows] == list(NAMES)
    for row in rows:
        method = CATALOGUE[row["name"]]()
        assert (row["gives"], tuple(row["needs"]), row["paper"]) == (method.card.gives, method.needs, method.card.paper)
        assert list(row["options"]) == list(options_of(CATALOGUE[row["name"]]))
        assert row["about"].endswith(".")
    assert all(name in CliRunner().invoke(app, ["methods"]).stdout for name in NAMES)


def test_a_name_that_is_nearly_right_is_told():
    for name in NAMES:
        with pytest.raises(ValueError, match=rf"unknown method '{name}x' \(did you mean '[\w-]+'\?\)"):
            qx.train(tiny.KEY, chain, f"{name}x")
