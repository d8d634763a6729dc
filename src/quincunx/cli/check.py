"""`quincunx check`: whether a trained estimator's posteriors are true, on fresh simulations."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..core import defaults
from .options import (
    AsJson,
    Attached,
    Columns,
    Counts,
    Data,
    Seed,
    errors,
    load_estimator,
    print_files,
    print_json,
    read_data,
    terminal,
    write_json,
)

FILES = ("checks.png", "checks.json")


def check(
    model: Annotated[Path, typer.Option("--model", metavar="MODEL_DIR", help="An estimator, from `quincunx train`.")],
    attached: Attached = None,
    data: Data = None,
    columns: Columns = None,
    counts: Counts = None,
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

    With data also their own posterior: whether it is right there, and predicts such data.

    Example: quincunx check --model model --observations 20  /  quincunx check --model model --data x.csv
    """
    with errors():
        import jax

        from ..answers.answer import posterior
        from ..checks.local_test import local_test
        from ..checks.posterior_tests import plot_tests, posterior_tests
        from ..checks.predictive import predictive_test
        from ..core.progress import RichProgress

        estimator = load_estimator(model, attached)
        net = getattr(estimator, "value", estimator)
        key = jax.random.key(defaults.SEED if seed is None else seed)
        local_key, ask_key, predict_key = (jax.random.fold_in(key, turn) for turn in range(1, 4))
        counted = {"num_problems": problems, "progress": RichProgress()}
        x = None
        if data is not None:
            if observations is not None:
                raise ValueError("data say how many observations there are: drop --observations")
            x = read_data({"data": data, "column": columns, "counts": counts}, net.event_shape)
            observations = len(x)
        found: list[Any] = [*posterior_tests(key, net, num_draws=draws, num_observations=observations, **counted)]
        if x is not None:
            found.append(local_test(local_key, net, x, **counted))
            found.append(predictive_test(predict_key, net.simulator, posterior(net, x, key=ask_key), x))
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
        here = "" if x is None else ", and for these data"
        verdict = (
            f"Its widths are true on average over the prior{here}, as far as this shows."
            if trusted
            else "Do not trust its posteriors as they stand: simulate more, train for longer, or take another method."
        )
        terminal().print(verdict, style="green" if trusted else "red")
        if out is not None:
            print_files(out, FILES)
