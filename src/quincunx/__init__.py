"""Quincunx runs simulators backwards: likelihood-free inference on JAX.

Every public name stands here, once, and is imported when it is first used: `import quincunx` takes
milliseconds and does not import JAX.

Some public functions are called like the module they live in (`fit`, `simulate`, `infer`, `simulator`).
The import system sets the attribute of a package to every submodule that is imported, which would hide
the function; `_Package` refuses that, so that `qx.fit` is always the function. The modules are imported
from by `from quincunx.fit import ...` as usual.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import simulators as simulators
    from ._types import InferenceError as InferenceError
    from ._types import Solution as Solution
    from ._types import Status as Status
    from .fit import Training as Training
    from .fit import fit as fit
    from .host import executable as executable
    from .host import numpy_simulator as numpy_simulator
    from .infer import Inference as Inference
    from .infer import infer as infer
    from .infer import train as train
    from .io import load as load
    from .io import save as save
    from .kernel import run as run
    from .methods.alfi import ALFI as ALFI
    from .methods.alfi import ConstantWeighting as ConstantWeighting
    from .methods.alfi import ExponentialWeighting as ExponentialWeighting
    from .methods.alfi import LastWeighting as LastWeighting
    from .methods.alfi import MeanSquaredError as MeanSquaredError
    from .methods.alfi import NegativeLogLikelihood as NegativeLogLikelihood
    from .methods.alfi import SettledWeighting as SettledWeighting
    from .methods.alfi import simulate_bank as simulate_bank
    from .methods.machine import RecurrentMachine as RecurrentMachine
    from .posterior import Proposal as Proposal
    from .prior import Prior as Prior
    from .progress import NoProgress as NoProgress
    from .progress import RichProgress as RichProgress
    from .simulate import SimulationError as SimulationError
    from .simulate import simulate as simulate
    from .simulations import Simulations as Simulations
    from .simulator import simulator as simulator

    __version__: str

_MODULES = {
    "_types": ["InferenceError", "Solution", "Status"],
    "fit": ["Training", "fit"],
    "host": ["executable", "numpy_simulator"],
    "infer": ["Inference", "infer", "train"],
    "io": ["load", "save"],
    "kernel": ["run"],
    "methods.alfi": [
        "ALFI",
        "ConstantWeighting",
        "ExponentialWeighting",
        "LastWeighting",
        "MeanSquaredError",
        "NegativeLogLikelihood",
        "SettledWeighting",
        "simulate_bank",
    ],
    "methods.machine": ["RecurrentMachine"],
    "posterior": ["Proposal"],
    "prior": ["Prior"],
    "progress": ["NoProgress", "RichProgress"],
    "simulate": ["SimulationError", "simulate"],
    "simulations": ["Simulations"],
    "simulator": ["simulator"],
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", "simulators", *sorted(_HOME)]  # pyright: ignore[reportUnsupportedDunderAll]


class _Package(types.ModuleType):
    """A module whose public functions are not replaced by submodules of the same name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _HOME or not isinstance(value, types.ModuleType):
            types.ModuleType.__setattr__(self, name, value)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from ._version import version

        value: Any = version()
    elif name == "simulators":
        value = importlib.import_module(f"{__name__}.simulators")
    elif name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
