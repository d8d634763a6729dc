"""What JAX compiles while a block runs, by the names of the functions; found in the persistent cache or not."""

import contextlib
from collections.abc import Iterator

import jax

LOWERING = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_listening: list[list[str]] = []


def _hear(event: str, seconds: float, **about: object) -> None:
    if event == LOWERING:
        for names in _listening:
            names.append(str(about.get("fun_name")))


jax.monitoring.register_event_duration_secs_listener(_hear)


@contextlib.contextmanager
def compiled() -> Iterator[list[str]]:
    names: list[str] = []
    _listening.append(names)
    try:
        yield names
    finally:
        _listening.remove(names)
