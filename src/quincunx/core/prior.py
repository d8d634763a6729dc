"""Priors: named parameters, each with a NumPyro distribution, which may depend on those before it."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.transforms import biject_to

from .batches import bucket, by_rows, first, put, traced
from .laws.function import Conditional, Derived, NamedFunction, Shape, derived_of, law_of
from .laws.support import describe, ends_of, inside, support_of
from .names import nearest
from .solution import Array, Key

NUM_DRAWS, MOST_CORNERS = 256, 1024  # where the supports of conditional distributions are looked at


class Prior:
    """A joint prior of named parameters, scalar or vector.

    Inside the library `theta` is a float array `(..., dim)` with the parameters in the order in
    which they were declared; a vector parameter takes one column per component. People see names.

    Its methods work inside functions that JAX traces. Outside, a call with another number of rows in the same bucket
    compiles nothing.

    Parameters
    ----------
    derived: name -> function of the named parameters of one draw, in JAX, that gives a number or an array: quantities
        that follow from the parameters. They are summarised with them, and nothing is learned about them by itself;
        they are no columns of theta. No parameter can be called `derived`.
    laws: parameter name -> continuous NumPyro distribution, or a function, in JAX, that gives one from a mapping
        of the parameters declared before it, of one draw (scalars have shape `()`). Batch and event dimensions are
        both read as the shape of the parameter, which must not depend on the values.

    Two priors are equal if their distributions are and their functions compute the same (by their traces). The derived
    quantities count: what JAX compiled for one prior is used for equal ones. `same_law` leaves them out.

    Raises
    ------
    TypeError: a value is neither a NumPyro distribution nor a function that gives one, or the function is not in JAX.
    ValueError: no parameter at all, a discrete distribution, a function that asks for a parameter that is not declared
        before it, or a derived quantity with the name of a parameter.

    Examples
    --------
    >>> import numpyro.distributions as dist
    >>> prior = Prior(energy=dist.Uniform(40, 50), fermi=dist.Uniform(0.5, 1.5))
    >>> prior.columns
    ('energy', 'fermi')

    A second peak above the first, and how far they are apart:

    >>> peaks = Prior(
    ...     low=dist.Uniform(0, 10),
    ...     high=lambda t: dist.Uniform(t["low"], t["low"] + 10),
    ...     derived={"gap": lambda t: t["high"] - t["low"]},
    ... )
    >>> peaks.columns, peaks.derived_columns
    (('low', 'high'), ('gap',))
    >>> peaks.contains([[2.0, 1.0], [2.0, 12.0]]).tolist()
    [False, True]
    >>> peaks.derive([2.0, 5.0]).tolist()
    [3.0]
    """

    def __init__(
        self,
        *,
        derived: Mapping[str, NamedFunction] | None = None,
        **laws: dist.Distribution | Callable[[Mapping[str, jax.Array]], dist.Distribution],
    ):
        if not laws:
            raise ValueError("a prior needs at least one parameter, such as Prior(rate=dist.Uniform(0, 1))")
        self._laws: dict[str, dist.Distribution | Conditional] = {}
        known: dict[str, Shape] = {}
        for name, law in laws.items():
            self._laws[name] = law_of(name, law, known, tuple(laws))
            known[name] = _shape(self._laws[name])
        self._derived = tuple(Derived.of(name, each, known) for name, each in derived_of(derived, known).items())

    # -- names and shapes ---------------------------------------------------------------------

    @property
    def distributions(self) -> Mapping[str, dist.Distribution | Conditional]:
        """The distribution of every parameter, or how it is made from the parameters before it."""
        return dict(self._laws)

    @functools.cached_property
    def conditional(self) -> tuple[str, ...]:
        """The parameters whose distributions depend on others."""
        return tuple(name for name, law in self._laws.items() if isinstance(law, Conditional))

    @functools.cached_property
    def _fixed(self) -> dict[str, dist.Distribution]:
        return {name: law for name, law in self._laws.items() if not isinstance(law, Conditional)}

    @functools.cached_property
    def conditional_columns(self) -> tuple[int, ...]:
        """Where their columns are in theta."""
        return tuple(place for name in self.conditional for place in range(self.dim)[self._places[name]])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._laws)

    @functools.cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: _shape(law) for name, law in self._laws.items()}

    @functools.cached_property
    def columns(self) -> tuple[str, ...]:
        """One name per column of theta: `rate`, or `beta[0]`, `beta[1]` for a vector."""
        return tuple(column for name, shape in self.shapes.items() for column in _columns(name, shape))

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
            if name not in self._laws:
                raise ValueError(f"unknown parameter {name!r}{nearest(name, self.names)}; the prior has {self.names}")
        numpy, parts = jnp if traced(dict(named)) else np, {}
        for name, shape in self.shapes.items():
            if name not in named:
                raise ValueError(f"parameter {name!r} is missing; the prior has {self.names}")
            value = numpy.asarray(named[name], dtype=float)
            lead = value.shape[: max(value.ndim - len(shape), 0)]
            if value.shape != lead + shape:
                raise ValueError(f"parameter {name!r}: expected shape {_lead(shape)}, got {value.shape}")
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

    def laws(self, named: Mapping[str, Any]) -> Iterator[tuple[str, dist.Distribution]]:
        """The parameters in their order with their distributions, given named values of one draw.

        A parameter's own value is not read before the next one is asked for, so that it may be filled in meanwhile.
        """
        for name, law in self._laws.items():
            yield name, law({each: named[each] for each in self._before[name]}) if isinstance(law, Conditional) else law

    @functools.cached_property
    def _before(self) -> Mapping[str, tuple[str, ...]]:
        return {name: self.names[:place] for place, name in enumerate(self.names)}

    def sample(self, key: Key, num_samples: int) -> jax.Array:
        """Draws `(num_samples, dim)`."""
        return put(first(_sample(self, key, bucket(num_samples)), num_samples))

    @by_rows
    def log_prob(self, theta: Array) -> jax.Array:
        """Log density `(...)` at theta `(..., dim)`; -inf outside the support."""
        named, total = self.unpack(theta), jnp.zeros(())
        for name, law in self.laws(named):
            value, within = named[name], inside(law, named[name])
            lifted = within.reshape(within.shape + (1,) * law.event_dim)
            # NumPyro warns outside the support, and the distributions that follow need a value inside.
            named[name] = jnp.where(lifted, value, support_of(law).feasible_like(value))
            total += jnp.sum(jnp.where(within, law.log_prob(named[name]), -jnp.inf))
        return total

    @by_rows
    def contains(self, theta: Array) -> jax.Array:
        """Whether theta `(..., dim)` lies in the support, as booleans `(...)`."""
        return jnp.all(self._each_inside(theta), axis=-1)

    def check(self, theta: Array) -> None:
        """Raise `ValueError` for a theta `(..., dim)` with a value outside the support, naming it."""
        within = np.asarray(self._each_inside(theta)).reshape(-1, len(self.names))
        if within.all():
            return
        name = self.names[int(np.argmin(within.all(axis=0)))]
        row = int(np.argmin(within[:, self.names.index(name)]))
        named = self.unpack(np.asarray(theta).reshape(-1, self.dim)[row])
        law = dict(self.laws(named))[name]
        values, outside = np.asarray(named[name]), ~np.asarray(inside(law, named[name]))
        bad = values[outside if outside.any() else ...].reshape(-1)[0]  # other code may round otherwise, at an end
        others = [each for each in getattr(self._laws[name], "uses", ()) if not self.shapes[each]]
        given = f" given {', '.join(f'{each}={named[each]:g}' for each in others)}" if others else ""
        raise ValueError(f"parameter {name!r}: {bad:g} is outside the support of its prior, {describe(law)}{given}")

    @by_rows
    def _each_inside(self, theta: Array) -> jax.Array:
        """Whether each parameter lies in its support, as booleans `(..., number of names)`."""
        named = self.unpack(theta)
        return jnp.stack([jnp.all(inside(law, named[name])) for name, law in self.laws(named)])

    # -- ends of the support ------------------------------------------------------------------

    @functools.cached_property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The ends of the support, `(dim,)` each: infinite where there is none, NaN where a column cannot vary alone.

        The components of a simplex or a covariance cannot: what one may be depends on the others. For a parameter whose
        distribution depends on others these are the widest ends, at any values of the others: the lowest and the
        highest at draws from the prior, and where the others are at their own ends. What lies between them need not
        lie in the support; `contains` says whether it does.
        """
        ends = np.full((2, self.dim), np.nan, np.float32)
        with jax.ensure_compile_time_eval():
            for name, law in self._laws.items():
                columns = self._places[name]
                if isinstance(law, Conditional):
                    found = np.asarray(self.ends_at(self._extremes(ends, columns.start)))[..., columns]
                    ends[:, columns] = np.fmin.reduce(found[:, 0]), np.fmax.reduce(found[:, 1])  # NaN is left out
                else:
                    ends[:, columns] = ends_of(law)
        return ends[0], ends[1]

    @by_rows
    def ends_at(self, theta: Array) -> jax.Array:
        """The ends of the support `(..., 2, dim)`, where those of a parameter are taken at the others in theta."""
        return jnp.concatenate([jnp.stack(ends_of(law)) for _, law in self.laws(self.unpack(theta))], axis=-1)

    @by_rows
    def room(self, theta: Array) -> jax.Array:
        """How far conditional parameters lie from their ends at hand `(..., k)`; negative outside."""
        named, found = self.unpack(theta), [jnp.zeros(0)]
        for name, law in self.laws(named):
            value, (low, high) = jnp.ravel(named[name]), ends_of(law)
            sides = zip(self.bounded[name], (value - low, high - value), strict=True)
            found += [distance for has_end, distance in sides if has_end and name in self.conditional]
        return jnp.concatenate(found)

    @functools.cached_property
    def bounded(self) -> Mapping[str, tuple[bool, bool]]:
        """For every parameter, whether it has a lower end, and an upper one, wherever the others are."""
        finite = {name: np.isfinite(ends_of(law)) for name, law in self._fixed.items()}
        own = {name: (bool(low.all()), bool(high.all())) for name, (low, high) in finite.items()}
        return {name: law.bounded if isinstance(law, Conditional) else own[name] for name, law in self._laws.items()}

    @functools.cached_property
    def _places(self) -> Mapping[str, slice]:
        """Where the columns of each parameter are."""
        sizes = {name: _size(shape) for name, shape in self.shapes.items()}
        stops = dict(zip(sizes, itertools.accumulate(sizes.values()), strict=True))
        return {name: slice(stop - sizes[name], stop) for name, stop in stops.items()}

    def _extremes(self, ends: np.ndarray, count: int) -> np.ndarray:
        """Draws, and rows where the first columns are at their ends `(2, dim)`, in all combinations for up to ten."""
        draws = np.asarray(self.sample(jax.random.key(0), NUM_DRAWS), np.float32)
        corner = np.arange(min(1 << count, MOST_CORNERS))[:, None] >> np.minimum(np.arange(count), 31) & 1
        corners = np.resize(draws, (len(corner), self.dim))
        corners[:, :count] = np.where(corner, ends[1, :count], ends[0, :count])
        return np.concatenate([draws, corners])

    # -- unconstrained space ------------------------------------------------------------------

    @functools.cached_property
    def unconstrained_dim(self) -> int:
        theta = jax.eval_shape(self.unconstrain, jax.ShapeDtypeStruct((self.dim,), np.float32))
        return theta.shape[-1]

    @by_rows
    def unconstrain(self, theta: Array) -> jax.Array:
        """theta `(..., dim)` -> unconstrained array `(..., unconstrained_dim)` (NumPyro's `biject_to`)."""
        named = self.unpack(theta)
        return jnp.concatenate([biject_to(law.support).inv(named[name]).ravel() for name, law in self.laws(named)])

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
        """theta `(dim,)` and log |d theta / d u| `()`: a sum, since no parameter depends on a later one."""
        named, start, log_det = {}, 0, jnp.zeros(())
        for name, law in self.laws(named):
            transform = biject_to(law.support)
            shape = transform.inverse_shape(self.shapes[name])
            value = u[start : (start := start + _size(shape))].reshape(shape)
            named[name] = transform(value)
            log_det += jnp.sum(transform.log_abs_det_jacobian(value, named[name]))
        return jnp.concatenate([value.ravel() for value in named.values()]), log_det

    # -- derived quantities -------------------------------------------------------------------

    @property
    def derived(self) -> Mapping[str, Derived]:
        """The quantities that follow from the parameters."""
        return {each.name: each for each in self._derived}

    @property
    def derived_columns(self) -> tuple[str, ...]:
        """One name per column of `derive`: `gap`, or `mass[0]`, `mass[1]` for a vector."""
        return tuple(column for each in self._derived for column in _columns(each.name, each.shape))

    @by_rows
    def derive(self, theta: Array) -> jax.Array:
        """The derived quantities `(..., number of derived columns)` at theta `(..., dim)`."""
        named = self.unpack(theta)
        return jnp.concatenate([jnp.zeros(0), *(jnp.ravel(each(named)) for each in self._derived)])

    # -- identity -----------------------------------------------------------------------------

    @functools.cached_property
    def _law_identity(self) -> tuple[Any, ...]:
        leaves, structure = jax.tree.flatten(self._fixed)
        given = tuple(self._laws[name] for name in self.conditional)
        return self.names, str(structure), tuple(np.asarray(leaf).tobytes() for leaf in leaves), given

    def same_law(self, other: "Prior") -> bool:
        """Whether the parameters are distributed alike, whatever is derived from them."""
        return self._law_identity == other._law_identity

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prior) and self.same_law(other) and self._derived == other._derived

    def __hash__(self) -> int:
        return hash((self._law_identity, self._derived))

    def __repr__(self) -> str:
        parts = [f"{name}={describe(law)}" for name, law in self._laws.items()]
        return f"Prior({', '.join(parts + [f'derived {name}' for name in self.derived_columns])})"


def _shape(law: dist.Distribution | Conditional) -> Shape:
    return law.shape if isinstance(law, Conditional) else law.batch_shape + law.event_shape


def _columns(name: str, shape: Shape) -> Iterator[str]:
    for index in np.ndindex(*shape):
        yield f"{name}[{','.join(map(str, index))}]" if shape else name


@functools.partial(jax.jit, static_argnums=(0, 2))
def _sample(prior: Prior, key: Key, size: int) -> jax.Array:
    """Draws `(size, dim)`: the first of them are the same for every size (JAX counts its random numbers)."""
    named: dict[str, Any] = {}
    for own, (name, law) in zip(jax.random.split(key, len(prior.names)), prior.distributions.items(), strict=True):
        if isinstance(law, Conditional):
            named[name] = jax.vmap(lambda key, before, law=law: law(before).sample(key))(
                jax.random.split(own, size), dict(named)
            )
        else:
            named[name] = law.sample(own, (size,))
    return prior.pack(named)


def _lead(shape: Shape) -> str:
    return f"({', '.join(['...', *map(str, shape)])})"


def _size(shape: Shape) -> int:
    return int(np.prod(shape, dtype=int))
