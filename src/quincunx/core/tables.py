"""Observations as CSV files, and numbers as people read them."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from .names import nearest

DELIMITERS = ",;\t"
MOST_COUNTS = 100_000_000  # observations that a table of counts may stand for


class Table(NamedTuple):
    """Numbers `(n, k)` in named columns; `lines` says where in the file each row stands."""

    columns: tuple[str, ...]
    values: np.ndarray
    lines: tuple[int, ...]
    named: bool
    path: Path


def read_observations(
    path: str | Path,
    *,
    event_shape: tuple[int, ...] | None = None,
    columns: Sequence[str] = (),
    counts: str | None = None,
) -> np.ndarray:
    """Observations `(m, *event)` from a CSV file with one observation per row.

    Lines that start with `#` are comments. A first row that is not all numbers is the header. The cells
    are separated by commas, semicolons or tabs.

    Parameters
    ----------
    event_shape: shape of one observation; without it a single column gives `(m,)`, k columns `(m, k)`.
    columns: names of the columns to read; all of them if empty.
    counts: name of a column that says how often its row was observed.

    Raises
    ------
    FileNotFoundError: no such file.
    ValueError: an empty or ragged file, a cell that is no finite number (the line is named), a column
        that is missing, or another number of columns than an observation has.
    """
    table = read_table(path)
    times = None
    if counts is not None:
        times = _multiplicities(table, counts)
        table = _pick(table, [name for name in table.columns if name != counts])
    table = _pick(table, columns) if columns else _in_order(table, event_shape)
    values = table.values if times is None else np.repeat(table.values, times, axis=0)
    return _shaped(table, values, event_shape)


def read_table(path: str | Path) -> Table:
    """The numbers of a CSV file, checked: see `read_observations`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}; give the path of a CSV file with one observation per row")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file ({error.reason}); give a CSV file") from error
    try:
        cells = _cells(text)
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file ({error}); give one observation per row") from error
    if not cells:
        raise ValueError(f"{path} is empty; give a CSV file with one observation per row")
    first = cells[0][1]
    named = not all(_is_number(cell) for cell in first)
    columns = tuple(first) if named else tuple(f"column {i + 1}" for i in range(len(first)))
    rows = cells[1:] if named else cells
    if not rows:
        raise ValueError(f"{path} has a header and no observation; give at least one row")
    values = [_numbers(path, line, row, columns) for line, row in rows]
    return Table(columns, np.array(values, dtype=np.float64), tuple(line for line, _ in rows), named, path)


def write_observations(target: TextIO, x: np.ndarray, comments: Sequence[str] = ()) -> None:
    """Write observations `(m, *event)` as CSV with comments and a header, so that reading gives the same float32."""
    target.writelines(f"# {line}\n" for line in comments)
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(observation_columns(x.shape[1:]))
    writer.writerows([shortest(value) for value in row] for row in x.reshape(len(x), -1))


