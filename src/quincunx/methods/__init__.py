"""The catalogue of methods. What the command line, settings files, guide and tests say of them follows from it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from .alfi import ALFI
from .density import NLE, SCANDAL
from .histogram import Histogram
from .method import Method
from .posterior_flow import NPE
from .ratio import ALICE, ALICES, CARL, CASCAL, NRE, RASCAL, ROLR, BalancedNRE
from .score import SALLINO, SALLY
from .zoom import Zoom

CATALOGUE: Mapping[str, Callable[..., Method]] = MappingProxyType(
    {
        make().name: make
        for make in (
            ALFI,
            Zoom,
            NPE,
            CARL,
            NRE,
            BalancedNRE,
            ROLR,
            CASCAL,
            ALICE,
            RASCAL,
            ALICES,
            NLE,
            SCANDAL,
            SALLY,
            SALLINO,
            Histogram,
        )
    }
)
