"""PartNet-Mobility (SAPIEN, Xiang et al. 2020) from its folders, and other URDFs with their visual
meshes.

    <root>/<id>/mobility.urdf          links with several visuals, each with its own origin
    <root>/<id>/textured_objs/*.obj
    <root>/<id>/meta.json              optional; `model_cat` is the category

The data set must be asked for at its home and is not shipped. Its meshes have y up, which the fixed
joint of its empty base link turns to z up. What it calls slider+ and hinge+ are two joints with an
empty helper link between them. Rest, q = 0, need not lie within the limits.

Some assets are corrupt. One that cannot be used is refused in one line; `Assets` goes on to the
next and keeps count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import trimesh

from flowplan.robot.urdf import Joint, read_urdf
from flowplan.scan.urdf import link_mesh
from flowplan.utils import text_files
from generators.data.objects.articulated import ArticulatedObject

URDF = "mobility.urdf"


def read_partnet(folder: str | Path) -> ArticulatedObject:
    """The object of one PartNet-Mobility folder, named by the folder; it has a joint that moves.

    Raises:
        ValueError: in one line, naming the file, when a file is missing, a mesh is broken or empty,
            the joints are no tree, a limit is missing, or nothing moves.
    """
    folder = Path(folder)
    path = folder / URDF
    if not path.is_file():
        raise ValueError(
            f"{folder}: expected {URDF} in it; give the folder of one PartNet-Mobility object"
        )
    obj = read_articulated(path, name=folder.name)
    if not np.any(obj.upper > obj.lower):
        raise ValueError(f"{path}: no joint moves; leave the asset out")
    return obj


def read_articulated(path: str | Path, *, name: str | None = None) -> ArticulatedObject:
    """A URDF's links with their visual meshes as they are; a link without visuals uses its
    collision shapes.

    Joints without limits turn through [-pi, pi].

    Args:
        name: of the object. Defaults to the file's name without its ending.

    Raises:
        ValueError: in one line, naming the file and the element.
    """
    path = Path(path)
    urdf = read_urdf(path)
    # Helper links between two joints have no shape.
    empty = trimesh.Trimesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64), process=False)
    links = {}
    for link in urdf.links:
        mesh = link_mesh(urdf, link, strict=True)
        links[link] = empty.copy() if mesh is None else mesh
    if not any(len(mesh.faces) for mesh in links.values()):
        raise ValueError(f"{path}: no link has a face; leave the asset out")
    try:
        return ArticulatedObject(
            name or path.stem, links, tuple(map(_limited, urdf.joints)), urdf.mimic
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _limited(joint: Joint) -> Joint:
    # A continuous joint turns once around.
    if joint.kind == "revolute" and np.isneginf(joint.lower) and np.isposinf(joint.upper):
        return replace(joint, lower=-np.pi, upper=np.pi)
    return joint


def read_category(folder: str | Path) -> str:
    """The category in a folder's meta.json, such as "StorageFurniture"; empty where the file or
    the key is missing."""
    try:
        category = text_files.read_json(Path(folder) / "meta.json").get("model_cat", "")
    except (ValueError, AttributeError):
        return ""
    return category if isinstance(category, str) else ""


def read_split(list_file: str | Path) -> tuple[str, ...]:
    """The identifiers of a split, as the training and the test list: one a line, # begins a
    comment.

    Raises:
        ValueError: in one line, when the file cannot be read, is empty, or names something twice or
            no single folder.
    """
    path = Path(list_file)
    try:
        # Lines without comments, blank ones dropped.
        lines = [line.partition("#")[0].strip() for line in text_files.read_text(path).splitlines()]
    except ValueError as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); give a text file of one identifier a line"
        ) from None
    ids = [line for line in lines if line]
    if not ids:
        raise ValueError(f"{path}: names no object; expected one identifier a line")
    # One folder's name a line, each once.
    odd = [i for i in ids if Path(i).name != i or " " in i]
    if odd:
        raise ValueError(
            f"{path}: {odd[0]!r}: expected the name of one folder a line, such as 7128"
        )
    twice = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise ValueError(
            f"{path}: {', '.join(twice[:5])} listed more than once; remove the repeated lines"
        )
    return tuple(ids)


@dataclass(eq=False)
class Assets:
    """The usable objects of a data set, read one after the other as they are asked for.

    Attributes:
        root: folder of the objects' folders.
        ids: which, in this order, as from `read_split`.
        refused: why, by identifier, of those met so far that could not be used.
    """

    root: Path
    ids: Sequence[str]
    refused: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[ArticulatedObject]:
        self.refused.clear()
        for i in self.ids:
            try:
                yield read_partnet(Path(self.root) / i)
            except ValueError as error:
                self.refused[i] = str(error)
