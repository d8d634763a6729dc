"""Checks of an estimated ratio that need no exact answer: pure functions that return records.

| check                    | what it asks                                                  | blind to               |
|--------------------------|---------------------------------------------------------------|------------------------|
| `roc_test`               | does the reference, reweighted by r, look like the numerator? | a factor without x     |
| `mean_ratio_test`        | is E_reference[r] = 1?                                        | most errors of shape   |
| `calibration_curve`      | is sigmoid(log r) the probability of label 1?                 | what more x could tell |
| `reference_independence` | do different references give the same likelihood curve?       | errors that all share  |

p-values and the sums behind them are worked out in NumPy's float64.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
from scipy import special, stats

from ._types import Array, Key
from .ratio import AbstractRatio

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVEL = 0.01  # probability that a check fails an exact ratio
FEWEST_EFFECTIVE = 100.0  # weights that amount to fewer samples say nothing
MOST_COMPONENTS = 24  # numbers of an observation that the classifier of `roc_test` sees; projections of larger ones
NUM_RANDOM_FEATURES = 48
FEWEST_PER_BIN = 5.0  # expected variance of the count in a bin, so that chi-square holds
RISE = 10.0  # of -2 log r above its minimum: where two likelihood curves are compared

RatioBetween = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # (theta, theta_ref, x) -> log r (n,)


@dataclasses.dataclass(frozen=True)
class RocTest:
    """Whether a classifier tells the reweighted reference from the numerator.

    Fields
    ------
    auc: area under its ROC curve, on samples that it was not trained on; 0.5 if it cannot.
    error: standard error of the area.
    p_value: probability of such an area or a larger one, for an exact ratio.
    effective_samples: of the reference, after weighting, those of training included.
    num_samples: of the reference.
    level: p-values below it fail.
    """

    auc: float
    error: float
    p_value: float
    effective_samples: float
    num_samples: int
    level: float

    @property
    def statistic(self) -> float:
        """(auc - 1/2) / error."""
        return (self.auc - 0.5) / self.error

    @property
    def conclusive(self) -> bool:
        """Whether the weights leave enough of the reference to tell."""
        return self.effective_samples >= FEWEST_EFFECTIVE

    @property
    def passed(self) -> bool:
        return self.conclusive and self.p_value >= self.level

    @property
    def message(self) -> str:
        if not self.conclusive:
            return _too_few(self.effective_samples, self.num_samples)
        verdict = "cannot tell" if self.passed else "tells"
        return (
            f"A classifier {verdict} the reweighted reference from the numerator: ROC AUC {self.auc:.3f} +- "
            f"{self.error:.3f} (p = {self.p_value:.2g}, {self.effective_samples:.0f} effective samples)."
        )

    def to_dict(self) -> dict[str, Any]:
        return _as_dict(self)


@dataclasses.dataclass(frozen=True)
class MeanRatioTest:
    """Whether a ratio is normalised.

    Fields
    ------
    mean: of r over the reference; 1 if it is.
    error: Monte Carlo standard error of the mean.
    p_value: two-sided, by the central limit theorem.
    effective_samples: (sum r)^2 / sum r^2.
    num_samples, level: as in `RocTest`.
    """

    mean: float
    error: float
    p_value: float
    effective_samples: float
    num_samples: int
    level: float

    @property
    def statistic(self) -> float:
        """(mean - 1) / error."""
        return _z(self.mean - 1, self.error)

    @property
    def conclusive(self) -> bool:
        return self.effective_samples >= FEWEST_EFFECTIVE

    @property
    def passed(self) -> bool:
        return self.conclusive and self.p_value >= self.level

    @property
    def message(self) -> str:
        if not self.conclusive:
            return _too_few(self.effective_samples, self.num_samples)
        verdict = "agrees with" if self.passed else "is not"
        value = f"{self.mean:.4g} +- {self.error:.2g}"
        return f"The mean ratio under the reference, {value}, {verdict} 1 (p = {self.p_value:.2g})."

    def to_dict(self) -> dict[str, Any]:
        return _as_dict(self)


@dataclasses.dataclass(frozen=True)
class CalibrationCurve:
    """Predicted probabilities of label 1 against observed ones, in B bins.

    Fields
    ------
    predicted, observed: mean prediction and observed share of label 1, `(B,)`.
    low, high: Wilson's 68.3 % interval of the share, `(B,)`.
    counts: samples in each bin, `(B,)`.
    statistic: chi-square of the numbers of label 1.
    p_value: with B degrees of freedom, or B - 1 where x says nothing.
    level: as in `RocTest`.
    """

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    statistic: float
    p_value: float
    level: float

    @property
    def passed(self) -> bool:
        return self.p_value >= self.level

    @property
    def message(self) -> str:
        worst = int(np.argmax(np.abs(self.observed - self.predicted)))
        verdict = "is" if self.passed else "is not"
        return (
            f"The ratio {verdict} calibrated: chi-square {self.statistic:.1f} for {len(self.counts)} bins (p = "
            f"{self.p_value:.2g}); at worst {self.predicted[worst]:.3f} predicted, {self.observed[worst]:.3f} observed."
        )

    def to_dict(self) -> dict[str, Any]:
        return _as_dict(self)

    def plot(self, ax: "Axes") -> "Axes":
        """Draw the observed shares against the predicted ones, with the diagonal they should lie on."""
        ax.plot([0, 1], [0, 1], color="#222222", ls="--", lw=1, label="calibrated")
        bars = np.maximum([self.observed - self.low, self.high - self.observed], 0)
        ax.errorbar(self.predicted, self.observed, yerr=bars, fmt="o", color="#3b6ea5", ms=4, label="observed")
        ax.set(xlabel="predicted probability of the numerator", ylabel="observed share", xlim=(0, 1), ylim=(0, 1))
        ax.legend(fontsize=8, frameon=False)
        return ax


@dataclasses.dataclass(frozen=True)
class ReferenceIndependence:
    """Likelihood curves -2 sum log r(x | theta, theta_ref) + const, one for each of R references.

    Chance has no part in their differences: the data are the same, so that an exact ratio has none.

    Fields
    ------
    theta: `(K, dim)`.
    references: `(R, dim)`.
    curves: `(R, K)`, each with mean 0 over the thetas compared.
    compared: `(K,)`, where their mean is at most 10 above its minimum (at least the two lowest).
    tolerance: largest difference of two curves that passes; 1 is what ends a 68 % interval of one parameter.
    """

    theta: np.ndarray
    references: np.ndarray
    curves: np.ndarray
    compared: np.ndarray
    tolerance: float

    @property
    def statistic(self) -> float:
        """The largest difference of two curves, in units of -2 log r."""
        return float(np.max(np.ptp(self.curves[:, self.compared], axis=0)))

    @property
    def p_value(self) -> None:
        """There is none: differences are errors of the estimate, not chance."""
        return

    @property
    def passed(self) -> bool:
        return self.statistic <= self.tolerance

    @property
    def message(self) -> str:
        verdict = "do not depend" if self.passed else "depend"
        return (
            f"The likelihood curves {verdict} on the reference: they differ by up to {self.statistic:.3g} in -2 log r "
            f"({self.tolerance:g} allowed), at {int(self.compared.sum())} thetas for {len(self.references)} references."
        )

    def to_dict(self) -> dict[str, Any]:
        return _as_dict(self)

    def plot(self, ax: "Axes") -> "Axes":
        """Draw the curves against the first parameter."""
        for reference, curve in zip(self.references, self.curves, strict=True):
            label = ", ".join(f"{value:.3g}" for value in reference)
            ax.plot(self.theta[:, 0], curve - curve.min(), marker=".", label=f"reference {label}")
        ax.set(xlabel="theta", ylabel="-2 log r + const")
        ax.legend(fontsize=8, frameon=False)
        return ax


# -- the checks ------------------------------------------------------------------------------------


def roc_test(
    key: Key,
    ratio: AbstractRatio,
    x_numerator: Array,
    x_reference: Array,
    theta: Array,
    theta_reference: Array | None = None,
    *,
    level: float = LEVEL,
) -> RocTest:
    """Reweight the reference by r, and train a classifier to tell it from the numerator.

    It cannot if r is exact (Cranmer et al. 2015, arXiv:1506.02169; Hermans et al. 2020, arXiv:1903.04057, section 3.3).
    Half of the samples train it: a ridge logistic regression on the observation, the log-ratio, their squares and
    random functions of both. The other half gives the area under its ROC curve, and its error by the asymptotic
    variance of a weighted area. The weights are normalised: a wrong factor in r is for `mean_ratio_test`.

    Parameters
    ----------
    key: random key, of the halves and the random functions.
    ratio: the estimate.
    x_numerator: draws `(n, *event)` from p(x | theta).
    x_reference: draws `(n', *event)` from the reference.
    theta: the numerator `(dim,)`.
    theta_reference: the reference `(dim,)`; None where it is the one that the ratio is relative to, such as a mixture.
    level: probability that an exact ratio fails.

    Raises
    ------
    ValueError: fewer than 40 draws of either, a wrong shape, NaN, or a ratio of 0 for all of the reference.
    """
    _check_level(level)
    numerator, reference = (
        _observations(x, ratio, name) for x, name in [(x_numerator, "numerator"), (x_reference, "reference")]
    )
    theta = _theta(theta, ratio, "theta")
    other = None if theta_reference is None else _theta(theta_reference, ratio, "theta_reference")
    logs = [_log_ratio(ratio, theta, other, x) for x in (numerator, reference)]
    if not np.isfinite(logs[1]).any():
        raise ValueError(
            "the ratio is 0 for every draw from the reference; is theta the one that the numerator is from?"
        )
    weight = np.exp(logs[1] - logs[1].max())
    rng = np.random.default_rng(int(jax.random.randint(key, (), 0, np.iinfo(np.int32).max)))
    features = _features(rng, numerator, reference, logs)
    halves = [rng.permutation(len(x)) % 2 == 0 for x in (numerator, reference)]
    train, test = [[each[h] for each, h in zip(features, side, strict=True)] for side in (halves, [~h for h in halves])]
    slope = _logistic(train[0], train[1], weight[halves[1]])
    auc, error = _weighted_auc(test[0] @ slope, test[1] @ slope, weight[~halves[1]])
    p_value = float(stats.norm.sf((auc - 0.5) / error))
    return RocTest(auc, error, p_value, effective_samples(logs[1]), len(reference), level)


def mean_ratio_test(log_ratio: Array, *, level: float = LEVEL) -> MeanRatioTest:
    """Whether E[r] = 1 over the reference.

    With -log r of draws from the numerator, whether E[1 / r] = 1 there.

    Parameters
    ----------
    log_ratio: `(n,)`, of draws from the reference.
    level: probability that an exact ratio fails.

    Raises
    ------
    ValueError: not one-dimensional, fewer than 2 values, NaN or +inf.
    """
    _check_level(level)
    values = _values(log_ratio, "log_ratio")
    if values.max() > 350:
        raise ValueError(f"log_ratio: the square of exp({values.max():g}) overflows; such a ratio is not normalised")
    r = np.exp(values)
    mean, error = float(np.mean(r)), float(np.std(r, ddof=1) / math.sqrt(len(r)))
    p_value = float(2 * stats.norm.sf(abs(_z(mean - 1, error))))
    return MeanRatioTest(mean, error, p_value, effective_samples(values), len(r), level)


def calibration_curve(log_ratio: Array, label: Array, *, bins: int = 10, level: float = LEVEL) -> CalibrationCurve:
    """Predicted against observed probability that x is from the numerator.

    The prediction is sigmoid(log r), and log n_1 / n_0 added where the labels are not in balance. Bins hold about
    equally many samples; neighbours are joined where the expected variance of their counts is below 5. The numbers of
    the labels count as given: that correlates the bins, and chi-square allows for it.

    Parameters
    ----------
    log_ratio: `(n,)`.
    label: `(n,)`, 1 where x was drawn from the numerator, 0 where from the reference.
    bins: at most so many.

    Raises
    ------
    ValueError: lengths that differ, labels other than 0 and 1 or all the same, NaN, fewer than 1 bin.
    """
    _check_level(level)
    values, label = _values(log_ratio, "log_ratio", infinite=True), _values(label, "label")
    if len(values) != len(label) or not np.isin(label, (0, 1)).all() or np.ptp(label) == 0:
        raise ValueError(
            f"label: expected {len(values)} values, one for each log-ratio, each 0 or 1 and both among them; got "
            f"{len(label)} with values {np.unique(label)[:4]}"
        )
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    predicted = special.expit(values + special.logit(np.mean(label)))
    place = _joined_bins(predicted, bins)
    count, ones, sums, variance = (
        np.bincount(place, each) for each in (np.ones_like(label), label, predicted, predicted * (1 - predicted))
    )
    statistic, freedom = _chi_square(ones - sums, np.maximum(variance, 1e-12), np.bincount(label.astype(int)))
    low, high = _wilson(ones, count)
    p_value = float(stats.chi2.sf(statistic, freedom))
    return CalibrationCurve(sums / count, ones / count, low, high, count.astype(int), statistic, p_value, level)


def reference_independence(
    ratio_between: RatioBetween | Sequence[AbstractRatio],
    x: Array,
    theta: Array,
    references: Array,
    *,
    tolerance: float = 1.0,
) -> ReferenceIndependence:
    """Whether -2 sum log r(x | theta, theta_ref) keeps its shape when theta_ref changes (arXiv:1506.02169).

    Parameters
    ----------
    ratio_between: `(theta (dim,), theta_ref (dim,), x) -> log r (n,)`, for doubly parameterised estimates; or
        estimates that were trained against one of the references each.
    x: one data set `(n, *event)`.
    theta: where to compare, `(K, dim)`.
    references: `(R, dim)`.
    tolerance: see `ReferenceIndependence`.

    Raises
    ------
    ValueError: fewer than 2 thetas or references, not one estimate for each reference, or a curve that is not finite.
    """
    theta, references = np.asarray(theta, np.float32), np.asarray(references, np.float32)
    for name, array in [("theta", theta), ("references", references)]:
        if array.ndim != 2 or len(array) < 2:
            raise ValueError(f"{name}: expected shape (K, dim) with K at least 2, got {array.shape}")
    x, between = jax.numpy.asarray(x), _between(ratio_between, len(references))
    curves = np.stack([-2 * between(row, references[row], theta, x) for row in range(len(references))])
    if not np.isfinite(curves).all():
        bad = theta[~np.isfinite(curves).all(axis=0)][0]
        raise ValueError(f"the likelihood is 0 or not a number at theta = {bad}; leave it out")
    mean = np.mean(curves - curves.mean(axis=1, keepdims=True), axis=0)
    compared = mean <= max(mean.min() + RISE, np.sort(mean)[1])
    return ReferenceIndependence(
        theta, references, curves - curves[:, compared].mean(axis=1, keepdims=True), compared, tolerance
    )


def effective_samples(log_weight: Array) -> float:
    """(sum w)^2 / sum w^2 of weights w, given their logarithms `(n,)` (Kish)."""
    log_weight = np.asarray(log_weight, np.float64)
    weight = np.exp(log_weight - np.max(log_weight))
    return float(np.sum(weight) ** 2 / np.sum(weight**2))


# -- the classifier of `roc_test` ------------------------------------------------------------------


def _features(
    rng: np.random.Generator, numerator: np.ndarray, reference: np.ndarray, logs: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Features `(n, F)` of both samples: functions of x alone, chosen before any label is seen."""
    both = np.concatenate([numerator, reference]).reshape(len(numerator) + len(reference), -1).astype(np.float64)
    z = _tamed(both)
    if z.shape[1] > MOST_COMPONENTS:
        moments = np.stack([z.mean(axis=1), z.std(axis=1)], axis=1)
        z = np.concatenate(
            [moments, z @ rng.normal(size=(z.shape[1], MOST_COMPONENTS)) / math.sqrt(z.shape[1])], axis=1
        )
    log_ratio = np.clip(np.concatenate(logs), -50, 50)
    z = _tamed(np.concatenate([z, log_ratio[:, None]], axis=1))
    directions = rng.normal(size=(z.shape[1], NUM_RANDOM_FEATURES)) * np.sqrt(4 / z.shape[1])
    waves = np.tanh(z @ directions + rng.normal(size=NUM_RANDOM_FEATURES))
    features = np.concatenate([np.ones((len(z), 1)), z, z**2, waves], axis=1)
    return [features[: len(numerator)], features[len(numerator) :]]


