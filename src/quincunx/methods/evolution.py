"""AVO and NES: searches that move a proposal over the parameters by rules made by hand, where ALFI learns its rule.

Both follow gradients of an expectation over q(theta | psi), a normal on the unconstrained parameters, which needs no
derivative of the simulator:    grad_psi E_q[f(theta)] = E_q[f(theta) grad_psi log q(theta | psi)]

- AVO (adversarial variational optimisation; Louppe, Hermans and Cranmer 2019, arXiv:1707.07113): f = - E[d(x)], where
  a critic d is trained meanwhile to tell simulated from real observations, by Wasserstein's distance with a penalty on
  its gradient (Gulrajani et al. 2017). To f comes gamma times the entropy of q.
- NES (natural evolution strategies; Wierstra et al. 2014, JMLR 15:949, arXiv:1106.4487): f is the energy distance
  between a simulated set and the observations (Szekely and Rizzo 2013), of which only the ranks count; the gradient is
  the natural one.

Where they end is near the parameters that fit best. How wide q is then says how the search ended, not how sure one can
be: it is no posterior.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..answers.bayes.posterior import AbstractPosterior, MixturePosterior
from ..answers.bayes.space import Gaussian, Space
from ..core.progress import AbstractProgress
from ..core.run import AbstractKernel, iterate
from ..core.simulations import as_observations
from ..core.simulator import AbstractSimulator
from ..core.solution import Array, Key, Solution
from ..sample.black_box import AbstractJaxSimulator
from ..sample.simulate import simulate
from .method import AbstractSearch, Budget, Card, with_notes
from .nets.lens import Warp

NUM_PILOT = 2000  # observations at draws of the prior, which set the scales
NO_POSTERIOR = "the widths are those of a search that ended, no posterior: do not quote them as errors"


class Scene(eqx.Module):
    """The simulator, and how parameters and observations are seen.

    Fields
    ------
    simulator: one in JAX, which runs inside the loop.
    space: the space of u.
    warp: features of an observation.
    """

    simulator: AbstractJaxSimulator = eqx.field(static=True)
    space: Space
    warp: Warp

    def simulated(self, key: Key, u: jax.Array, count: int) -> jax.Array:
        """Features `(n, count, k)` of so many observations at each u `(n, d)`."""
        theta = self.space.decode(u)
        x = jax.vmap(lambda k, t: self.simulator.sample_set(k, t, count))(jax.random.split(key, len(u)), theta)
        return self.seen(x.reshape(len(u), count, -1))

    def seen(self, x: jax.Array) -> jax.Array:
        return self.warp(x)

    def at(self, psi: jax.Array) -> Gaussian:
        return Gaussian.of(psi, self.space.dim)

    def posterior(self, psi: jax.Array) -> MixturePosterior:
        return MixturePosterior(self.space, psi[None])


class Real(NamedTuple):
    """Features `(m, k)` of the observations, and their weights `(m,)`: 1, or 0 for what only fills up."""

    x: jax.Array
    weight: jax.Array

    def some(self, key: Key, count: int) -> jax.Array:
        """`(count, k)`, drawn with replacement."""
        return self.x[jax.random.choice(key, len(self.x), (count,), p=self.weight / jnp.sum(self.weight))]


class State(NamedTuple):
    """psi `(2 d,)`, what else the rule keeps, and the observations."""

    psi: jax.Array
    kept: Any
    real: Real


class AbstractVariation(AbstractSearch):
    """A rule that moves psi."""

    @property
    @abc.abstractmethod
    def calls(self) -> int:
        """Observations simulated in a step."""

    @abc.abstractmethod
    def begin(self, key: Key, scene: Scene, real: Real) -> Any:
        """What it keeps besides psi, before the first step."""

    @abc.abstractmethod
    def move(self, key: Key, scene: Scene, state: State) -> tuple[State, dict[str, jax.Array]]:
        """The next state, and what to record of it."""

    def search(
        self,
        key: Key,
        simulator: AbstractSimulator,
        x: jax.Array,
        budget: Budget,
        progress: AbstractProgress,
        start: AbstractPosterior | None = None,
    ) -> Solution[MixturePosterior]:
        if not isinstance(simulator, AbstractJaxSimulator):
            raise TypeError(
                f"{self.name} runs the simulator inside its loop, and needs one in JAX (@qx.simulator); for others "
                "take qx.SMCABC() or qx.Zoom()"
            )
        pilot_key, run_key = jax.random.split(key)
        pilot = min(NUM_PILOT, budget.num_simulations // 10)
        count = (budget.num_simulations - pilot) // self.calls
        if count < 1:
            raise ValueError(
                f"num_simulations: {budget.num_simulations} observations are too few for one step, which takes "
                f"{self.calls}, beside a tenth to begin with; give at least a hundred times as many"
            )
        sims = simulate(pilot_key, simulator, num_simulations=pilot)
        warp = Warp.of(np.asarray(sims.x).reshape(len(sims), -1), 1)
        scene = Scene(simulator, Space.of(simulator.prior, sims.theta), warp)
        found = iterate(run_key, Following(scene, self, count), x, progress=progress)
        calls = found.statistics["num_simulator_calls"] + sims.num_simulator_calls
        value = dataclasses.replace(found.value, warnings=found.warnings)
        return with_notes(found, {"num_simulator_calls": calls}, value=value)


class Following(AbstractKernel):
    """The kernel of a rule, for so many steps."""

    scene: Scene
    rule: AbstractVariation
    count: int = eqx.field(static=True)

    @property
    def num_iterations(self) -> int:
        return self.count

    def observations(self, x: Array) -> jax.Array:
        simulator = self.scene.simulator
        return as_observations(x, simulator.event_shape, f"the simulator {simulator.name!r}")

    def doubts(self, x: jax.Array) -> tuple[str, ...]:
        return (NO_POSTERIOR,)

    def calls_per_iteration(self) -> int:
        return self.rule.calls

    def init(self, key: Key, x: jax.Array, weight: jax.Array) -> State:
        real = Real(self.scene.seen(x.reshape(len(x), -1)), weight)
        return State(jnp.zeros(2 * self.scene.space.dim), self.rule.begin(key, self.scene, real), real)

    def step(self, key: Key, state: State) -> tuple[State, dict[str, jax.Array]]:
        return self.rule.move(key, self.scene, state)

    def estimate(self, state: State) -> MixturePosterior:
        return self.scene.posterior(state.psi)


# -- the two rules ---------------------------------------------------------------------------------


class Critic(NamedTuple):
    """The arrays of a network, and the states of both optimisers."""

    arrays: Any
    state: optax.OptState
    psi_state: optax.OptState


class AVO(AbstractVariation):
    """Adversarial variational optimisation. Needs a simulator in JAX.

    Fields
    ------
    gamma: weight of the proposal's entropy, in the loss: larger ones make it narrower.
    critic_steps: of the critic, for each of the proposal.
    batch_size: observations in a step.
    width: of the critic's two hidden layers.
    learning_rate: of both Adams.
    penalty: weight of the penalty on the critic's gradient.
    card: its name and paper.
    """

    gamma: float = eqx.field(static=True, default=1.0)
    critic_steps: int = eqx.field(static=True, default=50)
    batch_size: int = eqx.field(static=True, default=64)
    width: int = eqx.field(static=True, default=10)
    learning_rate: float = eqx.field(static=True, default=0.03)
    penalty: float = eqx.field(static=True, default=0.0025)
    card: Card = eqx.field(
        static=True, default=Card("avo", "Louppe et al. 2019, arXiv:1707.07113", "posterior", 1_000_000)
    )
    needs: ClassVar[tuple[str, ...]] = ()
    training: ClassVar[None] = None

    def __check_init__(self):
        _check_positive(self, "critic_steps", "batch_size", "width", "learning_rate", "penalty")

    @property
    def calls(self) -> int:
        return (self.critic_steps + 1) * self.batch_size

    @property
    def _optimiser(self) -> Any:
        return optax.adam(self.learning_rate, b1=0.5)

    def _network(self, key: Key, real: Real) -> tuple[Any, Any]:
        network = eqx.nn.MLP(real.x.shape[1], "scalar", self.width, 2, jax.nn.leaky_relu, key=key)
        return eqx.partition(network, eqx.is_array)

    def begin(self, key: Key, scene: Scene, real: Real) -> Critic:
        arrays = self._network(key, real)[0]
        return Critic(arrays, self._optimiser.init(arrays), self._optimiser.init(jnp.zeros(2 * scene.space.dim)))

    def move(self, key: Key, scene: Scene, state: State) -> tuple[State, dict[str, jax.Array]]:
        critic_key, proposal_key = jax.random.split(key)
        static, kept = self._network(key, state.real)[1], state.kept
        draw = functools.partial(self._draw, scene, state.psi)

        def train(carry: tuple[Any, Any], key: Key) -> tuple[tuple[Any, Any], jax.Array]:
            arrays, opt_state = carry
            loss = lambda arrays: self._critic_loss(eqx.combine(arrays, static), key, draw, state.real)
            value, slope = jax.value_and_grad(loss)(arrays)
            change, opt_state = self._optimiser.update(slope, opt_state)
            return (optax.apply_updates(arrays, change), opt_state), value

        keys = jax.random.split(critic_key, self.critic_steps)
        (arrays, critic_state), losses = jax.lax.scan(train, (kept.arrays, kept.state), keys)
        u, fake = draw(proposal_key)
        slope = self._slope(scene, state.psi, u, -jax.vmap(eqx.combine(arrays, static))(fake)[:, None])
        change, psi_state = self._optimiser.update(slope, kept.psi_state)
        psi = state.psi + change
        return State(psi, Critic(arrays, critic_state, psi_state), state.real), {"psi": psi, "critic": losses[-1]}

    def _draw(self, scene: Scene, psi: jax.Array, key: Key) -> tuple[jax.Array, jax.Array]:
        """u `(n, d)` from the proposal, and features `(n, k)` of one observation at each."""
        u_key, x_key = jax.random.split(key)
        u = scene.at(psi).at(jax.random.normal(u_key, (self.batch_size, scene.space.dim)))
        return u, scene.simulated(x_key, u, 1)[:, 0]

    def _critic_loss(self, critic: Any, key: Key, draw: Callable[[Key], Any], real: Real) -> jax.Array:
        draw_key, real_key, share_key = jax.random.split(key, 3)
        fake, real_x = draw(draw_key)[1], real.some(real_key, self.batch_size)
        share = jax.random.uniform(share_key, (self.batch_size, 1))
        slope = jax.vmap(jax.grad(critic))(share * real_x + (1 - share) * fake)
        steep = jnp.sqrt(jnp.sum(slope**2, axis=1) + 1e-12)
        apart = jnp.mean(jax.vmap(critic)(fake)) - jnp.mean(jax.vmap(critic)(real_x))
        return apart + self.penalty * jnp.mean((steep - 1) ** 2)

    def _slope(self, scene: Scene, psi: jax.Array, u: jax.Array, value: jax.Array) -> jax.Array:
        """Of E[value] + gamma times the entropy, with the baseline that makes its variance least."""
        scores = jax.vmap(jax.grad(lambda psi, u: scene.at(psi).log_prob(u)), (None, 0))(psi, u)
        baseline = jnp.mean(scores**2 * value, axis=0) / jnp.mean(scores**2, axis=0)
        return jnp.mean(scores * (value - baseline), axis=0) + self.gamma * (jnp.arange(len(psi)) >= len(psi) // 2)


class NES(AbstractVariation):
    """Natural evolution strategies. Needs a simulator in JAX.

    Fields
    ------
    population: parameters in a generation.
    set_size: observations at each, compared with as many of the real ones.
    card: its name and paper.
    """

    population: int = eqx.field(static=True, default=32)
    set_size: int = eqx.field(static=True, default=64)
    card: Card = eqx.field(
        static=True, default=Card("nes", "Wierstra et al. 2014, arXiv:1106.4487", "posterior", 300_000)
    )
    needs: ClassVar[tuple[str, ...]] = ()
    training: ClassVar[None] = None

    def __check_init__(self):
        _check_positive(self, "population", "set_size")

    @property
    def calls(self) -> int:
        return self.population * self.set_size

    def begin(self, key: Key, scene: Scene, real: Real) -> None:
        return None

    def move(self, key: Key, scene: Scene, state: State) -> tuple[State, dict[str, jax.Array]]:
        u_key, x_key, real_key = jax.random.split(key, 3)
        d, proposal = scene.space.dim, scene.at(state.psi)
        standard = jax.random.normal(u_key, (self.population, d))
        fake = scene.simulated(x_key, proposal.at(standard), self.set_size)
        real = state.real.some(real_key, self.set_size)
        distance = jax.vmap(lambda one: energy_distance(one, real))(fake)
        worth = jnp.asarray(worths(self.population))[jnp.argsort(jnp.argsort(distance))][:, None]
        mean = proposal.mean + proposal.scale * jnp.sum(worth * standard, axis=0)
        pace = (3 + np.log(d)) / (5 * np.sqrt(d))
        log_scale = jnp.log(proposal.scale) + pace / 2 * jnp.sum(worth * (standard**2 - 1), axis=0)
        psi = jnp.concatenate([mean, log_scale])
        return State(psi, None, state.real), {"psi": psi, "distance": jnp.mean(distance)}


def energy_distance(one: jax.Array, other: jax.Array) -> jax.Array:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| `()` between sets `(n, k)` and `(m, k)`: 0 where they are the same."""

    def apart(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.mean(jnp.sqrt(jnp.sum((a[:, None] - b) ** 2, axis=-1) + 1e-12))

    return 2 * apart(one, other) - apart(one, one) - apart(other, other)


def worths(population: int) -> np.ndarray:
    """What the best, the second, ... of a generation count `(n,)` (Wierstra et al., section 3.1); the sum is 0."""
    raw = np.maximum(0.0, np.log(population / 2 + 1) - np.log(np.arange(1, population + 1)))
    return raw / raw.sum() - 1 / population


def _check_positive(method: AbstractSearch, *names: str) -> None:
    for name in names:
        if getattr(method, name) <= 0:
            raise ValueError(f"{name} must be positive, got {getattr(method, name)}")
