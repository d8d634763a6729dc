"""Every check passes an exact ratio and fails a spoilt one.

All keys are fixed. A check of an exact ratio at level 0.01 is a false alarm with probability 1 %, once and for all.
"""

import functools
import json
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from quincunx.answers.estimates import AbstractRatio, ExactRatio
from quincunx.checks.ratio_tests import (
    calibration_curve,
    effective_samples,
    mean_ratio_test,
    reference_independence,
    roc_test,
)
from quincunx.problems import gaussian, poisson, weinberg

KEY = jax.random.key(20_150_606)
CASES = {
    "gaussian": (gaussian, [0.4, -0.3], [0.0, 0.0]),
    "weinberg": (weinberg, [41.0, 0.7], [45.0, 1.0]),
    "poisson": (poisson, [2.1], [2.0]),
}
NAMES = tuple(CASES)


class Spoilt(AbstractRatio):
    """An exact ratio, at a theta off by `shift`, times `factor`, plus `tilt` of the first of x and `constant`."""

    exact: ExactRatio
    reference: jax.Array
    factor: jax.Array = eqx.field(converter=jnp.asarray, default=1.0)  # arrays: all are compiled as one
    shift: jax.Array = eqx.field(converter=jnp.asarray, default=0.0)
    tilt: jax.Array = eqx.field(converter=jnp.asarray, default=0.0)
    constant: jax.Array = eqx.field(converter=jnp.asarray, default=0.0)

    @property
    def simulator(self):
        return self.exact.simulator

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.exact.event_shape

    def log_ratio(self, theta, x):
        shift = self.shift * jnp.eye(self.prior.dim)[-1]
        log_ratio = self.exact.log_ratio(jnp.asarray(theta) + shift, x) - self.exact.log_ratio(self.reference, x)
        return self.factor * log_ratio + self.tilt * x.reshape(len(x), -1)[:, 0] + self.constant


@functools.cache
def draws(name, which, n=4000):
    simulator, *thetas = CASES[name]
    keys = jax.random.split(jax.random.fold_in(KEY, which), n)
    return jax.jit(jax.vmap(simulator.sample, in_axes=(0, None)))(keys, jnp.array(thetas[which]))


def roc(name, ratio, key=KEY, n=4000, other=True):
    _, theta, reference = CASES[name]
    x = [draws(name, which)[:n] for which in (0, 1)]
    return roc_test(key, ratio, x[0], x[1], np.array(theta), np.array(reference) if other else None)


def exact(name):
    return ExactRatio(CASES[name][0])


def spoilt(name, **how):
    return Spoilt(exact(name), jnp.array(CASES[name][2]), **how)


@eqx.filter_jit
def evaluated(ratio, theta, x):
    return ratio.log_ratio(theta, x)


def logs(name, ratio, which):
    return np.asarray(evaluated(ratio, jnp.array(CASES[name][1]), draws(name, which)), np.float64)


# -- the ROC test ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_roc_test_passes_the_exact_ratio(name):
    found = roc(name, exact(name))
    assert found.passed
    assert found.conclusive
    assert abs(found.auc - 0.5) < 0.03
    assert "cannot tell" in found.message
    assert roc(name, spoilt(name), other=False).passed  # relative to the reference by itself


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("gaussian", {"factor": 0.5}),
        ("gaussian", {"shift": 0.4}),
        ("gaussian", {"tilt": 0.2}),
        ("weinberg", {"factor": 0.5}),
        ("weinberg", {"shift": 0.5}),
        ("weinberg", {"tilt": 0.3}),
        ("poisson", {"factor": 0.5}),
        ("poisson", {"shift": 0.1}),
        ("poisson", {"tilt": 0.05}),
    ],
)
def test_roc_test_fails_a_spoilt_ratio(name, how):
    found = roc(name, spoilt(name, **how), other=False)
    assert not found.passed
    assert found.conclusive
    assert found.p_value < 1e-3
    assert "tells" in found.message


