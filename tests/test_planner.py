"""The planner end to end on scenes small enough to know the answer: what it returns is true, what
it refuses is named."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from flowplan import optimizers
from flowplan.collision.phase_geometry import is_deformable, phase_geometry
from flowplan.geometry import exp_so3, inverse, pose, rotation_about, transform
from flowplan.laws import Fold, Rigid
from flowplan.motion import SceneMotion
from flowplan.planner import (
    NoPlan,
    Plan,
    PlanOptions,
    moved_object,
    plan,
    propose_contacts,
)
from flowplan.report import feasibility
from flowplan.robot import load_robot
from flowplan.scene import Action, Scene, SceneObject
from flowplan.trajectory import Phase
from generators.kinematic import kinematic

SIZE = np.array([0.05, 0.04, 0.08])


def pick_up(position, *, obstacles=(), shift=(0.0, 0.25, 0.0), X_world=None):
    """A brick on the table that should go elsewhere, and the motion that takes it there."""
    X_world = np.eye(4) if X_world is None else X_world
    brick = trimesh.creation.box(SIZE)
    brick = brick.subdivide().subdivide()
    X = X_world @ pose(translation=[*position, SIZE[2] / 2 + 1e-3])
    scene = Scene(
        (SceneObject("brick", brick, X),), support_height=float(X_world[2, 3]), obstacles=obstacles
    )
    handles = transform(X, brick.vertices[:6])
    action = Action(
        "brick", handles, targets=handles + X_world[:3, :3] @ np.asarray(shift), duration=3.0
    )
    (motion,) = kinematic((Rigid("brick", lift=0.1),))(scene, action)
    return scene, motion


@pytest.fixture(scope="module")
def panda():
    return load_robot("panda")


@pytest.fixture(scope="module")
def brick_plan(panda):
    scene, motion = pick_up([0.45, -0.1])
    return scene, motion, plan(scene, motion, panda)


def test_a_brick_is_carried_as_the_motion_says(panda, brick_plan):
    """Fixed to the tool from the grasp on, the brick ends where its vertices were asked to end."""
    _, motion, result = brick_plan
    assert isinstance(result, Plan), feasibility(result)
    trajectory = result.trajectory
    during = np.flatnonzero(trajectory.phase == Phase.MANIPULATE)
    X = panda.tool_pose(trajectory.q[during[[0, -1]]])
    np.testing.assert_allclose(X[0], result.contact.X_world_tool[0], atol=3e-3)
    carried = transform(X[1] @ inverse(X[0]), motion.vertices[0][0])
    np.testing.assert_allclose(carried, motion.vertices[0][-1], atol=6e-3)


def test_a_plan_starts_at_home_keeps_limits_and_says_how_close_it_came(panda, brick_plan):
    _, _, result = brick_plan
    q = result.trajectory
    np.testing.assert_allclose(q.q[0], panda.home, atol=1e-6)
    assert q.phase[0] == Phase.APPROACH
    assert q.phase[-1] == Phase.RETREAT
    assert np.all(q.q >= panda.lower)
    assert np.all(q.q <= panda.upper)
    speed = np.abs(np.diff(q.q, axis=0)) / np.diff(q.times)[:, None]
    assert np.all(speed <= panda.velocity)
    assert result.certificate.ok
    assert result.attempts[-1].stage == "planned"
    assert "certified" in feasibility(result)
    assert "assumed    brick is rigid or articulated, a guess" in feasibility(result)


def test_a_plan_may_start_elsewhere_and_still_ends_at_home(panda):
    scene, motion = pick_up([0.45, -0.1])
    start = panda.home + 0.1
    result = plan(scene, motion, panda, start=start)
    assert isinstance(result, Plan), feasibility(result)
    np.testing.assert_allclose(result.trajectory.q[[0, -1]], [start, panda.home], atol=1e-6)
    with pytest.raises(ValueError, match=r"start: expected shape \(7,\), got \(3,\)"):
        plan(scene, motion, panda, start=start[:3])


def test_one_seed_gives_one_plan(panda, brick_plan):
    scene, motion, result = brick_plan
    np.testing.assert_array_equal(plan(scene, motion, panda).trajectory.q, result.trajectory.q)


def test_any_function_of_the_protocol_may_optimize(panda, brick_plan):
    """It is handed the obstacles' meshes beside their distance field, and its solution is the
    plan's."""
    scene, motion, result = brick_plan
    seen = []

    def optimize(problem, options, *, seed=0):
        seen.append(problem)
        return optimizers.get("lm")(problem, options, seed=seed)

    again = plan(scene, motion, panda, optimizer=optimize)
    np.testing.assert_array_equal(again.trajectory.q, result.trajectory.q)
    support = seen[-1].obstacles[-1]
    assert support.bounds[1, 2] == scene.support_height
    assert abs(seen[-1].field.distance(np.array([[0.5, 0.3, 0.04]]))[0] - 0.04) < 0.01
    with pytest.raises(ValueError, match="optimizer: got 'adam', expected one of lm"):
        plan(scene, motion, panda, optimizer="adam")