def observation_columns(event_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Column names of an observation: `x`, or `x[0]`, `x[1]`, ..."""
    if event_shape == ():
        return ("x",)
    return tuple(f"x[{','.join(map(str, index))}]" for index in np.ndindex(*event_shape))


def estimate_text(mean: float, std: float, significant: int = 2) -> str:
    """`1.36 ± 0.12`: both with the digits that matter, two of the standard deviation unless told otherwise."""
    if not (math.isfinite(mean) and math.isfinite(std)) or std <= 0:
        return f"{mean:.4g} ± {std:.2g}"
    digits = max(0, significant - 1 - math.floor(math.log10(std)))
    return f"{mean:.{digits}f} ± {std:.{digits}f}" if digits <= 9 else f"{mean:.6g} ± {std:.2g}"


# -- reading ---------------------------------------------------------------------------------------


def _cells(text: str) -> list[tuple[int, list[str]]]:
    """Line number and cells of every line that is neither blank nor a comment."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    lines = [(number, line) for number, line in lines if not line.lstrip().startswith("#")]
    if not lines:
        return []
    delimiter = next((d for d in DELIMITERS if d in lines[0][1]), ",")
    parsed = csv.reader((line for _, line in lines), delimiter=delimiter)
    return [(number, [cell.strip() for cell in row]) for (number, _), row in zip(lines, parsed, strict=False)]


def _numbers(path: Path, line: int, row: list[str], columns: tuple[str, ...]) -> list[float]:
    if len(row) != len(columns):
        raise ValueError(f"{path}, line {line}: expected {len(columns)} cells like the first row, got {len(row)}")
    return [_number(path, line, cell, column) for cell, column in zip(row, columns, strict=True)]


def _number(path: Path, line: int, cell: str, column: str) -> float:
    if not _is_number(cell):
        what = f"{cell!r} is not a number" if cell else "the cell is empty"
        raise ValueError(f"{path}, line {line}, {_called(column)}: {what}; mend or drop the row")
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError(f"{path}, line {line}, {_called(column)}: {cell} is not a finite number; mend or drop the row")
    return value


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _called(column: str) -> str:
    return column if column.startswith("column ") else f"column {column!r}"


def _pick(table: Table, names: Sequence[str]) -> Table:
    """The table with these columns, in this order."""
    for name in names:
        if name not in table.columns:
            raise ValueError(
                f"{table.path} has no column {name!r}{nearest(name, table.columns)}; it has {', '.join(table.columns)}"
            )
    index = [table.columns.index(name) for name in names]
    return table._replace(columns=tuple(names), values=table.values[:, index])


def _in_order(table: Table, event_shape: tuple[int, ...] | None) -> Table:
    """Columns called like those of an observation go where they belong; others stay in the file's order."""
    if event_shape is None:
        return table
    wanted = observation_columns(event_shape)
    ours = table.named and set(table.columns) & set(wanted)
    return _pick(table, wanted) if ours and set(table.columns) <= set(wanted) else table


def _shaped(table: Table, values: np.ndarray, event_shape: tuple[int, ...] | None) -> np.ndarray:
    if event_shape is None:
        return values[:, 0] if values.shape[1] == 1 else values
    expected = math.prod(event_shape)
    if values.shape[1] != expected:
        fix = "choose them by name (`columns`, --column), or name the column of multiplicities (`counts`, --counts)"
        missing = "a column is missing" if values.shape[1] < expected else fix
        raise ValueError(
            f"{table.path}: an observation has shape {event_shape}, that is {expected} column{'s' * (expected != 1)}; "
            f"the file has {values.shape[1]} ({', '.join(table.columns)}): {missing}"
        )
    return values.reshape(len(values), *event_shape)


def _multiplicities(table: Table, counts: str) -> np.ndarray:
    """Whole numbers `(n,)`: how often each row was observed."""
    times = _pick(table, [counts]).values[:, 0]
    for line, value in zip(table.lines, times, strict=True):
        if value < 0 or value != math.floor(value):
            raise ValueError(f"{table.path}, line {line}, column {counts!r}: {value:g} is not a count (0, 1, 2, ...)")
    if not 1 <= times.sum() <= MOST_COUNTS:
        raise ValueError(f"{table.path}, column {counts!r}: they add up to {times.sum():g}, not 1 to {MOST_COUNTS}")
    return times.astype(np.int64)


def shortest(value: Any) -> str:
    """The shortest text that reads back as the same float32, without a needless `.0`."""
    text = str(np.float32(value))
    return text.removesuffix(".0")


def parameter_vector(named: Mapping[str, float], columns: tuple[str, ...]) -> np.ndarray:
    """Values `(dim,)` in the order of the prior's columns.

    Raises
    ------
    ValueError: a name that the prior does not have (the nearest is named), or one that is missing.
    """
    for name in named:
        if name not in columns:
            raise ValueError(f"unknown parameter {name!r}{nearest(name, columns)}; the prior has {', '.join(columns)}")
    missing = [name for name in columns if name not in named]
    if missing:
        raise ValueError(f"no value for {', '.join(missing)}; the prior has {', '.join(columns)}")
    return np.array([named[name] for name in columns], dtype=np.float64)
