"""What the commands share: options, errors as one red message and an exit code, tables and JSON."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core import defaults as defaults

FAILED, MISUSED = 1, 2

Simulator = Annotated[str, typer.Argument(metavar="SIMULATOR", help="Built-in name, or path/to/file.py:name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE.toml", help="Settings: these options, and tables training, machine, loss."),
]
Method = Annotated[str | None, typer.Option("--method", show_default=defaults.METHOD, help="How to infer.")]
NumSimulations = Annotated[
    int | None,
    typer.Option("--simulations", min=1, show_default=str(defaults.NUM_SIMULATIONS), help="Size of the training bank."),
]
NumObservations = Annotated[
    int | None,
    typer.Option(
        "--observations", min=1, show_default=str(defaults.NUM_OBSERVATIONS), help="Observations in each simulation."
    ),
]
MaxObservations = Annotated[
    int | None,
    typer.Option(
        "--max-observations", min=1, show_default=str(defaults.MAX_OBSERVATIONS), help="Most that data sets will have."
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, max=2**32 - 1, show_default=str(defaults.SEED), help="Random seed.")
]
Resume = Annotated[bool | None, typer.Option("--resume", help="Go on from the checkpoint of an interrupted training.")]


class Interrupted(Exception):
    """Ctrl-C, with what is left of the work."""


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Errors as one red message and an exit code. What is nobody's misuse keeps its traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        fail(str(error), MISUSED, error)
    except Interrupted as error:
        fail(str(error), FAILED, error)
    except KeyboardInterrupt as error:
        fail("interrupted before there was anything to keep", FAILED, error)
    except RuntimeError as error:
        from ..core.solution import InferenceError
        from ..sample.simulate import SimulationError

        if not isinstance(error, (InferenceError, SimulationError)):
            raise
        fail(str(error), FAILED, error)


def fail(message: str, code: int, error: BaseException) -> None:
    from rich.text import Text

    terminal(stderr=True).print(Text(f"Error: {message}", style="red"), soft_wrap=True)
    raise typer.Exit(code) from error


def print_warnings(warnings: tuple[str, ...]) -> None:
    from rich.text import Text

    for warning in warnings:
        terminal(stderr=True).print(Text(f"Warning: {warning}", style="yellow"), soft_wrap=True)


def print_json(value: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2))


def terminal(stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr)


def assignments(texts: list[str], columns: tuple[str, ...]) -> dict[str, float]:
    """`NAME=VALUE` texts as numbers by name."""
    named: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            equals = ""
            number = 0.0
        if not equals:
            raise ValueError(f"--at {text}: expected NAME=VALUE with a number, such as --at {columns[0]}=1")
        if name.strip() in named:
            raise ValueError(f"--at {name.strip()} is given twice; give each parameter once")
        named[name.strip()] = number
    return named
