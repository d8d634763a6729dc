"""Benchmark simulators, each with what is known exactly about it in its `exact` field.

`CATALOGUE` maps the names to the simulators with exact answers, `SBIBM` to the tasks of that benchmark, of which the
likelihoods are known, and `BUILT_IN` to these and to the simulators of measured data.
"""

from collections.abc import Mapping
from types import MappingProxyType

from ..sample.black_box import AbstractJaxSimulator
from .eft import eft
from .galton import galton, galton_board, galton_distribution, galton_positions
from .gaussian import gaussian
from .hare_lynx import hare_lynx, hare_lynx_gillespie, pelts
from .linear_regression import linear_regression
from .measured import data_file
from .multivariate import multivariate
from .poisson import poisson
from .sbibm.bernoulli_glm import bernoulli_glm, bernoulli_glm_raw
from .sbibm.gaussian_mixture import gaussian_mixture
from .sbibm.linear_gaussian import gaussian_linear, gaussian_linear_uniform
from .sbibm.lotka_volterra import lotka_volterra
from .sbibm.sir import sir
from .sbibm.slcp import slcp, slcp_distractors
from .sbibm.two_moons import two_moons
from .weinberg import asymmetry, weinberg

CATALOGUE: Mapping[str, AbstractJaxSimulator] = MappingProxyType(
    {each.name: each for each in (poisson, linear_regression, multivariate, weinberg, gaussian, galton, eft)}
)

_TASKS = (
    gaussian_linear,
    gaussian_linear_uniform,
    slcp,
    slcp_distractors,
    bernoulli_glm,
    bernoulli_glm_raw,
    gaussian_mixture,
    two_moons,
    sir,
    lotka_volterra,
)
SBIBM: Mapping[str, AbstractJaxSimulator] = MappingProxyType({each.name: each for each in _TASKS})

_MEASURED = (hare_lynx, hare_lynx_gillespie)
BUILT_IN: Mapping[str, AbstractJaxSimulator] = MappingProxyType(
    {**CATALOGUE, **SBIBM, **{each.name: each for each in _MEASURED}}
)

__all__ = [
    "BUILT_IN",
    "CATALOGUE",
    "SBIBM",
    "asymmetry",
    "bernoulli_glm",
    "bernoulli_glm_raw",
    "data_file",
    "eft",
    "galton",
    "galton_board",
    "galton_distribution",
    "galton_positions",
    "gaussian",
    "gaussian_linear",
    "gaussian_linear_uniform",
    "gaussian_mixture",
    "hare_lynx",
    "hare_lynx_gillespie",
    "linear_regression",
    "lotka_volterra",
    "multivariate",
    "pelts",
    "poisson",
    "sir",
    "slcp",
    "slcp_distractors",
    "two_moons",
    "weinberg",
]
