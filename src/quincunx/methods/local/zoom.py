"""Zooming in: local calibrated regression, in rounds, for one data set. No network, and the baseline of all others.

    round 0      sets of observations at draws from the prior
    each round   t = regression of theta on statistics of the sets, out of fold       (Fearnhead and Prangle 2012)
                 t = f(theta) + noise, a polynomial f near the answer                 (classical calibration)
                 posterior: prior(theta) N(t_obs; f(theta), V)                        (Wood 2010, synthetic likelihood)
    next round   sets at theta that the answer does not rule out: t_obs within six standard deviations of f(theta)

The noise of the observed summaries is that of the simulated ones, scaled to the number of observations: a set may be a
part of the size of the data, which are then taken as so many blocks. What a regression loses, the calibration sees:
widths are true whether or not the statistics hold all there is to know, and the regression's bias is taken out.

What it asks for is that, near the answer, the summaries are about normal, and that the posterior has one piece.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import numpy as np

from ...answers.bayes.box import Box
from ...answers.bayes.local import Emulator, LocalPosterior, Region, powers
from ...answers.bayes.posterior import AbstractPosterior
from ...core.batches import put
from ...core.progress import AbstractProgress
from ...core.simulations import Simulations
from ...core.simulator import AbstractSimulator
from ...core.solution import Key, Solution, Status, rng_of
from ...sample.simulate import simulate
from ..method import AbstractSearch, Budget, Card, failure_warnings
from . import particles
from .forward import Fit, emulate
from .summaries import Summaries, in_blocks, mean_over

NUM_PARTICLES, FEWEST_SETS = 2048, 100
REACH = 36.0  # six standard deviations, squared
SHRINK = 20.0  # times narrower, at most, from round to round
EARLY = 0.8  # of the sets of the last round: larger sets narrow faster
REMEMBERED = 2  # rounds before, whose summaries are kept
SETTLED = (0.6, 1.5)  # a round that changes the widths by a factor in between has found what there is
NARROW = 0.5  # of the prior's width: an answer that is wider has to stand still for two rounds, one may be chance
OFF_CENTRE = 1.5  # standard deviations of the region, from its middle to the answer: beyond, one more round
TOO_WIDE = 12.0  # of a last region, in standard deviations of the answer
ODD = 5.0  # standard deviations of a statistic of the data from those simulated at the answer
VAGUE = 0.9  # of the prior's width
QUANTILES = (0.025, 0.25, 0.5, 0.75, 0.975)  # of every round, in the history

CARD = Card("zoom", "Fearnhead and Prangle 2012, arXiv:1004.1112", "posterior", 300_000)


class Zoom(AbstractSearch):
    """Local regression in rounds: simulations close in on where one data set can have come from.

    Fields
    ------
    num_sets: simulated sets in the last round, at least; in others fewer. They are as large as the budget allows, up to
        the size of the data.
    share: of the budget, for every round but the last.
    last: of the budget, at least, for the last round.
    card: its name and paper.
    """

    num_sets: int = eqx.field(static=True, default=500)
    share: float = eqx.field(static=True, default=0.08)
    last: float = eqx.field(static=True, default=0.55)
    card: Card = eqx.field(static=True, default=CARD)
    needs: ClassVar[tuple[str, ...]] = ()
    training: ClassVar[None] = None

    def __check_init__(self):
        if self.num_sets < FEWEST_SETS:
            raise ValueError(f"num_sets must be at least {FEWEST_SETS}, got {self.num_sets}: regressions need them")
        for name in ("share", "last"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")

    def search(
        self,
        key: Key,
        simulator: AbstractSimulator,
        x: jax.Array,
        budget: Budget,
        progress: AbstractProgress,
        start: AbstractPosterior | None = None,
    ) -> Solution[LocalPosterior]:
        total = budget.num_simulations
        if total < 4 * FEWEST_SETS:
            raise ValueError(
                f"num_simulations: {total} observations are too few to regress on in rounds; give {4 * FEWEST_SETS} at "
                "least, better a hundred times as many"
            )
        each = max(self.share * total, FEWEST_SETS)
        rng = rng_of(key)
        box, data, spent = Box(simulator.prior), np.asarray(x, np.float64), 0
        place = _anywhere(key, box) if start is None else _around(rng, box, start)
        rounds: list[Round] = []
        while not (rounds and rounds[-1].last):
            last = bool(rounds) and (spent + each > (1 - self.last) * total or _settled(rounds))
            wanted = self.num_sets if last else max(FEWEST_SETS, round(EARLY * self.num_sets))
            size, count = _layout(total - spent if last else each, len(data), wanted)
            theta = box.decode(place.z[rng.integers(0, len(place.z), count)])
            own = jax.random.fold_in(key, len(rounds))
            sims = simulate(own, simulator, theta=theta, num_observations=size, progress=progress)
            spent += sims.num_simulator_calls
            rounds.append(_round(rng, box, place, sims, data, rounds, last))
            place = place if last else _narrowed(rng, box, place, rounds[-1])
        return _solution(rng, box, rounds, data)


# -- places ----------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where theta may still be: draws z `(n, d)` of the prior inside the regions."""

    z: np.ndarray
    regions: tuple[Region, ...]

    def log_prior(self, box: Box, z: np.ndarray) -> np.ndarray:
        """Log density `(n,)` of the prior; -inf outside the regions."""
        value = box.log_prior(z)
        for region in self.regions:
            inside = np.isfinite(value)
            value[inside] = np.where(region.contains(z[inside]), value[inside], -np.inf)
        return value


