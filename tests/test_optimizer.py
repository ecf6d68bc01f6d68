from dataclasses import replace

import numpy as np
import pinocchio
import pytest
import trimesh
from scipy.optimize import least_squares

from experiments.planning.bench_plan import bench_plan, solve
from experiments.planning.random_problems import KINDS, random_problem
from flowplan import optimizers
from flowplan.attachment import AttachmentOptions, attach
from flowplan.collision.distance_field import distance_field
from flowplan.geometry import angle_between, exp_so3, inverse, pose, rotation_about, transform
from flowplan.motion import ObjectFlow
from flowplan.optimizers import TrackOptions, TrackProblem
from flowplan.optimizers.block_banded import COUPLED, BandedLayout
from flowplan.optimizers.finite_differences import Rates, difference_rows
from flowplan.optimizers.levenberg_marquardt import optimize
from flowplan.optimizers.objective import CostWeights, Objective, log_manipulability_gradient
from flowplan.optimizers.seeds import key_times
from flowplan.robot import load_robot

LOWER, UPPER = [-1.0, -1.0, -0.2], [1.0, 1.0, 1.3]
FREE = distance_field([], lower=LOWER, upper=UPPER, voxel=0.1)
T = 11
TIMES = np.linspace(0.0, 2.0, T)
WIDE = np.linspace(0, 1, T)[:, None]


@pytest.fixture(scope="module")
def robot():
    return load_robot("panda")


def flow_of(X, count=200, size=0.06, seed=0):
    """The flow of a cloud of points that the tool poses X (T, 4, 4) carry."""
    body = np.random.default_rng(seed).uniform(-size, size, (count, 3))
    return ObjectFlow(
        TIMES[: len(X)], transform(X, body), np.ones((len(X), count)), np.zeros(count, int)
    )


def lift(robot, height=0.2):
    """Tool poses straight up from the home pose."""
    X = np.repeat(robot.tool_pose(robot.home[None]), T, axis=0)
    X[:, 2, 3] += height * WIDE[:, 0] ** 2 * (3 - 2 * WIDE[:, 0])
    return X


def problem_of(robot, X, field=FREE, **more):
    return TrackProblem(robot, TIMES[: len(X)], attach(flow_of(X), X[0]), field, **more)


def near_things(robot, seed=0):
    """An objective in which every kind of cost is active, and a trajectory there."""
    rng = np.random.default_rng(seed)
    X = lift(robot)
    boxes = [
        trimesh.creation.box([0.2] * 3, transform=pose(None, p))
        for p in ([0.3, 0.2, 0.6], [0.5, -0.15, 0.5])
    ]
    field = distance_field(boxes, lower=LOWER, upper=UPPER, voxel=0.04, support_height=0.0)
    held = np.array([[0.0, 0.0, 0.03, 0.04], [0.02, 0.0, 0.0, 0.05]])
    options = TrackOptions(margin=0.1, self_margin=0.15, min_manipulability=0.2)
    objective = Objective(problem_of(robot, X, field, held_spheres=held), options)
    q = robot.home + 0.15 * np.cumsum(rng.normal(size=(2, T, 7)), axis=1)
    q[0, :, 3] = robot.upper[3] - 0.01
    return objective, np.clip(q, robot.lower, robot.upper)


# ---- the parts ----


def test_kinematics_are_pinocchios(robot):
    model = pinocchio.buildModelFromUrdf(str(robot.urdf_path))
    data = model.createData()
    frame = model.getFrameId(robot.tool_link)
    rng = np.random.default_rng(0)
    q = rng.uniform(robot.lower, robot.upper, (20, 7))
    X, J = robot.tool_jacobian(q)
    for i in range(20):
        full = pinocchio.neutral(model)
        columns = []
        for name, value in zip(robot.joint_names, q[i], strict=True):
            joint = model.joints[model.getJointId(name)]
            full[joint.idx_q] = value
            columns.append(joint.idx_v)
        pinocchio.computeJointJacobians(model, data, full)
        pinocchio.updateFramePlacements(model, data)
        tool = data.oMf[frame].homogeneous @ robot.X_link_tool
        np.testing.assert_allclose(X[i], tool, atol=1e-9)
        at_link = pinocchio.getFrameJacobian(model, data, frame, pinocchio.LOCAL_WORLD_ALIGNED)[
            :, columns
        ]
        arm = tool[:3, 3] - data.oMf[frame].translation
        at_link[:3] += np.cross(at_link[3:], arm, axis=0)
        np.testing.assert_allclose(J[i], at_link, atol=1e-9)


