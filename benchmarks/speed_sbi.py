"""sbi's half of `speed.py`, run by a Python that has sbi 0.27: it reads simulations and writes seconds as JSON."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sbi.inference import NLE, NPE, NRE_B
from sbi.utils import BoxUniform

EPOCHS = 10  # timed
BATCH = 200
MAKERS: dict[str, Callable[[Any], Any]] = {
    "npe": lambda prior: NPE(prior=prior, density_estimator="maf", show_progress_bars=False),
    "npe-spline": lambda prior: NPE(prior=prior, density_estimator="nsf", show_progress_bars=False),
    "nle": lambda prior: NLE(prior=prior, density_estimator="maf", show_progress_bars=False),
    "nre-b": lambda prior: NRE_B(prior=prior, classifier="mlp", show_progress_bars=False),
}


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    found = call()
    return time.perf_counter() - begun, found


def measured(name: str, theta: torch.Tensor, x: torch.Tensor, observed: torch.Tensor, whole: bool) -> dict[str, Any]:
    """Steps in a second; with `whole` also the fit with sbi's defaults and 10,000 draws of its posterior."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = lambda: MAKERS[name](BoxUniform(-3 * torch.ones(5), 3 * torch.ones(5))).append_simulations(theta, x)
    steps = EPOCHS * (round(0.9 * len(theta)) // BATCH)
    inference = made()
    inference.train(training_batch_size=BATCH, max_num_epochs=1)
    again = lambda epochs: inference.train(training_batch_size=BATCH, max_num_epochs=epochs, resume_training=True)
    seconds, _ = timed(lambda: again(1 + EPOCHS))
    found: dict[str, Any] = {"steps_per_s": steps / seconds}
    if whole:
        inference = made()
        found["fit_s"], _ = timed(lambda: inference.train(training_batch_size=BATCH))
        found["epochs"] = int(inference.summary["epochs_trained"][-1])
        posterior = inference.build_posterior()
        found["draws_s"], draws = timed(lambda: posterior.sample((10_000,), x=observed, show_progress_bars=False))
        found["draws"] = draws.numpy().tolist()
    return found


def main(data: str, out: str, whole: bool, names: list[str]) -> None:
    arrays = np.load(data)
    theta, x, observed = (torch.as_tensor(arrays[name]) for name in ("theta", "x", "observed"))
    with open(out, "w") as file:
        json.dump({name: measured(name, theta, x, observed, whole) for name in names}, file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3] == "whole", sys.argv[4:])
