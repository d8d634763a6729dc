"""README.md does what it says: its Python blocks run, in order, as one program. The CI runs its shell blocks."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import readme

ROOT = Path(__file__).parent.parent
TEXT = readme.README.read_text(encoding="utf-8")
PYTHON = readme.blocks(TEXT, "python")
SHELL = readme.blocks(TEXT, "sh")


@pytest.mark.slow
def test_python_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for block in PYTHON:
        # Empty lines in front, so that a traceback shows the line of README.md.
        exec(compile("\n" * (block.line - 1) + block.text, str(readme.README), "exec"), namespace)


def test_there_are_python_blocks_and_they_name_only_what_the_package_has():
    import quincunx

    trees = [ast.parse(block.text, f"README.md, line {block.line}") for block in PYTHON]
    attributes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "qx"}
    assert used
    assert used - set(dir(quincunx)) == set()


def test_the_first_two_shell_blocks_are_one_line_each_to_show_it_and_to_test_it():
    lines = [block.text.strip() for block in SHELL[:2]]
    assert [line.count("\n") for line in lines] == [0, 0]
    for line in lines:
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt ")
    assert lines[0].endswith(".venv/bin/quincunx demo")
    assert lines[1].endswith(".venv/bin/pytest")


def test_what_the_shell_blocks_call_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = "\n".join(block.text for block in SHELL)
    extras = {extra for group in re.findall(r"\.\[([\w,]+)\]", text) for extra in group.split(",")}
    assert extras <= set(project["optional-dependencies"])
    assert "quincunx" in project["scripts"]


def test_links_inside_the_repository_lead_somewhere():
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", TEXT) if not re.match(r"[a-z]+:|#", t)]
    assert [target for target in targets if not (ROOT / target).exists()] == []