def test_p_values_of_the_roc_test_are_valid_for_an_exact_ratio():
    # 60 independent tests, each on 400 draws of its own: with 5 % each, more than 10 fall below 0.05 with
    # probability 0.02 %. That they are not all near 1 either is what the median says.
    ratio, theta = spoilt("gaussian"), np.array([0.4, -0.3], np.float32)
    draw = jax.jit(jax.vmap(gaussian.sample, in_axes=(0, None)))
    keys = jax.random.split(KEY, (2, 60 * 400))
    x = [draw(key, at).reshape(60, 400, 2) for key, at in zip(keys, jnp.array([theta, 0 * theta]), strict=True)]
    p_values = [roc_test(jax.random.fold_in(KEY, k), ratio, x[0][k], x[1][k], theta).p_value for k in range(60)]
    assert np.sum(np.array(p_values) < 0.05) <= 10
    assert 0.25 < np.median(p_values) < 0.75


def test_roc_test_says_when_the_weights_leave_too_few_samples():
    far = np.array([3.0, -3.0], np.float32)
    x = jax.vmap(gaussian.sample, in_axes=(0, None))(jax.random.split(KEY, 1000), jnp.asarray(far))
    found = roc_test(KEY, exact("gaussian"), x, draws("gaussian", 1), far, np.zeros(2))
    assert not found.conclusive
    assert not found.passed
    assert found.effective_samples < 100
    assert "Nothing can be told" in found.message


def test_roc_test_is_blind_to_a_constant_and_the_mean_ratio_is_not():
    log_ratio = logs("gaussian", spoilt("gaussian"), 1)
    assert roc("gaussian", spoilt("gaussian", constant=0.2), other=False).passed
    assert mean_ratio_test(log_ratio).passed
    assert not mean_ratio_test(log_ratio + 0.2).passed


def test_roc_test_is_repeatable_and_sees_large_observations():
    assert roc("gaussian", exact("gaussian")) == roc("gaussian", exact("gaussian"))
    wide = Flat(spoilt("gaussian", factor=1.0))
    pad = lambda x: jnp.concatenate([x] + [jax.random.normal(KEY, (len(x), 38))], axis=1)
    x = [pad(draws("gaussian", which)) for which in (0, 1)]
    assert roc_test(KEY, wide, x[0], x[1], np.array([0.4, -0.3])).passed


class Flat(AbstractRatio):
    """A ratio of the first two of forty numbers."""

    inner: Spoilt

    @property
    def simulator(self):
        return self.inner.simulator

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (40,)

    def log_ratio(self, theta, x):
        return self.inner.log_ratio(theta, x[:, :2])


def test_effective_samples():
    assert effective_samples(np.full(7, -900.0)) == pytest.approx(7)
    assert effective_samples(np.log([3.0, 1.0])) == pytest.approx(16 / 10)
    assert effective_samples(np.array([0.0, -np.inf])) == pytest.approx(1)


# -- the mean ratio --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_mean_ratio_is_one_for_the_exact_ratio_only(name):
    found = mean_ratio_test(logs(name, spoilt(name), 1))
    assert found.passed
    assert mean_ratio_test(-logs(name, spoilt(name), 0)).passed
    assert not mean_ratio_test(logs(name, spoilt(name, tilt=0.3), 1)).passed
    assert found.error == pytest.approx(np.exp(logs(name, spoilt(name), 1)).std(ddof=1) / np.sqrt(4000))


def test_mean_ratio_does_not_pass_on_a_handful_of_weights():
    rng = np.random.default_rng(0)
    heavy = 4 * rng.normal(size=2000) - 8  # mean of exp is 1
    found = mean_ratio_test(heavy)
    assert not found.conclusive
    assert not found.passed


def test_constant_ratios():
    assert mean_ratio_test(np.zeros(500)).passed
    assert mean_ratio_test(np.full(500, 0.1)).p_value == 0


# -- calibration -----------------------------------------------------------------------------------


def labelled(name, ratio, n=4000):
    values = np.concatenate([logs(name, ratio, 0)[:n], logs(name, ratio, 1)])
    return values, np.repeat([1.0, 0.0], [n, 4000])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [4000, 1000])
def test_exact_ratios_are_calibrated(name, n):
    found = calibration_curve(*labelled(name, spoilt(name), n))
    assert found.passed
    assert "is calibrated" in found.message
    assert found.counts.sum() == n + 4000
    assert np.all((found.low <= found.observed) & (found.observed <= found.high))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", [{"factor": 0.3}, {"factor": 2.0}, {"tilt": 0.3}])
