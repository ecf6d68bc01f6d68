"""`flowplan articulate`: a scene and a motion in, a URDF out."""

import json

import numpy as np
import pytest
import trimesh

from flowplan.cli.dispatch import call
from flowplan.geometry import pose, rotation_about, transform
from flowplan.io import npz
from flowplan.motion import SceneMotion
from flowplan.robot.urdf import read_urdf
from flowplan.scene import Scene, SceneObject

SHARE = np.linspace(0, 1, 7)


def chest(tmp_path):
    """A scene of a chest with a lid, beside a cube that stands still, and its opening."""
    body = trimesh.creation.box([0.3, 0.2, 0.1]).apply_translation([0, 0, 0.05])
    lid = trimesh.creation.box([0.3, 0.2, 0.02]).apply_translation([0, 0, 0.11])
    mesh = trimesh.util.concatenate([body, lid]).subdivide()
    X = pose(translation=[0.5, 0.1, 0]) @ rotation_about([0, 0, 0], [0, 0, 1], 0.6)
    chest = SceneObject("chest", mesh, X)
    cube = SceneObject("cube", trimesh.creation.box([0.05] * 3), pose(translation=[0.2, 0, 0.025]))
    scene = Scene((cube, chest))
    opens = rotation_about([0, 0.1, 0.1], [1, 0, 0], -1.2 * SHARE)
    labels = trimesh.graph.connected_component_labels(mesh.face_adjacency)
    on_lid = np.zeros(len(mesh.vertices), bool)
    on_lid[mesh.faces[labels == labels[-1]]] = True
    local = np.where(on_lid[:, None], transform(opens, mesh.vertices), mesh.vertices)
    still = np.broadcast_to(cube.vertices_world, (len(SHARE), 8, 3))
    moved = SceneMotion(2 * SHARE, (still, transform(X, local)))
    return npz.save(tmp_path / "scene.npz", scene), npz.save(tmp_path / "motion.npz", moved)


def test_a_scan_and_a_motion_make_a_urdf(tmp_path, capsys):
    scene, motion = chest(tmp_path)
    out = tmp_path / "chest.urdf"
    assert call(["articulate", str(scene), str(motion), "--out", str(out)]) == 0
    assert "part_1 on base: revolute" in capsys.readouterr().out
    urdf = read_urdf(out)
    (hinge,) = urdf.joints
    assert hinge.kind == "revolute"
    assert np.allclose(hinge.axis, [-1, 0, 0], atol=1e-6)
    assert (hinge.lower, hinge.upper) == pytest.approx((0, 1.2), abs=1e-6)
    assert np.allclose(hinge.X_parent_joint[1:3, 3], [0.1, 0.1], atol=1e-6)


def test_the_cut_scene_and_its_motion_are_written(tmp_path):
    scene, motion = chest(tmp_path)
    words = ["articulate", str(scene), str(motion), "--out", str(tmp_path / "a.urdf")]
    cut, moved = tmp_path / "cut.npz", tmp_path / "moved.npz"
    assert call([*words, "--scene-out", str(cut), "--motion-out", str(moved)]) == 0
    _, obj = npz.load(cut, Scene).objects
    assert obj.articulation.joints[0].kind == "revolute"
    vertices = npz.load(moved, SceneMotion).vertices[1]
    assert np.allclose(vertices[0], obj.vertices_world)
    opened = obj.at({obj.articulation.joints[0].name: 1.2})
    assert np.allclose(vertices[-1], opened.vertices_world, atol=1e-6)


def test_a_generator_may_cut_the_scene(tmp_path):
    scene, _ = chest(tmp_path)
    obj = npz.load(scene, Scene).objects[1]
    handle = transform(obj.X_world_object, np.array([[0.0, -0.1, 0.12]]))
    turn = rotation_about([0, 0.1, 0.1], [1, 0, 0], -0.5)
    target = transform(obj.X_world_object, transform(turn, np.array([[0.0, -0.1, 0.12]])))
    axis = obj.X_world_object[:3, :3] @ [-1, 0, 0]
    point = transform(obj.X_world_object, np.array([[0, 0.1, 0.1]]))[0]
    instruction = {
        "object": "chest",
        "law": {
            "kind": "hinge",
            "axis_point": point.tolist(),
            "axis": axis.tolist(),
            "part": {"lower": [0, -1, 0.1005], "upper": [1, 1, 1]},
        },
        "handles": handle.tolist(),
        "targets": target.tolist(),
        "duration": 2.0,
    }
    (tmp_path / "open.json").write_text(json.dumps(instruction))
    cut, moved = tmp_path / "cut.npz", tmp_path / "moved.npz"
    words = ["generate", "kinematic", str(scene), str(tmp_path / "open.json")]
    assert call([*words, "--out", str(moved), "--articulate", str(cut)]) == 0
    obj = npz.load(cut, Scene).objects[1]
    (joint,) = obj.articulation.joints
    assert joint.kind == "revolute"
    assert joint.upper == pytest.approx(0.5, abs=0.01)
    assert npz.load(moved, SceneMotion).vertices[1].shape[1] == len(obj.mesh.vertices)


def test_an_object_is_chosen_by_name(tmp_path):
    scene, motion = chest(tmp_path)
    words = ["articulate", str(scene), str(motion), "--out", str(tmp_path / "a.urdf")]
    assert call([*words, "--object", "cube"]) == 0
    assert read_urdf(tmp_path / "a.urdf").joints == ()
    with pytest.raises(ValueError, match="object: got 'door', expected one of cube, chest"):
        call([*words, "--object", "door"])
    with pytest.raises(ValueError, match="ends in .urdf"):
        call([*words[:-1], str(tmp_path / "a.xml")])
