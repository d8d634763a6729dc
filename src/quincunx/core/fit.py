"""`fit`: the one training loop. An epoch is one compiled `lax.scan` over minibatches."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from . import checkpoint as checkpoints
from .batches import bucket, filled
from .loss import AbstractFrozen, AbstractLoss, Batch
from .names import options_checked
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
    patience: stop when the validation loss has not improved for this many epochs, or, below 1, for this share of all
        that there would be; None for never.
    average: keep an exponential moving average of the weights, such as 0.999 for one over the last thousand steps: it
        is what is validated and returned. None for the weights themselves.
    """

    num_steps: int = 1500
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    validation_fraction: float = 0.1
    patience: int | float | None = None
    average: float | None = None

    def __post_init__(self):
        for name, ok, rule in [
            ("num_steps", self.num_steps >= 1, "at least 1"),
            ("learning_rate", self.learning_rate > 0, "positive"),
            ("weight_decay", self.weight_decay >= 0, "zero or positive"),
            ("clip_norm", self.clip_norm > 0, "positive"),
            ("validation_fraction", 0 <= self.validation_fraction < 1, "in [0, 1)"),
            ("patience", self.patience is None or self.patience > 0, "None or positive"),
            ("average", self.average is None or 0 < self.average < 1, "None or in (0, 1)"),
        ]:
            if not ok:
                raise ValueError(f"{name} must be {rule}, got {getattr(self, name)}")


class _Pace(NamedTuple):
    """The numbers of a `Training` that the compiled step sees: another value of one of them compiles nothing."""

    num_steps: Any
    learning_rate: Any
    weight_decay: Any
    clip_norm: Any
    average: Any = None

    def optimiser(self) -> optax.GradientTransformation:
        warmup = jnp.maximum(1.0, self.num_steps // 50)

        def schedule(step: Any) -> jax.Array:
            rising = 0.05 + 0.95 * step / warmup
            done = jnp.clip((step - warmup) / jnp.maximum(self.num_steps - warmup, 1.0), 0.0, 1.0)
            return self.learning_rate * jnp.where(step < warmup, rising, 0.5 * (1 + jnp.cos(jnp.pi * done)))

        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm), optax.adamw(schedule, weight_decay=self.weight_decay)
        )

    def averaged(self, mean: Any, params: Any, step: Any) -> Any:
        """The moving average after one more step; the first steps move it faster, so that it forgets the start."""
        if self.average is None:
            return None
        kept = jnp.minimum(self.average, (1 + step) / (10 + step))
        return jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, mean, params)


class _State(NamedTuple):
    """All that changes from epoch to epoch; what a checkpoint holds."""

    params: Any
    opt_state: Any
    mean: Any  # of the parameters, or None
    best_params: Any
    best_loss: Any
    best_epoch: Any
    epoch: Any


