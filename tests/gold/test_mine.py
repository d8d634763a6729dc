"""`mine` and `contrast`: what stands against what, and the laws that gold obeys whatever the reference."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from chain import chain

import quincunx as qx

KEY = jax.random.key(7)
REFERENCES = {"point": qx.PointReference([0.3]), "pair": qx.PairReference(), "marginal": qx.MarginalReference(16)}
SIGMAS = 4.5  # 7e-6 of false alarms in each of nine comparisons


@pytest.fixture(scope="module")
def mined():
    return {name: qx.mine(KEY, chain, num_simulations=20_000, reference=ref) for name, ref in REFERENCES.items()}


@pytest.mark.parametrize("reference", REFERENCES)
def test_laws_of_gold(mined, reference):
    """E_ref[r] = 1, E_num[1 / r] = 1, E[t] = 0 where x was drawn."""
    sims = mined[reference]
    log_ratio, label = np.asarray(sims.log_ratio, np.float64), np.asarray(sims.label)
    ratio, inverse = np.exp(log_ratio[label == 0]), np.exp(-log_ratio[label == 1])
    for values in (ratio - 1, inverse - 1, np.asarray(sims.score, np.float64)[:, 0]):
        assert abs(values.mean()) < SIGMAS * values.std() / np.sqrt(len(values))


def test_rows_say_where_x_was_drawn(mined):
    for name, sims in mined.items():
        label = np.asarray(sims.label)[:, None]
        assert label.mean() == 0.5
        np.testing.assert_array_equal(np.where(label == 1, sims.drawn_from, 0), np.where(label == 1, sims.theta, 0))
        if name == "point":
            assert np.all(np.asarray(sims.drawn_from)[label[:, 0] == 0] == np.float32(0.3))
        if name == "pair":
            drawn = np.where(label == 1, sims.theta, sims.theta_reference)
            np.testing.assert_array_equal(sims.drawn_from, drawn)
    # x is drawn there: its mean follows source, with unit slope (standard error 0.014).
    sims = mined["marginal"]
    slope = np.polyfit(np.asarray(sims.drawn_from)[:, 0], np.asarray(sims.x)[:, 0], 1)[0]
    assert abs(slope - 1) < 0.07


def test_no_ratio_to_the_mixture_exceeds_the_size_of_its_pool(mined):
    sims = mined["marginal"]
    assert sims.reference.pool.shape == (16, 1)
    assert float(sims.log_ratio.max()) <= np.log(16) + 1e-5
    assert set(np.unique(sims.theta)) == set(np.asarray(sims.reference.pool).ravel())


def test_given_numerators_are_taken_in_turn():
    theta = np.array([[-0.5], [0.1], [0.6]])
    sims = qx.mine(KEY, chain, num_simulations=600, theta=theta, reference=REFERENCES["point"])
    values, counts = np.unique(np.asarray(sims.theta), return_counts=True)
    np.testing.assert_allclose(values, theta.ravel())
    assert counts.tolist() == [200, 200, 200]
    for value in values:  # as often as numerator as against the reference
        assert np.mean(np.asarray(sims.label)[np.asarray(sims.theta)[:, 0] == value]) == 0.5
    pool = qx.mine(KEY, chain, num_simulations=60, theta=theta).reference.pool
    np.testing.assert_allclose(pool, theta)


def test_fewer_rows_than_thetas_take_some_from_everywhere():
    theta = np.linspace(-0.9, 0.9, 400)[:, None]
    sims = qx.mine(KEY, chain, num_simulations=100, theta=theta, reference=REFERENCES["point"])
    assert np.ptp(np.asarray(sims.theta)) > 1.5  # 50 of 400, not the first 50


def test_the_same_key_gives_the_same_bits_and_another_does_not():
    first, again, other = (qx.mine(jax.random.key(k), chain, num_simulations=300) for k in (7, 7, 8))
    for field in ("theta", "x", "log_ratio", "score"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
        assert np.any(np.asarray(getattr(first, field)) != np.asarray(getattr(other, field)))


@pytest.mark.parametrize("chunk", [1, 64, 1 << 20])
def test_rows_belong_together_whatever_the_chunks(monkeypatch, chunk):
    monkeypatch.setattr(sys.modules["quincunx.sample.simulate"], "FEW", chunk)  # log-probabilities; 2 for each row
    sims = qx.mine(KEY, chain, num_simulations=60, reference=REFERENCES["point"])
    theta, at, score = (np.asarray(each, np.float64)[:, 0] for each in (sims.theta, sims.drawn_from, sims.score))
    # z = score + the mean it was drawn at, and log r = (theta - 0.3) (z - (theta + 0.3) / 2).
    np.testing.assert_allclose(sims.log_ratio, (theta - 0.3) * (score + at - (theta + 0.3) / 2), atol=1e-5)
    noise = np.asarray(sims.x)[:, 0] - score - at
    assert len(np.unique(noise)) == 60 and abs(noise).max() < 6 * 0.5  # 6 sigma: 1e-7 of false alarms


def _log_prob(theta, x, z):
    return jnp.where(z > 2.0, jnp.nan, dist.Normal(theta["mean"], 1.0).log_prob(z))


@qx.mined_simulator(qx.Prior(mean=dist.Uniform(-1, 1)), joint_log_prob=_log_prob)
def breaks(key, theta):
    z = theta["mean"] + jax.random.normal(key)
    return jnp.where(z < -2.0, jnp.inf, z), z


in_numpy = dataclasses.replace(breaks, joint_log_prob=lambda theta, x, z: np.sin(theta["mean"]))


def test_failed_rows_are_dropped_counted_and_explained():
    sims = qx.mine(KEY, breaks, num_simulations=2000)
    reasons = {failure.reason for failure in sims.failures}
    assert len(sims) + len(sims.failures) == 2000 and len(reasons) == 2
    assert any("joint log-probability or its gradient" in reason for reason in reasons)
    for field in ("x", "log_ratio", "score"):
        assert np.isfinite(np.asarray(getattr(sims, field))).all()
    row = sims.failures[0].row
    whole = qx.mine(KEY, dataclasses.replace(breaks, joint_log_prob=lambda t, x, z: 0.0 * z), num_simulations=2000)
    assert abs(sims.failures[0].theta["mean"]) <= 1 and row < 2000
    assert len(whole.failures) < len(sims.failures)  # only those with x infinite


def test_contrast_gives_labels_without_gold():
    sims = qx.contrast(KEY, qx.problems.weinberg, num_simulations=300, reference=qx.PointReference([45.0, 1.0]))
    assert sims.log_ratio is None and sims.score is None
    at = np.where(np.asarray(sims.label)[:, None] == 1, sims.theta, np.float32([45.0, 1.0]))
    np.testing.assert_array_equal(sims.drawn_from, at)
    assert len(np.unique(qx.contrast(KEY, chain, num_simulations=300).drawn_from)) == 300  # a theta for every row


def test_numerators_by_name():
    sims = qx.mine(KEY, chain, num_simulations=20, theta={"mean": [0.1, 0.2]}, reference=None)
    np.testing.assert_array_equal(np.unique(sims.theta), np.float32([0.1, 0.2]))
    assert sims.log_ratio is None and sims.label is None and sims.reference is None


@pytest.mark.parametrize(
    ("call", "error", "complaint"),
    [
        (lambda: qx.mine(KEY, qx.problems.poisson, num_simulations=9), TypeError, "black box and gives no gold"),
        (lambda: qx.mine(KEY, chain, num_simulations=1), ValueError, "at least 2"),
        (lambda: qx.mine(KEY, chain, num_simulations=9, theta=[[2.0]]), ValueError, "parameter 'mean': 2 is outside"),
        (lambda: qx.mine(KEY, chain, num_simulations=9, theta=[0.1]), ValueError, r"expected shape \(n, 1\)"),
        (
            lambda: qx.mine(KEY, chain, num_simulations=9, reference=qx.PointReference([0.1, 0.2])),
            ValueError,
            r"the theta of a PointReference: expected .*\(n, 1\)",
        ),
        (
            lambda: qx.mine(KEY, chain, num_simulations=9, reference=qx.PointReference([3.0])),
            ValueError,
            "parameter 'mean': 3 is outside",
        ),
        (
            lambda: qx.mine(KEY, chain, num_simulations=9, reference=qx.MarginalReference(1)),
            ValueError,
            "pool_size must be at least 2",
        ),
        (lambda: qx.mine(KEY, chain, num_simulations=9, theta=[[0.1]]), ValueError, "a mixture needs at least 2"),
        (lambda: qx.mine(KEY, chain, num_simulations=9), ValueError, "fewer than the 256 thetas"),
        (
            lambda: qx.mine(KEY, chain, num_simulations=9, theta=[[0.1]], reference=qx.PairReference()),
            ValueError,
            "pairs need at least 2",
        ),
        (lambda: qx.contrast(KEY, chain, num_simulations=9, reference=None), TypeError, "reference: expected Point"),
        (lambda: qx.mine(KEY, in_numpy, num_simulations=9, reference=None), TypeError, "'breaks' calls NumPy"),
    ],
)
def test_misuse_is_named(call, error, complaint):
    with pytest.raises(error, match=complaint):
        call()


def test_most_rows_failing_is_an_error():
    hopeless = dataclasses.replace(breaks, joint_log_prob=lambda theta, x, z: jnp.nan * z)
    with pytest.raises(qx.SimulationError, match="more than half"):
        qx.mine(KEY, hopeless, num_simulations=300)
