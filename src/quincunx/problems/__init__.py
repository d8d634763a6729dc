"""Benchmark simulators, each with what is known exactly about it in its `exact` field.

`CATALOGUE` maps the names to the simulators.
"""

from collections.abc import Mapping
from types import MappingProxyType

from ..sample.black_box import AbstractJaxSimulator
from .eft import eft
from .galton import galton, galton_board, galton_distribution, galton_positions
from .gaussian import gaussian
from .linear_regression import linear_regression
from .multivariate import multivariate
from .poisson import poisson
from .weinberg import asymmetry, weinberg

CATALOGUE: Mapping[str, AbstractJaxSimulator] = MappingProxyType(
    {each.name: each for each in (poisson, linear_regression, multivariate, weinberg, gaussian, galton, eft)}
)

__all__ = [
    "CATALOGUE",
    "asymmetry",
    "eft",
    "galton",
    "galton_board",
    "galton_distribution",
    "galton_positions",
    "gaussian",
    "linear_regression",
    "multivariate",
    "poisson",
    "weinberg",
]
