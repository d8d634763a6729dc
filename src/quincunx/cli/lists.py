"""`quincunx methods` and `quincunx simulators`: what there is."""

from .options import AsJson, errors, print_json, terminal


def methods(as_json: AsJson = False) -> None:
    """List the methods: what each needs and gives, its options, what it simulates by default, and its paper."""
    with errors():
        from rich.table import Table

        from ..methods import CATALOGUE
        from .config import options_of

        rows = [
            {
                "name": name,
                "about": (make.__doc__ or "").strip().splitlines()[0],
                "needs": list(make().needs),
                "gives": make().gives,
                "simulations": make().num_simulations,
                "options": list(options_of(make)),
                "paper": make().paper,
            }
            for name, make in CATALOGUE.items()
        ]
        if as_json:
            print_json({"methods": rows})
            return
        table = Table("method", "what it does", "needs", "gives", "simulates", "options (--set)", show_lines=True)
        for row in rows:
            table.add_row(
                row["name"], f"{row['about']}\n[dim]{row['paper']}[/dim]", ", ".join(row["needs"]), row["gives"],
                f"{row['simulations']:,}", ", ".join(row["options"]),
            )  # fmt: skip
        terminal().print(table)


def simulators(as_json: AsJson = False) -> None:
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
