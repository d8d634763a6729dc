"""The command line: every command does what the library does, in JSON and in words, with its exit codes."""

import functools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
import tiny
from calling import call
from chain import chain
from matplotlib.figure import Figure

import quincunx as qx
from quincunx.cli.demonstration import maximum_likelihood, observations
from quincunx.core.progress import AbstractProgress
from quincunx.core.tables import read_observations
from quincunx.problems import poisson

QUIET = qx.NoProgress()
CHAIN = f"{Path(__file__).parent.parent / 'chain.py'}:chain"
X = ["--at", "log_rate=1.2", "--observations", 12, "--seed", 1]
GOLD = ["--method", "alices", "--set", "batch_size=64", "--set", "network.widths=[8]"]  # `tiny.method("alices")`


@functools.cache
def ratio():
    """One that has learnt something: of an untrained one all limits are alike."""
    return tiny.train("alices", training=qx.Training(num_steps=300, learning_rate=1e-2))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model of either kind, with data, and settings."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.toml").write_text(tiny.TOML)
    (folder / "gold.toml").write_text(f"[training]\nnum_steps = {tiny.TRAINING.num_steps}\n")
    qx.save(folder / "model", tiny.trained("alfi", poisson), seed=tiny.SEED)
    qx.save(folder / "ratio", ratio(), seed=tiny.SEED)
    call("simulate", "poisson", *X, "--out", folder / "x.csv")
    call("simulate", CHAIN, "--at", "mean=0.3", "--observations", 22, "--out", folder / "events.csv")
    return folder


def data(path):
    return read_observations(path, event_shape=())


