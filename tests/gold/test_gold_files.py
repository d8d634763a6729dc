"""Gold in files, and estimates of ratios in folders: what comes back is what was written."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chain import chain

import quincunx as qx
from quincunx.core.simulator import NamedSimulator

KEY = jax.random.key(3)
REFERENCES = {
    "none": None,
    "point": qx.PointReference([0.3]),
    "pair": qx.PairReference(),
    "marginal": qx.MarginalReference(8),
}
FIELDS = ("theta", "x", "log_ratio", "score", "label", "drawn_from", "theta_reference")


@pytest.mark.parametrize("reference", REFERENCES)
def test_gold_comes_back_bit_for_bit(tmp_path, reference):
    sims = qx.mine(KEY, chain, num_simulations=50, reference=REFERENCES[reference])
    qx.write_gold(tmp_path / "gold.csv", sims, ["a comment"])
    again = qx.read_gold(tmp_path / "gold.csv", chain)
    for field in FIELDS:
        old, new = getattr(sims, field), getattr(again, field)
        assert (old is None) == (new is None), field
        if old is not None:
            np.testing.assert_array_equal(old, new, err_msg=field)
    assert type(again.reference) is type(sims.reference)


def test_observations_of_more_components_come_back(tmp_path):
    sims = qx.mine(KEY, qx.problems.eft, num_simulations=20, reference=REFERENCES["marginal"])
    qx.write_gold(tmp_path / "gold.csv", sims)
    again = qx.read_gold(tmp_path / "gold.csv", qx.problems.eft.prior)
    np.testing.assert_array_equal(again.x, sims.x)
    np.testing.assert_array_equal(again.score, sims.score)
    assert isinstance(again.simulator, NamedSimulator)
    with pytest.raises(ValueError, match=r"'gold' cannot be run: it is known from .*gold.csv alone"):
        qx.simulate(KEY, again.simulator, num_simulations=2)


def test_columns_are_found_by_name_whatever_their_order(tmp_path):
    text = "c1,c2,x[1],x[0]\n0,0,0.5,-0.25\n"
    for simulator in (qx.problems.eft, qx.problems.eft.prior):
        np.testing.assert_array_equal(qx.read_gold(written(tmp_path, text), simulator).x[0, 0], [-0.25, 0.5])


def written(path, text):
    (path / "g.csv").write_text(text)
    return path / "g.csv"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("mean,label\n0,1\n", "no column 'x'"),
        ("maen,x\n0,1\n", r"no column 'mean' \(did you mean 'maen'\?\)"),
        ("mean,x,label\n0,1,2\n", "line 2: a label must be 0"),
        ("mean,x\n7,1\n", "parameter 'mean': 7 is outside"),
        ("mean,x,label,score_mean\n0,1,0,1\n", "rows of label 0 do not say where x was drawn"),
    ],
)
def test_a_file_that_says_too_little(tmp_path, text, complaint):
    with pytest.raises(ValueError, match=complaint):
        qx.read_gold(written(tmp_path, text), chain)


def test_gold_mined_elsewhere_trains_the_same_methods(tmp_path):
    """A file with other names for the observation, without drawn_at: it follows from labels and a reference's point."""
    sims = qx.mine(KEY, chain, num_simulations=200, reference=REFERENCES["point"])
    rows = np.column_stack([sims.theta, sims.x[:, 0], sims.label, sims.log_ratio, sims.score, np.full(200, 0.3)])
    lines = ["mean,energy,label,log_ratio,score_mean,reference_mean"]
    lines += [",".join(repr(float(value)) for value in row) for row in rows]
    path = written(tmp_path, "\n".join(lines) + "\n")
    again = qx.read_gold(path, chain.prior, observation=["energy"])
    np.testing.assert_allclose(again.drawn_from, sims.drawn_from)
    solution = qx.train_ratio(KEY, sims=again, method="alices", training=qx.Training(num_steps=3))
    assert solution.value.log_ratio(jnp.array([0.5]), jnp.zeros(4)).shape == (4,)
    with pytest.raises(ValueError, match="rolr needs log_ratio"):
        qx.train_ratio(KEY, sims=dataclasses.replace(again, log_ratio=None), method="rolr")


@pytest.mark.parametrize(
    "method", ["alices", "scandal", pytest.param("sally", marks=pytest.mark.slow), "sallino", "histogram"]
)
def test_an_estimate_comes_back_from_its_folder(tmp_path, method):
    solution = qx.train_ratio(
        KEY,
        qx.problems.galton,
        method=method,
        num_simulations=600,
        training=qx.Training(num_steps=5),
        estimator_options={"width": 8, "knots": 4} if method == "scandal" else {},
    )
    qx.save(tmp_path / "m", solution, seed=3)
    again = qx.load(tmp_path / "m")
    assert again.statistics == solution.statistics
    x, theta = jnp.arange(5.0, 26.0), jnp.array([-0.71])
    np.testing.assert_array_equal(again.value.log_ratio(theta, x), solution.value.log_ratio(theta, x))
    assert again.value.prior == qx.problems.galton.prior
