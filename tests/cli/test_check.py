"""`quincunx check`: what it finds in words and in JSON, and what it refuses."""

import dataclasses
import json

import equinox as eqx
import jax
import pytest
import tiny
from calling import call

import quincunx as qx
from quincunx.problems import poisson


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained flow is as wide as the prior, which is calibrated; a fifth as wide it is not."""
    folder, solution = tmp_path_factory.mktemp("check") / "model", tiny.trained("npe", poisson)
    narrow = eqx.tree_at(lambda net: net.space.spread, solution.value, solution.value.space.spread / 5)
    qx.save(folder, dataclasses.replace(solution, value=narrow), seed=tiny.SEED)
    return folder


def test_a_flow_that_is_too_narrow_is_not_to_be_trusted(model, tmp_path):
    said = call("check", "--model", model, "--problems", 60, "--draws", 40, "--out", tmp_path / "out").stdout
    assert "FAILED" in said
    assert "too narrow" in said
    assert "Do not trust its posteriors" in " ".join(said.split())
    written = json.loads((tmp_path / "out" / "checks.json").read_text())
    assert [test["test"] for test in written["tests"]] == ["rank", "coverage", "tarp"]
    assert not written["trusted"]
    assert (tmp_path / "out" / "checks.png").stat().st_size > 5000


def test_with_data_their_own_posterior_is_tested_too(model, tmp_path):
    (tmp_path / "x.csv").write_text("count\n4\n")
    written = call(
        "check", "--model", model, "--data", tmp_path / "x.csv", "--problems", 200, "--draws", 40,
        "--out", tmp_path / "out", "--json",
    ).stdout  # fmt: skip
    tests = json.loads(written)["tests"]
    assert [test["test"] for test in tests] == ["rank", "coverage", "tarp", "local", "predictive"]
    assert not tests[3]["passed"]  # five times too narrow
    assert "log_rate" in tests[3]["width"]
    said = call("check", "--model", model, "--data", tmp_path / "x.csv", "--observations", 3, code=2).stderr
    assert "drop --observations" in " ".join(said.split())


def test_json_is_what_the_library_finds(model):
    said = json.loads(call("check", "--model", model, "--problems", 60, "--draws", 40, "--seed", 4, "--json").stdout)
    found = qx.posterior_tests(jax.random.key(4), qx.load(model), num_problems=60, num_draws=40)
    assert said["tests"] == [test.to_dict() for test in found]


def test_a_number_of_observations_that_it_is_not_for(model):
    said = call("check", "--model", model, "--problems", 60, "--observations", 7, code=2).stderr
    assert "7 observations: this estimator is for sets of 1" in " ".join(said.split())
