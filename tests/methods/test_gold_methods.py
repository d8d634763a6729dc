"""The ratio family: every loss has its optimum at the exact ratio, score or density, and says what gold it lacks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from chain import VARIANCE, chain, log_density

import quincunx as qx
from quincunx.core.loss import AbstractLoss
from quincunx.methods.density import DensityEstimator
from quincunx.methods.gold import NEEDS, possible, require
from quincunx.methods.nets.inputs import ThetaInput
from quincunx.methods.ratio import RatioEstimator, contrasted, repaired
from quincunx.methods.score import LocalRatio

KEY = jax.random.key(20_181_012)
POINT = jnp.array([0.3])
REFERENCES = {"point": qx.PointReference(POINT), "pair": qx.PairReference(), "marginal": qx.MarginalReference(16)}
RATIO_LOSSES = {"carl": qx.CARL, "rolr": qx.ROLR, "cascal": qx.CASCAL, "alice": qx.ALICE, "rascal": qx.RASCAL,
                "alices": qx.ALICES}  # fmt: skip
SIGMAS = 4.5  # two-sided: 7e-6 of false alarms in one comparison


@pytest.fixture(scope="module")
def mined():
    return {
        name: qx.mine(KEY, chain, num_simulations=40_000, reference=reference) for name, reference in REFERENCES.items()
    }


class ExactNet:
    """Stands for a network: the exact log-ratio, times `scale`, plus `shift`, plus `tilt` x (theta - x)."""

    def __init__(self, reference, scale=1.0, shift=0.0, tilt=0.0):
        self.reference, self.scale, self.shift, self.tilt = reference, scale, shift, tilt
        self.score_scale = jnp.ones(1)

    def contrast(self, theta, theta_reference, x):
        if isinstance(self.reference, qx.PointReference):
            below = log_density(self.reference.theta, x)
        elif isinstance(self.reference, qx.PairReference):
            below = log_density(theta_reference, x)
        else:
            pool = self.reference.pool
            terms = jax.vmap(lambda each: log_density(each, x))(pool)
            below = jax.scipy.special.logsumexp(terms, axis=0) - jnp.log(len(pool))
        exact = log_density(theta, x) - below
        return (self.scale * exact + self.shift + self.tilt * x * (theta[:, 0] - x))[None]


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("method", RATIO_LOSSES)
def test_the_exact_ratio_is_where_the_loss_is_stationary(mined, method, reference):
    """d loss / d (scale, shift, tilt) is a mean of i.i.d. rows: zero within its standard error. 54 comparisons."""
    sims, loss = mined[reference], RATIO_LOSSES[method]()
    net = lambda p: ExactNet(sims.reference, 1 + p[0], p[1], p[2])

    def gradient(rows):  # rows in batches of 400: the batch means are independent
        return jax.grad(lambda p: loss(net(p), rows, jax.random.key(3)))(jnp.zeros(3))

    batches = jax.tree.map(lambda leaf: leaf.reshape(100, 400, *leaf.shape[1:]), _rows(sims))
    per_batch = np.asarray(jax.lax.map(lambda rows: gradient(dataclasses.replace(sims, **rows)), batches), np.float64)
    mean, error = per_batch.mean(axis=0), per_batch.std(axis=0) / 10
    assert np.all(error > 0)
    assert np.all(np.abs(mean) < SIGMAS * error), (mean, error)


def test_a_wrong_ratio_is_not_where_the_loss_is_stationary(mined):
    """What the test above would see of a ratio of 0.8 log r: many standard errors."""
    sims = mined["marginal"]
    for make in RATIO_LOSSES.values():
        spoilt = jax.grad(lambda s, make=make: make()(ExactNet(sims.reference, s), sims, KEY))(0.8)
        assert abs(float(spoilt)) > 0.003


def _rows(sims):
    names = ("theta", "x", "log_ratio", "score", "label", "drawn_at", "theta_reference")
    return {name: getattr(sims, name) for name in names if getattr(sims, name) is not None}


TRAINING = qx.Training(num_steps=800, learning_rate=3e-3)
QUICK = ("nre", "alices", "sallino")  # the losses of all others are shown to be stationary at the truth above
METHODS = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NEEDS if name != "histogram"
]


def error(ratio):
    """Mean squared error of log r(x | theta, 0.3) over prior and x ~ p(x | 0.3); 0.44 for r = 1."""
    theta = jnp.linspace(-0.95, 0.95, 9)[:, None]
    x = 0.3 + np.sqrt(VARIANCE) * jax.random.normal(jax.random.key(1), (400,))
    found = jax.vmap(lambda t: ratio.log_ratio(t, x) - ratio.log_ratio(POINT, x))(theta)
    truth = jax.vmap(lambda t: log_density(t, x) - log_density(POINT, x))(theta)
    return float(jnp.mean((found - truth) ** 2)), float(jnp.mean(truth**2))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_the_ratio(method):
    networks = {"width": 8, "knots": 4} if method in ("nde", "scandal") else {"widths": (24, 24)}
    solution = qx.train_ratio(
        KEY, chain, method=method, num_simulations=20_000, training=TRAINING, theta_reference=POINT,
        estimator_options=networks, loss_options={"batch_size": 256},
    )  # fmt: skip
    found, nothing = error(solution.value)
    # Harder without gold; hardest by histograms, which share 10,000 simulations between 21 thetas.
    bound = 0.07 if method in ("sally", "sallino") else 0.02 if method in ("carl", "nre", "nde") else 0.008
    assert found < bound < nothing / 4
    assert solution.statistics["num_simulator_calls"] == 20_000
    if "mean_ratio" in solution.statistics:
        assert abs(solution.statistics["mean_ratio"] - 1) < 0.05
    assert solution.warnings == ()


# -- networks --------------------------------------------------------------------------------------


def perturbed(net, key=KEY):
    """The same network with random weights, in place of an output layer of zeros."""
    leaves, tree = jax.tree.flatten(net.ensemble)
    keys = jax.random.split(key, len(leaves))
    noisy = [leaf + 0.3 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return dataclasses.replace(net, ensemble=jax.tree.unflatten(tree, noisy))


X = jnp.linspace(-2, 2, 7)


def test_an_untrained_network_predicts_a_ratio_of_one(mined):
    for sims in mined.values():
        net = RatioEstimator.for_simulations(sims, widths=(8,), num_members=3)
        np.testing.assert_array_equal(net.log_ratio(jnp.array([0.7]), X), np.zeros(7))


def test_an_anchored_network_is_exactly_zero_at_its_reference(mined):
    net = perturbed(RatioEstimator.for_simulations(mined["point"], widths=(8,)))
    assert net.form == "anchored"
    np.testing.assert_array_equal(net.log_ratio(POINT, X), np.zeros(7))
    assert np.all(np.asarray(net.log_ratio(jnp.array([0.4]), X)) != 0)


def test_a_doubly_parameterised_network_is_antisymmetric(mined):
    net = perturbed(RatioEstimator.for_simulations(mined["pair"], widths=(8,)))
    a, b = jnp.array([0.7]), jnp.array([-0.2])
    np.testing.assert_allclose(net.log_ratio_between(a, b, X), -net.log_ratio_between(b, a, X), rtol=1e-5, atol=1e-6)
    assert np.all(np.abs(np.asarray(net.log_ratio_between(a, b, X))) > 1e-3)


def test_an_ensemble_is_the_mean_of_its_members(mined):
    net = perturbed(RatioEstimator.for_simulations(mined["marginal"], widths=(8,), num_members=4))
    members = net.members(jnp.array([0.1]), X)
    assert members.shape == (4, 7)
    assert np.std(np.asarray(members), axis=0).min() > 1e-3
    np.testing.assert_allclose(net.log_ratio(jnp.array([0.1]), X), np.mean(members, axis=0), rtol=1e-6)
    for k in range(4):  # each member, by itself, is what the batch of all computes
        lone = jax.tree.map(lambda leaf, k=k: leaf[k : k + 1], net.ensemble)
        alone = dataclasses.replace(net, ensemble=lone).log_ratio(jnp.array([0.1]), X)
        np.testing.assert_allclose(alone, members[k], rtol=1e-4, atol=1e-6)


def test_whole_numbers_are_given_probabilities_that_sum_to_one():
    sims = qx.mine(KEY, qx.problems.galton, num_simulations=500, reference=None)
    net = DensityEstimator.for_simulations(sims, width=8, knots=4)
    assert net.whole
    x = jnp.arange(-40.0, 71.0)
    total = float(jnp.sum(jnp.exp(net.log_ratio(jnp.array([-0.7]), x))))
    assert abs(total - 1) < 0.005  # the splines have kinks, 16 points a cell


def test_a_density_integrates_to_one_whatever_its_weights():
    sims = qx.mine(KEY, chain, num_simulations=500, reference=None)
    net = DensityEstimator.for_simulations(sims, width=8, knots=4)
    flow = jax.tree.map(lambda w: w + 0.2 * jax.random.normal(KEY, w.shape), net.flow)
    net = dataclasses.replace(net, flow=flow)
    x = jnp.linspace(-12, 12, 4001)
    total = float(jnp.trapezoid(jnp.exp(net.log_ratio(jnp.array([0.5]), x)), x))
    assert abs(total - 1) < 1e-3


def test_the_local_model_is_normalised_at_every_theta():
    sims = qx.mine(KEY, chain, num_simulations=3000, theta=POINT[None], reference=None)
    solution = qx.fit(KEY, qx.ScoreEstimator.for_simulations(sims, widths=(8,)), qx.SALLY(), sims,
                      training=qx.Training(num_steps=100))  # fmt: skip
    ratio = qx.local_ratio(solution.value, sims)
    assert isinstance(ratio, LocalRatio)
    for theta in (-0.5, 0.9):
        mean = float(jnp.mean(jnp.exp(ratio.log_ratio(jnp.array([theta]), sims.x[:, 0]))))
        assert abs(mean - 1) < 1e-4


def test_parameters_enter_finitely_at_the_ends_of_their_support():
    prior = qx.Prior(signal=dist.HalfNormal(2.0), share=dist.Uniform(0, 1), shape=dist.Gamma(2.0, 1.0).expand((2,)))
    theta = prior.sample(KEY, 500)
    features = ThetaInput.of(prior, theta)
    np.testing.assert_allclose(np.std(features(theta), axis=0), 1, rtol=1e-3)
    at_zero = features(jnp.zeros(4))
    assert np.isfinite(np.asarray(at_zero)).all()
    assert np.isfinite(np.asarray(jax.jacobian(features)(jnp.zeros(4)))).all()
    assert np.all(np.asarray(features(theta)) > np.asarray(at_zero))  # in the order of the parameters


# -- pairing ---------------------------------------------------------------------------------------


def test_new_numerators_only_where_x_is_from_the_reference(mined):
    sims = mined["marginal"][:2000]
    again = repaired(KEY, sims)
    numerator = np.asarray(sims.label) == 1
    np.testing.assert_array_equal(again.theta[numerator], sims.theta[numerator])
    assert np.mean(np.asarray(again.theta != sims.theta)[~numerator]) > 0.8
    np.testing.assert_array_equal(again.drawn_from, sims.drawn_from)
    assert again.log_ratio is None  # it belonged to the old numerators


def test_unlabelled_simulations_are_set_against_the_marginal():
    sims = qx.simulate(KEY, chain, num_simulations=50)
    both = contrasted(KEY, sims)
    assert len(both) == 100
    np.testing.assert_array_equal(both.theta[:50], sims.theta)
    assert np.all(np.asarray(both.theta[50:] != sims.theta))
    np.testing.assert_array_equal(both.x[50:], sims.x)
    np.testing.assert_array_equal(both.label, np.repeat([1.0, 0.0], 50))


# -- what is missing -------------------------------------------------------------------------------


def test_a_method_names_the_column_it_lacks_and_the_methods_that_would_work(mined):
    sims = dataclasses.replace(mined["marginal"], log_ratio=None)
    assert possible(sims) == ["nre", "nde", "histogram", "carl", "cascal", "scandal", "sally", "sallino"]
    net = RatioEstimator.for_simulations(sims, widths=(4,))
    with pytest.raises(ValueError, match=r"alices needs log_ratio, which .* would work: nre, nde, histogram, carl, ca"):
        qx.fit(KEY, net, qx.ALICES(), sims)
    with pytest.raises(ValueError, match="rascal needs log_ratio and score"):
        require("rascal", dataclasses.replace(sims, score=None))
    with pytest.raises(ValueError, match=r"unknown method 'alise'.*alice"):
        require("alise", sims)


def test_a_black_box_gets_the_methods_that_need_no_gold():
    with pytest.raises(TypeError, match=r"alices needs .* 'gaussian' is a black box.*nre, nde, histogram, carl"):
        qx.train_ratio(KEY, qx.problems.gaussian, num_simulations=10)
    sims = qx.contrast(KEY, qx.problems.gaussian, num_simulations=100)
    assert possible(sims) == ["nre", "nde", "histogram", "carl"]
    assert set(np.asarray(sims.label)) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (
            lambda s: RatioEstimator.for_simulations(s["marginal"], form="anchored"),
            "MarginalReference expected one of plain",
        ),
        (lambda s: RatioEstimator.for_simulations(s["point"], widths=()), "widths must be"),
        (lambda s: RatioEstimator.for_simulations(s["point"], num_members=0), "num_members must be at least 1"),
        (lambda s: RatioEstimator.for_simulations(s["point"], activation="relu"), "activation must be one of silu"),
        (lambda s: qx.ALICES(alpha=-1.0), "alpha must not be negative"),
        (lambda s: qx.CARL(batch_size=1), "batch_size must be at least 2"),
        (lambda s: qx.ScoreEstimator.for_simulations(s["marginal"]), "trained at one theta"),
        (lambda s: qx.train_ratio(KEY, chain, method="alises"), "unknown method 'alises'"),
        (lambda s: qx.train_ratio(KEY), "give a simulator"),
        (lambda s: qx.train_ratio(KEY, chain, method="nde", reference=REFERENCES["point"]), "nde has none; drop it"),
        (lambda s: qx.train_ratio(KEY, chain, method="nre", reference=REFERENCES["point"]), "against the marginal"),
        (
            lambda s: qx.train_ratio(KEY, chain, method="nde", estimator_options={"num_members": 3}),
            "the estimator of nde has no option 'num_members'.*; it has layers, width, knots",
        ),
        (
            lambda s: qx.train_ratio(KEY, chain, method="carl", loss_options={"alpha": 1.0}),
            "loss of carl has no option",
        ),
        (
            lambda s: qx.train_ratio(KEY, method="nde", sims=dataclasses.replace(s["marginal"], drawn_at=None)),
            "nde must know where x was drawn",
        ),
        (lambda s: qx.fit(KEY, RatioEstimator.for_simulations(s["point"]), qx.NRE(), s["point"]), "another reference"),
        (
            lambda s: RatioEstimator.for_simulations(qx.simulate(KEY, chain, num_simulations=9, num_observations=2)),
            "ratios are of single observations; these simulations have 2 a row",
        ),
    ],
)
def test_misuse_is_named(mined, call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call(mined)


def test_losses_are_losses():
    for make in [*RATIO_LOSSES.values(), qx.NRE, qx.NDE, qx.SCANDAL, qx.SALLY]:
        assert isinstance(make(), AbstractLoss)
