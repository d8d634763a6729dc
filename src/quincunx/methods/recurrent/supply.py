"""Where the recurrent machine's simulated sets come from: a bank made once, or the simulator at every iteration."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from ...answers.bayes.space import Gaussian
from ...core.solution import Key
from ...sample.black_box import AbstractJaxSimulator
from ..nets.set_encoder import KEPT


class AbstractSupply(eqx.Module):
    """Parameters near proposals, with what the theta-encoder sees of sets simulated there."""

    @abc.abstractmethod
    def draw(self, machine: Any, key: Key, proposals: Gaussian) -> tuple[jax.Array, jax.Array]:
        """For n proposals u `(n, B, d)` and the projected encodings `(n, B, width)`, for a `RecurrentMachine`."""


class BankSupply(AbstractSupply):
    """Simulations made once, at u `(K, d)`: a draw asks nothing of the simulator.

    Members are taken with replacement, in proportion to (a heavy-tailed stand-in for) q(u) / prior(u), so
    that the draws spread like the proposal although the bank spreads like the prior.
    """

    u: jax.Array
    inverse_prior: jax.Array
    seen: jax.Array

    def draw(self, machine: Any, key: Key, proposals: Gaussian) -> tuple[jax.Array, jax.Array]:
        # (1 + w^2 / 16)^-8 is close to exp(-w^2 / 2), never underflows, and costs no exp and no max.
        distance = jnp.sum(jax.vmap(lambda one: one.standard(self.u))(proposals) ** 2, axis=-1)
        cumulative = jnp.cumsum((1 + distance / 16) ** -8 * self.inverse_prior, axis=1)
        points = jax.random.uniform(key, (len(cumulative), machine.shape.num_proposed)) * cumulative[:, -1:]
        before = jnp.sum(cumulative[:, None] < points[..., None], axis=-1)
        index = checkpoint_name(jnp.minimum(before, len(self.u) - 1), KEPT)
        return self.u[index], self.seen[index]


class LiveSupply(AbstractSupply):
    """The simulator itself, run at draws from the proposal in every iteration."""

    simulator: AbstractJaxSimulator = eqx.field(static=True)

    def draw(self, machine: Any, key: Key, proposals: Gaussian) -> tuple[jax.Array, jax.Array]:
        u_key, x_key = jax.random.split(key)
        shape = (len(proposals.mean), machine.shape.num_proposed, machine.space.dim)
        u = jax.vmap(Gaussian.at)(proposals, jax.random.normal(u_key, shape))
        theta = machine.space.decode(u.reshape(-1, shape[-1]))
        keys = jax.random.split(x_key, len(theta))
        x = jax.vmap(lambda k, t: self.simulator.sample_set(k, t, machine.shape.num_simulated))(keys, theta)
        return u, machine.see_simulated(checkpoint_name(x, KEPT)).reshape(*shape[:2], -1)
