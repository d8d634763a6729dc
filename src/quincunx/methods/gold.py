"""Which gold each method needs, and what to say when it is not there."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from ..core.loss import Batch
from ..core.names import nearest
from ..core.simulations import Simulations

# Method -> the fields of `Simulations` that it needs.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "nre": (),
    "nde": (),
    "histogram": (),
    "carl": ("label",),
    "rolr": ("label", "log_ratio"),
    "alice": ("label", "log_ratio"),
    "cascal": ("label", "score"),
    "rascal": ("label", "log_ratio", "score"),
    "alices": ("label", "log_ratio", "score"),
    "scandal": ("score",),
    "sally": ("score",),
    "sallino": ("score",),
}


def require(method: str, batch: Batch) -> None:
    """Raise `ValueError` when the simulations lack what a method needs, naming it and the methods that would work."""
    if method not in NEEDS:
        raise ValueError(f"unknown method {method!r}{nearest(method, NEEDS)}; known are {', '.join(NEEDS)}")
    if not isinstance(batch, Simulations):
        raise ValueError(f"{method} takes one record of simulations, not several")
    if batch.num_observations != 1:
        raise ValueError(
            f"{method} takes one observation per row, these simulations have {batch.num_observations}; "
            "simulate with num_observations=1"
        )
    origin_matters = method in ("nde", "scandal", "histogram") and batch.label is not None and batch.drawn_at is None
    if origin_matters and not jnp.all(batch.label == 1):
        raise ValueError(
            f"{method} must know where x was drawn, and rows of label 0 do not say: give the columns drawn_at_NAME"
        )
    missing = [name for name in NEEDS[method] if getattr(batch, name) is None]
    if missing:
        raise ValueError(
            f"{method} needs {' and '.join(missing)}, which these simulations do not have. Methods that would work: "
            f"{', '.join(possible(batch))}. Gold is mined by `mine`, from simulators with a joint log-probability"
        )


def possible(sims: Simulations) -> list[str]:
    """The methods that these simulations have all the gold for."""
    have = {name for name in ("label", "log_ratio", "score") if getattr(sims, name) is not None}
    return [method for method, needs in NEEDS.items() if have >= set(needs)]


def column(sims: Simulations, name: str) -> jax.Array:
    """A column that `require` has found to be there."""
    value = getattr(sims, name)
    if value is None:
        raise ValueError(f"{name} is missing; the loss's `check` says which methods would work")
    return value
