"""Save and load without pickle: a folder with a header in JSON and the arrays in one file.

The header says what the folder is (format and library version, class, simulator, parameters, seed) and holds the
value itself as nested JSON, in which every array is a reference into the arrays' file. Loading runs no code and imports
nothing that a folder names: a simulator is attached by its owner, or built in. Both files carry a SHA-256, so that a
folder that was cut short, or altered by accident, is refused.
"""

import dataclasses
import enum
import functools
import hashlib
import importlib
import inspect
import io
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import truncated

from ..core.defaults import version
from ..core.prior import Prior
from ..core.simulator import AbstractSimulator, NamedSimulator
from ..core.solution import Array
from ..problems import CATALOGUE

FORMAT, FORMAT_VERSION = "quincunx", 2
HEADER, ARRAYS = "header.json", "arrays.npz"

# What can be saved is what training makes: the classes of these rooms, and of what they are made from.
ROOMS = ("quincunx.core", "quincunx.gold", "quincunx.answers", "quincunx.methods", "quincunx.checks")
LAYERS = (eqx.nn.Linear, eqx.nn.GRUCell)

# Constructor arguments of distributions whose attributes are more than they take.
_ARGUMENTS = {"MultivariateNormal": ("loc", "scale_tril")}

NOT_FOUND = (
    "simulators are not saved with what was trained for them; attach it: qx.load(folder, simulator=...), or on the "
    "command line --simulator path/to/file.py:name"
)


def save(folder: str | Path, value: Any, *, seed: int | None = None) -> None:
    """Save an estimator, a posterior, an answer, or a solution of one.

    The folder is written at once or not at all. It may replace one that was saved before, and nothing else.

    Parameters
    ----------
    folder: where to; it is made.
    value: what `train` or `infer` returned, or a part of it.
    seed: the seed it was made with, for the header.

    Raises
    ------
    TypeError: something in the value cannot be saved, such as a prior of a distribution that NumPyro
        cannot rebuild from its parameters.
    ValueError: the folder holds something else.
    """
    folder = Path(folder)
    check_target(folder)
    writer = _Writer({})
    body = writer.encode(value)
    _roundtrip(value, body, writer.arrays)
    buffer = io.BytesIO()
    np.savez(buffer, **writer.arrays)  # pyright: ignore[reportArgumentType]
    arrays = buffer.getvalue()
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "library_version": version(),
        **_about(value, seed),
        "arrays_sha256": hashlib.sha256(arrays).hexdigest(),
        "value": body,
    }
    header["header_sha256"] = _digest(header)
    _write(folder, {HEADER: json.dumps(header, indent=1, allow_nan=False).encode(), ARRAYS: arrays})


def load(folder: str | Path, *, simulator: AbstractSimulator | None = None) -> Any:
    """What `save` saved, bit for bit.

    Parameters
    ----------
    simulator: what the estimator was trained for; it must have the same name and prior. A built-in simulator is found
        by itself. Without it the estimator answers all that needs no simulator.

    Raises
    ------
    FileNotFoundError: no such folder.
    ValueError: the folder is not one of ours, is cut short or altered, comes from a newer version, or belongs to
        another simulator.
    """
    folder = Path(folder)
    header = _header(folder)
    arrays = _arrays(folder, header["arrays_sha256"])
    return _Reader(arrays, simulator, str(folder)).decode(header["value"])


def check_target(folder: str | Path) -> None:
    """Raise `ValueError` when `save` would not write to this folder, because something else is there."""
    folder = Path(folder)
    if folder.is_dir():
        others = sorted({each.name for each in folder.iterdir()} - {HEADER, ARRAYS})
        if others:
            raise ValueError(f"{folder} holds something else ({', '.join(others[:3])}); choose a new folder")
        if (folder / HEADER).exists() and not _is_ours(folder):
            raise ValueError(f"{folder} holds a {HEADER} that is not ours; choose a new folder")
    elif folder.exists() or folder.is_symlink():
        raise ValueError(f"{folder} is a file; choose a new folder")


# -- values to JSON --------------------------------------------------------------------------------


@functools.cache
def _registry() -> dict[str, type]:
    """Name -> class: every record, enumeration and module of `ROOMS`, but simulators, which may start programs."""
    importlib.import_module("quincunx.methods")
    importlib.import_module("quincunx.answers.answer")
    importlib.import_module("quincunx.checks.calibration")
    classes = {layer.__name__: layer for layer in LAYERS}
    for module in [module for name, module in sorted(sys.modules.items()) if name.startswith(ROOMS)]:
        for name, found in list(vars(module).items()):
            ours = inspect.isclass(found) and found.__module__ == module.__name__
            record = ours and (dataclasses.is_dataclass(found) or issubclass(found, enum.Enum))
            if record and not issubclass(found, AbstractSimulator) and not inspect.isabstract(found):
                classes[name] = found
    return classes


