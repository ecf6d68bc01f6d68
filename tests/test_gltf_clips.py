"""Animated glTF, built here feature by feature, against closed forms of what the specification says it shows."""

import base64
import json
import struct

import numpy as np
import pytest
import trimesh

from flowplan.geometry import exp_so3, pose, quat_xyzw_from_matrix, rotation_about, transform
from flowplan.io.gltf import export_gltf
from flowplan.motion import SceneMotion
from flowplan.scene import Scene, SceneObject
from generators.data.clips.gltf_clips import GltfOptions, read_clips

COMPONENTS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
SHAPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
BOX = trimesh.creation.box([1, 1, 1])


def box_at(x, y, z):
    return BOX.vertices + np.array([x, y, z])


LID = BOX.vertices * np.array([1, 0.1, 1]) + np.array([0, 0, 0.5])


class Writer:
    """A glTF document put together by hand."""

    def __init__(self):
        self.data = bytearray()
        self.doc = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [], "meshes": [],
                    "accessors": [], "bufferViews": [], "animations": []}  # fmt: skip

    def view(self, data, **extra):
        self.data += bytes(-len(self.data) % 4)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data), **extra}
        self.data += data
        self.doc["bufferViews"].append(view)
        return len(self.doc["bufferViews"]) - 1

    def accessor(self, array, kind="f4", **extra):
        array = np.asarray(array, np.dtype("<" + kind))
        width = 1 if array.ndim == 1 else array[0].size
        if "bufferView" not in extra and not extra.pop("absent", False):
            extra["bufferView"] = self.view(array.tobytes())
        entry = {
            "componentType": COMPONENTS[kind],
            "count": len(array),
            "type": SHAPES[width],
            **extra,
        }
        self.doc["accessors"].append(entry)
        return len(self.doc["accessors"]) - 1

    def mesh(self, vertices=BOX.vertices, faces=BOX.faces, **primitive):
        attributes = {"POSITION": self.accessor(vertices), **primitive.pop("attributes", {})}
        entry = {"attributes": attributes, **primitive}
        if faces is not None:
            entry["indices"] = self.accessor(np.ravel(faces), "u2")
        self.doc["meshes"].append({"primitives": [entry]})
        return len(self.doc["meshes"]) - 1

    def node(self, **entry):
        self.doc["nodes"].append(entry)
        return len(self.doc["nodes"]) - 1

    def animate(self, node, path, times, values, interpolation="LINEAR", *, new=True):
        if new or not self.doc["animations"]:
            self.doc["animations"].append({"name": "motion", "channels": [], "samplers": []})
        animation = self.doc["animations"][-1]
        target = {"node": node, "path": path}
        animation["channels"].append({"sampler": len(animation["samplers"]), "target": target})
        sampler = {
            "input": self.accessor(times),
            "output": self.accessor(values),
            "interpolation": interpolation,
        }
        animation["samplers"].append(sampler)

    def write(self, path, layout="glb"):
        doc = {k: v for k, v in self.doc.items() if v != []}
        doc["buffers"] = [{"byteLength": len(self.data)}]
        if layout == "glb":
            text = json.dumps(doc).encode()
            text += b" " * (-len(text) % 4)
            data = bytes(self.data) + bytes(-len(self.data) % 4)
            head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(data))
            chunks = [
                struct.pack("<I4s", len(c), k) + c for c, k in ((text, b"JSON"), (data, b"BIN\0"))
            ]
            path = path / "model.glb"
            path.write_bytes(head + b"".join(chunks))
            return path
        uri = "data:application/octet-stream;base64," + base64.b64encode(self.data).decode()
        if layout == "beside":
            uri = "its%20data.bin"
            (path / "its data.bin").write_bytes(self.data)
        doc["buffers"][0]["uri"] = uri
        path = path / "model.gltf"
        path.write_text(json.dumps(doc))
        return path


def z_up(points):
    x, y, z = np.moveaxis(np.asarray(points), -1, 0)
    return np.stack([x, -z, y], -1)


