"""What gold is worth: latent noise, information and effective sample size against simulators where they are known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from quincunx.core.prior import Prior
from quincunx.gold.mined import mined_simulator
from quincunx.gold.quality import MOST_DIMENSIONS, gold_quality, latent_noise
from quincunx.gold.reference import MarginalReference, PairReference, PointReference
from quincunx.sample.black_box import simulator

KEY = jax.random.key(20_180_530)
RNG = np.random.default_rng(3)
MEAN, UNIT = Prior(mean=dist.Normal(0, 3)), Prior(mean=dist.Uniform(0, 1))


def chain(noise, shape=(), factor=1.0):
    """z ~ N(mean, 1), x = z + noise, in `shape`, or noise alone where factor is 0."""

    @mined_simulator(MEAN, joint_log_prob=lambda theta, x, z: -0.5 * (z - theta["mean"]) ** 2, name="chain")
    def draw(key, theta):
        first, second = jax.random.split(key)
        z = theta["mean"] + jax.random.normal(first)
        return factor * z + noise * jax.random.normal(second, shape), z

    return draw


# Shares of variance from 4,000 rows have a standard error of about 2 / sqrt(4000) = 3.2 % of themselves; the
# allowance is 5 of them (a false alarm in 1.7 million each, and the keys are fixed).


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_noise_of_a_gaussian_chain(noise):
    """log r and t are linear in z, and Var(z | x) = noise^2 / (1 + noise^2)."""
    quality = gold_quality(KEY, chain(noise), [[0.0], [0.5]], reference=PointReference([0.2]), num_simulations=4000)
    share = noise**2 / (1 + noise**2)
    np.testing.assert_allclose(quality.score_noise, share, rtol=0.16)
    np.testing.assert_allclose(quality.ratio_noise, share, rtol=0.16)
    # E[t^2] = Var(z) = 1, with a standard error of sqrt(2 / 4000) = 2.2 %
    np.testing.assert_allclose(quality.information, 1.0, rtol=0.11)
    # E[r^2] under the reference is exp(distance^2), with standard errors below 1 % at these distances
    np.testing.assert_allclose(quality.effective, np.exp([-0.04, -0.09]), rtol=0.05)
    assert (np.abs(quality.score_offset) < 5).all()


def test_no_noise_where_x_is_the_path():
    quality = gold_quality(KEY, chain(0.0), [[0.0]], num_simulations=1000)
    assert quality.score_noise.item() < 1e-3
    assert quality.ratio_noise.item() < 0.01  # log r against a mixture is no quadratic of x
    assert "almost exact, use ALICE, ALICES and RASCAL" in " ".join(quality.advice)
    assert "'mean' is almost free of noise: use SALLY, CASCAL or SCANDAL" in " ".join(quality.advice)


def test_all_noise_where_x_says_nothing():
    quality = gold_quality(KEY, chain(1.0, factor=0.0), [[0.0]], num_simulations=4000)
    assert quality.score_noise.item() > 0.84
    assert quality.ratio_noise.item() > 0.84
    assert "'mean' is nearly all latent noise" in " ".join(quality.advice)
    assert "compare with CARL" in " ".join(quality.advice)


def test_noise_of_discrete_and_of_many_dimensional_x():
    """Neighbours with the same x: the noise within each of four values is 1, between them the variance is 5."""
    kind = RNG.integers(0, 4, 4000)
    gold = np.stack([2 * kind + RNG.normal(size=4000), RNG.normal(size=4000)], axis=1)
    np.testing.assert_allclose(latent_noise(kind, gold), [1 / 6, 1], rtol=0.16)
    np.testing.assert_allclose(latent_noise(np.zeros(4000), gold[:, 1:]), 1, rtol=0.16)
    x = RNG.normal(size=(4000, 3))
    curved = np.sum(np.sin(x), axis=1, keepdims=True) + 0.5 * RNG.normal(size=(4000, 1))
    np.testing.assert_allclose(latent_noise(x, curved), 0.25 / np.var(curved), rtol=0.25)  # an upper bound, see there
    assert np.isnan(latent_noise(RNG.normal(size=(200, MOST_DIMENSIONS + 1)), gold[:200])).all()
    assert np.isnan(latent_noise(kind, np.full((4000, 1), 0.1))).all()


def test_far_ratios_speak_against_squared_errors_and_for_a_mixture():
    far = gold_quality(KEY, chain(1.0), [[5.0]], reference=PointReference([0.0]), num_simulations=1000)
    assert far.effective.item() < 0.01
    assert "Leave ROLR and RASCAL" in " ".join(far.advice)
    assert "use a MarginalReference" in " ".join(far.advice)
    mixture = gold_quality(KEY, chain(1.0), [[5.0]], num_simulations=1000, reference=MarginalReference(pool_size=15))
    assert mixture.effective.item() > 1 / 16
    assert mixture.reference == "the mixture of 16 thetas"


def test_a_wrong_density_is_noticed():
    @mined_simulator(MEAN, joint_log_prob=lambda theta, x, z: -0.5 * (x - theta["mean"] - 0.3) ** 2)
    def shifted(key, theta):
        return theta["mean"] + jax.random.normal(key), None

    quality = gold_quality(KEY, shifted, [[0.0]], num_simulations=1000)
    assert quality.score_offset.item() < -5
    assert "the joint log-probability is not that of the draws" in quality.advice[0]


def test_a_parameter_without_effect_and_an_x_of_many_dimensions():
    prior = Prior(mean=dist.Normal(0, 1), spare=dist.Normal(0, 1))

    @mined_simulator(prior, joint_log_prob=lambda theta, x, z: -0.5 * jnp.sum((x - theta["mean"]) ** 2), name="wide")
    def wide(key, theta):
        return theta["mean"] + jax.random.normal(key, (MOST_DIMENSIONS + 1,)), None

    quality = gold_quality(KEY, wide, [[0.0, 0.0]], num_simulations=200)
    np.testing.assert_allclose(quality.information, [[6.0, 0.0]], rtol=0.5)
    assert np.isnan(quality.score_noise).all()
    assert sum("x has too many dimensions" in sentence for sentence in quality.advice) == 2


def test_the_record_as_a_table_and_as_json():
    quality = gold_quality(KEY, chain(1.0, shape=(6,)), [[0.0], [1.0]], num_simulations=200)
    data = json.loads(json.dumps(quality.to_dict()))
    assert data["columns"] == ["mean"]
    assert data["score_noise"] == [[None], [None]]
    assert data["advice"] == quality.advice
    np.testing.assert_allclose(data["information"], quality.information)
    lines = quality.table().splitlines()
    assert lines[0] == "chain: 200 simulations at each theta, ratios against the mixture of 258 thetas"
    assert lines[1].split()[:4] == ["theta", "ESS", "of", "r"]
    assert [line.split()[0] for line in lines[2:]] == ["mean=0", "mean=1"]
    assert lines[2].split()[-1] == "-"
    again = gold_quality(KEY, chain(1.0, shape=(6,)), [[0.0], [1.0]], num_simulations=200)
    np.testing.assert_array_equal(quality.effective, again.effective)


def broken_at(prior, log_prob, x=jnp.nan):
    return mined_simulator(prior, joint_log_prob=log_prob)(lambda key, theta: (x * theta["mean"], None))


@pytest.mark.parametrize(
    ("simulator", "theta", "options", "error", "message"),
    [
        (simulator(MEAN, name="box")(lambda key, t: t["mean"]), [[0.0]], {}, TypeError, "'box' gives no gold"),
        (chain(1.0), [[0.0]], {"reference": PairReference()}, TypeError, "or a PointReference, got PairReference"),
        (chain(1.0), [[0.0]], {"num_simulations": 10}, ValueError, "at least 100, got 10"),
        (chain(1.0), [0.0], {}, ValueError, r"expected shape \(n, 1\).*got \(1,\)"),
        (broken_at(UNIT, lambda theta, x, z: theta["mean"], 1.0), [[2.0]], {}, ValueError, "outside the support"),
        (broken_at(MEAN, lambda theta, x, z: theta["mean"]), [[0.0]], {"num_simulations": 200}, ValueError,
         "200 of 200 simulations failed; at least 100 must not"),
    ],
)  # fmt: skip
def test_misuse(simulator, theta, options, error, message):
    with pytest.raises(error, match=message):
        gold_quality(KEY, simulator, theta, **options)
