"""The law of compilations: with as many observations as before, or a few more, other data and another level, nothing
is compiled again."""

import jax
import numpy as np
import pytest
from compiling import compiled

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
    x = simulator.draw(KEY, np.array([point]), 100)[0][0]
    with compiled() as first:
        from_data(simulator, x[:20], 0.95, columns[0], point)
        from_toys(simulator, 20, 0.9, columns[0], point)
    assert len(first) > 3  # the counter counts, whether or not a cache on disk has it all
    with compiled() as second:
        from_data(simulator, x[50:73], 0.9, columns[-1], point)
        from_toys(simulator, 23, 0.8, columns[-1], point)
    assert second == []
    with compiled() as larger:
        maximum_likelihood(likelihood(ExactRatio(simulator), x[:60]))
    assert len(larger) > 0  # another size is another function
