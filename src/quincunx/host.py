"""Simulators that run on the host: a function in NumPy, and an executable in any language.

Both are black boxes (`sample` depth). A row that raises, dies, says nothing in time or gives something
other than numbers becomes a recorded `Failure`; the other rows are not touched by it.
"""

import math
import os
import pathlib
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ._host_pool import run_rows
from ._host_program import run_program
from ._host_worker import IN_WORKER, Plan, Row, run_row
from ._types import Array, Failure, Key
from .prior import Prior
from .simulator import AbstractSimulator, mark_failures

HostFunction = Callable[[np.random.Generator, Mapping[str, Any]], Any]


class NumpySimulator(AbstractSimulator):
    """A black box in NumPy, or in anything that Python can call: `function(rng, theta) -> x`.

    One call gives one observation, an array of real numbers of any fixed shape; m observations are m
    calls. `theta` is a read-only mapping from the prior's names to floats (arrays for vector
    parameters). All randomness must come from `rng`, a `numpy.random.Generator` of its own for every
    row: then the result depends on the key alone, not on the number of workers. Calling the simulator
    calls the function.

    Rows run in worker processes, which are kept for the next draw until this process ends. The
    function travels by cloudpickle, so lambdas and functions of a notebook or a script will do. What it
    prints appears on standard error. In a worker NumPy's linear algebra has one thread, and JAX sees
    the CPU alone, unless OMP_NUM_THREADS, JAX_PLATFORMS and the like are set.

    Fields
    ------
    function: the user's function.
    source: where the simulator comes from (a paper, an equation), for lists and reports.
    workers: processes that run rows side by side; 0 runs them in this process.

    Raises
    ------
    ValueError: workers below 0; when drawing, a function that cannot be sent to another process.
    """

    function: HostFunction = eqx.field(static=True)
    prior: Prior = eqx.field(static=True)
    name: str = eqx.field(static=True)
    source: str = eqx.field(static=True, default="")
    workers: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        if not callable(self.function):
            raise TypeError(f"expected a function (rng, theta) -> x, got {type(self.function).__name__}")
        _check_prior(self.prior, "@qx.numpy_simulator(qx.Prior(name=distribution, ...))")
        _check_workers(self.workers, 0)

    def __call__(self, rng: np.random.Generator, theta: Mapping[str, Any]) -> Any:
        return self.function(rng, theta)

    def draw(self, key: Key, theta: Array, num_observations: int) -> tuple[np.ndarray, tuple[Failure, ...]]:
        theta, plan = np.asarray(theta), _plan(key, self.prior, num_observations)
        if self.workers == 0 or IN_WORKER in os.environ:  # a worker starts no workers of its own
            rows = [run_row(self.function, plan, row, values) for row, values in enumerate(theta)]
        else:
            rows = run_rows(self.function, plan, theta, self.workers, self.name)
        return _collect(self.prior, theta, rows, num_observations)


def numpy_simulator(
    prior: Prior, *, name: str | None = None, source: str = "", workers: int = 2
) -> Callable[[HostFunction], NumpySimulator]:
    """Decorator that makes a `NumpySimulator` of a function `(rng, theta) -> x`.

    Parameters
    ----------
    prior: the prior of its parameters.
    name: how it is called in files and messages; the function's name if not given.
    source: where it comes from, for lists and reports.
    workers: processes that run rows side by side; 0 runs them in this process.

    Raises
    ------
    TypeError: prior is not a Prior, or what is decorated is not a function.
    ValueError: workers below 0.

    Examples
    --------
    >>> import jax, numpyro.distributions as dist
    >>> @numpy_simulator(Prior(rate=dist.Uniform(0, 9)), workers=0)
    ... def counts(rng, theta):
    ...     return rng.poisson(theta["rate"])
    >>> x, failures = counts.draw(jax.random.key(0), [[3.0], [5.0]], 10)
    >>> x.shape, failures
    ((2, 10), ())
    """
    _check_prior(prior, "@qx.numpy_simulator(qx.Prior(name=distribution, ...))")
    _check_workers(workers, 0)

    def wrap(function: HostFunction) -> NumpySimulator:
        called = name or getattr(function, "__name__", "simulator")
        return NumpySimulator(function=function, prior=prior, name=called, source=source, workers=workers)

    return wrap


