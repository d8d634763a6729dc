"""The benchmarks of the second depth of access, `quincunx reproduce gold`: numbers, tables and figures."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import board as gold_galton
from . import frequency as gold_coverage
from . import wilson as gold_eft

PARTS: Mapping[str, Any] = {"galton": gold_galton, "eft": gold_eft, "coverage": gold_coverage}


def main(folder: Path, *, say: Callable[[str], None], names: Sequence[str]) -> None:
    """Run the parts one after the other; each leaves NAME.json, NAME.md and NAME.png in the folder as it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        part = PARTS[name]
        results = part.run(say)
        (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (folder / f"{name}.md").write_text(part.tables(results), encoding="utf-8")
        part.figure(results, folder / f"{name}.png")
