"""`flowplan export` and `flowplan articulate`: motions and joints for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

from flowplan.cli import console
from flowplan.cli.parser import Options
from flowplan.utils import bounds

if TYPE_CHECKING:
    from flowplan.motion import SceneMotion
    from flowplan.scene import Scene


@dataclass(frozen=True)
class Export:
    """Write a scene's motion as animated glTF (.glb)."""

    scene: Positional[Path]
    """Scene file."""
    motion: Positional[Path]
    """Motion file."""
    out: Positional[Path]
    """File to write, .glb."""

    def run(self) -> int:
        from flowplan.io import npz
        from flowplan.io.gltf import export_gltf
        from flowplan.motion import SceneMotion
        from flowplan.scene import Scene

        scene, motion = npz.load(self.scene, Scene), npz.load(self.motion, SceneMotion)
        export_gltf(self.out, scene, motion)
        console.say(f"wrote {self.out}")
        return 0


@dataclass(frozen=True)
class Articulate:
    """Find the rigid parts and joints of an object in one motion of it, and write them as a URDF.

    Exit status 1 if the object is deformable.
    """

    scene: Positional[Path]
    """Scene file."""
    motion: Positional[Path]
    """Motion file."""
    out: Path = Path("object.urdf")
    """URDF to write; its meshes go to a folder beside it."""
    object: str | None = None
    """Name of the object. Defaults to the one that moves furthest."""
    scene_out: Path | None = None
    """Scene file to write, in which every moving object is cut into its parts."""
    motion_out: Path | None = None
    """Motion file to write: the motion of that scene, each part exactly along its joint."""
    options: Annotated[Any, Options("flowplan.articulation.options:ArticulationOptions")] = None

    def __post_init__(self) -> None:
        bounds.check(self)

    def run(self) -> int:
        from dataclasses import replace

        from flowplan.articulation import estimate_object, export_urdf
        from flowplan.articulation.estimation import moving_objects
        from flowplan.io import npz
        from flowplan.motion import SceneMotion
        from flowplan.scene import Scene
        from flowplan.utils.files import check_folder

        check_folder(self.out)
        for path in (self.scene_out, self.motion_out):
            if path is not None:
                npz.writable_path(path)
        scene, motion = npz.load(self.scene, Scene), npz.load(self.motion, SceneMotion)
        moving = moving_objects(motion)
        if self.object is None and not moving:
            raise ValueError(f"{self.motion}: nothing moves, so no joint can be seen")
        index = moving[0] if self.object is None else scene.index(self.object)
        found = estimate_object(scene, motion, index, self.options)
        obj = scene.objects[index]
        if found.deformable:
            console.say(
                f"{obj.name} is deformable: rigid parts leave {100 * found.share:.0f} % of its "
                "way over; nothing is written"
            )
            return 1
        for line in _lines(found.articulation):
            console.say(line)
        if self.scene_out or self.motion_out:
            self._cut(scene, motion)
        export_urdf(self.out, replace(obj, articulation=found.articulation))
        console.say(f"wrote {self.out}")
        return 0

    def _cut(self, scene: Scene, motion: SceneMotion) -> None:
        """Write the scene cut into parts and their motion."""
        from flowplan.articulation import articulate
        from flowplan.io import npz

        made = articulate(scene, motion, self.options)
        for path, record in ((self.scene_out, made.scene), (self.motion_out, made.motion)):
            if path is not None:
                npz.save(path, record)
                console.say(f"wrote {path}")
        for report in made.objects:
            told = report.reason or f"vertices moved by up to {report.projected_mm:.0f} mm"
            console.say(f"{report.name}: {told}")


def _lines(articulation: Any) -> list[str]:
    """A line for each joint."""
    lines = [f"{len(articulation.parts)} parts"]
    for j in articulation.joints:
        turns = j.kind in ("revolute", "screw")
        unit, scale = ("deg", 57.29578) if turns else ("mm", 1e3)
        axis = " ".join(f"{x:.3f}" for x in j.axis)
        lines.append(
            f"{articulation.parts[j.child]} on {articulation.parts[j.parent]}: {j.kind}, axis "
            f"{axis}, {scale * j.lower:.1f} to {scale * j.upper:.1f} {unit} seen, "
            f"{1e3 * j.residual:.1f} mm left over, confidence {j.confidence:.2f}"
        )
    return lines
