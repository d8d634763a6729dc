"""Eight schools: how much does coaching help? A hierarchy of effects, inferred from simulations alone.

In each of eight schools an experiment measured the effect of coaching on a test, with a standard error (Rubin 1981,
"Estimation in parallel randomized experiments"). True effects are Normal(mu, tau). NPE learns the posterior of
(mu, tau) from simulated experiments; beside it stands the exact one, by quadrature: with effects integrated out, the
effect measured at school j is Normal(mu, sqrt(tau^2 + error_j^2)). It takes about a minute.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from scipy import stats

import quincunx as qx

NAMES = "ABCDEFGH"
MEASURED = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], np.float32)
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], np.float32)

prior = qx.Prior(mu=dist.Normal(0, 10), tau=dist.Uniform(0, 30))


@qx.simulator(prior)
def schools(key, theta):
    """Measured effects of the eight schools: two draws each, of the true effect and of its measurement."""
    of_school, of_measurement = jax.random.normal(key, (2, 8))
    return theta["mu"] + theta["tau"] * of_school + ERROR * of_measurement


def exact(size=600):
    """Draws of (mu, tau) on a grid `(size^2, 2)`, and their weights."""
    mu, tau = np.meshgrid(np.linspace(-40, 50, size), (np.arange(size) + 0.5) * (30 / size), indexing="ij")
    log_density = stats.norm.logpdf(mu, 0, 10)  # tau: uniform from 0 to 30
    for effect, error in zip(MEASURED, ERROR, strict=True):
        log_density += stats.norm.logpdf(effect, mu, np.hypot(tau, error))
    weight = np.exp(log_density - log_density.max()).ravel()
    return np.stack([mu.ravel(), tau.ravel()], axis=1), weight / weight.sum()


def moments(theta, weight):
    """Mean and standard deviation of mu, of tau, and of the true effect in every school, by name."""
    mu, tau = theta.T
    precision = 1 / tau[:, None] ** 2 + 1 / ERROR**2  # of an effect, given mu and tau
    mean = (mu[:, None] / tau[:, None] ** 2 + MEASURED / ERROR**2) / precision
    found = {"mu": (mu, 0.0), "tau": (tau, 0.0)}
    found |= {f"school {name}": (mean[:, j], 1 / precision[:, j]) for j, name in enumerate(NAMES)}
    average = {name: weight @ value for name, (value, _) in found.items()}
    return {
        name: (average[name], np.sqrt(weight @ ((value - average[name]) ** 2 + variance)))
        for name, (value, variance) in found.items()
    }


if __name__ == "__main__":
    answer = qx.infer(jax.random.key(0), schools, jnp.asarray(MEASURED)[None], "npe", num_simulations=50_000)
    theta = np.asarray(answer.posterior.sample(jax.random.key(1), 20_000), np.float64)
    learnt, known = moments(theta, np.full(len(theta), 1 / len(theta))), moments(*exact())
    for name, (mean, std) in learnt.items():
        print(f"{name}: {mean:.2f} +- {std:.2f}; exactly {known[name][0]:.2f} +- {known[name][1]:.2f}")
    print(qx.predictive_test(jax.random.key(2), schools, answer.posterior, MEASURED[None]).message)
    for warning in answer.warnings:
        print(f"warning: {warning}")
