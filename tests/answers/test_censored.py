"""Observations between two ends, against integrals that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import tiny
from scipy.stats import norm

import quincunx as qx

KEY = jax.random.key(0)


@qx.simulator(
    qx.Prior(mean=dist.Normal(0.0, 2.0)),
    exact=qx.Exact(
        log_likelihood=lambda theta, x: jnp.sum(jax.scipy.stats.norm.logpdf(x, theta[0], jnp.array([1.0, 0.5])))
    ),
)
def pair(key, theta):
    """Two measurements of one number, the second twice as good."""
    return theta["mean"] + jnp.array([1.0, 0.5]) * jax.random.normal(key, (2,))


EXACT = qx.ExactRatio(pair)


def test_a_box_has_the_probability_of_the_box():
    low, high = np.array([[-0.5, 0.3]]), np.array([[2.0, 0.9]])
    found = float(qx.censored(EXACT).log_ratio(np.array([0.4]), np.stack([low, high], axis=1))[0])
    first = norm.cdf(2.0, 0.4, 1.0) - norm.cdf(-0.5, 0.4, 1.0)
    second = norm.cdf(0.9, 0.4, 0.5) - norm.cdf(0.3, 0.4, 0.5)
    assert found == pytest.approx(np.log(first * second), abs=2e-3)


def test_what_is_known_counts_as_before_and_what_is_missing_not_at_all():
    theta, x = np.array([0.4]), np.array([[0.7, 0.1]], np.float32)
    known = qx.censored(EXACT).log_ratio(theta, np.stack([x, x], axis=1))
    np.testing.assert_allclose(known, EXACT.log_ratio(theta, x), rtol=1e-5)
    missing = np.array([[[0.7, -6.0], [0.7, 6.0]]], np.float32)
    found = float(qx.censored(EXACT, num_points=1024).log_ratio(theta, missing)[0])
    assert found == pytest.approx(norm.logpdf(0.7, 0.4, 1.0), abs=2e-3)
    assert np.isneginf(qx.censored(EXACT).log_ratio(theta, missing[:, ::-1])).all()


def test_the_posterior_given_that_it_lies_beyond_a_limit():
    """First measurement missing, second above 1: a normal of variance 4 + .25 cut at 1 says what the mean is."""
    ends = np.array([[[-9.0, 1.0], [9.0, 9.0]]], np.float32)
    posterior = qx.posterior(qx.censored(EXACT), ends)
    spread = np.sqrt(4.25)
    hazard = norm.pdf(1 / spread) / norm.sf(1 / spread)
    # 10,000 draws of a sampler, whose repeats count for less: six standard errors of 2,500 independent ones
    assert float(posterior.mean[0]) == pytest.approx(4 / spread * hazard, abs=6 * 1.3 / 50)
    assert posterior.warnings == ()


def test_misuse_is_told():
    with pytest.raises(TypeError, match="expected an estimator of the density, such as"):
        qx.censored(tiny.trained("nre", qx.problems.gaussian).value)
    with pytest.raises(ValueError, match="whole numbers"):
        qx.censored(qx.ExactRatio(qx.problems.poisson))
    with pytest.raises(ValueError, match="whole numbers"):
        qx.censored(tiny.trained("nle", qx.problems.poisson).value)
    with pytest.raises(ValueError, match="num_points must be at least 2"):
        qx.censored(EXACT, num_points=1)
