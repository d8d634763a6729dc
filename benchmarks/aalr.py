"""Table 2 of AALR (Hermans, Begy and Louppe 2020, arXiv:1903.04057): posteriors of SLCP beside the exact one.

    python benchmarks/aalr.py                                    # every method, 100,000 simulations each
    python benchmarks/aalr.py --methods nre snpe-c --simulations 10000

theta* = (.7, -2.9, -1, -.9, .6); one observation of four draws, here of a fixed key. The exact posterior is sampled
from the likelihood, and sampled again as the first row. Each method has its defaults; ABC has four epsilons, in units
of the spread of x over the prior; "nre large" and "nre larger" have a network of four layers of 256. MMD^2 is the
unbiased estimate with a normal kernel as wide as the median distance of 1,000 exact draws; AUC that of a network of
two hidden layers of 50, over five folds, 5,000 draws of each: 0.5 where
it cannot tell them apart. Needs scikit-learn. About, from the lecture on the paper: MMD and AUC of AALR .05, .59; APT
(SNPE-C) .17, .86; SNPE-A .21, .97; SNPE-B .20, .92; ABC .29 to .51, .98 to .99.
"""

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.neural_network import MLPClassifier

import quincunx as qx
from quincunx.methods import CATALOGUE
from quincunx.methods.method import AbstractSearch

SLCP = qx.problems.SBIBM["slcp"]
THETA = np.array([0.7, -2.9, -1.0, -0.9, 0.6], np.float32)
EPSILONS = (2.0, 1.0, 0.7, 0.5)
NUM_DRAWS, NUM_KERNEL = 5000, 1000
LARGE = qx.NRE(network=qx.MLP((256,) * 4), batch_size=1024)
OWN = {"nre large": (LARGE, qx.Training(10_000, 1e-3)), "nre larger": (LARGE, qx.Training(20_000, 1e-3))}
METHODS = ("nre", "nre-b", "nle", "snpe-c", "snpe-a", "snpe-b")


def auc(one: np.ndarray, other: np.ndarray) -> float:
    x = (np.concatenate([one, other]) - other.mean(axis=0)) / other.std(axis=0)
    label = np.repeat([0, 1], [len(one), len(other)])
    network = MLPClassifier((50, 50), max_iter=200, random_state=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        folds = KFold(5, shuffle=True, random_state=1)
        score = cross_val_predict(network, x, label, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(label, score))


def mmd2(one: np.ndarray, other: np.ndarray) -> float:
    distance = lambda a, b: np.sum((a[:, None] - b[None]) ** 2, axis=-1)
    within = distance(other[:NUM_KERNEL], other[:NUM_KERNEL])
    width = np.median(within[np.triu_indices(NUM_KERNEL, 1)])
    kernel = lambda a, b: np.exp(-distance(a, b) / (2 * width))
    n = len(one)
    inner = lambda a: (kernel(a, a).sum() - n) / (n * (n - 1))
    return float(inner(one) + inner(other) - 2 * kernel(one, other).mean())


def draws_of(posterior: qx.AbstractPosterior, seed: int) -> np.ndarray:
    return np.asarray(posterior.sample(jax.random.key(seed), NUM_DRAWS))


def answered(name: str, x: Any, num_simulations: int) -> qx.AbstractPosterior:
    key = jax.random.key(0)
    if name in OWN:
        method, training = OWN[name]
        return qx.posterior(qx.train(key, SLCP, method, num_simulations=num_simulations, training=training).value, x)
    name, _, epsilon = name.partition(" ")
    method = qx.ABC(epsilon=float(epsilon)) if epsilon else CATALOGUE[name]()
    if isinstance(method, AbstractSearch):
        given = {"num_simulations": num_simulations, "progress": qx.NoProgress()}
        return qx.infer(key, SLCP, x, method, **given).posterior
    return qx.posterior(qx.train(key, SLCP, method, num_simulations=num_simulations).value, x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=[*METHODS, *(f"abc {epsilon}" for epsilon in EPSILONS)])
    parser.add_argument("--simulations", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("aalr.json"))
    options = parser.parse_args()
    x = qx.simulate(jax.random.key(3), SLCP, theta=jnp.asarray(THETA)[None]).x[0]
    exact = [qx.posterior(qx.ExactRatio(SLCP), x, key=jax.random.key(seed)) for seed in (1, 2)]
    truth, rows = draws_of(exact[0], 1), []
    for name in ("exact, again", *options.methods):
        begun = time.perf_counter()
        try:
            found = exact[1] if name.startswith("exact") else answered(name, x, options.simulations)
        except (ValueError, qx.InferenceError) as error:
            print(f"{name:14} {error}", flush=True)
            continue
        draws = draws_of(found, 2)
        seconds = time.perf_counter() - begun
        row = {"method": name, "mmd2": mmd2(draws[:2000], truth[:2000]), "auc": auc(draws, truth), "seconds": seconds}
        rows.append({**row, "simulations": options.simulations, "warnings": list(found.warnings)})
        options.out.write_text(json.dumps(rows, indent=1))
        mmd = max(row["mmd2"], 0.0) ** 0.5
        print(
            f"{name:14} MMD {mmd:.3f} (MMD^2 {row['mmd2']:+.4f}), AUC {row['auc']:.3f}, {seconds:.0f} s; "
            f"{'; '.join(found.warnings) or 'ok'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
