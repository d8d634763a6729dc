"""Calibration: spoilt ratios come back to the exact, exact ones stay.

The keys are fixed, and the bounds on errors of log r are 1.5 times what these keys give at worst (the statistical error
of 10,000 simulations at each theta) or less.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quincunx.answers.estimates import AbstractRatio, ExactRatio
from quincunx.campaigns.save import load, save
from quincunx.checks.calibration import (
    CalibratedRatio,
    HistogramCalibration,
    IsotonicCalibration,
    calibrate,
)
from quincunx.gold.reference import MarginalReference, PairReference, PointReference
from quincunx.methods.histogram import HistogramRatio
from quincunx.problems import gaussian, poisson, weinberg
from quincunx.sample.simulate import simulate

KEY = jax.random.key(20_150_606)
ANCHOR = np.array([45.0, 1.0], np.float32)
GRID = np.array([[e, f] for e in (41.0, 43.0, 45.0) for f in (0.6, 1.0, 1.4)], np.float32)
ON, BETWEEN = np.array([41.0, 0.6], np.float32), np.array([42.0, 0.8], np.float32)
METHODS = {"isotonic": IsotonicCalibration(), "histogram": HistogramCalibration()}


class Mapped(AbstractRatio):
    """slope * log r + shift, of the exact ratio to `reference`."""

    exact: ExactRatio
    reference: jax.Array = eqx.field(converter=jnp.asarray)
    slope: jax.Array = eqx.field(converter=jnp.asarray, default=1.0)  # arrays: all are compiled as one
    shift: jax.Array = eqx.field(converter=jnp.asarray, default=0.0)

    @property
    def simulator(self):
        return self.exact.simulator

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.exact.event_shape

    def log_ratio(self, theta, x):
        log_ratio = self.exact.log_ratio(theta, x) - self.exact.log_ratio(self.reference, x)
        elsewhere = jnp.any(jnp.asarray(theta) != self.reference)
        return self.slope * log_ratio + self.shift * elsewhere


@eqx.filter_jit
def evaluated(ratio, theta, x):
    return ratio.log_ratio(theta, x)


@functools.cache
def draws(theta):
    sample = jax.jit(jax.vmap(weinberg.sample, in_axes=(0, None)))
    return sample(jax.random.split(jax.random.fold_in(KEY, 1), 4000), jnp.array(theta))


EXACT = Mapped(ExactRatio(weinberg), ANCHOR)


@functools.cache
def calibrated(method, slope, shift):
    raw = Mapped(ExactRatio(weinberg), ANCHOR, slope, shift)
    return raw, calibrate(
        KEY, raw, weinberg, GRID, reference=PointReference(ANCHOR), method=METHODS[method], num_simulations=10_000
    )


def error(ratio, theta):
    """Root mean square of log r_hat - log r under p(x | theta)."""
    x = draws(tuple(theta.tolist()))
    return float(jnp.sqrt(jnp.mean((evaluated(ratio, theta, x) - evaluated(EXACT, theta, x)) ** 2)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("slope", "shift"), [(2.0, 1.0), (0.3, -0.5)])
@pytest.mark.parametrize("theta", [ON, BETWEEN], ids=["on the grid", "between its points"])
def test_a_monotone_map_of_the_ratio_is_undone(method, slope, shift, theta):
    raw, mended = calibrated(method, slope, shift)
    assert error(raw, theta) > 0.3
    assert error(mended, theta) < 0.056


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("theta", [ON, BETWEEN], ids=["on the grid", "between its points"])
def test_an_exact_ratio_is_left_nearly_unchanged(method, theta):
    assert error(calibrated(method, 1.0, 0.0)[1], theta) < 0.056


def test_more_simulations_leave_less_noise():
    coarse = calibrate(KEY, EXACT, weinberg, ON, reference=PointReference(ANCHOR), num_simulations=300)
    assert error(calibrated("isotonic", 1.0, 0.0)[1], ON) < 0.6 * error(coarse, ON)


def test_at_the_reference_the_ratio_is_one():
    for slope, shift in [(1.0, 0.0), (2.0, 1.0)]:
        log_ratio = evaluated(calibrated("isotonic", slope, shift)[1], ANCHOR, draws(tuple(ON.tolist())))
        np.testing.assert_allclose(log_ratio, 0, atol=1e-5)


def test_a_decreasing_map_is_undone_by_histograms_only():
    raw = Mapped(ExactRatio(weinberg), ANCHOR, -1.0)
    by = lambda method: calibrate(KEY, raw, weinberg, ON, reference=PointReference(ANCHOR), method=method)
    assert error(by(HistogramCalibration()), ON) < 0.056
    assert error(by(IsotonicCalibration()), ON) > 0.3


def test_counts_against_a_mixture():
    pool = jnp.linspace(1.0, 2.0, 5)[:, None]
    theta, x = jnp.array([1.5]), jnp.arange(15.0)

    class Marginal(AbstractRatio):
        factor: jax.Array = eqx.field(converter=jnp.asarray)

        @property
        def simulator(self):
            return poisson

        @property
        def event_shape(self) -> tuple[int, ...]:
            return ()

        def log_ratio(self, theta, x):
            every = jax.vmap(lambda each: ExactRatio(poisson).log_ratio(each, x))(pool)
            evidence = jax.scipy.special.logsumexp(every, axis=0) - jnp.log(len(pool))
            return self.factor * (ExactRatio(poisson).log_ratio(theta, x) - evidence)

    reference = MarginalReference(5, pool)
    mended = calibrate(KEY, Marginal(3.0), poisson, pool, reference=reference, num_simulations=5000)
    weight = np.exp(np.asarray(ExactRatio(poisson).log_ratio(theta, x), np.float64))
    off = np.asarray(evaluated(mended, theta, x) - evaluated(Marginal(1.0), theta, x))
    assert np.sqrt(np.sum(weight * off**2)) < 0.1
    prior_drawn = calibrate(KEY, Marginal(3.0), poisson, theta, reference=MarginalReference(), num_simulations=50)
    assert np.isfinite(np.asarray(evaluated(prior_drawn, theta, x))).all()


def test_ends_are_finite_where_the_hypotheses_do_not_overlap():
    far = np.array([6.0, 6.0], np.float32)
    raw = Mapped(ExactRatio(gaussian), np.zeros(2, np.float32))
    for method in METHODS.values():
        mended = calibrate(
            KEY, raw, gaussian, far, reference=PointReference(np.zeros(2)), method=method, num_simulations=500
        )
        knots = np.asarray(mended.knots.log_ratio)
        assert np.isfinite(knots).all()
        assert np.abs(knots).max() < np.log(2 * 500 + 1) + 1e-3  # all of one sample, none of the other
    mended = calibrate(
        KEY, EXACT, weinberg, np.array([50.0, 1.5]), reference=PointReference([40.0, 1.5]), num_simulations=200
    )
    x = jnp.linspace(-1, 1, 41)  # at the ends the density is 0 for the one or the other
    assert np.isfinite(np.asarray(evaluated(mended, np.array([50.0, 1.5]), x))).all()


def test_the_calibrated_ratio_is_pure_jax():
    raw, grid = Mapped(ExactRatio(gaussian), np.zeros(2, np.float32), 2.0), np.array([[0.5, 0.0], [1.0, 0.0]])
    mended = calibrate(KEY, raw, gaussian, grid, reference=PointReference(np.zeros(2)), num_simulations=2000)
    x, between = jnp.array([[0.3, 0.2], [-1.0, 0.5], [1.2, 1.3]]), jnp.array([0.7, 0.1])
    values = lambda theta: evaluated(mended, theta, x)
    slope = jax.jit(jax.jacrev(values))(between)
    step = jnp.array([0.02, 0.0])
    np.testing.assert_allclose(slope[:, 0], (values(between + step) - values(between - step)) / 0.04, rtol=0.02)
    np.testing.assert_allclose(jax.vmap(values)(jnp.asarray(grid))[1], values(grid[1]), atol=1e-5)
    assert isinstance(mended, CalibratedRatio)
    assert mended.prior is gaussian.prior
    assert mended.simulator is gaussian
    assert mended.event_shape == (2,)


def test_same_key_same_bits():
    one = lambda key: calibrate(key, EXACT, weinberg, ON, reference=PointReference(ANCHOR), num_simulations=300).knots
    np.testing.assert_array_equal(one(KEY).log_ratio, one(KEY).log_ratio)
    assert not np.array_equal(one(KEY).s, one(jax.random.key(0)).s)


@pytest.mark.parametrize("reference", [PointReference([1.5]), MarginalReference(4, jnp.linspace(1.2, 1.8, 4)[:, None])])
def test_a_calibrated_ratio_comes_back_from_its_folder(tmp_path, reference):
    grid = np.repeat(np.linspace(1, 2, 3, dtype=np.float32)[:, None], 20, axis=0)
    raw = HistogramRatio.for_simulations(simulate(KEY, poisson, theta=grid))
    mended = calibrate(KEY, raw, poisson, grid[::20], reference=reference, num_simulations=60)
    save(tmp_path / "m", mended)
    again = load(tmp_path / "m")
    x, theta = jnp.arange(12.0), jnp.array([1.3])
    np.testing.assert_array_equal(evaluated(again, theta, x), evaluated(mended, theta, x))
    assert np.ptp(evaluated(again, theta, x)) > 0.1
    assert again.simulator is poisson
    assert again.ratio.simulator is poisson
    assert type(again.reference) is type(reference)


# -- isotonic regression ---------------------------------------------------------------------------


def test_isotonic_maps_increase_and_histograms_share_ties():
    rng = np.random.default_rng(1)
    label = np.repeat([1.0, 0.0], 500)
    s = rng.normal(size=1000) + label
    knots, values = IsotonicCalibration().knots(s, label)
    assert np.all(np.diff(knots) > 0)
    assert np.all(np.diff(values) >= 0)
    knots, values = HistogramCalibration(7).knots(np.round(s), label)
    ones, all_of = label[np.round(s) == 0].sum(), np.sum(np.round(s) == 0)
    assert values[knots == 0] == pytest.approx([np.log((ones + 0.5) / (all_of - ones + 0.5))])


# -- misuse ----------------------------------------------------------------------------------------

POINT = PointReference(ANCHOR)
MISUSE = [
    ({"reference": PairReference()}, TypeError, "one theta_ref at a time"),
    ({"reference": PointReference([45.0])}, ValueError, r"PointReference: expected shape \(n, 2\)"),
    ({"num_simulations": 5}, ValueError, "at least 20"),
    ({"theta": np.zeros(3)}, ValueError, r"theta: expected shape \(n, 2\)"),
    ({"theta": np.array([39.0, 1.0])}, ValueError, "outside the support"),
    ({"theta": GRID[:4]}, ValueError, "regular grid"),
    ({"ratio": Mapped(ExactRatio(weinberg), ANCHOR, np.nan)}, ValueError, "NaN"),
    ({"ratio": ExactRatio(gaussian)}, ValueError, "they must agree"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), MISUSE)
def test_misuse_is_explained(wrong, error, message):
    given = {"ratio": EXACT, "theta": ON, "reference": POINT, "num_simulations": 20} | wrong
    with pytest.raises(error, match=message):
        calibrate(KEY, given.pop("ratio"), weinberg, given.pop("theta"), **given)


def test_a_histogram_needs_a_bin():
    with pytest.raises(ValueError, match="num_bins"):
        HistogramCalibration(0)
