"""Toys: critical values, coverage and expected limits, against exact probabilities."""

import jax
import likelihood_models as models
import numpy as np
import pytest
from scipy import stats

from quincunx.answers.estimates import ExactRatio
from quincunx.answers.frequentist.amortised import amortised_critical_values, quantile_regression
from quincunx.answers.frequentist.coverage import coverage_map
from quincunx.answers.frequentist.expected import expected_limits
from quincunx.answers.frequentist.likelihood import likelihood_ratio
from quincunx.answers.frequentist.neyman import NeymanConstruction, critical_values
from quincunx.answers.frequentist.region import confidence_region
from quincunx.answers.frequentist.statistic import TIE, statistics_at, wilks_critical
from quincunx.problems import gaussian

KEY = jax.random.key(2_002_10399)
MEAN, POSITIVE = ExactRatio(models.mean), ExactRatio(models.positive)
FEW = np.array([[0.5], [1.93], [20.0]])  # expected events; the first two are where Wilks' theorem is worst


def rate(theta):
    return theta["signal"]


def exact_q(counts, s):
    """q of n events at an expected number s, with s_hat = n."""
    return 2 * (np.where(counts > 0, counts * np.log(np.maximum(counts, 1) / s), 0) + s - counts)


def exact_coverage(s, critical):
    counts = np.arange(40)  # s_hat = n inside the support
    return np.sum(stats.poisson.pmf(counts, s)[exact_q(counts, s) <= critical + TIE])


@pytest.fixture(scope="module")
def counted() -> NeymanConstruction:
    return critical_values(
        KEY, models.Flat(), models.counting, FEW, num_toys=2000, rate=rate, level=0.68, parameters="signal"
    )


# -- the construction --------------------------------------------------------------------------------


def test_toys_of_counting_follow_the_exact_law(counted):
    # A share of 2,000 toys within 4.5 standard errors; about 30 of them: 1 in 5,000.
    for theta, toys in zip(FEW[:, 0], counted.toys, strict=True):
        for n in range(12):
            expected = stats.poisson.pmf(n, theta)
            values = exact_q(np.arange(40), theta)
            expected = np.sum(stats.poisson.pmf(np.arange(40), theta)[np.abs(values - values[n]) < TIE])
            share = np.mean(np.abs(toys - values[n]) < TIE)
            assert abs(share - expected) < 4.5 * np.sqrt(expected * (1 - expected) / 2000) + 1e-4


def test_neyman_covers_where_wilks_does_not(counted):
    assert exact_coverage(0.5, wilks_critical(0.68)) < 0.31  # no event is 61 % likely, and excludes the truth
    for theta, critical in zip(FEW[:, 0], counted.critical, strict=True):
        assert exact_coverage(theta, critical) >= 0.68


def test_a_discrete_p_value_counts_ties(counted):
    for n in (0, 1, 2):
        likelihood = likelihood_ratio(models.Flat(), np.full(n, 0.5), rate=rate)
        q = statistics_at(likelihood, FEW)
        np.testing.assert_allclose(q, exact_q(n, FEW[:, 0]), atol=TIE / 2)
        p = counted.p_value(q)
        for k, theta in enumerate(FEW[:, 0]):
            values = exact_q(np.arange(60), theta)
            exact = np.sum(stats.poisson.pmf(np.arange(60), theta)[values >= values[n] - TIE])
            assert abs(p[k] - exact) < 4 * np.sqrt(exact * (1 - exact) / 2000) + 1e-3
    assert (counted.p_value(np.full(3, 1e9)) == 1 / 2001).all()


def test_the_critical_value_is_an_order_statistic(counted):
    toys = np.arange(1.0, 100.0)[None].repeat(3, axis=0)  # 1 .. 99
    made = NeymanConstruction(counted.prior, counted.theta, ("signal",), toys, 0.95, "two")
    assert made.critical.tolist() == [95.0] * 3 and made.critical_at(0.99).tolist() == [99.0] * 3
    with pytest.raises(ValueError, match="at least 999 toys"):
        made.critical_at(0.999)


def test_between_thetas_the_larger_critical_value_holds(counted):
    toys = np.full((3, 50), [[1.0], [3.0], [2.0]])
    made = NeymanConstruction(counted.prior, np.array([[1.0], [2.0], [3.0]]), ("signal",), toys, 0.9, "two")
    assert made(np.array([[0.0], [1.0], [1.5], [2.5], [3.0], [9.0]])).tolist() == [1, 1, 3, 3, 2, 2]


