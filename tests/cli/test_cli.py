"""The command line: every command, its JSON, its exit codes, and errors that say what to do."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_machine
from typer.testing import CliRunner

import quincunx as qx
from quincunx.cli.app import app
from quincunx.cli.config import settings
from quincunx.cli.demo import maximum_likelihood, observations
from quincunx.core.progress import AbstractProgress
from quincunx.core.tables import estimate_text, read_observations, write_observations
from quincunx.problems import poisson


def call(*words, code: int = 0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.toml").write_text(tiny_machine.TOML)
    qx.save(folder / "model", tiny_machine.trained(), seed=tiny_machine.SEED)
    call("simulate", "poisson", "--at", "log_rate=1.2", "--observations", 12, "--seed", 1, "--out", folder / "x.csv")
    return folder


def check_same_network(one, two) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


# -- commands --------------------------------------------------------------------------------------


def test_simulators_are_listed_with_priors_and_sources():
    rows = json.loads(call("simulators", "--json").stdout)["simulators"]
    weinberg = next(row for row in rows if row["name"] == "weinberg")
    assert set(weinberg["parameters"]) == {"energy", "fermi"}
    assert "Uniform(low=40" in weinberg["parameters"]["energy"]
    assert "1811.12932" in weinberg["source"]
    assert "multivariate" in call("simulators").stdout


def test_simulated_data_are_those_of_the_library(home):
    expected = qx.simulate(jax.random.key(1), poisson, num_observations=12, theta=np.array([[1.2]])).x[0]
    np.testing.assert_array_equal(read_observations(home / "x.csv", event_shape=()), expected)
    printed = json.loads(
        call("simulate", "poisson", "--at", "log_rate=1.2", "--observations", 12, "--seed", 1, "--json").stdout
    )
    assert printed["observations"] == expected.tolist()
    assert printed["parameters"] == {"log_rate": 1.2}


def test_infer_with_a_model_prints_one_json_object_and_leaves_files(home, tmp_path):
    result = call(
        "infer", "--model", home / "model", "--data", home / "x.csv", "--seed", 7, "--json", "--out", tmp_path
    )
    found = json.loads(result.stdout)
    x = read_observations(home / "x.csv", event_shape=())
    own = qx.infer(jax.random.key(7), poisson, x, machine=tiny_machine.trained(), progress=qx.NoProgress())
    assert found == own.to_dict()
    assert json.loads((tmp_path / "result.json").read_text()) == found
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert qx.load(tmp_path / "inference").to_dict() == found


def test_train_gives_the_machine_of_the_library(home, tmp_path):
    words = ["train", "poisson", "--out", tmp_path / "m", "--config", home / "tiny.toml", "--seed", tiny_machine.SEED]
    report = json.loads(call(*words, "--json").stdout)
    assert report["statistics"]["num_simulator_calls"] == 800
    check_same_network(qx.load(tmp_path / "m").value, tiny_machine.trained().value)
    assert [each.name for each in tmp_path.iterdir()] == ["m"]  # no checkpoint is left


def test_infer_from_scratch_is_infer_of_the_library(home, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["quincunx.methods.door"], "fit", tiny_machine.untrained)
    monkeypatch.chdir(tmp_path)
    words = ["infer", "poisson", "--data", home / "x.csv", "--config", home / "tiny.toml", "--seed", 7]
    found = json.loads(call(*words, "--json").stdout)
    options = {**tiny_machine.OPTIONS, "training": qx.Training(**tiny_machine.TRAINING), "progress": qx.NoProgress()}
    x = read_observations(home / "x.csv", event_shape=())
    assert found == qx.infer(jax.random.key(7), poisson, x, **options).to_dict()
    assert list(tmp_path.iterdir()) == []


def test_the_demo_compares_with_the_maximum_likelihood_estimate(home, tmp_path):
    found = json.loads(call("demo", "--config", home / "tiny.toml", "--out", tmp_path / "d", "--json").stdout)
    assert found["num_observations"] == 2608
    assert found["maximum_likelihood"]["estimate"] == pytest.approx(np.log(observations().mean()), abs=1e-5)
    assert {each.name for each in (tmp_path / "d").iterdir()} == {"figure.png", "result.json", "machine"}
    assert set(found["seconds"]) == {"simulate", "train", "infer"}


def test_the_standard_error_is_that_of_theory():
    x = observations()
    _, error = maximum_likelihood(poisson, jax.numpy.asarray(x))
    assert error == pytest.approx(x.sum() ** -0.5, rel=1e-4)  # the information on a log rate is the total count


# -- refusals --------------------------------------------------------------------------------------


MISUSES = {
    "unknown parameter": ("simulate weinberg --at energie=42 --at fermi=0.9", "did you mean 'energy'"),
    "missing parameter": ("simulate weinberg --at energy=42", "no value for fermi"),
    "outside the prior": ("simulate weinberg --at energy=62 --at fermi=0.9", "62 is outside the support"),
    "no number": ("simulate weinberg --at energy=high", "expected NAME=VALUE with a number"),
    "twice": ("simulate poisson --at log_rate=1 --at log_rate=2", "given twice"),
    "unknown simulator": ("simulate poissson --at log_rate=1", "did you mean 'poisson'"),
    "no folder": ("train poisson", "give --out MODEL_DIR"),
    "no data": ("infer poisson", "give --data X.csv"),
    "nothing to infer with": ("infer --data {home}/x.csv", "give a SIMULATOR to train for, or --model"),
    "missing data": ("infer poisson --data {home}/y.csv", "no such file"),
    "missing model": ("infer --model {home}/none --data {home}/x.csv", "no such folder"),
    "other simulator": (
        "infer gaussian --model {home}/model --data {home}/x.csv",
        "belongs to the simulator 'poisson'",
    ),
    "options of training": ("infer --model {home}/model --data {home}/x.csv --simulations 9", "takes no simulations"),
    "not a model": ("infer --model {home} --data {home}/x.csv", "was not saved by quincunx"),
    "folder in use": ("train poisson --out {home}", "holds something else"),
    "method": ("train poisson --out {home}/m --method alphi", "did you mean 'alfi'"),
    "seed": ("train poisson --out {home}/m --seed -1", "--seed"),
}


@pytest.mark.parametrize("case", MISUSES)
def test_misuse_exits_with_2_and_says_what_to_do(case, home):
    command, message = MISUSES[case]
    result = call(*command.format(home=home).split(), code=2)
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert not (home / "m").exists()


def test_a_simulator_that_fails_exits_with_1(tmp_path):
    (tmp_path / "bad.py").write_text(textwrap.dedent("""
        import numpyro.distributions as dist
        import quincunx as qx

        @qx.numpy_simulator(qx.Prior(a=dist.Uniform(0, 1)), workers=0)
        def bad(rng, theta):
            raise OverflowError("too large")
    """))  # fmt: skip
    result = call("simulate", f"{tmp_path}/bad.py:bad", "--at", "a=0.5", code=1)
    assert "too large" in result.stderr


def test_a_checkpoint_of_an_interrupted_training_is_not_overwritten(home, tmp_path):
    (tmp_path / "m.checkpoint").write_text("hours of work")
    result = call("train", "poisson", "--out", tmp_path / "m", "--config", home / "tiny.toml", code=2)
    assert "add --resume to go on" in result.stderr
    assert (tmp_path / "m.checkpoint").read_text() == "hours of work"


class Interrupting(AbstractProgress):
    """Ctrl-C, pressed when training has advanced three times."""

    seen: list

    def start(self, stage: str, total: int) -> None:
        self.seen.clear()
        self.seen.append(stage)

    def advance(self, steps: int, note: str = "") -> None:
        self.seen.append(steps)
        if self.seen[0] == "train" and len(self.seen) == 4:
            raise KeyboardInterrupt

    def finish(self) -> None:
        pass


def test_ctrl_c_keeps_the_checkpoint_and_resuming_changes_nothing(home, tmp_path, monkeypatch):
    words = ["train", "poisson", "--out", tmp_path / "m", "--config", home / "tiny.toml", "--seed", tiny_machine.SEED]
    with monkeypatch.context() as patch:
        patch.setattr("quincunx.core.progress.RichProgress", lambda: Interrupting([]))
        result = call(*words, code=1)
    assert f"the checkpoint is kept in {tmp_path / 'm.checkpoint'}; add --resume" in result.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["m.checkpoint"]
    call(*words, "--resume")
    assert [each.name for each in tmp_path.iterdir()] == ["m"]
    check_same_network(qx.load(tmp_path / "m").value, tiny_machine.trained().value)


@pytest.mark.slow
def test_ctrl_c_from_outside(tmp_path):
    (tmp_path / "long.toml").write_text(tiny_machine.TOML.replace("num_steps = 4", "num_steps = 4000000"))
    words = [sys.executable, "-m", "quincunx", "train", "poisson", "--out", "m", "--config", "long.toml"]
    env = {**os.environ, "PYTHONPATH": str(Path(qx.__file__).parent.parent)}
    with open(tmp_path / "err", "w") as err:
        process = subprocess.Popen(words, cwd=tmp_path, stderr=err, env=env)
        for _ in range(1200):
            if (tmp_path / "m.checkpoint").exists():  # written after ten seconds of training
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 1
    message = (tmp_path / "err").read_text()
    assert "m.checkpoint; add --resume to go on" in message
    assert "Traceback" not in message
    assert (tmp_path / "m.checkpoint").exists()


# -- settings --------------------------------------------------------------------------------------


def test_what_is_given_wins_over_the_file(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text('simulations = 5\nseed = 2\n[training]\nlearning_rate = 1\n[loss]\nweighting = "last"\n')
    merged = settings(file, {"seed": 9}, {"simulations": int, "seed": int, "out": str})
    assert (merged["simulations"], merged["seed"], merged["out"]) == (5, 9, None)
    assert merged["training"] == qx.Training(learning_rate=1.0)
    assert merged["loss"] == qx.ALFI(weighting=qx.LastWeighting())
    file.write_text('[loss]\nweighting = { name = "exponential", beta = 2 }\n')
    assert settings(file, {}, {})["loss"] == qx.ALFI(weighting=qx.ExponentialWeighting(2.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("simulation = 5", "unknown key 'simulation' (did you mean 'simulations'?)"),
        ("simulations = 'many'", "simulations: expected int, got 'many' (str)"),
        ("simulations = true", "simulations: expected int, got True (bool)"),
        ("training = 3", "expected a table [training]"),
        ("[training]\nnum_step = 3", "training.num_step: unknown key (did you mean 'num_steps'?)"),
        ("[training]\nnum_steps = 0", "num_steps must be at least 1, got 0"),
        ("[machine]\nwidht = 3", "machine.widht: unknown key (did you mean 'width'?)"),
        ("[machine]\nwidth = 3.5", "machine.width: expected int, got 3.5 (float)"),
        ("[loss]\nweighting = 'lst'", "loss.weighting: unknown choice 'lst' (did you mean 'last'?)"),
        ("[loss]\nweighting = { name = 'last', beta = 1 }", "loss.weighting.beta: unknown key"),
        ("[loss", "is not TOML"),
    ],
)
def test_mistakes_in_a_settings_file(text, message, tmp_path):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(ValueError) as error:
        settings(tmp_path / "s.toml", {}, {"simulations": int, "seed": int})
    assert message in str(error.value)


# -- tables ----------------------------------------------------------------------------------------


def test_tables_are_read_in_every_dialect(tmp_path):
    file = tmp_path / "x.csv"
    for text in ("1,2\n3,4\n", "# note\nx[0],x[1]\n1,2\n\n3,4", "\ufeffx[1];x[0]\n2;1\n4;3\n", "a\tb\n1\t2\n3\t4"):
        file.write_text(text, encoding="utf-8")
        np.testing.assert_array_equal(read_observations(file, event_shape=(2,)), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(read_observations(file, event_shape=(), columns=["b"]), [2, 4])
    np.testing.assert_array_equal(read_observations(file, event_shape=(), counts="a"), [2, 4, 4, 4])


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_what_is_written_reads_back_as_the_same_float32(shape, tmp_path):
    x = np.random.default_rng(0).normal(size=(50, *shape)).astype(np.float32) * 10.0 ** np.arange(-25, 25).reshape(
        -1, *[1] * len(shape)
    )
    x = x.astype(np.float32)
    with open(tmp_path / "x.csv", "w") as file:
        write_observations(file, x, ["a comment"])
    np.testing.assert_array_equal(read_observations(tmp_path / "x.csv", event_shape=shape).astype(np.float32), x)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "is empty"),
        ("# only a comment\n\n", {}, "is empty"),
        ("x\n", {}, "has a header and no observation"),
        ("x\n1\n2,3\n", {}, "line 3: expected 1 cells like the first row, got 2"),
        ("x\n1\n\nnan\n", {}, "line 4, column 'x': nan is not a finite number"),
        ("x\n1\ninf\n", {}, "line 3, column 'x': inf is not a finite number"),
        ("x\n1\none\n", {}, "line 3, column 'x': 'one' is not a number"),
        ("a,b\n1,\n", {}, "line 2, column 'b': the cell is empty"),
        ("a,b\n1,2\n", {"event_shape": ()}, "1 column; the file has 2 (a, b): choose them by name"),
        ("a\n1\n", {"event_shape": (2,)}, "the file has 1 (a): a column is missing"),
        ("x[0],x[2]\n1,2\n", {"event_shape": (3,)}, "has no column 'x[1]'"),
        (
            "energy,b\n1,2\n",
            {"columns": ["energie"]},
            "has no column 'energie' (did you mean 'energy'?); it has energy, b",
        ),
        ("x,n\n1,2\n3,0.5\n", {"counts": "n"}, "line 3, column 'n': 0.5 is not a count"),
        ("x,n\n1,0\n", {"counts": "n"}, "add up to 0"),
    ],
)
def test_mistakes_in_a_table(text, options, message, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError) as error:
        read_observations(tmp_path / "x.csv", **options)
    assert message in str(error.value)


def test_estimates_show_the_digits_that_matter():
    texts = [estimate_text(1.353655, 0.00995, 3), estimate_text(1234.5, 67.0), estimate_text(0.5, 0.0)]
    assert texts == ["1.35366 ± 0.00995", "1234 ± 67", "0.5 ± 0"]
