"""`python -m quincunx` is the command `quincunx`."""

from .cli.app import main

if __name__ == "__main__":
    main()
