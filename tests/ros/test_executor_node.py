"""The executor's node against controllers that go wrong in every way they can, over real DDS."""

import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from fake_controllers import WRONG_POSITIONS, WRONG_STATES
from flowplan_msgs.action import ExecutePlan
from flowplan_msgs.msg import CertifiedPlan, ErrorCode, Grasps, ObjectFlow
from flowplan_ros.conversions import flow_to_msg, trajectory_to_msg
from flowplan_ros.digest import digest
from flowplan_ros.points import buffer
from flowplan_ros.server import LATCHED
from geometry_msgs.msg import Pose
from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from std_msgs.msg import Header, String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from flowplan.motion import ObjectFlow as ObjectFlowRecord
from flowplan.robot import load_robot
from flowplan.trajectory import Trajectory

PANDA = load_robot("panda")
SHIFTS = (
    np.zeros(7),
    np.array([0.1, 0, 0, 0.1, 0, 0, 0]),
    np.array([0.2, 0, 0, 0.1, 0, 0, 0.1]),
    np.zeros(7),
)
WIDE = 0.06


def trajectory():
    """Reach, close, carry, open, retreat: 0.4 s each way."""
    n, pieces = 41, []
    s = np.linspace(0, 1, n)[:, None]
    T = 0.4
    for a, b in pairwise(SHIFTS):
        span = b - a
        pieces.append(
            (
                PANDA.home + a + span * (10 * s**3 - 15 * s**4 + 6 * s**5),
                span * (30 * s**2 - 60 * s**3 + 30 * s**4) / T,
                span * (60 * s - 180 * s**2 + 120 * s**3) / T**2,
            )
        )
    rests = [
        (np.tile(PANDA.home + shift, (5, 1)), np.zeros((5, 7)), np.zeros((5, 7)))
        for shift in SHIFTS[1:3]
    ]
    order = [pieces[0], rests[0], pieces[1], rests[1], pieces[2]]
    lengths = [len(piece[0]) for piece in order]
    ends = ((WIDE, WIDE), (WIDE, 0.0), (0.0, 0.0), (0.0, WIDE), (WIDE, WIDE))
    total = sum(lengths)
    return Trajectory(
        PANDA.joint_names,
        0.01 * np.arange(total),
        *(np.concatenate([piece[i] for piece in order]) for i in range(3)),
        grip=np.concatenate([np.linspace(*e, k) for e, k in zip(ends, lengths, strict=True)]),
        phase=np.repeat(np.arange(5), lengths),
        position_error=np.zeros(total),
        rotation_error=np.zeros(total),
        clearance=np.ones(total),
    )


TRAJECTORY = trajectory()


def plan(ros, **changes):
    """A plan certified now, with fields changed before it is sealed."""
    header = Header(stamp=ros.node.get_clock().now().to_msg(), frame_id="world")
    message = CertifiedPlan(
        header=header, robot="panda", trajectory=trajectory_to_msg(TRAJECTORY), released=True
    )
    for name in ("grip", "position_error", "rotation_error", "clearance"):
        setattr(message, name, buffer("d", getattr(TRAJECTORY, name)))
    message.phase = buffer("B", TRAJECTORY.phase)
    grasp = Grasps(
        header=header, tool_poses=[Pose()], widths=[WIDE], scores=[1.0], kinds=[Grasps.GRASP]
    )
    message.grasp = changes.pop("grasp", grasp)
    for name, value in changes.items():
        setattr(message, name, value)
    message.digest = digest(message)
    return message


def start_controllers(ros, **parameters):
    values = {"joints": list(PANDA.joint_names), "start": PANDA.home.tolist(), **parameters}
    words = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
    script = str(Path(__file__).with_name("fake_controllers.py"))
    return ros.spawn([sys.executable, script, "--ros-args", *words], "fake_controllers")


def bring_up(ros, **parameters):
    start_controllers(ros)
    ros.start("executor_node", {"confirm": False, **parameters})
    ros.activate("executor_node")
    ros.wait_for(lambda: ros.node.get_publishers_info_by_topic("joint_states"), what="joint states")
    # Discovery is pairwise: this node sees the controllers before the executor does.
    ros.wait_for(lambda: execute(ros, plan(ros), dry_run=True)[1].error_code == 0, what="a dry run")


