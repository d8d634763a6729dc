"""The fenced blocks of README.md, so that what it tells people to run is what is run.

    python tools/readme.py sh        # how many blocks there are
    python tools/readme.py sh 1      # the text of the first

Fences are read as Markdown reads them, at the start of a line. A block that nobody should run, such as a
sketch or an output, has another language: ```text, ```console.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

README = Path(__file__).parent.parent / "README.md"


class Block(NamedTuple):
    """A fenced block: its language, the number of its first line in the file, its text."""

    language: str
    line: int
    text: str


def blocks(text: str, language: str) -> list[Block]:
    """The fenced blocks in this language, in order.

    Raises
    ------
    ValueError: a fence is opened and never closed.
    """
    found, opened, lines = [], None, []
    for number, line in enumerate(text.splitlines(), start=1):
        if opened is None and (fence := re.fullmatch(r"(`{3,}|~{3,})\s*([\w+-]*).*", line)):
            opened, lines = (fence[1], fence[2], number), []
        elif opened is not None and line.rstrip() == opened[0]:
            found.append(Block(opened[1], opened[2] + 1, "\n".join(lines) + "\n"))
            opened = None
        elif opened is not None:
            lines.append(line)
    if opened is not None:
        raise ValueError(f"the fence opened in line {opened[2]} is never closed")
    return [block for block in found if block.language == language]


def main(arguments: list[str]) -> str:
    """What to print for the command line's arguments: a language, and the number of a block from 1."""
    if len(arguments) not in (1, 2):
        raise SystemExit("give a language, and the number of a block: tools/readme.py sh 1")
    found = blocks(README.read_text(encoding="utf-8"), arguments[0])
    if len(arguments) == 1:
        return str(len(found))
    number = int(arguments[1])
    if not 1 <= number <= len(found):
        raise SystemExit(f"README.md has {len(found)} blocks in {arguments[0]}; there is no block {number}")
    return found[number - 1].text


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]).rstrip("\n") + "\n")
