"""`import quincunx` is quick, and says what there is."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import quincunx as qx

SOURCE = Path(qx.__file__)
ENV = {**os.environ, "PYTHONPATH": str(SOURCE.parent.parent)}


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=ENV).stdout


def test_importing_the_package_and_the_command_imports_neither_jax_nor_matplotlib():
    code = (
        "import sys, quincunx, quincunx.cli.app; print([m for m in ('jax', 'matplotlib', 'numpy') if m in sys.modules])"
    )
    assert python(code).strip() == "[]"


def test_help_answers_at_once():
    # 0.3 s on a quiet machine, of which 0.15 are Typer and Rich. The limit leaves room for a busy one, and is
    # still shorter than importing JAX and NumPyro takes (2 s and more).
    times = []
    for _ in range(3):
        start = time.monotonic()
        answer = subprocess.run([sys.executable, "-m", "quincunx", "--help"], capture_output=True, text=True, env=ENV)
        times.append(time.monotonic() - start)
        assert answer.returncode == 0
        assert "infer" in answer.stdout
    assert min(times) < 1.5


def test_every_name_can_be_had_and_the_unknown_one_cannot():
    for name in qx.__all__:
        assert getattr(qx, name) is not None
    assert set(qx.__all__) <= set(dir(qx))
    with pytest.raises(AttributeError, match="fitt"):
        _ = qx.fitt


def test_the_names_are_those_that_type_checkers_see():
    tree = ast.parse((SOURCE.parent / "__init__.pyi").read_text())
    names = [alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(names) == sorted(qx.__all__)
    assert len(set(names)) == len(names)


def test_every_method_of_the_catalogue_is_public():
    from quincunx.methods import CATALOGUE

    assert [name for name, make in CATALOGUE.items() if getattr(qx, make.__name__, None) is not make] == []


def test_one_path_per_name():
    from quincunx.core.fit import fit
    from quincunx.sample.simulate import simulate

    assert qx.fit is fit
    assert qx.simulate is simulate


def test_other_attributes_of_the_package_can_be_set(monkeypatch):
    monkeypatch.setattr(qx, "simulate", 3)
    assert qx.simulate == 3
