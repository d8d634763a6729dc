"""The training loop, on a problem whose optimum is known: predicting theta from x by least squares."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from compiling import compiled

from quincunx.core.fit import Training, fit
from quincunx.core.loss import AbstractFrozen, AbstractLoss
from quincunx.core.prior import Prior
from quincunx.core.progress import AbstractProgress
from quincunx.core.solution import InferenceError, Status
from quincunx.sample.black_box import simulator
from quincunx.sample.simulate import simulate


@simulator(Prior(mean=dist.Normal(0, 1)))
def shifted(key, theta):
    return theta["mean"] + 0.5 * jax.random.normal(key)


class LeastSquares(AbstractLoss):
    batch_size: int = 50

    def check(self, net: Any, batch: Any) -> None:
        pass

    def __call__(self, net, batch, key):
        parts = (batch,) if not isinstance(batch, tuple) else batch
        errors = [(jax.vmap(net)(part.x) - part.theta) ** 2 for part in parts]
        return jnp.mean(jnp.concatenate(errors))


class Exploding(LeastSquares):
    def __call__(self, net, batch, key):
        return jnp.log(jnp.mean(jax.vmap(net)(batch.x) ** 2) - 1e9)


SIMS = simulate(jax.random.key(0), shifted, num_simulations=1000)
NET = eqx.nn.Linear(1, 1, key=jax.random.key(1))
SHORT = Training(num_steps=400, learning_rate=3e-2)


def leaves(net):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(net, eqx.is_array))]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def test_reaches_the_least_squares_solution():
    x, y = np.asarray(SIMS.x)[:, 0], np.asarray(SIMS.theta)[:, 0]
    slope, intercept = np.polyfit(x, y, 1)
    training = Training(num_steps=400, learning_rate=3e-2, validation_fraction=0.0)
    solution = fit(jax.random.key(2), NET, LeastSquares(), SIMS, training=training)
    assert solution.status is Status.SUCCESS
    # The coefficients' own standard errors are 0.014; the cosine schedule ends at rest, so the optimum is met closely.
    assert float(solution.value.weight[0, 0]) == pytest.approx(slope, abs=0.005)
    assert float(solution.value.bias[0]) == pytest.approx(intercept, abs=0.005)
    assert solution.statistics["num_epochs"] == len(solution.history["train_loss"]) == 20


def test_same_key_same_bits():
    first, second, other = (
        fit(jax.random.key(seed), NET, LeastSquares(), SIMS, training=SHORT).value for seed in (3, 3, 4)
    )
    assert same(first, second)
    assert not same(first, other)


def test_other_numbers_compile_nothing():
    fit(jax.random.key(3), NET, LeastSquares(), SIMS, training=SHORT)
    otherwise = Training(num_steps=300, learning_rate=1e-2, weight_decay=0.1, clip_norm=9.0, patience=50)
    with compiled() as names:
        fit(jax.random.key(3), NET, LeastSquares(), SIMS[:990], training=otherwise)
    assert names == []
    with compiled() as names:
        fit(jax.random.key(3), NET, LeastSquares(batch_size=20), SIMS, training=SHORT)
    assert names == ["jit(_epoch)"]  # so it would be seen


def test_every_row_counts_once():
    """160 rows are filled up to 192, in two batches of 64 and one of 32: what was filled up is in no loss."""
    sims, still = SIMS[:160], Training(num_steps=2, learning_rate=1e-12, validation_fraction=0.2)
    history = fit(jax.random.key(3), NET, LeastSquares(batch_size=64), sims, training=still).history
    found = 0.8 * history["train_loss"][0] + 0.2 * history["validation_loss"][0]
    assert found == pytest.approx(float(LeastSquares()(NET, sims, None)), rel=1e-5)


def test_the_network_given_is_not_changed():
    before = leaves(NET)
    fit(jax.random.key(3), NET, LeastSquares(), SIMS, training=SHORT)
    assert all(np.array_equal(a, b) for a, b in zip(before, leaves(NET), strict=True))


class Shift(AbstractFrozen):
    value: jax.Array


class Shifted(eqx.Module):
    layer: eqx.nn.Linear
    shift: Shift

    def __call__(self, x):
        return self.layer(x - self.shift.value)


def test_frozen_parts_are_left_alone():
    net = Shifted(NET, Shift(jnp.array(0.5)))
    trained = fit(jax.random.key(3), net, LeastSquares(), SIMS, training=SHORT).value
    assert float(trained.shift.value) == 0.5
    assert not same(trained.layer, net.layer)


def test_records_of_different_sizes_share_every_step():
    """Of a second record with another slope, rows are taken in proportion: the fit is that of both together."""
    more = simulate(jax.random.key(5), shifted, num_simulations=640)
    more = dataclasses.replace(more, theta=-more.theta)
    training = Training(num_steps=400, learning_rate=3e-2, validation_fraction=0.0)
    both = fit(jax.random.key(6), NET, LeastSquares(), (SIMS, more), training=training).value
    columns = [np.concatenate([getattr(part, name)[:, 0] for part in (SIMS, more)]) for name in ("x", "theta")]
    slope, _ = np.polyfit(*columns, 1)
    alone, _ = np.polyfit(SIMS.x[:, 0], SIMS.theta[:, 0], 1)
    # An epoch has 20 batches of 48 and 32 rows: 40 of the 1,000 are left out.
    assert float(both.weight[0, 0]) == pytest.approx(slope, abs=0.02)
    assert abs(slope - alone) > 0.3


@pytest.mark.parametrize("patience", [3, 0.05])
def test_early_stopping_keeps_the_best_parameters(patience):
    """After so many epochs without a better one, or such a share of all that there would be."""
    training = Training(num_steps=4000, learning_rate=0.5, patience=patience)
    solution = fit(jax.random.key(7), NET, LeastSquares(), SIMS, training=training)
    losses = solution.history["validation_loss"]
    assert solution.status is Status.STOPPED_EARLY
    assert solution.statistics["best_epoch"] == int(np.argmin(losses))
    every = 4000 * solution.statistics["num_epochs"] // solution.statistics["num_steps"]
    assert len(losses) - 1 - int(np.argmin(losses)) == (patience if patience >= 1 else round(patience * every))


def test_a_loss_that_is_not_finite_is_reported_as_what_it_is():
    with pytest.raises(InferenceError, match="NaN or infinite") as caught:
        fit(jax.random.key(8), NET, Exploding(), SIMS, training=SHORT)
    assert caught.value.solution.status is Status.DIVERGED
    quiet = fit(jax.random.key(8), NET, Exploding(), SIMS, training=SHORT, throw=False)
    assert not quiet.ok and same(quiet.value, NET)


def test_the_average_of_the_weights_is_that_of_the_formula():
    run = lambda steps, average: fit(
        jax.random.key(11), NET, LeastSquares(), SIMS[: 50 * steps],
        training=Training(num_steps=steps, learning_rate=0.1, validation_fraction=0.0, average=average),
    ).value.weight[0, 0]  # fmt: skip
    start, after = float(NET.weight[0, 0]), float(run(1, None))
    assert float(run(1, 0.05)) == pytest.approx(0.05 * start + 0.95 * after, rel=1e-5)
    assert float(run(1, 0.999)) == pytest.approx(0.1 * start + 0.9 * after, rel=1e-5)  # (1 + 0) / (10 + 0) of the start
    assert run(3, 0.999) != run(3, None)


class Interrupt(AbstractProgress):
    after: int

    def start(self, stage, total):
        pass

    def advance(self, steps, note=""):
        if note and steps and len(COUNT) == self.after:
            raise KeyboardInterrupt
        COUNT.append(steps)

    def finish(self):
        pass


COUNT: list[int] = []


@pytest.mark.parametrize("average", [None, 0.9])
def test_an_interrupted_training_resumes_to_the_same_bits(tmp_path, average):
    how: Any = {"training": dataclasses.replace(SHORT, average=average), "checkpoint": tmp_path / "checkpoint"}
    whole = fit(jax.random.key(9), NET, LeastSquares(), SIMS, training=how["training"])
    COUNT.clear()
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(jax.random.key(9), NET, LeastSquares(), SIMS, progress=Interrupt(5), **how)
    assert str(how["checkpoint"]) in caught.value.__notes__[0]
    resumed = fit(jax.random.key(9), NET, LeastSquares(), SIMS, resume=True, **how)
    assert same(whole.value, resumed.value)
    assert whole.history == resumed.history


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    path = tmp_path / "checkpoint"
    COUNT.clear()
    with pytest.raises(KeyboardInterrupt):
        fit(jax.random.key(9), NET, LeastSquares(), SIMS, training=SHORT, checkpoint=path, progress=Interrupt(2))
    with pytest.raises(ValueError, match="another key, data, network or settings"):
        fit(jax.random.key(10), NET, LeastSquares(), SIMS, training=SHORT, checkpoint=path, resume=True)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read"):
        fit(jax.random.key(9), NET, LeastSquares(), SIMS, training=SHORT, checkpoint=path, resume=True)


KILLED = """
    import sys; sys.path[:0] = {paths!r}
    import quincunx.core.checkpoint as checkpoint
    checkpoint.SECONDS = 0.0
    import test_fit as t
    import jax
    training = t.Training(num_steps=200_000, learning_rate=3e-2)
    t.fit(jax.random.key(9), t.NET, t.LeastSquares(), t.SIMS, training=training, checkpoint={path!r})
"""


def test_kill_9_leaves_a_checkpoint_that_resumes(tmp_path):
    path = tmp_path / "checkpoint"
    here = os.path.dirname(__file__)
    script = textwrap.dedent(KILLED.format(paths=[here, os.path.dirname(here)], path=str(path)))
    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    training = Training(num_steps=200_000, learning_rate=3e-2)
    with np.load(path) as file:
        assert "fingerprint" in str(file["header"])
    COUNT.clear()
    with pytest.raises(KeyboardInterrupt):  # it goes on from there, under the same fingerprint, in another process
        fit(
            jax.random.key(9), NET, LeastSquares(), SIMS, training=training, checkpoint=path, resume=True,
            progress=Interrupt(2),
        )  # fmt: skip
    assert COUNT[0] >= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"patience": 0}, "patience must be None or positive"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"average": 1.0}, r"average must be None or in \(0, 1\), got 1\.0"),
        ({"validation_fraction": 1.0}, r"validation_fraction must be in \[0, 1\)"),
    ],
)
def test_training_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Training(**settings)


def test_too_few_simulations():
    with pytest.raises(ValueError, match="too few to split"):
        fit(jax.random.key(0), NET, LeastSquares(), SIMS[:1], training=SHORT)
