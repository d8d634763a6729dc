"""Weights that put a posterior right, against evidences and moments that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import genpareto

import quincunx as qx
from quincunx.answers.bayes.importance import pareto_k
from quincunx.answers.bayes.space import Space

KEY = jax.random.key(0)
poisson = qx.problems.poisson
X = qx.simulate(jax.random.key(5), poisson, num_simulations=1, num_observations=20).x[0]
MEAN, STD = (float(value(X)[0]) for value in (poisson.exact.posterior_mean, poisson.exact.posterior_std))


def normal(shift, width):
    """About the exact posterior, moved by so many of its standard deviations, and so many times as wide."""
    space = Space.of(poisson.prior, np.array([[MEAN - STD], [MEAN + STD]]))
    return qx.MixturePosterior(space, jnp.array([[shift, jnp.log(width)]]))


def test_a_posterior_that_is_off_is_put_right():
    wrong = normal(0.7, 1.5)
    assert abs(float(wrong.mean[0]) - MEAN) > 0.6 * STD
    right = qx.importance_sampling(KEY, wrong, qx.ExactRatio(poisson), X)
    # of 20,000 draws some 10,000 count: errors of .01 sd and .7 %, five of which are never seen
    assert right.diagnostics["ess"] > 8_000
    assert float(right.mean[0]) == pytest.approx(MEAN, abs=0.05 * STD)
    assert float(right.std[0]) == pytest.approx(STD, rel=0.05)
    assert right.warnings == ()
    grid = np.linspace(0.2001, 6.9999, 20_001)[:, None]
    log_likelihood = jax.vmap(lambda t: poisson.exact.log_likelihood(t, X))(jnp.asarray(grid))
    truth = np.log(np.trapezoid(np.exp(np.asarray(log_likelihood, np.float64) + 60), grid[:, 0]) / 6.8) - 60
    assert float(right.log_evidence) == pytest.approx(truth, abs=0.05)


def test_one_that_is_far_too_narrow_is_told():
    (first, *_) = qx.importance_sampling(KEY, normal(0.0, 0.2), qx.ExactRatio(poisson), X, num_draws=4000).warnings
    assert "a few weights rule: Pareto's k is" in first
    found = qx.importance_sampling(KEY, normal(9.0, 0.5), qx.ExactRatio(poisson), X, num_draws=1000)
    assert "of 1000 draws count" in found.warnings[-1]


@pytest.mark.parametrize("shape", [0.2, 1.0])
def test_the_shape_of_the_largest_weights(shape):
    """2,000 weights of a Pareto law give its k with a standard error of (1 + k) / sqrt(134): four of them."""
    weight = 1 + genpareto.rvs(shape, size=2000, random_state=np.random.default_rng(1))
    assert pareto_k(weight) == pytest.approx(shape, abs=4 * (1 + shape) / np.sqrt(134))
    assert pareto_k(np.ones(1000)) == -np.inf


def test_misuse_is_told():
    other = qx.MixturePosterior(Space.of(qx.problems.gaussian.prior, np.zeros((2, 2))), jnp.zeros((1, 4)))
    with pytest.raises(ValueError, match="they must agree"):
        qx.importance_sampling(KEY, other, qx.ExactRatio(poisson), X)
    with pytest.raises(ValueError, match="no draw of this posterior can have made x"):
        qx.importance_sampling(KEY, normal(0.0, 1.0), qx.ExactRatio(poisson), np.array([0.5]))
