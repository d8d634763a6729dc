"""What the machine sees: of vectors, sequences and images, and through a network of the user's own."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import quincunx as qx
from quincunx.methods.local.statistics import statistics_for
from quincunx.methods.nets.encoder import as_encoder, encoder_for
from quincunx.methods.nets.lens import Picture, Spectra, periodogram, sine_power
from quincunx.methods.nets.moments import correlations
from quincunx.methods.nets.set_encoder import SetEncoder

KEY = jax.random.key(0)
PRIOR = qx.Prior(a=dist.Uniform(-0.9, 0.9))
SMALL = {"num_observations": 10, "max_observations": 10, "batch_size": 64, "num_problems": 16}
NET = qx.Machine(num_iterations=3, num_proposed=4, num_simulated=5, width=16, memory=8)


@qx.simulator(PRIOR)
def series(key, theta):
    """A moving average of order one: its components alone say nothing of the sign of a."""
    e = jax.random.normal(key, (41,))
    return (e[1:] + theta["a"] * e[:-1]) / jnp.sqrt(1 + theta["a"] ** 2)


@qx.simulator(PRIOR)
def stripes(key, theta):
    """An image whose rows are alike if a > 0, and opposite if a < 0."""
    e = jax.random.normal(key, (9, 8))
    return (e[1:] + theta["a"] * e[:-1]) / jnp.sqrt(1 + theta["a"] ** 2)


@qx.simulator(qx.Prior(edge=dist.Uniform(1.0, 3.0)))
def hidden_edge(key, theta):
    """A uniform component whose upper edge is the parameter, turned away from all axes."""
    z = jax.random.uniform(key, (3,)) * jnp.array([1.0, 1.0, 1.0])
    z = z.at[0].mul(theta["edge"] + 2).at[0].add(-2.0).at[1:].add(-0.5)
    turn = jnp.linalg.qr(jnp.array([[1.0, 0.3, -0.2], [0.4, 1.0, 0.5], [0.1, -0.6, 1.0]]))[0]
    return turn @ (z * jnp.array([1.0, 8.0, 8.0]))


class Products(eqx.Module):
    """Mean products of neighbours, and then a layer that is trained."""

    layer: eqx.nn.Linear

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layer(jnp.stack([jnp.mean(x[1:] * x[:-1]), jnp.mean(x * x)]))


def summary_error(simulator, encoder=None, num_simulations=1500, count=10) -> float:
    """RMSE of the encoder's first estimate on fresh sets, in standard deviations of the prior."""
    sims = qx.simulate(KEY, simulator, num_simulations=num_simulations, num_observations=count)
    fresh = qx.simulate(jax.random.key(1), simulator, num_simulations=200, num_observations=count)
    like = as_encoder(encoder, simulator.event_shape)
    made = NET.make(KEY, sims, like).encoder
    found = eqx.filter_jit(lambda e, x: e(x).mean)(made, fresh.x)
    from quincunx.answers.bayes.space import Space

    theta = Space.of(sims.prior, sims.theta).decode(found)
    return float(np.sqrt(np.mean((np.asarray(theta) - np.asarray(fresh.theta)) ** 2)) / np.asarray(sims.theta).std())


@pytest.mark.parametrize("event", [(), (1,), (5,), (32,), (33,), (400,), (8, 8), (8, 8, 3)])
def test_the_default_goes_by_the_shape_and_zoom_sees_the_same_kind(event):
    kind = encoder_for(event).in_words().split(":")[0]
    x = np.random.default_rng(0).normal(size=(6, 10, *event))
    assert statistics_for(x).in_words.split(":")[0] == kind


def test_sequences_are_told_apart_by_their_spectrum():
    # 10 series of 40 give a to about .05; a machine that sees components alone is left with the prior.
    assert summary_error(series) < 0.25 < 0.8 < summary_error(series, qx.VectorEncoder())


def test_images_are_told_apart_by_their_spectrum():
    assert summary_error(stripes) < 0.5


def test_extremes_along_learnt_directions_find_a_hidden_edge():
    assert summary_error(hidden_edge, count=40) < 0.35


@pytest.mark.parametrize(
    ("simulator", "encoder", "words"),
    [
        (series, None, "a sequence: log spectra"),
        pytest.param(series, qx.VectorEncoder(), "numbers: warped", marks=pytest.mark.slow),
        (series, Products(eqx.nn.Linear(2, 4, key=KEY)), "a network of your own, Products"),
        (stripes, None, "a convolutional network"),
        pytest.param(stripes, qx.ImageEncoder(channels=(4,)), "a convolutional network", marks=pytest.mark.slow),
        pytest.param(stripes, qx.SequenceEncoder(), "a sequence: log spectra", marks=pytest.mark.slow),
    ],
)
def test_a_machine_is_trained_with_it_and_says_so(simulator, encoder, words):
    method = qx.ALFI(network=NET, encoder=encoder, **SMALL)
    solution = qx.train(KEY, simulator, method, num_simulations=3000, training=qx.Training(num_steps=30))
    assert words in solution.notes[0]
    x = qx.simulate(KEY, simulator, num_simulations=1, num_observations=10).x[0]
    found = qx.infer(KEY, simulator, x, estimator=solution, progress=qx.NoProgress())
    assert found.to_dict()["notes"] == list(solution.notes)
    assert np.isfinite(found.posterior.summary()["a"]["mean"])


