"""ABC by Markov chains: many chains side by side, which move to where simulations come near.

    theta' = theta + g (a - b) + a little noise,   x' ~ p(x | theta')
    accept where |s(x') - s(x_obs)| <= epsilon, with probability min(1, prior(theta') / prior(theta))

(Marjoram, Molitor, Plagnol and Tavare 2003.) Its law is that of rejection ABC at the same epsilon, without a proposal
from far away. One sweep moves all chains, in one call of the simulator. They begin at the nearest of a pilot run over
the prior. During the first third, which is dropped, epsilon goes to where a tenth of the moves is accepted (Vihola and
Franks 2020); a chain that is still outside then begins anew as a copy of another. a and b are two of an archive of
parameters, which stands still afterwards, so that the moves are symmetric; their difference has the scale and the
direction of the answer, and, taken whole, leaps from one mode to another (ter Braak and Vrugt 2008).
"""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import numpy as np

from ...answers.bayes.draws import DrawnPosterior
from ...answers.bayes.posterior import AbstractPosterior
from ...answers.bayes.sampling.convergence import agreement
from ...core.progress import AbstractProgress, NoProgress
from ...core.simulator import AbstractSimulator
from ...core.solution import Key, Solution
from ..method import AbstractSearch, Budget, Card
from .distance import Choice, Ruler, check_choice
from .outcome import Kept, Story, concluded, none_within
from .rejection import check_epsilon
from .trials import COLUMNS, FEWEST, Lab, Source, Tally, Trials, num_sets

PILOT_SHARE = 0.2  # of the budget, for draws of the prior
SWEEPS = 1000  # by default, where there are enough data sets for so many
FEWEST_CHAINS, MOST_CHAINS = 12, 2000
FEWEST_SWEEPS = 6
BURN_IN = 1 / 3  # of the sweeps
NEAR = 0.1  # of the pilot run, where the chains begin
ACCEPTED = 0.1  # share of moves that epsilon is chosen for
GAIN = 2.0  # of the logarithm of epsilon, for each share of moves accepted above that
FALL = 0.5  # quantile of the distances that it does not fall below at once
ARCHIVED = 5  # sweeps, whose parameters make the moves
LEAPS = 0.2  # share of moves that take a difference whole
NOISE = 0.02  # of a move, in standard deviations of the archive
MOST_KEPT = 20_000  # data sets of the chains; of more, every so many sweeps
FALLING = 2 / 3  # of the burn-in, in which epsilon falls
RARE = 0.01  # share of moves accepted, below which there is a warning
DISAGREEMENT = 1.1  # of the chains (Gelman and Rubin's R), above which there is a warning

CARD = Card("mcmc-abc", "Marjoram et al. 2003, PNAS 100:15324", "posterior", 300_000)


