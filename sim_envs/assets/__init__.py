"""Vendored models (see ATTRIBUTION.md), by name, and where their surfaces are."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import trimesh

from flowplan.geometry import matrix_from_rpy, pose, transform
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

FOLDER = Path(__file__).parent
SCANNED = ("ramekin", "black_bowl", "white_bowl", "plate", "frypan", "basket")
"""Real scans that a gripper of 8 cm can hold somewhere."""
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
"""Models with joints: Meta-World's and the project's own."""
CLOTH = FOLDER / "cloth" / "cloth.obj"
"""A sheet of 121 vertices, 0.3 m square."""


def urdf_path(name: str) -> Path:
    """The URDF of the model called `name`."""
    checks.choice("name", name, SCANNED + ARTICULATED)
    return FOLDER / name / f"{name}.urdf"


def metaworld_urdfs() -> dict[str, Path]:
    """The URDF of each of Meta-World's articulated models, by name."""
    return {name: urdf_path(name) for name in METAWORLD}


def collision_pieces(name: str) -> tuple[trimesh.Trimesh, ...]:
    """The convex pieces that the scanned model called `name` is to the simulator, in its link's frame, metres."""
    checks.choice("name", name, SCANNED)
    pieces = trimesh.load_mesh(FOLDER / name / "collision.obj", process=False).split(
        only_watertight=False
    )
    return tuple(piece.convex_hull for piece in pieces)


def surface_points(path: Path, count: int, *, seed: int = 0) -> dict[str, FloatArray]:
    """`count` points spread evenly over each link's visual surface: link name -> (count, 3), link frame, metres.

    Links without visual geometry are absent.
    """
    points = {}
    for link in ET.parse(path).getroot().findall("link"):
        shapes = [_visual(path, element) for element in link.findall("visual")]
        if shapes:
            mesh = trimesh.util.concatenate(shapes)
            sampled, _ = trimesh.sample.sample_surface(mesh, count, seed=seed)
            points[link.attrib["name"]] = np.asarray(sampled, float)
    return points


def _visual(path: Path, visual: ET.Element) -> trimesh.Trimesh:
    """A <visual> as a mesh in the link frame."""
    shape = visual.find("geometry/*")
    if shape is None:
        raise ValueError(f"{path}: expected a shape in every <visual>, got none; repair the URDF")
    size = shape.attrib
    if shape.tag == "mesh":
        mesh = trimesh.load_mesh(path.parent / size["filename"], process=False)
    elif shape.tag == "box":
        mesh = trimesh.creation.box([float(v) for v in size["size"].split()])
    elif shape.tag == "cylinder":
        mesh = trimesh.creation.cylinder(float(size["radius"]), float(size["length"]))
    else:
        mesh = trimesh.creation.icosphere(radius=float(size["radius"]))
    origin = visual.find("origin")
    values = {} if origin is None else origin.attrib
    xyz, rpy = (
        np.array([float(v) for v in values.get(key, "0 0 0").split()]) for key in ("xyz", "rpy")
    )
    return trimesh.Trimesh(
        transform(pose(matrix_from_rpy(rpy), xyz), mesh.vertices), mesh.faces, process=False
    )
