"""A scene's motion as animated glTF 2.0 in one binary file (.glb), for Blender, three.js and every other viewer.

An animation that deforms has no bones: each keyframe is a morph target, its displacement from the first frame, and the
animation's weights fade from one target to the next, which is linear interpolation of the vertices:

    v(t) = v_0 + sum_k w_k(t) (v_k - v_0),   w_k rises to 1 at t_k and is 0 again at t_{k+1}.

The file is a JSON chunk that describes a binary one (Khronos glTF 2.0 specification, sections 3 and 4). glTF's y is up
and ours is z: one root node turns the world.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowplan.io.npz import vertex_colors
from flowplan.motion import SceneMotion
from flowplan.scene import Scene, SceneObject
from flowplan.utils.checks import FloatArray
from flowplan.utils.files import atomic_write

PALETTE: tuple[tuple[int, int, int], ...] = (
    (76, 120, 168), (242, 142, 43), (89, 161, 79), (225, 87, 89), (118, 183, 178), (175, 122, 161), (237, 201, 72),
)  # fmt: skip
"""RGB of objects without colours of their own, in turn (Tableau)."""
OBSTACLE = (150, 150, 150)
"""RGB of obstacles without colours of their own."""

_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_COMPONENTS = {"float32": 5126, "uint32": 5125, "uint16": 5123}
_SHAPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


def export_gltf(
    path: str | Path, scene: Scene, motion: SceneMotion, *, keyframes: int | None = None
) -> Path:
    """Write `motion` of `scene` as one .glb file with an animation, obstacles included.

    Args:
        path: where to, ending in .glb.
        scene: whose faces, colours and names are used.
        motion: world frame, metres.
        keyframes: morph targets are made of so many frames, spread evenly; of all where not given.

    Raises:
        ValueError: when the motion does not fit the scene, or the path is no .glb.
    """
    path = Path(path)
    if path.suffix != ".glb":
        raise ValueError(f"path: expected a name that ends in .glb, got {str(path)!r}")
    check_fits_scene(scene, motion)
    T = len(motion.times)
    if keyframes is not None and keyframes < 2:
        raise ValueError(f"keyframes: expected at least 2, got {keyframes}")
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
    """Raise a ValueError where `motion` is not one of `scene`'s objects."""
    have, want = (
        [v.shape[1] for v in motion.vertices],
        [len(o.mesh.vertices) for o in scene.objects],
    )
    if have != want:
        raise ValueError(
            f"motion.vertices: expected {want} vertices, those of the scene's objects, got {have}; "
            "give the scene that the motion was generated for"
        )


class _Gltf:
    """A glTF document and its binary chunk, while they are put together."""

    def __init__(self) -> None:
        self._binary = bytearray()
        half = float(np.sqrt(0.5))
        root = {
            "name": "world",
            "rotation": [-half, 0.0, 0.0, half],
            "children": [],
        }  # z up to y up
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
        """One object, its vertices (K, V, 3) at `times` (K,), world frame."""
        moves = len(vertices) > 1 and np.ptp(vertices, axis=0).max() > 1e-6
        own = vertex_colors(obj.mesh)
        attributes = {
            "POSITION": self._accessor(vertices[0].astype(np.float32), _ARRAY_BUFFER, bounds=True)
        }
        if own is not None:
            levels = np.column_stack([_linear(own[:, :3]), own[:, 3] / 255])
            attributes["COLOR_0"] = self._accessor(
                (65535 * levels + 0.5).astype(np.uint16), _ARRAY_BUFFER
            )
        faces = self._accessor(obj.mesh.faces.astype(np.uint32).reshape(-1), _ELEMENT_ARRAY_BUFFER)
        primitive = {
            "attributes": attributes,
            "indices": faces,
            "material": len(self._document["materials"]),
        }
        mesh: dict[str, Any] = {"name": obj.name, "primitives": [primitive]}
        if moves:
            offsets = (vertices[1:] - vertices[0]).astype(np.float32)
            primitive["targets"] = [
                {"POSITION": self._accessor(o, _ARRAY_BUFFER, bounds=True)} for o in offsets
            ]
            mesh["weights"] = [0.0] * len(offsets)
        self._document["materials"].append(_material(color if own is None else (255, 255, 255)))
        self._document["nodes"][0]["children"].append(len(self._document["nodes"]))
        self._document["nodes"].append({"name": obj.name, "mesh": len(self._document["meshes"])})
        self._document["meshes"].append(mesh)
        if moves:
            self._animate(len(self._document["nodes"]) - 1, times)

    def _animate(self, node: int, times: FloatArray) -> None:
        weights = np.eye(len(times), dtype=np.float32)[
            :, 1:
        ]  # at keyframe k, target k alone; none at the first
        sampler = {
            "input": self._accessor(times.astype(np.float32), bounds=True),
            "output": self._accessor(weights.reshape(-1)),
            "interpolation": "LINEAR",
        }
        self._channels.append(
            {"sampler": len(self._samplers), "target": {"node": node, "path": "weights"}}
        )
        self._samplers.append(sampler)

    def _accessor(
        self, array: NDArray[Any], target: int | None = None, *, bounds: bool = False
    ) -> int:
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
        if array.dtype == np.uint16:  # colours: 65535 stands for 1
            accessor["normalized"] = True
        if bounds:  # of the stored float32 values, exactly: validators compare
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
    """Linear light in [0, 1], glTF's colours, of sRGB levels in 0..255, everyone else's."""
    s = srgb / 255
    return np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
