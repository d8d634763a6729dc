"""SLCP, simple likelihood and complex posterior: how near the posteriors of several methods are to the exact one.

    python benchmarks/slcp.py [METHOD ...]     # nle "nle mixture" nre npe by default; needs scikit-learn

"nle mixture" is NLE by a mixture of normals, in batches of 500 with a moving average of the weights; the others have
their defaults.

Five parameters, four draws of a normal in two dimensions, a posterior of four modes (Papamakarios et al. 2019). The
benchmark of Lueckmann et al. (2021) counts one simulation for all four draws; here 10,000 of those are 40,000 draws.
NLE and NRE learn from single draws, NPE from sets of four: they are told that draws are independent, which published
methods were not, so the numbers stand apart from theirs (at 10,000 simulations NLE .77, NPE .90, NRE .95).

C2ST is the accuracy with which a network (two hidden layers of 50) tells 10,000 draws of one posterior from 10,000 of
the other, over five folds: 0.5 where it cannot. The other is sampled from the exact likelihood; its own repeats, which
must not be told apart, come first. Three data sets, of theta drawn from the prior.
"""

import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier

import quincunx as qx

NUM_DRAWS, NUM_SIMULATIONS, NUM_SETS = 4, 10_000, 3
OWN = {"nle mixture": (qx.NLE(network=qx.Mixture(), batch_size=500), qx.Training(10_000, 2e-3, average=0.999))}
PARAMETERS = ("m1", "m2", "s1", "s2", "r")


def _parts(t):
    return t[:2], t[2] ** 2, t[3] ** 2, jnp.tanh(t[4])


def _log_likelihood(theta, x):
    mean, s1, s2, r = _parts(theta)
    a, b = ((x - mean) / jnp.stack([s1, s2])).T
    square = (a * a - 2 * r * a * b + b * b) / (1 - r * r)
    return jnp.sum(-0.5 * square - jnp.log(2 * jnp.pi * s1 * s2) - 0.5 * jnp.log1p(-r * r))


@qx.simulator(
    qx.Prior(**{name: dist.Uniform(-3, 3) for name in PARAMETERS}), exact=qx.Exact(log_likelihood=_log_likelihood)
)
def slcp(key, theta):
    mean, s1, s2, r = _parts(jnp.stack([theta[name] for name in PARAMETERS]))
    a, b = jax.random.normal(key, (2,))
    return mean + jnp.stack([s1 * a, s2 * (r * a + jnp.sqrt(1 - r * r) * b)])


def c2st(one: np.ndarray, other: np.ndarray, iterations: int = 1000) -> float:
    centre, unit = other.mean(axis=0), other.std(axis=0)
    x = (np.concatenate([one, other]) - centre) / unit
    label = np.repeat([0, 1], [len(one), len(other)])
    size = 10 * one.shape[1]
    network = MLPClassifier((size, size), max_iter=iterations, random_state=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        folds = KFold(5, shuffle=True, random_state=1)
        return float(cross_val_score(network, x, label, cv=folds, scoring="accuracy").mean())


def main(names: list[str]) -> None:
    key, exact = jax.random.key(0), qx.ExactRatio(slcp)
    x = qx.simulate(jax.random.key(7), slcp, num_simulations=NUM_SETS, num_observations=NUM_DRAWS).x
    draw = lambda estimator, row, seed: np.asarray(
        qx.posterior(estimator, x[row], key=jax.random.key(seed)).sample(jax.random.key(seed), 10_000)
    )
    truth = [draw(exact, row, 1) for row in range(NUM_SETS)]
    print("exact, again:", " ".join(f"{c2st(draw(exact, row, 2), truth[row]):.3f}" for row in range(NUM_SETS)))
    for name in names:
        begun = time.perf_counter()
        sets = {"num_observations": NUM_DRAWS} if name == "npe" else {}
        method, training = OWN.get(name, (name, None))
        solution = qx.train(key, slcp, method, num_simulations=NUM_DRAWS * NUM_SIMULATIONS, training=training, **sets)
        trained = time.perf_counter()
        found = [draw(solution.value, row, 2) for row in range(NUM_SETS)]
        sampled = time.perf_counter()
        scores = [c2st(each, true) for each, true in zip(found, truth, strict=True)]
        told = [len(qx.posterior(solution.value, each).warnings) for each in x]
        print(
            f"{name}: C2ST {' '.join(f'{score:.3f}' for score in scores)}; trained in {trained - begun:.0f} s, "
            f"{NUM_SETS} posteriors in {sampled - trained:.0f} s, compiling included; warnings {told}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:] or ["nle", "nle mixture", "nre", "npe"])
