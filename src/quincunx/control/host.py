"""Programs that branch in Python on what they drew: row by row, on the host.

The values of a recorded path are concrete, so a replay branches as the path did, whatever theta is traced.
Rows of theta are taken in NumPy, and keys by index: to iterate over an array of JAX is to compile its unstacking.
"""

import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core.batches import bucket
from ..core.simulator import mark_failures
from ..core.solution import Array, Failure, Key
from ..gold.mined import Gold, Path, finish
from .trace import RefusedError, Runner

UNREPEATABLE = (
    "two runs of the model with the same key differ: it uses something random that is no numpyro.sample site, such as "
    "np.random, or changes what it uses. Draw everything with numpyro.sample"
)
_NOT_TRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


def needs_host(runner: Runner) -> bool:
    """Whether JAX cannot trace the model. Traced twice, a model must give the same program."""

    def trace() -> tuple[str, list[Any]]:
        # A function of its own each time, or JAX would not trace again.
        closed = jax.make_jaxpr(lambda *args: runner.path(*args))(jax.random.key(0), jnp.zeros(runner.prior.dim))
        return re.sub("0x[0-9a-f]+", "", str(closed)), closed.consts

    try:
        (text, constants), (again, others) = trace(), trace()
    except _NOT_TRACEABLE:
        return True
    if text != again or not all(map(np.array_equal, constants, others)):
        raise ValueError(UNREPEATABLE)
    return False


def attempt(runner: Runner, key: Key, theta: Array, shape: tuple[int, ...] | None = None) -> Path | str:
    """A path, or why there is none: whatever the model raises is this row's failure, and so is another shape."""
    try:
        x, z = runner.path(key, theta)
    except RefusedError:
        raise
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return (x, z) if shape in (None, x.shape) else f"an observation of shape {x.shape}, others {shape}"


def shape_on_host(runner: Runner) -> tuple[int, ...]:
    """Shape of the observation of the first run that does not fail."""
    for number, theta in enumerate(np.asarray(runner.prior.sample(jax.random.key(0), 100))):
        run = attempt(runner, jax.random.key(number), theta)
        if not isinstance(run, str):
            return run[0].shape
    raise ValueError(f"program {runner.name!r}: each of 100 runs at draws from the prior failed")


def _runs(
    runner: Runner, keys: Key, theta: np.ndarray, size: int, shape: tuple[int, ...]
) -> Iterator[tuple[int, list[Path] | str]]:
    """Row by row of theta `(n, dim)`: `size` paths, or why there are not so many. keys: as many, or more."""
    for row, at in enumerate(theta):
        runs = []
        for number in range(size):
            run = attempt(runner, keys[row, number], at, shape)
            if isinstance(run, str):
                runs = run
                break
            runs.append(run)
        yield row, runs


def draw_on_host(runner: Runner, key: Key, theta: np.ndarray, size: int) -> tuple[np.ndarray, tuple[Failure, ...]]:
    """Observations `(n, m, *event)`, and the rows that failed, which hold NaN."""
    shape, reasons = shape_on_host(runner), {}
    x = np.full((len(theta), size, *shape), np.nan, np.float32)
    keys = jax.vmap(lambda own: jax.random.split(own, bucket(size, 8)))(jax.random.split(key, bucket(len(theta))))
    for row, runs in _runs(runner, keys, theta, size, shape):
        if isinstance(runs, str):
            reasons[row] = runs
        else:
            x[row] = [run[0] for run in runs]
    return x, mark_failures(runner.prior, theta, x, reasons)


def mine_on_host(runner: Runner, key: Key, theta: np.ndarray, alternatives: np.ndarray) -> Gold:
    """The same as `mine_rows`, row by row."""
    others = np.broadcast_to(alternatives, (len(theta), *alternatives.shape[-2:]))
    shape, reasons = shape_on_host(runner), {}
    x, log_prob, score = (
        np.full((len(theta), *each), np.nan, np.float32) for each in (shape, others.shape[1:2], theta.shape[1:])
    )
    keys = jax.random.split(key, (bucket(len(theta)), 1))
    for row, runs in _runs(runner, keys, theta, 1, shape):
        if isinstance(runs, str):
            reasons[row] = runs
        else:
            x[row] = runs[0][0]
            log_prob[row], score[row] = gold_on_host(runner, theta[row], others[row], runs[0])
    return finish(runner.prior, theta, x, log_prob, score, reasons)


def gold_on_host(runner: Runner, theta: Array, others: Array, path: Path) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities `(J,)` at others `(J, dim)` and score `(dim,)` at theta, of one path."""
    log_prob = lambda each: runner.log_prob(runner.prior.unpack(each), *path)
    try:
        values, scores = jax.vmap(jax.value_and_grad(log_prob))(np.concatenate([theta[None], others]))
    except _NOT_TRACEABLE as error:
        raise ValueError(
            f"program {runner.name!r}: a branch or a Python number depends on {_culprits(runner, theta, path)}, and "
            "not only on values drawn at sites: then paths have no ratio, nor a score. Use jnp.where or jax.lax.cond, "
            "or numbers of JAX"
        ) from error
    return values[1:], scores[0]


def _culprits(runner: Runner, theta: Array, path: Path) -> str:
    named, found = runner.prior.unpack(theta), []
    for name, value in named.items():
        try:
            # Under `vmap` only what depends on the parameter is traced; under `jit` everything would be.
            jax.vmap(lambda v, n=name: runner.log_prob({**named, n: v}, *path))(value[None])
        except _NOT_TRACEABLE:
            found.append(repr(name))
    return f"the parameter {' and '.join(found)} itself"
