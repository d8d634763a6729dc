"""Values as JSON and arrays, and back. Only classes of this library can be read, and of them no simulator."""

import dataclasses
import enum
import functools
import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import truncated

from ..core.prior import Prior
from ..core.simulator import AbstractSimulator, NamedSimulator
from ..core.solution import Array
from ..problems import BUILT_IN

# What can be saved is what training makes: the classes of these rooms, and of what they are made from.
ROOMS = ("quincunx.core", "quincunx.gold", "quincunx.answers", "quincunx.methods", "quincunx.checks")
LAYERS = (eqx.nn.Linear, eqx.nn.GRUCell, eqx.nn.Conv2d)

# Constructor arguments of distributions whose attributes are more than they take.
_ARGUMENTS = {"MultivariateNormal": ("loc", "scale_tril")}

NUM_PROBES = 64  # draws by which a prior with functions is known again

ATTACH = "qx.load(folder, simulator=...), or on the command line --simulator path/to/file.py:name"
NOT_FOUND = f"simulators are not saved with what was trained for them; attach it: {ATTACH}"


@functools.cache
def _registry() -> dict[str, type]:
    """Name -> class: every record, enumeration and module of `ROOMS`, but simulators, which may start programs."""
    importlib.import_module("quincunx.methods")
    importlib.import_module("quincunx.answers.answer")
    importlib.import_module("quincunx.answers.censored")
    importlib.import_module("quincunx.answers.bayes.reweighted")
    importlib.import_module("quincunx.checks.calibration")
    classes: dict[str, type] = {layer.__name__: layer for layer in LAYERS}
    for module in [module for name, module in sorted(sys.modules.items()) if name.startswith(ROOMS)]:
        for name, found in list(vars(module).items()):
            ours = inspect.isclass(found) and found.__module__ == module.__name__
            record = ours and (dataclasses.is_dataclass(found) or issubclass(found, enum.Enum))
            if record and not issubclass(found, AbstractSimulator) and not inspect.isabstract(found):
                classes[name] = found
    return classes


@dataclasses.dataclass(frozen=True)
class Writer:
    """Turns values into JSON and collects their arrays."""

    arrays: dict[str, np.ndarray]

    def encode(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, str)) or type(value) is int:
            return value
        if type(value) is float:
            return value if np.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, (jax.Array, np.ndarray, np.generic)):
            return self._array(value)
        if isinstance(value, enum.Enum):
            return {"$enum": type(value).__name__, "member": value.name}
        if isinstance(value, (list, tuple)):
            items = [self.encode(item) for item in value]
            return {"$tuple": items} if isinstance(value, tuple) else items
        if isinstance(value, Mapping):
            return {"$dict": {str(name): self.encode(item) for name, item in value.items()}}
        if isinstance(value, Prior):
            return self._prior(value)
        if isinstance(value, AbstractSimulator):
            return {"$simulator": value.name, "prior": self.encode(value.prior)}
        return self._object(value)

    def _prior(self, value: Prior) -> dict[str, Any]:
        """Functions are not saved; what they make of some draws is, by which the prior is known again."""
        laws = value.distributions.items()
        saved = {"$prior": {name: self._distribution(name, d) for name, d in laws if isinstance(d, dist.Distribution)}}
        if not value.conditional:
            return saved
        theta = value.sample(jax.random.key(0), NUM_PROBES)
        probes = {"theta": theta, "unconstrained": value.unconstrain(theta), "log_prob": value.log_prob(theta)}
        return {**saved, "text": repr(value), "names": list(value.names), "probes": self.encode(probes)}

    def _array(self, value: Any) -> dict[str, str]:
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            raise TypeError("random keys cannot be saved; save the seed")
        name, array = f"a{len(self.arrays)}", np.asarray(value)
        if array.dtype.kind not in "biufc":
            raise TypeError(f"an array of dtype {array.dtype} cannot be saved; arrays hold numbers or booleans")
        self.arrays[name] = array
        return {"$array": name, "kind": "jax" if isinstance(value, jax.Array) else "numpy"}

    def _object(self, value: Any) -> dict[str, Any]:
        name = type(value).__name__
        if _registry().get(name) is not type(value):
            raise TypeError(
                f"a {name} cannot be saved; estimators, posteriors, answers and their solutions can, but for those "
                "with networks of your own, which no folder can bring back"
            )
        fields = {f.name: self.encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"$class": name, "fields": fields}

    def _distribution(self, parameter: str, d: dist.Distribution) -> dict[str, Any]:
        name = type(d).__name__
        if _distributions().get(name) is not type(d):
            raise TypeError(f"prior of {parameter!r}: a {name} cannot be saved; only NumPyro's own distributions can")
        arguments = {}
        for argument in _ARGUMENTS.get(name, _constructor_arguments(type(d))):
            if argument not in dir(d):
                raise TypeError(f"prior of {parameter!r}: a {name} cannot be saved; it does not keep its {argument}")
            value = getattr(d, argument)
            is_distribution = isinstance(value, dist.Distribution)
            arguments[argument] = self._distribution(parameter, value) if is_distribution else self.encode(value)
        return {"$distribution": name, "arguments": arguments}


