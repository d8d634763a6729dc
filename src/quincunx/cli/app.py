"""The command `quincunx`. JAX is imported only inside the commands, so that `--help` answers at once.

Exit codes: 0, 1 for an inference or a simulation that failed or was interrupted, 2 for misuse. With `--json`
standard output holds one JSON object and nothing else; bars, warnings and errors go to standard error.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core import defaults as defaults
from . import gold_commands as cli_gold
from .options import (
    AsJson,
    Config,
    Interrupted,
    MaxObservations,
    Method,
    NumObservations,
    NumSimulations,
    Resume,
    Seed,
    Simulator,
    assignments,
    errors,
    print_json,
    print_warnings,
    terminal,
)

if TYPE_CHECKING:
    from ..core.simulator import AbstractSimulator
    from ..methods.door import Inference

app = typer.Typer(
    name="quincunx",
    help="Runs simulators backwards: which parameters made the data, and how sure are we?",
    epilog="SIMULATOR is a built-in name (see `quincunx simulators`) or path/to/file.py:name.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)

CHECKPOINT = ".checkpoint"  # beside the folder that a training will write

TRAIN_TYPES: Mapping[str, Any] = {
    "method": str, "simulations": int, "observations": int, "max_observations": int, "seed": int, "resume": bool,
}  # fmt: skip


def main() -> None:
    """The entry point of the command."""
    app()


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
        from ..core.defaults import version

        typer.echo(f"quincunx {version()}")
        raise typer.Exit


# -- commands --------------------------------------------------------------------------------------


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option("--out", show_default="quincunx-demo", help="Folder for figure, result and machine.")
    ] = None,
    seed: Seed = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Infer the rate of Rutherford and Geiger's alpha particles (1910): real data, one line, three minutes."""
    with errors():
        from ..core.progress import RichProgress
        from . import demo as the_demo
        from .config import TRAIN_KEYS, key_of, settings, train_arguments

        kinds = {"out": str, "seed": int, **{key: kind for key, (_, kind) in TRAIN_KEYS.items()}}
        merged = settings(config, {"out": out, "seed": seed}, kinds)
        folder = Path(merged["out"] or "quincunx-demo")
        found = the_demo.demonstrate(key_of(merged), folder, RichProgress(), train_arguments(merged))
        if as_json:
            print_json({**found.to_dict(), "files": [str(folder / name) for name in the_demo.FILES]})
            return
        console = terminal()
        console.print(the_demo.table(found))
        console.print(the_demo.sentence(found))
        print_warnings(found.inference.warnings)
        console.print("Files: " + ", ".join(str(folder / name) for name in the_demo.FILES), soft_wrap=True)


@app.command("simulators")
def list_simulators(as_json: AsJson = False) -> None:
    """List the built-in simulators, with their parameters, priors and sources."""
    with errors():
        from rich.table import Table

        from ..core.prior import describe
        from ..problems import CATALOGUE

        rows = [
            {
                "name": each.name,
                "parameters": {name: describe(d) for name, d in each.prior.distributions.items()},
                "event_shape": list(each.event_shape),
                "source": each.source,
            }
            for each in CATALOGUE.values()
        ]
        if as_json:
            print_json({"simulators": rows})
            return
        table = Table("simulator", "parameters and priors", "observation", "source", show_lines=True)
        for row in rows:
            priors = "\n".join(f"{name} ~ {text}" for name, text in row["parameters"].items())
            table.add_row(row["name"], priors, str(tuple(row["event_shape"])), row["source"])
        terminal().print(table)


