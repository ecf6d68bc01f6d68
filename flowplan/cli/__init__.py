"""The command line: `flowplan COMMAND ...`.

Each command is a record in a module of `flowplan.cli.commands`: its fields are the options, its
docstring the help, and `run` the work. The table in `flowplan.cli.dispatch` names them.
"""

from flowplan.cli.dispatch import main

__all__ = ["main"]