@dataclasses.dataclass(frozen=True)
class Reader:
    """Turns JSON back into values."""

    arrays: Mapping[str, np.ndarray]
    simulator: AbstractSimulator | None
    folder: str

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        kind = next(iter(value), "")
        decoders = {
            "$float": lambda v: float(v["$float"]),
            "$array": self._array,
            "$enum": self._enum,
            "$tuple": lambda v: tuple(self.decode(item) for item in v["$tuple"]),
            "$dict": lambda v: {name: self.decode(item) for name, item in v["$dict"].items()},
            "$prior": self._prior,
            "$simulator": self._simulator,
            "$class": self._object,
            "$distribution": self._distribution,
        }
        if kind not in decoders:
            raise ValueError(f"{self.folder}: unknown entry {kind!r} in the header")
        return decoders[kind](value)

    def _prior(self, value: dict[str, Any]) -> Prior:
        """That of a simulator that is here, if it is the same; then it has its functions."""
        laws = {name: self.decode(law) for name, law in value["$prior"].items()}
        here = [each.prior for each in (BUILT_IN.values() if self.simulator is None else [self.simulator])]
        found = [prior for prior in here if self._is(prior, laws, value)]
        if found:
            return found[0]
        if "probes" not in value:
            return Prior(**laws)
        if self.simulator is None:
            raise ValueError(
                f"{self.folder} has the prior {value['text']}; functions are not saved, so attach its simulator: "
                f"{ATTACH}"
            )
        raise ValueError(
            f"{self.folder} belongs to a simulator with {value['text']}, not to {self.simulator.name!r} with "
            f"{self.simulator.prior}; attach the one that it was made for, whose functions gave the same distributions"
        )

    def _is(self, prior: Prior, laws: dict[str, Any], value: dict[str, Any]) -> bool:
        """Whether this is the prior that was saved, but for what is derived from its parameters."""
        if "probes" not in value:
            return prior.same_law(Prior(**laws))
        fixed: Any = {name: law for name, law in prior.distributions.items() if isinstance(law, dist.Distribution)}
        alike = (Prior(**fixed) == Prior(**laws)) if fixed and laws else not fixed and not laws
        if list(prior.names) != value["names"] or not alike:
            return False
        theta, u, log_prob = (self.decode(value["probes"])[name] for name in ("theta", "unconstrained", "log_prob"))
        if prior.dim != theta.shape[1] or prior.unconstrained_dim != u.shape[1]:
            return False
        close = functools.partial(np.allclose, rtol=1e-3, atol=1e-3, equal_nan=True)  # other machines round otherwise
        return close(prior.unconstrain(theta), u) and close(prior.log_prob(theta), log_prob)

    def _enum(self, value: dict[str, str]) -> Any:
        members: Any = _registry()[value["$enum"]]
        return members[value["member"]]

    def _array(self, value: dict[str, str]) -> Array:
        array = self.arrays[value["$array"]]
        return jnp.asarray(array) if value["kind"] == "jax" else array

    def _distribution(self, value: dict[str, Any]) -> dist.Distribution:
        name = value["$distribution"]
        return _distributions()[name](**{argument: self.decode(item) for argument, item in value["arguments"].items()})

    def _object(self, value: dict[str, Any]) -> Any:
        name, fields = value["$class"], value["fields"]
        made: Any = _registry().get(name)
        if made is None or {f.name for f in dataclasses.fields(made)} != set(fields):
            raise ValueError(f"{self.folder}: its {name} was made by another version of the library; make it again")
        decoded = {field: self.decode(item) for field, item in fields.items()}
        if isinstance(decoded.get("simulator"), NamedSimulator) and "live" in decoded:
            decoded["live"] = False  # it cannot be run
        if made not in LAYERS:
            taken = inspect.signature(made).parameters  # some make a field of the others
            return made(**{field: item for field, item in decoded.items() if field in taken})
        layer = object.__new__(made)  # a layer's constructor would draw new weights
        for field, item in decoded.items():
            object.__setattr__(layer, field, item)
        return layer

    def _simulator(self, value: dict[str, Any]) -> AbstractSimulator:
        saved = NamedSimulator(value["$simulator"], self.decode(value["prior"]), NOT_FOUND)
        built_in = BUILT_IN.get(saved.name)
        if self.simulator is None:
            return built_in if built_in is not None and built_in.prior == saved.prior else saved
        if self.simulator.name != saved.name or self.simulator.prior != saved.prior:  # `_prior` finds the same one
            raise ValueError(
                f"{self.folder} belongs to the simulator {saved.name!r} with {saved.prior}, not to "
                f"{self.simulator.name!r} with {self.simulator.prior}; train an estimator for that one"
            )
        return self.simulator


@functools.cache
def _distributions() -> dict[str, Any]:
    """NumPyro's distributions by class name, and nothing else that stands in those modules."""
    known = {**vars(truncated), **vars(dist)}
    return {name: kind for name, kind in known.items() if inspect.isclass(kind) and issubclass(kind, dist.Distribution)}


def _constructor_arguments(kind: type) -> tuple[str, ...]:
    names = inspect.signature(kind.__init__).parameters
    return tuple(name for name in names if name not in ("self", "validate_args"))


def check_roundtrip(value: Any, body: Any, arrays: dict[str, np.ndarray]) -> None:
    """Raise `TypeError` for a prior that would come back as another one."""

    def check(value: Any, body: Any) -> None:
        if isinstance(value, Prior):
            try:
                same = Reader(arrays, NamedSimulator("", value, ""), "").decode(body) == value
            except Exception as error:
                raise TypeError(f"{value} cannot be saved: NumPyro cannot rebuild it ({error})") from error
            if not same:
                raise TypeError(f"{value} cannot be saved: rebuilt from its parameters it is another distribution")
        elif dataclasses.is_dataclass(value) and "$class" in body:
            for name, item in body["fields"].items():
                check(getattr(value, name), item)
        elif isinstance(value, AbstractSimulator):
            check(value.prior, body["prior"])

    check(value, body)
