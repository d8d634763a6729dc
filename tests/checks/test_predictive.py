"""The predictive test passes exact posteriors, and fails wrong simulators, shifted posteriors and ones too wide."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from matplotlib.figure import Figure

import quincunx as qx
from quincunx.answers.bayes.posterior import AbstractPosterior
from quincunx.checks.discrepancies import distances, spread_of
from quincunx.core.solution import rng_of

KEY = jax.random.key(0)
M, PRIOR_STD = 20, 3.0
PRIOR = qx.Prior(mean=dist.Normal(0, PRIOR_STD))


@qx.simulator(PRIOR)
def normals(key, theta):
    return theta["mean"] + jax.random.normal(key)


@qx.simulator(PRIOR)
def skewed(key, theta):
    return theta["mean"] - 1 + jax.random.exponential(key)  # of the same mean and variance


class NormalPosterior(AbstractPosterior):
    """Normal draws, of any centre and width."""

    law: qx.Prior = eqx.field(static=True)
    centre: float
    width: float

    @property
    def prior(self):
        return self.law

    @property
    def warnings(self):
        return ()

    @property
    def points(self):
        return self.sample(KEY, 1000)

    def sample(self, key, num_samples):
        draws = self.centre + self.width * rng_of(key).normal(size=(num_samples, self.law.dim))
        return jnp.asarray(draws, jnp.float32)

    def log_prob(self, theta):
        raise AssertionError("the density is not asked for here")


def exact(x, *, shift=0.0, width=1.0, prior=PRIOR):
    """The posterior of the mean of `normals`, moved and widened by so many of its standard deviations."""
    variance = 1 / (len(x) + PRIOR_STD**-2)
    std = variance**0.5
    return NormalPosterior(prior, float(variance * x.sum() + shift * std), width * std)


def data(seed=1, m=M):
    return np.random.default_rng(seed).normal(0.7, 1, size=m)


def test_an_exact_posterior_passes_and_says_so():
    # A false alarm has a probability below 1 %: see the next test. The key is fixed.
    test = qx.predictive_test(KEY, normals, exact(data()), data())
    assert test.passed
    assert test.columns == ("mean x", "sd x", "min x", "max x")
    assert test.simulated.shape == (500, 2, 4)
    assert test.message.startswith("The data look like what the posterior predicts, by 4 statistics (p = ")
    # the mean is sufficient and the prior is wide: the posterior spreads it as chance does; the others less
    assert test.spread[0] == pytest.approx(1, abs=0.15)
    assert test.spread[1] < 0.4
    assert json.loads(json.dumps(test.to_dict()))["passed"]
    again = qx.predictive_test(KEY, normals, exact(data()), data())
    np.testing.assert_array_equal(test.p_values, again.p_values)


def test_false_alarms_are_rarer_than_the_level():
    # Of 150 exact posteriors, at a level of 10 %, 15 would fail if p were uniform; it is not: the data were used
    # before. More than 15 have a probability of 43 % if it were uniform, and next to none as it is.
    rng, alarms = np.random.default_rng(3), 0
    for turn in range(150):
        x = rng.normal(PRIOR_STD * rng.normal(), 1, size=M)
        test = qx.predictive_test(jax.random.key(turn), normals, exact(x), x, num_draws=120, level=0.1)
        alarms += not test.passed
    assert alarms <= 15


def test_a_simulator_that_cannot_have_made_the_data_fails():
    x = np.random.default_rng(2).exponential(size=200) - 1
    test = qx.predictive_test(KEY, normals, exact(x), x)
    assert not test.passed
    assert "do not look like what the posterior predicts" in test.message
    assert "min x is too high: " in test.message
    test = qx.predictive_test(KEY, skewed, exact(x), x)  # which can have: but its own posterior is narrower
    assert test.p_value > 0.01
    assert "it spreads min x" in test.message


def test_a_posterior_that_is_off_fails_and_is_told_which_way():
    test = qx.predictive_test(KEY, normals, exact(data(), shift=-8), data())
    assert not test.passed
    assert test.p_value == pytest.approx(1 / 1001)
    assert "mean x is too high: " in test.message
    assert test.statistic > 5


@pytest.mark.parametrize(("width", "passed"), [(1.0, True), (4.0, False), (12.0, False)])
def test_a_posterior_that_is_too_wide_fails_although_the_data_are_in_its_middle(width, passed):
    test = qx.predictive_test(KEY, normals, exact(data(), width=width), data())
    assert test.passed == passed
    assert test.p_value > 0.01
    assert test.spread[0] == pytest.approx(width, rel=0.15)
    assert ("wider than such data leave it: it spreads mean x" in test.message) == (not passed)


def test_more_statistics_make_no_more_false_alarms():
    # Uncorrected, the smallest of 40 p-values would be below 5 % in most of 60 data sets; 3 are expected at most.
    rng = np.random.default_rng(4)
    names = {f"x[{i}]": (lambda x, i=i: x[i]) for i in range(40)}
    alarms = 0
    for turn in range(60):
        x = rng.normal(size=40)
        test = qx.predictive_test(
            jax.random.key(turn), normals, exact(x), x, statistics=names, num_draws=100, level=0.05
        )
        alarms += not test.passed
    assert alarms <= 9  # 10 or more of 60 have a probability of 0.1 % at 5 %


# -- what is looked at -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "m", "first", "count", "expected"),
    [
        ((), 1, "x", 1, lambda x: x[0]),
        ((3,), 1, "x[0]", 3, lambda x: x[0, 0]),
        ((2, 2), 3, "mean x[0,0]", 16, lambda x: x[:, 0, 0].mean()),
        ((9, 9), 1, "mean of a component", 4, lambda x: x.mean()),
        ((9, 9), 2, "mean mean of a component", 16, lambda x: x.mean()),
    ],
)
def test_statistics_by_the_shape_of_the_event(event, m, first, count, expected):
    @qx.simulator(PRIOR)
    def any_shape(key, theta):
        return theta["mean"] + jax.random.normal(key, event)

    x = np.random.default_rng(0).normal(size=(m, *event))
    test = qx.predictive_test(KEY, any_shape, exact(x.ravel()), x, num_draws=60)
    assert (test.columns[0], len(test.columns)) == (first, count)
    assert test.observed[0] == pytest.approx(expected(x), rel=1e-5)
    assert test.passed


def test_own_statistics_by_name():
    test = qx.predictive_test(KEY, normals, exact(data()), data(), statistics={"median": np.median, "largest": max})
    assert test.columns == ("median", "largest")
    assert test.observed[1] == np.float32(data()).max()


def test_distances_of_what_hardly_varies():
    few = np.zeros((100, 2))
    few[:5, 1] = 1.0
    found = distances(np.array([[0.0, 0.0], [3.0, 1.0], [-1.0, 3.0]]), few)
    np.testing.assert_array_equal(found, [[0, 0], [np.inf, 1], [np.inf, 3]])
    assert spread_of(np.zeros((10, 2, 1))) == 0
    same = np.arange(10.0)
    assert spread_of(np.stack([same, same], 1)[..., None]) > 1e6  # a statistic that theta fixes


def test_posterior_predictive_is_simulated_at_draws():
    sims = qx.posterior_predictive(KEY, normals, exact(data()), num_draws=400, num_observations=3)
    assert sims.x.shape == (400, 3)
    # predictions of one number have the variance 1 + that of the posterior; five standard errors
    assert np.var(np.asarray(sims.x)) == pytest.approx(1 + exact(data()).width ** 2, abs=5 * np.sqrt(2 / 1200))
    assert np.mean(np.asarray(sims.theta)) == pytest.approx(exact(data()).centre, abs=5 * exact(data()).width / 20)


def test_the_picture_has_a_line_for_every_statistic():
    test = qx.predictive_test(KEY, normals, exact(data(), shift=-8), data())
    axes = Figure().subplots()
    test.plot(axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(test.columns)
    assert len(axes.patches) == 4
    assert "data, p < 0.01" in [text.get_text() for text in axes.get_legend().get_texts()]


# -- failures ----------------------------------------------------------------------------------------


@qx.simulator(PRIOR)
def fails(key, theta):
    return jnp.where(theta["mean"] > 0.9, jnp.nan, theta["mean"] + jax.random.normal(key))


def test_failed_simulations_and_statistics_are_counted_and_told():
    test = qx.predictive_test(KEY, fails, exact(data()), data())
    assert 0 < test.num_failed == 500 - len(test.simulated)
    assert f"{test.num_failed} draws, at which the simulator or a statistic failed, were left out." in test.message
    odd = {"odd": lambda x: np.nan if x[0] > 2.5 else x[0], "mean": np.mean}
    test = qx.predictive_test(KEY, normals, exact(data()), np.minimum(data(), 2), statistics=odd)
    assert 0 < test.num_failed < 100
    assert np.isfinite(test.p_values).all()


def test_too_few_draws_tell_nothing_and_do_not_pass():
    odd = {"odd": lambda x: np.nan if x[0] > 0.5 and x[1] != 9 else x[0]}
    x = np.concatenate([data()[:1], [9.0], data()[2:]])
    for count in (20, 400):
        test = qx.predictive_test(KEY, normals, exact(data()), x, statistics=odd, num_draws=count)
        assert not test.passed
        assert not test.conclusive
        assert test.message.startswith("Nothing can be told: ")


def test_what_cannot_be_meant_is_refused_before_anything_is_simulated():
    x, good = data(), exact(data())
    other = qx.Prior(rate=dist.Normal(0, 1))
    with pytest.raises(TypeError, match=r"posterior: expected one such as qx\.posterior\(estimator, x\).*got int"):
        qx.predictive_test(KEY, normals, 3, x)
    with pytest.raises(TypeError, match=r"simulator: expected what @qx\.simulator and its kin make"):
        qx.posterior_predictive(KEY, 3, good)
    with pytest.raises(ValueError, match="the posterior is of rate, and the simulator 'normals' takes mean"):
        qx.posterior_predictive(KEY, normals, exact(x, prior=other))
    with pytest.raises(TypeError, match=r"num_draws: expected a whole number, got 100\.0; write 100"):
        qx.posterior_predictive(KEY, normals, good, num_draws=100.0)
    with pytest.raises(ValueError, match=r"has shape \(m,\); got \(20, 1\)"):
        qx.predictive_test(KEY, normals, good, x[:, None])
    with pytest.raises(ValueError, match="1 of 20 observations are NaN or infinite, the first in row 2"):
        qx.predictive_test(KEY, normals, good, np.where(np.arange(M) == 2, np.nan, x))
    with pytest.raises(ValueError, match="'bad' of the data is no finite number"):
        qx.predictive_test(KEY, normals, good, x, statistics={"bad": lambda x: np.nan})
    with pytest.raises(ValueError, match=r"'all' must give one number, got shape \(20,\)"):
        qx.predictive_test(KEY, normals, good, x, statistics={"all": lambda x: x})
    with pytest.raises(TypeError, match="statistics: expected a mapping of names to functions"):
        qx.predictive_test(KEY, normals, good, x, statistics=np.mean)
    with pytest.raises(TypeError, match=r"expected a function \(x\) -> number, got int"):
        qx.predictive_test(KEY, normals, good, x, statistics={"one": 1})
    with pytest.raises(ValueError, match="level must lie strictly between 0 and 1, got 1"):
        qx.predictive_test(KEY, normals, good, x, level=1)
