"""The recurrent machine of ALFI: the network of Figure 1 of Pesah, Wehenkel and Louppe (2018), and its use as a kernel.

What it is, what it is trained for, and where it differs from the paper is told in `methods/recurrent/alfi.py`.
"""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...answers.bayes.posterior import MixturePosterior
from ...answers.bayes.space import Gaussian, Space
from ...answers.estimates import AbstractPosteriorEstimator
from ...core.batches import filled
from ...core.loss import Batch
from ...core.run import AbstractKernel, iterate
from ...core.simulations import Simulations
from ...core.simulator import AbstractSimulator
from ...core.solution import Array, Key, Solution
from ...sample.black_box import AbstractJaxSimulator
from ..nets.encoder import AbstractEncoder, encoder_for
from ..nets.novelty import Novelty
from ..nets.set_encoder import SetEncoder, Summary, over_all
from ..nets.widths import Calibration
from .supply import AbstractSupply, BankSupply, LiveSupply

LOG_SCALES = (-9.0, 0.5)  # proposals neither collapse to a point nor spread far beyond the prior, which is about 1
WELL_COVERED = 300  # simulated sets; with fewer, intervals were seen to under-cover
UNCALIBRATED = (
    "the widths of this machine are not calibrated, for which `train` needs a simulator and a larger budget; `infer` "
    "does not calibrate the machine that its rounds begin from"
)
BLOCK = 64  # sets that are run at once
BANK = 448  # members of a training batch's bank, with the defaults of `ALFI`


# -- the machine -----------------------------------------------------------------------------------


class Progressing(NamedTuple):
    """psi `(n, p)` and the recurrent memory `(n, memory)` of n problems: what an iteration changes."""

    psi: jax.Array
    memory: jax.Array


class Seen(NamedTuple):
    """What the machine sees of the real observations of n problems: their summary, and projections of it."""

    summary: Summary
    for_theta: jax.Array
    for_cell: jax.Array


class MachineState(NamedTuple):
    """The state of a run: what is seen of the real observations, where simulated sets come from, psi, and m."""

    seen_real: Seen
    supply: AbstractSupply
    progressing: Progressing
    count: jax.Array


