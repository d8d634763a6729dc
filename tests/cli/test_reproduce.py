"""The numbers and figures of the documentation say what the results are. The runs themselves, cut short, are slow."""

import json

import numpy as np
import pytest
from calling import call
from matplotlib.figure import Figure

from quincunx.cli.reproduce import ablation, board, frequency, learnt, paper, parts, transfer, wilson

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
    per_count = {"rmse_ratio": [1.0], "median_ratio": [1.1], "p95_ratio": [1.2], "coverage": [0.94], "std_ratio": [1.3]}
    result = {
        "columns": ["log_rate"], "yardstick": "mle", "observations": {"20": per_count, "100": per_count},
        "rmse_at_2T_over_T": [1.01], "rmse_at_4T_over_T": [1.02],
    }  # fmt: skip
    (row,) = rows(paper.table({"poisson": result}))[2:]
    assert row == [
        "poisson", "log_rate", "mle", "1.000 / 1.000", "1.100 / 1.100", "1.200 / 1.200", "0.940 / 0.940",
        "1.300 / 1.300", "1.010, 1.020",
    ]  # fmt: skip


def test_a_part_leaves_its_numbers_its_table_and_its_figure(tmp_path, monkeypatch):
    monkeypatch.setattr(board, "run", lambda say: BOARD)
    assert f"are in {tmp_path}" in call("reproduce", "gold", "--only", "galton", "--out", tmp_path).stdout
    assert json.loads((tmp_path / "galton.json").read_text()) == BOARD
    assert (tmp_path / "galton.md").read_text() == board.tables(BOARD)
    assert {each.name for each in tmp_path.iterdir()} == {"galton.json", "galton.md", "galton.png"}
    assert set(parts.GOLD) == {"galton", "eft", "coverage"}


ABLATION = {
    "toy": {
        "columns": ["a", "b"],
        "variants": {"with": {"20": [1.0, 4.0], "100": [1.5, 1.5]}, "without": {"20": [2.0, 8.0], "100": [1.0, 1.0]}},
    }
}


def test_an_ablation_is_a_row_for_every_variant(drawn, tmp_path):
    assert rows(ablation.tables(ABLATION))[2:] == [
        ["toy", "with", "a: 1.00 / 1.50; b: 4.00 / 1.50"],
        ["toy", "without", "a: 2.00 / 1.00; b: 8.00 / 1.00"],
    ]
    ablation.figure(ABLATION, tmp_path / "f.png")
    lines = {line.get_label(): line.get_data() for line in drawn[0].axes[0].get_lines()}
    np.testing.assert_allclose(lines["with"], [[20, 100], [2.0, 1.5]])  # geometric means over parameters


def test_probes_explain_what_features_hold_and_nothing_else():
    rng = np.random.default_rng(0)
    features, noise = rng.normal(size=(2000, 5)), rng.normal(size=(2000, 1))
    known = features[:, :1] - 2 * features[:, 3:4]
    assert learnt._explained(features, known) == pytest.approx(1.0, abs=1e-3)
    assert abs(learnt._explained(features, noise)) < 0.05  # 1,000 sets, five features: below .02 but for 1 in 1,000
    assert learnt._explained(features, known + np.sqrt(5) * noise) == pytest.approx(0.5, abs=0.1)


def test_cosines_leave_out_what_has_no_direction():
    a = np.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 2.0], [3.0, 0.0]]])
    b = np.array([[[2.0, 0.0], [np.nan, 0.0]], [[0.0, 0.0], [3.0, 3.0]]])
    np.testing.assert_allclose(learnt._cosines(a, b), [1.0, np.sqrt(0.5)])


def test_what_was_learnt_is_shown(drawn, tmp_path):
    probes = dict.fromkeys(learnt.QUANTITIES, 0.5)
    found = {
        "toy": {"whole": {"probes": {"after training": probes}, "cosines": {"score": [0.25] * 15, "end": [1.0] * 14}}}
    }
    table = rows(learnt.tables(found))
    assert table[2] == ["toy", "whole, after training", *["0.500"] * 4]
    assert table[-2:] == [["toy", "whole", "score", *["0.25"] * 5], ["toy", "whole", "end", *["1.00"] * 5]]
    learnt.figure(found, tmp_path / "f.png")
    assert list(drawn[0].axes[0].get_lines()[0].get_xdata()) == list(range(2, 17))


def test_steps_to_the_same_loss_are_counted(drawn, tmp_path):
    scratch, warm = [3.0, 2.0, 1.02, 1.0], [1.04, 0.9, 0.8, 0.7]
    steps = transfer._steps_to(scratch, warm)
    assert steps == {"scratch": round(3 * transfer.STEPS / 4), "transfer": round(transfer.STEPS / 4)}
    assert transfer._steps_to(warm, scratch)["transfer"] == -1
    found = {"a to b": {"scratch": scratch, "transfer": warm, "steps": steps}}
    assert rows(transfer.tables(found))[2] == ["a to b", *map(str, steps.values()), "1.000", "0.700"]
    transfer.figure(found, tmp_path / "f.png")
    assert list(drawn[0].axes[0].get_lines()[1].get_ydata()) == warm


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


@pytest.mark.slow
def test_the_ablation_runs(monkeypatch):
    for name, value in {"BUDGET": 60_000, "STEPS": 5, "NUM_PROBLEMS": 10, "NUM_ZOOMED": 1, "COUNTS": (20,)}.items():
        monkeypatch.setattr(ablation, name, value)
    names = (ablation.WHOLE, "without regression, live", "as published, live")
    results = ablation.run(lambda text: None, paper.PROBLEMS[:1], {name: ablation.VARIANTS[name] for name in names})
    found = results["poisson"]["variants"]
    assert set(found) == {*names, ablation.ALONE, ablation.ZOOM}
    assert all(np.isfinite(each["20"]).all() for each in found.values())
    # 5 steps teach nothing, so that only what regresses is near the exact answer.
    assert max(found[ablation.ALONE]["20"] + found[ablation.WHOLE]["20"]) < 4 < found["as published, live"]["20"][0]


@pytest.mark.slow
def test_what_was_learnt_is_measured(monkeypatch):
    for name, value in {"BUDGET": 60_000, "STEPS": 5, "NUM_PROBED": 200, "NUM_FOLLOWED": 10}.items():
        monkeypatch.setattr(learnt, name, value)
    results = learnt.run(lambda text: None, paper.PROBLEMS[:1], {"whole": learnt.MACHINES["whole"]})
    whole = results["poisson"]["whole"]
    assert whole["probes"]["after training"]["mean"] > 0.9
    # The machine is pulled to the regression from the first step on: both the score and the end are that way.
    assert min(whole["cosines"][what][0] for what in ("score", "end")) > 0.5


@pytest.mark.slow
def test_transfer_starts_from_the_other_machine(monkeypatch):
    monkeypatch.setattr(transfer, "BUDGET", 60_000)
    monkeypatch.setattr(transfer, "STEPS", 30)
    (pair,) = [(name, pair) for name, pair in transfer.PAIRS.items() if "poisson" in name]
    result = transfer.run(lambda text: None, dict([pair]))[pair[0]]
    assert result["transfer"][0] < result["scratch"][0]
