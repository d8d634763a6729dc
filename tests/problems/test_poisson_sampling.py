"""The Poisson sampler: a word of 32 bits is a count, and how many words are each count is known exactly.

Statistical tests fail where p < 1e-4. There are 8 p-values: a false alarm has probability 0.08 %, once and for all
since the key is fixed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from truths import chi_square

from quincunx.problems.poisson_sampling import SWITCH, boundary, quantile, sample_poisson

KEY = jax.random.key(20_181_129)
count_of = jax.jit(quantile)


@pytest.mark.parametrize("rate", [0.3, 9.99, 10.01, 1100])
def test_draws_follow_the_law(rate):
    x = np.asarray(jax.jit(sample_poisson, static_argnums=2)(KEY, rate, (100_000,)), int)
    assert chi_square(x, stats.poisson(np.float64(np.float32(rate)))) > 1e-4
    assert 2 * stats.norm.sf(abs(x.mean() - rate) / np.sqrt(rate / len(x))) > 1e-4


@pytest.mark.parametrize("rate", [0.3, 3.0, 9.99])
def test_small_rates_are_exact_over_all_words(rate):
    """A larger word is a smaller count: bisection finds how many of the 2^32 words are at least each count."""
    counts = np.arange(1, 33)
    low, high = np.zeros(32, np.uint64), np.full(32, 2**32, np.uint64)  # words below `low` are, those from `high` not
    while (low < high).any():
        middle = (low + high) // 2
        reached = np.asarray(count_of(np.uint32(np.minimum(middle, 2**32 - 1)), rate)) >= counts
        low, high = np.where(reached & (low < high), middle + 1, low), np.where(reached, high, middle)
    law = stats.poisson(np.float64(np.float32(rate)))
    upper = law.sf(counts - 1) - law.sf(32)  # larger counts, 7e-9 at a rate of 10, are left out
    np.testing.assert_allclose(low / 2**32, upper, rtol=3e-6, atol=2**-32)
    words = np.sort(np.random.default_rng(0).integers(0, 2**32, 10_000, dtype=np.uint32))
    assert (np.diff(count_of(words, rate)) <= 0).all()


@pytest.mark.parametrize("rate", [10.0, 12.1, 100.0, 1100.0, 30_000.0])
def test_large_rates_are_exact_through_the_boundaries(rate):
    counts = np.arange(int(max(0, rate - 6 * np.sqrt(rate))), int(rate + 7 * np.sqrt(rate)))
    exact = stats.poisson(rate)
    limits = np.float64(jax.jit(boundary)(np.resize(counts, 4096).astype(np.float32), jnp.float32(rate)))[: len(counts)]
    masses = np.where(counts[1:] < rate, np.diff(special.ndtr(limits)), -np.diff(special.ndtr(-limits)))
    assert 0.5 * np.sum(np.abs(masses - exact.pmf(counts[1:]))) < (1e-6 if rate < 2000 else 5e-6)


@pytest.mark.parametrize("rate", [10.0, 11.0, 55.5, 1100.0])
def test_the_count_of_a_word_is_the_inverse_of_the_cdf(rate):
    # Deep in both tails as well, where the Cornish-Fisher guess is at its worst. Rounding may move a word
    # that lies on a boundary: one in 1e5.
    generator = np.random.default_rng(0)
    words = np.concatenate([generator.integers(0, 2**32, 50_000), 2 ** generator.uniform(0, 31, 50_000)])
    words = words.astype(np.uint32)
    counts = np.asarray(count_of(words, rate), np.float64)
    place, upper = ((words >> 1) + 0.5) * 2.0**-32, (words & 1).astype(bool)
    reached = lambda k: np.where(upper, special.pdtrc(k, rate) <= place, special.pdtr(k, rate) >= place)
    right = reached(counts) & ((counts == 0) | ~reached(np.maximum(counts - 1, 0)))
    assert np.mean(~right) < 1e-4


def test_extreme_words_and_bad_rates():
    words = np.array([0, 1, 2**32 - 2, 2**32 - 1], np.uint32)
    for rate in (0.3, 5.0, SWITCH, 1100.0):
        counts = np.asarray(count_of(words, rate))
        assert np.all(counts >= 0) and np.all(np.abs(counts - rate) < 7.5 * np.sqrt(rate) + 25)
    assert np.all(np.asarray(count_of(words, 0.0)) == 0)
    assert np.isnan(count_of(words, np.float32([-1.0, np.nan, np.inf, -0.5]))).all()


def test_scan_and_vmap_give_one_result():
    keys, rates = jax.random.split(KEY, 50), jnp.exp(jnp.linspace(0.2, 7, 50))
    mapped = jax.jit(jax.vmap(sample_poisson))(keys, rates)
    scanned = jax.lax.scan(lambda _, pair: (None, sample_poisson(*pair)), None, (keys, rates))[1]
    np.testing.assert_array_equal(mapped, scanned)
    assert len(set(np.asarray(mapped).tolist())) > 30