def execute(ros, message, **fields):
    """Status, result and feedback of one goal."""
    seen = []
    handle = ros.send_goal(
        ExecutePlan, "execute_plan", ExecutePlan.Goal(plan=message, **fields), seen.append
    )
    return *ros.result(handle), seen


def go_wrong(ros, fault, at=0):
    values = (
        ("fault", ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=fault)),
        ("at", ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=at)),
    )
    request = SetParameters.Request(
        parameters=[ParameterMsg(name=name, value=value) for name, value in values]
    )
    answer = ros.call(SetParameters, "fake_controllers/set_parameters", request)
    assert all(r.successful for r in answer.results)
    assert ros.call(Trigger, "executor_node/hand_is_empty").success


def execute_with(ros, fault, at):
    """Status and result of a goal from the start, where the arm is put back to; the executor may
    have to learn of it."""
    go_wrong(ros, fault, at)
    not_yet = (ErrorCode.WRONG_START, ErrorCode.NO_STATE)
    ends = []

    def ended():
        ends.append(execute(ros, plan(ros))[:2])
        return ends[-1][1].error_code not in not_yet

    ros.wait_for(ended, what=f"an end by {fault}")
    return ends[-1]


def back_to_start(ros):
    """No fault, and the executor knows that the arm is back."""
    go_wrong(ros, "")

    def known():
        status, result, _ = execute(ros, plan(ros), dry_run=True)
        return result.error_code == ErrorCode.SUCCESS

    ros.wait_for(known, what="the arm back at the start")


def test_a_plan_is_executed_and_shown(ros):
    bring_up(ros)
    status, result, seen = execute(ros, plan(ros))
    assert (status, result.error_code) == (GoalStatus.STATUS_SUCCEEDED, ErrorCode.SUCCESS), (
        result.error_msg
    )
    final = dict(zip(result.final_state.name, result.final_state.position, strict=True))
    np.testing.assert_allclose([final[j] for j in PANDA.joint_names], PANDA.home, atol=2e-3)
    assert result.max_tracking_error == pytest.approx(0.002)
    assert 1.2 < result.duration < 6
    progress = [f.progress for f in seen]
    assert progress == sorted(progress)
    assert {f.phase for f in seen} == {0, 1, 2, 3, 4}

    # Whoever comes late sees what was shown.
    paths = ros.subscribe(MarkerArray, "executor_node/preview", LATCHED)
    shown = ros.subscribe(JointTrajectory, "executor_node/trajectory", LATCHED)
    ros.wait_for(lambda: paths and shown, what="the preview")
    assert {m.header.frame_id for m in paths[0].markers} == {"world"}
    lines = {m.ns: m for m in paths[0].markers if m.ns.startswith("tool path")}
    assert set(lines) == {"tool path: approach", "tool path: manipulate", "tool path: retreat"}
    end = lines["tool path: manipulate"].points[-1]
    np.testing.assert_allclose(
        [end.x, end.y, end.z], PANDA.tool_pose((PANDA.home + SHIFTS[2])[None])[0, :3, 3], atol=1e-9
    )
    assert len(shown[0].points) == len(TRAJECTORY.times)

    flows = ros.subscribe(MarkerArray, "executor_node/flow", LATCHED)
    publisher = ros.node.create_publisher(ObjectFlow, "flow", LATCHED)
    points = np.linspace(0, 1, 5)[:, None, None] * np.ones((1, 10, 3))
    record = ObjectFlowRecord(np.arange(5.0), points, np.ones((5, 10)), np.zeros(10, int))
    publisher.publish(flow_to_msg(record, Header(frame_id="world")))
    ros.wait_for(lambda: flows, what="the flow's markers")
    assert len(flows[0].markers[-1].points) == 2 * 4 * 10


