"""Strings to choices: what a TOML file and the command line may say, checked against what Python takes.

Nothing is listed here: the options of a method, and their types, are those of its signature.
"""

import dataclasses
import inspect
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import pydantic

from ..core import defaults
from ..core.fit import Training
from ..core.names import nearest
from ..core.solution import Key
from ..methods import CATALOGUE
from ..methods.method import AbstractLearner, AbstractMethod, AbstractSearch, Method


def settings(path: str | Path | None, given: Mapping[str, Any], types_of: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one command: what was given wins over the file, the file over the defaults.

    Parameters
    ----------
    path: a TOML file, or None.
    given: the command's options by name; None where one was not given. `set` holds texts NAME=VALUE.
    types_of: the type of each option, by name.

    Returns
    -------
    The options by name, None where nothing says otherwise, and the tables `options` (of the method) and `training`.

    Raises
    ------
    FileNotFoundError: no such file.
    ValueError: not TOML, an unknown key (the nearest is named), or a value of the wrong type.
    """
    table = {} if path is None else _read(Path(path))
    where = f"{path}: " if path else ""
    hints = {**types_of, "options": dict, "training": dict}
    _check_names(table, hints, where)
    merged: dict[str, Any] = {name: convert(hints[name], value, where + name) for name, value in table.items()}
    merged |= {name: value for name, value in given.items() if value is not None and name in types_of}
    tables = {name: dict(merged.get(name) or {}) for name in ("options", "training")}
    for text in given.get("set") or ():
        _assign(tables["options"], text)
    return {**dict.fromkeys(types_of), **merged, **tables}


def method_of(merged: Mapping[str, Any]) -> Method:
    """The method that the settings name, with their options."""
    name = merged["method"] or defaults.METHOD
    if name not in CATALOGUE:
        raise ValueError(f"unknown method {name!r}{nearest(name, CATALOGUE)}; see `quincunx methods`")
    return build(CATALOGUE[name], merged["options"], f"{name}: ")


def training_of(merged: Mapping[str, Any], method: Method, *, for_one: bool = False) -> Training | None:
    """The method's own training, for one data set or any, with what the settings change; None if it takes none."""
    table = merged["training"]
    usual = method.training if isinstance(method, AbstractSearch) else _usual(method, for_one)
    if usual is None:
        if table:
            raise ValueError(f"{method.name} takes no training: drop the table")
        return None
    hints = options_of(Training)
    _check_names(table, hints, "training.")
    changes = {name: convert(hints[name], value, f"training.{name}") for name, value in table.items()}
    return dataclasses.replace(usual, **changes)


def _usual(method: AbstractLearner, for_one: bool) -> Training:
    return method.training_for_one if for_one else method.card.training


def seed_of(merged: Mapping[str, Any]) -> int:
    """The seed, checked: a whole number that a key can be made of without loss."""
    seed = defaults.SEED if merged.get("seed") is None else merged["seed"]
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to {2**32 - 1}, got {seed}")
    return seed


def key_of(merged: Mapping[str, Any]) -> Key:
    """The random key of the seed."""
    return jax.random.key(seed_of(merged))


# -- from tables to what Python takes ----------------------------------------------------------------


def options_of(make: Callable[..., Any]) -> dict[str, Any]:
    """Option -> type, of a class or a function, but those that no table can hold, such as arrays and functions."""
    if inspect.isclass(make):
        record: Any = make
        known = typing.get_type_hints(record)
        hints = {field.name: known[field.name] for field in dataclasses.fields(record)}
    else:
        hints = {name: hint for name, hint in typing.get_type_hints(make).items() if name != "return"}
        for name, parameter in inspect.signature(make).parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                hints |= typing.get_type_hints(typing.get_args(hints.pop(name))[0])
    return {name: hint for name, hint in hints.items() if set(_kinds(hint)) - {types.NoneType}}


def build(make: Callable[..., Any], table: Mapping[str, Any], where: str) -> Any:
    """What a class or a function makes of a table of its options."""
    hints = options_of(make)
    _check_names(table, hints, where)
    return make(**{name: convert(hints[name], value, where + name) for name, value in table.items()})


def convert(hint: Any, value: Any, where: str) -> Any:
    """A value of the type that the hint asks for: a table makes a record, a word one of several."""
    kinds = _kinds(hint)
    records = [kind for kind in kinds if _is_record(kind)]
    if records and isinstance(value, Mapping | str):
        return (_choice if _is_abstract(records[0]) else _record)(records[0], value, where)
    value = tuple(value) if isinstance(value, list) and any(typing.get_origin(k) is tuple for k in kinds) else value
    plain: Any = tuple(kind for kind in kinds if kind not in records)
    expected = " or ".join(_called(kind) for kind in kinds)
    wrong = f"{where}: expected {expected}, got {value!r} ({type(value).__name__})"
    if not plain:
        raise ValueError(wrong)
    try:
        union: Any = typing.Union  # made here, so not by `|`
        return pydantic.TypeAdapter(union[plain]).validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        raise ValueError(wrong) from error


def _record(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected {_table(kind)}, got {value!r}")
    return build(kind, value, f"{where}.")


def _table(kind: type) -> str:
    return f"a table with {', '.join(options_of(kind))}"


def _choice(kind: type, value: Any, where: str) -> Any:
    """`"exponential"`, or `{ name = "exponential", beta = 2.0 }`; a table that fits one alone needs no name."""
    known = _choices(kind)
    table = dict(value) if isinstance(value, Mapping) else {"name": value}
    name = table.pop("name", None)
    if name is None:
        fitting = [each for each, made in known.items() if table.keys() <= options_of(made).keys()]
        name = fitting[0] if len(fitting) == 1 else None
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"{where}: unknown choice {name!r}{nearest(str(name), known)}; known are {', '.join(known)}")
    return build(known[name], table, f"{where}.")


def _choices(kind: type) -> dict[str, Callable[..., Any]]:
    """Name -> what makes it: methods as in the catalogue, others by their class."""
    if issubclass(kind, AbstractMethod):
        return {name: make for name, make in CATALOGUE.items() if isinstance(make(), kind)}
    return {choice_name(each, kind): each for each in kind.__subclasses__() if _is_makeable(each)}


def _is_makeable(kind: Any) -> bool:
    """Whether a table can hold all that has no default."""
    required = {f.name for f in dataclasses.fields(kind) if f.init and f.default is dataclasses.MISSING}
    return required <= options_of(kind).keys()


def choice_name(kind: type, of: type) -> str:
    """`settled` for SettledWeighting, a kind of AbstractWeighting; `mean_squared_error` for a name without its kind."""
    short = kind.__name__.removesuffix(of.__name__.removeprefix("Abstract"))
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", short).lower()


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a hint that a TOML file can hold."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = [kind for each in typing.get_args(hint) for kind in _kinds(each)] if union else [hint]
    plain = (int, float, str, bool, dict, types.NoneType)
    return tuple(k for k in kinds if k in plain or typing.get_origin(k) in (tuple, list, Mapping) or _is_record(k))


def _is_record(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, eqx.Module)


def _is_abstract(kind: type) -> bool:
    return kind.__name__.startswith("Abstract")


def _called(kind: Any) -> str:
    if _is_record(kind):
        return f"one of {', '.join(_choices(kind))}" if _is_abstract(kind) else _table(kind)
    names = {types.NoneType: "nothing", dict: "a table", Mapping: "a table of numbers"}
    if kind in names or typing.get_origin(kind) is Mapping:
        return names.get(kind, names[Mapping])
    return kind.__name__ if inspect.isclass(kind) and not typing.get_args(kind) else str(kind)


def _check_names(table: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    for name in table:
        if name not in known:
            close = nearest(name, known)
            raise ValueError(f"{where}{name}: unknown key{close}; known are {', '.join(known) or 'none'}")


def _assign(table: dict[str, Any], text: str) -> None:
    """Put `network.members=5` into nested tables; what is no value of TOML is taken as text."""
    path, equals, value = text.partition("=")
    *outer, name = path.strip().split(".")
    if not equals or not all([*outer, name]):
        raise ValueError(f"--set {text}: expected NAME=VALUE, such as --set alpha=5 or --set network.members=5")
    for part in outer:
        inner = table.get(part, {})
        if not isinstance(inner, dict):
            raise ValueError(f"--set {text}: {part} is no table, it was set to {inner!r}")
        table[part] = dict(inner)
        table = table[part]
    table[name] = _value(value)


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    return parsed["value"] if parsed.keys() == {"value"} else text.strip()


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}; give a TOML file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
