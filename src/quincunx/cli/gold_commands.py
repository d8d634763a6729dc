"""The commands of the second depth of access: `mine`, `limits`, and what `train` does for the ratio family."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core import defaults as defaults
from .options import AsJson, Seed, Simulator, assignments, errors, print_json, print_warnings, terminal

if TYPE_CHECKING:
    from ..answers.estimates import AbstractRatio
    from ..answers.frequentist.likelihood import LikelihoodRatio
    from ..answers.frequentist.region import ConfidenceRegion
    from ..core.simulator import AbstractSimulator
    from ..core.solution import Key, Solution
    from ..gold.reference import AbstractReference

Reference = Annotated[
    str | None,
    typer.Option("--reference", show_default="marginal", help="What ratios are relative to: marginal, point or pair."),
]
At = Annotated[
    list[str] | None,
    typer.Option("--at", metavar="NAME=VALUE", help="The point reference, or where sally and sallino take the score."),
]
Members = Annotated[int | None, typer.Option("--members", min=1, show_default="1", help="Networks in the ensemble.")]
GoldFile = Annotated[
    Path | None, typer.Option("--gold", metavar="FILE.csv", help="Learn from gold mined before, instead of new runs.")
]
TRAIN_TYPES: Mapping[str, Any] = {"reference": str, "at": list[str], "members": int, "gold": str}


# -- train -----------------------------------------------------------------------------------------


def refuse_for_machines(merged: Mapping[str, Any]) -> None:
    """Raise `ValueError` for options that mean nothing to alfi."""
    useless = [name for name in TRAIN_TYPES if merged[name] is not None]
    if useless:
        raise ValueError(f"alfi takes no {', '.join(useless)}; drop them, or choose another --method")


def train(key: "Key", simulator: "AbstractSimulator", merged: Mapping[str, Any]) -> "Solution[AbstractRatio]":
    """An estimate of the likelihood ratio, as the options of the command say."""
    from ..core.names import nearest
    from ..core.progress import RichProgress
    from ..gold.files import read_gold
    from ..methods.gold import NEEDS
    from ..methods.train_ratio import train_ratio
    from .config import ratio_arguments

    if merged["method"] not in NEEDS:
        known = [defaults.METHOD, *NEEDS]
        raise ValueError(
            f"unknown method {merged['method']!r}{nearest(merged['method'], known)}; known are {', '.join(known)}"
        )
    arguments = ratio_arguments(merged)
    theta = _theta(merged["at"], simulator)
    if merged["gold"] is not None:
        useless = [f"--{name}" for name in ("simulations", "reference", "at") if merged[name] is not None]
        if useless:
            raise ValueError(f"--gold brings its own simulations and reference; drop {', '.join(useless)}")
        arguments["sims"] = read_gold(merged["gold"], simulator)
    elif merged["method"] in ("sally", "sallino"):
        arguments["theta_reference"] = theta
    elif merged["reference"] is not None or theta is not None:
        arguments["reference"] = _reference(merged["reference"], theta)
    return train_ratio(key, simulator, progress=RichProgress(), **arguments)


def _theta(at: list[str] | None, simulator: "AbstractSimulator") -> Any:
    from ..core.tables import parameter_vector

    columns = simulator.prior.columns
    return parameter_vector(assignments(at, columns), columns) if at else None


def _reference(name: str | None, theta: Any) -> "AbstractReference":
    from ..core.names import nearest
    from ..gold.reference import MarginalReference, PairReference, PointReference

    known = {"marginal": MarginalReference, "pair": PairReference, "point": PointReference}
    name = name or ("marginal" if theta is None else "point")
    if name not in known:
        raise ValueError(f"--reference {name!r}{nearest(name, known)}: expected marginal, point or pair")
    if (name == "point") != (theta is not None):
        raise ValueError("a point reference needs --at NAME=VALUE for every parameter, and only that takes --at")
    return PointReference(theta) if name == "point" else known[name]()


# -- mine ------------------------------------------------------------------------------------------


def mine(
    simulator: Simulator,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.csv", help="Where to write the gold.")],
    at: Annotated[
        list[str] | None,
        typer.Option("--at", metavar="NAME=VALUE", help="The numerator, once for each parameter; else prior draws."),
    ] = None,
    versus: Annotated[
        list[str] | None,
        typer.Option("--versus", metavar="NAME=VALUE", help="The reference point; else the marginal mixture."),
    ] = None,
    number: Annotated[int, typer.Option("--n", min=2, help="How many observations.")] = 100_000,
    quality: Annotated[bool, typer.Option("--quality", help="Report how good the gold is, and for what.")] = False,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Run a simulator and keep its gold: joint log-ratios and joint scores, as CSV.

    With --at and no --versus all is drawn there, and there are only scores.

    Example: quincunx mine galton --at skew=-0.8 --versus skew=-0.6 --n 100000 --out gold.csv
    """
    with errors():
        import jax

        from ..core.progress import RichProgress
        from ..gold.files import write_gold
        from ..gold.mine import mine as run_mine
        from ..gold.reference import MarginalReference, PointReference
        from ..problems.lookup import resolve

        found = resolve(simulator)
        theta, point = _theta(at, found), _theta(versus, found)
        reference = PointReference(point) if point is not None else None if at else MarginalReference()
        number_of_seed = defaults.SEED if seed is None else seed
        key = jax.random.key(number_of_seed)
        rows = None if theta is None else theta[None]
        sims = run_mine(key, found, num_simulations=number, theta=rows, reference=reference, progress=RichProgress())
        write_gold(out, sims, [f"mined by quincunx: {found.name}, seed {number_of_seed}"])
        report: dict[str, Any] = {
            "out": str(out), "simulator": found.name, "seed": number_of_seed, "num_rows": len(sims),
            "num_failed": len(sims.failures),
        }  # fmt: skip
        judged = _quality(key, found, rows, point) if quality else None
        if as_json:
            print_json({**report, **({} if judged is None else {"quality": judged.to_dict()})})
            return
        terminal().print(f"{len(sims):,} observations of {found.name} with their gold in {out}", soft_wrap=True)
        if judged is not None:
            terminal().print(judged.table(), markup=False, soft_wrap=True)