def test_an_optimizer_is_not_trusted_with_its_own_errors(panda, brick_plan):
    """A trajectory that stays at the contact is refused, although its errors are said to be 0."""
    scene, motion, _ = brick_plan

    def still(problem, options, *, seed=0):
        solution = optimizers.get("lm")(problem, options, seed=seed)
        return replace(
            solution,
            q=np.repeat(solution.q[:1], len(solution.q), axis=0),
            position_error=np.zeros(len(solution.q)),
        )

    refused = plan(scene, motion, panda, optimizer=still, options=PlanOptions(candidates=1))
    assert isinstance(refused, NoPlan)
    assert refused.attempts[-1].stage == "track"
    assert refused.attempts[-1].position_error > 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.q, "optimizer: expected to return a TrackSolution, got ndarray"),
        (lambda s: replace(s, q=s.q[:, :6]), r"q of shape \(41, 7\), got \(41, 6\)"),
        (lambda s: replace(s, q=s.q * np.nan), "TrackSolution.q: 287 of 287 values are not finite"),
    ],
)
def test_an_optimizer_that_returns_something_else_is_refused(panda, brick_plan, change, message):
    scene, motion, _ = brick_plan

    def optimize(problem, options, *, seed=0):
        return change(optimizers.get("lm")(problem, options, seed=seed))

    with pytest.raises(ValueError, match=message):
        plan(scene, motion, panda, optimizer=optimize)


def test_arguments_of_another_type_are_refused(panda, brick_plan):
    scene, motion, _ = brick_plan
    with pytest.raises(ValueError, match="robot: expected a Robot, got str; load_robot"):
        plan(scene, motion, "panda")
    with pytest.raises(ValueError, match="motion: expected a SceneMotion, got list; a generator"):
        plan(scene, [motion], panda)
    with pytest.raises(ValueError, match="optimizer: expected a name or a function, got int"):
        plan(scene, motion, panda, optimizer=3)
    (brick,) = scene.objects
    with pytest.raises(ValueError, match="objects: expected a tuple of SceneObjects, got a single"):
        Scene(brick)
    with pytest.raises(ValueError, match="deformable: expected True, False or None, got 'yes'"):
        replace(brick, deformable="yes")


def test_moving_robot_and_world_together_moves_the_answer(panda):
    """The plan is in joint space, so it is as good somewhere else: same contact relative to the
    brick, same quality."""
    X = pose(exp_so3([0, 0, 0.7]), [0.5, -0.3, 0.2])
    scene, motion = pick_up([0.45, -0.1], X_world=X)
    moved = plan(scene, motion, load_robot("panda", X))
    assert isinstance(moved, Plan), feasibility(moved)
    assert moved.attachment.slip.max() < 1e-6


def test_out_of_reach_is_no_plan_with_reasons(panda):
    scene, motion = pick_up([1.6, 0.0])
    result = plan(scene, motion, panda)
    assert isinstance(result, NoPlan)
    assert result.attempts
    assert all(a.reason and a.remedy for a in result.attempts)
    text = feasibility(result)
    assert text.startswith("NO PLAN")
    assert "try:" in text


def test_a_brick_under_a_low_lid_cannot_be_grasped(panda):
    """A slab a finger's breadth above the brick and walls around it: nothing certified may come
    out."""
    slab = SceneObject(
        "slab", trimesh.creation.box([0.6, 0.6, 0.02]), pose(translation=[0.45, -0.1, 0.1])
    )
    walls = tuple(
        SceneObject(
            f"wall{i}", trimesh.creation.box(size), pose(translation=[0.45 + x, -0.1 + y, 0.05])
        )
        for i, (x, y, size) in enumerate(
            [
                (0.2, 0, [0.02, 0.4, 0.1]),
                (-0.2, 0, [0.02, 0.4, 0.1]),
                (0, 0.2, [0.4, 0.02, 0.1]),
                (0, -0.2, [0.4, 0.02, 0.1]),
            ]
        )
    )
    scene, motion = pick_up([0.45, -0.1], obstacles=(slab, *walls))
    assert isinstance(plan(scene, motion, panda, options=PlanOptions(candidates=4)), NoPlan)


def slab(size, *, deformable=None, name="slab"):
    """A box that lies flat on the table."""
    mesh = trimesh.creation.box(size).subdivide().subdivide().subdivide()
    return SceneObject(name, mesh, pose(translation=[0.45, 0.0, size[2] / 2]), deformable)


def carried_rigidly(obj, lift=0.1):
    """The object alone on the table, and a motion that lifts it as one rigid body."""
    start = obj.vertices_world
    motion = SceneMotion([0.0, 1.0], (np.stack([start, start + np.array([0.0, 0.0, lift])]),))
    return Scene((obj,)), motion


