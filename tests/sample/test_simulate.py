"""`simulate`: draws from the prior or given parameters, rows that fail, and what is refused."""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from quincunx.core.prior import Prior
from quincunx.core.progress import AbstractProgress
from quincunx.sample.black_box import simulator
from quincunx.sample.executable import executable
from quincunx.sample.numpy_function import numpy_simulator
from quincunx.sample.simulate import SimulationError, simulate

KEY = jax.random.key(0)
PRIOR = Prior(mean=dist.Uniform(0, 1), shift=dist.Normal(0, 1).expand((2,)))
UNIT = Prior(level=dist.Uniform(0, 1))


@simulator(PRIOR)
def normal(key, theta):
    return theta["mean"] + theta["shift"] + jax.random.normal(key, (2,))


@simulator(UNIT)
def fragile(key, theta):
    """NaN above 0.7, infinite in one observation of about two below 0.1."""
    level = theta["level"] + 0 * jax.random.normal(key)
    level = jnp.where(level > 0.7, jnp.nan, level)
    return jnp.where((level < 0.1) & jax.random.bernoulli(key), jnp.inf, level)


def chunks_of_two(monkeypatch):
    module = sys.modules["quincunx.sample.simulate"]
    monkeypatch.setattr(module, "FEW", 2 * module.PER_OBSERVATION)
    monkeypatch.setattr(module, "CHUNK", 2 * module.PER_OBSERVATION)


class Recorder(AbstractProgress):
    """Keeps what it is told."""

    told: list = eqx.field(static=True, default_factory=list)

    def start(self, stage: str, total: int) -> None:
        self.told.append((stage, total))

    def advance(self, steps: int, note: str = "") -> None:
        self.told.append((steps, note))

    def finish(self) -> None:
        self.told.append("finished")


# -- what comes out ------------------------------------------------------------------------------------


def test_shapes_and_law():
    sims = simulate(KEY, normal, num_simulations=300, num_observations=20)
    assert sims.theta.shape == (300, 3) and sims.x.shape == (300, 20, 2)
    assert (len(sims), sims.num_observations, sims.event_shape, sims.failures) == (300, 20, (2,), ())
    assert sims.num_simulator_calls == 6000 and sims.prior == PRIOR
    assert bool(PRIOR.contains(sims.theta).all())
    # x - mean - shift is standard normal: the mean of 12,000 such has sd 1/sqrt(12000), their mean square
    # sd sqrt(2/12000). 4 sd each: false alarms 1.3e-4 together, and the key is fixed.
    rest = np.asarray(sims.x - sims.theta[:, None, :1] - sims.theta[:, None, 1:])
    assert abs(rest.mean()) < 4 / np.sqrt(rest.size)
    assert abs((rest**2).mean() - 1) < 4 * np.sqrt(2 / rest.size)


def test_same_key_same_bits_and_another_key_others():
    one, two, other = (simulate(jax.random.key(k), normal, num_simulations=5, num_observations=3) for k in (0, 0, 1))
    for field in ("theta", "x"):
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field))
        assert (np.asarray(getattr(other, field)) != np.asarray(getattr(one, field))).all()


@pytest.mark.parametrize(
    "theta",
    [
        np.array([[0.5, -1.0, 1.0]] * 2),
        {"shift": [-1.0, 1.0], "mean": [0.5, 0.5]},
        {"mean": 0.5, "shift": [[-1.0, 1.0]] * 2},
        {"mean": 0.5, "shift": [-1.0, 1.0]},  # one row
    ],
)
def test_given_parameters_are_kept_as_they_are(theta):
    sims = simulate(KEY, normal, theta=theta)
    np.testing.assert_array_equal(sims.theta, [[0.5, -1.0, 1.0]] * len(sims))
    assert sims.x.shape[1:] == (1, 2)
    assert len(sims) == 1 or (sims.x[0] != sims.x[1]).all()  # equal parameters, independent rows