@pytest.mark.parametrize("T", [2, 3, 9])
def test_banded_system_is_the_dense_one(T):
    rng = np.random.default_rng(T)
    S, J, n = 2, 3, 3 * T
    layout = BandedLayout(T, J)
    dense = np.zeros((S, n, n))
    own = rng.normal(size=(S, T, J, J))
    own = own @ np.swapaxes(own, 2, 3) + 20 * np.eye(J)
    following = rng.normal(size=(S, T - 1, J, J))
    bands = np.zeros((S, COUPLED + 1, T, J))
    for s in range(S):
        for t in range(T):
            dense[s, t * J : (t + 1) * J, t * J : (t + 1) * J] += own[s, t]
            if t + 1 < T:
                dense[s, (t + 1) * J : (t + 2) * J, t * J : (t + 1) * J] += following[s, t]
            for o in range(min(COUPLED + 1, T - t)):
                bands[s, o, t] = rng.normal(size=J)
                for j in range(J):
                    dense[s, (t + o) * J + j, t * J + j] += bands[s, o, t, j]
        dense[s] = np.tril(dense[s]) + np.tril(dense[s], -1).T
    rhs = rng.normal(size=(S, T, J))
    solution = layout.solve(layout.pack(own, following, bands), rhs)
    np.testing.assert_allclose(
        solution.reshape(S, n), np.linalg.solve(dense, rhs.reshape(S, n, 1))[..., 0], rtol=1e-9
    )


def test_a_matrix_that_is_not_positive_definite_is_not_solved():
    layout = BandedLayout(3, 2)
    ab = layout.pack(
        -np.ones((1, 3, 1, 1)) * np.eye(2), np.zeros((1, 2, 2, 2)), np.zeros((1, 4, 3, 2))
    )
    assert np.isnan(layout.solve(ab, np.ones((1, 3, 2)))).all()


def test_differences_are_exact_for_polynomials_over_uneven_times():
    t = np.cumsum(np.random.default_rng(0).uniform(0.1, 0.5, 9))
    v, a, j = difference_rows(t)
    for order, rows in ((1, v), (2, a), (3, j)):
        p = np.polynomial.Polynomial([0.3, -1.0, 2.0, 0.7][: order + 1])
        derivative = np.array([rows[r] @ p(t[r : r + order + 1]) for r in range(len(rows))])
        np.testing.assert_allclose(derivative, p.deriv(order)(t[0]), atol=1e-9)
    assert [len(rows) for rows in difference_rows(np.array([0.0, 1.0]))] == [1, 0, 0]


def test_smoothness_is_the_integral_it_stands_for():
    limits = np.array([[2.0, 1.0], [10.0, 5.0], [100.0, 50.0]])
    rates = Rates(TIMES, limits, (0.3, 2.0, 0.1))
    q = np.random.default_rng(0).normal(size=(2, T, 2))
    cost, gradient = rates.smoothness(q)
    direct = sum(
        w * ((x / limit) ** 2).sum(axis=(1, 2))
        for w, x, limit in zip((0.3, 2.0, 0.1), rates.values(q), limits, strict=True)
    )
    np.testing.assert_allclose(cost, direct, rtol=1e-9)
    dq = np.random.default_rng(1).normal(size=q.shape)
    slope = (rates.smoothness(q + 1e-4 * dq)[0] - rates.smoothness(q - 1e-4 * dq)[0]) / 2e-4
    np.testing.assert_allclose(2 * (gradient * dq).sum(axis=(1, 2)), slope, rtol=1e-6)


