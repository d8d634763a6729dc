"""Likelihoods, their maxima and test statistics, against formulas in float64."""

import jax
import jax.numpy as jnp
import likelihood_models as models
import numpy as np
import pytest
from scipy import optimize, stats

import quincunx.answers.frequentist.hypothesis as hypothesis  # not by name: pytest would take test_statistic for one
from quincunx.answers.estimates import ExactRatio
from quincunx.answers.frequentist.experiment import Experiment, asimov
from quincunx.answers.frequentist.fisher import fisher_information
from quincunx.answers.frequentist.likelihood import Likelihood, likelihood
from quincunx.answers.frequentist.maximum import maximum_likelihood, profile_likelihood
from quincunx.answers.frequentist.toys import toy_statistics
from quincunx.gold.mine import mine
from quincunx.problems import CATALOGUE, asymmetry, gaussian, weinberg

KEY = jax.random.key(1_007_1727)


def of(simulator, x, **options) -> Likelihood:
    return likelihood(ExactRatio(simulator), x, **options)


def statistics_at(found, theta, **options):
    """q of the hypotheses in the rows of theta, one test for each."""
    names = found.prior.columns
    named = [dict(zip(names, row, strict=True)) for row in theta.tolist()]
    return np.array([hypothesis.test_statistic(found, each, **options).q for each in named])


def data(simulator, theta, m, key=KEY):
    return simulator.draw(key, np.array([theta]), m)[0][0]


def total_rate(theta):
    return theta["signal"] + models.BACKGROUND


# -- the maximum -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "theta"), [("poisson", [1.0]), ("linear_regression", [0.6, 0.3]), ("gaussian", [1.0, -2.0])]
)
def test_the_maximum_is_the_exact_one(name, theta):
    simulator = CATALOGUE[name]
    x = data(simulator, theta, 100)
    fit = maximum_likelihood(of(simulator, x))
    np.testing.assert_allclose(fit.theta, jax.jit(simulator.exact.mle)(x), atol=2e-4)
    assert fit.converged and fit.at_boundary == ()


def test_on_a_ridge_the_maximum_is_one_of_its_points():
    x = data(weinberg, [42.0, 0.9], 100)
    found = likelihood(models.Asymmetry(), x)
    fit = maximum_likelihood(found)
    exact = jax.jit(weinberg.exact.mle)(x)
    assert asymmetry(fit.theta) == pytest.approx(float(asymmetry(exact)), abs=2e-3)
    assert fit.log_likelihood == pytest.approx(float(found(exact)), abs=1e-3)


def test_a_maximum_at_the_end_of_the_support_is_reached():
    found = of(models.positive, np.array([-1.0, 0.5, -0.7]))
    fit = maximum_likelihood(found)
    assert (fit.theta.tolist(), fit.at_boundary, fit.converged) == ([0.0], ("mean",), True)
    far = maximum_likelihood(of(models.mean, np.array([7.0])))
    assert (far.theta.tolist(), far.at_boundary) == ([5.0], ("mean",))


def test_a_parameter_can_be_held_fixed():
    x = data(gaussian, [1.0, -2.0], 50)
    fit = maximum_likelihood(of(gaussian, x), fixed={"mean[0]": 1.5})
    # Given the first mean, the best second one moves by the correlation, 1/2, of it.
    expected = x.mean(axis=0)[1] + 0.5 * (1.5 - x.mean(axis=0)[0])
    assert fit.named == pytest.approx({"mean[0]": 1.5, "mean[1]": expected}, abs=1e-4)
    assert fit.fixed == ("mean[0]",)


def test_log_likelihood_is_the_sum_and_weights_count():
    x = data(models.mean, [1.0], 6)
    weight = np.array([1, 1, 0, 2, 0.5, 0], np.float32)
    whole, weighted = of(models.mean, x), of(models.mean, x, weight=weight)
    reference = lambda mu, w: -0.5 * np.sum(w * (x - mu) ** 2)
    assert float(whole(np.array([0.3]))) == pytest.approx(reference(0.3, 1), rel=1e-5)
    assert float(weighted(np.array([0.3]))) == pytest.approx(reference(0.3, weight), rel=1e-5)
    anchored = weighted.anchored(np.array([1.0]))
    assert float(anchored(np.array([1.0]))) == 0
    assert float(anchored(np.array([0.3]))) == pytest.approx(reference(0.3, weight) - reference(1.0, weight), rel=1e-4)
    assert maximum_likelihood(weighted).theta[0] == pytest.approx(np.average(x, weights=weight), abs=1e-5)


