"""How much mined gold is worth, before anything is trained on it.

Gold is noisy: it is the ratio and the score of one path, and the path holds more than x shows. Three numbers say
how a method will fare that learns from it (Brehmer et al. 2018, arXiv:1805.12244; Stoye et al. 2018,
arXiv:1808.00973, on the variance of the losses):

- the effective sample size of the joint ratios r under the reference, (sum r)^2 / sum r^2 / n;
- the Fisher information of the path, E|t|^2, in units of 1 / parameter^2;
- the latent noise, 1 - Var(E[gold | x]) / Var(gold): the share of the gold's variance that x does not explain.
  E[t | x] is the score of x itself, so information times (1 - noise) is the Fisher information of one observation.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import KDTree

from ._types import Array, Key
from .mine import MarginalReference, PointReference
from .mined import AbstractMinedSimulator

# A regression of gold on x has a variance per row of noise / (1 - noise) relative to its signal: 1/9 and 9 at these
# two. Below the first, more rows are worth little more than exact ratios would be; above the second, ten times the
# rows are needed for what noise-free gold would give.
QUIET, LOUD = 0.1, 0.9
# A squared error of ratios is carried by as many rows as the effective sample size says. Of 10,000 simulations, the
# fewest that people mine, a hundredth is 100 rows: too few to fit a network to. A tenth is enough.
FEW, MANY = 0.01, 0.1
# The mean score is 0. Five standard errors by chance: once in 1.7 million columns, if scores are nearly Gaussian.
OFF = 5.0
NEIGHBOURS = (
    10  # of each x: their mean adds 1/10 to the noise, which is known and taken off; fewer would be less biased
)
MOST_DIMENSIONS = 5  # of x: beyond, ten neighbours of 5,000 are no neighbourhood
LEAST = 100  # simulations; with fewer, a share of variance is a guess


@dataclasses.dataclass(frozen=True)
class GoldQuality:
    """What gold is worth at K thetas.

    Noise is NaN where x has more than `MOST_DIMENSIONS` numbers or the gold does not vary.

    Fields
    ------
    simulator: its name.
    reference: what ratios are relative to, in words.
    columns: the parameters, a name for each column.
    num_simulations: n, drawn at each theta, and from the reference.
    theta: `(K, dim)`.
    effective: `(K,)`, effective sample size of r(x, z | theta) under the reference, as a fraction of n, in (0, 1].
    ratio_noise: `(K,)`, the share of Var(log r) under the reference that is latent noise, in [0, 1].
    information: `(K, dim)`, E[t^2] of every component of the joint score, in 1 / parameter^2.
    score_noise: `(K, dim)`, the share of it that is latent noise, in [0, 1].
    score_offset: `(K, dim)`, the mean score, in standard errors; 0 up to chance.
    """

    simulator: str
    reference: str
    columns: tuple[str, ...]
    num_simulations: int
    theta: np.ndarray
    effective: np.ndarray
    ratio_noise: np.ndarray
    information: np.ndarray
    score_noise: np.ndarray
    score_offset: np.ndarray

    @property
    def advice(self) -> list[str]:
        """Which methods this speaks for and against, in sentences."""
        ratios_known, scores_known = np.isfinite(self.ratio_noise).any(), np.isfinite(self.score_noise).any()
        unknown = "x has too many dimensions, or the gold does not vary, to say how much of {} is latent noise."
        return [
            *_offset_advice(self),
            *_spread_advice(self),
            *(_ratio_advice(self) if ratios_known else [unknown.format("the ratios")]),
            *(_score_advice(self) if scores_known else [unknown.format("the scores")]),
        ]

    def to_dict(self) -> dict[str, Any]:
        """The fields and the advice as plain Python, fit for JSON; NaN becomes None."""
        fields = {name: _plain(getattr(self, name)) for name in (f.name for f in dataclasses.fields(self))}
        return {**fields, "advice": self.advice}

    def table(self) -> str:
        """One line for each theta and parameter, as plain text."""
        head = ["theta", "ESS of r", "noise of log r", "parameter", "E[t^2]", "noise of t", "E[t^2] seen in x"]
        rows = [head]
        for k in range(len(self.theta)):
            for j, column in enumerate(self.columns):
                first = [self.at(k), _percent(self.effective[k]), _percent(self.ratio_noise[k])] if j == 0 else [""] * 3
                known = self.information[k, j] * (1 - self.score_noise[k, j])
                numbers = [f"{self.information[k, j]:.4g}", _percent(self.score_noise[k, j]), _number(known)]
                rows.append([*first, column, *numbers])
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        title = f"{self.simulator}: {self.num_simulations} simulations at each theta, ratios against {self.reference}"
        return "\n".join([title, *lines])

    def at(self, k: int) -> str:
        """The k-th theta, with names."""
        return ", ".join(f"{name}={value:.4g}" for name, value in zip(self.columns, self.theta[k], strict=True))


def gold_quality(
    key: Key,
    simulator: AbstractMinedSimulator,
    theta: Array,
    *,
    reference: MarginalReference | PointReference = MarginalReference(),
    num_simulations: int = 5000,
) -> GoldQuality:
    """Measure what a simulator's gold is worth at some thetas, with (K + 1) n simulations.

    The noise comes from the nearest neighbours of every x, after a quadratic fit, leaving each row out of its own
    estimate. It is an upper bound where E[gold | x] bends within a neighbourhood.

    Parameters
    ----------
    key: random key.
    simulator: what gives the gold.
    theta: where to look `(K, dim)`.
    reference: of the ratios. The pool of a `MarginalReference` is extended by theta, as a numerator is one of it.
    num_simulations: n, at each theta and from the reference.

    Raises
    ------
    TypeError: the simulator gives no gold, or the reference is neither of the two.
    ValueError: theta of the wrong shape or outside the prior, fewer than 100 simulations, or that many did not fail.
    """
    theta = _checked(simulator, theta, reference, num_simulations)
    pool_key, reference_key, *keys = jax.random.split(key, 2 + len(theta))
    ready = reference.prepare(pool_key, simulator.prior, None)
    x, log_ratio = _ratios(reference_key, simulator, theta, ready, num_simulations)
    effective = np.array([_effective(column) for column in log_ratio.T])
    scored = [_scores(k, simulator, each, num_simulations) for k, each in zip(keys, theta, strict=True)]
    return GoldQuality(
        simulator=simulator.name,
        reference=_describe(ready, len(theta)),
        columns=simulator.prior.columns,
        num_simulations=num_simulations,
        theta=theta,
        effective=effective,
        ratio_noise=np.array([latent_noise(*_finite(x, column))[0] for column in log_ratio.T]),
        information=np.stack([np.mean(score**2, axis=0) for _, score in scored]),
        score_noise=np.stack([latent_noise(x, score) for x, score in scored]),
        score_offset=np.stack([_offset(score) for _, score in scored]),
    )


def latent_noise(x: Array, gold: Array) -> np.ndarray:
    """1 - Var(E[gold | x]) / Var(gold) of every column, `(q,)`, from x `(n, *event)` and gold `(n, q)`; in float64.

    NaN where gold does not vary, or x has more than `MOST_DIMENSIONS` numbers. Of n rows of Gaussian noise the
    standard error is below 2 / sqrt(n) times the share.
    """
    places, gold = (np.asarray(each, np.float64).reshape(len(each), -1) for each in (x, gold))
    variance = np.var(gold, axis=0)
    # A sum of equal float32 numbers has a variance of rounding, relative to their size.
    constant = variance <= 1e-12 * np.mean(gold**2, axis=0)
    if places.shape[1] > MOST_DIMENSIONS:
        return np.full(gold.shape[1], np.nan)
    places = (places - places.mean(axis=0)) / np.where(places.std(axis=0) > 0, places.std(axis=0), 1.0)
    rest = gold - _quadratic(places) @ np.linalg.lstsq(_quadratic(places), gold, rcond=None)[0]
    # Rows with the same x are neighbours in random order, not in that of the tree.
    places = places + 1e-6 * np.random.default_rng(0).normal(size=places.shape)
    near = np.asarray(KDTree(places).query(places, k=NEIGHBOURS + 1)[1])
    error = rest - rest[near[:, 1:]].mean(axis=1)
    noise = np.mean(error**2, axis=0) / (1 + 1 / NEIGHBOURS) / np.where(constant, 1.0, variance)
    return np.where(constant, np.nan, np.clip(noise, 0.0, 1.0))


def _quadratic(x: np.ndarray) -> np.ndarray:
    rows, columns = np.triu_indices(x.shape[1])
    return np.concatenate([np.ones((len(x), 1)), x, x[:, rows] * x[:, columns]], axis=1)


# -- simulations ------------------------------------------------------------------------------


def _checked(simulator: Any, theta: Array, reference: Any, num_simulations: int) -> np.ndarray:
    if not isinstance(simulator, AbstractMinedSimulator):
        raise TypeError(
            f"the simulator {getattr(simulator, 'name', simulator)!r} gives no gold; write it as a NumPyro model "
            "(@qx.program) or with its joint log-probability (@qx.mined_simulator)"
        )
    if not isinstance(reference, MarginalReference | PointReference):
        raise TypeError(f"expected a MarginalReference or a PointReference, got {type(reference).__name__}")
    if num_simulations < LEAST:
        raise ValueError(f"num_simulations must be at least {LEAST}, got {num_simulations}")
    theta, dim = np.asarray(theta, np.float32), simulator.prior.dim
    if theta.ndim != 2 or theta.shape[1] != dim or len(theta) == 0:
        raise ValueError(
            f"theta: expected shape (K, {dim}), a column for each of {simulator.prior.columns}, got {theta.shape}"
        )
    simulator.prior.check(theta)
    return theta


def _ratios(
    key: Key, simulator: AbstractMinedSimulator, theta: np.ndarray, reference: Any, num_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Observations from the reference, and their log-ratios at every theta `(rows, K)`, in float64."""
    order_key, key = jax.random.split(key)
    if isinstance(reference, PointReference):
        origins = np.broadcast_to(np.asarray(reference.theta), (num_rows, theta.shape[1]))
        gold = simulator.mine(key, origins, np.concatenate([theta, origins[:1]]))
        x, log_prob = _kept(gold.x, gold.log_prob, len(gold.failures))
        return x, log_prob[:, :-1] - log_prob[:, -1:]
    pool = np.concatenate([theta, np.asarray(reference.pool)])
    order = np.asarray(jax.random.permutation(order_key, len(pool)))  # of whom comes once more than others
    gold = simulator.mine(key, pool[order[np.arange(num_rows) % len(pool)]], pool)
    x, log_prob = _kept(gold.x, gold.log_prob, len(gold.failures))
    return x, np.stack([reference.log_ratio(log_prob, np.full(len(x), k)) for k in range(len(theta))], axis=1)


