"""Test statistics of a hypothesis about one or more parameters, and what they say by Wilks' theorem.

q = 2 [max log L - max log L given the hypothesis], with the one-sided variants of Cowan, Cranmer, Gross, Vitells 2011
(arXiv:1007.1727). All maxima stay inside the prior's support; where that ends at 0 signal, the statistic for upper
limits is the q-tilde of that paper (eq. 16).
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from scipy import stats

from ...core.names import nearest
from ...core.prior import Prior
from ...core.solution import Array
from .likelihood import Likelihood, check_inside, column_indices
from .maximum import Fit, check_likelihood, conditional

Sided = Literal["two", "upper", "lower"]

# Statistics of the same data, computed along two paths in float32, may differ by as much. What is closer is a tie.
TIE = 1e-3


def plain(record: object, fields: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """What is known and these fields of a record, for JSON: arrays and tuples as lists."""
    every = {**known, **{name: getattr(record, name) for name in fields.split()}}
    return {name: np.asarray(v).tolist() if isinstance(v, tuple | np.ndarray) else v for name, v in every.items()}


class AbstractCriticalValues(abc.ABC):
    """Critical values as a function of theta, made for one kind of region."""

    @property
    @abc.abstractmethod
    def made_for(self) -> tuple[float, tuple[str, ...], Sided]:
        """Level, parameters of interest, and which test statistic."""

    @abc.abstractmethod
    def __call__(self, theta: Array) -> np.ndarray:
        """Critical values `(G,)` at theta `(G, dim)`."""


# A number, one per theta, or a function of theta `(G, dim)`.
CriticalValues = float | Array | Callable[[np.ndarray], Array] | AbstractCriticalValues


@dataclasses.dataclass(frozen=True)
class HypothesisTest:
    """A hypothesis, set against the data.

    Fields
    ------
    at: the hypothesis: values of the parameters of interest.
    q: the test statistic, 0 or more.
    sided: which one.
    best: the global maximum.
    theta: the maximum given the hypothesis, `(dim,)`.
    """

    at: Mapping[str, float]
    q: float
    sided: Sided
    best: Fit
    theta: np.ndarray

    @property
    def dof(self) -> int:
        """Degrees of freedom: the number of parameters of interest."""
        return len(self.at)

    @property
    def p_value(self) -> float:
        """By Wilks' theorem; `NeymanConstruction.p_value` does without it."""
        return float(p_value(self.q, self.dof, self.sided))

    @property
    def significance(self) -> float:
        """The p-value in one-sided standard deviations Z."""
        return float(significance(self.p_value)) if self.sided == "two" else float(np.sqrt(self.q))

    def to_dict(self) -> dict[str, Any]:
        return {
            "at": dict(self.at),
            "q": self.q,
            "sided": self.sided,
            "p_value": self.p_value,
            "significance": self.significance,
            "best": self.best.to_dict(),
            "conditional": dict(zip(self.best.names, self.theta.tolist(), strict=True)),
        }


def test_statistic(
    likelihood: Likelihood, theta: Mapping[str, float] | Array, *, sided: Sided = "two"
) -> HypothesisTest:
    """Test a hypothesis by the profile likelihood ratio.

    Parameters
    ----------
    likelihood: from `likelihood`.
    theta: the hypothesis: values of the parameters of interest by name, the others being profiled; or all `(dim,)`.
    sided: "two", eq. 8 of arXiv:1007.1727; "upper", for upper limits: 0 where the best fit lies above the hypothesis
        (eqs. 14, 16); "lower", for lower limits and, at a null of no signal, for discovery: 0 where the best
        fit lies below (eq. 12). The last two take one parameter of interest.

    Raises
    ------
    TypeError: not a likelihood.
    ValueError: unknown names (the nearest is named), values outside the support, a shape other than `(dim,)`,
        or an unknown `sided`.
    """
    check_likelihood(likelihood)
    prior = likelihood.prior
    if not isinstance(theta, Mapping):
        if np.shape(theta) != (prior.dim,):
            raise ValueError(
                f"theta: expected shape ({prior.dim},), a value for each of {prior.columns}, got {np.shape(theta)}"
            )
        theta = dict(zip(prior.columns, np.asarray(theta), strict=True))
    named = {name: float(value) for name, value in theta.items()}
    interest = of_interest(prior, tuple(named), sided)
    point = np.zeros((1, prior.dim), np.float32)
    for index, value in zip(interest, named.values(), strict=True):
        check_inside(prior, index, value)
        point[0, index] = value
    best, relative, thetas = conditional(likelihood, point, interest)
    q = statistic(relative, point[:, interest[0]], best.theta[interest[0]], sided)
    return HypothesisTest(named, float(q[0]), sided, best, thetas[0])


