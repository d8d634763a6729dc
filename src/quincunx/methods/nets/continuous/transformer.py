"""A transformer that takes noise away from any of the numbers that are asked for, given any others.

Every number is a token: its value, which number it is, and whether it is known, asked for, or absent. A known one
stands without noise; no token looks at an absent one, so that it is marginalised. The noise is that of `denoiser`, and
falls on what is asked for alone (Simformer; Gloeckler et al. 2024, arXiv:2404.09636).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ....answers.bayes.space import Space
from ....core.solution import Key
from ..set_encoder import over_all
from .denoiser import Network, denoised, noise_levels, slope, steps, weight
from .ode import HEUN, RUNGE_KUTTA, density, followed
from .residual import FREQUENCIES, normed, waves

KNOWN, ASKED, ABSENT = 0, 1, 2
INSIDE = 2  # the hidden layer of a block is so many times as wide as its tokens


class Transformer(eqx.Module):
    """What a transformer is to be made like. It has no weights yet.

    Fields
    ------
    width: of a token.
    heads: of the attention, a divisor of the width.
    layers: of attention, each with a layer of every token by itself.
    num_steps: of Heun's method, from noise to a draw.
    """

    width: int = eqx.field(static=True, default=64)
    heads: int = eqx.field(static=True, default=4)
    layers: int = eqx.field(static=True, default=4)
    num_steps: int = eqx.field(static=True, default=30)

    def __check_init__(self):
        for name in ("width", "heads", "layers", "num_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"heads must divide the width, {self.width}, got {self.heads}")

    def make(self, key: Key, num_tokens: int) -> "TokenField":
        """An untrained one for so many numbers; it begins as if all were normal and independent."""
        own, *keys = jax.random.split(key, self.layers + 4)
        linear = lambda num_in, num_out, key: eqx.nn.Linear(num_in, num_out, key=key)
        return TokenField(
            jax.random.normal(own, (2, num_tokens, self.width)),
            linear(1 + 2 * len(FREQUENCIES), self.width, keys[0]),
            linear(2 * len(FREQUENCIES), self.width, keys[1]),
            tuple(Block.make(key, self.width) for key in keys[3:]),
            jax.tree.map(jnp.zeros_like, linear(self.width, 1, keys[2])),
            self.heads,
            self.num_steps,
        )


class Block(eqx.Module):
    """Every token looks at the others, and then thinks by itself; both add to what it was.

    Fields
    ------
    look: to queries, keys and values.
    seen: from what was seen.
    level: of what is told of the noise.
    inside, outside: the layer of every token by itself.
    """

    look: eqx.nn.Linear
    seen: eqx.nn.Linear
    level: eqx.nn.Linear
    inside: eqx.nn.Linear
    outside: eqx.nn.Linear

    @staticmethod
    def make(key: Key, width: int) -> "Block":
        sizes = [(width, 3 * width), (width, width), (width, width), (width, INSIDE * width), (INSIDE * width, width)]
        keys = jax.random.split(key, len(sizes))
        return Block(*(eqx.nn.Linear(*size, key=key) for size, key in zip(sizes, keys, strict=True)))

    def __call__(self, h: jax.Array, level: jax.Array, there: jax.Array, heads: int) -> jax.Array:
        """Tokens `(n, t, w)` after it, told `(n, w)` of the noise; of which `(n, t)` are there."""
        split = lambda part: part.reshape(*h.shape[:2], heads, -1)
        told = normed(h) + over_all(self.level, level)[:, None]
        query, key, value = map(split, jnp.split(over_all(self.look, told), 3, axis=-1))
        far = jnp.einsum("nihk,njhk->nhij", query, key) / query.shape[-1] ** 0.5
        share = jax.nn.softmax(jnp.where(there[:, None, None], far, -1e9))
        h = h + over_all(self.seen, jnp.einsum("nhij,njhk->nihk", share, value).reshape(h.shape))
        return h + over_all(self.outside, jax.nn.silu(over_all(self.inside, normed(h))))


class TokenField(eqx.Module):
    """D of the numbers asked for, given those known, and the conditional density that follows from it.

    Fields
    ------
    which: what a token is told of itself `(2, t, w)`, where it is known and where it is asked for.
    value: of a token.
    level: of the noise.
    blocks: see `Block`.
    leave: from a token to F.
    heads, num_steps: see `Transformer`.
    """

    which: jax.Array
    value: eqx.nn.Linear
    level: eqx.nn.Linear
    blocks: tuple[Block, ...]
    leave: eqx.nn.Linear
    heads: int = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)

    def loss(self, key: Key, y: jax.Array, state: jax.Array) -> jax.Array:
        """`()`, for rows y `(n, t)` of standardised numbers and what each is `(n, t)`: KNOWN, ASKED or ABSENT."""
        level_key, noise_key = jax.random.split(key)
        level, asked = noise_levels(level_key, len(y)), state == ASKED
        noisy = y + level * jax.random.normal(noise_key, y.shape)
        error = (denoised(self._network(y, state), noisy, level) - y) ** 2 * weight(level)
        return jnp.sum(error * asked) / jnp.maximum(jnp.sum(asked), 1)

    def sample(self, key: Key, y: jax.Array, state: jax.Array, num_samples: int) -> jax.Array:
        """Rows `(num_samples, t)` in which what is asked for is drawn, and what is known is as in y `(t,)`."""
        y, state = (jnp.broadcast_to(each, (num_samples, *each.shape)) for each in (y, state))
        noise = jax.random.normal(key, y.shape)
        drawn = followed(slope(self._network(y, state)), noise, steps(self.num_steps), HEUN)
        return jnp.where(state == ASKED, drawn, y)

    def log_prob(self, y: jax.Array, state: jax.Array, asked: tuple[int, ...]) -> jax.Array:
        """Log density `(n,)` of the numbers in these places of y `(n, t)`, which are all that is asked for."""
        places, network = jnp.asarray(asked), self._network(y, state)
        some = lambda part, level: network(jnp.zeros_like(y).at[:, places].set(part), level)[:, places]
        return density(slope(some), y[:, places], steps(self.num_steps)[::-1], RUNGE_KUTTA)

    def _network(self, known: jax.Array, state: jax.Array) -> Network:
        return lambda noisy, level: self(jnp.where(state == ASKED, noisy, known), level, state)

    def __call__(self, y: jax.Array, level: jax.Array, state: jax.Array) -> jax.Array:
        """F `(n, t)` of y `(n, t)`, at variance 1 where it is asked for, at log levels `(n, 1)`."""
        asked = (state == ASKED)[..., None]
        seen = jnp.concatenate([y[..., None], waves(y[..., None])], axis=-1)
        told = jax.nn.silu(over_all(self.level, waves(level)))
        h = over_all(self.value, seen) + jnp.where(asked, self.which[1], self.which[0])
        for block in self.blocks:
            h = block(h, told, state != ABSENT, self.heads)
        return over_all(self.leave, normed(h))[..., 0]


class ConditionalTokens(eqx.Module):
    """The law of the unknown among the first tokens, which are parameters u, given all others; a flow like the others.

    Its condition is the values and the states of all tokens, one after the other `(2 t,)`.

    Fields
    ------
    field: of all tokens.
    space: of the first ones.
    asked: places of those that are asked for.
    """

    field: TokenField
    space: Space
    asked: tuple[int, ...] = eqx.field(static=True)

    def sample(self, key: Key, condition: jax.Array, num_samples: int) -> jax.Array:
        """Draws of u `(num_samples, d)`; what is known is the same in all."""
        y, state = jnp.split(condition, 2)
        return self.field.sample(key, y, state, num_samples)[:, : self.space.dim]

    def log_prob(self, u: jax.Array, condition: jax.Array) -> jax.Array:
        """Log density `(n,)` of what is asked for in u `(n, d)`, over u; over theta for what is known.

        `Space.density` takes all parameters from u to theta. The known ones are in no density, so that is undone.
        """
        y, state = jnp.split(condition, 2, axis=1)
        u = jnp.where(np.isin(np.arange(self.space.dim), self.asked), u, y[:, : self.space.dim])  # not what theta says
        found = self.field.log_prob(jnp.concatenate([u, y[:, self.space.dim :]], axis=1), state, self.asked)
        known = np.setdiff1d(np.arange(self.space.dim), self.asked)
        volume = lambda u: jnp.log(jnp.abs(jnp.diag(jax.jacfwd(self.space.decode)(u))))[known]
        return found + (jnp.sum(jax.vmap(volume)(u), axis=1) if len(known) else 0.0)