def test_spoilt_ratios_are_not_calibrated(name, how):
    assert not calibration_curve(*labelled(name, spoilt(name, **how))).passed


@pytest.mark.parametrize(("separation", "fixed"), [(0.3, True), (0.3, False), (2.0, True), (2.0, False)])
def test_calibration_p_values_are_uniform_for_an_exact_ratio(separation, fixed):
    # Two Gaussians a distance apart, with numbers of the labels that are fixed or not. Kolmogorov-Smirnov at 1e-3: four
    # false alarms of 0.1 %.
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(300):
        label = np.repeat([0.0, 1.0], [500, 1500]) if fixed else (rng.random(2000) < 0.75).astype(float)
        x = rng.normal(size=2000) + separation * label
        p_values.append(calibration_curve(separation * (x - separation / 2), label).p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_a_constant_ratio_is_calibrated_only_at_one():
    label = np.repeat([0.0, 1.0], 500)
    assert calibration_curve(np.zeros(1000), label).passed
    assert not calibration_curve(np.full(1000, 0.5), label).passed


def test_wilson_interval_is_the_solution_of_its_equation():
    found = calibration_curve(*labelled("gaussian", spoilt("gaussian")))
    for edge in (found.low, found.high):  # where the share lies one standard deviation from the edge
        np.testing.assert_allclose((found.observed - edge) ** 2, edge * (1 - edge) / found.counts, rtol=1e-9)


def test_nearly_certain_predictions_share_a_bin():
    log_ratio = np.repeat([-20.0, 20.0], 500)
    found = calibration_curve(log_ratio, (log_ratio > 0).astype(float))
    assert len(found.counts) == 1
    assert found.passed
    wrong = (log_ratio > 0).astype(float)
    wrong[0] = 1.0
    assert not calibration_curve(log_ratio, wrong).passed


# -- independence of the reference -----------------------------------------------------------------

REFERENCES = np.array([[0.0, 0.0], [1.0, 0.5], [-1.0, 1.0]])
GRID = np.stack([np.linspace(-1, 1, 9), np.zeros(9)], axis=1)


def test_exact_curves_do_not_depend_on_the_reference():
    ratio = exact("gaussian")
    between = lambda theta, reference, x: evaluated(ratio, theta, x) - evaluated(ratio, reference, x)
    x = draws("gaussian", 0)[:50]
    found = reference_independence(between, x, GRID, REFERENCES, tolerance=1e-2)
    assert found.passed  # float32 alone differs
    estimates = [Spoilt(ratio, jnp.asarray(each)) for each in REFERENCES]
    again = reference_independence(estimates, x, GRID, REFERENCES, tolerance=1e-2)
    assert again.passed
    np.testing.assert_allclose(again.curves, found.curves, atol=1e-2)
    truth = np.array([-2 * float(jnp.sum(evaluated(ratio, theta, x))) for theta in GRID])
    np.testing.assert_allclose(np.ptp(found.curves[0] - truth), 0, atol=1e-2)
    assert found.p_value is None


def test_spoilt_curves_depend_on_the_reference():
    ratio = exact("gaussian")

    def between(theta, reference, x):
        pull = 0.1 * reference[0] * theta[0]
        return evaluated(ratio, theta, x) - evaluated(ratio, reference, x) + pull

    found = reference_independence(between, draws("gaussian", 0)[:50], GRID, REFERENCES)
    assert not found.passed
    # -2 * 50 * 0.1 * (1 - -1) per unit of theta, between the centre of the thetas compared and the end of them
    centred = GRID[found.compared, 0] - GRID[found.compared, 0].mean()
    assert found.statistic == pytest.approx(20 * np.abs(centred).max(), rel=1e-2)
    estimates = [
        Spoilt(ratio, jnp.asarray(each), factor=f) for each, f in zip(REFERENCES, (1.0, 0.5, 1.0), strict=True)
    ]
    assert not reference_independence(estimates, draws("gaussian", 0)[:50], GRID, REFERENCES).passed


# -- records and misuse ----------------------------------------------------------------------------


@functools.cache
def records():
    ratio = exact("gaussian")
    between = lambda theta, reference, x: evaluated(ratio, theta, x) - evaluated(ratio, reference, x)
    return [
        roc("gaussian", ratio),
        mean_ratio_test(logs("gaussian", spoilt("gaussian"), 1)),
        calibration_curve(*labelled("gaussian", spoilt("gaussian"))),
        reference_independence(between, draws("gaussian", 0)[:20], GRID, REFERENCES),
    ]


def test_records_are_plain_and_frozen():
    for record in records():
        plain = json.loads(json.dumps(record.to_dict()))
        assert {"statistic", "p_value", "passed", "message"} <= set(plain)
        assert plain["passed"] is True
        assert plain["statistic"] == record.statistic
        assert record.message.endswith(".")
        with pytest.raises(AttributeError):
            record.statistic = 0.0


def drawn(line):
    return np.stack(line.get_data(), axis=1)


def test_the_calibration_curve_is_drawn_with_its_diagonal_and_its_errors():
    record, ax = records()[2], Figure().subplots()
    assert record.plot(ax) is ax
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 1), (0, 1))
    diagonal, points = ax.lines[:2]
    np.testing.assert_array_equal(drawn(diagonal), [[0, 0], [1, 1]])
    np.testing.assert_allclose(drawn(points), np.stack([record.predicted, record.observed], axis=1))
    (bars,) = ax.collections
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends, np.stack([record.low, record.high], axis=1))
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"calibrated", "observed"}


