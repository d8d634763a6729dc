"""Histograms: they converge to the exact ratio, never break, and are no worse than the ratio 1.

All keys are fixed.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from quincunx.core.prior import Prior
from quincunx.core.simulations import Simulations
from quincunx.core.simulator import Exact
from quincunx.gold.mine import mine
from quincunx.gold.mined import mined_simulator
from quincunx.gold.reference import MarginalReference, PointReference
from quincunx.methods.binning.bins import Bins, joined
from quincunx.methods.binning.grid import ThetaGrid, theta_grid
from quincunx.methods.histogram import FirstComponents, HistogramRatio, ProjectedHistogramRatio
from quincunx.sample.black_box import simulator
from quincunx.sample.simulate import simulate

KEY = jax.random.key(18_890)
LINE = Prior(mean=dist.Uniform(-1, 1))
PLANE = Prior(first=dist.Uniform(-1, 1), second=dist.Uniform(-1, 1))


@simulator(LINE, exact=Exact(log_likelihood=lambda theta, x: -0.5 * jnp.sum((x - theta[0]) ** 2)))
def line(key, theta):
    return theta["mean"] + jax.random.normal(key)


@simulator(PLANE, exact=Exact(log_likelihood=lambda theta, x: -0.5 * jnp.sum((x - theta) ** 2)))
def plane(key, theta):
    return jnp.stack([theta["first"], theta["second"]]) + jax.random.normal(key, (2,))


@mined_simulator(LINE, joint_log_prob=lambda theta, x, z: -0.5 * (z - theta["mean"]) ** 2)
def mined_line(key, theta):
    z = theta["mean"] + jax.random.normal(key)
    return z, z


@functools.cache
def many(which, per_axis, n, seed):
    grid = np.asarray(theta_grid(which.prior, per_axis))
    return simulate(jax.random.fold_in(KEY, seed), which, theta=np.resize(grid, (n, grid.shape[1])))


def sims_of(which, per_axis, n, seed=0):
    """The first n of 10,000 or more: a simulator is compiled for few shapes."""
    return many(which, per_axis, max(n, 10_000), seed)[:n]


@eqx.filter_jit
def evaluated(ratio, theta, x):
    return ratio.log_ratio(theta, x)


@eqx.filter_jit
def sampled(which, theta):
    return jax.vmap(which.sample, in_axes=(0, None))(jax.random.split(KEY, 3000), theta)


def draws(which, theta):
    return sampled(which, jnp.asarray(theta, jnp.float32))


def truth(which, theta, reference, x):
    one = lambda at: jax.vmap(lambda each: which.exact.log_likelihood(jnp.asarray(at), each[None]))(x)
    return one(theta) - one(reference)


def error(ratio, which, theta, reference):
    """Mean squared error of log r under p(x | reference)."""
    x = draws(which, reference)
    found = evaluated(ratio, jnp.asarray(theta), x) - evaluated(ratio, jnp.asarray(reference), x)
    return float(jnp.mean((found - truth(which, theta, reference, x)) ** 2))


# -- convergence -----------------------------------------------------------------------------------


def test_error_shrinks_with_simulations():
    # Measured with three keys: 0.021 to 0.034, 0.018 to 0.023, and 0.005 to 0.010; the ratio 1 has 0.27.
    for n, bound in {1000: 0.05, 10_000: 0.035, 100_000: 0.015}.items():
        ratio = HistogramRatio.for_simulations(sims_of(line, 11, n), reference=PointReference([0.0]))
        assert error(ratio, line, [0.5], [0.0]) < bound


def test_between_the_points_of_the_grid_and_against_a_mixture():
    ratio = HistogramRatio.for_simulations(sims_of(line, 11, 100_000))
    x, grid = draws(line, [0.3]), np.linspace(-1, 1, 11)
    log_likelihood = np.stack([truth(line, [each], [0.0], x) for each in grid])
    evidence = jax.scipy.special.logsumexp(log_likelihood, axis=0) - np.log(11)
    off = evaluated(ratio, jnp.array([0.3]), x) - (truth(line, [0.3], [0.0], x) - evidence)
    assert float(jnp.mean(off**2)) < 0.01
    mean = sum(np.exp(np.asarray(evaluated(ratio, jnp.array([each]), x), np.float64)) for each in grid) / 11
    np.testing.assert_allclose(mean, 1, rtol=1e-5)


def test_two_parameters_and_two_summaries():
    ratio = HistogramRatio.for_simulations(sims_of(plane, 5, 100_000), reference=PointReference([0.0, 0.0]))
    assert ratio.bins.inner.shape[0] > 3
    assert error(ratio, plane, [0.5, -0.5], [0.0, 0.0]) < 0.2  # 0.13 measured; the ratio 1 has 0.57
    one = HistogramRatio.for_simulations(
        sims_of(plane, 5, 100_000), summary=lambda x: x[0] - x[1], reference=PointReference([0.0, 0.0])
    )
    assert error(one, plane, [0.5, -0.5], [0.0, 0.0]) < 0.04  # x[0] - x[1] is sufficient along this line


def test_the_projected_histogram_of_the_score():
    # The score at 0 is x. At any theta its projection is sufficient.
    ratio = ProjectedHistogramRatio.for_simulations(
        sims_of(plane, 5, 100_000), summary=lambda x: x, theta_reference=np.zeros(2)
    )
    for theta, bound in [([0.5, -0.5], 0.03), ([1.0, 0.5], 0.08), ([-1.0, 0.0], 0.08)]:  # the ratio 1: 0.57, 1.7, 1.3
        assert error(ratio, plane, theta, [0.0, 0.0]) < bound
    np.testing.assert_array_equal(evaluated(ratio, jnp.zeros(2), draws(plane, [0.0, 0.0])), 0)
    flat = ProjectedHistogramRatio.for_simulations(
        sims_of(line, 11, 10_000), summary=lambda x: -x[None], theta_reference=np.zeros(1)
    )
    assert error(flat, line, [0.5], [0.0]) < 0.04


def test_mined_simulations_with_labels():
    grid = theta_grid(LINE, 11)
    for reference, target in [(PointReference([0.1]), 0.1), (PointReference([0.2]), 0.2), (MarginalReference(), 0.0)]:
        sims = mine(KEY, mined_line, num_simulations=20_000, theta=grid, reference=reference)
        ratio = HistogramRatio.for_simulations(sims)
        assert error(ratio, line, [0.5], [target]) < 0.03
        if isinstance(reference, PointReference):
            x = draws(line, [target])
            off = evaluated(ratio, jnp.array([0.6]), x) - truth(line, [0.6], [target], x)
            assert float(jnp.mean(off**2)) < 0.03


# -- few simulations -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [200, 1000])
def test_few_simulations_are_better_than_the_ratio_one(n):
    # For thetas 0.3 apart the ratio 1 has an error of 0.09; 20 simulations at each theta barely see that.
    errors = []
    for seed in range(5):
        ratio = HistogramRatio.for_simulations(sims_of(line, 10, n, seed), reference=PointReference([0.0]))
        errors.append(error(ratio, line, [0.3], [0.0]))
    assert np.mean(errors) < {200: 0.04, 1000: 0.02}[n]
    assert np.max(errors) < 0.0925


def test_without_information_the_ratio_is_nearly_one():
    @simulator(LINE)
    def blind(key, theta):
        return jax.random.normal(key) + 0 * theta["mean"]

    for n in (40, 200, 5000):
        ratio = HistogramRatio.for_simulations(sims_of(blind, 10, n))
        x = jnp.linspace(-3, 3, 61)
        assert np.sqrt(np.mean(np.asarray(evaluated(ratio, jnp.array([0.7]), x)) ** 2)) < 0.15


def test_finite_everywhere():
    x, far = jnp.array([0.0, 1e30, -1e30, 5.0]), jnp.array([99.0])
    for n in (20, 10_000):
        ratio = HistogramRatio.for_simulations(sims_of(line, 10, n), reference=PointReference([-1.0]))
        for theta in (far, -far, jnp.array([0.123])):
            assert np.isfinite(np.asarray(evaluated(ratio, theta, x))).all()
    np.testing.assert_array_equal(evaluated(ratio, far, x), evaluated(ratio, jnp.ones(1), x))
    slope = jax.jacrev(lambda theta: evaluated(ratio, theta, x))(jnp.array([0.15]))
    assert np.isfinite(np.asarray(slope)).all()
    assert np.abs(slope).max() > 0.1


def test_sharp_likelihoods_far_apart_stay_finite():
    @simulator(Prior(mean=dist.Uniform(-100, 100)))
    def sharp(key, theta):
        return theta["mean"] + jax.random.normal(key)

    ratio = HistogramRatio.for_simulations(sims_of(sharp, 10, 2000), reference=PointReference([-100.0]), num_bins=10)
    found = np.asarray(evaluated(ratio, jnp.array([100.0]), jnp.array([-100.0, 0.0, 100.0])))
    assert np.isfinite(found).all()
    assert found[0] < -2 < 2 < found[2]


def test_discrete_summaries_are_never_parted():
    s = np.repeat(np.array([[0.0], [1.0], [2.0], [3.0]], np.float32), [50, 30, 1, 1], axis=0)
    place = np.asarray(jax.vmap(Bins.of(s, 20))(jnp.asarray(s)))
    assert len(set(zip(place.tolist(), s[:, 0].tolist(), strict=True))) == 4  # one bin for each value
    halves = np.asarray(jax.vmap(Bins.of(s, 2))(jnp.asarray(s)))
    assert set(halves[:50]).isdisjoint(halves[50:])


def test_bins_hold_equal_shares():
    s = np.random.default_rng(0).normal(size=(4000, 2)).astype(np.float32)
    for columns, asked in [(s[:, :1], 10), (s, 16)]:
        bins = Bins.of(columns, asked)
        counts = np.bincount(np.asarray(jax.vmap(bins)(jnp.asarray(columns))), minlength=bins.num_bins)
        assert len(counts) == asked
        np.testing.assert_array_equal(bins.places(columns), jax.vmap(bins)(jnp.asarray(columns)))
        assert np.all(np.abs(counts - 4000 / asked) <= 2)


def test_neighbours_are_joined_until_each_group_is_large_enough():
    rng = np.random.default_rng(1)
    for _ in range(50):
        sizes, fewest = rng.integers(0, 10, 12), float(rng.integers(1, 30))
        group = joined(sizes, fewest)
        assert set(np.diff(group)) <= {0, 1}  # neighbours only, in order
        held = np.bincount(group, sizes)
        assert np.all(held >= fewest) or len(held) == 1
    np.testing.assert_array_equal(joined(np.array([5, 1, 4, 9, 1]), 5), [0, 1, 1, 2, 2])


# -- grids -----------------------------------------------------------------------------------------


def test_theta_grid_covers_the_prior():
    np.testing.assert_allclose(theta_grid(LINE, 3), [[-1], [0], [1]])
    assert theta_grid(PLANE, (2, 4)).shape == (8, 2)
    tall = np.asarray(theta_grid(Prior(a=dist.Normal(5, 2), b=dist.Uniform(0, 1).expand((2,))), 3))
    assert tall.shape == (27, 3)
    assert tall[:, 0].min() == pytest.approx(5 - 2 * 2.576, abs=0.3)
    assert (tall[:, 1:].min(), tall[:, 1:].max()) == (0, 1)


def test_multilinear_interpolation_is_exact_for_bilinear_functions():
    grid = ThetaGrid.of(("a", "b"), theta_grid(PLANE, (3, 4)))
    function = lambda t: 1 + 2 * t[..., 0] - t[..., 1] + 3 * t[..., 0] * t[..., 1]
    values = jnp.asarray(function(grid.points))

    @jax.jit
    @jax.vmap
    def at(theta):
        index, weight = grid.corners(theta)
        return jnp.sum(weight * values[index])

    inside = np.random.default_rng(0).uniform(-1, 1, (30, 2)).astype(np.float32)
    theta = np.concatenate([inside, grid.points, [[9.0, -9.0]]])
    np.testing.assert_allclose(at(theta), function(np.clip(theta, -1, 1)), atol=2e-6)


# -- misuse ----------------------------------------------------------------------------------------


def build(sims, **options):
    return HistogramRatio.for_simulations(sims, **options)


def test_misuse_is_explained():
    good = sims_of(line, 5, 50)
    random = simulate(KEY, line, num_simulations=50)
    holes = simulate(KEY, plane, theta=np.repeat([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]], 5, axis=0))
    cases = [
        (lambda: build(random), "too few simulations.* coarser grid"),
        (lambda: build(holes), "2 of first, 2 of second.* has 4"),
        (lambda: build(sims_of(line, 5, 5)), "too few simulations"),
        (lambda: build(good, summary=lambda x: jnp.stack([x, x, x])), "1 or 2 numbers"),
        (lambda: build(good, summary=lambda x: jnp.log(x)), "NaN or infinite"),
        (lambda: build(good, num_bins=1), "num_bins"),
        (lambda: build(good, reference=PointReference([0.0, 1.0])), r"PointReference: expected shape \(n, 1\)"),
        (lambda: build(shrunk(good), reference=PointReference([1.0])), "outside the grid"),
        (lambda: theta_grid(PLANE, (3,)), "one for each"),
        (lambda: theta_grid(PLANE, 1), "at least 2"),
        (
            lambda: ProjectedHistogramRatio.for_simulations(
                sims_of(plane, 2, 40), summary=lambda x: x[:1], theta_reference=np.zeros(2)
            ),
            "one number for each",
        ),
    ]
    for misuse, message in cases:
        with pytest.raises(ValueError, match=message):
            misuse()


def shrunk(sims):
    return Simulations(sims.theta / 2, sims.x, sims.simulator)


def test_defaults_and_shapes():
    ratio = build(sims_of(plane, 2, 40))
    assert ratio.summary == FirstComponents(2)
    assert ratio.prior is PLANE
    assert ratio.event_shape == (2,)
    assert evaluated(ratio, jnp.zeros(2), jnp.zeros((7, 2))).shape == (7,)
    fixed = build(sims_of(line, 5, 50), num_bins=4)
    assert fixed.setting.num_bins == 4
    assert sum(fixed.setting.shares) == pytest.approx(1)
    many = simulate(KEY, line, theta=theta_grid(LINE, 5), num_observations=40)
    assert build(many).table.shape[0] == 5
