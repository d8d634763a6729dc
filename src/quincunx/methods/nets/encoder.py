"""What an encoder is to be made like: what is seen of one observation, by its shape or as the user says."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core.solution import Key
from .lens import AbstractLens, Components, Picture, Spectra, Warp, kind_of


class AbstractEncoder(eqx.Module):
    """What is seen of one observation: fixed numbers through a lens, and what a network learns to see."""

    @abc.abstractmethod
    def in_words(self) -> str:
        """For people."""

    @abc.abstractmethod
    def lens(self, x: np.ndarray) -> AbstractLens:
        """Scaled to observations x `(n, *event)`."""

    @abc.abstractmethod
    def front(self, key: Key, x: np.ndarray) -> eqx.Module | None:
        """A network of one observation `(*event)`, with features `(k,)`, beside those of the lens."""


class VectorEncoder(AbstractEncoder):
    """For numbers, and for vectors of any length.

    Up to 32 components have second moments (each one's regression on the others; above 8, correlations) and learnt
    directions, along which the extremes of a set are looked at.
    """

    def in_words(self) -> str:
        return "numbers: warped means, second moments, extremes along learnt directions"

    def lens(self, x: np.ndarray) -> AbstractLens:
        return Components()

    def front(self, key: Key, x: np.ndarray) -> eqx.Module | None:
        return None


class SequenceEncoder(AbstractEncoder):
    """For sequences `(l,)` or `(l, channels)`: log spectra, see `Spectra`. A network sees those, not the sequence."""

    def in_words(self) -> str:
        return "a sequence: log spectra of its sine transform and its periodogram, mean, log spread"

    def lens(self, x: np.ndarray) -> AbstractLens:
        return Spectra.of(x)

    def front(self, key: Key, x: np.ndarray) -> eqx.Module | None:
        return None


class ImageEncoder(AbstractEncoder):
    """For images `(height, width)` or `(height, width, channels)`: a coarse picture, and a convolutional network.

    Fields
    ------
    channels: of the convolutions, 3 x 3 with a stride of 2; their last map is averaged, and its maximum taken.
    """

    channels: tuple[int, ...] = eqx.field(static=True, default=(8, 16))

    def __check_init__(self):
        if min(self.channels, default=0) < 1:
            raise ValueError(f"channels must be a tuple of positive numbers, got {self.channels}")

    def in_words(self) -> str:
        return "an image: coarse means, quantiles of the pixels, radial log spectrum, a convolutional network"

    def lens(self, x: np.ndarray) -> AbstractLens:
        return Picture.of(x)

    def front(self, key: Key, x: np.ndarray) -> eqx.Module | None:
        return Convolutions.make(key, x, self.channels)


class OwnEncoder(AbstractEncoder):
    """A network of the user's own, which is trained with the machine.

    Fields
    ------
    module: an Equinox module that takes one observation `(*event)` and returns features `(k,)`. Beside it stands the
        lens for the event's shape.
    """

    module: Any

    def __check_init__(self):
        if not isinstance(self.module, eqx.Module) or not callable(self.module):
            raise TypeError(
                "encoder: expected an Equinox module that is called with one observation, such as eqx.nn.MLP(...), "
                f"got {type(self.module).__name__}"
            )

    def in_words(self) -> str:
        return f"through a network of your own, {type(self.module).__name__}, and fixed statistics beside it"

    def lens(self, x: np.ndarray) -> AbstractLens:
        return encoder_for(x.shape[1:]).lens(x)

    def front(self, key: Key, x: np.ndarray) -> eqx.Module | None:
        event = jax.ShapeDtypeStruct(x.shape[1:], jnp.float32)
        try:
            made = eqx.filter_eval_shape(self.module, event)
        except Exception as error:
            raise ValueError(
                f"the encoder {type(self.module).__name__} cannot take an observation of shape {event.shape}: {error}"
            ) from error
        if not isinstance(made, jax.ShapeDtypeStruct) or made.ndim != 1 or not jnp.issubdtype(made.dtype, jnp.floating):
            raise ValueError(
                f"the encoder {type(self.module).__name__} must return a vector of real features for one observation "
                f"of shape {event.shape}, got {made}"
            )
        return self.module


def encoder_for(event: tuple[int, ...]) -> AbstractEncoder:
    """The default for observations of that shape."""
    return {"vector": VectorEncoder, "sequence": SequenceEncoder, "image": ImageEncoder}[kind_of(event)]()


def as_encoder(given: Any, event: tuple[int, ...]) -> AbstractEncoder:
    """What a user gave as an encoder: one of ours, a module of their own, or nothing."""
    if given is None:
        return encoder_for(event)
    return given if isinstance(given, AbstractEncoder) else OwnEncoder(given)


class Convolutions(eqx.Module):
    """A small convolutional network of one image, scaled by its overall mean and spread."""

    layers: tuple[eqx.nn.Conv2d, ...]
    scaling: Warp

    @staticmethod
    def make(key: Key, x: np.ndarray, channels: tuple[int, ...]) -> "Convolutions":
        """For images like x `(n, height, width)` or `(n, height, width, channels)`."""
        if x.ndim not in (3, 4):
            raise ValueError(f"an image has 2 axes, or 3 with channels; observations have shape {x.shape[1:]}")
        sizes = (x.shape[3] if x.ndim == 4 else 1, *channels)
        keys = jax.random.split(key, len(channels))
        layers = [
            eqx.nn.Conv2d(i, o, 3, stride=2, padding=1, key=k)
            for i, o, k in zip(sizes[:-1], sizes[1:], keys, strict=True)
        ]
        return Convolutions(tuple(layers), Warp.of(x.reshape(-1, 1)[:: max(1, x.size // 100_000)], 1))

    def __call__(self, x: jax.Array) -> jax.Array:
        h = jnp.moveaxis(self.scaling(x.reshape(*x.shape[:2], -1, 1)), 2, 0).reshape(-1, *x.shape[:2])
        for layer in self.layers:
            h = jax.nn.silu(layer(h))
        return jnp.concatenate([jnp.mean(h, axis=(1, 2)), jnp.max(h, axis=(1, 2))])