@dataclasses.dataclass(frozen=True)
class _Writer:
    """Turns values into JSON and collects their arrays."""

    arrays: dict[str, np.ndarray]

    def encode(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, str)) or type(value) is int:
            return value
        if type(value) is float:
            return value if np.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, (jax.Array, np.ndarray, np.generic)):
            return self._array(value)
        if isinstance(value, enum.Enum):
            return {"$enum": type(value).__name__, "member": value.name}
        if isinstance(value, (list, tuple)):
            items = [self.encode(item) for item in value]
            return {"$tuple": items} if isinstance(value, tuple) else items
        if isinstance(value, Mapping):
            return {"$dict": {str(name): self.encode(item) for name, item in value.items()}}
        if isinstance(value, Prior):
            return {"$prior": {name: self._distribution(name, d) for name, d in value.distributions.items()}}
        if isinstance(value, AbstractSimulator):
            return {"$simulator": value.name, "prior": self.encode(value.prior)}
        return self._object(value)

    def _array(self, value: Any) -> dict[str, str]:
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            raise TypeError("random keys cannot be saved; save the seed")
        name, array = f"a{len(self.arrays)}", np.asarray(value)
        if array.dtype.kind not in "biufc":
            raise TypeError(f"an array of dtype {array.dtype} cannot be saved; arrays hold numbers or booleans")
        self.arrays[name] = array
        return {"$array": name, "kind": "jax" if isinstance(value, jax.Array) else "numpy"}

    def _object(self, value: Any) -> dict[str, Any]:
        name = type(value).__name__
        if _registry().get(name) is not type(value):
            raise TypeError(f"a {name} cannot be saved; estimators, posteriors, answers and their solutions can")
        fields = {f.name: self.encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"$class": name, "fields": fields}

    def _distribution(self, parameter: str, d: dist.Distribution) -> dict[str, Any]:
        name = type(d).__name__
        if _distributions().get(name) is not type(d):
            raise TypeError(f"prior of {parameter!r}: a {name} cannot be saved; only NumPyro's own distributions can")
        arguments = {}
        for argument in _ARGUMENTS.get(name, _constructor_arguments(type(d))):
            if argument not in dir(d):
                raise TypeError(f"prior of {parameter!r}: a {name} cannot be saved; it does not keep its {argument}")
            value = getattr(d, argument)
            is_distribution = isinstance(value, dist.Distribution)
            arguments[argument] = self._distribution(parameter, value) if is_distribution else self.encode(value)
        return {"$distribution": name, "arguments": arguments}


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Turns JSON back into values."""

    arrays: Mapping[str, np.ndarray]
    simulator: AbstractSimulator | None
    folder: str

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        kind = next(iter(value), "")
        decoders = {
            "$float": lambda v: float(v["$float"]),
            "$array": self._array,
            "$enum": self._enum,
            "$tuple": lambda v: tuple(self.decode(item) for item in v["$tuple"]),
            "$dict": lambda v: {name: self.decode(item) for name, item in v["$dict"].items()},
            "$prior": lambda v: Prior(**{name: self.decode(d) for name, d in v["$prior"].items()}),
            "$simulator": self._simulator,
            "$class": self._object,
            "$distribution": self._distribution,
        }
        if kind not in decoders:
            raise ValueError(f"{self.folder}: unknown entry {kind!r} in {HEADER}")
        return decoders[kind](value)

    def _enum(self, value: dict[str, str]) -> Any:
        members: Any = _registry()[value["$enum"]]
        return members[value["member"]]

    def _array(self, value: dict[str, str]) -> Array:
        array = self.arrays[value["$array"]]
        return jnp.asarray(array) if value["kind"] == "jax" else array

    def _distribution(self, value: dict[str, Any]) -> dist.Distribution:
        name = value["$distribution"]
        return _distributions()[name](**{argument: self.decode(item) for argument, item in value["arguments"].items()})

    def _object(self, value: dict[str, Any]) -> Any:
        name, fields = value["$class"], value["fields"]
        made: Any = _registry().get(name)
        if made is None or {f.name for f in dataclasses.fields(made)} != set(fields):
            raise ValueError(f"{self.folder}: its {name} was made by another version of the library; make it again")
        decoded = {field: self.decode(item) for field, item in fields.items()}
        if isinstance(decoded.get("simulator"), NamedSimulator) and "live" in decoded:
            decoded["live"] = False  # it cannot be run
        if made not in LAYERS:
            return made(**decoded)
        layer = object.__new__(made)  # a layer's constructor would draw new weights
        for field, item in decoded.items():
            object.__setattr__(layer, field, item)
        return layer

    def _simulator(self, value: dict[str, Any]) -> AbstractSimulator:
        saved = NamedSimulator(value["$simulator"], self.decode(value["prior"]), NOT_FOUND)
        built_in = CATALOGUE.get(saved.name)
        if self.simulator is None:
            return built_in if built_in is not None and built_in.prior == saved.prior else saved
        if self.simulator.name != saved.name or self.simulator.prior != saved.prior:
            raise ValueError(
                f"{self.folder} belongs to the simulator {saved.name!r} with {saved.prior}, not to "
                f"{self.simulator.name!r} with {self.simulator.prior}; train an estimator for that one"
            )
        return self.simulator


def _distributions() -> dict[str, Any]:
    """NumPyro's distributions by class name."""
    return {**vars(truncated), **vars(dist)}