def test_a_dry_run_moves_nothing(ros):
    bring_up(ros, dry_run=True)
    ghosts = ros.subscribe(MarkerArray, "executor_node/ghost")
    status, result, seen = execute(ros, plan(ros), dry_run=False)
    assert (status, result.error_code) == (GoalStatus.STATUS_SUCCEEDED, ErrorCode.SUCCESS)
    assert "nothing moved" in result.error_msg
    assert result.duration == 0
    assert all(f.status.startswith(("dry run", "accepted")) for f in seen)
    assert len(ghosts) >= 5
    assert {m.ns for m in ghosts[-1].markers} == {"ghost"}
    assert len(ghosts[-1].markers) == len(PANDA.collision_meshes)


def test_bad_goals_are_refused_with_a_reason(ros):
    bring_up(ros)
    good = plan(ros)

    def refused(message, code, words, **fields):
        status, result, _ = execute(ros, message, **fields)
        assert status == GoalStatus.STATUS_ABORTED
        assert result.error_code == code, result.error_msg
        assert words in result.error_msg
        assert result.duration == 0

    refused(CertifiedPlan(), ErrorCode.NOT_CERTIFIED, "missing")
    altered = plan(ros)
    altered.grip[3] = 0.01
    refused(altered, ErrorCode.NOT_CERTIFIED, "not that of the plan")
    old = Header(stamp=good.header.stamp, frame_id="world")
    old.stamp.sec -= 500
    refused(plan(ros, header=old), ErrorCode.STALE, "s old")
    refused(plan(ros, robot="ur5e"), ErrorCode.BAD_GOAL, "'ur5e'")
    refused(plan(ros, phase=buffer("B", [0])), ErrorCode.BAD_GOAL, "plan.phase")
    refused(plan(ros, grasp=Grasps()), ErrorCode.BAD_GOAL, "plan.grasp")
    refused(plan(ros), ErrorCode.BAD_GOAL, "velocity_scaling", velocity_scaling=2.0)
    renamed = trajectory_to_msg(TRAJECTORY)
    renamed.joint_names = [f"fr3_joint{i}" for i in range(1, 8)]
    refused(plan(ros, trajectory=renamed), ErrorCode.BAD_GOAL, "joint_names")


# What goes wrong: (fault, at which motion or grip, code, words).
FAULTS = (
    ("move stuck", 1, ErrorCode.WATCHDOG, "manipulate: not done after"),
    ("move rejected", 0, ErrorCode.GOAL_REJECTED, "rejected the motion"),
    ("move aborted", 2, ErrorCode.MOTION_ABORTED, "path tolerance of a joint"),
    ("move silent", 1, ErrorCode.FEEDBACK_LOST, "no feedback"),
    ("move blind", 0, ErrorCode.FEEDBACK_LOST, "no joint states"),
    ("move deaf", 1, ErrorCode.WATCHDOG, "does not say that it stopped"),
    ("grip empty", 1, ErrorCode.GRIPPER_FAILED, "closed on nothing"),
    ("grip half", 2, ErrorCode.GRIPPER_FAILED, "should be 60.0 mm apart and are 30.0 mm"),
    ("grip stuck", 1, ErrorCode.GRIPPER_FAILED, "not done after"),
    ("grip rejected", 0, ErrorCode.GOAL_REJECTED, "rejected an opening"),
)


def test_what_controllers_do_wrong_ends_the_execution(ros):
    bring_up(ros, gripper_timeout=0.6, state_timeout=0.3, watchdog_slack=0.2, stop_timeout=0.3)
    for fault, at, code, words in FAULTS:
        status, result = execute_with(ros, fault, at)
        assert status == GoalStatus.STATUS_ABORTED, fault
        assert result.error_code == code, (fault, result.error_msg)
        assert words in result.error_msg, fault
    assert (
        execute_with(ros, "grip stalled", 1)[1].error_code == ErrorCode.SUCCESS
    )  # an abort, and yet it holds
    ros.processes[0].ended_by_test = True
    _, result = execute_with(ros, "move dead", 1)
    assert result.error_code == ErrorCode.FEEDBACK_LOST
    # The controllers come back, and so does the executor, once it knows what the hand holds.
    start_controllers(ros)
    assert execute(ros, plan(ros))[1].error_code != ErrorCode.SUCCESS
    assert ros.call(Trigger, "executor_node/hand_is_empty").success
    ros.wait_for(
        lambda: execute(ros, plan(ros))[1].error_code == ErrorCode.SUCCESS, 30, "success again"
    )


