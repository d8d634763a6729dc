"""`quincunx reproduce`: the numbers and figures of the documentation."""

import functools
from pathlib import Path
from typing import Annotated

import typer

from ..options import errors


def reproduce(
    result: Annotated[str, typer.Argument(metavar="RESULT", help="What to reproduce: alfi, gold or machine.")],
    out: Annotated[
        Path | None, typer.Option("--out", show_default="quincunx-RESULT", help="Folder for figures and numbers.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="One part; may be given several times.")] = None,
) -> None:
    """Reproduce published results, with the numbers and figures of the documentation.

    alfi: Figures 2 to 6 of Pesah, Wehenkel and Louppe (2018), in a quarter of an hour; its parts are simulators. gold:
    errors of the methods on the Galton board and on EFT, and coverage (parts galton, eft, coverage), in an hour.
    machine: what the parts of the recurrent machine are for and what it learns (parts ablation, learnt, transfer), in
    an hour.
    """
    with errors():
        from . import paper, parts

        results = {
            "alfi": ([problem.name for problem in paper.PROBLEMS], paper.main),
            "gold": (parts.GOLD, functools.partial(parts.main, parts.GOLD)),
            "machine": (parts.MACHINE, functools.partial(parts.main, parts.MACHINE)),
        }
        if result not in results:
            raise ValueError(f"unknown result {result!r}; there are {', '.join(results)}")
        known, main = results[result]
        for name in only or ():
            if name not in known:
                raise ValueError(f"--only: unknown part {name!r}; there are {', '.join(known)}")
        folder = out or Path(f"quincunx-{result}")
        main(folder, say=lambda text: typer.echo(text, err=True), names=list(only or known))
        typer.echo(f"figures, tables and numbers are in {folder}")
