"""`quincunx limits`: maximum likelihood, and confidence intervals and regions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    print_warnings,
    read_data,
    terminal,
    write_json,
)

if TYPE_CHECKING:
    from ..answers.frequentist.region import ConfidenceRegion


def limits(
    model: Annotated[Path, typer.Option("--model", metavar="MODEL_DIR", help="A likelihood ratio, from train.")],
    data: Data = None,
    attached: Attached = None,
    level: Annotated[float, typer.Option("--level", help="Confidence level.")] = 0.95,
    neyman: Annotated[
        bool, typer.Option("--neyman", help="Critical values from toys instead of Wilks; takes minutes.")
    ] = False,
    toys: Annotated[int, typer.Option("--toys", min=100, help="Toys at each hypothesis, with --neyman.")] = 1000,
    use_rate: Annotated[
        bool, typer.Option("--rate/--no-rate", help="Use the number of observations, where the simulator has a rate.")
    ] = True,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the region.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", show_default="quincunx-limits", help="Folder for figure and result.")
    ] = None,
    columns: Columns = None,
    counts: Counts = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Frequentist limits from data: maximum likelihood, and confidence intervals and regions.

    Example: quincunx limits --model model --data x.csv --level 0.95 --neyman --plot
    """
    with errors():
        import jax

        from ..answers.frequentist.hypothesis import check_level
        from ..answers.frequentist.likelihood import likelihood
        from ..core.progress import RichProgress

        check_level(level)
        loaded = load_estimator(model, attached)
        estimator = getattr(loaded, "value", loaded)
        x = read_data({"data": data, "column": columns, "counts": counts}, estimator.event_shape)
        found = likelihood(estimator, x, rate="simulator" if use_rate else None)
        key = jax.random.key(defaults.SEED if seed is None else seed)
        regions = _regions(key, found, level, toys if neyman else 0, RichProgress())
        report = {
            "model": str(model),
            "data": str(data),
            "num_observations": len(x),
            "rate_term": found.rate is not None,
            "level": level,
            "critical_values": f"{toys} toys at each hypothesis" if neyman else "Wilks",
            "best_fit": regions[0].best.to_dict(),
            "regions": [region.to_dict() for region in regions],
        }
        folder = out or (Path("quincunx-limits") if plot else None)
        if folder is not None:
            _write(folder, report, regions, plot)
        if as_json:
            print_json(report)
            return
        print_regions(regions, f"{len(x):,} observations, critical values: {report['critical_values']}")
        if regions[0].best.at_boundary and not neyman:
            bounds = ", ".join(regions[0].best.at_boundary)
            print_warnings((f"the best fit is at the bound of {bounds}: Wilks' theorem fails there, use --neyman",))
        if folder is not None:
            print_files(folder, ("limits.json", "limits.png") if plot else ("limits.json",))


def _regions(key: Any, likelihood: Any, level: float, toys: int, progress: Any) -> list["ConfidenceRegion"]:
    """Of every parameter, and of two together; with toys, by the Neyman construction."""
    import jax

    from ..answers.frequentist.neyman import neyman_region
    from ..answers.frequentist.region import confidence_region

    names, regions = likelihood.prior.columns, []
    groups = [(name,) for name in names] + ([names] if len(names) == 2 else [])
    progress.start("toys" if toys else "regions", len(groups))
    try:
        for number, group in enumerate(groups):
            if toys:
                own = jax.random.fold_in(key, number)
                regions.append(neyman_region(own, likelihood, level, parameters=group, num_toys=toys))
            else:
                regions.append(confidence_region(likelihood, level, parameters=group))
            progress.advance(1, " and ".join(group))
    finally:
        progress.finish()
    return regions


def print_regions(regions: Sequence["ConfidenceRegion"], title: str) -> None:
    """A table of intervals, and the area of a joint region."""
    from rich.table import Table

    table = Table("parameter", "best fit", f"{100 * regions[0].level:g} % interval", title=title)
    for region in regions:
        if len(region.names) == 1:
            name = region.names[0]
            intervals = " and ".join(f"[{low:.4g}, {high:.4g}]" for low, high in region.interval)
            table.add_row(name, f"{region.best_fit[name]:.4g}", intervals or "none")
        else:
            terminal().print(f"joint region of {' and '.join(region.names)}: area {region.area:.4g}")
    terminal().print(table)


def _write(folder: Path, report: Mapping[str, Any], regions: Sequence["ConfidenceRegion"], plot: bool) -> None:
    write_json(folder / "limits.json", report)
    if not plot:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(regions), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for region, axes in zip(regions, figure.subplots(1, len(regions), squeeze=False)[0], strict=True):
        region.plot(axes)
    figure.savefig(folder / "limits.png", dpi=110)