def same(found, expected, atol=1e-6):
    """Are two vertex lists (F, V, 3) the same but for their order?"""
    found, expected = (
        np.moveaxis(np.asarray(v), 1, 0).reshape(np.shape(v)[1], -1) for v in (found, expected)
    )
    order = [np.abs(expected - row).max(1).argmin() for row in found]
    assert sorted(order) == list(range(len(expected)))
    np.testing.assert_allclose(found, expected[order], atol=atol)


def only(path, frames=5):
    found = read_clips(path, GltfOptions(frames=frames))
    assert not found.refused
    (clip,) = found.clips
    return clip


def quat(*rotations):
    return quat_xyzw_from_matrix(np.stack([exp_so3(r) for r in rotations]))


def hinged():
    """A still box, and a lid on it that turns by a right angle about x through its own node."""
    w = Writer()
    w.node(children=[1, 2], rotation=[0, 0, 0, 1])
    w.node(mesh=w.mesh(), translation=[0, -1, 0])
    w.node(mesh=w.mesh(LID), translation=[0, 0, -0.5], scale=[1, 1, 2])
    w.animate(2, "rotation", [0.5, 2.5], quat([0, 0, 0], [-np.pi / 2, 0, 0]))
    return w


def hinged_truth(fractions):
    lid = LID * [1, 1, 2]
    frames = []
    for s in fractions:
        moved = lid @ exp_so3([-s * np.pi / 2, 0, 0]).T + [0, 0, -0.5]
        frames.append(np.concatenate([box_at(0, -1, 0), moved]))
    return z_up(frames)


@pytest.mark.parametrize("layout", ["glb", "embedded", "beside"])
def test_a_hinge_turns_at_constant_speed_in_every_container(layout, tmp_path):
    clip = only(hinged().write(tmp_path, layout))
    assert clip.name == "model/motion"
    assert clip.vertices.shape == (5, 16, 3)
    assert clip.faces.shape == (24, 3)
    same(clip.vertices, hinged_truth(np.linspace(0, 1, 5)))