def test_likelihood_curves_are_drawn_for_each_reference():
    record, ax = records()[3], Figure().subplots()
    assert record.plot(ax) is ax
    assert len(ax.lines) == len(REFERENCES)
    for line, curve in zip(ax.lines, record.curves, strict=True):
        np.testing.assert_allclose(drawn(line), np.stack([GRID[:, 0], curve - curve.min()], axis=1), rtol=1e-6)
    assert "reference 1, 0.5" in [text.get_text() for text in ax.get_legend().get_texts()]


X = np.zeros((50, 2), np.float32)
MISUSE: list[tuple[Callable[[], object], str]] = [
    (lambda: roc("gaussian", exact("gaussian"), n=10), "n at least 40"),
    (lambda: roc_test(KEY, exact("gaussian"), X[:, None], X, np.zeros(2)), r"sims\.x\[:, 0\]"),
    (lambda: roc_test(KEY, exact("gaussian"), X + np.nan, X, np.zeros(2)), "NaN or infinity"),
    (lambda: roc_test(KEY, exact("gaussian"), X, X, np.zeros(3)), r"theta: expected shape \(2,\)"),
    (lambda: roc_test(KEY, exact("gaussian"), X, X, np.zeros(2), np.zeros(1)), "theta_reference: expected"),
    (lambda: roc_test(KEY, exact("gaussian"), X, X, np.zeros(2), level=2.0), "between 0 and 1"),
    (lambda: mean_ratio_test(np.array([0.0, np.nan])), "NaN"),
    (lambda: mean_ratio_test(np.zeros((3, 2))), r"expected shape \(n,\)"),
    (lambda: mean_ratio_test(np.array([0.0, 800.0])), "overflows"),
    (lambda: mean_ratio_test(np.full(3, -np.inf)), "0 for every draw"),
    (lambda: calibration_curve(np.zeros(4), np.zeros(4)), "both among them"),
    (lambda: calibration_curve(np.zeros(4), np.array([0, 1, 1])), "one for each log-ratio"),
    (lambda: calibration_curve(np.zeros(4), np.array([0, 1, 1, 2])), "each 0 or 1"),
    (lambda: calibration_curve(np.zeros(2), np.array([0, 1]), bins=0), "at least 1"),
    (lambda: reference_independence([], X, GRID, REFERENCES), "an estimate for each of 3"),
    (lambda: reference_independence([], X, GRID[0], REFERENCES), "theta: expected shape"),
    (lambda: reference_independence([], X, GRID, REFERENCES[:1]), "references: expected shape"),
    (lambda: reference_independence(lambda *_: jnp.array([jnp.inf]), X, GRID, REFERENCES), "not a number"),
]


@pytest.mark.parametrize(("misuse", "message"), MISUSE)
def test_misuse_is_explained(misuse, message):
    with pytest.raises(ValueError, match=message):
        misuse()


def test_ratios_that_are_not_numbers_are_explained():
    broken = spoilt("gaussian", factor=np.nan)
    with pytest.raises(ValueError, match="NaN or \\+inf"):
        roc_test(KEY, broken, X, X, np.zeros(2))
