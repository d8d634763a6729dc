"""Posteriors beside the reference posteriors of sbibm (Lueckmann et al. 2021, arXiv:2101.04653), by C2ST.

    python benchmarks/sbibm.py WHEEL                      # every task, npe nle nre-b, at 1,000 and 10,000 simulations
    python benchmarks/sbibm.py WHEEL --tasks two_moons sir --methods npe --simulations 1000 --observations 1 2 3
    python benchmarks/sbibm.py WHEEL --exact              # the library's own sampler on the exact likelihood

WHEEL is the package sbibm 1.1.0 as a file (`pip download --no-deps sbibm==1.1.0`), out of which observations and 10,000
draws of each reference posterior are read; it is not installed. Needs scikit-learn.

Each method is trained once for a task and a number of simulations, with its defaults, and answers for all observations;
one that answers for a single data set has that number for each.
Rows go to a JSON file as they are found; those that are there already are not made again.

C2ST is that of sbibm, .5 where a network cannot tell the two. With ten parameters the network learns the draws by heart
in hundreds of iterations, a quarter of an hour on one core; `--iterations 50` stops it before that.
"""

import argparse
import bz2
import io
import json
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from slcp import c2st

import quincunx as qx
from quincunx.methods import CATALOGUE
from quincunx.methods.method import AbstractSearch
from quincunx.problems import SBIBM

NUM_DRAWS = 10_000
EXACT = "exact"
COLUMNS = ("task", "method", "simulations", "observation", "iterations")
FAILED: dict[str, Any] = {"c2st": None, "sample_s": 0.0, "warnings": []}
# Where another task has the reference, under the name of its own observation.
SHARED = {
    "slcp_distractors": ("slcp", "observation_distractors.csv"),
    "bernoulli_glm_raw": ("bernoulli_glm", "observation_raw.csv"),
}


def read(wheel: Path, task: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """One observation `(1, *event)` and draws of its reference posterior `(10000, dim)`."""
    home, name = SHARED.get(task, (task, "observation.csv"))
    folder = f"sbibm/tasks/{home}/files/num_observation_{number}"
    table = lambda text: np.loadtxt(io.BytesIO(text), delimiter=",", skiprows=1, ndmin=2, dtype=np.float32)
    with zipfile.ZipFile(wheel) as files:
        draws = bz2.decompress(files.read(f"{folder}/reference_posterior_samples.csv.bz2"))
        return table(files.read(f"{folder}/{name}")), table(draws)


def trained(task: str, method: str, num_simulations: int, seed: int) -> tuple[Any, tuple[str, ...], float]:
    """A function (key, x) -> posterior, what its training warns of, and the seconds that took, compiling included.

    A method that answers for one data set alone has nothing to train beforehand. None if training failed.
    """
    if method == EXACT:
        return _of_estimator(qx.ExactRatio(SBIBM[task])), (), 0.0
    begun = time.perf_counter()
    if isinstance(CATALOGUE[method](), AbstractSearch):
        given = {"num_simulations": num_simulations, "progress": qx.NoProgress()}
        return lambda key, x: qx.infer(key, SBIBM[task], x, method, **given).posterior, (), 0.0
    try:
        solution = qx.train(jax.random.key(seed), SBIBM[task], method, num_simulations=num_simulations)
    except qx.InferenceError as error:
        return None, (f"training failed: {error}",), time.perf_counter() - begun
    return _of_estimator(solution.value), solution.warnings, time.perf_counter() - begun


def _of_estimator(estimator: Any) -> Any:
    return lambda key, x: qx.posterior(estimator, x, key=key)


def answered(options: argparse.Namespace, task: str, number: int, ask: Any) -> dict[str, Any]:
    """How well the posterior of one observation does, and how long it took."""
    x, reference = read(options.wheel, task, number)
    answer_key, draw_key = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), number))
    begun = time.perf_counter()
    try:
        posterior = ask(answer_key, x)
        draws = np.asarray(posterior.sample(draw_key, NUM_DRAWS))
        seconds = time.perf_counter() - begun
        score = c2st(draws, reference, options.iterations)
        return {"c2st": score, "sample_s": seconds, "warnings": list(posterior.warnings)}
    except (ValueError, qx.InferenceError) as error:  # the other rows are wanted all the same
        return {**FAILED, "sample_s": time.perf_counter() - begun, "warnings": [f"failed: {error}"]}


def rows(options: argparse.Namespace, done: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows that are asked for and not done, one after the other."""
    there = {tuple(row[column] for column in COLUMNS) for row in done}
    methods = [(EXACT, 0)] if options.exact else [(m, n) for n in options.simulations for m in options.methods]
    for task in options.tasks:
        for method, size in methods:
            named = lambda number, task=task, method=method, size=size: (task, method, size, number, options.iterations)
            missing = [number for number in options.observations if named(number) not in there]
            if not missing:
                continue
            ask, warnings, seconds = trained(task, method, size, options.seed)
            for number in missing:
                found = FAILED if ask is None else answered(options, task, number, ask)
                found = {**found, "warnings": [*warnings, *found["warnings"]]}
                yield dict(zip(COLUMNS, named(number), strict=True)) | {"train_s": seconds} | found
            jax.clear_caches()


def line(row: dict[str, Any]) -> str:
    score = "none" if row["c2st"] is None else f"{row['c2st']:.3f}"
    return (
        f"{row['task']:24} {row['method']:6} {row['simulations']:7,} observation {row['observation']}: C2ST {score}; "
        f"trained in {row['train_s']:.0f} s, sampled in {row['sample_s']:.0f} s; {'; '.join(row['warnings']) or 'ok'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=SBIBM, default=list(SBIBM))
    parser.add_argument("--methods", nargs="+", default=["npe", "nle", "nre-b"])
    parser.add_argument("--simulations", nargs="+", type=int, default=[1000, 10_000])
    parser.add_argument("--observations", nargs="+", type=int, choices=range(1, 11), default=[1, 2, 3])
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--iterations", type=int, default=10_000, help="of the classifier at most; 10,000 are sbibm's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("sbibm.json"))
    options = parser.parse_args()
    done = json.loads(options.out.read_text()) if options.out.exists() else []
    for row in rows(options, done):
        done.append(row)
        options.out.write_text(json.dumps(done, indent=1))
        print(line(row), flush=True)


if __name__ == "__main__":
    main()
