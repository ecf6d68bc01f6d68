"""The command line."""

from flowplan.cli.app import main

__all__ = ["main"]
