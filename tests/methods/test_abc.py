"""Approximate Bayesian computation by rejection, in rounds and by chains, against exact posteriors; and its parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import multivariate_normal, multivariate_t

import quincunx as qx
from quincunx.answers.bayes.draws import DrawnPosterior, systematic
from quincunx.answers.bayes.space import Space
from quincunx.methods.abc import chains, distance
from quincunx.methods.abc.population import FREEDOM, Mixture
from quincunx.methods.abc.trials import Lab, Source
from quincunx.methods.method import Budget

KEY = jax.random.key(5)
QUIET = qx.NoProgress()
GAUSSIAN = qx.problems.gaussian
METHODS = (qx.ABC, qx.SMCABC, functools.partial(qx.MCMCABC, num_chains=50))  # fewer sweeps than by default
STATISTICS = {"num_observations", "num_rounds", "num_simulator_calls", "epsilon", "accepted_share", "num_kept", "ess"}


@qx.simulator(qx.Prior(place=dist.Uniform(-3, 3)))
def folded(key, theta):
    return jnp.abs(theta["place"]) + 0.1 * jax.random.normal(key)


@qx.simulator(qx.Prior(place=dist.Uniform(-3, 3)))
def broken_below(key, theta):
    return jnp.where(theta["place"] < -1, jnp.nan, theta["place"] + 0.3 * jax.random.normal(key))


def answer(simulator, x, method, budget=20_000, key=KEY):
    return qx.infer(key, simulator, x, method, num_simulations=budget, progress=QUIET)


def apart(found, simulator, x):
    """Our mean less the exact one, in exact standard deviations, and the ratio of these `(dim,)` each."""
    mean, std = (np.asarray(each(x)) for each in (simulator.exact.posterior_mean, simulator.exact.posterior_std))
    return (np.asarray(found.posterior.mean) - mean) / std, np.asarray(found.posterior.std) / std


# -- against the truth -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [qx.ABC, qx.SMCABC, qx.MCMCABC])
def test_it_finds_the_exact_posterior_within_its_budget(make):
    """Of one observation in two dimensions, three times. With a scatter of .1 in means and of .06 in widths, either
    limit is exceeded once in the six with a chance below 1e-3.
    """
    sims = qx.simulate(KEY, GAUSSIAN, num_simulations=3)
    for row, x in enumerate(sims.x):
        found = answer(GAUSSIAN, x, make(), 10_000, jax.random.fold_in(KEY, row))
        away, width = apart(found, GAUSSIAN, x)
        assert np.all(np.abs(away) < 0.4)
        assert np.all((width > 0.75) & (width < 1.25))
        assert found.num_simulator_calls == 10_000
        statistics, history = found.inferred.statistics, found.inferred.history
        assert set(statistics) >= STATISTICS
        assert all(len(values) == statistics["num_rounds"] for values in history.values())
        assert set(history) >= {"epsilon", "acceptance_rate", "ess"}
        assert found.notes[0] == f"{make().name} compares the observation itself"


@pytest.mark.parametrize("make", METHODS)
def test_sets_are_compared_by_what_was_learnt_of_them(make):
    """Of 20 counts at two rates. With a scatter of .35 and .2 for the chains, less for the others, either limit is
    exceeded once in the six with a chance below 1 %.
    """
    poisson = qx.problems.poisson
    for x in qx.simulate(KEY, poisson, theta={"log_rate": np.array([1.0, 4.0])}, num_observations=20).x:
        found = answer(poisson, x, make(), 60_000)
        away, width = apart(found, poisson, x)
        assert np.all(np.abs(away) < 1.2)
        assert np.all((width > 0.5) & (width < 1.7))
        assert "compares the parameters, as regressed on statistics of numbers" in found.notes[0]


def test_what_tells_near_parameters_apart_is_learnt_in_the_rounds():
    """600 sets of 100 counts. Over the whole prior, the widths are 3 to 10 times the exact ones without it."""
    poisson = qx.problems.poisson
    for x in qx.simulate(KEY, poisson, theta={"log_rate": np.array([2.0, 5.0])}, num_observations=100).x:
        away, width = apart(answer(poisson, x, qx.SMCABC(), 60_000), poisson, x)
        assert abs(away) < 1
        assert 0.7 < width < 1.6


@pytest.mark.parametrize("make", METHODS)
def test_both_modes_are_kept(make):
    """Two of equal weight: of what is worth 100 draws half lies in either, with a standard deviation of .05."""
    found = answer(folded, np.array([1.5]), make(), 10_000)
    draws = np.asarray(found.posterior.points)[:, 0]
    assert abs(np.mean(draws > 0) - 0.5) < 0.2
    assert np.abs(draws).mean() == pytest.approx(1.5, abs=0.03)
    assert np.abs(draws).std() == pytest.approx(0.1, rel=0.25)


def test_adjusting_takes_out_a_wide_epsilon():
    """A linear model: the regression is exact. Of a quarter of the draws of the prior the width is several times too
    large without it, and right with it.
    """
    x = np.array([[2.0, -1.0]], np.float32)
    widths = {}
    for adjust in (False, True):
        found = answer(GAUSSIAN, x, qx.ABC(num_kept=2500, adjust=adjust), 10_000)
        away, widths[adjust] = apart(found, GAUSSIAN, x)
        assert any("25 % of the prior's draws are within epsilon" in text for text in found.warnings)
    assert np.all(widths[False] > 1.5)
    assert np.all(np.abs(widths[True] - 1) < 0.1)
    assert np.all(np.abs(away) < 0.1)


@pytest.mark.parametrize("make", METHODS)
def test_an_answer_to_begin_from_does_not_change_the_answer(make):
    """Not even one that is elsewhere: a normal three of its widths away. Limits as for the exact posterior."""
    x = jnp.array([[1.0, 0.5]])
    normal = np.random.default_rng(0).normal(size=(4000, 2))
    shifted = np.asarray(GAUSSIAN.exact.posterior_mean(x)) + 3 + normal
    space = Space.of(GAUSSIAN.prior, shifted)
    start = DrawnPosterior(space, jnp.asarray(shifted, jnp.float32), jnp.asarray(4000.0))
    found = make().search(KEY, GAUSSIAN, x, Budget(20_000, 1), QUIET, start)
    mean, std = GAUSSIAN.exact.posterior_mean(x), GAUSSIAN.exact.posterior_std(x)
    assert np.all(np.abs((found.value.mean - mean) / std) < 0.4)
    assert np.all(np.abs(found.value.std / std - 1) < 0.25)


def test_same_key_same_bits_and_draws_inside_of_the_prior():
    x = np.array([2.95], np.float32)
    for make in METHODS:
        one, other = (answer(folded, x, make(), 2000).posterior for _ in range(2))
        np.testing.assert_array_equal(one.points, other.points)
        assert bool(folded.prior.contains(one.points).all())


# -- simulators of other kinds, and those that fail --------------------------------------------------


@pytest.mark.parametrize("make", METHODS)
def test_a_function_in_numpy(make):
    @qx.numpy_simulator(qx.Prior(mean=dist.Uniform(-5, 5)), workers=0)
    def host(rng, theta):
        return theta["mean"] + rng.normal()

    found = answer(host, np.array([1.5]), make(), 4000)
    assert float(found.posterior.mean[0]) == pytest.approx(1.5, abs=0.35)
    assert float(found.posterior.std[0]) == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("make", METHODS)
def test_failed_simulations_are_counted_and_taken_for_impossible(make):
    found = answer(broken_below, np.array([-1.0]), make(), 6000)
    assert float(found.posterior.points.min()) > -1.05  # the regression may carry a draw a little further
    assert float(found.posterior.mean[0]) == pytest.approx(-0.76, abs=0.1)  # half a normal of .3, beginning at -1
    (warning,) = (text for text in found.warnings if "simulations failed" in text)
    assert "were left out, as if they could not happen; row" in warning
    assert found.num_simulator_calls <= 6000


# -- summaries -------------------------------------------------------------------------------------


def mean_and_spread(x):
    return np.array([np.mean(x), np.log(np.std(x))])


@qx.simulator(qx.Prior(mean=dist.Uniform(-5, 5), log_scale=dist.Normal(0, 1)))
def bell(key, theta):
    return theta["mean"] + jnp.exp(theta["log_scale"]) * jax.random.normal(key)


BELL = np.random.default_rng(0).normal(1, 2, 20).astype(np.float32)


def test_a_users_function_in_jax_or_in_numpy():
    """The same summaries, so nearly the same answer: they differ by rounding alone."""
    in_jax = lambda x: jnp.stack([jnp.mean(x), jnp.log(jnp.std(x))])
    found = [answer(bell, BELL, qx.ABC(summaries=each), 20_000) for each in (in_jax, mean_and_spread)]
    assert distance._is_jax(in_jax, BELL)
    assert not distance._is_jax(mean_and_spread, BELL)
    np.testing.assert_allclose(found[0].posterior.mean, found[1].posterior.mean, atol=0.02)
    assert found[1].notes == ("abc compares the function mean_and_spread",)
    assert float(found[0].posterior.mean[0]) == pytest.approx(BELL.mean(), abs=0.3)
    assert float(found[0].posterior.mean[1]) == pytest.approx(np.log(BELL.std()), abs=0.15)


def test_what_is_raw_does_not_hang_on_the_order():
    shuffled = np.random.default_rng(1).permutation(BELL)
    one, other = (answer(bell, x, qx.ABC(summaries="raw"), 4000) for x in (BELL, shuffled))
    np.testing.assert_array_equal(one.posterior.points, other.posterior.points)
    assert "sorted values" in one.notes[0]


def test_summaries_that_cannot_be_used_are_told_before_any_work():
    def never(rng, theta):
        raise RuntimeError("simulated")

    still = qx.numpy_simulator(bell.prior, workers=0)(never)
    ask = lambda function: qx.ABC(summaries=function).search(KEY, still, jnp.asarray(BELL), Budget(4000, 20), QUIET)
    with pytest.raises(
        ValueError, match=r"function failed with ZeroDivisionError: .*; it was given a data set of shape .20,"
    ):
        ask(lambda x: 1 / 0)
    with pytest.raises(ValueError, match=r"must give numbers \(k,\), it gave shape \(20, 1\)"):
        ask(lambda x: np.asarray(x)[:, None])
    with pytest.raises(ValueError, match="summaries of the observations: 1 of 2 NaN or infinite"):
        ask(lambda x: np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match=r"expected 'auto', 'raw', 'learned' or a function .*, got 'learnt'"):
        qx.SMCABC(summaries="learnt")
    with pytest.raises(TypeError, match=r"or a function x .*, got int"):
        qx.MCMCABC(summaries=3)


def test_summaries_that_do_not_vary_or_are_not_numbers_are_told():
    half = lambda x: jnp.stack([jnp.mean(x), 0.0 * x[0]])
    found = answer(bell, BELL, qx.ABC(summaries=half), 20_000)
    assert "1 of 2 summaries are the same in all simulated data sets and were left out" in found.warnings
    with pytest.raises(ValueError, match="none of 1 varies over 1000 simulated data sets"):
        answer(bell, BELL, qx.ABC(summaries=lambda x: jnp.zeros(1)), 20_000)
    rarely = lambda x: jnp.where(jnp.mean(x) < -4, jnp.nan, jnp.mean(x))[None]
    found = answer(bell, BELL, qx.SMCABC(summaries=rarely), 20_000)
    assert any("of 1000 simulated data sets have summaries that are NaN or infinite" in text for text in found.warnings)
    often = lambda x: jnp.where(jnp.abs(jnp.mean(x) - 1) > 1, jnp.nan, jnp.mean(x))[None]
    with pytest.raises(ValueError, match="have some that are NaN or infinite, more than half"):
        answer(bell, BELL, qx.ABC(summaries=often), 20_000)


# -- what it says of itself ------------------------------------------------------------------------


@pytest.mark.parametrize("make", [qx.ABC, qx.SMCABC, qx.MCMCABC])
def test_too_small_a_budget_is_refused(make):
    with pytest.raises(ValueError, match=r"1999 observations are 99 data sets of 20, .* give 2000 at least"):
        answer(bell, BELL, make(), 1999)
    found = answer(bell, BELL, make(), 2000)
    assert found.num_simulator_calls == 2000
    assert found.warnings  # but it says what it is worth


@pytest.mark.parametrize("make", METHODS)
def test_an_epsilon_that_accepts_nothing_is_told(make):
    with pytest.raises(
        ValueError, match=r"none of \d+ .* within epsilon = 1e-09 .* nearest is at 0\.0\d+\. Give a lar"
    ):
        answer(GAUSSIAN, np.array([[1.0, 0.5]]), make(epsilon=1e-9), 2000)


@pytest.mark.parametrize("make", METHODS)
def test_an_epsilon_is_kept_to(make):
    found = answer(GAUSSIAN, np.array([[1.0, 0.5]]), make(epsilon=0.5))
    assert found.inferred.statistics["epsilon"] == 0.5
    away, width = apart(found, GAUSSIAN, jnp.array([[1.0, 0.5]]))
    assert np.all(np.abs(away) < 0.4)
    assert np.all(np.abs(width - 1) < 0.25)


def test_rounds_stop_where_epsilon_does():
    found = answer(GAUSSIAN, np.array([[1.0, 0.5]]), qx.SMCABC(num_particles=200, epsilon=0.5))
    assert found.num_simulator_calls < 20_000
    assert "data sets, since epsilon had come to where it could" in found.notes[1]
    assert np.all(np.diff(found.inferred.history["epsilon"]) <= 0)


def test_chains_that_do_not_mix_are_told():
    found = answer(GAUSSIAN, np.array([[1.0, 0.5]]), qx.MCMCABC(epsilon=0.1), 4000)
    assert found.inferred.statistics["r_hat"] > 1.1
    assert any("the chains disagree: Gelman and Rubin's R is" in text for text in found.warnings)
    assert any("draws are worth" in text or "different parameters" in text for text in found.warnings)


def test_options_that_cannot_be_meant_are_refused():
    with pytest.raises(ValueError, match="give num_kept or epsilon, not both"):
        qx.ABC(num_kept=10, epsilon=0.1)
    with pytest.raises(ValueError, match="num_kept must be at least 2, got 1"):
        qx.ABC(num_kept=1)
    with pytest.raises(ValueError, match="num_kept is 500, and num_simulations pays for 200 data sets"):
        answer(folded, np.array([1.0]), qx.ABC(num_kept=500), 200)
    with pytest.raises(ValueError, match=r"epsilon must be a distance of at least 0, or None, got -1"):
        qx.SMCABC(epsilon=-1)
    with pytest.raises(ValueError, match=r"share must be above 0 and at most 0\.5, got 0\.6"):
        qx.SMCABC(share=0.6)
    with pytest.raises(ValueError, match="num_particles must be at least 10, got 9"):
        qx.SMCABC(num_particles=9)
    with pytest.raises(ValueError, match="num_chains must be at least 4, got 3"):
        qx.MCMCABC(num_chains=3)
    with pytest.raises(ValueError, match=r"100 data sets are 1 sweeps of 80 chains, .* or num_chains of at most 16"):
        answer(folded, np.array([1.0]), qx.MCMCABC(num_chains=80), 200)


# -- the posterior, and the parts ------------------------------------------------------------------


def test_the_density_is_that_of_the_draws():
    """5,000 normal draws in two dimensions: the estimate is that of a normal widened by the bandwidth, to 15 %."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=(5000, 2)) @ np.array([[1.0, 0.0], [0.8, 0.6]])
    space = Space(jnp.zeros(2), jnp.ones(2), GAUSSIAN.prior)
    found = DrawnPosterior.of(rng, space, u, np.ones(5000), 5000.0)
    at = np.array([[0.0, 0.0], [1.0, 0.5], [-0.5, 0.0]], np.float32)
    widened = np.cov(u.T) * (1 + 5000 ** (-2 / 6))
    expected = multivariate_normal.logpdf(at, u.mean(axis=0), widened)
    np.testing.assert_allclose(found.log_prob(at), expected, atol=0.15)
    np.testing.assert_allclose(jax.jit(lambda at: found.log_prob(at))(at), found.log_prob(at), atol=1e-4)
    assert found.log_prob(at[0]).shape == ()
    np.testing.assert_allclose(found.mean, u.mean(axis=0), atol=0.03)


