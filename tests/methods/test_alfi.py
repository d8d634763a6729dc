"""The recurrent machine: its parts against truth, and the laws that a trained one keeps."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import quincunx as qx
from quincunx.answers.bayes.space import Gaussian
from quincunx.methods.method import Budget
from quincunx.methods.nets import set_encoder
from quincunx.methods.nets.lens import Warp
from quincunx.methods.nets.moments import gaussian_fit
from quincunx.methods.nets.widths import Calibration, covered
from quincunx.methods.recurrent import alfi, sizes
from quincunx.methods.recurrent.machine import trajectories
from quincunx.methods.recurrent.supply import BankSupply

PRIOR = qx.Prior(mean=dist.Normal(0, 2), log_spread=dist.Uniform(-1, 1))


@qx.simulator(PRIOR)
def bell(key, theta):
    return theta["mean"] + jnp.exp(theta["log_spread"]) * jax.random.normal(key)


@qx.simulator(PRIOR, name="other")
def other(key, theta):
    return theta["mean"] + jnp.exp(theta["log_spread"]) * jax.random.normal(key)


KEY = jax.random.key(0)
METHOD = qx.ALFI(
    network=qx.Machine(num_iterations=8, width=32, memory=16),
    num_observations=40, max_observations=200, batch_size=256, num_problems=32, max_draws=3000,
)  # fmt: skip
TRAINING = qx.Training(num_steps=60, learning_rate=1e-3)


@pytest.fixture(scope="module")
def sims():
    return METHOD.gather(KEY, bell, Budget(60_000), qx.NoProgress())


@pytest.fixture(scope="module")
def machine(sims):
    return qx.train(KEY, bell, METHOD, sims=sims, training=TRAINING).value


def drawn(seed, count, theta=None):
    """One data set."""
    at = {"num_simulations": 1} if theta is None else {"theta": np.array([theta])}
    return qx.simulate(jax.random.key(seed), bell, num_observations=count, **at).x[0]


# -- parts -----------------------------------------------------------------------------------------


def test_gaussian_fit_is_least_squares_even_at_steep_slopes():
    rng = np.random.default_rng(0)
    for slope in (0.5, 30.0, 1000.0):
        x = rng.uniform(-1, 1, 200)
        y = slope * x + 0.3 + 0.1 * rng.normal(size=200)
        expected, residual, *_ = np.linalg.lstsq(np.stack([x, np.ones(200)], 1), y, rcond=None)
        fitted = np.asarray(jax.jit(gaussian_fit)(jnp.stack([x, y], 1).astype(jnp.float32), jnp.ones(200)))
        # means (2), intercepts (2), coefficients (x on y, y on x), log residual spreads (2)
        assert fitted[5] == pytest.approx(expected[0], rel=2e-4)
        assert fitted[3] == pytest.approx(expected[1], abs=2e-3)
        assert np.exp(fitted[7]) == pytest.approx(np.sqrt(residual[0] / 200), rel=0.02)


def test_gaussian_fit_counts_only_weighted_rows():
    x, fit = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32), jax.jit(gaussian_fit)
    weight = np.repeat([1.0, 0.0], [20, 30]).astype(np.float32)
    np.testing.assert_allclose(fit(x, weight), fit(x[:20], weight[:20]), rtol=1e-3, atol=1e-4)
    assert np.abs(fit(x, weight) - fit(x, np.ones(50, np.float32))).max() > 0.1


def test_encoder_ignores_order_and_masked_observations(sims, machine):
    x, encoder = np.asarray(sims[0].x[0]), eqx.filter_jit(machine.encoder)
    encode = lambda x, weight=None: jax.tree.map(
        lambda each: each[0], encoder(x[None], None if weight is None else weight[None])
    )
    whole = encode(x)
    for a, b in zip(whole, encode(x[::-1]), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)
    masked = encode(np.append(x, np.full(30, 1e3, np.float32)), np.repeat([1.0, 0.0], [40, 30]))
    np.testing.assert_allclose(masked.features, whole.features, atol=2e-4)
    assert whole.features.shape == (machine.encoder.num_features,)
    assert np.abs(whole.features - encode(2 * x).features).max() > 0.1


def test_the_gradient_of_a_large_set_is_right_on_average(machine, monkeypatch):
    m, repeats = 201, 300
    x = np.random.default_rng(0).normal(size=m).astype(np.float32)
    shuffled = np.stack([np.random.default_rng(seed).permutation(x) for seed in range(repeats)])

    def gradients(x):
        told = lambda weight, one: jnp.sum(jnp.tanh(replaced(weight)(one[None]).features[0, :32]) * np.arange(-16, 16))
        replaced = lambda weight: eqx.tree_at(lambda e: e.hidden.weight, machine.encoder, weight)
        return np.asarray(jax.lax.map(lambda one: jax.grad(told)(machine.encoder.hidden.weight, one), x))

    few = gradients(shuffled)
    one = jnp.asarray(x[None])
    value = machine.encoder(one).features
    monkeypatch.setattr(set_encoder, "LARGE", m)
    (whole,), error = gradients(one), few.std(axis=0) / np.sqrt(repeats)
    np.testing.assert_allclose(value, machine.encoder(one).features, atol=1e-5)  # only the gradient is estimated
    assert (few.std(axis=0) > 0).any()
    # 128 weights: 5 standard errors and rounding are exceeded by chance in fewer than one run in ten thousand.
    assert (np.abs(few.mean(axis=0) - whole) < 5 * error + 1e-5).all()


def test_the_regression_summary_is_near_the_posterior_mean_in_the_bulk(machine):
    fresh = qx.simulate(jax.random.key(1), bell, num_simulations=400, num_observations=40)
    found = eqx.filter_jit(lambda m, x: m.space.decode(m.encoder(x).mean))(machine, fresh.x)
    x = np.asarray(fresh.x)
    naive = np.stack([x.mean(1), np.clip(np.log(x.std(1)), -1, 1)], 1)
    middle = lambda estimate: np.median(np.abs(np.asarray(estimate) - np.asarray(fresh.theta)), axis=0)
    # The sample moments are near-optimal here. 400 problems give each ratio a standard error near 0.06. In the tails
    # of an unbounded prior the regression is worse, and the network has to mend it: medians, not means of squares.
    assert (middle(found) <= 1.3 * middle(naive)).all()


def test_warp_keeps_resolution_from_ones_to_thousands():
    counts = np.exp(np.random.default_rng(0).uniform(0, 7, (5000, 1))).round()
    warp = Warp.of(counts)
    features = np.asarray(eqx.filter_jit(warp)(jnp.array([[1.0], [2.0], [1000.0], [2000.0], [1e9]])))
    gaps = np.abs(np.diff(features, axis=0)).max(axis=1)
    assert np.isfinite(features).all() and (gaps[[0, 2]] > 0.1).all()


@pytest.mark.parametrize("full", [False, True])
def test_gaussian_log_prob_and_gradient(full):
    d = 3

    @jax.jit
    def values(psi, u):
        proposal = Gaussian.of(psi, d)
        exact = jax.vmap(jax.grad(lambda p, v: Gaussian.of(p, d).log_prob(v)), (None, 0))(psi, u)
        back = proposal.at(proposal.standard(u))
        return proposal, proposal.root, proposal.log_prob(u), back, proposal.gradient(u), exact

    rng = np.random.default_rng(0)
    psi, u = 0.3 * rng.normal(size=Gaussian.num_parameters(d, full)), rng.normal(size=(5, d))
    proposal, root, log_prob, back, gradient, exact = values(psi.astype(np.float32), u.astype(np.float32))
    cholesky = np.diag(proposal.scale) @ root
    expected = stats.multivariate_normal(proposal.mean, cholesky @ cholesky.T).logpdf(u)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4)
    np.testing.assert_allclose(back, u, atol=1e-5)
    if not full:
        units = np.concatenate([proposal.scale, np.ones(d)])
        np.testing.assert_allclose(gradient, exact * units, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        (alfi.LastWeighting(), [0, 0, 0, 1]),
        (alfi.ConstantWeighting(), [1, 1, 1, 1]),
        (alfi.SettledWeighting(first=3), [0, 0, 1, 1]),
        (alfi.ExponentialWeighting(beta=3.0), np.expm1(3 * np.array([0.25, 0.5, 0.75, 1])) / np.expm1(3)),
    ],
)
def test_weightings(weighting, expected):
    np.testing.assert_allclose(weighting(4), expected)


@pytest.mark.parametrize("loss", [alfi.NegativeLogLikelihood(), alfi.MeanSquaredError()])
def test_partial_losses_are_least_at_the_truth(loss):
    at = lambda mean: loss(Gaussian.of(jnp.concatenate([mean, jnp.zeros(2)]), 2), jnp.array([0.3, -1.0]))
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(at)))(jnp.array([[0.3, -1.0], [0.4, -0.9]]))
    assert np.abs(slopes[0]).max() < 1e-6
    assert values[1] > values[0]


def test_bank_draws_follow_the_proposal_not_the_prior(machine):
    target = Gaussian(jnp.array([0.5, -0.4]), jnp.array([0.3, 0.3]), jnp.zeros(0))

    @eqx.filter_jit
    def draw(machine, theta):
        u = machine.space.encode(theta)
        bank = BankSupply(u, jnp.exp(-machine.space.log_prior(u)), jnp.zeros((4000, 1)))
        return bank.draw(machine, KEY, jax.tree.map(lambda each: jnp.broadcast_to(each, (200, *each.shape)), target))[0]

    draws = np.asarray(draw(machine, PRIOR.sample(jax.random.key(3), 4000))).reshape(-1, 2)
    # The kernel's tails are heavier than the normal's: its spread is up to 15 % larger, its centre is the same.
    np.testing.assert_allclose(draws.mean(0), target.mean, atol=0.05)
    np.testing.assert_allclose(draws.std(0), target.scale, rtol=0.2)


# -- the machine -----------------------------------------------------------------------------------


def test_a_trained_machine_is_near_the_truth_and_covers_it(machine):
    fresh = qx.simulate(jax.random.key(5), bell, num_simulations=300, num_observations=40)
    psi = trajectories(machine.with_bank(), jax.random.key(6), fresh.x)[:, -1]
    interval = lambda m, psi: jax.vmap(lambda one: qx.MixturePosterior(m.space, one[None]).interval(0.95))(psi)
    ends, theta = np.asarray(eqx.filter_jit(interval)(machine, psi)), np.asarray(fresh.theta)
    inside = (ends[:, 0] <= theta) & (theta <= ends[:, 1])
    # 300 problems: an exact 95 % interval falls below 0.89 by chance less than once in 10,000.
    assert (inside.mean(0) > 0.89).all()


def test_the_bank_asks_nothing_of_the_simulator(machine):
    x = drawn(7, 60, [1.0, 0.2])
    live, banked = qx.run(KEY, machine.with_simulator(), x), qx.run(KEY, machine, x)
    assert live.statistics == {"num_observations": 60, "num_iterations": 8, "num_simulator_calls": 8 * 10 * 20}
    assert banked.statistics == {**live.statistics, "num_simulator_calls": 0}
    assert live.history["mean"].shape == (8, 2)
    for solution in (live, banked):
        assert abs(float(solution.value.mean[0]) - float(x.mean())) < 0.3


def test_marginalising_over_initial_proposals_gives_a_mixture(machine):
    x = drawn(7, 60, [1.0, 0.2])
    mixture = machine.with_bank().marginalise(KEY, x, num_proposals=20)
    single = qx.run(KEY, machine.with_bank(), x).value
    assert mixture.psi.shape == (20, *single.psi.shape[1:])
    np.testing.assert_allclose(mixture.mean, single.mean, atol=0.2)


def test_proposals_never_leave_the_support_and_integrate_to_one(machine):
    psi = jnp.array([[0.0, 1.0, 0.0, -0.5]])
    proposal = qx.MixturePosterior(machine.space, psi)
    assert bool(PRIOR.contains(proposal.sample(KEY, 2000)).all())
    # Importance sampling from the prior widened to three times its spread: its own error is below 1 %.
    wide = dist.Normal(0, 6).sample(KEY, (200_000,)), jax.random.uniform(jax.random.key(1), (200_000,), minval=-1.0)
    weight = proposal.log_prob(jnp.stack(wide, -1)) - dist.Normal(0, 6).log_prob(wide[0]) + jnp.log(2.0)
    assert float(jnp.mean(jnp.exp(weight))) == pytest.approx(1, abs=0.03)
    assert proposal.log_prob(jnp.array([0.0, 1.5])) == -jnp.inf
    draws = np.asarray(proposal.sample(jax.random.key(9), 20_000))
    # Standard errors of the mean are 1/140 of the spread: 5 of them are crossed once in a million.
    np.testing.assert_array_less(np.abs(draws.mean(0) - proposal.mean), 5 * np.asarray(proposal.std) / 140)


def test_warnings_for_data_unlike_any_simulated_and_counts_unlike_any_trained(machine):
    usual = drawn(11, 40)
    assert machine.doubts(usual) == ()
    (far,) = machine.doubts(1000.0 + usual)
    assert "far from anything simulated" in far
    (many,) = machine.doubts(drawn(12, 900))
    assert "900 observations: the machine was trained well for 10 to 40 (with 300 simulated sets or more)" in many
    posterior = qx.posterior(machine, 1000.0 + usual)
    assert posterior.warnings == (far,)


def test_full_covariance_and_live_training_share_the_code_path(sims):
    method = dataclasses.replace(
        METHOD, network=qx.Machine(num_iterations=4, width=16, memory=8, full_covariance=True), live=True,
        batch_size=128, num_problems=8, weighting=qx.ExponentialWeighting(),
    )  # fmt: skip
    solution = qx.train(KEY, bell, method, sims=sims[0], training=qx.Training(num_steps=20))
    assert solution.ok
    assert solution.value.shape.bandwidth == 0
    runs = 8 * solution.statistics["num_steps"] + solution.statistics["num_calibration_sets"]
    sets = sizes.calibration_sizes(Budget(method.card.num_simulations), sims[0].num_observations)
    fresh = sum(size * count for size, count in sets.items())
    made = sims[0].num_simulator_calls + fresh + runs * 4 * 10 * 20
    assert solution.statistics["num_simulator_calls"] == made
    assert qx.posterior(solution.value, sims[0].x[0]).psi.shape == (1, 5)


def test_the_layout_keeps_to_the_budget():
    gather = lambda budget, **sizes: qx.ALFI(**sizes).gather(KEY, bell, Budget(budget), qx.NoProgress())
    sims = gather(30_000, num_observations=100, max_observations=1000)
    assert [part.num_observations for part in sims] == [100, 500]  # of 1,000 there would be six sets
    calibrating = sizes.calibration_sizes(Budget(30_000), 1000)
    assert max(calibrating) == 1000
    fresh = sum(size * count for size, count in calibrating.items())
    assert 0.95 * 30_000 < sum(part.num_simulator_calls for part in sims) + fresh <= 30_000
    sims = gather(100_000, num_observations=100, max_observations=1000)
    assert [part.num_observations for part in sims] == [100, 500, 1000]
    (single,) = gather(5000, num_observations=100, max_observations=100)
    assert single.x.shape == (50, 100)  # too few for calibration


SIZES = [(None, (100, 3000)), (12, (12, 12)), (100, (100, 115)), (2000, (100, 2300))]


@pytest.mark.parametrize(("count", "expected"), SIZES)
def test_sets_are_laid_out_for_the_data_at_hand(count, expected):
    """Small sets, of which there are many, and some 15 % larger than the data; of few observations just as many."""
    assert sizes.sizes_for(count) == expected


def test_widths_are_calibrated():
    """A machine whose widths are made four times too narrow gets them back: by the median of its corrections.

    At 1,000 calibration sets of a normal error, the log of the scale is known to within 2 %; it is beyond 15 % of log 4
    with a chance below 1e-6.
    """
    rng = np.random.default_rng(0)
    psi = np.column_stack([rng.normal(size=(1000, 2)), np.full((1000, 2), -2.0)])
    u = psi[:, :2] + 0.3 * np.exp(-2) + 4 * np.exp(-2) * rng.normal(size=(1000, 2))
    count = rng.choice([10.0, 100.0, 1000.0], 1000)
    found, crossed = Calibration.of(psi, count, u)
    mended = np.asarray(jax.vmap(found)(jnp.asarray(psi), jnp.asarray(count)))
    widened = np.median(mended[:, 2:] - psi[:, 2:], axis=0)
    assert np.all(np.abs(widened - np.log(4)) < 0.1)
    assert np.all(np.abs(covered(crossed, u) - covered(mended, u)) < 0.03)
    assert np.all(covered(psi, u) < 0.5)
    narrow = np.column_stack([psi[:, :2], psi[:, 2:] + np.log(3)])  # within what is corrected
    again = np.asarray(jax.vmap(Calibration.of(narrow, count, u)[0])(jnp.asarray(narrow), jnp.asarray(count)))
    # 1,000 sets: a standard error of .7 %
    assert np.all(np.abs(covered(again, u) - 0.95) < 0.035)


# -- misuse ----------------------------------------------------------------------------------------


def test_a_machine_refuses_what_it_was_not_made_for(machine, sims):
    loss = METHOD.loss
    with pytest.raises(ValueError, match=r"trained for the simulator 'bell'.*not for 'other'"):
        machine.with_simulator(other)
    with pytest.raises(ValueError, match="not for 'other'"):
        qx.fit(KEY, machine, loss, qx.simulate(KEY, other, num_simulations=100, num_observations=40))
    with pytest.raises(ValueError, match="trains a RecurrentMachine, got SetEncoder"):
        qx.fit(KEY, machine.encoder, loss, sims)
    with pytest.raises(ValueError, match="too few to meta-train"):
        qx.fit(KEY, machine, loss, sims[0][:20])
    with pytest.raises(ValueError, match="num_iterations must be at least 1"):
        qx.run(KEY, machine, sims[0].x[0], num_iterations=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: qx.ALFI(max_observations=0), "max_observations must be at least 1"),
        (lambda: qx.ALFI(num_problems=0), "num_problems must be at least 1"),
        (lambda: qx.Machine(num_iterations=0), "num_iterations must be at least 1"),
        (lambda: qx.Machine(clip=0.0), "clip must be positive"),
        (lambda: qx.Machine(bandwidth=-1.0), "bandwidth must not be negative"),
        (lambda: qx.ExponentialWeighting(0.0), "beta must be positive"),
    ],
)
def test_numbers_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()
