"""A population that grew: how large it is, and how fast it grew, from the mutations in a sample of genomes.

msprime simulates the ancestry of 20 diploid genomes at 20 places that are inherited apart, 50,000 bases each, and
mutations on it. What is observed is the site-frequency spectrum: how many mutations are carried by 1, 2, ..., 39 of the
40 copies. Growth shows as an excess of rare ones. NPE learns the posterior; its settings are small, so that this
takes about a minute. It needs msprime: pip install "quincunx[coalescent]".
"""

import importlib.util

import jax
import numpy as np
import numpyro.distributions as dist

import quincunx as qx

if importlib.util.find_spec("msprime") is None:
    raise SystemExit('this example needs msprime: pip install "quincunx[coalescent]"')

GENOMES, PLACES, BASES = 20, 20, 50_000
MUTATIONS = 1.25e-8  # a base and generation
LARGEST_SEED = 2**31

# The size today, as a power of ten, and growth in percent a generation.
prior = qx.Prior(log10_size=dist.Uniform(3.5, 5.5), growth=dist.Uniform(0.0, 1.0))


@qx.numpy_simulator(prior, source="msprime (Baumdicker et al. 2022, Genetics 220, iyab229)")
def spectrum(rng, theta):
    """Number of mutations `(39,)` that are carried by 1, 2, ..., 39 of the 40 copies, in all places together."""
    import msprime  # here, in a worker process: the module cannot be sent to it

    history = msprime.Demography()
    history.add_population(initial_size=10 ** theta["log10_size"], growth_rate=theta["growth"] / 100)
    seeds = rng.integers(1, LARGEST_SEED, size=(2, PLACES))
    trees = msprime.sim_ancestry(
        GENOMES, demography=history, sequence_length=BASES, num_replicates=PLACES, random_seed=int(seeds[0, 0])
    )
    mutated = (
        msprime.sim_mutations(each, rate=MUTATIONS, random_seed=int(seed))
        for each, seed in zip(trees, seeds[1], strict=True)
    )
    return sum(each.allele_frequency_spectrum(polarised=True, span_normalise=False)[1:-1] for each in mutated)


if __name__ == "__main__":
    key = jax.random.key(0)
    true = {"log10_size": 4.7, "growth": 0.4}
    observed = qx.simulate(key, spectrum, theta=true).x[0]
    method = qx.NPE(encoder=qx.VectorEncoder())
    training = qx.Training(num_steps=800, learning_rate=1e-3)
    answer = qx.infer(key, spectrum, observed, method, num_simulations=4000, training=training)
    for name, estimate in answer.posterior.summary().items():
        print(f"{name}: {estimate['mean']:.3f} +- {estimate['std']:.3f}; true: {true[name]}")
    print(f"{int(np.sum(observed))} mutations, {int(observed[0, 0])} of them seen once")
    print(qx.predictive_test(key, spectrum, answer.posterior, observed, num_draws=100).message)
    for warning in answer.warnings:
        print(f"warning: {warning}")