def test_toys_with_a_profiled_background_stay_near_chi_square():
    # 12 signal events on 30: Wilks holds within a few per cent there. 4 standard errors of 1,000 toys: 1 in 16,000.
    made = critical_values(
        KEY,
        ExactRatio(models.bump),
        models.bump,
        np.array([[14.0, 30.0]]),
        num_toys=1000,
        rate=models.bump.rate,
        parameters="signal",
    )
    share = np.mean(made.toys <= wilks_critical(0.95))
    assert abs(share - 0.95) < 0.015 + 4 * np.sqrt(0.95 * 0.05 / 1000)
    assert made.num_failed == 0 and made.to_dict()["parameters"] == ["signal"]


# -- coverage ----------------------------------------------------------------------------------------


def test_the_coverage_map_flags_wilks_and_clears_neyman(counted):
    wilks = coverage_map(KEY, models.Flat(), models.counting, FEW, num_toys=2000, rate=rate)
    exact = [[exact_coverage(s, wilks_critical(level)) for level in wilks.levels] for s in FEW[:, 0]]
    # Six shares within 4 standard errors: 1 in 2,500.
    assert (np.abs(wilks.covered - exact) < 4 * np.sqrt(np.array(exact) * (1 - np.array(exact)) / 2000)).all()
    assert wilks.under_covers[0, 0] and wilks.under_covers[1, 1]
    neyman = coverage_map(
        KEY, models.Flat(), models.counting, FEW, num_toys=2000, rate=rate, levels=(0.68,), critical=counted
    )
    assert not neyman.under_covers.any()
    assert "!" in wilks.table() and "!" not in neyman.table()
    assert wilks.to_dict()["under_covers"] == wilks.under_covers.tolist()


def test_coverage_of_a_normal_mean_is_nominal():
    found = coverage_map(KEY, MEAN, models.mean, np.array([[0.0], [2.0]]), num_toys=2000, num_observations=10)
    assert (np.abs(found.covered - found.levels) < 4 * found.error).all()  # four shares: 1 in 4,000


def test_coverage_toys_are_not_those_of_the_calibration():
    theta, levels = np.array([[0.0]]), (0.2, 0.5, 0.7, 0.9)
    made = critical_values(KEY, MEAN, models.mean, theta, num_toys=200, num_observations=10, level=0.9)
    critical = {level: made.critical_at(level) for level in levels}
    found = coverage_map(
        KEY, MEAN, models.mean, theta, num_toys=200, num_observations=10, levels=levels, critical=critical
    )
    own = [np.mean(made.toys <= critical[level] + TIE) for level in levels]
    assert found.covered[0].tolist() != own  # with the same toys they would be equal, all four


# -- amortised ---------------------------------------------------------------------------------------


def test_quantile_regression_finds_the_quantile():
    y = np.random.default_rng(0).exponential(size=4000)
    constant = quantile_regression(np.ones((4000, 1)), y, 0.9)
    assert constant[0] == pytest.approx(np.quantile(y, 0.9), abs=1e-2)
    x = np.linspace(-1, 1, 4000)
    line = quantile_regression(np.stack([np.ones(4000), x], axis=1), y * (2 + x), 0.9)
    np.testing.assert_allclose(line, np.log(10) * np.array([2, 1]), atol=0.3)  # about 4 standard errors


def test_amortised_critical_values_of_a_normal_mean_are_chi_square():
    made = amortised_critical_values(KEY, MEAN, models.mean, num_toys=4000, num_observations=10, level=0.9)
    # The standard error of a quantile of 3,200 toys is 0.09 here; the ends of the support are left out.
    critical = made(np.linspace(-4, 4, 9)[:, None])
    np.testing.assert_allclose(critical, wilks_critical(0.9), atol=0.45)
    assert abs(made.held_out - 0.9) < 4 * made.error


def test_amortised_critical_values_follow_an_edge():
    # At the edge of the support q is half a chi-square and half nothing; a fifth of the prior away it is chi-square.
    made = amortised_critical_values(
        KEY, POSITIVE, models.positive, num_toys=4000, num_observations=4, level=0.9, sided="two"
    )
    assert made.degree > 0
    edge = stats.chi2.ppf(0.8, 1)
    assert made(np.array([[0.0]]))[0] == pytest.approx(edge, abs=0.9)
    assert made(np.array([[2.5]]))[0] == pytest.approx(wilks_critical(0.9), abs=0.6)


# -- limits to expect --------------------------------------------------------------------------------