def test_the_density_ends_where_the_prior_does_and_integrates_to_one():
    found = answer(folded, np.array([2.9]), qx.ABC()).posterior
    grid = np.linspace(-3.2, 3.2, 6401)[:, None]
    density = np.exp(np.asarray(found.log_prob(grid), np.float64))
    assert density.sum() * 0.001 == pytest.approx(1, abs=0.02)
    assert np.all(density[np.abs(grid[:, 0]) > 3.0001] == 0)


def test_resampling_takes_each_as_often_as_its_weight_says():
    weight = np.array([0.5, 0.0, 0.2, 0.3])
    times = np.bincount(systematic(np.random.default_rng(0), weight, 1000), minlength=4)
    assert np.all(np.abs(times - 1000 * weight) <= 1)


def test_a_mixture_draws_from_its_density():
    """One component is a Student's t; and of many the mean of p / q over draws of q is 1, to .02."""
    rng = np.random.default_rng(0)
    one = Mixture(np.ones(1), np.array([[1.0, 2.0]]), np.array([[[1.0, 0.0], [0.5, 2.0]]]))
    at = rng.normal(size=(5, 2))
    shape = one.root[0] @ one.root[0].T
    np.testing.assert_allclose(one.log_prob(at), multivariate_t.logpdf(at, one.centre[0], shape, df=FREEDOM))
    weight = rng.random(300)
    mixture = Mixture.around(rng, rng.normal(size=(300, 2)) * [1, 5], weight)
    assert mixture.weight.sum() == pytest.approx(1)
    u = mixture.draw(rng, 20_000)
    ratio = np.exp(multivariate_normal.logpdf(u, [0, 0], np.diag([0.5, 10])) - mixture.log_prob(u))
    assert ratio.mean() == pytest.approx(1, abs=0.02)


def test_where_the_first_are_made_is_accounted_for():
    """With an answer to begin from, the mean weight is 1, and none is above 2."""
    lab = Lab.of(KEY, GAUSSIAN, jnp.zeros((1, 2)), QUIET)
    draws = jnp.asarray(np.random.default_rng(0).normal([4, 0], 0.5, (500, 2)), jnp.float32)
    source = Source.of(lab, DrawnPosterior(lab.space, draws, jnp.asarray(500.0)))
    weight = np.exp(source.log_weight(source.draw(np.random.default_rng(1), 20_000)))
    assert weight.mean() == pytest.approx(1, abs=0.03)
    assert weight.max() <= 2 + 1e-6


def test_agreement_of_chains():
    """200 steps of 50 independent chains; and of chains that each stay around a place of their own."""
    u = np.random.default_rng(0).normal(size=(50, 200, 2))
    disagreement, ess = chains.agreement(u)
    assert disagreement == pytest.approx(1, abs=0.01)
    assert ess.min() > 5000
    disagreement, ess = chains.agreement(u + np.linspace(-3, 3, 50)[:, None, None])
    assert disagreement.min() > 1.5
    assert ess.max() < 100
