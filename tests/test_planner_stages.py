"""Stages of one attempt, each by itself, with made-up inputs."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh

from flowplan.attachment import AttachmentOptions
from flowplan.collision.distance_field import DistanceField
from flowplan.collision.phase_geometry import PhaseGeometry
from flowplan.geometry import exp_so3, fit_rigid, pose, rotation_about, transform
from flowplan.grasp import ContactCandidates
from flowplan.laws import Rigid
from flowplan.motion import ObjectFlow, SceneMotion
from flowplan.paths.time_parameterization import follow
from flowplan.planner import Attempt, PlanOptions, attempt, planner, propose_contacts
from flowplan.planner.attempt import _Failed
from flowplan.planner.contacts import as_pinches
from flowplan.planner.options import GeometryOptions
from flowplan.planner.problem import distance_fields, held_mesh
from flowplan.planner.worlds import _pushed, held_width
from flowplan.robot import load_robot
from flowplan.scene import Action, Scene, SceneObject
from flowplan.trajectory import Phase, Trajectory
from generators.kinematic import kinematic

PANDA = load_robot("panda")
TOOL = pose(exp_so3([np.pi, 0, 0]), [0.5, 0.1, 0.1])
TIMES = np.linspace(0.0, 2.0, 11)


def contact(kind, X=TOOL, width=0.05):
    return ContactCandidates(X[None], np.array([width]), np.ones(1), (kind,), np.zeros(1, int))


def turning_flow():
    """Points about the tool that turn by 0.8 rad about a vertical line through it."""
    points = TOOL[:3, 3] + np.random.default_rng(0).uniform(-0.03, 0.03, (200, 3))
    D = rotation_about(TOOL[:3, 3], [0, 0, 1], np.linspace(0, 0.8, len(TIMES)))
    tracks = transform(D, points)
    return D, ObjectFlow(TIMES, tracks, np.ones(tracks.shape[:2]), np.zeros(200, int))


def problem(**fields):
    """What one stage needs of a problem."""
    made = {"options": PlanOptions(), "target": 0, "seed": 0, "robot": PANDA}
    return SimpleNamespace(**(made | fields))


def test_a_grasp_carries_the_moving_part_in_its_tool_frame_and_nothing_else_does():
    part = trimesh.creation.box([0.1, 0.05, 0.04], transform=TOOL)
    around = SimpleNamespace(moving=part)
    held = held_mesh(problem(around=around), contact("grasp"))
    np.testing.assert_allclose(
        held.bounds, [[-0.05, -0.025, -0.02], [0.05, 0.025, 0.02]], atol=1e-9
    )
    for kind in ("push", "pinch"):
        assert held_mesh(problem(around=around), contact(kind)) is None
    assert held_mesh(problem(around=SimpleNamespace(moving=None)), contact("grasp")) is None


def test_a_grasp_turns_with_the_object_and_a_push_or_a_pinch_need_not():
    D, flow = turning_flow()
    measured = {}
    grasp = attempt._attach(problem(flow=flow), contact("grasp"), measured)
    np.testing.assert_allclose(grasp.X_world_tool, D @ TOOL, atol=1e-8)
    assert measured["slip"] == grasp.slip.max() < 1e-8
    assert (grasp.held > 0).sum() > 100
    push = attempt._attach(problem(flow=flow), contact("push"), {})
    np.testing.assert_allclose(
        push.X_world_tool[:, :3, :3], np.broadcast_to(TOOL[:3, :3], (11, 3, 3)), atol=1e-8
    )
    # One point is held: the nearest that is seen at the start, of the object itself.
    distance = np.linalg.norm(flow.points[0] - TOOL[:3, 3], axis=1)
    first, second, third = np.argsort(distance)[:3]
    confidence, owner = flow.confidence.copy(), flow.object_id.copy()
    confidence[0, first], owner[second] = 0.0, 1
    pinch = attempt._attach(
        problem(flow=replace(flow, confidence=confidence, object_id=owner)), contact("pinch"), {}
    )
    assert np.flatnonzero(pinch.held).tolist() == [third]


def test_a_patch_that_stretches_beyond_the_limit_is_refused_with_its_time():
    _, flow = turning_flow()
    center = TOOL[:3, 3]
    # It stretches most at the sixth frame and springs back.
    grow = 1 + np.interp(TIMES, [0, 1, 2], [0, 1.5, 0])[:, None, None] * [1.0, 0.0, 0.0]
    stretched = replace(flow, points=center + (flow.points[0] - center) * grow)
    options = PlanOptions(attachment=AttachmentOptions(max_slip=0.01, robust_rounds=0))
    with pytest.raises(_Failed, match=r"the held patch slips .* mm RMS \(limit 10\)") as failed:
        attempt._attach(problem(flow=stretched, options=options), contact("grasp"), {})
    assert failed.value.stage == "attach"
    assert failed.value.measured["time"] == pytest.approx(1.0)
    loose = replace(options, attachment=replace(options.attachment, max_slip=0.05))
    attempt._attach(problem(flow=stretched, options=loose), contact("grasp"), {})


@pytest.mark.parametrize(
    ("position", "rotation", "reason"),
    [
        (0.0, 0.0, ""),
        (0.011, 0.0, "the tool stays 11 mm off the flow (limit 10)"),
        (0.0, 0.2, "the tool stays 11 deg off the flow (limit 6)"),
        (np.nan, 0.0, "mm off the flow"),
        (0.0, np.nan, "deg off the flow"),
    ],
)
def test_a_track_off_the_flow_is_refused_with_its_time(monkeypatch, position, rotation, reason):
    _, flow = turning_flow()
    attachment = attempt._attach(problem(flow=flow), contact("grasp"), {})
    errors = [np.zeros(11), np.zeros(11)]
    for values, worst in zip(errors, (position, rotation), strict=True):
        values[[3, 7]] = 0.5 * worst, worst
        values[:3] = values[3]  # NaN, if it is one, is found first
    solution = SimpleNamespace(
        position_error=errors[0], rotation_error=errors[1], clearance=np.full(11, 0.02)
    )
    monkeypatch.setattr(attempt, "_optimize", lambda *_: solution)
    nothing = PhaseGeometry((), (), (), None, None)
    made = problem(around=nothing, fields=SimpleNamespace(during=None))
    made.options = PlanOptions(max_position_error=0.01, max_rotation_error=0.1)
    measured = {}
    if not reason:
        assert attempt._track(made, attachment, contact("grasp"), measured) is solution
        assert measured["clearance"] == 0.02
        return
    with pytest.raises(_Failed) as failed:
        attempt._track(made, attachment, contact("grasp"), measured)
    assert reason in str(failed.value)
    if np.isfinite(position + rotation):
        assert failed.value.measured["time"] == TIMES[7]


@pytest.mark.parametrize("kind", ["grasp", "push"])
@pytest.mark.parametrize("released", [True, False])
def test_the_way_in_ends_at_the_contact_and_the_way_out_at_home(monkeypatch, kind, released):
    calls = {}

    def path(name):
        def find(robot, start, end, first, second, options, *, width, seed):
            calls[name] = (start, end, first, second, options, width)
            return SimpleNamespace(q=np.stack([start, end]), reason="")

        return find

    monkeypatch.setattr(attempt, "approach", path("in"))
    monkeypatch.setattr(attempt, "retreat", path("out"))
    q = PANDA.home + np.linspace(0, 0.2, 5)[:, None]
    made = problem(
        start=PANDA.home - 0.1,
        fields=SimpleNamespace(before="before", during="during", after="after"),
        flow=SimpleNamespace(times=TIMES),
        ending=SimpleNamespace(released=released),
    )
    into, out = attempt._reach(made, contact(kind, width=0.03), SimpleNamespace(q=q))
    start, end, first, second, options, width = calls["in"]
    np.testing.assert_array_equal(into, [start, end])
    np.testing.assert_array_equal(start, PANDA.home - 0.1)
    np.testing.assert_array_equal(end, q[0])
    assert (first, second, width) == ("before", "during", 0.03)
    # A push may begin right at the surface; a grasp comes straight for a while.
    reach, geometry = PlanOptions().reach, PlanOptions().geometry
    if kind == "push":
        assert options.shortest == 0.0
        assert options.margin == min(reach.margin, geometry.push_margin)
    else:
        assert options == reach
    assert (out is not None) == released == ("out" in calls)
    if released:
        np.testing.assert_array_equal(calls["out"][0], q[-1])
        np.testing.assert_array_equal(calls["out"][1], PANDA.home)
        assert calls["out"][2:5] == ("after", "during", options)
    # A path that is not found ends the attempt.
    monkeypatch.setattr(attempt, "approach", lambda *_, **__: SimpleNamespace(reason="walled in"))
    with pytest.raises(_Failed, match="walled in"):
        attempt._reach(made, contact(kind), SimpleNamespace(q=q))


def a_trajectory():
    """Ten samples, two a phase."""
    still = np.zeros((10, 7))
    return Trajectory(
        PANDA.joint_names,
        np.arange(10.0),
        still + PANDA.home,
        still,
        still,
        np.full(10, 0.04),
        np.repeat(list(Phase), 2),
        *[np.zeros(10)] * 3,
    )


def test_the_clearance_is_that_of_the_phase_less_the_radius_of_the_spheres():
    def field(distance):
        return DistanceField(np.full(3, -2.0), 4.0, np.full((2, 2, 2), distance))

    fields = SimpleNamespace(before=field(0.9), during=field(0.7), after=field(0.5))
    found = attempt._clearance(problem(fields=fields), a_trajectory())
    # Base and fingers are left out; of the others the largest sphere is nearest.
    ignored = {PANDA.base_link, *PANDA.gripper.finger_links}
    names = [PANDA.link_names[i] for i in PANDA.sphere_link]
    radius = max(
        r for r, name in zip(PANDA.sphere_radius, names, strict=True) if name not in ignored
    )
    expected = np.repeat([0.9, 0.7, 0.7, 0.7, 0.5], 2) - radius
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_flow_runs_during_the_manipulation_at_the_pace_of_its_waypoints():
    q = PANDA.home + 0.2 * np.linspace(0, 1, 11)[:, None]
    trajectory = a_trajectory()
    for waypoint in ([0.0, 10.0], [2.5, 10.0]):
        along = SimpleNamespace(waypoint=np.array(waypoint))
        clock = attempt._flow_time(trajectory, along, SimpleNamespace(times=TIMES))
        expected = [0, 0, 0, 0, waypoint[0] / 5, 2, 2, 2, 2, 2]
        np.testing.assert_allclose(clock, expected)
    # On the flow's own clock the manipulation takes its time, otherwise the limits' time.
    slow = attempt._timed(problem(), SimpleNamespace(times=TIMES), SimpleNamespace(q=q))
    own = follow(TIMES, q, PANDA, PlanOptions().clock)
    np.testing.assert_array_equal(slow.times, own.times)
    quick = problem(options=PlanOptions(timing="fast"))
    fast = attempt._timed(quick, SimpleNamespace(times=TIMES), SimpleNamespace(q=q))
    assert fast.times[-1] < 0.7 * slow.times[-1]


@pytest.mark.parametrize(
    ("wanted", "kinds"), [("any", {"grasp", "push"}), ("grasp", {"grasp"}), ("push", {"push"})]
)
def test_contacts_are_of_the_kind_that_is_asked_for(wanted, kinds):
    brick = SceneObject(
        "brick", trimesh.creation.box([0.05, 0.09, 0.06]), pose(None, [0.5, 0, 0.03])
    )
    scene = Scene((brick,), 0.0)
    targets = brick.vertices_world + np.array([0.1, 0.0, 0.0])
    (motion,) = kinematic([Rigid("brick", 0.0)])(
        scene, Action("brick", brick.vertices_world, targets, duration=2.0)
    )
    found = propose_contacts(scene, motion, PANDA, 0, PlanOptions(contact=wanted), seed=0)
    assert set(found.kind) == kinds


def test_a_deformable_object_is_pinched_for_every_grasp():
    both = ContactCandidates(
        np.stack([TOOL, TOOL]), np.full(2, 0.05), np.ones(2), ("grasp", "push"), np.zeros(2, int)
    )
    assert as_pinches(both).kind == ("pinch", "push")
    pushes = contact("push")
    assert as_pinches(pushes) is pushes


@pytest.mark.parametrize("deformable", [False, True])
def test_distance_fields_reach_around_base_and_objects_and_sink_below_a_cloth(deformable):
    near = trimesh.creation.box([0.1] * 3, transform=pose(None, [0.6, 0.3, 0.2]))
    far = trimesh.creation.box([3.0, 0.02, 3.0], transform=pose(None, [0.0, 1.2, 0.0]))
    around = PhaseGeometry(
        (("near", near), ("far", far)), (("near", near),), (), None, 0.05, deformable
    )
    options = GeometryOptions(voxel=0.05)
    fields = distance_fields(around, PANDA, options)
    lower = fields.before.origin
    upper = lower + 0.05 * (np.array(fields.before.values.shape) - 1)
    # Base and object with room about them; no farther than the wall's own region.
    assert (lower <= np.minimum([0, 0, 0], near.bounds[0]) - options.padding).all()
    assert (upper >= near.bounds[1] + options.padding).all()
    assert (upper - lower < 4.0).all()
    slack = options.pinch_slack if deformable else 0.0
    assert fields.during.support_height == pytest.approx(0.05 - slack)
    # Each phase has its own obstacles; of the wall, the part that is near.
    assert fields.before.distance(np.array([[0.0, 1.2, 0.3]]))[0] < 0.02
    inside = np.array([[0.6, 0.3, 0.2]])
    assert fields.before.distance(inside)[0] < 0
    assert fields.after.distance(inside)[0] > 0.1


@pytest.mark.parametrize(("deformable", "kinds"), [(False, {"grasp"}), (True, {"pinch"})])
def test_contacts_that_are_given_are_tried_as_the_object_wants(monkeypatch, deformable, kinds):
    tried = []

    def try_contact(problem, contact, rank):
        tried.append((rank, contact.kind[0], problem.target))
        return Attempt(rank, contact.kind[0], "track", "not today")

    monkeypatch.setattr(planner, "try_contact", try_contact)
    monkeypatch.setattr(planner, "distance_fields", lambda *_: None)
    brick = SceneObject(
        "brick", trimesh.creation.box([0.05, 0.09, 0.06]), pose(None, [0.5, 0, 0.03])
    )
    brick = replace(brick, deformable=deformable)
    post = SceneObject("post", trimesh.creation.box([0.1] * 3), pose(None, [0.5, 0.5, 0.05]))
    scene = Scene((post, brick), 0.0)
    targets = brick.vertices_world + np.array([0.1, 0.0, 0.0])
    (motion,) = kinematic([Rigid("brick", 0.0)])(
        scene, Action("brick", brick.vertices_world, targets, duration=2.0)
    )
    given = ContactCandidates(
        np.stack([TOOL, TOOL, TOOL]), np.full(3, 0.05), np.ones(3), ("grasp",) * 3, np.ones(3, int)
    )
    options = PlanOptions(rank=False, candidates=2)
    found = planner.plan(scene, motion, PANDA, options=options, contacts=given)
    # As many as the options allow, in their order, on the object that moves.
    assert tried == [(0, kind, 1) for kind in kinds] + [(1, kind, 1) for kind in kinds]
    assert [a.reason for a in found.attempts] == ["not today"] * 2


def test_a_pushed_part_is_swept_with_the_room_that_its_bend_needs():
    box = trimesh.creation.box([0.1, 0.2, 0.3]).subdivide()
    D = rotation_about([0.3, 0.0, 0.0], [0, 0, 1], np.linspace(0, 0.7, 4))
    vertices = transform(D, box.vertices)
    vertices[2, 5] += [0.003, -0.002, 0.001]
    motion = SceneMotion(np.arange(4.0), (vertices,))
    made = problem(motion=motion, around=SimpleNamespace(moving=box))
    mover = _pushed(made, "box")
    left = transform(fit_rigid(vertices[0], vertices), vertices[0]) - vertices
    assert mover.tolerance == pytest.approx(np.sqrt((left**2).sum(-1)).max(), rel=1e-6)
    assert 0.002 < mover.tolerance < 0.004
    assert mover.guarded
    # Its mesh at each frame is where the part is.
    for X, points in zip(mover.X_world, vertices, strict=True):
        assert np.abs(transform(X, mover.mesh.vertices) - points).max() < 0.004


def test_the_fingers_stop_at_what_is_between_the_pads():
    def width(mesh, most=0.08):
        return held_width(mesh, PANDA.gripper, most)

    z = PANDA.gripper.pad_z(0.08)
    at_pads = pose(None, [0, 0, z])
    assert width(trimesh.creation.box([0.2, 0.05, 0.2], transform=at_pads)) == pytest.approx(0.05)
    # Wider than the opening; not between the pads at all; wide only beside them.
    assert width(trimesh.creation.box([0.2, 0.3, 0.2], transform=at_pads)) == 0.08
    assert width(trimesh.creation.box([0.1] * 3, transform=pose(None, [0.5, 0, z]))) == 0.08
    thin = trimesh.creation.box([0.2, 0.02, 0.2], transform=at_pads)
    beside = trimesh.creation.box([0.05, 0.07, 0.05], transform=pose(None, [0.1, 0, z]))
    assert width(trimesh.util.concatenate([thin, beside])) == pytest.approx(0.02)
    # Off the center, fingers close as far as the mesh is wide.
    off = trimesh.creation.box([0.2, 0.04, 0.2], transform=pose(None, [0, 0.01, z]))
    assert width(off) == pytest.approx(0.04)
