"""The law of compilations: with as many observations as before, or a few more, other data and another level, nothing
is compiled again."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quincunx.answers.estimates import ExactRatio
from quincunx.answers.frequentist.coverage import coverage_map
from quincunx.answers.frequentist.experiment import Experiment
from quincunx.answers.frequentist.hypothesis import test_statistic as hypothesis_test
from quincunx.answers.frequentist.likelihood import likelihood
from quincunx.answers.frequentist.maximum import maximum_likelihood
from quincunx.answers.frequentist.neyman import critical_values
from quincunx.answers.frequentist.region import confidence_region
from quincunx.gold.mined import AbstractMinedSimulator
from quincunx.problems import CATALOGUE

KEY = jax.random.key(9)
LOWERED: list[str] = []  # whatever is lowered to be compiled, whether or not a cache on disk has it already

jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: LOWERED.append(event) if event.endswith("jaxpr_to_mlir_module_duration") else None
)


@contextlib.contextmanager
def compilations():
    """The number of functions compiled inside, as a list of one."""
    before, count = len(LOWERED), [0]
    yield count
    count[0] = len(LOWERED) - before


def from_data(simulator, x, level, column, point):
    found = likelihood(ExactRatio(simulator), x)
    maximum_likelihood(found)
    maximum_likelihood(found, fixed={column: point[simulator.prior.columns.index(column)]})
    hypothesis_test(found, {column: point[simulator.prior.columns.index(column)]})
    confidence_region(found, level)
    confidence_region(found, level, parameters=column, sided="upper")


def from_toys(simulator, num_observations, level, column, point):
    rated = isinstance(simulator, AbstractMinedSimulator) and simulator.rate is not None
    experiment = Experiment(simulator) if rated else Experiment(simulator, num_observations=num_observations)
    theta, ratio = np.tile(point, (2, 1)), ExactRatio(simulator)
    made = critical_values(KEY, ratio, experiment, theta, num_toys=num_observations, level=level, parameters=column)
    options = {"num_toys": num_observations, "levels": (level,), "parameters": column}
    coverage_map(jax.random.fold_in(KEY, num_observations), ratio, experiment, theta, critical_values=made, **options)


@pytest.mark.parametrize(("name", "point"), [("poisson", [3.0]), ("galton", [-0.7]), ("eft", [0.3, -0.2])])
def test_other_data_of_nearly_the_same_number_compile_nothing(name, point):
    simulator = CATALOGUE[name]
    columns = simulator.prior.columns
    x = np.asarray(simulator.sample_set(KEY, jnp.asarray(point), 100))
    with compilations() as first:
        from_data(simulator, x[:20], 0.95, columns[0], point)
        from_toys(simulator, 20, 0.9, columns[0], point)
    assert first[0] > 3  # the counter counts
    with compilations() as second:
        from_data(simulator, x[50:73], 0.9, columns[-1], point)
        from_toys(simulator, 23, 0.8, columns[-1], point)
    assert second[0] == 0
    with compilations() as larger:
        maximum_likelihood(likelihood(ExactRatio(simulator), x[:60]))
    assert larger[0] > 0  # another size is another function
