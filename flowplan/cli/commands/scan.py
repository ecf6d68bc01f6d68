"""`flowplan scan`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from flowplan.cli import console
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval


@dataclass(frozen=True)
class Scan:
    """Make a scene from a folder of depth frames, a mesh, a point cloud or a URDF."""

    source: Positional[Path]
    """Folder of PNG depth images with JSON, or a file (.obj .ply .stl .glb .pcd .urdf ...)."""
    out: Path = Path("scene.npz")
    """Scene file to write."""
    unit: Literal["m", "cm", "mm", "in"] | None = None
    """Length unit of a mesh file. Defaults to meters, with a warning if the size is doubtful."""
    name: str | None = None
    """Name of the object in the scene. Defaults to the file's name."""
    position: tuple[float, float] | None = None
    """x, y in meters of a file's object on the table. Defaults to the position in the file."""

    every: Annotated[int, Interval(1, 1_000_000)] = 1
    """Take every n-th depth frame only."""
    allow_outside: bool = False
    """Read images and meshes that an index or a URDF names outside of its folder."""

    def __post_init__(self) -> None:
        bounds.check(self)

    def run(self) -> int:
        from flowplan.io import npz
        from flowplan.scan import load_scene

        scene = load_scene(
            self.source,
            unit=self.unit,
            name=self.name,
            position=self.position,
            every=self.every,
            allow_outside=self.allow_outside,
        )
        npz.save(self.out, scene)
        for obj in scene.objects:
            size = " x ".join(f"{100 * extent:.1f}" for extent in obj.mesh.extents)
            faces, closed = len(obj.mesh.faces), obj.mesh.is_watertight
            console.say(f"{obj.name}: {faces} faces, {size} cm, watertight: {closed}")
        console.say(f"wrote {self.out}")
        return 0
