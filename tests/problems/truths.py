"""What is true of the problems, in float64, by other means than the package's own."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import integrate, special, stats

MIXING = np.array(
    [
        [1.31229955, 0.10499961, 0.48310515, -0.3249938, -0.26387927],
        [0.10499961, 1.15833058, -0.55865473, 0.25275522, -0.39790775],
        [0.48310515, -0.55865473, 2.25874579, -0.52087938, -0.39271231],
        [-0.3249938, 0.25275522, -0.52087938, 1.4034925, -0.63521059],
        [-0.26387927, -0.39790775, -0.39271231, -0.63521059, 1.0],
    ]
)
COVARIANCE = np.array([[1, 0.5], [0.5, 1]])


# -- moments of densities on grids ------------------------------------------------------------


def moments(points, log_density):
    """Mean and standard deviation of a density on equally spaced points."""
    density = np.exp(log_density - np.max(log_density))
    total = integrate.simpson(density)
    mean = integrate.simpson(density * points) / total
    return mean, np.sqrt(integrate.simpson(density * (points - mean) ** 2) / total)


def narrowed(log_density, low, high, size):
    """Points where a density is above e^-40 of its maximum."""
    for _ in range(8):
        points = np.linspace(low, high, size)
        values = log_density(points)
        kept = np.flatnonzero(values >= np.max(values) - 40)
        low, high = points[max(kept[0] - 1, 0)], points[min(kept[-1] + 1, size - 1)]
    return np.linspace(low, high, 2 * size - 1)


def zoom(log_density, low, high):
    points = narrowed(log_density, low, high, 2001)
    return moments(points, log_density(points))


# -- counts ----------------------------------------------------------------------------------


def chi_square(counts, law):
    """p-value of counts against a discrete law, with cells of at least 10 expected."""
    size, cells = len(counts), np.arange(int(law.ppf(1e-9)), int(law.isf(1e-9)) + 1)
    expected = size * law.pmf(cells)
    inner = cells[expected >= 10]
    low, high = inner[0], inner[-1]
    edges = [size * law.cdf(low), *expected[(cells > low) & (cells < high)], size * law.sf(high - 1)]
    observed = np.bincount(np.clip(counts, low, high) - low, minlength=high - low + 1)
    return stats.chisquare(observed, np.array(edges) * size / np.sum(edges)).pvalue


def poisson_density(theta, x):
    return stats.poisson.logpmf(x, np.exp(theta[0]))


def poisson_p(theta, x):
    return [chi_square(np.asarray(x, int), stats.poisson(np.exp(theta[0])))]


def poisson_moments(x):
    return [zoom(lambda t: np.sum(x) * t - len(x) * np.exp(t), float(np.float32(0.2)), 7)]


# -- a line ----------------------------------------------------------------------------------


def line_density(theta, x):
    return stats.norm.logpdf(x[:, 1], np.tan(theta[0]) * x[:, 0] + theta[1], 0.1) - np.log(2)


def line_p(theta, x):
    noise = (x[:, 1] - np.tan(theta[0]) * x[:, 0] - theta[1]) / 0.1
    uniform, normal = stats.kstest(x[:, 0], stats.uniform(-1, 2).cdf), stats.kstest(noise, stats.norm.cdf)
    return [uniform.pvalue, normal.pvalue, stats.spearmanr(x[:, 0], noise).pvalue]


def line_moments(x):
    """By an integral over the angle of integrals over the offset, both numerical."""
    (u, y), tau = x.T, 0.1 / np.sqrt(len(x))
    spread, product = np.sum((u - u.mean()) ** 2), np.sum((u - u.mean()) * (y - y.mean()))

    def offsets(angles):
        location = y.mean() - np.tan(angles) * u.mean()
        nearest = np.clip(location, -1, 1)
        low, high = np.maximum(-1, nearest - 10 * tau), np.minimum(1, nearest + 10 * tau)
        grid = low + (high - low) * np.linspace(0, 1, 301)[:, None]
        shape = np.exp(-0.5 * ((grid - location) ** 2 - (nearest - location) ** 2) / tau**2)
        over = lambda f: integrate.simpson(shape * f, axis=0) * (high - low)
        mass, first = over(1.0), over(grid)
        square = over((grid - first / mass) ** 2) / mass
        return np.log(mass) - 0.5 * ((nearest - location) / tau) ** 2, first / mass, square

    def log_density(angles):
        slope = np.tan(angles)
        return -0.5 * (spread * slope**2 - 2 * product * slope) / 0.01 + offsets(angles)[0]

    angles = narrowed(log_density, 0.0, np.pi / 2, 601)
    values = log_density(angles)
    _, mean, square = offsets(angles)
    weight = np.exp(values - values.max())
    average = lambda f: integrate.simpson(weight * f) / integrate.simpson(weight)
    offset = average(mean)
    return [moments(angles, values), (offset, np.sqrt(average(square + (mean - offset) ** 2)))]


# -- five observables ------------------------------------------------------------------------


def latents(x):
    return np.linalg.solve(MIXING, np.transpose(x))


def latent_laws(theta):
    mixture = lambda of: lambda v: 0.5 * of(v, -2, 0.5) + 0.5 * of(v, 2, 1)
    first = [stats.norm(theta[0], 1), stats.norm(3, np.exp(theta[1] / 3))]
    last = [stats.uniform(-5, theta[2] + 5), stats.expon(scale=2)]
    pdfs, cdfs = ([getattr(law, what) for law in first + last] for what in ("pdf", "cdf"))
    return [*pdfs[:2], mixture(stats.norm.pdf), *pdfs[2:]], [*cdfs[:2], mixture(stats.norm.cdf), *cdfs[2:]]


def multivariate_density(theta, x):
    z = latents(x)  # the edges forgive 1e-5, the rounding of the mixing in float32
    z[3] += 1e-5 * ((z[3] < -5) * 1.0 - (z[3] > theta[2]))
    z[4] += 1e-5 * (z[4] < 0)
    with np.errstate(divide="ignore"):
        logs = [np.log(pdf(values)) for pdf, values in zip(latent_laws(theta)[0], z, strict=True)]
    return np.sum(logs, axis=0) - np.linalg.slogdet(MIXING)[1]


def multivariate_p(theta, x):
    z = latents(x)
    single = [stats.kstest(values, cdf).pvalue for values, cdf in zip(z, latent_laws(theta)[1], strict=True)]
    correlations = np.corrcoef(z)[np.triu_indices(5, 1)]
    return [*single, stats.chi2.sf(len(x) * np.sum(correlations**2), 10)]


def multivariate_moments(x):
    z, m = latents(x), len(x)
    spread = np.sum((z[1] - 3) ** 2)
    return [
        zoom(lambda t: -0.5 * m * (t - np.mean(z[0])) ** 2, -3, 3),
        zoom(lambda t: -m * t / 3 - 0.5 * spread * np.exp(-2 * t / 3), -3, 3),
        zoom(lambda t: -m * np.log(t + 5), max(np.max(z[3]), -3), 3),
    ]


# -- electrons and positrons -----------------------------------------------------------------


def strength(energy):
    return 2 * np.tanh(10 * (2 * energy - 90) / 90)


@functools.cache
def area(a):
    """Integral of the clipped density of x at an asymmetry, numerical."""
    kink = -a / 2 + np.copysign(np.sqrt(max(a * a / 4 - 1, 0)), a)
    return integrate.quad(lambda v: max(1 + v * v + a * v, 0), -1, 1, points=[kink] if abs(a) > 2 else None)[0]


def density_of_asymmetry(a, x):
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(1 + x**2 + a * x, 0) / area(float(a)))


def weinberg_density(theta, x):
    return density_of_asymmetry(strength(theta[0]) * theta[1], x)


def weinberg_p(theta, x):
    grid = np.linspace(-1, 1, 20_001)
    cdf = integrate.cumulative_simpson(np.exp(weinberg_density(theta, grid)), x=grid, initial=0)
    return [stats.kstest(x, lambda v: np.interp(v, grid, cdf)).pvalue]


def weinberg_moments(x):
    middles = lambda n: (np.arange(n) + 0.5) / n
    energy, fermi = 40 + 10 * middles(3000)[:, None], 0.5 + middles(500)[None]
    nodes = np.linspace(-2.4135, 2.4135, 2001)
    values = np.array([np.sum(density_of_asymmetry(a, x)) for a in nodes])
    weight = np.interp(strength(energy) * fermi, nodes, np.exp(values - np.max(values)))
    weight /= np.sum(weight)
    means = [np.sum(weight * axis) for axis in (energy, fermi)]
    return [
        (mean, np.sqrt(np.sum(weight * (axis - mean) ** 2))) for axis, mean in zip((energy, fermi), means, strict=True)
    ]


# -- a Gaussian ------------------------------------------------------------------------------


def gaussian_density(theta, x):
    return stats.multivariate_normal.logpdf(x - theta, np.zeros(2), COVARIANCE)


def gaussian_p(theta, x):
    white = np.linalg.solve(np.linalg.cholesky(COVARIANCE), np.transpose(x - theta))
    return [*(stats.kstest(axis, stats.norm.cdf).pvalue for axis in white), stats.pearsonr(*white).pvalue]


def gaussian_moments(x):
    precision = np.eye(2) / 9 + len(x) * np.linalg.inv(COVARIANCE)
    mean = np.linalg.solve(precision, np.linalg.solve(COVARIANCE, np.sum(x, 0)))
    return list(zip(mean, np.sqrt(np.diag(np.linalg.inv(precision))), strict=True))


# -- Galton's board --------------------------------------------------------------------------


def left_chances(num_rows, num_nails, skew, steepness=10.0):
    """p_left, `(num_rows, num_nails, *skew.shape)`."""
    nails = 2 * np.arange(num_nails) / (num_nails - 1) - 1
    bend = np.sin(np.pi * np.arange(num_rows) / (num_rows - 1)).reshape((-1,) + (1,) * (1 + np.ndim(skew)))
    return (1 - bend) / 2 + bend * special.expit(steepness * np.multiply.outer(nails, skew))


def roll_down(left, right):
    """The last row of the sum over all paths from the middle, of products of their steps' weights."""
    weight = np.zeros(left.shape[1:])
    weight[len(weight) // 2] = 1
    for row, (to_left, to_right) in enumerate(zip(left, right, strict=True)):
        stay, go = (to_left, to_right) if row % 2 == 0 else (to_right, to_left)
        weight = stay * weight + np.roll(go * weight, 1 if row % 2 == 0 else -1, axis=0)
    return weight


def board_law(num_rows, num_nails, skew):
    """p(x | skew) of the positions that can be reached, `(num_rows + 1, *skew.shape)`."""
    left = left_chances(num_rows, num_nails, skew)
    first = num_nails // 2 - num_rows // 2
    return roll_down(left, 1 - left)[first : first + num_rows + 1]


def galton_density(theta, x):
    return np.log(board_law(20, 31, theta[0]))[np.asarray(x, int) - 5]


def galton_p(theta, x):
    counts, chances = np.bincount(np.asarray(x, int) - 5, minlength=21), board_law(20, 31, theta[0])
    full = len(x) * chances >= 10
    merged = lambda each: np.append(each[full], each[~full].sum())
    return [stats.chisquare(merged(counts), len(x) * merged(chances)).pvalue]


def galton_moments(x):
    grid = np.linspace(-1, -0.4, 801)
    return [moments(grid, np.bincount(np.asarray(x, int) - 5, minlength=21) @ np.log(board_law(20, 31, grid)))]


# -- pairs of fermions -----------------------------------------------------------------------


def gauss(limits, pieces, order=20):
    nodes, weights = np.polynomial.legendre.leggauss(order)
    edges = np.linspace(*limits, pieces + 1)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (nodes + 1)).ravel(), (half * weights).ravel()


