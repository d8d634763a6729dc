"""Mined simulators: the laws of gold, and exact answers against float64 references written here.

Statistical tests fail where p < 1e-5. There are 66 p-values: a false alarm has probability 0.07 %, once and for all
since the keys are fixed.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import integrate, special, stats

from quincunx.core.prior import Prior
from quincunx.core.simulator import Exact
from quincunx.gold.mined import AbstractMinedSimulator, mined_simulator
from quincunx.problems import CATALOGUE, eft, galton, galton_board, galton_distribution, galton_positions, gaussian

KEY = jax.random.key(18_051_224)
ROWS = 100_000


# -- the catalogue ----------------------------------------------------------------------------


def smeared_log_prob(theta, x, z):
    return dist.Normal(theta["mean"], jnp.exp(theta["log_scale"])).log_prob(z)


def smeared_log_likelihood(theta, x):
    return jnp.sum(dist.Normal(theta[0], jnp.sqrt(jnp.exp(2 * theta[1]) + 0.25)).log_prob(x))


@mined_simulator(
    Prior(mean=dist.Uniform(-3.0, 3.0), log_scale=dist.Uniform(-1.0, 1.0)),
    joint_log_prob=smeared_log_prob,
    exact=Exact(log_likelihood=smeared_log_likelihood),
)
def smeared(key, theta):
    z, noise = jax.random.normal(key, (2,))
    z = theta["mean"] + jnp.exp(theta["log_scale"]) * z
    return z + 0.5 * noise, z


longer = galton_board(40, num_nails=61, name="longer")


@dataclasses.dataclass(frozen=True)
class Case:
    """A simulator, the thetas to draw at, a numerator for each, and edges of bins of x (None: x is discrete).

    The numerators are near enough for joint ratios of finite variance.
    """

    simulator: AbstractMinedSimulator
    thetas: tuple
    numerators: tuple
    edges: tuple | None = None


CASES = {
    "galton": Case(galton, ([-0.6], [-1.0]), ([-0.8], [-0.8])),
    "longer": Case(longer, ([-0.6], [-0.9]), ([-0.7], [-0.8])),
    "eft": Case(
        eft,
        ([0.0, 0.0], [-1.0, -1.0], [-0.6, 0.8], [1.0, 0.3]),
        ([-0.2, 0.1], [-0.8, -0.9], [-0.4, 0.6], [0.5, 0.5]),
        (np.linspace(np.log(0.4), np.log(3.0), 13), np.linspace(-0.9, 0.9, 11)),
    ),
    "smeared": Case(smeared, ([0.0, 0.0], [1.0, -0.7]), ([0.2, -0.1], [0.9, -0.6]), (np.linspace(-9, 10, 77),)),
}
PLACES = [(name, place) for name, case in CASES.items() for place in range(len(case.thetas))]


@functools.cache
def mined(name, place):
    """Gold of many rows at one theta, with the numerator as the first alternative and theta as the second."""
    case = CASES[name]
    theta, numerator = np.float32(case.thetas[place]), np.float32(case.numerators[place])
    return case.simulator.mine(KEY, np.tile(theta, (ROWS, 1)), np.stack([numerator, theta]))


def joint_ratio(gold):
    return np.exp(gold.log_prob[:, 0].astype(np.float64) - gold.log_prob[:, 1])


@functools.cache
def one_event(name):
    log_likelihood = CASES[name].simulator.exact.log_likelihood
    return jax.jit(jax.vmap(jax.value_and_grad(lambda theta, x: log_likelihood(theta, x[None])), in_axes=(None, 0)))


def exact(name, theta, x):
    """Exact log-density and score of single events, as float64."""
    theta = jnp.asarray(theta, jnp.float32)
    if CASES[name].edges is not None:
        return tuple(np.float64(each) for each in one_event(name)(theta, x))
    positions = galton_positions(CASES[name].simulator)
    log_prob, score = one_event(name)(theta, jnp.asarray(positions, jnp.float32))
    place = np.asarray(x, int) - positions[0]
    return np.float64(log_prob)[place], np.float64(score)[place]


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


# -- laws -------------------------------------------------------------------------------------


def test_the_catalogue_has_the_mined_simulators():
    mined_ones = {name for name, each in CATALOGUE.items() if isinstance(each, AbstractMinedSimulator)}
    assert mined_ones == {"galton", "eft"}
    assert CATALOGUE["galton"] is galton and CATALOGUE["eft"] is eft
    assert (galton.prior.columns, galton.event_shape) == (("skew",), ())
    assert (eft.prior.columns, eft.event_shape) == (("c1", "c2"), (2,))
    assert galton.source and eft.source


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_exact_density_is_normalised(name, place):
    assert probabilities(name, CASES[name].thetas[place]).sum() == pytest.approx(1, abs=3e-6)


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_draws_follow_the_exact_density(name, place):
    expected = ROWS * probabilities(name, CASES[name].thetas[place])
    observed = np.bincount(bins(name, mined(name, place).x), minlength=len(expected))
    kept = expected >= 10
    rest = max(ROWS - expected[kept].sum(), 0.0)
    expected, observed = np.append(expected[kept], rest), np.append(observed[kept], observed[~kept].sum())
    full = expected >= 10
    assert observed[~full].sum() <= 40
    assert_law(stats.chi2.sf(np.sum((observed - expected)[full] ** 2 / expected[full]), full.sum() - 1))


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_joint_score_has_mean_zero(name, place):
    for column in mined(name, place).score.astype(np.float64).T:
        assert_zero_mean(column)


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_joint_ratio_has_mean_one_under_its_denominator(name, place):
    assert_zero_mean(joint_ratio(mined(name, place)) - 1)


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_joint_score_averages_to_the_exact_score_given_x(name, place):
    gold = mined(name, place)
    score = exact(name, CASES[name].thetas[place], gold.x)[1]
    assert np.std(score) > 0.2  # there is something to tell
    for joint, true in zip(gold.score.astype(np.float64).T, score.T, strict=True):
        assert_zero_mean_in_bins(joint - true, bins(name, gold.x))


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_joint_ratio_averages_to_the_exact_ratio_given_x(name, place):
    gold, case = mined(name, place), CASES[name]
    top, bottom = (exact(name, theta, gold.x)[0] for theta in (case.numerators[place], case.thetas[place]))
    ratio = np.exp(top - bottom)
    assert np.std(ratio) > 0.05
    assert_zero_mean_in_bins(joint_ratio(gold) - ratio, bins(name, gold.x))


@pytest.mark.parametrize("name", CASES)
def test_gold_is_the_difference_and_the_derivative_of_the_joint_log_prob(name):
    # The truth is a central difference in float64, with an error of some 1e-9.
    case, rows, step = CASES[name], 200, 1e-5
    simulator, dim = case.simulator, case.simulator.prior.dim
    theta = np.asarray(simulator.prior.sample(KEY, rows))
    numerator = np.float32(case.numerators[0])
    gold = simulator.mine(KEY, theta, np.stack([theta, np.broadcast_to(numerator, theta.shape)], axis=1))
    x, z = jax.vmap(simulator.path)(jax.random.split(KEY, rows), theta)
    np.testing.assert_allclose(x, gold.x, atol=1e-4)  # compiled on its own, it may round differently
    with jax.enable_x64(True):
        double = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(np.float64(leaf)), tree)
        x, z, theta = double((x, z, theta))
        value = jax.jit(jax.vmap(simulator.log_prob))
        steps = step * np.eye(dim)
        slopes = np.stack([(value(theta + e, x, z) - value(theta - e, x, z)) / (2 * step) for e in steps], axis=1)
        score = jax.jit(jax.vmap(jax.grad(simulator.log_prob)))(theta, x, z)
        other = jnp.broadcast_to(double(numerator), theta.shape)
        log_ratio = value(theta, x, z) - value(other, x, z)
    np.testing.assert_allclose(score, slopes, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(gold.score, slopes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gold.log_prob[:, 0] - gold.log_prob[:, 1], log_ratio, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_same_key_same_bits_and_finite_at_the_corners_of_the_prior(name):
    simulator = CASES[name].simulator
    edges = [(d.support.lower_bound, d.support.upper_bound) for d in simulator.prior.distributions.values()]
    corners = np.array(list(itertools.product(*edges)), np.float32)
    theta = np.repeat(corners, 2000, axis=0)
    first, second = (simulator.mine(KEY, theta, corners) for _ in range(2))
    assert first.failures == () and first.x.dtype == np.float32
    for one, other in zip(first[:3], second[:3], strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first.x, simulator.mine(jax.random.key(1), theta, corners).x)
    log_density = one_event(name)(jnp.asarray(corners[0]), jnp.asarray(first.x[:2000]))[0]
    assert jnp.isfinite(log_density).all()


@pytest.mark.parametrize("name", ["galton", "eft"])
def test_mined_simulators_are_black_boxes_too(name):
    simulator, theta = CATALOGUE[name], np.float32(CASES[name].thetas[:2])
    x, failures = simulator.draw(KEY, theta, 500)
    assert x.shape == (2, 500, *simulator.event_shape) and x.dtype == np.float32 and failures == ()
    keys = jax.random.split(jax.random.split(KEY, 2)[1], 500)
    paths = jax.jit(jax.vmap(simulator.path, in_axes=(0, None)))(keys, theta[1])
    np.testing.assert_allclose(x[1], paths[0], atol=1e-4)


# -- Galton board -----------------------------------------------------------------------------


def left_chances(num_rows, num_nails, skew, steepness=10.0):
    """p_left in float64, `(num_rows, num_nails, *skew.shape)`."""
    nails = 2 * np.arange(num_nails) / (num_nails - 1) - 1
    bend = np.sin(np.pi * np.arange(num_rows) / (num_rows - 1)).reshape((-1,) + (1,) * (1 + np.ndim(skew)))
    return (1 - bend) / 2 + bend * special.expit(steepness * np.multiply.outer(nails, skew))


def roll_down(left, right):
    """The last row of the sum over all paths from the middle, of products of their steps' weights."""
    weight = np.zeros(left.shape[1:])
    weight[len(weight) // 2] = 1
    for row, (to_left, to_right) in enumerate(zip(left, right, strict=True)):
        stay, go = (to_left, to_right) if row % 2 == 0 else (to_right, to_left)
        weight = stay * weight + np.roll(go * weight, 1 if row % 2 == 0 else -1, axis=0)
    return weight


def law(num_rows, num_nails, skew):
    """p(x | skew) in float64, of the positions that can be reached, `(num_rows + 1, *skew.shape)`."""
    left = left_chances(num_rows, num_nails, skew)
    first = num_nails // 2 - num_rows // 2
    return roll_down(left, 1 - left)[first : first + num_rows + 1]


BOARDS = {"galton": (galton, 20, 31), "longer": (longer, 40, 61)}


def test_small_board_against_all_its_paths():
    board, start = galton_board(6, num_nails=9, low=-2.0, high=1.0), 4
    for skew in (-2.0, -0.7, 0.4):
        left = left_chances(6, 9, skew)
        sums = np.zeros(9)
        for turns in itertools.product([0, 1], repeat=6):  # 1 is right
            position, chance, path = start, 1.0, [start]
            for row, right in enumerate(turns):
                chance *= 1 - left[row, position] if right else left[row, position]
                position += (0 if not right else 1) if row % 2 == 0 else (-1 if not right else 0)
                path.append(position)
            sums[position] += chance
            joint = board.log_prob(jnp.array([skew]), jnp.float32(position), jnp.array(path, jnp.float32))
            assert joint == pytest.approx(np.log(chance), abs=2e-6)
        assert sums.sum() == pytest.approx(1)
        np.testing.assert_array_equal(galton_positions(board), np.flatnonzero(sums))
        np.testing.assert_allclose(galton_distribution(board, jnp.array([skew])), sums[sums > 0], rtol=3e-6)


@pytest.mark.parametrize("name", BOARDS)
def test_galton_law_is_the_float64_one(name):
    board, num_rows, num_nails = BOARDS[name]
    one = jax.jit(lambda theta: galton_distribution(board, theta))
    for skew in (-1.0, -0.73, -0.4):
        truth = law(num_rows, num_nails, np.float64(np.float32(skew)))
        assert truth.sum() == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(one(jnp.array([skew])), truth, rtol=2e-5)


def test_galton_positions_are_the_published_bins():
    np.testing.assert_array_equal(galton_positions(galton), np.arange(5, 26))
    big = galton_board(200, num_nails=301)
    assert (galton_positions(big)[0], galton_positions(big)[-1], len(galton_positions(big))) == (50, 250, 201)


def test_predicting_no_difference_has_the_published_error():
    # Brehmer et al. 2018: numerator -0.8, denominator -0.6; 0.0632 is what every estimator has to beat.
    top, bottom = (np.float64(galton_distribution(galton, jnp.array([skew]))) for skew in (-0.8, -0.6))
    error = np.sum(bottom * np.log(top / bottom) ** 2)
    assert error == pytest.approx(0.0632, abs=1e-4)
    truth = [law(20, 31, skew) for skew in (-0.8, -0.6)]
    assert error == pytest.approx(np.sum(truth[1] * np.log(truth[0] / truth[1]) ** 2), rel=1e-5)


def test_noise_of_joint_ratios_on_a_large_board():
    # Of 200 rows, for -1 against -0.4: the joint ratio is almost all noise. The second moment of a product of steps is
    # rolled down like a probability.
    big = galton_board(200, num_nails=301)
    top, bottom = (np.float64(jax.jit(lambda t: galton_distribution(big, t))(jnp.array([s]))) for s in (-1.0, -0.4))
    np.testing.assert_allclose(bottom.sum(), 1, atol=1e-5)
    exact_top, exact_bottom = law(200, 301, -1.0), law(200, 301, -0.4)
    likely = exact_bottom > 1e-12
    np.testing.assert_allclose(top[likely], exact_top[likely], rtol=1e-4)
    np.testing.assert_allclose(bottom[likely], exact_bottom[likely], rtol=1e-4)
    p, q = left_chances(200, 301, -1.0), left_chances(200, 301, -0.4)
    second = roll_down(p**2 / q, (1 - p) ** 2 / (1 - q)).sum()
    signal = np.sum(exact_top**2 / exact_bottom)
    assert second - signal == pytest.approx(15_463, rel=1e-4)
    assert signal - 1 == pytest.approx(529, rel=1e-3)


@functools.cache
def answers(name):
    """Jitted: the log-likelihood at a skew, the MLE, the posterior's mean and its standard deviation."""
    exact = BOARDS[name][0].exact
    return jax.jit(
        lambda skew, x: (
            exact.log_likelihood(skew[None], x),
            *(each(x)[0] for each in (exact.mle, exact.posterior_mean, exact.posterior_std)),
        )
    )


@pytest.mark.parametrize("m", [1, 20, 3000])
@pytest.mark.parametrize("name", BOARDS)
def test_galton_mle_and_posterior_are_the_reference(name, m):
    board, num_rows, num_nails = BOARDS[name]
    x = mined(name, 0).x[:m]
    counts = np.bincount(np.asarray(x, int) - galton_positions(board)[0], minlength=num_rows + 1)
    log_likelihood = lambda skew: counts @ np.log(law(num_rows, num_nails, np.asarray(skew)))
    grid = np.linspace(-1, -0.4, 801)
    values = log_likelihood(grid)
    ours, mle, mean, std = (float(each) for each in answers(name)(jnp.float32(-0.7), x))
    assert ours == pytest.approx(log_likelihood(np.float64(np.float32(-0.7))), rel=2e-6, abs=1e-5)
    assert board.prior.contains(jnp.array([mle]))
    assert log_likelihood(mle) > values.max() - 2e-3
    density = np.exp(values - values.max())
    total, first, second = (integrate.simpson(density * grid**power) for power in range(3))
    spread = np.sqrt(second / total - (first / total) ** 2)
    assert abs(mean - first / total) < 3e-3 * spread
    assert std == pytest.approx(spread, rel=3e-3)


@pytest.mark.parametrize("bad", [4.0, 26.0, 15.5, -1.0])
def test_impossible_positions_have_likelihood_zero_and_no_posterior(bad):
    skew, fine = jnp.float32(-0.7), jnp.full(20, 15.0).at[3].set(5.0)
    assert all(jnp.isfinite(each) for each in answers("galton")(skew, fine))
    log_likelihood, *others = answers("galton")(skew, fine.at[7].set(bad))
    assert log_likelihood == -jnp.inf
    assert all(jnp.isnan(each) for each in others)


def test_steep_boards_keep_finite_gold():
    # In the middle one of three rows p_left is a sigmoid alone, here of 78.4: against it every path is e^-78 unlikely.
    steep = galton_board(3, num_nails=101, start=1, low=-80.0, high=80.0, steepness=1.0)
    theta = np.array([[-80.0], [80.0]], np.float32)
    gold = steep.mine(KEY, np.repeat(theta, 500, axis=0), theta)
    assert gold.failures == () and np.isfinite(gold.log_prob).all() and np.isfinite(gold.score).all()
    left = jnp.array([1.0, 1.0, 0.0, 0.0])
    value, slope = jax.jit(jax.value_and_grad(lambda theta: steep.log_prob(theta, left[-1], left)))(jnp.array([80.0]))
    assert value == pytest.approx(-80 * 0.98 - 2 * np.log(2), rel=1e-5)
    assert slope[0] == pytest.approx(-0.98, rel=1e-5)


def test_misuse_of_boards_is_named():
    for options, message in [
        ({"num_rows": 1}, "at least 2"),
        ({"num_rows": 40}, "-5 to 35 after 40 rows"),
        ({"start": 5}, "0 to 30; use more nails"),
        ({"low": 0.5, "high": 0.5}, "low must be below high"),
        ({"steepness": 100.0}, "must not exceed 80"),
    ]:
        with pytest.raises(ValueError, match=message):
            galton_board(**options)
    with pytest.raises(TypeError, match="galton_board"):
        galton_distribution(eft, jnp.array([0.1]))
    with pytest.raises(TypeError, match="galton_board"):
        galton_positions(gaussian)
    with pytest.raises(ValueError, match=r"shape \(1,\)"):
        galton_distribution(galton, jnp.array([-0.5, -0.6]))


# -- effective field theory -------------------------------------------------------------------

ENERGIES, COSINES = (np.log(0.25), np.log(4)), (-1.0, 1.0)


def gauss(limits, pieces, order=20):
    nodes, weights = np.polynomial.legendre.leggauss(order)
    edges = np.linspace(*limits, pieces + 1)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (nodes + 1)).ravel(), (half * weights).ravel()


