"""The evidence of prior times likelihood from draws of it, by importance sampling from a mixture fitted to the draws.

    q(u) = sum_k w_k t(u | m_k, S_k),      p(x) = E_q [ prior(u) r(x | u) / q(u) ]

Chains know prior times likelihood up to a factor: p(x), without which their posterior has no density. The mixture is
fitted to one half of the draws by k-means and a few steps of expectation-maximisation; the other half chooses how many
normals it has. Their tails are then those of t laws, heavier than what is fitted, so that weights stay bounded (Geweke
1989). How far the mean of the weights can be trusted is told by the number that count and by Pareto's k.
"""

import warnings
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.special import gammaln, logsumexp

from ....core.batches import put
from ....core.solution import Key, rng_of
from ..importance import FEWEST, MOST_K, weighed
from ..product import Target

NUM_FITTED, NUM_DRAWN = 4000, 4096  # draws that the mixture is fitted to, and draws of the mixture
COMPONENTS = (1, 2, 4, 8)
STEPS = 8  # of expectation-maximisation
FREEDOM = 8.0  # degrees of freedom of the t laws
RIDGE = 1e-4  # of the draws' own variance, added to those of a component


class Evidence(NamedTuple):
    """The log-evidence, what is told of it by name, and warnings."""

    value: float
    told: dict[str, float]
    doubts: tuple[str, ...]


def evidence(key: Key, target: Target, u: np.ndarray) -> Evidence:
    """From draws u `(n, d)`, in random order."""
    rng, u = rng_of(key), np.asarray(u[:NUM_FITTED], np.float64)
    centre, spread = u.mean(axis=0), np.maximum(u.std(axis=0), 1e-12)
    z = (u - centre) / spread
    mixture = Mixture.chosen(rng, z[::2], z[1::2])
    drawn = mixture.sample(rng, NUM_DRAWN)
    found = np.asarray(_log_density(target, put((drawn * spread + centre).astype(np.float32))), np.float64)
    log_w = found - mixture.log_prob(drawn) + np.log(spread).sum()
    log_w = np.where(np.isnan(log_w), -np.inf, log_w)  # far out, where prior and likelihood are both zero
    if not np.isfinite(log_w).any():
        told = {"log_evidence_std": np.inf, "evidence_ess": 0.0, "evidence_pareto_k": np.inf}
        return Evidence(np.nan, told, ("the evidence could not be found, and log_prob is NaN",))
    value, _, ess, k = weighed(log_w)
    error = float(np.sqrt(max(1 / ess - 1 / NUM_DRAWN, 0.0)))
    told = {"log_evidence_std": error, "evidence_ess": ess, "evidence_pareto_k": k}
    return Evidence(value, told, _doubts(error, ess, k))


@eqx.filter_jit
def _log_density(target: Target, u: jax.Array) -> jax.Array:
    return target.log_density(u)


def _doubts(error: float, ess: float, k: float) -> tuple[str, ...]:
    if ess >= NUM_DRAWN / 2 or (ess >= FEWEST and k <= MOST_K):  # k says nothing where weights are all alike
        return ()
    return (
        f"the log-evidence, and log_prob with it, is uncertain by a constant of {error:.2g} or more: {ess:.0f} of "
        f"{NUM_DRAWN} weights count, Pareto's k is {k:.2f}; the draws do not depend on it. qx.Tempered() has another "
        "estimate",
    )


class Mixture(NamedTuple):
    """Weights `(k,)`, means `(k, d)` and lower roots `(k, d, d)` of t laws."""

    weight: np.ndarray
    mean: np.ndarray
    root: np.ndarray

    @staticmethod
    def chosen(rng: np.random.Generator, fitted: np.ndarray, judged: np.ndarray) -> "Mixture":
        """Of all numbers of components the best on draws that it was not fitted to."""
        few = [k for k in COMPONENTS if len(fitted) >= 10 * k * (fitted.shape[1] + 1)] or [1]
        made = [Mixture.fitted(rng, fitted, k) for k in few]
        return max(made, key=lambda each: each.log_prob(judged).mean())

    @staticmethod
    def fitted(rng: np.random.Generator, z: np.ndarray, count: int) -> "Mixture":
        """Of normals, by expectation-maximisation from clusters."""
        if count == 1:
            return Mixture.of(z, np.ones((len(z), 1)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a cluster without points, which weighs nothing
            share = np.eye(count)[kmeans2(z, count, minit="++", rng=rng)[1]]
        for _ in range(STEPS):
            terms = Mixture.of(z, share).log_terms(z, np.inf)
            share = np.exp(terms - logsumexp(terms, axis=1, keepdims=True))
        return Mixture.of(z, share)

    @staticmethod
    def of(z: np.ndarray, share: np.ndarray) -> "Mixture":
        """Of normals that own these shares `(n, k)` of the points `(n, d)`."""
        total = share.sum(axis=0) + 1e-9
        mean = (share.T @ z) / total[:, None]
        apart = z[:, None] - mean
        covariance = np.einsum("nk,nki,nkj->kij", share, apart, apart, optimize=True) / total[:, None, None]
        return Mixture(total / total.sum(), mean, np.linalg.cholesky(covariance + RIDGE * np.eye(z.shape[1])))

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        which = rng.choice(len(self.weight), count, p=self.weight)
        normal = rng.normal(size=(count, self.mean.shape[1])) / np.sqrt(rng.chisquare(FREEDOM, (count, 1)) / FREEDOM)
        return self.mean[which] + np.einsum("nij,nj->ni", self.root[which], normal)

    def log_prob(self, z: np.ndarray) -> np.ndarray:
        """Log density `(n,)` at z `(n, d)`."""
        return np.asarray(logsumexp(self.log_terms(z, FREEDOM), axis=1))

    def log_terms(self, z: np.ndarray, freedom: float) -> np.ndarray:
        """Of each component, with its weight `(n, k)`; normal for infinite degrees of freedom."""
        d = z.shape[1]
        # no solver of LAPACK here: the threads that it starts for each component take longer than the work
        standard = np.einsum("nki,kji->nkj", z[:, None] - self.mean, np.linalg.inv(self.root))
        square = (standard**2).sum(axis=2)
        if np.isinf(freedom):
            shape = -0.5 * (square + d * np.log(2 * np.pi))
        else:
            norm = gammaln((freedom + d) / 2) - gammaln(freedom / 2) - d / 2 * np.log(freedom * np.pi)
            shape = norm - (freedom + d) / 2 * np.log1p(square / freedom)
        volume = np.log(np.diagonal(self.root, axis1=1, axis2=2)).sum(axis=1)
        return shape - volume + np.log(self.weight)
