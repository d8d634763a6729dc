"""`quincunx simulate` and `quincunx mine`: observations, and observations with their gold, as CSV."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core import defaults
from .options import AsJson, Seed, Simulator, errors, print_json, terminal, theta_of

At = Annotated[
    list[str] | None,
    typer.Option("--at", metavar="NAME=VALUE", help="A parameter; once for each of them."),
]


def simulate(
    simulator: Simulator,
    at: At = None,
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
        columns = found.prior.columns
        theta = theta_of(at, columns)
        theta = parameter_vector({}, columns) if theta is None else theta  # which says what is missing
        number = defaults.SEED if seed is None else seed
        sims = run_simulator(jax.random.key(number), found, num_observations=observations, theta=theta[None])
        named = dict(zip(columns, theta.tolist(), strict=True))
        about = {"simulator": found.name, "parameters": named, "seed": number, "num_observations": observations}
        _write_simulated(sims.x[0], about, out, as_json)


def _write_simulated(x: Any, about: dict[str, Any], out: Path | None, as_json: bool) -> None:
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
        theta, point = theta_of(at, found.prior.columns), theta_of(versus, found.prior.columns)
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


def _quality(key: Any, simulator: Any, theta: Any, point: Any) -> Any:
    import jax

    from ..gold.quality import gold_quality
    from ..gold.reference import MarginalReference, PointReference

    at = simulator.prior.sample(jax.random.fold_in(key, 1), 3) if theta is None else theta
    reference = MarginalReference() if point is None else PointReference(point)
    return gold_quality(jax.random.fold_in(key, 2), simulator, at, reference=reference)
