"""The immutable record of what was simulated."""

from collections.abc import Sequence

import equinox as eqx
import jax

from ._types import Array, Failure
from .prior import Prior
from .simulator import AbstractSimulator


class Simulations(eqx.Module):
    """Parameters and the observations simulated at them, one row per theta.

    Fields
    ------
    theta: `(n, dim)`, in the prior's order.
    x: `(n, m, *event)`: m i.i.d. observations per row.
    simulator: what made the rows.
    failures: the rows that failed; they are not among theta and x.
    log_ratio, score: mined gold, or None.
    """

    theta: jax.Array
    x: jax.Array
    simulator: AbstractSimulator = eqx.field(static=True)
    failures: tuple[Failure, ...] = eqx.field(static=True, default=())
    log_ratio: jax.Array | None = None
    score: jax.Array | None = None

    def __check_init__(self):
        if len(self.theta) != len(self.x):
            raise ValueError(f"theta has {len(self.theta)} rows and x has {len(self.x)}; they must agree")

    def __len__(self) -> int:
        return len(self.theta)

    def __getitem__(self, rows: slice | Array | Sequence[int]) -> "Simulations":
        """The same record with only these rows (a slice or an index array)."""
        pick = lambda leaf: None if leaf is None else leaf[rows]
        return Simulations(
            self.theta[rows], self.x[rows], self.simulator, self.failures, pick(self.log_ratio), pick(self.score)
        )

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
        return (
            f"Simulations({self.simulator.name}: {len(self)} x {self.num_observations} observations of shape "
            f"{self.event_shape}, parameters {', '.join(self.prior.columns)}{failed})"
        )
