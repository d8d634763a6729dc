"""Hares and lynx in Canada, 1900 to 1920: real data, two simulators, and answers with and without a likelihood.

The pelts that were bought from trappers are explained by the equations of Lotka and Volterra, with noise, and then by
births and deaths of single animals (see `quincunx.problems.hare_lynx`).

- The equations have a likelihood, so that the exact posterior can be sampled. SNLE learns a likelihood from simulations
  alone, in rounds that close in on the data, and its posterior is compared with the exact one.
- Births and deaths have none: SNLE again.

Both are learnt from logarithms of pelts, and both answers are asked whether they predict data like those observed.
It writes `hare_lynx.png` into the current folder, and takes 160 seconds of processor time.
"""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import quincunx as qx

YEARS = np.arange(1900, 1921)
PELTS = qx.problems.pelts()
LOG_PELTS = np.log(PELTS)


def in_logarithms(pelts):
    """A simulator of the logarithms of what another one makes."""

    @qx.simulator(pelts.prior, name=f"log_{pelts.name}")
    def log_pelts(key, theta):
        return jnp.log(pelts(key, theta))

    return log_pelts


equations = in_logarithms(qx.problems.hare_lynx)
events = in_logarithms(qx.problems.hare_lynx_gillespie)


def learnt(key, simulator, num_simulations, number, num_steps):
    """The posterior by SNLE, and what there is to say against it.

    One affine layer: each logarithm is normal, given those before it and the parameters. For the equations that is
    the truth, and for births and deaths a guess.
    """
    training = qx.Training(num_steps=num_steps, learning_rate=2e-3)
    method = qx.SNLE(network=qx.Flow(layers=1, width=128, knots=0), number=number, training=training)
    answer = qx.infer(key, simulator, LOG_PELTS, method, num_simulations=num_simulations)
    print(f"{answer.num_simulator_calls:,} simulations")
    for warning in answer.warnings:
        print(f"warning: {warning}")
    return answer.posterior


def report(posterior, exact=None):
    """Every parameter, and how far it is from the exact answer in units of that one's standard deviation."""
    known = None if exact is None else exact.summary()
    for name, row in posterior.summary().items():
        line = f"{name}: {row['mean']:.3g} +- {row['std']:.2g}"
        if known is not None:
            mean, std = known[name]["mean"], known[name]["std"]
            line += f"; exactly {mean:.3g} +- {std:.2g}"
            line += f" (off by {(row['mean'] - mean) / std:+.2f}, {row['std'] / std:.2f} times as wide)"
        print(line)


def check(key, simulator, posterior):
    print(qx.predictive_test(key, simulator, posterior, LOG_PELTS).message)


def draw(axes, key, simulator, posterior, title):
    """The data, and the central 50 and 90 % of pelts that the posterior predicts."""
    sims = qx.posterior_predictive(key, simulator, posterior)
    levels = np.exp(np.quantile(np.asarray(sims.x)[:, 0], [0.05, 0.25, 0.5, 0.75, 0.95], axis=0))
    for kind, (name, color) in enumerate([("hares", "#3b6ea5"), ("lynx", "#d9822b")]):
        low, lower, middle, upper, high = levels[..., kind]
        axes.fill_between(YEARS, low, high, color=color, alpha=0.2, lw=0)
        axes.fill_between(YEARS, lower, upper, color=color, alpha=0.35, lw=0)
        axes.plot(YEARS, middle, color=color, lw=1)
        axes.plot(YEARS, PELTS[0, :, kind], "o", color=color, ms=4, label=name)
    axes.set(title=title, xlabel="year", ylim=(0, 120), xticks=range(1900, 1921, 5))


if __name__ == "__main__":
    keys = jax.random.split(jax.random.key(0), 6)
    print("The equations:")
    exact = qx.posterior(qx.ExactRatio(qx.problems.hare_lynx), PELTS)
    by_equations = learnt(keys[0], equations, 300_000, number=3, num_steps=16_000)
    report(by_equations, exact)
    check(keys[1], equations, by_equations)
    print("\nBirths and deaths, one by one:")
    by_events = learnt(keys[2], events, 15_000, number=3, num_steps=4_000)
    report(by_events)
    check(keys[3], events, by_events)

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True)
    draw(left, keys[4], equations, exact, "equations: exact posterior")
    draw(middle, keys[4], equations, by_equations, "equations: learnt from simulations")
    draw(right, keys[5], events, by_events, "births and deaths: learnt from simulations")
    left.set_ylabel("thousands of pelts")
    left.legend(frameon=False)
    figure.savefig("hare_lynx.png", dpi=100)
