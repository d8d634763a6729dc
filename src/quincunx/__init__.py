"""Quincunx runs simulators backwards: likelihood-free inference on JAX.

Every public name stands in `__init__.pyi`, once, and is imported when it is first used: `import quincunx` takes
milliseconds and does not import JAX.
"""

from typing import Any

import lazy_loader

_lazy, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from .core.defaults import version

        return version()
    return _lazy(name)
