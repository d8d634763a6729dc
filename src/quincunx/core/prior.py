"""Priors: named parameters, each with a NumPyro distribution."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.transforms import biject_to

from .batches import bucket, by_rows, first, put, traced
from .names import nearest
from .solution import Array, Key


class Prior:
    """A joint prior of independent named parameters, scalar or vector.

    Inside the library `theta` is a float array `(..., dim)` with the parameters in the order in
    which they were declared; a vector parameter takes one column per component. People see names.

    Its methods work inside functions that JAX traces. Outside, a call with another number of rows in the same bucket
    compiles nothing.

    Parameters
    ----------
    distributions: parameter name -> continuous NumPyro distribution. Batch and event dimensions
        are both read as the shape of the parameter.

    Raises
    ------
    TypeError: a value is not a NumPyro distribution.
    ValueError: no parameter at all, or a discrete distribution.

    Examples
    --------
    >>> import numpyro.distributions as dist
    >>> prior = Prior(energy=dist.Uniform(40, 50), fermi=dist.Uniform(0.5, 1.5))
    >>> prior.columns
    ('energy', 'fermi')
    """

    def __init__(self, **distributions: dist.Distribution):
        if not distributions:
            raise ValueError("a prior needs at least one parameter, such as Prior(rate=dist.Uniform(0, 1))")
        for name, distribution in distributions.items():
            if not isinstance(distribution, dist.Distribution):
                raise TypeError(
                    f"prior of {name!r}: expected a numpyro.distributions object, got {type(distribution).__name__}"
                )
            if _support(distribution).is_discrete:
                raise ValueError(
                    f"prior of {name!r} is discrete ({type(distribution).__name__}); parameters must be continuous"
                )
        self._distributions = dict(distributions)

    # -- names and shapes ---------------------------------------------------------------------

    @property
    def distributions(self) -> Mapping[str, dist.Distribution]:
        return dict(self._distributions)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._distributions)

    @functools.cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: d.batch_shape + d.event_shape for name, d in self._distributions.items()}

    @functools.cached_property
    def columns(self) -> tuple[str, ...]:
        """One name per column of theta: `rate`, or `beta[0]`, `beta[1]` for a vector."""
        return tuple(
            name if not shape else f"{name}[{','.join(map(str, index))}]"
            for name, shape in self.shapes.items()
            for index in np.ndindex(*shape)
        )

    @property
    def dim(self) -> int:
        return len(self.columns)

    def unpack(self, theta: Array) -> dict[str, jax.Array]:
        """Array `(..., dim)` -> mapping from name to array `(..., *shape)`."""
        theta = jnp.asarray(theta) if traced(theta) else np.asarray(theta)
        named, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + _size(shape)
            named[name] = put(theta[..., start:stop].reshape(theta.shape[:-1] + shape))
            start = stop
        return named

    def pack(self, named: Mapping[str, Any]) -> jax.Array:
        """Mapping from name to array `(..., *shape)` -> array `(..., dim)`; the leading axes are broadcast.

        Raises
        ------
        ValueError: a name is missing or unknown (the nearest is named), or a shape is wrong.
        """
        for name in named:
            if name not in self._distributions:
                raise ValueError(f"unknown parameter {name!r}{nearest(name, self.names)}; the prior has {self.names}")
        numpy, parts = jnp if traced(dict(named)) else np, {}
        for name, shape in self.shapes.items():
            if name not in named:
                raise ValueError(f"parameter {name!r} is missing; the prior has {self.names}")
            value = numpy.asarray(named[name], dtype=float)
            lead = value.shape[: max(value.ndim - len(shape), 0)]
            if value.shape != lead + shape:
                raise ValueError(f"parameter {name!r}: expected shape (..., *{shape}), got {value.shape}")
            parts[name] = value.reshape((*lead, _size(shape)))
        leads = {name: part.shape[:-1] for name, part in parts.items()}
        try:
            lead = np.broadcast_shapes(*leads.values())
        except ValueError as error:
            raise ValueError(f"there must be as many values of every parameter, or one; got {leads}") from error
        parts = [numpy.broadcast_to(part, lead + part.shape[-1:]) for part in parts.values()]
        return put(numpy.concatenate(parts, axis=-1))

    def rows(self, theta: Array | Mapping[str, Any], name: str = "theta") -> np.ndarray:
        """theta as float32 `(n, dim)`, inside the support; named values, numbers or arrays `(n, *shape)`, are packed.

        Raises
        ------
        ValueError: another shape, no rows, or a value outside the support. `name` is what the message calls theta.
        """
        theta = np.atleast_2d(self.pack(theta)) if isinstance(theta, Mapping) else theta
        values = np.array(theta, np.float32)  # a copy: what is made of it may share its memory
        if values.ndim != 2 or values.shape[1] != self.dim:
            raise ValueError(
                f"{name}: expected shape (n, {self.dim}), a column for each of {self.columns}, got {values.shape}"
            )
        if len(values) == 0:
            raise ValueError(f"{name} has no rows; give at least one row of parameters")
        self.check(values)
        return values

    # -- probability --------------------------------------------------------------------------

    def sample(self, key: Key, num_samples: int) -> jax.Array:
        """Draws `(num_samples, dim)`."""
        return put(first(_sample(self, key, bucket(num_samples)), num_samples))

    @by_rows
    def log_prob(self, theta: Array) -> jax.Array:
        """Log density `(...)` at theta `(..., dim)`; -inf outside the support."""
        named = self.unpack(theta)
        total = jnp.zeros(jnp.shape(theta)[:-1])
        for name, d in self._distributions.items():
            value = named[name]
            inside = _inside(d, value)
            lifted = inside.reshape(inside.shape + (1,) * d.event_dim)
            safe = jnp.where(lifted, value, _support(d).feasible_like(value))  # NumPyro warns outside the support
            total += _sum_from(jnp.where(inside, d.log_prob(safe), -jnp.inf), total.ndim)
        return total

    @by_rows
    def contains(self, theta: Array) -> jax.Array:
        """Whether theta `(..., dim)` lies in the support, as booleans `(...)`."""
        return jnp.all(self._each_inside(theta), axis=-1)

    def check(self, theta: Array) -> None:
        """Raise `ValueError` for a theta `(..., dim)` with a value outside the support, naming it."""
        inside = np.asarray(self._each_inside(theta))
        if inside.all():
            return
        name = self.names[int(np.argmin(inside.reshape(-1, inside.shape[-1]).all(axis=0)))]
        bad = np.asarray(self.unpack(theta)[name])[~inside[..., self.names.index(name)]].reshape(-1)[0]
        support = describe(self._distributions[name])
        raise ValueError(f"parameter {name!r}: {bad:g} is outside the support of its prior, {support}")

    @by_rows
    def _each_inside(self, theta: Array) -> jax.Array:
        """Whether each parameter lies in its support, as booleans `(..., number of names)`."""
        lead, named = jnp.ndim(theta) - 1, self.unpack(theta)
        return jnp.stack([_all_from(_inside(d, named[name]), lead) for name, d in self._distributions.items()], axis=-1)

    @functools.cached_property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The ends of the support, `(dim,)` each: infinite where there is none, NaN where a column cannot vary alone.

        The components of a simplex or a covariance cannot: what one may be depends on the others.
        """
        low, high = np.empty(self.dim, np.float32), np.empty(self.dim, np.float32)
        start = 0
        for name, d in self._distributions.items():
            support = _support(d)
            while (base := getattr(support, "base_constraint", None)) is not None:
                support = base
            shape = self.shapes[name]
            columns = slice(start, start := start + _size(shape))
            joint = getattr(support, "event_dim", 0) > 0
            for side, bound in ((low, "lower_bound"), (high, "upper_bound")):
                none = np.nan if joint else np.inf if side is high else -np.inf
                side[columns] = np.broadcast_to(np.asarray(getattr(support, bound, none), np.float32), shape).ravel()
        return low, high

    # -- unconstrained space ------------------------------------------------------------------

    @functools.cached_property
    def unconstrained_dim(self) -> int:
        theta = jax.eval_shape(lambda: self.unconstrain(jnp.zeros(self.dim)))
        return theta.shape[-1]

    @by_rows
    def unconstrain(self, theta: Array) -> jax.Array:
        """theta `(..., dim)` -> unconstrained array `(..., unconstrained_dim)` (NumPyro's `biject_to`)."""
        lead = jnp.ndim(theta) - 1
        parts = [
            biject_to(d.support).inv(value)
            for d, value in zip(self._distributions.values(), self.unpack(theta).values(), strict=True)
        ]
        return jnp.concatenate([p.reshape(p.shape[:lead] + (-1,)) for p in parts], axis=-1)

    @by_rows
    def constrain(self, u: Array) -> jax.Array:
        """Unconstrained array `(..., unconstrained_dim)` -> theta `(..., dim)`, inside the support."""
        return self._constrain(u)[0]

    @by_rows
    def log_prob_unconstrained(self, u: Array) -> jax.Array:
        """Log density `(...)` of the prior on the unconstrained space, at u `(..., unconstrained_dim)`."""
        theta, log_det = self._constrain(u)
        return self.log_prob(theta) + log_det

    def _constrain(self, u: Array) -> tuple[jax.Array, jax.Array]:
        u = jnp.asarray(u)
        lead, start = u.ndim - 1, 0
        log_det = jnp.zeros(u.shape[:-1])
        parts = []
        for name, d in self._distributions.items():
            transform = biject_to(d.support)
            shape = transform.inverse_shape(self.shapes[name])
            stop = start + _size(shape)
            value = u[..., start:stop].reshape(u.shape[:-1] + shape)
            image = transform(value)
            log_det += _sum_from(transform.log_abs_det_jacobian(value, image), lead)
            parts.append(image.reshape(u.shape[:-1] + (-1,)))
            start = stop
        return jnp.concatenate(parts, axis=-1), log_det

    # -- identity -----------------------------------------------------------------------------

    @functools.cached_property
    def _identity(self) -> tuple[Any, ...]:
        leaves, structure = jax.tree.flatten(self._distributions)
        return self.names, str(structure), tuple(np.asarray(leaf).tobytes() for leaf in leaves)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prior) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        return f"Prior({', '.join(f'{name}={describe(d)}' for name, d in self._distributions.items())})"