def test_faces_stay_with_their_vertices(tmp_path):
    clip = only(hinged().write(tmp_path))
    mesh = trimesh.Trimesh(clip.vertices[0], clip.faces, process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(1 + 0.2, abs=1e-6)


def test_steps_and_splines(tmp_path):
    w = Writer()
    w.node(children=[1, 2, 3])
    for _ in range(3):
        w.node(mesh=w.mesh(BOX.vertices))
    w.animate(1, "translation", [0, 1, 4], [[3, 0, 0], [4, 0, 0], [5, 0, 0]], "STEP")
    t = np.array([0.0, 1.0, 4.0])  # t^3 has the tangents 3 t^2: a cubic spline is exact
    spline = np.stack([3 * t**2, t**3, 3 * t**2], 1)[:, :, None] * [0, 0, 1.0]
    w.animate(2, "translation", t, spline.reshape(-1, 3), "CUBICSPLINE", new=False)
    clip = only(w.write(tmp_path), frames=9)
    s = np.linspace(0, 4, 9)
    step = np.where(s < 1, 3.0, np.where(s < 4, 4.0, 5.0))
    still = np.broadcast_to(BOX.vertices, (9, 8, 3))
    expected = [
        still + step[:, None, None] * [1, 0, 0],
        still + (s**3)[:, None, None] * [0, 0, 1],
        still,
    ]
    found = np.sort(clip.vertices.reshape(9, -1, 3), axis=1)
    np.testing.assert_allclose(found, np.sort(z_up(np.concatenate(expected, 1)), axis=1), atol=1e-4)


def test_a_turn_takes_the_shorter_way_and_stays_a_turn_on_a_spline(tmp_path):
    a, b = quat([0, 0, 0], [0, 0, 1.0])
    w = Writer()
    w.node(children=[1, 2])
    w.node(mesh=w.mesh())
    w.node(mesh=w.mesh(box_at(2, 0, 0)))
    w.animate(2, "rotation", [0, 1], [a, -b])
    half = only(w.write(tmp_path), frames=3).vertices[1]
    same(half[None], z_up([[*BOX.vertices, *(box_at(2, 0, 0)) @ exp_so3([0, 0, 0.5]).T]]))
    w.doc["animations"].clear()
    zero = np.zeros(4)
    w.animate(2, "rotation", [0, 1], [zero, a, zero, zero, b, zero], "CUBICSPLINE")
    half = only(w.write(tmp_path), frames=3).vertices[1]
    same(half[None], z_up([[*BOX.vertices, *(box_at(2, 0, 0)) @ exp_so3([0, 0, 0.5]).T]]))


def arm():
    """A strip of 9 x 2 vertices along y, bound to a joint at its foot and one halfway up."""
    y = np.repeat(np.linspace(0, 2, 9), 2)
    points = np.stack([np.tile([-0.1, 0.1], 9), y, np.zeros(18)], 1)
    faces = [[2 * i + a for a in corner] for i in range(8) for corner in ((0, 1, 3), (0, 3, 2))]
    share = np.clip(y - 0.5, 0, 1)
    return points, faces, np.stack([1 - share, share], 1)


@pytest.mark.parametrize("kind", ["f4", "u1", "u2"])
def test_a_skin_blends_its_joints_and_its_own_node_does_not_matter(kind, tmp_path):
    points, faces, share = arm()
    w = Writer()
    table = np.zeros((18, 4))
    table[:, [0, 2]] = share[:, ::-1]
    if kind != "f4":
        table = np.round(table * np.iinfo(kind).max)
    joints = np.tile([1, 0, 0, 0], (18, 1))  # the second pair's is the foot
    extra = {"normalized": True} if kind != "f4" else {}
    attributes = {
        "JOINTS_0": w.accessor(joints, "u1"),
        "WEIGHTS_0": w.accessor(table, kind, **extra),
    }
    w.node(children=[1, 2])
    w.node(mesh=w.mesh(points, faces, attributes=attributes), skin=0, translation=[7, 7, 7])
    w.node(translation=[0, 0.2, 0], children=[3])
    w.node(translation=[0, 1, 0])
    bind = [pose(None, [0, 0, 0]), pose(None, [0, -1, 0])]
    inverse_bind = w.accessor(np.stack([b.T for b in bind]).reshape(2, 16))
    w.doc["skins"] = [{"joints": [2, 3], "inverseBindMatrices": inverse_bind}]
    w.animate(3, "rotation", [0, 1], quat([0, 0, 0], [0, 0, 1.2]))
    clip = only(w.write(tmp_path))
    expected = []
    for s in np.linspace(0, 1, 5):
        foot = pose(None, [0, 0.2, 0])
        top = foot @ rotation_about([0, 1, 0], [0, 0, 1], 1.2 * s)
        expected.append(
            share[:, :1] * transform(foot, points) + share[:, 1:] * transform(top, points)
        )
    same(clip.vertices, z_up(expected), atol=1e-6 if kind == "f4" else 4e-3)


def test_morph_targets_sparse_or_not_follow_their_weights(tmp_path):
    bulge, rise = BOX.vertices * [0.5, 0, 0.5], np.zeros((8, 3))
    rise[[1, 5]] = [[0, 1, 0], [0, 2, 0]]
    w = Writer()
    values = {"bufferView": w.view(rise[[1, 5]].astype("<f4").tobytes())}
    indices = {"bufferView": w.view(np.array([1, 5], "<u2").tobytes()), "componentType": 5123}
    sparse = {"count": 2, "indices": indices, "values": values}
    targets = [
        {"POSITION": w.accessor(bulge)},
        {"POSITION": w.accessor(rise, absent=True, sparse=sparse)},
        {},
    ]
    w.node(mesh=w.mesh(targets=targets))
    w.doc["meshes"][0]["weights"] = [0.5, 0.5, 0]
    w.animate(0, "weights", [0, 1, 2], [0, 0, 0, 1, 0, 0, 1, 1, 1])
    w.animate(
        0, "scale", [0, 1], [[1, 1, 1], [3, 3, 3]]
    )  # the node that carries everything: refused
    found = read_clips(w.write(tmp_path), GltfOptions(frames=5))
    assert found.refused == {"motion.1": "root-only"}
    first, second = np.array([0, 0.5, 1, 1, 1]), np.array([0, 0, 0, 0.5, 1])
    expected = BOX.vertices + first[:, None, None] * bulge + second[:, None, None] * rise
    same(found.clips[0].vertices, z_up(expected))


def test_interleaved_and_quantized_positions(tmp_path):
    w = hinged()
    # The lid again: positions in 16 bits with normals between them, unpacked by the node's scale.
    packed = np.zeros((8, 8), "<i2")
    packed[:, :3] = np.round(LID * 32767)
    view = w.view(packed.tobytes(), byteStride=16)
    index = w.accessor(packed[:, :3], "i2", bufferView=view, normalized=True)
    w.doc["meshes"][1]["primitives"][0]["attributes"]["POSITION"] = index
    w.doc["extensionsRequired"] = ["KHR_mesh_quantization"]
    same(only(w.write(tmp_path)).vertices, hinged_truth(np.linspace(0, 1, 5)), atol=1e-4)


@pytest.mark.parametrize(
    ("mode", "order"), [(5, [0, 1, 2, 3]), (6, [0, 1, 3, 2]), (4, [0, 1, 2, 1, 3, 2])]
)
def test_strips_fans_and_lists_face_the_same_way(mode, order, tmp_path):
    square = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.0]])
    w = hinged()
    w.doc["meshes"][1] = w.doc["meshes"][w.mesh(square, order, mode=mode)]
    clip = only(w.write(tmp_path))
    extra = trimesh.Trimesh(clip.vertices[0], clip.faces[12:], process=False)
    assert len(extra.faces) == 2
    np.testing.assert_allclose(extra.face_normals, z_up([[0, 0, 1.0]] * 2), atol=1e-6)


