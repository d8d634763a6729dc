"""ALFI: the recurrent machine for likelihood-free inference.

Pesah, Wehenkel and Louppe (2018), "Recurrent machines for likelihood-free inference", arXiv:1811.12932.

A recurrent network moves a Gaussian proposal q(theta | psi) towards the parameters that made the real
observations X^r. In every iteration it takes B parameters from the proposal with M observations
simulated at each, compares them with X^r through a shared encoder, and outputs the change of psi
(Figure 1):

    psi_{t+1} = psi_t + f_phi(psi_t, s_t, X^r, {theta_i, X_i, grad_psi log q(theta_i | psi_t)}).

It is meta-trained on problems whose answer theta* is known, with the objective sum_t w_t l(psi_t, theta*).
For l = -log q(theta* | psi_t) the optimum is the normal with the mean and covariance of the posterior
p(theta | X^r) on the space where the machine works. No divergence between real and simulated data is
ever written down.

Where this differs from the paper, and why:

- The machine works on unconstrained, standardised parameters, so that no proposal leaves the prior.
- The simulated sets come from a *bank* of simulations made once (default), or from the simulator inside the
  loop (*live*), as in the paper. Only where they come from differs; the code path is one.
- The number of real observations varies in training, and the encoder is told it.
- The loss weighs all iterations from the sixth on alike, which makes the update hold its ground when it is
  iterated for longer than in training; the paper's exponential weighting is an option.
- After training, mean and width of the answers are corrected on fresh simulations; and for one data set `infer` zooms
  in from the machine's answer (`Refinement`).
- The encoder carries a first estimate of theta with its error, by closed-form regression; the network moves psi
  towards it and corrects it, in units of its error. Without it, gradient descent needs far longer to be as precise.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...answers.bayes.space import Gaussian
from ...core.fit import Training
from ...core.loss import AbstractLoss, Batch
from ...core.progress import AbstractProgress
from ...core.simulations import Simulations
from ...core.simulator import AbstractSimulator
from ...core.solution import Key, Solution
from ...sample.black_box import AbstractJaxSimulator
from ...sample.simulate import simulate
from ..local.zoom import Zoom
from ..method import AbstractLearner, Budget, Card, Job, Refinement, failure_warnings, with_notes
from ..nets.encoder import AbstractEncoder, as_encoder
from ..nets.set_encoder import KEPT
from ..nets.widths import Calibration, covered
from .machine import Machine, Progressing, RecurrentMachine, Seen, answers
from .sizes import calibration_sizes, layout, sizes_for
from .supply import AbstractSupply, LiveSupply

FEWEST_SETS = 40

# -- the parts of the loss -------------------------------------------------------------------------


class AbstractPartialLoss(eqx.Module):
    """l(psi_t, theta*): how far one proposal is from the truth."""

    @abc.abstractmethod
    def __call__(self, proposal: Gaussian, u_star: jax.Array) -> jax.Array:
        """A scalar, for the true u* `(d,)`."""


class NegativeLogLikelihood(AbstractPartialLoss):
    """-log q(theta* | psi_t): the paper's choice. Its optimum is the posterior's mean and width."""

    def __call__(self, proposal: Gaussian, u_star: jax.Array) -> jax.Array:
        return -proposal.log_prob(u_star)


class MeanSquaredError(AbstractPartialLoss):
    """|E_q[u] - u*|^2, on the standardised space. It says nothing of the width, which stays untrained."""

    def __call__(self, proposal: Gaussian, u_star: jax.Array) -> jax.Array:
        return jnp.sum((proposal.mean - u_star) ** 2)


class AbstractWeighting(eqx.Module):
    """w_t: how much each iteration counts."""

    @abc.abstractmethod
    def __call__(self, num_iterations: int) -> np.ndarray:
        """Weights `(T,)` for t = 1 ... T, before normalisation."""


class LastWeighting(AbstractWeighting):
    """Only the last iteration counts: the machine is free to explore before."""

    def __call__(self, num_iterations: int) -> np.ndarray:
        return np.arange(1, num_iterations + 1) == num_iterations


class ConstantWeighting(AbstractWeighting):
    """All iterations count alike: the machine converges as fast as it can."""

    def __call__(self, num_iterations: int) -> np.ndarray:
        return np.ones(num_iterations)


class ExponentialWeighting(AbstractWeighting):
    """(e^(beta x) - 1) / (e^beta - 1) with x = t / T, the paper's choice. beta = 3 in the paper's code."""

    beta: float = eqx.field(static=True, default=3.0)

    def __check_init__(self):
        if not self.beta > 0:
            raise ValueError(
                f"beta must be positive, got {self.beta}; weights that are all alike are qx.ConstantWeighting()"
            )

    def __call__(self, num_iterations: int) -> np.ndarray:
        return np.expm1(self.beta * np.arange(1, num_iterations + 1) / num_iterations) / np.expm1(self.beta)


class SettledWeighting(AbstractWeighting):
    """Free to explore before iteration `first`, then all count alike, so that the machine learns to stay."""

    first: int = eqx.field(static=True, default=6)

    def __call__(self, num_iterations: int) -> np.ndarray:
        return np.arange(1, num_iterations + 1) >= min(self.first, num_iterations)


# -- the loss --------------------------------------------------------------------------------------


class MetaLoss(AbstractLoss):
    """The meta-training objective sum_t w_t l(psi_t, theta*), with the weights scaled to sum to 1.

    A batch holds `batch_size` simulations. `num_problems` of them are problems: a theta* with a random number
    of its observations as X^r. The others are the bank of that step. Further records of simulations, with more
    observations per row, give problems with more real observations.

    Fields
    ------
    batch_size: simulations in a batch.
    num_problems: problems from the first record in a batch (the meta batch size; 16 in the paper).
    partial_loss: l. The paper tried both and chose the likelihood.
    weighting: w_t. The paper tried last, constant and exponential, and chose the last.
    live: run the simulator in every iteration, as in the paper, instead of using the bank.
    max_draws: a further record gives at most so many observations, in whole rows, to a batch.
    """

    batch_size: int = eqx.field(static=True, default=512)
    num_problems: int = eqx.field(static=True, default=64)
    partial_loss: AbstractPartialLoss = NegativeLogLikelihood()
    weighting: AbstractWeighting = SettledWeighting()
    live: bool = eqx.field(static=True, default=False)
    max_draws: int = eqx.field(static=True, default=8192)

    def check(self, net: Any, batch: Batch) -> None:
        parts = (batch,) if isinstance(batch, Simulations) else batch
        if not isinstance(net, RecurrentMachine):
            raise ValueError(f"this loss trains a RecurrentMachine, got {type(net).__name__}")
        if self.live and not isinstance(net.simulator, AbstractJaxSimulator):
            raise ValueError(
                f"live training needs a JAX simulator; {net.simulator.name!r} runs on the host: use the bank"
            )
        for part in parts:
            net.require(part.simulator)
            if part.event_shape != net.novelty.event_shape:
                raise ValueError(
                    f"observations have shape {part.event_shape}, the machine expects {net.novelty.event_shape}"
                )
        if len(parts[0]) < FEWEST_SETS:
            raise ValueError(
                f"{len(parts[0])} simulations are too few to meta-train on; make {FEWEST_SETS}, better thousands"
            )

    def __call__(self, net: RecurrentMachine, batch: Batch, key: Key) -> jax.Array:
        parts = (batch,) if isinstance(batch, Simulations) else batch
        problem_key, bank_key, start_key, step_key = jax.random.split(key, 4)
        num_problems = min(self.num_problems, len(parts[0]) // 2)
        u_star, seen_real = self._problems(net, problem_key, parts, num_problems)
        rest = parts[0][num_problems:]
        if self.live and isinstance(net.simulator, AbstractJaxSimulator):
            supply: AbstractSupply = LiveSupply(net.simulator)
        else:
            picked = jax.random.permutation(bank_key, rest.num_observations)[: net.shape.num_simulated]
            supply = net.bank(rest.theta, rest.x[:, picked])
        first = net.start(jax.random.choice(start_key, net.space.encode(rest.theta), (len(u_star),)))
        weights = self.weighting(net.num_iterations).astype(np.float32)

        # Recomputing an iteration is cheaper than moving its intermediates through memory, but for a few: which sets it
        # drew, or what was simulated, and their fixed statistics.
        @functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names(KEPT))
        def iterate(now: Progressing, inputs: tuple[Key, jax.Array]) -> tuple[Progressing, jax.Array]:
            after = net.update(inputs[0], supply, seen_real, now)
            losses = jax.vmap(lambda psi, u: self.partial_loss(Gaussian.of(psi, net.space.dim), u))(after.psi, u_star)
            return after, inputs[1] * jnp.mean(losses)

        keys = jax.random.split(step_key, net.num_iterations)
        _, losses = jax.lax.scan(iterate, first, (keys, jnp.asarray(weights / weights.sum())))
        return jnp.sum(losses)

    def _problems(
        self, net: RecurrentMachine, key: Key, parts: tuple[Simulations, ...], num_problems: int
    ) -> tuple[jax.Array, Seen]:
        """u* `(n, d)` and what the machine sees of each problem's observations, over all records."""
        fewest, problems = net.observation_range[0], []
        for index, part in enumerate(parts):
            rows = num_problems if index == 0 else max(1, min(len(part), self.max_draws // part.num_observations))
            problems.append(_problems_of(net, jax.random.fold_in(key, index), part[:rows], fewest))
            fewest = part.num_observations
        return jax.tree.map(lambda *each: jnp.concatenate(each), *problems)


def _problems_of(net: RecurrentMachine, key: Key, sims: Simulations, fewest: int) -> tuple[jax.Array, Seen]:
    """Each row as a problem, with a log-uniform number of its observations, counted from a random one on."""
    n, m = len(sims), sims.num_observations
    start_key, count_key = jax.random.split(key)
    order = (jnp.arange(m) + jax.random.randint(start_key, (n, 1), 0, m)) % m
    low, high = np.log(min(fewest, m)), np.log(m + 1)
    count = jnp.floor(jnp.exp(jax.random.uniform(count_key, (n, 1), minval=low, maxval=high)))
    x, weight = jax.vmap(lambda one, own: one[own])(sims.x, order), (jnp.arange(m) < count).astype(jnp.float32)
    return net.space.encode(sims.theta), net.see_real(x, weight)


# -- the method ------------------------------------------------------------------------------------


CARD = Card(
    "alfi", "Pesah, Wehenkel and Louppe 2018, arXiv:1811.12932", "posterior", 1_300_000, Training(num_steps=1500)
)


class ALFI(AbstractLearner):
    """The recurrent machine, meta-trained on a bank of simulations (or with the simulator inside the loop).

    Fields
    ------
    network: what the machine is like.
    encoder: what it sees of one observation: `qx.VectorEncoder()`, `qx.SequenceEncoder()`, `qx.ImageEncoder()`, or an
        Equinox module of your own, which is called with one observation `(*event)`, returns features `(k,)`, and is
        trained with the machine. By the event's shape if None, and the solution's notes say which.
    num_observations: in most simulated sets; if None as many as in the data sets that it is for, and at most 100.
    max_observations: in the largest; if None 3,000, or 15 % more than in the data sets that it is for.
    partial_loss, weighting, live, batch_size, num_problems, max_draws: see `MetaLoss`.
    refinement: how `infer` zooms in from the machine's answer.
    card: its name and paper.
    """

    network: Machine = Machine()
    encoder: AbstractEncoder | Callable[[jax.Array], jax.Array] | None = None
    num_observations: int | None = eqx.field(static=True, default=None)
    max_observations: int | None = eqx.field(static=True, default=None)
    partial_loss: AbstractPartialLoss = NegativeLogLikelihood()
    weighting: AbstractWeighting = SettledWeighting()
    live: bool = eqx.field(static=True, default=False)
    batch_size: int = eqx.field(static=True, default=512)
    num_problems: int = eqx.field(static=True, default=64)
    max_draws: int = eqx.field(static=True, default=8192)
    refinement: Refinement = Refinement(Zoom())
    card: Card = eqx.field(static=True, default=CARD)
    needs: ClassVar[tuple[str, ...]] = ()

    def __check_init__(self):
        for name in ("num_observations", "max_observations", "batch_size", "num_problems", "max_draws"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        as_encoder(self.encoder, ())

    @property
    def loss(self) -> MetaLoss:
        return MetaLoss(
            self.batch_size, self.num_problems, self.partial_loss, self.weighting, self.live, self.max_draws
        )

    def check(self, sims: Batch) -> None:
        pass

    def gather(
        self, key: Key, simulator: AbstractSimulator, budget: Budget, progress: AbstractProgress
    ) -> tuple[Simulations, ...]:
        common, most = sizes_for(budget.num_observations)
        common = self.num_observations or common
        most = self.max_observations or max(common, most)
        total = budget.num_simulations - sum(size * sets for size, sets in calibration_sizes(budget, most).items())
        laid_out = layout(total, common, most)
        (size, share), *_ = laid_out.items()
        if share // size < FEWEST_SETS:
            needed = -(-FEWEST_SETS * size * budget.num_simulations // share)
            raise ValueError(
                f"num_simulations: {budget.num_simulations} observations make {share // size} sets of {size}, too few "
                f"to meta-train on; give at least {needed}, or smaller sets: ALFI(num_observations=..., "
                "max_observations=...)"
            )
        return tuple(
            simulate(
                jax.random.fold_in(key, index),
                simulator,
                num_simulations=share // m,
                num_observations=m,
                progress=progress,
            )
            for index, (m, share) in enumerate(laid_out.items())
        )

    def build(self, key: Key, sims: Batch) -> RecurrentMachine:
        parts = (sims,) if isinstance(sims, Simulations) else sims
        return self.network.make(key, sims, as_encoder(self.encoder, parts[0].event_shape), live=self.live)

    def finish(self, key: Key, trained: Solution[Any], job: Job) -> Solution[Any]:
        machine, calls = trained.value, trained.statistics["num_simulator_calls"]
        if self.live:
            calls += int(trained.statistics["num_steps"]) * self.num_problems * machine.calls_per_run()
        done = with_notes(trained, {"num_simulator_calls": calls})
        parts = (job.sims,) if isinstance(job.sims, Simulations) else job.sims
        seen = as_encoder(self.encoder, parts[0].event_shape).in_words()
        done = dataclasses.replace(done, notes=(f"the machine sees {seen}",))
        sizes = calibration_sizes(job.budget, parts[-1].num_observations)
        return (
            done if job.simulator is None or not sizes else _calibrated(key, done, job.simulator, sizes, job.progress)
        )


def _calibrated(
    key: Key, trained: Solution[Any], simulator: AbstractSimulator, sizes: Mapping[int, int], progress: AbstractProgress
) -> Solution[Any]:
    """The machine with its widths corrected on fresh sets, and the coverage found on them."""
    simulate_key, run_key = jax.random.split(key)
    made = [
        simulate(
            jax.random.fold_in(simulate_key, size), simulator, num_simulations=sets, num_observations=size,
            progress=progress,
        )
        for size, sets in sizes.items()
    ]  # fmt: skip
    parts = [*made, *_cut(made)]
    machine, largest = trained.value, made[0].num_observations
    count = np.concatenate([np.full(len(part), part.num_observations) for part in parts])
    widths = [[(0, 0), (0, largest - part.num_observations), *[(0, 0)] * len(part.event_shape)] for part in parts]
    x = np.concatenate([np.pad(part.x, width, mode="edge") for part, width in zip(parts, widths, strict=True)])
    u = np.concatenate([machine.space.encoded(part.theta) for part in parts])
    weight = (np.arange(largest) < count[:, None]).astype(np.float32)
    found, crossed = Calibration.of(answers(machine, run_key, x, weight), count, u)
    coverage = covered(crossed, u).tolist()
    calls = trained.statistics["num_simulator_calls"] + len(u) * machine.calls_per_run()
    calls += sum(part.num_simulator_calls for part in made)
    extra = {"num_simulator_calls": calls, "num_calibration_sets": len(u)}
    if len(coverage) == machine.prior.dim:
        extra |= {f"coverage_95_{name}": each for name, each in zip(machine.prior.columns, coverage, strict=True)}
    value = dataclasses.replace(machine, calibration=found)
    return with_notes(trained, extra, failure_warnings(tuple(made)), value=value)


def _cut(made: list[Simulations]) -> list[Simulations]:
    """Two smaller sets out of each of the largest, of a size between theirs and the next."""
    first, after = made[0], made[1].num_observations if len(made) > 1 else 0
    size = round((first.num_observations * after) ** 0.5)
    if not 0 < size <= first.num_observations // 2:
        return []
    return [dataclasses.replace(first, x=first.x[:, start : start + size]) for start in (0, size)]
