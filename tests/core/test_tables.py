"""Observations in CSV files: whatever the text, numbers come back, or a message that says what is wrong."""

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from quincunx.core.tables import read_observations, write_observations

CELLS = ["0", "1", "-0.5", "1e39", "nan", "inf", "", "#", '"', '"1"', "x", " 1", "\x00"]
LINES = st.lists(st.lists(st.sampled_from(CELLS), min_size=1, max_size=4), max_size=5)
TABLES = st.tuples(st.sampled_from(",;\t "), LINES).map(lambda p: "\n".join(p[0].join(line) for line in p[1]))
COLUMNS = st.lists(st.sampled_from(["a", "b", "x"]), max_size=2)
SHAPES = st.sampled_from([None, (), (1,), (2,), (2, 2)])
FEW = settings(max_examples=100, deadline=None, derandomize=True)


def written(folder, text):
    path = Path(folder) / "x.csv"
    path.write_text(text, encoding="utf-8")
    return path


@FEW
@given(st.text() | TABLES | TABLES.map("a,b,x\n".__add__), SHAPES, COLUMNS, st.sampled_from([None, "a"]))
def test_any_text_gives_numbers_or_a_value_error_that_says_why(text, event_shape, columns, counts):
    with tempfile.TemporaryDirectory() as folder:
        try:
            x = read_observations(written(folder, text), event_shape=event_shape, columns=columns, counts=counts)
        except ValueError as error:
            assert not isinstance(error, UnicodeError) and "x.csv" in str(error)
        else:
            assert len(x) > 0 and np.isfinite(x).all()
            assert event_shape is None or x.shape[1:] == event_shape


@FEW
@given(st.sampled_from([(3,), (2, 2), (2, 1, 3)]).flatmap(lambda s: arrays.arrays(np.float32, s, elements=st.floats(
    width=32, allow_nan=False, allow_infinity=False
))))  # fmt: skip
def test_what_is_written_comes_back_bit_for_bit(x):
    text = io.StringIO()
    write_observations(text, x, ["a comment"])
    with tempfile.TemporaryDirectory() as folder:
        again = read_observations(written(folder, text.getvalue()), event_shape=x.shape[1:])
    np.testing.assert_array_equal(np.float32(again), x)


@pytest.mark.parametrize("text", ["1" * 140_000, '"' + "1\n" * 70_000])
def test_a_cell_that_is_too_long_is_no_number(tmp_path, text):
    with pytest.raises(ValueError, match=r"x\.csv"):
        read_observations(written(tmp_path, text))
