"""Test statistics of a hypothesis about one or more parameters, and what they say by Wilks' theorem.

q = 2 [max log L - max log L given the hypothesis], with the one-sided variants of Cowan, Cranmer, Gross, Vitells 2011
(arXiv:1007.1727). All maxima stay inside the prior's support; where that ends at 0 signal, the statistic for upper
limits is the q-tilde of that paper (eq. 16).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np
from scipy import stats

from ...core.names import nearest
from ...core.prior import Prior
from ...core.solution import Array
from .likelihood import LikelihoodRatio, check_inside, column_indices
from .maximum import Fit, conditional

Sided = Literal["two", "upper", "lower"]
Critical = float | Array | Callable[[np.ndarray], Array]  # a number, one per theta, or a function of theta (G, dim)

# Statistics of the same data, computed along two paths in float32, may differ by as much. What is closer is a tie.
TIE = 1e-3


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
    likelihood: LikelihoodRatio, theta: Mapping[str, float] | Array, *, sided: Sided = "two"
) -> HypothesisTest:
    """Test a hypothesis by the profile likelihood ratio.

    Parameters
    ----------
    likelihood: from `likelihood_ratio`.
    theta: the hypothesis: values of the parameters of interest by name, the others being profiled; or all `(dim,)`.
    sided: "two", eq. 8 of arXiv:1007.1727; "upper", for upper limits: 0 where the best fit lies above the hypothesis
        (eqs. 14, 16); "lower", for lower limits and, at a null of no signal, for discovery: 0 where the best
        fit lies below (eq. 12). The last two take one parameter of interest.

    Raises
    ------
    ValueError: unknown names (the nearest is named), values outside the support, a shape other than `(dim,)`,
        or an unknown `sided`.
    """
    prior = likelihood.prior
    if not isinstance(theta, Mapping) and np.shape(theta) != (prior.dim,):
        raise ValueError(
            f"theta: expected shape ({prior.dim},), a value for each of {prior.columns}, got {np.shape(theta)}"
        )
    named = (
        dict(theta) if isinstance(theta, Mapping) else dict(zip(prior.columns, np.asarray(theta).tolist(), strict=True))
    )
    interest = column_indices(prior, tuple(named))
    check_sided(sided, len(interest))
    point = np.zeros((1, prior.dim), np.float32)
    for index, value in zip(interest, named.values(), strict=True):
        check_inside(prior, index, value)
        point[0, index] = value
    best, relative, thetas = conditional(likelihood, point, interest)
    q = statistic(relative, point[:, interest[0]], best.theta[interest[0]], sided)
    return HypothesisTest({name: float(v) for name, v in named.items()}, float(q[0]), sided, best, thetas[0])


test_statistic.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # pytest would take it for a test


def statistics_at(
    likelihood: LikelihoodRatio, theta: Array, *, parameters: Sequence[str] | str | None = None, sided: Sided = "two"
) -> np.ndarray:
    """q `(K,)` of the hypotheses in the rows of theta `(K, dim)`; parameters of interest by name, all for None."""
    interest = column_indices(likelihood.prior, parameters)
    check_sided(sided, len(interest))
    points = check_rows(likelihood.prior, theta)
    best, relative, _ = conditional(likelihood, points, interest)
    return statistic(relative, points[:, interest[0]], best.theta[interest[0]], sided)


def statistic(relative: Array, tested: Array, best: Array, sided: Sided) -> Any:
    """q from log L relative to its maximum, the tested value, and the best fit of the parameter; NumPy or JAX."""
    q = -2 * jnp.minimum(relative, 0.0)
    if sided == "upper":
        q = jnp.where(best > tested, 0.0, q)
    if sided == "lower":
        q = jnp.where(best < tested, 0.0, q)
    return q if isinstance(relative, type(q)) else np.asarray(q)


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
    check_level(level)
    check_sided(sided, dof)
    if sided == "two":
        return float(stats.chi2.ppf(level, dof))
    return float(max(stats.norm.ppf(level), 0.0) ** 2)


def critical_at(critical: Critical, theta: np.ndarray) -> np.ndarray:
    """A critical value of any kind, as an array `(G,)` at theta `(G, dim)`.

    Raises
    ------
    ValueError: a wrong shape, NaN, or a negative value.
    """
    values = np.asarray(critical(theta) if callable(critical) else critical, np.float64)
    if values.ndim == 0:
        values = np.full(len(theta), float(values))
    if values.shape != (len(theta),):
        raise ValueError(f"critical: expected a number, or shape ({len(theta)},), one per theta, got {values.shape}")
    if np.isnan(values).any() or (values < 0).any():
        raise ValueError("critical: expected values of 0 or more")
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


def check_rows(prior: Prior, theta: Array) -> np.ndarray:
    """theta as float32 `(K, dim)`, inside the prior's support."""
    values = np.asarray(theta, np.float32)
    if values.ndim != 2 or values.shape[1] != prior.dim or len(values) == 0:
        raise ValueError(
            f"theta: expected shape (K, {prior.dim}), a column for each of {prior.columns}, got {values.shape}"
        )
    prior.check(values)
    return values
