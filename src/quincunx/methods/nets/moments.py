"""The normal fitted to a set of observations: in JAX, in float32, inside a training step."""

import jax
import jax.numpy as jnp
import numpy as np

MOST_REGRESSED = 8  # components, each on the others; above it, correlations
FLOOR = 1e-6


def fitted_normal(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Means and second moments of x `(m, d)` where the weight `(m,)` is 1."""
    return (gaussian_fit if x.shape[1] <= MOST_REGRESSED else correlations)(x, weight)


def correlations(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Means (d), log spreads (d) and correlations (d (d - 1) / 2) of x `(m, d)`."""
    share = weight / jnp.sum(weight)
    mean = share @ x
    centred = jnp.sqrt(share)[:, None] * (x - mean)
    covariance = centred.T @ centred
    spread = jnp.sqrt(jnp.diag(covariance) + FLOOR**2)
    above = np.triu_indices(x.shape[1], 1)
    return jnp.concatenate([mean, jnp.log(spread), (covariance / (spread[:, None] * spread))[above]])


def gaussian_fit(x: jax.Array, weight: jax.Array) -> jax.Array:
    """The normal fitted to x `(m, d)`, as each component's regression on the others.

    Returns means (d), intercepts (d), coefficients (d (d - 1)), log residual spreads (d); for d = 1
    only the mean and the log spread. A QR factorisation of the centred data keeps float32 accurate
    where an inverse of the covariance would not.
    """
    d = x.shape[1]
    count = jnp.sum(weight)
    mean = jnp.sum(weight[:, None] * x, axis=0) / count
    centred = weight[:, None] * (x - mean)
    if d == 1:
        return jnp.concatenate([mean, jnp.log(jnp.sqrt(jnp.sum(centred**2) / count + FLOOR**2))[None]])
    root = _triangle(centred) / jnp.sqrt(count)
    root += jnp.diag(FLOOR + 1e-6 * jnp.diag(root))
    inverse = _inverse_triangle(root)
    precision = inverse @ inverse.T
    diagonal = jnp.diag(precision)
    coefficients = -precision / diagonal[:, None]
    off = ~np.eye(d, dtype=bool)
    intercept = mean - jnp.sum(jnp.where(off, coefficients, 0.0) * mean[None, :], axis=1)
    return jnp.concatenate([mean, intercept, coefficients[off], -0.5 * jnp.log(diagonal)])


# Written out, because a batch of LAPACK calls inside a compiled training step waits for the very threads that XLA
# runs the step on: on two cores it was seen to stand still for good. These sizes are small enough to be fast.


def _triangle(a: jax.Array) -> jax.Array:
    """The upper triangular factor R of a `(m, d)`, with a positive diagonal, by modified Gram-Schmidt."""
    rows = []
    for j in range(a.shape[1]):
        norm = jnp.sqrt(jnp.sum(a[:, j] ** 2) + 1e-20)
        q = a[:, j] / norm
        row = (q @ a) * (np.arange(a.shape[1]) > j)
        rows.append(row.at[j].set(norm))
        a = a - q[:, None] * row[None, :]
    return jnp.stack(rows)


def _inverse_triangle(r: jax.Array) -> jax.Array:
    """The inverse of an upper triangular matrix, by back substitution."""
    d = len(r)
    inverse = jnp.zeros((d, d))
    for i in reversed(range(d)):
        inverse = inverse.at[i].set((jnp.eye(d)[i] - r[i] @ inverse) / r[i, i])
    return inverse
