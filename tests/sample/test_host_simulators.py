"""Simulators on the host: NumPy functions in worker processes, and programs in any language."""

import dataclasses
import importlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

from quincunx.core.prior import Prior
from quincunx.sample import pool
from quincunx.sample.executable import executable
from quincunx.sample.numpy_function import numpy_simulator

KEY = jax.random.key(5)
FILE = os.path.basename(__file__)
RATE = Prior(rate=dist.Uniform(1, 9))
MIXED = Prior(rate=dist.Uniform(1, 9), beta=dist.Normal(0, 1).expand((2,)))
CASE = Prior(case=dist.Uniform(0, 100))


def cases(count: int) -> np.ndarray:
    """Rows of theta 0, 1, 2, ... for simulators that behave in another way in every row."""
    return np.arange(count, dtype=np.float32)[:, None]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process nobody has waited for yet is dead too.
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def gone(pids: list[int], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


def reasons(failures) -> dict[int, str]:
    return {failure.row: failure.reason for failure in failures}


# -- NumPy functions: what they are given, and what comes of it ------------------------------------


@numpy_simulator(RATE, source="a test")
def counts(rng, theta):
    return rng.poisson(theta["rate"])


def with_workers(simulator, workers):
    return dataclasses.replace(simulator, workers=workers)


def test_same_bits_with_any_number_of_workers():
    theta = RATE.sample(KEY, 30)
    here, failures = with_workers(counts, 0).draw(KEY, theta, 5)
    assert here.shape == (30, 5) and here.dtype == np.float32 and failures == ()
    for workers in (1, 3):
        np.testing.assert_array_equal(with_workers(counts, workers).draw(KEY, theta, 5)[0], here)
    assert (with_workers(counts, 0).draw(jax.random.key(1), theta, 5)[0] != here).any()


def test_rows_are_independent_of_one_another_and_follow_their_law():
    theta = np.full((40, 1), 4.0)
    x, _ = counts.draw(KEY, theta, 100)
    np.testing.assert_array_equal(counts.draw(KEY, theta[:3], 100)[0], x[:3])
    assert len(np.unique(x, axis=0)) == 40
    # The mean of 4000 Poisson(4) counts has sd 2/sqrt(4000); 4 sd: false alarms 6e-5, and the key is fixed.
    assert abs(x.mean() - 4.0) < 4 * 2 / np.sqrt(4000)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_function_sees_names_and_plain_values(workers):
    @numpy_simulator(MIXED, workers=workers)
    def echo(rng, theta):
        print("a print must not disturb the replies")
        os.write(1, b"nor a write\n")
        if not (type(theta["rate"]) is float and theta["beta"].shape == (2,) and list(theta) == ["rate", "beta"]):
            raise AssertionError(theta)
        return np.append(theta["beta"], theta["rate"])

    theta = np.asarray(MIXED.sample(KEY, 4))
    x, failures = echo.draw(KEY, theta, 2)
    assert failures == ()
    np.testing.assert_array_equal(x, np.repeat(theta[:, None, [1, 2, 0]], 2, axis=1))


def test_calling_the_simulator_calls_the_function():
    assert counts(np.random.default_rng(0), {"rate": 3.0}) == np.random.default_rng(0).poisson(3.0)
    assert (counts.name, counts.source, counts.prior, counts.workers) == ("counts", "a test", RATE, 2)


def raises(error):
    raise error


RAISED = f"(line {raises.__code__.co_firstlineno + 1} of {FILE})"
FAULTS = [  # what a function does in a row, and why the row fails
    (lambda rng, theta: raises(TypeError("no such knob\nsecond line")), f"TypeError: no such knob {RAISED}"),
    (lambda rng, theta: raises(SystemExit("enough")), f"SystemExit: enough {RAISED}"),
    (lambda rng, theta: np.linalg.inv(np.zeros((2, 2)))[0], "LinAlgError: Singular matrix (line "),
    (lambda rng, theta: [np.nan, 1.0], "2 of 2 observations are NaN or infinite"),
    (lambda rng, theta: [1e39, 0.0], "2 of 2 observations are NaN or infinite"),  # too large for float32
    (lambda rng, theta: [1.0, 2.0, 3.0], "returned shape (3,), others (2,)"),
    (lambda rng, theta: np.ones(rng.integers(1, 40)), "the function returned shape"),
    (lambda rng, theta: [], "the function returned an array of shape (0,), which holds no number"),
    (
        lambda rng, theta: [[1.0], [2.0, 3.0]],
        "the function returned [[1.0], [2.0, 3.0]], a nest of lists of unequal le",
    ),
    (
        lambda rng, theta: [None, "three"],
        "the function returned [None, 'three'], which is not an array of real numbers",
    ),
    (lambda rng, theta: 1j, "the function returned 1j, which is not an array of real numbers"),
    (
        lambda rng, theta: theta["ratee"],
        "UnknownParameter: no parameter 'ratee' (did you mean 'rate'?); the prior has ra",
    ),
    (lambda rng, theta: theta.__setitem__("rate", 1.0), "AttributeError: 'Parameters' object has no attribute '__"),
    (lambda rng, theta: theta["beta"].sort(), "ValueError: sort array is read-only"),
]


@numpy_simulator(Prior(rate=dist.Uniform(0, 100), beta=dist.Normal(0, 1).expand((2,))))
def faulty(rng, theta):
    row = int(theta["rate"])
    return FAULTS[row][0](rng, theta) if row < len(FAULTS) else [row, 1.0]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failed_row_says_why_and_leaves_the_others_alone(workers):
    bad, theta = len(FAULTS), np.pad(cases(len(FAULTS) + 3), ((0, 0), (0, 2)))
    x, failures = with_workers(faulty, workers).draw(KEY, theta, 2)
    assert [failure.row for failure in failures] == list(range(bad))
    for failure, (_, reason) in zip(failures, FAULTS, strict=True):
        assert failure.reason.startswith(reason)
    assert failures[1].theta == {"rate": 1.0, "beta[0]": 0.0, "beta[1]": 0.0}
    assert np.isnan(x[:bad]).all()
    np.testing.assert_array_equal(x[bad:, :, 0], np.repeat(theta[bad:, :1], 2, axis=1))


def test_where_every_row_fails_there_is_no_event_shape():
    x, failures = numpy_simulator(RATE, workers=0)(lambda theta: 1.0).draw(KEY, RATE.sample(KEY, 3), 5)
    assert x.shape == (3, 5) and np.isnan(x).all()
    assert reasons(failures) == dict.fromkeys(range(3), failures[0].reason)
    assert failures[0].reason.endswith("<lambda>() takes 1 positional argument but 2 were given")


def test_the_commonest_shape_is_the_right_one_even_if_the_first_row_differs():
    odd = numpy_simulator(CASE, workers=0)(lambda rng, theta: np.ones(3 if theta["case"] == 0 else 2))
    x, failures = odd.draw(KEY, cases(4), 1)
    assert x.shape == (4, 1, 2) and reasons(failures) == {0: "returned shape (3,), others (2,)"}


# -- NumPy functions: the processes ------------------------------------------------------------------


def test_a_row_that_kills_its_worker_fails_alone_and_nothing_hangs():
    @numpy_simulator(CASE)
    def deadly(rng, theta):
        case = int(theta["case"])
        if case == 2:
            os._exit(3)
        if case == 5:
            os.kill(os.getpid(), signal.SIGSEGV)
        if case == 7 and os.fork():
            os._exit(4)  # the child it leaves behind holds the pipe open
        if case == 7:
            time.sleep(60)
        return case + rng.normal()

    began = time.monotonic()
    x, failures = deadly.draw(KEY, cases(40), 3)
    assert time.monotonic() - began < 30
    ended = "the worker process ended in this row "
    assert reasons(failures) == {2: f"{ended}(exit code 3)", 5: f"{ended}(SIGSEGV)", 7: f"{ended}(exit code 4)"}
    calm = numpy_simulator(CASE, workers=0)(lambda rng, theta: int(theta["case"]) + rng.normal())
    good = np.setdiff1d(np.arange(40), [2, 5, 7])
    np.testing.assert_array_equal(x[good], calm.draw(KEY, cases(40), 3)[0][good])


def test_when_all_first_rows_kill_their_worker_the_rest_is_not_tried(monkeypatch):
    monkeypatch.setattr(pool, "HOPELESS", 3)
    x, failures = numpy_simulator(CASE)(lambda rng, theta: os._exit(1)).draw(KEY, cases(50), 2)
    assert x.shape == (50, 2) and len(failures) == 50
    assert failures[2].reason == "the worker process ended in this row (exit code 1)"
    assert {failure.reason for failure in failures[3:]} == {
        "not run: each of the first 3 rows ended its worker process"
    }


def test_workers_are_kept_replaced_when_dead_and_know_the_latest_function():
    where = numpy_simulator(RATE, workers=1)(lambda rng, theta: os.getpid())
    theta = RATE.sample(KEY, 1)
    (first, _), (second, _) = where.draw(KEY, theta, 1), where.draw(KEY, theta, 1)
    assert first == second and int(first[0, 0]) != os.getpid()
    level = 1.0
    simulator = numpy_simulator(RATE, workers=1)(lambda rng, theta: [os.getpid(), level])
    assert simulator.draw(KEY, theta, 1)[0][0, 0].tolist() == [first[0, 0], 1.0]
    level = 2.0
    assert simulator.draw(KEY, theta, 1)[0][0, 0, 1] == 2.0
    os.kill(int(first[0, 0]), signal.SIGKILL)
    assert gone([int(first[0, 0])])
    x, failures = simulator.draw(KEY, theta, 1)
    assert failures == () and x[0, 0, 0] != first[0, 0]


def test_a_worker_imports_little_of_the_package_and_starts_no_workers(monkeypatch):
    @numpy_simulator(RATE)
    def look(rng, theta):
        return ["jax" in sys.modules, "quincunx.core.prior" in sys.modules, "QUINCUNX_WORKER" in os.environ]

    x, _ = look.draw(KEY, RATE.sample(KEY, 2), 1)
    assert x.tolist() == [[[0.0, 0.0, 1.0]]] * 2
    monkeypatch.setenv("QUINCUNX_WORKER", "1")
    x, _ = numpy_simulator(RATE)(lambda rng, theta: os.getpid()).draw(KEY, [[1.0]], 1)
    assert x.tolist() == [[float(os.getpid())]]


def test_a_worker_imports_from_where_the_caller_does_and_works_in_its_folder(monkeypatch, tmp_path):
    (tmp_path / "far_away.py").write_text("def model(rng, theta):\n    return float(open('datum').read())\n")
    (tmp_path / "datum").write_text("2.5")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    model = numpy_simulator(RATE)(importlib.import_module("far_away").model)
    assert model.draw(KEY, [[1.0]], 1)[0].tolist() == [[2.5]]


def test_a_module_that_workers_cannot_find_is_named(monkeypatch, tmp_path):
    (tmp_path / "never_found.py").write_text("def model(rng, theta):\n    return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    function = importlib.import_module("never_found").model
    monkeypatch.setattr(sys, "path", sys.path[1:])
    with pytest.raises(ValueError, match=r"'lost' cannot be loaded in a worker process: ModuleNotFoundError"):
        numpy_simulator(RATE, name="lost", workers=2)(function).draw(KEY, [[1.0], [2.0]], 1)


def test_a_function_that_cannot_travel_is_refused_with_the_cure():
    lock = threading.Lock()
    with pytest.raises(ValueError, match=r"'locked' cannot be sent to worker processes.*lock.*workers=0"):
        numpy_simulator(RATE, name="locked")(lambda rng, theta: lock.locked()).draw(KEY, [[1.0]], 1)


def test_misuse_is_refused_at_once():
    with pytest.raises(TypeError, match="expected a Prior, got function"):
        numpy_simulator(faulty.function)
    with pytest.raises(TypeError, match="expected a function"):
        numpy_simulator(RATE)(3)
    for workers in (-1, 1.5, True):
        with pytest.raises(ValueError, match="workers must be a whole number, at least 0"):
            numpy_simulator(RATE, workers=workers)


# A user's script: no guard against being imported again, functions in __main__, and Ctrl-C.
SCRIPT = """
import os, signal, sys, threading, time
import jax, numpy as np, numpyro.distributions as dist
import quincunx as qx

signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
print("running", flush=True)
OFFSET = 10.0

def shift(x):
    return x + OFFSET

@qx.numpy_simulator(qx.Prior(rate=dist.Uniform(1, 9)))
def where(rng, theta):
    return [os.getpid(), shift(theta["rate"])]

sims = qx.simulate(jax.random.key(0), where, num_simulations=40)
x, theta = np.asarray(sims.x), np.asarray(sims.theta)
print("right", bool((x[:, 0, 1] == theta[:, 0] + OFFSET).all()))
print("pids", *sorted(set(x[:, 0, 0].astype(int).tolist())), flush=True)

log = open(sys.argv[1], "a+")

def press_when(pids):
    while len(open(sys.argv[1]).read().split()) < pids:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)

def interrupt(simulator, pids):
    threading.Thread(target=press_when, args=[pids], daemon=True).start()
    try:
        qx.simulate(jax.random.key(0), simulator, num_simulations=4)
    except KeyboardInterrupt:
        print("interrupted", flush=True)

@qx.numpy_simulator(where.prior)
def endless(rng, theta):
    with open(sys.argv[1], "a") as log:
        log.write(f"{os.getpid()} ")
    while True:
        pass

interrupt(endless, 2)
interrupt(qx.executable(["sh", "-c", f"sleep 60 & echo $! $$ >> {sys.argv[1]}; wait"], where.prior), 6)
"""


def test_a_script_without_a_guard_runs_once_and_leaves_no_process_behind(tmp_path):
    script, log = tmp_path / "script.py", tmp_path / "pids"
    script.write_text(SCRIPT)
    command, environment = [sys.executable, script, log], {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [lines.count(line) for line in (["running"], ["right", "True"], ["interrupted"])] == [1, 1, 2]
    workers = next(line[1:] for line in lines if line[0] == "pids")
    pids = [int(pid) for pid in workers + log.read_text().split()]
    assert len(pids) >= 1 + 2 + 4
    assert gone(pids)


# -- programs ------------------------------------------------------------------------------------------

ANSWERS = {  # what a program prints instead of three observations, and what comes of it
    "[[1, 2, 3]": "the program returned broken JSON: Expecting ',' delimiter: line 1 column 11 (char 10)",
    "[[1, 2, 3], [1, 2, 3]]": "the program returned 2 observations, 3 were asked for",
    "1,2,3\n1,2\n1,2,3": "the program returned shape (2,), others (3,)",
    "1,2,3\n\n1,,3\n1,2,3": "the program returned '' where a number should be, in line 3 of standard output",
    "": "the program returned nothing on standard output",
    "[[1, 2, 3], [1, NaN, 3], [1, 2, Infinity]]": "2 of 3 observations are NaN or infinite",
    '{"x": [[1, 2, 3]]}': 'the program returned a JSON object without a list "observations"',
    "[[[1], [2, 3]]]": "the program returned [[1], [2, 3]], a nest of lists of unequal lengths",
    "[[1, null, 3]]": "the program returned [1, None, 3], which is not an array of real numbers",
    "[5, 5, 5]": "returned shape (), others (3,)",
    "kill": "SIGKILL",
    "leave": "exit code 1: out of coffee",
}
PROGRAM = """
import json, os, sys
question = json.loads(sys.stdin.readline())
assert sys.stdin.read() == ""
theta, m, seed = question["parameters"], question["num_observations"], question["seed"]
case = int(theta["case"])
rows = [[case, seed % 1000, j] for j in range(m)]
text = (sys.argv[1:] + [
    json.dumps(rows),
    json.dumps({"observations": rows}, indent=2),
    "# made by a test\\nname, seed, number\\n" + "\\n".join(f"{a}, {b}, {c}  # {c}" for a, b, c in rows),
    "\\n".join(f"{a} {b}\\t{c}" for a, b, c in rows),
])[case]
if text == "kill":
    os.kill(os.getpid(), 9)
if text == "leave":
    print("[[1, 2, 3]]")
    sys.exit("warming up\\nout of coffee\\n")
print(text, end="")
"""


def test_programs_are_asked_and_their_answers_read(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    simulator = executable([sys.executable, "-I", "-S", str(tmp_path / "program.py"), *ANSWERS], CASE, name="coffee")
    bad, theta = len(ANSWERS), cases(len(ANSWERS) + 4)
    x, failures = simulator.draw(KEY, theta, 3)
    assert reasons(failures) == dict(enumerate(ANSWERS.values()))
    assert x.shape == (bad + 4, 3, 3) and np.isnan(x[:bad]).all()
    np.testing.assert_array_equal(x[bad:, :, 0], np.repeat(theta[bad:], 3, axis=1))  # its parameter
    np.testing.assert_array_equal(x[bad:, :, 2], np.repeat(np.arange(3)[None], 4, axis=0))  # order is kept
    assert len(np.unique(x[bad:, 0, 1])) == 4  # seeds
    first, again, other = (simulator.draw(jax.random.key(k), theta[bad:], 3)[0] for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (other[:, 0, 1] != again[:, 0, 1]).all()


def test_vector_parameters_and_seeds_as_json():
    simulator = executable([sys.executable, "-I", "-S", "-c", textwrap.dedent("""
        import json, sys
        question = json.load(sys.stdin)
        beta, seed = question["parameters"]["beta"], question["seed"]
        assert isinstance(seed, int) and 0 <= seed < 2**31 and question["num_observations"] == 1
        print(json.dumps([beta + [question["parameters"]["rate"]]]))
    """)], MIXED)  # fmt: skip
    theta = np.asarray(MIXED.sample(KEY, 2))
    x, failures = simulator.draw(KEY, theta, 1)
    assert failures == ()
    np.testing.assert_array_equal(x[:, 0], theta[:, [1, 2, 0]])


def test_one_column_gives_scalars_and_a_command_line_is_split_like_a_shells():
    simulator = executable("sh -c 'echo x; echo 1.5; echo 2.5'", RATE)
    x, failures = simulator.draw(KEY, [[1.0]], 2)
    assert failures == () and x.tolist() == [[1.5, 2.5]]
    assert simulator.name == "sh"


def test_a_program_that_is_too_slow_is_killed_with_all_it_started(tmp_path):
    command = ["sh", "-c", f"sleep 60 & echo $! $$ >> {tmp_path}/pids; wait"]
    began = time.monotonic()
    x, failures = executable(command, RATE, timeout=1).draw(KEY, [[1.0], [2.0]], 1)
    assert time.monotonic() - began < 20
    assert x.shape == (2, 1) and set(reasons(failures).values()) == {"no answer within 1 s"}
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 4 and gone(pids)


def test_programs_run_side_by_side(tmp_path):
    # Each program waits for the other, so that one at a time would never end.
    meet = f"touch {tmp_path}/$$; while [ $(ls {tmp_path} | wc -l) -lt 2 ]; do sleep 0.05; done; echo 1"
    x, failures = executable(["sh", "-c", meet], RATE, timeout=30, workers=2).draw(KEY, [[1.0], [2.0]], 1)
    assert failures == () and x.tolist() == [[1.0], [1.0]]


def test_a_program_that_vanishes_fails_its_rows(tmp_path):
    path = tmp_path / "brief"
    path.write_text("#!/bin/sh\necho 1\n")
    path.chmod(0o755)
    simulator = executable([path], RATE)
    assert simulator.draw(KEY, [[1.0]], 1)[0].tolist() == [[1.0]]
    path.unlink()
    _, failures = simulator.draw(KEY, [[1.0]], 1)
    assert failures[0].reason == f"{path} could not be started: No such file or directory"


def test_misuse_of_executable_is_refused_before_any_work(tmp_path):
    (tmp_path / "plain").write_text("echo 1")
    for command, options, message in [
        (["no-such-program", "--fast"], {}, "command not found: 'no-such-program'.*install it"),
        ([str(tmp_path / "plain")], {}, "chmod"),
        ("", {}, "command is empty"),
        ("sh", {"timeout": 0}, "timeout must be a positive number of seconds, got 0"),
        ("sh", {"workers": 0}, "workers must be a whole number, at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            executable(command, RATE, **options)
    with pytest.raises(TypeError, match="expected a Prior, got dict"):
        executable("sh", {"rate": 1})
