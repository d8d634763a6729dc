"""Fisher information from scores, mined or estimated, and the smallest covariance that it allows."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.solution import Array


@dataclasses.dataclass(frozen=True)
class FisherInformation:
    """How much an experiment says about the parameters at one theta.

    Fields
    ------
    names: of the parameters.
    matrix: `(dim, dim)`; entry (i, j) has units 1 / (unit of i x unit of j).
    error: Monte Carlo standard error of each entry.
    num_observations: m of the experiment; 1 or any other number, fractions too.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    error: np.ndarray
    num_observations: float

    @property
    def covariance(self) -> np.ndarray:
        """`(dim, dim)`, the smallest covariance of any unbiased estimate (Cramer 1946, Rao 1945).

        Raises
        ------
        ValueError: the information is singular: some combination of the parameters leaves the data unchanged.
        """
        scale = np.sqrt(np.diag(self.matrix))
        if (scale <= 0).any() or np.linalg.eigvalsh(self.matrix / np.outer(scale, scale))[0] < 1e-6:
            raise ValueError(
                f"the information on {', '.join(self.names)} is singular: some combination of them does not change "
                "the data, and has no bound; hold a parameter fixed"
            )
        return np.linalg.inv(self.matrix / np.outer(scale, scale)) / np.outer(scale, scale)

    @property
    def std(self) -> np.ndarray:
        """`(dim,)`, the smallest standard errors, in the units of the parameters, the others being unknown too."""
        return np.sqrt(np.diag(self.covariance))

    def table(self) -> str:
        """Plain text: each entry with its error."""
        cells = [
            [f"{value:.4g} +- {error:.1g}" for value, error in zip(*rows, strict=True)]
            for rows in zip(self.matrix, self.error, strict=True)
        ]
        width = max(len(text) for text in [*self.names, *(cell for row in cells for cell in row)])
        head = "  ".join(f"{name:>{width}}" for name in ("", *self.names))
        lines = [
            "  ".join(f"{cell:>{width}}" for cell in (name, *row)) for name, row in zip(self.names, cells, strict=True)
        ]
        return "\n".join([head, *lines])

    def to_dict(self) -> dict[str, Any]:
        return {
            "parameters": list(self.names),
            "num_observations": self.num_observations,
            "matrix": self.matrix.tolist(),
            "error": self.error.tolist(),
        }


def fisher_information(scores: Array, names: Sequence[str], *, num_observations: float = 1) -> FisherInformation:
    """I = m E[t t^T] at the theta at which the scores were taken, with Monte Carlo errors.

    Scores of single observations x ~ p(x | theta) give the information in x; joint scores of x and its latent path,
    as `mine` returns them, that in both together, which is an upper bound of it (Brehmer et al. 2018,
    arXiv:1805.00020, section II.D). Computed in float64.

    Parameters
    ----------
    scores: grad_theta log p `(n, dim)`, in 1 / units of the parameters.
    names: of the parameters, `dim` of them.
    num_observations: m, the size of the experiment.

    Raises
    ------
    ValueError: wrong shapes, fewer than 2 scores, NaN or infinity, a size that is not positive.
    """
    t, names = np.asarray(scores, np.float64), (names,) if isinstance(names, str) else tuple(names)
    if t.ndim != 2 or t.shape[1] != len(names) or len(t) < 2:
        raise ValueError(
            f"scores: expected shape (n, {len(names)}) with n of 2 or more, a column for each of {names}, got {t.shape}"
        )
    if not np.isfinite(t).all():
        raise ValueError(
            f"{int((~np.isfinite(t)).any(axis=1).sum())} of {len(t)} scores are NaN or infinite; drop or mend them"
        )
    if not num_observations > 0:
        raise ValueError(f"num_observations must be positive, got {num_observations}")
    products = t[:, :, None] * t[:, None, :]
    error = np.std(products, axis=0, ddof=1) / np.sqrt(len(t))
    size = float(num_observations)
    return FisherInformation(names, size * products.mean(axis=0), size * error, size)