def test_a_network_of_ones_own_is_trained():
    module = Products(eqx.nn.Linear(2, 4, key=KEY))
    method = qx.ALFI(network=NET, encoder=module, **SMALL)
    machine = qx.train(KEY, series, method, num_simulations=3000, training=qx.Training(num_steps=30)).value
    assert isinstance(machine.encoder.front, Products)
    assert np.abs(machine.encoder.front.layer.weight - module.layer.weight).max() > 1e-3


def test_what_comes_with_the_library_is_saved_and_what_does_not_is_refused(tmp_path):
    for simulator, encoder in ((stripes, None), (series, None), (series, Products(eqx.nn.Linear(2, 4, key=KEY)))):
        method = qx.ALFI(network=NET, encoder=encoder, **SMALL)
        solution = qx.train(KEY, simulator, method, num_simulations=3000, training=qx.Training(num_steps=2))
        folder = tmp_path / f"{simulator.name} {encoder is None}"
        if encoder is not None:
            with pytest.raises(TypeError, match=r"a Products cannot be saved.*networks of your own"):
                qx.save(folder, solution)
            continue
        qx.save(folder, solution)
        loaded = qx.load(folder, simulator=simulator)
        x = qx.simulate(KEY, simulator, num_simulations=1, num_observations=10).x[0]
        assert loaded.notes == solution.notes
        found, before = (qx.posterior(each.value, x).summary() for each in (loaded, solution))
        assert found == before


def test_the_encoder_leaves_out_what_has_no_weight():
    for simulator in (series, stripes, hidden_edge):
        sims = qx.simulate(KEY, simulator, num_simulations=60, num_observations=12)
        encoder: SetEncoder = NET.make(KEY, sims).encoder
        encode = eqx.filter_jit(encoder)
        x = np.asarray(sims.x[0])
        spoilt = np.concatenate([x[:8], 100 * np.ones_like(x[8:])])
        weight = (np.arange(12) < 8).astype(np.float32)[None]
        np.testing.assert_allclose(encode(spoilt[None], weight).features, encode(x[None], weight).features, atol=2e-3)
        assert encode(x[None], weight).features.shape == (1, encoder.num_features)


def test_transforms_are_what_they_are_called():
    x = np.random.default_rng(0).normal(size=(3, 50))
    k = np.arange(1, 51)
    by_hand = np.array([np.sum(x[0] * np.sqrt(2 / 51) * np.sin(np.pi * n * k / 51)) for n in k]) ** 2
    np.testing.assert_allclose(sine_power(x, np)[0], by_hand, atol=1e-9)
    wave = np.sin(2 * np.pi * 5 * np.arange(100) / 100)
    assert np.argmax(periodogram(wave[None], np)[0]) == 4  # the first is one wave in 100
    np.testing.assert_allclose(sine_power(jnp.asarray(x, jnp.float32), jnp), sine_power(x, np), atol=1e-3)
    assert np.isfinite(Spectra.of(np.ones((2, 40)))(jnp.ones(40))).all()  # a sequence that never changes
    assert np.isfinite(Picture.of(np.ones((2, 4, 4)))(jnp.ones((4, 4)))).all()


def test_correlations_are_numpys():
    x = np.random.default_rng(0).normal(size=(60, 10)) @ np.random.default_rng(1).normal(size=(10, 10))
    found = np.asarray(correlations(jnp.asarray(x, jnp.float32), jnp.ones(60)))
    np.testing.assert_allclose(found[:10], x.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(found[20:], np.corrcoef(x.T)[np.triu_indices(10, 1)], atol=1e-3)


def test_what_is_no_encoder_is_refused():
    with pytest.raises(TypeError, match=r"expected an Equinox module.*got function"):
        qx.ALFI(encoder=lambda x: x)
    with pytest.raises(ValueError, match="channels must be"):
        qx.ImageEncoder(channels=())
    train = lambda simulator, module: qx.train(KEY, simulator, qx.ALFI(encoder=module, **SMALL), num_simulations=3000)
    with pytest.raises(ValueError, match=r"Linear cannot take an observation of shape \(40,\)"):
        train(series, eqx.nn.Linear(3, 4, key=KEY))
    with pytest.raises(ValueError, match=r"must return a vector of real features.*shape \(8, 8\)"):
        train(stripes, eqx.nn.Identity())
    with pytest.raises(ValueError, match="an image has 2 axes"):
        train(series, qx.ImageEncoder())