class Goals:
    """What reached the controllers since the fault was last set."""

    def __init__(self, ros):
        self.ros, self.heard = ros, ros.subscribe(String, "goals", LATCHED)

    def now(self, fault):
        """The counts under a fault, once the controllers told them."""

        def told():
            return self.heard and json.loads(self.heard[-1].data)["fault"] == fault

        self.ros.wait_for(told, what="the controllers' counts")
        for _ in range(5):  # what was published before this call has come
            self.ros.executor.spin_once(timeout_sec=0.02)
        return json.loads(self.heard[-1].data)


STATES_SAY = {
    "all NaN": "the joint states are not finite",
    "one NaN": "the joint states are not finite",
    "infinite": "the joint states are not finite",
    "future": "s in the future; synchronize the clocks",
    "old": "no joint states for",
    "before 1970": "no joint states for",
}


def test_joint_states_that_are_not_known_start_nothing(ros):
    bring_up(ros)
    goals = Goals(ros)
    for kind in WRONG_STATES:
        fault = f"states {kind}"
        go_wrong(ros, fault)

        def refused():
            return execute(ros, plan(ros))[1]

        # Until the executor has heard of it; then the attempt whose goals are counted.
        ros.wait_for(lambda: refused().error_code == ErrorCode.NO_STATE, what=f"notice of {kind}")
        go_wrong(ros, fault)
        result = refused()
        assert result.error_code == ErrorCode.NO_STATE, (kind, result.error_msg)
        assert STATES_SAY[kind] in result.error_msg, kind
        assert "\n" not in result.error_msg
        assert result.duration == 0
        counts = goals.now(fault)
        assert (counts["move"], counts["grip"]) == (0, 0), (kind, counts)
    back_to_start(ros)
    assert execute(ros, plan(ros))[1].error_code == ErrorCode.SUCCESS


@pytest.mark.parametrize(("what", "at", "moves", "grips"), [("move", 1, 2, 2), ("grip", 1, 1, 2)])
def test_joint_states_that_become_unknown_stop_what_moves(ros, what, at, moves, grips):
    bring_up(ros)
    goals = Goals(ros)
    for kind in WRONG_STATES:
        fault = f"{what} {kind}"
        status, result = execute_with(ros, fault, at)
        assert status == GoalStatus.STATUS_ABORTED, kind
        assert result.error_code == ErrorCode.FEEDBACK_LOST, (kind, result.error_msg)
        assert STATES_SAY[kind] in result.error_msg, kind
        assert "stopped" in result.error_msg
        assert "\n" not in result.error_msg
        # The running goal was canceled, and nothing was sent after it.
        counts = goals.now(fault)
        assert counts == {"move": moves, "grip": grips, "canceled": 1, "fault": fault}


def test_errors_and_openings_that_are_no_numbers_end_the_execution(ros):
    bring_up(ros)
    goals = Goals(ros)
    for kind in WRONG_POSITIONS:
        if kind != "huge":
            _, result = execute_with(ros, f"move error {kind}", 1)
            assert result.error_code == ErrorCode.FEEDBACK_LOST, (kind, result.error_msg)
            assert "tracking error is not finite" in result.error_msg
            assert goals.now(f"move error {kind}")["canceled"] == 1
        # An opening of no size, when it should open, hold, and let go.
        for at, moves in ((0, 0), (1, 1), (2, 2)):
            fault = f"grip result {kind}"
            _, result = execute_with(ros, fault, at)
            assert result.error_code == ErrorCode.GRIPPER_FAILED, (kind, at, result.error_msg)
            assert "\n" not in result.error_msg
            counts = goals.now(fault)
            assert (counts["move"], counts["grip"]) == (moves, at + 1), (kind, at, counts)


