"""Distributions that depend on earlier parameters, and derived quantities: against truth."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import quincunx as qx
from quincunx.core.prior import Prior
from quincunx.methods.nets.inputs import ThetaInput


def peaks(width: float = 10.0) -> Prior:
    return Prior(
        low=dist.Uniform(0, 10),
        high=lambda t: dist.Uniform(t["low"], t["low"] + width),
        derived={"gap": lambda t: t["high"] - t["low"]},
    )


def nested() -> Prior:
    """Scalars and vectors, of one, two and no ends."""
    return Prior(
        place=dist.Normal(1, 2),
        scale=lambda t: dist.LogNormal(t["place"] / 10, 0.3),
        pair=lambda t: dist.Normal(t["place"], t["scale"] * jnp.array([1.0, 2.0])).to_event(1),
        above=lambda t: dist.TruncatedNormal(t["pair"][0], t["scale"], low=t["pair"][1]),
        share=dist.Beta(2, 5),
    )


PEAKS, NESTED = peaks(), nested()


# -- probability -----------------------------------------------------------------------------------


def test_density_is_the_product_of_the_conditional_ones():
    theta = np.asarray(NESTED.sample(jax.random.key(0), 40), np.float64)
    place, scale, a, b, above, share = theta.T
    norm = scipy.stats.norm
    truth = norm(1, 2).logpdf(place) + scipy.stats.lognorm(0.3, scale=np.exp(place / 10)).logpdf(scale)
    truth += norm(place, scale).logpdf(a) + norm(place, 2 * scale).logpdf(b)
    truth += norm(a, scale).logpdf(above) - norm(a, scale).logsf(b) + scipy.stats.beta(2, 5).logpdf(share)
    np.testing.assert_allclose(NESTED.log_prob(theta), truth, rtol=1e-3, atol=2e-3)


def test_density_integrates_to_one_on_both_spaces():
    low, high = np.meshgrid(np.linspace(-1, 11, 401), np.linspace(-1, 21, 801), indexing="ij")
    density = np.exp(np.asarray(PEAKS.log_prob(np.stack([low, high], -1)), np.float64))
    assert density.sum() * (12 / 400) * (22 / 800) == pytest.approx(1, abs=0.02)
    axis = np.linspace(-14, 14, 401)
    u = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
    density = np.exp(np.asarray(PEAKS.log_prob_unconstrained(u), np.float64))
    assert np.trapezoid(np.trapezoid(density, axis), axis) == pytest.approx(1, abs=1e-3)


def test_draws_have_the_conditional_moments_and_do_not_depend_on_their_number():
    theta = np.asarray(PEAKS.sample(jax.random.key(1), 20_000))
    share = (theta[:, 1] - theta[:, 0]) / 10
    # Uniform in (0, 1), and independent of the first: four standard errors, 1 false alarm in 16,000.
    assert np.mean(share) == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / 20_000))
    assert np.std(share) == pytest.approx(np.sqrt(1 / 12), abs=0.005)
    assert abs(np.corrcoef(share, theta[:, 0])[0, 1]) < 4 / np.sqrt(20_000)
    np.testing.assert_array_equal(PEAKS.sample(jax.random.key(1), 300), theta[:300])
    assert bool(PEAKS.contains(theta).all()) and bool(NESTED.contains(NESTED.sample(jax.random.key(1), 500)).all())


def test_the_unconstrained_space_is_carried_over_by_a_triangular_map():
    theta = NESTED.sample(jax.random.key(2), 20)
    u = NESTED.unconstrain(theta)
    np.testing.assert_allclose(NESTED.constrain(u), theta, rtol=1e-4, atol=1e-4)
    jacobian = np.asarray(jax.vmap(jax.jacobian(NESTED.constrain))(u), np.float64)
    np.testing.assert_array_equal(np.triu(jacobian, 1), 0)
    volume = np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(NESTED.log_prob_unconstrained(u) - NESTED.log_prob(theta), volume, rtol=1e-3, atol=1e-3)
    wild = 4.0 * jax.random.normal(jax.random.key(3), (300, 2))
    assert bool(PEAKS.contains(PEAKS.constrain(wild)).all())


METHODS = ["log_prob", "contains", "unconstrain", "constrain", "log_prob_unconstrained", "ends_at", "derive"]


@pytest.mark.parametrize("method", METHODS)
def test_leading_axes_and_traces_change_nothing(method):
    rows = np.asarray(PEAKS.sample(jax.random.key(4), 12)) * np.float32([1, 0.9])
    call = getattr(PEAKS, method)
    each = np.stack([np.asarray(call(row)) for row in rows])
    np.testing.assert_allclose(call(rows.reshape(3, 4, 2)), each.reshape(3, 4, *each.shape[1:]), rtol=1e-4)
    np.testing.assert_allclose(jax.jit(call)(rows.reshape(3, 4, 2)), each.reshape(3, 4, *each.shape[1:]), rtol=1e-4)
    np.testing.assert_allclose(jax.vmap(call)(rows), each, rtol=1e-4)
    assert call(rows[:0]).shape == (0, *each.shape[1:])


# -- supports --------------------------------------------------------------------------------------


def test_outside_the_support_at_hand():
    theta = [[2.0, 11.9], [2.0, 12.1], [5.0, 4.9], [-1.0, 5.0]]
    assert PEAKS.contains(theta).tolist() == [True, False, False, False]
    assert np.isneginf(PEAKS.log_prob(theta)).tolist() == [False, True, True, True]
    with pytest.raises(ValueError, match=r"'high': 12.1 is outside .*Uniform\(low=2., high=12.\) given low=2"):
        PEAKS.rows(theta[:2])
    with pytest.raises(ValueError, match=r"'low': -1 is outside the support of its prior, Uniform\(low=0, high=10\)$"):
        PEAKS.rows(theta[3:])
    worse = Prior(scale=dist.HalfNormal(1.0), x=lambda t: dist.Normal(0, t["scale"]))
    assert worse.log_prob([-1.0, 0.0]) == -np.inf  # and not NaN


def test_ends_are_the_widest_and_those_at_hand():
    np.testing.assert_array_equal(PEAKS.ends, [[0, 0], [10, 20]])
    np.testing.assert_array_equal(PEAKS.ends_at([2.0, 3.0]), [[0, 2], [10, 12]])
    low, high = NESTED.ends
    np.testing.assert_array_equal(low, [-np.inf, 0, -np.inf, -np.inf, -np.inf, 0])
    np.testing.assert_array_equal(high, [np.inf, np.inf, np.inf, np.inf, np.inf, 1])
    free = Prior(a=dist.Normal(0, 1), b=lambda t: dist.Uniform(t["a"], t["a"] + 1))
    np.testing.assert_array_equal(free.ends, [[-np.inf, -np.inf], [np.inf, np.inf]])
    chained = Prior(a=dist.Uniform(0, 1), b=lambda t: dist.Uniform(0, t["a"]), c=lambda t: dist.Uniform(0, 2 * t["b"]))
    np.testing.assert_array_equal(chained.ends, [[0, 0, 0], [1, 1, 2]])
    np.testing.assert_array_equal(jax.jit(lambda: peaks(9.0).ends[1])(), [10, 19])  # also where a trace is under way


def test_parameters_enter_networks_finitely_at_the_ends_at_hand():
    prior = Prior(a=dist.Normal(0, 1), b=lambda t: dist.Uniform(t["a"], t["a"] + 1), c=lambda t: above(t["a"]))
    enter = ThetaInput.of(prior, prior.sample(jax.random.key(0), 500))
    found = np.asarray(enter(jnp.array([[0.3, 0.3, 0.3], [0.3, 1.3, 9.0]])))
    assert np.isfinite(found).all() and (np.diff(found, axis=0)[0, 1:] > 0.5).all()
    draws = np.asarray(enter(prior.sample(jax.random.key(1), 500)))
    assert np.allclose(draws.mean(0), 0, atol=0.3) and np.allclose(draws.std(0), 1, atol=0.3)


def above(low: jax.Array) -> dist.Distribution:
    return dist.TruncatedNormal(low, 2.0, low=low)


def test_a_grid_is_made_where_it_fits():
    with pytest.raises(ValueError, match="the support of 'high' depends on other parameters"):
        qx.theta_grid(PEAKS, 3)
    fits = Prior(a=dist.Uniform(0, 1), b=lambda t: dist.Normal(t["a"], 1))
    assert qx.theta_grid(fits, 3).shape == (9, 2)


# -- identity --------------------------------------------------------------------------------------


def test_equality_is_by_what_functions_compute():
    table = jnp.arange(2000.0)
    at = lambda table: Prior(a=dist.Uniform(0, 1), b=lambda t: dist.Normal(t["a"] + table[7], 1))
    assert peaks() == PEAKS and hash(peaks()) == hash(PEAKS) and nested() == NESTED
    assert peaks(9.0) != PEAKS
    assert at(table) == at(table + 0) and at(table) != at(table.at[7].add(1))
    inner = lambda table: Prior(a=dist.Uniform(0, 1), b=lambda t: dist.Normal(jax.jit(lambda a: a + table)(t["a"]), 1))
    assert inner(table) == inner(table + 0) and inner(table) != inner(table.at[7].add(1))
    halved = Prior(a=dist.Uniform(0, 1), b=lambda t: dist.LogNormal(t["a"], 1))
    assert halved != Prior(a=dist.Uniform(0, 1), b=lambda t: dist.Normal(t["a"], 1))
    plain = Prior(low=dist.Uniform(0, 10), high=lambda t: dist.Uniform(t["low"], t["low"] + 10))
    assert plain != PEAKS and plain.same_law(PEAKS) and not plain.same_law(peaks(9.0))


def test_it_says_what_depends_on_what():
    assert repr(PEAKS) == "Prior(low=Uniform(low=0, high=10), high=Uniform given low, derived gap)"
    assert "above=LeftTruncatedDistribution given scale and pair" in repr(NESTED)
    assert PEAKS.conditional == ("high",) and NESTED.shapes["pair"] == (2,)


# -- derived quantities ----------------------------------------------------------------------------


BOTH = {"sum": lambda t: t["a"] + t["b"], "one": lambda _: 1}


def test_derived_quantities_are_computed_from_names():
    prior = Prior(
        a=dist.Uniform(0, 1),
        b=dist.Normal(0, jnp.ones(2)),
        derived=BOTH,
    )
    theta = np.asarray(prior.sample(jax.random.key(0), 6))
    assert (prior.dim, prior.derived_columns) == (3, ("sum[0]", "sum[1]", "one"))
    wanted = np.concatenate([theta[:, :1] + theta[:, 1:], np.ones((6, 1))], axis=1)
    np.testing.assert_allclose(prior.derive(theta), wanted, rtol=1e-6)
    assert Prior(a=dist.Uniform(0, 1)).derive(np.ones((4, 1))).shape == (4, 0)


def test_equal_laws_do_not_share_what_is_derived():
    twice, thrice = (Prior(a=dist.Uniform(0, 1), derived={"b": lambda t, k=k: k * t["a"]}) for k in (2, 3))
    assert (twice.derive([0.5]).tolist(), thrice.derive([0.5]).tolist()) == ([1.0], [1.5])


# -- misuse ----------------------------------------------------------------------------------------

FREE = dist.Uniform(0, 1)
MISUSES = [
    (
        lambda: Prior(a=FREE, b=lambda t: dist.Normal(t["c"], 1), c=FREE),
        ValueError,
        "'c', which is declared later",
    ),
    (lambda: Prior(aa=FREE, b=lambda t: dist.Normal(t["ab"], 1)), ValueError, r"mean 'aa'\?\). It is given aa"),
    (lambda: Prior(b=lambda t: dist.Normal(t["b"], 1)), ValueError, "It is given none"),
    (lambda: Prior(a=FREE, b=lambda t: dist.Normal(np.exp(t["a"]), 1)), TypeError, "'b': .* write it in jax.numpy"),
    (
        lambda: Prior(a=FREE, b=lambda t: FREE if t["a"] > 0 else dist.Normal(0, 1)),
        TypeError,
        r"jnp.where\(...\) in place of `if`",
    ),
    (lambda: Prior(a=FREE, b=lambda t: t["a"]), TypeError, "'b': a function must give a numpyro.*, got an array"),
    (lambda: Prior(a=FREE, b=lambda t: dist.Poisson(t["a"])), ValueError, r"'b' is discrete \(Poisson\)"),
    (lambda: Prior(a=FREE, b=lambda: FREE), TypeError, r"must take the named parameters, as in lambda t"),
    (lambda: Prior(a=dist.Normal), TypeError, "'a': expected a numpyro.distributions object, or a function"),
    (lambda: Prior(a=FREE, derived=dist.Normal(0, 1)), TypeError, "a parameter cannot be called 'derived'"),
    (lambda: Prior(a=FREE, derived={"a": lambda t: 1}), ValueError, "'a' is a parameter already"),
    (lambda: Prior(a=FREE, derived={"b": 2}), TypeError, "'b': expected a function of the named parameters.*got int"),
    (lambda: Prior(a=FREE, derived={"b": lambda t: t["aa"]}), ValueError, r"quantity 'b': .*mean 'a'\?"),
    (lambda: Prior(a=FREE, derived={"b": lambda t: "x"}), TypeError, "'b': expected a number.*got str"),
]


@pytest.mark.parametrize(("make", "error", "message"), MISUSES)
def test_misuse_says_what_to_write(make, error, message):
    with pytest.raises(error, match=message):
        make()
