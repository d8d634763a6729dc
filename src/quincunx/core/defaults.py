"""What the command line says before JAX is imported: defaults shown in its help, and the version."""

METHOD = "alfi"
SEED = 0


def version() -> str:
    """Such as `0.1.0`; `unknown` when the package runs from a folder and is not installed."""
    from importlib import metadata  # 20 ms that only those who ask should wait

    try:
        return metadata.version("quincunx")
    except metadata.PackageNotFoundError:
        return "unknown"
