"""Functions of named parameters that users write for a prior: traced once, and compared by what they compute."""

import dataclasses
import hashlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from ..names import nearest
from .support import has_ends, kind_of

# How JAX says that a function that it traces asked for a value: NumPy, `if`, `float` and the like do.
ASKED_FOR_VALUES = (
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.ConcretizationTypeError,
)

NamedFunction = Callable[[Mapping[str, jax.Array]], Any]
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Conditional:
    """The distribution of a parameter given those declared before it.

    Two are equal where JAX traces their functions to the same computation, whatever they are called: so a function that
    is made anew, as by running a script again, is the same one.

    Fields
    ------
    name: of the parameter.
    function: the user's function, from named values of one draw to a continuous NumPyro distribution.
    kind: what the distribution is called.
    uses: the parameters that it depends on.
    shape: of the parameter.
    bounded: whether its support has a lower end, and an upper one, at any value of the others.
    digest: of the computation, in this process.
    """

    name: str
    function: NamedFunction = dataclasses.field(compare=False, repr=False)
    kind: str
    uses: tuple[str, ...]
    shape: Shape
    bounded: tuple[bool, bool]
    digest: str

    @staticmethod
    def of(name: str, function: NamedFunction, known: Mapping[str, Shape], later: Sequence[str]) -> "Conditional":
        """Traced at parameters of the shapes in `known`; see `called` for the errors."""
        traced = _trace(f"prior of {name!r}", function, known, later, _continuous)
        law: dist.Distribution = traced.outcome
        shape = law.batch_shape + law.event_shape
        return Conditional(name, function, kind_of(law), traced.uses, shape, has_ends(law), traced.digest)

    def __call__(self, named: Mapping[str, Any]) -> dist.Distribution:
        """The distribution at one draw of the parameters before it."""
        return self.function(dict(named))

    def __str__(self) -> str:
        return f"{self.kind} given {' and '.join(self.uses) or 'nothing'}"


@dataclasses.dataclass(frozen=True)
class Derived:
    """A quantity that follows from the parameters. Equality is as for `Conditional`.

    Fields
    ------
    name: of the quantity.
    function: the user's function, from named values of one draw to a number or an array of them.
    shape: of what it gives.
    digest: of the computation.
    """

    name: str
    function: NamedFunction = dataclasses.field(compare=False, repr=False)
    shape: Shape
    digest: str

    @staticmethod
    def of(name: str, function: object, known: Mapping[str, Shape]) -> "Derived":
        """Traced at parameters of the shapes in `known`; see `called` for the errors."""
        if not callable(function):
            raise TypeError(
                f"derived quantity {name!r}: expected a function of the named parameters, such as "
                f"lambda t: t[{next(iter(known))!r}] ** 2, got {type(function).__name__}"
            )
        traced = _trace(f"derived quantity {name!r}", function, known, (), _numbers)
        return Derived(name, function, np.shape(traced.outcome), traced.digest)

    def __call__(self, named: Mapping[str, jax.Array]) -> jax.Array:
        """Its value `(*shape)` at one draw of the parameters."""
        return jax.numpy.asarray(self.function(dict(named)), float)


class _Trace(NamedTuple):
    outcome: Any  # its arrays are tracers: only shapes and structure may be read
    uses: tuple[str, ...]
    digest: str


def _trace(
    what: str,
    function: NamedFunction,
    known: Mapping[str, Shape],
    later: Sequence[str],
    checked: Callable[[str, Any], Any],
) -> _Trace:
    found = []

    def flat(*values: jax.Array) -> list[Any]:
        found.append(checked(what, called(what, function, dict(zip(known, values, strict=True)), later)))
        return jax.tree.leaves(found[-1])

    shapes = [jax.ShapeDtypeStruct(shape, jax.numpy.result_type(float)) for shape in known.values()]
    closed = jax.make_jaxpr(flat)(*shapes)
    jaxpr = closed.jaxpr
    read = [*jaxpr.outvars, *(each for equation in jaxpr.eqns for each in equation.invars)]
    uses = tuple(n for n, own in zip(known, jaxpr.invars, strict=True) if any(own is each for each in read))
    text = re.sub("0x[0-9a-f]+", "", f"{closed}{jax.tree.structure(found[-1])}")  # without places in memory
    digest = hashlib.sha256(text.encode())
    for constant in _constants(closed):
        digest.update(np.asarray(constant).tobytes())
    return _Trace(found[-1], uses, digest.hexdigest())


