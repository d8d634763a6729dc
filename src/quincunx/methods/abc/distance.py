"""How far a simulated data set is from the observed one: Euclidean, over summaries in units of their spread.

The spread of a summary is its median absolute deviation over the first draws, those of the prior: the summaries then
weigh alike, and a rare extreme set changes nothing (Csillery, Francois and Blum 2012).

What a summary is follows from the data, or from the user:

    raw       the observation itself, for one small observation; of several, the sorted values of every component
    learned   theta regressed on fixed statistics, over draws of the prior, and once more over the draws whose first
              summaries are nearest to those of the data                         (Fearnhead and Prangle 2012)
    function  x (m, *event) -> (k,), in JAX or in NumPy
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ...core.batches import over_rows
from ..local.summaries import Summaries

MOST_RAW = 10  # numbers in one observation that is compared as it stands
KINDS = ("auto", "raw", "learned")
FEWEST_TWICE = 300  # data sets from which there is a second regression, over the nearest
NEAR, NEAREST = 0.1, 100  # share of them that are near, and number at least
LEAST = 1e-7  # of a summary's size: what varies less does not vary
NORMAL_MAD = 1.4826  # standard deviations of a normal in its median absolute deviation
SUMMARIES = "summaries: expected 'auto', 'raw', 'learned' or a function x (m, *event) -> (k,), got"

SetFunction = Callable[[np.ndarray], np.ndarray]  # sets x `(n, m, *event)` -> `(n, k)`
Choice = str | Callable[[Any], Any]  # what a method's option `summaries` may be


def check_choice(summaries: Choice) -> None:
    """Raise `ValueError` or `TypeError` for what cannot say what the summaries are."""
    if isinstance(summaries, str) and summaries not in KINDS:
        raise ValueError(f"{SUMMARIES} {summaries!r}")
    if not isinstance(summaries, str) and not callable(summaries):
        raise TypeError(f"{SUMMARIES} {type(summaries).__name__}")


class Summary(NamedTuple):
    """Summaries of sets of observations.

    Fields
    ------
    function: of sets.
    in_words: what they are, for people.
    scale: `(k,)`, the units to compare them in; None for those of their spread.
    """

    function: SetFunction
    in_words: str
    scale: np.ndarray | None = None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """`(n, k)` of sets x `(n, m, *event)`, in float64."""
        return np.asarray(self.function(np.asarray(x)), np.float64).reshape(len(x), -1)

    def observed(self, x: np.ndarray) -> np.ndarray:
        """`(k,)` of the observations x `(m, *event)`; `ValueError` where they are not finite."""
        s = self(x[None])[0]
        if not len(s) or not np.isfinite(s).all():
            found = "none" if not len(s) else f"{int((~np.isfinite(s)).sum())} of {len(s)} NaN or infinite"
            raise ValueError(f"summaries of the observations: {found}; they must be finite numbers")
        return s


def at_hand(summaries: Choice, x: np.ndarray) -> Summary | None:
    """The summary for observations x `(m, *event)` like these; None where it is to be learnt from simulations.

    Raises `ValueError` where a user's function cannot be used on the observations.
    """
    if not isinstance(summaries, str):
        return _of_function(summaries, x)
    if summaries == "raw" or (summaries == "auto" and len(x) == 1 and x.size <= MOST_RAW):
        words = "the observation itself" if len(x) == 1 else "the sorted values of each component of the observations"
        return Summary(_sorted, words)
    return None


def learnt(
    rng: np.random.Generator, sets: np.ndarray, z: np.ndarray, x: np.ndarray, *, twice: bool
) -> tuple[Summary, np.ndarray]:
    """Regressions of z `(n, d)` on statistics of the sets `(n, m, *event)`, and what they say of these `(n, k)`.

    Of each set it is what a regression says that did not see it, so that they are as good as others. The second
    regression, if one is wanted and there are sets enough, is over those that are near to the data x; it says nothing
    of what is far, and there the first one counts.
    """
    sets = np.asarray(sets, np.float64)
    first, own = _regression(rng, sets, z)
    words = f"the parameters, as regressed on statistics of {first.statistics.in_words}"
    scale = _spread(own)
    if len(z) < FEWEST_TWICE or not twice:
        return Summary(lambda sets: first(np.asarray(sets, np.float64)), words, scale), own
    away = np.linalg.norm((own - first(np.asarray(x[None], np.float64))) / scale, axis=1)
    near = np.argsort(away, kind="stable")[: max(NEAREST, round(NEAR * len(z)))]
    second, own_near = _regression(rng, sets[near], z[near])
    both = np.concatenate([own, second(sets)], axis=1)
    both[near, own.shape[1] :] = own_near
    function = lambda sets: np.concatenate([each(np.asarray(sets, np.float64)) for each in (first, second)], axis=1)
    return Summary(function, words, np.concatenate([scale, _spread(own_near)])), both


def _regression(rng: np.random.Generator, sets: np.ndarray, z: np.ndarray) -> tuple[Summaries, np.ndarray]:
    """Of z on all statistics at once, which is as many summaries as there are parameters; and its own predictions."""
    found = Summaries.learnt(rng, [(sets, z)], None)
    everything = found.regressions["all"]
    return found._replace(regressions={"all": everything}), everything.own


def _spread(s: np.ndarray) -> np.ndarray:
    """Of s `(n, k)`: the median absolute deviation; the standard deviation where most are the same; 1 where all are."""
    middle, std = np.median(s, axis=0), np.std(s, axis=0)
    mad, least = NORMAL_MAD * np.median(np.abs(s - middle), axis=0), LEAST * np.abs(middle)
    return np.where(mad > least, mad, np.where(std > least, std, 1.0))


def _sorted(x: np.ndarray) -> np.ndarray:
    """Observations at the same parameters have no order, so none may matter."""
    return np.sort(x, axis=1).reshape(len(x), -1)


# -- a user's function -----------------------------------------------------------------------------


def _of_function(function: Callable[[Any], Any], x: np.ndarray) -> Summary:
    name = getattr(function, "__name__", type(function).__name__)
    words = f"the function {name}"
    _one(function, x)  # here, so that what is wrong with it is seen before any work
    if _is_jax(function, x):
        return Summary(lambda sets: over_rows(functools.partial(_mapped, function), sets), words)
    return Summary(lambda sets: np.stack([_one(function, each) for each in sets]), words)


def _is_jax(function: Callable[[Any], Any], x: np.ndarray) -> bool:
    """Whether JAX can trace it; what cannot be traced runs set by set."""
    try:
        found = jax.eval_shape(function, jax.ShapeDtypeStruct(x.shape, np.float32))
    except Exception:  # noqa: BLE001
        return False
    return isinstance(found, jax.ShapeDtypeStruct)


@functools.partial(jax.jit, static_argnums=0)
def _mapped(function: Callable[[Any], Any], x: jax.Array) -> jax.Array:
    return jax.vmap(function)(x)


def _one(function: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    given = f"it was given a data set of shape {x.shape}"
    try:
        found = np.asarray(function(x), np.float64)
    except Exception as error:
        raise ValueError(f"summaries: the function failed with {type(error).__name__}: {error}; {given}") from error
    if found.ndim > 1:
        raise ValueError(f"summaries: the function must give numbers (k,), it gave shape {found.shape}; {given}")
    return np.atleast_1d(found)


# -- the distance ----------------------------------------------------------------------------------


class Ruler(NamedTuple):
    """Summaries, and the units in which they are compared.

    Fields
    ------
    summary: of sets of observations.
    observed, scale: `(k,)`, those of the data, and their spread over the first draws.
    varies: `(k,)`, whether they have one.
    """

    summary: Summary
    observed: np.ndarray
    scale: np.ndarray
    varies: np.ndarray

    @staticmethod
    def of(summary: Summary, s: np.ndarray, x: np.ndarray) -> "Ruler":
        """From summaries s `(n, k)` of simulated sets, NaN where there are none, for observations x `(m, *event)`."""
        s, observed = s[np.isfinite(s).all(axis=1)], summary.observed(x)
        varies = np.std(s, axis=0) > LEAST * np.abs(np.median(s, axis=0))
        if not varies.any():
            raise ValueError(
                f"summaries: none of {len(varies)} varies over {len(s)} simulated data sets, so none tells parameters "
                "apart; give summaries that do"
            )
        return Ruler(summary, observed, _spread(s) if summary.scale is None else summary.scale, varies)

    def offsets(self, s: np.ndarray) -> np.ndarray:
        """From the data's summaries to s `(n, k)`, in units of their spread, of those that have one: `(n, j)`."""
        return ((s - self.observed) / self.scale)[:, self.varies]

    @property
    def doubts(self) -> tuple[str, ...]:
        """A warning where summaries do not vary."""
        idle = int((~self.varies).sum())
        if not idle:
            return ()
        return (f"{idle} of {len(self.varies)} summaries are the same in all simulated data sets and were left out",)

    def refined(
        self, rng: np.random.Generator, sets: np.ndarray, z: np.ndarray, x: np.ndarray, epsilon: float
    ) -> tuple["Ruler", np.ndarray]:
        """With a regression over sets `(n, m, *event)` within epsilon added, and the offsets that it adds to theirs.

        Distances can only grow by that, so what is within an epsilon now was so before: nothing that was left out would
        be in. In the new units, what is as far off as these sets are in the middle is epsilon away.
        """
        found, own = _regression(rng, np.asarray(sets, np.float64), z)
        before = self.summary
        function = lambda sets: np.concatenate([before(sets), found(np.asarray(sets, np.float64))], axis=1)
        observed, scale = found(np.asarray(x[None], np.float64))[0], _spread(own) / epsilon
        both = zip((self.observed, self.scale, self.varies), (observed, scale, np.isfinite(scale)), strict=True)
        fields = [np.concatenate(pair) for pair in both]
        return Ruler(Summary(function, before.in_words), *fields), (own - observed) / scale