def _scores(
    key: Key, simulator: AbstractMinedSimulator, theta: np.ndarray, num_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Observations at theta `(dim,)`, and their scores `(rows, dim)`, in float64."""
    gold = simulator.mine(key, np.broadcast_to(theta, (num_rows, len(theta))), jnp.asarray(theta)[None])
    return _kept(gold.x, gold.score, len(gold.failures))


def _kept(x: np.ndarray, gold: np.ndarray, failed: int) -> tuple[np.ndarray, np.ndarray]:
    if len(x) - failed < LEAST:
        raise ValueError(f"{failed} of {len(x)} simulations failed; at least {LEAST} must not. Give more, or mend them")
    rows = ~np.isnan(gold).any(axis=1)  # a failed row holds nothing but NaN
    return x[rows], gold[rows].astype(np.float64)


def _finite(x: np.ndarray, log_ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Paths that cannot happen at theta have a ratio of 0, and its logarithm no variance."""
    rows = np.isfinite(log_ratio)
    return (x[rows], log_ratio[rows]) if rows.sum() > NEIGHBOURS else (x, np.zeros(len(x)))


def _effective(log_ratio: np.ndarray) -> float:
    top = log_ratio.max()
    ratio = np.exp(log_ratio - top) if np.isfinite(top) else np.zeros(len(log_ratio))
    return float(np.sum(ratio) ** 2 / max(np.sum(ratio**2), 1e-300) / len(ratio))


def _offset(score: np.ndarray) -> np.ndarray:
    error = np.std(score, axis=0) / np.sqrt(len(score))
    return np.mean(score, axis=0) / np.where(error > 0, error, 1.0)


def _describe(reference: Any, num_thetas: int) -> str:
    if isinstance(reference, PointReference):
        return f"theta = ({', '.join(f'{value:.4g}' for value in np.asarray(reference.theta))})"
    return f"the mixture of {len(reference.pool) + num_thetas} thetas"


# -- words ------------------------------------------------------------------------------------


def _offset_advice(quality: GoldQuality) -> list[str]:
    found = np.argwhere(np.abs(quality.score_offset) > OFF)
    return [
        f"The mean score of {quality.columns[j]!r} at {quality.at(k)} is {quality.score_offset[k, j]:.1f} standard "
        "errors from 0: either the joint log-probability is not that of the draws, or the scores have heavy tails. "
        "Compare them before mining."
        for k, j in found
    ]


def _spread_advice(quality: GoldQuality) -> list[str]:
    worst = int(np.argmin(quality.effective))
    share = quality.effective[worst]
    measured = f"The ratios have an effective sample size of {_percent(share)} at {quality.at(worst)}"
    if share < FEW:
        cure = "give theta nearer to one another as the pool of a MarginalReference"
        if quality.reference.startswith("theta"):
            cure = "use a MarginalReference, whose ratios are bounded"
        return [
            f"{measured}: a few rows carry all. Leave ROLR and RASCAL, whose loss is a squared error of ratios, or "
            f"{cure}; ALICE and ALICES, which see r / (1 + r), stand it better."
        ]
    if share < MANY:
        return [f"{measured}: ROLR and RASCAL need {math.ceil(1 / share)} times the simulations that ALICE does."]
    return [f"{measured} or more: squared errors of ratios are safe, so nothing speaks against ROLR and RASCAL."]


def _ratio_advice(quality: GoldQuality) -> list[str]:
    worst = int(np.nanargmax(quality.ratio_noise))
    share = quality.ratio_noise[worst]
    measured = f"Of the variance of log r, at most {_percent(share)} is latent noise (at {quality.at(worst)})"
    if share <= QUIET:
        methods = "ALICE and ALICES" if quality.effective.min() < FEW else "ALICE, ALICES and RASCAL"
        return [f"{measured}: the ratios are almost exact, use {methods}."]
    if share < LOUD:
        return [f"{measured}: ALICE and ALICES gain from the ratios over CARL."]
    return [
        f"{measured}: ratios say little about x. They still gain on labels, but compare with CARL, or with scores if "
        "these are quieter."
    ]


def _score_advice(quality: GoldQuality) -> list[str]:
    sentences = []
    worst = np.array([_largest(column) for column in quality.score_noise.T])
    quiet = [name for name, share in zip(quality.columns, worst, strict=True) if share <= QUIET]
    usable = [name for name, share in zip(quality.columns, worst, strict=True) if QUIET < share < LOUD]
    loud = [name for name, share in zip(quality.columns, worst, strict=True) if share >= LOUD]
    if quiet:
        sentences.append(f"The score of {_list(quiet)} is almost free of noise: use SALLY, CASCAL or SCANDAL.")
    if usable:
        noise = _percent(max(share for share in worst if QUIET < share < LOUD))
        sentences.append(
            f"The score of {_list(usable)} is up to {noise} latent noise: SALLY, CASCAL, ALICES and SCANDAL gain from "
            "it."
        )
    if loud:
        sentences.append(
            f"The score of {_list(loud)} is nearly all latent noise somewhere: SALLY needs many more simulations "
            "there, and score terms (alpha of CASCAL, RASCAL, ALICES, SCANDAL) should weigh little."
        )
    if np.isnan(worst).any():
        none = [name for name, share in zip(quality.columns, worst, strict=True) if np.isnan(share)]
        sentences.append(f"The score of {_list(none)} is constant: at these theta the paths say nothing about it.")
    return sentences


def _largest(shares: np.ndarray) -> float:
    return float(np.nanmax(shares)) if np.isfinite(shares).any() else math.nan


def _list(names: list[str]) -> str:
    return " and ".join(map(repr, names))


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2g} %" if share < 0.995 else "100 %"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
