"""How fast methods train and answer beside sbi 0.27, on the same simulations of SLCP, in one run on one machine.

    taskset -c 0 python benchmarks/speed.py PYTHON [--whole] [--sbc]     # PYTHON: an interpreter that has sbi 0.27.0

Steps a second after compilation, at batch 200 and sbi's sizes: five autoregressive layers with two hidden layers of 50,
affine or of splines; a ratio network of two layers of 50 with ten thetas. With --whole, also what a user's call takes,
each library with its own defaults: the fit on 10,000 simulations, building and compiling included, and 10,000 draws of
the posterior, with the C2ST of both beside the reference of sbibm if --wheel is given (needs scikit-learn). With --sbc,
1,000 data sets and 1,000 draws of each, by `qx.posterior_tests` of NPE.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import quincunx as qx
from quincunx.problems import SBIBM

SLCP = SBIBM["slcp"]
NUM_SIMULATIONS, BATCH, STEPS = 10_000, 200, 450
FLOWS = {"npe": qx.Flow(5, 50, 0), "npe-spline": qx.Flow(5, 50, 8), "nle": qx.Flow(5, 50, 0)}
ALIKE = {  # of sbi's sizes
    "npe": qx.NPE(network=FLOWS["npe"], batch_size=BATCH),
    "npe-spline": qx.NPE(network=FLOWS["npe-spline"], batch_size=BATCH),
    "nle": qx.NLE(network=FLOWS["nle"], batch_size=BATCH),
    "nre-b": qx.NREB(network=qx.MLP((50, 50)), batch_size=BATCH),
}
OURS = {"npe": qx.NPE(), "nle": qx.NLE(), "nre-b": qx.NREB()}  # as users call them


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    found = call()
    return time.perf_counter() - begun, found


def steps_per_second(sims: qx.Simulations, method: Any) -> float:
    training = qx.Training(num_steps=STEPS, learning_rate=5e-4)
    train = lambda: qx.train(jax.random.key(0), method=method, sims=sims, training=training)
    train()
    return STEPS / timed(train)[0]


def whole(sims: qx.Simulations, method: Any, x: np.ndarray) -> dict[str, Any]:
    jax.clear_caches()
    fit, solution = timed(lambda: qx.train(jax.random.key(0), method=method, sims=sims))
    draw = lambda: np.asarray(qx.posterior(solution.value, x).sample(jax.random.key(1), 10_000))
    first, draws = timed(draw)
    return {"fit_s": fit, "draws_s": first, "draws_again_s": timed(draw)[0], "draws": draws}


def theirs(python: str, sims: qx.Simulations, x: np.ndarray, whole: bool, names: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "data.npz", Path(folder) / "out.json"
        np.savez(data, theta=sims.theta, x=np.asarray(sims.x)[:, 0], observed=x)
        script = Path(__file__).resolve().with_name("speed_sbi.py")
        command = [python, script, data, out, "whole" if whole else "steps", *names]
        subprocess.run(command, check=True, cwd=folder)  # where sbi may leave its logs
        return json.loads(out.read_text())


def c2st_of(wheel: Path | None, draws: Any) -> str:
    if wheel is None:
        return ""
    from sbibm import read
    from slcp import c2st

    return f", C2ST {c2st(np.asarray(draws, np.float32), read(wheel, 'slcp', 1)[1], 200):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="an interpreter that has sbi 0.27.0")
    parser.add_argument("--methods", nargs="+", choices=ALIKE, default=list(ALIKE))
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--sbc", action="store_true")
    parser.add_argument("--wheel", type=Path, help="sbibm 1.1.0, for its first observation and its reference")
    options = parser.parse_args()
    sims = qx.simulate(jax.random.key(0), SLCP, num_simulations=NUM_SIMULATIONS)
    x = np.asarray(qx.simulate(jax.random.key(1), SLCP, num_simulations=1).x[0])
    if options.wheel is not None:
        from sbibm import read

        x = read(options.wheel, "slcp", 1)[0]
    names = [name for name in options.methods if not options.whole or name in OURS]
    sbi = theirs(options.python, sims, x, options.whole, names)
    for name in names:
        ours, other = steps_per_second(sims, ALIKE[name]), sbi[name]["steps_per_s"]
        print(f"{name}: {ours:.0f} steps a second, sbi {other:.0f}: {ours / other:.1f} times", flush=True)
        if options.whole:
            found = whole(sims, OURS[name], x)
            print(
                f"    fit {found['fit_s']:.0f} s, sbi {sbi[name]['fit_s']:.0f} s ({sbi[name]['epochs']} epochs): "
                f"{found['fit_s'] / sbi[name]['fit_s']:.2f}; 10,000 draws {found['draws_s']:.1f} s, again "
                f"{found['draws_again_s']:.2f} s{c2st_of(options.wheel, found['draws'])}; sbi "
                f"{sbi[name]['draws_s']:.2f} s{c2st_of(options.wheel, sbi[name]['draws'])}",
                flush=True,
            )
    if options.sbc:
        solution = qx.train(jax.random.key(0), method=qx.NPE(), sims=sims, training=qx.Training(1000, 5e-4))
        tests = lambda count: qx.posterior_tests(jax.random.key(2), solution, num_problems=count, num_draws=1000)
        tests(2)  # compiles
        print(f"SBC, 1,000 data sets of 1,000 draws: {timed(lambda: tests(1000))[0]:.0f} s")


if __name__ == "__main__":
    main()
