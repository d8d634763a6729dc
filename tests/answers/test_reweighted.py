"""A posterior under another prior, against the exact one under it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import norm

import quincunx as qx
from quincunx.answers.bayes.reweighted import ReweightedPosterior
from quincunx.answers.bayes.space import Space

KEY = jax.random.key(0)
wide = qx.Prior(a=dist.Normal(0.0, 2.0), b=dist.Uniform(0.0, 1.0))


def posterior():
    """Given a measurement of a: 1 +- 0.5; nothing is known of b (of whose logit a normal of width 1.6 is about it)."""
    variance = 1 / (1 / 4 + 1 / 0.25)
    theta = np.stack([np.linspace(-1, 1, 50), np.linspace(0.1, 0.9, 50)], axis=1)
    space = Space.of(wide, theta)
    mean = (np.array([variance * 1 / 0.25, 0.0]) - np.asarray(space.location)) / np.asarray(space.spread)
    scale = np.array([np.sqrt(variance), 1.6]) / np.asarray(space.spread)
    return qx.MixturePosterior(space, jnp.asarray(np.concatenate([mean, np.log(scale)])[None], jnp.float32))


def test_it_is_the_posterior_under_the_new_prior():
    """Prior N(1.5, .3) and measurement 1 +- .5: .3 and .5 in the usual mixture of variances; four standard errors."""
    new = qx.Prior(a=dist.Normal(1.5, 0.3), b=dist.Uniform(0.0, 1.0))
    found = qx.reweighted(KEY, posterior(), new)
    variance = 1 / (1 / 0.09 + 1 / 0.25)
    mean = variance * (1.5 / 0.09 + 1 / 0.25)
    error = np.sqrt(variance / found.diagnostics["ess"])
    assert found.diagnostics["ess"] > 3000 and found.warnings == ()
    assert float(found.mean[0]) == pytest.approx(mean, abs=4 * error)
    assert float(found.std[0]) == pytest.approx(np.sqrt(variance), rel=4 / np.sqrt(2 * found.diagnostics["ess"]))
    # p(x | new) / p(x | old)
    truth = norm.logpdf(1, 1.5, np.hypot(0.3, 0.5)) - norm.logpdf(1, 0, np.hypot(2, 0.5))
    assert float(found.log_evidence) == pytest.approx(truth, abs=0.05)
    grid = jnp.stack([jnp.linspace(0.5, 2.0, 7), jnp.full(7, 0.4)], axis=1)
    along = np.asarray(found.log_prob(grid)) - float(found.log_prob(grid[:1])[0])
    expected = norm.logpdf(grid[:, 0], mean, np.sqrt(variance))
    np.testing.assert_allclose(along, expected - expected[0], atol=1e-3)


def test_inside_a_narrower_support_nothing_leaves_it_and_outside_is_told():
    cut = qx.Prior(a=dist.Uniform(0.5, 1.5), b=dist.Uniform(0.2, 0.6))
    found = qx.reweighted(KEY, posterior(), cut)
    assert bool(cut.contains(found.sample(KEY, 2000)).all())
    assert np.isneginf(found.log_prob(jnp.array([[0.4, 0.4], [1.0, 0.7], [1.0, 2.0]]))).all()
    assert found.warnings == ()
    beyond = qx.Prior(a=dist.Normal(0.0, 2.0), b=dist.Uniform(0.0, 2.0))
    (told,) = qx.reweighted(KEY, posterior(), beyond).warnings
    assert "% of the new prior lies where the old one is zero" in told
    assert np.isneginf(qx.reweighted(KEY, posterior(), beyond).log_prob(jnp.array([[1.0, 1.5]]))).all()


def test_a_prior_that_the_draws_do_not_reach_is_told():
    far = qx.Prior(a=dist.Normal(4.0, 0.3), b=dist.Uniform(0.0, 1.0))
    assert any("draws count" in text or "Pareto" in text for text in qx.reweighted(KEY, posterior(), far).warnings)
    with pytest.raises(ValueError, match="no draw of the posterior lies inside"):
        qx.reweighted(KEY, posterior(), qx.Prior(a=dist.Uniform(90.0, 91.0), b=dist.Uniform(0.0, 1.0)))


def test_what_was_learnt_under_a_proposal_is_put_under_the_prior():
    """q = N(1, .5) learnt under N(.8, .7), where the prior is N(0, 1): precisions add up."""
    prior = qx.Prior(a=dist.Normal(0.0, 1.0))
    normal = lambda mean, std: qx.MixturePosterior(
        Space.of(prior, np.array([[-1.0], [1.0]])), jnp.array([[mean, np.log(std)]])
    )
    found = ReweightedPosterior.of(KEY, normal(1.0, 0.5), prior, normal(0.8, 0.7))
    precision = 1 / 0.25 - 1 / 0.49 + 1
    mean, std = (1 / 0.25 - 0.8 / 0.49) / precision, precision**-0.5
    ess = found.diagnostics["ess"]
    assert ess > 8000 and found.warnings == ()
    assert float(found.mean[0]) == pytest.approx(mean, abs=4 * std / np.sqrt(ess))
    assert float(found.std[0]) == pytest.approx(std, rel=4 / np.sqrt(2 * ess))
    grid = jnp.linspace(-1, 3, 5)[:, None]
    np.testing.assert_allclose(found.log_prob(grid), norm.logpdf(grid[:, 0], mean, std), atol=0.03)


def test_other_parameters_are_refused():
    with pytest.raises(ValueError, match="of the same parameters in the same order"):
        qx.reweighted(KEY, posterior(), qx.Prior(b=dist.Uniform(0.0, 1.0), a=dist.Normal(0.0, 1.0)))


def test_what_is_no_posterior_and_no_prior_is_refused():
    with pytest.raises(TypeError, match=r"posterior: expected one such as qx.posterior\(estimator, x\).* got Prior"):
        qx.reweighted(KEY, posterior().prior, posterior().prior)
    with pytest.raises(TypeError, match=r"prior: expected one such as qx.Prior\(...\), got NoneType"):
        qx.reweighted(KEY, posterior(), None)