def _anywhere(key: Key, box: Box) -> Place:
    return Place(box.encode(box.prior.sample(jax.random.fold_in(key, NUM_PARTICLES), NUM_PARTICLES)), ())


def _around(rng: np.random.Generator, box: Box, start: AbstractPosterior) -> Place:
    """Twelve standard deviations to every side of an answer that may be wrong, and too narrow."""
    z = box.encode(start.points)
    root = np.linalg.cholesky(np.atleast_2d(np.cov(z.T)) + 1e-12 * np.diag(np.var(z, axis=0)))
    found = np.empty((0, box.dim))
    for _ in range(50):
        way = rng.normal(size=(NUM_PARTICLES, box.dim))
        way *= rng.random((NUM_PARTICLES, 1)) ** (1 / box.dim) / np.linalg.norm(way, axis=1, keepdims=True)
        near = z.mean(axis=0) + 2 * np.sqrt(REACH) * way @ root.T
        log_prior = box.log_prior(near)
        kept = np.log(rng.random(len(near))) < log_prior - log_prior.max()
        found = np.concatenate([found, near[kept]])
        if len(found) >= NUM_PARTICLES:
            break
    return Place(found[rng.integers(0, len(found), NUM_PARTICLES)], ())


def _narrowed(rng: np.random.Generator, box: Box, place: Place, found: "Round") -> Place:
    """Where the answer of this round does not rule theta out."""
    least = found.emulator.distance(found.draws).min()
    narrowest = place.z.std(axis=0) / SHRINK
    distance = lambda z: found.emulator.distance(z) - least
    z, most = particles.cut(rng, place.z, lambda z: place.log_prior(box, z), distance, REACH, narrowest)
    return Place(z, (*place.regions, Region(found.emulator, np.asarray(least), np.asarray(most))))


# -- rounds ----------------------------------------------------------------------------------------


class Round(NamedTuple):
    """What one round simulated, and learnt.

    Fields
    ------
    sims: the simulated sets.
    z: where they were made, `(n, d)`.
    summaries: t.
    fit: of t as a function of z.
    draws: z `(n, d)` of the posterior.
    off_centre: how far the answer is from the middle of the place, in its standard deviations.
    regions: which the place was in.
    widths: standard deviations `(d,)` of the place.
    last: whether it is.
    """

    sims: Simulations
    z: np.ndarray
    summaries: Summaries
    fit: Fit
    draws: np.ndarray
    off_centre: float
    regions: tuple[Region, ...]
    widths: np.ndarray
    last: bool

    @property
    def emulator(self) -> Emulator:
        return self.fit.emulator


def _round(
    rng: np.random.Generator, box: Box, place: Place, sims: Simulations, data: np.ndarray, before: Sequence[Round],
    last: bool,
) -> Round:  # fmt: skip
    z, x = box.encode(sims.theta), np.asarray(sims.x, np.float64)
    sets = [*((np.asarray(each.sims.x, np.float64), each.z) for each in before if x.ndim == 3), (x, z)]
    summaries = Summaries.learnt(rng, sets, before[-1].summaries if before else None)
    blocks = in_blocks(rng, data, sims.num_observations)
    older = [each.summaries for each in before[-REMEMBERED:]]
    t = np.concatenate([summaries.own, *(each(x) for each in older)], axis=1)
    observed = np.concatenate([mean_over(each, blocks) for each in (summaries, *older)])
    fit = emulate(rng, t, z, observed, sims.num_observations / len(data))
    draws = particles.tempered(rng, place.z, lambda z: place.log_prior(box, z), fit.emulator.log_likelihood)
    middle, widths = place.z.mean(axis=0), place.z.std(axis=0)
    off = float(np.max(np.abs(draws.mean(axis=0) - middle) / widths))
    return Round(sims, z, summaries, fit, draws, off, place.regions, widths, last)


