"""flow_node in a process of its own: what it generates is what the library generates, and what it
refuses it names."""

import array
import time

import brick
import numpy as np
from action_msgs.msg import GoalStatus
from conftest import node_of_a_module
from flowplan_msgs.action import GenerateFlow
from flowplan_msgs.msg import ErrorCode, Instruction
from flowplan_ros import conversions
from flowplan_ros.server import LATCHED
from std_msgs.msg import Header

from flowplan.motion import sample_flow
from flowplan.scene import Prompt

ros, flow_node = node_of_a_module("flow_node", {"flow_points": 200})


def ask(instruction, **changes):
    out = GenerateFlow.Goal(
        scene=conversions.scene_to_msg(brick.scene(), brick.WORLD), instruction=instruction
    )
    for name, value in changes.items():
        setattr(out, name, value)
    return out


def run(ros, goal, **more):
    return ros.result(ros.send_goal(GenerateFlow, "generate_flow", goal, **more))


def test_a_document_becomes_the_librarys_motion_and_flow(ros, flow_node):
    seen = []
    goal = ask(conversions.document_to_msg(brick.document()), seed=3)
    status, result = run(ros, goal, on_feedback=seen.append)
    assert (status, result.error_msg) == (GoalStatus.STATUS_SUCCEEDED, "")
    scene = conversions.scene_from_msg(goal.scene)
    motion = conversions.motion_from_msg(result.motions[0], scene)
    np.testing.assert_allclose(motion.vertices[0], brick.carried().vertices[0], atol=1e-6)
    flow = conversions.flow_from_msg(result.flow)
    np.testing.assert_allclose(
        flow.points, sample_flow(scene, motion, points_per_object=200, seed=3).points, atol=1e-6
    )
    assert result.flow.header.frame_id == "world"
    assert conversions.seconds(result.generation_time) > 0
    ros.wait_for(lambda: seen and seen[-1].progress == 1.0)
    assert seen[0].status == "accepted"


def test_a_sentence_is_understood_where_a_document_answers_it(ros, flow_node):
    prompt = conversions.instruction_to_msg(Prompt("Put the brick aside!"))
    status, result = run(ros, ask(prompt))
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.CANNOT_FOLLOW)
    publisher = ros.node.create_publisher(Instruction, "task/instruction", LATCHED)
    publisher.publish(conversions.document_to_msg("not JSON"))
    publisher.publish(conversions.document_to_msg(brick.document(prompt="put the  brick aside")))
    end = time.monotonic() + 20  # the topic and the action are not ordered
    while status != GoalStatus.STATUS_SUCCEEDED:
        assert time.monotonic() < end
        status, result = run(ros, ask(prompt))
    assert np.ptp(np.reshape(result.motions[0].objects[0].vertices, (41, -1, 3))[:, 0, 1]) > 0.2
    assert (
        run(ros, ask(conversions.instruction_to_msg(Prompt("sing"))))[1].error_code
        == ErrorCode.CANNOT_FOLLOW
    )


def test_bad_goals_are_named_and_the_node_goes_on(ros, flow_node):
    document = conversions.document_to_msg(brick.document())
    elsewhere = ask(document)
    elsewhere.scene.header = Header(frame_id="map")
    broken = ask(document)
    broken.scene.objects[0].triangles = array.array("I", [0, 1, 9999])
    for goal, code, words in [
        (elsewhere, ErrorCode.BAD_GOAL, "scene.header.frame_id: got 'map', expected 'world'"),
        (broken, ErrorCode.BAD_GOAL, "scene.objects[0].triangles: expected indices below 98"),
        (ask(Instruction(kind=7)), ErrorCode.BAD_GOAL, "instruction: kind: got 7"),
        (
            ask(conversions.document_to_msg("{}")),
            ErrorCode.BAD_GOAL,
            "instruction.text: object: got None",
        ),
        (
            ask(conversions.instruction_to_msg(brick.carry())),
            ErrorCode.CANNOT_FOLLOW,
            "laws: expected one law",
        ),
    ]:
        status, result = run(ros, goal)
        assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, code)
        assert result.error_msg.startswith(words)
    assert run(ros, ask(document))[0] == GoalStatus.STATUS_SUCCEEDED


def test_parameters_are_checked_at_the_start(ros):
    process = ros.start("flow_node", {"generator": "magic"})
    assert process.wait_end() == 1
    assert "generator: got 'magic', expected one of kinematic, neurok" in process.output()
    assert "Traceback" not in process.output()


def test_the_node_ends_on_ctrl_c(ros):
    process = ros.start("flow_node", {}, name="short_lived")
    ros.activate("short_lived")
    assert process.stop() == 0
