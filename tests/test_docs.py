"""The documentation: it names what there is, every method and every public name has its place, and its Python runs."""

import ast
import itertools
import re
from pathlib import Path

import catalogues
import pytest
import readme
import reference

import quincunx as qx
from quincunx.methods import CATALOGUE

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
RUN = [page for page in PAGES if readme.blocks(page.read_text(encoding="utf-8"), "python")]
NAVIGATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# -- every name and every method ---------------------------------------------------------------------


def test_every_public_name_is_shown_once_in_the_reference():
    shown = [path for page in (DOCS / "reference").glob("*.md") for path in reference.shown(page.read_text())]
    assert len(shown) == len(set(shown))
    assert set(reference.public_names()) == {name for name in dir(qx) if not name.startswith("_")} - {"problems"}
    assert set(reference.public_names().values()) - set(shown) == set()


def test_every_method_has_a_page_and_every_page_a_method():
    assert catalogues.mismatch(CATALOGUE) is None


def test_a_method_without_a_page_and_a_page_without_a_method_are_told(tmp_path):
    (tmp_path / "old.md").write_text("---\nwhen: never\n---\n\n# Old\n")
    (tmp_path / "hasty.md").write_text("# Hasty\n")
    problem = catalogues.mismatch(["new", "hasty"], tmp_path)
    assert problem is not None
    assert all(
        text in problem for text in ("new.md is missing", "old.md is about no method", "hasty.md does not begin")
    )
    (tmp_path / "old.md").unlink()
    (tmp_path / "hasty.md").write_text("---\nwhen: there is no time\n---\n\n# Hasty\n")
    assert catalogues.mismatch(["hasty"], tmp_path) is None


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_method_is_in_the_navigation_and_in_the_picture_and_its_page_says_when_it_fails(name):
    page = (DOCS / "methods" / f"{name}.md").read_text()
    assert f"methods/{name}.md" in NAVIGATION
    assert re.search(rf"\b{name}\b", (DOCS / "figures" / "depths.svg").read_text())
    assert "<!-- the method -->" in page
    assert "\n## When it fails\n" in page
    assert f"qx.{CATALOGUE[name].__name__}(" in page


def test_the_tables_of_methods_are_derived_from_the_catalogue():
    rows = catalogues.rows_of("methods")
    assert [row["name"] for row in rows] == list(CATALOGUE)
    table = catalogues.methods_table(rows).splitlines()
    assert len(table) == 2 + len(CATALOGUE)
    alices = next(line for line in table if "`alices`" in line)
    assert "(methods/alices.md) | joint ratio, joint score | likelihood | there is gold" in alices
    facts = catalogues.facts(next(row for row in rows if row["name"] == "alices"))
    assert "`--method alices`" in facts
    assert "`alpha=1.0`" in facts
    assert "[arXiv:1808.00973](https://arxiv.org/abs/1808.00973)" in facts


# -- what the pages say ------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=name_of)
def test_a_page_names_only_what_the_package_has(page):
    text = page.read_text(encoding="utf-8")
    used = set(re.findall(r"\bqx\.([A-Za-z]\w*)", text)) - {"problems"}
    assert used - set(dir(qx)) == set()
    assert set(re.findall(r"\bqx\.problems\.([A-Za-z]\w*)", text)) - set(dir(qx.problems)) == set()


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=name_of)
def test_a_page_gives_commands_only_options_that_they_have(page):
    import typer.main

    from quincunx.cli.app import app

    commands = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    for line in re.findall(r"^(?:\$ )?quincunx (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        name, *words = line.split()
        assert {after for word, after in itertools.pairwise(words) if word == "--method"} <= set(CATALOGUE), line
        known = {option for parameter in commands[name].params for option in parameter.opts + parameter.secondary_opts}
        assert {word for word in words if word.startswith("--")} <= known | {"--help"}, line


def test_the_example_of_a_method_in_contributing_is_that_of_the_source():
    (block,) = readme.blocks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "python")
    source = (ROOT / "src" / "quincunx" / "methods" / "ratio.py").read_text(encoding="utf-8")
    parts = block.text.split("\n\n\n")
    assert len(parts) == 2
    assert all(part.strip() in source for part in parts)


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_python_of_a_page_is_python(page):
    for block in readme.blocks(page.read_text(encoding="utf-8"), "python"):
        ast.parse(block.text, f"{name_of(page)}, line {block.line}")


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    import jax

    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for block in readme.blocks(page.read_text(encoding="utf-8"), "python"):
        # Empty lines in front, so that a traceback shows the line of the page.
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
    jax.clear_caches()