def _tamed(values: np.ndarray) -> np.ndarray:
    """Columns centred and scaled by quartiles, long tails drawn in."""
    quartiles = np.asarray(np.quantile(values, np.array([0.25, 0.5, 0.75]), axis=0))
    low, middle, high = quartiles[0], quartiles[1], quartiles[2]
    spread = np.where(high > low, high - low, np.std(values, axis=0))
    return np.arcsinh((values - middle) / np.where(spread > 0, spread, 1))


def _logistic(numerator: np.ndarray, reference: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Coefficients `(F,)` that tell the numerator (label 1) from the weighted reference, by Newton's method.

    Both sides weigh as much as the effective samples of the smaller; the prior of each coefficient is Normal(0, 1).
    """
    total = weight.sum()
    size = min(len(numerator), total**2 / np.sum(weight**2))
    mass = np.concatenate([np.full(len(numerator), size / len(numerator)), weight * (size / total)])
    features, label = np.concatenate([numerator, reference]), np.repeat([1.0, 0.0], [len(numerator), len(reference)])
    slope = np.zeros(features.shape[1])
    for _ in range(8):
        p = special.expit(features @ slope)
        gradient = features.T @ (mass * (label - p)) - slope
        curvature = (features * (mass * np.maximum(p * (1 - p), 1e-3))[:, None]).T @ features + np.eye(len(slope))
        slope = slope + np.linalg.solve(curvature, gradient)
    return slope


def _weighted_auc(numerator: np.ndarray, reference: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """P(score of a numerator > score of a weighted reference), ties half, and its standard error.

    The error is that of two independent means (DeLong et al. 1988), the second with weights that are normalised.
    """
    share = weight / weight.sum()
    order = np.argsort(reference)
    cumulative = np.concatenate([[0.0], np.cumsum(share[order])])
    below = [cumulative[np.searchsorted(reference[order], numerator, side)] for side in ("left", "right")]
    of_numerator = (below[0] + below[1]) / 2
    ordered = np.sort(numerator)
    above = [1 - np.searchsorted(ordered, reference, side) / len(ordered) for side in ("left", "right")]
    of_reference = (above[0] + above[1]) / 2
    auc = float(np.mean(of_numerator))
    variance = np.var(of_numerator, ddof=1) / len(numerator) + np.sum((share * (of_reference - auc)) ** 2)
    return auc, float(max(math.sqrt(variance), 1e-12))


# -- checks of what comes in, and small parts ------------------------------------------------------


@eqx.filter_jit
def _evaluate(ratio: AbstractRatio, theta: Array, x: Array) -> jax.Array:
    return ratio.log_ratio(theta, x)


def _log_ratio(ratio: AbstractRatio, theta: np.ndarray, other: np.ndarray | None, x: np.ndarray) -> np.ndarray:
    x_device = jax.numpy.asarray(x)
    values = np.asarray(_evaluate(ratio, theta, x_device), np.float64)
    if other is not None:
        values = values - np.asarray(_evaluate(ratio, other, x_device), np.float64)
    if np.isnan(values).any() or np.isposinf(values).any():
        raise ValueError("the log-ratio is NaN or +inf for some draws; mend the estimate, or leave such draws out")
    return values


def _observations(x: Array, ratio: AbstractRatio, name: str) -> np.ndarray:
    x = np.asarray(x, np.float32)
    if x.shape[1:] != ratio.event_shape or x.ndim == 0 or len(x) < 40:
        raise ValueError(
            f"x_{name}: expected shape {('n', *ratio.event_shape)} with n at least 40, got {x.shape}; for simulations "
            "of one observation a row, give sims.x[:, 0]"
        )
    if not np.isfinite(x).all():
        raise ValueError(f"x_{name} holds NaN or infinity; drop such rows")
    return x


def _theta(theta: Array, ratio: AbstractRatio, name: str) -> np.ndarray:
    theta = np.asarray(theta, np.float32)
    if theta.shape != (ratio.prior.dim,):
        raise ValueError(
            f"{name}: expected shape ({ratio.prior.dim},), a value for each of {ratio.prior.columns}; got {theta.shape}"
        )
    return theta


def _values(values: Array, name: str, *, infinite: bool = False) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"{name}: expected shape (n,) with n at least 2, got {values.shape}")
    if np.isnan(values).any() or (not infinite and np.isposinf(values).any()):
        raise ValueError(f"{name} holds NaN{'' if infinite else ' or +inf'}")
    return values


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")


def _between(ratio_between: RatioBetween | Sequence[AbstractRatio], num_references: int):
    """`(row, theta_ref, theta (K, dim), x) -> sum of log r (K,)`, float64."""
    if callable(ratio_between):
        total = lambda row, reference, each, x: ratio_between(each, reference, x)
    elif len(ratio_between) == num_references:
        total = lambda row, reference, each, x: _evaluate(ratio_between[row], each, x)
    else:
        raise ValueError(f"expected an estimate for each of {num_references} references, got {len(ratio_between)}")
    add = lambda values: float(np.sum(np.asarray(values, np.float64)))
    return lambda row, reference, theta, x: np.array([add(total(row, reference, each, x)) for each in theta])


def _joined_bins(predicted: np.ndarray, bins: int) -> np.ndarray:
    """The bin `(n,)` of each prediction."""
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, predicted, side="left")
    variance = np.bincount(place, predicted * (1 - predicted), minlength=len(edges) + 1)
    label, held = np.zeros(len(variance), int), 0.0
    for number in range(1, len(variance)):
        held += variance[number - 1]
        label[number] = label[number - 1] + (held >= FEWEST_PER_BIN)
        held = 0.0 if held >= FEWEST_PER_BIN else held
    if held + variance[-1] < FEWEST_PER_BIN and label[-1] > 0:
        label[label == label[-1]] -= 1
    return np.unique(label[place], return_inverse=True)[1]


def _chi_square(excess: np.ndarray, variance: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
    """Of the excess of label 1 in each bin, and its degrees of freedom.

    For given numbers of the labels, and an exact ratio, the covariance is diag(v) - c v v^T with c = 1 / n_0 + 1 / n_1:
    E_1[1 - s] in a bin is v / n_1, and E_0[s] is v / n_0. Its inverse is by Sherman and Morrison. Where x says next to
    nothing the total excess cannot vary, and is left out.
    """
    parts = float(np.sum(excess**2 / variance))
    c, total = float(np.sum(1 / labels)), float(np.sum(variance))
    left = 1 - c * total
    if total * left < 0.25:
        return parts, max(len(excess) - 1, 1)
    return parts + c * float(np.sum(excess)) ** 2 / left, len(excess)


def _wilson(ones: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The interval of one standard deviation for a share (Wilson 1927)."""
    share, spread = ones / count, np.sqrt(ones * (count - ones) / count + 0.25) / (count + 1)
    centre = (share * count + 0.5) / (count + 1)
    return centre - spread, centre + spread


def _z(difference: float, error: float) -> float:
    if error > 0:
        return difference / error
    return 0.0 if abs(difference) < 1e-6 else math.copysign(math.inf, difference)


def _too_few(effective: float, count: int) -> str:
    return (
        f"Nothing can be told: the weights of {count} draws from the reference amount to {effective:.1f} samples, and "
        f"{FEWEST_EFFECTIVE:.0f} are needed. Use more draws, or a theta closer to the reference."
    )


def _as_dict(record: Any) -> dict[str, Any]:
    """Fields, statistic, p_value, passed and message, as plain numbers, lists and strings."""
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    derived = {name: getattr(record, name) for name in ("statistic", "p_value", "passed", "message")}
    plain = lambda value: value.tolist() if isinstance(value, np.ndarray) else value
    return {name: plain(value) for name, value in {**fields, **derived}.items()}
