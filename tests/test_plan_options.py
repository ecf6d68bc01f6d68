"""One tree of options: every record is reachable, keeps its bounds, and no threshold stands
twice."""

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import trimesh

from flowplan.collision.phase_geometry import phase_geometry
from flowplan.geometry import pose
from flowplan.grasp import rank_with_flow
from flowplan.motion import MOTION_THRESHOLD, SceneMotion, sample_flow
from flowplan.planner import GeometryOptions, PlanOptions, plan
from flowplan.robot import load_robot
from flowplan.scene import Scene, SceneObject
from flowplan.utils import bounds


def leaves(options, prefix=""):
    for field in fields(options):
        value = getattr(options, field.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, type(options), field.name


def test_every_step_has_its_options_in_the_tree():
    names = {name.partition(".")[0] for name, _, _ in leaves(PlanOptions()) if "." in name}
    assert names == {
        "grasp", "push", "pinch", "ranking", "attachment", "track", "reach", "clock", "geometry",
        "motion", "rest", "size", "validation",
    }  # fmt: skip


def test_thresholds_stand_once():
    names = [name.rpartition(".")[2] for name, _, _ in leaves(PlanOptions())]
    for name in ("max_slip", "max_position_error", "max_rotation_error", "radius", "voxel"):
        # The radius of a pinch counts neighbors on a cloth; that of the attachment is of the held
        # patch.
        assert names.count(name) == (2 if name == "radius" else 1), name


def test_defaults_are_within_their_bounds():
    for kind in (PlanOptions, GeometryOptions):
        for name, interval in bounds.intervals(kind).items():
            assert getattr(kind(), name) in interval


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        (PlanOptions, {"candidates": 0}),
        (PlanOptions, {"dwell": -1.0}),
        (PlanOptions, {"max_position_error": float("nan")}),
        (PlanOptions, {"timing": "slow"}),
        (GeometryOptions, {"voxel": 0.0}),
        (GeometryOptions, {"held_spheres": 0}),
    ],
)
def test_what_is_out_of_bounds_is_named(kind, bad):
    with pytest.raises(ValueError, match=rf"^{kind.__name__}\.{next(iter(bad))}: .*expected"):
        kind(**bad)


def lifted_brick():
    brick = trimesh.creation.box([0.05, 0.04, 0.08]).subdivide().subdivide()
    obj = SceneObject("brick", brick, pose(translation=[0.45, -0.1, 0.041]), deformable=False)
    start = obj.vertices_world
    rise = np.linspace(0.0, 0.1, 11)[:, None, None] * np.array([0.0, 0.0, 1.0])
    return Scene((obj,)), SceneMotion(np.linspace(0.0, 2.0, 11), (start + rise,))


def test_options_of_proposals_and_ranking_reach_the_plan():
    """Fewer candidates and an impossible limit show in the attempts."""
    scene, motion = lifted_brick()
    panda, options = load_robot("panda"), PlanOptions(contact="grasp")
    few = replace(options, grasp=replace(options.grasp, count=5))
    stiff = replace(few, ranking=replace(few.ranking, jump=1e-3))
    result = plan(scene, motion, panda, options=stiff)
    assert 1 <= len(result.attempts) <= 5
    assert all("out of reach" in a.reason for a in result.attempts)


def test_slip_is_limited_by_the_attachment_alone():
    scene, motion = lifted_brick()
    stretch = motion.vertices[0].copy()
    stretch[..., 0] += 0.3 * np.linspace(0, 1, 11)[:, None] * (stretch[..., 0] - 0.45)
    motion = SceneMotion(motion.times, (stretch,))
    panda, options = load_robot("panda"), PlanOptions(contact="grasp")
    strict = replace(options, attachment=replace(options.attachment, max_slip=1e-3))
    flow, around = sample_flow(scene, motion), phase_geometry(scene, motion, 0)
    contacts = plan(scene, motion, panda, options=options).candidates
    _, reports = rank_with_flow(contacts, flow, around, panda, attachment=strict.attachment)
    assert any("limit 1.5)" in reason for r in reports for reason in r.reasons)


def test_what_moves_is_decided_in_one_place():
    start = np.zeros((1, 3))
    for way, moves in ((0.9 * MOTION_THRESHOLD, False), (1.1 * MOTION_THRESHOLD, True)):
        motion = SceneMotion([0.0, 1.0], (np.stack([start, start + np.array([way, 0.0, 0.0])]),))
        assert motion.moving()[0].tolist() == [moves]
