"""Flows, handles, grasps and paths as other programs give them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh

from flowplan.attachment import attach
from flowplan.geometry import pose
from flowplan.io.grasp_formats import IsaacGraspAdapter
from flowplan.io.instruction import parse_instruction
from flowplan.motion import ObjectFlow
from flowplan.paths.time_parameterization import follow, retime
from flowplan.robot import load_robot
from flowplan.scene import Scene, SceneObject
from generators.kinematic import kinematic
from tests.input_files import refused


def moved(hidden, frames, confidence):
    """Where a tool ends that holds points which move 0.2 m along y, some of them hidden."""
    rng = np.random.default_rng(0)
    start = rng.uniform(-0.03, 0.03, (200, 3)) + np.array([0.5, 0, 0.05])
    points = start + np.linspace(0, 0.2, 11)[:, None, None] * [0, 1, 0]
    trust = np.ones((11, 200))
    points[frames, :50] = hidden
    trust[frames, :50] = confidence
    flow = ObjectFlow(np.linspace(0, 2, 11), points, trust, np.zeros(200, int))
    X = pose(np.diag([1, -1, -1.0]), [0.5, 0, 0.05])
    return attach(flow, X).X_world_tool[-1][:3, 3]


@pytest.mark.parametrize("hidden", [np.nan, np.inf])
@pytest.mark.parametrize("frames", [slice(3, 6), slice(0, 2), slice(9, 11), slice(0, 11)])
def test_hidden_points_are_ignored(hidden, frames):
    assert np.allclose(moved(hidden, frames, 0.0), (0.5, 0.2, 0.05), atol=2e-3)


def test_unknown_points_of_some_confidence_are_refused():
    assert "first at (3, 0, 0)" in refused(lambda: moved(np.nan, slice(3, 6), 0.5), "confidence")
    flow = (np.linspace(0, 1, 2), np.full((2, 3, 3), np.nan), np.zeros((2, 3)), np.zeros(3, int))
    refused(lambda: ObjectFlow(*flow), "none is finite")


def test_hidden_points_keep_their_last_known_position():
    points = np.array([[[0.0, 0, 0]], [[1, 0, 0]], [[np.nan] * 3], [[3, 0, 0]]])
    flow = ObjectFlow(np.arange(4.0), points, [[1], [1], [0], [1]], [0])
    assert flow.points[:, 0, 0].tolist() == [0, 1, 1, 3]


def instructed(handles, targets, law=None):
    box = trimesh.creation.box([0.1] * 3).subdivide()
    scene = Scene((SceneObject("box", box, pose(translation=[0.5, 0, 0.05])),), support_height=0.0)
    document = {
        "object": "box",
        "law": law or {"kind": "rigid"},
        "handles": handles,
        "targets": targets,
    }
    laws, action = parse_instruction(document, scene, "m.json")
    (motion,) = kinematic(laws)(scene, action)
    return np.ptp(motion.vertices[0], axis=0).max(0)


SLIDE = {
    "kind": "slide",
    "axis": [0, 1, 0],
    "part": {"lower": [0.4, -0.1, 0.05], "upper": [0.6, 0.1, 0.2]},
}


@pytest.mark.parametrize("law", [None, SLIDE])
@pytest.mark.parametrize(
    ("handle", "target"),
    [
        ([500, 0, 100], [500, 200, 100]),  # millimeters
        ([50, 0, 10], [50, 20, 10]),  # centimeters
        ([0.5, 0.6, 0.1], [0.5, 0.8, 0.1]),  # beside it
        ([0, 0, 0.05], [0, 0.2, 0.05]),  # in the object's own frame
    ],
)
def test_handles_far_from_the_object_are_refused(law, handle, target):
    message = refused(lambda: instructed([handle], [target], law), "handle")
    assert " m from 'box'" in message


def test_handles_on_the_object_move_it():
    assert np.allclose(instructed([[0.5, 0, 0.1]], [[0.5, 0.2, 0.1]]), (0, 0.2, 0), atol=1e-6)


def isaac(tmp_path, robot, **entry):
    grasp = {
        "confidence": 0.9,
        "position": [0, 0, 0.2],
        "orientation": {"w": 0, "xyz": [1, 0, 0]},
        **entry,
    }
    document = {"format": "isaac_grasp", "format_version": 1.0, "grasps": {"g": grasp}}
    (tmp_path / "g.json").write_text(json.dumps(document))
    return IsaacGraspAdapter(load_robot(robot).gripper).read(tmp_path / "g.json")


@pytest.mark.parametrize("key", ["pregrasp_cspace_position", "cspace_position"])
@pytest.mark.parametrize("position", [40, -40, 4, 0.4])
def test_a_finger_far_outside_of_the_grippers_table_is_refused(tmp_path, key, position):
    finger = "panda_finger_joint1"
    message = refused(lambda: isaac(tmp_path, "panda", **{key: {finger: position}}), "limits")
    assert finger in message


def test_a_finger_at_the_end_of_its_range_is_read(tmp_path):
    for position, width in ((0.04, 0.08), (0.0401, 0.08), (0.0, 0.0), (0.02, 0.04)):
        entry = {"pregrasp_cspace_position": {"panda_finger_joint1": position}}
        assert np.isclose(isaac(tmp_path, "panda", **entry).width[0], width)


def test_degrees_of_a_finger_that_swings_are_refused(tmp_path):
    robot = load_robot("ur5e")
    entry = {"pregrasp_cspace_position": {robot.gripper.joints[0]: 45}}
    refused(lambda: isaac(tmp_path, "ur5e", **entry), "limits")


LIMITS = SimpleNamespace(velocity=np.ones(2), acceleration=np.full(2, 2.0), jerk=np.full(2, 20.0))


@pytest.mark.parametrize("gap", [1e-8, 1e-9, 1e-12, 0.0])
def test_waypoints_that_are_almost_one_are_one(gap):
    q = np.array([[0, 0], [1, 0], [1 + gap, gap], [2, 1]], float)
    path = retime(q, LIMITS)
    assert path.times[-1] < 4
    assert path.q[:, 1].min() > -0.35
    assert np.allclose(path.q[-1], q[-1], atol=1e-12)
    path = follow([0, 1, 1 + max(gap, 1e-12), 2], q, LIMITS)
    assert path.times[-1] < 6
    assert path.q[:, 1].min() > -0.35


def test_a_path_ends_at_the_last_of_waypoints_that_are_almost_one():
    q = np.array([[0, 0], [1, 0], [2, 1], [2 + 5e-8, 1]], float)
    assert np.allclose(retime(q, LIMITS).q[-1], q[-1], atol=1e-12)
    path = follow([0, 1, 2, 2 + 5e-8], q, LIMITS)
    assert np.allclose(path.q[-1], q[-1], atol=1e-12)
