"""Bins of about equal probability, and the joining of those that hold too little."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ...core.loss import AbstractFrozen


class Bins(AbstractFrozen):
    """Bins of about equal probability, in one dimension, or in a second within each bin of the first.

    Fields
    ------
    outer: cuts `(B1 - 1,)` of the first summary.
    inner: cuts `(B1, B2 - 1)` of the second, filled up with infinity.
    """

    outer: jax.Array
    inner: jax.Array

    @staticmethod
    def of(s: np.ndarray, num_bins: int) -> "Bins":
        """About `num_bins` bins for summaries `(n, k)`; values that are equal are never parted."""
        per_axis = num_bins if s.shape[1] == 1 else max(2, round(num_bins**0.5))
        outer = _cuts(s[:, 0], per_axis)
        place = np.searchsorted(outer, s[:, 0])
        inner = [_cuts(s[place == b, 1], per_axis) if s.shape[1] == 2 else outer[:0] for b in range(len(outer) + 1)]
        return Bins(jnp.asarray(outer), jnp.asarray(filled(inner, np.inf)))

    @property
    def num_bins(self) -> int:
        return self.inner.shape[0] * (self.inner.shape[1] + 1)

    def __call__(self, s: jax.Array) -> jax.Array:
        """The bin `()` of summaries `(k,)`."""
        first = jnp.sum(s[0] > self.outer)
        return first * (self.inner.shape[1] + 1) + jnp.sum(s[-1] > self.inner[first])

    def places(self, s: np.ndarray) -> np.ndarray:
        """The bins `(n,)` of summaries `(n, k)`, in NumPy: nothing is compiled for every number of bins tried."""
        first = np.searchsorted(np.asarray(self.outer), s[:, 0])
        second = np.zeros(len(s), int)
        for b, cuts in enumerate(np.asarray(self.inner)):
            second[first == b] = np.searchsorted(cuts, s[first == b, -1])
        return first * (self.inner.shape[1] + 1) + second


def _cuts(values: np.ndarray, num_bins: int) -> np.ndarray:
    """Between neighbouring different values, at about the quantiles of `num_bins` equal shares."""
    unique, counts = np.unique(values, return_counts=True)
    last = np.flatnonzero(np.diff(equal_shares(counts, num_bins)))
    return ((unique[last].astype(np.float64) + unique[last + 1]) / 2).astype(np.float32)


def equal_shares(counts: np.ndarray, num_bins: int) -> np.ndarray:
    """Which of at most `num_bins` about equal shares each of Q values `(Q,)` is in, by where its middle falls.

    counts: how often each occurs `(Q,)`, in increasing order of the values.
    """
    return np.floor((np.cumsum(counts) - counts / 2) * num_bins / max(counts.sum(), 1)).astype(int)


def joined(sizes: np.ndarray, fewest: int | float) -> np.ndarray:
    """Numbers `(B,)` of the groups, when B neighbours of `sizes` are joined until each group holds `fewest`.

    What is left over joins the last.
    """
    group, held = np.zeros(len(sizes), int), 0.0
    for number in range(1, len(sizes)):
        held += sizes[number - 1]
        group[number] = group[number - 1] + (held >= fewest)
        held = 0.0 if held >= fewest else held
    if held + sizes[-1] < fewest and group[-1] > 0:
        group[group == group[-1]] -= 1
    return group


def filled(rows: Sequence[np.ndarray], value: float) -> np.ndarray:
    """Rows of different lengths as one array, the shorter ones filled up with a value."""
    longest = max(map(len, rows))
    return np.stack([np.pad(row, (0, longest - len(row)), constant_values=value) for row in rows])
