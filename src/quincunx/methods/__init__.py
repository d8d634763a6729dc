"""The catalogue of methods. What the command line, settings files, guide and tests say of them follows from it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from .density import NLE, SCANDAL
from .histogram import Histogram
from .local.zoom import Zoom
from .method import Method
from .posterior_flow import NPE
from .ratio import ALICE, ALICES, CARL, CASCAL, NRE, RASCAL, ROLR, BalancedNRE
from .recurrent.alfi import ALFI
from .score import SALLINO, SALLY

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
