"""Reproductions of published results, each one module with a `main(folder)`."""
