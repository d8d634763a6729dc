"""The joint network against a normal law of parameters and data, whose conditionals are all known."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

import quincunx as qx

KEY = jax.random.key(0)
NOISE = 0.6
NAMES = ("a", "b", "x1", "x2")


@qx.simulator(qx.Prior(a=dist.Normal(0, 1), b=dist.Normal(0, 1)))
def pair(key, theta):
    a, b = theta["a"], theta["b"]
    return jax.numpy.stack([a, a + b]) + NOISE * jax.random.normal(key, (2,))


ROOT = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, NOISE, 0], [1, 1, 0, NOISE]])  # (a, b, x1, x2) of four normals
COVARIANCE = ROOT @ ROOT.T
METHOD = qx.Joint(network=qx.Transformer(width=32, heads=2, layers=2, num_steps=20), batch_size=256)


@pytest.fixture(scope="module")
def learnt():
    training = qx.Training(num_steps=2500, learning_rate=3e-3)
    return qx.train(KEY, pair, METHOD, num_simulations=20_000, training=training).value


def truth(asked, **known):
    """Mean and covariance of some of the numbers, given the values of others."""
    places, given = [NAMES.index(name) for name in asked], [NAMES.index(name) for name in known]
    gain = COVARIANCE[np.ix_(places, given)] @ np.linalg.inv(COVARIANCE[np.ix_(given, given)])
    spread = COVARIANCE[np.ix_(places, places)] - gain @ COVARIANCE[np.ix_(given, places)]
    return gain @ np.array(list(known.values())), spread


def agrees(draws, asked, within=0.2, **known):
    """A network of a few seconds: within a fifth of the exact width in the mean, a fifth in the width."""
    mean, spread = truth(asked, **known)
    std = np.sqrt(np.diag(spread))
    np.testing.assert_allclose((np.mean(draws, axis=0) - mean) / std, 0, atol=within)
    np.testing.assert_allclose(np.std(draws, axis=0) / std, 1, atol=within)
    if len(std) > 1:
        np.testing.assert_allclose(np.corrcoef(draws.T), spread / np.outer(std, std), atol=0.12)


def test_the_posterior(learnt):
    posterior = qx.posterior(learnt, [[0.5, -0.7]])
    agrees(np.asarray(posterior.points), ("a", "b"), x1=0.5, x2=-0.7)


def test_missing_data_are_marginalised(learnt):
    x = np.array([[np.nan, 1.1]])
    posterior = learnt.conditional(KEY, x=x, missing=np.isnan(x))
    agrees(np.asarray(posterior.points), ("a", "b"), x2=1.1)
    other = learnt.conditional(KEY, x=np.array([[9.9, 1.1]]), missing=np.isnan(x))
    np.testing.assert_array_equal(other.mean, posterior.mean)  # what stands there is not looked at


def test_parameters_that_are_given(learnt):
    posterior = learnt.conditional(KEY, {"a": 0.8}, x=[[0.5, -0.7]])
    draws = np.asarray(posterior.points)
    np.testing.assert_allclose(draws[:, 0], 0.8, rtol=1e-5)
    # One row in fifty asks for this in training. Without what is given the mean is .9 of these widths elsewhere.
    agrees(draws[:, 1:], ("b",), within=0.4, a=0.8, x1=0.5, x2=-0.7)
    grid = np.linspace(-5, 4, 1001)
    density = np.exp(posterior.log_prob(np.stack([np.full(1001, 0.8), grid], axis=1)))
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=0.01)
    assert np.trapezoid(density * grid, grid) == pytest.approx(draws[:, 1].mean(), abs=0.05)


def test_the_simulator_itself(learnt):
    x = learnt.emulate(KEY, {"a": 0.5, "b": -1.0}, 1024)
    assert x.shape == (1024, 1, 2)
    agrees(x[:, 0], ("x1", "x2"), a=0.5, b=-1.0)


def test_what_it_refuses(learnt):
    x = np.array([[0.5, np.nan]])
    with pytest.raises(ValueError, match=r"x has NaN: .* missing=np\.isnan\(x\)"):
        learnt.conditional(KEY, x=x)
    with pytest.raises(ValueError, match=r"missing: expected booleans of the shape of x, \(1, 2\)"):
        learnt.conditional(KEY, x=x, missing=[True])
    for theta, message in [
        ({"c": 1.0}, "unknown parameter 'c'"),
        ({"a": 1.0, "b": 1.0}, "all parameters are given"),
    ]:
        with pytest.raises(ValueError, match=message):
            learnt.conditional(KEY, theta, x=[[0.5, 0.5]])
    with pytest.raises(ValueError, match="2 observations: this estimator is for sets of 1"):
        qx.posterior(learnt, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="heads must divide the width, 10, got 4"):
        qx.Transformer(width=10)
    long = qx.simulate(KEY, pair, num_simulations=100, num_observations=40)
    with pytest.raises(ValueError, match=r"2 parameters and 80 numbers of data are 82 tokens, more than 64; .*NPSE"):
        qx.train(KEY, None, "joint", sims=long)


@qx.simulator(qx.Prior(a=dist.Uniform(0, 1), v=dist.Normal(0, 1).expand([2]).to_event(1)))
def vectors(key, theta):
    return theta["a"] + theta["v"] + jax.random.normal(key, (2,))


def test_parameters_that_cannot_be_given():
    training = qx.Training(num_steps=2)
    small = qx.Joint(network=qx.Transformer(8, 2, 1, 2), batch_size=64)
    found = qx.train(KEY, vectors, small, num_simulations=200, training=training).value
    with pytest.raises(ValueError, match="only single parameters can be given"):
        found.conditional(KEY, {"v": np.zeros(2)}, x=np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"a.*1\.5|outside"):
        found.conditional(KEY, {"a": 1.5}, x=np.zeros((1, 2)))
