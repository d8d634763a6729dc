"""The catalogue of methods. What the command line, settings files, guide and tests say of them follows from it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from .abc.chains import MCMCABC
from .abc.population import SMCABC
from .abc.rejection import ABC
from .contrastive import NREB, NREC
from .density import NLE, SCANDAL
from .evolution import AVO, NES
from .histogram import Histogram
from .joint import Joint
from .local.zoom import Zoom
from .method import Method
from .posterior_flow import FMPE, NPE, NPSE
from .ratio import ALICE, ALICES, CARL, CASCAL, NRE, RASCAL, ROLR, BalancedNRE
from .recurrent.alfi import ALFI
from .score import SALLINO, SALLY
from .sequential.named import PNPE, SNLE, SNPEA, SNPEB, SNPEC, SNRE, TSNPE

CATALOGUE: Mapping[str, Callable[..., Method]] = MappingProxyType(
    {
        make().name: make
        for make in (
            ALFI,
            Zoom,
            ABC,
            SMCABC,
            MCMCABC,
            NES,
            AVO,
            NPE,
            FMPE,
            NPSE,
            Joint,
            TSNPE,
            PNPE,
            SNPEA,
            SNPEB,
            SNPEC,
            SNLE,
            SNRE,
            CARL,
            NRE,
            BalancedNRE,
            NREB,
            NREC,
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
