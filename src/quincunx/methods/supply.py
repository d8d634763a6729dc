"""Where the recurrent machine's simulated sets come from: a bank made once, or the simulator at every iteration."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from ..answers.bayes.space import Gaussian
from ..core.solution import Key
from ..sample.black_box import AbstractJaxSimulator

DRAWN = "drawn"  # what a training step keeps of an iteration, to compute the rest again


class AbstractSupply(eqx.Module):
    """Parameters near a proposal, with what the theta-encoder sees of sets simulated there."""

    @abc.abstractmethod
    def draw(self, machine: Any, key: Key, proposal: Gaussian) -> tuple[jax.Array, jax.Array]:
        """u `(B, d)` and the projected encodings `(B, width)`, for a `RecurrentMachine`."""


class BankSupply(AbstractSupply):
    """Simulations made once, at u `(K, d)`: a draw asks nothing of the simulator.

    Members are taken with replacement, in proportion to (a heavy-tailed stand-in for) q(u) / prior(u), so
    that the draws spread like the proposal although the bank spreads like the prior.
    """

    u: jax.Array
    inverse_prior: jax.Array
    seen: jax.Array

    def draw(self, machine: Any, key: Key, proposal: Gaussian) -> tuple[jax.Array, jax.Array]:
        # (1 + w^2 / 16)^-8 is close to exp(-w^2 / 2), never underflows, and costs no exp and no max.
        kernel = (1 + jnp.sum(proposal.standard(self.u) ** 2, axis=-1) / 16) ** -8
        cumulative = jnp.cumsum(kernel * self.inverse_prior)
        points = jax.random.uniform(key, (machine.shape.num_proposed,)) * cumulative[-1]
        index = jnp.minimum(jnp.sum(cumulative < points[:, None], axis=1), len(cumulative) - 1)
        index = checkpoint_name(index, DRAWN)
        return self.u[index], self.seen[index]


class LiveSupply(AbstractSupply):
    """The simulator itself, run at draws from the proposal in every iteration."""

    simulator: AbstractJaxSimulator = eqx.field(static=True)

    def draw(self, machine: Any, key: Key, proposal: Gaussian) -> tuple[jax.Array, jax.Array]:
        u_key, x_key = jax.random.split(key)
        u = proposal.at(jax.random.normal(u_key, (machine.shape.num_proposed, machine.space.dim)))
        theta = machine.space.decode(u)
        keys = jax.random.split(x_key, machine.shape.num_proposed)
        x = jax.vmap(lambda k, t: self.simulator.sample_set(k, t, machine.shape.num_simulated))(keys, theta)
        return u, machine.see_simulated(x)
