"""`quincunx check`: whether a trained estimator's posteriors are true, on fresh simulations."""

from pathlib import Path
from typing import Annotated

import typer

from ..core import defaults
from .options import AsJson, Attached, Seed, errors, load_estimator, print_files, print_json, terminal, write_json

FILES = ("checks.png", "checks.json")


def check(
    model: Annotated[Path, typer.Option("--model", metavar="MODEL_DIR", help="An estimator, from `quincunx train`.")],
    attached: Attached = None,
    problems: Annotated[int, typer.Option("--problems", min=50, help="Data sets to simulate and infer.")] = 300,
    draws: Annotated[int, typer.Option("--draws", min=20, help="Of the posterior of each.")] = 300,
    observations: Annotated[
        int | None, typer.Option("--observations", min=1, show_default="the model's", help="In each data set.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder for figure and numbers.")] = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Check an estimator's posteriors on fresh simulations, in words: ranks (SBC), expected coverage, TARP.

    Example: quincunx check --model model --observations 20
    """
    with errors():
        import jax

        from ..checks.posterior_tests import plot_tests, posterior_tests
        from ..core.progress import RichProgress

        found = posterior_tests(
            jax.random.key(defaults.SEED if seed is None else seed),
            load_estimator(model, attached),
            num_problems=problems,
            num_draws=draws,
            num_observations=observations,
            progress=RichProgress(),
        )
        trusted = all(test.passed for test in found)
        report = {"model": str(model), "trusted": trusted, "tests": [test.to_dict() for test in found]}
        if out is not None:
            write_json(out / FILES[1], report)
            plot_tests(found, out / FILES[0])
        if as_json:
            print_json(report)
            return
        for test in found:
            terminal().print(f"{'passed' if test.passed else 'FAILED'}  {test.message}", soft_wrap=True)
        verdict = (
            "Its widths are true on average over the prior, as far as this shows."
            if trusted
            else "Do not trust its posteriors as they stand: simulate more, train for longer, or take another method."
        )
        terminal().print(verdict, style="green" if trusted else "red")
        if out is not None:
            print_files(out, FILES)
