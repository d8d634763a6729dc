"""Names that people type, functions that they write, and what to say of those that cannot be used."""

import difflib
import functools
import inspect
import operator
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Elsewhere = Callable[[str, Any, Mapping[str, Any]], str | None]


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def option_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """What a function can be given by name, also by `**options: Unpack[...]`."""
    names: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            names.append(name)
        elif typing.get_args(parameter.annotation):
            names += typing.get_type_hints(typing.get_args(parameter.annotation)[0])
    return tuple(names)


def options_checked(elsewhere: Elsewhere = lambda *_: None) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorator of a public function of a key and more: what cannot be meant is refused with what to write instead.

    That is an option that it does not have, a first argument that is no key, a number of things, `num_...`, that is no
    whole number: a `TypeError` each; and such a number below 1: a `ValueError`.

    elsewhere: `(name, value, arguments) -> advice`, for options that belong to one of the arguments; None for others.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        known = option_names(function)

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            for name, value in kwargs.items():
                if name not in known:
                    advice = elsewhere(name, value, {**dict(zip(known, args, strict=False)), **kwargs})
                    advice = advice or f"{nearest(name, known)[2:-1] or 'it takes ' + ', '.join(known)}"
                    raise TypeError(f"{function.__name__}: unknown option {name!r}; {advice}")
                if name.startswith("num_") and value is not None and (type(value) is not int or value < 1):
                    check_count(name, value)
            if args and getattr(args[0], "dtype", None) is None:
                raise TypeError(f"key: expected one such as jax.random.key(0), got {type(args[0]).__name__}")
            return function(*args, **kwargs)

        return checked

    return decorate


def check_count(name: str, value: Any) -> None:
    """Raise `TypeError` for what is no whole number, `ValueError` for one below 1."""
    try:
        operator.index(value)
    except TypeError as error:
        whole = isinstance(value, float) and value.is_integer()
        fix = f"; write {int(value)}" if whole else ""
        raise TypeError(f"{name}: expected a whole number, got {value!r}{fix}") from error
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def check_function(function: Any, arguments: Sequence[str], gives: str) -> None:
    """Raise `TypeError` for what cannot be called with these arguments."""
    wanted = f"expected a function ({', '.join(arguments)}) -> {gives}"
    if not callable(function):
        raise TypeError(f"{wanted}, got {type(function).__name__}")
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise TypeError(f"{wanted}, got one that takes {inspect.signature(function)}") from error
    except ValueError:  # some built-in functions do not say what they take
        return