LOG_ENERGIES, COSINES = gauss((np.log(0.25), np.log(4)), 24), gauss((-1.0, 1.0), 12)


def parton_density(theta, log_energy, cosine):
    """E^-4 sum_h |M_h|^2 (1 + h cosine)^2 with complex amplitudes, before any cut."""
    growth, total = np.exp(2 * log_energy), 0.0
    for h, standard_model in ((1, 1 + 0.3j), (-1, 0.5 + 0.3j)):
        amplitude = standard_model + theta[0] * growth + h * theta[1] * growth
        total = total + np.abs(amplitude) ** 2 * (1 + h * cosine) ** 2
    return np.exp(-4 * log_energy) * total


def passing(true, low, high, error):
    return special.ndtr((high - true) / error) - special.ndtr((low - true) / error)


def cross_section(theta):
    """Of the events that pass the cuts."""
    (u, du), (c, dc) = LOG_ENERGIES, COSINES
    density = parton_density(theta, u[:, None], c)
    return (passing(u, np.log(0.4), np.log(3), 0.12) * du) @ density @ (passing(c, -0.9, 0.9, 0.15) * dc)


def eft_density(theta, x):
    (u, du), (c, dc) = LOG_ENERGIES, COSINES
    seen = np.exp(-0.5 * ((x[:, :1] - u) / 0.12) ** 2) * du, np.exp(-0.5 * ((x[:, 1:] - c) / 0.15) ** 2) * dc
    smeared = np.einsum("nu,uc,nc->n", seen[0], parton_density(theta, u[:, None], c), seen[1], optimize=True)
    return np.log(smeared / (2 * np.pi * 0.12 * 0.15) / cross_section(theta))


