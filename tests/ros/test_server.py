"""Goals, lifecycle and parameters, as every server of ours has them."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from action_msgs.msg import GoalStatus
from flowplan_msgs.action import GenerateFlow
from flowplan_msgs.msg import ErrorCode
from flowplan_ros.parameters import specs
from flowplan_ros.server import Failure, GoalServer, ServerNode
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.exceptions import InvalidParameterValueException
from rclpy.parameter import parameter_value_to_python

from flowplan.utils import checks
from flowplan.utils.bounds import Interval


@dataclass(frozen=True)
class Inner:
    """Options of a library."""

    size: Annotated[float, Interval(0, 2)] = 0.5
    """Meters
    across."""
    lower: tuple[float, float] = (-1.0, -1.0)
    """Corner."""

    def __post_init__(self) -> None:
        checks.positive("Inner.size", self.size)


@dataclass(frozen=True)
class Outer:
    """Options of a node."""

    share: Annotated[float, Interval(0.0, 1.0)] = 0.5
    """Of the whole."""
    count: Annotated[int, Interval(1, 5)] = 3
    """How many."""
    way: Literal["left", "right"] = "left"
    """Which way."""
    names: tuple[str, ...] = ()
    """Who."""
    height: float | None = None
    """Meters, if known."""
    inner: Inner = field(default_factory=Inner)
    """The library's own."""


class Slow(ServerNode):
    """Runs until it is told to end; what the goal's object is called says how."""

    def __init__(self, **overrides):
        super().__init__(
            "slow",
            Outer(),
            leave_out=("names",),
            fixed=("way",),
        )
        self.began, self.told = [], []
        self.wrong = ""
        GoalServer(self, GenerateFlow, "work", self.work)

    def configure(self):
        if self.wrong:
            raise ValueError(self.wrong)

    async def work(self, goal):
        how = goal.request.instruction.object
        self.began.append(how)
        goal.on_stop(lambda: self.told.append(how))
        goal.feedback(0.5, "working")
        if how == "mistake":
            raise ValueError("scene.objects: expected another")
        if how == "defect":
            raise KeyError("gone")
        if how == "failure":
            raise Failure(ErrorCode.NO_PLAN, "nothing works", GenerateFlow.Result(motions=[]))
        if how != "quick":
            assert await self.until(lambda: goal.stopped is not None, 20)
            if how == "lingering":
                await self.until(lambda: False, 0.2)
                self.began.append("the end of it")
            goal.check()
        return GenerateFlow.Result()


@pytest.fixture
def node(ros):
    node = Slow()
    ros.executor.add_node(node)
    node.trigger_configure()
    node.trigger_activate()
    yield node
    node.close()
    ros.executor.remove_node(node)
    node.destroy_node()


def goal(how):
    out = GenerateFlow.Goal()
    out.instruction.object = how
    return out


def run(ros, how):
    return ros.result(ros.send_goal(GenerateFlow, "work", goal(how)))


def test_ends_have_a_status_a_code_and_words(ros, node):
    status, result = run(ros, "quick")
    assert (status, result.error_code, result.error_msg) == (
        GoalStatus.STATUS_SUCCEEDED,
        ErrorCode.SUCCESS,
        "",
    )
    for how, code, words in [
        ("mistake", ErrorCode.BAD_GOAL, "scene.objects: expected another"),
        ("defect", ErrorCode.INTERNAL, "KeyError: 'gone'; see the node's log"),
        ("failure", ErrorCode.NO_PLAN, "nothing works"),
    ]:
        status, result = run(ros, how)
        assert (status, result.error_code, result.error_msg) == (
            GoalStatus.STATUS_ABORTED,
            code,
            words,
        )


def test_feedback_begins_with_the_acceptance(ros, node):
    seen = []
    handle = ros.send_goal(GenerateFlow, "work", goal("quick"), seen.append)
    ros.result(handle)
    ros.wait_for(lambda: len(seen) == 2)
    assert [(f.progress, f.status) for f in seen] == [(0.0, "accepted"), (0.5, "working")]


def test_a_canceled_goal_is_canceled_and_the_next_one_runs(ros, node):
    handle = ros.send_goal(GenerateFlow, "work", goal("slow"))
    ros.wait_for(lambda: node.began)
    ros.wait(handle.cancel_goal_async())
    status, result = ros.result(handle)
    assert (status, result.error_code) == (GoalStatus.STATUS_CANCELED, ErrorCode.CANCELED)
    assert node.told == ["slow"]
    assert run(ros, "quick")[0] == GoalStatus.STATUS_SUCCEEDED


