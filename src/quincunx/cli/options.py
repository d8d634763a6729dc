"""What the commands share: options, errors as one red message and an exit code, tables and JSON."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core import defaults

FAILED, MISUSED = 1, 2

Simulator = Annotated[str, typer.Argument(metavar="SIMULATOR", help="Built-in name, or path/to/file.py:name.")]
Attached = Annotated[
    str | None,
    typer.Option("--simulator", metavar="SIMULATOR", help="What the model was trained for, unless it is built in."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE.toml", help="Settings: these options, and tables options and training."),
]
Method = Annotated[
    str | None, typer.Option("--method", show_default=defaults.METHOD, help="One of those in `quincunx methods`.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="An option of the method, such as alpha=5 or network.members=5."),
]
NumSimulations = Annotated[
    int | None,
    typer.Option("--simulations", min=1, show_default="the method's", help="Observations to simulate, in all."),
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, max=2**32 - 1, show_default=str(defaults.SEED), help="Random seed.")
]
Resume = Annotated[bool | None, typer.Option("--resume", help="Go on from the checkpoint of an interrupted training.")]
Data = Annotated[Path | None, typer.Option("--data", metavar="X.csv", help="One observation per row.")]
Columns = Annotated[
    list[str] | None, typer.Option("--column", metavar="NAME", help="A column to read; all if not given.")
]
Counts = Annotated[
    str | None, typer.Option("--counts", metavar="NAME", help="Column that says how often its row was observed.")
]
TRAIN_TYPES: Mapping[str, Any] = {"method": str, "simulations": int, "seed": int, "resume": bool}
DATA_TYPES: Mapping[str, Any] = {"data": str, "column": list[str], "counts": str}


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


def print_files(folder: Path, names: tuple[str, ...]) -> None:
    terminal().print("Files: " + ", ".join(str(folder / name) for name in names), soft_wrap=True)


def terminal(stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_data(merged: Mapping[str, Any], event_shape: tuple[int, ...]) -> Any:
    """The observations that --data, --column and --counts name."""
    from ..core.tables import read_observations

    if merged["data"] is None:
        raise ValueError("no data; give --data X.csv, one observation per row")
    columns = merged["column"] or ()
    return read_observations(merged["data"], event_shape=event_shape, columns=columns, counts=merged["counts"])


def load_estimator(folder: Path, reference: str | None) -> Any:
    """What was trained: a solution as it was saved, the estimator of an answer, or an estimator."""
    from ..answers.answer import Answer
    from ..answers.estimates import AbstractEstimator
    from ..campaigns.save import load
    from ..problems.lookup import resolve

    loaded = load(folder, simulator=None if reference is None else resolve(reference))
    found = loaded.estimator if isinstance(loaded, Answer) else loaded
    if not isinstance(getattr(found, "value", found), AbstractEstimator):
        raise ValueError(f"{folder} holds a {type(loaded).__name__}, no estimator; give what `quincunx train` made")
    return found


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


def theta_of(texts: list[str] | None, columns: tuple[str, ...]) -> Any:
    """theta `(dim,)` from `NAME=VALUE` texts, or None without any."""
    from ..core.tables import parameter_vector

    return parameter_vector(assignments(texts, columns), columns) if texts else None
