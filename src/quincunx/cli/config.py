"""Strings to choices: what a TOML file and the command line may say of a training, checked."""

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from ..core import defaults as defaults
from ..core.fit import Training
from ..core.names import nearest
from ..core.solution import Key
from ..methods import alfi
from ..methods.door import options_of
from ..methods.gold import NEEDS
from ..methods.machine import RecurrentMachine
from ..methods.train_ratio import RATIO_TRAINING

# Top-level keys of a training -> the names and types that `train` knows them by.
TRAIN_KEYS: Mapping[str, tuple[str, type]] = {
    "method": ("method", str),
    "simulations": ("num_simulations", int),
    "observations": ("num_observations", int),
    "max_observations": ("max_observations", int),
}
CHOICES: Mapping[str, Mapping[str, type]] = {
    "partial_loss": {"likelihood": alfi.NegativeLogLikelihood, "squared": alfi.MeanSquaredError},
    "weighting": {
        "settled": alfi.SettledWeighting,
        "last": alfi.LastWeighting,
        "constant": alfi.ConstantWeighting,
        "exponential": alfi.ExponentialWeighting,
    },
}


def settings(path: str | Path | None, given: Mapping[str, Any], types_of: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one command: what was given wins over the file, the file over the defaults.

    Parameters
    ----------
    path: a TOML file, or None.
    given: the command's options by name; None where one was not given.
    types_of: the type of each option, by name.

    Returns
    -------
    The options by name, and what the tables stand for: `training`, a `Training` or None if there is no such table; for
    alfi `loss`, an `ALFI`, and `machine`, keyword arguments of `RecurrentMachine.for_simulations`; for the ratio
    family `loss` and `estimator`, keyword arguments of the loss and of the estimator's `for_simulations`.

    Raises
    ------
    FileNotFoundError: no such file.
    ValueError: not TOML, an unknown key (the nearest is named), or a value of the wrong type.
    """
    table = {} if path is None else _read(Path(path))
    where = f"{path}: " if path else ""
    for name in table:
        known = [*types_of, *dict.fromkeys([*ALFI_TABLES, *RATIO_TABLES])]
        if name not in known:
            raise ValueError(f"{where}unknown key {name!r}{nearest(name, known)}; known are {', '.join(known)}")
    merged: dict[str, Any] = {}
    for name, hint in types_of.items():
        from_file = _typed(where, name, table[name], hint) if name in table else None
        merged[name] = given[name] if given.get(name) is not None else from_file
    sections = RATIO_TABLES if merged.get("method") in NEEDS else ALFI_TABLES
    for name in table:
        if name not in types_of and name not in sections:
            raise ValueError(f"{where}{name}: method {merged.get('method')} has the tables {', '.join(sections)}")
    for name, make in sections.items():
        section = table.get(name, {})
        if not isinstance(section, dict):
            raise ValueError(f"{where}{name}: expected a table [{name}], got {section!r}")
        merged[name] = make(f"{where}{name}.", section)
    return merged


def train_arguments(merged: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `train` from what `settings` returned."""
    if merged.get("method") in NEEDS:
        raise ValueError(
            f"{merged['method']} learns a likelihood ratio: train it with `quincunx train`, then use `quincunx limits`"
        )
    named = {argument: merged[key] for key, (argument, _) in TRAIN_KEYS.items() if merged.get(key) is not None}
    return {**named, "training": merged["training"], "loss": merged["loss"], "machine_options": merged["machine"]}


def ratio_arguments(merged: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `train_ratio` from what `settings` returned."""
    for name in ("observations", "max_observations", "resume"):
        if merged.get(name) is not None:
            raise ValueError(f"{merged['method']} takes no {name}; that is for alfi: drop it")
    named: dict[str, Any] = {"method": merged["method"]}
    if merged.get("simulations") is not None:
        named["num_simulations"] = merged["simulations"]
    options = dict(merged["estimator"])
    if merged.get("members") is not None:
        options["num_members"] = merged["members"]
    return {
        **named, "training": merged["training"], "loss_options": merged["loss"], "estimator_options": options
    }  # fmt: skip


def seed_of(merged: Mapping[str, Any]) -> int:
    """The seed, checked: a whole number that a key can be made of without loss."""
    seed = defaults.SEED if merged.get("seed") is None else merged["seed"]
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to {2**32 - 1}, got {seed}")
    return seed


def key_of(merged: Mapping[str, Any]) -> Key:
    """The random key of the seed."""
    return jax.random.key(seed_of(merged))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}; give a TOML file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error


def _training(where: str, table: Mapping[str, Any]) -> Training:
    return Training(**_checked(where, table, _field_types(Training)))


def _ratio_training(where: str, table: Mapping[str, Any]) -> Training:
    return dataclasses.replace(RATIO_TRAINING, **_checked(where, table, _field_types(Training)))


def _ratio_loss(where: str, table: Mapping[str, Any]) -> dict[str, Any]:
    return _checked(where, table, {"alpha": float, "batch_size": int})


def _estimator(where: str, table: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {
        "widths": list[int],
        "num_members": int,
        "activation": str,
        "form": str,
        "layers": int,
        "width": int,
        "knots": int,
    }
    return {name: tuple(value) if name == "widths" else value for name, value in _checked(where, table, kinds).items()}


def _loss(where: str, table: Mapping[str, Any]) -> alfi.ALFI:
    chosen = {name: _choice(where, name, table[name]) for name in CHOICES if name in table}
    plain = {name: hint for name, hint in _field_types(alfi.ALFI).items() if name not in CHOICES}
    rest = {name: value for name, value in table.items() if name not in CHOICES}
    return alfi.ALFI(**_checked(where, rest, plain, also=tuple(CHOICES)), **chosen)


def _machine(where: str, table: Mapping[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(RecurrentMachine.for_simulations)
    names = options_of(RecurrentMachine.for_simulations, "sims", "key")
    return _checked(where, table, {name: hints[name] for name in names})


# The tables of a TOML file, by what they hold.
ALFI_TABLES = {"training": _training, "loss": _loss, "machine": _machine}
RATIO_TABLES = {"training": _ratio_training, "loss": _ratio_loss, "estimator": _estimator}


def _choice(where: str, name: str, value: Any) -> Any:
    """`"exponential"`, or `{ name = "exponential", beta = 2.0 }`."""
    table = dict(value) if isinstance(value, dict) else {"name": value}
    called, known = table.pop("name", None), CHOICES[name]
    if called not in known:
        close = nearest(str(called), known)
        raise ValueError(f"{where}{name}: unknown choice {called!r}{close}; known are {', '.join(known)}")
    return known[called](**_checked(f"{where}{name}.", table, _field_types(known[called])))


def _field_types(record: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(record)
    return {field.name: hints[field.name] for field in dataclasses.fields(record)}


def _checked(
    where: str, table: Mapping[str, Any], hints: Mapping[str, Any], also: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Values of the types that the hints ask for, under known names."""
    known = [*hints, *also]
    for name in table:
        if name not in hints:
            close = nearest(name, known)
            raise ValueError(f"{where}{name}: unknown key{close}; known are {', '.join(known) or 'none'}")
    return {name: _typed(where, name, value, hints[name]) for name, value in table.items()}


def _typed(where: str, name: str, value: Any, hint: Any) -> Any:
    allowed = tuple(t for t in typing.get_args(hint) if t is not type(None)) if _is_union(hint) else (hint,)
    if float in allowed and type(value) is int:
        return float(value)
    if typing.get_origin(hint) is list:
        items = value if isinstance(value, list) else [value]
        return [_typed(where, name, item, typing.get_args(hint)[0]) for item in items]
    if type(value) not in allowed:
        names = " or ".join(t.__name__ for t in allowed)
        raise ValueError(f"{where}{name}: expected {names}, got {value!r} ({type(value).__name__})")
    return value


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)
