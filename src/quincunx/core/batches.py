"""Rows in buckets, so that what is compiled for one number of rows serves its neighbours too.

A compiled function is made for one shape. The numbers of rows that users have are any; filled up to few sizes, the
second call with another number compiles nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .solution import Array


def bucket(count: int) -> int:
    """The smallest of 1, 2, 3, 4, 6, 8, 12, 16, ... that is not below `count`: at most half as much again."""
    power = 1 << max(count - 1, 0).bit_length()
    return power * 3 // 4 if power >= 4 and count <= power * 3 // 4 else power


def filled(rows: Array, size: int) -> np.ndarray:
    """The array `(n, ...)` with its rows repeated in turn up to `size`; only the first n of them count."""
    return np.asarray(rows)[np.arange(size) % len(rows)]


def over_rows(function: Callable[..., Any], *rows: Array) -> Any:
    """A compiled function of rows `(n, ...)`, each by itself, called with them filled up; NumPy arrays of n rows."""
    count = len(rows[0])
    found = function(*(filled(each, bucket(count)) for each in rows))
    return jax.tree.map(lambda each: np.asarray(each)[:count], found)