class MCMCABC(AbstractSearch):
    """Markov chain Monte Carlo ABC: chains, side by side, that move among the parameters whose data come near.

    Fields
    ------
    num_chains: moved in each sweep; by default so many that there are about 1,000 sweeps, but 12 at least.
    epsilon: the distance that is near enough, in units of the summaries' spread under the prior; by default that
        at which a tenth of the moves is accepted.
    summaries: what is compared: "raw", the observations themselves; "learned", the parameters as regressed on
        statistics; or a function x `(m, *event)` -> `(k,)` in JAX or NumPy. "auto" is raw for one observation of up to
        ten numbers, and learned otherwise.
    adjust: whether what is kept is adjusted by regression.
    card: its name and paper.
    """

    num_chains: int | None = eqx.field(static=True, default=None)
    epsilon: float | None = eqx.field(static=True, default=None)
    summaries: Choice = eqx.field(static=True, default="auto")
    adjust: bool = eqx.field(static=True, default=True)
    card: Card = eqx.field(static=True, default=CARD)
    needs: ClassVar[tuple[str, ...]] = ()
    training: ClassVar[None] = None

    def __check_init__(self):
        check_choice(self.summaries)
        check_epsilon(self.epsilon)
        if self.num_chains is not None and self.num_chains < 4:
            raise ValueError(f"num_chains must be at least 4, got {self.num_chains}: they are compared")

    def search(
        self,
        key: Key,
        simulator: AbstractSimulator,
        x: jax.Array,
        budget: Budget,
        progress: AbstractProgress,
        start: AbstractPosterior | None = None,
    ) -> Solution[DrawnPosterior]:
        chains, sweeps, first = self._layout(num_sets(self.name, budget, len(x)))
        lab = Lab.of(key, simulator, x, progress)
        rng, source = lab.rng, Source.of(lab, start)
        ruler, pilot, tally = lab.opened(rng, self.summaries, source.draw(rng, first))
        begun = Chains.begun(rng, lab, pilot, chains, tally, self.epsilon or 0.0)
        walk = Walk(self.name, rng, lab._replace(progress=NoProgress()), ruler, self.epsilon)
        progress.start(self.name, sweeps)
        try:
            run = walk.run(begun, sweeps, progress)
        finally:
            progress.finish()
        return self._solution(walk, run, source, pilot)

    def _layout(self, count: int) -> tuple[int, int, int]:
        """Chains, sweeps, and data sets of the pilot run, which makes up the whole."""
        rest = count - max(min(FEWEST, count // 2), round(PILOT_SHARE * count))
        chosen = min(max(rest // SWEEPS, FEWEST_CHAINS), MOST_CHAINS, rest // FEWEST_SWEEPS)
        chains = self.num_chains or chosen
        sweeps = rest // chains
        if sweeps < FEWEST_SWEEPS:
            raise ValueError(
                f"{self.name}: {rest} data sets are {sweeps} sweeps of {chains} chains, and {FEWEST_SWEEPS} is the "
                f"least; give more num_simulations, or num_chains of at most {rest // FEWEST_SWEEPS}"
            )
        return chains, sweeps, count - chains * sweeps

    def _solution(self, walk: "Walk", run: "Run", source: Source, pilot: Trials) -> Solution[DrawnPosterior]:
        u = np.stack([each.u for each in run.kept])
        ratio, independent = agreement(np.swapaxes(u, 0, 1))
        disagreement, ess = float(ratio.max()), float(independent.min())
        accepted = float(np.mean(run.accepted[-run.sampled :]))
        found = []
        if not disagreement < DISAGREEMENT:
            found.append(
                f"the chains disagree: Gelman and Rubin's R is {disagreement:.2f} (a warning is given above "
                f"{DISAGREEMENT:g}); give more num_simulations, a larger epsilon, or fewer num_chains"
            )
        if accepted < RARE:
            found.append(f"only {100 * accepted:.2g} % of the moves were accepted: many draws are copies")
        trials = Trials(*(np.concatenate([getattr(each, name) for each in run.kept]) for name in COLUMNS))
        history = {"epsilon": run.epsilon, "acceptance_rate": run.accepted, "ess": run.distinct}
        story = Story(
            run.chains.tally, history, len(run.epsilon), tuple(found), independence=ess / len(trials),
            more={"r_hat": disagreement, "num_chains": u.shape[1]},
        )  # fmt: skip
        epsilon = run.chains.epsilon
        kept = Kept(trials, np.zeros(len(trials)), epsilon, source.share(pilot, epsilon))
        return concluded(self.name, walk.lab, walk.rng, walk.ruler, kept, story, self.adjust)


class Chains(NamedTuple):
    """Where the chains are.

    Fields
    ------
    trials: their data sets, one row a chain, and log_prior `(n,)` there.
    epsilon: within which they stay.
    tally: of all simulations so far.
    """

    trials: Trials
    log_prior: np.ndarray
    epsilon: float
    tally: Tally

    @staticmethod
    def begun(rng: np.random.Generator, lab: Lab, pilot: Trials, count: int, tally: Tally, goal: float) -> "Chains":
        """At what is within the goal and at others of the nearest; at some twice where there are too few."""
        order = np.argsort(pilot.distance, kind="stable")[: np.isfinite(pilot.distance).sum()]
        near = rng.permutation(order[: max(count, round(NEAR * len(pilot)))])
        near = near[np.argsort(pilot.distance[near] > goal, kind="stable")]
        trials = pilot[np.resize(near, count)]
        return Chains(trials, lab.log_prior(trials.u), float(trials.distance.max()), tally)

    def within(self, rng: np.random.Generator, epsilon: float) -> "Chains":
        """Those outside begin anew as copies of others."""
        inside = np.flatnonzero(self.trials.distance <= epsilon)
        rows = np.arange(len(self.trials))
        outside = self.trials.distance > epsilon
        rows[outside] = rng.choice(inside, int(outside.sum()))
        return self._replace(trials=self.trials[rows], log_prior=self.log_prior[rows], epsilon=epsilon)


class Run(NamedTuple):
    """What the chains did: where they are, what was kept of them, and by sweep epsilon, share of moves, distinct u.

    sampled: sweeps after epsilon and the archive stood still.
    """

    chains: Chains
    kept: list[Trials]
    epsilon: list[float]
    accepted: list[float]
    distinct: list[float]
    sampled: int


class Walk(NamedTuple):
    """How chains move. `epsilon` is where they shall come to, None where that is to be found."""

    name: str
    rng: np.random.Generator
    lab: Lab
    ruler: Ruler
    epsilon: float | None

    def run(self, chains: Chains, sweeps: int, progress: AbstractProgress) -> Run:
        """All sweeps; the first third finds epsilon and the archive, and nothing of it is kept."""
        burn = round(BURN_IN * sweeps)
        step = -(-(sweeps - burn) * len(chains.trials) // MOST_KEPT)
        run, archive = Run(chains, [], [], [], [], sweeps - burn), [chains.trials.u]
        for sweep in range(sweeps):
            if sweep <= burn:
                chains = self._lowered(run, sweep, burn)
                archive = [*archive, chains.trials.u][-ARCHIVED:]
            chains, accepted = self._moved(chains, np.concatenate(archive), sweep + 1)
            kept = [chains.trials] if sweep >= burn and (sweep - burn) % step == 0 else []
            run = self._noted(run, chains, accepted, kept)
            progress.advance(1, f"epsilon {chains.epsilon:.3g}")
        return run

    def _noted(self, run: Run, chains: Chains, accepted: float, kept: list[Trials]) -> Run:
        distinct = float(len(np.unique(chains.trials.u, axis=0)))
        return run._replace(
            chains=chains, kept=run.kept + kept, epsilon=[*run.epsilon, chains.epsilon],
            accepted=[*run.accepted, accepted], distinct=[*run.distinct, distinct],
        )  # fmt: skip

    def _lowered(self, run: Run, sweep: int, burn: int) -> Chains:
        """The chains, with epsilon as the burn-in has it: it falls, then stands, and at the end is what was asked."""
        chains, goal = run.chains, self.epsilon
        if sweep == burn:
            epsilon = chains.epsilon if goal is None else goal
            if not np.any(chains.trials.distance <= epsilon):
                raise none_within(self.name, epsilon, chains.tally, float(chains.trials.distance.min()))
            return chains.within(self.rng, epsilon)
        if not run.accepted or sweep > FALLING * burn:
            return chains
        least = max(float(np.quantile(chains.trials.distance, FALL)), goal or 0.0)
        return chains._replace(epsilon=max(chains.epsilon * np.exp(GAIN * (ACCEPTED - run.accepted[-1])), least))

    def _moved(self, chains: Chains, archive: np.ndarray, number: int) -> tuple[Chains, float]:
        """The chains after one sweep, and the share of moves that was accepted."""
        count, d = chains.trials.u.shape
        one, other = archive[self.rng.integers(0, len(archive), (2, count))]
        size = 2.38 / np.sqrt(2 * d) * self.rng.uniform(0.2, 1.2, (count, 1))
        size[: round(LEAPS * count)] = 1.0
        noise = NOISE * archive.std(axis=0) * self.rng.normal(size=(count, d))
        proposed = chains.trials.u + self.rng.permutation(size) * (one - other) + noise
        trials, cost = self.lab.tried(self.ruler, number, proposed)
        log_prior = self.lab.log_prior(proposed)
        with np.errstate(invalid="ignore"):
            likely = np.log(self.rng.random(count)) < log_prior - chains.log_prior
        # one that is outside, which there is in the first sweeps alone, goes wherever it is nearer
        before = chains.trials.distance
        accept = np.where(
            before > chains.epsilon, trials.distance < before, (trials.distance <= chains.epsilon) & likely
        )
        rows = np.where(accept, count, 0) + np.arange(count)
        found = chains._replace(
            trials=chains.trials.joined(trials)[rows],
            log_prior=np.where(accept, log_prior, chains.log_prior),
            tally=chains.tally.plus(cost),
        )
        return found, float(np.mean(likely & (trials.distance <= chains.epsilon)))
