"""What the library says to those who mistype."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import quincunx as qx
from quincunx.core.names import option_names

KEY = jax.random.key(0)
PRIOR = qx.Prior(mean=dist.Normal(0, 1), scale=dist.Uniform(0.5, 2))
X = np.zeros(10)


@qx.simulator(PRIOR)
def noise(key, theta):
    return theta["mean"] + theta["scale"] * jax.random.normal(key)


OPTIONS = [
    (lambda: qx.infer(KEY, noise, X, num_steps=2), r"infer: unknown option 'num_steps'; .*training=qx.Training\(num_s"),
    (lambda: qx.train(KEY, noise, learning_rates=1.0), r"training=qx.Training\(learning_rate=1.0\)"),
    (lambda: qx.train(KEY, noise, "alices", alpha=3), r"give it to the method: method=qx.ALICES\(alpha=3\)"),
    (lambda: qx.infer(KEY, noise, X, qx.NRE(), network=3), r"give it to the method: method=qx.NRE\(network=3\)"),
    (lambda: qx.infer(KEY, noise, X, qx.NRE(), alpha=3), "it is an option of CASCAL, RASCAL, ALICES"),
    (lambda: qx.infer(KEY, noise, X, num_simulation=2), "'num_simulation'; did you mean 'num_simulations'?"),
    (lambda: qx.simulate(KEY, noise, n=3), "simulate: unknown option 'n'; it takes key, simulator, num_simulations"),
    (lambda: qx.mine(KEY, noise, num_samples=3), "mine: unknown option 'num_samples'; did you mean 'num_simulations'"),
    (lambda: qx.contrast(KEY, noise, num_samples=3), "contrast: .*did you mean 'num_simulations'"),
    (lambda: qx.run(KEY, noise, X, num_steps=3), "run: unknown option 'num_steps'; did you mean 'num_iterations'"),
    (lambda: qx.fit(KEY, noise, X, num_steps=3), r"fit: .*training=qx.Training\(num_steps=3\)"),
]


@pytest.mark.parametrize(("call", "message"), OPTIONS)
def test_an_unknown_option_is_refused_with_where_it_belongs(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_signatures_stay_what_they_are():
    for verb in (qx.infer, qx.train, qx.simulate, qx.mine, qx.contrast, qx.run, qx.fit):
        kinds = {parameter.kind for parameter in inspect.signature(verb).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds and verb.__doc__
    assert {"network", "batch_size", "alpha"} <= set(option_names(qx.ALICES))


ARGUMENTS: list = [
    (lambda: qx.simulate(KEY, noise.function, num_simulations=3), "simulator: expected .*qx.problems, got function"),
    (lambda: qx.train(KEY, "poisson"), "simulator: expected .*got str"),
    (lambda: qx.infer(KEY, X, noise), "simulator: expected .*got ndarray"),
    (lambda: qx.mine(KEY, X, num_simulations=3), "simulator: expected .*got ndarray"),
    (lambda: qx.infer(0, noise, X), r"key: expected one such as jax.random.key\(0\), got int"),
    (lambda: qx.simulate(0, noise, num_simulations=3), "key: expected .*got int"),
    (lambda: qx.contrast(0, noise, num_simulations=3), "key: expected .*got int"),
    (lambda: qx.simulate(KEY, noise, num_simulations=1e4), "num_simulations: expected .*got 10000.0; write 10000"),
    (lambda: qx.train(KEY, noise, num_simulations="many"), "num_simulations: expected a whole number, got 'many'"),
    (lambda: qx.train(KEY, noise, training={"num_steps": 3}), r"expected one such as qx.Training\(num_.*got dict"),
    (lambda: qx.train(KEY, noise, qx.NRE), r"its name, got function; call it: NRE\(\)"),
    (lambda: qx.run(KEY, noise, X), "kernel: expected one, .*got JaxSimulator"),
    (
        lambda: qx.simulator(PRIOR)(lambda theta: 3),
        r"expected a function \(key, theta\) -> x, got one that takes \(",
    ),
    (lambda: qx.simulator(PRIOR)(3), r"expected a function \(key, theta\) -> x, got int"),
]


@pytest.mark.parametrize(("call", "message"), ARGUMENTS)
def test_a_wrong_argument_is_refused_with_what_was_expected(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_whole_numbers_of_every_kind_will_do():
    for number in (3, np.int64(3), np.array(3)):
        assert len(qx.simulate(KEY, noise, num_simulations=number)) == 3
    for number in (2.5, np.array([2.0])):
        with pytest.raises(TypeError, match="num_simulations: expected a whole number"):
            qx.simulate(KEY, noise, num_simulations=number)


FUNCTIONS = [
    (
        lambda key, theta: np.random.default_rng(0).normal(theta["mean"]),
        TypeError,
        "calls NumPy, .*use jax.numpy, or @qx.numpy_simul",
    ),
    (lambda key, theta: np.sin(theta["mean"]), TypeError, "calls NumPy, which JAX cannot trace"),
    (lambda key, theta: 1.0 if theta["mean"] > 0 else 0.0, TypeError, "as `if`, .*jnp.where.*@qx.numpy_simulator"),
    (lambda key, theta: float(theta["mean"]), TypeError, "asks for a value while JAX traces it"),
    (lambda key, theta: theta["men"], ValueError, r"'men', which is no parameter \(did you mean 'mean'\?\); the prior"),
    (lambda key, theta: None, TypeError, "gives nothing; let it return"),
]


@pytest.mark.parametrize(("function", "error", "message"), FUNCTIONS)
def test_a_function_that_is_not_in_jax_is_told_what_to_do(function, error, message):
    with pytest.raises(error, match=message):
        qx.simulate(KEY, qx.simulator(PRIOR, name="mine")(function), num_simulations=3)
    paired = lambda key, theta: (function(key, theta), jnp.zeros(()))
    if error is not TypeError or "nothing" not in message:
        mined = qx.mined_simulator(PRIOR, joint_log_prob=lambda theta, x, z: theta["mean"], name="mine")(paired)
        with pytest.raises(error, match=message):
            qx.mine(KEY, mined, num_simulations=400)


def test_parameters_can_be_given_by_name():
    assert qx.simulate(KEY, noise, theta={"mean": 0.0, "scale": 1.0}).theta.shape == (1, 2)
    assert qx.simulate(KEY, noise, theta={"mean": [0.0, 1.0], "scale": 1.0}).theta.shape == (2, 2)
    for theta, message in [
        ({"men": 0.0, "scale": 1.0}, "unknown parameter 'men'.*did you mean 'mean'"),
        ({"mean": 0.0}, "parameter 'scale' is missing"),
        ({"mean": np.zeros((2, 2)), "scale": np.ones(3)}, "as many values of every parameter"),
    ]:
        with pytest.raises(ValueError, match=message):
            qx.simulate(KEY, noise, theta=theta)
    vector = qx.Prior(beta=dist.Normal(0, jnp.ones(2)))
    with pytest.raises(ValueError, match=r"'beta': expected shape \(..., 2\), got \(3,\)"):
        vector.pack({"beta": np.zeros(3)})