def test_excess_of_limits_against_finite_differences_and_its_slowdown():
    limits = np.array([[0.5, 0.3], [2.0, 1.0], [5.0, 2.0]])
    rates = Rates(TIMES, limits, (0.0, 0.0, 0.0))
    q = np.random.default_rng(0).normal(size=(2, T, 2))
    cost, gradient, bands = rates.excess(q, 0.95)
    assert (cost > 0).all()
    dq = 1e-6 * np.random.default_rng(1).normal(size=q.shape)
    change = rates.excess(q + dq, 0.95)[0] - rates.excess(q - dq, 0.95)[0]
    np.testing.assert_allclose(4 * (gradient * dq).sum(axis=(1, 2)), change, rtol=1e-5)
    # The second derivative of a hinge squared, where nothing changes sides, is that of the
    # quadratic.
    bent = rates.excess(q + dq, 0.95)[1] - gradient
    product = bands[:, 0] * dq
    for o in range(1, 4):
        product[:, o:] += bands[:, o, :-o] * dq[:, :-o]
        product[:, :-o] += bands[:, o, :-o] * dq[:, o:]
    np.testing.assert_allclose(bent, product, atol=1e-6 * np.abs(bent).max())
    slow = rates.fastest(q[0])
    slower = Rates(TIMES * slow, limits, (0.0, 0.0, 0.0))
    assert slower.fastest(q[0]) == pytest.approx(1.0)
    assert (
        max(np.abs(x / limit).max() for x, limit in zip(slower.values(q[0]), limits, strict=True))
        <= 1 + 1e-9
    )
    assert rates.excess(0 * q, 0.95)[0].max() == 0


def test_manipulability_gradient_against_finite_differences(robot):
    def log_manipulability(q):
        J = robot.tool_jacobian(q)[1]
        return 0.5 * np.log(np.linalg.det(J @ np.swapaxes(J, -1, -2)))

    q = np.random.default_rng(0).uniform(robot.lower, robot.upper, (10, 7))
    gradient = log_manipulability_gradient(robot.tool_jacobian(q)[1])
    for j in range(7):
        h = 1e-6 * np.eye(7)[j]
        slope = (log_manipulability(q + h) - log_manipulability(q - h)) / 2e-6
        np.testing.assert_allclose(gradient[:, j], slope, rtol=1e-3, atol=1e-3)


def test_every_collision_residual_against_finite_differences(robot):
    """Sums of residuals by their first time; every second time is moved, so that a neighbour's part
    stays apart."""
    objective, q = near_things(robot)
    body = objective.collision

    def all_rows(q):
        return [*body.obstacle_rows(body.arm_state(q)), body.self_rows(body.arm_state(q))]

    def by_time(at, values):
        return np.bincount(at, values, q.shape[0] * q.shape[1]).reshape(q.shape[:2])

    h = 1e-6
    assert len(all_rows(q)) == 5  # at the times, three on the way between them, and against itself
    for kind, rows in enumerate(all_rows(q)):
        assert len(rows.at) > 5
        for j in range(7):
            for moved_time, mine in ((0, rows.row), (1, rows.following)):
                if mine is None:
                    continue
                dq = np.zeros_like(q)
                dq[:, moved_time::2, j] = h
                up, down = (all_rows(q + s * dq)[kind] for s in (1, -1))
                slope = (by_time(up.at, up.residual) - by_time(down.at, down.residual)) / (2 * h)
                got, want = by_time(rows.at, mine[:, j])[:, ::2], slope[:, ::2]
                close = np.abs(got - want) <= 1e-3 * np.abs(want) + 0.05
                assert (
                    close.mean() > 0.95
                )  # a kink of the voxel field or the edge of a hinge now and then


def test_objective_gradient_against_finite_differences(robot):
    objective, q = near_things(robot)
    weights = CostWeights(3.0, True)
    objective.slow_down(1.3)
    model = objective.evaluate(q, weights)
    rng = np.random.default_rng(3)
    for _ in range(5):
        dq = 1e-6 * rng.normal(size=q.shape)
        up, down = (objective.evaluate(q + s * dq, weights).cost for s in (1, -1))
        np.testing.assert_allclose(4 * (model.gradient * dq).sum(axis=(1, 2)), up - down, rtol=2e-3)


