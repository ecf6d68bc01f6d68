"""Files of other planners: known poses, round trips, and faulty files."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowplan.geometry import exp_so3, inverse, look_at, pose, quat_wxyz_from_matrix
from flowplan.grasp import merge
from flowplan.grasp.candidates import best_first
from flowplan.io.grasp_formats import (
    PANDA_BASE_TO_PADS,
    ContactGraspNetAdapter,
    GraspNetAdapter,
    IsaacGraspAdapter,
)
from flowplan.robot import load_robot

CAMERA = look_at([0.9, -0.3, 0.7], [0.5, 0.0, 0.0])
OBJECT = pose(exp_so3([0.1, 0.2, 1.3]), [0.5, 0.1, 0.03])
# Straight down on (0.5, 0.1), pads 20 cm up, closing along the world's y.
DOWN = pose(np.array([[-1.0, 0, 0], [0, 1.0, 0], [0, 0, -1.0]]), [0.5, 0.1, 0.2])
PANDA = load_robot("panda")


@pytest.fixture(scope="module")
def gripper():
    return PANDA.gripper


def some_grasps(count=7, seed=0):
    rng = np.random.default_rng(seed)
    X = pose(exp_so3(rng.normal(size=(count, 3))), rng.normal(size=(count, 3)))
    return best_first(X, rng.uniform(0.01, 0.08, count), rng.uniform(size=count), "grasp", 0)


def adapters(gripper):
    return {
        ".npy": GraspNetAdapter(gripper.finger_depth, CAMERA),
        ".npz": ContactGraspNetAdapter(CAMERA),
        ".yaml": IsaacGraspAdapter(gripper, OBJECT),
        ".json": IsaacGraspAdapter(gripper, OBJECT),
    }


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".yaml", ".json"])
@pytest.mark.parametrize("count", [1, 7])
def test_round_trip(suffix, count, gripper, tmp_path):
    adapter, grasps = adapters(gripper)[suffix], some_grasps(count)
    adapter.write(tmp_path / f"g{suffix}", grasps)
    back = adapter.read(tmp_path / f"g{suffix}")
    assert np.allclose(back.X_world_tool, grasps.X_world_tool, atol=1e-9)
    assert np.allclose(back.width, grasps.width, atol=1e-9)
    assert np.allclose(back.score, grasps.score)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".yaml", ".json"])
def test_no_grasps_are_written_and_read_as_none(suffix, gripper, tmp_path):
    adapter = adapters(gripper)[suffix]
    adapter.write(tmp_path / f"g{suffix}", some_grasps().select([]))
    assert len(adapter.read(tmp_path / f"g{suffix}")) == 0


def test_graspnet_frame_by_hand(gripper):
    """x approaches, y closes; the fingertips are `depth` in front of the origin along x."""
    depth = 0.03
    tips = DOWN[:3, 3] + gripper.finger_depth * DOWN[:3, 2]
    x, y = np.array([0, 0, -1.0]), np.array([0, 1.0, 0])
    R = np.stack([x, y, np.cross(x, y)], axis=-1)
    row = np.concatenate([[0.7, 0.05, 0.02, depth], R.ravel(), tips - depth * x, [3]])
    grasps = GraspNetAdapter(gripper.finger_depth).decode(row[None])
    assert np.allclose(grasps.X_world_tool[0], DOWN)
    assert (grasps.width[0], grasps.score[0]) == (0.05, 0.7)
    back = GraspNetAdapter(gripper.finger_depth, depth=depth).encode(grasps)[0]
    assert np.allclose(back[:16], row[:16])


def test_contact_graspnet_frame_by_hand(tmp_path):
    """z approaches, x closes, origin 103.4 mm behind the pads; relative to the camera."""
    z, x = np.array([0, 0, -1.0]), np.array([0, 1.0, 0])
    world = pose(np.stack([x, np.cross(z, x), z], axis=-1), DOWN[:3, 3] - PANDA_BASE_TO_PADS * z)
    np.savez(tmp_path / "g.npz", pred_grasps_cam=(inverse(CAMERA) @ world)[None], scores=[0.4])
    grasps = ContactGraspNetAdapter(CAMERA).read(tmp_path / "g.npz")
    assert np.allclose(grasps.X_world_tool[0], DOWN)
    assert grasps.width[0] == 0.08  # not in the file: the gripper's largest


ISAAC = """format: isaac_grasp
format_version: 1.0
object_frame: /World/mug
gripper_frame: /World/panda_hand
grasps:
  "grasp_0":
    confidence: 0.9
    position: [{}, {}, {}]
    orientation: {{w: {}, xyz: [{}, {}, {}]}}
    cspace_position: {{panda_finger_joint1: 0.01}}
    pregrasp_cspace_position: {{panda_finger_joint1: 0.03}}
"""


def test_isaac_grasp_frame_by_hand(gripper, tmp_path):
    """GraspGen: z approaches, x closes, origin at the hand's base; relative to the object."""
    z, x = np.array([0, 0, -1.0]), np.array([0, 1.0, 0])
    world = pose(np.stack([x, np.cross(z, x), z], axis=-1), DOWN[:3, 3] - PANDA_BASE_TO_PADS * z)
    local = inverse(OBJECT) @ world
    (tmp_path / "g.yaml").write_text(
        ISAAC.format(*local[:3, 3], *quat_wxyz_from_matrix(local[:3, :3]))
    )
    grasps = IsaacGraspAdapter(gripper, OBJECT).read(tmp_path / "g.yaml")
    assert np.allclose(grasps.X_world_tool[0], DOWN, atol=1e-6)
    assert grasps.width[0] == pytest.approx(0.06)  # two fingers at 30 mm each in the pre-grasp
    assert grasps.score[0] == 0.9


