"""Rounds against posteriors that are known, and the loss that does not see where theta came from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import quincunx as qx
from quincunx.answers.bayes.box import Box
from quincunx.answers.bayes.restricted import Dense, RestrictedPosterior
from quincunx.answers.bayes.space import Space
from quincunx.core.simulations import Simulations
from quincunx.methods.sequential.place import Place, weighted

KEY = jax.random.key(0)
NOISE = 0.5
TRAINING = qx.Training(num_steps=600, learning_rate=3e-3)
SMALL = qx.NPE(network=qx.Flow(1, 16, 6))
QUIET = qx.NoProgress()


@qx.simulator(qx.Prior(shift=dist.Normal(0, 1)))
def shifted(key, theta):
    return theta["shift"] + NOISE * jax.random.normal(key)


@qx.simulator(qx.Prior(place=dist.Uniform(-4, 4)))
def sharp(key, theta):
    return theta["place"] + 0.2 * jax.random.normal(key)


def elsewhere():
    """Simulations at theta ~ N(0.8, 0.4) instead of the prior."""
    theta = 0.8 + 0.4 * jax.random.normal(KEY, (20_000, 1))
    return qx.simulate(KEY, shifted, theta=theta)


@pytest.mark.parametrize(("atoms", "mean"), [(None, 0.683), (8, 0.4)])
def test_with_atoms_it_is_the_posterior_wherever_theta_was_drawn(atoms, mean):
    """Without, that under the law of theta: N(0.8, 0.4) instead of N(0, 1). At x = 0.5 both have a closed form."""
    method = qx.NPE(network=SMALL.network, atoms=atoms)
    training = qx.Training(num_steps=800, learning_rate=3e-3)
    posterior = qx.posterior(qx.train(KEY, None, method, sims=elsewhere(), training=training).value, [0.5])
    # the two means are 0.65 standard deviations apart; a network of a few seconds is within a fifth of one
    assert float(posterior.mean[0]) == pytest.approx(mean, abs=0.09)


ROUNDS = {
    "tsnpe": qx.TSNPE(learner=SMALL, number=3, training=TRAINING),
    "pnpe": qx.PNPE(learner=SMALL, number=2, training=TRAINING),
    "snpe-a": qx.SNPEA(learner=qx.NPE(network=qx.Flow(1, 16, 0)), number=2, training=TRAINING),
    "snpe-b": qx.SNPEB(learner=SMALL, number=3, training=TRAINING),
    "snpe-c": qx.SNPEC(learner=SMALL, number=3, training=qx.Training(num_steps=1200, learning_rate=1e-3)),
    "snle": qx.SNLE(network=qx.Flow(1, 16, 6), number=3, training=TRAINING),
    "snre": qx.SNRE(network=qx.MLP((32, 32)), number=3, training=TRAINING),
}


def _near_two():
    """N(2, 0.2), on the unconstrained scale of a uniform prior."""
    u = np.asarray(sharp.prior.unconstrain(2 + 0.2 * np.random.default_rng(0).normal(size=(4000, 1))))
    return qx.MixturePosterior(Space.of(sharp.prior, np.asarray(sharp.prior.constrain(u))), jnp.zeros((1, 2)))


QUICK = ("tsnpe", "snpe-a", "snpe-c", "snle")  # a weighted loss, and a search before, have tests of their own below


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in ROUNDS])
def test_rounds_close_in(name):
    """The posterior is N(x, 0.2) in a prior of width 8."""
    answer = qx.infer(KEY, sharp, [2.0], ROUNDS[name], num_simulations=1500, progress=QUIET)
    assert sum(answer.inferred.history["num_simulated"]) == answer.num_simulator_calls == 1500
    # networks of seconds: within half a width, and a quarter of it
    assert float(answer.posterior.mean[0]) == pytest.approx(2, abs=0.1)
    assert float(answer.posterior.std[0]) == pytest.approx(0.2, rel=0.25)
    assert set(answer.to_dict()["parameters"]) == {"place"}


def test_weights_make_draws_of_the_prior_of_what_was_drawn_elsewhere():
    """Half at N(0, 1), half at N(0.8, 0.4): weights at most 2, and the mean of theta under them is 0."""
    narrow = qx.MixturePosterior(Space.of(shifted.prior, np.array([[-1.0], [1.0]])), jnp.array([[0.8, np.log(0.4)]]))
    box = Box(shifted.prior)
    places = [Place(box), Place(box, narrow)]
    theta = np.concatenate([place.sample(KEY, 4000) for place in places])
    sims = weighted(Simulations(jnp.asarray(theta), jnp.asarray(theta)[:, None], shifted), places)
    weight = np.asarray(sims.weight)
    assert weight.shape == (8000,)
    assert weight.min() > 0 and weight.max() <= 2.0001
    error = weight.std() / np.sqrt(8000)
    assert weight.mean() == pytest.approx(1, abs=4 * error)  # four standard errors: 1 in 16,000
    assert np.mean(weight * theta[:, 0]) == pytest.approx(0, abs=4 * np.std(weight * theta[:, 0]) / np.sqrt(8000))
    assert abs(theta.mean()) > 0.3


def test_with_weights_it_is_the_posterior_under_the_prior():
    """As with atoms: N(0.4, ...) at x = 0.5, where without weights it is .65 standard deviations away."""
    sims = elsewhere()
    law = dist.Normal(0.8, 0.4)
    weight = jnp.exp(dist.Normal(0, 1).log_prob(sims.theta) - jnp.logaddexp(law.log_prob(sims.theta), -4))[:, 0]
    training = qx.Training(num_steps=800, learning_rate=3e-3)
    known = dataclasses.replace(sims, weight=weight)
    posterior = qx.posterior(qx.train(KEY, None, SMALL, sims=known, training=training).value, [0.5])
    assert float(posterior.mean[0]) == pytest.approx(0.4, abs=0.12)
    with pytest.raises(ValueError, match="a continuous flow has no density at hand"):
        qx.train(KEY, None, "fmpe", sims=known)


def test_a_search_before_says_where_the_first_round_simulates():
    answer = qx.infer(KEY, sharp, [2.0], ROUNDS["pnpe"], num_simulations=1500, progress=QUIET)
    assert answer.inferred.history["num_simulated"] == [500, 500, 500]
    assert len(answer.inferred.history["mean"]) == 2


def test_rounds_simulate_where_the_last_answer_is():
    last = qx.infer(KEY, sharp, [2.0], ROUNDS["snle"], num_simulations=1500, progress=QUIET).inferred.history
    assert last["std"].shape == (3, 1)
    place = Place(Box(sharp.prior)).narrowed(KEY, _near_two(), 500)
    assert np.all(np.abs(place.sample(KEY, 500) - 2) < 1)  # five standard deviations of 0.2


def test_a_restricted_posterior_is_a_density_inside():
    whole = qx.MixturePosterior(
        qx.posterior(
            qx.train(KEY, shifted, SMALL, num_simulations=500, training=qx.Training(num_steps=2)).value, [0.0]
        ).space,
        jnp.array([[0.0, 0.0]]),
    )
    region = Dense.of(KEY, whole, 0.3)
    cut = RestrictedPosterior.of(KEY, whole, (region,))
    grid = np.linspace(-5, 5, 4001)[:, None]
    density = np.exp(np.asarray(cut.log_prob(grid)))
    assert np.trapezoid(density, grid[:, 0]) == pytest.approx(1, abs=0.03)  # the share is of 4,096 draws
    draws = cut.sample(KEY, 1000)
    assert draws.shape == (1000, 1)
    assert region.contains(draws).all()
    assert np.isneginf(cut.log_prob(np.array([[4.9]]))).all()
    assert float(cut.std[0]) < 0.75 * float(whole.std[0])
    with pytest.raises(ValueError, match="nothing of an answer lies where the round before"):
        RestrictedPosterior.of(KEY, whole, (Dense(whole, jnp.asarray(10.0)),))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: qx.Rounds(learner=qx.ALICES()), ValueError, "alices needs log_ratio and score|alices needs label"),
        (lambda: qx.Rounds(learner=qx.ALFI()), ValueError, "alfi closes in by itself"),
        (lambda: qx.Rounds(learner=qx.NLE()), ValueError, r"give proposal=qx.PosteriorProposal\(\)"),
        (lambda: qx.Rounds(learner=qx.Zoom()), TypeError, "expected a method that trains, such as qx.NPE"),
        (lambda: qx.Rounds(proposal="truncated"), TypeError, r"expected one such as qx.TruncatedProposal\(\), got str"),
        (lambda: qx.Rounds(before=qx.NPE()), TypeError, "before: expected a search such as qx.ABC"),
        (lambda: qx.Rounds(before=qx.ABC(), proposal=qx.WeightedProposal()), ValueError, "give proposal=qx.Trunc"),
        (lambda: qx.Rounds(number=0), ValueError, "number must be at least 1"),
        (lambda: qx.SNPEC(atoms=1), ValueError, "atoms must be from 2 to batch_size"),
        (
            lambda: qx.infer(KEY, sharp, [2.0], qx.TSNPE(), num_simulations=300, progress=QUIET),
            ValueError,
            "make 60 sets of 1 in each of 5 rounds; give at least 500, or fewer rounds",
        ),
    ],
)
def test_misuse_is_told(make, error, message):
    with pytest.raises(error, match=message):
        made = make()
        _ = (made.then or made.learner).loss
