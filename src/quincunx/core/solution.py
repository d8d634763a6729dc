"""Aliases and small records that every other module may use."""

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import jax
import numpy as np

Array = jax.Array | np.ndarray
Key = jax.Array  # a typed key made by `jax.random.key`


def rng_of(key: Key) -> np.random.Generator:
    """A generator of NumPy, for orders and other things that are not worth compiling."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())


T = TypeVar("T")


class Status(enum.Enum):
    """How a computation ended. The value is the message for a person."""

    SUCCESS = "finished"
    STOPPED_EARLY = "stopped early: the validation loss had stopped improving"
    DIVERGED = "the training loss became NaN or infinite"
    NOT_FINITE = "the estimate became NaN or infinite"


class InferenceError(RuntimeError):
    """A fit or a run that ended in a failed status. `solution` holds all there is to look at."""

    def __init__(self, solution: "Solution[Any]", advice: str):
        self.solution = solution
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.solution.status.value}. {self.advice}"


@dataclasses.dataclass(frozen=True)
class Solution(Generic[T]):
    """What `fit` and `run` return.

    Fields
    ------
    value: the trained network, or the estimate.
    status: how it ended.
    statistics: named scalars, such as the number of simulator calls.
    history: named sequences, one entry per epoch (`fit`) or iteration (`run`).
    warnings: reasons not to trust the value as it stands.
    notes: what was chosen where nothing was said, in words.
    """

    value: T
    status: Status
    statistics: Mapping[str, float]
    history: Mapping[str, Sequence[float] | np.ndarray]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.status in (Status.SUCCESS, Status.STOPPED_EARLY)


@dataclasses.dataclass(frozen=True)
class Failure:
    """One simulation that gave no usable observation: its row, its parameters, and why."""

    row: int
    theta: Mapping[str, float]
    reason: str

    def __str__(self) -> str:
        theta = ", ".join(f"{name}={value:.6g}" for name, value in self.theta.items())
        return f"row {self.row} ({theta}): {self.reason}"
