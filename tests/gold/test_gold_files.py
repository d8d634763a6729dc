"""Gold in files: what comes back is what was written, and what says too little is refused."""

import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
from chain import chain
from hypothesis import given, settings
from hypothesis import strategies as st

import quincunx as qx
from quincunx.core.simulator import NamedSimulator

KEY = jax.random.key(3)
REFERENCES = {
    "none": None,
    "point": qx.PointReference([0.3]),
    "pair": qx.PairReference(),
    "marginal": qx.MarginalReference(8),
}
FIELDS = ("theta", "x", "log_ratio", "score", "label", "drawn_from", "theta_reference")


@pytest.mark.parametrize("reference", REFERENCES)
def test_gold_comes_back_bit_for_bit(tmp_path, reference):
    sims = qx.mine(KEY, chain, num_simulations=50, reference=REFERENCES[reference])
    qx.write_gold(tmp_path / "gold.csv", sims, ["a comment"])
    again = qx.read_gold(tmp_path / "gold.csv", chain)
    for field in FIELDS:
        old, new = getattr(sims, field), getattr(again, field)
        assert (old is None) == (new is None), field
        if old is not None:
            np.testing.assert_array_equal(old, new, err_msg=field)
    assert type(again.reference) is type(sims.reference)


def test_observations_of_more_components_come_back(tmp_path):
    sims = qx.mine(KEY, qx.problems.eft, num_simulations=20, reference=REFERENCES["marginal"])
    qx.write_gold(tmp_path / "gold.csv", sims)
    again = qx.read_gold(tmp_path / "gold.csv", qx.problems.eft.prior)
    np.testing.assert_array_equal(again.x, sims.x)
    np.testing.assert_array_equal(again.score, sims.score)
    assert isinstance(again.simulator, NamedSimulator)
    with pytest.raises(ValueError, match=r"'gold' cannot be run: it is known from .*gold.csv alone"):
        qx.simulate(KEY, again.simulator, num_simulations=2)


def written(path, text):
    (path / "g.csv").write_text(text, encoding="utf-8")
    return path / "g.csv"


def test_columns_are_found_by_name_whatever_their_order(tmp_path):
    text = "c1,c2,x[1],x[0]\n0,0,0.5,-0.25\n"
    for simulator in (qx.problems.eft, qx.problems.eft.prior):
        np.testing.assert_array_equal(qx.read_gold(written(tmp_path, text), simulator).x[0, 0], [-0.25, 0.5])


def test_gold_mined_elsewhere(tmp_path):
    """Other names for the observation, and no drawn_at: it follows from labels and a reference's point."""
    text = "mean,energy,label,log_ratio,score_mean,reference_mean\n0.5,1.5,1,0.1,1,0.3\n-0.5,0.25,0,-0.2,-1,0.3\n"
    sims = qx.read_gold(written(tmp_path, text), chain.prior, observation=["energy"])
    np.testing.assert_array_equal(sims.drawn_from, np.float32([[0.5], [0.3]]))
    np.testing.assert_array_equal(sims.x, [[1.5], [0.25]])
    np.testing.assert_array_equal(sims.reference.theta, np.float32([0.3]))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("mean,label\n0,1\n", "no column 'x'"),
        ("maen,x\n0,1\n", r"no column 'mean' \(did you mean 'maen'\?\)"),
        ("mean,x,x\n0,1,2\n", "two columns 'x'"),
        ("mean,x,label\n0,1,2\n", "line 2: a label must be 0"),
        ("mean,x\n7,1\n", "parameter 'mean': 7 is outside"),
        ("mean,x\n0,1\n0,1e39\n", "line 3, column 'x': 1e.39 is too large for float32"),
        ("mean,x,label,score_mean\n0,1,0,1\n", "rows of label 0 do not say where x was drawn"),
    ],
)
def test_a_file_that_says_too_little(tmp_path, text, complaint):
    with pytest.raises(ValueError, match=complaint):
        qx.read_gold(written(tmp_path, text), chain)


@pytest.mark.parametrize("columns", ["x[0],x[2]", 'x[0],"x[0,1]"', "x[1],x[2]", "x[99999999999],x[0]"])
def test_an_observation_with_holes_is_refused(tmp_path, columns):
    with pytest.raises(ValueError, match=r"no column x, nor all of x\[0\], x\[1\], ...; name the observation's col"):
        qx.read_gold(written(tmp_path, f"mean,{columns}\n0,1,2\n"), chain.prior)


NAMES = ["mean", "x", "x[0]", "x[1]", "label", "log_ratio", "score_mean", "drawn_at_mean", "reference_mean", '"x[0,1]"']
CELLS = ["0", "1", "0.5", "-1", "2", "1e39", "nan", "", "#", '"', "'", "x", " 1", "\x00"]
HEADERS = st.lists(st.sampled_from(NAMES), max_size=5)


@st.composite
def tables(draw):
    """A header that may do, and some rows of as many cells, mostly numbers that may do."""
    header = draw(HEADERS.map(lambda names: list(dict.fromkeys(["mean", "x", *names]))) | HEADERS)
    cell = st.sampled_from(CELLS[:3] if draw(st.booleans()) else CELLS)
    rows = draw(st.lists(st.lists(cell, min_size=len(header), max_size=len(header)), max_size=3))
    return "\n".join(",".join(line) for line in [header, *rows])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(tables() | st.text() | st.tuples(tables(), st.text()).map("\n".join))
def test_any_text_gives_simulations_or_a_value_error_that_says_why(text):
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), text)
        for simulator in (chain, chain.prior):
            try:
                sims = qx.read_gold(path, simulator)
            except ValueError as error:
                assert not isinstance(error, UnicodeError) and len(str(error)) > 10
            else:
                assert len(sims) > 0 and np.isfinite(sims.x).all() and (abs(np.asarray(sims.theta)) <= 1).all()