def same_network(one, two) -> bool:
    """Their arrays; what a simulator is does not matter, as one comes from a file."""
    arrays = lambda tree: jax.tree.leaves(eqx.filter(tree, eqx.is_array))
    return all(np.array_equal(a, b) for a, b in zip(arrays(one), arrays(two), strict=True))


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, by path."""
    figures = {}

    def keep(figure, path, **options):
        figures[Path(path)] = figure
        Path(path).write_bytes(b"a figure")

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


# -- lists, and data -------------------------------------------------------------------------------


def test_simulators_are_listed_with_priors_and_sources():
    rows = json.loads(call("simulators", "--json").stdout)["simulators"]
    assert [row["name"] for row in rows] == list(qx.problems.BUILT_IN)
    weinberg = next(row for row in rows if row["name"] == "weinberg")
    assert set(weinberg["parameters"]) == {"energy", "fermi"}
    assert "Uniform(low=40" in weinberg["parameters"]["energy"]
    assert "1811.12932" in weinberg["source"]
    assert "multivariate" in call("simulators").stdout


def test_a_method_is_shown_with_its_options_and_their_defaults():
    (row,) = json.loads(call("methods", "bnre", "--json").stdout)["methods"]
    assert row["options"]["strength"] == "100.0"
    shown = " ".join(call("methods", "bnre").stdout.split())
    assert "strength │ 100.0" in shown
    assert "network │ MLP()" in shown
    assert "alices" not in shown


def test_simulated_data_are_those_of_the_library(home):
    expected = qx.simulate(jax.random.key(1), poisson, num_observations=12, theta=np.array([[1.2]])).x[0]
    np.testing.assert_array_equal(data(home / "x.csv"), expected)
    printed = json.loads(call("simulate", "poisson", *X, "--json").stdout)
    assert printed["observations"] == expected.tolist()
    assert printed["parameters"] == {"log_rate": 1.2}


def test_mined_gold_is_that_of_the_library_and_is_judged(tmp_path):
    out = tmp_path / "g.csv"
    words = ["mine", CHAIN, "--at", "mean=0.5", "--versus", "mean=-0.5", "--n", 500, "--seed", 2, "--out", out]
    report = json.loads(call(*words, "--quality", "--json").stdout)
    assert (report["num_rows"], report["num_failed"], report["seed"]) == (500, 0, 2)
    assert report["quality"] != {}
    reference = qx.PointReference([-0.5])
    own = qx.mine(jax.random.key(2), chain, num_simulations=500, theta=np.array([[0.5]]), reference=reference)
    read = qx.read_gold(out, chain)
    for name in ("theta", "x", "label", "log_ratio", "score", "drawn_at"):
        np.testing.assert_array_equal(getattr(read, name), getattr(own, name), err_msg=name)
    assert "500 observations of chain" in call(*words).stdout.replace("\n", " ")


# -- train -----------------------------------------------------------------------------------------


def test_train_gives_the_machine_of_the_library(home, tmp_path):
    words = ["train", "poisson", "--out", tmp_path / "m", "--config", home / "tiny.toml"]
    report = json.loads(call(*words, "--json").stdout)
    assert report["statistics"] == dict(tiny.trained("alfi", poisson).statistics)
    assert (report["method"], report["seed"], report["status"]) == ("alfi", tiny.SEED, "finished")
    assert same_network(qx.load(tmp_path / "m").value, tiny.trained("alfi", poisson).value)
    assert [each.name for each in tmp_path.iterdir()] == ["m"]  # no checkpoint is left


def test_train_gives_the_ratio_of_the_library_from_a_file_with_a_simulator(home, tmp_path):
    words = ["train", CHAIN, *GOLD, "--config", home / "gold.toml", "--seed", tiny.SEED, "--simulations", 1000]
    shown = call(*words, "--out", tmp_path / "m")
    assert "Trained alices on 1,000 simulated observations" in shown.stdout.replace("\n", " ")
    assert same_network(qx.load(tmp_path / "m").value, tiny.trained("alices").value)


def test_train_on_gold_is_train_on_what_was_mined(home, tmp_path):
    sims = qx.mine(tiny.KEY, chain, num_simulations=300)
    qx.write_gold(tmp_path / "g.csv", sims)
    words = ["train", CHAIN, *GOLD, "--config", home / "gold.toml", "--seed", tiny.SEED]
    call(*words, "--gold", tmp_path / "g.csv", "--out", tmp_path / "m")
    own = tiny.train("alices", None, sims=qx.read_gold(tmp_path / "g.csv", chain))
    assert same_network(qx.load(tmp_path / "m").value, own.value)
    assert not same_network(own.value, tiny.trained("alices").value)


# -- infer -----------------------------------------------------------------------------------------


def test_infer_with_a_model_prints_one_json_object_and_leaves_files(home, tmp_path, drawn):
    words = ["infer", "--model", home / "model", "--data", home / "x.csv", "--seed", 7, "--json", "--out", tmp_path]
    found = json.loads(call(*words).stdout)
    own = qx.infer(jax.random.key(7), poisson, data(home / "x.csv"), estimator=qx.load(home / "model"), progress=QUIET)
    assert found == own.to_dict()
    assert json.loads((tmp_path / "result.json").read_text()) == found
    assert {each.name for each in tmp_path.iterdir()} == {"figure.png", "result.json", "answer"}
    assert drawn[tmp_path / "figure.png"].get_suptitle().startswith("poisson: log_rate = ")
    assert qx.load(tmp_path / "answer").to_dict() == found


def test_infer_shows_a_posterior_and_its_warnings(home):
    shown = call("infer", "--model", home / "model", "--data", home / "x.csv", "--seed", 7)
    own = qx.infer(jax.random.key(7), poisson, data(home / "x.csv"), estimator=qx.load(home / "model"), progress=QUIET)
    for value in own.posterior.summary()["log_rate"].values():
        assert f"{value:.5g}" in shown.stdout
    assert f"{own.num_simulator_calls:,} observations simulated" in shown.stdout
    assert f"Warning: {own.warnings[0]}" in " ".join(shown.stderr.split())


def test_infer_shows_the_intervals_of_a_likelihood(home, tmp_path, drawn):
    words = ["infer", CHAIN, "--model", home / "ratio", "--data", home / "events.csv", "--out", tmp_path]
    shown = call(*words).stdout
    own = qx.Answer(chain, data(home / "events.csv"), ratio().value)
    ((low, high),) = own.region().interval
    assert f"[{low:.4g}, {high:.4g}]" in shown
    assert f"{own.region().best_fit['mean']:.4g}" in shown
    (axes,) = drawn[tmp_path / "figure.png"].axes
    assert axes.get_xlabel() == "mean"


def test_the_posterior_of_a_ratio_is_sampled_where_it_is_asked_for(home):
    words = ["infer", CHAIN, "--model", home / "ratio", "--data", home / "events.csv"]
    assert "parameters" not in json.loads(call(*words, "--json").stdout)
    found = json.loads(call(*words, "--posterior", "--json").stdout)
    own = qx.posterior(ratio().value, data(home / "events.csv")).summary()
    assert found["parameters"] == json.loads(json.dumps(own))
    assert found["regions"]
    shown = call(*words, "--posterior").stdout
    assert "q95" in shown
    assert "95 %" in shown or "0.95" in shown


def test_infer_from_scratch_is_infer_of_the_library(home, tmp_path, monkeypatch):
    monkeypatch.setattr("quincunx.methods.method.fit", tiny.untrained)
    monkeypatch.chdir(tmp_path)
    words = ["infer", "poisson", "--data", home / "x.csv", "--config", home / "tiny.toml", "--seed", 7]
    found = json.loads(call(*words, "--json").stdout)
    x, given = data(home / "x.csv"), {"num_simulations": 1000, "training": tiny.TRAINING, "progress": QUIET}
    assert found == qx.infer(jax.random.key(7), poisson, x, tiny.method("alfi"), **given).to_dict()
    assert list(tmp_path.iterdir()) == []


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [True, False])
def test_limits_are_those_of_the_library_with_and_without_the_number_of_events(home, rate):
    words = ["limits", "--model", home / "ratio", "--simulator", CHAIN, "--data", home / "events.csv"]
    found = json.loads(call(*words, "--rate" if rate else "--no-rate", "--json").stdout)
    x = data(home / "events.csv")
    own = qx.likelihood(ratio().value, x, rate="simulator" if rate else None)
    assert found["regions"] == [json.loads(json.dumps(qx.confidence_region(own, 0.95).to_dict()))]
    assert found["best_fit"] == found["regions"][0]["best"]
    assert (found["num_observations"], found["rate_term"], found["critical_values"]) == (22, rate, "Wilks")
    ((low, high),) = found["regions"][0]["intervals"]
    assert -1 < low < 0.3 < high < 1  # the truth is 0.3: the interval misses it once in 20 keys
    without = qx.confidence_region(qx.likelihood(ratio().value, x, rate=None), 0.95).interval[0]
    assert (without != (low, high)) is rate


def test_limits_from_toys_with_a_figure(home, tmp_path, drawn):
    words = ["limits", "--model", home / "ratio", "--simulator", CHAIN, "--data", home / "events.csv", "--seed", 4]
    shown = call(*words, "--neyman", "--toys", 100, "--level", 0.9, "--plot", "--out", tmp_path / "out").stdout
    found = json.loads((tmp_path / "out" / "limits.json").read_text())
    own = qx.likelihood(ratio().value, data(home / "events.csv"))
    key = jax.random.fold_in(jax.random.key(4), 0)
    region = qx.neyman_region(key, own, 0.9, parameters=("mean",), num_toys=100)
    assert found["regions"] == [json.loads(json.dumps(region.to_dict()))]
    assert found["critical_values"] == "100 toys at each hypothesis"
    assert np.ptp(found["regions"][0]["critical"]) > 0  # of toys, not of Wilks
    assert "90 % interval" in shown
    (axes,) = drawn[tmp_path / "out" / "limits.png"].axes
    labels = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    np.testing.assert_allclose(labels["90 %"].get_ydata(), region.critical)


# -- the demonstration -----------------------------------------------------------------------------


def test_the_demo_compares_with_the_maximum_likelihood_estimate(home, tmp_path, drawn):
    shown = call("demo", "--config", home / "tiny.toml", "--out", tmp_path / "d").stdout
    found = json.loads((tmp_path / "d" / "result.json").read_text())
    assert {each.name for each in (tmp_path / "d").iterdir()} == {"figure.png", "result.json", "machine"}
    assert found["num_observations"] == 2608
    assert set(found["seconds"]) == {"simulate", "train", "infer"}
    mle, error = found["maximum_likelihood"]["estimate"], found["maximum_likelihood"]["standard_error"]
    assert mle == pytest.approx(np.log(observations().mean()), abs=1e-5)
    difference = (found["parameters"]["log_rate"]["mean"] - mle) / error
    assert found["difference_in_standard_errors"] == pytest.approx(difference, rel=1e-3)
    assert f"{difference:+.2f} standard errors" in shown
    rate = found["rate_per_interval"]
    assert rate["median"] == pytest.approx(np.exp(found["parameters"]["log_rate"]["q50"]), rel=1e-4)
    assert rate["q025"] < rate["median"] < rate["q975"]
    assert "particles per interval of 7.5 s" in " ".join(shown.split())


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
    "options of a method": ("infer --model {home}/model --data {home}/x.csv --set live=true", "takes no options"),
    "not a model": ("infer --model {home} --data {home}/x.csv", "was not saved by quincunx"),
    "folder in use": ("train poisson --out {home}", "holds something else"),
    "method": ("train poisson --out {home}/m --method alphi", "did you mean 'alfi'"),
    "method to show": ("methods alphi", "did you mean 'alfi'"),
    "option": ("train galton --out {home}/m --method alices --set alpa=5", "did you mean 'alpha'"),
    "option of another method": ("train poisson --out {home}/m --set alpha=5", "alfi: alpha: unknown key"),
    "no value": ("train poisson --out {home}/m --set live", "expected NAME=VALUE"),
    "seed": ("train poisson --out {home}/m --seed -1", "--seed"),
    "black box": ("train gaussian --method alices --out {home}/m", "is a black box. Methods that work with it: alfi"),
    "black box, mined": ("mine gaussian --n 10 --out {home}/g.csv", "'gaussian' is a black box and gives no gold"),
    "gold twice": ("train galton --gold {home}/labels.csv --simulations 9 --out {home}/m", "drop --simulations"),
    "gold without ratios": ("train galton --method rolr --gold {home}/labels.csv --out {home}/m", "needs log_ratio"),
    "likelihood of a machine": ("limits --model {home}/model --data {home}/x.csv", "it has a posterior"),
    "level": ("limits --model {home}/ratio --data {home}/x.csv --level 95", "level"),
    "simulator not here": ("limits --model {home}/ratio --data {home}/events.csv", "is not here, so that its rate"),
    "result": ("reproduce everything", "unknown result 'everything'; there are alfi, gold, machine"),
    "part": ("reproduce gold --only golton", "unknown part 'golton'; there are galton, eft, coverage"),
}


@pytest.mark.parametrize("case", MISUSES)
def test_misuse_exits_with_2_and_says_what_to_do(case, home):
    (home / "labels.csv").write_text("skew,x,label,drawn_at_skew\n-0.5,12,1,-0.5\n-0.7,14,0,-0.6\n")
    command, message = MISUSES[case]
    result = call(*command.format(home=home).split(), code=2)
    assert message in " ".join(result.stderr.split())
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


# -- Ctrl-C ----------------------------------------------------------------------------------------


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
    words = ["train", "poisson", "--out", tmp_path / "m", "--config", home / "tiny.toml"]
    with monkeypatch.context() as patch:
        patch.setattr("quincunx.core.progress.RichProgress", lambda: Interrupting([]))
        result = call(*words, code=1)
    assert f"the checkpoint is kept in {tmp_path / 'm.checkpoint'}; add --resume" in result.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["m.checkpoint"]
    call(*words, "--resume")
    assert [each.name for each in tmp_path.iterdir()] == ["m"]
    assert same_network(qx.load(tmp_path / "m").value, tiny.trained("alfi", poisson).value)


# A parent that ignores SIGINT hands that down: Python would then not turn it into KeyboardInterrupt.
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from quincunx.cli.app import main
main()
"""


@pytest.mark.slow
def test_ctrl_c_from_outside(tmp_path):
    (tmp_path / "long.toml").write_text(tiny.TOML.replace("num_steps = 4", "num_steps = 4000000"))
    words = [sys.executable, "-c", COMMAND, "train", "poisson", "--out", "m", "--config", "long.toml"]
    env = {**os.environ, "PYTHONPATH": str(Path(qx.__file__).parent.parent)}
    with open(tmp_path / "err", "w") as err:
        process = subprocess.Popen(words, cwd=tmp_path, stderr=err, env=env)
        deadline = time.monotonic() + 120
        while not (tmp_path / "m.checkpoint").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)  # it is written after ten seconds of training
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 1
    message = " ".join((tmp_path / "err").read_text().split())
    assert "m.checkpoint; add --resume to go on" in message
    assert "Traceback" not in message
    assert (tmp_path / "m.checkpoint").exists()
