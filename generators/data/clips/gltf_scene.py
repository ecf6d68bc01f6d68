"""Scene of a glTF file: its node tree, and primitives with morph targets and transforms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import matrix_from_quat_xyzw
from flowplan.utils.checks import FloatArray
from generators.data.clips.gltf_file import GltfFile

TRIANGLES, STRIP, FAN = 4, 5, 6
REST = {"translation": (0.0, 0.0, 0.0), "rotation": (0.0, 0.0, 0.0, 1.0), "scale": (1.0, 1.0, 1.0)}


@dataclass(frozen=True, eq=False)
class Shape:
    """One primitive of one node. A mesh without a skin hangs on its node alone.

    Attributes:
        node: the node that draws it.
        points: (V, 3) local.
        faces: (f, 3).
        morphs: (K, V, 3) displacements.
        weights: (K,) of the morphs where no animation drives them.
        joints: J nodes that carry it.
        inverse_bind: (J, 4, 4).
        blend: (V, J) share of each joint, rows sum to 1.
    """

    node: int
    points: FloatArray
    faces: NDArray[np.int64]
    morphs: FloatArray
    weights: FloatArray
    joints: tuple[int, ...]
    inverse_bind: FloatArray
    blend: FloatArray


class Tree:
    """The nodes of a file, and those that its scene draws."""

    def __init__(self, file: GltfFile) -> None:
        self._file = file
        self._nodes = file.items("nodes")
        self._parent = {
            child: i for i, node in enumerate(self._nodes) for child in node.get("children", [])
        }
        for index in range(len(self._nodes)):
            if len(self._line(index)) > len(self._nodes):
                raise ValueError(
                    f"{file.path}: the nodes above node {index} form a loop; expected a tree"
                )

    def _line(self, index: int) -> list[int]:
        """A node and its ancestors; longer than there are nodes where they form a loop."""
        line = [index]
        while line[-1] in self._parent and len(line) <= len(self._nodes):
            line.append(self._parent[line[-1]])
        return line

    def carriers(self, joints: tuple[int, ...]) -> set[int]:
        """The nodes whose motion carries all of these along."""
        return set.intersection(*(set(self._line(j)) for j in joints))

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The primitives of the file's scene that have faces."""
        scenes = self._file.items("scenes")
        roots = set(range(len(self._nodes))) - set(self._parent)
        if scenes:
            roots = set(scenes[self._file.document.get("scene", 0)].get("nodes", []))
        found = []
        for index, node in enumerate(self._nodes):
            if "mesh" in node and roots.intersection(self._line(index)):
                mesh = self._file.items("meshes")[node["mesh"]]
                found += [
                    _shape(self._file, index, node, mesh, p)
                    for p in mesh["primitives"]
                    if _is_surface(p)
                ]
        return tuple(shape for shape in found if len(shape.faces))

    def poses(
        self, moved: Mapping[tuple[int, str], FloatArray], frames: int
    ) -> dict[int, FloatArray]:
        """X_world_node (frames, 4, 4) of every node, scale included.

        Args:
            moved: (frames, 3 or 4) by node and one of translation, rotation (x, y, z, w) and scale;
                others rest.
        """
        poses: dict[int, FloatArray] = {}
        for index in range(len(self._nodes)):
            for i in reversed(self._line(index)):  # parents first
                if i not in poses:
                    local = self._local(i, moved, frames)
                    poses[i] = poses[self._parent[i]] @ local if i in self._parent else local
        return poses

    def _local(
        self, index: int, moved: Mapping[tuple[int, str], FloatArray], frames: int
    ) -> FloatArray:
        node = self._nodes[index]
        X = np.zeros((frames, 4, 4))
        if "matrix" in node:  # such a node may not be animated
            X[:] = np.reshape(node["matrix"], (4, 4)).T
            return X
        t, q, s = (
            np.asarray(moved.get((index, key), node.get(key, REST[key])), float) for key in REST
        )
        X[:, :3, :3] = matrix_from_quat_xyzw(q) * s[..., None, :]
        X[:, :3, 3] = t
        X[:, 3, 3] = 1
        return X