def test_expected_upper_limits_of_a_normal_mean():
    grid = np.linspace(0, 3, 61)
    found = expected_limits(
        KEY, MEAN, models.mean, np.array([0.5]), "mean", grid=grid, sided="upper", num_observations=10, num_toys=400
    )
    step = 1 / np.sqrt(10)
    exact = 0.5 + 1.6449 * step
    assert found.asimov[1] == pytest.approx(exact, abs=0.02)
    quantiles = exact + step * stats.norm.ppf([0.025, 0.16, 0.5, 0.84, 0.975])
    errors = 4 * step * np.array([0.134, 0.075, 0.063, 0.075, 0.134])  # 4 standard errors of quantiles of 400
    assert (np.abs(found.bands["upper"] - quantiles) < errors).all()
    assert (found.lower == 0).all() and found.median[1] == found.bands["upper"][2]
    assert found.to_dict()["num_toys"] == 400


def test_expected_limits_with_a_profiled_mean():
    found = expected_limits(
        KEY,
        ExactRatio(gaussian),
        gaussian,
        np.array([1.0, -2.0]),
        "mean[0]",
        grid=np.linspace(-1, 3, 41),
        num_observations=10,
        num_toys=200,
        num_simulations=10_000,
        level=0.9,
    )
    half = 1.64485 / np.sqrt(10)
    assert found.asimov == pytest.approx((1 - half, 1 + half), abs=0.05)  # 4 errors of the mean of 10,000, and more
    np.testing.assert_allclose(found.upper - found.lower, 2 * half, atol=2e-3)
    # The median of 200 within 4 standard errors: 1 in 16,000.
    assert abs(found.median[0] - (1 - half)) < 4 * 1.253 * np.sqrt(0.1 / 200)


def test_a_region_by_toys_is_wider_where_data_are_few(counted):
    likelihood = likelihood_ratio(models.Flat(), np.zeros(0), rate=rate)
    grid = np.linspace(0.1, 4, 40)
    wilks = confidence_region(likelihood, 0.68, grid=grid)
    toys = confidence_region(likelihood, 0.68, grid=grid, critical=counted)
    assert wilks.interval[-1][1] == pytest.approx(wilks_critical(0.68) / 2, abs=0.01)
    assert toys.interval[-1][1] > wilks.interval[-1][1]
    with pytest.raises(ValueError, match=r"made for \(level, parameters, sided\)"):
        confidence_region(likelihood, 0.95, critical=counted)


# -- misuse ------------------------------------------------------------------------------------------

ZERO = np.zeros((1, 1))


def call(function, *parts, **options):
    return lambda: function(KEY, *parts, **{"num_observations": 5, **options})


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (call(critical_values, MEAN, models.mean, ZERO, level=1.0), ValueError, "between 0 and 1"),
        (call(critical_values, MEAN, models.mean, ZERO, num_toys=10), ValueError, "at least 19 toys"),
        (call(critical_values, MEAN, models.mean, ZERO, num_observations=0), ValueError, "at least 1"),
        (call(critical_values, MEAN, models.mean, ZERO, rate=rate), ValueError, "one of the two"),
        (call(critical_values, MEAN, models.mean, ZERO, parameters="maen"), ValueError, "did you mean 'mean'"),
        (call(critical_values, MEAN, models.mean, np.zeros(1)), ValueError, r"shape \(K, 1\)"),
        (call(critical_values, MEAN, models.mean, ZERO + 6), ValueError, "outside the support"),
        (call(critical_values, MEAN, models.positive, ZERO), ValueError, "must agree"),
        (call(critical_values, models.Kinked(), models.mean, ZERO), ValueError, "differentiable twice"),
        (call(critical_values, MEAN, 3, ZERO), TypeError, "expected a simulator"),
        (call(coverage_map, MEAN, models.mean, ZERO, critical=3.8), ValueError, "a mapping level -> critical"),
        (call(coverage_map, MEAN, models.mean, ZERO, critical={0.95: 3.8}), ValueError, r"levels \[0.68\]"),
        (call(coverage_map, MEAN, models.mean, ZERO, levels=(95,)), ValueError, "between 0 and 1"),
        (call(amortised_critical_values, MEAN, models.mean, num_toys=10), ValueError, "at least 200"),
        (
            call(expected_limits, MEAN, models.mean, ZERO[0], "men", grid=[0.0, 1.0]),
            ValueError,
            "did you mean 'mean'",
        ),
    ],
)
def test_misuse_is_refused_with_advice(run, error, message):
    with pytest.raises(error, match=message):
        run()
