"""The command `quincunx`. JAX is imported only inside the commands, so that `--help` answers at once.

Exit codes: 0, 1 for an inference or a simulation that failed or was interrupted, 2 for misuse. With `--json`
standard output holds one JSON object and nothing else; bars, warnings and errors go to standard error.
"""

from typing import Annotated

import typer

from ..core.defaults import version
from . import check, data, demo, infer, limits, lists, train
from .reproduce import command as reproduce

app = typer.Typer(
    name="quincunx",
    help="Runs simulators backwards: which parameters made the data, and how sure are we?",
    epilog="SIMULATOR is a built-in name (see `quincunx simulators`) or path/to/file.py:name.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


@app.callback(invoke_without_command=False)
def _common(
    show_version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, help="Print the version.", callback=lambda on: _print_version(on)),
    ] = False,
) -> None:
    pass


def _print_version(on: bool) -> None:
    if on:
        typer.echo(f"quincunx {version()}")
        raise typer.Exit


for _name, _function in {
    "demo": demo.demo,
    "methods": lists.methods,
    "simulators": lists.simulators,
    "simulate": data.simulate,
    "mine": data.mine,
    "train": train.train,
    "infer": infer.infer,
    "limits": limits.limits,
    "check": check.check,
    "reproduce": reproduce.reproduce,
}.items():
    app.command(_name)(_function)


def main() -> None:
    """The entry point of the command."""
    app()
