"""The edge where observed data enter."""

import jax
import jax.numpy as jnp
import numpy as np

from ._types import Array


def as_observations(x: Array, event_shape: tuple[int, ...], expected_by: str) -> jax.Array:
    """Observed data as a float32 array `(m, *event)`.

    A single observation is not accepted for a set of one: write `x[None]`.

    Raises
    ------
    TypeError: x is not numeric.
    ValueError: wrong shape, no observation, or NaN or infinity (the first such row is named).
    """
    try:
        values = np.asarray(x)
    except ValueError as error:
        raise ValueError(f"observations must be a rectangular array (m, *{event_shape}): {error}") from error
    if values.dtype == object or not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        raise TypeError(f"observations must be numbers, got an array of dtype {values.dtype}")
    if np.iscomplexobj(values):
        raise TypeError("observations must be real numbers, got complex ones; give real and imaginary parts as columns")
    if values.shape[1:] != event_shape or values.ndim != len(event_shape) + 1:
        raise ValueError(
            f"observations: {expected_by} makes observations of shape {event_shape}, so a set of m of them has "
            f"shape {('m', *event_shape)}; got {values.shape}"
        )
    if len(values) == 0:
        raise ValueError("there are no observations; give at least one")
    finite = np.isfinite(values.reshape(len(values), -1).astype(np.float64)).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{int((~finite).sum())} of {len(values)} observations are NaN or infinite, the first in row "
            f"{int(np.argmin(finite))}; drop or mend them"
        )
    return jnp.asarray(values, dtype=jnp.float32)
