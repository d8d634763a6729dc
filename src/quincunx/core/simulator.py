"""What every simulator is, at whatever depth of access.

A simulator takes a key and parameters and gives observations. `AbstractSimulator` is all that most of the library
knows of it: black boxes are in `sample/`, simulators whose latent path can be scored in `gold/`, programs in
`control/`.
"""

import abc
import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import equinox as eqx
import jax
import numpy as np

from .prior import Prior
from .solution import Array, Failure, Key


class AbstractSimulator(eqx.Module):
    """Anything that can draw observations at given parameters.

    Fields
    ------
    name: how the simulator is called in files and messages.
    prior: the prior of its parameters.
    """

    name: eqx.AbstractVar[str]
    prior: eqx.AbstractVar[Prior]

    @property
    @abc.abstractmethod
    def compiled(self) -> bool:
        """Whether a draw is compiled for a number of rows, so that few numbers should be asked for, filled up."""

    @abc.abstractmethod
    def draw(self, key: Key, theta: Array, num_observations: int) -> tuple[np.ndarray, tuple[Failure, ...]]:
        """`num_observations` (m) independent observations at each row of theta `(n, dim)`.

        Returns the observations `(n, m, *event)` as float32, and the rows that failed. A failed row
        holds NaN. An observation that is not finite makes its row a failed one.
        """


@dataclasses.dataclass(frozen=True)
class Exact:
    """What is known exactly about a benchmark simulator; a field is None where nothing is.

    All functions are pure JAX. `x` is a set of m i.i.d. observations `(m, *event)`.

    Fields
    ------
    log_likelihood: `(theta (dim,), x) -> scalar`, the log-density of the whole set.
    mle: `x -> theta (dim,)`, the maximum likelihood estimate inside the prior's support.
    posterior_mean: `x -> theta (dim,)`, under the simulator's own prior.
    posterior_std: `x -> (dim,)`, likewise.
    """

    log_likelihood: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    mle: Callable[[jax.Array], jax.Array] | None = None
    posterior_mean: Callable[[jax.Array], jax.Array] | None = None
    posterior_std: Callable[[jax.Array], jax.Array] | None = None

    @staticmethod
    def of(
        log_likelihood: Callable[[jax.Array, jax.Array], jax.Array],
        mle: Callable[[jax.Array], jax.Array],
        posterior: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    ) -> "Exact":
        """All of it, from a function of x that gives the posterior's mean and standard deviation."""
        return Exact(log_likelihood, mle, lambda x: posterior(x)[0], lambda x: posterior(x)[1])


def stack_rows(rows: Sequence[np.ndarray | str], num_observations: int) -> tuple[np.ndarray, dict[int, str]]:
    """Rows `(m, *event)`, or why there is none, as one array `(n, m, *event)`, and why rows failed, which hold NaN.

    The commonest event shape counts; rows of another fail. Only simulators on the host can change their shape.
    """
    shapes = Counter(row.shape[1:] for row in rows if not isinstance(row, str))
    shape = shapes.most_common(1)[0][0] if shapes else ()
    x = np.full((len(rows), num_observations, *shape), np.nan, dtype=np.float32)
    reasons = {}
    for index, row in enumerate(rows):
        if isinstance(row, str):
            reasons[index] = row
        elif row.shape[1:] != shape:
            reasons[index] = f"returned shape {row.shape[1:]}, others {shape}"
        else:
            x[index] = row
    return x, reasons


def mark_failures(prior: Prior, theta: np.ndarray, x: np.ndarray, reasons: Mapping[int, str]) -> tuple[Failure, ...]:
    """Fill failed rows of `x` with NaN, in place, and list them: those in `reasons`, and those not finite."""
    reasons = dict(reasons)
    if not np.isfinite(x).all():
        bad = np.any(~np.isfinite(x), axis=tuple(range(2, x.ndim)))
        for row in np.flatnonzero(np.any(bad, axis=1)).tolist():
            reasons.setdefault(row, f"{np.sum(bad[row])} of {x.shape[1]} observations are NaN or infinite")
    x[list(reasons)] = np.nan
    return list_failures(prior, theta, reasons)


def list_failures(prior: Prior, theta: np.ndarray, reasons: Mapping[int, str]) -> tuple[Failure, ...]:
    """The failed rows of theta `(n, dim)`, in order, with their parameters by name."""
    named = lambda row: dict(zip(prior.columns, theta[row].tolist(), strict=True))
    return tuple(Failure(row, named(row), reasons[row]) for row in sorted(reasons))


def check_prior(prior: object, call: str = "qx.Prior(name=distribution, ...)") -> None:
    if not isinstance(prior, Prior):
        raise TypeError(f"expected a Prior, got {type(prior).__name__}; write {call}")


class NamedSimulator(AbstractSimulator):
    """Stands for a simulator that is not here: it has a name and a prior, and cannot run.

    Fields
    ------
    advice: how the simulator itself can be had, for the error when it is asked to run.
    """

    name: str = eqx.field(static=True)
    prior: Prior = eqx.field(static=True)
    advice: str = eqx.field(static=True)
    compiled: ClassVar[bool] = False

    def draw(self, key: Key, theta: Array, num_observations: int) -> tuple[np.ndarray, tuple[Failure, ...]]:
        raise ValueError(f"the simulator {self.name!r} cannot be run: {self.advice}")