class ExecutableSimulator(AbstractSimulator):
    """A program in any language, started once for every row of theta. Made by `executable`.

    Fields
    ------
    command: the program and its arguments.
    source: where the simulator comes from (a paper, an equation), for lists and reports.
    timeout: seconds a row may take; then the program is killed with all that it started.
    workers: rows that run side by side.
    """

    command: tuple[str, ...] = eqx.field(static=True)
    prior: Prior = eqx.field(static=True)
    name: str = eqx.field(static=True)
    source: str = eqx.field(static=True, default="")
    timeout: float = eqx.field(static=True, default=60.0)
    workers: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        _check_prior(self.prior, "qx.executable(command, qx.Prior(name=distribution, ...))")
        _check_workers(self.workers, 1)
        if not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise ValueError(f"timeout must be a positive number of seconds, got {self.timeout}")

    def draw(self, key: Key, theta: Array, num_observations: int) -> tuple[np.ndarray, tuple[Failure, ...]]:
        theta, plan = np.asarray(theta), _plan(key, self.prior, num_observations)
        rows = run_program(self.command, plan, theta, self.timeout, self.workers)
        return _collect(self.prior, theta, rows, num_observations)


def executable(
    command: Sequence[str] | str,
    prior: Prior,
    *,
    name: str | None = None,
    source: str = "",
    timeout: float = 60.0,
    workers: int = 2,
) -> ExecutableSimulator:
    """A simulator that is a program in any language. It is started once for every row of theta.

    The program reads one line of JSON from standard input,

        {"parameters": {"rate": 3.5, "beta": [0.1, 0.2]}, "num_observations": 10, "seed": 1234}

    and prints its observations on standard output, in one of three forms: a JSON list of
    `num_observations` observations, a JSON object {"observations": that list}, or as many lines of
    numbers between commas (or blanks), with an optional first line of names and comments after '#'.
    A single column gives scalars. The seed is an integer from 0 to 2^31 - 1: a program that takes all
    its randomness from it makes results that depend on the key alone. Exit code 0 means success;
    otherwise the row fails, and the last line of standard error is the reason.

    Parameters
    ----------
    command: program and arguments, as a sequence, or as one string split the way a shell would. No
        shell is involved.
    prior: the prior of its parameters.
    name: how it is called in files and messages; the program's name if not given.
    source: where it comes from, for lists and reports.
    timeout: seconds a row may take; then the program is killed with all that it started.
    workers: rows that run side by side.

    Raises
    ------
    TypeError: prior is not a Prior.
    ValueError: the command is empty or not found, timeout is not positive, workers is below 1.
    """
    words = tuple(shlex.split(command) if isinstance(command, str) else map(os.fspath, command))
    if not words:
        raise ValueError("command is empty; give a program and its arguments, such as ['./simulate', '--fast']")
    if shutil.which(words[0]) is None:
        found = pathlib.Path(words[0]).exists()
        cure = "make it executable (chmod +x)" if found else "give the path of an executable file, or install it"
        raise ValueError(f"command not found: {words[0]!r} is not an executable program; {cure}")
    called = name or pathlib.Path(words[0]).stem
    return ExecutableSimulator(command=words, prior=prior, name=called, source=source, timeout=timeout, workers=workers)


def _plan(key: Key, prior: Prior, num_observations: int) -> Plan:
    words = np.asarray(jax.random.key_data(key)).ravel().tolist()
    return Plan(tuple(prior.shapes.items()), tuple(words), num_observations)


def _collect(
    prior: Prior, theta: np.ndarray, rows: list[Row], num_observations: int
) -> tuple[np.ndarray, tuple[Failure, ...]]:
    """Rows -> observations `(n, m, *event)`. The commonest event shape counts; other rows fail."""
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
    return x, mark_failures(prior, theta, x, reasons)


def _check_prior(prior: object, call: str) -> None:
    if not isinstance(prior, Prior):
        raise TypeError(f"expected a Prior, got {type(prior).__name__}; write {call}")


def _check_workers(workers: object, least: int) -> None:
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < least:
        raise ValueError(f"workers must be a whole number, at least {least}, got {workers!r}")
