"""The rules of execution, one by one, on a clock and a robot that are made up."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from flowplan_ros.execution import (
    ArmStep,
    Code,
    ExecutionEnded,
    ExecutionOptions,
    ExecutionRequest,
    Goal,
    GoalState,
    GripperStep,
    check_digest,
    check_fingers,
    check_hand,
    effective_scaling,
    execute,
    steps,
)

from flowplan.trajectory import Trajectory

JOINTS = ("a", "b")
OPTIONS = ExecutionOptions(confirm=False)
DT = 0.02


def smooth(start, end, seconds, dt=0.01):
    """A minimum-jerk motion of both joints, with its derivatives."""
    n = round(seconds / dt) + 1
    s = np.linspace(0, 1, n)[:, None]
    span = np.subtract(end, start)
    return (
        start + span * (10 * s**3 - 15 * s**4 + 6 * s**5),
        span * (30 * s**2 - 60 * s**3 + 30 * s**4) / seconds,
        span * (60 * s - 180 * s**2 + 120 * s**3) / seconds**2,
    )


def trajectory(open_width=0.06, closed=0.0):
    """Reach for 1 s, close, carry for 2 s, open, retreat for 1 s."""
    corners = [np.array(q) for q in ((0.0, 0.0), (0.5, -0.2), (1.0, 0.3), (0.8, 0.0))]
    still = (np.zeros((50, 2)),) * 2
    q1, q2, q3 = (
        smooth(a, b, d) for a, b, d in zip(corners[:-1], corners[1:], (1.0, 2.0, 1.0), strict=True)
    )
    pieces = (
        q1,
        (np.zeros((50, 2)) + corners[1], *still),
        q2,
        (np.zeros((50, 2)) + corners[2], *still),
        q3,
    )
    lengths = [len(p[0]) for p in pieces]
    ends = (
        (open_width,) * 2,
        (open_width, closed),
        (closed,) * 2,
        (closed, open_width),
        (open_width,) * 2,
    )
    total = sum(lengths)
    return Trajectory(
        JOINTS,
        0.01 * np.arange(total),
        *(np.concatenate([p[i] for p in pieces]) for i in range(3)),
        grip=np.concatenate([np.linspace(*e, n) for e, n in zip(ends, lengths, strict=True)]),
        phase=np.repeat(np.arange(5), lengths),
        position_error=np.zeros(total),
        rotation_error=np.zeros(total),
        clearance=np.zeros(total),
    )


ORDER = ExecutionRequest(trajectory(), holds=True, stamp=100.0)


@dataclass
class Robot:
    """A made-up robot: it moves on time, and its fingers meet something 30 mm thick; faults are
    switched on by name."""

    time: float = 0.0
    born: float = 110.0  # date at time 0
    q: np.ndarray = field(default_factory=lambda: np.zeros(2))
    thickness: float = 0.03
    fault: str = ""
    fault_phase: int = 2
    stop_at: float = np.inf
    says: bool | None = True
    gone: tuple[str, ...] = ()
    sent: list = field(default_factory=list)
    canceled: list = field(default_factory=list)
    reports: list = field(default_factory=list)
    shown: list = field(default_factory=list)
    poses: list = field(default_factory=list)
    asked: list = field(default_factory=list)
    jobs: list = field(default_factory=list)

    def now(self):
        return self.time

    def date(self):
        return self.born + self.time

    def tick(self):
        return Once()

    def stopped(self):
        return self.time >= self.stop_at

    def measured(self):
        if self.fault == "never a joint state":
            return None
        lost = self.fault == "joint states stop" and self.sent and self.phase() == self.fault_phase
        self.silence = getattr(self, "silence", 0.0) + DT if lost else 0.0
        return self.silence, self.q

    def phase(self):
        return self.sent[-1].phase if self.sent else -1

    def missing(self):
        return self.gone

    def ask(self, question):
        self.asked.append(question)

    def answer(self):
        return self.says

    def move(self, motion):
        return self.begin(motion)

    def close(self, fingers):
        return self.begin(fingers)

    def begin(self, step):
        goal = Goal()
        self.sent.append(step)
        self.jobs.append((goal, step, self.time))
        return goal

    def cancel(self, goal):
        self.canceled.append(goal)

    def show(self, trajectory):
        self.shown.append(trajectory)

    def pose(self, q, opening):
        self.poses.append((self.time, q, opening))

    def report(self, progress, status, phase, error):
        self.reports.append((progress, status, phase, error))

    def advance(self):
        """What happens in the world between two ticks."""
        self.time += DT
        for goal, step, begun in self.jobs:
            if goal.state.ended:
                continue
            fault = self.fault if step.phase == self.fault_phase else ""
            elapsed = self.time - begun
            if fault == "does not answer":
                continue
            if fault == "rejects":
                goal.state, goal.message = GoalState.REJECTED, "not now"
                continue
            goal.state = GoalState.RUNNING
            if goal in self.canceled:
                if fault != "deaf":
                    goal.state = GoalState.CANCELED
                continue
            if fault == "somebody else" and elapsed > 0.1:
                goal.state = GoalState.CANCELED
            elif isinstance(step, ArmStep):
                self.moving(goal, step, elapsed, fault)
            else:
                self.gripping(goal, step, elapsed, fault)

    def moving(self, goal, step, elapsed, fault):
        if fault == "feedback stops" and elapsed > 0.5:
            return
        goal.heard = self.time
        if fault == "aborts" and elapsed > 0.5:
            goal.state, goal.message = GoalState.ABORTED, "path tolerance of joint a"
            return
        if fault in ("stuck", "deaf") and elapsed > 0.5:
            return
        slow = 1.08 if fault == "a little late" else 1.0
        i = np.searchsorted(step.times, elapsed / slow)
        goal.error = 0.001
        self.q = step.q[min(i, len(step.q) - 1)] + (0.02 if fault == "misses" else 0.0)
        if elapsed >= slow * step.times[-1]:
            goal.state = GoalState.SUCCEEDED

    def gripping(self, goal, step, elapsed, fault):
        if fault == "stuck" and step.holding:
            return
        if elapsed > (1.0 if fault == "joint states stop" else 0.3):
            closing = step.holding
            goal.opening = max(step.opening, self.thickness) if closing else step.opening
            goal.gripped = True
            goal.state = GoalState.SUCCEEDED
            if fault == "stalls into an abort":
                goal.state = GoalState.ABORTED
            if fault == "nothing there":
                goal.opening = 0.0004
            if fault == "gives up":
                goal.state, goal.gripped = GoalState.ABORTED, False
            if fault == "half open":
                goal.opening = 0.5 * step.opening


class Once:
    """An awaitable that gives the world one turn."""

    def __await__(self):
        yield


def drive(order=ORDER, robot=None, options=OPTIONS, limit=120.0):
    """Run an execution to its end and return its outcome and the robot."""
    robot = robot or Robot()
    coroutine = execute(order, robot, options)
    while robot.time < limit:
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value, robot
        robot.advance()
    raise AssertionError(f"still running after {limit} s")


def test_a_plan_is_executed_step_by_step():
    outcome, robot = drive()
    assert outcome.code is Code.SUCCESS, outcome
    kinds = [(type(s).__name__, s.phase) for s in robot.sent]
    assert kinds == [
        ("GripperStep", 0),
        ("ArmStep", 0),
        ("GripperStep", 1),
        ("ArmStep", 2),
        ("GripperStep", 3),
        ("ArmStep", 4),
    ]
    assert [s.opening for s in robot.sent if isinstance(s, GripperStep)] == [0.06, 0.0, 0.06]
    assert [s.holding for s in robot.sent if isinstance(s, GripperStep)] == [False, True, False]
    progress = [r[0] for r in robot.reports]
    assert progress == sorted(progress)
    assert 0.9 < progress[-1] <= 1
    assert outcome.max_error == 0.001
    assert 4.0 < outcome.duration < 7.0
    assert not robot.canceled


def test_a_push_asks_nothing_of_the_fingers():
    outcome, robot = drive(replace(ORDER, trajectory=trajectory(0.0), holds=False))
    assert outcome.code is Code.SUCCESS
    assert [(type(s).__name__, s.phase) for s in robot.sent] == [
        ("GripperStep", 0),
        ("ArmStep", 0),
        ("ArmStep", 2),
        ("ArmStep", 4),
    ]


def test_motions_begin_after_the_lead_in_and_end_at_rest():
    creeping = ORDER.trajectory.qd.copy()
    creeping[[0, -1]] = 5e-4  # a controller rejects a last velocity that is not zero
    order = replace(ORDER, trajectory=replace(ORDER.trajectory, qd=creeping))
    moves = [s for s in steps(order, 1.0, 0.2) if isinstance(s, ArmStep)]
    for motion, phase in zip(moves, (0, 2, 4), strict=True):
        chosen = ORDER.trajectory.phase == phase
        assert motion.times[0] == pytest.approx(0.2)
        assert np.all(np.diff(motion.times) > 0)
        np.testing.assert_array_equal(motion.q, ORDER.trajectory.q[chosen])
        assert not motion.qd[0].any()
        assert not motion.qd[-1].any()


def test_slower_is_the_same_path_over_more_time():
    whole, half = ([s for s in steps(ORDER, k, 0.0) if isinstance(s, ArmStep)] for k in (1.0, 0.5))
    for a, b in zip(whole, half, strict=True):
        np.testing.assert_allclose(b.times, 2 * a.times)
        np.testing.assert_array_equal(b.q, a.q)
        np.testing.assert_allclose(b.qd, a.qd / 2)
        np.testing.assert_allclose(b.qdd, a.qdd / 4)
        # The stated velocity is that of the positions.
        np.testing.assert_allclose(np.gradient(b.q, b.times, axis=0)[2:-2], b.qd[2:-2], atol=2e-3)


@pytest.mark.parametrize(
    ("asked", "allowed", "used"), [(0, 1, 1), (0, 0.2, 0.2), (0.1, 0.2, 0.1), (1, 0.2, 0.2)]
)
def test_a_goal_may_slow_down_and_not_speed_up(asked, allowed, used):
    assert effective_scaling(asked, allowed) == used


@pytest.mark.parametrize("asked", [-0.1, 1.5, float("nan")])
def test_a_scaling_out_of_range_is_refused(asked):
    outcome, robot = drive(replace(ORDER, velocity_scaling=asked))
    assert outcome.code is Code.BAD_GOAL
    assert "velocity_scaling" in outcome.message
    assert not robot.sent


REFUSED = {
    "old": (dict(stamp=-20.0), {}, Code.STALE, "130.0 s old"),
    "from the future": (dict(stamp=115.0), {}, Code.STALE, "in the future"),
    "no joint states": ({}, dict(fault="never a joint state"), Code.NO_STATE, "a, b"),
    "elsewhere": ({}, dict(q=np.array([0.0, 0.011])), Code.WRONG_START, "b is at 0.0110"),
    "no gripper": (
        {},
        dict(gone=("panda_gripper/gripper_cmd",)),
        Code.NO_CONTROLLER,
        "panda_gripper/gripper_cmd",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_is_refused_before_anything_moves(case, dry_run):
    changes, faults, code, says = REFUSED[case]
    outcome, robot = drive(replace(ORDER, dry_run=dry_run, **changes), Robot(**faults))
    assert outcome.code is code, outcome
    assert says in outcome.message
    assert not robot.sent
    assert outcome.duration == 0


@pytest.mark.parametrize(("stated", "says"), [("", "missing"), ("00", "not that of the plan")])
def test_a_plan_without_its_own_digest_is_not_certified(stated, says):
    with pytest.raises(ExecutionEnded, match=says) as ended:
        check_digest(stated, "a5")
    assert ended.value.code is Code.NOT_CERTIFIED
    check_digest("a5", "a5")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("velocity_scaling", 1.1),
        ("velocity_scaling", 0.0),
        ("watchdog_factor", 0.9),
        ("lead_in", -1.0),
    ],
)
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        replace(OPTIONS, **{name: value})


def test_a_small_offset_at_the_start_is_allowed():
    assert drive(robot=Robot(q=np.array([0.009, -0.009])))[0].code is Code.SUCCESS


def test_old_joint_states_are_none():
    robot = Robot()
    robot.measured = lambda: (0.6, robot.q)
    assert drive(robot=robot)[0].code is Code.NO_STATE


NAN, INF = float("nan"), float("inf")
UNKNOWN_STATES = {
    "age NaN": (NAN, [0.0, 0.0]),
    "age infinite": (INF, [0.0, 0.0]),
    "age negative": (-0.1, [0.0, 0.0]),
    "age minus infinite": (-INF, [0.0, 0.0]),
    "all joints NaN": (0.0, [NAN, NAN]),
    "one joint NaN": (0.0, [0.0, NAN]),
    "one joint infinite": (0.0, [-INF, 0.0]),
    "NaN hides a joint that is elsewhere": (0.0, [NAN, 1.0]),
}


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("case", UNKNOWN_STATES)
def test_a_state_that_is_not_known_starts_nothing(case, dry_run):
    age, q = UNKNOWN_STATES[case]
    robot = Robot()
    robot.measured = lambda: (age, np.array(q))
    outcome, robot = drive(replace(ORDER, dry_run=dry_run), robot)
    assert outcome.code is Code.NO_STATE, outcome
    assert not robot.sent


@pytest.mark.parametrize("phase", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("case", UNKNOWN_STATES)
def test_a_state_that_becomes_unknown_stops_the_motion(case, phase):
    age, q = UNKNOWN_STATES[case]

    class Blinded(Robot):
        def measured(self):
            known = super().measured()
            return (age, np.array(q)) if self.phase() == phase else known

    outcome, robot = drive(robot=Blinded())
    assert outcome.code is Code.FEEDBACK_LOST, outcome
    assert robot.canceled
    assert max(step.phase for step in robot.sent) == phase


@pytest.mark.parametrize("steps_done", range(1, 7))
@pytest.mark.parametrize("case", UNKNOWN_STATES)
def test_a_state_that_is_unknown_between_two_steps_starts_nothing(case, steps_done):
    """Also after the last step: success is claimed of a robot that is where it should be."""
    age, q = UNKNOWN_STATES[case]

    class Blinded(Robot):
        def measured(self):
            ended = sum(goal.state.ended for goal, _, _ in self.jobs)
            return (age, np.array(q)) if ended == steps_done else super().measured()

    outcome, robot = drive(robot=Blinded())
    last = steps_done == 6
    assert outcome.code is (Code.FEEDBACK_LOST if last else Code.NO_STATE), outcome
    assert len(robot.sent) == steps_done
    assert not robot.canceled


@pytest.mark.parametrize("case", UNKNOWN_STATES)
def test_a_state_that_becomes_unknown_while_nobody_confirms_starts_nothing(case):
    age, q = UNKNOWN_STATES[case]

    class Blinded(Robot):
        def answer(self):
            self.measured = lambda: (age, np.array(q))
            return True

    outcome, robot = drive(robot=Blinded(), options=ExecutionOptions(confirm=True))
    assert outcome.code is Code.NO_STATE, outcome
    assert not robot.sent


@pytest.mark.parametrize("date", [NAN, INF, -INF, 90.0])
def test_a_clock_without_a_date_starts_nothing(date):
    robot = Robot()
    robot.date = lambda: date
    outcome, robot = drive(robot=robot)
    assert outcome.code is Code.STALE, outcome
    assert not robot.sent


@pytest.mark.parametrize("heard", [NAN, INF, 1e9])
def test_feedback_that_was_heard_at_no_time_stops_the_motion(heard):
    class Odd(Robot):
        def moving(self, goal, step, elapsed, fault):
            super().moving(goal, step, elapsed, fault)
            goal.heard = heard

    outcome, robot = drive(robot=Odd())
    assert outcome.code is Code.FEEDBACK_LOST, outcome
    assert robot.canceled
    assert [type(step).__name__ for step in robot.sent] == ["GripperStep", "ArmStep"]


@pytest.mark.parametrize("jump", [NAN, INF, -INF, -100.0, 100.0])
@pytest.mark.parametrize("phase", [0, 1, 2, 3, 4])
def test_a_clock_that_jumps_stops_the_motion(jump, phase):
    class Jumping(Robot):
        def now(self):
            moving = self.jobs and self.time - self.jobs[-1][2] > 0.1 and self.phase() == phase
            return self.time + jump if moving else self.time

    outcome, robot = drive(robot=Jumping())
    assert outcome.code is not Code.SUCCESS
    assert robot.canceled
    assert max(step.phase for step in robot.sent) == phase


@pytest.mark.parametrize("stamp", [NAN, INF, -INF])
def test_a_plan_without_a_date_is_stale(stamp):
    outcome, robot = drive(replace(ORDER, stamp=stamp))
    assert outcome.code is Code.STALE, outcome
    assert not robot.sent


@pytest.mark.parametrize("opening", [NAN, INF, -INF])
@pytest.mark.parametrize("holding", [True, False])
def test_fingers_without_a_finite_opening_hold_nothing(opening, holding):
    goal = Goal(state=GoalState.SUCCEEDED, opening=opening, gripped=True)
    with pytest.raises(ExecutionEnded, match="no finite opening") as ended:
        check_fingers(GripperStep(1, 0.0, holding), goal, OPTIONS)
    assert ended.value.code is Code.GRIPPER_FAILED


@pytest.mark.parametrize(("opening", "good"), [(0.065, True), (0.066, False), (1e9, False)])
def test_fingers_that_closed_are_not_wider_than_before(opening, good):
    goal = Goal(state=GoalState.SUCCEEDED, opening=opening, gripped=True)
    step = GripperStep(1, 0.0, holding=True, before=0.06)
    if good:
        check_fingers(step, goal, OPTIONS)
        return
    with pytest.raises(ExecutionEnded, match="grip: the fingers closed from 60.0 mm") as ended:
        check_fingers(step, goal, OPTIONS)
    assert ended.value.code is Code.GRIPPER_FAILED


def test_steps_know_the_opening_before_them():
    fingers = [s for s in steps(ORDER, 1.0, 0.2) if isinstance(s, GripperStep)]
    assert [s.before for s in fingers] == [INF, 0.06, 0.0]


@pytest.mark.parametrize("error", [NAN, INF])
def test_an_error_in_the_last_feedback_counts_too(error):
    class Unsure(Robot):
        def moving(self, goal, step, elapsed, fault):
            super().moving(goal, step, elapsed, fault)
            if goal.state is GoalState.SUCCEEDED and step.phase == 4:
                goal.error = error

    outcome, robot = drive(robot=Unsure())
    assert outcome.code is Code.FEEDBACK_LOST, outcome
    assert outcome.message == "retreat: the tracking error is not finite"


@pytest.mark.parametrize("error", [NAN, INF])
def test_a_tracking_error_that_is_not_finite_stops_the_motion(error):
    class Unsure(Robot):
        def moving(self, goal, step, elapsed, fault):
            super().moving(goal, step, elapsed, fault)
            goal.error = error

    outcome, robot = drive(robot=Unsure())
    assert outcome.code is Code.FEEDBACK_LOST, outcome
    assert robot.canceled


# What goes wrong on the way: (fault, phase, code, words, whether the goal was canceled).
ON_THE_WAY = [
    ("stuck", 2, Code.WATCHDOG, "not done after 2.", True),
    ("aborts", 0, Code.MOTION_ABORTED, "path tolerance of joint a", False),
    ("rejects", 4, Code.GOAL_REJECTED, "not now", False),
    ("does not answer", 0, Code.NO_CONTROLLER, "did not answer", True),
    ("feedback stops", 2, Code.FEEDBACK_LOST, "no feedback", True),
    ("joint states stop", 2, Code.FEEDBACK_LOST, "no joint states", True),
    ("joint states stop", 1, Code.FEEDBACK_LOST, "no joint states", True),
    ("somebody else", 2, Code.MOTION_ABORTED, "somebody else", False),
    ("deaf", 2, Code.WATCHDOG, "does not say that it stopped", True),
    ("misses", 0, Code.WRONG_START, "manipulate: a is at", False),
    ("nothing there", 1, Code.GRIPPER_FAILED, "closed on nothing: 0.4 mm", False),
    ("gives up", 1, Code.GRIPPER_FAILED, "neither arrived nor met", False),
    ("half open", 3, Code.GRIPPER_FAILED, "should be 60.0 mm apart and are 30.0 mm", False),
    ("stuck", 1, Code.GRIPPER_FAILED, "not done after 5.", True),
    ("rejects", 1, Code.GOAL_REJECTED, "rejected", False),
    ("does not answer", 3, Code.NO_CONTROLLER, "did not answer", True),
    ("somebody else", 1, Code.GRIPPER_FAILED, "somebody else", False),
]


@pytest.mark.parametrize(("fault", "phase", "code", "says", "canceled"), ON_THE_WAY)
def test_what_ends_an_execution(fault, phase, code, says, canceled):
    outcome, robot = drive(robot=Robot(fault=fault, fault_phase=phase))
    assert outcome.code is code, outcome
    assert says in outcome.message
    assert bool(robot.canceled) is canceled
    after = [s for s in robot.sent if s.phase > phase and fault != "misses"]
    assert not after, "something moved after the failure"


def test_a_motion_that_is_a_little_late_is_not_stopped():
    assert drive(robot=Robot(fault="a little late"))[0].code is Code.SUCCESS


def test_fingers_that_stall_into_an_abort_hold_what_they_met():
    # GripperActionController aborts a goal that stalled unless its allow_stalling is set.
    assert drive(robot=Robot(fault="stalls into an abort", fault_phase=1))[0].code is Code.SUCCESS


def test_cloth_may_be_as_thin_as_it_likes():
    thin = Robot(thickness=0.0005)
    assert drive(robot=thin)[0].code is Code.GRIPPER_FAILED
    assert (
        drive(robot=Robot(thickness=0.0005), options=replace(OPTIONS, min_grasp=0.0))[0].code
        is Code.SUCCESS
    )


@pytest.mark.parametrize("when", np.arange(0.05, 7.0, 0.35).round(2))
def test_cancel_at_any_time(when):
    outcome, robot = drive(robot=Robot(stop_at=when))
    if outcome.code is Code.SUCCESS:
        assert robot.time <= when
        return
    assert outcome.code is Code.CANCELED, outcome
    assert robot.time - when <= 0.1, "took longer than 100 ms"
    assert all(goal.state.ended for goal, _, _ in robot.jobs)


def test_the_watchdog_waits_as_long_as_it_should():
    outcome, robot = drive(robot=Robot(fault="stuck", fault_phase=0))
    begun = next(b for _, s, b in robot.jobs if isinstance(s, ArmStep))
    assert robot.time - begun == pytest.approx(1.1 * 1.2 + 0.5, abs=0.1)  # 1 s and the lead-in


def test_a_dry_run_shows_everything_and_moves_nothing():
    outcome, robot = drive(replace(ORDER, dry_run=True))
    assert outcome.code is Code.SUCCESS
    assert not robot.sent
    assert not robot.asked
    assert robot.shown == [ORDER.trajectory]
    assert robot.time == pytest.approx(ORDER.trajectory.times[-1], abs=0.1)
    np.testing.assert_allclose(robot.poses[-1][1], ORDER.trajectory.q[-1], atol=1e-9)
    assert drive(replace(ORDER, dry_run=True), Robot(stop_at=1.0))[0].code is Code.CANCELED


def test_a_goal_cannot_switch_off_the_nodes_dry_run():
    outcome, robot = drive(replace(ORDER, dry_run=False), options=replace(OPTIONS, dry_run=True))
    assert outcome.code is Code.SUCCESS
    assert not robot.sent


def shortened(whole, phase=2):
    """A trajectory up to the end of a phase."""
    kept = whole.phase <= phase
    names = ("times", "q", "qd", "qdd", "grip", "position_error", "rotation_error", "clearance")
    columns = {name: getattr(whole, name)[kept] for name in (*names, "phase")}
    return Trajectory(JOINTS, **columns)


HELD = replace(ORDER, trajectory=shortened(ORDER.trajectory), released=False)


def test_a_plan_that_ends_holding_does_not_open():
    outcome, robot = drive(HELD)
    assert outcome.code is Code.SUCCESS, outcome
    assert "ends holding" in outcome.message
    assert outcome.holding
    assert [s.phase for s in robot.sent] == [0, 0, 1, 2]
    assert robot.sent[-2].opening == 0.0
    released, _ = drive()
    assert not released.holding
    assert "holding" not in released.message
    # A push holds nothing.
    push = replace(HELD, trajectory=shortened(trajectory(0.0)), holds=False)
    assert not drive(push)[0].holding


@pytest.mark.parametrize("released", [True, False])
def test_a_plan_that_does_not_end_as_it_says_is_refused(released):
    whole = ORDER.trajectory if not released else HELD.trajectory
    outcome, robot = drive(replace(ORDER, trajectory=whole, released=released))
    assert outcome.code is Code.BAD_GOAL
    assert outcome.message.startswith("plan.released: ")
    assert not robot.sent
    let_go = replace(ORDER, trajectory=shortened(ORDER.trajectory, 3))
    assert drive(let_go)[0].code is Code.SUCCESS  # released, and no retreat


@pytest.mark.parametrize(
    ("fault", "phase", "holding"),
    [
        ("stuck", 0, False),
        ("nothing there", 1, False),
        ("rejects", 1, False),
        ("gives up", 1, True),
        ("stuck", 1, True),
        ("stuck", 2, True),
        ("half open", 3, True),
        ("rejects", 3, True),
        ("stuck", 4, False),
    ],
)
def test_the_end_of_an_execution_tells_what_the_hand_may_hold(fault, phase, holding):
    outcome, _ = drive(robot=Robot(fault=fault, fault_phase=phase))
    assert outcome.code is not Code.SUCCESS
    assert outcome.holding is holding
    assert not drive(replace(ORDER, dry_run=True))[0].holding


def test_a_full_hand_begins_no_plan():
    check_hand(False)
    with pytest.raises(ExecutionEnded, match="hand_is_empty") as ended:
        check_hand(True)
    assert ended.value.code is Code.HAND_FULL


CONFIRM = ExecutionOptions(confirm=True)


def test_nothing_moves_before_a_person_says_so():
    outcome, robot = drive(robot=Robot(says=None), options=CONFIRM)
    assert outcome.code is Code.NOT_CONFIRMED
    assert robot.time == pytest.approx(60.0, abs=0.1)
    assert not robot.sent
    assert len(robot.asked) == 1
    assert drive(robot=Robot(says=True), options=CONFIRM)[0].code is Code.SUCCESS
    outcome, robot = drive(robot=Robot(says=False), options=CONFIRM)
    assert (outcome.code, robot.sent) == (Code.NOT_CONFIRMED, [])
    assert drive(robot=Robot(says=None, stop_at=1.0), options=CONFIRM)[0].code is Code.CANCELED


def test_a_plan_that_grows_old_while_nobody_confirms_is_stale():
    class Slow(Robot):
        def answer(self):
            return True if self.time > 50 else None

    outcome, robot = drive(replace(ORDER, stamp=20.0), Slow(), CONFIRM)
    assert (outcome.code, robot.sent) == (Code.STALE, [])


def test_a_robot_that_is_pushed_while_nobody_confirms_does_not_start():
    class Pushed(Robot):
        def answer(self):
            self.q = np.array([0.1, 0.0])
            return True

    outcome, robot = drive(robot=Pushed(), options=CONFIRM)
    assert outcome.code is Code.WRONG_START
    assert not any(isinstance(s, ArmStep) for s in robot.sent)


def test_plans_that_do_not_fit_one_controller_at_a_time_are_refused():
    moving = trajectory()
    grip = moving.grip.copy()
    grip[moving.phase == 2] = np.linspace(0, 0.02, (moving.phase == 2).sum())
    with pytest.raises(ExecutionEnded, match="fingers move in the manipulate phase"):
        steps(replace(ORDER, trajectory=replace(moving, grip=grip)), 1.0, 0.2)
    qd = moving.qd.copy()
    qd[np.flatnonzero(moving.phase == 0)[-1]] = 0.1
    with pytest.raises(ExecutionEnded, match="approach phase begins or ends at 0.1 rad/s"):
        steps(replace(ORDER, trajectory=replace(moving, qd=qd)), 1.0, 0.2)


def test_codes_are_those_of_the_message():
    ErrorCode = pytest.importorskip("flowplan_msgs.msg").ErrorCode
    assert {code.name: int(code) for code in Code} == {
        code.name: getattr(ErrorCode, code.name) for code in Code
    }


@pytest.mark.parametrize("late", [0.5, 0.9])
def test_a_controller_may_take_its_time_to_answer(late):
    class Late(Robot):
        def begin(self, step):
            goal = super().begin(step)
            self.jobs[-1] = (goal, step, self.time + late)
            return goal

        def advance(self):
            super().advance()
            for goal, _, begun in self.jobs:
                if self.time < begun:
                    goal.state = GoalState.SENT

    outcome, robot = drive(robot=Late())
    assert outcome.code is Code.SUCCESS, outcome
    assert not robot.canceled


def test_a_controller_that_never_answers_is_given_a_second():
    outcome, robot = drive(robot=Robot(time=30.0, fault="does not answer", fault_phase=0))
    assert outcome.code is Code.NO_CONTROLLER
    # A second to answer, and another to stop.
    assert robot.time - 30.0 == pytest.approx(2.0, abs=0.1)
    assert outcome.duration == pytest.approx(2.0, abs=0.1)


def test_a_dry_run_reports_its_progress():
    _, robot = drive(replace(ORDER, dry_run=True, velocity_scaling=0.5))
    progress = [report[0] for report in robot.reports]
    assert progress == sorted(progress)
    assert progress[0] < 0.05
    assert progress[-1] == pytest.approx(1.0)
    assert {report[2] for report in robot.reports} == {0, 1, 2, 3, 4}
    assert robot.time == pytest.approx(2 * ORDER.trajectory.times[-1], abs=0.1)


def test_the_question_tells_the_duration_and_waits_from_when_it_was_asked():
    outcome, robot = drive(robot=Robot(time=25.0, says=None), options=CONFIRM)
    assert outcome.code is Code.NOT_CONFIRMED
    assert robot.time - 25.0 == pytest.approx(60.0, abs=0.1)
    duration = ORDER.trajectory.times[-1]
    assert robot.asked == [f"Execute a plan of {duration:.1f} s? Is the workspace clear?"]


def test_an_ending_that_is_not_so_is_told():
    let_go = drive(replace(HELD, released=True))[0].message
    assert let_go == ("plan.released: the plan lets go, and its trajectory ends with manipulate")
    held = drive(replace(ORDER, released=False))[0].message
    assert held == "plan.released: the plan ends holding, and its trajectory ends with retreat"


@pytest.mark.parametrize(("ahead", "good"), [(-0.5, True), (0.0, True), (0.9, True), (1.2, False)])
def test_a_plan_may_be_young_and_clocks_a_second_apart(ahead, good):
    outcome, robot = drive(replace(ORDER, stamp=Robot().date() + ahead))
    if good:
        assert outcome.code is Code.SUCCESS, outcome
        return
    assert outcome.code is Code.STALE
    assert outcome.message.startswith("the plan is stamped 1.2 s in the future")
    assert not robot.sent


def test_times_in_messages_are_those_that_were_measured():
    outcome, _ = drive(robot=Robot(time=40.0))
    assert outcome.message == f"done in {outcome.duration:.1f} s"
    robot = Robot()
    robot.measured = lambda: (-0.25, robot.q)
    message = drive(robot=robot)[0].message
    assert message.startswith("the joint states are stamped 0.25 s in the future")


def test_a_slow_dry_run_shows_the_plan_at_its_pace():
    _, robot = drive(replace(ORDER, dry_run=True, velocity_scaling=0.5))
    for when, q, _ in robot.poses:
        np.testing.assert_allclose(q, ORDER.trajectory.at(when / 2), atol=1e-9)
