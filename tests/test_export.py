"""Exported .glb files: conformity with the specification, and the motion when played."""

import json
import struct

import numpy as np
import pytest
import trimesh

from flowplan.geometry import pose, rotation_about, transform
from flowplan.io.gltf import export_gltf
from flowplan.motion import SceneMotion
from flowplan.scene import Scene, SceneObject

TYPES = {5126: np.dtype("<f4"), 5125: np.dtype("<u4"), 5123: np.dtype("<u2")}
WIDTH = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}


class Glb:
    """A glTF reader that checks the requirements of the specification."""

    def __init__(self, data):
        magic, version, total = struct.unpack_from("<4sII", data)
        assert (magic, version, total) == (b"glTF", 2, len(data))
        length, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON"
        assert length % 4 == 0
        self.json = json.loads(data[20 : 20 + length])
        size, kind = struct.unpack_from("<I4s", data, 20 + length)
        assert kind == b"BIN\0"
        assert size % 4 == 0
        self.binary = data[28 + length :]
        assert len(self.binary) == size == self.json["buffers"][0]["byteLength"]

    def array(self, index):
        accessor = self.json["accessors"][index]
        view = self.json["bufferViews"][accessor["bufferView"]]
        dtype, width = TYPES[accessor["componentType"]], WIDTH[accessor["type"]]
        assert view["byteOffset"] % 4 == 0
        assert view["byteLength"] == accessor["count"] * width * dtype.itemsize
        body = self.binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        out = np.frombuffer(body, dtype).reshape(accessor["count"], width)
        if "min" in accessor:
            np.testing.assert_array_equal(np.float32(accessor["min"]), out.min(0))
            np.testing.assert_array_equal(np.float32(accessor["max"]), out.max(0))
        return out

    def node(self, name):
        return next(i for i, n in enumerate(self.json["nodes"]) if n["name"] == name)

    def mesh(self, name):
        return self.json["meshes"][self.json["nodes"][self.node(name)]["mesh"]]

    def play(self, name, t):
        """Vertices (V, 3) of one object at time t, as a player computes them."""
        primitive = self.mesh(name)["primitives"][0]
        v = self.array(primitive["attributes"]["POSITION"]).astype(float)
        animation = self.json["animations"][0]
        channel = next(
            c
            for c in animation["channels"]
            if c["target"] == {"node": self.node(name), "path": "weights"}
        )
        sampler = animation["samplers"][channel["sampler"]]
        times = self.array(sampler["input"])[:, 0]
        weights = self.array(sampler["output"]).reshape(len(times), -1)
        for k, target in enumerate(primitive["targets"]):
            v = v + np.interp(t, times, weights[:, k]) * self.array(target["POSITION"])
        return v


def lid(T=9):
    box = trimesh.creation.box([0.3, 0.2, 0.02])
    X = rotation_about([0, 0.1, 0], [1, 0, 0], np.linspace(0, 1.5, T))
    cup = trimesh.creation.cylinder(0.03, 0.1)
    cup.visual.vertex_colors = np.tile([255, 128, 0, 255], (len(cup.vertices), 1))
    wall = SceneObject("wall", trimesh.creation.box([0.01, 1, 1]), pose(None, [0.6, 0, 0.5]))
    scene = Scene(
        (SceneObject("lid", box), SceneObject("cup", cup, pose(None, [0.2, 0.2, 0.05]))),
        0.0,
        (wall,),
    )
    still = np.broadcast_to(scene.objects[1].vertices_world, (T, len(cup.vertices), 3))
    return scene, SceneMotion(np.linspace(0, 2, T), (transform(X, box.vertices), still))


def test_playing_the_file_gives_the_motion_back(tmp_path):
    scene, motion = lid()
    glb = Glb(export_gltf(tmp_path / "m.glb", scene, motion).read_bytes())
    for k, t in enumerate(motion.times):
        np.testing.assert_allclose(glb.play("lid", t), motion.vertices[0][k], atol=1e-6)
    between = (motion.vertices[0][3] + motion.vertices[0][4]) / 2
    np.testing.assert_allclose(
        glb.play("lid", (motion.times[3] + motion.times[4]) / 2), between, atol=1e-6
    )
    primitive = glb.mesh("lid")["primitives"][0]
    np.testing.assert_array_equal(
        glb.array(primitive["indices"]).reshape(-1, 3), scene.objects[0].mesh.faces
    )
    for accessor in [
        primitive["attributes"]["POSITION"],
        *(t["POSITION"] for t in primitive["targets"]),
    ]:
        assert "min" in glb.json["accessors"][accessor]  # required for positions
    assert len(glb.mesh("lid")["weights"]) == len(primitive["targets"]) == len(motion.times) - 1
    for i in range(len(glb.json["accessors"])):
        glb.array(i)


def test_what_stands_still_has_no_targets_and_obstacles_are_there(tmp_path):
    scene, motion = lid()
    glb = Glb(export_gltf(tmp_path / "m.glb", scene, motion).read_bytes())
    assert "targets" not in glb.mesh("cup")["primitives"][0]
    assert "targets" not in glb.mesh("wall")["primitives"][0]
    assert len(glb.json["animations"][0]["channels"]) == 1
    color = glb.array(glb.mesh("cup")["primitives"][0]["attributes"]["COLOR_0"])
    np.testing.assert_allclose(
        color[0] / 65535, [1, ((128 / 255 + 0.055) / 1.055) ** 2.4, 0, 1], atol=1e-5
    )
    still = SceneMotion([0, 1.0], tuple(v[:2] * 0 + v[:1] for v in motion.vertices))
    assert "animations" not in Glb(export_gltf(tmp_path / "s.glb", scene, still).read_bytes()).json


def test_trimesh_reads_the_first_frame_with_y_up(tmp_path):
    scene, motion = lid()
    read = trimesh.load(export_gltf(tmp_path / "m.glb", scene, motion))
    z_up = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    assert set(read.geometry) == {"lid", "cup", "wall"}
    bounds = [read.geometry["wall"].copy().apply_transform(z_up @ read.graph["wall"][0]).bounds]
    np.testing.assert_allclose(bounds[0], scene.obstacles[0].mesh_world.bounds, atol=1e-6)
    assert read.geometry["lid"].copy().apply_transform(read.graph["lid"][0]).extents[
        1
    ] == pytest.approx(0.02, abs=1e-6)


def test_fewer_keyframes_keep_the_first_and_the_last(tmp_path):
    scene, motion = lid(41)
    glb = Glb(export_gltf(tmp_path / "m.glb", scene, motion, keyframes=5).read_bytes())
    assert len(glb.mesh("lid")["primitives"][0]["targets"]) == 4
    for k in (0, 10, 40):
        np.testing.assert_allclose(
            glb.play("lid", motion.times[k]), motion.vertices[0][k], atol=1e-6
        )


def test_what_cannot_be_exported_is_refused_and_nothing_is_left(tmp_path):
    scene, motion = lid()
    with pytest.raises(ValueError, match=r"path: expected a name that ends in \.glb"):
        export_gltf(tmp_path / "m.gltf", scene, motion)
    with pytest.raises(ValueError, match=r"motion\.vertices: expected \[8\] vertices"):
        export_gltf(tmp_path / "m.glb", Scene(scene.objects[:1]), motion)
    with pytest.raises(ValueError, match="keyframes: expected at least 2"):
        export_gltf(tmp_path / "m.glb", scene, motion, keyframes=1)
    assert not list(tmp_path.iterdir())