def called(what: str, function: NamedFunction, known: Mapping[str, Any], later: Sequence[str]) -> Any:
    """What the user's function of named parameters gives in a trace.

    Raises
    ------
    ValueError: it asks for a parameter that is declared later, or that there is not (the nearest is named).
    TypeError: it leaves JAX, for NumPy or a Python `if`, or takes something else.
    """
    try:
        inspect.signature(function).bind(known)
    except TypeError as error:
        raise TypeError(
            f"{what}: its function must take the named parameters, as in lambda t: ... ({error})"
        ) from error
    try:
        return function(dict(known))
    except KeyError as error:
        name = str(error.args[0]) if error.args else ""
        if name in known:
            raise
        fault = "declared later; declare it before" if name in later else f"no parameter there{nearest(name, known)}"
        there = f"given {', '.join(known)}" if known else "given none, as no parameter is declared before it"
        raise ValueError(f"{what}: its function asks for {name!r}, which is {fault}. It is {there}") from error
    except ASKED_FOR_VALUES as error:
        raise TypeError(
            f"{what}: its function asks for values while JAX traces it; write it in jax.numpy, and jnp.where(...) in "
            "place of `if`"
        ) from error


def _continuous(what: str, law: object) -> dist.Distribution:
    return check_law(what, law, "a function must give a numpyro.distributions object")


def _numbers(what: str, value: object) -> jax.Array:
    try:
        return jax.numpy.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what}: expected a number or an array of them, got {type(value).__name__}") from error


def check_law(what: str, law: object, expected: str) -> dist.Distribution:
    """The distribution; raise `TypeError` for what is none, and `ValueError` for a discrete one."""
    if not isinstance(law, dist.Distribution):
        found = "an array" if isinstance(law, jax.Array) else type(law).__name__
        raise TypeError(f"{what}: {expected}, got {found}")
    support: Any = law.support
    if support.is_discrete:
        raise ValueError(f"{what} is discrete ({type(law).__name__}); parameters must be continuous")
    return law


def law_of(
    name: str, law: object, known: Mapping[str, Shape], names: tuple[str, ...]
) -> dist.Distribution | Conditional:
    """A parameter's distribution, or how it is made from those in `known`; raises what a prior raises."""
    if callable(law) and not isinstance(law, (dist.Distribution, type)):
        return Conditional.of(name, law, known, names[names.index(name) + 1 :])
    return check_law(f"prior of {name!r}", law, "expected a numpyro.distributions object, or a function that gives one")


def derived_of(derived: object, known: Mapping[str, Shape]) -> Mapping[str, Any]:
    """The derived quantities by name."""
    if derived is None:
        return {}
    if not isinstance(derived, Mapping):
        raise TypeError(
            f"derived: expected a mapping from names to functions, such as {{'square': lambda t: t[...] ** 2}}, got "
            f"{type(derived).__name__}; a parameter cannot be called 'derived': choose another name for it"
        )
    for name in derived:
        if name in known:
            raise ValueError(f"derived: {name!r} is a parameter already; choose another name for the quantity")
    return derived


def _constants(jaxpr: Any) -> Iterator[Any]:
    """Every array that a computation holds, also inside those that it calls; its text does not show them."""
    if isinstance(jaxpr, ClosedJaxpr):
        yield from jaxpr.consts
    inner = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    for equation in inner.eqns:
        yield from (each.val for each in equation.invars if isinstance(each, Literal))
        for part in jax.tree.leaves(equation.params):
            if isinstance(part, (ClosedJaxpr, Jaxpr)):
                yield from _constants(part)