test_statistic.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # pytest would take it for a test


def statistic(relative: Any, tested: Any, best: Any, sided: Sided, xp: Any = np) -> Any:
    """q from log L relative to its maximum, the tested value, and the best fit of the parameter; NumPy or JAX."""
    q = -2 * xp.minimum(relative, 0.0)
    if sided == "two":
        return q
    return xp.where(best > tested if sided == "upper" else best < tested, 0.0, q)


def p_value(q: Array | float, dof: int = 1, sided: Sided = "two") -> np.ndarray:
    """The probability of a q as large as this, in the limit of much data and no edge nearby (Wilks 1938).

    Two-sided: that of a chi-square with `dof` degrees of freedom. One-sided: half that of one
    (arXiv:1007.1727, eqs. 52 and 59). q: any shape, not negative.
    """
    check_sided(sided, dof)
    tail = stats.chi2.sf(np.asarray(q, np.float64), dof)
    return np.asarray(tail if sided == "two" else tail / 2)


def significance(p: Array | float) -> np.ndarray:
    """Z = Phi^-1(1 - p), the p-value in one-sided standard deviations (arXiv:1007.1727, eq. 1)."""
    p = np.asarray(p, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values lie in [0, 1]")
    return np.asarray(stats.norm.isf(p))


def wilks_critical(level: float, dof: int = 1, sided: Sided = "two") -> float:
    """The q that is exceeded with probability 1 - level, by Wilks' theorem."""
    if sided == "two":
        return float(stats.chi2.ppf(level, dof))
    return float(max(stats.norm.ppf(level), 0.0) ** 2)


def critical_at(critical: CriticalValues | None, theta: np.ndarray, level: float, dof: int, sided: Sided) -> np.ndarray:
    """Critical values of any kind, as an array `(G,)` at theta `(G, dim)`; None stands for Wilks' theorem.

    Raises
    ------
    ValueError: a wrong shape, NaN, or a negative value.
    """
    critical = wilks_critical(level, dof, sided) if critical is None else critical
    values = np.asarray(critical(theta) if callable(critical) else critical, np.float64)
    if values.ndim == 0:
        values = np.full(len(theta), float(values))
    if values.shape != (len(theta),):
        raise ValueError(
            f"critical_values: expected a number, or shape ({len(theta)},), one per theta, got {values.shape}"
        )
    if np.isnan(values).any() or (values < 0).any():
        raise ValueError("critical_values: expected values of 0 or more")
    return values


# -- checks ------------------------------------------------------------------------------------------


def check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, such as 0.95, got {level}")


def check_sided(sided: str, dof: int) -> None:
    if sided not in get_args(Sided):
        raise ValueError(
            f"sided: expected one of {get_args(Sided)}, got {sided!r}{nearest(str(sided), get_args(Sided))}"
        )
    if sided != "two" and dof != 1:
        raise ValueError(f"sided={sided!r} takes one parameter of interest, got {dof}; name it with parameters=")


def of_interest(
    prior: Prior, parameters: Sequence[str] | str | None, sided: Sided, level: float = 0.5
) -> tuple[int, ...]:
    """The columns of the parameters of interest, after a check of these and of what is asked about them."""
    check_level(level)
    interest = column_indices(prior, parameters)
    check_sided(sided, len(interest))
    return interest


def check_made_for(critical: object, level: float, names: tuple[str, ...], sided: Sided) -> None:
    if isinstance(critical, AbstractCriticalValues) and critical.made_for != (level, names, sided):
        raise ValueError(
            f"critical_values: made for (level, parameters, sided) {critical.made_for}, not for {(level, names, sided)}"
        )
