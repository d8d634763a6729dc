"""One run of a NumPyro model: its trace, its replay with given values, and what no model may hold.

Handlers do the work: `trace` records the sites, `seed` draws them, `substitute` gives them values.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.primitives import Messenger
from numpyro.util import not_jax_tracer

from ..core.names import nearest
from ..core.prior import Prior
from ..core.solution import Array, Key
from ..gold.mined import NamedTheta, Path

Model = Callable[..., Any]
Sites = dict[str, Any]  # what NumPyro's `trace` records: site name -> message

STILL = 1e-4  # a replayed observable may differ by rounding, relative to its largest component


class RefusedError(ValueError):
    """The model itself is at fault, and not one of its runs."""


class Runner(eqx.Module):
    """Runs a model, and knows what of it is theta and what is the observation. For the fields see `Program`."""

    model: Model = eqx.field(static=True)
    prior: Prior = eqx.field(static=True)
    name: str = eqx.field(static=True)
    observable: tuple[str, ...] = eqx.field(static=True)
    parameters: tuple[str, ...] = eqx.field(static=True)

    def path(self, key: Key, theta: Array) -> Path:
        """One observation `(*event)`, as float32, and the values of all sites but parameters, at theta `(dim,)`."""
        drawn, x = self._run(key, self.prior.unpack(theta), {})
        return x, {name: site["value"] for name, site in drawn.items()}

    def replay(self, named: NamedTheta, z: Mapping[str, jax.Array]) -> tuple[Sites, jax.Array]:
        """The sites but parameters, and the observation, where every draw has the value that it had in a path."""
        drawn, x = self._run(jax.random.key(0), named, z)
        for name in sorted(drawn.keys() ^ z.keys()):
            what = "is not among the replay's sites" if name in z else "is in the replay, but not in the path"
            raise ValueError(
                f"program {self.name!r}: the path was replayed at a theta, and the site {name!r} {what}. Which sites a "
                "model has may depend on values drawn at sites, and on nothing else"
            )
        return drawn, x

    def log_prob(self, named: NamedTheta, x: jax.Array, z: Mapping[str, jax.Array]) -> jax.Array:
        """log p(x, z | theta) `()`; NaN where the replayed observation is not x."""
        drawn, replayed = self.replay(named, z)
        farthest = jnp.max(jnp.abs(replayed - x), initial=0.0)
        return jnp.where(farthest <= STILL * jnp.max(jnp.abs(x), initial=0.0), total(drawn), jnp.nan)

    def _run(self, key: Key, named: NamedTheta, values: Mapping[str, jax.Array]) -> tuple[Sites, jax.Array]:
        arguments, fixed = ({}, named) if self.parameters else (named, {})
        sites, returned = execute(self.model, key, arguments, {**values, **fixed})
        drawn = {n: site for n, site in sites.items() if site["type"] == "sample" and n not in self.parameters}
        return drawn, self._observe(sites, returned)

    def _observe(self, sites: Sites, returned: Any) -> jax.Array:
        if not self.observable:
            return _as_array(returned, sites)
        known = tuple(name for name, site in sites.items() if site["type"] in ("sample", "deterministic"))
        for name in self.observable:
            if name not in known:
                raise ValueError(
                    f"observable: a run of program {self.name!r} has no site {name!r}{nearest(name, known)}; "
                    f"it has {known}"
                )
        values = [jnp.asarray(sites[name]["value"], jnp.float32) for name in self.observable]
        return values[0] if len(values) == 1 else jnp.concatenate([value.ravel() for value in values])


def total(sites: Sites) -> jax.Array:
    """The joint log-probability `()` of the sites' values."""
    return sum((jnp.sum(site["fn"].log_prob(site["value"])) for site in sites.values()), start=jnp.zeros(()))


def _as_array(returned: Any, sites: Sites) -> jax.Array:
    if returned is None:
        raise ValueError(
            "the model returns nothing; say which site is the observation, as in "
            f"observable={next(reversed(sites), 'x')!r}"
        )
    try:
        return jnp.asarray(returned, jnp.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"the model must return one array, got {type(returned).__name__}; or give observable="
        ) from error


# -- one run, and what it may not hold --------------------------------------------------------


class _NoHiddenRandomness(Messenger):
    """Refuses `numpyro.prng_key()`, of which no trace is left."""

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "prng_key":
            raise RefusedError(
                "the model draws with numpyro.prng_key(); what it draws has no site and no density. "
                "Draw it with numpyro.sample"
            )


def execute(model: Model, key: Key, arguments: NamedTheta, values: Mapping[str, Any]) -> tuple[Sites, Any]:
    """The sites of one run, and what the model returns, with the values of some sites given."""
    seeded, substituted = handlers.seed(rng_seed=key), handlers.substitute(data=dict(values))
    with handlers.trace() as sites, _NoHiddenRandomness(), seeded, substituted:
        returned = model(**arguments)
    for name, site in sites.items():
        fault = _fault(name, site)
        if fault is not None:
            raise RefusedError(fault)
    return sites, returned


def _fault(name: str, site: Any) -> str | None:
    """Why the site's log-probability is not that of its draws."""
    kind, scale = site["type"], site.get("scale")
    if kind in ("param", "mutable"):
        return (
            f"the site {name!r} is a numpyro.{kind}, which only inference algorithms fill; make it a constant, "
            "or a parameter"
        )
    if kind == "plate" and site["args"][1] not in (None, site["args"][0]):
        return f"the plate {name!r} is subsampled; a simulator draws all of it: leave out subsample_size"
    if kind != "sample":
        return None
    if isinstance(site["fn"], dist.Unit) or site["infer"].get("is_auxiliary"):
        return (
            f"the site {name!r} is a factor: it changes the density, and draws do not follow it. Draw from a "
            "distribution with that density instead"
        )
    if site["is_observed"]:
        return (
            f"the site {name!r} is observed: a simulator draws it. Give obs=None, or wrap the model in "
            "numpyro.handlers.uncondition"
        )
    if scale is not None and (not not_jax_tracer(scale) or not np.all(np.asarray(scale) == 1)):
        return (
            f"the site {name!r} is scaled: a scaled log-probability is not that of the draws, and its ratios do not "
            "average to 1. Leave out numpyro.handlers.scale"
        )
    return None


# -- plates and masks around a distribution ---------------------------------------------------


def layers(law: dist.Distribution) -> Iterator[dist.Distribution]:
    """A site's distribution and what is inside it, through masks and the expansions of plates."""
    yield law
    while isinstance(law, dist.MaskedDistribution | dist.ExpandedDistribution | dist.Independent):
        law = law.base_dist
        yield law


def kept(law: dist.Distribution) -> jax.Array | None:
    """Which numbers of a value count, in a shape that broadcasts to the value's; None without a mask."""
    masked = [each for each in layers(law) if isinstance(each, dist.MaskedDistribution)]
    # A mask has the shape of the batch; the dimensions of an event follow.
    masks = [jnp.expand_dims(each._mask, tuple(range(-each.base_dist.event_dim, 0))) for each in masked]
    return functools.reduce(jnp.logical_and, masks) if masks else None
