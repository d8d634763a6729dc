"""`quincunx methods` and `quincunx simulators`: what there is."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from .options import AsJson, errors, print_json, terminal


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[METHOD]", help="One of them, with its options.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods: what each needs and gives, and its paper; with a name, its options and their defaults."""
    with errors():
        from rich.table import Table

        from ..core.names import nearest
        from ..methods import CATALOGUE
        from ..methods.method import GOLD

        if name is not None and name not in CATALOGUE:
            raise ValueError(f"unknown method {name!r}{nearest(name, CATALOGUE)}; there are {', '.join(CATALOGUE)}")
        rows = [about(key, make) for key, make in CATALOGUE.items() if name in (None, key)]
        if as_json:
            print_json({"methods": rows})
            return
        table = Table("method", "gives", "needs", "what it does")
        for row in rows:
            text = f"{row['about']}\n[dim]{row['paper']}[/dim]"
            gold = [column for column in row["needs"] if column in GOLD]
            table.add_row(row["name"], row["gives"], ", ".join(gold) or "samples", text)
        terminal().print(table)
        if name is not None:
            options = Table("option (--set)", "default")
            for option, default in rows[0]["options"].items():
                options.add_row(option, default)
            terminal().print(options)
            terminal().print(
                f"{rows[0]['simulations']:,} observations are simulated, unless --simulations says otherwise"
            )


def about(name: str, make: Callable[..., Any]) -> dict[str, Any]:
    """What there is to say of a method, as plain values."""
    from .config import options_of

    method, signature = make(), inspect.signature(make).parameters
    given = {option: signature[option].default for option in options_of(make) if option in signature}
    return {
        "name": name,
        "about": (make.__doc__ or "").strip().splitlines()[0],
        "needs": list(method.needs),
        "gives": method.card.gives,
        "simulations": method.card.num_simulations,
        "options": {option: repr(given.get(option, getattr(method, option, None))) for option in options_of(make)},
        "paper": method.card.paper,
    }


def simulators(as_json: AsJson = False) -> None:
    """List the built-in simulators, with their parameters, priors and sources."""
    with errors():
        from rich.table import Table

        from ..core.laws.support import describe
        from ..problems import BUILT_IN

        rows = [
            {
                "name": each.name,
                "parameters": {name: describe(d) for name, d in each.prior.distributions.items()},
                "event_shape": list(each.event_shape),
                "source": each.source,
            }
            for each in BUILT_IN.values()
        ]
        if as_json:
            print_json({"simulators": rows})
            return
        table = Table("simulator", "parameters and priors", "observation", "source", show_lines=True)
        for row in rows:
            priors = "\n".join(f"{name} ~ {text}" for name, text in row["parameters"].items())
            table.add_row(row["name"], priors, str(tuple(row["event_shape"])), row["source"])
        terminal().print(table)
