"""Flows and mixtures are densities: what they draw is what they say, however they are made."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from tiny import perturbed

import quincunx as qx
from quincunx.methods.nets.densities.elements import INTERVAL, Affine, Spline

KEY = jax.random.key(0)
CONDITION = jnp.array([0.3, -1.0, 2.0])
MADE = {
    "splines": qx.Flow(layers=3, width=9, knots=5),
    "affine": qx.Flow(layers=3, width=9, knots=0),
    "an ensemble": qx.Flow(layers=2, width=9, knots=3, members=3),
}


MIXTURES = {
    "a mixture": qx.Mixture(components=3, widths=(9,)),
    "mixtures": qx.Mixture(components=2, widths=(9, 9), members=3),
}


@pytest.fixture(params=MADE)
def flow(request):
    return perturbed(MADE[request.param].make(KEY, 3, 3), 0.2)


@pytest.fixture(params=[*MADE, *MIXTURES])
def density(request):
    return perturbed({**MADE, **MIXTURES}[request.param].make(KEY, 3, 3), 0.2)


@pytest.mark.parametrize("element", [Spline(6), Affine()], ids=["spline", "affine"])
def test_an_element_is_monotonic_has_its_slope_and_its_inverse(element):
    with jax.enable_x64(True):
        raw = jax.random.normal(KEY, (element.num_parameters,), jnp.float64)
        y = jnp.linspace(-1.5 * INTERVAL, 1.5 * INTERVAL, 501, dtype=jnp.float64)  # beyond the knots too
        many = jnp.broadcast_to(raw, (len(y), len(raw)))
        z, slope = jax.jit(element.forward)(many, y)
        assert np.all(np.diff(z) > 0)
        by_difference = jax.vmap(jax.grad(lambda at: element.forward(raw, at)[0]))(y)
        np.testing.assert_allclose(slope, np.log(by_difference), atol=1e-9)
        np.testing.assert_allclose(jax.jit(element.inverse)(many, z), y, atol=1e-9)


def test_an_untrained_flow_is_a_standard_normal():
    y, seen = jax.random.normal(KEY, (5, 4)), jnp.ones((5, 2))
    expected = jax.scipy.stats.norm.logpdf(y).sum(axis=1)
    np.testing.assert_allclose(qx.Flow().make(KEY, 4, 2).log_prob(y, seen), expected, atol=1e-5)


def test_one_component_is_a_normal_with_the_covariance_of_its_draws():
    """20,000 draws: within 4 standard errors, 1 in 16,000 for each of three numbers."""
    one = perturbed(qx.Mixture(components=1, widths=(9,)).make(KEY, 2, 3), 0.5)
    y = one.sample(KEY, CONDITION, 20_000)
    _, mean, root = (np.asarray(part)[0, 0, 0] for part in one._normals(CONDITION[None]))
    covariance = np.linalg.inv(root.T @ root)
    law = scipy.stats.multivariate_normal(mean, covariance)
    seen = jnp.broadcast_to(CONDITION, (50, 3))
    np.testing.assert_allclose(one.log_prob(y[:50], seen), law.logpdf(y[:50]), atol=1e-4)
    assert abs(covariance[0, 1]) > 0.05
    product = np.asarray(y - mean)[:, [0, 0, 1]] * (y - mean)[:, [0, 1, 1]]
    error = product.std(axis=0) / np.sqrt(len(y))
    assert np.all(np.abs(product.mean(axis=0) - covariance[[0, 0, 1], [0, 1, 1]]) < 4 * error)


def test_the_density_is_that_of_the_draws(flow):
    """Where a draw came from, and how its neighbourhood was stretched, by differentiating the drawing itself."""
    z = jax.random.normal(KEY, (40, 3))
    with jax.enable_x64(True):
        for member in range(len(flow.weights[0][0])):
            weights = jax.tree.map(lambda leaf, k=member: jnp.asarray(leaf[k], jnp.float64), flow.weights)
            y, stretched = drawn_and_stretched(flow, weights, z.astype(jnp.float64))
            expected = jax.scipy.stats.norm.logpdf(z).sum(axis=1) - np.linalg.slogdet(stretched)[1]
            found = flow._log_prob(weights, y, jnp.broadcast_to(CONDITION, (40, 3)))
            np.testing.assert_allclose(found, expected, atol=1e-6)


@eqx.filter_jit
def drawn_and_stretched(flow, weights, z):
    drawn = lambda at: flow._drawn(weights, at[None], CONDITION)[0]
    return jax.vmap(lambda at: (drawn(at), jax.jacfwd(drawn)(at)))(z)


def test_draws_are_those_of_the_density_and_a_density_integrates_to_one(density):
    """E[1 / q(y)] over draws within a cube is its volume; 20,000 draws, within 4 standard errors: 1 in 16,000."""
    y = density.sample(KEY, CONDITION, 20_000)
    assert y.shape == (20_000, 3)
    found = np.asarray(density.log_prob(y, jnp.broadcast_to(CONDITION, (len(y), 3))), np.float64)
    weight = np.where(np.all(np.abs(y) < 1.5, axis=1), np.exp(-found), 0)
    assert weight.mean() == pytest.approx(27, abs=4 * weight.std() / np.sqrt(len(y)))


def test_a_condition_matters_and_rows_do_not_touch_each_other(density):
    y, seen = jax.random.normal(KEY, (6, 3)), jax.random.normal(jax.random.key(1), (6, 3))
    all_at_once = density.log_prob(y, seen)
    one_by_one = [density.log_prob(y[i : i + 1], seen[i : i + 1])[0] for i in range(6)]
    np.testing.assert_allclose(all_at_once, one_by_one, rtol=1e-5)
    assert np.abs(density.log_prob(y, seen + 1) - all_at_once).min() > 1e-4


def test_an_ensemble_is_the_mean_density_of_its_members_and_draws_of_all():
    flow = perturbed(MADE["an ensemble"].make(KEY, 3, 3), 0.2)
    y, seen = jax.random.normal(KEY, (7, 3)), jnp.broadcast_to(CONDITION, (7, 3))
    each = flow.each(y, seen)
    assert each.shape == (3, 7) and np.std(each, axis=0).min() > 1e-3
    np.testing.assert_allclose(np.exp(flow.log_prob(y, seen)), np.exp(each).mean(axis=0), rtol=1e-5)
    assert flow.loss(KEY, y, seen) == pytest.approx(-float(each.mean()), rel=1e-6)
    assert flow.sample(KEY, CONDITION, 8).shape == (8, 3)  # no multiple of 3


def test_every_member_of_an_ensemble_draws():
    """Of one draw each for 30 keys none from one of the three members has a chance of 3 (2/3)^30 = 1 in 64,000."""
    flow = qx.Flow(layers=1, width=9, knots=0, members=3).make(KEY, 3, 3)
    shift = jnp.zeros((3, 1, 3, 2)).at[..., 0].set(jnp.array([-90.0, 0.0, 90.0])[:, None, None])
    apart = eqx.tree_at(lambda flow: flow.weights[-1][1], flow, shift)
    drawn = jax.jit(lambda key: apart.sample(key, CONDITION, 1)[0, 0])
    assert {round(float(drawn(key)) / 90) for key in jax.random.split(KEY, 30)} == {-1, 0, 1}


def test_all_of_many_dimensions_know_those_before():
    """More than the hidden layers are wide. A unit may be at rest at one z: somewhere among 64 none is."""
    flow = perturbed(qx.Flow(layers=1, width=4, knots=0).make(KEY, 12, 1), 0.5)
    weights = jax.tree.map(lambda leaf: leaf[0], flow.weights)
    slopes = jax.vmap(jax.jacfwd(lambda z: flow._drawn(weights, z[None], jnp.ones(1))[0]))
    largest = np.abs(jax.jit(slopes)(jax.random.normal(KEY, (64, 12)))).max(axis=0)
    assert np.all(largest[np.tril_indices(12)] > 0)
    np.testing.assert_array_equal(largest[np.triu_indices(12, 1)], 0)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"knots": -1}, "knots must be 0, for affine layers, or from 2 to 100, got -1"),
        ({"knots": 1}, "knots must be 0, for affine layers, or from 2 to 100, got 1"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"members": 0}, "members must be at least 1"),
    ],
)
def test_misuse_is_named(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        qx.Flow(**options)
