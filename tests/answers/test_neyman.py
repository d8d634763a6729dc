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
from quincunx.answers.frequentist.experiment import Experiment, asimov
from quincunx.answers.frequentist.hypothesis import TIE, test_statistic, wilks_critical
from quincunx.answers.frequentist.likelihood import likelihood
from quincunx.answers.frequentist.neyman import NeymanConstruction, critical_values, neyman_region
from quincunx.answers.frequentist.region import confidence_region
from quincunx.problems import gaussian

KEY = jax.random.key(2_002_10399)
MEAN, POSITIVE = ExactRatio(models.mean), ExactRatio(models.positive)
TEN = Experiment(models.mean, num_observations=10)
FEW = np.array([[0.5], [1.93], [20.0]])  # expected events; the first two are where Wilks' theorem is worst


def rate(theta):
    return theta["signal"]


COUNTED = Experiment(models.counting, rate=rate)


def counts(n):
    """The likelihood of n events that say nothing but their number."""
    return likelihood(models.Flat(), np.full(n, 0.5), rate=rate)


def exact_q(counts, s):
    """q of n events at an expected number s, with s_hat = n."""
    return 2 * (np.where(counts > 0, counts * np.log(np.maximum(counts, 1) / s), 0) + s - counts)


def exact_coverage(s, critical):
    counts = np.arange(40)  # s_hat = n inside the support
    return np.sum(stats.poisson.pmf(counts, s)[exact_q(counts, s) <= critical + TIE])


@pytest.fixture(scope="module")
def counted() -> NeymanConstruction:
    return critical_values(KEY, models.Flat(), COUNTED, FEW, num_toys=2000, level=0.68, parameters="signal")


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
        q = np.array([test_statistic(counts(n), each).q for each in FEW])
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
    # 12 signal events on 30: Wilks holds within a few per cent there. 4 standard errors of 500 toys: 1 in 16,000.
    theta, bump = np.array([[14.0, 30.0]]), Experiment(models.bump)  # with a rate of its own
    made = critical_values(KEY, ExactRatio(models.bump), bump, theta, num_toys=500, parameters="signal")
    share = np.mean(made.toys <= wilks_critical(0.95))
    assert abs(share - 0.95) < 0.015 + 4 * np.sqrt(0.95 * 0.05 / 500)
    assert made.num_failed == 0 and made.to_dict()["parameters"] == ["signal"]


# -- coverage ----------------------------------------------------------------------------------------


def test_the_coverage_map_flags_wilks_and_clears_neyman(counted):
    wilks = coverage_map(KEY, models.Flat(), COUNTED, FEW, num_toys=2000)
    exact = [[exact_coverage(s, wilks_critical(level)) for level in wilks.levels] for s in FEW[:, 0]]
    # Six shares within 4 standard errors: 1 in 2,500.
    assert (np.abs(wilks.covered - exact) < 4 * np.sqrt(np.array(exact) * (1 - np.array(exact)) / 2000)).all()
    assert wilks.under_covers[0, 0] and wilks.under_covers[1, 1]
    neyman = coverage_map(KEY, models.Flat(), COUNTED, FEW, num_toys=2000, levels=(0.68,), critical_values=counted)
    assert not neyman.under_covers.any()
    assert "!" in wilks.table() and "!" not in neyman.table()
    assert wilks.to_dict()["under_covers"] == wilks.under_covers.tolist()


def test_coverage_of_a_normal_mean_is_nominal():
    found = coverage_map(KEY, MEAN, TEN, np.array([[0.0], [2.0]]), num_toys=2000)
    assert (np.abs(found.covered - found.levels) < 4 * found.error).all()  # four shares: 1 in 4,000


def test_coverage_toys_are_not_those_of_the_calibration():
    theta, levels = np.array([[0.0]]), (0.2, 0.5, 0.7, 0.9)
    made = critical_values(KEY, MEAN, TEN, theta, num_toys=200, level=0.9)
    critical = {level: made.critical_at(level) for level in levels}
    found = coverage_map(KEY, MEAN, TEN, theta, num_toys=200, levels=levels, critical_values=critical)
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
    made = amortised_critical_values(KEY, MEAN, TEN, num_toys=4000, level=0.9)
    # The standard error of a quantile of 3,200 toys is 0.09 here; the ends of the support are left out.
    critical = made(np.linspace(-4, 4, 9)[:, None])
    np.testing.assert_allclose(critical, wilks_critical(0.9), atol=0.45)
    assert abs(made.held_out - 0.9) < 4 * made.error


