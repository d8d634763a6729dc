"""The numbers and figures of the documentation say what the results are. The runs themselves, cut short, are slow."""

import json

import numpy as np
import pytest
from calling import call
from matplotlib.figure import Figure

from quincunx.cli.reproduce import board, frequency, paper, parts, wilson

ERRORS = {"carl": {"200": [0.4, 0.2, 0.3], "500": [0.1, 0.2, 0.3]}, "nle": {"200": [0.05], "500": [0.02]}}
BOARD = {
    "nothing": 0.5,
    "errors": ERRORS,
    "stress": {"nothing": 9.0, "errors": {"point": {"alice": [1.0, 3.0, 2.0]}}},
}
EFT = {"nothing": 0.5, "errors": {"carl": {"100": [0.4], "1000": [0.04]}, "alice": {"100": [0.04], "1000": [0.001]}}}
COVERAGE = {
    "galton": {
        "theta": [[-0.9], [-0.5]], "wilks": [[0.6, 0.9], [0.7, 0.95]], "neyman": [[0.68, 0.94], [0.69, 0.96]],
        "error": [[0.01, 0.005], [0.01, 0.005]],
    },
}  # fmt: skip


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: figures.append(figure))
    return figures


def rows(table: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]


# -- what is made of results -----------------------------------------------------------------------


def test_the_board_is_shown_beside_what_was_published(drawn, tmp_path):
    found = rows(board.tables(BOARD))
    assert found[0] == ["method", "200", "500"]
    assert ["carl", "0.3000", "0.2000"] in found  # medians
    assert ["published carl", "0.1330", "0.1500"] in found
    assert ["point", "alice", "2"] in found
    assert ["", "r = 1 everywhere", "9"] in found
    board.figure(BOARD, tmp_path / "f.png")
    (axes,) = drawn[0].axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    lines = {line.get_label(): line.get_data() for line in axes.get_lines()}
    np.testing.assert_allclose(lines["carl"], [[200, 500], [0.3, 0.2]])
    assert [each for each in lines.values() if list(each[1]) == [0.133, 0.150]]


def test_eft_is_shown_with_what_gold_is_worth(drawn, tmp_path):
    # CARL has the error 0.04 at 1,000 simulations, where ALICE has it at 100.
    factors = wilson.worth(EFT)
    assert factors["carl"] == pytest.approx([1, 1])
    assert factors["alice"][0] == pytest.approx(10)
    assert np.isinf(factors["alice"][1])
    found = rows(wilson.tables(EFT))
    assert found[0] == ["method", "error at 1e2", "error at 1e3", "CARL's, at 1e2"]
    assert found[2:] == [["carl", "0.40000", "0.04000", "1"], ["alice", "0.04000", "0.00100", "10"]]
    wilson.figure(EFT, tmp_path / "f.png")
    lines = {line.get_label(): line.get_data() for line in drawn[0].axes[0].get_lines()}
    np.testing.assert_allclose(lines["alice"], [[100, 1000], [0.04, 0.001]])


def test_coverage_is_shown_with_its_levels(drawn, tmp_path):
    found = rows(frequency.tables(COVERAGE))
    assert found[2] == ["galton", "-0.9", "68.0", "94.0", "60.0", "90.0"]
    frequency.figure(COVERAGE, tmp_path / "f.png")
    (axes,) = drawn[0].axes
    bars = [container.lines[0].get_ydata().tolist() for container in axes.containers]
    assert bars == [[0.68, 0.69], [0.94, 0.96], [0.6, 0.7], [0.9, 0.95]]
    assert axes.get_title() == "galton"


def test_the_paper_is_a_row_for_every_parameter():
    per_count = {"rmse_ratio": [1.0], "median_ratio": [1.1], "p95_ratio": [1.2], "coverage": [0.94]}
    result = {
        "columns": ["log_rate"], "yardstick": "mle", "observations": {"20": per_count, "100": per_count},
        "rmse_at_2T_over_T": [1.01], "rmse_at_4T_over_T": [1.02],
    }  # fmt: skip
    (row,) = rows(paper.table({"poisson": result}))[2:]
    assert row == [
        "poisson", "log_rate", "mle", "1.000 / 1.000", "1.100 / 1.100", "1.200 / 1.200", "0.940 / 0.940",
        "1.010, 1.020",
    ]  # fmt: skip


def test_a_part_leaves_its_numbers_its_table_and_its_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(board, "run", lambda say: BOARD)
    assert f"are in {tmp_path}" in call("reproduce", "gold", "--only", "galton", "--out", tmp_path).stdout
    assert json.loads((tmp_path / "galton.json").read_text()) == BOARD
    assert (tmp_path / "galton.md").read_text() == board.tables(BOARD)
    assert {each.name for each in tmp_path.iterdir()} == {"galton.json", "galton.md", "galton.png"}
    assert set(parts.PARTS) == {"galton", "eft", "coverage"}


# -- the runs, cut short ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_paper_runs(tmp_path):
    short = {"num_simulations": 20_000, "steps_factor": 0.005, "num_problems": 10}
    results = paper.main(tmp_path, names=("poisson",), **short)
    assert set(results["poisson"]["observations"]) == {"20", "100", "500", "3000"}
    assert {each.name for each in tmp_path.iterdir()} == {"results.json", "table.md", "poisson.png", "proposal.gif"}


@pytest.mark.slow
def test_the_board_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(board, "NUM_STEPS", 5)
    monkeypatch.setattr(board, "STRESS_ROWS", 20)
    monkeypatch.setattr(board, "STRESS_SIZE", 500)
    results = board.run(lambda text: None, sizes=(200,), num_seeds=1)
    assert all(np.isfinite(values).all() for by_size in results["errors"].values() for values in by_size.values())
    assert len(results["errors"]) == 11
    board.figure(results, tmp_path / "f.png")
    assert len(rows(board.tables(results))) > 20


@pytest.mark.slow
def test_eft_runs(monkeypatch):
    monkeypatch.setattr(wilson, "STEPS", {1000: 5})
    results = wilson.run(lambda text: None, sizes=(1000,), num_seeds=1)
    assert set(results["errors"]) == set(wilson.methods(128))
    assert all(np.isfinite(values).all() for by_size in results["errors"].values() for values in by_size.values())


@pytest.mark.slow
def test_coverage_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(frequency, "NUM_STEPS", 5)
    results = frequency.run(lambda text: None, num_toys=20, num_calibration_toys=100)
    assert set(results) == {"galton", "weinberg", "eft"}
    frequency.figure(results, tmp_path / "f.png")
