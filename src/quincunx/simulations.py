"""The immutable record of what was simulated."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax

from ._types import Array, Failure
from .prior import Prior
from .simulator import AbstractSimulator

_PER_ROW = ("theta", "x", "log_ratio", "score", "label", "drawn_at", "theta_reference")


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
        picked = {name: getattr(self, name)[rows] for name in _PER_ROW if getattr(self, name) is not None}
        return dataclasses.replace(self, **picked)

    @property
    def source(self) -> jax.Array:
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
