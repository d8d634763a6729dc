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
from quincunx.methods.method import Refinement
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
    band, density, _ = figure.axes
    assert (band.get_ylabel(), band.get_xlabel()) == ("log_rate", "iteration of the machine")
    shown = labels(band)
    low, _, middle, _, high = np.asarray(answer.posterior.quantile([0.025, 0.25, 0.5, 0.75, 0.975]))[:, 0]
    iterations, medians = shown["median"].get_data()
    np.testing.assert_array_equal(iterations, [0, 1, 2, 3])
    assert [text.get_text() for text in band.get_xticklabels()] == ["1", "2", "3", "4"]
    assert medians[-1] == pytest.approx(middle, rel=1e-4)
    ends = shown["95 %"].get_paths()[0].vertices
    last = ends[ends[:, 0] == 3][:, 1]
    assert (last.min(), last.max()) == pytest.approx((low, high), rel=1e-4)
    assert shown["maximum likelihood"].get_ydata()[0] == pytest.approx(np.log(X.mean()), rel=1e-5)
    exact = labels(density)["exact posterior"].get_paths()[0].vertices  # the outline of an area
    at, height = exact[: len(exact) // 2].T
    mass = np.sum((height[1:] + height[:-1]) / 2 * np.abs(np.diff(at)))
    mean = np.sum(at[1:] * height[1:] * np.abs(np.diff(at)))
    inside = float(poisson.exact.posterior_mean(jnp.asarray(X))[0])
    assert (mass, mean) == pytest.approx((1, inside), abs=0.02)


def test_rounds_follow_the_iterations_on_an_axis_where_the_last_can_be_seen():
    method = tiny.method("alfi", refinement=Refinement(qx.Zoom(num_sets=100), 0.5, 4))
    found = qx.infer(KEY, poisson, X, method, num_simulations=4000, progress=qx.NoProgress())
    band = qx.plot(found).axes[0]
    rounds = int(found.inferred.statistics["num_rounds"])
    assert [text.get_text() for text in band.get_xticklabels()][-rounds:] == [f"R{k + 1}" for k in range(rounds)]
    medians = labels(band)["median"].get_ydata()
    np.testing.assert_allclose(medians[-rounds:], found.inferred.history["quantiles"][:, 2, 0])
    low, high = np.asarray(found.posterior.interval())[:, 0]
    shown = band.yaxis.get_transform().transform(np.array([*band.get_ylim(), low, high]))
    assert (shown[3] - shown[2]) / (shown[1] - shown[0]) > 0.15


def test_a_posterior_without_a_machine_shows_its_rounds_and_no_simulation_that_the_host_would_have_to_make():
    @qx.numpy_simulator(gaussian.prior, name="host")
    def host(rng, theta):
        return theta["mean"] + rng.normal(size=2)

    x = np.random.default_rng(0).normal(size=(20, 2))
    found = qx.infer(KEY, host, x, qx.Zoom(num_sets=100), num_simulations=4000, progress=qx.NoProgress())
    axes = qx.plot(found).axes
    assert "round of simulations (R)" in axes[0].get_xlabel()
    assert set(labels(axes[-2])) == {"data"}


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
    answer = qx.Answer(
        gaussian, jnp.asarray(np.random.default_rng(0).normal(size=(20, 2)), jnp.float32), qx.ExactRatio(gaussian)
    )
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
