"""Where a program's parameters come from: the model's arguments, or its sites."""

import inspect

import jax
import numpy as np
import numpyro.distributions as dist

from ..core.names import nearest
from ..core.prior import Prior
from .trace import Model, Sites, execute, kept


def check_arguments(model: Model, prior: Prior | None) -> None:
    """Every argument without a default needs a prior, and every name of the prior is an argument."""
    taken = inspect.signature(model).parameters
    named = [n for n, p in taken.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [n for n, p in taken.items() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    names = () if prior is None else prior.names
    for name in names:
        if name not in named and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            raise ValueError(f"the model has no argument {name!r}{nearest(name, named)}; it takes {tuple(taken)}")
    for name in required:
        if name not in names:
            known = f"the prior has {names}" if names else f"write @qx.program(qx.Prior({name}=...), ...)"
            raise ValueError(f"the model's argument {name!r} has no prior{nearest(name, names)}; {known}")


def prior_of_sites(model: Model, names: tuple[str, ...], observable: tuple[str, ...]) -> Prior:
    """The distributions of the parameters, from two runs: one that changed depends on another site."""
    first, second = (_samples(model, key, {}) for key in (0, 1))
    same = [n for n in first if n in second and _same_law(first[n]["fn"], second[n]["fn"])]
    if not names:
        names = tuple(n for n in same if n not in observable and not first[n]["fn"].support.is_discrete)
        if len(names) != 1:
            raise ValueError(
                f"say which sites are the parameters, as in parameters={tuple(first)[:1]}; the model has {tuple(first)}"
            )
    for name in names:
        if name not in first:
            raise ValueError(f"parameters: the model has no site {name!r}{nearest(name, first)}; it has {tuple(first)}")
        if name in observable:
            raise ValueError(f"the site {name!r} is a parameter and the observable; it can only be one")
        if kept(first[name]["fn"]) is not None:
            raise ValueError(f"the parameter {name!r} is masked, so its prior is not known; leave out the mask")
        if name not in same:
            raise ValueError(
                f"the distribution of the parameter {name!r} depends on {_sources(model, name, first, second)}; the "
                f"parameters' prior must be independent. Leave {name!r} out of the parameters, or draw it from a fixed "
                "distribution"
            )
    return Prior(**{name: first[name]["fn"] for name in names})


def _samples(model: Model, key: int, values: dict[str, jax.Array]) -> Sites:
    sites, _ = execute(model, jax.random.key(key), {}, values)
    return {name: site for name, site in sites.items() if site["type"] == "sample"}


def _sources(model: Model, name: str, first: Sites, second: Sites) -> str:
    """The sites that change another's distribution when they alone take the second run's value."""
    values, found = {n: site["value"] for n, site in first.items()}, []
    for other in first.keys() & second.keys() - {name}:
        sites = _samples(model, 0, {**values, other: second[other]["value"]})
        if name not in sites or not _same_law(first[name]["fn"], sites[name]["fn"]):
            found.append(repr(other))
    return f"the site {' and '.join(sorted(found))}" if found else "another site"


def _same_law(first: dist.Distribution, second: dist.Distribution) -> bool:
    (one, shape), (two, other) = jax.tree.flatten(first), jax.tree.flatten(second)
    return shape == other and all(map(np.array_equal, one, two))
