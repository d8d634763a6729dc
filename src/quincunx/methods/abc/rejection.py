"""ABC by rejection: simulate at draws of the prior, and keep the parameters whose data came nearest.

    theta_i ~ p(theta),  x_i ~ p(x | theta_i)
    keep theta_i where |s(x_i) - s(x_obs)| <= epsilon        (Pritchard et al. 1999)

What is kept are exact draws of the posterior given that the distance is within epsilon: as epsilon falls to 0, and
where the summaries are sufficient, of the posterior. Epsilon is the distance of the last of the nearest. Then the
regression adjustment of Beaumont, Zhang and Balding (2002), see `outcome`.

Every simulation is at a draw of the prior, so all modes are looked for alike; and the share that can be kept shrinks
with every summary and with every parameter.
"""

from typing import ClassVar

import equinox as eqx
import jax
import numpy as np

from ...answers.bayes.draws import DrawnPosterior
from ...answers.bayes.posterior import AbstractPosterior
from ...core.progress import AbstractProgress
from ...core.simulator import AbstractSimulator
from ...core.solution import Key, Solution
from ..method import AbstractSearch, Budget, Card
from .distance import Choice, check_choice
from .outcome import Kept, Story, concluded, effective, none_within, normalised
from .trials import Lab, Source, Tally, Trials, num_sets

SHARE, FEW_KEPT, MOST_KEPT = 0.01, 200, 2000  # of the data sets, how many are kept by default: at most a quarter

CARD = Card("abc", "Beaumont, Zhang and Balding 2002, Genetics 162:2025", "posterior", 300_000)


class ABC(AbstractSearch):
    """Rejection ABC: of simulations at draws of the prior the nearest are kept, and adjusted by regression.

    Fields
    ------
    num_kept: data sets; by default one in a hundred, but from 200 to 2,000, and at most one in four.
    epsilon: keep all within this distance instead; in units of the summaries' spread under the prior.
    summaries: what is compared: "raw", the observations themselves; "learned", the parameters as regressed on
        statistics; or a function x `(m, *event)` -> `(k,)` in JAX or NumPy. "auto" is raw for one observation of up to
        ten numbers, and learned otherwise.
    adjust: whether what is kept is adjusted by regression.
    card: its name and paper.
    """

    num_kept: int | None = eqx.field(static=True, default=None)
    epsilon: float | None = eqx.field(static=True, default=None)
    summaries: Choice = eqx.field(static=True, default="auto")
    adjust: bool = eqx.field(static=True, default=True)
    card: Card = eqx.field(static=True, default=CARD)
    needs: ClassVar[tuple[str, ...]] = ()
    training: ClassVar[None] = None

    def __check_init__(self):
        check_choice(self.summaries)
        check_epsilon(self.epsilon)
        if self.num_kept is not None and self.num_kept < 2:
            raise ValueError(f"num_kept must be at least 2, got {self.num_kept}")
        if self.num_kept is not None and self.epsilon is not None:
            raise ValueError("give num_kept or epsilon, not both: either says what is near enough")

    def search(
        self,
        key: Key,
        simulator: AbstractSimulator,
        x: jax.Array,
        budget: Budget,
        progress: AbstractProgress,
        start: AbstractPosterior | None = None,
    ) -> Solution[DrawnPosterior]:
        count = num_sets(self.name, budget, len(x))
        wanted = self._wanted(count)
        lab = Lab.of(key, simulator, x, progress)
        rng, source = lab.rng, Source.of(lab, start)
        ruler, trials, tally = lab.opened(rng, self.summaries, source.draw(rng, count))
        kept = self._kept(trials, source, wanted, tally)
        ess = effective(normalised(kept.log_weight))
        history = {"epsilon": [kept.epsilon], "acceptance_rate": [len(kept.trials) / tally.rows], "ess": [ess]}
        return concluded(self.name, lab, rng, ruler, kept, Story(tally, history, 1), self.adjust)

    def _wanted(self, count: int) -> int:
        if self.num_kept is not None and self.num_kept > count:
            raise ValueError(f"num_kept is {self.num_kept}, and num_simulations pays for {count} data sets")
        chosen = min(round(np.clip(SHARE * count, FEW_KEPT, MOST_KEPT)), count // 4)
        return chosen if self.num_kept is None else self.num_kept

    def _kept(self, trials: Trials, source: Source, wanted: int, tally: Tally) -> Kept:
        nearest = np.sort(trials.distance[np.isfinite(trials.distance)])
        epsilon = float(nearest[min(wanted, len(nearest)) - 1]) if self.epsilon is None else self.epsilon
        if nearest[0] > epsilon:
            raise none_within(self.name, epsilon, tally, nearest[0])
        near = trials[trials.distance <= epsilon]
        return Kept(near, source.log_weight(near.u), epsilon, source.share(trials, epsilon))


def check_epsilon(epsilon: float | None) -> None:
    if epsilon is not None and not (np.isfinite(epsilon) and epsilon >= 0):
        raise ValueError(f"epsilon must be a distance of at least 0, or None, got {epsilon}")