def _quality(key: "Key", simulator: Any, theta: Any, point: Any) -> Any:
    import jax

    from ..gold.quality import gold_quality
    from ..gold.reference import MarginalReference, PointReference

    at = simulator.prior.sample(jax.random.fold_in(key, 1), 3) if theta is None else theta
    reference = MarginalReference() if point is None else PointReference(point)
    return gold_quality(jax.random.fold_in(key, 2), simulator, at, reference=reference)


# -- limits ----------------------------------------------------------------------------------------


def limits(
    model: Annotated[Path, typer.Option("--model", metavar="MODEL_DIR", help="A likelihood ratio, from train.")],
    data: Annotated[Path, typer.Option("--data", metavar="X.csv", help="One observation per row.")],
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
    columns: Annotated[list[str] | None, typer.Option("--column", metavar="NAME", help="A column to read.")] = None,
    counts: Annotated[
        str | None, typer.Option("--counts", metavar="NAME", help="Column that says how often its row was observed.")
    ] = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Frequentist limits from data: maximum likelihood, and confidence intervals and regions.

    Example: quincunx limits --model model --data x.csv --level 0.95 --neyman --plot
    """
    with errors():
        import jax

        from ..answers.frequentist.statistic import check_level
        from ..core.progress import RichProgress

        check_level(level)
        found = _ratio(model)
        likelihood = _likelihood(found, data, columns or (), counts, use_rate)
        names = found.prior.columns
        groups = [(name,) for name in names] + ([names] if len(names) == 2 else [])
        key = jax.random.key(defaults.SEED if seed is None else seed)
        progress, regions = RichProgress(), []
        progress.start("toys" if neyman else "regions", len(groups))
        try:
            for group in groups:
                regions.append(
                    _region(jax.random.fold_in(key, len(regions)), likelihood, group, level, toys if neyman else 0)
                )
                progress.advance(1, " and ".join(group))
        finally:
            progress.finish()
        report = {
            "model": str(model),
            "data": str(data),
            "num_observations": len(likelihood.x),
            "rate_term": likelihood.rate is not None,
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
        _print(report, regions, folder, plot)


def _ratio(folder: Path) -> "AbstractRatio":
    from ..answers.estimates import AbstractRatio
    from ..campaigns.save import load

    loaded = load(folder)
    found = getattr(loaded, "value", loaded)
    if not isinstance(found, AbstractRatio):
        raise ValueError(
            f"{folder} holds a {type(found).__name__}, no likelihood ratio; train one: quincunx train SIMULATOR "
            "--method alices --out MODEL_DIR"
        )
    return found


def _likelihood(ratio: Any, data: Path, columns: Any, counts: str | None, use_rate: bool) -> Any:
    from ..answers.frequentist.likelihood import likelihood_ratio
    from ..core.simulator import NamedSimulator
    from ..core.tables import read_observations
    from ..gold.mined import AbstractMinedSimulator

    x = read_observations(data, event_shape=ratio.event_shape, columns=columns, counts=counts)
    simulator = ratio.simulator
    if use_rate and isinstance(simulator, NamedSimulator):
        raise ValueError(
            f"the model's simulator {simulator.name!r} was not found, so that its rate is not known; put its file "
            "back, or add --no-rate"
        )
    rate = simulator.rate if use_rate and isinstance(simulator, AbstractMinedSimulator) else None
    return likelihood_ratio(ratio, x, rate=rate)


def _region(
    key: "Key", likelihood: "LikelihoodRatio", names: tuple[str, ...], level: float, toys: int
) -> "ConfidenceRegion":
    from ..answers.frequentist.neyman import critical_values
    from ..answers.frequentist.region import confidence_region

    rough = confidence_region(likelihood, level, parameters=names)
    if not toys:
        return rough
    ratio: Any = likelihood.ratio
    theta = _hypotheses(likelihood, rough)
    construction = critical_values(
        key, ratio, ratio.simulator, theta, num_toys=toys, level=level, parameters=names,
        rate=likelihood.rate, num_observations=None if likelihood.rate else len(likelihood.x),
    )  # fmt: skip
    return confidence_region(likelihood, level, parameters=names, critical=construction)


def _hypotheses(likelihood: "LikelihoodRatio", rough: "ConfidenceRegion") -> Any:
    """Where toys are drawn `(K, dim)`: around Wilks' region, the other parameters at their conditional best fit."""
    import numpy as np

    from ..answers.frequentist.likelihood import column_indices, support_box
    from ..answers.frequentist.maximum import profile_likelihood

    box = support_box(likelihood.prior)
    count, axes = (15 if len(rough.names) == 1 else 5), []
    for i, column in enumerate(column_indices(likelihood.prior, rough.names)):
        others = tuple(k for k in range(rough.q.ndim) if k != i)
        kept = rough.axes[i][(rough.margin <= 0).any(axis=others)]
        margin = 0.4 * max(float(np.ptp(kept)), float(np.diff(rough.axes[i]).min()))
        inside = 1e-4 * margin  # an open end of the support is not of it
        low = max(kept.min() - margin, box.low[column] + inside)
        high = min(kept.max() + margin, box.high[column] - inside)
        axes.append(np.linspace(low, high, count))
    return profile_likelihood(likelihood, rough.names, axes if len(axes) > 1 else axes[0]).theta.reshape(
        -1, likelihood.prior.dim
    )


def _print(report: Mapping[str, Any], regions: list["ConfidenceRegion"], folder: Path | None, plot: bool) -> None:
    from rich.table import Table

    table = Table(
        "parameter",
        "best fit",
        f"{100 * report['level']:g} % interval",
        title=f"{report['num_observations']:,} observations, critical values: {report['critical_values']}",
    )
    for region in regions:
        if len(region.names) == 1:
            name = region.names[0]
            intervals = " and ".join(f"[{low:.4g}, {high:.4g}]" for low, high in region.interval)
            table.add_row(name, f"{region.best_fit[name]:.4g}", intervals or "none")
        else:
            terminal().print(f"joint region of {' and '.join(region.names)}: area {region.area:.4g}")
    terminal().print(table)
    if regions[0].best.at_boundary and report["critical_values"] == "Wilks":
        bounds = ", ".join(regions[0].best.at_boundary)
        print_warnings((f"the best fit is at the bound of {bounds}: Wilks' theorem fails there, use --neyman",))
    if folder is not None:
        files = ["limits.json"] + (["limits.png"] if plot else [])
        terminal().print("Files: " + ", ".join(str(folder / name) for name in files), soft_wrap=True)


def _write(folder: Path, report: Mapping[str, Any], regions: list["ConfidenceRegion"], plot: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "limits.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if not plot:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(regions), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for region, axes in zip(regions, figure.subplots(1, len(regions), squeeze=False)[0], strict=True):
        region.plot(axes)
    figure.savefig(folder / "limits.png", dpi=110)