# -- all of them -----------------------------------------------------------------------------


class Truth(NamedTuple):
    """What is known of a problem.

    Fields
    ------
    columns, event_shape: names of the parameters, and the shape of an observation.
    log_density: (theta, x `(m, *event)`) -> `(m,)`.
    p_values: (theta, x) -> p-values of tests that x follows the law at theta; None where the laws of gold say it.
    moments: x -> (mean, standard deviation) of the posterior of each parameter; None where it is not known.
    """

    columns: tuple
    event_shape: tuple
    log_density: Callable
    p_values: Callable | None = None
    moments: Callable | None = None


THETAS = {  # the middle of the prior, its edges, and known hard places
    "poisson": [[0.2], [1.0], [4.0], [7.0]],
    "linear_regression": [[0.0, 0.3], [0.6, 1.0], [1.1, -1.0], [np.arctan(30.0), 0.2]],
    "multivariate": [[0.0, 0.0, 0.0], [-3.0, -3.0, -3.0], [3.0, 3.0, 3.0], [3.0, -1.0, 2.5]],
    "weinberg": [[45.0, 1.0], [40.0, 0.5], [40.0, 1.5], [50.0, 1.5], [42.0, 0.9], [49.0, 1.4]],
    "gaussian": [[0.0, 0.0], [-6.0, 9.0], [1.0, 2.0]],
    "galton": [[-0.4], [-0.7], [-1.0]],
    "eft": [[0.0, 0.0], [1.0, 1.0], [-1.0, -1.0], [-0.6, 0.8], [0.3, -0.45]],
}
TRUTHS = {
    "poisson": Truth(("log_rate",), (), poisson_density, poisson_p, poisson_moments),
    "linear_regression": Truth(("angle", "offset"), (2,), line_density, line_p, line_moments),
    "multivariate": Truth(
        ("mean", "log_scale", "bound"), (5,), multivariate_density, multivariate_p, multivariate_moments
    ),
    "weinberg": Truth(("energy", "fermi"), (), weinberg_density, weinberg_p, weinberg_moments),
    "gaussian": Truth(("mean[0]", "mean[1]"), (2,), gaussian_density, gaussian_p, gaussian_moments),
    "galton": Truth(("skew",), (), galton_density, galton_p, galton_moments),
    "eft": Truth(("c1", "c2"), (2,), eft_density),
}
