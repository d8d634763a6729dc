"""Sampling prior times likelihood, against posteriors and evidences that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from compiling import compiled

import quincunx as qx
from quincunx.answers.bayes.sampling import tempered as module
from quincunx.answers.bayes.sampling.convergence import agreement
from quincunx.core.simulator import Exact

KEY = jax.random.key(0)
WIDTH = 0.02


def _two_peaks(theta, x):
    return jnp.sum(-0.5 * ((theta[0] ** 2 - x) / WIDTH) ** 2 - jnp.log(WIDTH) - 0.5 * jnp.log(2 * jnp.pi))


@qx.simulator(qx.Prior(root=dist.Uniform(-1, 1)), exact=Exact(log_likelihood=_two_peaks))
def peaks(key, theta):
    return theta["root"] ** 2 + WIDTH * jax.random.normal(key)


def data(simulator, count, seed=5):
    return qx.simulate(jax.random.key(seed), simulator, num_simulations=1, num_observations=count).x[0]


def exact(simulator):
    return qx.ExactRatio(simulator)


@pytest.mark.parametrize(("simulator", "count"), [(qx.problems.poisson, 20), (qx.problems.gaussian, 50)])
def test_posteriors_that_are_known(simulator, count):
    x = data(simulator, count)
    posterior = qx.posterior(exact(simulator), x)
    mean, std = simulator.exact.posterior_mean(x), simulator.exact.posterior_std(x)
    # at least 1,024 draws, of which half count: a mean has an error of .044 sd, a width of 3.1 %
    assert np.all(np.abs(posterior.mean - mean) < 0.2 * std)
    np.testing.assert_allclose(posterior.std, std, rtol=0.15)
    assert posterior.warnings == ()
    assert posterior.diagnostics["r_hat"] < 1.05


def test_the_evidence_is_that_of_a_grid_and_the_density_is_normalised():
    x = data(qx.problems.poisson, 20)
    posterior = qx.posterior(exact(qx.problems.poisson), x)
    grid = np.linspace(0.2001, 6.9999, 20_001)[:, None]
    log_likelihood = jax.vmap(lambda t: qx.problems.poisson.exact.log_likelihood(t, x))(jnp.asarray(grid))
    truth = np.log(np.trapezoid(np.exp(np.asarray(log_likelihood, np.float64) + 60), grid[:, 0]) / 6.8) - 60
    assert float(posterior.log_evidence) == pytest.approx(truth, abs=0.1)
    assert np.trapezoid(np.exp(np.asarray(posterior.log_prob(grid))), grid[:, 0]) == pytest.approx(1, abs=0.1)
    assert np.isneginf(posterior.log_prob(np.array([[7.5], [0.1]]))).all()


def test_two_modes_far_apart_have_their_weights():
    posterior = qx.posterior(exact(peaks), np.array([0.49]))
    draws = np.asarray(posterior.draws)[:, 0]
    np.testing.assert_allclose(np.abs(draws).mean(), 0.7, atol=0.005)
    # each repeat has the weight of a mode to about .5 / sqrt(1,000): four of them to .01
    assert 0.45 < np.mean(draws > 0) < 0.55


def test_other_numbers_of_observations_compile_nothing():
    estimator, (few, more) = exact(qx.problems.poisson), (data(qx.problems.poisson, count) for count in (17, 18))
    qx.posterior(estimator, few, key=KEY).summary()
    with compiled() as names:
        qx.posterior(estimator, more, key=jax.random.key(3)).summary()
    assert names == []


def test_repeats_that_disagree_are_told():
    rng = np.random.default_rng(0)
    same = rng.normal(size=(4, 500, 2))
    apart = same + np.array([0, 0, 0, 3.0])[:, None, None] * [1, 0]
    even = np.zeros(4)
    assert module._doubts(agreement(same)[0], even, np.ones(4)) == ()
    (warning,) = module._doubts(agreement(apart)[0], even, np.ones(4))
    assert "4 repeats of the sampler disagree" in warning
    (warning,) = module._doubts(agreement(same)[0], np.array([0, 0, 0, -3.0]), np.ones(4))
    assert "scatter by 1.5 in the log of the evidence" in warning
    (warning,) = module._doubts(agreement(same)[0], even, np.full(4, 0.001))
    assert "0.1 % of the sampler's last moves" in warning


def test_a_repeat_counts_as_its_evidence_weighs():
    theta = np.arange(4.0)[:, None, None] + np.zeros((1, 100, 1))
    pooled = module._pooled(theta, np.log([1.0, 1.0, 2.0, 4.0]))
    np.testing.assert_allclose(np.bincount(pooled[:, 0].astype(int)), [50, 50, 100, 200], atol=1)
    np.testing.assert_array_equal(module._pooled(theta, np.full(4, -7.0)), theta.reshape(-1, 1))


@qx.simulator(
    qx.Prior(place=dist.Uniform(-1, 1)),
    exact=Exact(
        log_likelihood=lambda theta, x: jnp.where(theta[0] < -0.5, jnp.nan, -jnp.sum((x - theta[0]) ** 2) / 0.02)
    ),
)
def holed(key, theta):
    return theta["place"] + 0.1 * jax.random.normal(key)


def test_nan_of_an_estimator_is_told():
    posterior = qx.posterior(exact(holed), np.array([0.2]))
    (warning,) = posterior.warnings
    assert "gives NaN at 2" in warning  # of a quarter of the prior, by draws
    assert float(posterior.mean[0]) == pytest.approx(0.2, abs=0.02)
    assert np.isnan(posterior.log_prob(np.array([[-0.8]]))).all()


def test_data_that_no_theta_can_have_made_are_refused():
    with pytest.raises(ValueError, match="zero or NaN wherever the prior was looked at"):
        qx.posterior(exact(qx.problems.poisson), np.array([0.5]))


def test_draws_are_repeated_by_the_key_and_sampled_again():
    x = data(qx.problems.poisson, 20)
    first, again = (qx.posterior(exact(qx.problems.poisson), x) for _ in range(2))
    np.testing.assert_array_equal(first.draws, again.draws)
    assert first.sample(KEY, 7).shape == (7, 1)
