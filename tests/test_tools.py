"""The tools of the repository: they decide what the CI runs and what the reference shows."""

import pytest
import readme
import reference

TEXT = """# Title

```sh
make it
```

Text with `code`.

~~~sh
another
~~~

````python title="example"
x = '''
```sh
not a block of its own
```
'''
````

```
no language
```
"""


def test_blocks_are_found_by_language_with_their_lines():
    assert readme.blocks(TEXT, "sh") == [("sh", 4, "make it\n"), ("sh", 10, "another\n")]
    assert readme.blocks(TEXT, "python") == [("python", 14, "x = '''\n```sh\nnot a block of its own\n```\n'''\n")]
    assert readme.blocks(TEXT, "console") == []


def test_a_fence_that_is_never_closed_is_an_error():
    with pytest.raises(ValueError, match="line 3 is never closed"):
        readme.blocks("a\n\n```sh\nx\n", "sh")


def test_the_command_line_counts_and_prints(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    readme.README.write_text(TEXT)
    assert readme.main(["sh"]) == "2"
    assert readme.main(["sh", "2"]) == "another\n"
    for arguments in (["sh", "3"], ["sh", "0"], []):
        with pytest.raises(SystemExit):
            readme.main(arguments)


DOCSTRING = """What it does.

Parameters
----------
key: random key, and a remark
    that runs on: over two lines.
low, high: limits.

Returns
-------
An array: `(n,)`.

Examples
--------
>>> f(1)
2
"""

MARKDOWN = """What it does.

**Parameters**

- `key`: random key, and a remark
    that runs on: over two lines.
- `low, high`: limits.

**Returns**

An array: `(n,)`.

**Examples**

```pycon
>>> f(1)
2
```"""


def test_sections_of_docstrings_become_lists():
    docstrings = pytest.importorskip("docstrings", reason="needs the extra `docs`", exc_type=ImportError)
    assert docstrings.markdown(DOCSTRING) == MARKDOWN
    assert docstrings.markdown("No section.\n\nNotes come: later.") == "No section.\n\nNotes come: later."


def test_stars_in_docstrings_stay_stars():
    docstrings = pytest.importorskip("docstrings", reason="needs the extra `docs`", exc_type=ImportError)
    text = "l(theta*), then q(theta* | x) = 2 * a*b, with `f(*args)` for *each* and **all of it**."
    escaped = r"l(theta\*), then q(theta\* | x) = 2 \* a\*b, with `f(*args)` for *each* and **all of it**."
    assert docstrings.markdown(text) == escaped


def test_names_in_the_reference_have_headings_by_which_they_can_be_typed():
    page = "::: quincunx.core.prior.Prior\n\n::: quincunx.core.loss.AbstractLoss\n    options:\n      members: false\n"
    page += "\n::: quincunx.problems.galton.galton_board\n\n::: quincunx.methods.recurrent.alfi\n"
    shown = reference.on_page_markdown(page)
    assert "heading: qx.Prior\n      toc_label: Prior\n" in shown
    assert "heading: quincunx.core.loss.AbstractLoss\n      toc_label: AbstractLoss\n      members: false" in shown
    assert "heading: qx.problems.galton_board\n" in shown
    assert shown.endswith("::: quincunx.methods.recurrent.alfi\n    options:\n      show_root_heading: false\n")
    assert reference.shown(page) == reference.shown(shown)
