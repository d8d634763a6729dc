"""Priors: names, packing, supports, and the unconstrained space."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

from quincunx.core.prior import Prior

MIXED = Prior(
    scale=dist.LogNormal(0.5, 0.3),
    beta=dist.Normal(0, 2).expand([2]).to_event(1),
    angle=dist.Uniform(0, jnp.array([1.0, 3.0])),
    share=dist.Beta(2, 5),
)


def test_columns_name_every_component_in_declared_order():
    assert MIXED.columns == ("scale", "beta[0]", "beta[1]", "angle[0]", "angle[1]", "share")
    assert MIXED.dim == MIXED.unconstrained_dim == 6


def test_pack_and_unpack_are_inverse():
    theta = MIXED.sample(jax.random.key(0), 7)
    named = MIXED.unpack(theta)
    assert named["beta"].shape == (7, 2) and named["scale"].shape == (7,)
    np.testing.assert_array_equal(MIXED.pack(named), theta)
    np.testing.assert_array_equal(jax.jit(lambda theta: MIXED.pack(MIXED.unpack(theta)))(theta), theta)
    same = MIXED.pack({**named, "scale": 2.0})  # one value for all
    np.testing.assert_array_equal(same, np.concatenate([np.full((7, 1), 2.0), theta[:, 1:]], axis=1))


METHODS = ["log_prob", "contains", "unconstrain", "constrain", "log_prob_unconstrained"]


@pytest.mark.parametrize("method", METHODS)
def test_leading_axes_and_traces_change_nothing(method):
    """One row, many, a grid of them, none, and inside a function that is compiled."""
    rows = np.asarray(MIXED.sample(jax.random.key(1), 12)) * np.float32([1, 1, 1, 1, 1, 0.9])
    call = getattr(MIXED, method)
    each = np.stack([np.asarray(call(row)) for row in rows])
    np.testing.assert_allclose(call(rows), each, rtol=1e-5)
    np.testing.assert_allclose(call(rows.reshape(3, 4, 6)), each.reshape(3, 4, *each.shape[1:]), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(call)(rows), each, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda: call(rows))(), each, rtol=1e-5)
    assert call(rows[:0]).shape == (0, *each.shape[1:])
    assert isinstance(call(rows), jax.Array)


def test_rows_are_checked_float32():
    rows = MIXED.rows(MIXED.sample(jax.random.key(0), 3).tolist())
    assert isinstance(rows, np.ndarray) and rows.dtype == np.float32 and rows.shape == (3, 6)
    named = {"scale": [1.0, 2.0], "beta": np.zeros((2, 2)), "angle": [0.5, 1.0], "share": 0.5}
    np.testing.assert_array_equal(MIXED.rows(named), np.float32([[s, 0, 0, 0.5, 1, 0.5] for s in (1, 2)]))
    for wrong, message in [
        (np.zeros(6), r"point: expected shape \(n, 6\), a column for each of \('scale', .*got \(6,\)"),
        (np.zeros((0, 6)), "point has no rows; give at least one"),
        (np.full((1, 6), 1.5), r"'angle': 1.5 is outside .*Uniform"),
    ]:
        with pytest.raises(ValueError, match=message):
            MIXED.rows(wrong, "point")


def test_log_prob_is_the_sum_of_scipy_densities():
    theta = np.asarray(MIXED.sample(jax.random.key(1), 50), np.float64)
    expected = (
        scipy.stats.lognorm(0.3, scale=np.exp(0.5)).logpdf(theta[:, 0])
        + scipy.stats.norm(0, 2).logpdf(theta[:, 1:3]).sum(1)
        - np.log(3.0)
        + scipy.stats.beta(2, 5).logpdf(theta[:, 5])
    )
    np.testing.assert_allclose(MIXED.log_prob(theta), expected, rtol=2e-4, atol=2e-4)


def test_constrain_inverts_unconstrain_and_never_leaves_the_support():
    theta = MIXED.sample(jax.random.key(2), 200)
    np.testing.assert_allclose(MIXED.constrain(MIXED.unconstrain(theta)), theta, rtol=1e-3, atol=1e-4)
    wild = 4.0 * jax.random.normal(jax.random.key(3), (500, 6))
    assert bool(MIXED.contains(MIXED.constrain(wild)).all())


def test_unconstrained_density_integrates_to_one():
    prior = Prior(x=dist.Uniform(2.0, 5.0))
    u = np.linspace(-25, 25, 20_001)[:, None]
    density = np.exp(np.asarray(prior.log_prob_unconstrained(u), np.float64))
    assert np.trapezoid(density, u[:, 0]) == pytest.approx(1, abs=1e-3)


def test_outside_the_support():
    theta = np.asarray(MIXED.sample(jax.random.key(4), 2)).copy()
    theta[1, 5] = 1.5
    assert MIXED.contains(theta).tolist() == [True, False]
    assert MIXED.log_prob(theta)[1] == -jnp.inf
    with pytest.raises(ValueError, match=r"'share': 1.5 is outside the support .*Beta"):
        MIXED.check(theta)


def test_misuse_names_the_parameter():
    with pytest.raises(ValueError, match=r"unknown parameter 'shar'.*did you mean 'share'"):
        MIXED.pack({"shar": 0.5})
    with pytest.raises(ValueError, match="'angle' is missing"):
        MIXED.pack({"scale": 1.0, "beta": np.zeros(2), "share": 0.5})
    with pytest.raises(ValueError, match="'beta': expected shape"):
        MIXED.pack({"scale": 1.0, "beta": np.zeros(3), "angle": np.ones(2) / 2, "share": 0.5})
    with pytest.raises(ValueError, match=r"as many values of every parameter, or one; got .*'scale': \(3,\)"):
        MIXED.pack({"scale": np.ones(3), "beta": np.zeros(2), "angle": np.ones((2, 2)) / 2, "share": 0.5})
    with pytest.raises(TypeError, match=r"'rate'.*numpyro"):
        Prior(rate=1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'count' is discrete"):
        Prior(count=dist.Poisson(3.0))
    with pytest.raises(ValueError, match="at least one parameter"):
        Prior()


def test_equality_is_by_content():
    same = Prior(a=dist.Uniform(0.0, 1.0))
    assert same == Prior(a=dist.Uniform(0.0, 1.0)) and hash(same) == hash(Prior(a=dist.Uniform(0.0, 1.0)))
    assert same != Prior(a=dist.Uniform(0.0, 2.0)) and same != Prior(b=dist.Uniform(0.0, 1.0))


def test_a_simplex_has_fewer_unconstrained_dimensions():
    prior = Prior(shares=dist.Dirichlet(jnp.ones(3)))
    assert (prior.dim, prior.unconstrained_dim) == (3, 2)
    theta = prior.constrain(jax.random.normal(jax.random.key(5), (20, 2)))
    np.testing.assert_allclose(theta.sum(-1), 1, rtol=1e-5)
    assert np.isfinite(prior.log_prob_unconstrained(jnp.zeros(2)))