def test_corners_apart_in_normals_alone_are_one_vertex(tmp_path):
    w = hinged()
    soup = BOX.vertices[BOX.faces].reshape(-1, 3)
    w.doc["meshes"][0] = w.doc["meshes"][w.mesh(soup, None)]
    clip = only(w.write(tmp_path))
    assert clip.vertices.shape[1] == 16
    same(clip.vertices, hinged_truth(np.linspace(0, 1, 5)))


def test_what_moves_as_a_whole_is_held_or_refused(tmp_path):
    w = hinged()
    away = quat([0, 0, 0], [0, 1.5, 0])
    w.animate(
        0, "rotation", [0, 2], away, new=False
    )  # the root turns while the lid opens: the lid alone is kept
    clip = only(w.write(tmp_path), frames=6)  # 0, 0.5, ... 2.5 s
    same(clip.vertices, hinged_truth([0, 0, 0.25, 0.5, 0.75, 1]))
    w = hinged()
    w.doc["animations"].clear()
    w.animate(0, "translation", [0, 1], [[0, 0, 0], [5, 0, 0]])
    w.animate(1, "translation", [0, 1], [[0, -1, 0], [0, -1.001, 0]])
    w.animate(0, "rotation", [0, 1], [away[0], away[0]])
    for node, start in ((1, [0, -1, 0]), (2, [0, 0, -0.5])):  # both parts alike, each on its own
        w.animate(node, "translation", [0, 1], [start, np.add(start, [3, 0, 0])], new=node == 1)
    w.doc["animations"][1]["channels"].append({"sampler": 0, "target": {"path": "pointer"}})
    found = read_clips(w.write(tmp_path))
    assert found.clips == ()
    assert found.refused == {
        "motion": "root-only",
        "motion.1": "static",
        "motion.2": "static",
        "motion.3": "root-only",
    }


def test_two_roots_that_part_are_motion(tmp_path):
    w = Writer()
    w.doc["scenes"] = [{"nodes": [0, 1]}]
    w.node(mesh=w.mesh())
    w.node(mesh=w.mesh(), translation=[0, 2, 0])
    w.node(mesh=w.mesh(), translation=[9, 9, 9])  # in no scene
    w.animate(1, "translation", [0, 1], [[0, 2, 0], [0, 3, 0]])
    clip = only(w.write(tmp_path), frames=2)
    up = [box_at(0, y, 0) for y in (2, 3)]
    same(clip.vertices, z_up([[*BOX.vertices, *v] for v in up]))


