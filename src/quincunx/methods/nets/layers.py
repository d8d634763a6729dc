"""Layers that take any leading axes at once, which on a CPU is faster than a `vmap` over rows."""

import equinox as eqx
import jax
import jax.numpy as jnp

from ...core.solution import Key


class Dense(eqx.Module):
    """An affine layer `(..., in) -> (..., out)`, initialised uniformly in +-1/sqrt(in)."""

    weight: jax.Array
    bias: jax.Array | None

    @staticmethod
    def make(key: Key, num_in: int, num_out: int, *, bias: bool = True) -> "Dense":
        w_key, b_key = jax.random.split(key)
        limit = max(num_in, 1) ** -0.5
        draw = lambda k, shape: jax.random.uniform(k, shape, minval=-limit, maxval=limit)
        return Dense(draw(w_key, (num_in, num_out)), draw(b_key, (num_out,)) if bias else None)

    @property
    def num_in(self) -> int:
        return self.weight.shape[0]

    @property
    def num_out(self) -> int:
        return self.weight.shape[1]

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class GRU(eqx.Module):
    """A gated recurrent unit (Cho et al. 2014): input `(..., in)`, memory `(..., size)` -> memory."""

    input: Dense
    recurrent: Dense

    @staticmethod
    def make(key: Key, num_in: int, size: int) -> "GRU":
        input_key, recurrent_key = jax.random.split(key)
        return GRU(Dense.make(input_key, num_in, 3 * size), Dense.make(recurrent_key, size, 3 * size))

    @property
    def size(self) -> int:
        return self.recurrent.num_in

    def __call__(self, x: jax.Array, memory: jax.Array) -> jax.Array:
        x_reset, x_update, x_new = jnp.split(self.input(x), 3, axis=-1)
        h_reset, h_update, h_new = jnp.split(self.recurrent(memory), 3, axis=-1)
        new = jnp.tanh(x_new + jax.nn.sigmoid(x_reset + h_reset) * h_new)
        update = jax.nn.sigmoid(x_update + h_update)
        return new + update * (memory - new)