def test_picking_rows():
    sims = simulate(KEY, fragile, theta=np.array([[0.2], [0.9], [0.3], [0.4]]), num_observations=2)
    np.testing.assert_array_equal(sims[1:].theta, sims.theta[1:])
    picked = sims[np.array([2, 0])]
    np.testing.assert_array_equal(picked.theta, sims.theta[np.array([2, 0])])
    np.testing.assert_array_equal(picked.x, sims.x[np.array([2, 0])])
    assert len(picked) == 2 and picked.simulator is sims.simulator and picked.failures == sims.failures


# -- rows that fail ------------------------------------------------------------------------------------


def test_failed_rows_are_counted_dropped_and_listed():
    sims = simulate(KEY, fragile, theta=np.array([[0.2], [0.9], [0.3], [0.75], [0.4]]), num_observations=3)
    np.testing.assert_array_equal(sims.theta[:, 0], np.float32([0.2, 0.3, 0.4]))
    np.testing.assert_array_equal(sims.x, np.repeat(np.asarray(sims.theta), 3, axis=1))
    assert [failure.row for failure in sims.failures] == [1, 3]
    assert sims.failures[0].theta == {"level": pytest.approx(0.9)}
    assert {failure.reason for failure in sims.failures} == {"3 of 3 observations are NaN or infinite"}
    assert sims.num_simulator_calls == 15 and "2 failed" in repr(sims)


def test_one_bad_observation_fails_its_row():
    sims = simulate(KEY, fragile, theta=np.array([[0.05], [0.2]]), num_observations=64)
    assert [failure.row for failure in sims.failures] == [0]
    # Binomial(64, 1/2) bad observations: all or none would be 2^-63.
    assert 0 < int(sims.failures[0].reason.split()[0]) < 64


def test_more_than_half_failing_is_an_error_that_names_the_first():
    theta = np.array([[0.2], [0.8], [0.9], [0.3]])
    assert len(simulate(KEY, fragile, theta=theta)) == 2  # just half is not more than half
    message = (
        r"3 of 5 simulations by 'fragile' failed.*row 1 \(level=0.8\): 1 of 1 observations are NaN.*narrow the prior"
    )
    with pytest.raises(SimulationError, match=message) as caught:
        simulate(KEY, fragile, theta=np.append(theta, [[1.0]], axis=0))
    assert [failure.row for failure in caught.value.failures] == [1, 2, 4]


def test_failures_of_host_simulators():
    def picky(rng, theta):
        if theta["level"] > 0.7:
            raise RuntimeError("too high")
        return rng.normal(theta["level"], size=3)

    theta = np.linspace(0, 1, 8)[:, None]
    sims = simulate(KEY, numpy_simulator(UNIT, workers=0)(picky), theta=theta, num_observations=4)
    assert sims.x.shape == (5, 4, 3)
    assert [failure.row for failure in sims.failures] == [5, 6, 7]
    assert sims.failures[0].reason.startswith("RuntimeError: too high (line ")
    with pytest.raises(
        SimulationError, match=r"2 of 2 simulations by 'sh' failed.*row 0 \(level=0\): exit code 9: no fuel"
    ):
        simulate(KEY, executable("sh -c 'echo no fuel >&2; exit 9'", UNIT), theta=theta[:2])


def test_a_shape_that_changes_between_chunks_fails_rows(monkeypatch):
    chunks_of_two(monkeypatch)

    @numpy_simulator(Prior(case=dist.Uniform(0, 20)), workers=0)
    def fickle(rng, theta):
        case = theta["case"]
        if case in (2, 3, 6):
            raise ValueError("no")
        return np.full(3 if case < 2 else 2, case)

    progress = Recorder()
    sims = simulate(KEY, fickle, theta=np.arange(11.0)[:, None], num_observations=1, progress=progress)
    assert sims.event_shape == (2,)
    np.testing.assert_array_equal(sims.x[:, 0, 0], [4, 5, 7, 8, 9, 10])
    reasons = {failure.row: failure.reason for failure in sims.failures}
    assert reasons[0] == reasons[1] == "returned shape (3,), others (2,)"
    assert all(reasons[row].startswith("ValueError: no (line ") for row in (2, 3, 6)) and len(reasons) == 5
    assert sims.failures[1].theta == {"case": 1.0}
    chunks = [(2, ""), (2, "2 failed"), (2, "2 failed"), (2, "3 failed"), (2, "3 failed"), (1, "3 failed")]
    assert progress.told == [("simulate", 11), *chunks, "finished"]