def test_a_skin_on_one_moving_joint_moves_as_a_whole(tmp_path):
    points, faces, _ = arm()
    w = Writer()
    weights = np.tile([1.0, 0, 0, 0], (18, 1))
    attributes = {"JOINTS_0": w.accessor(np.zeros((18, 4)), "u2"), "WEIGHTS_0": w.accessor(weights)}
    w.node(children=[1, 2])
    w.node(mesh=w.mesh(points, faces, attributes=attributes), skin=0)
    w.node()
    w.doc["skins"] = [{"joints": [2, 0]}]
    w.animate(2, "rotation", [0, 1], quat([0, 0, 0], [0, 0, 1.2]))
    assert read_clips(w.write(tmp_path)).refused == {"motion": "root-only"}


def test_our_own_export_comes_back(tmp_path):
    X = rotation_about([0, 0.1, 0], [1, 0, 0], np.linspace(0, 1.5, 9))
    scene = Scene(
        tuple(SceneObject(n, trimesh.creation.box([0.3, 0.2, 0.02])) for n in ("lid", "base"))
    )
    still = np.broadcast_to(scene.objects[1].vertices_world, (9, 8, 3))
    motion = SceneMotion(np.linspace(0, 2, 9), (transform(X, still[0]), still))
    clip = only(export_gltf(tmp_path / "m.glb", scene, motion), frames=9)
    same(clip.vertices, np.concatenate(motion.vertices, 1))


def _set(*keys_and_value):
    *keys, last, value = keys_and_value

    def damage(doc):
        for key in keys:
            doc = doc[key]
        doc[last] = value

    return damage


REFUSED = {
    "no_animation": (lambda d: d.pop("animations"), "has no animation"),
    "no_triangle": (
        _set("meshes", [{"primitives": [{"attributes": {}, "mode": 0}]}] * 2),
        "draws 0 vertices",
    ),
    "draco": (
        _set("extensionsRequired", ["KHR_draco_mesh_compression"]),
        "requires KHR_draco_mesh_compression",
    ),
    "version": (_set("asset", "version", "1.0"), "expected 2.x"),
    "loop": (_set("nodes", 2, "children", [0]), "form a loop"),
    "lost_node": (_set("animations", 0, "samplers", []), "not a valid glTF document"),
    "text": (_set("nodes", 1, "translation", "up"), "not a valid glTF document"),
    "no_buffer": (_set("bufferViews", 0, "buffer", 7), "not a valid glTF document"),
    "too_long": (_set("accessors", 0, "count", 10**6), "cut off"),
    "vast": (_set("accessors", 0, "count", 10**12), "expected 0 to"),
    "interpolation": (_set("animations", 0, "samplers", 0, "interpolation", "WAVY"), "WAVY"),
    "zero_turn": (_set("nodes", 1, "rotation", [0, 0, 0, 0]), "not finite"),
    "values": (_set("accessors", 5, "count", 1), "not a valid|numbers for 2"),
    "index": (_set("accessors", 0, "count", 4), "of 4; export it again"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("fault", REFUSED)
def test_a_broken_document_is_refused_in_one_line(fault, tmp_path):
    w = hinged()
    damage, says = REFUSED[fault]
    damage(w.doc)
    with pytest.raises(ValueError, match=says) as refusal:
        read_clips(w.write(tmp_path))
    assert str(refusal.value).startswith(str(tmp_path))
    assert "\n" not in str(refusal.value)


def test_files_that_are_none_are_refused(tmp_path):
    path = hinged().write(tmp_path)
    data = path.read_bytes()
    for broken, says in (
        (data[:-40], "cut off"),
        (b"glTF", "JSON chunk"),
        (b"\xff{}", "JSON"),
        (b"[]", "object"),
    ):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=says):
            read_clips(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_clips(tmp_path / "none.glb")
    path = hinged().write(tmp_path, "beside")
    path.write_text(path.read_text().replace("its%20data.bin", "../../its%20data.bin"))
    with pytest.raises(ValueError, match="outside of the file's folder"):
        read_clips(path)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_damage_anywhere_is_a_refusal_or_a_clip(tmp_path):
    path = hinged().write(tmp_path)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        broken = bytearray(data)
        for at in rng.integers(20, len(data), 3):
            broken[at] = rng.integers(256)
        path.write_bytes(broken)
        says = str(path)
        try:
            read_clips(path, GltfOptions(frames=3))
        except ValueError as error:
            says = str(error)
        assert says.startswith(str(path))
