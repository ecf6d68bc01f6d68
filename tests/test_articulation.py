"""Parts and joints estimated from motions whose joints are known."""

import numpy as np
import pytest
import trimesh

from flowplan.articulation import ArticulationOptions, cut, estimate, export_urdf
from flowplan.geometry import exp_se3, pose, rotation_about, transform
from flowplan.parts import Articulation, PartJoint
from flowplan.robot.urdf import read_urdf
from flowplan.scan import load_urdf
from flowplan.scene import SceneObject

SHARE = np.linspace(0, 1, 9)
RNG = np.random.default_rng(0)


def fine_box(extents, center, edge=0.02):
    mesh = trimesh.creation.box(extents).apply_translation(center)
    return trimesh.Trimesh(
        *trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, edge), process=True
    )


def two_boxes():
    """A body and a part in front of it, two connected pieces."""
    return trimesh.util.concatenate(
        [
            fine_box([0.4, 0.3, 0.3], [0, 0, 0.15]),
            fine_box([0.38, 0.02, 0.28], [0, -0.17, 0.15]),
        ]
    )


def one_skin():
    """A slab with a groove across: one connected surface."""
    mesh = fine_box([0.5, 0.2, 0.04], [0, 0, 0], 0.012)
    vertices = np.array(mesh.vertices)
    groove = np.exp(-((vertices[:, 0] / 0.012) ** 2))
    vertices[:, 2] *= 1 - 0.8 * groove
    return trimesh.Trimesh(vertices, mesh.faces, process=False)


def driven(mesh, moves, X):
    """Motion (T, V, 3) of a mesh of which some vertices follow X (T, 4, 4)."""
    return np.where(moves[:, None], transform(X, mesh.vertices), mesh.vertices)


HINGE = rotation_about([-0.19, -0.18, 0], [0, 0, 1], -1.1 * SHARE)
SLIDE = pose(translation=SHARE[:, None] * [0.0, -0.15, 0.0])
SCREW = exp_se3(
    SHARE[:, None]
    * np.concatenate([np.cross([0, 0, 0.15], [0, -1, 0]) - [0, 0.08, 0], [0, -1.5, 0]])
    * [1.5, 1, 1.5, 1, 1, 1]
)


@pytest.mark.parametrize(
    ("X", "kind", "axis", "point", "amount"),
    [
        (HINGE, "revolute", [0, 0, -1], [-0.19, -0.18, 0], 1.1),
        (SLIDE, "prismatic", [0, -1, 0], None, 0.15),
        (SCREW, "screw", [0, -1, 0], [0, 0, 0.15], 1.5),
    ],
)
def test_known_joints_are_found(X, kind, axis, point, amount):
    mesh = two_boxes()
    moves = mesh.vertices[:, 1] < -0.155
    found = estimate(mesh, driven(mesh, moves, X))
    parts = found.articulation
    assert not found.deformable
    assert np.array_equal(parts.part == 1, moves[mesh.faces].all(axis=1))
    (joint,) = parts.joints
    assert joint.kind == kind
    assert np.allclose(joint.axis, axis, atol=1e-6)
    assert found.amount[joint.name][-1] == pytest.approx(amount, abs=1e-6)
    assert (joint.lower, joint.upper) == pytest.approx((0, amount), abs=1e-6)
    assert joint.residual < 1e-6
    assert joint.confidence > 0.99
    assert joint.axis_std < 1e-4
    if point is not None:
        assert np.linalg.norm(np.cross(joint.point - point, axis)) < 1e-6


def test_a_wobbling_part_is_free():
    mesh = two_boxes()
    moves = mesh.vertices[:, 1] < -0.155
    middle = [0.0, -0.3, 0.15]
    turns = np.stack([np.sin(3 * SHARE), np.sin(5 * SHARE), SHARE], axis=1)
    X = pose(translation=0.2 * np.sin(7 * turns)) @ pose(translation=middle)
    X = (
        X
        @ exp_se3(np.concatenate([0 * turns, turns], axis=1))
        @ pose(translation=-np.array(middle))
    )
    X = X @ np.linalg.inv(X[0])
    (joint,) = estimate(mesh, driven(mesh, moves, X)).articulation.joints
    assert joint.kind == "free"


