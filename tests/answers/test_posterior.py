"""What every posterior can do, on normals whose answers are known."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import quincunx as qx
from quincunx.answers.bayes.posterior import picked
from quincunx.answers.bayes.space import Space

KEY = jax.random.key(0)
PRIOR = qx.Prior(a=dist.Normal(0, 1), b=dist.Normal(jnp.zeros(2), 1), derived={"sum": lambda t: t["a"] + t["b"][0]})


def normal():
    """Mean (1, -1, 0.5), standard deviations 0.1, 0.2, 0.3: the space is standardised by (-1, 1) in each."""
    space = Space.of(PRIOR, np.array([[-1.0] * 3, [1.0] * 3]))
    return qx.MixturePosterior(space, jnp.array([[1.0, -1.0, 0.5, *np.log([0.1, 0.2, 0.3])]]))


def test_a_draw_at_an_end_of_the_support_does_no_harm():
    """Of 7 million uniform draws one is 0 in float32, which is infinitely far on the unconstrained scale."""
    prior = qx.Prior(share=dist.Uniform(0, 1), other=dist.Normal(0, 1))
    theta = np.array([[0.0, 1.0], [0.3, -1.0], [0.7, 0.5]], np.float32)
    space = Space.of(prior, theta)
    np.testing.assert_allclose(space.location, np.asarray(Space.of(prior, theta[1:]).location))
    assert float(space.encode(theta)[0, 0]) == space.encoded(theta)[0, 0] == -20
    assert not bool(space.inside(theta)[1][0])
    assert np.isfinite(np.asarray(space.decode(space.encode(theta)))).all()
    sims = qx.Simulations(jnp.tile(theta, (100, 1)), jnp.zeros((300, 1)), at_an_end)
    for method in (qx.NPE(network=qx.Flow(1, 8, 4)), qx.FMPE(network=qx.Velocity((8,), 2))):
        assert np.isfinite(float(method.loss(method.build(KEY, sims), sims, KEY)))


@qx.simulator(qx.Prior(share=dist.Uniform(0, 1), other=dist.Normal(0, 1)))
def at_an_end(key, theta):
    return theta["share"] + 0.0 * theta["other"]


def test_the_highest_density():
    # ten clouds of 1,024 in three dimensions, the last 2 ** -9 wide: within a twentieth of a standard deviation
    np.testing.assert_allclose(normal().map, [1, -1, 0.5], atol=0.015)


def test_the_highest_density_near_an_end():
    prior = qx.Prior(rate=dist.Uniform(0, 1))
    wide = qx.MixturePosterior(Space.of(prior, np.array([[0.3], [0.7]])), jnp.array([[4.0, 1.0]]))
    grid = np.linspace(1e-4, 1 - 1e-4, 100_001)[:, None]
    assert float(wide.log_prob(wide.map)) >= float(np.max(wide.log_prob(grid))) - 1e-3


def test_arviz_has_the_names_and_the_draws():
    tree = normal().to_arviz(KEY, 500)
    draws = np.asarray(normal().sample(KEY, 500))
    assert dict(tree["posterior"].sizes) == {"chain": 1, "draw": 500, "b_dim_0": 2}
    np.testing.assert_array_equal(tree["posterior"]["a"][0], draws[:, 0])
    np.testing.assert_array_equal(tree["posterior"]["b"][0], draws[:, 1:])
    np.testing.assert_allclose(tree["posterior"]["sum"][0], draws[:, 0] + draws[:, 1], rtol=1e-6)


def test_without_arviz_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    with pytest.raises(ImportError, match=r'pip install "quincunx\[arviz\]"'):
        normal().to_arviz(KEY)


def test_no_draw_comes_again_before_all_have_come():
    draws = jnp.arange(10.0)[:, None]
    np.testing.assert_array_equal(np.sort(picked(KEY, draws, 10)[:, 0]), np.arange(10))
    counts = np.bincount(np.asarray(picked(KEY, draws, 25)[:, 0], int))
    assert sorted(counts) == [2] * 5 + [3] * 5
