"""`train_ratio`: from a simulator to a likelihood ratio, by any method of the ratio family, in one call."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..answers.estimates import AbstractRatio
from ..core.fit import Training, fit
from ..core.names import nearest
from ..core.prior import Prior
from ..core.progress import AbstractProgress
from ..core.simulations import Simulations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key, Solution, Status
from ..gold.mine import contrast, mine
from ..gold.mined import AbstractMinedSimulator
from ..gold.reference import AbstractReference, MarginalReference
from ..sample.simulate import simulate
from . import density, ratio, score
from .binning.grid import theta_grid
from .door import failure_warnings, options_of
from .gold import NEEDS, require
from .histogram import HistogramRatio, ProjectedHistogramRatio

NUM_SIMULATIONS = 100_000
RATIO_TRAINING = Training(num_steps=10_000)
RATIO_LOSSES: Mapping[str, Callable[..., ratio.RatioLoss]] = {
    "carl": ratio.CARL, "nre": ratio.NRE, "rolr": ratio.ROLR, "cascal": ratio.CASCAL, "rascal": ratio.RASCAL,
    "alice": ratio.ALICE, "alices": ratio.ALICES,
}  # fmt: skip
DENSITY_LOSSES: Mapping[str, Callable[..., density.DensityLoss]] = {"nde": density.NDE, "scandal": density.SCANDAL}
GRID_POINTS = {1: 21, 2: 9}  # per parameter, of the thetas at which histograms are filled
UNSURE = 0.1  # a mean ratio under the reference further than this from 1 gives a warning


def train_ratio(
    key: Key,
    simulator: AbstractSimulator | None = None,
    *,
    method: str = "alices",
    sims: Simulations | None = None,
    num_simulations: int = NUM_SIMULATIONS,
    theta: Array | None = None,
    reference: AbstractReference | None = None,
    theta_reference: Array | None = None,
    training: Training = RATIO_TRAINING,
    estimator_options: Mapping[str, Any] | None = None,
    loss_options: Mapping[str, Any] | None = None,
    progress: AbstractProgress | None = None,
    throw: bool = True,
) -> Solution[AbstractRatio]:
    """Simulate, or mine, and train an estimator of the likelihood ratio.

    Parameters
    ----------
    key: random key; the same key gives the same estimator.
    simulator: what to run; not needed where `sims` has all that the method takes.
    method: carl, rolr, cascal, alice, rascal, alices, nre, nde, scandal, sally, sallino or histogram.
    sims: simulations made before, instead of new ones.
    num_simulations: how many observations to simulate in all. SALLY and SALLINO spend half of them at theta_reference
        and half on their histograms; without a simulator, or SALLY with more than two parameters, the answer is the
        local model (`local_ratio`) and all go to the score.
    theta: numerators `(K, dim)`; draws from the prior if None.
    reference: what the ratio is relative to; `MarginalReference()` if None. Not for nde, scandal, sally, sallino, nor
        together with `sims`.
    theta_reference: where SALLY and SALLINO take the score, `(dim,)`; the prior's mean if None.
    training, throw: see `fit`.
    estimator_options: options of the estimator's `for_simulations`, by name.
    loss_options: `batch_size`, and `alpha` where there is a score part.
    progress: told about simulating and training; silent by default.

    Returns
    -------
    Solution whose value is an `AbstractRatio`. Its statistics have `num_simulator_calls` and, for networks of the
    ratio, `mean_ratio`: the mean of the estimated ratio over the reference, which should be 1, with its standard
    error. There is a warning when it is not, and when simulations failed.

    Raises
    ------
    ValueError: an unknown method; neither a simulator nor simulations; simulations that lack what the method needs.
    TypeError: a method that needs gold, and a simulator that gives none; an unknown option.
    """
    if method not in NEEDS:
        raise ValueError(f"unknown method {method!r}{nearest(method, NEEDS)}; known are {', '.join(NEEDS)}")
    if sims is not None:
        require(method, sims)
    if simulator is None and sims is None:
        raise ValueError(f"{method}: give a simulator, or simulations that it can learn from")
    _check_options(method, estimator_options or {}, loss_options or {})
    takes_reference = method in RATIO_LOSSES or method == "histogram"
    if reference is not None and (sims is not None or not takes_reference):
        why = "the simulations bring their own" if takes_reference else f"{method} has none"
        raise ValueError(f"reference: {why}; drop it")
    if method == "nre" and not isinstance(reference, MarginalReference | None):
        raise ValueError("nre is against the marginal; for another reference use carl")
    job = _Job(
        key, simulator, method, sims, num_simulations, theta, reference, theta_reference, training,
        dict(estimator_options or {}), dict(loss_options or {}), progress, throw,
    )  # fmt: skip
    if method in RATIO_LOSSES:
        return _train_ratio(job)
    if method in DENSITY_LOSSES:
        return _train_density(job)
    return _train_histogram(job) if method == "histogram" else _train_score(job)


def _check_options(method: str, estimator_options: Mapping[str, Any], loss_options: Mapping[str, Any]) -> None:
    """Raise `ValueError` for names that the method's estimator or loss does not take."""
    estimators: dict[str, Callable] = {
        **dict.fromkeys(RATIO_LOSSES, ratio.RatioEstimator.for_simulations),
        **dict.fromkeys(DENSITY_LOSSES, density.DensityEstimator.for_simulations),
        **dict.fromkeys(("sally", "sallino"), score.ScoreEstimator.for_simulations),
        "histogram": HistogramRatio.for_simulations,
    }
    losses = {**RATIO_LOSSES, **DENSITY_LOSSES, "sally": score.SALLY, "sallino": score.SALLY}
    allowed = options_of(estimators[method], "sims", "key", "reference")
    in_loss = options_of(losses[method]) if method in losses else ()
    for what, given, known in [("estimator", estimator_options, allowed), ("loss", loss_options, in_loss)]:
        for name in given:
            if name not in known:
                has = ", ".join(known) or "no options"
                raise ValueError(f"the {what} of {method} has no option {name!r}{nearest(name, known)}; it has {has}")