# -- the extended likelihood -------------------------------------------------------------------------


def test_a_likelihood_has_the_rate_of_its_simulator_unless_told_otherwise():
    x = data(models.bump, [12.0, 24.0], 5)
    assert of(models.bump, x).rate is models.bump.rate
    assert of(models.bump, x, rate=None).rate is None and of(models.mean, x).rate is None
    assert likelihood(models.Flat(models.lost), x, rate=None).rate is None
    ten, more = (of(models.bump, x, rate=rate)(np.array([12.0, 24.0])) for rate in (None, models.bump.rate))
    assert float(more - ten) == pytest.approx(5 * np.log(36) - 35, abs=1e-3)  # relative to a rate of 1


def test_counting_seven_events_on_a_known_background():
    found = likelihood(models.Flat(), np.full(7, 0.5), rate=total_rate)
    assert maximum_likelihood(found).theta[0] == pytest.approx(7 - models.BACKGROUND, abs=1e-3)
    q = lambda s: 2 * (7 * np.log(7 / (s + 3)) + s + 3 - 7)
    signal = np.array([[0.0], [1.0], [4.0], [12.0]])
    np.testing.assert_allclose(statistics_at(found, signal), q(signal[:, 0]), atol=1e-4)
    discovery = hypothesis.test_statistic(found, {"signal": 0.0}, sided="lower")
    assert discovery.significance == pytest.approx(np.sqrt(q(0.0)), abs=1e-3)
    assert discovery.p_value == pytest.approx(stats.norm.sf(np.sqrt(q(0.0))), rel=1e-3)


def test_no_events_are_data_too():
    found = likelihood(models.Flat(), np.zeros(0), rate=total_rate)
    assert maximum_likelihood(found).at_boundary == ("signal",)
    assert hypothesis.test_statistic(found, {"signal": 2.0}).q == pytest.approx(4.0, abs=1e-4)


