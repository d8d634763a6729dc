"""Every example runs, as its user would run it, and says something; without what it needs, it says what to install."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
NEEDS = {"coalescent": "msprime"}  # what is no requirement of the tests


def lacks(path: Path) -> bool:
    return path.stem in NEEDS and importlib.util.find_spec(NEEDS[path.stem]) is None


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path):
    if lacks(path):
        pytest.skip(f"{NEEDS[path.stem]} is not installed")
    done = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "+-" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in EXAMPLES if lacks(path)], ids=lambda path: path.stem)
def test_an_example_without_what_it_needs_says_what_to_install(path):
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert f"this example needs {NEEDS[path.stem]}: pip install" in done.stderr
