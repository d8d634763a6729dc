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
- The encoder carries a first estimate of theta with its error, by closed-form regression; the network moves psi
  towards it and corrects it, in units of its error. Without it, gradient descent needs far longer to be as precise.
"""

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Key
from ..kernel import AbstractKernel
from ..losses import AbstractLoss, Batch
from ..nets.encoder import SetEncoder, Summary
from ..nets.layers import GRU, Dense
from ..nets.novelty import Novelty
from ..observations import as_observations
from ..posterior import Proposal
from ..progress import AbstractProgress
from ..simulate import simulate
from ..simulations import Simulations
from ..simulator import AbstractSimulator, JaxSimulator
from ..space import Gaussian, Space

LOG_SCALES = (-9.0, 2.0)  # proposals neither collapse to a point nor spread far beyond the prior
BATCH = 512  # simulations in one training batch, 64 of which are problems and 448 the bank


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

    simulator: JaxSimulator = eqx.field(static=True)

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
    observation_range: fewest and most observations seen in training.
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
            bandwidth=float((2 * num_proposed / 448) ** (1 / d)) if bandwidth is None else bandwidth,
            full_covariance=full_covariance,
            observation_range=(min(10, first.num_observations), max(part.num_observations for part in parts)),
            simulator=first.simulator,
            live=isinstance(first.simulator, JaxSimulator),
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

    def with_simulator(self, simulator: JaxSimulator | None = None) -> "RecurrentMachine":
        """The same machine, running the simulator in every iteration (the default for JAX simulators)."""
        chosen = self.simulator if simulator is None else simulator
        if not isinstance(chosen, JaxSimulator):
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
        if self.live and isinstance(self.simulator, JaxSimulator):
            return LiveReference(self.simulator)
        return self.bank(self.novelty.theta, self.novelty.x[:, : self.num_simulated])

    def _with(self, simulator: AbstractSimulator, live: bool) -> "RecurrentMachine":
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return RecurrentMachine(**{**fields, "simulator": simulator, "live": live})

    def _count_warnings(self, count: int) -> tuple[str, ...]:
        low, high = self.observation_range
        if low <= count <= high:
            return ()
        return (f"{count} observations: the machine was trained with {low} to {high}; its widths may be wrong here",)


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

    beta: float = 3.0

    def __call__(self, num_iterations: int) -> np.ndarray:
        return np.expm1(self.beta * np.arange(1, num_iterations + 1) / num_iterations) / np.expm1(self.beta)


class SettledWeighting(AbstractWeighting):
    """Free to explore before iteration `first`, then all count alike, so that the machine learns to stay."""

    first: int = 6

    def __call__(self, num_iterations: int) -> np.ndarray:
        return np.arange(1, num_iterations + 1) >= min(self.first, num_iterations)


# -- the loss --------------------------------------------------------------------------------------


class ALFI(AbstractLoss):
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

    batch_size: int = BATCH
    num_problems: int = 64
    partial_loss: AbstractPartialLoss = NegativeLogLikelihood()
    weighting: AbstractWeighting = SettledWeighting()
    live: bool = False
    max_draws: int = 8192

    def check(self, net: Any, batch: Batch) -> None:
        parts = (batch,) if isinstance(batch, Simulations) else batch
        if not isinstance(net, RecurrentMachine):
            raise ValueError(f"ALFI trains a RecurrentMachine, got {type(net).__name__}")
        if self.live and not isinstance(net.simulator, JaxSimulator):
            raise ValueError(
                f"live training needs a JAX simulator; {net.simulator.name!r} runs on the host: use the bank"
            )
        for part in parts:
            net.require(part.simulator)
            if part.event_shape != net.novelty.event_shape:
                raise ValueError(
                    f"observations have shape {part.event_shape}, the machine expects {net.novelty.event_shape}"
                )
        if len(parts[0]) < 40:
            raise ValueError(
                f"{len(parts[0])} simulations are too few to meta-train on; make at least 40, better thousands"
            )

    def __call__(self, net: RecurrentMachine, batch: Batch, key: Key) -> jax.Array:
        parts = (batch,) if isinstance(batch, Simulations) else batch
        problem_key, bank_key, start_key, step_key = jax.random.split(key, 4)
        num_problems = min(self.num_problems, len(parts[0]) // 2)
        u_star, seen_real = self._problems(net, problem_key, parts, num_problems)
        rest = parts[0][num_problems:]
        if self.live and isinstance(net.simulator, JaxSimulator):
            reference: AbstractReference = LiveReference(net.simulator)
        else:
            picked = jax.random.permutation(bank_key, rest.num_observations)[: net.num_simulated]
            reference = net.bank(rest.theta, rest.x[:, picked])
        first = jax.random.choice(start_key, net.space.encode(rest.theta), (len(u_star),))
        weights = self.weighting(net.num_iterations).astype(np.float32)

        @jax.checkpoint  # recomputing an iteration is cheaper than moving its intermediates through memory
        def iterate(now: Progressing, inputs: tuple[Key, jax.Array]) -> tuple[Progressing, jax.Array]:
            keys = jax.random.split(inputs[0], len(u_star))
            after = jax.vmap(lambda k, seen, one: net.update(k, reference, seen, one))(keys, seen_real, now)
            losses = jax.vmap(lambda psi, u: self.partial_loss(Gaussian.of(psi, net.space.dim), u))(after.psi, u_star)
            return after, inputs[1] * jnp.mean(losses)

        keys = jax.random.split(step_key, net.num_iterations)
        _, losses = jax.lax.scan(iterate, jax.vmap(net.start)(first), (keys, jnp.asarray(weights / weights.sum())))
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
    position = (jnp.arange(m) - jax.random.randint(start_key, (n, 1), 0, m)) % m
    low, high = np.log(min(fewest, m)), np.log(m + 1)
    count = jnp.floor(jnp.exp(jax.random.uniform(count_key, (n, 1), minval=low, maxval=high)))
    weight = (position < count).astype(jnp.float32)
    return net.space.encode(sims.theta), jax.vmap(net.see_real)(sims.x, weight)


# -- simulations to train on -----------------------------------------------------------------------


def simulate_bank(
    key: Key,
    simulator: AbstractSimulator,
    *,
    num_simulations: int = 10_000,
    num_observations: int = 100,
    max_observations: int = 3000,
    progress: AbstractProgress | None = None,
) -> tuple[Simulations, ...]:
    """A budget of `num_simulations * num_observations` observations, laid out so that one machine serves many counts.

    About half of the budget goes to sets of `num_observations`, the rest to fewer, larger sets of up to
    `max_observations`, in at most two further records. With max_observations <= 1.5 num_observations there is one
    record, of `max_observations`.

    Returns
    -------
    Records with increasing numbers of observations per theta; pass them to `fit` together.
    """
    budget = num_simulations * num_observations
    ratio = max_observations / num_observations
    if ratio <= 1.5:
        sizes = {max_observations: budget}
    elif ratio <= 6:
        sizes = {num_observations: budget * 2 // 3, max_observations: budget // 3}
    else:
        sizes = {
            num_observations: budget * 2 // 5,
            num_observations * 5: budget * 3 // 10,
            max_observations: budget * 3 // 10,
        }
    return tuple(
        simulate(
            jax.random.fold_in(key, index),
            simulator,
            num_simulations=max(share // m, 8),
            num_observations=m,
            progress=progress,
        )
        for index, (m, share) in enumerate(sizes.items())
    )
