"""The laws of gold, for every mined simulator; and what it is given x, where the law of x is known.

Statistical tests fail where p < 1e-5. There are 74 p-values: a false alarm has probability 0.07 %, once and for all
since the keys are fixed.
"""

import functools

import jax
import numpy as np
import pytest
from mined_cases import CASES, corners
from scipy import stats

from quincunx.gold.mined import AbstractMinedSimulator
from quincunx.problems import CATALOGUE, galton_positions

KEY = jax.random.key(18_051_224)
ROWS = 40_000
PLACES = [(name, place) for name, case in CASES.items() for place in range(len(case.thetas))]
KNOWN = [(name, place) for name, place in PLACES if CASES[name].exact is not None]


def mine(name, theta, alternatives, key=KEY):
    """Always of the same shape, so that it is compiled once: theta in turn, and two alternatives."""
    return CASES[name].simulator.mine(key, np.resize(theta, (ROWS, np.shape(theta)[-1])), np.float32(alternatives))


@functools.cache
def mined(name, place):
    """Gold of many rows at one theta, with the numerator as the first alternative and theta as the second."""
    theta, numerator = (at[place] for at in (CASES[name].thetas, CASES[name].numerators))
    return mine(name, theta, [numerator, theta])


def joint_ratio(gold):
    return np.exp(gold.log_prob[:, 0].astype(np.float64) - gold.log_prob[:, 1])


@functools.cache
def one_event(name):
    one = jax.value_and_grad(lambda theta, x: CASES[name].exact(theta, x[None]))
    return jax.jit(jax.vmap(one, in_axes=(None, 0)))


def exact(name, theta, x):
    """Exact log-density and score of single events, as float64."""
    theta, counted = np.float32(theta), CASES[name].edges is None
    points = galton_positions(CASES[name].simulator) if counted else x
    found = [np.float64(each) for each in one_event(name)(theta, np.float32(points))]
    return [each[bins(name, x)] for each in found] if counted else found


def bins(name, x):
    case = CASES[name]
    if case.edges is None:
        return np.asarray(x, int) - galton_positions(case.simulator)[0]
    columns = np.float64(x).reshape(len(x), -1).T
    cells = [np.clip(np.searchsorted(e, c) - 1, 0, len(e) - 2) for e, c in zip(case.edges, columns, strict=True)]
    return np.ravel_multi_index(cells, [len(e) - 1 for e in case.edges])


def probabilities(name, theta):
    """Of every bin: the exact density, integrated by six Gauss nodes along each axis of each bin."""
    case = CASES[name]
    if case.edges is None:
        return np.exp(exact(name, theta, galton_positions(case.simulator))[0])
    nodes, weights = np.polynomial.legendre.leggauss(6)
    points = [(e[:-1, None] + np.diff(e)[:, None] * (nodes + 1) / 2).ravel() for e in case.edges]
    widths = [(np.diff(e)[:, None] * weights / 2).ravel() for e in case.edges]
    x = np.stack(np.meshgrid(*points, indexing="ij"), -1).reshape(-1, len(points))
    weight = functools.reduce(np.multiply.outer, widths).ravel()
    x = np.float32(x).reshape((-1, *case.simulator.event_shape))
    return np.bincount(bins(name, x), weight * np.exp(exact(name, theta, x)[0]))


def assert_law(p_value):
    assert p_value > 1e-5


def assert_zero_mean(values):
    assert np.std(values) > 0.05  # there is something to tell
    assert_law(2 * stats.norm.sf(abs(np.mean(values)) / (np.std(values) / np.sqrt(len(values)))))


def assert_zero_mean_in_bins(values, bin_of):
    """Averages in bins of at least 200 rows, in units of their errors; 1e-4 of the values is their rounding."""
    count = np.bincount(bin_of)
    kept = count >= 200
    mean = np.bincount(bin_of, values)[kept] / count[kept]
    variance = np.bincount(bin_of, values**2)[kept] / count[kept] - mean**2
    assert kept.sum() > 10
    error = np.maximum(variance, 0) / count[kept] + (1e-4 * np.std(values)) ** 2
    assert_law(stats.chi2.sf(np.sum(mean**2 / error), kept.sum()))