@dataclasses.dataclass(frozen=True)
class _Job:
    """The arguments of `train_ratio`."""

    key: Key
    simulator: AbstractSimulator | None
    method: str
    sims: Simulations | None
    num_simulations: int
    theta: Array | None
    reference: AbstractReference | None
    theta_reference: Array | None
    training: Training
    estimator_options: dict[str, Any]
    loss_options: dict[str, Any]
    progress: AbstractProgress | None
    throw: bool

    def stream(self, number: int) -> Key:
        """Independent keys: 0 to simulate, 1 for weights, 2 to fit, 3 and 4 for what comes after."""
        return jax.random.fold_in(self.key, number)

    def run(self) -> AbstractSimulator:
        if self.simulator is None:
            raise ValueError(f"{self.method} has more to simulate after its training; give a simulator")
        return self.simulator

    def gold(self, reference: AbstractReference | None, theta: Array | None, number: int) -> Simulations:
        """Mined simulations; of a black box, labelled ones, where the method needs no more than labels."""
        options: Any = {"num_simulations": number, "theta": theta, "progress": self.progress}
        simulator = self.run()
        if reference is not None and set(NEEDS[self.method]) <= {"label"}:
            return contrast(self.stream(0), simulator, reference=reference, **options)
        if not isinstance(simulator, AbstractMinedSimulator):
            free = [name for name, needs in NEEDS.items() if set(needs) <= {"label"}]
            gold = " and ".join(name for name in NEEDS[self.method] if name != "label")
            raise TypeError(
                f"{self.method} needs {gold}, and the simulator {simulator.name!r} is a black box. Methods "
                f"that work with it: {', '.join(free)}. Or write it as a NumPyro model "
                "(@qx.program), or give its joint log-probability (@qx.mined_simulator)"
            )
        return mine(self.stream(0), simulator, reference=reference, **options)

    def fit(self, net: Any, loss: Any, sims: Simulations) -> Solution[Any]:
        solution = fit(
            self.stream(2), net, loss, sims, training=self.training, progress=self.progress, throw=self.throw
        )
        return _with(solution, {"num_simulator_calls": sims.num_simulator_calls}, failure_warnings([sims]))


def _train_ratio(job: _Job) -> Solution[AbstractRatio]:
    reference = job.reference or MarginalReference()
    sims = job.gold(reference, job.theta, job.num_simulations) if job.sims is None else job.sims
    loss = RATIO_LOSSES[job.method](**job.loss_options)
    net = ratio.RatioEstimator.for_simulations(sims, key=job.stream(1), **job.estimator_options)
    solution = job.fit(net, loss, sims)
    if sims.label is None or not solution.ok or bool(jnp.all(sims.label == 1)):
        return solution
    mean, error = mean_ratio(solution.value, sims)
    warnings = ()
    if abs(mean - 1) > UNSURE + 4 * error:
        warnings = (
            f"the estimated ratio has mean {mean:.2f} +- {error:.2f} under the reference, where a true one has 1: "
            "train longer, simulate more, or use a marginal reference",
        )
    return _with(solution, {"mean_ratio": mean, "mean_ratio_error": error}, warnings)


