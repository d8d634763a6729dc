"""Programs: gold of NumPyro models against gold written by hand, the laws it obeys, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from mined_cases import MEAN, PROGRAMS, chain
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions.transforms import AffineTransform, PowerTransform
from scipy import special, stats

from quincunx.control.program import program
from quincunx.core.prior import Prior
from quincunx.sample.simulate import simulate

KEY = jax.random.key(20_180_530)


def branching(mean):
    z = numpyro.sample("z", dist.Normal(mean, 1.0))
    width = 0.5 if z > 0 else 1.5
    numpyro.sample("x", dist.Normal(z + mean, width))


def selecting(mean):
    z = numpyro.sample("z", dist.Normal(mean, 1.0))
    numpyro.sample("x", dist.Normal(z + mean, jnp.where(z > 0, 0.5, 1.5)))


def chain_of_sites():
    chain(numpyro.sample("mean", dist.Normal(0, 1)))


@functools.cache
def made(name):
    if name == "branching":
        return program(MEAN, observable="x")(branching)
    return PROGRAMS[name] if name in PROGRAMS else program(observable="x")(chain_of_sites)


# -- against formulas -------------------------------------------------------------------------


def of_chain(theta, z):
    """log p `()` and x of a path z, at theta `(dim,)`, in float64."""
    return stats.norm.logpdf(z["z"], theta[0]) + stats.norm.logpdf(z["x"], z["z"], 0.5), z["x"]


def of_board(theta, z):
    position, log_prob = 2, 0.0
    for row in range(5):
        left = z[f"row{row}"]
        log_prob += stats.bernoulli.logpmf(left, special.expit(theta[0] * (position / 2 - 1)))
        position += (-1 if left else 1) * (row % 2 == 0)
    return log_prob, position


def of_mixed(theta, z):
    """Discrete latents, a plate, and a vector parameter."""
    logits = np.array([0.0, 1.0, 2.0]) * theta[1]
    log_prob = stats.poisson.logpmf(z["count"], np.exp(theta[0])) + special.log_softmax(logits)[z["kind"]]
    cells = stats.norm.logpdf(z["cell"], theta[2] * z["kind"], 1 + 0.1 * z["count"])
    return log_prob + np.sum(cells), [*z["cell"], z["kind"], z["count"]]


@pytest.mark.parametrize("formula", [of_chain, of_board, of_mixed])
def test_log_probabilities_are_those_of_formulas(formula):
    """Paths drawn at some thetas, and looked at from others; scores and ratios are under the laws of gold."""
    simulator = PROGRAMS[formula.__name__.removeprefix("of_")]
    drawn_at, at = np.split(np.asarray(simulator.prior.sample(KEY, 64)), 2)
    x, z = jax.jit(jax.vmap(simulator.path))(jax.random.split(KEY, 32), drawn_at)
    ours = jax.jit(jax.vmap(simulator.log_prob))(at, x, z)
    paths = [{name: np.asarray(value)[row] for name, value in z.items()} for row in range(32)]
    truth, seen = zip(*map(formula, np.float64(at), paths), strict=True)
    np.testing.assert_allclose(ours, truth, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(x, seen, rtol=1e-6)
    assert len(np.unique(np.float32(seen), axis=0)) > 3


def walk(mean):
    """A random walk with drift: its steps are Gaussian."""
    step = lambda position, _: (numpyro.sample("step", dist.Normal(position + mean, 1.0)),) * 2
    numpyro.deterministic("x", scan(step, 0.0, jnp.arange(4))[0])


def padded(mean):
    """A number of draws that is itself drawn, and padding that is masked and not used."""
    size = numpyro.sample("size", dist.Categorical(probs=jnp.array([0.2, 0.3, 0.5])))
    with numpyro.plate("all", 3), handlers.mask(mask=jnp.arange(3) <= size):
        z = numpyro.sample("z", dist.Normal(mean, 1.0))
    numpyro.sample("x", dist.Normal(jnp.sum(jnp.where(jnp.arange(3) <= size, z, 0)), 1.0))


def noisy(mean):
    """Reparameterised: x given the noise is a Gaussian around mean + noise."""
    noise = numpyro.sample("noise", dist.Normal(0, 1))
    numpyro.sample("x", dist.Normal(mean + noise, 0.5))


def transformed(mean):
    """A log-normal latent, and a power of a uniform one: their supports stay (0, inf) and (0, 1)."""
    z = numpyro.sample("z", dist.LogNormal(mean, 1.0))
    u = numpyro.sample("u", dist.TransformedDistribution(dist.Uniform(0, 1), PowerTransform(jnp.exp(mean))))
    numpyro.sample("x", dist.Normal(z * u, 1.0))


@pytest.mark.parametrize(
    ("model", "z", "x", "score"),
    [
        (walk, {"step": [0.3, 1.0, -0.2, 0.5]}, 0.5, 0.5 - 4 * 0.5),
        (padded, {"size": 1, "z": [0.4, -0.1, 7.0], "x": 0.0}, 0.0, 0.4 - 0.1 - 2 * 0.5),
        (noisy, {"noise": 0.3, "x": 1.0}, 1.0, (1 - 0.8) / 0.25),
        # d/dm of log N(log z | m, 1) and of log(u^(1/a - 1) / a), a = exp(m)
        (transformed, dict.fromkeys("zux", 0.4), 0.4, np.log(0.4) - 0.5 - np.log(0.4) * np.exp(-0.5) - 1),
    ],
)
def test_scores_of_paths_at_a_half_are_those_of_formulas(model, z, x, score):
    simulator = program(MEAN, observable="x")(model)
    found = jax.jit(jax.grad(simulator.log_prob))(
        jnp.array([0.5]), x, {name: jnp.array(value) for name, value in z.items()}
    )
    np.testing.assert_allclose(found, [score], rtol=1e-4)


def test_several_observables_are_flattened_and_concatenated():
    simulator = program(MEAN, observable=("x", "z"))(chain)
    theta = jnp.array([0.5])
    x, z = simulator.path(KEY, theta)
    assert simulator.event_shape == (2,)
    np.testing.assert_array_equal(x, [z["x"], z["z"]])
    exact = stats.norm.logpdf(z["z"], 0.5, 1) + stats.norm.logpdf(z["x"], z["z"], 0.5)
    log_prob = jax.jit(simulator.log_prob)
    np.testing.assert_allclose(log_prob(theta, x, z), exact, rtol=1e-5)
    assert np.isnan(log_prob(theta, x[::-1], z))


# -- parameters that are sites ----------------------------------------------------------------


def test_parameters_as_sites_equal_parameters_as_arguments():
    theta = jnp.array([0.7])
    (x, z), (same_x, same_z) = (each.path(KEY, theta) for each in (made("sites"), made("chain")))
    np.testing.assert_array_equal([x, z["z"], z["x"]], [same_x, same_z["z"], same_z["x"]])
    assert "mean" not in z
    value, score = jax.jit(jax.value_and_grad(made("sites").log_prob))(theta, x, z)
    exact = stats.norm.logpdf(z["z"], 0.7, 1) + stats.norm.logpdf(x, z["z"], 0.5)  # and not the prior of mean
    np.testing.assert_allclose([value, *score], [exact, z["z"] - 0.7], rtol=1e-4)


def test_prior_is_read_from_the_sites_and_one_free_site_is_found():
    assert made("sites").prior == MEAN
    assert made("sites").parameters == ("mean",)

    def vector():
        numpyro.sample("noise", dist.Normal(0, 1))
        with numpyro.plate("two", 2):
            shift = numpyro.sample("shift", dist.Uniform(-1, 1))
        numpyro.sample("x", dist.Normal(shift, 1).to_event(1))

    assert program(parameters="shift", observable="x")(vector).prior.columns == ("shift[0]", "shift[1]")
    with pytest.raises(
        ValueError, match=r"say which sites are the parameters.*the model has \('noise', 'shift', 'x'\)"
    ):
        program(observable="x")(vector)


# -- on the host ------------------------------------------------------------------------------


def test_branching_in_python_equals_selecting_in_jax():
    host, vectorised = made("branching"), program(MEAN, observable="x")(selecting)
    assert (host.host, vectorised.host) == (True, False) and host.event_shape == ()
    theta = np.float32([[-1.0], [0.5], [1.2]])
    gold, fast = (each.mine(KEY, theta, theta[:, None] + np.float32([[0.5]])) for each in (host, vectorised))
    for ours, other in zip(gold[:3], fast[:3], strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-4)
    assert gold.failures == fast.failures == ()
    np.testing.assert_allclose(host.draw(KEY, theta, 2)[0], vectorised.draw(KEY, theta, 2)[0], rtol=1e-5)


def test_runs_may_have_different_sites():
    """The first heads: the log-probability is that of a geometric law, cut at 4."""

    def tosses(chance):
        for toss in range(4):
            if numpyro.sample(f"toss{toss}", dist.BernoulliProbs(chance)):
                return toss
        return 4

    simulator = program(Prior(chance=dist.Uniform(0.2, 0.6)))(tosses)
    gold = simulator.mine(KEY, [[0.3]] * 6, [[0.5]])
    x = gold.x.astype(np.float64)
    assert len(set(x)) > 2
    np.testing.assert_allclose(gold.log_prob[:, 0], x * np.log(0.5) + (x < 4) * np.log(0.5), rtol=1e-4)
    np.testing.assert_allclose(gold.score[:, 0], (x < 4) / 0.3 - x / 0.7, rtol=1e-4)


def test_a_run_that_raises_is_a_failed_row():
    def fragile(mean):
        z = numpyro.sample("z", dist.Normal(mean, 1.0))
        if z > 1.5:
            raise RuntimeError("out of range")
        return z

    simulator = program(MEAN)(fragile)
    gold = simulator.mine(KEY, np.ones((8, 1)), [[0.0]])
    bad = [failure.row for failure in gold.failures]
    assert 0 < len(bad) < 8
    assert {failure.reason for failure in gold.failures} == {"RuntimeError: out of range"}
    assert np.isnan(gold.score[bad]).all()
    assert np.isfinite(np.delete(gold.score, bad, axis=0)).all()
    x, failures = simulator.draw(KEY, np.ones((4, 1)), 3)
    assert x.shape == (4, 3)
    assert np.isnan(x[[failure.row for failure in failures]]).all()


def test_a_replay_with_other_sites_names_them():
    z, theta = {"z": jnp.array(0.0), "x": jnp.array(1.0)}, jnp.array([0.3])
    with pytest.raises(ValueError, match="the site 'w' is not among the replay's sites"):
        made("chain").log_prob(theta, z["x"], {**z, "w": z["x"]})
    with pytest.raises(ValueError, match="the site 'z' is in the replay, but not in the path"):
        made("chain").log_prob(theta, z["x"], {"x": z["x"]})


# -- the verbs --------------------------------------------------------------------------------


def test_simulate_on_the_host():
    sims, again = (simulate(KEY, made("branching"), num_simulations=3, num_observations=2) for _ in range(2))
    assert sims.x.shape == (3, 2)
    np.testing.assert_array_equal(sims.x, again.x)


def test_calling_a_program_calls_the_model():
    with handlers.seed(rng_seed=0):
        assert made("board")(0.3).shape == ()


# -- what is refused --------------------------------------------------------------------------


def normal(name, mean=0.0):
    return numpyro.sample(name, dist.Normal(mean, 1.0))


def site(law, name="x"):
    return numpyro.sample(name, law)


def subsampled(mean):
    with numpyro.plate("cells", 4, subsample_size=2):
        normal("x", mean)


def used_behind_a_mask(mean):
    with handlers.mask(mask=False):
        z = normal("z", mean)
    normal("x", z + mean)


def number_of_theta(mean, width):
    z = normal("z", mean)
    if z * width > 0:
        normal("y")
    normal("x", z)


def always_fails(mean):
    if normal("z", mean) * 0 == 0:
        raise RuntimeError("no luck")


def mixture(*parts):
    return dist.MixtureGeneral(dist.Categorical(jnp.array([0.5, 0.5])), list(parts))


def idle(mean, spare):
    normal("x", mean + 0 * spare)


random = np.random.normal  # what no program may use
shifted_beta = lambda mean: dist.TransformedDistribution(dist.Beta(2.0, 2.0), AffineTransform(mean, 1.0))
of_mean = lambda model: (model, MEAN, "x")
returns = lambda model: (model, MEAN, None)
TWO = Prior(mean=dist.Normal(0, 1), spare=dist.Normal(0, 1))
WIDE = Prior(mean=dist.Normal(0, 1), width=dist.Normal(0, 1))
SUPPORT = "the support of the site 'x' depends on theta"
REFUSED = {  # model, prior, observable; and the complaint
    "reparameterised": (*returns(lambda mean: mean + normal("eps")), "what the model returns moves with theta.*Normal"),
    "hidden delta": (*of_mean(lambda mean: site(dist.Delta(mean + normal("e")))), "the site 'x' moves with theta"),
    "hidden deterministic": (
        lambda mean: (numpyro.deterministic("y", mean * normal("z", mean)), normal("w")),
        MEAN,
        "y",
        "the observable 'y' moves with theta while every draw of the path stands still",
    ),
    "uniform": (*of_mean(lambda mean: site(dist.Uniform(0, jnp.exp(mean)))), SUPPORT),
    "truncated": (
        *of_mean(lambda mean: normal("x", site(dist.TruncatedNormal(0.0, 1.0, low=mean), "z"))),
        "the support of the site 'z' depends on theta",
    ),
    "shifted": (*of_mean(lambda mean: site(shifted_beta(mean))), SUPPORT),
    "mixture": (*of_mean(lambda mean: site(mixture(dist.Uniform(0, 1), dist.Uniform(0, 1 + jnp.exp(mean))))), SUPPORT),
    "factor": (*of_mean(lambda mean: (normal("x", mean), numpyro.factor("tilt", mean))), "the site 'tilt' is a factor"),
    "param": (*of_mean(lambda mean: normal("x", mean + numpyro.param("a", 0.0))), "the site 'a' is a numpyro.param"),
    "observed": (
        *of_mean(lambda mean: numpyro.sample("x", dist.Normal(mean, 1.0), obs=0.3)),
        "the site 'x' is observed.*obs=None",
    ),
    "key": (*returns(lambda mean: mean + jax.random.normal(numpyro.prng_key())), r"numpyro.prng_key\(\)"),
    "NumPy": (*of_mean(lambda mean: normal("x", mean + random())), "same key differ.*np.random"),
    "NumPy on the host": (
        *of_mean(lambda mean: normal("x", mean + random() * (1 if normal("z") > 0 else 2))),
        "same key differ.*np.random",
    ),
    "scaled": (
        *of_mean(lambda mean: handlers.scale(lambda: normal("x", mean), scale=2.0)()),
        "the site 'x' is scaled",
    ),
    "subsampled": (*of_mean(subsampled), "the plate 'cells' is subsampled"),
    "masked": (*of_mean(used_behind_a_mask), "the values that the mask of the site 'z' leaves out are used"),
    "mask of theta": (
        *of_mean(lambda mean: handlers.mask(lambda: normal("x", mean), mask=mean > 0)()),
        "the mask of the site 'x' depends on theta",
    ),
    "idle": (idle, TWO, "x", "depends on the parameter 'spare'.* score was 0 in each of 512 runs"),
    "rounded": (
        *of_mean(lambda mean: normal("x", jnp.floor(mean))),
        "the parameter 'mean', or only through steps with",
    ),
    "branch": (
        *of_mean(lambda mean: normal("x", mean if mean > 0 else 2 * mean)),
        "depends on the parameter 'mean' itself",
    ),
    "number": (number_of_theta, WIDE, "x", "a branch or a Python number depends on the parameter 'width' itself"),
    "failing": (*returns(always_fails), "each of 8 runs failed, the first with RuntimeError: no luck"),
    "no site": (chain, MEAN, "xx", r"has no site 'xx' \(did you mean 'x'\?\); it has \('z', 'x'\)"),
    "no site on the host": (branching, MEAN, "xx", r"has no site 'xx' \(did you mean 'x'\?\)"),
    "nothing": (*returns(chain), "the model returns nothing; .* observable='x'"),
    "no argument": (chain, Prior(meen=dist.Normal(0, 1)), "x", r"no argument 'meen' \(did you mean 'mean'\?\)"),
    "too few": (idle, MEAN, "x", r"argument 'spare' has no prior; the prior has \('mean',\)"),
    "no prior": (chain, None, "x", r"argument 'mean' has no prior; write @qx.program\(qx.Prior\(mean=...\), ...\)"),
}


@pytest.mark.parametrize(("model", "prior", "observable", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(model, prior, observable, message):
    with pytest.raises(ValueError, match=message):
        program(prior, observable=observable)(model)


def hierarchy():
    width = numpyro.sample("width", dist.Uniform(1, 2))
    normal("x", numpyro.sample("mean", dist.Normal(0, width)))


def masked_parameter():
    with handlers.mask(mask=False):
        mean = normal("mean")
    normal("x", mean)


@pytest.mark.parametrize(
    ("model", "parameters", "message"),
    [
        (hierarchy, "mean", "the distribution of the parameter 'mean' depends on the site 'width'"),
        (hierarchy, ("width", "mean"), "'mean' depends on the site 'width'.*independent"),
        (chain_of_sites, "meam", r"no site 'meam' \(did you mean 'mean'\?\)"),
        (chain_of_sites, "x", "'x' is a parameter and the observable"),
        (masked_parameter, "mean", "the parameter 'mean' is masked"),
    ],
)
def test_refused_parameters(model, parameters, message):
    with pytest.raises(ValueError, match=message):
        program(parameters=parameters, observable="x")(model)


def test_misuse_of_the_decorator():
    with pytest.raises(TypeError, match="expected a Prior, got function"):
        program(chain)
    with pytest.raises(TypeError, match="expected a NumPyro model, a function, got int"):
        program(MEAN)(3)
    with pytest.raises(TypeError, match="must return one array, got dict"):
        program(MEAN)(lambda mean: {"x": normal("x", mean)})
    with pytest.raises(ValueError, match="one of the two"):
        program(MEAN, parameters="mean")


def test_a_move_that_the_first_runs_miss_makes_a_failed_row():
    """The observable moves with theta, but only where no run at construction came."""

    def rarely(mean):
        return normal("z", mean) + jnp.where(mean > 6, mean, 0)

    gold = program(MEAN)(rarely).mine(KEY, [[7.0], [0.0]], [[7.0], [0.0]])
    assert [failure.row for failure in gold.failures] == [0, 1]
