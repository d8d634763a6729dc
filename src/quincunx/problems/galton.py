"""The generalised Galton board: a ball falls through rows of nails, and theta bends its path.

Row l of L and nail i of N, both counted from 0, are read as l' = l / (L - 1) in [0, 1] and i' = 2 i / (N - 1) - 1 in
[-1, 1]. At a nail the ball goes left with probability

    p_left = (1 - sin(pi l')) / 2 + sin(pi l') sigmoid(steepness theta i'),

a fair coin in the first and the last row. Odd rows are shifted by half a nail: a step to the left keeps the position in
an even row and takes it one back in an odd one, a step to the right takes it one on in an even row and keeps it in an
odd one (Brehmer, Louppe, Pavez, Cranmer 2018, arXiv:1805.12244, with the slopes that the authors' published code has,
github.com/johannbrehmer/simulator-mining-example).

Only the last position is observed. Its likelihood is a sum over 2^L paths, too many to go through; but the positions
form a Markov chain, so the law of the last one is known exactly, row by row.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ..core.prior import Prior
from ..core.simulator import Exact
from ..core.solution import Array, Key
from ..gold.mined import MinedSimulator, NamedTheta, mined_simulator
from .quadrature import mean_and_std, peak, zoomed_grid

STEEPEST = 80.0  # of |steepness theta|: e^-80 is still a normal float32

_NODES = 65  # Chebyshev nodes of theta, in the posterior and the MLE
_POINTS = 601  # of theta, where the search for the MLE begins
_NEVER = -1e30  # log-probability of what cannot happen, without the NaN of inf - inf


@dataclasses.dataclass(frozen=True)
class GaltonBoard:
    """The board itself, which draws when called: `(key, theta) -> (x, z)`.

    x is the last position `()`, and z all positions `(num_rows + 1,)` from the start on, as floats. The only parameter
    is `skew`.

    Fields
    ------
    num_rows: L, how many nails a ball meets.
    num_nails: N, positions of each row.
    start: position where the ball is let go.
    steepness: how fast p_left changes with skew and from nail to nail.
    """

    num_rows: int
    num_nails: int
    start: int
    steepness: float

    @property
    def positions(self) -> np.ndarray:
        """The last positions that a ball can reach, `(num_rows + 1,)`, in rising order."""
        return self.start - self.num_rows // 2 + np.arange(self.num_rows + 1)

    @property
    def _rows(self) -> tuple[jax.Array, jax.Array]:
        """sin(pi l') of every row, and how far the row sets a ball back whichever way it goes, `(num_rows,)` each."""
        numbers = np.arange(self.num_rows)
        bend = np.sin(np.pi * numbers / (self.num_rows - 1)).astype(np.float32)
        bend[-1] = 0.0  # it is 1e-16 by rounding
        return jnp.asarray(bend), jnp.asarray(numbers % 2, jnp.float32)

    def prob(self, skew: jax.Array, bend: jax.Array, position: jax.Array, sign: jax.Array | float) -> jax.Array:
        """p_left at nails where `sign` is 1, p_right where it is -1; all broadcast, none is ever 0.

        bend: sin(pi l') of the rows. p_right has the same form, for 1 - sigmoid(a) = sigmoid(-a).
        """
        slope = sign * self.steepness * (2 * position / (self.num_nails - 1) - 1)
        return (1 - bend) / 2 + bend * jax.nn.sigmoid(slope * skew)

    def __call__(self, key: Key, theta: NamedTheta) -> tuple[jax.Array, jax.Array]:
        def fall(position: jax.Array, row: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            bend, back, u = row
            moved = position + (u >= self.prob(theta["skew"], bend, position, 1.0)) - back
            return moved, moved

        start = jnp.float32(self.start)
        x, path = jax.lax.scan(fall, start, (*self._rows, jax.random.uniform(key, (self.num_rows,))))
        return x, jnp.concatenate([start[None], path])

    def joint_log_prob(self, theta: NamedTheta, x: jax.Array, z: jax.Array) -> jax.Array:
        """log p(x, z | theta) `()` of a whole path; nothing is left out. x is the end of z and adds nothing."""
        bend, back = self._rows
        right = z[1:] - z[:-1] + back
        return jnp.sum(jnp.log(self.prob(theta["skew"], bend, z[:-1], 1 - 2 * right)))

    @functools.partial(jax.jit, static_argnums=0)
    def log_law(self, skew: jax.Array) -> jax.Array:
        """log p(x | skew) `(num_rows + 1,)` of each of `positions`, by dynamic programming over the rows.

        A cell of the table counts the steps to the right. In row l, l // 2 rows have set the ball back.
        """
        counts = np.arange(self.num_rows + 1, dtype=np.float32)

        def fall(carry: tuple[jax.Array, jax.Array], row: tuple[jax.Array, ...]) -> tuple[tuple, None]:
            (log_prob, first), (bend, back) = carry, row
            # Counts above the row's number are not reached yet: far below zero, they stay there on whichever nail.
            position = jnp.minimum(first + counts, self.num_nails - 1)
            left, right = (log_prob + jnp.log(self.prob(skew, bend, position, sign)) for sign in (1.0, -1.0))
            return (jnp.logaddexp(left, jnp.roll(right, 1).at[0].set(_NEVER)), first - back), None

        top = jnp.where(counts == 0, 0.0, _NEVER), jnp.float32(self.start)
        return jax.lax.scan(fall, top, self._rows)[0][0]

    def log_likelihood(self, theta: jax.Array, x: jax.Array) -> jax.Array:
        """log p(x | theta) `()` of a set x `(m,)`; -inf if any of x is no position that can be reached."""
        place, possible = self._places(x)
        return jnp.sum(jnp.where(possible, self.log_law(theta[0])[place], -jnp.inf))

    def _places(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Where each x stands among the positions, and whether it does."""
        place = x - self.positions[0]
        possible = (place >= 0) & (place <= self.num_rows) & (place == jnp.round(place))
        return jnp.where(possible, place, 0.0).astype(int), possible

    def _counts(self, x: jax.Array) -> jax.Array:
        """How often each position occurs in a set; impossible ones, which have no posterior, are NaN."""
        place, possible = self._places(x)
        return jnp.zeros(self.num_rows + 1).at[place].add(jnp.where(possible, 1.0, jnp.nan))


def galton_distribution(board: MinedSimulator, theta: Array) -> jax.Array:
    """p(x | theta) `(num_rows + 1,)` of each position that a ball can reach, exactly; `galton_positions` names them.

    Parameters
    ----------
    board: made by `galton_board`.
    theta: skew, `(1,)`. Pure JAX: traceable, differentiable, and fit for `vmap`.

    Raises
    ------
    TypeError: the simulator is no Galton board.
    ValueError: theta has another shape.
    """
    board_itself, theta = _geometry(board), jnp.asarray(theta, jnp.float32)
    if theta.shape != (1,):
        raise ValueError(f"theta: expected shape (1,), the skew alone, got {theta.shape}; use jax.vmap for many")
    return jnp.exp(board_itself.log_law(theta[0]))


def galton_positions(board: MinedSimulator) -> np.ndarray:
    """The positions `(num_rows + 1,)` that a ball can reach on a board made by `galton_board`; TypeError for others."""
    return _geometry(board).positions


def _geometry(board: MinedSimulator) -> GaltonBoard:
    function = getattr(board, "function", None)
    if not isinstance(function, GaltonBoard):
        raise TypeError(f"expected a simulator made by galton_board(), got {getattr(board, 'name', board)!r}")
    return function


# -- the MLE and the posterior ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Curve:
    """The log-likelihood of sets as a function of skew, as a polynomial through its values at Chebyshev nodes."""

    board: GaltonBoard
    low: float
    high: float

    @functools.cached_property
    def _nodes(self) -> np.ndarray:
        return self._middle + self._half * np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)

    @property
    def _middle(self) -> float:
        return (self.low + self.high) / 2

    @property
    def _half(self) -> float:
        return (self.high - self.low) / 2

    def coefficients(self, x: jax.Array) -> jax.Array:
        """Chebyshev coefficients `(_NODES,)` of log p(x | skew), without the constant one."""
        laws = jax.vmap(self.board.log_law)(jnp.asarray(self._nodes, jnp.float32))
        laws = laws - laws[_NODES // 2]  # small differences of large numbers, taken before they are summed
        values = jnp.matmul(laws, self.board._counts(x), precision="highest")
        orders = np.arange(1, _NODES)[:, None]
        to_orders = 2 / _NODES * np.cos(np.pi * orders * (np.arange(_NODES) + 0.5) / _NODES)
        return jnp.matmul(jnp.asarray(to_orders, jnp.float32), values, precision="highest")

    def value(self, coefficients: jax.Array, skew: jax.Array) -> jax.Array:
        """Log-likelihood `(n,)` at skews `(n,)`, up to a constant."""
        angle = jnp.arccos(jnp.clip((skew - self._middle) / self._half, -1.0, 1.0))
        waves = jnp.cos(angle[:, None] * np.arange(1, _NODES, dtype=np.float32))
        return jnp.matmul(waves, coefficients, precision="highest")

    @functools.partial(jax.jit, static_argnums=0)
    def mle(self, x: jax.Array) -> jax.Array:
        """The best skew `(1,)`; NaN for impossible positions."""
        coefficients = self.coefficients(x)
        found = peak(lambda skew: self.value(coefficients, skew), jnp.linspace(self.low, self.high, _POINTS))
        found = jnp.clip(found, self.low, self.high)
        return jnp.where(jnp.isnan(coefficients[0]), jnp.nan, found)[None]

    @functools.partial(jax.jit, static_argnums=0)
    def moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation `(1,)` of skew, under a prior uniform between the limits."""
        coefficients = self.coefficients(x)
        mean, std = mean_and_std(*zoomed_grid(lambda skew: self.value(coefficients, skew), self.low, self.high))
        return mean[None], std[None]


# -- simulators -----------------------------------------------------------------------------------


def galton_board(
    num_rows: int = 20,
    *,
    num_nails: int = 31,
    start: int | None = None,
    low: float = -1.0,
    high: float = -0.4,
    steepness: float = 10.0,
    name: str = "galton",
) -> MinedSimulator:
    """A generalised Galton board of any size; see the module for its law. The observation is one position `()`.

    Parameters
    ----------
    num_rows: L, how many nails a ball meets.
    num_nails: N, positions of each row; no ball may leave the board.
    start: position where the ball is let go; the middle nail by default (15 of 31).
    low, high: the prior is skew ~ Uniform(low, high).
    steepness: 10 in the published code.
    name: of the simulator.

    Raises
    ------
    ValueError: fewer than 2 rows, a board too narrow for them, limits the wrong way round, or a steepness for which
        |steepness skew| can exceed 80, beyond which float32 cannot hold the probabilities.
    """
    board = GaltonBoard(num_rows, num_nails, num_nails // 2 if start is None else start, steepness)
    _check(board, low, high)
    curve = _Curve(board, low, high)
    decorate = mined_simulator(
        Prior(skew=dist.Uniform(low, high)),
        joint_log_prob=board.joint_log_prob,
        name=name,
        source="Brehmer, Louppe, Pavez, Cranmer 2018, arXiv:1805.12244",
        exact=Exact.of(board.log_likelihood, curve.mle, curve.moments),
    )
    return decorate(board)


def _check(board: GaltonBoard, low: float, high: float) -> None:
    if board.num_rows < 2:
        raise ValueError(f"num_rows must be at least 2, got {board.num_rows}")
    first, last = int(board.positions[0]), int(board.positions[-1])
    if first < 0 or last >= board.num_nails:
        raise ValueError(
            f"a ball let go at {board.start} can reach {first} to {last} after {board.num_rows} rows, and the board "
            f"has the positions 0 to {board.num_nails - 1}; use more nails (num_nails) or another start"
        )
    if not low < high:
        raise ValueError(f"low must be below high, got low={low:g} and high={high:g}")
    if abs(board.steepness) * max(abs(low), abs(high)) > STEEPEST:
        raise ValueError(
            f"|steepness skew| must not exceed {STEEPEST:g} within the prior, got {board.steepness:g} "
            f"with skew from {low:g} to {high:g}"
        )


galton = galton_board()