def test_flow_cost_is_the_sum_over_points(robot):
    """The readable reference: every point, carried by the tool, against the flow."""
    rng = np.random.default_rng(0)
    X = lift(robot)
    flow = flow_of(X)
    noisy = flow.points + 3e-3 * rng.normal(size=flow.points.shape)
    noisy[0] = flow.points[0]
    flow = ObjectFlow(TIMES, noisy, rng.uniform(0.5, 1.0, noisy.shape[:2]), flow.object_id)
    held = rng.random(200)
    attachment = attach(flow, X[0], AttachmentOptions(robust_rounds=0, min_lever=0.0), held=held)
    options = TrackOptions(free_rotation=0.0)
    objective = Objective(TrackProblem(robot, TIMES, attachment, FREE), options)
    q = robot.home + 0.1 * rng.normal(size=(1, T, 7))
    arm = objective.collision.arm_state(q)
    residual, rows = objective._alignment(arm.X, arm.J)
    weights = held * flow.confidence
    weights /= weights.max()

    def direct(q):
        carried = transform(robot.tool_pose(q), transform(inverse(X[0]), flow.points[0]))
        return (weights * ((carried - flow.points) ** 2).sum(axis=2)).sum(axis=1)

    best = attachment.slip**2 * attachment.moments.weight
    scale = options.position_tolerance**2 * attachment.moments.weight.max()
    np.testing.assert_allclose(
        (residual[0, 1:] ** 2).sum(axis=1), ((direct(q[0]) - best) / scale)[1:], rtol=1e-6
    )
    h = 1e-6
    for j in range(7):
        slope = (direct(q[0] + h * np.eye(7)[j]) - direct(q[0] - h * np.eye(7)[j])) / (
            2 * h * scale
        )
        mine = 2 * np.einsum("ti,ti->t", residual[0], rows[0, :, :, j])
        np.testing.assert_allclose(mine[1:], slope[1:], rtol=1e-4, atol=1e-3)


def test_fast_path_finds_what_a_dense_per_point_solver_finds(robot):
    X = lift(robot)[:6]
    problem = problem_of(robot, X, q_start=robot.home)
    options = TrackOptions(min_manipulability=0.0, self_margin=0.0, margin=0.0, free_rotation=0.0)
    fast = optimize(problem, options)
    objective = Objective(problem, options)
    points, body = flow_of(X).points, transform(inverse(X[0]), flow_of(X).points[0])
    moments = problem.attachment.moments
    held = problem.attachment.held
    root = np.sqrt(held / held.max() / moments.weight.max()) / options.position_tolerance

    def residual(x):
        q = np.concatenate([robot.home[None], x.reshape(-1, 7)])
        flow = (root[:, None] * (transform(robot.tool_pose(q), body) - points)).ravel()
        v, a, _ = objective.rates.values(q)
        return np.concatenate([
            flow,
            (np.sqrt(options.shortness) * v / robot.velocity).ravel(),
            (np.sqrt(options.smoothness) * a / robot.acceleration).ravel(),
        ])  # fmt: skip

    slow = least_squares(residual, np.tile(robot.home, 5), xtol=1e-14, ftol=1e-14, gtol=1e-14)
    assert fast.cost == pytest.approx(2 * slow.cost, rel=0.02)
    assert np.abs(fast.q[1:].ravel() - slow.x).max() < 0.01


# ---- the whole ----


