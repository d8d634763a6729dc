"""A likelihood inside a NumPyro model, against the same model written out."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

import quincunx as qx

poisson = qx.problems.poisson
X = np.array([[3.0, 4.0, 2.0], [9.0, 11.0, 12.0]], np.float32)


def hierarchy(add):
    def model():
        middle = numpyro.sample("middle", dist.Normal(1.5, 1))
        with numpyro.plate("groups", 2):
            rate = numpyro.sample("rate", dist.Normal(middle, 0.5))
        add(rate)

    return model


def written_out(rate):
    numpyro.sample("x", dist.Poisson(jnp.exp(rate)[:, None]), obs=X.astype(int))


def test_groups_have_the_density_of_the_model_written_out():
    factor = qx.as_factor(qx.ExactRatio(poisson), X)
    one, other = hierarchy(lambda rate: factor(log_rate=rate)), hierarchy(written_out)
    value = lambda model, at: log_density(model, (), {}, at)[0]
    places = [{"middle": jnp.array(1.2), "rate": jnp.array([1.0, 2.2])}, {"middle": 2.0, "rate": jnp.array([0.5, 1.9])}]
    (a, b), (c, d) = ([value(model, at) for at in places] for model in (one, other))
    assert float(a - b) == pytest.approx(float(c - d), abs=1e-3)
    slope = lambda model: jax.grad(lambda rate: value(model, {"middle": 1.2, "rate": rate}))(places[0]["rate"])
    np.testing.assert_allclose(slope(one), slope(other), rtol=1e-4)


def test_one_data_set_and_the_support():
    factor = qx.as_factor(qx.ExactRatio(poisson), X[0])

    def model():
        factor(log_rate=numpyro.sample("r", dist.Normal(0, 10)))

    inside = log_density(model, (), {}, {"r": jnp.array(1.0)})[0]
    expected = poisson.exact.log_likelihood(jnp.array([1.0]), X[0]) + dist.Normal(0, 10).log_prob(1.0)
    assert float(inside) == pytest.approx(float(expected), abs=1e-3)
    assert float(log_density(model, (), {}, {"r": jnp.array(9.0)})[0]) == -np.inf  # the prior ends at 7


def test_misuse_is_told():
    factor = qx.as_factor(qx.ExactRatio(poisson), X)
    with pytest.raises(ValueError, match=r"unknown parameter 'log_rat' \(did you mean 'log_rate'"):
        factor(log_rat=1.0)
    with pytest.raises(ValueError, match=r"parameters of \(3,\) groups, and observations of 2"):
        factor(log_rate=jnp.ones(3))
    with pytest.raises(ValueError, match="NaN"):
        qx.as_factor(qx.ExactRatio(poisson), np.array([np.nan]))
