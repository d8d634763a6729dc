"""Observations that are only known to lie between two numbers: rounded, limited by a detector, or missing.

    p(low <= x <= high | theta) = integral of p(x | theta) over the box = volume of the box * mean density in it

The mean is taken over points spread evenly in the box, the same ones for every theta. Components whose ends agree are
known; the box has the dimensions of the others. A missing number lies between the smallest and largest ever simulated.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from ..core.simulator import AbstractSimulator
from ..core.solution import Array
from ..sample.simulate import simulate
from .estimates import AbstractDensity, AbstractRatio

NUM_LOOKED_AT = 64  # observations, to see whether all are whole numbers


class CensoredDensity(AbstractRatio):
    """log p(low <= x <= high | theta), by an estimator of the density. Its observations are pairs of ends.

    Fields
    ------
    density: of x, continuous.
    points: in the unit box `(k, size)`, at which the density is evaluated.
    simulator: what x comes from.
    event_shape: (2, *event): the lower ends of one observation, then the upper ones.
    """

    density: AbstractDensity
    points: jax.Array
    simulator: AbstractSimulator = eqx.field(static=True)
    event_shape: tuple[int, ...] = eqx.field(static=True)

    def log_ratio(self, theta: Array, x: Array) -> jax.Array:
        """`(n,)` for n pairs of ends `(n, 2, *event)`; -inf where a lower end is above the upper one."""
        ends = jnp.asarray(x)
        low, high = ends[:, 0], ends[:, 1]
        width = high - low

        def at(point: jax.Array) -> jax.Array:
            return self.density.log_ratio(theta, low + point.reshape(low.shape[1:]) * width)

        inside = jax.lax.map(at, self.points)
        size = jnp.where(width > 0, width, 1.0).reshape(len(ends), -1)
        found = jax.scipy.special.logsumexp(inside, axis=0) - jnp.log(len(inside)) + jnp.sum(jnp.log(size), axis=1)
        return jnp.where((width >= 0).reshape(len(ends), -1).all(axis=1), found, -jnp.inf)


def censored(estimator: AbstractDensity, *, num_points: int = 256) -> CensoredDensity:
    """An estimator for observations that are known to lie between two numbers. The simulator is run 64 times.

    Parameters
    ----------
    estimator: of the density of continuous observations, such as what `qx.NLE()` trained, or `ExactRatio`. A ratio
        will not do: it would have to be weighted by the density of its reference.
    num_points: at which the density is evaluated, rounded up to a power of two; the more components are not known, and
        the narrower the density is within the ends, the more are needed.

    Returns
    -------
    An estimator of the likelihood, for `qx.posterior` and `qx.likelihood`. Its observations are `(m, 2, *event)`:
    `np.stack([low, high], axis=1)`.

    Raises
    ------
    TypeError: an estimator of anything but a density.
    ValueError: of whole numbers, or fewer than 2 points.

    Examples
    --------
    >>> import quincunx as qx
    >>> found = qx.censored(qx.ExactRatio(qx.problems.SBIBM["gaussian_linear"]))
    >>> found.event_shape
    (2, 10)
    """
    if not isinstance(estimator, AbstractDensity):
        raise TypeError(
            f"expected an estimator of the density, such as what qx.NLE() trained, got {type(estimator).__name__}"
        )
    some = np.asarray(simulate(jax.random.key(0), estimator.simulator, num_simulations=NUM_LOOKED_AT).x)
    if np.all(some == np.round(some)):
        raise ValueError("these observations are whole numbers: add up the probabilities of those that are possible")
    if num_points < 2:
        raise ValueError(f"num_points must be at least 2, got {num_points}")
    size = int(np.prod(estimator.event_shape, dtype=int))
    points = qmc.Sobol(size, scramble=True, rng=0).random_base2(int(np.ceil(np.log2(num_points))))
    return CensoredDensity(
        density=estimator,
        points=jnp.asarray(points, jnp.float32),
        simulator=estimator.simulator,
        event_shape=(2, *estimator.event_shape),
    )