def _train_density(job: _Job) -> Solution[AbstractRatio]:
    if job.sims is not None:
        sims = job.sims
    elif job.method == "nde":
        at: dict[str, Any] = {"num_simulations": job.num_simulations}
        if job.theta is not None:
            at = {"theta": np.asarray(job.theta)[np.arange(job.num_simulations) % len(job.theta)]}
        sims = simulate(job.stream(0), job.run(), progress=job.progress, **at)
    else:
        sims = job.gold(None, job.theta, job.num_simulations)
    loss = DENSITY_LOSSES[job.method](**job.loss_options)
    net = density.DensityEstimator.for_simulations(sims, key=job.stream(1), **job.estimator_options)
    return job.fit(net, loss, sims)


def _train_score(job: _Job) -> Solution[AbstractRatio]:
    """The score at theta_reference, then histograms of it; the local model where nothing more can be simulated."""
    prior = job.run().prior if job.sims is None else job.sims.prior
    at = _centre(prior) if job.theta_reference is None else jnp.atleast_1d(jnp.asarray(job.theta_reference))
    fills = job.simulator is not None and (job.method == "sallino" or prior.dim <= 2)
    if fills and job.theta is None and prior.dim not in GRID_POINTS:
        raise ValueError(
            f"{job.method} fills histograms on a grid of thetas, by itself for 1 or 2 parameters; the prior has "
            f"{prior.columns}: give the grid, theta=qx.theta_grid(prior, 4), or use sally"
        )
    share = job.num_simulations // 2 if fills else job.num_simulations
    sims = job.gold(None, at[None], max(2, share)) if job.sims is None else job.sims
    net = score.ScoreEstimator.for_simulations(sims, key=job.stream(1), **job.estimator_options)
    solution = job.fit(net, score.SALLY(**job.loss_options), sims)
    if not solution.ok:
        return solution
    if not fills:
        return dataclasses.replace(solution, value=score.local_ratio(solution.value, sims))
    filled = _on_grid(job, max(1, job.num_simulations // 2))
    if job.method == "sally":
        value: AbstractRatio = HistogramRatio.for_simulations(filled, summary=solution.value)
    else:
        value = ProjectedHistogramRatio.for_simulations(
            filled, summary=solution.value, theta_reference=solution.value.theta_reference
        )
    calls = sims.num_simulator_calls + filled.num_simulator_calls
    return _with(dataclasses.replace(solution, value=value), {"num_simulator_calls": calls}, failure_warnings([filled]))


def _train_histogram(job: _Job) -> Solution[AbstractRatio]:
    sims = _on_grid(job, job.num_simulations) if job.sims is None else job.sims
    value = HistogramRatio.for_simulations(sims, reference=job.reference, **job.estimator_options)
    solution = Solution(value, Status.SUCCESS, {"num_simulator_calls": sims.num_simulator_calls}, {})
    return _with(solution, {}, failure_warnings([sims]))


def _on_grid(job: _Job, number: int) -> Simulations:
    prior = job.run().prior
    if job.theta is None and prior.dim not in GRID_POINTS:
        raise ValueError(f"{job.method} fills histograms on a grid of 1 or 2 parameters; the prior has {prior.columns}")
    grid = theta_grid(prior, GRID_POINTS[prior.dim]) if job.theta is None else np.asarray(job.theta)
    rows = np.arange(max(number, len(grid))) % len(grid)
    return simulate(job.stream(3), job.run(), theta=np.asarray(grid)[rows], progress=job.progress)


def mean_ratio(estimator: ratio.RatioEstimator, sims: Simulations) -> tuple[float, float]:
    """The mean of the estimated ratio over rows drawn from the reference, and its standard error. A true one has 1."""
    rows = np.flatnonzero(np.asarray(sims.label) == 0)[:20_000]
    part = sims[rows]
    other = part.theta if part.theta_reference is None else part.theta_reference
    log_ratio = jnp.mean(estimator.contrast(part.theta, other, part.x[:, 0]), axis=0)
    values = np.exp(np.asarray(log_ratio, np.float64))
    return float(np.mean(values)), float(np.std(values) / np.sqrt(max(len(values), 1)))


def _centre(prior: Prior) -> jax.Array:
    return jnp.mean(prior.sample(jax.random.key(0), 10_000), axis=0)


def _with(solution: Solution[Any], statistics: Mapping[str, float], warnings: tuple[str, ...]) -> Solution[Any]:
    return dataclasses.replace(
        solution, statistics={**solution.statistics, **statistics}, warnings=(*solution.warnings, *warnings)
    )
