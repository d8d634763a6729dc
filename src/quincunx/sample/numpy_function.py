"""Simulators that are functions in NumPy, or in anything that Python can call. They run in worker processes.

A row that raises, dies, or gives something other than numbers becomes a recorded `Failure`; the other rows are not
touched by it.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import numpy as np

from ..core.prior import Prior
from ..core.simulator import AbstractSimulator, check_prior
from ..core.solution import Array, Failure, Key
from .black_box import name_of
from .pool import check_workers, collect, plan_of, run_rows
from .worker import IN_WORKER, run_row

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
    ValueError: when drawing, a function that cannot be sent to another process.
    """

    function: HostFunction = eqx.field(static=True)
    prior: Prior = eqx.field(static=True)
    name: str = eqx.field(static=True)
    source: str = eqx.field(static=True, default="")
    workers: int = eqx.field(static=True, default=2)
    compiled: ClassVar[bool] = False

    def __check_init__(self):
        if not callable(self.function):
            raise TypeError(f"expected a function (rng, theta) -> x, got {type(self.function).__name__}")

    def __call__(self, rng: np.random.Generator, theta: Mapping[str, Any]) -> Any:
        return self.function(rng, theta)

    def draw(self, key: Key, theta: Array, num_observations: int) -> tuple[np.ndarray, tuple[Failure, ...]]:
        theta, plan = np.asarray(theta), plan_of(key, self.prior, num_observations)
        if self.workers == 0 or IN_WORKER in os.environ:  # a worker starts no workers of its own
            rows = [run_row(self.function, plan, row, values) for row, values in enumerate(theta)]
        else:
            rows = run_rows(self.function, plan, theta, self.workers, self.name)
        return collect(self.prior, theta, rows, num_observations)


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
    check_prior(prior, "@qx.numpy_simulator(qx.Prior(name=distribution, ...))")
    check_workers(workers, 0)
    return lambda function: NumpySimulator(
        function=function, prior=prior, name=name_of(function, name), source=source, workers=workers
    )
