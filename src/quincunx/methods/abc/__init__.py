"""Approximate Bayesian computation: parameters are kept whose simulations come near the observations."""