class _Batches(NamedTuple):
    """Which rows of every record make each batch `(B, rows)`, and which of the B batches count `(B,)`.

    B is a bucket, and so are the numbers of rows of small or further records: other sizes compile nothing.
    """

    rows: tuple[np.ndarray, ...]
    counts: np.ndarray

    @staticmethod
    def of(rng: np.random.Generator | None, parts: Sequence[np.ndarray], batch_size: int) -> "_Batches":
        """From the row numbers of every record, shuffled anew where there is a generator."""
        size = _at_most(min(batch_size, len(parts[0])))
        count = len(parts[0]) // size
        rows = []
        for index, part in enumerate(parts):
            own = size if index == 0 else bucket(-(-len(part) // count))
            order = [part if rng is None else rng.permutation(part) for _ in range(-(-own * count // len(part)))]
            rows.append(filled(np.concatenate(order)[: own * count].reshape(count, own), bucket(count)))
        return _Batches(tuple(rows), np.arange(bucket(count)) < count)

    @property
    def number(self) -> int:
        return int(self.counts.sum())


def _at_most(count: int) -> int:
    """The largest bucket that is not above the count."""
    return count if bucket(count) == count else next(size for size in range(count, 0, -1) if bucket(size) == size)


def of_training(name: str, value: Any, given: Mapping[str, Any]) -> str | None:
    """Where to write an option of `Training`, or what looks much like one."""
    close = difflib.get_close_matches(name, [field.name for field in dataclasses.fields(Training)], n=1, cutoff=0.85)
    return f"give it to the training: training=qx.Training({close[0]}={value!r})" if close else None


@options_checked(of_training)
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
        step each gives rows in proportion to its length, the further ones up to half as many again.
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
    parts = (sims,) if isinstance(sims, Simulations) else tuple(sims)
    loss.check(net, sims if isinstance(sims, Simulations) else parts)
    shuffle_key, step_key, validation_key = jax.random.split(key, 3)
    seed = np.asarray(jax.random.key_data(shuffle_key)).tolist()
    train_rows, held_rows = _split(np.random.default_rng(seed), [len(part) for part in parts], training)
    batches = _Batches.of(None, train_rows, loss.batch_size)
    held = None if held_rows is None else _Batches.of(None, held_rows, loss.batch_size)
    num_epochs = -(-training.num_steps // batches.number)
    patience = np.inf if training.patience is None else training.patience
    patience = patience if patience >= 1 else max(1, round(patience * num_epochs))
    data = tuple(_padded(part) for part in parts)
    numbers = (training.num_steps, training.learning_rate, training.weight_decay, training.clip_norm, training.average)
    pace = _Pace(*(None if number is None else np.float32(number) for number in numbers))
    params: Any
    params, static = partition(net)
    mean = None if training.average is None else params
    state = _State(params, _start(pace, params), mean, params, np.float32(np.inf), np.int32(-1), np.int32(0))
    losses = np.full((2, num_epochs), np.nan)
    saver = None
    if checkpoint is not None:
        saver = checkpoints.Saver(checkpoint, checkpoints.fingerprint(key, state, loss, training, parts))
        if resume:
            state, losses = saver.load((state, losses))
            losses = np.array(losses)

    whole = isinstance(sims, Simulations)
    reporter = progress or NoProgress()
    status = Status.SUCCESS
    reporter.start("train", num_epochs)
    try:
        reporter.advance(int(state.epoch))
        while (epoch := int(state.epoch)) < num_epochs:
            shuffled = _Batches.of(np.random.default_rng([*seed, epoch]), train_rows, loss.batch_size)
            state, *found = _epoch(static, loss, pace, whole, data, shuffled, held, state, step_key, validation_key)
            losses[:, epoch] = found
            value, shown = losses[:, epoch]
            if not np.isfinite(value):
                status = Status.DIVERGED
                break
            if saver is not None:
                saver.save_if_due((state, losses))
            reporter.advance(1, f"loss {shown if np.isfinite(shown) else value:.3f}")
            if epoch - int(state.best_epoch) >= patience:
                status = Status.STOPPED_EARLY
                break
    except KeyboardInterrupt as interrupt:
        if saver is not None:
            saver.save((state, losses))
            interrupt.add_note(f"the checkpoint is kept in {checkpoint}; call fit with resume=True to go on")
        raise
    finally:
        reporter.finish()
    return _solution(state, losses, static, status, batches.number, throw)


def _padded(part: Simulations) -> Simulations:
    """The record filled up to a bucket of rows, without what no loss looks at and would make each a type of its own."""
    bare = jax.tree.map(np.asarray, dataclasses.replace(part, failures=(), reference=None))
    return jax.tree.map(jnp.asarray, bare[np.arange(bucket(len(part))) % len(part)])


def _solution(
    state: _State, losses: np.ndarray, static: Any, status: Status, num_batches: int, throw: bool
) -> Solution:
    done = int(state.epoch)
    solution = Solution(
        eqx.combine(state.best_params, static),
        status,
        {"num_epochs": done, "num_steps": done * num_batches, "best_epoch": int(state.best_epoch)},
        {"train_loss": losses[0, :done].tolist(), "validation_loss": losses[1, :done].tolist()},
    )
    if throw and status is Status.DIVERGED:
        raise InferenceError(
            solution,
            f"It happened in epoch {done}; the parameters before it are kept in the solution. "
            "Lower the learning rate or clip_norm, and look for extreme values in the simulations.",
        )
    return solution


def partition(net: Net) -> tuple[Net, Net]:
    """`(trainable, rest)`: the float arrays outside any `AbstractFrozen`, and everything else."""

    def trainable(node: Any) -> Any:
        if isinstance(node, AbstractFrozen):
            return jax.tree.map(lambda _: False, node)
        return eqx.is_inexact_array(node)

    return eqx.partition(net, jax.tree.map(trainable, net, is_leaf=lambda node: isinstance(node, AbstractFrozen)))


@eqx.filter_jit
def _start(pace: _Pace, params: Any) -> Any:
    return pace.optimiser().init(params)


@eqx.filter_jit
def _epoch(
    static: Any, loss: AbstractLoss, pace: _Pace, whole: bool, data: tuple[Simulations, ...], batches: _Batches,
    held: _Batches | None, state: _State, step_key: Key, validation_key: Key,
) -> tuple[_State, jax.Array, jax.Array]:  # fmt: skip
    """One pass over the training rows, then the validation loss, and the best parameters so far."""
    optimiser = pace.optimiser()

    def objective(params: Any, rows: tuple[jax.Array, ...], key: Key) -> jax.Array:
        taken = tuple(part[index] for part, index in zip(data, rows, strict=True))
        return loss(eqx.combine(params, static), taken[0] if whole else taken, key)

    def step(carry: tuple[Any, Any, Any], inputs: Any) -> tuple[tuple[Any, Any, Any], jax.Array]:
        rows, counts, key, number = inputs

        def move(carry: tuple[Any, Any, Any]) -> tuple[tuple[Any, Any, Any], jax.Array]:
            params, opt_state, mean = carry
            value, gradient = jax.value_and_grad(objective)(params, rows, key)
            updates, opt_state = optimiser.update(gradient, opt_state, params)
            params = optax.apply_updates(params, updates)
            return (params, opt_state, pace.averaged(mean, params, number)), value

        return jax.lax.cond(counts, move, lambda carry: (carry, jnp.zeros(())), carry)

    keys = jax.random.split(jax.random.fold_in(step_key, state.epoch), len(batches.counts))
    numbers = state.epoch * jnp.sum(batches.counts) + jnp.arange(len(batches.counts))
    (params, opt_state, mean), values = jax.lax.scan(
        step, (state.params, state.opt_state, state.mean), (batches.rows, batches.counts, keys, numbers)
    )
    train_loss, found = jnp.sum(values) / jnp.sum(batches.counts), params if mean is None else mean
    if held is None:
        validation_loss, better = jnp.array(jnp.nan), jnp.isfinite(train_loss)
    else:
        validation_loss = _validate(objective, found, held, validation_key)
        better = validation_loss < state.best_loss
    keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)
    after = _State(
        params, opt_state, mean, keep(found, state.best_params), keep(validation_loss, state.best_loss),
        keep(state.epoch, state.best_epoch), state.epoch + 1,
    )  # fmt: skip
    return after, train_loss, validation_loss


def _validate(objective: Callable[..., jax.Array], params: Any, held: _Batches, key: Key) -> jax.Array:
    """Mean loss over the held-out rows, always in the same batches and with the same keys."""
    zero = lambda rows, key: jnp.zeros(())
    one = lambda inputs: jax.lax.cond(inputs[1], lambda r, k: objective(params, r, k), zero, inputs[0], inputs[2])
    values = jax.lax.map(one, (held.rows, held.counts, jax.random.split(key, len(held.counts))))
    return jnp.sum(values) / jnp.sum(held.counts)


def _split(
    rng: np.random.Generator, lengths: Sequence[int], training: Training
) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """Training and validation rows; every record gives the same share, and at least one row to each."""
    train, held = [], []
    for length in lengths:
        order = rng.permutation(length)
        count = max(1, round(training.validation_fraction * length)) if training.validation_fraction else 0
        if length <= count:
            raise ValueError(f"{length} simulations are too few to split; simulate more, or set validation_fraction=0")
        held.append(order[:count])
        train.append(order[count:])
    return train, held if training.validation_fraction else None
