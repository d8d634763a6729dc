"""`import quincunx` is quick and says what there is; a public function is never hidden by a module of its name."""

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
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = qx.fitt


def test_the_names_for_type_checkers_are_those_that_are_imported_lazily():
    tree = ast.parse(SOURCE.read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    imports = {a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert imports.pop("simulators") is None
    assert imports == qx._HOME
    assert {"__version__", "simulators", *imports} == set(qx.__all__)


@pytest.mark.parametrize("order", ["import quincunx.{0}", "import quincunx as q; q.{0}; import quincunx.{0}"])
def test_a_module_does_not_hide_the_function_of_its_name(order: str):
    names = ["fit", "infer", "simulate", "simulator"]
    lines = [order.format(name) for name in names] + [f"print(type(q.{name}).__name__)" for name in names]
    assert python("import quincunx as q\n" + "\n".join(lines)).split() == ["function"] * 4


def test_one_path_per_name():
    from quincunx.core.fit import fit
    from quincunx.sample.simulate import simulate

    assert qx.fit is fit
    assert qx.simulate is simulate


def test_other_attributes_of_the_package_can_be_set(monkeypatch):
    monkeypatch.setattr(qx, "simulate", 3)
    assert qx.simulate == 3
