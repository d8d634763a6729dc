"""What was simulated, and what was observed: the immutable record, and the edge where data enter."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import numpy as np

from .batches import put, traced
from .prior import Prior
from .simulator import AbstractSimulator
from .solution import Array, Failure


def as_observations(x: Array, event_shape: tuple[int, ...], expected_by: str) -> jax.Array:
    """Observed data as a float32 array `(m, *event)`.

    A single observation is not accepted for a set of one: write `x[None]`.

    Raises
    ------
    TypeError: x is not numeric.
    ValueError: wrong shape, no observation, or NaN or infinity (the first such row is named).
    """
    shape = f"({', '.join(['m', *map(str, event_shape)])}{'' if event_shape else ','})"
    try:
        values = np.asarray(x)
    except ValueError as error:
        raise ValueError(f"observations must be a rectangular array {shape}: {error}") from error
    if values.dtype == object or not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        raise TypeError(f"observations must be numbers, got an array of dtype {values.dtype}")
    if np.iscomplexobj(values):
        raise TypeError("observations must be real numbers, got complex ones; give real and imaginary parts as columns")
    if values.shape[1:] != event_shape or values.ndim != len(event_shape) + 1:
        raise ValueError(
            f"observations: {expected_by} makes observations of shape {event_shape}, so a set of m of them has "
            f"shape {shape}; got {values.shape}"
        )
    if len(values) == 0:
        raise ValueError("there are no observations; give at least one")
    finite = np.isfinite(values.reshape(len(values), -1).astype(np.float64)).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{int((~finite).sum())} of {len(values)} observations are NaN or infinite, the first in row "
            f"{int(np.argmin(finite))}; drop or mend them"
        )
    return put(np.array(values, np.float32))


_PER_ROW = ("theta", "x", "log_ratio", "score", "label", "drawn_at", "theta_reference", "weight")


class Simulations(eqx.Module):
    """Parameters and the observations simulated at them, one row per theta.

    The optional fields are gold, and what a contrast of two hypotheses needs; `mine` fills them. Gold belongs to
    rows of one observation.

    Fields
    ------
    theta: `(n, dim)`, in the prior's order. In a contrast: the numerator's hypothesis.
    x: `(n, m, *event)`: m i.i.d. observations per row.
    simulator: what made the rows.
    failures: the rows that failed; they are not among theta and x.
    log_ratio: `(n,)`, joint log-ratios log p(x, z | theta) - log p(x, z | reference).
    score: `(n, dim)`, joint scores grad log p(x, z | .) at the theta that x was drawn from.
    label: `(n,)`, 1 where x was drawn from the numerator p(x | theta), 0 where from the reference.
    drawn_at: `(n, dim)`, the theta that x was drawn from. None where that is `theta` in every row, or, in labelled rows
        of a file, not known; methods that must know it refuse those.
    theta_reference: `(n, dim)`, the reference's hypothesis where every row has its own.
    weight: `(n,)`, what a row counts where a posterior is learnt and theta was not drawn from the prior; None where all
        count alike.
    reference: what the ratios are relative to, see `mine`; None when there are none.
    """

    theta: jax.Array
    x: jax.Array
    simulator: AbstractSimulator = eqx.field(static=True)
    failures: tuple[Failure, ...] = eqx.field(static=True, default=())
    log_ratio: jax.Array | None = None
    score: jax.Array | None = None
    label: jax.Array | None = None
    drawn_at: jax.Array | None = None
    theta_reference: jax.Array | None = None
    weight: jax.Array | None = None
    reference: eqx.Module | None = None

    def __check_init__(self):
        for name in _PER_ROW:
            value = getattr(self, name)
            if value is not None and len(value) != len(self.theta):
                raise ValueError(f"theta has {len(self.theta)} rows and {name} has {len(value)}; they must agree")

    def __len__(self) -> int:
        return len(self.theta)

    def __getitem__(self, rows: slice | Array | Sequence[int]) -> "Simulations":
        """The same record with only these rows (a slice or an index array)."""
        columns = {name: getattr(self, name) for name in _PER_ROW if getattr(self, name) is not None}
        if not traced(columns, rows):  # in NumPy: each new number of rows would be compiled
            columns = {name: np.asarray(column) for name, column in columns.items()}
        return dataclasses.replace(self, **{name: put(column[rows]) for name, column in columns.items()})

    @property
    def drawn_from(self) -> jax.Array:
        """The theta `(n, dim)` that each x was drawn from."""
        return self.theta if self.drawn_at is None else self.drawn_at

    @property
    def prior(self) -> Prior:
        return self.simulator.prior

    @property
    def num_observations(self) -> int:
        return self.x.shape[1]

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.x.shape[2:]

    @property
    def num_simulator_calls(self) -> int:
        """Observations simulated, the failed rows included."""
        return (len(self) + len(self.failures)) * self.num_observations

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        gold = [name for name in ("log_ratio", "score") if getattr(self, name) is not None]
        mined = f", mined {' and '.join(gold)}" if gold else ""
        return (
            f"Simulations({self.simulator.name}: {len(self)} x {self.num_observations} observations of shape "
            f"{self.event_shape}, parameters {', '.join(self.prior.columns)}{mined}{failed})"
        )
