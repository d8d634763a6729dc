"""From the data sets that came near enough to a posterior, and to what is to be said of it.

Those that were kept are not the observations, only near them. Regression adjustment (Beaumont, Zhang and Balding 2002)
takes out what that changes, to first order: with the offsets y of the summaries from the data's,

    u = a + y b + residual      least squares with weights  w K(|y| / epsilon),  K(r) = 1 - r^2
    u* = u - y b                the parameters that would have made the data

On unconstrained parameters u no draw can leave the prior. Without adjustment K is 1.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ...answers.bayes.draws import DrawnPosterior
from ...core.solution import Solution, Status
from .distance import Ruler
from .trials import Lab, Tally, Trials

WIDE = 0.1  # share of the prior's draws within epsilon, above which there is a warning
FEW_EFFECTIVE = 100
NARROWED = 4.0  # times, by the regression
FEW_DISTINCT = 50
PER_COEFFICIENT = 5  # effective data sets for each number that a regression fits


class Kept(NamedTuple):
    """What came near enough.

    Fields
    ------
    trials: the data sets within epsilon.
    log_weight: `(n,)`, of their draws, as those of the prior.
    epsilon: the distance.
    share: of the draws of the prior, how many are as near.
    """

    trials: Trials
    log_weight: np.ndarray
    epsilon: float
    share: float


class Story(NamedTuple):
    """How it came to that.

    Fields
    ------
    tally: of all simulations.
    history: by round.
    num_rounds: of them.
    doubts, notes: for the solution.
    independence: effective data sets for each that was kept, where these hang together.
    more: statistics of this method alone.
    """

    tally: Tally
    history: Mapping[str, Sequence[float] | np.ndarray]
    num_rounds: int
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    independence: float = 1.0
    more: Mapping[str, float] = MappingProxyType({})


def effective(weight: np.ndarray) -> float:
    """How many equal weights the weights `(n,)` are worth (Kish)."""
    return float(np.sum(weight) ** 2 / max(np.sum(weight**2), 1e-300))


def normalised(log_weight: np.ndarray) -> np.ndarray:
    weight = np.exp(log_weight - log_weight.max())
    return weight / weight.sum()


def none_within(name: str, epsilon: float, tally: Tally, nearest: float) -> ValueError:
    """The error for an epsilon that accepts nothing."""
    return ValueError(
        f"{name}: none of {tally.rows} simulated data sets is within epsilon = {epsilon:g} of the observations; the "
        f"nearest is at {nearest:.4g}. Give a larger epsilon, or none, so that it is chosen; or more num_simulations"
    )


def concluded(
    name: str, lab: Lab, rng: np.random.Generator, ruler: Ruler, kept: Kept, story: Story, adjust: bool
) -> Solution[DrawnPosterior]:
    """The solution, with all that is to be said of it."""
    u, weight, adjusted = _adjusted(kept) if adjust else (kept.trials.u, normalised(kept.log_weight), False)
    ess = effective(weight) * story.independence
    distinct = len(np.unique(kept.trials.u[weight > 0], axis=0))
    narrowed = float(np.max(_std(kept.trials.u, normalised(kept.log_weight)) / _std(u, weight)))
    doubts = (*_doubts(kept, ess, distinct, narrowed), *(_unadjusted(kept) if adjust and not adjusted else ()))
    warnings = (*story.tally.doubts, *ruler.doubts, *doubts, *story.doubts)
    value = DrawnPosterior.of(rng, lab.space, u, weight, ess, warnings)
    statistics = {
        "num_observations": len(lab.x),
        "num_rounds": story.num_rounds,
        "num_simulator_calls": story.tally.calls,
        "epsilon": kept.epsilon,
        "accepted_share": kept.share,
        "num_kept": len(kept.trials),
        "ess": ess,
        **story.more,
    }
    notes = (f"{name} compares {ruler.summary.in_words}", *story.notes)
    return Solution(value, Status.SUCCESS, statistics, story.history, warnings, notes)


def _adjusted(kept: Kept) -> tuple[np.ndarray, np.ndarray, bool]:
    """u `(n, d)` and weights `(n,)` after the regression, and whether there was enough for one."""
    trials, weight = kept.trials, normalised(kept.log_weight)
    if not kept.epsilon:  # they are the observations
        return trials.u, weight, True
    weight = weight * np.maximum(1 - (trials.distance / kept.epsilon) ** 2, 0)
    y = trials.offsets
    if effective(weight) < PER_COEFFICIENT * (y.shape[1] + 1):
        return trials.u, normalised(kept.log_weight), False
    weight /= weight.sum()
    root = np.sqrt(weight)[:, None]
    slope = np.linalg.lstsq(root * (y - weight @ y), root * (trials.u - weight @ trials.u), rcond=1e-8)[0]
    return trials.u - y @ slope, weight, True


def _std(u: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(weight @ (u - weight @ u) ** 2, 1e-30))


def _doubts(kept: Kept, ess: float, distinct: int, narrowed: float) -> tuple[str, ...]:
    found, count = [], kept.trials.offsets.shape[1]
    if kept.share > WIDE:
        found.append(
            f"{100 * kept.share:.0f} % of the prior's draws are within epsilon (a warning is given above "
            f"{100 * WIDE:.0f} %): it is wide, and what was kept nearly the prior; give more num_simulations"
        )
    elif kept.epsilon > np.sqrt(count):
        found.append(
            f"epsilon is {kept.epsilon:.2g}: each of {count} summaries may be off by more than its spread; give more "
            "num_simulations, or fewer summaries"
        )
    if distinct < FEW_DISTINCT:
        found.append(f"only {distinct} different parameters were kept; give more num_simulations, or a larger epsilon")
    elif ess < FEW_EFFECTIVE:
        found.append(
            f"the draws are worth {ess:.0f} independent ones (a warning is given below {FEW_EFFECTIVE}); give more "
            "num_simulations, or a larger epsilon"
        )
    if narrowed > NARROWED:
        found.append(
            f"the regression makes what was kept {narrowed:.0f} times narrower (a warning is given above "
            f"{NARROWED:g}): the answer rests on it, and it may be wrong where the simulator is not linear; give more "
            "num_simulations"
        )
    return tuple(found)


def _unadjusted(kept: Kept) -> tuple[str, ...]:
    return (
        f"not adjusted: {len(kept.trials)} data sets are too few for a regression on {kept.trials.offsets.shape[1]} "
        "summaries; give more num_simulations, or fewer summaries",
    )