def parton_density(theta, log_energy, cosine):
    """E^-4 sum_h |M_h|^2 (1 + h cosine)^2 with complex amplitudes, before any cut."""
    growth, total = np.exp(2 * log_energy), 0.0
    for h, standard_model in ((1, 1 + 0.3j), (-1, 0.5 + 0.3j)):
        amplitude = standard_model + theta[0] * growth + h * theta[1] * growth
        total = total + np.abs(amplitude) ** 2 * (1 + h * cosine) ** 2
    return np.exp(-4 * log_energy) * total


def integral(theta, energy_weight, cosine_weight):
    """Of the parton density times a function of log E and one of the cosine, over all partons."""
    (u, du), (c, dc) = gauss(ENERGIES, 24), gauss(COSINES, 12)
    density = parton_density(theta, u[:, None], c)
    return (energy_weight(u) * du) @ density @ (cosine_weight(c) * dc)


def section(theta):
    passing = lambda low, high, error: (
        lambda true: special.ndtr((high - true) / error) - special.ndtr((low - true) / error)
    )
    return integral(theta, passing(np.log(0.4), np.log(3), 0.12), passing(-0.9, 0.9, 0.15))


THETAS = [
    np.float64(np.float32(theta)) for theta in ([0, 0], [1, 1], [-1, -1], [-0.6, 0.8], [0.3, -0.45], [-0.05, 0.1])
]


