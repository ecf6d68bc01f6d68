"""The simulated controller obeys ros2_control's rules, one by one. Clock and plant are injected;
nothing here is ROS."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from flowplan_sim_hw.trajectory_controller import ControllerOptions, Status, TrajectoryController
from flowplan_sim_hw.trajectory_goal import (
    GOAL_TOLERANCE_VIOLATED,
    INVALID_GOAL,
    PATH_TOLERANCE_VIOLATED,
    SUCCESSFUL,
    GoalRules,
    Tolerance,
    TrajectoryGoal,
    Waypoint,
)

NAMES = ("a", "b")
PERIOD = 0.01
HOME = np.array([0.1, -0.2])


@dataclass
class FakeArm:
    """Is at once where it is told to be, but for joints that are stuck and an offset that it cannot
    get rid of."""

    q: np.ndarray = field(default_factory=HOME.copy)
    qd: np.ndarray = field(default_factory=lambda: np.zeros(2))
    stuck: list[int] = field(default_factory=list)
    offset: np.ndarray = field(default_factory=lambda: np.zeros(2))
    commands: list = field(default_factory=list)

    def state(self):
        return self.q.copy(), self.qd.copy()

    def command(self, positions, velocities):
        self.commands.append((positions.copy(), velocities.copy()))
        free = [j for j in range(2) if j not in self.stuck]
        self.q[free] = (positions + self.offset)[free]
        self.qd[free] = velocities[free]


class Bench:
    """A controller, its arm and a clock that moves one period with each update."""

    def __init__(self, *, active=True, arm=None, **options):
        self.now = 100.0
        self.arm = arm or FakeArm()
        self.warnings = []
        given = ControllerOptions(**{"stopped_velocity_tolerance": 0.0} | options)
        self.controller = TrajectoryController(
            NAMES, self.arm, lambda: self.now, given, warn=self.warnings.append
        )
        if active:
            self.controller.activate()

    def update(self, count=1):
        for _ in range(count):
            self.controller.update(PERIOD)
            self.now += PERIOD

    def run(self, goal, seconds=10.0):
        """The goal's handle, terminal or after `seconds`."""
        handle = self.controller.accept(goal)
        for _ in range(round(seconds / PERIOD)):
            self.update()
            if handle.status is not Status.EXECUTING:
                break
        return handle

    def commanded_at(self, goal, t):
        """What is commanded for t seconds after the start of the goal."""
        self.controller.accept(goal)
        self.arm.commands.clear()
        self.update(round(t / PERIOD))
        return self.arm.commands[-1]


def point(t, q=(), qd=(), qdd=(), effort=()):
    return Waypoint(t, q, qd, qdd, effort)


def reach(q=(0.3, 0.1), seconds=1.0, **changes):
    """A goal of one waypoint."""
    return replace(TrajectoryGoal(NAMES, [point(seconds, q)]), **changes)


