"""Figures of answers show the answer: what is drawn is read back from the artists."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import quincunx as qx
from quincunx.core.simulator import NamedSimulator
from quincunx.core.tables import estimate_text
from quincunx.problems import gaussian, poisson

X = np.array([3.0, 4.0, 5.0, 2.0, 3.0, 4.0, 1.0, 6.0, 3.0, 2.0, 7.0, 4.0])
KEY = jax.random.key(5)


def answer_of(machine) -> qx.Answer:
    return qx.infer(KEY, None, X, estimator=machine, progress=qx.NoProgress())


def labels(axis) -> dict:
    """Artist by the label that the legend shows."""
    artists, names = axis.get_legend_handles_labels()
    return dict(zip(names, artists, strict=True))


@pytest.fixture(scope="module")
def answer():
    return answer_of(tiny.trained("alfi", poisson).value)


@pytest.fixture(scope="module")
def figure(answer, tmp_path_factory):
    path = tmp_path_factory.mktemp("figures") / "new" / "figure.png"
    figure = qx.plot(answer, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    return figure


def test_the_title_is_the_result(answer, figure):
    row = answer.posterior.summary()["log_rate"]
    assert (
        figure.get_suptitle() == f"poisson: log_rate = {estimate_text(row['mean'], row['std'])}\nfrom 12 observations"
    )


def test_the_proposal_closes_in_on_the_answer_beside_the_maximum_likelihood_estimate(answer, figure):
    band, width, _ = figure.axes
    assert (band.get_ylabel(), width.get_ylabel(), width.get_xlabel()) == ("log_rate", "std of log_rate", "iteration")
    shown = labels(band)
    low, _, middle, _, high = np.asarray(answer.posterior.quantile([0.025, 0.25, 0.5, 0.75, 0.975]))[:, 0]
    iterations, medians = shown["median"].get_data()
    np.testing.assert_array_equal(iterations, [1, 2, 3, 4])
    assert medians[-1] == pytest.approx(middle, rel=1e-4)
    ends = shown["95 % of the proposal"].get_paths()[0].vertices
    last = ends[ends[:, 0] == 4][:, 1]
    assert (last.min(), last.max()) == pytest.approx((low, high), rel=1e-4)
    assert shown["maximum likelihood"].get_ydata()[0] == pytest.approx(np.log(X.mean()), rel=1e-5)
    (line,) = width.get_lines()
    np.testing.assert_allclose(line.get_ydata(), answer.inferred.history["std"][:, 0])
    assert width.get_yscale() == "log"


def test_data_are_in_the_right_bins(figure):
    data = labels(figure.axes[-1])["data"]
    values, counts = np.unique(X, return_counts=True)
    shares = {v: s for v, s in zip(*data.get_data(), strict=True) if s}
    assert shares == pytest.approx(dict(zip(values, counts / len(X), strict=True)))


def test_a_simulator_that_cannot_be_run_is_replaced_by_the_nearest_set_of_the_bank(answer):
    machine = dataclasses.replace(
        answer.estimator, simulator=NamedSimulator("poisson", poisson.prior, "it is not here"), live=False
    )
    found = answer_of(machine)
    values, edges, _ = labels(qx.plot(found).axes[-1])["the simulated set nearest to the answer"].get_data()
    nearest = int(jnp.argmin(jnp.abs(machine.novelty.theta - found.posterior.mean)))
    own = np.clip(machine.novelty.x[nearest], edges[0], edges[-1])  # the outer bins take the rest
    np.testing.assert_allclose(values, np.histogram(own, edges)[0] / len(own))


def test_of_a_likelihood_every_region_is_drawn():
    answer = qx.Answer(qx.ExactRatio(gaussian), jnp.asarray(np.random.default_rng(0).normal(size=(20, 2)), jnp.float32))
    figure = qx.plot(answer)
    regions = answer.regions()
    assert [region.names for region in regions] == [(n,) for n in gaussian.prior.columns] + [gaussian.prior.columns]
    assert len(figure.axes) == 3
    for axis, region in zip(figure.axes[:2], regions, strict=False):
        shown = labels(axis)
        np.testing.assert_allclose(shown["q"].get_data(), [region.axes[0], region.q])
        np.testing.assert_allclose(shown["95 %"].get_ydata(), region.critical)
        spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axis.patches]
        np.testing.assert_allclose(spans, region.interval)
    joint = labels(figure.axes[2])
    np.testing.assert_allclose(joint["95 %"].get_data(), regions[2].contour[0].T)
    np.testing.assert_allclose(np.ravel(joint["best fit"].get_data()), answer.x.mean(axis=0), atol=1e-3)
