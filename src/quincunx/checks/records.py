"""What the checks of an estimated ratio find: frozen records, each with a verdict and a sentence about it."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST_EFFECTIVE = 100.0  # weights that amount to fewer samples say nothing


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
        return z_score(self.mean - 1, self.error)

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


def z_score(difference: float, error: float) -> float:
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