@pytest.mark.parametrize("theta", THETAS)
def test_eft_density_is_the_integral_over_partons(theta):
    corners = np.array(list(itertools.product(np.log([0.4001, 2.999]), [-0.8999, 0.8999])), np.float32)
    x = np.concatenate([corners, mined("eft", 0).x[:1996]])
    near = lambda y, error: lambda true: stats.norm.pdf(y, true, error)
    truth = [np.log(integral(theta, near(u, 0.12), near(c, 0.15)) / section(theta)) for u, c in np.float64(x[:40])]
    ours = one_event("eft")(jnp.asarray(theta, jnp.float32), x)[0]
    np.testing.assert_allclose(ours[:40], truth, rtol=0, atol=1e-5)


def test_eft_rate_is_the_cross_section_and_36_at_the_standard_model():
    rate = jax.jit(lambda theta: eft.rate(eft.prior.unpack(theta)))
    assert rate(jnp.zeros(2)) == pytest.approx(36, rel=1e-6)
    for theta in THETAS:
        assert rate(jnp.asarray(theta)) == pytest.approx(36 * section(theta) / section([0, 0]), rel=3e-6)


def test_eft_rate_and_density_are_positive_all_over_the_prior():
    axis = np.linspace(-1, 1, 21, dtype=np.float32)
    theta = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    rates = np.asarray(jax.jit(jax.vmap(eft.rate))(eft.prior.unpack(theta)))
    assert rates.min() > 20 and rates.max() < 90
    x = mined("eft", 0).x[:500]
    every = jax.jit(jax.vmap(jax.vmap(lambda t, e: eft.exact.log_likelihood(t, e[None]), (None, 0)), (0, None)))
    assert jnp.isfinite(every(theta, x)).all()