def test_isaac_grasps_with_another_hand_frame(gripper, tmp_path):
    """Isaac Sim's panda_hand: z approaches, y closes, 103.4 mm behind."""
    hand = pose(translation=[0, 0, -PANDA_BASE_TO_PADS])
    local = inverse(OBJECT) @ DOWN @ hand
    (tmp_path / "g.yaml").write_text(
        ISAAC.format(*local[:3, 3], *quat_wxyz_from_matrix(local[:3, :3]))
    )
    grasps = IsaacGraspAdapter(gripper, OBJECT, hand).read(tmp_path / "g.yaml")
    assert np.allclose(grasps.X_world_tool[0], DOWN, atol=1e-6)


def test_grasps_come_back_best_first(gripper):
    rows = GraspNetAdapter(gripper.finger_depth).encode(some_grasps(5))[::-1]
    assert np.all(np.diff(GraspNetAdapter(gripper.finger_depth).decode(rows).score) <= 0)


def test_pushes_have_no_place(gripper, tmp_path):
    push = best_first(DOWN[None], np.zeros(1), np.ones(1), "push", 0)
    for suffix, adapter in adapters(gripper).items():
        with pytest.raises(ValueError, match="1 of 8 are pushes"):
            adapter.write(tmp_path / f"g{suffix}", merge([push, some_grasps()]))
        assert not (tmp_path / f"g{suffix}").exists()


def test_wrong_numpy_files_are_refused_by_name(gripper, tmp_path):
    adapter = GraspNetAdapter(gripper.finger_depth)
    path = tmp_path / "g.npy"
    rows = adapter.encode(some_grasps())
    cases = [
        (rows[:, :16], r"g.npy: expected shape \(G, 17\), got \(7, 16\)"),
        (np.where(np.arange(17) == 4, np.nan, rows), "g.npy: 7 of 119 values are not finite"),
        (np.where(np.arange(17) == 4, 5.0, rows), r"g.npy\[:, 4:13\]: expected rotations"),
        (
            np.where(np.arange(17) == 1, 60.0, rows),
            r"g.npy\[:, 1\]: expected meters in \[0, 1\], got \[60, 60\]",
        ),
    ]
    for bad, message in cases:
        np.save(path, bad)
        with pytest.raises(ValueError, match=message):
            adapter.read(path)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickled objects"):
        adapter.read(path)
    with pytest.raises(ValueError, match="no such file"):
        adapter.read(tmp_path / "none.npy")
    with pytest.raises(ValueError, match=r"suffix: got '.txt', expected one of .npy"):
        adapter.read(tmp_path / "g.txt")


def test_wrong_archives_are_refused_by_name(tmp_path):
    adapter, path = ContactGraspNetAdapter(), tmp_path / "g.npz"
    np.savez(path, scores=[0.1])
    with pytest.raises(ValueError, match="has no array pred_grasps_cam; it has scores"):
        adapter.read(path)
    np.savez(path, pred_grasps_cam=np.eye(4)[None], scores=[0.1, 0.2])
    with pytest.raises(ValueError, match=r"scores: expected shape \(1,\), got \(2,\)"):
        adapter.read(path)
    np.savez(path, pred_grasps_cam=np.array({0: np.eye(4)}, dtype=object), scores=[0.1])
    with pytest.raises(ValueError, match="pickled objects"):
        adapter.read(path)
    adapter.write(path, some_grasps())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="not a"):
        adapter.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format: other", "format: expected isaac_grasp, got 'other'"),
        ("format: isaac_grasp\nformat_version: 2.0", "format_version: expected 1.0, got 2.0"),
        ("format: isaac_grasp\nformat_version: 1.0", "grasps: expected named grasps, got NoneType"),
        (
            "format: isaac_grasp\nformat_version: 1.0\ngrasps: {a: {confidence: 1.0}}",
            "grasps.a: has no position",
        ),
        (
            ISAAC.format(0, 0, 0, 2, 0, 0, 0),
            "grasps.grasp_0.orientation: expected a unit quaternion, got length 2",
        ),
        (
            ISAAC.format(0, 0, ".nan", 1, 0, 0, 0),
            "grasps.grasp_0.position: 1 of 3 values are not finite",
        ),
        (ISAAC.format(0, 0, "x", 1, 0, 0, 0), "grasps.grasp_0.position: expected numbers"),
        ("[1, 2]", "expected named fields, got list"),
        ("a: [", "not valid yaml"),
        ("a: !!python/object/apply:os.getcwd []", "not valid yaml"),
    ],
)
def test_wrong_isaac_files_are_refused_by_name(text, message, gripper, tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        IsaacGraspAdapter(gripper).read(path)


@settings(max_examples=200, deadline=None)
@given(
    data=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "format",
                        "format_version",
                        "grasps",
                        "a",
                        "confidence",
                        "position",
                        "orientation",
                        "w",
                        "xyz",
                        "cspace_position",
                        "panda_finger_joint1",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused_in_one_line(data, tmp_path_factory):
    document = {"format": "isaac_grasp", "format_version": 1.0, "grasps": {"g": data}}
    if isinstance(data, dict):
        document["grasps"] = {
            "g": {"confidence": 1, "position": [0, 0, 0], "orientation": {"w": 1, "xyz": [0, 0, 0]}}
        }
        document["grasps"]["g"].update(data)
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(document))
    try:
        count, error = len(IsaacGraspAdapter(PANDA.gripper).read(path)), ""
    except ValueError as refused:
        count, error = 1, str(refused)
    assert count == 1
    assert "\n" not in error
    assert not error or "any.json" in error