def test_amortised_critical_values_follow_an_edge():
    # At the edge of the support q is half a chi-square and half nothing; a fifth of the prior away it is chi-square.
    made = amortised_critical_values(
        KEY, POSITIVE, Experiment(models.positive, num_observations=4), num_toys=4000, level=0.9
    )
    assert made.degree > 0
    edge = stats.chi2.ppf(0.8, 1)
    assert made(np.array([[0.0]]))[0] == pytest.approx(edge, abs=0.9)
    assert made(np.array([[2.5]]))[0] == pytest.approx(wilks_critical(0.9), abs=0.6)


# -- limits to expect --------------------------------------------------------------------------------


def test_expected_upper_limits_of_a_normal_mean():
    grid = np.linspace(0, 3, 61)
    found = expected_limits(KEY, MEAN, TEN, np.array([0.5]), "mean", grid=grid, sided="upper", num_toys=400)
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
        KEY, ExactRatio(gaussian), Experiment(gaussian, num_observations=10), np.array([1.0, -2.0]), "mean[0]",
        grid=np.linspace(-1, 3, 41), num_toys=200, num_simulations=10_000, level=0.9,
    )  # fmt: skip
    half = 1.64485 / np.sqrt(10)
    assert found.asimov == pytest.approx((1 - half, 1 + half), abs=0.05)  # 4 errors of the mean of 10,000, and more
    np.testing.assert_allclose(found.upper - found.lower, 2 * half, atol=2e-3)
    # The median of 200 within 4 standard errors: 1 in 16,000.
    assert abs(found.median[0] - (1 - half)) < 4 * 1.253 * np.sqrt(0.1 / 200)


# -- regions by toys ---------------------------------------------------------------------------------


def test_a_region_by_toys_is_wider_where_data_are_few(counted):
    grid = np.linspace(0.1, 4, 40)
    wilks = confidence_region(counts(0), 0.68, grid=grid)
    toys = confidence_region(counts(0), 0.68, grid=grid, critical_values=counted)
    assert wilks.interval[-1][1] == pytest.approx(wilks_critical(0.68) / 2, abs=0.01)
    assert toys.interval[-1][1] > wilks.interval[-1][1]
    with pytest.raises(ValueError, match=r"made for \(level, parameters, sided\)"):
        confidence_region(counts(0), 0.95, critical_values=counted)


@pytest.mark.parametrize(("n", "experiment"), [(0, None), (2, COUNTED)])
def test_the_neyman_region_of_a_count_is_that_of_the_exact_law(n, experiment):
    # A number s is kept where at least 32 % of experiments have a q as large: the exact interval, on a fine grid. The
    # ends are known to within the distance of two hypotheses, of which there are 15 over 1.8 times the region.
    s, k = np.linspace(0.005, 15, 3000)[:, None], np.arange(60)
    p = np.sum(stats.poisson.pmf(k, s) * (exact_q(k, s) >= exact_q(n, s) - TIE), axis=1)
    exact = s[p > 0.32, 0][[0, -1]]
    off = lambda region: np.abs(np.array(region.interval[0]) - exact) / (1.8 * np.ptp(exact) / 14)
    assert (off(neyman_region(KEY, counts(n), 0.68, experiment=experiment)) < 1).all()
    assert (off(confidence_region(counts(n), 0.68)) > 1).any()  # Wilks' theorem does not hold


def test_the_neyman_region_profiles_and_knows_what_made_the_data():
    x = gaussian.draw(KEY, np.array([[1.0, -2.0]]), 10)[0][0]
    region = neyman_region(KEY, likelihood(ExactRatio(gaussian), x), 0.9, parameters="mean[0]", num_toys=100)
    # A chi-square of one degree of freedom, 2.7, wherever theta is; of two it would be 4.6. The standard error is 0.5
    # for each of 15 hypotheses, and the larger of two neighbours is taken.
    assert 2.4 < np.median(region.critical) < 3.7 and region.names == ("mean[0]",)
    with pytest.raises(ValueError, match="give experiment="):
        neyman_region(KEY, likelihood(MEAN, np.zeros(2), weight=np.array([0.5, 1.0])))


