"""Confidence regions, against their closed forms."""

import json

import jax
import likelihood_models as models
import numpy as np
import pytest
from scipy import optimize

from quincunx.answers.estimates import ExactRatio
from quincunx.answers.frequentist.likelihood import likelihood
from quincunx.answers.frequentist.region import confidence_region
from quincunx.problems import gaussian

KEY = jax.random.key(5)
MEAN = models.mean.draw(KEY, np.array([[1.0]]), 25)[0][0]
POINTS = gaussian.draw(KEY, np.array([[1.0, -2.0]]), 50)[0][0]


@pytest.fixture(scope="module")
def interval():
    return confidence_region(likelihood(ExactRatio(models.mean), MEAN), 0.95)


@pytest.fixture(scope="module")
def ellipse():
    return confidence_region(likelihood(ExactRatio(gaussian), POINTS), 0.95)


def test_the_interval_of_a_normal_mean(interval):
    ((low, high),) = interval.interval
    assert [low, high] == pytest.approx(MEAN.mean() + np.array([-1, 1]) * 1.95996 / 5, abs=5e-4)
    assert interval.area == pytest.approx(2 * 1.95996 / 5, abs=1e-3)
    assert interval.contains(interval.best_fit) and interval.contains(low + 1e-3) and not interval.contains(low - 1e-3)
    assert interval.contains(np.array([[low - 9], [low + 0.1]])).tolist() == [False, True]
    # The grid has been narrowed from the whole support to about the region.
    assert np.ptp(interval.axes[0]) < 3 * interval.area


@pytest.mark.parametrize(("sided", "end"), [("upper", 1), ("lower", 0)])
def test_one_sided_limits_of_a_normal_mean(sided, end):
    ((low, high),) = confidence_region(likelihood(ExactRatio(models.mean), MEAN), 0.95, sided=sided).interval
    sign = 2 * end - 1
    assert (low, high)[end] == pytest.approx(MEAN.mean() + sign * 1.64485 / 5, abs=1e-3)
    assert (low, high)[1 - end] == -5 * sign  # the support's end


def test_an_interval_at_the_end_of_the_support():
    # q(mu) = (mu + 1)^2 - 1 from an observation of -1 where mu is not negative.
    region = confidence_region(likelihood(ExactRatio(models.positive), np.array([-1.0])), 0.95)
    ((low, high),) = region.interval
    assert low == 0 and region.best.at_boundary == ("mean",)
    assert high == pytest.approx(np.sqrt(3.8415 + 1) - 1, abs=2e-3)


def test_a_region_of_two_pieces_is_two_intervals():
    x = 2.0 + np.linspace(-1, 1, 9)  # mean 2, so that root^2 = 2 +- 1.96 / 3
    region = confidence_region(likelihood(ExactRatio(models.square), x), 0.95)
    low, high = np.sqrt(2 - 1.95996 / 3), np.sqrt(2 + 1.95996 / 3)
    np.testing.assert_allclose(region.interval, [(-high, -low), (low, high)], atol=2e-3)
    assert not region.contains({"root": 0.0})


def test_the_limit_of_seven_events_on_a_known_background():
    rate = lambda theta: theta["signal"] + models.BACKGROUND
    found = likelihood(models.Flat(), np.full(7, 0.5), rate=rate)
    ((_, high),) = confidence_region(found, 0.95, sided="upper").interval
    q = lambda s: 2 * (7 * np.log(7 / (s + 3)) + s + 3 - 7) - 1.64485**2
    assert high == pytest.approx(optimize.brentq(q, 4, 30), abs=5e-3)


def test_the_ellipse_of_two_means(ellipse):
    covariance = np.array([[1, 0.5], [0.5, 1]]) / 50
    assert ellipse.area == pytest.approx(np.pi * 5.9915 * np.sqrt(np.linalg.det(covariance)), rel=0.01)
    (line,) = ellipse.contour
    away = line - POINTS.mean(axis=0)
    np.testing.assert_allclose(np.einsum("ki,ij,kj->k", away, np.linalg.inv(covariance), away), 5.9915, rtol=0.02)
    assert ellipse.contains(ellipse.best_fit)
    assert ellipse.contains(line.mean(axis=0) + 0.9 * (line - line.mean(axis=0))).all()
    assert not ellipse.contains(line.mean(axis=0) + 1.1 * (line - line.mean(axis=0))).any()


def test_a_profiled_interval_is_the_shadow_of_the_ellipse(ellipse):
    found = likelihood(ExactRatio(gaussian), POINTS)
    region = confidence_region(found, 0.95, parameters="mean[0]")
    half = 1.95996 / np.sqrt(50)
    assert region.interval[0] == pytest.approx((POINTS.mean(axis=0)[0] - half, POINTS.mean(axis=0)[0] + half), abs=2e-3)
    with pytest.raises(ValueError, match=r"use \.contour"):
        _ = ellipse.interval


def test_critical_values_of_every_kind(interval):
    found = likelihood(ExactRatio(models.mean), MEAN)
    grid = interval.axes[0]
    for critical in (4.0, np.full(len(grid), 4.0), lambda theta: np.full(len(theta), 4.0)):
        region = confidence_region(found, 0.95, critical_values=critical, grid=grid)
        assert region.area == pytest.approx(2 * 2 / 5, abs=1e-3)


def test_dictionary_and_figure(interval, ellipse):
    for region in (interval, ellipse):
        found = json.loads(json.dumps(region.to_dict()))
        assert found["parameters"] == list(region.names) and found["area"] == region.area
        axes = region.plot()
        assert axes.get_xlabel() == region.names[0]
        assert region.plot(axes) is axes
    drawn = interval.plot().patches[0].get_extents().bounds
    assert drawn[2] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1.5}, "between 0 and 1"),
        ({"parameters": "meen"}, "did you mean 'mean'"),
        ({"sided": "left"}, "expected one of"),
        ({"critical_values": np.ones(5)}, "needs the grid"),
        ({"critical_values": np.ones(5), "grid": np.linspace(0, 1, 4)}, r"the grid's shape \(4,\)"),
        ({"critical_values": -1.0, "grid": np.linspace(0, 1, 4)}, "0 or more"),
        ({"grid": np.linspace(0, 9, 4)}, "9 is outside the support"),
        ({"grid": (np.linspace(0, 1, 4), np.linspace(0, 1, 4))}, "expected 1 arrays"),
    ],
)
def test_misuse_is_refused_with_advice(options, message):
    with pytest.raises(ValueError, match=message):
        confidence_region(likelihood(ExactRatio(models.mean), MEAN), **options)


def test_contains_refuses_other_names_and_shapes(interval, ellipse):
    with pytest.raises(ValueError, match="did you mean 'mean'"):
        interval.contains({"maen": 1.0})
    with pytest.raises(ValueError, match=r"shape \(..., 2\)"):
        ellipse.contains(np.zeros(3))
