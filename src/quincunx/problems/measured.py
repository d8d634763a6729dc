"""Data that were measured, not simulated: tables that come with the package, by name."""

from pathlib import Path

from ..core.names import nearest

FOLDER = Path(__file__).parent / "data"


def data_file(name: str) -> Path:
    """The path of a CSV file that comes with the package; its first lines say what was measured, and by whom.

    There are "rutherford_geiger_1910", the counts of alpha particles, and "hare_lynx_1900_1920", pelts by year.

    Raises
    ------
    ValueError: no such file (the nearest name is told).
    """
    known = sorted(path.stem for path in FOLDER.glob("*.csv"))
    if name not in known:
        raise ValueError(f"there are no data called {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    return FOLDER / f"{name}.csv"
