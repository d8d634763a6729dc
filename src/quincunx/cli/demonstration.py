"""The demonstration: the rate of Rutherford and Geiger's alpha particles, from their counts alone.

In 1910 they counted the scintillations of polonium in 2,608 intervals of 7.5 seconds. The recurrent machine, and
rounds of simulations from its answer on, infer the rate of the Poisson simulator that makes such counts; beside it
stands the maximum likelihood estimate.
"""

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np

from ..answers.answer import Answer
from ..campaigns.save import check_target, save
from ..checks.plots import plot
from ..core.progress import AbstractProgress
from ..core.tables import estimate_text, read_observations
from ..methods.door import infer
from ..problems import data_file, poisson
from ..sample.black_box import AbstractJaxSimulator

if TYPE_CHECKING:
    from rich.table import Table

DATA = "rutherford_geiger_1910"
SECONDS = 7.5  # an interval; Rutherford and Geiger (1910), Phil. Mag. 20, 698
FILES = ("figure.png", "result.json", "machine")


class Stopwatch(AbstractProgress):
    """Passes everything on, and adds up the seconds of every stage."""

    inner: AbstractProgress
    seconds: dict = eqx.field(static=True, default_factory=dict)
    _open: dict = eqx.field(static=True, default_factory=dict)

    def start(self, stage: str, total: int) -> None:
        self._open.update(stage=stage, since=time.monotonic())
        self.inner.start(stage, total)

    def advance(self, steps: int, note: str = "") -> None:
        self.inner.advance(steps, note)

    def finish(self) -> None:
        self.inner.finish()
        stage, since = self._open["stage"], self._open["since"]
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - since


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """What was found, and what there is to compare it with.

    Fields
    ------
    answer: after the rounds; `answer.before` is the machine's own.
    mle, mle_std: the maximum likelihood estimate and its standard error, from the observed information.
    novel: why the data look like nothing simulated; empty when they do look so.
    seconds: of wall time, by stage.
    """

    answer: Answer
    mle: float
    mle_std: float
    novel: tuple[str, ...]
    seconds: Mapping[str, float]

    @property
    def estimate(self) -> Mapping[str, float]:
        return next(iter(self.answer.posterior.summary().values()))

    @property
    def difference(self) -> float:
        """Of the means, in standard errors of the maximum likelihood estimate."""
        return (self.estimate["mean"] - self.mle) / self.mle_std

    def rate_interval(self) -> tuple[float, float, float]:
        """Particles per interval: the median, and the ends of the central 95 %."""
        low, middle, high = np.exp(np.asarray(self.answer.posterior.quantile([0.025, 0.5, 0.975]))[:, 0])
        return float(middle), float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        rate, low, high = self.rate_interval()
        return {
            **self.answer.to_dict(),
            "maximum_likelihood": {"estimate": self.mle, "standard_error": self.mle_std},
            "difference_in_standard_errors": self.difference,
            "rate_per_interval": {"median": rate, "q025": low, "q975": high, "interval_seconds": SECONDS},
            "looks_like_simulated_data": not self.novel,
            "seconds": dict(self.seconds),
        }


def demonstrate(
    key: jax.Array, folder: Path, progress: AbstractProgress, options: Mapping[str, Any] | None = None
) -> Demonstration:
    """Infer the rate, and write `figure.png`, `result.json` and the trained machine into the folder.

    Parameters
    ----------
    options: keyword arguments of `infer`.

    Raises
    ------
    ValueError: `folder/machine` holds something else.
    """
    check_target(folder / "machine")
    x = observations()
    watch = Stopwatch(progress)
    answer = infer(key, poisson, x, progress=watch, **(options or {}))
    mle, mle_std = maximum_likelihood(poisson, answer.x)
    machine: Any = answer.estimator
    novel = machine.novelty.warnings(answer.x)
    found = Demonstration(answer, mle, mle_std, novel, watch.seconds)
    folder.mkdir(parents=True, exist_ok=True)
    plot(answer, folder / FILES[0])
    (folder / FILES[1]).write_text(json.dumps(found.to_dict(), indent=2) + "\n", encoding="utf-8")
    save(folder / FILES[2], answer.training, seed=answer.seed)
    return found


def observations() -> np.ndarray:
    """The counts `(m,)`, one per interval."""
    return read_observations(data_file(DATA), event_shape=(), counts="intervals")


def maximum_likelihood(simulator: AbstractJaxSimulator, x: jax.Array) -> tuple[float, float]:
    """The estimate of a simulator's only parameter, and one over the root of the observed information.

    Raises
    ------
    ValueError: the simulator does not know its likelihood.
    """
    mle, log_likelihood = simulator.exact.mle, simulator.exact.log_likelihood
    if mle is None or log_likelihood is None:
        raise ValueError(f"the likelihood of {simulator.name!r} is not known exactly; there is nothing to compare with")
    estimate = mle(x)
    information = -jax.hessian(lambda theta: log_likelihood(theta, x))(estimate)
    return float(estimate[0]), float(information[0, 0] ** -0.5)


def table(found: Demonstration) -> "Table":
    """The answer next to the maximum likelihood estimate, and what it took."""
    from rich.table import Table

    parameter = next(iter(found.answer.posterior.summary()))
    rows = Table(title=f"Alpha particles: {parameter} from {len(found.answer.x):,} counts", show_header=False)
    rows.add_column(style="bold")
    rows.add_column(justify="right")
    rows.add_row("machine and rounds", estimate_text(found.estimate["mean"], found.estimate["std"], 3))
    rows.add_row("maximum likelihood", estimate_text(found.mle, found.mle_std, 3))
    rows.add_row("difference", f"{found.difference:+.2f} standard errors")
    rows.add_row("observations simulated", f"{found.answer.num_simulator_calls:,}")
    for stage, seconds in found.seconds.items():
        rows.add_row(f"time to {stage}", f"{seconds:.1f} s")
    return rows


def sentence(found: Demonstration) -> str:
    """What was learned."""
    rate, low, high = found.rate_interval()
    digits = max(0, 1 - int(np.floor(np.log10(max((high - low) / 2, 1e-9)))))
    looks = "do not look like" if found.novel else "look like"
    return (
        f"The source sent {rate:.{digits}f} particles per interval of {SECONDS} s "
        f"(95 % interval {low:.{digits}f} to {high:.{digits}f}), and the counts {looks} those of a Poisson process."
    )
