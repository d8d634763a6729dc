"""What is seen of one observation before anything is learnt: its components, its spectrum, or a coarse picture."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...core.loss import AbstractFrozen
from ...core.solution import Array

TAPERED = 0.3  # of a sequence, both ends together
COARSE = 6  # cells of an image, along an axis
NUM_BANDS = 12  # of a radial spectrum
SMALLEST = 1e-6  # power, in units of the variance
MOST_COMPONENTS = 32  # of a vector; a longer one is taken for a sequence


def kind_of(event: tuple[int, ...]) -> str:
    """What an observation of that shape is taken for: "vector" (or a number), "sequence" or "image"."""
    if len(event) >= 2:
        return "image"
    return "sequence" if int(np.prod(event, dtype=int)) > MOST_COMPONENTS else "vector"


class Warp(AbstractFrozen):
    """Robust features of numbers of any scale: `(..., d)` -> `(..., 4 d)`, or `(..., d)` with one magnification.

    Each component is seen at three magnifications, `arcsinh((x - centre) / scale)` with the centre and
    the local scale at the 5th, 50th and 95th percentile. The functions are near-linear around their centre and
    logarithmic far from it: counts from one to thousands keep their resolution at both ends, and heavy tails do
    no harm. The fourth is the component itself, clipped. All are standardised. With one magnification there is the
    one at the 50th percentile alone.
    """

    centre: jax.Array
    scale: jax.Array
    mean: jax.Array
    std: jax.Array

    @staticmethod
    def of(x: Array, magnifications: int = 3) -> "Warp":
        """Statistics of x `(n, d)`."""
        x = np.asarray(x, dtype=np.float64)
        q05, q25, q50, q75, q95 = np.quantile(x, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
        std = np.std(x, axis=0)
        std = np.where(std > 0, std, 1.0)
        places, gaps = [q05, q50, q95], [(q25 - q05) / 2, (q75 - q25) / 2, (q95 - q75) / 2]
        used = slice(None) if magnifications == 3 else slice(1, 2)
        centre, scale = np.stack(places[used]), np.stack([np.where(gap > 0, gap, std) for gap in gaps[used]])
        features = _magnify(x, centre, scale, np)
        spread = np.std(features, axis=0)
        arrays = centre, scale, np.mean(features, axis=0), np.where(spread > 0, spread, 1.0)
        return Warp(*(jnp.asarray(a, jnp.float32) for a in arrays))

    @property
    def num_features(self) -> int:
        return self.mean.size

    def undone(self, features: jax.Array) -> jax.Array:
        """The numbers `(..., d)` of these features `(..., d)`, where there is one magnification."""
        return self.centre[0] + self.scale[0] * jnp.sinh(features * self.std[0] + self.mean[0])

    def linear(self, x: jax.Array) -> jax.Array:
        """x in units of half its interquartile range, from the median: `(..., d)` -> `(..., d)`."""
        middle = len(self.centre) // 2
        return (x - self.centre[middle]) / self.scale[middle]

    def __call__(self, x: jax.Array) -> jax.Array:
        features = (_magnify(x, self.centre, self.scale, jnp) - self.mean) / self.std
        return features.reshape(x.shape[:-1] + (-1,))


def _magnify(x, centre, scale, xp):
    """The features `(..., k, d)` of x `(..., d)`, before standardisation."""
    z = (x[..., None, :] - centre) / scale
    far = xp.minimum(xp.abs(z), 1e15)  # whose square is finite
    # arcsinh, to 1e-7: in JAX four times as fast as its own, which was a sixth of a training step
    bent = xp.copysign(xp.log(far + xp.sqrt(far * far + 1)), z)
    if len(centre) == 1:
        return bent
    return xp.concatenate([bent, xp.clip(z[..., 1:2, :], -4.0, 4.0)], axis=-2)


class AbstractLens(AbstractFrozen):
    """One observation `(*event)` as numbers `(d,)`."""

    @abc.abstractmethod
    def __call__(self, x: jax.Array) -> jax.Array: ...


class Components(AbstractLens):
    """The numbers themselves."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x.reshape(-1)