def test_plans_that_are_not_numbers_move_nothing(ros):
    """Sealed with their own digest, so that it is the numbers that are refused."""
    bring_up(ros)
    goals = Goals(ros)
    go_wrong(ros, "")

    def changed(part, value, at=50):
        message = trajectory_to_msg(TRAJECTORY)
        getattr(message.points[at], part)[3] = value
        return plan(ros, trajectory=message)

    def retimed(at, seconds):
        message = trajectory_to_msg(TRAJECTORY)
        message.points[at].time_from_start.sec = seconds
        return plan(ros, trajectory=message)

    def column(name, value):
        values = np.array(getattr(TRAJECTORY, name), float)
        values[50] = value
        return plan(ros, **{name: buffer("d", values)})

    shifted = Header(stamp=ros.node.get_clock().now().to_msg(), frame_id="world")
    shifted.stamp.sec += 500
    backward = TRAJECTORY.phase[::-1]
    for message, code, words in [
        *(
            (changed(part, value), ErrorCode.BAD_GOAL, "are not finite")
            for part in ("positions", "velocities", "accelerations")
            for value in (np.nan, np.inf, -np.inf)
        ),
        *(
            (column(name, value), ErrorCode.BAD_GOAL, "are not finite")
            for name in ("grip", "clearance", "position_error", "rotation_error")
            for value in (np.nan, np.inf)
        ),
        (retimed(50, -1), ErrorCode.BAD_GOAL, "strictly increasing"),
        (retimed(50, 100), ErrorCode.BAD_GOAL, "strictly increasing"),
        (retimed(0, -1), ErrorCode.BAD_GOAL, "times[0] = 0"),
        (plan(ros, certified_clearance=np.nan), ErrorCode.BAD_GOAL, "certified_clearance"),
        (plan(ros, phase=buffer("B", backward)), ErrorCode.BAD_GOAL, "phase"),
        (plan(ros, phase=buffer("B", TRAJECTORY.phase + 5)), ErrorCode.BAD_GOAL, "phase"),
        (plan(ros, header=shifted), ErrorCode.STALE, "in the future"),
        (plan(ros, header=Header(frame_id="world")), ErrorCode.STALE, "s old"),
    ]:
        status, result, _ = execute(ros, message)
        assert status == GoalStatus.STATUS_ABORTED, words
        assert result.error_code == code, (words, result.error_msg)
        assert words in result.error_msg, result.error_msg
        assert "\n" not in result.error_msg
        assert result.duration == 0
    for scaling in (np.nan, np.inf, -np.inf, -0.1):
        _, result, _ = execute(ros, plan(ros), velocity_scaling=float(scaling))
        assert result.error_code == ErrorCode.BAD_GOAL
    altered = plan(ros)
    altered.trajectory.points[50].positions[3] = np.nan  # after it was sealed
    assert execute(ros, altered)[1].error_code == ErrorCode.NOT_CERTIFIED
    assert goals.now("") == {"move": 0, "grip": 0, "canceled": 0, "fault": ""}


def test_cancel_preempt_and_deactivate_stop_the_arm(ros):
    from lifecycle_msgs.msg import Transition

    bring_up(ros)
    for when in (0, 1, 2):
        back_to_start(ros)
        seen = []
        handle = ros.send_goal(
            ExecutePlan, "execute_plan", ExecutePlan.Goal(plan=plan(ros)), seen.append
        )
        started = lambda: seen and seen[-1].phase == when and seen[-1].progress > 0  # noqa: B023, E731
        ros.wait_for(started, what="motion")
        asked = time.monotonic()
        ros.wait(handle.cancel_goal_async(), what="cancel")
        status, result = ros.result(handle)
        assert time.monotonic() - asked < 0.5  # 0.1 is wanted; nobody promises a quiet machine
        assert (status, result.error_code) == (GoalStatus.STATUS_CANCELED, ErrorCode.CANCELED)
        assert "stopped" in result.error_msg

    back_to_start(ros)
    first = ros.send_goal(
        ExecutePlan, "execute_plan", ExecutePlan.Goal(plan=plan(ros)), seen.append
    )
    ros.wait_for(lambda: seen[-1].phase == 0 and seen[-1].progress > 0.25, what="motion")
    status, result, _ = execute(ros, plan(ros))
    # The arm was stopped on its way, which is not where the second plan starts.
    assert result.error_code == ErrorCode.WRONG_START
    status, result = ros.result(first)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.PREEMPTED)

    back_to_start(ros)
    handle = ros.send_goal(
        ExecutePlan, "execute_plan", ExecutePlan.Goal(plan=plan(ros)), seen.append
    )
    ros.wait_for(lambda: seen[-1].progress > 0.1, what="motion")
    assert ros.transition("executor_node", Transition.TRANSITION_DEACTIVATE)
    assert ros.result(handle)[1].error_code == ErrorCode.NOT_READY
    assert execute(ros, plan(ros))[1].error_code == ErrorCode.NOT_READY
    assert ros.transition("executor_node", Transition.TRANSITION_ACTIVATE)
    back_to_start(ros)
    assert execute(ros, plan(ros))[1].error_code == ErrorCode.SUCCESS


