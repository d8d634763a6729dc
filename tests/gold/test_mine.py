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


@pytest.mark.parametrize("reference", REFERENCES)
def test_rows_say_where_x_was_drawn(mined, reference):
    sims = mined[reference]
    label, theta, at = (np.asarray(each) for each in (sims.label, sims.theta, sims.drawn_from))
    assert label.mean() == 0.5
    np.testing.assert_array_equal(at[label == 1], theta[label == 1])
    if reference != "marginal":
        denominator = np.float32(0.3) if reference == "point" else np.asarray(sims.theta_reference)[label == 0]
        np.testing.assert_array_equal(at[label == 0], np.broadcast_to(denominator, at[label == 0].shape))
    else:  # no ratio to the mixture exceeds the size of its pool
        assert sims.reference.pool.shape == (16, 1)
        assert set(np.unique(theta)) == set(np.unique(at)) == set(np.asarray(sims.reference.pool).ravel())
        assert float(sims.log_ratio.max()) <= np.log(16) + 1e-5
    # x is drawn there: its mean follows, with unit slope (standard error 0.014).
    assert abs(np.polyfit(at[:, 0], np.asarray(sims.x)[:, 0], 1)[0] - 1) < 0.07


def test_given_numerators_are_taken_in_turn():
    theta = np.array([[-0.5], [0.1], [0.6]])
    sims = qx.mine(KEY, chain, num_simulations=600, theta=theta, reference=REFERENCES["point"])
    values, counts = np.unique(np.asarray(sims.theta), return_counts=True)
    np.testing.assert_allclose(values, theta.ravel())
    assert counts.tolist() == [200, 200, 200]
    for value in values:  # as often as numerator as against the reference
        assert np.mean(np.asarray(sims.label)[np.asarray(sims.theta)[:, 0] == value]) == 0.5
    np.testing.assert_allclose(qx.mine(KEY, chain, num_simulations=60, theta=theta).reference.pool, theta)
    many = np.linspace(-0.9, 0.9, 400)[:, None]  # fewer rows than thetas take some from everywhere: 50, not the first
    assert np.ptp(qx.mine(KEY, chain, num_simulations=100, theta=many, reference=REFERENCES["point"]).theta) > 1.5


def test_numerators_by_name():
    sims = qx.mine(KEY, chain, num_simulations=20, theta={"mean": [0.1, 0.2]}, reference=None)
    np.testing.assert_array_equal(np.unique(sims.theta), np.float32([0.1, 0.2]))
    assert sims.log_ratio is None and sims.label is None and sims.reference is None


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


def with_log_prob(joint_log_prob):
    return dataclasses.replace(breaks, joint_log_prob=joint_log_prob)


def test_failed_rows_are_dropped_counted_and_explained():
    sims = qx.mine(KEY, breaks, num_simulations=2000)
    reasons = {failure.reason for failure in sims.failures}
    assert len(sims) + len(sims.failures) == 2000 and len(reasons) == 2
    assert any("joint log-probability or its gradient" in reason for reason in reasons)
    assert all(np.isfinite(np.asarray(getattr(sims, field))).all() for field in ("x", "log_ratio", "score"))
    assert abs(sims.failures[0].theta["mean"]) <= 1
    infinite = qx.mine(KEY, with_log_prob(lambda t, x, z: 0.0 * z), num_simulations=2000).failures
    assert 0 < len(infinite) < len(sims.failures)  # only those of x
    with pytest.raises(qx.SimulationError, match="300 of 300 simulations by 'breaks' failed, more than half"):
        qx.mine(KEY, with_log_prob(lambda theta, x, z: jnp.nan * z), num_simulations=300)


def test_contrast_gives_labels_without_gold():
    sims = qx.contrast(KEY, qx.problems.weinberg, num_simulations=300, reference=qx.PointReference([45.0, 1.0]))
    assert sims.log_ratio is None and sims.score is None
    at = np.where(np.asarray(sims.label)[:, None] == 1, sims.theta, np.float32([45.0, 1.0]))
    np.testing.assert_array_equal(sims.drawn_from, at)
    assert len(np.unique(qx.contrast(KEY, chain, num_simulations=300).drawn_from)) == 300  # a theta for every row


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_simulations": 1}, "at least 2"),
        ({"theta": [[2.0]]}, "parameter 'mean': 2 is outside"),
        ({"theta": [0.1]}, r"expected shape \(n, 1\)"),
        ({"reference": qx.PointReference([0.1, 0.2])}, r"the theta of a PointReference: expected .*\(n, 1\)"),
        ({"reference": qx.PointReference([3.0])}, "parameter 'mean': 3 is outside"),
        ({"reference": qx.MarginalReference(1)}, "pool_size must be at least 2"),
        ({"theta": [[0.1]]}, "a mixture needs at least 2"),
        ({}, "fewer than the 256 thetas"),
        ({"theta": [[0.1]], "reference": qx.PairReference()}, "pairs need at least 2"),
    ],
)
def test_misuse_is_named(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        qx.mine(KEY, chain, **{"num_simulations": 9, **options})


@pytest.mark.parametrize(
    ("verb", "simulator", "complaint"),
    [
        (qx.mine, qx.problems.poisson, "black box and gives no gold"),
        (qx.mine, with_log_prob(lambda theta, x, z: np.sin(theta["mean"])), "'breaks' calls NumPy"),
        (qx.contrast, chain, "reference: expected Point"),
    ],
)
def test_misuse_of_types_is_named(verb, simulator, complaint):
    with pytest.raises(TypeError, match=complaint):
        verb(KEY, simulator, num_simulations=9, reference=None)
