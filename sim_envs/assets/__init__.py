"""Vendored models (see ATTRIBUTION.md) by name, and points on their surfaces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flowplan.geometry import transform
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    import trimesh

    from flowplan.robot.urdf import Shape, Urdf

FOLDER = Path(__file__).parent
SCANNED = ("ramekin", "black_bowl", "white_bowl", "plate", "frypan", "basket")
"""Real scans that a gripper of 8 cm opening can hold."""
METAWORLD = (
    "laptop",
    "drawer",
    "faucet",
    "door",
    "door_lock",
    "dial",
    "handle_press",
    "lever",
    "window",
    "window_horizontal",
    "button_box",
    "coffee_machine",
    "hammer_block",
)
"""Meta-World's models with a joint."""
ARTICULATED = (*METAWORLD, "desk_lamp")
"""Models with joints: Meta-World's and our own."""
CLOTH = FOLDER / "cloth" / "cloth.obj"
"""Mesh of a 0.3 m square cloth with 121 vertices."""


def urdf_path(name: str) -> Path:
    """URDF of the model called `name`: one of the lists above, or any folder with its URDF here."""
    known = (*SCANNED, *ARTICULATED)
    own = {p.stem for p in FOLDER.glob("*/*.urdf") if p.stem == p.parent.name}
    checks.choice("name", name, [*known, *sorted(own.difference(known))])
    return FOLDER / name / f"{name}.urdf"


def metaworld_urdfs() -> dict[str, Path]:
    """URDFs of Meta-World's articulated models by name."""
    return {name: urdf_path(name) for name in METAWORLD}


def collision_pieces(name: str) -> tuple[trimesh.Trimesh, ...]:
    """Convex pieces of the scanned model called `name` in the simulator, link frame, meters."""
    checks.choice("name", name, SCANNED)
    pieces = connected_pieces(FOLDER / name / "collision.obj")
    return tuple(piece.convex_hull for piece in pieces)


def connected_pieces(path: Path) -> tuple[trimesh.Trimesh, ...]:
    """The closed pieces of an OBJ file, also where it repeats a vertex for every face.

    Vertices at one place are joined only in an object of the file whose pieces are open without
    that: closed pieces may touch each other, and stay apart.
    """
    import trimesh

    found: list[trimesh.Trimesh] = []
    scene = trimesh.load_scene(
        path, process=False, split_objects=True, group_material=False, skip_materials=True
    )
    for part in scene.geometry.values():
        pieces = part.split(only_watertight=False)
        if not all(piece.is_watertight for piece in pieces):
            welded = part.copy()
            welded.merge_vertices(merge_tex=True, merge_norm=True)
            joined = welded.split(only_watertight=False)
            # Joining may also tear: a piece that is open either way stays as it was.
            if len(joined) and all(piece.is_watertight for piece in joined):
                pieces = joined
        found += list(pieces)
    return tuple(found)


def surface_points(path: Path, count: int, *, seed: int = 0) -> dict[str, FloatArray]:
    """Points on each link's visual surface, evenly spread: link name -> (count, 3), link frame,
    meters.

    Links without visual geometry are left out.
    """
    import trimesh

    from flowplan.robot.urdf import read_urdf

    urdf = read_urdf(path)
    points = {}
    for link in urdf.elements:  # in the order of the file
        shapes = [_visual_mesh(urdf, shape) for shape in urdf.shapes(link, "visual")]
        if shapes:
            mesh = trimesh.util.concatenate(shapes)
            sampled, _ = trimesh.sample.sample_surface(mesh, count, seed=seed)
            points[link] = np.asarray(sampled, float)
    return points


def _visual_mesh(urdf: Urdf, shape: Shape) -> trimesh.Trimesh:
    """A visual shape as a mesh in the link frame."""
    import trimesh

    from flowplan.robot.urdf_meshes import primitive_mesh, z_up

    if shape.kind == "mesh":
        file = urdf.mesh_file(shape)
        mesh = trimesh.load_mesh(file, process=False)
        mesh = trimesh.Trimesh(z_up(file, mesh.vertices), mesh.faces, process=False)
        mesh.apply_scale(shape.size)
    else:
        mesh = primitive_mesh(shape)
    vertices = transform(shape.X_link_shape, mesh.vertices)
    return trimesh.Trimesh(vertices, mesh.faces, process=False)
