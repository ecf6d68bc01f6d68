"""The motion of a scene as animated glTF 2.0 in one binary file (.glb).

Blender, three.js and other viewers read it. A deforming animation has no bones: each keyframe is a
morph target, its displacement from the first frame, and the weights of the animation fade from one
target to the next, which interpolates the vertices linearly:

    v(t) = v_0 + sum_k w_k(t) (v_k - v_0),   w_k rises to 1 at t_k and is 0 again at t_{k+1}.

The file consists of a JSON chunk that describes a binary one (Khronos glTF 2.0 specification,
sections 3 and 4). The y axis of glTF points up, ours is z: one root node rotates the world.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowplan.io.mesh_colors import OBSTACLE, PALETTE, vertex_colors
from flowplan.motion import SceneMotion
from flowplan.scene import Scene, SceneObject
from flowplan.utils.checks import FloatArray
from flowplan.utils.files import atomic_write

_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_COMPONENTS = {"float32": 5126, "uint32": 5125, "uint16": 5123}
_SHAPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
_WHITE = (255, 255, 255)
_STATIC = 1e-6
"""Displacement up to which an object gets no animation, meters."""


def export_gltf(
    path: str | Path, scene: Scene, motion: SceneMotion, *, keyframes: int | None = None
) -> Path:
    """Write `motion` of `scene` as one .glb file with an animation, obstacles included.

    Args:
        path: File to write, ending in .glb.
        scene: Scene whose faces, colors and names are used.
        motion: Motion in the world frame, meters.
        keyframes: Number of evenly spaced frames that become morph targets. Defaults to all.

    Raises:
        ValueError: If the motion does not fit the scene, or the path does not end in .glb.
    """
    path = Path(path)
    if path.suffix != ".glb":
        raise ValueError(f"path: expected a name that ends in .glb, got {str(path)!r}")
    check_fits_scene(scene, motion)
    T = len(motion.times)
    if keyframes is not None and keyframes < 2:
        raise ValueError(f"keyframes: expected at least 2, got {keyframes}")
    # Evenly spaced frames, the first and the last included.
    frames = np.unique(np.linspace(0, T - 1, min(keyframes or T, T)).round().astype(int))
    gltf = _Gltf()
    for index, (obj, vertices) in enumerate(zip(scene.objects, motion.vertices, strict=True)):
        gltf.add(obj, vertices[frames], motion.times[frames], PALETTE[index % len(PALETTE)])
    for obj in scene.obstacles:
        gltf.add(obj, obj.vertices_world[None], motion.times[:1], OBSTACLE)
    with atomic_write(path) as file:
        file.write(gltf.to_bytes())
    return path


def check_fits_scene(scene: Scene, motion: SceneMotion) -> None:
    """Check that `motion` is a motion of the objects of `scene`.

    Raises:
        ValueError: If the numbers of vertices differ.
    """
    have = [vertices.shape[1] for vertices in motion.vertices]
    want = [len(obj.mesh.vertices) for obj in scene.objects]
    if have != want:
        raise ValueError(
            f"motion.vertices: expected {want} vertices, those of the scene's objects, got {have}; "
            "give the scene that the motion was generated for"
        )


class _Gltf:
    """A glTF document under construction, and its binary chunk."""

    def __init__(self) -> None:
        self._binary = bytearray()
        half = float(np.sqrt(0.5))
        z_up_to_y_up = [-half, 0.0, 0.0, half]  # quaternion, x y z w
        root = {"name": "world", "rotation": z_up_to_y_up, "children": []}
        self._channels: list[dict[str, Any]] = []
        self._samplers: list[dict[str, Any]] = []
        self._document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "flowplan"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [root],
            "meshes": [],
            "materials": [],
            "accessors": [],
            "bufferViews": [],
        }

    def add(
        self, obj: SceneObject, vertices: FloatArray, times: FloatArray, color: tuple[int, int, int]
    ) -> None:
        """Add an object with vertices (K, V, 3) at `times` (K,), world frame.

        `color` is used if the object has no colors of its own.
        """
        document = self._document
        moves = len(vertices) > 1 and np.ptp(vertices, axis=0).max() > _STATIC
        own = vertex_colors(obj.mesh)

        # Vertices, their colors, and faces.
        position = vertices[0].astype(np.float32)
        attributes = {"POSITION": self._accessor(position, _ARRAY_BUFFER, bounds=True)}
        if own is not None:
            levels = np.column_stack([_linear(own[:, :3]), own[:, 3] / 255])
            levels = (65535 * levels + 0.5).astype(np.uint16)
            attributes["COLOR_0"] = self._accessor(levels, _ARRAY_BUFFER)
        faces = self._accessor(obj.mesh.faces.astype(np.uint32).reshape(-1), _ELEMENT_ARRAY_BUFFER)
        primitive = {
            "attributes": attributes,
            "indices": faces,
            "material": len(document["materials"]),
        }
        mesh: dict[str, Any] = {"name": obj.name, "primitives": [primitive]}

        # One morph target per keyframe after the first.
        if moves:
            offsets = (vertices[1:] - vertices[0]).astype(np.float32)  # (K - 1, V, 3)
            targets = [self._accessor(offset, _ARRAY_BUFFER, bounds=True) for offset in offsets]
            primitive["targets"] = [{"POSITION": target} for target in targets]
            mesh["weights"] = [0.0] * len(offsets)

        document["materials"].append(_material(color if own is None else _WHITE))
        node = len(document["nodes"])
        document["nodes"][0]["children"].append(node)
        document["nodes"].append({"name": obj.name, "mesh": len(document["meshes"])})
        document["meshes"].append(mesh)
        if moves:
            self._animate(node, times)

    def _animate(self, node: int, times: FloatArray) -> None:
        """Animate the weights of a node: at keyframe k target k alone, none at the first."""
        weights = np.eye(len(times), dtype=np.float32)[:, 1:]
        sampler = {
            "input": self._accessor(times.astype(np.float32), bounds=True),
            "output": self._accessor(weights.reshape(-1)),
            "interpolation": "LINEAR",
        }
        target = {"node": node, "path": "weights"}
        self._channels.append({"sampler": len(self._samplers), "target": target})
        self._samplers.append(sampler)

    def _accessor(
        self, array: NDArray[Any], target: int | None = None, *, bounds: bool = False
    ) -> int:
        """Append an array to the binary chunk and return the index of its accessor."""
        # A view is a span of bytes, an accessor their meaning.
        view: dict[str, Any] = {
            "buffer": 0,
            "byteOffset": len(self._binary),
            "byteLength": array.nbytes,
        }
        if target is not None:
            view["target"] = target
        accessor: dict[str, Any] = {
            "bufferView": len(self._document["bufferViews"]),
            "componentType": _COMPONENTS[array.dtype.name],
            "count": len(array),
            "type": _SHAPES[1 if array.ndim == 1 else array.shape[1]],
        }
        if array.dtype == np.uint16:  # colors: 65535 means 1
            accessor["normalized"] = True
        if bounds:  # exactly those of the stored float32 values: validators compare them
            table = array.reshape(len(array), -1)
            accessor["min"], accessor["max"] = table.min(0).tolist(), table.max(0).tolist()
        self._binary += array.astype(array.dtype.newbyteorder("<")).tobytes()
        self._binary += bytes(-len(self._binary) % 4)
        self._document["bufferViews"].append(view)
        self._document["accessors"].append(accessor)
        return len(self._document["accessors"]) - 1

    def to_bytes(self) -> bytes:
        """The .glb: a header and two chunks, each padded to four bytes."""
        document = self._document | {"buffers": [{"byteLength": len(self._binary)}]}
        if self._channels:
            document["animations"] = [
                {"name": "motion", "channels": self._channels, "samplers": self._samplers}
            ]
        # JSON is padded with spaces, the binary chunk with zeros.
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        total = 12 + 8 + len(text) + 8 + len(self._binary)
        return b"".join(
            [
                struct.pack("<4sII", b"glTF", 2, total),
                struct.pack("<I4s", len(text), b"JSON"),
                text,
                struct.pack("<I4s", len(self._binary), b"BIN\0"),
                bytes(self._binary),
            ]
        )


def _material(color: tuple[int, int, int]) -> dict[str, Any]:
    surface = {
        "baseColorFactor": [*_linear(np.array(color)).tolist(), 1.0],
        "metallicFactor": 0.0,
        "roughnessFactor": 0.7,
    }
    return {"pbrMetallicRoughness": surface, "doubleSided": True}


def _linear(srgb: NDArray[Any]) -> FloatArray:
    """Linear light in [0, 1], as glTF stores colors, of sRGB levels in 0..255."""
    s = srgb / 255
    return np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
