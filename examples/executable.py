"""A simulator that is a program of its own, in any language: here, awk in a shell.

It reads one JSON object on standard input, `{"parameters": {...}, "num_observations": m, "seed": n}`, and writes m
lines of numbers. Settings are small, so that this takes about a minute.
"""

import jax
import numpyro.distributions as dist

import quincunx as qx

prior = qx.Prior(scale=dist.Uniform(0.5, 5.0))
PROGRAM = r"""
read -r line
scale=$(printf '%s' "$line" | sed 's/.*"scale": *\([0-9.e+-]*\).*/\1/')
count=$(printf '%s' "$line" | sed 's/.*"num_observations": *\([0-9]*\).*/\1/')
seed=$(printf '%s' "$line" | sed 's/.*"seed": *\([0-9]*\).*/\1/')
awk -v s="$scale" -v n="$count" -v seed="$seed" '
    BEGIN { srand(seed); for (i = 0; i < n; i++) print -s * log(1 - rand()) }'
"""
lifetimes = qx.executable(["sh", "-c", PROGRAM], prior, name="lifetimes", timeout=30)

if __name__ == "__main__":
    key = jax.random.key(0)
    observed = qx.simulate(key, lifetimes, theta={"scale": 2.0}, num_observations=80).x[0]
    method = qx.ALFI(num_observations=80, max_observations=80)  # 500 sets of 80 observations: 500 starts
    answer = qx.infer(key, lifetimes, observed, method, num_simulations=40_000, training=qx.Training(num_steps=500))
    estimate = answer.posterior.summary()["scale"]
    print(
        f"scale: {estimate['mean']:.2f} +- {estimate['std']:.2f}; the mean of the data is {float(observed.mean()):.2f}"
    )
