"""Rows in buckets, so that what is compiled for one number of rows serves its neighbours too.

A compiled function is made for one shape. The numbers of rows that users have are any; filled up to few sizes, the
second call with another number compiles nothing.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .solution import Array


def bucket(count: int, steps: int = 2) -> int:
    """The smallest size that is not below `count`; from one power of two to the next there are `steps` of them.

    With 2, sizes are 1, 2, 3, 4, 6, 8, 12, 16, ...: at most half as much again. With 8, up to 16 they are all numbers,
    then 18, 20, ..., 32, 36, ...: at most an eighth more. `steps` is a power of two.
    """
    count = max(int(count), 1)
    unit = 1 << max((count - 1).bit_length() - steps.bit_length(), 0)
    return -(-count // unit) * unit


def filled(rows: Array, size: int) -> np.ndarray:
    """The array `(n, ...)` with its rows repeated in turn up to `size`; only the first n of them count."""
    rows = np.asarray(rows)
    return rows if len(rows) == size else np.resize(rows, (size, *rows.shape[1:]))


def first(array: Any, count: int) -> Any:
    """The first rows, taken in NumPy, where no new shape is compiled; of what is being traced, by the trace."""
    return array[:count] if traced(array) else np.asarray(array)[:count]


def traced(*values: Any) -> bool:
    """Whether JAX is tracing any of the values, so that they have none yet."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(values))


def put(values: Array, dtype: Any = None) -> jax.Array:
    """An array of NumPy as one of JAX; `jnp.asarray` of JAX 0.10 compiles its copy of every new shape.

    It may share the memory, so `values` must not change afterwards. What is being traced stays what it is.
    """
    return values if traced(values) else jax.device_put(np.asarray(values, dtype))  # type: ignore[return-value]


def over_rows(function: Callable[..., Any], *rows: Array) -> Any:
    """A compiled function of rows `(n, ...)`, each by itself, called with them filled up; NumPy arrays of n rows."""
    count = len(rows[0])
    found = function(*(filled(each, bucket(count)) for each in rows))
    return jax.tree.map(lambda each: first(each, count), found)


def by_rows(method: Callable[[Any, jax.Array], jax.Array]) -> Callable[[Any, Array], jax.Array]:
    """Decorator of a pure method of one row `(k,)`, of an object that can be hashed; it then takes arrays `(..., k)`.

    It is compiled once for all numbers of rows in a bucket. Inside a function that JAX traces it is part of the trace.
    """
    compiled = jax.jit(lambda self, rows: jax.vmap(functools.partial(method, self))(rows), static_argnums=0)

    @functools.wraps(method)
    def many(self: Any, values: Array) -> jax.Array:
        if traced(values):
            batched: Any = functools.partial(method, self)
            for _ in values.shape[:-1]:
                batched = jax.vmap(batched)
            return batched(values)
        values = np.asarray(values, jnp.result_type(float))
        rows = over_rows(functools.partial(compiled, self), values.reshape(-1, values.shape[-1]))
        return put(rows.reshape(values.shape[:-1] + rows.shape[1:]))

    return many
