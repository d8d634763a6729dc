"""For the reference pages: the sections of our docstrings, as Markdown lists.

A section is a heading underlined with dashes, and entries `name: text` that may run on over indented
lines. Documentation tools know the layout with one more line per entry, so it is rewritten when they
load a docstring. Stars that stand for multiplication or for a true value (theta*) are kept from becoming
emphasis. mkdocs.yml names this file as an extension of Griffe.
"""

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(Parameters|Fields|Returns|Raises|Examples|Notes)\n-{3,}\n", re.MULTILINE)
ENTRY = re.compile(r"^(?P<name>[*\w.]+(?:, [*\w.]+)*): (?P<text>.*)$")
PROSE = ("Returns", "Examples", "Notes")
CODE_OR_EMPHASIS = re.compile(r"(`[^`]*`|(?<![\w*])\*{1,2}\w(?:[^*]*\w)?\*{1,2}(?![\w*]))")


def markdown(docstring: str) -> str:
    """The docstring with its sections as bold headings and lists; what is not a section stays as it is."""
    parts = SECTION.split(docstring)
    pieces = [_stars(parts[0].strip())]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        pieces += [f"**{title}**", _prose(body) if title in PROSE else _entries(_stars(body))]
    return "\n\n".join(piece for piece in pieces if piece)


def _stars(text: str) -> str:
    """Text with every star escaped that neither stands in code nor makes an emphasis."""
    pieces = CODE_OR_EMPHASIS.split(text)
    return "".join(piece if index % 2 else piece.replace("*", r"\*") for index, piece in enumerate(pieces))


def _prose(body: str) -> str:
    """Text as it is, with the sessions of the interpreter in fences."""
    paragraphs = re.split(r"\n\s*\n", body.strip("\n"))
    return "\n\n".join(f"```pycon\n{p}\n```" if p.lstrip().startswith(">>>") else _stars(p) for p in paragraphs)


def _entries(body: str) -> str:
    lines: list[str] = []
    for line in body.strip("\n").splitlines():
        if entry := ENTRY.match(line):
            lines.append(f"- `{entry['name']}`: {entry['text']}")
        else:  # an entry that goes on (indented already), or a remark after the last one
            lines.append(line if line.startswith(" ") else f"\n{line}" if line else "")
    return "\n".join(lines)


class Docstrings(griffe.Extension):
    """Rewrites every docstring of ours when it is loaded."""

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
