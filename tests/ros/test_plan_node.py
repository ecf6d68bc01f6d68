"""plan_node in a process of its own: certified plans, from wherever the arm is, and ends that come
at once."""

import time

import brick
import numpy as np
from action_msgs.msg import GoalStatus
from conftest import node_of_a_module
from flowplan_msgs.action import PlanFlow
from flowplan_msgs.msg import ErrorCode
from flowplan_ros import conversions
from flowplan_ros.digest import digest
from rcl_interfaces.srv import DescribeParameters, ListParameters
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from flowplan.geometry import exp_so3, pose
from flowplan.motion import sample_flow
from flowplan.robot import load_robot
from flowplan.scene import Scene

ros, plan_node = node_of_a_module("plan_node", {"plan.flow_points": 500})


def ask(**changes):
    scene, motion = brick.scene(), brick.carried()
    out = PlanFlow.Goal(scene=conversions.scene_to_msg(scene, brick.WORLD))
    out.motion = conversions.motion_to_msg(motion, scene, brick.WORLD)
    for name, value in changes.items():
        setattr(out, name, value)
    return out


def run(ros, goal, **more):
    return ros.result(ros.send_goal(PlanFlow, "plan_flow", goal, **more))


def begin(ros):
    """A goal whose planning has begun."""
    seen = []
    handle = ros.send_goal(PlanFlow, "plan_flow", ask(), seen.append)
    ros.wait_for(lambda: any(feedback.progress > 0.1 for feedback in seen), 60, "planning")
    return handle


def certified(result):
    """The trajectory of a plan that is what it says."""
    assert result.error_msg == ""
    plan = result.plan
    assert plan.digest == digest(plan)
    assert (plan.robot, plan.header.frame_id) == ("panda", "world")
    assert plan.header.stamp.sec > 0
    assert len(plan.grasp.tool_poses) == 1
    assert plan.certified_clearance > 0
    return conversions.trajectory_from_msg(plan)


def test_a_motion_becomes_a_certified_plan_with_progress(ros, plan_node):
    seen = []
    status, result = run(ros, ask(), on_feedback=seen.append)
    assert status == GoalStatus.STATUS_SUCCEEDED
    trajectory = certified(result)
    np.testing.assert_allclose(trajectory.q[0], load_robot("panda").home, atol=1e-9)
    assert result.attempts[-1].stage == "planned"
    assert conversions.seconds(result.planning_time) > 0
    assert len(result.motion.objects[0].vertices) == 41 * 98 * 3
    progress = [feedback.progress for feedback in seen]
    assert progress == sorted(progress)
    assert seen[0].status == "accepted"
    assert len(seen) > 2


def test_the_trajectory_starts_where_the_arm_is(ros, plan_node):
    panda = load_robot("panda")
    asked = panda.home + 0.05
    state = JointState(
        name=["gripper", *reversed(panda.joint_names)], position=[0.0, *reversed(asked)]
    )
    _, result = run(ros, ask(start_state=state))
    np.testing.assert_allclose(certified(result).q[0], asked, atol=1e-9)
    np.testing.assert_allclose(certified(result).q[-1], panda.home, atol=1e-9)


def test_what_is_measured_counts_while_it_is_known(ros):
    """A node of its own: one that has heard of a robot does not plan from home again."""
    panda = load_robot("panda")
    node = ros.start("plan_node", {"plan.flow_points": 500}, name="here", remap={"__ns": "/here"})
    ros.activate("/here/here")

    def plan(**changes):
        return ros.result(ros.send_goal(PlanFlow, "/here/plan_flow", ask(**changes)))

    def first(result):
        return certified(result).q[0]

    np.testing.assert_allclose(first(plan()[1]), panda.home, atol=1e-9)
    publisher = ros.node.create_publisher(JointState, "/here/joint_states", 10)
    measured = panda.home - 0.05
    timer = ros.node.create_timer(
        0.02,
        lambda: publisher.publish(
            JointState(name=list(panda.joint_names), position=list(measured))
        ),
    )
    ros.wait_for(publisher.get_subscription_count)
    ros.wait_for(lambda: np.allclose(first(plan()[1]), measured, atol=1e-9), 60)
    ros.node.destroy_timer(timer)
    # A robot that was heard of is not at home because its state is not known any more.
    time.sleep(0.6)  # the measured state grows old
    status, result = plan()
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.NO_STATE)
    assert "joint_states: no joint states for" in result.error_msg
    for q, stamp, words in [
        (np.full(7, np.nan), 0, "not finite"),
        (np.r_[measured[:6], np.inf], 0, "not finite"),
        (measured, 5, "in the future"),
        (measured, -5, "no joint states for"),
    ]:
        message = JointState(name=list(panda.joint_names), position=list(q))
        message.header.stamp = ros.node.get_clock().now().to_msg()
        message.header.stamp.sec += stamp
        publisher.publish(message)

        def refused(words=words):
            _, result = plan()
            assert result.error_code == ErrorCode.NO_STATE
            return words in result.error_msg

        ros.wait_for(refused, what=words)
    # A goal that states its start needs no measured one.
    state = JointState(name=list(panda.joint_names), position=list(panda.home + 0.05))
    np.testing.assert_allclose(first(plan(start_state=state)[1]), panda.home + 0.05, atol=1e-9)
    state.position[3] = np.nan
    status, result = plan(start_state=state)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.BAD_GOAL)
    assert result.error_msg.startswith("start_state.position: ")
    assert node.stop() == 0


