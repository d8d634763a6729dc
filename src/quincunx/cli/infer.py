"""`quincunx infer`: the parameters behind data, with a trained estimator or from scratch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    DATA_TYPES,
    TRAIN_TYPES,
    AsJson,
    Attached,
    Columns,
    Config,
    Counts,
    Data,
    Method,
    NumSimulations,
    Resume,
    Seed,
    Set,
    errors,
    load_estimator,
    print_files,
    print_json,
    print_warnings,
    read_data,
    terminal,
    write_json,
)
from .train import kept_in

if TYPE_CHECKING:
    from ..answers.answer import Answer

FILES = ("figure.png", "result.json", "answer")


def infer(
    simulator: Annotated[
        str | None, typer.Argument(metavar="[SIMULATOR]", help="Train for this one now; or attach it to the model.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="MODEL_DIR", help="A trained estimator, from `quincunx train`.")
    ] = None,
    attached: Attached = None,
    data: Data = None,
    columns: Columns = None,
    counts: Counts = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for figure, result and answer.")
    ] = None,
    method: Method = None,
    options: Set = None,
    simulations: NumSimulations = None,
    seed: Seed = None,
    posterior: Annotated[
        bool, typer.Option("--posterior", help="Also sample the posterior where the method gives a likelihood.")
    ] = False,
    resume: Resume = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Infer the parameters behind the data: a posterior, or intervals from a likelihood, as the method gives.

    Examples: quincunx infer --model MODEL_DIR --data x.csv  /  quincunx infer weinberg --data x.csv
    """
    with errors():
        from .config import settings

        if simulator is not None and attached is not None:
            raise ValueError("the simulator is given twice; drop --simulator, or the argument")
        given = {
            "model": model, "data": data, "column": columns or None, "counts": counts, "out": out, "method": method,
            "set": options, "simulations": simulations, "seed": seed, "resume": resume,
        }  # fmt: skip
        merged = settings(config, given, {**TRAIN_TYPES, **DATA_TYPES, "model": str, "out": str})
        folder = Path(merged["out"]) if merged["out"] else None
        answer = _answer(simulator or attached, merged, folder)
        if posterior:
            _ = answer.posterior
        if folder is not None:
            _write(folder, answer)
        if as_json:
            print_json(answer.to_dict())
            return
        print_answer(answer)
        if folder is not None:
            print_files(folder, FILES)


def _answer(reference: str | None, merged: Mapping[str, Any], folder: Path | None) -> "Answer":
    from ..campaigns.save import check_target
    from ..core.progress import RichProgress
    from ..methods.door import event_shape_of
    from ..methods.door import infer as run_inference
    from ..problems.lookup import resolve
    from .config import key_of, method_of

    if folder is not None:
        check_target(folder / FILES[2])
    simulator = None if reference is None else resolve(reference)
    if merged["model"] is not None:
        useless = [name for name in TRAIN_TYPES if name != "seed" and merged[name] is not None]
        if useless or merged["options"] or merged["training"]:
            raise ValueError(
                f"a trained model takes no {', '.join(useless or ['options'])}; drop them, or drop --model"
            )
        loaded = load_estimator(Path(merged["model"]), reference)
        x = read_data(merged, getattr(loaded, "value", loaded).event_shape)
        return run_inference(key_of(merged), simulator, x, estimator=loaded, progress=RichProgress())
    if simulator is None:
        raise ValueError("give a SIMULATOR to train for, or --model MODEL_DIR")
    x = read_data(merged, event_shape_of(simulator))
    with kept_in(folder / FILES[2] if folder else Path(f"quincunx-{simulator.name}"), merged, for_one=True) as how:
        return run_inference(key_of(merged), simulator, x, method_of(merged), progress=RichProgress(), **how)


def _write(folder: Path, answer: "Answer") -> None:
    from ..campaigns.save import save
    from ..checks.plots import plot

    plot(answer, folder / FILES[0])
    write_json(folder / FILES[1], answer.to_dict())
    save(folder / FILES[2], answer, seed=answer.seed)


def print_answer(answer: "Answer") -> None:
    """The posterior's table, or the likelihood's intervals, what it took, and the warnings."""
    from rich.table import Table

    from .limits import print_regions

    count = len(answer.x)
    title = f"{answer.simulator.name}, {count:,} observation{'s' * (count != 1)}"
    if answer.inferred is None:
        print_regions(answer.regions(), title)
    if answer.known_posterior is not None:
        summary = answer.known_posterior.summary()
        table = Table("parameter", title=title)
        for name in next(iter(summary.values())):
            table.add_column(name, justify="right")
        for column, row in summary.items():
            table.add_row(column, *(f"{value:.5g}" for value in row.values()))
        terminal().print(table)
    terminal().print(f"{answer.num_simulator_calls:,} observations simulated")
    for note in answer.notes:
        terminal().print(note, style="dim", soft_wrap=True)
    print_warnings(answer.warnings)
