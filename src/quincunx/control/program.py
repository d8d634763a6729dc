"""NumPyro models as they stand: simulators with gold.

A run of the model is a path z, the values of its `numpyro.sample` sites. Replayed at another theta with the same
values, the model gives the joint log-probability there: a sum over its sites. So a model needs no further line
to be mined (Brehmer et al. 2018, arXiv:1805.12244, section II; Baydin et al. 2019, arXiv:1907.03382, for replay).

What has no joint density that gold can be mined from is refused when the program is made, after runs at draws from
the prior: see `program`. A model that branches in Python on a value it drew cannot be traced by JAX. It runs row
by row on the host, more slowly, and different rows may have different sites.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..core.prior import Prior
from ..core.simulator import check_prior
from ..core.solution import Array, Failure, Key
from ..gold.mined import AbstractMinedSimulator, Gold, NamedTheta, Path, mine_rows
from ..sample.black_box import draw_rows, name_of, shape_of
from .audit import check_program
from .host import draw_on_host, mine_on_host, needs_host, shape_on_host
from .parameters import check_arguments, prior_of_sites
from .trace import Model, Runner


class Program(AbstractMinedSimulator):
    """A NumPyro model as a simulator with gold. Made by `program`; calling it calls the model.

    Fields
    ------
    model: the user's function.
    source: where the model comes from (a paper, an equation), for lists and reports.
    observable: sites that make the observation; none where it is what the model returns.
    parameters: sites that are the parameters; none where the parameters are arguments.
    host: whether the model branches in Python on what it drew, and so runs row by row on the host.

    Raises
    ------
    ValueError: see `program`; the checks are made here.
    """

    model: Model = eqx.field(static=True)
    prior: Prior = eqx.field(static=True)
    name: str = eqx.field(static=True)
    source: str = eqx.field(static=True, default="")
    rate: Callable[[NamedTheta], jax.Array] | None = eqx.field(static=True, default=None)
    observable: tuple[str, ...] = eqx.field(static=True, default=())
    parameters: tuple[str, ...] = eqx.field(static=True, default=())
    host: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_program(self._runner, self.host)

    def __call__(self, *args, **kwargs) -> Any:
        return self.model(*args, **kwargs)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one observation; of a host program, that of its first run that does not fail."""
        return shape_on_host(self._runner) if self.host else shape_of(self.sample, self.prior)

    @property
    def compiled(self) -> bool:
        return not self.host

    def sample(self, key: Key, theta: jax.Array) -> jax.Array:
        """One observation `(*event)`, as float32, at theta `(dim,)`."""
        return self.path(key, theta)[0]

    def path(self, key: Key, theta: jax.Array) -> Path:
        """One observation `(*event)`, as float32, and the values of all sites but parameters, at theta `(dim,)`."""
        return self._runner.path(key, theta)

    def log_prob(self, theta: jax.Array, x: jax.Array, z: Mapping[str, jax.Array]) -> jax.Array:
        """log p(x, z | theta) `()` at theta `(dim,)`, by replaying the path z.

        It is NaN where the replayed observation is not x: then p(x | z, theta) is a delta function.

        Raises
        ------
        ValueError: the replay has other sites than the path.
        """
        return self._runner.log_prob(self.prior.unpack(theta), x, z)

    def draw(self, key: Key, theta: Array, num_observations: int) -> tuple[np.ndarray, tuple[Failure, ...]]:
        if self.host:
            return draw_on_host(self._runner, key, np.asarray(theta, np.float32), num_observations)
        return draw_rows(self.sample, self.prior, key, theta, num_observations)

    def mine(self, key: Key, theta: Array, alternatives: Array) -> Gold:
        if self.host:
            return mine_on_host(self._runner, key, *(np.asarray(each, np.float32) for each in (theta, alternatives)))
        return mine_rows(self.path, self.log_prob, self.prior, key, theta, alternatives)

    @property
    def _runner(self) -> Runner:
        return Runner(self.model, self.prior, self.name, self.observable, self.parameters)


def program(
    prior: Prior | None = None,
    *,
    parameters: Sequence[str] | str | None = None,
    observable: Sequence[str] | str | None = None,
    name: str | None = None,
    source: str = "",
    rate: Callable[[NamedTheta], jax.Array] | None = None,
) -> Callable[[Model], Program]:
    """Decorator that makes a `Program` of a NumPyro model. The parameters are arguments of the model, or sites.

    With a prior, the model's arguments are the prior's names. Without, the parameters are sites, and their
    distributions are the prior. Sites may be continuous or discrete, scalar or vector, in plates or masked. What a
    mask leaves out must have no effect on the rest of the run.

    Parameters
    ----------
    prior: of the arguments.
    parameters: the names of the sites that are parameters. May be left out if only one site is free to be one:
        continuous, not the observable, and with a distribution that no other site changes.
    observable: the site, sampled or deterministic, that is the observation; or several, whose values are flattened
        and concatenated; or None for what the model returns.
    name: how the program is called in files and messages; the model's name if not given.
    source, rate: see the fields of `Program`.

    Raises
    ------
    TypeError: prior is not a Prior, or what is decorated is not a function.
    ValueError: arguments and prior do not agree; a parameter's distribution depends on another site; a name is not
        that of a site; or the model has no gold to give:

        - a site's support depends on theta, so that the score of a value near its edge does not exist;
        - the observable moves with theta while all sites stand still, or a `Delta` does;
        - a site is observed, scaled or subsampled, or there are `param`, `factor`, `mutable` or `prng_key`
          statements: the draws would not follow the density;
        - two runs with the same key differ;
        - a branch in Python depends on theta itself;
        - the score of a parameter is always 0.

    Examples
    --------
    >>> import numpyro, numpyro.distributions as dist
    >>> @program(Prior(mean=dist.Normal(0, 1)), observable="x")
    ... def smeared(mean):
    ...     z = numpyro.sample("z", dist.Normal(mean, 1.0))
    ...     numpyro.sample("x", dist.Normal(z, 0.5))
    >>> smeared.event_shape, smeared.host
    ((), False)
    """
    if prior is not None:
        check_prior(prior)
    if prior is not None and parameters is not None:
        raise ValueError(
            "give a prior, of the model's arguments, or the names of sites that are parameters: one of the two"
        )

    def wrap(model: Model) -> Program:
        if not callable(model):
            raise TypeError(f"expected a NumPyro model, a function, got {type(model).__name__}")
        check_arguments(model, prior)
        found = prior if prior is not None else prior_of_sites(model, _names(parameters), _names(observable))
        what = {
            "model": model,
            "prior": found,
            "name": name_of(model, name),
            "observable": _names(observable),
            "parameters": found.names if prior is None else (),
        }
        return Program(**what, source=source, rate=rate, host=needs_host(Runner(**what)))

    return wrap


def _names(names: Sequence[str] | str | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())
