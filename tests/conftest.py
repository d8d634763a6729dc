"""Settings that must be made before JAX and Matplotlib are imported. What is set outside wins.

Four fifths of the time of the tests would go to XLA's optimiser, for programs that run a few times: it is switched off,
and so are its newer emitters of fused loops, which take twice the time of the older ones to compile a training step.
Threads of OpenBLAS only stand in one another's way, for the small systems of equations that there are.
Compiled functions are kept in `.jax_cache`, which all workers of pytest-xdist share; delete the folder at will. In
memory each holds some pieces of mapped memory, of which Linux gives a process no more than 65,530 as a rule: between
files they are dropped when there are many.
Types are checked at run time (beartype) in the inner modules only: at the edges, the tests pass wrong types on purpose,
and the package refuses them with messages of its own.
"""

import gc
import os
from importlib.metadata import version
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("JAX_PLATFORMS", "cpu")
FLAGS = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if version("jaxlib").startswith("0.10."):  # later ones do not know it, and stop
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("MPLBACKEND", "agg")

MOST_MAPS = 12_000  # with some 3 GB
PAGES = ("alfi", "machine", "ratio", "density", "score", "histogram", "nets", "binning")
TYPE_CHECKED = ["answers.bayes", *(f"methods.{page}" for page in PAGES)]

install_import_hook([f"quincunx.{module}" for module in TYPE_CHECKED], "numeric_tower.checked")


@pytest.fixture(scope="module", autouse=True)
def _drop_compiled_functions():
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        import jax  # not above: the settings must be made first

        jax.clear_caches()
        gc.collect()