def assert_counts(observed, expected):
    """Chi-square, with bins of at least 10 expected; what others hold is one more."""
    kept = expected >= 10
    rest = max(ROWS - expected[kept].sum(), 0.0)
    expected, observed = np.append(expected[kept], rest), np.append(observed[kept], observed[~kept].sum())
    full = expected >= 10
    assert observed[~full].sum() <= 40
    assert_law(stats.chi2.sf(np.sum((observed - expected)[full] ** 2 / expected[full]), full.sum() - 1))


def test_every_mined_simulator_of_the_catalogue_is_under_these_laws():
    assert {name for name, each in CATALOGUE.items() if isinstance(each, AbstractMinedSimulator)} <= set(CASES)


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_scores_average_to_0_and_ratios_to_1_under_their_denominator(name, place):
    gold = mined(name, place)
    assert_zero_mean(joint_ratio(gold) - 1)
    for column in gold.score.astype(np.float64).T:
        assert_zero_mean(column)


@pytest.mark.parametrize("name", CASES)
def test_gold_is_the_difference_and_the_derivative_of_the_joint_log_prob(name):
    """The truth is in float64: central differences, with an error of some 1e-9."""
    case, rows, step = CASES[name], 100, 1e-5
    simulator, dim = case.simulator, case.simulator.prior.dim
    alternatives = np.float32([case.numerators[0], case.thetas[0]])
    theta = np.asarray(simulator.prior.sample(KEY, rows))
    gold = mine(name, theta, alternatives)
    x, z = jax.jit(jax.vmap(simulator.path))(jax.random.split(KEY, rows), theta)
    np.testing.assert_allclose(x, gold.x[:rows], atol=1e-4)  # compiled on its own, it may round differently
    with jax.enable_x64(True):
        double = lambda leaf: np.float64(leaf) if np.issubdtype(leaf.dtype, np.floating) else leaf
        steps = theta[:, None] + step * np.concatenate([np.eye(dim), -np.eye(dim)])  # in float64
        places = np.concatenate([steps, np.broadcast_to(alternatives, (rows, 2, dim))], axis=1)
        along = jax.vmap(simulator.log_prob, in_axes=(0, None, None))
        values = np.asarray(jax.jit(jax.vmap(along))(places, *jax.tree.map(double, (x, z))))
    slopes = (values[:, :dim] - values[:, dim:-2]) / (2 * step)
    np.testing.assert_allclose(gold.score[:rows], slopes, rtol=1e-4, atol=1e-4)
    ours, truth = (each[:rows, -2] - each[:rows, -1] for each in (gold.log_prob, values))
    np.testing.assert_allclose(ours, truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_same_key_same_bits_and_finite_at_the_corners_of_the_prior(name):
    ends = corners(CASES[name].simulator.prior)
    first, second, other = (mine(name, ends, ends[[0, -1]], jax.random.key(k)) for k in (0, 0, 1))
    assert first.failures == () and first.x.shape == (ROWS, *CASES[name].simulator.event_shape)
    for one, same, another in zip(first[:3], second[:3], other[:3], strict=True):
        assert np.isfinite(one).all() and one.dtype == np.float32
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, another)


# -- given x ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "place"), KNOWN)
def test_draws_follow_the_exact_density(name, place):
    theta, simulator = CASES[name].thetas[place], CASES[name].simulator
    chances = probabilities(name, theta)
    assert chances.sum() == pytest.approx(1, abs=3e-6)
    draws = [mined(name, place).x]
    if place == 0:  # as a black box, too
        draws.append(simulator.draw(KEY, [theta], ROWS)[0][0])
    for x in draws:
        assert_counts(np.bincount(bins(name, x), minlength=len(chances)), ROWS * chances)


@pytest.mark.parametrize(("name", "place"), KNOWN)
def test_gold_averages_to_the_exact_score_and_ratio_given_x(name, place):
    gold, case = mined(name, place), CASES[name]
    (bottom, score), (top, _) = (exact(name, at[place], gold.x) for at in (case.thetas, case.numerators))
    ratio, cells = np.exp(top - bottom), bins(name, gold.x)
    assert np.std(ratio) > 0.05 and np.std(score) > 0.2  # there is something to tell
    assert_zero_mean_in_bins(joint_ratio(gold) - ratio, cells)
    for joint, true in zip(gold.score.astype(np.float64).T, score.T, strict=True):
        assert_zero_mean_in_bins(joint - true, cells)