def test_a_frame_changes_nothing():
    mesh = two_boxes()
    moves = mesh.vertices[:, 1] < -0.155
    motion = driven(mesh, moves, HINGE)
    X = rotation_about([0.3, 0.1, 0.2], [1, 2, 3], 0.9)
    turned = trimesh.Trimesh(transform(X, mesh.vertices), mesh.faces, process=False)
    here, there = estimate(mesh, motion), estimate(turned, transform(X, motion))
    assert np.array_equal(here.articulation.part, there.articulation.part)
    expected = here.articulation.in_frame(X).joints[0]
    assert np.allclose(there.articulation.joints[0].axis, expected.axis, atol=1e-6)


def test_the_border_follows_the_groove_of_one_skin():
    mesh = one_skin()
    moves = mesh.vertices[:, 0] > 0
    # A band of 8 cm at the groove is torn along, and everything trembles by 1 mm.
    share = np.clip(mesh.vertices[:, 0] / 0.08 + 0.5, 0, 1)
    whole = transform(rotation_about([0, 0, 0.02], [0, 1, 0], -0.8 * SHARE), mesh.vertices)
    motion = mesh.vertices + share[:, None] * (whole - mesh.vertices)
    motion[1:] += 1e-3 * RNG.standard_normal(motion[1:].shape)
    found = estimate(mesh, motion)
    inside = mesh.triangles_center[:, 0] > 0
    area = mesh.area_faces
    part = found.articulation.part == 1
    overlap = area[part & inside].sum() / area[part | inside].sum()
    assert overlap > 0.95
    (joint,) = found.articulation.joints
    assert joint.kind == "revolute"
    assert abs(joint.axis @ [0, 1, 0]) > 0.999
    assert moves.any()


def test_a_bent_motion_has_two_parts_still():
    mesh = two_boxes()
    moves = mesh.vertices[:, 1] < -0.155
    motion = driven(mesh, moves, SLIDE)
    way = np.linalg.norm(motion - motion[0], axis=-1)[:, moves].mean(axis=1)
    wave = np.cos(33 * mesh.vertices[:, 0])[:, None] * [0.2, 0.3, 0.1]
    wave += np.sin(45 * (mesh.vertices[:, 2] - 0.15))[:, None] * [0.1, 0.1, 0.2]
    motion = motion + way[:, None, None] * np.where(moves[:, None], wave, 0.1 * wave)
    found = estimate(mesh, motion)
    assert len(found.articulation.parts) == 2
    assert np.array_equal(found.articulation.part == 1, moves[mesh.faces].all(axis=1))
    (joint,) = found.articulation.joints
    assert joint.kind == "prismatic"
    assert joint.axis @ [0, -1, 0] > 0.98
    assert joint.confidence < 0.9


def test_a_part_on_a_part_is_a_chain():
    mesh = trimesh.util.concatenate(
        [two_boxes(), fine_box([0.12, 0.05, 0.05], [0.12, -0.21, 0.15])]
    )
    piece = np.digitize(mesh.vertices[:, 1], [-0.184, -0.155])  # 0 knob, 1 door, 2 body
    knob = HINGE @ rotation_about([0.15, 0, 0.15], [0, 1, 0], 1.5 * SHARE)
    motion = driven(mesh, piece == 1, HINGE)
    motion = np.where((piece == 0)[:, None], transform(knob, mesh.vertices), motion)
    parts = estimate(mesh, motion).articulation
    assert len(parts.parts) == 3
    door, turn = parts.joints
    assert (door.parent, door.kind, turn.kind) == (0, "revolute", "revolute")
    assert turn.parent == door.child
    assert abs(turn.axis @ [0, 1, 0]) > 1 - 1e-6


def test_a_sheet_in_the_wind_is_deformable():
    mesh = fine_box([0.4, 0.4, 0.004], [0, 0, 0], 0.02)
    x, y, _ = mesh.vertices.T
    wave = np.sin(25 * x[None] - 6 * SHARE[:, None]) * np.cos(20 * y)
    motion = np.broadcast_to(mesh.vertices, (len(SHARE), len(x), 3)).copy()
    motion[..., 2] += 0.08 * SHARE[:, None] * wave
    assert estimate(mesh, motion).deformable


def test_what_stands_still_has_one_part():
    mesh = two_boxes()
    still = np.broadcast_to(mesh.vertices, (3, *mesh.vertices.shape))
    found = estimate(mesh, still)
    assert found.articulation.parts == ("base",)
    assert not found.deformable


def test_a_large_mesh_is_searched_by_patches():
    mesh = two_boxes()
    moves = mesh.vertices[:, 1] < -0.155
    found = estimate(mesh, driven(mesh, moves, HINGE), ArticulationOptions(faces=300))
    assert len(mesh.faces) > 1000
    assert np.array_equal(found.articulation.part == 1, moves[mesh.faces].all(axis=1))


