"""Records refuse wrong values in one line that names the field; flow follows its material."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from flowplan.geometry import exp_se3, transform
from flowplan.grasp import ContactCandidates
from flowplan.io import npz
from flowplan.motion import ObjectFlow, SceneMotion, sample_flow
from flowplan.planner import NoPlan, Plan
from flowplan.rollout import Rollout
from flowplan.scene import Action, Observation, Prompt, Scene, SceneObject
from flowplan.trajectory import Trajectory

BOX = trimesh.creation.box([0.1, 0.2, 0.3])


def refuses(match, build, *args, **kwargs):
    with pytest.raises(ValueError, match=match) as caught:
        build(*args, **kwargs)
    assert "\n" not in str(caught.value)


def flow(**changed):
    fields = {
        "times": [0.0, 0.5, 1.0],
        "points": np.zeros((3, 4, 3)),
        "confidence": np.ones((3, 4)),
        "object_id": np.zeros(4, int),
    }
    return ObjectFlow(**(fields | changed))


def test_flow_names_the_field_at_fault():
    flow()
    nan = np.zeros((3, 4, 3))
    nan[1, 2, 0] = np.nan
    refuses(r"ObjectFlow.points: 1 of 36 .*first at \(1, 2, 0\)", flow, points=nan)
    refuses("ObjectFlow.points: expected shape", flow, points=np.zeros((2, 4, 3)))
    refuses("ObjectFlow.times: expected at least 2 frames", flow, times=[0.0])
    refuses("ObjectFlow.times: expected strictly increasing", flow, times=[0.0, 0.5, 0.5])
    refuses(r"times\[0\] = 0", flow, times=[1.0, 2.0, 3.0])
    refuses("ObjectFlow.confidence: expected values in", flow, confidence=np.full((3, 4), 1.5))
    refuses("ObjectFlow.points: expected numbers", flow, points="everywhere")


def test_scene_refuses_doubles_bad_poses_and_empty_meshes():
    box = SceneObject("box", BOX)
    refuses("names must be unique", Scene, (box, SceneObject("box", BOX)))
    refuses(
        r"SceneObject\[b\].X_world_object: expected rigid", SceneObject, "b", BOX, 2 * np.eye(4)
    )
    refuses("has no faces", SceneObject, "b", trimesh.Trimesh(np.zeros((3, 3))))
    refuses("object: got 'cup', expected one of box", Scene((box,)).index, "cup")
    refuses("support_height", Scene, (box,), support_height=np.nan)


def test_instructions_need_something_to_follow():
    refuses("Prompt.text", Prompt, "  ")
    refuses("at least one of targets", Action, "box", np.zeros((2, 3)))
    refuses("Action.targets: expected shape", Action, "box", np.zeros((2, 3)), np.zeros((3, 3)))
    refuses(
        "Observation.clouds: expected 2 clouds", Observation, "box", [0, 1.0], (np.zeros((5, 3)),)
    )


def test_grasps_are_sorted_and_rigid():
    X = exp_se3(np.random.default_rng(0).normal(size=(3, 6)))
    good = ContactCandidates(X, np.full(3, 0.04), [3.0, 2.0, 1.0], ("grasp",) * 3)
    assert len(good.select([0, 2])) == 2
    assert len(ContactCandidates(np.zeros((0, 4, 4)), [], [], ())) == 0
    refuses("descending", ContactCandidates, X, np.zeros(3), [1.0, 2.0, 3.0], ("grasp",) * 3)
    refuses("ContactCandidates.kind", ContactCandidates, X, np.zeros(3), np.zeros(3), ("hug",) * 3)


def test_trajectory_and_rollout_check_their_shapes():
    zeros, S = np.zeros, 4
    fields = {
        "q": zeros((S, 2)),
        "qd": zeros((S, 2)),
        "qdd": zeros((S, 2)),
        "grip": zeros(S),
        "phase": [0, 1, 2, 4],
    }
    fields |= {name: zeros(S) for name in ("position_error", "rotation_error", "clearance")}
    Trajectory(("a", "b"), np.arange(S) / 10, **fields)
    refuses(
        "Trajectory.qd: ",
        Trajectory,
        ("a", "b"),
        np.arange(S) / 10,
        **(fields | {"qd": zeros((S, 3))}),
    )
    refuses(
        "Trajectory.phase",
        Trajectory,
        ("a", "b"),
        np.arange(S) / 10,
        **(fields | {"phase": [2, 1, 0, 0]}),
    )
    refuses(
        "Rollout.outcome",
        Rollout,
        [0.0, 1.0],
        ("a",),
        zeros((2, 1)),
        zeros((2, 1, 3)),
        "perfect",
        {},
    )


def test_flow_points_ride_on_their_faces():
    """Rigid animation: every track is that motion of its first position, on the surface."""
    X = exp_se3(np.random.default_rng(1).normal(size=(3, 6)))
    X[0] = np.eye(4)
    scene = Scene((SceneObject("box", BOX),))
    motion = SceneMotion(np.array([0.0, 1.0, 2.0]), (transform(X, BOX.vertices),))
    points = sample_flow(scene, motion, points_per_object=500, seed=3).points
    np.testing.assert_allclose(points, transform(X, points[0]), atol=1e-12)
    np.testing.assert_allclose((np.abs(points[0]) / [0.05, 0.1, 0.15]).max(1), 1, atol=1e-12)
    # By area: the two largest faces of the box carry 12/22 of it.
    assert abs((np.abs(points[0][:, 0]) > 0.0499).mean() - 12 / 22) < 0.08


def test_flow_refuses_a_motion_of_another_scene():
    scene = Scene((SceneObject("box", BOX),))
    refuses(
        "expected the 8 vertices",
        sample_flow,
        scene,
        SceneMotion([0.0, 1.0], (np.zeros((2, 5, 3)),)),
    )
    refuses(
        "one per scene object",
        sample_flow,
        scene,
        SceneMotion([0.0, 1.0], (np.zeros((2, 8, 3)),) * 2),
    )


def test_moving_vertices_are_those_that_ever_leave():
    vertices = np.zeros((3, 2, 3))
    vertices[1, 1, 0] = 0.1  # out and back again
    (moving,) = SceneMotion([0.0, 1.0, 2.0], (vertices,)).moving()
    assert moving.tolist() == [False, True]


@pytest.mark.parametrize("deformable", [None, True, False])
def test_what_is_said_of_cloth_is_kept_in_files(tmp_path, deformable):
    scene = Scene((SceneObject("box", BOX, deformable=deformable),))
    path = npz.save(tmp_path / "scene.npz", scene)
    assert npz.load(path, Scene).objects[0].deformable is deformable


def test_scenes_and_plans_of_version_1_say_and_assume_nothing():
    folder = Path(__file__).parent / "data" / "records_v1"
    scene = npz.load(folder / "Scene.npz", Scene)
    assert {o.deformable for o in scene.objects + scene.obstacles} == {None}
    assert npz.load(folder / "Plan.npz", Plan).assumptions == ()
    assert npz.load(folder / "NoPlan.npz", NoPlan).assumptions == ()