def test_eft_partons_follow_their_law():
    # Kolmogorov-Smirnov against marginals integrated here, at two thetas and for both latents.
    for theta in ([0.0, 0.0], [-0.6, 0.8]):
        draw = jax.jit(jax.vmap(lambda key, t=theta: eft.path(key, jnp.asarray(t))[1]))
        partons = draw(jax.random.split(KEY, 20_000))
        u, c = np.linspace(*ENERGIES, 2001), np.linspace(-1, 1, 1001)
        pass_u = special.ndtr((np.log(3) - u) / 0.12) - special.ndtr((np.log(0.4) - u) / 0.12)
        pass_c = special.ndtr((0.9 - c) / 0.15) - special.ndtr((-0.9 - c) / 0.15)
        density = parton_density(theta, u[:, None], c) * pass_u[:, None] * pass_c
        for values, grid, marginal in zip(partons, (u, c), (density.sum(1), density.sum(0)), strict=True):
            cdf = integrate.cumulative_simpson(marginal, x=grid, initial=0)
            place = np.interp(np.float64(values), grid, cdf / cdf[-1])
            assert_law(stats.kstest(place, stats.uniform.cdf).pvalue)


def test_eft_events_outside_the_cuts_have_likelihood_zero():
    outside = np.float32([[np.log(0.39), 0.0], [np.log(3.1), 0.0], [0.0, 0.91], [0.0, -0.91]])
    values, scores = one_event("eft")(jnp.array([0.1, 0.2]), outside)
    assert np.all(np.asarray(values) == -np.inf) and np.isfinite(scores).all()
