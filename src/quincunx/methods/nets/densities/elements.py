"""Monotonic maps of one number, whose parameters a network gives: what the layers of a flow are made of."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

INTERVAL = 4.0  # standard deviations of y within which the splines bend; outside, the tails of a normal
SMALLEST = 1e-3  # share of a bin, slope at a knot, scale
UNIT = float(np.log(np.expm1(1 - SMALLEST)))  # what softplus takes to 1 - SMALLEST


class Spline(eqx.Module):
    """Rational quadratics between knots in [-4, 4]^2, the identity outside (Durkan et al. 2019, arXiv:1906.04032).

    Fields
    ------
    knots: how many pieces there are, each with a width and a height of its own; at least 2.
    """

    knots: int = eqx.field(static=True)

    @property
    def num_parameters(self) -> int:
        return 3 * self.knots - 1

    def forward(self, raw: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """z and log |dz / dy| `(...)`, for y `(...)` and what the network says `(..., num_parameters)`; equation 4."""
        x, z, slopes = self._knots(raw)
        x0, width, z0, height, d0, d1 = _in_bin(y, x, x, z, slopes)
        steep, t = height / width, (jnp.clip(y, -INTERVAL, INTERVAL) - x0) / width
        both = t * (1 - t)
        under = steep + (d0 + d1 - 2 * steep) * both
        found = z0 + height * (steep * t**2 + d0 * both) / under
        slope = 2 * jnp.log(steep / under) + jnp.log(d1 * t**2 + 2 * steep * both + d0 * (1 - t) ** 2)
        inside = jnp.abs(y) < INTERVAL
        return jnp.where(inside, found, y), jnp.where(inside, slope, 0.0)

    def inverse(self, raw: jax.Array, z: jax.Array) -> jax.Array:
        """y `(...)` for z `(...)`; equations 6 to 8."""
        x, ends, slopes = self._knots(raw)
        x0, width, z0, height, d0, d1 = _in_bin(z, ends, x, ends, slopes)
        steep, beyond = height / width, jnp.clip(z, -INTERVAL, INTERVAL) - z0
        bend = beyond * (d0 + d1 - 2 * steep)
        a, b, c = height * (steep - d0) + bend, height * d0 - bend, -steep * beyond
        t = 2 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0.0)))
        return jnp.where(jnp.abs(z) < INTERVAL, x0 + t * width, z)

    def _knots(self, raw: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Where the knots lie in y and in z, and the slopes there `(..., knots + 1)`: 1 at both ends."""
        at = lambda part: 2 * INTERVAL * _ends(SMALLEST + (1 - SMALLEST * self.knots) * jax.nn.softmax(part)) - INTERVAL
        slopes = SMALLEST + jax.nn.softplus(raw[..., 2 * self.knots :] + UNIT)
        one = jnp.ones_like(slopes[..., :1])
        parts = at(raw[..., : self.knots]), at(raw[..., self.knots : 2 * self.knots])
        return *parts, jnp.concatenate([one, slopes, one], axis=-1)


class Affine(eqx.Module):
    """z = scale y + shift: a flow of these alone is the masked autoregressive flow of Papamakarios et al. 2017."""

    @property
    def num_parameters(self) -> int:
        return 2

    def forward(self, raw: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """As for `Spline`."""
        scale = SMALLEST + jax.nn.softplus(raw[..., 1] + UNIT)
        return scale * y + raw[..., 0], jnp.log(scale)

    def inverse(self, raw: jax.Array, z: jax.Array) -> jax.Array:
        """As for `Spline`."""
        return (z - raw[..., 0]) / (SMALLEST + jax.nn.softplus(raw[..., 1] + UNIT))


def _ends(share: jax.Array) -> jax.Array:
    """From the shares `(..., k)` of k bins to where they begin and end, `(..., k + 1)` from 0 to 1."""
    inner = jnp.cumsum(share[..., :-1], axis=-1)
    zero = jnp.zeros_like(share[..., :1])
    return jnp.concatenate([zero, inner, zero + 1], axis=-1)


def _in_bin(
    at: jax.Array, ends: jax.Array, x: jax.Array, z: jax.Array, slopes: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Of the bin between `ends` that holds `at`: where it begins and how far it goes in x and in z, and both slopes.

    By sums over bins of which all but one are 0: looking up an index is slower on a CPU.
    """
    after = at[..., None] >= ends[..., 1:-1]
    begun = jnp.concatenate([jnp.ones_like(after[..., :1]), after], axis=-1)
    ended = jnp.concatenate([after, jnp.zeros_like(after[..., :1])], axis=-1)
    here = (begun & ~ended).astype(at.dtype)
    of = lambda column: jnp.sum(here * column, axis=-1)
    return (
        of(x[..., :-1]), of(jnp.diff(x)), of(z[..., :-1]), of(jnp.diff(z)), of(slopes[..., :-1]), of(slopes[..., 1:]),
    )  # fmt: skip
