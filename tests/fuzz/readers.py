"""The readers under attack: a whole file for each, how it is damaged, and what reads it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutations as m
import numpy as np
import trimesh
from PIL import Image

from flowplan.geometry import pose


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        files: contents by name; the first is damaged.
        damage: edits it.
        read: reads the folder's first file.
    """

    files: dict[str, bytes]
    damage: Callable[[bytes, np.random.Generator], bytes]
    read: Callable[[Path], Any]


def made(write: Callable[[Path], Any], name: str) -> bytes:
    """The bytes that `write` writes to a file of this name."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


BOX = trimesh.creation.box([0.1, 0.08, 0.06])
POSES = np.tile(np.eye(4), (2, 1, 1))


def _npz(kind: str) -> Target:
    from flowplan.grasp import ContactCandidates
    from flowplan.io import npz
    from flowplan.motion import ObjectFlow, SceneMotion
    from flowplan.rollout import Rollout
    from flowplan.scene import Scene, SceneObject

    records: dict[str, Any] = {
        "scene": Scene((SceneObject("box", BOX),), 0.0),
        "motion": SceneMotion([0, 1.0], (np.zeros((2, 8, 3)),)),
        "flow": ObjectFlow([0, 1.0], np.zeros((2, 5, 3)), np.ones((2, 5)), np.zeros(5, int)),
        "contacts": ContactCandidates(POSES, [0.04] * 2, [1.0] * 2, ("grasp",) * 2, [0, 0]),
    }
    del Rollout
    record = records[kind]
    data = made(lambda path: npz.save(path, record), "a.npz")
    return Target({"a.npz": data}, m.damaged_zip, lambda path: npz.load(path, type(record)))


def _plan() -> Target:
    from flowplan.io import npz
    from flowplan.planner import NoPlan, Plan

    folder = Path(__file__).parents[1] / "data" / "records_v1"
    found = {kind: folder / f"{kind.__name__}.npz" for kind in (Plan, NoPlan)}
    kind, path = next((k, p) for k, p in found.items() if p.exists())
    return Target({"a.npz": path.read_bytes()}, m.damaged_zip, lambda p: npz.load(p, kind))


def _instruction() -> Target:
    from flowplan.io.instruction import read_instruction
    from flowplan.scene import Scene, SceneObject

    scene = Scene((SceneObject("box", BOX),), 0.0)
    document = {
        "object": "box",
        "law": {"kind": "hinge", "axis_point": [0, 0, 0.03], "axis": [0, 1, 0],
                "part": {"lower": [0, -1, -1], "upper": [1, 1, 1]}},
        "handles": [[0.05, 0, 0.03]], "targets": [[0.06, 0, 0.04]], "duration": 2.0,
    }  # fmt: skip
    data = json.dumps(document).encode()
    return Target({"a.json": data}, m.damaged_json, lambda path: read_instruction(path, scene))


def _robot() -> Target:
    from flowplan.robot import load_robot

    source = Path(load_robot("panda").urdf_path).parents[1] / "panda.toml"
    # The whole robot takes long to read: its URDF is missing here, so that the file itself counts.
    from flowplan.utils.toml_table import Table

    def read(path: Path) -> None:
        from flowplan.robot import config_file as c

        table = Table.read(path, c.TABLES)
        table.text("urdf")
        for key in ("arm", "tool", "gripper"):
            table.table(key, list(table._values[key]))
        table.table("self_collision", ["ignore"]).keys()

    return Target({"a.toml": source.read_bytes()}, m.damaged, read)


def _job() -> Target:
    from generators.chord.scene_file import read_job

    text = b'prompt = "Push the box."\nseed = 3\n[[objects]]\nsource = "box.stl"\nname = "box"\n'
    text += b'unit = "m"\nposition = [0.4, -0.1]\nyaw = 90\n'
    files = {"a.toml": text, "box.stl": made(BOX.export, "box.stl")}
    return Target(files, m.damaged, read_job)


def _yaml() -> Target:
    from flowplan.io.documents import read_document

    text = b"format: isaac_grasp\ngrasps:\n  grasp_0:\n    confidence: 0.9\n    position: [0, 0, 0.1]\n"
    text += b"    orientation: {w: 1.0, xyz: [0, 0, 0]}\n    cspace_position: {finger: 0.04}\n"
    return Target({"a.yaml": text}, m.damaged, read_document)


URDF = b"""<robot name="r"><material name="red"><color rgba="1 0 0 1"/></material>
<link name="base"><visual><origin xyz="0 0 0.1" rpy="0 0 1"/><geometry><mesh filename="box.stl"
scale="1 1 1"/></geometry><material name="red"/></visual></link>
<link name="lid"><collision><geometry><cylinder radius="0.1" length="0.2"/></geometry></collision>
</link><link name="knob"><visual><geometry><capsule radius="0.01" length="0.02"/></geometry></visual>
</link><joint name="j" type="revolute"><parent link="base"/><child link="lid"/><axis xyz="0 0 1"/>
<limit lower="-1" upper="1" effort="1" velocity="1"/></joint><joint name="k" type="prismatic">
<parent link="lid"/><child link="knob"/><axis xyz="1 0 0"/><limit lower="0" upper="0.1"/>
<mimic joint="j" multiplier="0.1"/></joint></robot>"""


def _urdf() -> Target:
    from flowplan.scan import load_urdf

    files = {"a.urdf": URDF, "box.stl": made(BOX.export, "box.stl")}
    return Target(files, m.damaged, load_urdf)


def _mesh(suffix: str) -> Target:
    from flowplan.scan.meshes.mesh_file import read_mesh

    name = f"a.{suffix}"
    damage = m.damaged_glb if suffix == "glb" else m.damaged
    return Target({name: made(BOX.export, name)}, damage, lambda path: read_mesh(path, 100_000))


def _gltf() -> Target:
    from flowplan.scan.meshes.mesh_file import read_mesh

    files = trimesh.exchange.gltf.export_gltf(trimesh.Scene(BOX))
    text = files.pop("model.gltf")
    return Target({"a.gltf": text, **files}, m.damaged_json, lambda path: read_mesh(path, 100_000))


def _clips() -> Target:
    from flowplan.io.gltf import export_gltf
    from flowplan.motion import SceneMotion
    from flowplan.scene import Scene, SceneObject
    from generators.data.clips.gltf_clips import read_clips

    scene = Scene((SceneObject("box", BOX),), 0.0)
    vertices = BOX.vertices[None] + np.linspace(0, 1, 3)[:, None, None]
    motion = SceneMotion([0, 0.5, 1.0], (vertices,))
    data = made(lambda path: export_gltf(path, scene, motion), "a.glb")
    return Target({"a.glb": data}, m.damaged_glb, read_clips)


def _points(name: str) -> Target:
    from flowplan.scan import point_cloud

    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    table = np.concatenate([0.1 * points, points], axis=1).astype(np.float32)
    head = (
        "VERSION .7\nFIELDS x y z normal_x normal_y normal_z\nSIZE 4 4 4 4 4 4\n"
        "TYPE F F F F F F\nCOUNT 1 1 1 1 1 1\nWIDTH 60\nHEIGHT 1\nPOINTS 60\nDATA "
    )
    rows = "\n".join(" ".join(f"{x:.4f}" for x in row) for row in table)
    data = {
        "a.npy": lambda: made(lambda path: np.save(path, table), "a.npy"),
        "a.xyz": lambda: rows.encode(),
        "a.pcd": lambda: (head + "ascii\n" + rows).encode(),
        "b.pcd": lambda: (head + "binary\n").encode() + table.tobytes(),
        "a.ply": lambda: made(trimesh.PointCloud(points).export, "a.ply"),
    }[name]()
    return Target({name: data}, m.damaged, point_cloud._read)


def _frames(kind: str) -> Target:
    from flowplan.scan import read_frames, write_frames
    from flowplan.scan.depth.frames import DepthFrame

    K = np.array([[40.0, 0, 7.5], [0, 40.0, 5.5], [0, 0, 1]])
    depth = np.full((12, 16), 0.5, np.float32)
    depth[3:6, 3:6] = 0.4
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_frames(folder, [DepthFrame(depth, K, pose())] * 2)
        files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.*"))}
    if kind == "nerfstudio":
        frames = [
            {"file_path": "", "depth_file_path": f"depth/{i:06d}.png",
             "transform_matrix": np.eye(4).tolist()} for i in range(2)
        ]  # fmt: skip
        document = {"w": 16, "h": 12, "fl_x": 40, "fl_y": 40, "cx": 8, "cy": 6, "frames": frames}
        files.pop("frames.json")
        files["transforms.json"] = json.dumps(document).encode()
    if kind == "redwood":
        files.pop("frames.json")
        rows = "\n".join(" ".join(map(str, row)) for row in np.eye(4))
        files["a.log"] = f"0 0 1\n{rows}\n1 1 2\n{rows}\n".encode()
        camera = {"width": 16, "height": 12, "intrinsic_matrix": K.T.ravel().tolist()}
        files["intrinsic.json"] = json.dumps(camera).encode()
    first = {"json": "frames.json", "png": "depth/000000.png", "nerfstudio": "transforms.json",
             "redwood": "a.log"}[kind]  # fmt: skip
    damage = {"png": m.damaged_png, "redwood": m.damaged}.get(kind, m.damaged_json)
    files = {first: files[first], **files}
    levels = len(Path(first).parts)
    return Target(files, damage, lambda path: read_frames(path.parents[levels - 1]))


def _color() -> Target:
    from flowplan.scan.images import read_image

    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    data = made(lambda path: image.save(path), "a.jpg")
    return Target({"a.jpg": data}, m.damaged, lambda p: read_image(p, "color", None, "", "RGB"))


def _weights() -> Target:
    from generators.neurok.network.config import NeurokConfig
    from generators.neurok.network.model import Neurok
    from generators.neurok.network.weights import FILE

    config = NeurokConfig(
        tokens=2, channels=4, encoder_width=8, decoder_width=8, point_width=8, frequencies=2,
        encoder_blocks=1, encoder_point_blocks=1, decoder_blocks=1, decoder_point_blocks=1, heads=2,
    )  # fmt: skip
    data = made(lambda path: FILE.save(path, Neurok(config), {}), "a.safetensors")
    return Target({"a.safetensors": data}, m.damaged_tensors, FILE.load)


def _checkpoint() -> Target:
    import torch

    from generators.common import training

    def parts() -> tuple[Any, Any, Any]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        return model, {k: p.detach().clone() for k, p in model.named_parameters()}, optimizer

    model, averages, optimizer = parts()
    data = made(lambda p: training._save(p, model, averages, optimizer, 5, 1.0), "a.safetensors")
    return Target(
        {"a.safetensors": data},
        m.damaged_tensors,
        lambda path: training._resume(path, True, *parts()),
    )


TARGETS: dict[str, Callable[[], Target]] = {
    **{kind: lambda kind=kind: _npz(kind) for kind in ("scene", "motion", "flow", "contacts")},
    "plan": _plan,
    "instruction": _instruction,
    "robot": _robot,
    "job": _job,
    "yaml": _yaml,
    "urdf": _urdf,
    **{kind: lambda kind=kind: _mesh(kind) for kind in ("obj", "stl", "ply", "glb")},
    "gltf": _gltf,
    "clips": _clips,
    **{
        f"points {n}": lambda n=n: _points(n) for n in ("a.npy", "a.xyz", "a.pcd", "b.pcd", "a.ply")
    },
    **{f"frames {k}": lambda k=k: _frames(k) for k in ("json", "png", "nerfstudio", "redwood")},
    "color": _color,
    "weights": _weights,
    "checkpoint": _checkpoint,
}
