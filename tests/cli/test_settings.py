"""Settings: what a file and the command line may say, and what is said of everything else."""

import math

import equinox as eqx
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import quincunx as qx
from quincunx.cli import config
from quincunx.cli.config import choice_name, method_of, options_of, seed_of, settings, training_of
from quincunx.cli.options import DATA_TYPES, TRAIN_TYPES
from quincunx.core.fit import Training
from quincunx.methods import CATALOGUE
from quincunx.methods.method import AbstractLearner, Method
from quincunx.methods.recurrent.alfi import AbstractPartialLoss, AbstractWeighting

TYPES = {**TRAIN_TYPES, **DATA_TYPES, "out": str}
FEW = hypothesis_settings(max_examples=150, deadline=None, derandomize=True)


def read(text, tmp_path, **given_too):
    (tmp_path / "s.toml").write_text(text)
    return settings(tmp_path / "s.toml", given_too, TYPES)


# -- what is taken ---------------------------------------------------------------------------------


def test_what_is_given_wins_over_the_file(tmp_path):
    merged = read(
        "simulations = 5\nseed = 2\n[options]\nlive = true\nbatch_size = 9", tmp_path, seed=9, set=["live=false"]
    )
    assert (merged["simulations"], merged["seed"], merged["out"]) == (5, 9, None)
    assert merged["options"] == {"live": False, "batch_size": 9}


def test_training_is_the_methods_own_but_for_what_is_said(tmp_path):
    merged = read("method = 'nle'\n[training]\nlearning_rate = 1", tmp_path)
    own = CATALOGUE["nle"]().card.training
    assert training_of(merged, method_of(merged)) == Training(num_steps=own.num_steps, learning_rate=1.0)
    assert own.num_steps != Training().num_steps


def test_records_in_records_from_a_file_and_from_the_command_line(tmp_path):
    text = "[options]\nweighting = { name = 'exponential', beta = 2 }\nnetwork = { width = 3, memory = 4 }"
    merged = read(text, tmp_path, set=["network.width=5", "partial_loss = mean_squared_error"])
    network, weighting, partial_loss = (
        qx.Machine(width=5, memory=4),
        qx.ExponentialWeighting(2.0),
        qx.MeanSquaredError(),
    )
    assert method_of(merged) == qx.ALFI(network=network, weighting=weighting, partial_loss=partial_loss)


@pytest.mark.parametrize("text", ["{ name = 'point', theta = { mean = 0.3 } }", "{ theta = { mean = 0.3 } }"])
def test_a_table_that_fits_one_choice_alone_needs_no_name(text):
    merged = settings(None, {"method": "alices", "set": [f"reference = {text}"]}, TYPES)
    assert eqx.tree_equal(method_of(merged), qx.ALICES(reference=qx.PointReference({"mean": 0.3})))


@pytest.mark.parametrize(("kind", "names"), [
    (AbstractWeighting, {"last", "constant", "exponential", "settled"}),
    (AbstractPartialLoss, {"negative_log_likelihood", "mean_squared_error"}),
])  # fmt: skip
def test_a_word_for_every_choice(kind, names):
    assert {choice_name(each, kind) for each in kind.__subclasses__()} == names