@pytest.mark.parametrize("name", ["panda", "ur5e"])
@pytest.mark.parametrize("kind", ["rigid", "hinge", "slide"])
def test_random_problems_among_obstacles(name, kind):
    robot = load_robot(name)
    problem = random_problem(robot, kind, frames=41, points=300, obstacles=20, seed=1)
    attachment = attach(problem.flow, problem.X_world_tool)
    solution = optimize(TrackProblem(robot, attachment.times, attachment, problem.field))
    assert solution.converged
    X = robot.tool_pose(solution.q)
    wanted = robot.tool_pose(problem.witness)
    assert np.linalg.norm(X[:, :3, 3] - wanted[:, :3, 3], axis=1).max() < 5e-3
    assert angle_between(X[:, :3, :3], wanted[:, :3, :3]).max() < 0.05
    assert (solution.q >= robot.lower).all()
    assert (solution.q <= robot.upper).all()
    fine = np.concatenate(
        [solution.q[:-1] + s * np.diff(solution.q, axis=0) for s in np.linspace(0, 1, 9)]
    )
    moving = np.abs(robot.sphere_jacobian(robot.home[None] + 0.1)[1][0]).max(axis=(1, 2)) > 1e-9
    clear = (problem.field.distance(robot.spheres(fine)) - robot.sphere_radius)[:, moving].min()
    assert clear > 0
    assert clear > solution.clearance.min() - 5e-3
    assert solution.slowdown == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_random_problem_is_solved_by_its_witness(robot, kind):
    """Reachable by construction: the witness makes the flow, and is clear of everything."""
    problem = random_problem(robot, kind, frames=21, points=100, obstacles=10, seed=4)
    attachment = attach(problem.flow, problem.X_world_tool)
    np.testing.assert_allclose(attachment.X_world_tool, robot.tool_pose(problem.witness), atol=1e-6)
    objective = Objective(
        TrackProblem(robot, attachment.times, attachment, problem.field), TrackOptions()
    )
    assert (
        objective.collision.clearance(problem.witness, objective.collision.margin)[0].min() > 5e-3
    )
    again = random_problem(robot, kind, frames=21, points=100, obstacles=10, seed=4)
    np.testing.assert_array_equal(again.flow.points, problem.flow.points)
    assert solve(robot, problem, TrackOptions()).certified


def test_benchmark_records():
    records = bench_plan(problems=3, timed=1, sizes=((21, 100), (41, 10_000)))
    keys = {r["key"]: r for r in records}
    assert keys["plan/random/certified_share"]["n"] == 3
    assert keys["plan/random/certified_share"]["direction"] == "up"
    assert keys["plan/T21/N100/median_ms"]["unit"] == "ms"
    assert {
        "plan/T41/N10000/median_ms",
        "plan/T41/N10000/track_ms",
        "plan/T41/N10000/field_ms",
    } <= set(keys)
    assert all(set(r) == {"key", "value", "unit", "direction", "n", "optimizer"} for r in records)
    assert {r["optimizer"] for r in records} == {"lm"}


def test_an_optimizer_is_named_or_given():
    assert optimizers.get("lm") is optimize
    assert optimizers.get(optimize) is optimize
    with pytest.raises(ValueError, match="optimizer: got 'adam', expected one of lm"):
        optimizers.get("adam")


def test_the_same_seed_gives_the_same_answer(robot):
    problem = problem_of(robot, lift(robot))
    a, b = optimize(problem, seed=3), optimize(problem, seed=3)
    np.testing.assert_array_equal(a.q, b.q)


def test_moving_the_world_and_the_robot_moves_nothing_in_the_joints(robot):
    X = lift(robot)
    M = pose(exp_so3([0.3, -0.5, 0.8]), [0.2, -0.1, 0.4])
    moved = replace(robot, X_world_base=M)
    here = optimize(problem_of(robot, X))
    there = optimize(
        TrackProblem(moved, TIMES, attach(ObjectFlow(*_moved_flow(X, M)), M @ X[0]), FREE)
    )
    np.testing.assert_allclose(here.q, there.q, atol=1e-4)


def _moved_flow(X, M):
    flow = flow_of(X)
    return flow.times, transform(M, flow.points), flow.confidence, flow.object_id


def test_it_starts_where_it_is_told_to(robot):
    start = robot.home
    solution = optimize(problem_of(robot, lift(robot), q_start=start))
    np.testing.assert_array_equal(solution.q[0], start)
    assert solution.converged


