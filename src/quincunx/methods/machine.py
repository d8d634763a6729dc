"""The recurrent machine of ALFI: the network of Figure 1 of Pesah, Wehenkel and Louppe (2018), and its use as a kernel.

What it is, what it is trained for, and where it differs from the paper is told in `methods/alfi.py`.
"""

import abc
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..answers.bayes.proposal import Proposal
from ..answers.bayes.space import Gaussian, Space
from ..core.loss import Batch
from ..core.run import AbstractKernel
from ..core.simulations import Simulations, as_observations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key
from ..sample.black_box import AbstractJaxSimulator
from .nets.encoder import SetEncoder, Summary
from .nets.layers import GRU, Dense
from .nets.novelty import Novelty

LOG_SCALES = (-9.0, 2.0)  # proposals neither collapse to a point nor spread far beyond the prior
WELL_COVERED = 300  # simulated sets; with fewer, intervals were seen to under-cover
BANK = 448  # members of a training batch's bank, with the defaults of `ALFI`


# -- where simulated sets come from ----------------------------------------------------------------


class AbstractReference(eqx.Module):
    """Parameters near a proposal, with what the theta-encoder sees of sets simulated there."""

    @abc.abstractmethod
    def draw(self, machine: "RecurrentMachine", key: Key, proposal: Gaussian) -> tuple[jax.Array, jax.Array]:
        """u `(B, d)` and the projected encodings `(B, width)`."""


class BankReference(AbstractReference):
    """Simulations made once, at u `(K, d)`: a draw asks nothing of the simulator.

    Members are taken with replacement, in proportion to (a heavy-tailed stand-in for) q(u) / prior(u), so
    that the draws spread like the proposal although the bank spreads like the prior.
    """

    u: jax.Array
    inverse_prior: jax.Array
    seen: jax.Array

    def draw(self, machine: "RecurrentMachine", key: Key, proposal: Gaussian) -> tuple[jax.Array, jax.Array]:
        # (1 + w^2 / 16)^-8 is close to exp(-w^2 / 2), never underflows, and costs no exp and no max.
        kernel = (1 + jnp.sum(proposal.standard(self.u) ** 2, axis=-1) / 16) ** -8
        cumulative = jnp.cumsum(kernel * self.inverse_prior)
        points = jax.random.uniform(key, (machine.num_proposed,)) * cumulative[-1]
        index = jnp.minimum(jnp.sum(cumulative < points[:, None], axis=1), len(cumulative) - 1)
        return self.u[index], self.seen[index]


class LiveReference(AbstractReference):
    """The simulator itself, run at draws from the proposal in every iteration."""

    simulator: AbstractJaxSimulator = eqx.field(static=True)

    def draw(self, machine: "RecurrentMachine", key: Key, proposal: Gaussian) -> tuple[jax.Array, jax.Array]:
        u_key, x_key = jax.random.split(key)
        u = proposal.at(jax.random.normal(u_key, (machine.num_proposed, machine.space.dim)))
        theta = machine.space.decode(u)
        keys = jax.random.split(x_key, machine.num_proposed)
        x = jax.vmap(lambda k, t: self.simulator.sample_set(k, t, machine.num_simulated))(keys, theta)
        return u, machine.see_simulated(x)


# -- the machine -----------------------------------------------------------------------------------


class Progressing(NamedTuple):
    """psi `(p,)` and the recurrent memory `(memory,)`: what an iteration changes."""

    psi: jax.Array
    memory: jax.Array


class Seen(NamedTuple):
    """What the machine sees of the real observations: their summary, and projections of it."""

    summary: Summary
    for_theta: jax.Array
    for_cell: jax.Array


class MachineState(NamedTuple):
    """The state of a run: what is seen of the real observations, where simulated sets come from, and psi."""

    seen_real: Seen
    reference: AbstractReference
    progressing: Progressing


