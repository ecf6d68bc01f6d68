"""Your own mesh: an STL file in millimeters becomes a scene object, and the robot turns it.

    python examples/02_own_mesh.py --mesh your.stl --unit mm

Without --mesh a crate with a handle is made. Writes index.html, a page that plays the plan.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import trimesh
import tyro

import flowplan as fp
from flowplan.scan.meshes.mesh_file import MeshOptions
from flowplan.viz.page import write_page
from flowplan.viz.run import Run
from generators.kinematic import kinematic


def make_mesh(path: Path) -> Path:
    """A crate with a bar on top, saved as CAD programs save: in millimeters, origin wherever."""
    crate = trimesh.creation.box([120, 160, 60])
    bar = trimesh.creation.box([20, 120, 50])
    bar.apply_translation([0, 0, 50])
    union = trimesh.boolean.union([crate, bar])
    union.apply_translation([500, 300, 0])
    union.subdivide().subdivide().export(path)
    return path


def main(
    mesh: Path | None = None,
    unit: Literal["m", "cm", "mm", "in"] = "mm",
    out: Path = Path("runs/examples/02_own_mesh"),
) -> Path:
    """Plan with a mesh file.

    Args:
        mesh: Mesh file: .obj, .ply, .stl or .glb.
        unit: Length unit of the file.
        out: Folder for the files.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = mesh or make_mesh(out / "crate.stl")

    # Repair closes holes: grasps need to know which side of the surface is inside.
    thing = fp.load_mesh(path, unit=unit, options=MeshOptions(repair="close"))
    print(f"{thing.name}: {thing.mesh.extents.round(3)} m, watertight: {thing.mesh.is_watertight}")

    # Move the middle of its bottom face to a place on the table, 1 mm above it.
    low, high = thing.mesh.bounds
    bottom = [*(low + high)[:2] / 2, low[2]]
    X_world_object = fp.pose(translation=[0.50, -0.10, 0.001] - np.array(bottom))
    thing = fp.SceneObject(thing.name, thing.mesh, X_world_object)
    scene = fp.Scene((thing,), support_height=0.0)

    # Handles and their targets give the pose: 20 cm to the left and a quarter turn about z.
    handles = thing.vertices_world[::10]  # (H, 3)
    center = handles.mean(axis=0)
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    targets = (handles - center) @ quarter.T + center + [0.0, 0.2, 0.0]
    action = fp.Action(thing.name, handles, targets=targets, duration=4.0)
    (motion,) = kinematic([fp.Rigid(thing.name, lift=0.08)])(scene, action)

    robot = fp.load_robot("panda")
    result = fp.plan(scene, motion, robot)
    print(fp.feasibility(result))
    if isinstance(result, fp.NoPlan):
        raise SystemExit(1)
    page = write_page(out / "index.html", Run.of_plan(scene, motion, result, robot))
    print(f"wrote {page}")
    return page


if __name__ == "__main__":
    tyro.cli(main)
