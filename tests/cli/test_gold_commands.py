"""The commands mine, train (ratio family) and limits."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_cli import call

import quincunx as qx

FAST = "[training]\nnum_steps = 300\n[loss]\nbatch_size = 64\nalpha = 2.0\n[estimator]\nwidths = [16]\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gold")
    (folder / "fast.toml").write_text(FAST)
    call("mine", "galton", "--n", 2000, "--out", folder / "gold.csv", "--seed", 2)
    call("train", "galton", "--method", "alices", "--gold", folder / "gold.csv", "--config", folder / "fast.toml",
         "--members", 2, "--out", folder / "model")  # fmt: skip
    call("simulate", "galton", "--at", "skew=-0.7", "--observations", 40, "--out", folder / "x.csv")
    return folder


def test_mine_writes_gold_and_reports_its_quality(tmp_path):
    out = tmp_path / "g.csv"
    found = call("mine", "galton", "--at", "skew=-0.8", "--versus", "skew=-0.6", "--n", 500, "--out", out, "--quality",
                 "--json")  # fmt: skip
    report = json.loads(found.stdout)
    assert report["num_rows"] == 500 and report["num_failed"] == 0
    assert "quality" in report
    sims = qx.read_gold(out, qx.problems.galton)
    np.testing.assert_allclose(np.unique(sims.drawn_from), [-0.8, -0.6], rtol=1e-6)
    again = call("mine", "galton", "--at", "skew=-0.8", "--n", 100, "--out", out)
    assert "100 observations of galton" in again.stdout.replace("\n", " ")
    assert qx.read_gold(out, qx.problems.galton).log_ratio is None


def test_limits_from_a_trained_ratio(home):
    found = json.loads(call("limits", "--model", home / "model", "--data", home / "x.csv", "--json").stdout)
    assert found["num_observations"] == 40 and not found["rate_term"] and found["critical_values"] == "Wilks"
    ((low, high),) = found["regions"][0]["intervals"]
    assert -1 <= low <= found["best_fit"]["theta"]["skew"] <= high <= -0.4


def test_limits_from_toys_with_a_figure(home, tmp_path):
    out = tmp_path / "out"
    shown = call("limits", "--model", home / "model", "--data", home / "x.csv", "--neyman", "--toys", 100, "--level",
                 0.9, "--plot", "--out", out)  # fmt: skip
    assert "90 % interval" in shown.stdout
    assert (out / "limits.png").stat().st_size > 5000
    assert json.loads((out / "limits.json").read_text())["critical_values"] == "100 toys at each hypothesis"


CHAIN = f"{Path(__file__).parent / 'chain.py'}:chain"  # expects 20 + 5 mean events


def test_a_simulator_with_a_rate_uses_the_number_of_events(tmp_path):
    (tmp_path / "fast.toml").write_text("[training]\nnum_steps = 50\n[estimator]\nwidths = [8]\n")
    call("train", CHAIN, "--method", "carl", "--reference", "point", "--at", "mean=0", "--simulations", 500, "--config",
         tmp_path / "fast.toml", "--out", tmp_path / "m")  # fmt: skip
    call("simulate", CHAIN, "--at", "mean=0", "--observations", 22, "--out", tmp_path / "x.csv")
    found = {
        word: json.loads(
            call("limits", "--model", tmp_path / "m", "--data", tmp_path / "x.csv", f"--{word}", "--json").stdout
        )
        for word in ("rate", "no-rate")
    }
    assert found["rate"]["rate_term"] and not found["no-rate"]["rate_term"]
    assert found["rate"]["best_fit"]["theta"] != found["no-rate"]["best_fit"]["theta"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("train gaussian --method alices --out {t}/m", "is a black box. Methods that work with it: nre"),
        ("train galton --method alise --out {t}/m", "unknown method 'alise' (did you mean 'alice'?)"),
        ("train galton --method alices --reference point --out {t}/m", "needs --at NAME=VALUE"),
        ("train galton --method alices --reference margnal --out {t}/m", "did you mean 'marginal'?"),
        ("train galton --method alices --observations 5 --out {t}/m", "takes no observations"),
        ("train galton --method rolr --gold {t}/labels.csv --out {t}/m", "rolr needs log_ratio"),
        ("train galton --method alices --gold {t}/labels.csv --at skew=-0.5 --out {t}/m", "drop --at"),
        ("infer galton --method alices --data {t}/labels.csv --column x", "train it with `quincunx train`"),
        ("train galton --reference point --out {t}/m", "alfi takes no reference"),
        ("mine gaussian --n 10 --out {t}/g.csv", "'gaussian' is a black box and gives no gold"),
        ("mine galton --at skwe=1 --n 10 --out {t}/g.csv", "unknown parameter 'skwe' (did you mean 'skew'?)"),
        ("infer --model {m} --data {t}/labels.csv --column x", "RatioEstimator, no trained machine"),
        ("limits --model {t}/m --data {t}/none.csv", "no such folder"),
        ("limits --model {m} --data {t}/none.csv", "no such file"),
        ("limits --model {m} --data {t}/labels.csv --column x --level 95", "level"),
    ],
)
def test_misuse_ends_with_code_2_and_the_fix(home, tmp_path, words, complaint):
    (tmp_path / "labels.csv").write_text("skew,x,label,drawn_at_skew\n-0.5,12,1,-0.5\n-0.7,14,0,-0.6\n")
    said = call(*words.format(t=tmp_path, m=home / "model").split(), code=2)
    assert complaint in said.stderr.replace("\n", " ")
