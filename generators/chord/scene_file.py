"""A scene file: objects and a sentence, the input of an unattended distillation.

    prompt = "Put the cup on the plate."
    seed = 0

    [[objects]]
    source = "cup.ply"
    name = "cup"
    position = [0.45, -0.15]
    yaw = 90

    [[obstacles]]
    source = "plate.obj"
    position = [0.5, 0.15]

A source is anything that `flowplan.scan.load_scene` reads: a mesh, a point cloud, a URDF, a folder
of depth frames. Its path is relative to the file's folder, and stays in it. `position` (x, y in
meters) puts it on the table, `yaw` turns it about its center, in degrees. Instead of objects and
obstacles, `scene = "scene.npz"` loads a saved scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from flowplan.geometry import rotation_about
from flowplan.io import npz
from flowplan.motion import Progress, SceneMotion, silent
from flowplan.scan import load_scene
from flowplan.scan.meshes.mesh_file import Unit
from flowplan.scene import Prompt, Scene, SceneObject
from flowplan.utils.files import inside, locked
from flowplan.utils.toml_table import Table
from generators.chord.generate import from_prior
from generators.chord.options import SMALL, ChordOptions
from generators.chord.priors.protocol import VideoPrior

SCENE, MOTION = "scene.npz", "motion-{}.npz"


@dataclass(frozen=True, eq=False)
class Job:
    """The content of a scene file.

    Attributes:
        scene: objects and obstacles.
        prompt: the sentence.
        seed: Random seed.
    """

    scene: Scene
    prompt: Prompt
    seed: int = 0


def read_job(path: str | Path, *, allow_outside: bool = False) -> Job:
    """Read a scene file.

    Args:
        path: of the file.
        allow_outside: sources and the scene may lie outside of the file's folder.

    Raises:
        ValueError: in one line, naming the file and the field.
    """
    path = Path(path)
    table = Table.read(path, ["prompt"], ["seed", "scene", "objects", "obstacles"])
    # A saved scene, or things from files.
    if ("scene" in table) == ("objects" in table):
        raise table.error("objects", "expected either objects or a scene, got both or neither")
    if "scene" in table:
        source = inside(
            path.parent, table.text("scene"), f"{path}: scene", allow_outside=allow_outside
        )
        scene = npz.load(source, Scene)
    else:
        scene = Scene(
            _things(table, "objects", allow_outside),
            obstacles=_things(table, "obstacles", allow_outside) if "obstacles" in table else (),
        )
    seed = int(table.numbers("seed", (), default=np.array(0.0)))
    return Job(scene, Prompt(table.text("prompt")), seed)


def _things(table: Table, key: str, allow_outside: bool) -> tuple[SceneObject, ...]:
    out: list[SceneObject] = []
    for entry in table.tables(key, ["source"], ["name", "unit", "position", "yaw"]):
        # Options of `load_scene` that the entry states; others keep their defaults.
        given: dict[str, Any] = {}
        if "name" in entry:
            given["name"] = entry.text("name")
        if "unit" in entry:
            given["unit"] = entry.one_of("unit", get_args(Unit))
        if "position" in entry:
            given["position"] = tuple(entry.numbers("position", (2,)))
        where = f"{table.file}: {key}: source"
        source = inside(table.file.parent, entry.text("source"), where, allow_outside=allow_outside)
        things = load_scene(source, allow_outside=allow_outside, **given).objects
        yaw = float(np.radians(entry.numbers("yaw", (), default=np.array(0.0))))
        out += _turned(things, yaw)
    return tuple(out)


def _turned(things: Sequence[SceneObject], yaw: float) -> list[SceneObject]:
    """Objects turned together about the vertical through the middle of their bounding box."""
    bounds = np.concatenate([t.vertices_world for t in things])  # (V, 3)
    X = rotation_about((bounds.min(0) + bounds.max(0)) / 2, [0.0, 0.0, 1.0], yaw)
    return [replace(t, X_world_object=X @ t.X_world_object) for t in things]


def run_job(
    job: Job,
    prior: VideoPrior,
    folder: Path,
    options: ChordOptions = SMALL,
    *,
    resume: bool = False,
    progress: Progress = silent,
) -> list[SceneMotion]:
    """Run a scene file, and write scene, motions, checkpoints and previews to a folder.

    Returns:
        The motions, best first.

    Raises:
        ValueError, KeyboardInterrupt: see `generators.chord.distill.loop.distill`; an interrupted
            run can be resumed.
    """
    with locked(folder):
        generate = from_prior(prior, options, folder=folder, resume=resume)
        motions = generate(job.scene, job.prompt, seed=job.seed, progress=progress)
        write_motions(folder, job.scene, motions)
    return motions


def write_motions(folder: Path, scene: Scene, motions: Sequence[SceneMotion]) -> None:
    """Replace the scene and all motions in a folder, once they are complete."""
    for old in folder.glob(MOTION.format("*")):
        old.unlink()
    npz.save(folder / SCENE, scene)
    for index, motion in enumerate(motions):
        npz.save(folder / MOTION.format(index), motion)