def _layout(observations: float, wanted: int, num_sets: int) -> tuple[int, int]:
    """Observations in a set, so that as many sets make up the data, and the number of sets."""
    parts = max(1, -(-wanted * num_sets // int(observations)))
    size = -(-wanted // parts)
    return size, int(observations // size)


def _settled(rounds: Sequence[Round]) -> bool:
    """Whether the last of the rounds so far narrowed the answer no more; while that is wide, the last two."""
    if len(rounds) < 2 or rounds[-1].off_centre > OFF_CENTRE:
        return False
    width = np.array([each.draws.std(axis=0) for each in rounds[-3:]])
    change = np.diff(np.log(width).mean(axis=1))
    calm = (np.log(SETTLED[0]) < change) & (change < np.log(SETTLED[1]))
    narrow = np.all(width[-1] < NARROW * rounds[0].widths)
    return bool(calm[-1] and (narrow or (len(calm) > 1 and calm[-2])))


# -- the answer ------------------------------------------------------------------------------------


def _solution(
    rng: np.random.Generator, box: Box, rounds: Sequence[Round], data: np.ndarray
) -> Solution[LocalPosterior]:
    final, prior = rounds[-1], box.prior
    place = Place(final.draws, final.regions)
    evidence = particles.log_integral(
        rng, final.draws, lambda z: place.log_prior(box, z) + final.emulator.log_likelihood(z)
    )
    theta = [box.decode(each.draws) for each in rounds]
    coverage = final.fit.coverage()
    warnings = (
        *failure_warnings(tuple(each.sims for each in rounds)),
        *_doubts(rng, box, rounds, data),
        *_vague(prior.columns, theta[-1].std(axis=0) / box.decode(rounds[0].z).std(axis=0)),
    )
    draws = put(np.asarray(theta[-1], np.float32))
    value = LocalPosterior(box, final.emulator, final.regions, draws, put(np.asarray(evidence, np.float32)), warnings)
    history = {
        "num_simulated": [each.sims.num_simulator_calls for each in rounds],
        "set_size": [each.sims.num_observations for each in rounds],
        "mean": np.stack([each.mean(axis=0) for each in theta]),
        "std": np.stack([each.std(axis=0) for each in theta]),
        "quantiles": np.stack([np.quantile(each, QUANTILES, axis=0) for each in theta]),
    }
    statistics = {
        "num_observations": len(data),
        "num_rounds": len(rounds),
        "num_simulator_calls": sum(history["num_simulated"]),
        "num_calibration_sets": len(final.fit.noise),
        "coverage_95": coverage,
    }
    notes = (f"zoom sees {final.summaries.statistics.in_words}",)
    return Solution(value, Status.SUCCESS, statistics, history, warnings, notes)


def _doubts(rng: np.random.Generator, box: Box, rounds: Sequence[Round], data: np.ndarray) -> tuple[str, ...]:
    """Why the last round may not be where the data come from."""
    final, found = rounds[-1], []
    wide = float(np.min(final.widths / final.draws.std(axis=0)))
    if wide > TOO_WIDE:
        found.append(
            f"not converged: the last round simulated over {wide:.0f} times the width of the answer or more, for every "
            "parameter, which may bias it; give more num_simulations"
        )
    if final.off_centre > OFF_CENTRE and not _at_an_end(box, final):
        found.append(
            f"not converged: the answer lies {final.off_centre:.1f} standard deviations from the middle of what the "
            "last round simulated; give more num_simulations"
        )
    odd, total = _odd_statistics(rng, final, data)
    if odd > 1:
        found.append(
            f"{odd} of {total} statistics of the data are more than {ODD:g} standard deviations from those simulated "
            "at the answer; the model may be wrong, or the data in other units"
        )
    return tuple(found)


def _at_an_end(box: Box, final: Round) -> bool:
    """Whether the place ends where the prior does, which is no reason for doubt."""
    z = final.draws.mean(axis=0)
    return bool(np.any(box.between & (np.minimum(z, 1 - z) < 3 * final.widths)))


def _odd_statistics(rng: np.random.Generator, final: Round, data: np.ndarray) -> tuple[int, int]:
    """How many statistics of the data are far from those simulated at the answer, and how many there are."""
    kept, e = final.fit.near, final.emulator
    everything = lambda x: final.summaries.groups(x)["all"]
    s = everything(np.asarray(final.sims.x, np.float64)[kept])
    p = powers((final.z[kept] - e.centre) / e.scale, e.degree)
    slope = np.linalg.lstsq(p, s, rcond=None)[0]
    at = powers((final.draws - e.centre) / e.scale, e.degree)
    noise = np.var(s - p @ slope, axis=0) * (e.share + np.median(((at @ e.spread) * at).sum(axis=1)))
    observed = mean_over(everything, in_blocks(rng, data, final.sims.num_observations))
    predicted = at @ slope
    variance = noise + predicted.var(axis=0) + 1e-12 * np.var(s) + 1e-300
    away = np.abs(observed - predicted.mean(axis=0)) / np.sqrt(variance)
    return int(np.sum(away > ODD)), len(away)


def _vague(columns: tuple[str, ...], shares: np.ndarray) -> tuple[str, ...]:
    names = [name for name, share in zip(columns, shares, strict=True) if share > VAGUE]
    if not names:
        return ()
    return (
        f"the answer is as wide as the prior in {', '.join(names)}: the data say nothing of it, or these statistics "
        "do not show it",
    )