def test_a_goal_says_whether_the_hand_lets_go(ros, plan_node):
    _, let_go = run(ros, ask())
    assert let_go.plan.released
    assert let_go.plan.ending
    assert certified(let_go).phase[-1] == 4
    _, held = run(ros, ask(release="never"))
    assert not held.plan.released
    assert held.plan.ending.startswith("release='never'")
    assert certified(held).phase[-1] == 2
    held.plan.released = True  # it is part of what was certified
    assert held.plan.digest != digest(held.plan)
    status, result = run(ros, ask(release="sometimes"))
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.BAD_GOAL)
    assert result.error_msg.startswith("PlanOptions.release: got 'sometimes'")


def test_a_motion_beyond_the_limits_says_what_was_measured(ros, plan_node):
    """The brick rises and stays in the air, torn in two."""
    goal = ask()
    vertices = np.reshape(goal.motion.objects[0].vertices, (41, -1, 3)).copy()
    half = vertices[0, :, 0] > vertices[0, :, 0].mean()
    vertices[:, half, 2] += np.linspace(0, 0.1, 41)[:, None]
    goal.motion.objects[0].vertices = vertices.ravel().tolist()
    status, result = run(ros, goal)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.NO_PLAN)
    assert [(a.stage, a.kind) for a in result.attempts] == [("motion", "any")] * len(
        result.attempts
    )
    assert result.attempts
    assert "brick" in result.attempts[0].reason
    assert "mm" in result.attempts[0].reason or "%" in result.attempts[0].reason
    assert result.attempts[0].reason in result.error_msg


def test_tracks_of_its_own_are_followed(ros, plan_node):
    flow = sample_flow(brick.scene(), brick.carried(), points_per_object=300, seed=7)
    status, result = run(ros, ask(flow=conversions.flow_to_msg(flow, brick.WORLD)))
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert certified(result).position_error.max() < 0.01


def test_an_instruction_is_generated_first(ros, plan_node):
    goal = ask(
        motion=PlanFlow.Goal().motion, instruction=conversions.document_to_msg(brick.document())
    )
    status, result = run(ros, goal)
    assert result.error_msg == "generate_flow does not answer; start flow_node, or give a motion"
    ros.start("flow_node", {"flow_points": 200})
    ros.activate("flow_node")
    ros.wait_for(lambda: run(ros, goal)[1].error_code != ErrorCode.NOT_READY)
    status, result = run(ros, goal)
    assert status == GoalStatus.STATUS_SUCCEEDED
    certified(result)
    vertices = result.motion.objects[0].vertices
    np.testing.assert_allclose(vertices, ask().motion.objects[0].vertices, atol=1e-6)
    goal.instruction.text = "{}"
    status, result = run(ros, goal)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.BAD_GOAL)
    assert result.error_msg.startswith("generate_flow: instruction.text: object: got None")


def test_no_plan_says_why_of_every_attempt(ros, plan_node):
    far = Scene((brick.brick(1.6, 0.0),), 0.0)
    motion = brick.carried()
    away = type(motion)(motion.times, (motion.vertices[0] + [1.15, 0.1, 0],))
    goal = ask(
        scene=conversions.scene_to_msg(far, brick.WORLD),
        motion=conversions.motion_to_msg(away, far, brick.WORLD),
    )
    status, result = run(ros, goal)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.NO_PLAN)
    assert "; try: " in result.error_msg
    assert result.attempts
    assert all(attempt.reason and attempt.remedy for attempt in result.attempts)
    assert result.plan.digest == ""
    assert not result.plan.trajectory.points


