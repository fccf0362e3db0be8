"""The command line: `postroom`."""

from postroom.cli.main import main

__all__ = ["main"]
