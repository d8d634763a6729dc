"""The networks of ratios, densities and scores: what they are whatever their weights, and what enters them."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from chain import chain
from tiny import perturbed

import quincunx as qx
from quincunx.methods.density import DensityEstimator
from quincunx.methods.nets.contrast import RatioEstimator
from quincunx.methods.nets.inputs import ThetaInput
from quincunx.methods.ratio import JointAndMarginal, Repaired

KEY = jax.random.key(20_181_012)
POINT = jnp.array([0.3])
REFERENCES = {"point": qx.PointReference(POINT), "pair": qx.PairReference(), "marginal": qx.MarginalReference(16)}
NETWORK = qx.MLP((8,), members=3)
X = jnp.linspace(-2, 2, 7)


@pytest.fixture(scope="module")
def mined():
    return {name: qx.mine(KEY, chain, num_simulations=500, reference=each) for name, each in REFERENCES.items()}


def ratio_of(sims, trained=True):
    net = RatioEstimator.for_simulations(sims, network=NETWORK)
    return dataclasses.replace(net, ensemble=perturbed(net.ensemble)) if trained else net


@eqx.filter_jit
def log_ratio(net, theta, x=X):
    return net.log_ratio(theta, x)


# -- whatever the weights --------------------------------------------------------------------------


def test_an_untrained_network_predicts_a_ratio_of_one(mined):
    for sims in mined.values():
        np.testing.assert_array_equal(log_ratio(ratio_of(sims, trained=False), jnp.array([0.7])), np.zeros(7))
        assert np.abs(log_ratio(ratio_of(sims), jnp.array([0.7]))).max() > 0.01


def test_an_anchored_network_is_exactly_zero_at_its_reference(mined):
    net = ratio_of(mined["point"])
    assert net.form == "anchored"
    np.testing.assert_array_equal(log_ratio(net, POINT), np.zeros(7))
    assert np.all(np.asarray(log_ratio(net, jnp.array([0.4]))) != 0)


def test_a_doubly_parameterised_network_is_antisymmetric(mined):
    net, between = ratio_of(mined["pair"]), eqx.filter_jit(RatioEstimator.log_ratio_between)
    a, b = jnp.array([0.7]), jnp.array([-0.2])
    np.testing.assert_allclose(between(net, a, b, X), -between(net, b, a, X), rtol=1e-5, atol=1e-6)
    assert np.all(np.abs(np.asarray(between(net, a, b, X))) > 1e-3)


def test_an_ensemble_is_the_mean_of_its_members(mined):
    net = ratio_of(mined["marginal"])
    members = eqx.filter_jit(RatioEstimator.members)(net, jnp.array([0.1]), X)
    assert members.shape == (3, 7)
    assert np.std(np.asarray(members), axis=0).min() > 1e-3
    np.testing.assert_allclose(log_ratio(net, jnp.array([0.1])), np.mean(members, axis=0), rtol=1e-6)
    for k in range(3):  # each member, by itself, is what the batch of all computes
        lone = jax.tree.map(lambda leaf, k=k: leaf[k : k + 1], net.ensemble)
        alone = log_ratio(dataclasses.replace(net, ensemble=lone), jnp.array([0.1]))
        np.testing.assert_allclose(alone, members[k], rtol=1e-4, atol=1e-6)


def density_of(sims):
    net = DensityEstimator.for_simulations(sims, network=qx.Flow(width=8, knots=4))
    return dataclasses.replace(net, flow=perturbed(net.flow, 0.2))


def test_whole_numbers_are_given_probabilities_that_sum_to_one():
    net = density_of(qx.mine(KEY, qx.problems.galton, num_simulations=500, reference=None))
    assert net.whole
    total = float(jnp.sum(jnp.exp(log_ratio(net, jnp.array([-0.7]), jnp.arange(-40.0, 71.0)))))
    assert total == pytest.approx(1, abs=0.005)  # the splines have kinks, 16 points a cell


def test_a_density_integrates_to_one():
    x, net = jnp.linspace(-12, 12, 4001), density_of(qx.mine(KEY, chain, num_simulations=500, reference=None))
    density = jnp.exp(log_ratio(net, jnp.array([0.5]), x))
    assert float(jnp.trapezoid(density, x)) == pytest.approx(1, abs=1e-3)
    assert float(jnp.max(jnp.abs(density - jnp.exp(log_ratio(net, jnp.array([-0.5]), x))))) > 0.01


# -- what enters -----------------------------------------------------------------------------------


def test_parameters_enter_finitely_at_the_ends_of_their_support():
    prior = qx.Prior(signal=dist.HalfNormal(2.0), share=dist.Uniform(0, 1), shape=dist.Gamma(2.0, 1.0).expand((2,)))
    theta = prior.sample(KEY, 500)
    features = eqx.filter_jit(ThetaInput.of(prior, theta))
    np.testing.assert_allclose(np.std(features(theta), axis=0), 1, rtol=1e-3)
    at_zero = features(jnp.zeros(4))
    assert np.isfinite(np.asarray(at_zero)).all()
    assert np.isfinite(np.asarray(jax.jit(jax.jacobian(features))(jnp.zeros(4)))).all()
    assert np.all(np.asarray(features(theta)) > np.asarray(at_zero))  # in the order of the parameters


def test_new_numerators_only_where_x_is_from_the_reference(mined):
    sims = mined["marginal"]
    again = Repaired()(KEY, sims)
    numerator = np.asarray(sims.label) == 1
    np.testing.assert_array_equal(again.theta[numerator], sims.theta[numerator])
    assert np.mean(np.asarray(again.theta != sims.theta)[~numerator]) > 0.8  # of a pool of 16
    np.testing.assert_array_equal(again.drawn_from, sims.drawn_from)
    assert again.log_ratio is None  # it belonged to the old numerators


def test_unlabelled_simulations_are_set_against_the_marginal():
    sims = qx.simulate(KEY, chain, num_simulations=50)
    both = JointAndMarginal()(KEY, sims)
    assert len(both) == 100
    np.testing.assert_array_equal(both.theta[:50], sims.theta)
    assert np.all(np.asarray(both.theta[50:] != sims.theta))
    np.testing.assert_array_equal(np.sort(both.theta[50:], axis=0), np.sort(sims.theta, axis=0))
    np.testing.assert_array_equal(both.drawn_from, jnp.concatenate([sims.theta, sims.theta]))
    np.testing.assert_array_equal(both.x[50:], sims.x)
    np.testing.assert_array_equal(both.label, np.repeat([1.0, 0.0], 50))


def test_networks_of_any_number_of_rows_are_of_one_type(mined):
    """So that they share what is compiled: a pool of a theta for every row would tell them apart."""
    of = lambda count: ratio_of(qx.contrast(KEY, chain, num_simulations=count), trained=False)
    assert eqx.tree_equal(*(jax.eval_shape(lambda net=of(count): net) for count in (50, 60)))
    np.testing.assert_array_equal(ratio_of(mined["marginal"]).reference.pool, mined["marginal"].reference.pool)


# -- misuse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda s: RatioEstimator.for_simulations(s["marginal"], form="anchored"), "MarginalReference expected one of"),
        (lambda s: qx.MLP(()), "widths must be"),
        (lambda s: qx.MLP(members=0), "members must be at least 1"),
        (lambda s: qx.MLP(activation="relu"), "activation must be one of silu"),
        (lambda s: qx.ScoreEstimator.for_simulations(s["marginal"]), "trained at one theta"),
    ],
)
def test_misuse_is_named(mined, call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call(mined)