def held(ros, **changes):
    """A plan that ends with the manipulation."""
    last = int(np.flatnonzero(TRAJECTORY.phase == 2)[-1]) + 1
    message = trajectory_to_msg(TRAJECTORY)
    message.points = message.points[:last]
    columns = {
        name: buffer("d", getattr(TRAJECTORY, name)[:last])
        for name in ("grip", "position_error", "rotation_error", "clearance")
    }
    phase = buffer("B", TRAJECTORY.phase[:last])
    fields = {"trajectory": message, "phase": phase, "released": False, **columns, **changes}
    return plan(ros, **fields)


def test_a_plan_that_ends_holding_keeps_the_fingers_closed(ros):
    bring_up(ros)
    goals = Goals(ros)
    go_wrong(ros, "")
    status, result, _ = execute(ros, held(ros))
    assert (status, result.error_code) == (GoalStatus.STATUS_SUCCEEDED, ErrorCode.SUCCESS)
    assert "the plan ends holding" in result.error_msg
    assert result.holding
    assert goals.now("") == {"move": 2, "grip": 2, "canceled": 0, "fault": ""}
    # The next plan would open the fingers in the air.
    for dry_run in (True, False):
        _, result, _ = execute(ros, plan(ros), dry_run=dry_run)
        assert result.error_code == ErrorCode.HAND_FULL
        assert "~/hand_is_empty" in result.error_msg
        assert not result.duration
    assert goals.now("")["grip"] == 2
    assert ros.call(Trigger, "executor_node/hand_is_empty").message == "noted"
    assert ros.call(Trigger, "executor_node/hand_is_empty").message == "it was empty"
    back_to_start(ros)
    _, result, _ = execute(ros, plan(ros))
    assert result.error_code == ErrorCode.SUCCESS
    assert not result.holding
    # A plan that does not end as it says.
    back_to_start(ros)
    for message in (plan(ros, released=False), held(ros, released=True)):
        _, result, _ = execute(ros, message)
        assert result.error_code == ErrorCode.BAD_GOAL
        assert result.error_msg.startswith("plan.released: the plan ")


def test_a_person_has_to_confirm(ros):
    bring_up(ros, confirm=True, confirm_timeout=2.0)
    assert not ros.call(SetBool, "executor_node/confirm", SetBool.Request(data=True)).success
    for says, code in (
        (True, ErrorCode.SUCCESS),
        (False, ErrorCode.NOT_CONFIRMED),
        (None, ErrorCode.NOT_CONFIRMED),
    ):
        back_to_start(ros)
        seen = []
        handle = ros.send_goal(
            ExecutePlan, "execute_plan", ExecutePlan.Goal(plan=plan(ros)), seen.append
        )
        ros.wait_for(lambda: seen and "confirmation" in seen[-1].status, what="the question")  # noqa: B023
        if says is not None:
            assert ros.call(SetBool, "executor_node/confirm", SetBool.Request(data=says)).success
        assert ros.result(handle)[1].error_code == code


def test_without_a_robot_nothing_is_claimed(ros):
    ros.start("executor_node", {"confirm": False})
    ros.activate("executor_node")
    status, result, _ = execute(ros, plan(ros), dry_run=True)
    assert result.error_code == ErrorCode.NO_STATE
    start_controllers(ros)
    ros.wait_for(
        lambda: execute(ros, plan(ros), dry_run=True)[1].error_code == ErrorCode.SUCCESS,
        what="controllers",
    )
