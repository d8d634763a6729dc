"""Gold in CSV files: what `mine` made, or what was mined elsewhere.

One row per observation. The columns are the parameters by name, the observation as `x` or `x[0]`, `x[1]`, ..., and as
far as they are known `label`, `log_ratio`, and for every parameter `score_NAME`, `drawn_at_NAME` (the theta that x was
drawn from) and `reference_NAME` (the reference's hypothesis). `log_ratio` is log p(x, z | theta) minus
log p(x, z | reference), and label 1 is the numerator; MadMiner and carl have the opposite sign.
"""

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.batches import put
from ..core.names import nearest
from ..core.prior import Prior
from ..core.simulations import Simulations
from ..core.simulator import AbstractSimulator, NamedSimulator
from ..core.tables import Table, observation_columns, read_table, shortest
from ..sample.black_box import AbstractJaxSimulator
from .reference import AbstractReference, MarginalReference, PairReference, PointReference

_PER_PARAMETER = {"score": "score_", "drawn_at": "drawn_at_", "theta_reference": "reference_"}
_SCALARS = ("label", "log_ratio")
LARGEST = 1e30  # stands for the infinite log-ratio of a path that one hypothesis cannot take


def write_gold(path: str | Path, sims: Simulations, comments: Sequence[str] = ()) -> None:
    """Write simulations of one observation per row, so that `read_gold` gives the same float32.

    Raises
    ------
    ValueError: more than one observation in a row.
    """
    if sims.num_observations != 1:
        raise ValueError(f"gold files hold one observation per row; these simulations have {sims.num_observations}")
    fields = {name: getattr(sims, name) for name in (*_SCALARS, *_PER_PARAMETER)}
    if isinstance(sims.reference, PointReference):
        fields["theta_reference"] = np.broadcast_to(np.asarray(sims.reference.theta), sims.theta.shape)
    names = [*sims.prior.columns, *observation_columns(sims.event_shape)]
    columns = [np.asarray(sims.theta), np.asarray(sims.x).reshape(len(sims), -1)]
    for field, value in fields.items():
        if value is not None:
            names += [_PER_PARAMETER[field] + column for column in sims.prior.columns] if value.ndim == 2 else [field]
            columns.append(np.clip(np.asarray(value), -LARGEST, LARGEST).reshape(len(sims), -1))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.writelines(f"# {line}\n" for line in comments)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([shortest(v) for v in row] for row in np.concatenate(columns, axis=1))


def read_gold(
    path: str | Path, simulator: AbstractSimulator | Prior, *, observation: Sequence[str] | None = None
) -> Simulations:
    """Simulations with gold from a CSV file.

    Parameters
    ----------
    simulator: what made them; where that is not here, the prior of its parameters.
    observation: names of the observation's columns, in order; by default `x`, or `x[0]`, `x[1]`, ...

    Raises
    ------
    FileNotFoundError: no such file.
    ValueError: no CSV file of numbers, or one too large for float32; a parameter's or observation's column that is
        missing or there twice (it is named); a `label` that is neither 0 nor 1; rows of label 0 that do not say where
        they were drawn; a theta outside the prior.
    """
    table = read_table(path)
    if isinstance(simulator, Prior):
        simulator = NamedSimulator(Path(path).stem, simulator, f"it is known from {path} alone")
    prior = simulator.prior
    theta = _columns(table, prior.columns)
    x = _observation(table, observation, simulator)
    fields = {name: _columns(table, [name])[:, 0] for name in _SCALARS if name in table.columns}
    for field, prefix in _PER_PARAMETER.items():
        names = [prefix + column for column in prior.columns]
        if set(names) & set(table.columns):
            fields[field] = _columns(table, names)
    label = fields.get("label")
    if label is not None and not np.isin(label, [0, 1]).all():
        line = table.lines[int(np.argmin(np.isin(label, [0, 1])))]
        raise ValueError(f"{table.path}, line {line}: a label must be 0 (reference) or 1 (numerator)")
    reference = _reference(fields)
    if label is not None and "drawn_at" not in fields and (label == 0).any():
        fields |= _drawn_at(table, theta, label, fields)
    for at in (theta, fields.get("drawn_at"), fields.get("theta_reference")):
        if at is not None:
            prior.check(at)
    if not isinstance(reference, PairReference):
        fields.pop("theta_reference", None)
    arrays: Any = {name: put(value, np.float32) for name, value in fields.items()}
    return Simulations(put(theta, np.float32), put(x[:, None], np.float32), simulator, reference=reference, **arrays)


def _columns(table: Table, names: Sequence[str]) -> np.ndarray:
    """Some columns as float32 `(n, len(names))`."""
    for name in names:
        if table.columns.count(name) != 1:
            fault = (
                f"two columns {name!r}"
                if name in table.columns
                else f"no column {name!r}{nearest(name, table.columns)}"
            )
            raise ValueError(f"{table.path} has {fault}; it has {', '.join(table.columns)}")
    values = table.values[:, [table.columns.index(name) for name in names]]
    for row, column in np.argwhere(np.abs(values) > np.finfo(np.float32).max)[:1]:
        where = f"{table.path}, line {table.lines[row]}, column {names[column]!r}"
        raise ValueError(f"{where}: {values[row, column]:g} is too large for float32; use other units")
    return values.astype(np.float32)


def _observation(table: Table, names: Sequence[str] | None, simulator: AbstractSimulator) -> np.ndarray:
    """`(n, *event)`. Without a simulator to ask, a single named column gives scalars."""
    if names is not None:
        values = _columns(table, list(names))
        return values[:, 0] if len(names) == 1 else values
    shape = simulator.event_shape if isinstance(simulator, AbstractJaxSimulator) else _event_shape(table)
    return _columns(table, observation_columns(shape)).reshape(-1, *shape)


def _event_shape(table: Table) -> tuple[int, ...]:
    """From the columns' names: `x`, or `x[i]`, `x[i,j]`, ..."""
    if "x" in table.columns:
        return ()
    found = [name[2:-1].split(",") for name in table.columns if re.fullmatch(r"x\[[0-9]+(,[0-9]+)*\]", name)]
    shape = tuple(max(map(int, axis)) + 1 for axis in zip(*found, strict=False))
    if not found or math.prod(shape) != len(found):
        raise ValueError(
            f"{table.path} has no column x, nor all of x[0], x[1], ...; name the observation's columns "
            f"(`observation`); it has {', '.join(table.columns)}"
        )
    return shape


def _reference(fields: dict[str, np.ndarray]) -> AbstractReference | None:
    if "label" not in fields and "log_ratio" not in fields:
        return None
    if "theta_reference" not in fields:
        return MarginalReference(2)
    at = fields["theta_reference"]
    return PointReference(at[0]) if np.all(at == at[0]) else PairReference()


def _drawn_at(
    table: Table, theta: np.ndarray, label: np.ndarray, fields: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Where x was drawn, if labels and reference say it; methods that must know refuse data without it."""
    if "theta_reference" in fields:
        return {"drawn_at": np.where(label[:, None] == 1, theta, fields["theta_reference"])}
    if "score" in fields:
        raise ValueError(
            f"{table.path}: rows of label 0 do not say where x was drawn: give the columns drawn_at_NAME, or "
            "reference_NAME where the reference is a point"
        )
    return {}
