"""Parts and joints of an object as a record."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from flowplan.geometry import pose, rotation_about
from flowplan.io import npz
from flowplan.parts import Articulation, PartJoint
from flowplan.scene import Scene, SceneObject

X, Y, Z = np.eye(3)


def cabinet():
    """A box, a door on its front (12 faces each), and a knob on the door that turns with it."""
    boxes = [
        trimesh.creation.box([0.4, 0.3, 0.5]),
        trimesh.creation.box([0.4, 0.02, 0.5]).apply_translation([0, -0.16, 0]),
        trimesh.creation.box([0.03, 0.03, 0.03]).apply_translation([0.15, -0.185, 0]),
    ]
    door = PartJoint("door", "revolute", 0, 1, Z, [-0.2, -0.17, 0], lower=0, upper=1.5)
    knob = PartJoint("knob", "screw", 1, 2, -Y, [0.15, -0.185, 0], pitch=0.01, lower=0, upper=2)
    parts = Articulation(("body", "door", "knob"), np.repeat([0, 1, 2], 12), (door, knob))
    mesh = trimesh.util.concatenate(boxes)
    return SceneObject("cabinet", mesh, pose(translation=[0.5, 0, 0.25]), articulation=parts)


def test_a_joint_moves_what_hangs_on_it():
    moved = cabinet().at({"door": 0.7, "knob": 0.4}).mesh.vertices
    start = cabinet().mesh.vertices
    assert np.allclose(moved[:8], start[:8])
    turn = rotation_about([-0.2, -0.17, 0], Z, 0.7)
    door = start[8:16] @ turn[:3, :3].T + turn[:3, 3]
    assert np.allclose(moved[8:16], door)
    # The knob turns about its own axis and rises, before the door takes it along.
    own = rotation_about([0.15, -0.185, 0], -Y, 0.4)
    knob = start[16:] @ own[:3, :3].T + own[:3, 3] - Y * 0.01 * 0.4
    assert np.allclose(moved[16:], knob @ turn[:3, :3].T + turn[:3, 3])


def test_moving_there_and_back_changes_nothing():
    there = cabinet().at({"door": 0.7, "knob": 0.4})
    back = there.at({"door": 0.0, "knob": 0.0})
    assert np.allclose(back.mesh.vertices, cabinet().mesh.vertices)
    for a, b in zip(back.articulation.joints, cabinet().articulation.joints, strict=True):
        assert np.allclose(a.axis, b.axis)
        across = a.point - b.point
        assert np.allclose(across - a.axis * (a.axis @ across), 0)


def test_followers_keep_step():
    obj = cabinet()
    door, knob = obj.articulation.joints
    knob = replace(knob, follows="door", multiplier=2.0, offset=0.1)
    parts = replace(obj.articulation, joints=(door, knob))
    assert parts.movable == ("door",)
    assert parts.positions({"door": 0.5}) == {"door": 0.5, "knob": pytest.approx(1.1)}
    with pytest.raises(ValueError, match="joints: got 'knob', expected one of door"):
        parts.positions({"knob": 0.5})


def test_it_is_saved_with_the_scene(tmp_path):
    scene = Scene((cabinet(),))
    loaded = npz.load(npz.save(tmp_path / "scene.npz", scene), Scene).objects[0].articulation
    parts = scene.objects[0].articulation
    assert loaded.parts == parts.parts
    assert np.array_equal(loaded.part, parts.part)
    for a, b in zip(loaded.joints, parts.joints, strict=True):
        assert (a.name, a.kind, a.parent, a.child, a.pitch) == (
            b.name,
            b.kind,
            b.parent,
            b.child,
            b.pitch,
        )
        assert np.array_equal(a.axis, b.axis)
        assert np.array_equal(a.point, b.point)


def test_files_without_it_are_read(tmp_path):
    box = SceneObject("box", trimesh.creation.box([0.1] * 3))
    path = npz.save(tmp_path / "scene.npz", Scene((box,)))
    arrays = dict(np.load(path))
    arrays["_version"] = np.array(2)
    del arrays["objects/0/articulation"]
    np.savez(path, **arrays)
    assert npz.load(path, Scene).objects[0].articulation is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"part": np.repeat([0, 1, 3], 12)}, "numbers of 3 parts"),
        ({"parts": ("body", "door", "door")}, "different names"),
        ({"joints": ()}, "are no joint's child"),
        (
            {"joints": (PartJoint("a", "fixed", 1, 2, Z, Z), PartJoint("b", "fixed", 0, 1, Z, Z))},
            "",
        ),
        (
            {"joints": (PartJoint("a", "fixed", 0, 1, Z, Z), PartJoint("a", "fixed", 0, 2, Z, Z))},
            "",
        ),
    ],
)
def test_what_is_no_tree_is_refused(change, words):
    with pytest.raises(ValueError, match=words or "Articulation.joints: ") as error:
        replace(cabinet().articulation, **change)
    assert "\n" not in str(error.value)


def test_a_part_for_every_face_is_required():
    parts = cabinet().articulation
    with pytest.raises(ValueError, match="parts of 36 faces, the mesh has 12"):
        SceneObject("box", trimesh.creation.box([1, 1, 1]), articulation=parts)
    with pytest.raises(ValueError, match="expected a unit vector"):
        PartJoint("j", "revolute", 0, 1, 2 * Z, Z)
    with pytest.raises(ValueError, match="articulation: None"):
        SceneObject("box", trimesh.creation.box([1, 1, 1])).at({})