def describe(distribution: dist.Distribution) -> str:
    """A one-line description of a NumPyro distribution, such as `Uniform(low=40, high=50)`."""
    if isinstance(distribution, (dist.Independent, dist.ExpandedDistribution)):
        shape = distribution.batch_shape + distribution.event_shape
        return f"{describe(distribution.base_dist)} of shape {shape}"
    settings = (
        f"{name}={np.array2string(np.asarray(getattr(distribution, name)), precision=6)}"
        for name in distribution.arg_constraints
        if getattr(distribution, name, None) is not None
    )
    return f"{type(distribution).__name__}({', '.join(settings)})"


@functools.partial(jax.jit, static_argnums=(0, 2))
def _sample(prior: Prior, key: Key, size: int) -> jax.Array:
    """Draws `(size, dim)`: the first of them are the same for every size (JAX counts its random numbers)."""
    keys = jax.random.split(key, len(prior.names))
    return prior.pack(
        {name: d.sample(k, (size,)) for k, (name, d) in zip(keys, prior.distributions.items(), strict=True)}
    )


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=int))


def _support(distribution: dist.Distribution) -> Any:
    return distribution.support  # typed as optional by NumPyro; every distribution has one


def _inside(distribution: dist.Distribution, value: jax.Array) -> jax.Array:
    return jnp.asarray(_support(distribution)(value))


def _sum_from(value: jax.Array, lead: int) -> jax.Array:
    return jnp.sum(value, axis=tuple(range(lead, value.ndim)))


def _all_from(value: jax.Array, lead: int) -> jax.Array:
    value = jnp.asarray(value)
    return jnp.all(value, axis=tuple(range(lead, value.ndim)))
