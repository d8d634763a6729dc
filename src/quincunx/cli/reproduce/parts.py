"""Results in parts: `quincunx reproduce gold`, of the second depth of access, and `quincunx reproduce machine`."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import ablation, board, frequency, learnt, transfer, wilson

GOLD: Mapping[str, Any] = {"galton": board, "eft": wilson, "coverage": frequency}
MACHINE: Mapping[str, Any] = {"ablation": ablation, "learnt": learnt, "transfer": transfer}


def main(parts: Mapping[str, Any], folder: Path, *, say: Callable[[str], None], names: Sequence[str]) -> None:
    """Run some of the parts, one after the other; each leaves NAME.json, NAME.md and NAME.png in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        part = parts[name]
        results = part.run(say)
        (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (folder / f"{name}.md").write_text(part.tables(results), encoding="utf-8")
        part.figure(results, folder / f"{name}.png")
