"""What a new program is checked for: runs at draws from the prior, replayed at other draws.

While a path stands still and theta moves, log-probabilities may change, and nothing else. The same compiled function
looks at a path at two thetas, so what it sees is equal to the last bit unless theta has a part in it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ..core.solution import Array, Key
from .host import UNREPEATABLE, attempt, gold_on_host
from .trace import Runner, kept, layers, total

ROWS, ROUNDS = 32, 16  # runs that a new program is checked at, and how often again while a score is still 0
HOST_ROWS, HOST_ROUNDS = 8, 32
QUICK = {"xla_backend_optimization_level": 0}  # what is run a few times only takes longer to compile than to run

Seen = dict[tuple[str, str], Any]  # (kind of thing, whose) -> arrays

FAULTS = {
    "density": (
        "{} moves with theta while every draw of the path stands still, so its density given the path is a delta "
        "function, which has no ratio and no score. Let theta enter through the distribution of a site: sample "
        "Normal(theta, 1), not theta + a sample of Normal(0, 1)"
    ),
    "support": (
        "the support of {} depends on theta, so the joint score does not describe how the likelihood changes. Draw a "
        "quantity on a fixed support, such as u ~ Uniform(0, 1), and let theta act on a site drawn after it"
    ),
    "mask": "the mask of {} depends on theta, and with it what is counted",
}


def check_program(runner: Runner, host: bool) -> None:
    """Examine runs until every column of the score has been seen.

    Raises
    ------
    ValueError: see `program`.
    """
    rows, rounds = (HOST_ROWS, HOST_ROUNDS) if host else (ROWS, ROUNDS)
    examine, seen = (_examine_on_host if host else _examine_at_once)(runner), np.zeros(runner.prior.dim, bool)
    for number in range(rounds):
        *keys, run_key, redraw_key = jax.random.split(jax.random.key(number), 4)
        theta, other = (np.asarray(runner.prior.sample(key, rows)) for key in keys)
        seen |= examine(jax.random.split(run_key, rows), theta, other, jax.random.split(redraw_key, rows))
        if seen.all():
            return
    names = " and ".join(repr(column) for column, ok in zip(runner.prior.columns, seen, strict=True) if not ok)
    raise ValueError(
        f"program {runner.name!r}: no log-probability of a site depends on the parameter {names}, or only through "
        f"steps without a derivative, such as rounding: its score was 0 in each of {rows * rounds} runs at draws from "
        "the prior. Use it in the distribution of a site, or leave it out"
    )


def _examine_at_once(runner: Runner) -> Callable[..., np.ndarray]:
    def run(key: Key, theta: Array) -> tuple[dict[str, jax.Array], jax.Array]:
        x, z = runner.path(key, theta)
        return z, jax.grad(lambda t: runner.log_prob(runner.prior.unpack(t), x, z))(theta)

    run, look, redraw = (jax.jit(jax.vmap(f), compiler_options=QUICK) for f in (run, *_looks(runner)))

    def examine(keys: Key, theta: np.ndarray, other: np.ndarray, redraw_keys: Key) -> np.ndarray:
        z, score = run(keys, theta)
        _compare(runner, look, redraw, theta, other, z, redraw_keys)
        return np.any(np.asarray(score) != 0, axis=0)

    return examine


def _examine_on_host(runner: Runner) -> Callable[..., np.ndarray]:
    def examine(keys: Key, theta: np.ndarray, other: np.ndarray, redraw_keys: Key) -> np.ndarray:
        seen, failed = np.zeros(runner.prior.dim, bool), []
        for row, at in enumerate(theta):
            path = attempt(runner, keys[row], at)
            if isinstance(path, str):
                failed.append(path)
                continue
            if not _equal(path, runner.path(keys[row], at)):
                raise ValueError(f"program {runner.name!r}: {UNREPEATABLE}")
            seen |= np.asarray(gold_on_host(runner, at, other[row : row + 1], path)[1]) != 0
            _compare(runner, *_looks(runner), at, other[row], path[1], redraw_keys[row])
        if len(failed) == len(theta):
            raise ValueError(f"program {runner.name!r}: each of {len(failed)} runs failed, the first with {failed[0]}")
        return seen

    return examine


def _compare(
    runner: Runner, look: Callable, redraw: Callable, theta: np.ndarray, other: np.ndarray, z: Any, key: Key
) -> None:
    """Refuses what changes with theta, or with values that masks leave out, and must not."""
    own = look(theta, z)
    for kind, name in _changed(own, look(other, z)):
        if kind in FAULTS:
            raise ValueError(f"program {runner.name!r}: {FAULTS[kind].format(name)}")
    masked = [name for kind, name in own if kind == "mask"]
    used = _changed(own, look(theta, redraw(theta, z, key))) if masked else []
    if any(kind in ("density", "total") for kind, _ in used):
        raise ValueError(
            f"program {runner.name!r}: the values that the mask of {' and '.join(masked)} leaves out are used, and "
            "their density would be missing. Leave out the mask, or do not use them"
        )


def _looks(runner: Runner) -> tuple[Callable, Callable]:
    """Functions of one replay: what to compare between two, and the path with fresh values where masks leave out."""

    def look(theta: Array, z: Mapping[str, jax.Array]) -> Seen:
        drawn, x = runner.replay(runner.prior.unpack(theta), z)
        what = f"the observable {', '.join(map(repr, runner.observable))}"
        seen: Seen = {
            ("total", ""): total(drawn),
            ("density", what if runner.observable else "what the model returns"): x,
        }
        for name, site in drawn.items():
            *_, core = layers(site["fn"])
            mask = kept(site["fn"])
            seen["support", f"the site {name!r}"] = _support(core, site["value"])
            if isinstance(core, dist.Delta):
                seen["density", f"the site {name!r}"] = core.v
            if mask is not None:
                seen["mask", f"the site {name!r}"] = mask
        return seen

    def redraw(theta: Array, z: Mapping[str, jax.Array], key: Key) -> dict[str, jax.Array]:
        drawn, fresh = runner.replay(runner.prior.unpack(theta), z)[0], dict(z)
        for number, (name, site) in enumerate(drawn.items()):
            mask = kept(site["fn"])
            if mask is not None:
                fresh[name] = jnp.where(mask, z[name], site["fn"].sample(jax.random.fold_in(key, number)))
        return fresh

    return look, redraw


def _support(law: dist.Distribution, value: Any) -> list[Any]:
    """The bounds of the support; where NumPyro does not give them, whether the value is inside."""
    if isinstance(law, dist.MixtureGeneral):
        return [_support(part, value) for part in law.component_distributions]
    found = jax.tree.leaves(law.support)
    if isinstance(law, dist.TransformedDistribution) and not isinstance(law, dist.FoldedDistribution):
        # The support that a transform states is that of a base without bounds.
        for transform in reversed(law.transforms):
            value = transform.inv(value)
        base: Any = law.base_dist
        found.append(base.support(value))
    return [jnp.asarray(each) for each in found]


def _changed(first: Seen, second: Seen) -> list[tuple[str, str]]:
    return sorted(at for at in first if not _equal(first[at], second[at]))


def _equal(first: Any, second: Any) -> bool:
    (one, shape), (two, other) = jax.tree.flatten(first), jax.tree.flatten(second)
    same = lambda a, b: np.array_equal(a, b, equal_nan=jnp.issubdtype(a.dtype, jnp.floating))
    return shape == other and all(map(same, map(np.asarray, one), map(np.asarray, two)))
