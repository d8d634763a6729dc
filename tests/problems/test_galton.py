"""The Galton board: its law against all paths and against float64, and what was published of it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mined_cases import longer
from truths import board_law, left_chances, moments, roll_down

from quincunx.problems import eft, galton, galton_board, galton_distribution, galton_positions, gaussian


def law(board, skew):
    return np.float64(jax.jit(lambda theta: galton_distribution(board, theta))(jnp.array([skew])))


def test_small_board_against_all_its_paths():
    board, start = galton_board(6, num_nails=9, low=-2.0, high=1.0), 4
    log_prob = jax.jit(jax.vmap(board.log_prob, in_axes=(None, 0, 0)))
    for skew in (-2.0, -0.7, 0.4):
        left, sums, paths, chances = left_chances(6, 9, skew), np.zeros(9), [], []
        for turns in itertools.product([0, 1], repeat=6):  # 1 is right
            chance, path = 1.0, [start]
            for row, right in enumerate(turns):
                chance *= 1 - left[row, path[-1]] if right else left[row, path[-1]]
                path.append(path[-1] + ((0 if not right else 1) if row % 2 == 0 else (-1 if not right else 0)))
            sums[path[-1]] += chance
            paths.append(path)
            chances.append(chance)
        paths = np.float32(paths)
        np.testing.assert_allclose(log_prob(jnp.array([skew]), paths[:, -1], paths), np.log(chances), atol=2e-6)
        assert sums.sum() == pytest.approx(1)
        np.testing.assert_array_equal(galton_positions(board), np.flatnonzero(sums))
        np.testing.assert_allclose(law(board, skew), sums[sums > 0], rtol=3e-6)


@pytest.mark.parametrize(("board", "size"), [(galton, (20, 31)), (longer, (40, 61))], ids=["galton", "longer"])
def test_law_and_answers_are_the_float64_ones(board, size):
    for skew in (-1.0, -0.73, -0.4):
        truth = board_law(*size, np.float64(np.float32(skew)))
        assert truth.sum() == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(law(board, skew), truth, rtol=2e-5)
    x = board.draw(jax.random.key(1), [[-0.6]], 40)[0][0]
    grid = np.linspace(-1, -0.4, 801)
    place = np.asarray(x, int) - (size[1] // 2 - size[0] // 2)
    values = np.bincount(place, minlength=size[0] + 1) @ np.log(board_law(*size, grid))
    mean, std = moments(grid, values)
    exact = board.exact
    ours = jax.jit(lambda x: [each(x)[0] for each in (exact.mle, exact.posterior_mean, exact.posterior_std)])(x)
    assert abs(ours[0] - grid[np.argmax(values)]) < 1e-3
    np.testing.assert_allclose(ours[1:], [mean, std], rtol=3e-3)


def test_positions_are_the_published_bins():
    np.testing.assert_array_equal(galton_positions(galton), np.arange(5, 26))
    big = galton_positions(galton_board(200, num_nails=301))
    assert (big[0], big[-1], len(big)) == (50, 250, 201)


def test_predicting_no_difference_has_the_published_error():
    # Brehmer et al. 2018: numerator -0.8, denominator -0.6; 0.0632 is what every estimator has to beat.
    top, bottom = law(galton, -0.8), law(galton, -0.6)
    error = np.sum(bottom * np.log(top / bottom) ** 2)
    assert error == pytest.approx(0.0632, abs=1e-4)
    truth = [board_law(20, 31, skew) for skew in (-0.8, -0.6)]
    assert error == pytest.approx(np.sum(truth[1] * np.log(truth[0] / truth[1]) ** 2), rel=1e-5)


def test_noise_of_joint_ratios_on_a_large_board():
    # Of 200 rows, for -1 against -0.4: the joint ratio is almost all noise. The second moment of a product of steps is
    # rolled down like a probability.
    big = galton_board(200, num_nails=301)
    top, bottom = board_law(200, 301, -1.0), board_law(200, 301, -0.4)
    likely = bottom > 1e-12
    for skew, truth in ((-1.0, top), (-0.4, bottom)):
        np.testing.assert_allclose(law(big, skew)[likely], truth[likely], rtol=1e-4)
    p, q = left_chances(200, 301, -1.0), left_chances(200, 301, -0.4)
    second = roll_down(p**2 / q, (1 - p) ** 2 / (1 - q)).sum()
    signal = np.sum(top**2 / bottom)
    assert second - signal == pytest.approx(15_463, rel=1e-4)
    assert signal - 1 == pytest.approx(529, rel=1e-3)


def test_steep_boards_keep_finite_gold():
    # In the middle one of three rows p_left is a sigmoid alone, here of 78.4: against it every path is e^-78 unlikely.
    steep = galton_board(3, num_nails=101, start=1, low=-80.0, high=80.0, steepness=1.0)
    theta = np.array([[-80.0], [80.0]], np.float32)
    gold = steep.mine(jax.random.key(0), np.repeat(theta, 500, axis=0), theta)
    assert gold.failures == () and np.isfinite(gold.log_prob).all() and np.isfinite(gold.score).all()
    left = jnp.array([1.0, 1.0, 0.0, 0.0])
    value, slope = jax.jit(jax.value_and_grad(lambda theta: steep.log_prob(theta, left[-1], left)))(jnp.array([80.0]))
    assert value == pytest.approx(-80 * 0.98 - 2 * np.log(2), rel=1e-5)
    assert slope[0] == pytest.approx(-0.98, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_rows": 1}, "at least 2"),
        ({"num_rows": 40}, "-5 to 35 after 40 rows"),
        ({"start": 5}, "0 to 30; use more nails"),
        ({"low": 0.5, "high": 0.5}, "low must be below high"),
        ({"steepness": 100.0}, "must not exceed 80"),
    ],
)
def test_misuse_of_boards_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        galton_board(**options)


def test_misuse_of_their_laws_is_named():
    with pytest.raises(TypeError, match="galton_board"):
        galton_distribution(eft, jnp.array([0.1]))
    with pytest.raises(TypeError, match="galton_board"):
        galton_positions(gaussian)
    with pytest.raises(ValueError, match=r"shape \(1,\)"):
        galton_distribution(galton, jnp.array([-0.5, -0.6]))