def folded(obj):
    """The object alone on the table, and a motion that folds its half with x < 0.45 over the
    other."""
    start = obj.vertices_world
    turn = rotation_about([0.45, 0.0, start[:, 2].min()], [0, 1, 0], 2.5)
    end = np.where(start[:, :1] < 0.45, transform(turn, start), start)
    return Scene((obj,)), SceneMotion([0.0, 1.0], (np.stack([start, end]),))


def cloth(deformable=None):
    """A single open layer of triangles, 2 mm above the table."""
    x, y = np.meshgrid(np.linspace(-0.1, 0.1, 21), np.linspace(-0.1, 0.1, 21), indexing="ij")
    vertices = np.stack([x.ravel(), y.ravel(), np.full(x.size, 0.002)], axis=1)
    corner = (np.arange(20)[:, None] * 21 + np.arange(20)).ravel()
    faces = np.concatenate([
        np.stack([corner, corner + 21, corner + 1], axis=1),
        np.stack([corner + 21, corner + 22, corner + 1], axis=1),
    ])  # fmt: skip
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    return SceneObject("cloth", mesh, pose(translation=[0.45, 0.0, 0.0]), deformable)


@pytest.mark.parametrize(
    ("build", "move", "expected"),
    [
        (lambda: slab([0.07, 0.15, 0.008]), carried_rigidly, False),  # a phone
        (lambda: slab([0.03, 0.30, 0.0025]), carried_rigidly, False),  # a ruler
        (lambda: slab([0.20, 0.15, 0.012]), carried_rigidly, False),  # a book
        (lambda: slab([0.20, 0.15, 0.012]), folded, False),  # a book that is opened
        (lambda: slab([0.20, 0.15, 0.002]), folded, True),  # felt, closed and thin
        (cloth, folded, True),
        (lambda: cloth(deformable=False), folded, False),
        (lambda: slab([0.05, 0.05, 0.05], deformable=True), carried_rigidly, True),
    ],
)
def test_cloth_is_what_is_said_or_what_bends_and_is_thin(panda, build, move, expected):
    """What is rigid is an obstacle and is never pinched; what is deformable is pinched and no
    obstacle."""
    scene, motion = move(build())
    assert is_deformable(scene, motion, 0) == expected
    around = phase_geometry(scene, motion, 0)
    names = {name for name, _ in (*around.before, *around.during, *around.after)}
    assert (scene.objects[0].name in names) != expected
    assert (around.moving is None) == expected
    contacts = propose_contacts(scene, motion, panda, 0, PlanOptions(), seed=0)
    assert set(contacts.kind) <= ({"pinch"} if expected else {"grasp", "push"})


def test_a_cloth_is_pinched_and_the_guess_is_reported(panda):
    obj = cloth()
    handles = transform(obj.X_world_object, np.array([[-0.1, -0.1, 0.002], [-0.1, 0.1, 0.002]]))
    action = Action("cloth", handles, targets=handles + np.array([0.2, 0.0, 0.005]), duration=3.0)
    law = Fold("cloth", [0.45, 0.0, 0.0], [0.0, 1.0, 0.0])
    scene = Scene((obj,))
    (motion,) = kinematic((law,))(scene, action)
    result = plan(scene, motion, panda)
    assert isinstance(result, Plan), feasibility(result)
    assert result.contact.kind == ("pinch",)
    assert {a.kind for a in result.attempts} == {"pinch"}
    assert "assumed    cloth is deformable, a guess" in feasibility(result)
    said = Scene((cloth(deformable=True),))
    again = plan(said, motion, panda)
    np.testing.assert_array_equal(again.trajectory.q, result.trajectory.q)
    assert "assumed" not in feasibility(again)
    # Contacts of a deformable object are pinches, however they come.
    grasps = replace(result.contact, kind=("grasp",))
    given = plan(scene, motion, panda, contacts=grasps, options=PlanOptions(rank=False))
    assert given.contact.kind == ("pinch",)


def test_nothing_moves_and_a_foreign_motion_are_refused(panda):
    scene, motion = pick_up([0.45, 0.0])
    still = SceneMotion(
        motion.times, (np.broadcast_to(motion.vertices[0][0], motion.vertices[0].shape),)
    )
    with pytest.raises(ValueError, match="nothing moves"):
        moved_object(scene, still)
    with pytest.raises(ValueError, match="nothing moves"):
        plan(scene, still, panda)
    with pytest.raises(ValueError, match=r"motion.vertices\[0\]: expected the"):
        plan(scene, SceneMotion(motion.times, (motion.vertices[0][:, :5],)), panda)
    with pytest.raises(ValueError, match="PlanOptions.contact"):
        PlanOptions(contact="throw")