def test_an_obstacle_in_the_elbows_way_is_avoided(robot):
    X = lift(robot)
    free = optimize(problem_of(robot, X))
    elbow = robot.fk(free.q[T // 2][None])[0, robot.link_names.index("panda_link4"), :3, 3]
    post = trimesh.creation.box([0.05, 0.05, 0.05], transform=pose(None, elbow))
    field = distance_field([post], lower=LOWER, upper=UPPER, voxel=0.02)
    blocked = Objective(problem_of(robot, X, field), TrackOptions())
    assert blocked.collision.clearance(free.q, blocked.collision.margin)[0].min() < 0
    solution = optimize(problem_of(robot, X, field))
    assert solution.converged
    assert solution.clearance.min() > 0.005


def test_a_thin_wall_between_two_times_is_seen(robot):
    """Two times, far apart: the ends are clear, the way is not."""
    q = np.stack([robot.home, robot.home + 1.2 * np.eye(7)[0]])
    X = robot.tool_pose(q)
    middle = robot.tool_pose(q.mean(axis=0)[None])[0, :3, 3]
    wall = trimesh.creation.box([0.2, 0.02, 0.2], transform=pose(exp_so3([0, 0, 0.6]), middle))
    field = distance_field([wall], lower=LOWER, upper=UPPER, voxel=0.02)
    attachment = attach(ObjectFlow(*_two_times(X)), X[0])
    body = Objective(
        TrackProblem(robot, np.array([0.0, 2.0]), attachment, field), TrackOptions()
    ).collision
    at_times, *between = body.obstacle_rows(body.arm_state(q[None]))
    assert not len(at_times.at)
    assert len(between) == 3  # a long step is looked at in quarters
    assert len(between[1].at)


def _two_times(X):
    cloud = np.random.default_rng(0).uniform(-0.05, 0.05, (50, 3))
    return np.array([0.0, 2.0]), transform(X, cloud), np.ones((2, 50)), np.zeros(50, int)


def test_a_single_point_leaves_the_hand_free_to_turn(robot):
    """The point goes to where the hand cannot follow with its orientation held, but can when it may
    turn."""
    X = lift(robot)
    X[:, 0, 3] += np.linspace(0, 0.5, T)
    firm = optimize(problem_of(robot, X), TrackOptions(rounds=1))
    point = ObjectFlow(TIMES, X[:, None, :3, 3], np.ones((T, 1)), np.zeros(1, int))
    loose = optimize(TrackProblem(robot, TIMES, attach(point, X[0]), FREE))
    assert not firm.converged
    assert loose.converged
    assert loose.position_error.max() < 2e-3
    assert angle_between(robot.tool_pose(loose.q)[-1, :3, :3], X[-1, :3, :3]) > 0.1
    np.testing.assert_allclose(loose.rotation_error[1:], 0.0, atol=1e-9)
    assert (
        angle_between(robot.tool_pose(loose.q)[0, :3, :3], X[0, :3, :3]) < 0.02
    )  # the contact itself is given


def test_an_unreachable_flow_is_measured_not_raised(robot):
    X = lift(robot)
    X[:, 0, 3] += np.linspace(0, 3.0, T)
    solution = optimize(problem_of(robot, X), TrackOptions(rounds=1))
    assert not solution.converged
    assert solution.position_error.max() > 1.0
    assert np.isfinite(solution.q).all()
    assert np.argmax(solution.position_error) == T - 1


def test_a_fast_flow_reports_the_slowdown_that_it_needs(robot):
    X = lift(robot)
    times = TIMES / 20
    flow = flow_of(X)
    quick = ObjectFlow(times, flow.points, flow.confidence, flow.object_id)
    solution = optimize(TrackProblem(robot, times, attach(quick, X[0]), FREE))
    assert solution.converged
    assert solution.slowdown > 1.5
    limits = np.stack([robot.velocity, robot.acceleration, robot.jerk])
    assert Rates(times * solution.slowdown, limits, (0, 0, 0)).fastest(solution.q) == pytest.approx(
        1.0
    )


def test_jitter_is_smoothed_to_within_the_limits(robot):
    times = np.linspace(0, 1.0, 41)
    steady = np.repeat(robot.tool_pose(robot.home[None]), 41, axis=0)
    steady[:, 2, 3] += np.linspace(0, 0.1, 41)
    shaken = steady.copy()
    shaken[1:, :3, 3] += 2e-3 * np.random.default_rng(0).normal(size=(40, 3))
    cloud = np.random.default_rng(1).uniform(-0.05, 0.05, (100, 3))
    flow = ObjectFlow(times, transform(shaken, cloud), np.ones((41, 100)), np.zeros(100, int))
    task = TrackProblem(robot, times, attach(flow, steady[0]), FREE)
    solution = optimize(task, TrackOptions(converged_position_error=0.02))
    assert solution.slowdown < 1.2
    assert solution.position_error.max() < 0.012


def test_held_spheres_keep_clear_of_obstacles_where_the_hand_may_turn(robot):
    """A long thing held at one point is turned out of a wall's way, though the hand itself is clear
    of it."""
    X = lift(robot, 0.05)
    tip = (X[-1] @ [0.0, 0.0, 0.25, 1.0])[:3]
    wall = trimesh.creation.box(
        [0.08, 0.08, 0.08], transform=pose(None, tip + np.array([0.0, 0.07, 0.0]))
    )
    field = distance_field([wall], lower=LOWER, upper=UPPER, voxel=0.02)
    held = np.array([[0.0, 0.0, z, 0.03] for z in np.linspace(0.05, 0.25, 5)])
    point = ObjectFlow(TIMES, X[:, None, :3, 3], np.ones((T, 1)), np.zeros(1, int))
    attachment = attach(point, X[0])
    alone = optimize(TrackProblem(robot, TIMES, attachment, field))
    holding = optimize(TrackProblem(robot, TIMES, attachment, field, held_spheres=held))

    def gap(solution):
        centers = transform(robot.tool_pose(solution.q), held[:, :3])
        return (field.distance(centers) - held[:, 3]).min(axis=1)

    assert np.isinf(alone.held_clearance).all()
    assert gap(alone)[-1] < gap(holding)[-1]
    assert holding.held_clearance.min() >= -2e-3


def test_an_object_on_its_support_may_stay_there(robot):
    """Held spheres that start in touch with the support are no reason to leave the flow."""
    X = lift(robot)
    stand = distance_field(
        [trimesh.creation.box([0.2, 0.2, 0.05], transform=pose(None, X[0, :3, 3] - [0, 0, 0.06]))],
        lower=LOWER, upper=UPPER, voxel=0.02,
    )  # fmt: skip
    held = np.array([[0.0, 0.0, 0.0, 0.04]])
    solution = optimize(problem_of(robot, X, stand, held_spheres=held))
    assert solution.converged
    assert solution.position_error.max() < 1e-3


def test_two_frames_are_enough(robot):
    q = np.stack([robot.home, robot.home + 0.2])
    X = robot.tool_pose(q)
    attachment = attach(ObjectFlow(*_two_times(X)), X[0])
    solution = optimize(TrackProblem(robot, np.array([0.0, 2.0]), attachment, FREE))
    assert solution.converged
    assert solution.q.shape == (2, 7)


def test_key_times_are_even_along_the_way():
    X = rotation_about(
        [0, 0, 0], [0, 0, 1], np.concatenate([np.zeros(10), np.linspace(0, 1.5, 30)])
    )
    keys = key_times(X)
    assert keys[0] == 0
    assert keys[-1] == 39
    assert (np.diff(keys) > 0).all()
    turns = np.diff(np.concatenate([np.zeros(10), np.linspace(0, 1.5, 30)])[keys])
    assert turns[1:-1].max() < 2 * 0.3


def test_bad_input_is_one_line_that_names_the_field(robot):
    X = lift(robot)
    attachment = attach(flow_of(X), X[0])
    with pytest.raises(ValueError, match=r"TrackProblem\.times: expected 11 times"):
        TrackProblem(robot, TIMES[:5], attachment, FREE)
    with pytest.raises(ValueError, match=r"TrackProblem.held_spheres: expected shape \(H, 4\)"):
        TrackProblem(robot, TIMES, attachment, FREE, np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"TrackProblem.q_start: expected shape \(7,\)"):
        TrackProblem(robot, TIMES, attachment, FREE, q_start=np.zeros(3))
    for name, value in (
        ("margin", -1),
        ("seeds", 0),
        ("limit_share", 2),
        ("converged_position_error", 0),
    ):
        with pytest.raises(ValueError, match=rf"TrackOptions\.{name}"):
            TrackOptions(**{name: value})
