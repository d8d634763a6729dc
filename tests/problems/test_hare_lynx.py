"""Hares and lynx: the data, the differential equation against SciPy, and births and deaths against their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import quincunx as qx
from quincunx.problems import BUILT_IN, data_file, hare_lynx, hare_lynx_gillespie, pelts
from quincunx.problems.hare_lynx import MOST_EVENTS, PER_THOUSAND, _year, log_populations
from quincunx.problems.lookup import resolve

KEY = jax.random.key(1900)
FITTED = np.float32([0.55, 0.028, 0.8, 0.024, 34.0, 5.9, 0.25, 0.3])
RATES = FITTED[:4]


def test_the_data_are_there_by_name():
    x = pelts()
    assert x.shape == (1, 21, 2) and x.dtype == np.float32
    np.testing.assert_array_equal(x[0, [0, 3, 20]], np.float32([[30, 4], [77.4, 35.2], [24.7, 8.6]]))
    assert "Hudson's Bay Company" in data_file("hare_lynx_1900_1920").read_text()
    with pytest.raises(ValueError, match=r"no data called 'hare_lynx' \(did you mean 'hare_lynx_1900_1920'\?\)"):
        data_file("hare_lynx")


@pytest.mark.parametrize("name", ["hare_lynx", "hare_lynx_gillespie"])
def test_both_are_built_in_and_make_the_same_event(name):
    simulator = BUILT_IN[name]
    assert resolve(name) is simulator and simulator.name == name and simulator.source
    assert simulator.event_shape == pelts().shape[1:]
    assert simulator.prior.columns == hare_lynx.prior.columns


def test_a_prior_that_is_cut_tells_what_was_cut():
    assert "alpha=LeftTruncatedDistribution(Normal(loc=1., scale=0.5), low=0.)" in str(hare_lynx.prior)


# -- the differential equation -----------------------------------------------------------------------


def solution(theta):
    """Logs of hares and lynx `(21, 2)`, in float64."""
    alpha, beta, gamma, delta, *start = np.float64(theta[:6])
    slope = lambda _, u: [alpha - beta * np.exp(u[1]), delta * np.exp(u[0]) - gamma]
    return integrate.solve_ivp(slope, (0, 20), np.log(start), "DOP853", np.arange(21.0), rtol=1e-9, atol=1e-9).y.T


def test_solutions_are_those_of_scipy_and_finite_everywhere():
    theta = np.asarray(hare_lynx.prior.sample(KEY, 2000))
    found = np.asarray(jax.jit(jax.vmap(log_populations))(theta))
    assert np.isfinite(found).all()
    errors = np.max(np.abs(found[:60] - [solution(each) for each in theta[:60]]), axis=(1, 2))
    assert np.quantile(errors, 0.95) < 1e-3
    assert errors.max() < 0.01


def test_draws_follow_the_likelihood():
    x, failures = hare_lynx.draw(KEY, np.tile(FITTED, (2000, 1)), 1)
    assert failures == ()
    centre, noise = solution(FITTED), np.float64(FITTED[6:])
    places = stats.norm.cdf((np.log(x[:, 0]) - centre) / noise).reshape(2000, -1)
    # 42 p-values, above 1e-4: a false alarm has a probability of 0.4 %; the key is fixed
    assert min(stats.kstest(column, "uniform").pvalue for column in places.T) > 1e-4
    expected = stats.lognorm(noise, scale=np.exp(centre)).logpdf(x[:5, 0]).sum((1, 2))
    log_likelihood = jax.jit(jax.vmap(hare_lynx.exact.log_likelihood, in_axes=(None, 0)))
    np.testing.assert_allclose(log_likelihood(FITTED, x[:5]), expected, rtol=1e-4, atol=5e-3)
    assert log_likelihood(FITTED, np.where(x[:1] == x[0, 0, 3, 1], 0.0, x[:1]))[0] == -np.inf


# -- births and deaths -------------------------------------------------------------------------------


def after_a_year(rates, start, size):
    run = jax.jit(jax.vmap(_year, in_axes=(0, None, None)))
    return np.asarray(run(jax.random.split(KEY, size), jnp.asarray(rates), jnp.asarray(start)))


def test_kinds_alone_are_born_or_die_by_known_laws():
    # Hares alone (Yule's process): of n there are n + NegativeBinomial(n, e^-alpha) after a year. Lynx alone:
    # Binomial(n, e^-gamma). Two chi-square tests at 1e-4.
    hares, none = after_a_year(RATES, np.float32([5, 0]), 4000).T
    assert not none.any()
    edges = np.array([-1, 0, 1, 2, 3, 4, 6, 8, 11, 1000])
    law = stats.nbinom(5, np.exp(-RATES[0]))
    counts = np.histogram(hares - 5, edges + 0.5)[0]
    assert stats.chisquare(counts, 4000 * np.diff(law.cdf(edges)) / np.diff(law.cdf(edges)).sum()).pvalue > 1e-4
    none, lynx = after_a_year(RATES, np.float32([0, 8]), 4000).T
    assert not none.any()
    counts = np.bincount(lynx.astype(int), minlength=9)
    merged = lambda values: np.append(values[:6], values[6:].sum())  # more than six hardly ever live
    assert stats.chisquare(merged(counts), merged(4000 * stats.binom(8, np.exp(-RATES[2])).pmf(range(9)))).pvalue > 1e-4


def test_many_animals_follow_the_differential_equation():
    # Small rates and few meetings: within a year the mean is that of the equation up to chance (5 standard errors) and
    # a covariance of the two kinds, of the order of one animal.
    start = np.float32([120, 80])
    animals = after_a_year(RATES, start, 2000)
    expected = PER_THOUSAND * np.exp(solution([*RATES, *(start / PER_THOUSAND)])[1])
    error = 5 * animals.std(axis=0) / np.sqrt(2000)
    assert (np.abs(animals.mean(axis=0) - expected) < error + 1).all()


def test_too_many_events_are_a_failure_and_the_dead_are_seen_as_half_an_animal():
    dying = [0.01, 0.03, 3.0, 0.001, 5.0, 0.3, 0.01, 0.01]
    crowded = [1.0, 1e-4, 1.0, 1e-4, 2.0 * MOST_EVENTS / PER_THOUSAND, 5.0, 0.2, 0.2]
    sims = qx.simulate(KEY, hare_lynx_gillespie, theta=np.float32([dying, crowded, dying, dying]))
    assert [failure.row for failure in sims.failures] == [1]
    x = np.asarray(sims.x)[:, 0]
    assert x.shape == (3, 21, 2) and (x > 0).all()
    np.testing.assert_allclose(x[:, -1, 1], 0.5 / PER_THOUSAND, rtol=0.06)
    assert not np.array_equal(x[0], x[1])
