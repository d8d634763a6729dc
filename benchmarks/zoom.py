"""How good `qx.infer(key, simulator, x, "zoom")` is, on fresh data sets from the prior, beside exact posteriors.

    python benchmarks/zoom.py                              # every case
    python benchmarks/zoom.py poisson:2608:100 ma2:20:40   # simulator:observations:problems

By column of theta (for weinberg the asymmetry comes third): paired = sqrt(1 + mean d^2) with d = (our mean - exact
mean) / exact standard deviation; std / exact; the share of 95 % intervals that hold the truth; our RMSE, and 95th
percentile of errors, over those of the exact posterior mean.
"""

import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import quincunx as qx
from quincunx.problems.weinberg import _ASYMMETRIES, _log_likelihood_of_asymmetry, _prior_moments, asymmetry

CASES = (
    "poisson:2608:100", "poisson:20000:40", "weinberg:2608:60", "multivariate:100:40", "multivariate:500:40",
    "ma2:20:20:30000", "linear_regression:100:100",
)  # fmt: skip
LENGTH = 100


@qx.simulator(qx.Prior(a=dist.Uniform(-1, 1), theta2=dist.Uniform(-1, 1)))
def ma2(key, theta):
    """A moving average of order two, x_t = e_t + theta1 e_(t-1) + theta2 e_(t-2), theta1 = a (1 + theta2)."""
    e = jax.random.normal(key, (LENGTH + 2,))
    return e[2:] + theta["a"] * (1 + theta["theta2"]) * e[1:-1] + theta["theta2"] * e[:-2]


def exact_ma2(x: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and standard deviation on a grid around the truth, by the normal likelihood itself."""
    axes = [np.linspace(max(-0.999, each - 0.2), min(0.999, each + 0.2), 45) for each in theta]
    a, theta2 = (axis.ravel() for axis in np.meshgrid(*axes))
    theta1, lag = a * (1 + theta2), np.arange(LENGTH)
    covariance = np.zeros((len(a), LENGTH, LENGTH))
    for k, value in enumerate((1 + theta1**2 + theta2**2, theta1 * (1 + theta2), theta2)):
        covariance[:, lag[k:], lag[: LENGTH - k]] = covariance[:, lag[: LENGTH - k], lag[k:]] = value[:, None]
    root = np.linalg.cholesky(covariance + 1e-9 * np.eye(LENGTH))
    white = np.linalg.solve(root, np.broadcast_to(x.T, (len(a), LENGTH, len(x))))
    log_det = np.log(np.einsum("nii->ni", root)).sum(axis=1)
    value = -0.5 * np.sum(white**2, axis=(1, 2)) - len(x) * log_det
    weight = np.exp(value - value.max())
    weight /= weight.sum()
    points = np.stack([a, theta2], axis=1)
    mean = weight @ points
    return mean, np.sqrt(weight @ (points - mean) ** 2)


def exact_asymmetry(x: jax.Array) -> tuple[float, float]:
    """Posterior mean and standard deviation of Weinberg's A."""
    nodes = np.asarray(_ASYMMETRIES, np.float64)
    value = np.asarray(jax.jit(_log_likelihood_of_asymmetry)(jnp.asarray(_ASYMMETRIES), x), np.float64)
    weight = np.exp(value - value.max()) * _prior_moments()[:, 0]
    weight /= weight.sum()
    mean = float(weight @ nodes)
    return mean, float(np.sqrt(weight @ (nodes - mean) ** 2))


def exact(simulator: Any, sims: qx.Simulations, row: int) -> tuple[np.ndarray, np.ndarray]:
    if simulator is ma2:
        return exact_ma2(np.asarray(sims.x[row], np.float64), np.asarray(sims.theta[row], np.float64))
    found = [np.asarray(function(sims.x[row]), np.float64) for function in exact_functions(simulator)]
    if simulator.name == "weinberg":
        found = [np.append(one, more) for one, more in zip(found, exact_asymmetry(sims.x[row]), strict=True)]
    return found[0], found[1]


def exact_functions(simulator: Any) -> tuple[Any, Any]:
    return COMPILED.setdefault(
        simulator.name, (jax.jit(simulator.exact.posterior_mean), jax.jit(simulator.exact.posterior_std))
    )


COMPILED: dict[str, tuple[Any, Any]] = {}


def bench(name: str, count: int, problems: int, budget: int | None = None, method: str = "zoom") -> None:
    simulator = ma2 if name == "ma2" else getattr(qx.problems, name)
    sims = qx.simulate(jax.random.key(1), simulator, num_simulations=problems, num_observations=count)
    rows, warned, took, spent = [], 0, [], []
    for row in range(problems):
        begun = time.perf_counter()
        key, quiet = jax.random.key(row), qx.NoProgress()
        answer = qx.infer(key, simulator, sims.x[row], method, num_simulations=budget, progress=quiet)
        took.append(time.perf_counter() - begun)
        spent.append(answer.num_simulator_calls)
        points, truth = np.asarray(answer.posterior.points, np.float64), np.asarray(sims.theta[row], np.float64)
        if name == "weinberg":
            points = np.column_stack([points, np.asarray(asymmetry(points))])
            truth = np.append(truth, np.asarray(asymmetry(truth)))
        mean, std = exact(simulator, sims, row)
        low, high = np.quantile(points, [0.025, 0.975], axis=0)
        rows.append((points.mean(axis=0), points.std(axis=0), mean, std, truth, (low <= truth) & (truth <= high)))
        doubts = [text for text in answer.warnings if "as wide as the prior" not in text]
        warned += bool(doubts)
        away = np.abs(points.mean(axis=0) - mean) / std
        if doubts or np.any(away > 2):
            print(f"  problem {row}: |d| {away.round(2)} {doubts}", flush=True)
    ours, width, mean, std, truth, inside = (np.array(each, np.float64) for each in zip(*rows, strict=True))
    distance = (ours - mean) / std
    show = lambda values: " ".join(f"{value:.3f}" for value in np.atleast_1d(values))
    rmse = lambda estimate: np.sqrt(np.mean((estimate - truth) ** 2, axis=0))
    p95 = lambda estimate: np.quantile(np.abs(estimate - truth), 0.95, axis=0)
    print(f"{name}, {count} observations, {problems} data sets, {np.mean(spent):,.0f} simulated, {method}")
    for title, values in [
        ("paired", np.sqrt(1 + np.mean(distance**2, axis=0))),
        ("largest |d|", np.abs(distance).max(axis=0)),
        ("std / exact, median", np.median(width / std, axis=0)),
        ("std / exact, its standard deviation", (width / std).std(axis=0)),
        ("coverage of 95 %", inside.mean(axis=0)),
        ("RMSE / exact", rmse(ours) / rmse(mean)),
        ("95th percentile of |error| / exact", p95(ours) / p95(mean)),
    ]:
        print(f"  {title} {show(values)}")
    print(f"  warned {warned}; seconds, median {np.median(took):.2f}, first {took[0]:.1f}", flush=True)


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        words = case.split(":")
        bench(words[0], *map(int, words[1:]))
