"""Defaults that the command line shows in its help, where JAX must not be imported."""

METHOD = "alfi"
NUM_SIMULATIONS = 10_000
NUM_OBSERVATIONS = 100
MAX_OBSERVATIONS = 3000
SEED = 0