def test_chunks_hold_independent_draws(monkeypatch):
    chunks_of_two(monkeypatch)
    noise = numpy_simulator(UNIT, workers=0)(lambda rng, theta: rng.normal())
    for box in (noise, simulator(UNIT)(lambda key, theta: jax.random.normal(key))):
        assert len(np.unique(simulate(KEY, box, theta=np.full((9, 1), 0.5)).x)) == 9


def test_failures_in_chunks_are_those_of_the_whole(monkeypatch):
    chunks_of_two(monkeypatch)
    level = np.float32([0.9, 0.3, 0.2, 0.4, 0.95, 0.5, 0.6])  # the last chunk is filled up with the first row
    sims = simulate(KEY, fragile, theta=level[:, None])
    assert [failure.row for failure in sims.failures] == [0, 4]
    np.testing.assert_array_equal(sims.x[:, 0], level[[1, 2, 3, 5, 6]])


def test_progress_is_finished_when_the_simulator_is_interrupted():
    def stop(rng, theta):
        raise KeyboardInterrupt

    progress = Recorder()
    with pytest.raises(KeyboardInterrupt):
        simulate(KEY, numpy_simulator(UNIT, workers=0)(stop), num_simulations=3, progress=progress)
    assert progress.told == [("simulate", 3), "finished"]


# -- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give num_simulations .* or theta .*, one of the two"),
        ({"num_simulations": 3, "theta": [[0.5, 0, 0]]}, "one of the two"),
        ({"num_simulations": 0}, "num_simulations must be at least 1, got 0"),
        ({"num_simulations": 3, "num_observations": 0}, "num_observations must be at least 1, got 0"),
        ({"theta": [0.5, 0, 0]}, r"expected shape \(n, 3\), a column for each of \('mean', 'shift\[0\]'.*got \(3,\)"),
        ({"theta": [[0.5, 0]]}, r"expected shape \(n, 3\).*got \(1, 2\)"),
        ({"theta": np.zeros((2, 2, 3))}, r"expected shape \(n, 3\).*got \(2, 2, 3\)"),
        ({"theta": np.zeros((0, 3))}, "theta has no rows"),
        ({"theta": {"mean": [0.5] * 3, "shift": np.zeros((2, 2))}}, r"as many values of every.*\(3,\).*\(2,\)"),
        ({"theta": {"meen": 0.5, "shift": np.zeros(2)}}, "unknown parameter 'meen' .did you mean 'mean'"),
        ({"theta": [[0.5, 0, 0], [1.5, 0, 0]]}, r"parameter 'mean': 1.5 is outside the support of its prior, Uniform\(low=0.*, high=1"),  # noqa: E501
        ({"theta": [[np.nan, 0, 0]]}, "parameter 'mean': nan is outside"),
        ({"theta": [[0.5, 0, np.nan]]}, "parameter 'shift': .* is outside"),
    ],
)  # fmt: skip
def test_misuse_is_refused_before_any_work(options, message):
    calls = []
    watched = numpy_simulator(PRIOR, workers=0)(lambda rng, theta: calls.append(1))
    with pytest.raises(ValueError, match=message):
        simulate(KEY, watched, **options)
    assert calls == []


@pytest.mark.parametrize("use", [np.exp, lambda mean: np.random.default_rng(0).poisson(mean)])
def test_numpy_in_a_function_of_jax_is_named_with_the_cure(use):
    numpy = simulator(UNIT, name="counts")(lambda key, theta: use(theta["level"]))
    for call in (lambda: numpy.event_shape, lambda: simulate(KEY, numpy, num_simulations=2)):
        with pytest.raises(TypeError, match=r"'counts' calls NumPy.*use jax.numpy, or @qx.numpy_simulator"):
            call()
