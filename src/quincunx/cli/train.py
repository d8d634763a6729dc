"""`quincunx train`: an estimator to keep, by any method."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    TRAIN_TYPES,
    AsJson,
    Config,
    Interrupted,
    Method,
    NumSimulations,
    Resume,
    Seed,
    Set,
    Simulator,
    errors,
    print_json,
    print_warnings,
    terminal,
)

CHECKPOINT = ".checkpoint"  # beside the folder that a training will write


def train(
    simulator: Simulator,
    out: Annotated[Path | None, typer.Option("--out", metavar="MODEL_DIR", help="Folder for what was trained.")] = None,
    method: Method = None,
    options: Set = None,
    simulations: NumSimulations = None,
    observations: Annotated[
        int | None, typer.Option("--observations", min=1, help="Size of the data sets it is for, if there is one.")
    ] = None,
    gold: Annotated[
        Path | None,
        typer.Option("--gold", metavar="FILE.csv", help="Learn from gold mined before, instead of new runs."),
    ] = None,
    seed: Seed = None,
    resume: Resume = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Train for a simulator, to infer with later and often.

    Example: quincunx train galton --method alices --set alpha=5 --out model
    """
    with errors():
        from ..campaigns.save import save
        from ..core.progress import RichProgress
        from ..gold.files import read_gold
        from ..methods.door import train as run_training
        from ..problems.lookup import resolve
        from .config import key_of, method_of, seed_of, settings

        given = {
            "out": out, "method": method, "set": options, "simulations": simulations, "observations": observations,
            "gold": gold, "seed": seed, "resume": resume,
        }  # fmt: skip
        merged = settings(config, given, {**TRAIN_TYPES, "out": str, "observations": int, "gold": str})
        if merged["out"] is None:
            raise ValueError("no folder to write to; give --out MODEL_DIR")
        if merged["gold"] is not None and merged["simulations"] is not None:
            raise ValueError("--gold brings its own simulations; drop --simulations")
        folder, found, chosen = Path(merged["out"]), resolve(simulator), method_of(merged)
        sims = None if merged["gold"] is None else read_gold(merged["gold"], found)
        with kept_in(folder, merged) as how:
            solution = run_training(
                key_of(merged), found, chosen, sims=sims, num_observations=merged["observations"],
                progress=RichProgress(), **how,
            )  # fmt: skip
        save(folder, solution, seed=seed_of(merged))
        report = {
            "model": str(folder),
            "simulator": found.name,
            "method": chosen.name,
            "status": solution.status.value,
            "seed": seed_of(merged),
            "statistics": {name: float(value) for name, value in solution.statistics.items()},
            "warnings": list(solution.warnings),
        }
        if as_json:
            print_json(report)
            return
        calls = int(solution.statistics["num_simulator_calls"])
        terminal().print(
            f"Trained {chosen.name} on {calls:,} simulated observations; saved in {folder}", soft_wrap=True
        )
        print_warnings(solution.warnings)


@contextlib.contextmanager
def kept_in(folder: Path, merged: Mapping[str, Any], *, for_one: bool = False) -> Iterator[dict[str, Any]]:
    """How to train, with a checkpoint that lies beside the folder for as long as it takes."""
    from ..campaigns.save import check_target
    from ..core.solution import InferenceError
    from .config import method_of, training_of

    check_target(folder)
    checkpoint = folder.with_name(folder.name + CHECKPOINT)
    if checkpoint.exists() and not merged["resume"]:
        raise ValueError(f"{checkpoint} is there from an interrupted training; add --resume to go on, or delete it")
    try:
        yield {
            "num_simulations": merged["simulations"],
            "training": training_of(merged, method_of(merged), for_one=for_one),
            "checkpoint": checkpoint,
            "resume": bool(merged["resume"]),
        }
    except InferenceError:
        checkpoint.unlink(missing_ok=True)  # it would fail again
        raise
    except KeyboardInterrupt as error:
        if checkpoint.exists():
            raise Interrupted(f"interrupted; the checkpoint is kept in {checkpoint}; add --resume to go on") from error
        raise
    checkpoint.unlink(missing_ok=True)
