"""`flowplan export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from flowplan.cli import console


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