# -- experiments -------------------------------------------------------------------------------------


def test_toys_have_the_number_that_was_asked_for():
    x, weight = TEN.draw(KEY, np.zeros((3, 1), np.float32))
    assert x.shape == weight.shape == (3, 12) and (weight.sum(axis=1) == 10).all()
    assert TEN.draw(KEY, np.zeros((3, 1), np.float32), places=48)[0].shape == (3, 48)
    theta = np.repeat(FEW, 500, axis=0).astype(np.float32)
    x, weight = COUNTED.draw(KEY, theta)
    numbers = weight.sum(axis=1).reshape(3, 500)
    assert np.isfinite(x).all() and (np.diff(weight, axis=1) <= 0).all()
    # Six means within 4.5 standard errors: 1 in 25,000.
    assert (np.abs(numbers.mean(axis=1) - FEW[:, 0]) < 4.5 * np.sqrt(FEW[:, 0] / 500)).all()
    spread = np.sqrt((FEW[:, 0] + 2 * FEW[:, 0] ** 2) / 500)
    assert (np.abs(numbers.var(axis=1) - FEW[:, 0]) < 4.5 * spread).all()


def test_an_experiment_expects_what_its_rate_says():
    assert Experiment(models.bump).expected(np.array([[10.0, 20.0], [0.0, 5.0]])).tolist() == [30, 5]
    assert Experiment(models.bump, num_observations=7).rate is None
    with pytest.raises(ValueError, match="finite numbers that are not negative"):
        Experiment(models.mean, rate=lambda theta: theta["mean"]).expected(np.array([[1.0], [-1.0]]))


# -- misuse ------------------------------------------------------------------------------------------

ZERO = np.zeros((1, 1))


FIVE = Experiment(models.mean, num_observations=5)


def toys(theta=ZERO, ratio=MEAN, experiment=FIVE, **options):
    return lambda: critical_values(KEY, ratio, experiment, theta, **options)


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (toys(level=1.0), ValueError, "between 0 and 1"),
        (toys(num_toys=10), ValueError, "at least 19 toys"),
        (lambda: neyman_region(KEY, counts(1), num_toys=10), ValueError, "at least 19 toys"),
        (lambda: neyman_region(KEY, MEAN), TypeError, "expected a Likelihood"),
        (toys(parameters="maen"), ValueError, "did you mean 'mean'"),
        (toys(np.zeros(1)), ValueError, r"shape \(n, 1\)"),
        (toys(ZERO + 6), ValueError, "outside the support"),
        (toys(ratio=POSITIVE), ValueError, "must agree"),
        (toys(ratio=models.Kinked()), ValueError, "differentiable twice"),
        (toys(ratio=models.Machine()), TypeError, "no likelihood"),
        (toys(experiment=models.mean), TypeError, "expected an experiment"),
        (lambda: Experiment(3), TypeError, "expected a simulator"),  # pyright: ignore
        (lambda: Experiment(models.mean), ValueError, "'mean' has no rate of its own"),
        (lambda: Experiment(models.mean, num_observations=5, rate=rate), ValueError, "one of the two"),
        (lambda: Experiment(models.mean, num_observations=0), ValueError, "at least 1"),
        (lambda: Experiment(models.lost), ValueError, "is not here"),
        (lambda: coverage_map(KEY, MEAN, FIVE, ZERO, critical_values=3.8), ValueError, "a mapping level -> critical"),
        (lambda: coverage_map(KEY, MEAN, FIVE, ZERO, critical_values={0.95: 3.8}), ValueError, r"levels \[0.68\]"),
        (lambda: coverage_map(KEY, MEAN, FIVE, ZERO, levels=(95,)), ValueError, "between 0 and 1"),
        (lambda: amortised_critical_values(KEY, MEAN, FIVE, num_toys=10), ValueError, "at least 200"),
        (lambda: expected_limits(KEY, MEAN, FIVE, ZERO[0], "men", grid=[0, 1]), ValueError, "did you mean 'mean'"),
        (lambda: asimov(KEY, POSITIVE, FIVE, ZERO[0]), ValueError, "must agree"),
        (lambda: asimov(KEY, MEAN, FIVE, ZERO[0], num_simulations=1), ValueError, "at least 2"),
    ],
)
def test_misuse_is_refused_with_advice(run, error, message):
    with pytest.raises(error, match=message):
        run()
