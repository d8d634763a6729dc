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
import numpy as np
from scipy.spatial import KDTree
from scipy.special import logsumexp

from ..core.solution import Array, Key, rng_of
from .mined import AbstractMinedSimulator
from .reference import MarginalReference, PointReference

Rows = tuple[np.ndarray, np.ndarray]  # observations, and a kind of gold of each

# A regression of gold on x has a variance per row of noise / (1 - noise) relative to its signal: 1/9 and 9 at these
# two. Below the first, more rows are worth little more than exact ratios would be; above the second, ten times the
# rows are needed for what noise-free gold would give.
QUIET, LOUD = 0.1, 0.9
# A squared error of ratios is carried by as many rows as the effective sample size says. Of 10,000 simulations, the
# fewest that people mine, a hundredth is 100 rows: too few to fit a network to. A tenth is enough.
FEW, MANY = 0.01, 0.1
# The mean score is 0. Five standard errors by chance: once in 1.7 million columns, if scores are nearly Gaussian.
OFF = 5.0
NEIGHBOURS = 10  # of each x: their mean adds 1/10 to the noise, which is known and taken off; fewer are less biased
MOST_DIMENSIONS = 5  # of x: beyond, ten neighbours of 5,000 are no neighbourhood
LEAST = 100  # simulations; with fewer, a share of variance is a guess
UNKNOWN = "x has too many dimensions, or the gold does not vary, to say how much of the {} is latent noise."


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
        return [*_offset_advice(self), *_spread_advice(self), *_ratio_advice(self), *_score_advice(self)]

    def to_dict(self) -> dict[str, Any]:
        """The fields and the advice as plain Python, fit for JSON; NaN becomes None."""
        fields = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {**fields, "columns": [*self.columns], "advice": self.advice}

    def table(self) -> str:
        """One line for each theta and parameter, as plain text."""
        rows = [["theta", "ESS of r", "noise of log r", "parameter", "E[t^2]", "noise of t", "E[t^2] seen in x"]]
        for k, j in np.ndindex(self.information.shape):
            first = [self.at(k), _percent(self.effective[k]), _percent(self.ratio_noise[k])] if j == 0 else [""] * 3
            path, noise = self.information[k, j], self.score_noise[k, j]
            seen = "-" if np.isnan(noise) else f"{path * (1 - noise):.4g}"
            rows.append([*first, self.columns[j], f"{path:.4g}", _percent(noise), seen])
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
    pool_key, reference_key, score_key = jax.random.split(key, 3)
    ready = reference.prepare(pool_key, simulator.prior, None)
    x, log_ratio = _ratios(reference_key, simulator, theta, ready, num_simulations)
    places = (np.broadcast_to(each, (num_simulations, len(each))) for each in theta)
    golds = (simulator.mine(jax.random.fold_in(score_key, k), at, at[:1]) for k, at in enumerate(places))
    scored = [_not_failed(gold.x, gold.score) for gold in golds]
    mean, deviation = (np.stack([f(score, axis=0) for _, score in scored]) for f in (np.mean, np.std))
    error = deviation / np.sqrt([[len(score)] for _, score in scored])
    return GoldQuality(
        simulator=simulator.name,
        reference=_describe(ready, len(theta)),
        columns=simulator.prior.columns,
        num_simulations=num_simulations,
        theta=theta,
        effective=np.array([_effective(column) for column in log_ratio.T]),
        ratio_noise=np.array([_ratio_noise(x, column) for column in log_ratio.T]),
        information=mean**2 + deviation**2,
        score_noise=np.stack([latent_noise(*each) for each in scored]),
        score_offset=mean / np.where(error > 0, error, 1.0),
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
    products = (x[:, i] * x[:, j] for i, j in zip(*np.triu_indices(x.shape[1]), strict=True))
    return np.column_stack([np.ones(len(x)), x, *products])


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
    return simulator.prior.rows(theta)


def _ratios(key: Key, simulator: AbstractMinedSimulator, theta: np.ndarray, reference: Any, num_rows: int) -> Rows:
    """Observations from the reference, and their log-ratios at every theta `(rows, K)`, in float64."""
    order_key, key = jax.random.split(key)
    at_point = isinstance(reference, PointReference)
    thetas = np.concatenate([theta, np.atleast_2d(np.asarray(reference.theta if at_point else reference.pool))])
    members = [len(theta)] if at_point else rng_of(order_key).permutation(len(thetas))
    gold = simulator.mine(key, thetas[np.resize(members, num_rows)], thetas)
    x, log_prob = _not_failed(gold.x, gold.log_prob)
    mixture = np.asarray(logsumexp(log_prob[:, members], axis=1)) - np.log(len(members))
    return x, log_prob[:, : len(theta)] - mixture[:, None]


def _not_failed(x: np.ndarray, gold: np.ndarray) -> Rows:
    rows = ~np.isnan(gold).any(axis=1)  # a failed row holds nothing but NaN
    if rows.sum() < LEAST:
        raise ValueError(f"{np.sum(~rows)} of {len(x)} simulations failed; at least {LEAST} must not. Mend them")
    return x[rows], gold[rows].astype(np.float64)


def _ratio_noise(x: np.ndarray, log_ratio: np.ndarray) -> float:
    """Without paths that cannot happen at theta: their ratio is 0, and its logarithm has no variance."""
    rows = np.isfinite(log_ratio)
    return latent_noise(x[rows], log_ratio[rows]).item() if rows.sum() > NEIGHBOURS else math.nan


def _effective(log_ratio: np.ndarray) -> float:
    ratio = np.exp(log_ratio - max(log_ratio.max(), np.finfo(float).min))  # all may be 0, and their logarithms -inf
    return float(np.sum(ratio) ** 2 / max(np.sum(ratio**2), 1e-300) / len(ratio))


def _describe(reference: MarginalReference | PointReference, num_thetas: int) -> str:
    if isinstance(reference, PointReference):
        return f"theta = ({', '.join(f'{value:.4g}' for value in np.asarray(reference.theta))})"
    return f"the mixture of {reference.pool_size + num_thetas} thetas"


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
    verdict = "squared errors of ratios are safe, so nothing speaks against ROLR and RASCAL."
    if share < MANY:
        verdict = f"ROLR and RASCAL need {math.ceil(1 / max(share, FEW))} times the simulations that ALICE does."
    if share < FEW:
        point = quality.reference.startswith("theta")
        cure = "use a MarginalReference, whose ratios are bounded" if point else "give a pool of nearer thetas"
        verdict = (
            "a few rows carry all. Leave ROLR and RASCAL, whose loss is a squared error of ratios, or "
            f"{cure}; ALICE and ALICES, which see r / (1 + r), stand it better."
        )
    return [f"The effective sample size of the ratios is {_percent(share)} at {quality.at(worst)}: {verdict}"]


def _ratio_advice(quality: GoldQuality) -> list[str]:
    if np.isnan(quality.ratio_noise).all():
        return [UNKNOWN.format("ratios")]
    worst = int(np.nanargmax(quality.ratio_noise))
    share = quality.ratio_noise[worst]
    verdict = "ratios say little about x; compare with CARL, which sees labels alone, or with scores."
    if share < LOUD:
        verdict = "ALICE and ALICES gain from the ratios over CARL."
    if share <= QUIET:
        methods = "ALICE and ALICES" if quality.effective.min() < FEW else "ALICE, ALICES and RASCAL"
        verdict = f"the ratios are almost exact, use {methods}."
    return [f"Of the variance of log r, at most {_percent(share)} is latent noise (at {quality.at(worst)}): {verdict}"]


def _score_advice(quality: GoldQuality) -> list[str]:
    if np.isnan(quality.score_noise).all():
        return [UNKNOWN.format("scores")]
    worst = np.max(np.nan_to_num(quality.score_noise, nan=-1.0), axis=0)  # -1 of a parameter whose score is constant
    usable = (worst > QUIET) & (worst < LOUD)
    most = _percent(np.max(worst, where=usable, initial=0.0))
    verdicts = [
        ((worst >= 0) & (worst <= QUIET), "almost free of noise: use SALLY, CASCAL or SCANDAL."),
        (usable, f"up to {most} latent noise: SALLY, CASCAL, ALICES and SCANDAL gain from it."),
        (worst >= LOUD, "nearly all latent noise somewhere: mine more for SALLY, and weigh score terms little."),
        (worst < 0, "constant: at these theta the paths say nothing about it."),
    ]
    names = lambda which: " and ".join(repr(name) for name, yes in zip(quality.columns, which, strict=True) if yes)
    return [f"The score of {names(which)} is {verdict}" for which, verdict in verdicts if which.any()]


def _percent(share: Any) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.2g} %" if share < 0.995 else "100 %"


def _plain(value: Any) -> Any:
    return np.where(np.isnan(value), np.array(None), value).tolist() if isinstance(value, np.ndarray) else value
