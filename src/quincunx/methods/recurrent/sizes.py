"""How many observations the simulated sets have that a machine learns from, and those that calibrate it."""

import numpy as np

from ..method import Budget

FEWEST_OF_A_SIZE = 8
CALIBRATING = 0.3  # of the budget
FEWEST_CALIBRATING, ENOUGH_CALIBRATING = 100, 200  # sets, in all, and of one size
SMALL_CALIBRATING = 0.08  # of that, at most, for each of the sizes but the largest


def sizes_for(count: int | None) -> tuple[int, int]:
    """Observations in most simulated sets and in the largest, for data sets of so many, or of any number."""
    if count is None:
        return 100, 3000
    return (count, count) if count < 100 else (100, round(1.15 * count))


def layout(budget: int, common: int, most: int) -> dict[int, int]:
    """Observations per set -> observations in all sets of that size, so that one machine serves many sizes.

    About half of the budget goes to sets of `common` observations, the rest to fewer, larger sets of up to `most`;
    sizes that it does not give a few sets of are left out.
    """
    ratio = most / common
    if ratio <= 1.5:
        return {most: budget}
    parts = [(most, 1 / 3)] if ratio <= 6 else [(common * 5, 0.3), (most, 0.3)]
    larger = {size: share for size, part in parts if (share := int(part * budget)) >= FEWEST_OF_A_SIZE * size}
    return {common: budget - sum(larger.values()), **larger}


def calibration_sizes(budget: Budget, largest: int) -> dict[int, int]:
    """Observations in a set -> sets, from a few observations to the largest training set, which get most of it.

    Two more of the size below the largest are cut from each of those. Empty where the machine's widths do not matter,
    or too little can be spent on them.
    """
    sizes = np.unique(np.geomspace(min(10, largest), largest, 5).round().astype(int))[::-1].tolist()
    most = CALIBRATING * budget.num_simulations
    small = {size: min(ENOUGH_CALIBRATING, int(SMALL_CALIBRATING * most / size)) for size in sizes[2:]}
    rest = most - sum(size * sets for size, sets in small.items())
    found = {largest: min(ENOUGH_CALIBRATING, int(rest / largest)), **small}
    enough = sum(found.values()) >= FEWEST_CALIBRATING and not budget.refined
    return {size: sets for size, sets in found.items() if sets} if enough else {}
