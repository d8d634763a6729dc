"""Buckets of rows: few sizes, none much too large, and the same results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import compiled

from quincunx.core.batches import bucket, filled, over_rows, put, traced


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_few_sizes_and_none_much_too_large(steps):
    counts = np.arange(1, 5000)
    sizes = np.array([bucket(int(count), steps) for count in counts])
    assert (sizes >= counts).all() and (sizes < counts * (1 + 1 / steps)).all()
    assert all(bucket(int(size), steps) == size for size in sizes)
    assert len(set(sizes[1024:2048])) == steps  # from one power of two to the next
    assert bucket(0, steps) == 1


def test_sizes_are_halved_into_sizes():
    assert [bucket(count) for count in (1, 2, 3, 5, 9, 13)] == [1, 2, 3, 6, 12, 16]
    assert all(bucket(bucket(count) // 2) == bucket(count) // 2 for count in range(4, 3000))


def test_rows_are_repeated_in_turn():
    assert filled([1, 2, 3], 7).tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert filled(np.zeros((0, 2)), 3).tolist() == [[0, 0]] * 3


def test_over_rows_gives_what_the_rows_give_and_compiles_once():
    double = jax.jit(lambda x, y: (2 * x, x + y))
    for count, expected in ((5, 1), (6, 0), (1, 1)):
        x = np.arange(count, dtype=np.float32)
        with compiled() as names:
            found = over_rows(double, x, x[:, None][:, 0])
        assert len(names) == expected
        np.testing.assert_array_equal(found, [2 * x, 2 * x])
        assert all(isinstance(each, np.ndarray) for each in found)
    inside = jax.jit(lambda: over_rows(double, np.ones(5, np.float32), np.ones(5, np.float32))[1])
    np.testing.assert_array_equal(inside(), np.full(5, 2.0))


def test_put_compiles_nothing_and_leaves_traces_alone():
    with compiled() as names:
        assert put(np.ones((1231, 2))).dtype == jnp.float32
    assert names == []
    seen = []
    jax.jit(lambda x: seen.append((traced(x), traced({"a": [x]}), put(x) is x)))(1.0)
    assert seen == [(True, True, True)] and not traced(np.ones(2), [1.0], slice(3))