# Goals that are turned down, and a word of the reason.
REJECTED = {
    "no joint names": (reach(joint_names=()), "joint_names"),
    "no points": (reach(waypoints=[]), "points: empty"),
    "a joint is missing": (TrajectoryGoal(("a",), [point(1, [0.3])]), "b missing"),
    "a foreign joint": (reach(joint_names=("a", "c")), "'c'"),
    "a joint twice": (reach(joint_names=("a", "a")), "twice"),
    "too few positions": (reach(q=[0.3]), "1 entries for 2 joints"),
    "too many velocities": (
        reach(waypoints=[point(1, [0, 0], [0, 0, 0])]),
        "velocities: 3 entries",
    ),
    "too few accelerations": (
        reach(waypoints=[point(1, [0, 0], [0, 0], [0])]),
        "accelerations: 1 entries",
    ),
    "no positions": (reach(waypoints=[point(1, (), [0, 0])]), "positions: missing"),
    "accelerations alone beside positions": (
        reach(waypoints=[point(1, [0, 0], (), [0, 0])]),
        "velocities: missing",
    ),
    "effort": (reach(waypoints=[point(1, [0, 0], effort=[0, 0])]), "effort"),
    "not a number": (reach(q=[0.3, np.nan]), "not finite"),
    "two points at one time": (
        reach(waypoints=[point(1, [0, 0]), point(1, [0.1, 0])]),
        "does not come after",
    ),
    "times that fall": (
        reach(waypoints=[point(1, [0, 0]), point(0.5, [0.1, 0])]),
        "does not come after",
    ),
    "moving at the end": (reach(waypoints=[point(1, [0, 0], [0, 0.1])]), "last velocity"),
    "over before it came": (reach(start=98.9), "ended 0.100 s ago"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_rejects(name):
    goal, word = REJECTED[name]
    bench = Bench()
    assert word in bench.controller.reason_to_reject(goal)
    with pytest.raises(ValueError, match=word.replace("(", r"\(")):
        bench.controller.accept(goal)


ACCEPTED = {
    "one point": (reach(), {}),
    "joints in another order": (reach(joint_names=("b", "a")), {}),
    "a first point at time zero": (reach(waypoints=[point(0, HOME), point(1, [0.3, 0.1])]), {}),
    "a start in the future": (reach(start=100.5), {}),
    "a start in the past, an end in the future": (reach(start=99.5), {}),
    "some joints, where allowed": (
        TrajectoryGoal(("b",), [point(1, [0.3])]),
        {"allow_partial_joints_goal": True},
    ),
    "moving at the end, where allowed": (
        reach(waypoints=[point(1, [0, 0], [0, 0.1])]),
        {"allow_nonzero_velocity_at_trajectory_end": True},
    ),
    "velocities alone, where allowed": (
        reach(waypoints=[point(1, (), [0.1, 0.1]), point(2, (), [0, 0])]),
        {"allow_integration_in_goal_trajectories": True},
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepts_and_succeeds(name):
    goal, rules = ACCEPTED[name]
    bench = Bench(rules=GoalRules(**rules), trajectory=0.5, goal=1e-6)
    handle = bench.run(goal)
    assert (handle.status, handle.error_code) == (Status.SUCCEEDED, SUCCESSFUL)


@pytest.mark.parametrize(
    "rule", ["allow_partial_joints_goal", "allow_integration_in_goal_trajectories"]
)
def test_an_empty_point_is_rejected_whatever_is_allowed(rule):
    assert Bench(rules=GoalRules(**{rule: True})).controller.reason_to_reject(
        reach(waypoints=[point(1)])
    )


# --- states of the controller


def test_an_inactive_controller_rejects():
    bench = Bench(active=False)
    assert "not active" in bench.controller.reason_to_reject(reach())
    bench.update()
    assert not bench.arm.commands


def test_an_active_controller_holds_where_the_arm_was_when_it_took_over():
    bench = Bench(active=False)
    bench.arm.q = np.array([0.5, 0.5])
    bench.controller.activate()
    bench.update(3)
    np.testing.assert_array_equal([c[0] for c in bench.arm.commands], [[0.5, 0.5]] * 3)


def test_deactivation_aborts_the_goal_and_commands_nothing_more():
    bench = Bench()
    handle = bench.controller.accept(reach())
    bench.update(10)
    bench.controller.deactivate()
    assert (handle.status, handle.error_code) == (Status.ABORTED, INVALID_GOAL)
    count = len(bench.arm.commands)
    bench.update(10)
    assert len(bench.arm.commands) == count


# --- where joints should be


def test_joints_are_mapped_by_name():
    handle_at = Bench().commanded_at(TrajectoryGoal(("b", "a"), [point(1, [3.0, 4.0])]), 2.0)
    np.testing.assert_allclose(handle_at[0], [4.0, 3.0])


def test_a_first_point_later_than_zero_is_approached_from_the_measured_state():
    np.testing.assert_allclose(
        Bench().commanded_at(reach(q=[0.3, 0.2]), 0.25)[0], HOME + 0.25 * np.array([0.2, 0.4])
    )


def test_a_first_point_at_zero_makes_the_target_jump():
    goal = reach(waypoints=[point(0, [0.9, 0.9]), point(1, [1.0, 1.0])])
    np.testing.assert_allclose(Bench().commanded_at(goal, PERIOD)[0], [0.901, 0.901])


def test_a_jump_violates_a_path_tolerance_at_once():
    bench = Bench(trajectory=0.1)
    bench.controller.accept(reach(waypoints=[point(0, [0.9, 0.9]), point(1, [1.0, 1.0])]))
    bench.update(3)
    np.testing.assert_array_equal(bench.arm.q, HOME)


def test_a_trajectory_that_is_over_at_once_is_checked_once_all_the_same():
    bench = Bench(trajectory=0.1)
    handle = bench.run(reach(waypoints=[point(0, [0.9, 0.9])]))
    assert (handle.status, handle.error_code) == (Status.ABORTED, PATH_TOLERANCE_VIOLATED)
    assert (
        Bench(trajectory=1.2).run(reach(waypoints=[point(0, [0.9, 0.9])])).status
        is Status.SUCCEEDED
    )


@pytest.mark.parametrize(
    ("ends", "degree"),
    [
        (([0.0], [1.0], (), (), (), ()), 1),
        (([0.0], [1.0], [0.5], [0.0], (), ()), 3),
        (([0.0], [1.0], [0.5], [0.0], [0.2], [-0.3]), 5),
        (([0.0], [1.0], [0.5], (), (), ()), 1),  # what only one end states does not count
        (([0.0], [1.0], [0.5], [0.0], [0.2], ()), 3),
    ],
)
def test_between_points_runs_the_polynomial_that_both_ends_allow(ends, degree):
    from flowplan_sim_hw.timeline import between

    q0, q1, v0, v1, a0, a1 = ends
    a, b = Waypoint(2.0, q0, v0, a0), Waypoint(2.5, q1, v1, a1)
    t = np.linspace(2.0, 2.5, 50)
    states = [between(a, b, x) for x in t]
    q = np.array([s.positions[0] for s in states])
    fit = np.polynomial.Polynomial.fit(t, q, degree)
    np.testing.assert_allclose(fit(t), q, atol=1e-9)
    if degree > 1:
        assert abs(np.polynomial.Polynomial.fit(t, q, degree - 1)(t) - q).max() > 1e-4
    np.testing.assert_allclose([q[0], q[-1]], [q0[0], q1[0]], atol=1e-12)
    np.testing.assert_allclose([s.velocities[0] for s in states], fit.deriv()(t), atol=1e-8)
    np.testing.assert_allclose([s.accelerations[0] for s in states], fit.deriv(2)(t), atol=1e-6)
    if degree > 1:
        np.testing.assert_allclose(
            [states[0].velocities[0], states[-1].velocities[0]], [v0[0], v1[0]], atol=1e-9
        )
    if degree == 5:
        np.testing.assert_allclose(
            [states[0].accelerations[0], states[-1].accelerations[0]], [0.2, -0.3], atol=1e-9
        )


def test_a_first_point_with_velocity_is_approached_by_a_cubic_from_the_measured_velocity():
    arm = FakeArm(qd=np.array([0.4, 0.0]))
    goal = reach(waypoints=[point(1, HOME, [0, 0])])
    q, _ = Bench(arm=arm).commanded_at(goal, 0.5)
    np.testing.assert_allclose(q - HOME, [0.4 * (0.5 - 2 * 0.25 + 0.125), 0.0], atol=1e-12)


def test_without_splines_the_target_is_the_next_point():
    goal = reach(waypoints=[point(0.5, [0.5, 0.5]), point(1, [1.0, 1.0])])
    np.testing.assert_allclose(Bench(splines=False).commanded_at(goal, 0.3)[0], HOME)
    np.testing.assert_allclose(Bench(splines=False).commanded_at(goal, 0.6)[0], [1.0, 1.0])


def test_a_stamp_in_the_future_is_approached_from_now_on():
    np.testing.assert_allclose(
        Bench().commanded_at(reach(q=[0.5, 0.2], start=101.0), 1.0)[0], [0.3, 0.0], atol=1e-9
    )


def test_a_stamp_in_the_past_is_joined_where_it_is():
    goal = reach(waypoints=[point(0, [0, 0]), point(1, [1.0, 1.0])], start=99.5)
    np.testing.assert_allclose(Bench().commanded_at(goal, 0.1)[0], [0.6, 0.6])


def test_a_stamped_trajectory_succeeds_when_it_ends_by_its_stamp():
    bench = Bench()
    bench.run(reach(start=100.5))
    assert bench.now == pytest.approx(101.5, abs=2 * PERIOD)


def test_joints_left_out_hold_their_last_command():
    bench = Bench(rules=GoalRules(allow_partial_joints_goal=True))
    bench.run(reach(q=[0.3, 0.1]))
    bench.arm.offset[:] = 0.05  # what is measured is not what holds
    np.testing.assert_allclose(
        bench.commanded_at(TrajectoryGoal(("b",), [point(1, [0.7])]), 2.0)[0], [0.3, 0.7]
    )


def test_velocities_integrate_to_positions():
    goal = reach(waypoints=[point(1, (), [0.2, 0.0]), point(2, (), [0.0, 0.0])])
    bench = Bench(rules=GoalRules(allow_integration_in_goal_trajectories=True))
    np.testing.assert_allclose(bench.commanded_at(goal, 1.0)[0], HOME + np.array([0.1, 0.0]))
    bench.update(200)
    np.testing.assert_allclose(bench.arm.q, HOME + np.array([0.2, 0.0]))


def test_accelerations_integrate_to_positions():
    goal = reach(waypoints=[point(1, (), (), [0.2, 0.0]), point(2, (), [0.0, 0.0])])
    bench = Bench(rules=GoalRules(allow_integration_in_goal_trajectories=True))
    np.testing.assert_allclose(
        bench.commanded_at(goal, 3.0)[0], HOME + np.array([0.05 + 0.05, 0.0])
    )


def test_velocities_are_commanded_only_to_hardware_that_takes_them():
    goal = reach(q=[1.1, -0.2])
    np.testing.assert_allclose(
        Bench(command_velocities=True).commanded_at(goal, 0.5)[1], [1.0, 0.0]
    )
    np.testing.assert_allclose(Bench().commanded_at(goal, 0.5)[1], [0.0, 0.0])


# --- tolerances: the controller's own, what a goal asks for, and how it ends with an arm that is
# 0.05 rad off
PATH, END = "path", "end"
TOLERANCES = {
    "no tolerance": ({}, {}, Status.SUCCEEDED),
    "path default": ({"trajectory": 0.01}, {}, PATH),
    "path default, wide": ({"trajectory": 0.1}, {}, Status.SUCCEEDED),
    "path of the goal": ({}, {"path_tolerance": {"b": Tolerance(0.01)}}, PATH),
    "path of the goal, wider than the default": (
        {"trajectory": 0.01},
        {"path_tolerance": {n: Tolerance(0.1) for n in NAMES}},
        Status.SUCCEEDED,
    ),
    "path 0 is the default": (
        {"trajectory": 0.01},
        {"path_tolerance": {n: Tolerance(0.0) for n in NAMES}},
        PATH,
    ),
    "path -1 is off": (
        {"trajectory": 0.01},
        {"path_tolerance": {n: Tolerance(-1.0) for n in NAMES}},
        Status.SUCCEEDED,
    ),
    "path -1 for one joint leaves the other": (
        {"trajectory": 0.01},
        {"path_tolerance": {"a": Tolerance(-1.0)}},
        PATH,
    ),
    "goal default": ({"goal": 0.01, "goal_time": 0.5}, {}, END),
    "goal of the goal": ({"goal_time": 0.5}, {"goal_tolerance": {"a": Tolerance(0.01)}}, END),
    "goal -1 is off": (
        {"goal": 0.01, "goal_time": 0.5},
        {"goal_tolerance": {n: Tolerance(-1.0) for n in NAMES}},
        Status.SUCCEEDED,
    ),
    "goal_time 0 waits for ever": ({"goal": 0.01}, {}, Status.EXECUTING),
    "goal_time of the goal": ({"goal": 0.01}, {"goal_time_tolerance": 0.5}, END),
    "goal_time -1 waits for ever": (
        {"goal": 0.01, "goal_time": 0.5},
        {"goal_time_tolerance": -1.0},
        Status.EXECUTING,
    ),
    "a negative limit leaves every default": (
        {"trajectory": 0.1},
        {"path_tolerance": {"a": Tolerance(0.01), "b": Tolerance(-0.5)}},
        Status.SUCCEEDED,
    ),
    "a foreign joint leaves every default": (
        {"trajectory": 0.1, "goal": 0.01, "goal_time": 0.5},
        {
            "path_tolerance": {"a": Tolerance(0.01), "c": Tolerance(0.01)},
            "goal_time_tolerance": -1.0,
        },
        END,
    ),
    "a negative time leaves every default": (
        {"trajectory": 0.1},
        {"path_tolerance": {"a": Tolerance(0.01)}, "goal_time_tolerance": -3.0},
        Status.SUCCEEDED,
    ),
    "a path limit does not hold at the end": (
        {},
        {"path_tolerance": {}, "goal_tolerance": {}},
        Status.SUCCEEDED,
    ),
}
CODES = {PATH: PATH_TOLERANCE_VIOLATED, END: GOAL_TOLERANCE_VIOLATED}


@pytest.mark.parametrize("name", TOLERANCES)
def test_tolerance(name):
    options, asked, ends = TOLERANCES[name]
    bench = Bench(arm=FakeArm(offset=np.array([0.05, 0.05])), **options)
    handle = bench.run(reach(**asked))
    if ends in CODES:
        assert (handle.status, handle.error_code) == (Status.ABORTED, CODES[ends]), (
            handle.error_string
        )
        assert "off by" in handle.error_string
    else:
        assert (handle.status, handle.error_code) == (ends, SUCCESSFUL), handle.error_string
    assert bool(bench.warnings) == ("every default" in name)


def test_goal_tolerance_is_not_asked_for_on_the_way():
    arm = FakeArm(offset=np.array([0.05, 0.05]))
    bench = Bench(arm=arm, goal=0.01, goal_time=1.0)
    handle = bench.controller.accept(reach())
    bench.update(95)
    arm.offset[:] = 0.0  # it catches up just in time
    bench.update(10)
    assert handle.status is Status.SUCCEEDED


def test_path_tolerance_is_not_asked_for_after_the_end():
    arm = FakeArm()
    bench = Bench(arm=arm, trajectory=0.01, goal=0.001, goal_time=1.0)
    handle = bench.controller.accept(reach())
    bench.update(98)
    arm.offset[:] = 0.05
    bench.update(10)
    assert handle.status is Status.EXECUTING
    arm.offset[:] = 0.0
    bench.update(2)
    assert handle.status is Status.SUCCEEDED


def test_goal_time_runs_from_the_end_of_the_trajectory():
    bench = Bench(arm=FakeArm(stuck=[0]), goal=0.01, goal_time=0.5)
    handle = bench.run(reach(seconds=1.0))
    assert handle.error_code == GOAL_TOLERANCE_VIOLATED
    assert bench.now - 100.0 == pytest.approx(1.5, abs=3 * PERIOD)


def test_velocity_tolerances_count_where_velocities_are_commanded():
    for command_velocities, ends in ((True, Status.EXECUTING), (False, Status.SUCCEEDED)):
        arm = FakeArm(stuck=[0, 1], q=np.array([0.3, 0.1]), qd=np.array([0.1, 0.0]))
        bench = Bench(
            arm=arm, stopped_velocity_tolerance=0.01, command_velocities=command_velocities
        )
        assert bench.run(reach()).status is ends


# --- how goals end


def test_a_stuck_joint_aborts_on_the_way_and_the_arm_holds_where_it_is():
    bench = Bench(arm=FakeArm(stuck=[1]), trajectory=0.05)
    handle = bench.run(reach(q=[0.3, 0.8]))
    assert handle.error_code == PATH_TOLERANCE_VIOLATED
    assert "b, off by" in handle.error_string
    at = bench.arm.q.copy()
    bench.update(50)
    np.testing.assert_array_equal(bench.arm.q, at)
    assert 0.1 < at[0] < 0.12


def test_cancel_ends_canceled_with_error_code_zero_and_the_arm_holds():
    bench = Bench()
    handle = bench.controller.accept(reach())
    bench.update(50)
    bench.controller.cancel(handle)
    assert (handle.status, handle.error_code, handle.error_string) == (
        Status.CANCELED,
        SUCCESSFUL,
        "",
    )
    measured = bench.controller._actual
    bench.update(100)
    np.testing.assert_array_equal(bench.arm.q, measured)
    np.testing.assert_array_equal(bench.arm.commands[-1][1], [0, 0])


def test_cancel_of_a_goal_that_has_ended_changes_nothing():
    bench = Bench()
    first = bench.run(reach())
    second = bench.controller.accept(reach(q=[0.5, 0.5]))
    bench.controller.cancel(first)
    assert (first.status, second.status) == (Status.SUCCEEDED, Status.EXECUTING)
    bench.update(150)
    np.testing.assert_allclose(bench.arm.q, [0.5, 0.5])


def test_a_new_goal_preempts_the_old_and_starts_from_the_measured_state():
    bench = Bench()
    old = bench.controller.accept(reach(q=[1.1, -0.2]))
    bench.update(50)
    at = bench.arm.q.copy()
    new = bench.controller.accept(reach(q=[0.1, 0.8]))
    assert (old.status, old.error_code) == (Status.ABORTED, INVALID_GOAL)
    assert "preempted" in old.error_string
    bench.arm.commands.clear()
    bench.update(50)
    np.testing.assert_allclose(bench.arm.commands[-1][0], at + 0.5 * ([0.1, 0.8] - at), atol=1e-9)
    bench.update(60)
    assert new.status is Status.SUCCEEDED


def test_a_rejected_goal_leaves_the_one_under_way_alone():
    bench = Bench()
    handle = bench.controller.accept(reach())
    bench.update(10)
    with pytest.raises(ValueError, match="points"):
        bench.controller.accept(reach(waypoints=[]))
    bench.update(100)
    assert handle.status is Status.SUCCEEDED


def test_interpolate_from_desired_state_starts_from_the_last_command():
    for from_desired, start in ((False, HOME + 0.05), (True, HOME)):
        bench = Bench(
            arm=FakeArm(offset=np.array([0.05, 0.05])), interpolate_from_desired_state=from_desired
        )
        bench.update(2)
        q, _ = bench.commanded_at(reach(q=[1.1, 0.8]), 0.5)
        np.testing.assert_allclose(
            q, (start + np.array([1.1, 0.8])) / 2, atol=0.011 if not from_desired else 1e-9
        )


def test_after_success_the_last_waypoint_is_held_not_what_is_measured():
    bench = Bench(arm=FakeArm(offset=np.array([0.05, 0.05])))
    bench.run(reach(q=[0.3, 0.1]))
    bench.update(10)
    np.testing.assert_allclose(bench.arm.commands[-1][0], [0.3, 0.1])


def test_success_comes_at_the_end_and_not_before():
    bench = Bench()
    bench.run(reach(seconds=1.0))
    assert bench.now - 100.0 == pytest.approx(1.0, abs=2 * PERIOD)


def test_a_hold_is_not_checked():
    bench = Bench(trajectory=0.01, goal=0.01)
    bench.arm.offset[:] = 0.5  # somebody leans on it
    bench.update(5)
    bench.arm.offset[:] = 0.0
    assert bench.run(reach()).status is Status.SUCCEEDED


def test_feedback_tells_desired_actual_error_and_the_next_point():
    bench = Bench(arm=FakeArm(offset=np.array([0.05, 0.0])))
    bench.update()
    handle = bench.controller.accept(reach(waypoints=[point(0.5, HOME), point(1, [0.3, 0.1])]))
    bench.update(71)
    feedback = handle.feedback
    assert feedback.index == 1
    np.testing.assert_allclose(feedback.desired.positions, HOME + 0.4 * ([0.3, 0.1] - HOME))
    np.testing.assert_allclose(feedback.error.positions, [-0.05, 0.0], atol=1e-9)
    np.testing.assert_allclose(
        feedback.actual.positions, feedback.desired.positions - feedback.error.positions
    )


def test_the_motion_is_exact_for_an_arm_that_follows():
    """No update is early or late: the error stays at rounding."""
    bench = Bench()
    handle = bench.controller.accept(
        reach(waypoints=[point(0.37, [0.3, 0.3], [0.5, 0.1]), point(1, [0.3, 0.1], [0, 0])])
    )
    worst = 0.0
    while handle.status is Status.EXECUTING:
        bench.update()
        worst = max(worst, np.abs(handle.feedback.error.positions).max())
    assert worst < 1e-9


def test_bad_options_are_named():
    with pytest.raises(ValueError, match=r"ControllerOptions\.goal_time"):
        ControllerOptions(goal_time=-1.0)
