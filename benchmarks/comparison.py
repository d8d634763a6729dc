"""The comparison that the ALFI paper names as its future work: ALFI beside other methods, for as many simulator calls.

    python benchmarks/comparison.py                                        # hours: every problem, method and budget
    python benchmarks/comparison.py --problems poisson --methods alfi npe --calls 10000 --sets 20

A call is one observation simulated. Problems are data sets of a fixed size at draws of the prior: 20 observations
each of poisson, linear_regression, multivariate and weinberg, one time series of lotka_volterra. A method that trains
has the calls for its training, and answers for all data sets; one that answers for one data set alone has as many for
each of them. All have their defaults: "alfi" is the machine by `train`, "infer alfi" what `infer` makes of it, a short
training and then rounds for the one data set.

For each: root mean square error of the mean, in standard deviations of the prior, over parameters and data sets; how
many central 95 % intervals hold the truth; minus the log density of the truth, mean and median over data sets (the mean
is infinite where one posterior rules the truth out); seconds for training, or none, and for one data set. Rows go to a
JSON file, and those that are there already are not made again.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import quincunx as qx
from quincunx.methods import CATALOGUE
from quincunx.methods.method import AbstractSearch
from quincunx.problems import BUILT_IN

SIZES = {"poisson": 20, "linear_regression": 20, "multivariate": 20, "weinberg": 20, "lotka_volterra": 1}
METHODS = ("alfi", "infer alfi", "npe", "nre", "nle", "snpe-c", "smc-abc", "nes", "avo", "zoom")
CALLS = (1000, 10_000, 100_000, 1_000_000)
COLUMNS = ("problem", "method", "calls")


def trained(name: str, method: str, calls: int) -> tuple[Callable[[Any, Any], Any], float]:
    """A function (key, x) -> posterior, and the seconds of its training."""
    simulator, begun = BUILT_IN[name], time.perf_counter()
    method, for_one = method.removeprefix("infer "), method.startswith("infer ")
    if for_one or isinstance(CATALOGUE[method](), AbstractSearch):
        given = {"num_simulations": calls, "progress": qx.NoProgress()}
        return lambda key, x: qx.infer(key, simulator, x, method, **given).posterior, 0.0
    key = jax.random.key(0)
    solution = qx.train(key, simulator, method, num_simulations=calls, num_observations=SIZES[name])
    return lambda key, x: qx.posterior(solution.value, x, key=key), time.perf_counter() - begun


def measured(name: str, method: str, calls: int, sets: int) -> dict[str, Any]:
    simulator = BUILT_IN[name]
    sims = qx.simulate(jax.random.key(1), simulator, num_simulations=sets, num_observations=SIZES[name])
    try:
        ask, train_s = trained(name, method, calls)
        begun, found = time.perf_counter(), []
        for row in range(sets):
            posterior = ask(jax.random.fold_in(jax.random.key(2), row), sims.x[row])
            low, high = np.asarray(posterior.interval(0.95))
            density = float(posterior.log_prob(np.asarray(sims.theta[row : row + 1]))[0])
            found.append((np.asarray(posterior.mean), low, high, density, bool(posterior.warnings)))
    except (ValueError, qx.InferenceError) as error:
        return {"failed": str(error)}
    mean, low, high, density, told = (np.stack([each[i] for each in found]) for i in range(5))
    theta = np.asarray(sims.theta)
    spread = np.asarray(simulator.prior.sample(jax.random.key(3), 10_000)).std(axis=0)
    return {
        "rmse": float(np.sqrt(np.mean(((mean - theta) / spread) ** 2))),
        "coverage": float(np.mean((low <= theta) & (theta <= high))),
        "nll_mean": float(-np.mean(density)),
        "nll_median": float(-np.median(density)),
        "warned": float(np.mean(told)),
        "train_s": train_s,
        "answer_s": (time.perf_counter() - begun) / sets,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: for each number of calls a row for each method, in it RMSE, coverage and the median of -log q."""
    found = {tuple(row[column] for column in COLUMNS): row for row in rows}
    lines = []
    for calls in sorted({row["calls"] for row in rows}):
        lines += [f"\n| {calls:,} calls | {' | '.join(SIZES)} |", "|---" * (1 + len(SIZES)) + "|"]
        for method in METHODS:
            cells = [_cell(found.get((problem, method, calls))) for problem in SIZES]
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return "refused" if "failed" in row else "{rmse:.3f}, {coverage:.2f}, {nll_median:.1f}".format(**row)


def drawn(rows: list[dict[str, Any]], path: Path) -> None:
    """RMSE over the number of calls, a panel for each problem, a line for each method."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(SIZES), figsize=(3.2 * len(SIZES), 3.4), sharey=True, layout="constrained")
    for axis, problem in zip(axes, SIZES, strict=True):
        for place, method in enumerate(METHODS):
            own = [row for row in rows if (row["problem"], row["method"]) == (problem, method) and "failed" not in row]
            own.sort(key=lambda row: row["calls"])
            style = {"color": f"C{place}", "marker": "os^vD"[place % 5], "lw": 2.5 if "alfi" in method else 1}
            axis.loglog([row["calls"] for row in own], [row["rmse"] for row in own], label=method, **style)
        axis.set(title=problem, xlabel="simulator calls")
    axes[0].set_ylabel("RMSE / spread of the prior")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS))
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--calls", nargs="+", type=int, default=list(CALLS))
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("comparison.json"))
    parser.add_argument("--figure", type=Path, help="draw what is in the file OUT, instead of running anything")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    if options.figure:
        drawn(rows, options.figure)
        print(table(rows))
        return
    done = {tuple(row[column] for column in COLUMNS) for row in rows}
    wanted = [(p, m, calls) for p in options.problems for calls in options.calls for m in options.methods]
    for case in wanted:
        if case in done:
            continue
        row = dict(zip(COLUMNS, case, strict=True)) | {"sets": options.sets} | measured(*case, options.sets)
        rows.append(row)
        options.out.write_text(json.dumps(rows, indent=1))
        told = row.get("failed") or (
            f"RMSE {row['rmse']:.3f}, coverage {row['coverage']:.2f}, -log q {row['nll_mean']:.2f} (median "
            f"{row['nll_median']:.2f}), warned {row['warned']:.2f}; {row['train_s']:.0f} s + {row['answer_s']:.1f} s"
        )
        print(f"{case[0]:18} {case[1]:8} {case[2]:9,}: {told}", flush=True)
        jax.clear_caches()


if __name__ == "__main__":
    main()
