"""`quincunx demo`: real data, one line."""

from pathlib import Path
from typing import Annotated

import typer

from .options import AsJson, Config, Seed, errors, print_files, print_json, print_warnings, terminal


def demo(
    out: Annotated[
        Path | None, typer.Option("--out", show_default="quincunx-demo", help="Folder for figure, result and machine.")
    ] = None,
    seed: Seed = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Infer the rate of Rutherford and Geiger's alpha particles (1910): real data, one line, a minute."""
    with errors():
        from ..core.progress import RichProgress
        from . import demonstration
        from .config import key_of, method_of, settings, training_of

        kinds = {"out": str, "method": str, "simulations": int, "seed": int}
        merged = settings(config, {"out": out, "seed": seed}, kinds)
        folder, method = Path(merged["out"] or "quincunx-demo"), method_of(merged)
        training = training_of(merged, method, for_one=True)
        how = {"num_simulations": merged["simulations"], "training": training, "method": method}
        found = demonstration.demonstrate(key_of(merged), folder, RichProgress(), how)
        if as_json:
            print_json({**found.to_dict(), "files": [str(folder / name) for name in demonstration.FILES]})
            return
        terminal().print(demonstration.table(found))
        terminal().print(demonstration.sentence(found))
        print_warnings(found.answer.warnings)
        print_files(folder, demonstration.FILES)