def test_a_newer_goal_ends_the_older_ones_first(ros, node):
    names = ["one", "two", "three"]
    handles = [ros.send_goal(GenerateFlow, "work", goal(name)) for name in names]
    for handle in handles[:2]:
        status, result = ros.result(handle)
        assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.PREEMPTED)
        assert result.error_msg == "a newer goal took over"
    ros.wait_for(lambda: "three" in node.began)
    assert "three" not in node.told
    ros.wait(handles[2].cancel_goal_async())
    assert ros.result(handles[2])[0] == GoalStatus.STATUS_CANCELED


def test_the_newer_goal_waits_until_the_older_one_is_over(ros, node):
    older = ros.send_goal(GenerateFlow, "work", goal("lingering"))
    ros.wait_for(lambda: node.began)
    assert run(ros, "quick")[0] == GoalStatus.STATUS_SUCCEEDED
    assert node.began == ["lingering", "the end of it", "quick"]
    assert ros.result(older)[1].error_code == ErrorCode.PREEMPTED


def test_an_inactive_node_says_so_and_one_that_is_deactivated_ends_its_goal(ros, node):
    handle = ros.send_goal(GenerateFlow, "work", goal("slow"))
    ros.wait_for(lambda: node.began)
    node.trigger_deactivate()
    assert ros.result(handle)[1].error_msg == "the node was deactivated"
    status, result = run(ros, "quick")
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.NOT_READY)
    assert result.error_msg == "slow is not active; configure and activate it"


def test_what_cannot_be_configured_stays_unconfigured(ros, node):
    node.trigger_deactivate()
    node.trigger_cleanup()
    node.wrong = "robot: no such thing"
    node.trigger_configure()
    assert node._state_machine.current_state[1] == "unconfigured"
    node.wrong = ""
    node.trigger_configure()
    assert node._state_machine.current_state[1] == "inactive"


def test_parameters_are_described(ros, node):
    names = [spec.name for spec in specs(Outer())]
    assert names == ["share", "count", "way", "names", "height", "inner.size", "inner.lower"]
    request = DescribeParameters.Request(names=["share", "count", "way", "inner.size"])
    share, count, way, size = ros.call(
        DescribeParameters, "slow/describe_parameters", request
    ).descriptors
    assert share.description == "Of the whole."
    assert (share.floating_point_range[0].from_value, share.floating_point_range[0].to_value) == (
        0.0,
        1.0,
    )
    assert (count.integer_range[0].from_value, count.integer_range[0].to_value) == (1, 5)
    assert way.additional_constraints == "one of left, right"
    assert size.description == "Meters across."
    assert size.floating_point_range[0].to_value == 2.0
    assert not node.has_parameter("names")


def set_parameter(ros, name, **value):
    kinds = {"double_value": 3, "integer_value": 2, "string_value": 4, "double_array_value": 8}
    (kind,) = value
    message = Parameter(name=name, value=ParameterValue(type=kinds[kind], **value))
    request = SetParameters.Request(parameters=[message])
    assert parameter_value_to_python(message.value) is not None
    return ros.call(SetParameters, "slow/set_parameters", request).results[0]


def test_parameters_are_options(ros, node):
    assert node.options == Outer()
    for name, value in [
        ("share", {"double_value": 0.25}),
        ("inner.size", {"double_value": 1.5}),
        ("inner.lower", {"double_array_value": [0.0, 1.0]}),
        ("height", {"double_value": 0.7}),
    ]:
        assert set_parameter(ros, name, **value).successful
    assert node.options == Outer(share=0.25, height=0.7, inner=Inner(1.5, (0.0, 1.0)))
    assert set_parameter(ros, "height", double_value=float("nan")).successful
    assert node.options.height is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("share", {"double_value": 1.5}, "out of range"),
        ("count", {"integer_value": 9}, "out of range"),
        ("inner.size", {"double_value": 0.0}, "Inner.size: expected a positive number, got 0.0"),
        ("inner.lower", {"double_array_value": [0.0]}, "inner.lower: expected 2 values, got 1"),
        (
            "way",
            {"string_value": "right"},
            "way: read when the node was configured; clean it up first",
        ),
    ],
)
def test_what_the_options_refuse_the_parameter_refuses(ros, node, name, value, words):
    result = set_parameter(ros, name, **value)
    assert not result.successful
    assert words in result.reason
    assert node.options == Outer()


def test_choices_are_checked_before_the_node_is_configured(ros, node):
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert (
        "way: got 'up', expected one of left, right"
        in set_parameter(ros, "way", string_value="up").reason
    )
    assert set_parameter(ros, "way", string_value="right").successful
    assert node.options.way == "right"


def test_a_default_outside_of_its_range_is_a_defect(ros):
    @dataclass(frozen=True)
    class Unchecked:
        size: Annotated[float, Interval(1, 2)] = 0.5

    class Wrong(ServerNode):
        def __init__(self):
            super().__init__("wrong", Unchecked())

    with pytest.raises(InvalidParameterValueException):
        Wrong()