def test_seeds():
    assert seed_of({"seed": None}) == seed_of({}) == 0
    assert seed_of({"seed": 2**32 - 1}) == 2**32 - 1
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match="seed must be from 0"):
            seed_of({"seed": seed})


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("simulation = 5", "simulation: unknown key (did you mean 'simulations'?)"),
        ("simulations = 'many'", "simulations: expected int, got 'many' (str)"),
        ("simulations = true", "simulations: expected int, got True (bool)"),
        ("training = 3", "training: expected a table, got 3 (int)"),
        ("[training]\nnum_step = 3", "training.num_step: unknown key (did you mean 'num_steps'?)"),
        ("[training]\nnum_steps = 0", "num_steps must be at least 1, got 0"),
        ("[training]\nnum_steps = nan", "training.num_steps: expected int, got nan (float)"),
        ("method = 'alphi'", "unknown method 'alphi' (did you mean 'alfi'?)"),
        ("[options]\nalpha = 3", "alfi: alpha: unknown key"),
        ("[options]\nnetwork = 3", "alfi: network: expected a table with num_iterations, num_proposed"),
        ("[options]\nnetwork = 'MLP'", "alfi: network: expected a table with num_iterations, num_proposed"),
        ("[options]\nnetwork.widht = 3", "alfi: network.widht: unknown key (did you mean 'width'?)"),
        ("[options]\nnetwork.width = 3.5", "alfi: network.width: expected int, got 3.5 (float)"),
        ("[options]\nweighting = 3", "alfi: weighting: expected one of last, constant"),
        ("[options]\nweighting = 'lst'", "alfi: weighting: unknown choice 'lst' (did you mean 'last'?)"),
        ("[options]\nweighting = { name = ['last'] }", "alfi: weighting: unknown choice ['last']"),
        ("[options]\nweighting = { name = 'last', beta = 1 }", "alfi: weighting.beta: unknown key"),
        ("method = 'alices'\n[options]\nnetwork.widths = ['a']", "alices: network.widths: expected tuple"),
        ("method = 'alices'\n[options]\nnetwork.widths = []", "widths must be a tuple of positive numbers"),
        ("method = 'alices'\n[options]\nalpha = -1.0", "alpha must not be negative"),
        ("column = 'x'", "column: expected list"),
        ("[options", "is not TOML"),
    ],
)
def test_mistakes_in_a_file(text, message, tmp_path):
    with pytest.raises(ValueError) as error:
        merged = read(text, tmp_path)
        training_of(merged, method_of(merged))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["alpha"], "expected NAME=VALUE"),
        (["=3"], "expected NAME=VALUE"),
        (["network.=3"], "expected NAME=VALUE"),
        (["network=3", "network.width=3"], "--set network.width=3: network is no table"),
        (["live=true\nbatch_size=3"], "live: expected bool"),
    ],
)
def test_mistakes_on_the_command_line(texts, message):
    with pytest.raises(ValueError) as error:
        method_of(settings(None, {"set": texts}, TYPES))
    assert message in str(error.value)


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        settings(tmp_path / "none.toml", {}, TYPES)
    (tmp_path / "s.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not TOML"):
        settings(tmp_path / "s.toml", {}, TYPES)


# -- whatever is said ------------------------------------------------------------------------------

PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from(["last", "marginal", "plain", "tanh", *CATALOGUE]),
)  # fmt: skip
NAMES = sorted(
    {
        "method",
        "name",
        "options",
        "training",
        *TYPES,
        *options_of(Training),
        *options_of(qx.MLP),
        *options_of(qx.Machine),
    }
    | {option for make in CATALOGUE.values() for option in options_of(make)}
)


def tables(values):
    return st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), values, max_size=3)


NESTED = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | tables(inner), max_leaves=6)


@st.composite
def likely(draw):
    """A table that is nearly right: options that a method has, with values of any kind."""
    method = draw(st.sampled_from(sorted(CATALOGUE)))
    options = st.dictionaries(st.sampled_from(sorted(options_of(CATALOGUE[method])) or ["none"]), NESTED, max_size=2)
    training = st.dictionaries(st.sampled_from(sorted(options_of(Training))), PLAIN, max_size=2)
    return {"method": method, "options": draw(options), "training": draw(training)}


def made_of(merged):
    method = method_of(merged)
    loss = method.loss if isinstance(method, AbstractLearner) else None
    return method, training_of(merged, method), loss, seed_of(merged)


def is_settings(found) -> bool:
    method, training, _, seed = found
    return isinstance(method, Method) and (training is None or training.num_steps >= 1) and 0 <= seed < 2**32


@FEW
@given(table=tables(NESTED) | likely())
def test_any_table_gives_settings_or_an_error_with_a_message(table):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "_read", lambda path: table)
        try:
            found = made_of(settings("s.toml", {}, TYPES))
        except ValueError as error:
            assert str(error)
        else:
            assert is_settings(found)
            assert not any(isinstance(v, float) and math.isnan(v) for v in vars(found[1] or Training()).values())


@FEW
@given(texts=st.lists(st.text(max_size=12) | st.builds("{}={}".format, st.sampled_from(NAMES), PLAIN), max_size=3))
def test_any_set_gives_settings_or_an_error_with_a_message(texts):
    try:
        found = made_of(settings(None, {"set": texts}, TYPES))
    except ValueError as error:
        assert str(error)
    else:
        assert is_settings(found)


@FEW
@given(
    text=st.text()
    | st.sampled_from(["[options]\n", "[training]\n", "seed = "]).flatmap(lambda a: st.text().map(a.__add__))
)
def test_any_text_of_a_file_gives_settings_or_an_error_with_a_message(text, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        found = made_of(settings(file, {}, TYPES))
    except ValueError as error:
        assert str(error)
    else:
        assert is_settings(found)
