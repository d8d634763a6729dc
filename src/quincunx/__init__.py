"""Quincunx runs simulators backwards: likelihood-free inference on JAX.

Every public name stands here, once, and is imported when it is first used: `import quincunx` takes
milliseconds and does not import JAX.

Some public functions are called like the module they live in (`fit`, `simulate`, `infer`, `simulator`).
The import system sets the attribute of a package to every submodule that is imported, which would hide
the function; `_Package` refuses that, so that `qx.fit` is always the function. The modules are imported
from by `from quincunx.fit import ...` as usual.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import simulators as simulators
    from ._types import InferenceError as InferenceError
    from ._types import Solution as Solution
    from ._types import Status as Status
    from .calibration import HistogramCalibration as HistogramCalibration
    from .calibration import IsotonicCalibration as IsotonicCalibration
    from .calibration import calibrate as calibrate
    from .diagnostics import calibration_curve as calibration_curve
    from .diagnostics import mean_ratio_test as mean_ratio_test
    from .diagnostics import reference_independence as reference_independence
    from .diagnostics import roc_test as roc_test
    from .fit import Training as Training
    from .fit import fit as fit
    from .frequentist.amortised import amortised_critical_values as amortised_critical_values
    from .frequentist.coverage import coverage_map as coverage_map
    from .frequentist.fisher import fisher_information as fisher_information
    from .frequentist.likelihood import LikelihoodRatio as LikelihoodRatio
    from .frequentist.likelihood import likelihood_ratio as likelihood_ratio
    from .frequentist.limits import expected_limits as expected_limits
    from .frequentist.maximum import maximum_likelihood as maximum_likelihood
    from .frequentist.maximum import profile_likelihood as profile_likelihood
    from .frequentist.neyman import critical_values as critical_values
    from .frequentist.region import ConfidenceRegion as ConfidenceRegion
    from .frequentist.region import confidence_region as confidence_region
    from .frequentist.statistic import p_value as p_value
    from .frequentist.statistic import significance as significance
    from .frequentist.statistic import test_statistic as test_statistic
    from .frequentist.toys import asimov as asimov
    from .gold_files import read_gold as read_gold
    from .gold_files import write_gold as write_gold
    from .gold_quality import gold_quality as gold_quality
    from .host import executable as executable
    from .host import numpy_simulator as numpy_simulator
    from .infer import Inference as Inference
    from .infer import infer as infer
    from .infer import train as train
    from .io import load as load
    from .io import save as save
    from .kernel import run as run
    from .methods.alfi import ALFI as ALFI
    from .methods.alfi import ConstantWeighting as ConstantWeighting
    from .methods.alfi import ExponentialWeighting as ExponentialWeighting
    from .methods.alfi import LastWeighting as LastWeighting
    from .methods.alfi import MeanSquaredError as MeanSquaredError
    from .methods.alfi import NegativeLogLikelihood as NegativeLogLikelihood
    from .methods.alfi import SettledWeighting as SettledWeighting
    from .methods.alfi import simulate_bank as simulate_bank
    from .methods.density import NDE as NDE
    from .methods.density import SCANDAL as SCANDAL
    from .methods.density import DensityEstimator as DensityEstimator
    from .methods.grid import theta_grid as theta_grid
    from .methods.histogram import HistogramRatio as HistogramRatio
    from .methods.histogram import ProjectedHistogramRatio as ProjectedHistogramRatio
    from .methods.machine import RecurrentMachine as RecurrentMachine
    from .methods.ratio import ALICE as ALICE
    from .methods.ratio import ALICES as ALICES
    from .methods.ratio import CARL as CARL
    from .methods.ratio import CASCAL as CASCAL
    from .methods.ratio import NRE as NRE
    from .methods.ratio import RASCAL as RASCAL
    from .methods.ratio import ROLR as ROLR
    from .methods.ratio import RatioEstimator as RatioEstimator
    from .methods.score import SALLY as SALLY
    from .methods.score import ScoreEstimator as ScoreEstimator
    from .methods.score import local_ratio as local_ratio
    from .mine import MarginalReference as MarginalReference
    from .mine import PairReference as PairReference
    from .mine import PointReference as PointReference
    from .mine import contrast as contrast
    from .mine import mine as mine
    from .mined import MinedSimulator as MinedSimulator
    from .mined import mined_simulator as mined_simulator
    from .posterior import Proposal as Proposal
    from .prior import Prior as Prior
    from .program import Program as Program
    from .program import program as program
    from .progress import NoProgress as NoProgress
    from .progress import RichProgress as RichProgress
    from .ratio import ExactRatio as ExactRatio
    from .simulate import SimulationError as SimulationError
    from .simulate import simulate as simulate
    from .simulations import Simulations as Simulations
    from .simulator import Exact as Exact
    from .simulator import simulator as simulator
    from .train_ratio import train_ratio as train_ratio

    __version__: str

_MODULES = {
    "_types": ["InferenceError", "Solution", "Status"],
    "calibration": ["HistogramCalibration", "IsotonicCalibration", "calibrate"],
    "diagnostics": ["calibration_curve", "mean_ratio_test", "reference_independence", "roc_test"],
    "fit": ["Training", "fit"],
    "frequentist.amortised": ["amortised_critical_values"],
    "frequentist.coverage": ["coverage_map"],
    "frequentist.fisher": ["fisher_information"],
    "frequentist.likelihood": ["LikelihoodRatio", "likelihood_ratio"],
    "frequentist.limits": ["expected_limits"],
    "frequentist.maximum": ["maximum_likelihood", "profile_likelihood"],
    "frequentist.neyman": ["critical_values"],
    "frequentist.region": ["ConfidenceRegion", "confidence_region"],
    "frequentist.statistic": ["p_value", "significance", "test_statistic"],
    "frequentist.toys": ["asimov"],
    "gold_files": ["read_gold", "write_gold"],
    "gold_quality": ["gold_quality"],
    "host": ["executable", "numpy_simulator"],
    "infer": ["Inference", "infer", "train"],
    "io": ["load", "save"],
    "kernel": ["run"],
    "methods.alfi": [
        "ALFI",
        "ConstantWeighting",
        "ExponentialWeighting",
        "LastWeighting",
        "MeanSquaredError",
        "NegativeLogLikelihood",
        "SettledWeighting",
        "simulate_bank",
    ],
    "methods.density": ["DensityEstimator", "NDE", "SCANDAL"],
    "methods.grid": ["theta_grid"],
    "methods.histogram": ["HistogramRatio", "ProjectedHistogramRatio"],
    "methods.machine": ["RecurrentMachine"],
    "methods.ratio": ["ALICE", "ALICES", "CARL", "CASCAL", "NRE", "RASCAL", "ROLR", "RatioEstimator"],
    "methods.score": ["SALLY", "ScoreEstimator", "local_ratio"],
    "mine": ["MarginalReference", "PairReference", "PointReference", "contrast", "mine"],
    "mined": ["MinedSimulator", "mined_simulator"],
    "posterior": ["Proposal"],
    "prior": ["Prior"],
    "program": ["Program", "program"],
    "progress": ["NoProgress", "RichProgress"],
    "ratio": ["ExactRatio"],
    "simulate": ["SimulationError", "simulate"],
    "simulations": ["Simulations"],
    "simulator": ["Exact", "simulator"],
    "train_ratio": ["train_ratio"],
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", "simulators", *sorted(_HOME)]  # pyright: ignore[reportUnsupportedDunderAll]


class _Package(types.ModuleType):
    """A module whose public functions are not replaced by submodules of the same name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _HOME or not isinstance(value, types.ModuleType):
            types.ModuleType.__setattr__(self, name, value)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from ._version import version

        value: Any = version()
    elif name == "simulators":
        value = importlib.import_module(f"{__name__}.simulators")
    elif name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
