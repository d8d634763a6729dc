"""The version of the installed package; `pyproject.toml` is where it is written."""


def version() -> str:
    """Such as `0.1.0`; `unknown` when the package runs from a folder and is not installed."""
    from importlib import metadata  # 20 ms that only those who ask should wait

    try:
        return metadata.version("quincunx")
    except metadata.PackageNotFoundError:
        return "unknown"