@app.command()
def simulate(
    simulator: Simulator,
    at: Annotated[
        list[str] | None, typer.Option("--at", metavar="NAME=VALUE", help="A parameter; once for each of them.")
    ] = None,
    observations: Annotated[int, typer.Option("--observations", min=1, help="How many observations.")] = 100,
    seed: Seed = None,
    out: Annotated[Path | None, typer.Option("--out", help="CSV file; standard output if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate observations at given parameters, and write them as CSV.

    Example: quincunx simulate weinberg --at energy=42 --at fermi=0.9 --observations 1000 --seed 1 --out x.csv
    """
    with errors():
        import jax

        from ..core.tables import parameter_vector
        from ..problems.lookup import resolve
        from ..sample.simulate import simulate as run_simulator

        found = resolve(simulator)
        theta = parameter_vector(assignments(at or [], found.prior.columns), found.prior.columns)
        number = defaults.SEED if seed is None else seed
        sims = run_simulator(jax.random.key(number), found, num_observations=observations, theta=theta[None])
        named = dict(zip(found.prior.columns, theta.tolist(), strict=True))
        about = {"simulator": found.name, "parameters": named, "seed": number, "num_observations": observations}
        _write_simulated(sims.x[0], about, out, as_json)


@app.command()
def train(
    simulator: Simulator,
    out: Annotated[Path | None, typer.Option("--out", metavar="MODEL_DIR", help="Folder for what was trained.")] = None,
    method: Method = None,
    simulations: NumSimulations = None,
    observations: NumObservations = None,
    max_observations: MaxObservations = None,
    reference: cli_gold.Reference = None,
    at: cli_gold.At = None,
    members: cli_gold.Members = None,
    gold: cli_gold.GoldFile = None,
    seed: Seed = None,
    resume: Resume = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Train for a simulator, to infer with later and often: a machine (alfi), or an estimate of the likelihood ratio.

    Methods: alfi; carl, nre, nde, histogram for any simulator; rolr, cascal, alice, rascal, alices, scandal, sally,
    sallino for those that give gold. The options --reference, --at, --members and --gold are for these.

    Example: quincunx train galton --method alices --out model
    """
    with errors():
        from ..campaigns.save import check_target, save
        from ..core.progress import RichProgress
        from ..problems.lookup import resolve
        from .config import key_of, seed_of, settings

        given = {
            "out": out, "method": method, "simulations": simulations, "observations": observations,
            "max_observations": max_observations, "seed": seed, "resume": resume, "reference": reference,
            "at": at or None, "members": members, "gold": gold,
        }  # fmt: skip
        merged = settings(config, given, {"out": str, **TRAIN_TYPES, **cli_gold.TRAIN_TYPES})
        if merged["out"] is None:
            raise ValueError("no folder to write to; give --out MODEL_DIR")
        folder, found = Path(merged["out"]), resolve(simulator)
        if merged["method"] in (None, defaults.METHOD):
            from ..methods.door import train as train_machine

            cli_gold.refuse_for_machines(merged)
            with _kept_in(folder, merged) as options:
                solution = train_machine(key_of(merged), found, progress=RichProgress(), **options)
        else:
            check_target(folder)
            solution = cli_gold.train(key_of(merged), found, merged)
        save(folder, solution, seed=seed_of(merged))
        report = {
            "model": str(folder),
            "simulator": found.name,
            "method": merged["method"] or defaults.METHOD,
            "status": solution.status.value,
            "seed": seed_of(merged),
            "statistics": {name: float(value) for name, value in solution.statistics.items()},
            "warnings": list(solution.warnings),
        }
        if as_json:
            print_json(report)
            return
        calls = int(solution.statistics["num_simulator_calls"])
        terminal().print(f"Trained on {calls:,} simulated observations; saved in {folder}", soft_wrap=True)
        print_warnings(solution.warnings)


@app.command()
def infer(
    simulator: Annotated[
        str | None,
        typer.Argument(metavar="[SIMULATOR]", help="Train for this one now; or check that the model was made for it."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="MODEL_DIR", help="A trained machine, from `quincunx train`.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="X.csv", help="One observation per row.")] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--column", metavar="NAME", help="A column to read; all if not given.")
    ] = None,
    counts: Annotated[
        str | None, typer.Option("--counts", metavar="NAME", help="Column that says how often its row was observed.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for figure, result and inference.")
    ] = None,
    method: Method = None,
    simulations: NumSimulations = None,
    observations: NumObservations = None,
    max_observations: MaxObservations = None,
    seed: Seed = None,
    resume: Resume = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Infer the parameters behind the data, with a trained machine or from scratch.

    Examples: quincunx infer --model MODEL_DIR --data x.csv  /  quincunx infer weinberg --data x.csv
    """
    with errors():
        from .config import settings

        given = {
            "model": model, "data": data, "column": columns or None, "counts": counts, "out": out, "method": method,
            "simulations": simulations, "observations": observations, "max_observations": max_observations,
            "seed": seed, "resume": resume,
        }  # fmt: skip
        kinds = {"model": str, "data": str, "column": list[str], "counts": str, "out": str, **TRAIN_TYPES}
        merged = settings(config, given, kinds)
        folder = Path(merged["out"]) if merged["out"] else None
        inference = _infer(simulator, merged, folder)
        if folder is not None:
            _write_inference(folder, inference)
        if as_json:
            print_json(inference.to_dict())
            return
        _print_inference(inference, folder)


@app.command()
def reproduce(
    result: Annotated[str, typer.Argument(metavar="RESULT", help="What to reproduce: alfi or gold.")],
    out: Annotated[
        Path | None, typer.Option("--out", show_default="quincunx-RESULT", help="Folder for figures and numbers.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="One part; may be given several times. Parts are simulators.")
    ] = None,
    num_simulations: NumSimulations = None,
) -> None:
    """Reproduce published results, with the numbers and figures of the documentation.

    alfi: Figures 2 to 6 of Pesah, Wehenkel and Louppe (2018), in 20 minutes. gold: errors of ten methods on the Galton
    board and on EFT, and coverage (parts galton, eft, coverage), in an hour.
    """
    with errors():
        from .reproduce import paper as alfi
        from .reproduce import parts as gold

        parts = {"alfi": tuple(problem.name for problem in alfi.PROBLEMS), "gold": tuple(gold.PARTS)}
        if result not in parts:
            raise ValueError(f"unknown result {result!r}; there are {' and '.join(parts)}")
        for name in only or ():
            if name not in parts[result]:
                raise ValueError(f"--only: unknown part {name!r}; there are {', '.join(parts[result])}")
        if result == "gold" and num_simulations is not None:
            raise ValueError("gold takes no --simulations: its tables run over them")
        folder = out or Path(f"quincunx-{result}")
        say = lambda text: typer.echo(text, err=True)
        if result == "gold":
            gold.main(folder, say, only)
        else:
            size = defaults.NUM_SIMULATIONS if num_simulations is None else num_simulations
            alfi.main(folder, say=say, names=only or parts["alfi"], num_simulations=size)
        typer.echo(f"figures, tables and numbers are in {folder}")


app.command("mine")(cli_gold.mine)
app.command("limits")(cli_gold.limits)


# -- what the commands do --------------------------------------------------------------------------


@contextlib.contextmanager
def _kept_in(folder: Path, merged: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Options of a training whose checkpoint lies beside the folder for as long as it takes."""
    from ..campaigns.save import check_target
    from ..core.solution import InferenceError
    from .config import train_arguments

    check_target(folder)
    checkpoint = folder.with_name(folder.name + CHECKPOINT)
    if checkpoint.exists() and not merged["resume"]:
        raise ValueError(f"{checkpoint} is there from an interrupted training; add --resume to go on, or delete it")
    try:
        yield {**train_arguments(merged), "checkpoint": checkpoint, "resume": bool(merged["resume"])}
    except InferenceError:
        checkpoint.unlink(missing_ok=True)  # it would fail again
        raise
    except KeyboardInterrupt as error:
        if checkpoint.exists():
            raise Interrupted(f"interrupted; the checkpoint is kept in {checkpoint}; add --resume to go on") from error
        raise
    checkpoint.unlink(missing_ok=True)


def _infer(reference: str | None, merged: Mapping[str, Any], folder: Path | None) -> "Inference":
    from ..problems.lookup import resolve

    if merged["data"] is None:
        raise ValueError("no data; give --data X.csv, one observation per row")
    if folder is not None:
        from ..campaigns.save import check_target

        check_target(folder / "inference")
    simulator = None if reference is None else resolve(reference)
    if merged["model"] is not None:
        return _infer_with(Path(merged["model"]), simulator, merged)
    if simulator is None:
        raise ValueError("give a SIMULATOR to train for, or --model MODEL_DIR")
    return _infer_from_scratch(simulator, merged, folder / "inference" if folder else None)


def _infer_with(model: Path, simulator: "AbstractSimulator | None", merged: Mapping[str, Any]) -> "Inference":
    from ..core.progress import RichProgress
    from ..methods.door import infer as infer_parameters
    from .config import TRAIN_KEYS, key_of

    useless = [name for name in [*TRAIN_KEYS, "resume"] if name != "method" and merged[name] is not None]
    if useless:
        raise ValueError(f"a trained model takes no {', '.join(useless)}; drop them, or drop --model")
    loaded = _load_model(model, simulator)
    x = _read(merged, getattr(loaded, "value", loaded).novelty.event_shape)
    return infer_parameters(key_of(merged), simulator, x, machine=loaded, progress=RichProgress())


def _infer_from_scratch(simulator: "AbstractSimulator", merged: Mapping[str, Any], folder: Path | None) -> "Inference":
    from ..core.progress import RichProgress
    from ..methods.door import event_shape_of
    from ..methods.door import infer as infer_parameters
    from .config import key_of

    x = _read(merged, event_shape_of(simulator))
    with _kept_in(folder or Path(f"quincunx-{simulator.name}"), merged) as options:
        return infer_parameters(key_of(merged), simulator, x, progress=RichProgress(), **options)


def _read(merged: Mapping[str, Any], event_shape: tuple[int, ...]) -> Any:
    from ..core.tables import read_observations

    columns = merged["column"] or ()
    return read_observations(merged["data"], event_shape=event_shape, columns=columns, counts=merged["counts"])


def _load_model(folder: Path, simulator: "AbstractSimulator | None") -> Any:
    from ..campaigns.save import load
    from ..methods.machine import RecurrentMachine

    loaded = load(folder, simulator=simulator)
    found = getattr(loaded, "value", loaded)
    if not isinstance(found, RecurrentMachine):
        raise ValueError(
            f"{folder} holds a {type(found).__name__}, no trained machine; give one from `quincunx train --method "
            "alfi` (a likelihood ratio goes to `quincunx limits`)"
        )
    return loaded


def _write_inference(folder: Path, inference: "Inference") -> None:
    inference.plot(folder / "figure.png")
    (folder / "result.json").write_text(json.dumps(inference.to_dict(), indent=2) + "\n", encoding="utf-8")
    inference.save(folder / "inference")


def _write_simulated(x: Any, about: dict[str, Any], out: Path | None, as_json: bool) -> None:
    import sys

    import numpy as np

    from ..core.tables import write_observations

    x = np.asarray(x)
    theta = ", ".join(f"{name}={value:g}" for name, value in about["parameters"].items())
    comments = [f"simulated by quincunx: {about['simulator']}, {theta}, seed {about['seed']}"]
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(out, "w", encoding="utf-8", newline="") as file:
            write_observations(file, x, comments)
    if as_json:
        print_json({**about, "out": str(out)} if out else {**about, "observations": x.tolist()})
    elif out is None:
        write_observations(sys.stdout, x, comments)
    else:
        terminal().print(f"{len(x):,} observations of {about['simulator']} at {theta} in {out}", soft_wrap=True)


# -- what people see -------------------------------------------------------------------------------


def _print_inference(inference: "Inference", folder: Path | None) -> None:
    from rich.table import Table

    count = len(inference.x)
    table = Table("parameter", title=f"{inference.machine.simulator.name}, {count:,} observation{'s' * (count != 1)}")
    summary = inference.summary()
    for name in next(iter(summary.values())):
        table.add_column(name, justify="right")
    for column, row in summary.items():
        table.add_row(column, *(f"{value:.5g}" for value in row.values()))
    console = terminal()
    console.print(table)
    console.print(f"{inference.num_simulator_calls:,} observations simulated")
    print_warnings(inference.warnings)
    if folder is not None:
        files = ", ".join(str(folder / name) for name in ("figure.png", "result.json", "inference"))
        console.print(f"Files: {files}", soft_wrap=True)
