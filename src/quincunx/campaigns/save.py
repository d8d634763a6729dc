"""Save and load without pickle: a folder with a header in JSON and the arrays in one file.

The header says what the folder is (format and library version, class, simulator, parameters, seed) and holds the
value itself as nested JSON, in which every array is a reference into the arrays' file. Loading runs no code and imports
nothing that a folder names: a simulator is attached by its owner, or built in. Both files carry a SHA-256, so that a
folder that was cut short, or altered by accident, is refused.
"""

import dataclasses
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.defaults import version
from ..core.prior import Prior
from ..core.simulator import AbstractSimulator
from .encoding import Reader, Writer, check_roundtrip

FORMAT, FORMAT_VERSION = "quincunx", 2
HEADER, ARRAYS = "header.json", "arrays.npz"


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
    writer = Writer({})
    body = writer.encode(value)
    check_roundtrip(value, body, writer.arrays)
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
        by itself. Without it the estimator answers all that needs no simulator; but functions are not saved, so that a
        prior with a distribution given by a function needs it, and derived quantities come with it alone.

    Raises
    ------
    FileNotFoundError: no such folder.
    ValueError: the folder is not one of ours, is cut short or altered, comes from a newer version, or belongs to
        another simulator; or its prior has functions, and no simulator is given that has them.
    """
    folder = Path(folder)
    header = _header(folder)
    arrays = _arrays(folder, header.get("arrays_sha256"))
    try:
        return Reader(arrays, simulator, str(folder)).decode(header["value"])
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"{folder}: {HEADER} describes nothing that this library can make ({error!r}); save it again"
        ) from error


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


def _arrays(folder: Path, expected: str | None) -> dict[str, np.ndarray]:
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