def test_both_sides_of_a_cut_are_closed():
    mesh = fine_box([0.5, 0.2, 0.04], [0, 0, 0])
    part = (mesh.triangles_center[:, 0] > 0).astype(int)
    found = cut(mesh, part)
    for k in (0, 1):
        used = found.mesh.faces[found.part == k]
        piece = trimesh.Trimesh(found.mesh.vertices, used, process=False)
        assert piece.is_watertight
        assert set(np.unique(used)) <= set(np.flatnonzero(found.owner == k))
    assert found.mesh.volume == pytest.approx(mesh.volume, rel=1e-9)
    known = found.source >= 0
    assert np.array_equal(found.mesh.vertices[known], mesh.vertices[found.source[known]])


def cabinet(kind, **more):
    joint = PartJoint("j", kind, 0, 1, [0, 0, 1], [-0.19, -0.18, 0], **more)
    mesh = two_boxes()
    part = (mesh.triangles_center[:, 1] < -0.155).astype(int)
    parts = Articulation(("body", "door"), part, (joint,))
    return SceneObject("cabinet", mesh, articulation=parts)


@pytest.mark.parametrize("kind", ["revolute", "prismatic", "fixed"])
def test_an_exported_urdf_is_read_again(tmp_path, kind):
    limits = {} if kind == "fixed" else {"lower": -0.2, "upper": 0.9, "position": 0.3}
    obj = cabinet(kind, **limits)
    path = export_urdf(tmp_path / "cabinet.urdf", obj)
    at = {} if kind == "fixed" else {"j": 0.3}
    (same,) = load_urdf(path, at)
    assert np.allclose(same.mesh.triangles, obj.mesh.triangles, atol=1e-7)
    if at:
        (moved,) = load_urdf(path, {"j": 0.8})
        assert np.allclose(moved.mesh.triangles, obj.at({"j": 0.8}).mesh.triangles, atol=1e-7)


def test_a_screw_is_exported_as_a_turn_and_a_rise(tmp_path):
    obj = cabinet("screw", pitch=0.02, lower=0, upper=6, position=1.0)
    path = export_urdf(tmp_path / "cabinet.urdf", obj)
    (moved,) = load_urdf(path, {"j": 4.0})
    assert np.allclose(moved.mesh.triangles, obj.at({"j": 4.0}).mesh.triangles, atol=1e-7)


def test_a_free_part_is_exported_on_six_joints(tmp_path):
    path = export_urdf(tmp_path / "cabinet.urdf", cabinet("free"))
    assert sum(j.kind != "fixed" for j in read_urdf(path).joints) == 6
    (same,) = load_urdf(path)
    assert np.allclose(same.mesh.triangles, cabinet("free").mesh.triangles, atol=1e-7)


def test_pybullet_moves_the_exported_joint(tmp_path):
    from sim_envs.bullet import BulletClient, pybullet

    obj = cabinet("revolute", lower=0, upper=1.5)
    path = export_urdf(tmp_path / "cabinet.urdf", obj)
    bullet = BulletClient(pybullet.DIRECT)
    try:
        body = bullet.loadURDF(str(path), useFixedBase=True)
        assert bullet.getNumJoints(body) == 1
        assert bullet.getJointInfo(body, 0)[2] == pybullet.JOINT_REVOLUTE
        bullet.resetJointState(body, 0, 0.7)
        state = bullet.getLinkState(body, 0, computeForwardKinematics=True)
        expected = rotation_about([-0.19, -0.18, 0], [0, 0, 1], 0.7) @ pose(
            translation=[-0.19, -0.18, 0]
        )
        assert np.allclose(state[4], expected[:3, 3], atol=1e-6)
        turned = np.array(bullet.getMatrixFromQuaternion(state[5])).reshape(3, 3)
        assert np.allclose(turned, expected[:3, :3], atol=1e-6)
    finally:
        bullet.disconnect()


def test_an_object_without_parts_is_not_exported(tmp_path):
    box = SceneObject("box", trimesh.creation.box([0.1] * 3))
    with pytest.raises(ValueError, match="articulation: None"):
        export_urdf(tmp_path / "box.urdf", box)
    with pytest.raises(ValueError, match="ends in .urdf"):
        export_urdf(tmp_path / "box.xml", cabinet("fixed"))