class Spectra(AbstractLens):
    """Log powers of a sequence `(l,)` or `(l, channels)`: of its sine transform and its tapered periodogram.

    What hangs on the lag between two moments, and not on the moments, is in the spectrum. Mean and log spread come
    with it.
    """

    floor: jax.Array

    @staticmethod
    def of(x: Array) -> "Spectra":
        """For sequences like x `(..., l)`."""
        return Spectra(jnp.asarray(SMALLEST * np.var(x) + 1e-30, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(len(x), -1).T
        waves, power = sine_power(x, jnp), periodogram(x, jnp)
        spread = jnp.log(jnp.std(x, axis=-1) + jnp.sqrt(self.floor))
        logs = [jnp.log(waves + self.floor), jnp.log(power + self.floor)]
        return jnp.concatenate([*(each.reshape(-1) for each in logs), jnp.mean(x, axis=-1), spread])


class Picture(AbstractLens):
    """An image `(height, width)` or `(height, width, channels)` seen coarsely.

    Means over a grid of at most 6 x 6 cells, quantiles of the pixels, their log spread, the radial log spectrum.
    """

    floor: jax.Array

    @staticmethod
    def of(x: Array) -> "Picture":
        """For images like x `(..., height, width)`."""
        return Picture(jnp.asarray(SMALLEST * np.var(x) + 1e-30, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(*x.shape[:2], -1)
        quantiles = jnp.quantile(x.reshape(-1), jnp.asarray([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]))
        spectrum = jnp.log(radial_power(x, jnp) + self.floor)
        spread = jnp.log(jnp.std(x) + jnp.sqrt(self.floor))[None]
        return jnp.concatenate([coarse(x, jnp).reshape(-1), quantiles, spectrum.reshape(-1), spread])


# -- transforms, of JAX arrays or of NumPy's ---------------------------------------------------------


def sine_power(x: Any, xp: Any) -> Any:
    """Squares of the sine transform of x `(..., l)`, `(..., l)`."""
    length = x.shape[-1]
    places = np.arange(1, length + 1)
    sine = np.sqrt(2 / (length + 1)) * np.sin(np.pi * np.outer(places, places) / (length + 1))
    return (x @ xp.asarray(sine, x.dtype)) ** 2


def periodogram(x: Any, xp: Any) -> Any:
    """Power of x `(..., l)` about its mean, 30 % of it tapered, at all frequencies but 0, `(..., l // 2)`."""
    length = x.shape[-1]
    ramp = max(1, int(TAPERED / 2 * length))
    rise = 0.5 * (1 - np.cos(np.pi * (np.arange(ramp) + 0.5) / ramp))
    taper = np.concatenate([rise, np.ones(length - 2 * ramp), rise[::-1]])
    tapered = (x - x.mean(axis=-1, keepdims=True)) * xp.asarray(taper / np.sqrt(np.mean(taper**2)), x.dtype)
    return xp.abs(xp.fft.rfft(tapered, axis=-1)[..., 1:]) ** 2 / length


def coarse(x: Any, xp: Any) -> Any:
    """Means of x `(..., height, width, channels)` over a grid of cells, `(..., cells, channels)`."""
    rows, columns = (np.array_split(np.arange(size), min(size, COARSE)) for size in x.shape[-3:-1])
    cells = [x[..., r[0] : r[-1] + 1, c[0] : c[-1] + 1, :].mean(axis=(-3, -2)) for r in rows for c in columns]
    return xp.stack(cells, axis=-2)


def radial_power(x: Any, xp: Any) -> Any:
    """Mean power of x `(..., height, width, channels)` in bands of frequency, `(..., bands, channels)`."""
    height, width = x.shape[-3:-1]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    edges = np.linspace(0, 0.5, min(NUM_BANDS, max(2, min(height, width) // 2)) + 1)
    number = np.digitize(frequency, edges) - 1
    bands = [found for k in range(len(edges) - 1) if (found := (number == k) & (frequency > 0)).any()]
    power = xp.abs(xp.fft.rfft2(x, axes=(-3, -2))) ** 2 / (height * width)
    return xp.stack([power[..., *np.nonzero(band), :].mean(axis=-2) for band in bands], axis=-2)
