"""Simulators by reference: a built-in name, or `path/to/file.py:name`."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from ..core.names import nearest
from ..core.simulator import AbstractSimulator
from . import BUILT_IN


def resolve(reference: str) -> AbstractSimulator:
    """The simulator that a reference names. A file is run to get it, once in a process.

    Raises
    ------
    ValueError: no built-in simulator of that name (the nearest is named), or no simulator of that name in the file.
    FileNotFoundError: no such file.
    """
    path, colon, name = reference.rpartition(":")
    if not colon:
        path, name = (reference, "") if reference.endswith(".py") else ("", reference)
    if not path:
        return _built_in(name)
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}; give a built-in name or path/to/file.py:name")
    module = _module(Path(path).resolve())
    found = {key: value for key, value in vars(module).items() if isinstance(value, AbstractSimulator)}
    if name not in found:
        has = f"it has {', '.join(found)}" if found else "it has none: decorate a function with @qx.simulator(prior)"
        raise ValueError(f"{path} has no simulator {name!r}{nearest(name, found)}; {has}; write {path}:name")
    return found[name]


def _built_in(name: str) -> AbstractSimulator:
    if name not in BUILT_IN:
        raise ValueError(
            f"unknown simulator {name!r}{nearest(name, BUILT_IN)}; give one of {', '.join(BUILT_IN)}, "
            "or path/to/file.py:name"
        )
    return BUILT_IN[name]


def _module(path: Path) -> ModuleType:
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be imported; give a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.parent)
    sys.path.insert(0, folder)  # as for a script: a simulator may import its neighbours
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(folder)
    return module
