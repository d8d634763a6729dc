"""Observations in CSV files, in every dialect, and the messages for those that cannot be read."""

import numpy as np
import pytest

from quincunx.core.tables import estimate_text, read_observations, write_observations


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
