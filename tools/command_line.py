"""For the reference: the page of the command line, in the words of its own help.

mkdocs.yml names this file as a hook of MkDocs; the package must be installed where it runs.
"""

import subprocess
import sys
from typing import Any

MARKER = "<!-- the help of every command -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page's text with the marker replaced."""
    return markdown.replace(MARKER, help_of_all()) if MARKER in markdown else markdown


def help_of_all() -> str:
    """Markdown, without the first heading."""
    command = [sys.executable, "-m", "typer", "quincunx.cli.app", "utils", "docs", "--name", "quincunx"]
    text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return text.split("\n", 1)[1]
