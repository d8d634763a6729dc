"""Answers where the support of a parameter depends on another, and where quantities are derived."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import tiny

import quincunx as qx

X = np.array([[3.0, 6.0]] * 4)


def log_likelihood(theta, x):
    return -0.5 * jnp.sum((x - theta) ** 2)


@qx.simulator(
    qx.Prior(
        low=dist.Uniform(0.0, 10.0),
        high=lambda t: dist.Uniform(t["low"], t["low"] + 10),
        derived={"gap": lambda t: t["high"] - t["low"]},
    ),
    exact=qx.Exact(log_likelihood),
)
def peaks(key, theta):
    return jnp.stack([theta["low"], theta["high"]]) + jax.random.normal(key, (2,))


@pytest.mark.parametrize("name", ["alfi", "nre", "nle"])
def test_methods_learn_with_such_a_prior(name, tmp_path):
    options = {"num_simulations": tiny.NUM_SIMULATIONS, "training": tiny.TRAINING, "progress": qx.NoProgress()}
    answer = qx.infer(tiny.KEY, peaks, X, tiny.method(name), **options)
    if name == "alfi":
        draws = np.asarray(answer.posterior.sample(tiny.KEY, 200))
        assert (draws[:, 1] >= draws[:, 0]).all() and (draws[:, 1] <= draws[:, 0] + 10).all()
        assert np.isfinite(answer.posterior.log_prob(draws)).all()
        summary = answer.posterior.summary()
        assert list(summary) == ["low", "high", "gap"] == list(answer.to_dict()["parameters"])
        points = np.asarray(answer.posterior.points)
        gap = points[:, 1] - points[:, 0]
        assert summary["gap"]["mean"] == pytest.approx(gap.mean(), rel=1e-4)
        assert summary["gap"]["q95"] == pytest.approx(np.quantile(gap, 0.95), rel=1e-4)
    else:
        assert len(answer.regions()) == 3
    qx.plot(answer, tmp_path / "figure.png")


def test_histograms_say_that_they_need_a_grid():
    with pytest.raises(ValueError, match="the support of 'high' depends on other parameters"):
        qx.train(tiny.KEY, peaks, "histogram", num_simulations=1000)


def truth(x):
    """The maximum of the exact likelihood in the support, and the 95 % intervals of both profiles, by brute force."""
    low, share = np.meshgrid(np.linspace(0, 10, 1001), np.linspace(0, 1, 1001), indexing="ij")
    grid = np.stack([low, low + 10 * share], -1).reshape(-1, 2)
    values = -0.5 * ((grid[:, None] - x) ** 2).sum((1, 2))
    inside = grid[2 * (values.max() - values) <= 3.8415]
    return grid[np.argmax(values)], np.stack([inside.min(0), inside.max(0)], 1)


@pytest.mark.parametrize("at", [(3.0, 6.0), (5.0, 4.9), (5.0, 3.0), (2.0, 13.0), (-1.0, 4.0), (9.9, 21.0)])
def test_the_likelihood_ends_with_the_support(at):
    """Maxima inside, at an edge that depends on the other parameter, and at a corner."""
    likelihood = qx.likelihood(qx.ExactRatio(peaks), np.array([at] * 4))
    best, intervals = truth(np.array([at] * 4))
    found = qx.maximum_likelihood(likelihood)
    np.testing.assert_allclose(found.theta, best, atol=0.03)
    assert bool(peaks.prior.contains(found.theta)) and found.converged
    at_edge = abs(best[1] - best[0]) < 1e-6 or abs(best[1] - best[0] - 10) < 1e-6
    assert ("high" in found.at_boundary) == at_edge
    for name, interval in zip(("low", "high"), intervals, strict=True):
        np.testing.assert_allclose(qx.confidence_region(likelihood, parameters=name).interval[0], interval, atol=0.03)
    assert np.isneginf(likelihood(np.array([5.0, 4.0])))
