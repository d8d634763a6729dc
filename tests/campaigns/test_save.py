"""What is saved comes back bit for bit; what is not ours, not whole or not ours any more is refused."""

import dataclasses
import json
import subprocess
import sys
import textwrap

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import tiny
from chain import chain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quincunx as qx
from quincunx.answers.bayes.space import Space
from quincunx.campaigns.save import ARRAYS, HEADER, _digest, check_target
from quincunx.core.simulator import NamedSimulator
from quincunx.problems import BUILT_IN, gaussian, poisson
from quincunx.problems.lookup import resolve

X = np.arange(12.0)
KEY = jax.random.key(1)


def same(a, b) -> bool:
    """The same tree with the same bits."""
    return bool(eqx.tree_equal(a, b)) and jax.tree.structure(a) == jax.tree.structure(b)


def posterior(prior: qx.Prior) -> qx.MixturePosterior:
    space = Space.of(prior, prior.sample(KEY, 20))
    return qx.MixturePosterior(space, jax.random.normal(KEY, (3, 2 * space.dim)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("save") / "model"
    qx.save(folder, tiny.trained("alfi", poisson), seed=3)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A ratio, in few bytes."""
    folder = tmp_path_factory.mktemp("save") / "small"
    qx.save(folder, tiny.trained("alices").value, seed=3)
    return folder


def copied(source, folder):
    folder.mkdir(exist_ok=True)
    for name in (HEADER, ARRAYS):
        (folder / name).write_bytes((source / name).read_bytes())
    return folder


# -- what comes back -------------------------------------------------------------------------------


def test_a_built_in_simulator_is_found_again_and_the_machine_infers_the_same(saved):
    trained, loaded = tiny.trained("alfi", poisson), qx.load(saved)
    assert same(trained.value, loaded.value)
    assert loaded.value.simulator is poisson
    one, two = (qx.run(KEY, s.value, X).value for s in (trained, loaded))
    np.testing.assert_array_equal(one.psi, two.psi)


@pytest.mark.parametrize(("name", "simulator"), [("alfi", poisson), ("alices", chain)])
def test_an_answer_comes_back_bit_for_bit(name, simulator, tmp_path):
    answer = qx.infer(KEY, None, X, estimator=tiny.trained(name, simulator), progress=qx.NoProgress())
    qx.save(tmp_path / "answer", answer)
    loaded = qx.load(tmp_path / "answer", simulator=simulator)
    assert loaded.to_dict() == answer.to_dict()
    assert same(loaded.estimator, answer.estimator)
    np.testing.assert_array_equal(loaded.x, answer.x)
    if name == "alfi":
        assert same(loaded.posterior, answer.posterior)
        assert set(loaded.inferred.history) == set(answer.inferred.history) == {"psi", "mean", "std"}
        for column, values in answer.inferred.history.items():
            np.testing.assert_array_equal(loaded.inferred.history[column], values)


def test_an_exact_ratio_comes_back(tmp_path):
    qx.save(tmp_path / "exact", qx.ExactRatio(gaussian))
    assert qx.load(tmp_path / "exact") == qx.ExactRatio(gaussian)


def test_the_header_tells_people_what_is_in_the_folder(saved):
    header = json.loads((saved / HEADER).read_text())
    expected = {"format": "quincunx", "format_version": 2, "class": "Solution", "simulator": "poisson", "seed": 3}
    assert {name: header[name] for name in expected} == expected
    assert "Uniform" in header["prior"]
    assert "library_version" in header


PRIORS = [
    dist.Uniform(40, 50),
    dist.Normal(np.float32(0.1), np.array([1.0, 2.0], np.float32)),
    dist.Normal(0, 3.0).expand((2,)),
    dist.Normal(0, 3.0).expand((2,)).to_event(1),
    dist.MultivariateNormal(np.zeros(2, np.float32), np.array([[2.0, 0.3], [0.3, 1.0]], np.float32)),
    dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.0),
    dist.TruncatedNormal(0.0, 1.0, low=-1.0),
    dist.LogNormal(0.0, 1.0),
    dist.Gamma(2.0, 3.0),
    dist.Beta(2.0, 3.0),
    dist.HalfNormal(2.0),
    dist.Exponential(2.0),
]


@pytest.mark.parametrize("distribution", PRIORS, ids=lambda d: type(d).__name__)
def test_priors_come_back(distribution, tmp_path):
    value = posterior(qx.Prior(a=distribution))
    qx.save(tmp_path / "p", value)
    loaded = qx.load(tmp_path / "p")
    assert loaded.prior == value.prior
    assert same(value.psi, loaded.psi)
    np.testing.assert_array_equal(loaded.sample(KEY, 5), value.sample(KEY, 5))


def test_a_prior_that_cannot_be_rebuilt_is_refused_when_saving(tmp_path):
    shifted = dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.AffineTransform(1.0, 2.0))
    with pytest.raises(TypeError, match="cannot be saved"):
        qx.save(tmp_path / "p", posterior(qx.Prior(a=shifted)))
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_to_save_is_refused(tmp_path):
    for value in (object(), KEY, np.array(["a"]), NoneSuch()):
        with pytest.raises(TypeError, match="cannot be saved"):
            qx.save(tmp_path / "x", value)


class NoneSuch(eqx.Module):
    """A module that is no class of the library."""


# -- refusals when loading -------------------------------------------------------------------------


def change_header(folder, seal: bool = False, **changes) -> None:
    write_header(folder, json.loads((folder / HEADER).read_text()) | changes, seal)


def write_header(folder, header, seal: bool = True) -> None:
    """With digests that fit, so that only what it says can be wrong."""
    if seal:
        header["header_sha256"] = _digest(header)
    (folder / HEADER).write_text(json.dumps(header))


def flip_a_bit(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


REFUSALS = {
    "arrays cut short": (lambda f: (f / ARRAYS).write_bytes((f / ARRAYS).read_bytes()[:-9]), "cut short or altered"),
    "arrays altered": (lambda f: flip_a_bit(f / ARRAYS), "cut short or altered"),
    "arrays missing": (lambda f: (f / ARRAYS).unlink(), "arrays.npz is missing"),
    "header cut short": (lambda f: (f / HEADER).write_bytes((f / HEADER).read_bytes()[:-9]), "cut short or damaged"),
    "header altered": (lambda f: change_header(f, seed=4), "altered after it was saved"),
    "header missing": (lambda f: (f / HEADER).unlink(), "has no header.json"),
    "foreign": (lambda f: (f / HEADER).write_text('{"format": "other"}'), "another program's"),
    "not an object": (lambda f: (f / HEADER).write_text("[]"), "another program's"),
    "newer": (lambda f: change_header(f, format_version=3, seal=True), "format version 3"),
    "other fields": (
        lambda f: change_header(f, value={"$class": "Space", "fields": {"gone": 1}}, seal=True),
        "another version of the library",
    ),
    "unknown class": (
        lambda f: change_header(f, value={"$class": "Popen", "fields": {}}, seal=True),
        "another version of the library",
    ),
    "abstract class": (
        lambda f: change_header(f, value={"$class": "AbstractRatio", "fields": {}}, seal=True),
        "another version of the library",
    ),
    "unknown entry": (lambda f: change_header(f, value={"$pickle": "x"}, seal=True), "unknown entry"),
    "no array": (
        lambda f: change_header(f, value={"$array": "a9999", "kind": "jax"}, seal=True),
        "describes nothing that this library can make",
    ),
    "no distribution": (
        lambda f: change_header(f, value={"$distribution": "biject_to", "arguments": {}}, seal=True),
        "describes nothing that this library can make",
    ),
    "no enumeration": (
        lambda f: change_header(f, value={"$enum": "Space", "member": "of"}, seal=True),
        "describes nothing that this library can make",
    ),
    "wrong values": (
        lambda f: change_header(f, value={"$class": "Training", "fields": TRAINING | {"num_steps": "many"}}, seal=True),
        "describes nothing that this library can make",
    ),
    "no digest of the arrays": (
        lambda f: change_header(f, arrays_sha256=None, seal=True),
        "cut short or altered",
    ),
}
TRAINING = dataclasses.asdict(qx.Training())


@pytest.mark.parametrize("case", REFUSALS)
def test_a_spoilt_folder_is_refused_with_the_reason(case, small, tmp_path):
    spoil, reason = REFUSALS[case]
    folder = copied(small, tmp_path / "copy")
    spoil(folder)
    with pytest.raises(ValueError, match=reason):
        qx.load(folder)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        qx.load(tmp_path / "none")


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from([HEADER, ARRAYS]),
    at=st.floats(0, 1, exclude_max=True),
    what=st.one_of(st.none(), st.integers(0, 255), st.binary(max_size=9)),
)
def test_whatever_happens_to_a_byte_the_value_is_the_same_or_refused(small, tmp_path, name, at, what):
    """Cut short at a place, one byte put in its place, or some bytes put in before it."""
    folder = copied(small, tmp_path / "copy")
    content = (folder / name).read_bytes()
    place = int(at * len(content))
    inserted = b"" if what is None else bytes([what]) if isinstance(what, int) else what
    rest = b"" if what is None else content[place + isinstance(what, int) :]
    (folder / name).write_bytes(content[:place] + inserted + rest)
    try:
        found = qx.load(folder, simulator=chain)
    except ValueError as error:
        assert str(error)
    else:
        assert same(found, tiny.trained("alices").value)


# -- loading runs nothing --------------------------------------------------------------------------

EVIL = """
import pathlib
pathlib.Path({marker!r}).write_text("it ran")
class Evil: pass
evil = Evil()
"""


def places(value, path=()):
    """Paths to all texts in nested JSON, and to the names of all entries."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*path, name), "name"
            yield from places(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))
    elif isinstance(value, str):
        yield path, "text"


def edited(value, path, kind, text):
    """Nested JSON with another text, or another name of an entry, at one place."""
    if not path:
        return text
    first, *rest = path
    if isinstance(value, list):
        return [edited(item, rest, kind, text) if index == first else item for index, item in enumerate(value)]
    if kind == "name" and not rest:
        return {text if name == first else name: item for name, item in value.items()}
    return {name: edited(item, rest, kind, text) if name == first else item for name, item in value.items()}


def added(value, text):
    """Nested JSON with a reference, of every kind that was ever read, in every entry."""
    if isinstance(value, list):
        return [added(item, text) for item in value]
    if not isinstance(value, dict):
        return value
    more = dict.fromkeys(("reference", "module", "file", "$reference"), text)
    return {name: added(item, text) for name, item in value.items()} | more


def attacks(header, file):
    for text in (f"{file}:evil", str(file), "evil", "evil.Evil", "evil:evil"):
        for path, kind in places(header):
            if path[0] != "header_sha256" and (text == f"{file}:evil" or kind == "text"):
                yield edited(header, path, kind, text)
        yield added(header, text)
        yield {**header, "value": added(header["value"], text)}
        yield {**header, "reference": text, "import": [text]}
        yield {**header, "value": {"$simulator": text, "prior": header["value"]["fields"]["simulator"]["prior"]}}


def modules() -> set[str]:
    """Without those that check types when tests run."""
    return {name for name in sys.modules if not name.startswith(("beartype", "jaxtyping"))}


def test_loading_runs_no_code_that_a_folder_names(small, tmp_path, monkeypatch):
    marker, file = tmp_path / "ran", tmp_path / "evil.py"
    file.write_text(EVIL.format(marker=str(marker)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    folder = copied(small, tmp_path / "copy")
    header = json.loads((folder / HEADER).read_text())
    qx.load(folder)
    before, loaded, refused = modules(), 0, 0
    for attack in attacks(header, file):
        write_header(folder, attack)
        try:
            found = qx.load(folder)
        except ValueError:
            refused += 1
        else:
            loaded += 1
            assert isinstance(getattr(found, "simulator", found), NamedSimulator)
        assert not marker.exists(), attack
        assert modules() == before, attack
    assert loaded > 10  # such as those with another seed or name
    assert refused > 100
    with pytest.raises(ValueError, match="has no simulator"):
        resolve(f"{file}:good")
    assert marker.exists()  # what is named on the command line is run, so it would have been seen


# -- writing ---------------------------------------------------------------------------------------


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path):
    first, second = posterior(qx.Prior(a=dist.Normal(0, 1))), posterior(qx.Prior(b=dist.Normal(0, 1)))
    qx.save(tmp_path / "p", first)
    qx.save(tmp_path / "p", second)
    assert qx.load(tmp_path / "p").prior.names == ("b",)
    assert [each.name for each in tmp_path.iterdir()] == ["p"]


def test_nothing_else_is_ever_overwritten(tmp_path, saved):
    value = posterior(qx.Prior(a=dist.Normal(0, 1)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / HEADER).write_text("{}")
    for name in ("mine", "file", "theirs"):
        with pytest.raises(ValueError, match="choose a new folder"):
            qx.save(tmp_path / name, value)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    check_target(saved)
    check_target(tmp_path / "new" / "folder")


# -- simulators ------------------------------------------------------------------------------------

SOURCE = """
    import jax
    import numpyro.distributions as dist
    import quincunx as qx

    @qx.simulator(qx.Prior(log_rate=dist.Uniform(0.2, 7.0)), name="counts")
    def my_counts(key, theta):
        return jax.random.poisson(key, jax.numpy.exp(theta["log_rate"])).astype(float)
"""


def with_simulator(simulator) -> qx.RecurrentMachine:
    return dataclasses.replace(tiny.trained("alfi", poisson).value, simulator=simulator, live=True)


def test_names_of_built_in_simulators_lead_to_them():
    for name, simulator in BUILT_IN.items():
        assert resolve(name) is simulator


def test_a_simulator_that_is_nowhere_leaves_a_machine_with_its_bank(tmp_path):
    home = resolve_local()
    qx.save(tmp_path / "m", with_simulator(home))
    loaded = qx.load(tmp_path / "m")
    assert isinstance(loaded.simulator, NamedSimulator)
    assert loaded.simulator.name == "local"
    assert not loaded.live
    assert qx.run(KEY, loaded, X).statistics["num_simulator_calls"] == 0
    with pytest.raises(ValueError, match=r"attach it: qx\.load\(folder, simulator=\.\.\.\)"):
        loaded.simulator.draw(KEY, np.zeros((1, 1)), 1)
    given = qx.load(tmp_path / "m", simulator=home)
    assert given.live
    assert given.simulator is home
    with pytest.raises(ValueError, match="belongs to the simulator 'local'"):
        qx.load(tmp_path / "m", simulator=gaussian)


def test_a_simulator_of_a_built_in_name_with_another_prior_is_another(tmp_path):
    other = qx.simulator(qx.Prior(log_rate=dist.Normal(0.0, 1.0)), name="poisson")(poisson.function)
    qx.save(tmp_path / "r", dataclasses.replace(tiny.trained("alices").value, simulator=other))
    assert isinstance(qx.load(tmp_path / "r").simulator, NamedSimulator)


def resolve_local():
    return qx.simulator(poisson.prior, name="local")(poisson.function)


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("poison", ValueError, "did you mean 'poisson'"),
        ("gone.py:x", FileNotFoundError, "no such file: gone.py"),
        ("{file}:my_count", ValueError, "did you mean 'my_counts'"),
        ("{file}", ValueError, "it has my_counts; write"),
    ],
)
def test_references_that_lead_nowhere(reference, error, message, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(SOURCE))
    with pytest.raises(error, match=message):
        resolve(reference.format(file=file))


# -- priors with functions -------------------------------------------------------------------------


def peaks(width=10.0, derived=None, name="peaks"):
    prior = qx.Prior(low=dist.Uniform(0, 10), high=lambda t: dist.Uniform(t["low"], t["low"] + width), derived=derived)
    return qx.simulator(prior, name=name)(lambda key, t: t["high"] - t["low"] + jax.random.normal(key))


GAP = {"gap": lambda t: t["high"] - t["low"]}


def test_a_prior_with_functions_comes_back_with_its_simulator(tmp_path):
    value = posterior(peaks(derived=GAP).prior)
    qx.save(tmp_path / "p", value)
    assert "high=Uniform given low" in json.loads((tmp_path / "p" / HEADER).read_text())["prior"]
    loaded = qx.load(tmp_path / "p", simulator=peaks(derived=GAP))
    assert same(loaded, value) and loaded.summary() == value.summary() and "gap" in loaded.summary()
    assert "gap" not in qx.load(tmp_path / "p", simulator=peaks()).summary()  # it is the simulator's to say
    with pytest.raises(ValueError, match=r"has the prior Prior\(.*not saved, so attach its simulator: qx.load"):
        qx.load(tmp_path / "p")
    for other in (peaks(10.02), gaussian):
        with pytest.raises(ValueError, match=r"belongs to a simulator with Prior\(.*attach the one that it"):
            qx.load(tmp_path / "p", simulator=other)


def test_an_estimator_with_such_a_prior_comes_back(tmp_path):
    home = peaks(derived=GAP)
    trained = tiny.train("nre", home)
    qx.save(tmp_path / "m", trained)
    loaded = qx.load(tmp_path / "m", simulator=peaks(derived=GAP))
    assert same(loaded.value.log_ratio(np.array([2.0, 5.0]), X), trained.value.log_ratio(np.array([2.0, 5.0]), X))
    with pytest.raises(ValueError, match="belongs to the simulator 'peaks'"):
        qx.load(tmp_path / "m", simulator=peaks(name="hills"))


def test_derived_quantities_come_back_with_their_simulator_and_nothing_else_needs_it(tmp_path):
    prior = qx.Prior(a=dist.Normal(0, 1), derived={"square": lambda t: t["a"] ** 2})
    qx.save(tmp_path / "p", posterior(prior))
    assert list(qx.load(tmp_path / "p").summary()) == ["a"]
    own = qx.simulator(prior)(lambda key, t: t["a"])
    assert list(qx.load(tmp_path / "p", simulator=own).summary()) == ["a", "square"]


def test_what_is_made_of_an_estimator_or_a_posterior_loads_where_nothing_of_it_was_used_before(tmp_path):
    """In a new process: classes that nobody imported are known all the same."""
    narrow = qx.Prior(log_rate=dist.Uniform(1.0, 5.0))
    qx.save(tmp_path / "reweighted", qx.reweighted(KEY, posterior(poisson.prior), narrow, num_draws=200))
    qx.save(tmp_path / "censored", qx.censored(qx.ExactRatio(BUILT_IN["gaussian_linear"])))
    script = "import sys, quincunx as qx; print(*(type(qx.load(path)).__name__ for path in sys.argv[1:]))"
    paths = [tmp_path / "reweighted", tmp_path / "censored"]
    done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["ReweightedPosterior", "CensoredDensity"], done.stderr
