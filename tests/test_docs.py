"""The reference has every public name."""

import re
from pathlib import Path

import quincunx

PAGES = Path(__file__).parent.parent / "docs" / "reference"


def test_every_public_name_is_on_a_reference_page():
    text = "\n".join(page.read_text() for page in PAGES.glob("*.md"))
    shown = re.findall(r"^::: quincunx\.(\S+)", text, re.MULTILINE)
    assert len(shown) == len(set(shown))
    missing = {name: module for name, module in quincunx._HOME.items() if module not in shown}
    assert missing == {}
