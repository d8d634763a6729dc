"""NPE against posteriors that are known, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import quincunx as qx

KEY = jax.random.key(0)
NOISE = 0.5


@qx.simulator(qx.Prior(shift=dist.Normal(0, 1)))
def shifted(key, theta):
    return theta["shift"] + NOISE * jax.random.normal(key)


@qx.simulator(qx.Prior(root=dist.Uniform(-1, 1)))
def square(key, theta):
    return theta["root"] ** 2 + 0.05 * jax.random.normal(key)


SMALL = qx.NPE(network=qx.Flow(1, 16, 6))
TRAINING = qx.Training(num_steps=800, learning_rate=3e-3)
METHODS = {
    "npe": SMALL,
    "mixture": qx.NPE(network=qx.Mixture(components=4, widths=(32, 32))),
    "fmpe": qx.FMPE(network=qx.Velocity((48, 48), num_steps=10)),
    "npse": qx.NPSE(network=qx.Denoiser(width=32, layers=2), batch_size=128),
}


@pytest.fixture(scope="module", params=METHODS)
def learnt(request):
    return qx.train(KEY, shifted, METHODS[request.param], num_simulations=20_000, training=TRAINING).value


@pytest.mark.parametrize("x", [-1.5, 0.0, 1.0])
def test_the_posterior_of_a_normal_mean(learnt, x):
    variance = 1 / (1 + 1 / NOISE**2)
    posterior = qx.posterior(learnt, [x])
    # a network of a few seconds: within a tenth of the exact width in the mean, a tenth in the width
    assert float(posterior.mean[0]) == pytest.approx(variance * x / NOISE**2, abs=0.1 * variance**0.5)
    assert float(posterior.std[0]) == pytest.approx(variance**0.5, rel=0.1)


def test_density_and_draws_are_of_one_law(learnt):
    posterior = qx.posterior(learnt, [0.7])
    grid = np.linspace(-4, 4, 2001)[:, None]
    density = np.exp(np.asarray(posterior.log_prob(grid)))
    assert np.trapezoid(density, grid[:, 0]) == pytest.approx(1, abs=1e-3)
    mean = np.trapezoid(density * grid[:, 0], grid[:, 0])
    draws = np.asarray(posterior.sample(jax.random.key(1), 3000))
    assert np.trapezoid(density * (grid[:, 0] - mean) ** 2, grid[:, 0]) == pytest.approx(draws.var(), rel=0.15)
    # 3,000 draws: five standard errors are exceeded by chance once in two million times
    assert abs(draws.mean() - mean) < 5 * draws.std() / np.sqrt(3000)
    np.testing.assert_array_equal(draws, posterior.sample(jax.random.key(1), 3000))


@pytest.mark.parametrize("name", METHODS)
def test_two_modes_and_no_leakage(name):
    training = qx.Training(num_steps=2000 if name == "fmpe" else 800, learning_rate=3e-3)
    found = qx.train(KEY, square, METHODS[name], num_simulations=10_000, training=training)
    posterior = qx.posterior(found.value, [0.49])
    draws = np.asarray(posterior.sample(KEY, 2000))[:, 0]
    assert (np.abs(draws) <= 1).all()
    assert np.mean(np.abs(np.abs(draws) - 0.7) < 0.15) > 0.9
    assert 0.35 < np.mean(draws > 0) < 0.65
    assert np.isneginf(posterior.log_prob(np.array([[1.2]]))).all()


def test_sets_of_observations_are_for_sets_of_that_size():
    solution = qx.train(KEY, shifted, SMALL, num_simulations=40_000, num_observations=20, training=TRAINING)
    x = np.asarray(0.8 + NOISE * np.random.default_rng(0).normal(size=20), np.float32)
    variance = 1 / (1 + 20 / NOISE**2)
    posterior = qx.posterior(solution.value, x)
    assert float(posterior.mean[0]) == pytest.approx(variance * x.sum() / NOISE**2, abs=0.5 * variance**0.5)
    assert float(posterior.std[0]) == pytest.approx(variance**0.5, rel=0.25)
    with pytest.raises(ValueError, match=r"3 observations: this estimator is for sets of 20; .*num_observations=3"):
        qx.posterior(solution.value, x[:3])


def test_infer_trains_for_the_data_at_hand():
    found = qx.infer(KEY, shifted, [0.1, 0.4], SMALL, num_simulations=4000, training=qx.Training(num_steps=50))
    assert found.estimator.num_observations == 2
    assert found.num_simulator_calls == 4000
    assert set(found.to_dict()["parameters"]) == {"shift"}


def test_what_it_refuses(learnt):
    with pytest.raises(ValueError, match=r"1000 observations make 50 sets of 20, too few .* at least 2000"):
        qx.train(KEY, shifted, "npe", num_simulations=1000, num_observations=20)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        qx.train(KEY, shifted, qx.NPE(batch_size=0), num_simulations=1000)
    sims = qx.simulate(KEY, shifted, num_simulations=200, num_observations=3)
    with pytest.raises(ValueError, match="one record of simulations"):
        qx.train(KEY, None, "npe", sims=(sims, sims))
    with pytest.raises(ValueError, match="have 3 observations a row, the estimator is for 1"):
        qx.fit(KEY, learnt, SMALL.loss, sims)


def test_data_unlike_anything_simulated_get_a_warning(learnt):
    (warning,) = qx.posterior(learnt, [400.0]).warnings
    assert "far from anything simulated" in warning
    assert qx.posterior(learnt, jnp.array([0.3])).warnings == ()


def test_a_network_of_another_kind_is_refused():
    with pytest.raises(TypeError, match=r"network of npe: expected qx.Flow\(\) or qx.Mixture\(\) or .* got MLP"):
        qx.NPE(network=qx.MLP())


def test_many_data_sets_at_once_are_as_one_by_one(learnt):
    x = np.linspace(-1.5, 1.5, 7).reshape(7, 1)
    draws = learnt.sample(KEY, x, 4000)
    assert draws.shape == (4000, 7, 1)
    density = np.asarray(learnt.log_prob(draws[:5], x))
    assert density.shape == (5, 7)
    for row in (0, 6):
        alone = qx.posterior(learnt, x[row])
        np.testing.assert_allclose(density[:, row], alone.log_prob(draws[:5, row]), rtol=1e-3, atol=1e-3)
        # two means of 4,000 draws: five standard errors are exceeded by chance once in two million times
        gap = abs(draws[:, row].mean() - alone.sample(jax.random.key(1), 4000).mean())
        assert gap < 5 * np.sqrt(2 / 4000) * float(alone.std[0])
    with pytest.raises(ValueError, match=r"x: expected data sets \(B, m, \*event\), .* got \(7,\)"):
        learnt.sample(KEY, x[:, 0], 10)
    with pytest.raises(ValueError, match="7 observations: this estimator is for sets of 1"):
        learnt.sample(KEY, x.T, 10)
    with pytest.raises(ValueError, match=r"theta: expected shape \(S, 7, 1\), got \(5, 6, 1\)"):
        learnt.log_prob(draws[:5, :6], x)
    with pytest.raises(ValueError, match="NaN"):
        learnt.sample(KEY, np.full((2, 1), np.nan), 10)