def _constructor_arguments(kind: type) -> tuple[str, ...]:
    names = inspect.signature(kind.__init__).parameters
    return tuple(name for name in names if name not in ("self", "validate_args"))


def _roundtrip(value: Any, body: Any, arrays: dict[str, np.ndarray]) -> None:
    """Raise `TypeError` for a prior that would come back as another one."""
    reader = _Reader(arrays, None, "")

    def check(value: Any, body: Any) -> None:
        if isinstance(value, Prior):
            try:
                same = reader.decode(body) == value
            except Exception as error:
                raise TypeError(f"{value} cannot be saved: NumPyro cannot rebuild it ({error})") from error
            if not same:
                raise TypeError(f"{value} cannot be saved: rebuilt from its parameters it is another distribution")
        elif dataclasses.is_dataclass(value) and "$class" in body:
            for name, item in body["fields"].items():
                check(getattr(value, name), item)
        elif isinstance(value, AbstractSimulator):
            check(value.prior, body["prior"])

    check(value, body)


# -- files -----------------------------------------------------------------------------------------


def _about(value: Any, seed: int | None) -> dict[str, Any]:
    """For people: what is in the folder."""
    parts = [leaf for leaf in _walk(value) if isinstance(leaf, (AbstractSimulator, Prior))]
    names = {part.name for part in parts if isinstance(part, AbstractSimulator)}
    priors = {repr(part if isinstance(part, Prior) else part.prior) for part in parts}
    return {
        "class": type(value).__name__,
        "simulator": names.pop() if len(names) == 1 else None,
        "prior": priors.pop() if len(priors) == 1 else None,
        "seed": seed,
    }


def _walk(value: Any) -> list[Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, AbstractSimulator):
        return [leaf for f in dataclasses.fields(value) for leaf in _walk(getattr(value, f.name))]
    return [value]


def _digest(header: Mapping[str, Any]) -> str:
    body = {name: value for name, value in header.items() if name != "header_sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        for name, content in files.items():
            with open(fresh / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        fresh.chmod(0o777 & ~_umask())
        if folder.is_dir():
            old = fresh.with_suffix(".old.partial")
            os.rename(folder, old)
            os.rename(fresh, folder)
            shutil.rmtree(old)
        else:
            os.rename(fresh, folder)
    finally:
        if fresh.exists():
            shutil.rmtree(fresh)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _is_ours(folder: Path) -> bool:
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(header, dict) and header.get("format") == FORMAT


def _header(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}; give one that was saved by quincunx")
    if not (folder / HEADER).is_file():
        raise ValueError(f"{folder} was not saved by quincunx: it has no {HEADER}")
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder}: {HEADER} is cut short or damaged ({error}); save it again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{folder} was not saved by quincunx: {HEADER} is another program's")
    known = header.get("format_version")
    if not isinstance(known, int) or known > FORMAT_VERSION:
        raise ValueError(
            f"{folder} has format version {known}; this library ({version()}) reads up to {FORMAT_VERSION}: "
            f"update it (the folder was written by {header.get('library_version')})"
        )
    if header.get("header_sha256") != _digest(header):
        raise ValueError(f"{folder}: {HEADER} was altered after it was saved; save it again")
    return header


def _arrays(folder: Path, expected: str) -> dict[str, np.ndarray]:
    if not (folder / ARRAYS).is_file():
        raise ValueError(f"{folder}: {ARRAYS} is missing; copy the whole folder")
    content = (folder / ARRAYS).read_bytes()
    if hashlib.sha256(content).hexdigest() != expected:
        raise ValueError(f"{folder}: {ARRAYS} is cut short or altered; copy the folder again")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{folder}: {ARRAYS} cannot be read ({error})") from error