class RecurrentMachine(AbstractKernel):
    """The network f_phi of Figure 1, and, once trained, a kernel for `run`.

    Make one with `RecurrentMachine.for_simulations`, train it with `fit` and the loss `ALFI`.

    Fields
    ------
    space: the space of u and psi.
    encoder: the shared x-encoder.
    novelty: tells whether observations look like anything simulated, and holds the bank `(theta, x)` used
        when the simulator is not run.
    num_iterations: T. The paper uses 15.
    num_proposed: B, parameters taken from the proposal in an iteration. The paper uses 20 (8 for Weinberg).
    num_simulated: M, observations simulated at each. The paper uses 20 (64 for Weinberg).
    clip: largest change of a component of psi in an iteration, approached smoothly. The paper clips at 0.2
        to 0.5 in the units of the parameters; here psi is standardised.
    bandwidth: the proposal is widened by this much, in quadrature, when simulated sets are taken near it:
        the resolution of a training batch's bank. 0 for live training.
    full_covariance: whether the proposal has a full covariance; the paper's is diagonal.
    observation_range: fewest observations seen in training, and the most that at least 300 simulated sets had (or
        the first record's).
    simulator: run in every iteration of `run` when `live` is True.
    live: see `with_bank` and `with_simulator`.
    """

    space: Space
    encoder: SetEncoder
    novelty: Novelty
    real_layer: Dense
    direct_layer: Dense
    simulated_layer: Dense
    parameter_layer: Dense
    theta_layer: Dense
    before: Dense
    cell: GRU
    after: Dense
    readout: Dense
    gain: jax.Array
    num_iterations: int = eqx.field(static=True)
    num_proposed: int = eqx.field(static=True)
    num_simulated: int = eqx.field(static=True)
    clip: float = eqx.field(static=True)
    bandwidth: float = eqx.field(static=True)
    full_covariance: bool = eqx.field(static=True)
    observation_range: tuple[int, int] = eqx.field(static=True)
    simulator: AbstractSimulator = eqx.field(static=True)
    live: bool = eqx.field(static=True)

    @staticmethod
    def for_simulations(
        sims: Batch | Sequence[Simulations],
        *,
        key: Key | None = None,
        num_iterations: int = 16,
        num_proposed: int = 10,
        num_simulated: int = 20,
        clip: float = 0.5,
        bandwidth: float | None = None,
        full_covariance: bool = False,
        width: int = 64,
        memory: int = 64,
    ) -> "RecurrentMachine":
        """An untrained machine for such simulations.

        Parameters
        ----------
        sims: the simulations it will be trained on; statistics for standardisation are taken from them.
        key: random key of the initial weights; `jax.random.key(0)` by default.
        bandwidth: by default (2 B / 448)^(1/d), with which about 2 B members of a training batch's bank lie
            within the reach of a narrow proposal. Give 0 for live training.
        width, memory: sizes of the hidden layers and of the recurrent memory (20 to 60 and 40 in the paper's code).
        num_iterations, num_proposed, num_simulated, clip, full_covariance: see the fields.
        """
        parts = (sims,) if isinstance(sims, Simulations) else tuple(sims)
        first = parts[0]
        names = ["encoder", "real", "direct", "simulated", "parameter", "theta", "before", "cell", "after", "readout"]
        keys = dict(zip(names, jax.random.split(jax.random.key(0) if key is None else key, len(names)), strict=True))
        space = Space.of(first.prior, first.theta)
        sets = [(space.encode(part.theta), part.x) for part in parts]
        encoder = SetEncoder.make(keys["encoder"], sets, width=width, num_pooled=width)
        seen, d = encoder.num_features, space.dim
        p = Gaussian.num_parameters(d, full_covariance)
        readout = Dense.make(keys["readout"], width, p)
        return RecurrentMachine(
            space=space,
            encoder=encoder,
            novelty=Novelty.of(first, encoder.warp),
            real_layer=Dense.make(keys["real"], seen, width),
            direct_layer=Dense.make(keys["direct"], seen, width, bias=False),
            simulated_layer=Dense.make(keys["simulated"], seen, width, bias=False),
            parameter_layer=Dense.make(keys["parameter"], d + p, width, bias=False),
            theta_layer=Dense.make(keys["theta"], width, width),
            before=Dense.make(keys["before"], width + p + 2 * d, width),
            cell=GRU.make(keys["cell"], width, memory),
            after=Dense.make(keys["after"], memory, width),
            readout=eqx.tree_at(lambda layer: layer.weight, readout, 0.1 * readout.weight),  # small first steps
            gain=jnp.zeros(2 * d),
            num_iterations=num_iterations,
            num_proposed=num_proposed,
            num_simulated=min(num_simulated, first.num_observations),
            clip=clip,
            bandwidth=float((2 * num_proposed / BANK) ** (1 / d)) if bandwidth is None else bandwidth,
            full_covariance=full_covariance,
            observation_range=(
                min(10, first.num_observations),
                max(p.num_observations for p in parts if p is first or len(p) >= WELL_COVERED),
            ),
            simulator=first.simulator,
            live=isinstance(first.simulator, AbstractJaxSimulator),
        )

    # -- what it sees

    def see_real(self, x: jax.Array, weight: jax.Array | None = None) -> Seen:
        """What is seen of x `(m, *event)`."""
        summary = self.encoder(x, weight)
        return Seen(summary, self.real_layer(summary.features), self.direct_layer(summary.features))

    def see_simulated(self, x: jax.Array) -> jax.Array:
        """Projections `(K, width)` of the encodings of K simulated sets `(K, M, *event)`."""
        return self.simulated_layer(jax.vmap(self.encoder)(x).features)

    def bank(self, theta: jax.Array, x: jax.Array) -> BankReference:
        """A reference from simulations theta `(K, dim)`, x `(K, M, *event)`."""
        u = self.space.encode(theta)
        return BankReference(u, jnp.exp(-self.space.log_prior(u)), self.see_simulated(x))

    # -- what it does

    def start(self, u: jax.Array) -> Progressing:
        """The initial proposal: mean u `(d,)`, scale 1 in standardised units, empty memory."""
        psi = jnp.zeros(self.readout.num_out).at[: self.space.dim].set(jnp.clip(u, -3.0, 3.0))
        return Progressing(psi, jnp.zeros(self.cell.size))

    def update(self, key: Key, reference: AbstractReference, seen_real: Seen, now: Progressing) -> Progressing:
        """One iteration."""
        d = self.space.dim
        proposal = Gaussian.of(jax.lax.stop_gradient(now.psi), d).widened(self.bandwidth)
        u, seen = reference.draw(self, key, proposal)
        parameters = jnp.clip(jnp.concatenate([u, proposal.gradient(u)], axis=-1), -4.0, 4.0)
        h = jax.nn.silu(seen_real.for_theta + seen + self.parameter_layer(parameters))
        h = jnp.mean(jax.nn.silu(self.theta_layer(h)), axis=0)
        ahead = jnp.concatenate([seen_real.summary.mean, seen_real.summary.log_scale]) - now.psi[: 2 * d]
        units = jnp.concatenate([jnp.exp(seen_real.summary.log_scale), jnp.ones(d)])
        relative = jnp.clip(ahead / units, -4.0, 4.0)
        h = self.before(jnp.concatenate([h, now.psi, relative])) + seen_real.for_cell
        memory = self.cell(jax.nn.silu(h), now.memory)
        step = self.readout(jax.nn.silu(self.after(memory)))
        step = step.at[: 2 * d].set(units * step[: 2 * d] + jax.nn.sigmoid(self.gain) * ahead)
        psi = now.psi + self.clip * jnp.tanh(step / self.clip)
        return Progressing(psi.at[d : 2 * d].set(jnp.clip(psi[d : 2 * d], *LOG_SCALES)), memory)

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

    def require(self, simulator: AbstractSimulator) -> None:
        """Raise `ValueError` unless the machine was trained for this simulator."""
        if simulator.name != self.simulator.name or simulator.prior != self.space.prior:
            raise ValueError(
                f"this machine was trained for the simulator {self.simulator.name!r} with {self.space.prior}, "
                f"not for {simulator.name!r} with {simulator.prior}; train one for it"
            )

    def check(self, x: Array) -> tuple[jax.Array, tuple[str, ...]]:
        checked = as_observations(x, self.novelty.event_shape, f"the simulator {self.simulator.name!r}")
        return checked, (*self._count_warnings(len(checked)), *self.novelty.warnings(checked))

    def init(self, key: Key, x: jax.Array) -> MachineState:
        theta = self.space.prior.sample(key, 1)
        return MachineState(self.see_real(x), self._reference(), self.start(self.space.encode(theta)[0]))

    def step(self, key: Key, state: MachineState) -> tuple[MachineState, dict[str, jax.Array]]:
        after = self.update(key, state.reference, state.seen_real, state.progressing)
        proposal = Proposal(self.space, after.psi[None])
        record = {"psi": after.psi, "mean": proposal.mean, "std": proposal.std}
        return state._replace(progressing=after), record

    def estimate(self, state: MachineState) -> Proposal:
        return Proposal(self.space, state.progressing.psi[None])

    def calls_per_iteration(self) -> int:
        return self.num_proposed * self.num_simulated if self.live else 0

    def marginalise(self, key: Key, x: Array, *, num_proposals: int = 500) -> Proposal:
        """The mixture of the answers from many initial proposals (paper, appendix A: 500).

        Parameters
        ----------
        x: observations `(m, *event)`.
        num_proposals: initial means drawn from the prior; each is one run, with its own simulator calls.
        """
        checked, _ = self.check(x)
        return Proposal(
            self.space, trajectories(self, key, jnp.broadcast_to(checked, (num_proposals, *checked.shape)))[:, -1]
        )

    def _reference(self) -> AbstractReference:
        if self.live and isinstance(self.simulator, AbstractJaxSimulator):
            return LiveReference(self.simulator)
        return self.bank(self.novelty.theta, self.novelty.x[:, : self.num_simulated])

    def _with(self, simulator: AbstractSimulator, live: bool) -> "RecurrentMachine":
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return RecurrentMachine(**{**fields, "simulator": simulator, "live": live})

    def _count_warnings(self, count: int) -> tuple[str, ...]:
        low, high = self.observation_range
        if low <= count <= high:
            return ()
        return (
            f"{count} observations: the machine was trained well for {low} to {high} (with {WELL_COVERED} simulated "
            "sets or more); outside, its intervals are often too narrow: simulate more sets of this size",
        )


@eqx.filter_jit
def trajectories(machine: RecurrentMachine, key: Key, x: Array, num_iterations: int | None = None) -> jax.Array:
    """Run one machine on many sets of observations at once, each from its own initial proposal.

    Parameters
    ----------
    x: `(n, m, *event)`, n sets of m observations.
    num_iterations: T by default.

    Returns
    -------
    psi after every iteration, `(n, T, p)`. They are not checked as in `run`.
    """
    count = machine.num_iterations if num_iterations is None else num_iterations

    def one(key: Key, x: jax.Array) -> jax.Array:
        init_key, step_key = jax.random.split(key)
        state = machine.init(init_key, x)

        def body(now: Progressing, key: Key) -> tuple[Progressing, jax.Array]:
            after = machine.update(key, reference, state.seen_real, now)
            return after, after.psi

        return jax.lax.scan(body, state.progressing, jax.random.split(step_key, count))[1]

    reference = machine._reference()
    return jax.vmap(one)(jax.random.split(key, len(x)), jnp.asarray(x))
