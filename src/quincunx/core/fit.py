"""`fit`: the one training loop. An epoch is one compiled `lax.scan` over minibatches."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from . import checkpoint as checkpoints
from .loss import AbstractLoss, Batch, partition
from .progress import AbstractProgress, NoProgress
from .simulations import Simulations
from .solution import InferenceError, Key, Solution, Status

Net = TypeVar("Net")


@dataclasses.dataclass(frozen=True)
class Training:
    """How to train. Every field is also a key of the table `training` in a TOML file of the command line.

    Fields
    ------
    num_steps: optimiser steps, rounded up to whole epochs.
    learning_rate: of Adam, at its highest; it warms up over the first 2 % of the steps and falls to zero
        along a cosine.
    weight_decay: pulls every weight towards zero, at this rate times the learning rate (AdamW, Loshchilov and Hutter
        2019, arXiv:1711.05101); of use when simulations are few.
    clip_norm: gradients with a larger global norm are scaled down to it.
    validation_fraction: share of the simulations held out; 0 for none.
    patience: stop when the validation loss has not improved for this many epochs; None for never.
    """

    num_steps: int = 1500
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    validation_fraction: float = 0.1
    patience: int | None = None

    def __post_init__(self):
        for name, ok, rule in [
            ("num_steps", self.num_steps >= 1, "at least 1"),
            ("learning_rate", self.learning_rate > 0, "positive"),
            ("weight_decay", self.weight_decay >= 0, "zero or positive"),
            ("clip_norm", self.clip_norm > 0, "positive"),
            ("validation_fraction", 0 <= self.validation_fraction < 1, "in [0, 1)"),
            ("patience", self.patience is None or self.patience >= 1, "None or at least 1"),
        ]:
            if not ok:
                raise ValueError(f"{name} must be {rule}, got {getattr(self, name)}")

    def optimiser(self) -> optax.GradientTransformation:
        warmup = max(1, self.num_steps // 50)
        schedule = optax.warmup_cosine_decay_schedule(
            self.learning_rate / 20, self.learning_rate, warmup, max(self.num_steps, warmup + 1)
        )
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm), optax.adamw(schedule, weight_decay=self.weight_decay)
        )


class _State(NamedTuple):
    """All that changes from epoch to epoch; what a checkpoint holds."""

    params: Any
    opt_state: Any
    best_params: Any
    best_loss: jax.Array
    best_epoch: jax.Array
    epoch: jax.Array
    train_losses: jax.Array
    validation_losses: jax.Array


def fit(
    key: Key,
    net: Net,
    loss: AbstractLoss,
    sims: Batch | Sequence[Simulations],
    *,
    training: Training = Training(),
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: AbstractProgress | None = None,
    throw: bool = True,
) -> Solution[Net]:
    """Train a network on simulations.

    Parameters
    ----------
    key: random key; the same key gives the same network, interrupted and resumed or not.
    net: the network to start from (an Equinox module). It is not changed.
    loss: what to minimise.
    sims: one record of simulations, or several with different numbers of observations per row. In a
        step each gives rows in proportion to its length.
    training: the optimiser's settings.
    checkpoint: a file that is rewritten at most every 10 seconds, and when training is interrupted.
    resume: go on from `checkpoint` if it exists.
    progress: told about every epoch.
    throw: raise when training fails; otherwise the status says so.

    Returns
    -------
    Solution whose value is the network with the lowest validation loss seen (the last one, without
    validation). `history` has the mean training loss and the validation loss of every epoch.

    Raises
    ------
    ValueError: simulations that the loss cannot use, too few of them, or a checkpoint of another fit.
    InferenceError: the loss became NaN or infinite.
    """
    data = sims if isinstance(sims, Simulations) else tuple(sims)
    loss.check(net, data)
    split_key, epoch_key, validation_key = jax.random.split(key, 3)
    train, held_out = _split(split_key, data, training.validation_fraction)
    lengths = [len(part) for part in _parts(train)]
    batch_size = min(loss.batch_size, lengths[0])
    num_batches = lengths[0] // batch_size
    num_epochs = -(-training.num_steps // num_batches)
    params: Any
    params, static = partition(net)
    empty = jnp.full(num_epochs, jnp.nan)
    state = _State(
        params, training.optimiser().init(params), params, jnp.array(jnp.inf), jnp.array(-1), jnp.array(0), empty, empty
    )
    fingerprint = checkpoints.fingerprint(key, state, loss, training, data)
    if resume and checkpoint is not None:
        state = checkpoints.load(checkpoint, fingerprint, state)

    run_epoch = functools.partial(_epoch, static, loss, training, batch_size, num_batches, train, held_out)
    reporter, saver = progress or NoProgress(), checkpoints.Saver(checkpoint, fingerprint)
    status = Status.SUCCESS
    reporter.start("train", num_epochs)
    try:
        reporter.advance(int(state.epoch))
        while (epoch := int(state.epoch)) < num_epochs:
            state = run_epoch(state, epoch_key, validation_key)
            value = float(state.train_losses[epoch])
            if not np.isfinite(value):
                status = Status.DIVERGED
                break
            saver.save_if_due(state)
            shown = float(state.validation_losses[epoch])
            reporter.advance(1, f"loss {shown if np.isfinite(shown) else value:.3f}")
            if training.patience is not None and epoch - int(state.best_epoch) >= training.patience:
                status = Status.STOPPED_EARLY
                break
    except KeyboardInterrupt as interrupt:
        saver.save(state)
        if checkpoint is not None:
            interrupt.add_note(f"the checkpoint is kept in {checkpoint}; call fit with resume=True to go on")
        raise
    finally:
        reporter.finish()
    return _solution(state, static, status, num_batches, throw)


def _solution(state: _State, static: Any, status: Status, num_batches: int, throw: bool) -> Solution:
    done = int(state.epoch)
    solution = Solution(
        eqx.combine(state.best_params, static),
        status,
        {"num_epochs": done, "num_steps": done * num_batches, "best_epoch": int(state.best_epoch)},
        {
            "train_loss": np.asarray(state.train_losses[:done]).tolist(),
            "validation_loss": np.asarray(state.validation_losses[:done]).tolist(),
        },
    )
    if throw and not solution.ok:
        raise InferenceError(
            solution,
            f"It happened in epoch {done}; the parameters before it are kept in the solution. "
            "Lower the learning rate or clip_norm, and look for extreme values in the simulations.",
        )
    return solution


@eqx.filter_jit
def _epoch(
    static: Any, loss: AbstractLoss, training: Training, batch_size: int, num_batches: int,
    train: Batch, held_out: Batch | None, state: _State, epoch_key: Key, validation_key: Key,
) -> _State:  # fmt: skip
    """One pass over the training rows, then the validation loss, and the best parameters so far."""
    shuffle_key, step_key = jax.random.split(jax.random.fold_in(epoch_key, state.epoch))
    rows = _shuffled(shuffle_key, train, batch_size, num_batches)
    optimiser = training.optimiser()

    def objective(params, batch, key):
        return loss(eqx.combine(params, static), batch, key)

    def step(carry, inputs):
        params, opt_state = carry
        picked, key = inputs
        value, gradient = jax.value_and_grad(objective)(params, _take(train, picked), key)
        updates, opt_state = optimiser.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    keys = jax.random.split(step_key, num_batches)
    (params, opt_state), values = jax.lax.scan(step, (state.params, state.opt_state), (rows, keys))
    train_loss = jnp.mean(values)
    if held_out is None:
        validation_loss, better = jnp.array(jnp.nan), jnp.isfinite(train_loss)
    else:
        validation_loss = _validate(objective, params, held_out, batch_size, validation_key)
        better = validation_loss < state.best_loss
    keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)
    return _State(
        params, opt_state, keep(params, state.best_params), keep(validation_loss, state.best_loss),
        keep(state.epoch, state.best_epoch), state.epoch + 1,
        state.train_losses.at[state.epoch].set(train_loss),
        state.validation_losses.at[state.epoch].set(validation_loss),
    )  # fmt: skip


def _validate(objective, params, held_out: Batch, batch_size: int, key: Key) -> jax.Array:
    """Mean loss over the held-out rows, always in the same batches and with the same keys."""
    size = min(batch_size, len(_parts(held_out)[0]))
    count = len(_parts(held_out)[0]) // size
    rows = [jnp.arange(count * (len(p) // count)).reshape(count, -1) for p in _parts(held_out)]
    values = jax.lax.map(
        lambda inputs: objective(params, _take(held_out, inputs[0]), inputs[1]), (rows, jax.random.split(key, count))
    )
    return jnp.mean(values)


def _parts(data: Batch) -> tuple[Simulations, ...]:
    return (data,) if isinstance(data, Simulations) else data


def _take(data: Batch, rows: list[jax.Array]) -> Batch:
    taken = tuple(part[index] for part, index in zip(_parts(data), rows, strict=True))
    return taken[0] if isinstance(data, Simulations) else taken


def _shuffled(key: Key, data: Batch, batch_size: int, num_batches: int) -> list[jax.Array]:
    """For each record, row numbers `(num_batches, rows per batch)`."""
    rows = []
    for index, part in enumerate(_parts(data)):
        size = batch_size if index == 0 else max(1, len(part) // num_batches)
        repeats = -(-size * num_batches // len(part))
        keys = jax.random.split(jax.random.fold_in(key, index), repeats)
        order = jnp.concatenate([jax.random.permutation(k, len(part)) for k in keys])
        rows.append(order[: size * num_batches].reshape(num_batches, size))
    return rows


def _split(key: Key, data: Batch, fraction: float) -> tuple[Batch, Batch | None]:
    """Training and validation rows; every record gives the same share, and at least one row to each."""
    train, held_out = [], []
    for index, part in enumerate(_parts(data)):
        order = jax.random.permutation(jax.random.fold_in(key, index), len(part))
        count = max(1, round(fraction * len(part))) if fraction else 0
        if len(part) <= count:
            raise ValueError(
                f"{len(part)} simulations are too few to split; simulate more, or set validation_fraction=0"
            )
        held_out.append(part[order[:count]])
        train.append(part[order[count:]])
    wrap = lambda parts: parts[0] if isinstance(data, Simulations) else tuple(parts)
    return wrap(train), wrap(held_out) if fraction else None