class Machine(eqx.Module):
    """What a recurrent machine is to be made like. It has no weights yet.

    Fields
    ------
    num_iterations: T. The paper uses 15.
    num_proposed: B, parameters taken from the proposal in an iteration. The paper uses 20 (8 for Weinberg).
    num_simulated: M, observations simulated at each. The paper uses 20 (64 for Weinberg).
    clip: largest change of a component of psi in an iteration, approached smoothly. The paper clips at 0.2
        to 0.5 in the units of the parameters; here psi is standardised.
    bandwidth: the proposal is widened by this much, in quadrature, when simulated sets are taken near it: the
        resolution of a training batch's bank. None for (2 B / 448)^(1/d), with which about 2 B members of the bank
        lie within the reach of a narrow proposal; the simulator inside the loop needs none.
    fixed_statistics: whether the encoder has fixed statistics of a set beside what it learns.
    regression: whether it carries the closed-form regression estimate on those, to which the machine is pulled. The
        paper's has neither.
    full_covariance: whether the proposal has a full covariance; the paper's is diagonal.
    width, memory: sizes of the hidden layers and of the recurrent memory (20 to 60 and 40 in the paper's code).
    """

    num_iterations: int = eqx.field(static=True, default=16)
    num_proposed: int = eqx.field(static=True, default=10)
    num_simulated: int = eqx.field(static=True, default=20)
    clip: float = eqx.field(static=True, default=0.5)
    bandwidth: float | None = eqx.field(static=True, default=None)
    fixed_statistics: bool = eqx.field(static=True, default=True)
    regression: bool = eqx.field(static=True, default=True)
    full_covariance: bool = eqx.field(static=True, default=False)
    width: int = eqx.field(static=True, default=64)
    memory: int = eqx.field(static=True, default=64)

    def __check_init__(self):
        for name in ("num_iterations", "num_proposed", "num_simulated", "width", "memory"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.regression and not self.fixed_statistics:
            raise ValueError("the regression is on the fixed statistics: without them, regression=False too")
        if not self.clip > 0:
            raise ValueError(f"clip must be positive, got {self.clip}")
        if self.bandwidth is not None and not self.bandwidth >= 0:
            raise ValueError(f"bandwidth must not be negative, got {self.bandwidth}")

    def make(
        self, key: Key, sims: Batch, encoder: AbstractEncoder | None = None, *, live: bool = False
    ) -> "RecurrentMachine":
        """An untrained machine for such simulations, from which statistics for standardisation are taken.

        encoder: what is seen of one observation; by its shape if None.
        live: whether it will be trained with the simulator inside the loop.
        """
        parts = (sims,) if isinstance(sims, Simulations) else tuple(sims)
        first, width = parts[0], self.width
        names = ["encoder", "real", "direct", "simulated", "parameter", "theta", "before", "cell", "after", "readout"]
        keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        space = Space.of(first.prior, first.theta)
        sets = [(space.encoded(part.theta), part.x) for part in parts]
        like = encoder or encoder_for(first.event_shape)
        made_encoder = SetEncoder.make(
            keys["encoder"],
            sets,
            like,
            width=width,
            num_pooled=width,
            fixed=self.fixed_statistics,
            regression=self.regression,
        )
        seen, d = made_encoder.num_features, space.dim
        p = Gaussian.num_parameters(d, self.full_covariance)
        layer = lambda name, num_in, num_out, bias=True: eqx.nn.Linear(num_in, num_out, use_bias=bias, key=keys[name])
        spread = 0.0 if live else (2 * self.num_proposed / BANK) ** (1 / d)
        made = {
            "num_simulated": min(self.num_simulated, first.num_observations),
            "bandwidth": float(spread) if self.bandwidth is None else self.bandwidth,
        }
        return RecurrentMachine(
            space=space,
            encoder=made_encoder,
            novelty=Novelty.of(first, made_encoder.lens, made_encoder.statistics.warp),
            real_layer=layer("real", seen, width),
            direct_layer=layer("direct", seen, width, bias=False),
            simulated_layer=layer("simulated", seen, width, bias=False),
            parameter_layer=layer("parameter", d + p, width, bias=False),
            theta_layer=layer("theta", width, width),
            before=layer("before", width + p + 2 * d, width),
            cell=eqx.nn.GRUCell(width, self.memory, key=keys["cell"]),
            after=layer("after", self.memory, width),
            # small first steps
            readout=eqx.tree_at(lambda one: one.weight, layer("readout", width, p), replace_fn=lambda w: 0.1 * w),
            gain=jnp.zeros(2 * d),
            shape=dataclasses.replace(self, **made),
            observation_range=(
                min(10, first.num_observations),
                max(p.num_observations for p in parts if p is first or len(p) >= WELL_COVERED),
            ),
            simulator=first.simulator,
            event_shape=first.event_shape,
            live=live,
        )


class RecurrentMachine(AbstractPosteriorEstimator, AbstractKernel):
    """The network f_phi of Figure 1, and, once trained, a kernel for `run`.

    Fields
    ------
    space: the space of u and psi.
    encoder: the shared x-encoder.
    novelty: tells whether observations look like anything simulated, and holds the bank `(theta, x)` used
        when the simulator is not run.
    shape: what it was made like.
    observation_range: fewest observations seen in training, and the most that at least 300 simulated sets had (or
        the first record's).
    event_shape: shape of one observation.
    simulator: run in every iteration of `run` when `live` is True.
    live: see `with_bank` and `with_simulator`.
    calibration: of the answers; None where there was none.
    """

    space: Space
    encoder: SetEncoder
    novelty: Novelty
    real_layer: eqx.nn.Linear
    direct_layer: eqx.nn.Linear
    simulated_layer: eqx.nn.Linear
    parameter_layer: eqx.nn.Linear
    theta_layer: eqx.nn.Linear
    before: eqx.nn.Linear
    cell: eqx.nn.GRUCell
    after: eqx.nn.Linear
    readout: eqx.nn.Linear
    gain: jax.Array
    shape: Machine = eqx.field(static=True)
    observation_range: tuple[int, int] = eqx.field(static=True)
    simulator: AbstractSimulator = eqx.field(static=True)
    event_shape: tuple[int, ...] = eqx.field(static=True)
    live: bool = eqx.field(static=True)
    calibration: Calibration | None = None

    @property
    def num_iterations(self) -> int:
        return self.shape.num_iterations

    # -- what it sees

    def see_real(self, x: jax.Array, weight: jax.Array | None = None) -> Seen:
        """What is seen of x `(n, m, *event)`, n problems."""
        summary = self.encoder(x, weight)
        return Seen(summary, *(over_all(layer, summary.features) for layer in (self.real_layer, self.direct_layer)))

    def see_simulated(self, x: jax.Array) -> jax.Array:
        """Projections `(K, width)` of the encodings of K simulated sets `(K, M, *event)`."""
        return over_all(self.simulated_layer, self.encoder(x).features)

    def bank(self, theta: jax.Array, x: jax.Array) -> BankSupply:
        """A supply from simulations theta `(K, dim)`, x `(K, M, *event)`."""
        u = self.space.encode(theta)
        return BankSupply(u, jnp.exp(-self.space.log_prior(u)), self.see_simulated(x))

    # -- what it does

    def start(self, u: jax.Array) -> Progressing:
        """The initial proposals: means u `(n, d)`, scales 1 in standardised units, empty memories."""
        p = self.readout.out_features
        psi = jnp.zeros((len(u), p)).at[:, : self.space.dim].set(jnp.clip(u, -3.0, 3.0))
        return Progressing(psi, jnp.zeros((len(u), self.cell.hidden_size)))

    def update(self, key: Key, supply: AbstractSupply, seen_real: Seen, now: Progressing) -> Progressing:
        """One iteration of n problems."""
        d = self.space.dim
        narrow = jax.vmap(lambda psi: Gaussian.of(psi, d).widened(self.shape.bandwidth or 0.0))
        proposals = narrow(jax.lax.stop_gradient(now.psi))
        u, seen = supply.draw(self, key, proposals)
        parameters = jnp.clip(jnp.concatenate([u, jax.vmap(Gaussian.gradient)(proposals, u)], axis=-1), -4.0, 4.0)
        h = jax.nn.silu(seen_real.for_theta[:, None] + seen + over_all(self.parameter_layer, parameters))
        h = jnp.mean(jax.nn.silu(over_all(self.theta_layer, h)), axis=1)
        summary = seen_real.summary
        ahead = jnp.concatenate([summary.mean, summary.log_scale], axis=-1) - now.psi[:, : 2 * d]
        ahead = jnp.zeros_like(ahead) if self.encoder.regression is None else ahead
        units = jnp.concatenate([jnp.exp(summary.log_scale), jnp.ones_like(summary.log_scale)], axis=-1)
        relative = jnp.clip(ahead / units, -4.0, 4.0)
        h = over_all(self.before, jnp.concatenate([h, now.psi, relative], axis=-1)) + seen_real.for_cell
        memory = jax.vmap(self.cell)(jax.nn.silu(h), now.memory)
        step = over_all(self.readout, jax.nn.silu(over_all(self.after, memory)))
        step = step.at[:, : 2 * d].set(units * step[:, : 2 * d] + jax.nn.sigmoid(self.gain) * ahead)
        psi = now.psi + self.shape.clip * jnp.tanh(step / self.shape.clip)
        return Progressing(psi.at[:, d : 2 * d].set(jnp.clip(psi[:, d : 2 * d], *LOG_SCALES)), memory)

    # -- as a kernel

    def with_simulator(self, simulator: AbstractJaxSimulator | None = None) -> "RecurrentMachine":
        """The same machine, running the simulator in every iteration (the default for JAX simulators)."""
        chosen = self.simulator if simulator is None else simulator
        if not isinstance(chosen, AbstractJaxSimulator):
            raise ValueError(
                f"only a JAX simulator can be run inside the machine's loop; {chosen.name!r} is a "
                f"{type(chosen).__name__}: use the bank (machine.with_bank())"
            )
        self.require(chosen)
        return self._with(chosen, True)

    def with_bank(self) -> "RecurrentMachine":
        """The same machine, calling no simulator in `run`: it uses a bank kept from its training."""
        return self._with(self.simulator, False)

    def doubts(self, x: jax.Array) -> tuple[str, ...]:
        bare = (UNCALIBRATED,) if self.calibration is None else ()
        return (*bare, *self._count_warnings(len(x)), *self.novelty.warnings(x))

    def init(self, key: Key, x: jax.Array, weight: jax.Array) -> MachineState:
        theta = self.space.prior.sample(key, 1)
        begun = self.start(self.space.encode(theta))
        return MachineState(self.see_real(x[None], weight[None]), self._supply(), begun, jnp.sum(weight))

    def step(self, key: Key, state: MachineState) -> tuple[MachineState, dict[str, jax.Array]]:
        after = self.update(key, state.supply, state.seen_real, state.progressing)
        psi = self._calibrated(after.psi[0], state.count)
        proposal = MixturePosterior(self.space, psi[None])
        record = {"psi": psi, "mean": proposal.mean, "std": proposal.std}
        return state._replace(progressing=after), record

    def estimate(self, state: MachineState) -> MixturePosterior:
        return MixturePosterior(self.space, self._calibrated(state.progressing.psi[0], state.count)[None])

    def _calibrated(self, psi: jax.Array, count: jax.Array) -> jax.Array:
        return psi if self.calibration is None else self.calibration(psi, count)

    def calls_per_iteration(self) -> int:
        return self.shape.num_proposed * self.shape.num_simulated if self.live else 0

    def calls_per_run(self) -> int:
        """Simulated observations that a run of the default length asks of the simulator."""
        return self.num_iterations * self.calls_per_iteration()

    def infer(self, key: Key, x: jax.Array) -> Solution[MixturePosterior]:
        solution = iterate(key, self, x)
        value = dataclasses.replace(solution.value, warnings=solution.warnings)
        return dataclasses.replace(solution, value=value)

    def marginalise(self, key: Key, x: Array, *, num_proposals: int = 500) -> MixturePosterior:
        """The mixture of the answers from many initial proposals (paper, appendix A: 500).

        Parameters
        ----------
        x: observations `(m, *event)`.
        num_proposals: initial means drawn from the prior; each is one run, with its own simulator calls.
        """
        checked = self.observations(x)
        return MixturePosterior(
            self.space, trajectories(self, key, jnp.broadcast_to(checked, (num_proposals, *checked.shape)))[:, -1]
        )

    def _supply(self) -> AbstractSupply:
        if self.live and isinstance(self.simulator, AbstractJaxSimulator):
            return LiveSupply(self.simulator)
        return self.bank(self.novelty.theta, self.novelty.x[:, : self.shape.num_simulated])

    def _with(self, simulator: AbstractSimulator, live: bool) -> "RecurrentMachine":
        return dataclasses.replace(self, simulator=simulator, live=live)

    def _count_warnings(self, count: int) -> tuple[str, ...]:
        low, high = self.observation_range
        if low <= count <= high:
            return ()
        return (
            f"{count} observations: the machine was trained well for {low} to {high} (with {WELL_COVERED} simulated "
            "sets or more); outside, its intervals are often too narrow: simulate more sets of this size",
        )


@eqx.filter_jit
def trajectories(
    machine: RecurrentMachine, key: Key, x: Array, num_iterations: int | None = None, weight: Array | None = None
) -> jax.Array:
    """Run one machine on many sets of observations at once, each from its own initial proposal.

    Parameters
    ----------
    x: `(n, m, *event)`, n sets of m observations.
    num_iterations: T by default.
    weight: `(n, m)`, 1 for the observations that count, 0 for others; all count by default.

    Returns
    -------
    psi after every iteration, `(n, T, p)`. They are not checked as in `run`.
    """
    count = machine.num_iterations if num_iterations is None else num_iterations

    begin_key, step_key = jax.random.split(key)
    x = jnp.asarray(x)
    weight = jnp.ones(x.shape[:2]) if weight is None else jnp.asarray(weight)
    begun = machine.start(machine.space.encode(machine.space.prior.sample(begin_key, len(x))))
    seen_real, supply = machine.see_real(x, weight), machine._supply()

    def body(now: Progressing, key: Key) -> tuple[Progressing, jax.Array]:
        after = machine.update(key, supply, seen_real, now)
        return after, jax.vmap(machine._calibrated)(after.psi, jnp.sum(weight, axis=1))

    psi = jax.lax.scan(body, begun, jax.random.split(step_key, count))[1]
    return jnp.swapaxes(psi, 0, 1)


def answers(machine: RecurrentMachine, key: Key, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """psi `(n, p)` after the default number of iterations on sets x `(n, m, *event)`, in blocks of one size."""
    found = []
    for start in range(0, len(x), BLOCK):
        rows = slice(start, start + BLOCK)
        block = filled(x[rows], BLOCK), filled(weight[rows], BLOCK)
        own = jax.random.fold_in(key, start)
        found.append(np.asarray(trajectories(machine, own, block[0], None, block[1]))[: len(x[rows]), -1])
    return np.concatenate(found)