def _is_surface(primitive: dict[str, Any]) -> bool:
    return (
        primitive.get("mode", TRIANGLES) in (TRIANGLES, STRIP, FAN)
        and "POSITION" in primitive["attributes"]
    )


def _shape(
    file: GltfFile,
    index: int,
    node: dict[str, Any],
    mesh: dict[str, Any],
    primitive: dict[str, Any],
) -> Shape:
    attributes, targets = primitive["attributes"], primitive.get("targets", [])
    points = file.array(attributes["POSITION"]).astype(float)
    morphs = np.zeros((len(targets), *points.shape))
    for k, target in enumerate(targets):
        if "POSITION" in target:  # others move normals or colors only
            morphs[k] = file.array(target["POSITION"])
    weights = np.array(node.get("weights") or mesh.get("weights") or np.zeros(len(targets)), float)
    joints, inverse_bind, blend = [index], np.eye(4)[None], np.ones((len(points), 1))
    if "skin" in node:
        joints, inverse_bind, blend = _binding(
            file, file.items("skins")[node["skin"]], attributes, len(points)
        )
    # Corners that differ in normal or texture alone are one point of the surface.
    table = np.concatenate([points, *morphs, blend], axis=1)
    _, first, weld = np.unique(table, axis=0, return_index=True, return_inverse=True)
    faces = weld.reshape(-1)[_triangles(file, primitive, len(points))]
    faces = faces[(np.diff(np.sort(faces, axis=1), axis=1) > 0).all(1)]
    used, faces = np.unique(faces, return_inverse=True)
    keep = first[used]
    faces = faces.reshape(-1, 3)
    return Shape(
        index,
        points[keep],
        faces,
        morphs[:, keep],
        weights,
        tuple(joints),
        inverse_bind,
        blend[keep],
    )


def _binding(
    file: GltfFile, skin: dict[str, Any], attributes: dict[str, int], count: int
) -> tuple[list[int], FloatArray, FloatArray]:
    """Joints, inverse bind matrices and the share of each joint in each vertex; joints without
    any are left out."""
    blend = np.zeros((count, len(skin["joints"])))
    for group in range(len(attributes)):
        if f"JOINTS_{group}" in attributes:
            at, share = (
                file.array(attributes[f"JOINTS_{group}"]),
                file.array(attributes[f"WEIGHTS_{group}"]),
            )
            np.add.at(blend, (np.arange(count)[:, None], at), share)
    total = blend.sum(1, keepdims=True)
    if not np.all(total > 0):
        raise ValueError(f"{file.path}: a vertex of a skin has no weight; export it again")
    inverse_bind = np.broadcast_to(np.eye(4), (blend.shape[1], 4, 4))
    if "inverseBindMatrices" in skin:  # stored column by column
        inverse_bind = np.swapaxes(file.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4), 1, 2)
    used = np.flatnonzero(blend.any(0))
    return [skin["joints"][j] for j in used], inverse_bind[used], (blend / total)[:, used]


def _triangles(file: GltfFile, primitive: dict[str, Any], count: int) -> NDArray[np.int64]:
    order = np.arange(count)
    if "indices" in primitive:
        order = file.array(primitive["indices"])[:, 0].astype(np.int64)
    if len(order) and order.max() >= count:
        raise ValueError(
            f"{file.path}: a face has vertex {order.max()} of {count}; export it again"
        )
    mode = primitive.get("mode", TRIANGLES)
    if mode == TRIANGLES:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    if len(order) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == FAN:
        return np.stack([np.full(len(order) - 2, order[0]), order[1:-1], order[2:]], 1)
    strip = np.stack([order[:-2], order[1:-1], order[2:]], 1)
    strip[1::2] = strip[1::2, [1, 0, 2]]  # every other one is wound the other way
    return strip
