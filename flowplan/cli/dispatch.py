"""Commands by name: the first words of a command line choose a record, the rest fill in its fields.

The help of one command imports neither the other commands nor what any of them works with. A
caller's mistake is one line on stderr and exit status 2, an interruption 130, a termination 143.
"""

from __future__ import annotations

import difflib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from flowplan.cli import console

_COMMANDS = "flowplan.cli.commands"


@dataclass(frozen=True)
class Command:
    """A command, imported when it is called.

    Attributes:
        where: `module:record` in flowplan.cli.commands.
        summary: one line for the list of commands.
    """

    where: str
    summary: str

    def record(self) -> type[Any]:
        """The record whose fields are the options."""
        module, _, name = self.where.partition(":")
        kind: type[Any] = getattr(import_module(f"{_COMMANDS}.{module}"), name)
        return kind


@dataclass(frozen=True)
class GeneratorCommand:
    """The command of a generator of the registry.

    Attributes:
        name: name of the generator.
    """

    name: str

    @property
    def summary(self) -> str:
        """One line for the list of commands."""
        from flowplan.cli.commands import generate

        return generate.summary(self.name)

    def record(self) -> type[Any]:
        """The record whose fields are the options."""
        from flowplan.cli.commands import generate

        return generate.command(self.name)


@dataclass(frozen=True)
class Group:
    """Commands that share their first word.

    Attributes:
        summary: one line for the list of commands.
        load: the commands by their second word.
    """

    summary: str
    load: Callable[[], Mapping[str, Command | GeneratorCommand]]


def _group(summary: str, **commands: Command) -> Group:
    return Group(summary, lambda: commands)


def _generators() -> Mapping[str, Command | GeneratorCommand]:
    from flowplan.cli import names

    return {name: GeneratorCommand(name) for name in names.generators()}


COMMANDS: dict[str, Command | Group] = {
    "scan": Command("scan:Scan", "make a scene from depth frames, a mesh, a point cloud or a URDF"),
    "generate": Group("make a motion of a scene with one of the generators", _generators),
    "check": Command("plan:Check", "report on a motion: bending, tears, overlaps, what floats"),
    "plan": Command("plan:Plan", "plan a motion for a robot, with a feasibility report"),
    "run": Command("run:Run", "scan, generate, plan, execute and measure a task in simulation"),
    "eval": _group(
        "measure success and accuracy",
        tasks=Command("evaluate:Tasks", "simulated tasks: success shares and failures by kind"),
        motions=Command("evaluate:Motions", "motions of generators: bending, tears, overlaps"),
        neurok=Command("evaluate:Neurok", "NeuROK's network by itself, beside baselines"),
        chord=Command("evaluate:Chord", "CHORD on held-out prompted scenes, beside baselines"),
    ),
    "bench": _group(
        "measure speed and quality",
        plan=Command("bench:Plan", "time per certified plan, and the share of problems solved"),
        grasp=Command("bench:Grasp", "throughput of the grasp proposer"),
        shake=Command("bench:Shake", "grasps that hold when shaken in simulation"),
        certify=Command("bench:Certify", "plans replayed by an oracle: what certificates miss"),
        parts=Command("bench:Parts", "parts and joints found in motions, against the truth"),
        ros=Command("bench:Ros", "the simulated cell over ROS 2: hangs, crashes, latencies"),
        wan=Command("bench:Wan", "time and memory of CHORD's video models on a GPU"),
    ),
    "train": _group(
        "train a generator's network",
        neurok=Command("train:Neurok", "NeuROK, on procedural objects"),
        choreographer=Command("train:Choreographer", "CHORD's small video model, on scenes"),
    ),
    "view": Command("view:View", "show a run's folder in the browser"),
    "articulate": Command(
        "export:Articulate", "find the parts and joints of an object in motion, as a URDF"
    ),
    "export": Command("export:Export", "write a scene's motion as animated glTF"),
    "ros": _group(
        "talk to the ROS 2 nodes",
        send=Command("ros:Send", "send an instruction: scan, flow, plan, execute"),
    ),
    "doctor": Command("doctor:Doctor", "check the installation; each problem with its remedy"),
}


def main() -> None:
    """Entry point of `flowplan`."""
    signal.signal(signal.SIGTERM, _terminated)
    with console.prepared():
        status = _guarded(sys.argv[1:])
    sys.exit(status)


def _terminated(*_: object) -> None:
    """End by an exception, which removes temporary files and ends worker processes on its way."""
    raise SystemExit(143)


def commands() -> dict[tuple[str, ...], Command | GeneratorCommand]:
    """Every command by its words, such as ("bench", "plan")."""
    found: dict[tuple[str, ...], Command | GeneratorCommand] = {}
    for name, entry in COMMANDS.items():
        if isinstance(entry, Group):
            found |= {(name, second): command for second, command in entry.load().items()}
        else:
            found[name,] = entry
    return found


def call(words: Sequence[str]) -> int:
    """Run a command line without the program's name; the exit status.

    Raises:
        ValueError: the command line is not understood, or a value is not valid.
        SystemExit: after `--help`.
    """
    return _call("flowplan", COMMANDS, words)


def _guarded(words: Sequence[str]) -> int:
    try:
        status = call(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader has gone. What is still buffered goes nowhere, and nobody is told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError) as error:
        console.error(str(error))
        return 2
    except KeyboardInterrupt as interrupt:
        console.note(str(interrupt) or "interrupted")  # long work says how to resume
        return 130
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0


def _call(prog: str, table: Mapping[str, Any], words: Sequence[str]) -> int:
    word, rest = (words[0], words[1:]) if words else ("", [])
    if word in ("-h", "--help"):
        console.say(_listing(prog, table))
        return 0
    if word == "--version" and prog == "flowplan":
        from importlib.metadata import version

        console.say(f"flowplan {version('flowplan')}")
        return 0
    if word not in table:
        raise ValueError(_unknown(prog, table, word))
    entry = table[word]
    if isinstance(entry, Group):
        return _call(f"{prog} {word}", entry.load(), rest)

    from flowplan.cli import parser

    command = parser.parse(entry.record(), f"{prog} {word}", rest)
    return int(command.run())


def _unknown(prog: str, table: Mapping[str, Any], word: str) -> str:
    names = ", ".join(table)
    if not word:
        return f"{prog}: expected a command, one of {names}; see {prog} --help"
    near = difflib.get_close_matches(word, table, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {names}"
    return f"{prog}: unknown command {word!r}; {hint}"


def _listing(prog: str, table: Mapping[str, Any]) -> str:
    width = max(map(len, table))
    title = _title(prog)
    rows = [f"  {name:<{width}}  {entry.summary}" for name, entry in table.items()]
    return "\n".join(
        [
            f"usage: {prog} COMMAND ...",
            "",
            f"{title}.",
            "",
            *rows,
            "",
            f"{prog} COMMAND --help shows the options of a command.",
        ]
    )


def _title(prog: str) -> str:
    if prog == "flowplan":
        return "From dense object flow to certified robot motion"
    summary = COMMANDS[prog.split()[-1]].summary
    return summary[0].upper() + summary[1:]
