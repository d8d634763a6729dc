"""For the documentation: what the catalogues say of methods and of simulators, as Markdown.

mkdocs.yml names this file as a hook of MkDocs; the package must be installed where it runs. The facts are those that
`quincunx methods --json` and `quincunx simulators --json` print. A page of a method, `methods/NAME.md`, adds one of its
own, in the lines before its title: `when: ` and when to use it. So a new method needs a page, and appears by itself.
"""

import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PAGES = Path(__file__).parent.parent / "docs" / "methods"
WHEN = re.compile(r"---\nwhen: (.+)\n---\n")
GOLD = {"log_ratio": "joint ratio", "score": "joint score"}
ANSWERS = {"posterior": "qx.posterior(estimator, x)", "likelihood": "qx.likelihood(estimator, x)"}
Row = Mapping[str, Any]


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """A page's text with its markers replaced."""
    name = Path(page.file.src_uri).stem
    makers = {
        "<!-- the methods -->": lambda: methods_table(rows_of("methods")),
        "<!-- the method -->": lambda: facts(next(row for row in rows_of("methods") if row["name"] == name)),
        "<!-- the simulators -->": lambda: simulators_table(rows_of("simulators")),
    }
    for marker, make in makers.items():
        if marker in markdown:
            markdown = markdown.replace(marker, make())
    return markdown


def on_pre_build(**_: Any) -> None:
    """Raise unless there is one page for every method."""
    from mkdocs.exceptions import PluginError

    if problem := mismatch(row["name"] for row in rows_of("methods")):
        raise PluginError(problem)


@functools.cache
def rows_of(command: str) -> Sequence[Row]:
    """What `quincunx methods` and `quincunx simulators` list."""
    printed = subprocess.run([sys.executable, "-m", "quincunx", command, "--json"], capture_output=True, check=True)
    return json.loads(printed.stdout)[command]


def mismatch(names: Iterable[str], pages: Path = PAGES) -> str | None:
    """What is wrong between the methods and their pages, or None."""
    there, wanted = {page.stem for page in pages.glob("*.md")}, set(names)
    problems = [f"docs/methods/{name}.md is missing: write it" for name in sorted(wanted - there)]
    problems += [f"docs/methods/{name}.md is about no method: delete it" for name in sorted(there - wanted)]
    problems += [
        f"docs/methods/{name}.md does not begin with lines ---, when: WHEN TO USE IT, ---"
        for name in sorted(there & wanted)
        if not WHEN.match((pages / f"{name}.md").read_text(encoding="utf-8"))
    ]
    return "; ".join(problems) or None


def when(name: str) -> str:
    """When to use a method, in the words of its page."""
    found = WHEN.match((PAGES / f"{name}.md").read_text(encoding="utf-8"))
    return found[1] if found else ""


def methods_table(rows: Sequence[Row]) -> str:
    """All methods, for a page in the folder above theirs."""
    cells = [
        (f"[`{row['name']}`](methods/{row['name']}.md)", gold(row["needs"]), row["gives"], when(row["name"]))
        for row in rows
    ]
    return table(("method", "gold it needs", "gives a", "use it when"), cells)


def facts(row: Row) -> str:
    """One method, for its own page."""
    options = ", ".join(f"`{name}={default}`" for name, default in row["options"].items())
    cells = [
        ("what it does", row["about"]),
        ("use it when", when(row["name"])),
        ("gold it needs", gold(row["needs"])),
        ("gives a", f"{row['gives']}: `{ANSWERS[row['gives']]}`"),
        ("simulates", f"{row['simulations']:,} observations in all, unless told otherwise"),
        ("options", options or "none"),
        ("on the command line", f"`--method {row['name']}`"),
        ("paper", linked(row["paper"])),
    ]
    return table(("", ""), cells)


def simulators_table(rows: Sequence[Row]) -> str:
    cells = [
        (
            f"`{row['name']}`",
            "<br>".join(f"`{name}` ~ {prior}" for name, prior in row["parameters"].items()),
            f"`{tuple(row['event_shape'])}`",
            linked(row["source"]),
        )
        for row in rows
    ]
    return table(("simulator", "parameters and priors", "shape of an observation", "source"), cells)


def gold(needs: Sequence[str]) -> str:
    return ", ".join(GOLD[name] for name in needs if name in GOLD) or "none"


def linked(text: str) -> str:
    """With links to arXiv."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
