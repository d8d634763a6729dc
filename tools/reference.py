"""For the reference: headings by which names can be typed, `qx.Prior` for a public one, the whole path for any other.

mkdocs.yml names this file as a hook of MkDocs. Pages name what they show by lines `::: quincunx.room.module.Name`.
"""

import ast
import re
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent.parent / "src"
STUB = SOURCE / "quincunx" / "__init__.pyi"
SHOWN = re.compile(r"^::: (quincunx\.[\w.]+)$", re.MULTILINE)
OPTIONS = re.compile(r"^(::: quincunx\.[\w.]+)\n(?: {4}options:\n)?", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page's text with a heading for each name that it shows; modules have none."""
    public = {path: f"qx.{name}" for name, path in public_names().items()}

    def titled(found: re.Match[str]) -> str:
        path = found[1].removeprefix("::: ")
        if SOURCE.joinpath(*path.split(".")).with_suffix(".py").is_file():
            options = ["show_root_heading: false"]
        else:
            name = path.rpartition(".")[2]
            inside = path.startswith("quincunx.problems.")
            heading = f"qx.problems.{name}" if inside else public.get(path, path)
            options = [f"heading: {heading}", f"toc_label: {name}"]
        return "\n".join([found[1], "    options:", *(f"      {option}" for option in options), ""])

    return OPTIONS.sub(titled, markdown)


def public_names() -> dict[str, str]:
    """Public name -> where it is, as a path; what is a module or a plain value is not among them."""
    nodes = [node for node in ast.parse(STUB.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    return {alias.name: f"quincunx.{node.module}.{alias.name}" for node in nodes if node.module for alias in node.names}


def shown(markdown: str) -> list[str]:
    """The paths that a page shows."""
    return SHOWN.findall(markdown)
