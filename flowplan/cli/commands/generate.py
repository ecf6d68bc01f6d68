"""`flowplan generate GENERATOR`: a command for each generator of the registry."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional

from flowplan.cli import console
from flowplan.cli.move import Move
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval

if TYPE_CHECKING:
    from flowplan.motion import Generator, SceneMotion
    from flowplan.scene import Instruction, Scene


def command(name: str) -> type[Any]:
    """The command of a generator: its instruction on the command line, its options as options."""
    from generators import registry

    base = FromPrompt if registry.takes(name) == "prompt" else FromAction
    kind = registry.options_type(name)
    options = ("options", Annotated[kind, tyro.conf.arg(name="")], field(default=kind()))
    made: type[Any] = make_dataclass(
        base.__name__, [options], bases=(base,), namespace={"generator": name}, frozen=True
    )
    made.__doc__ = base.__doc__
    return made


def summary(name: str) -> str:
    """A line on a generator for the list of commands."""
    from generators.registry import takes

    told = "a sentence" if takes(name) == "prompt" else "handles and targets"
    return f"the {name} generator: {told} to motion"


def with_device(name: str, device: str) -> Any:
    """Default options of a generator on a device.

    Raises:
        ValueError: if the generator runs on the CPU alone, and the device is a GPU.
    """
    from generators.registry import options_type

    options = options_type(name)()
    if hasattr(options, "device"):
        return replace(options, device=device)
    if device not in ("auto", "cpu"):
        raise ValueError(f"--device: expected auto or cpu for the generator {name}, got {device!r}")
    return options


class _OfGenerator:
    """The fields that `command` adds."""

    generator: str
    options: Any


@dataclass(frozen=True)
class FromAction(_OfGenerator):
    """Make a motion of a scene: a move of an object, or a JSON file of one (docs/tutorial.md)."""

    scene: Positional[Path]
    """Scene file."""
    instruction: Positional[Path | None] = None
    """JSON file with a move, or with handles, targets and, for kinematic, the law of motion."""
    move: Annotated[Move, tyro.conf.arg(name="")] = field(default_factory=Move)
    out: Path = Path("motion.npz")
    """Motion file to write."""
    seed: Annotated[int, Interval(0, math.inf)] = 0
    """Random seed."""
    articulate: Path | None = None
    """Scene file to write with the objects cut into rigid parts; the motion is one of that scene
    then, each part exactly along its joint. Defaults to none."""

    def __post_init__(self) -> None:
        bounds.check(self)

    def run(self) -> int:
        from flowplan.io import npz
        from flowplan.io.instruction import read_instruction
        from flowplan.scene import Scene
        from generators.registry import factory

        npz.writable_path(self.out)
        if self.articulate is not None:
            npz.writable_path(self.articulate)
        scene = npz.load(self.scene, Scene)
        if (self.instruction is None) == (self.move == Move()):
            raise ValueError(
                f"flowplan generate {self.generator}: expected either a move (--by, --turn, --on) "
                "or a JSON file, got both or neither"
            )
        laws, instruction = (
            self.move.told(scene)
            if self.instruction is None
            else read_instruction(self.instruction, scene)
        )
        make = factory(self.generator, self.options)(laws)
        motion = _generate(make, scene, instruction, self.seed)[0]
        if self.articulate is not None:
            motion = _articulated(scene, motion, instruction, self.articulate)
        _save(motion, self.out)
        return 0


@dataclass(frozen=True)
class FromPrompt(_OfGenerator):
    """Make a motion from a scene and a sentence, or a file of both (docs/chord.md)."""

    scene: Positional[Path]
    """Scene file, or a .toml file of objects, a prompt and a seed; its motions go to a folder."""
    instruction: Positional[Path | None] = None
    """JSON file with a prompt."""
    prompt: str = ""
    """Sentence to follow, in place of the file."""
    out: Path | None = None
    """Motion file to write. Defaults to motion.npz."""
    seed: Annotated[int, Interval(0, math.inf)] | None = None
    """Random seed. Defaults to 0, or to that of the .toml file."""
    articulate: Path | None = None
    """Scene file to write with the objects cut into rigid parts; the motion is one of that scene
    then, each part exactly along its joint. Defaults to none."""

    def __post_init__(self) -> None:
        bounds.check(self)

    def run(self) -> int:
        from generators.registry import factory

        if self.scene.suffix == ".toml":
            return self._run_scene_file()
        scene, instruction = self._told()
        make = factory(self.generator, self.options)(())
        motion = _generate(make, scene, instruction, self.seed or 0)[0]
        if self.articulate is not None:
            motion = _articulated(scene, motion, instruction, self.articulate)
        _save(motion, self.out or Path("motion.npz"))
        return 0

    def _run_scene_file(self) -> int:
        """Keep the scene, its motions, best first, and the generator's own files in a folder."""
        from flowplan.utils.files import locked
        from generators.chord.scene_file import read_job, write_motions
        from generators.registry import factory

        given = self.instruction or self.prompt or self.out or self.articulate
        if given or self.seed is not None:
            raise ValueError(
                f"flowplan generate {self.generator}: {self.scene} has its own prompt, seed and "
                "folder; give --folder alone"
            )
        job, options = read_job(self.scene), self.options
        folder = getattr(options, "folder", None) or Path("runs") / self.scene.stem
        if hasattr(options, "folder"):
            options = replace(options, folder=folder)
        make = factory(self.generator, options)(())
        with locked(folder):
            motions = _generate(make, job.scene, job.prompt, job.seed)
            write_motions(folder, job.scene, motions)
        seconds = motions[0].times[-1]
        console.say(f"{len(motions)} motions of {seconds:.2f} s; wrote {folder}/")
        return 0

    def _told(self) -> tuple[Scene, Instruction]:
        """The scene, and the sentence of the command line or of a JSON file."""
        from flowplan.io import npz
        from flowplan.io.instruction import read_instruction
        from flowplan.scene import Prompt, Scene

        if (self.instruction is None) == (not self.prompt):
            raise ValueError(
                f"flowplan generate {self.generator}: expected either --prompt or a JSON file "
                "with one, got both or neither"
            )
        scene = npz.load(self.scene, Scene)
        if self.instruction is None:
            return scene, Prompt(self.prompt)
        return scene, read_instruction(self.instruction, scene)[1]


def _generate(
    generator: Generator, scene: Scene, instruction: Instruction, seed: int
) -> list[SceneMotion]:
    with console.progress("generating") as tell:
        return generator(scene, instruction, seed=seed, progress=tell)


def _articulated(
    scene: Scene, motion: SceneMotion, instruction: Instruction, out: Path
) -> SceneMotion:
    """The motion of the scene cut into rigid parts, which is written."""
    from flowplan.articulation import articulate
    from flowplan.collision.phase_geometry import is_deformable
    from flowplan.io import npz
    from flowplan.scene import Action

    bends = [is_deformable(scene, motion, i) for i in range(len(scene.objects))]
    action = instruction if isinstance(instruction, Action) else None
    made = articulate(scene, motion, action=action, deformable=bends)
    npz.save(out, made.scene)
    for report in made.objects:
        told = report.reason or f"vertices moved by up to {report.projected_mm:.0f} mm"
        console.say(f"{report.name}: {told}")
    console.say(f"wrote {out}")
    return made.motion


def _save(motion: SceneMotion, out: Path) -> None:
    from flowplan.io import npz

    npz.save(out, motion)
    console.say(f"{len(motion.times)} frames over {motion.times[-1]:.2f} s; wrote {out}")