def test_bad_goals_are_named(ros, plan_node):
    still = ask()
    vertices = np.reshape(still.motion.objects[0].vertices, (41, -1, 3))
    still.motion.objects[0].vertices = (
        np.broadcast_to(vertices[:1], vertices.shape).ravel().tolist()
    )
    elsewhere = ask()
    elsewhere.motion.header = Header(frame_id="map")
    for goal, words in [
        (still, "motion.vertices: nothing moves"),
        (elsewhere, "motion.header.frame_id: got 'map', expected 'world'"),
        (ask(scene=PlanFlow.Goal().scene), "scene.header.frame_id: got ''"),
        (
            ask(start_state=JointState(name=["panda_joint1"], position=[0.0])),
            "start_state.name: lacks 'panda_joint2'",
        ),
        (
            ask(start_state=JointState(name=["panda_joint1"])),
            "start_state.position: expected 1 numbers",
        ),
    ]:
        status, result = run(ros, goal)
        assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.BAD_GOAL)
        assert result.error_msg.startswith(words)


def test_cancel_and_preempt_end_planning_and_the_next_goal_is_planned(ros, plan_node):
    handle = begin(ros)
    ros.wait(handle.cancel_goal_async())
    status, result = ros.result(handle)
    assert (status, result.error_code) == (GoalStatus.STATUS_CANCELED, ErrorCode.CANCELED)
    assert result.plan.digest == ""
    older = begin(ros)
    newer = ros.send_goal(PlanFlow, "plan_flow", ask(seed=1))
    status, result = ros.result(older)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.PREEMPTED)
    status, result = ros.result(newer)
    assert status == GoalStatus.STATUS_SUCCEEDED
    certified(result)
    assert "worker process ended" not in plan_node.output()


def test_the_robot_stands_where_the_parameters_say(ros):
    """The same problem moved with the base has a plan; from the old base it is out of reach."""
    X = pose(exp_so3([0, 0, 0.7]), [3.0, -1.0, 0.0])
    scene, motion = brick.scene(), brick.carried()
    moved = [v @ X[:3, :3].T + X[:3, 3] for v in motion.vertices]
    obj = type(scene.objects[0])(
        "brick", scene.objects[0].mesh, X @ scene.objects[0].X_world_object
    )
    away = Scene((obj,), 0.0)
    goal = ask(scene=conversions.scene_to_msg(away, brick.WORLD))
    goal.motion = conversions.motion_to_msg(
        type(motion)(motion.times, tuple(moved)), away, brick.WORLD
    )
    turned = [0.0, 0.0, float(np.sin(0.35)), float(np.cos(0.35))]
    parameters = {
        "base_position": [3.0, -1.0, 0.0],
        "base_quat_xyzw": turned,
        "plan.flow_points": 500,
    }
    there = ros.start("plan_node", parameters, name="there", remap={"__ns": "/there"})
    ros.activate("/there/there")
    status, result = ros.result(ros.send_goal(PlanFlow, "/there/plan_flow", goal))
    there.stop()
    assert status == GoalStatus.STATUS_SUCCEEDED, result.error_msg


def test_every_number_has_a_range_and_every_parameter_words(ros, plan_node):
    names = ros.call(ListParameters, "plan_node/list_parameters").result.names
    request = DescribeParameters.Request(names=names)
    described = ros.call(DescribeParameters, "plan_node/describe_parameters", request).descriptors
    own = {"robot", "frame", "base_position", "base_quat_xyzw", "state_age", "warm_up_timeout"}
    ours = [d for d in described if d.name in own or d.name.startswith("plan.")]
    assert len(ours) > 50
    for descriptor in ours:
        assert descriptor.description, descriptor.name
        if descriptor.type in (2, 3):
            assert descriptor.integer_range or descriptor.floating_point_range, descriptor.name


def test_a_robot_that_does_not_exist_cannot_be_configured(ros):
    process = ros.start("plan_node", {"robot": "hal"}, name="hal")
    assert not ros.transition("hal", 1)
    assert "cannot configure: robot: got 'hal', expected one of panda, ur5e" in process.output()
    assert process.stop() == 0


def test_the_node_ends_on_ctrl_c_in_the_middle_of_a_goal(ros, plan_node):
    """And its worker with it: `stop` waits for the whole process group."""
    begin(ros)
    assert plan_node.stop() == 0