def test_shape_and_rate_together_have_the_maximum_of_scipy():
    x = data(models.bump, [12.0, 24.0], 38)
    fit = maximum_likelihood(of(models.bump, x))

    def minus(theta):
        s, b = theta
        return s + b - np.sum(np.log(s * stats.norm.pdf(x.astype(np.float64), 0, 0.3) + b / 6))

    exact = optimize.minimize(minus, [12, 24], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
    np.testing.assert_allclose(fit.theta, exact.x, rtol=1e-3)
    assert fit.theta.sum() == pytest.approx(38, abs=0.01)  # the Poisson term fixes the sum of the yields


# -- test statistics ---------------------------------------------------------------------------------


def test_q_of_a_normal_mean_is_chi_square():
    x = data(models.mean, [1.0], 25)
    theta = np.array([[0.2], [0.9], [1.0], [1.7]])
    exact = 25 * (x.astype(np.float64).mean() - theta[:, 0]) ** 2
    np.testing.assert_allclose(statistics_at(of(models.mean, x), theta), exact, atol=2e-4)


def test_differences_survive_two_hundred_thousand_observations():
    x = data(models.mean, [1.0], 200_000)
    mean = x.astype(np.float64).mean()
    theta = np.float32(mean) + np.array([[-2], [0.5], [1.5]], np.float32) / np.sqrt(len(x))
    exact = len(x) * (mean - theta[:, 0].astype(np.float64)) ** 2
    np.testing.assert_allclose(statistics_at(of(models.mean, x), theta), exact, atol=0.01)


def test_one_sided_statistics_vanish_on_the_other_side():
    x = data(models.mean, [1.0], 25)
    low, high = np.array([[x.mean() - 0.4]]), np.array([[x.mean() + 0.4]])
    found = of(models.mean, x)
    at = lambda theta, sided: float(statistics_at(found, theta, sided=sided)[0])
    assert at(low, "upper") == 0 and at(high, "lower") == 0
    assert at(high, "upper") == pytest.approx(4.0, abs=1e-3) == at(low, "lower")
    # At an edge of the support, q-tilde (eq. 16): the distance is that from the edge, 1 * ((x - 1)^2 - x^2).
    edge = likelihood(ExactRatio(models.positive), np.array([-1.0]))
    assert hypothesis.test_statistic(edge, {"mean": 1.0}, sided="upper").q == pytest.approx(3.0, abs=1e-4)


def test_profile_of_two_correlated_means():
    x = data(gaussian, [1.0, -2.0], 50)
    grid = x[:, 0].mean() + np.linspace(-0.5, 0.5, 11)
    profile = profile_likelihood(of(gaussian, x), "mean[0]", grid)
    mean = x.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(profile.log_likelihood, -25 * (grid - mean[0]) ** 2, atol=1e-3)
    np.testing.assert_allclose(profile.theta[:, 1], mean[1] + 0.5 * (grid - mean[0]), atol=1e-3)
    surface = profile_likelihood(of(gaussian, x), ("mean[1]", "mean[0]"), (grid - 3, grid))
    assert surface.log_likelihood.shape == (11, 11)
    point = np.array([grid[4], grid[1] - 3]) - mean
    exact = -25 * point @ np.linalg.inv([[1, 0.5], [0.5, 1]]) @ point
    assert surface.log_likelihood[1, 4] == pytest.approx(exact, rel=1e-3)


def toys(simulator, sided):
    """q of 2,000 toys of 10 observations at 0."""
    theta = np.zeros((2000, simulator.prior.dim), np.float32)
    return toy_statistics(KEY, ExactRatio(simulator), Experiment(simulator, num_observations=10), theta, (0,), sided)[
        :, 0
    ]


def test_wilks_p_values_are_uniform():
    # Kolmogorov-Smirnov at p > 1e-3: one false alarm in 500 for the two, once and for all as the keys are fixed.
    for simulator in (models.mean, gaussian):  # the second with a mean to profile
        q = toys(simulator, "two")
        assert stats.kstest(hypothesis.p_value(q), "uniform").pvalue > 1e-3
        assert stats.kstest(hypothesis.p_value(2 * q), "uniform").pvalue < 1e-3  # and the test can tell


def test_half_of_the_one_sided_statistics_are_zero():
    q = toys(models.mean, "upper")
    assert abs(np.mean(q == 0) - 0.5) < 4 * 0.5 / np.sqrt(2000)  # four standard errors: 1 in 16,000
    assert stats.kstest(q[q > 0], "chi2", (1,)).pvalue > 1e-3


def test_critical_values_and_significance_are_those_of_the_tables():
    assert hypothesis.wilks_critical(0.95) == pytest.approx(3.8415, abs=1e-4)
    assert hypothesis.wilks_critical(0.95, 2) == pytest.approx(5.9915, abs=1e-4)
    assert hypothesis.wilks_critical(0.95, sided="upper") == pytest.approx(1.6449**2, abs=1e-3)
    assert hypothesis.significance(2.8665e-7) == pytest.approx(5.0, abs=1e-3)
    assert hypothesis.p_value(25.0, sided="lower") == pytest.approx(2.8665e-7, rel=1e-3)


def test_the_asimov_set_gives_the_median_statistic():
    # Its mean lies within 1/sqrt(N) of the truth: q = m (delta + e)^2, here within 4 standard errors.
    found = asimov(KEY, ExactRatio(models.mean), Experiment(models.mean, num_observations=25), np.array([1.0]))
    q = hypothesis.test_statistic(found, {"mean": 0.4}).q
    assert q == pytest.approx(25 * 0.36, abs=4 * 2 * 25 * 0.6 / np.sqrt(100_000))
    counting = Experiment(models.counting, rate=total_rate)
    expected = asimov(KEY, models.Flat(), counting, np.array([9.0]), num_simulations=100)
    exact = 2 * (12 * np.log(12 / 3) - 9)  # arXiv:1007.1727, eq. 97
    assert hypothesis.test_statistic(expected, {"signal": 0.0}, sided="lower").q == pytest.approx(exact, abs=1e-3)


# -- Fisher information ------------------------------------------------------------------------------


def test_information_of_a_normal_is_the_inverse_covariance():
    x = np.random.default_rng(0).multivariate_normal([0, 0], [[1, 0.5], [0.5, 4]], 20_000)
    scores = x @ np.linalg.inv([[1, 0.5], [0.5, 4]])
    fisher = fisher_information(scores, ("a", "b"), num_observations=10)
    exact = 10 * np.linalg.inv([[1, 0.5], [0.5, 4]])
    assert (np.abs(fisher.matrix - exact) < 4 * fisher.error).all()  # four entries: 1 in 5,000
    assert (fisher.error < 0.02 * np.abs(exact).max()).all()
    np.testing.assert_allclose(fisher.covariance, np.array([[1, 0.5], [0.5, 4]]) / 10, rtol=0.1)
    np.testing.assert_allclose(fisher.std**2, np.diag(fisher.covariance))
    assert "+-" in fisher.table() and fisher.to_dict()["num_observations"] == 10


def test_information_of_mined_scores_is_that_of_the_path():
    theta = np.array([[10.0, 30.0]])
    sims = mine(KEY, models.bump, num_simulations=4000, theta=theta, reference=None)
    fisher = fisher_information(sims.score, models.bump.prior.columns)
    # Which component an event is of is a coin with p = s / (s + b): I_ss = (1 - p) / (p (s + b)^2).
    exact = 0.75 / 0.25 / 40**2
    assert abs(fisher.matrix[0, 0] - exact) < 4 * fisher.error[0, 0]
    with pytest.raises(ValueError, match="singular"):
        _ = fisher.covariance  # the shape alone knows nothing of the sum of the yields


# -- misuse ------------------------------------------------------------------------------------------

X = np.array([0.1, 0.2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: of(models.mean, 1.0), ValueError, r"shape \(m,\)"),
        (lambda: of(models.mean, np.zeros((3, 2))), ValueError, r"got \(3, 2\)"),
        (lambda: of(models.mean, np.zeros(0)), ValueError, "at least one"),
        (lambda: of(models.mean, X, weight=np.ones(3)), ValueError, r"expected shape \(2,\)"),
        (lambda: of(models.mean, X, weight=-np.ones(2)), ValueError, "not negative"),
        (lambda: likelihood(models.mean, X), TypeError, "expected an estimator of the likelihood ratio"),
        (lambda: likelihood(models.Machine(), X), TypeError, r"a Machine has no likelihood; .* qx.posterior"),
        (lambda: likelihood(models.Flat(models.lost), X), ValueError, "give simulator= when loading .* or rate=None"),
        (lambda: of(models.mean, X, rate=lambda theta: jnp.ones(2)), ValueError, r"shape \(\), got shape \(2,\)"),
        (lambda: of(models.mean, X, rate=3.0), TypeError, "a function of the named theta"),
        (lambda: maximum_likelihood(likelihood(models.Kinked(), X)), ValueError, "is log_ratio differentiable"),
        (lambda: maximum_likelihood(X), TypeError, "expected a Likelihood"),
        (lambda: maximum_likelihood(of(models.mean, X), fixed={"maen": 1}), ValueError, "did you mean 'mean'"),
        (lambda: maximum_likelihood(of(models.mean, X), fixed={"mean": 6}), ValueError, "6 is outside the support"),
        (lambda: maximum_likelihood(of(models.mean, X), num_starts=0), ValueError, "num_starts must be at least 1"),
        (lambda: profile_likelihood(of(models.mean, X), "mean", [1.0, 0.0]), ValueError, "increasing values"),
        (lambda: hypothesis.test_statistic(of(models.mean, X), {"mu": 1}), ValueError, "unknown parameter 'mu'"),
        (lambda: hypothesis.test_statistic(of(models.mean, X), [1, 2]), ValueError, r"expected shape \(1,\)"),
        (
            lambda: hypothesis.test_statistic(of(models.mean, X), {"mean": 1}, sided="uper"),
            ValueError,
            "did you mean 'upper'",
        ),
        (lambda: hypothesis.p_value(1.0, 2, "upper"), ValueError, "one parameter of interest"),
        (lambda: hypothesis.significance(2.0), ValueError, r"\[0, 1\]"),
        (lambda: fisher_information(np.zeros((5, 2)), ("a",)), ValueError, r"expected shape \(n, 1\)"),
        (lambda: fisher_information(np.full((5, 1), np.nan), ("a",)), ValueError, "5 of 5 scores"),
    ],
)
def test_misuse_is_refused_with_advice(call, error, message):
    with pytest.raises(error, match=message):
        call()
