"""What is saved comes back bit for bit; what is not ours, not whole or not ours any more is refused."""

import json
import textwrap

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import tiny_machine

import quincunx as qx
from quincunx.answers.bayes.proposal import Proposal
from quincunx.answers.bayes.space import Space
from quincunx.campaigns.save import ARRAYS, HEADER, NamedSimulator, _digest, check_target
from quincunx.problems import CATALOGUE, gaussian, poisson
from quincunx.problems.lookup import reference_of, resolve

X = np.arange(12.0)
KEY = jax.random.key(1)


def same(a, b) -> bool:
    """The same tree with the same bits."""
    return bool(eqx.tree_equal(a, b)) and jax.tree.structure(a) == jax.tree.structure(b)


def proposal(prior: qx.Prior) -> Proposal:
    space = Space.of(prior, prior.sample(KEY, 20))
    return Proposal(space, jax.random.normal(KEY, (3, 2 * space.dim)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("io") / "model"
    qx.save(folder, tiny_machine.trained(), seed=3)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in (HEADER, ARRAYS):
        (folder / name).write_bytes((saved / name).read_bytes())
    return folder


def test_a_trained_machine_comes_back_bit_for_bit_and_infers_the_same(saved):
    trained, loaded = tiny_machine.trained(), qx.load(saved)
    assert same(trained.value, loaded.value)
    assert loaded.value.simulator is poisson
    assert (trained.status, trained.statistics, trained.history, trained.warnings) == (
        loaded.status, loaded.statistics, loaded.history, loaded.warnings
    )  # fmt: skip
    one, two = (qx.run(KEY, s.value, X).value for s in (trained, loaded))
    np.testing.assert_array_equal(one.psi, two.psi)


def test_an_inference_comes_back_bit_for_bit(tmp_path):
    inference = qx.infer(KEY, poisson, X, machine=tiny_machine.trained(), progress=qx.NoProgress())
    inference.save(tmp_path / "inference")
    loaded = qx.load(tmp_path / "inference")
    assert loaded.to_dict() == inference.to_dict()
    assert same(loaded.proposal, inference.proposal)
    np.testing.assert_array_equal(loaded.x, inference.x)
    for name, values in inference.solution.history.items():
        np.testing.assert_array_equal(loaded.solution.history[name], values)


def test_the_header_tells_people_what_is_in_the_folder(saved):
    header = json.loads((saved / HEADER).read_text())
    expected = {"format": "quincunx", "format_version": 1, "class": "Solution", "simulator": "poisson", "seed": 3}
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
    value = proposal(qx.Prior(a=distribution))
    qx.save(tmp_path / "p", value)
    loaded = qx.load(tmp_path / "p")
    assert loaded.prior == value.prior
    assert same(value.psi, loaded.psi)
    np.testing.assert_array_equal(loaded.sample(KEY, 5), value.sample(KEY, 5))


def test_a_prior_that_cannot_be_rebuilt_is_refused_when_saving(tmp_path):
    shifted = dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.AffineTransform(1.0, 2.0))
    with pytest.raises(TypeError, match="cannot be saved"):
        qx.save(tmp_path / "p", proposal(qx.Prior(a=shifted)))
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_to_save_is_refused(tmp_path):
    for value in (object(), KEY, np.array(["a"]), NoneSuch()):
        with pytest.raises(TypeError, match="cannot be saved"):
            qx.save(tmp_path / "x", value)


class NoneSuch(eqx.Module):
    """A module that is no class of the library."""


# -- refusals when loading -------------------------------------------------------------------------


def change_header(folder, seal: bool = False, **changes) -> None:
    header = json.loads((folder / HEADER).read_text()) | changes
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
    "newer": (lambda f: change_header(f, format_version=2, seal=True), "format version 2"),
    "other fields": (
        lambda f: change_header(f, value={"$class": "Space", "fields": {"gone": 1}}, seal=True),
        "another version of the library",
    ),
    "unknown class": (
        lambda f: change_header(f, value={"$class": "Popen", "fields": {}}, seal=True),
        "another version of the library",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_spoilt_folder_is_refused_with_the_reason(case, copy):
    spoil, reason = REFUSALS[case]
    spoil(copy)
    with pytest.raises(ValueError, match=reason):
        qx.load(copy)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        qx.load(tmp_path / "none")


# -- writing ---------------------------------------------------------------------------------------


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path):
    first, second = proposal(qx.Prior(a=dist.Normal(0, 1))), proposal(qx.Prior(b=dist.Normal(0, 1)))
    qx.save(tmp_path / "p", first)
    qx.save(tmp_path / "p", second)
    assert qx.load(tmp_path / "p").prior.names == ("b",)
    assert [each.name for each in tmp_path.iterdir()] == ["p"]


def test_nothing_else_is_ever_overwritten(tmp_path, saved):
    value = proposal(qx.Prior(a=dist.Normal(0, 1)))
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
    machine = tiny_machine.trained().value
    fields = {name: getattr(machine, name) for name in machine.__dataclass_fields__}
    return qx.RecurrentMachine(**{**fields, "simulator": simulator, "live": True})


def test_references_of_built_in_simulators_lead_back():
    for name, simulator in CATALOGUE.items():
        assert reference_of(simulator) == name
        assert resolve(name) is simulator


def test_a_simulator_in_a_file_is_found_again(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(SOURCE))
    simulator = resolve(f"{file}:my_counts")
    qx.save(tmp_path / "m", with_simulator(simulator))
    loaded = qx.load(tmp_path / "m")
    assert loaded.simulator is simulator
    assert loaded.live
    file.unlink()
    assert isinstance(qx.load(tmp_path / "m").simulator, NamedSimulator)


def test_a_simulator_that_is_nowhere_leaves_a_machine_with_its_bank(tmp_path):
    home = resolve_local()
    qx.save(tmp_path / "m", with_simulator(home))
    loaded = qx.load(tmp_path / "m")
    assert not loaded.live
    assert qx.run(KEY, loaded, X).statistics["num_simulator_calls"] == 0
    with pytest.raises(ValueError, match=r"give it: load\(folder, simulator=...\)"):
        loaded.simulator.draw(KEY, np.zeros((1, 1)), 1)
    given = qx.load(tmp_path / "m", simulator=home)
    assert given.live
    assert given.simulator is home
    with pytest.raises(ValueError, match="belongs to the simulator 'local'"):
        qx.load(tmp_path / "m", simulator=gaussian)


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
