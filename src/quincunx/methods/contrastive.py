"""NRE-B and NRE-C: the ratio learnt by telling the theta that x was drawn at from several others.

With theta_1 the one that x was drawn at, and the others those of other rows:

| method | value part                                                                        | optimum           |
|--------|-----------------------------------------------------------------------------------|-------------------|
| NRE-B  | - log exp f_1 / (exp f_1 + ... + exp f_K)                                         | log r(theta) + c  |
| NRE-C  | - g/(1+g) log g exp f_1 / (K + g exp f_1 + ... + g exp f_K)                       | log r(theta)      |
|        | - 1/(1+g) log K / (K + g exp f_1' + ... + g exp f_K'), none of these drawn with x |                   |

g is `gamma`, the odds that one of the K was drawn with x. K = 1 and gamma = 1 is NRE; NRE-B is what is left of NRE-C
where gamma is infinite. It knows the ratio up to a factor c that depends on x alone: a posterior and a region do not
need it, the evidence does. (Durkan, Murray and Papamakarios 2020, arXiv:2002.03712; Miller, Weniger and Forre 2022,
arXiv:2210.06170, equations 4 to 11.)
"""

from typing import ClassVar, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp

from ..core.simulations import Simulations
from ..core.solution import Key
from .method import Card
from .ratio import AbstractPairing, AbstractPart, RatioMethod, RatioOptions, View


class Drawn(AbstractPairing):
    """Every x beside the theta that it was drawn at; the part makes the others."""

    makes: ClassVar[tuple[str, ...]] = ("label",)

    def __call__(self, key: Key, batch: Simulations) -> Simulations:
        return Simulations(batch.drawn_from, batch.x, batch.simulator)


class OneOfMany(AbstractPart):
    """Which of K thetas was x drawn at? The part of NRE-B."""

    num_classes: int = eqx.field(static=True, default=10)
    needs: ClassVar[tuple[str, ...]] = ()

    def __check_init__(self):
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, the true theta and another, got {self.num_classes}")

    def __call__(self, view: View) -> jax.Array:
        others = _with_other_thetas(view, self.num_classes - 1)
        everyone = jnp.concatenate([view.log_ratio[None], others])
        return jnp.mean(jax.scipy.special.logsumexp(everyone, axis=0) - view.log_ratio)


class OneOfManyOrNone(AbstractPart):
    """Which of K thetas was x drawn at, if any? The part of NRE-C."""

    num_classes: int = eqx.field(static=True, default=5)
    gamma: float = eqx.field(static=True, default=1.0)
    needs: ClassVar[tuple[str, ...]] = ()

    def __check_init__(self):
        if self.num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {self.num_classes}")
        if not 0 < self.gamma < float("inf"):
            raise ValueError(f"gamma must be positive and finite, got {self.gamma}; without end it is qx.NREB()")

    def __call__(self, view: View) -> jax.Array:
        shift, others = jnp.log(self.gamma / self.num_classes), _with_other_thetas(view, self.num_classes)
        any_of = lambda group: jax.nn.softplus(jax.scipy.special.logsumexp(group, axis=0) + shift)
        drawn = any_of(jnp.concatenate([view.log_ratio[None], others[:-1]])) - view.log_ratio - shift
        return jnp.mean(self.gamma * drawn + any_of(others)) / (1 + self.gamma)


def _with_other_thetas(view: View, count: int) -> jax.Array:
    """Log-ratios `(count, K, n)` of every x beside the thetas of so many other rows; rows come in random order."""
    theta, x, n = view.batch.theta, view.batch.x[:, 0], len(view.batch)
    theta = jnp.concatenate([jnp.roll(theta, 1 + turn % max(n - 1, 1), axis=0) for turn in range(count)])
    found = view.net.contrast(theta, theta, jnp.tile(x, (count, *[1] * (x.ndim - 1))))
    return found.reshape(len(found), count, n).swapaxes(0, 1)


def NREB(*, num_classes: int = 10, **options: Unpack[RatioOptions]) -> RatioMethod:
    """NRE-B: the true theta among several, for a ratio up to a factor that depends on x. Needs no gold."""
    card = Card("nre-b", "Durkan et al. 2020, arXiv:2002.03712")
    return RatioMethod(card, (OneOfMany(num_classes),), Drawn(), free=True, **options)


def NREC(*, num_classes: int = 5, gamma: float = 1.0, **options: Unpack[RatioOptions]) -> RatioMethod:
    """NRE-C: the true theta among several, or among none of them. Needs no gold."""
    card = Card("nre-c", "Miller et al. 2022, arXiv:2210.06170")
    return RatioMethod(card, (OneOfManyOrNone(num_classes, gamma),), Drawn(), **options)
