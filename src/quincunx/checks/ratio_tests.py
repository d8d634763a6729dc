"""Checks of an estimated ratio that need no exact answer: pure functions that return records.

| check                    | what it asks                                                  | blind to               |
|--------------------------|---------------------------------------------------------------|------------------------|
| `roc_test`               | does the reference, reweighted by r, look like the numerator? | a factor without x     |
| `mean_ratio_test`        | is E_reference[r] = 1?                                        | most errors of shape   |
| `calibration_curve`      | is sigmoid(log r) the probability of label 1?                 | what more x could tell |
| `reference_independence` | do different references give the same likelihood curve?       | errors that all share  |

p-values and the sums behind them are worked out in NumPy's float64.
"""

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import numpy as np
from scipy import special, stats

from ..answers.estimates import AbstractRatio
from ..core.solution import Array, Key
from ..methods.binning.bins import joined
from .classifier import features_of, logistic, weighted_auc
from .records import CalibrationCurve, MeanRatioTest, ReferenceIndependence, RocTest, z_score

LEVEL = 0.01  # probability that a check fails an exact ratio
FEWEST_PER_BIN = 5.0  # expected variance of the count in a bin, so that chi-square holds
RISE = 10.0  # of -2 log r above its minimum: where two likelihood curves are compared

RatioBetween = Callable[[Array, Array, Array], Array]  # (theta, theta_ref, x) -> log r (n,)


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
    features = features_of(rng, numerator, reference, logs)
    halves = [rng.permutation(len(x)) % 2 == 0 for x in (numerator, reference)]
    train, test = [[each[h] for each, h in zip(features, side, strict=True)] for side in (halves, [~h for h in halves])]
    slope = logistic(train[0], train[1], weight[halves[1]])
    auc, error = weighted_auc(test[0] @ slope, test[1] @ slope, weight[~halves[1]])
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
    ValueError: not one-dimensional, fewer than 2 values, NaN or +inf, -inf all of them.
    """
    _check_level(level)
    values = _values(log_ratio, "log_ratio")
    if values.max() > 350:
        raise ValueError(f"log_ratio: the square of exp({values.max():g}) overflows; such a ratio is not normalised")
    if values.max() == -math.inf:
        raise ValueError("log_ratio: the ratio is 0 for every draw; is it relative to this reference?")
    r = np.exp(values)
    mean, error = float(np.mean(r)), float(np.std(r, ddof=1) / math.sqrt(len(r)))
    p_value = float(2 * stats.norm.sf(abs(z_score(mean - 1, error))))
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
    place = _bins(predicted, bins)
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
    between = _between(ratio_between, references, jax.numpy.asarray(x))
    total = lambda values: np.sum(np.asarray(values, np.float64))
    curves = np.array([[-2 * total(between(row, each)) for each in theta] for row in range(len(references))])
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


def _between(
    ratio_between: RatioBetween | Sequence[AbstractRatio], references: np.ndarray, x: jax.Array
) -> Callable[[int, np.ndarray], Array]:
    """`(row of references, theta (dim,)) -> log r (n,)`."""
    if callable(ratio_between):
        return lambda row, theta: ratio_between(theta, references[row], x)
    if len(ratio_between) != len(references):
        raise ValueError(f"expected an estimate for each of {len(references)} references, got {len(ratio_between)}")
    return lambda row, theta: _evaluate(ratio_between[row], theta, x)


def _bins(predicted: np.ndarray, most: int) -> np.ndarray:
    """The bin `(n,)` of each prediction."""
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, most + 1)[1:-1]))
    place = np.searchsorted(edges, predicted, side="left")
    variance = np.bincount(place, predicted * (1 - predicted), minlength=len(edges) + 1)
    return np.unique(joined(variance, FEWEST_PER_BIN)[place], return_inverse=True)[1]


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
