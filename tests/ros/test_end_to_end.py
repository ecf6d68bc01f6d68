"""The whole of it over real DDS: the demo's processes, clients, and a simulated laptop that has to
be closed.

One bring-up serves the module. Every test begins with the task built anew and every node active,
whatever the one before has done to them; one plan is made in the first run and executed again where
a test needs a motion.
"""

import copy
import time
from dataclasses import dataclass, field

import pytest
from action_msgs.msg import GoalStatus
from conftest import Process, Ros, command
from flowplan_msgs.action import GenerateFlow
from flowplan_msgs.msg import ErrorCode, Instruction, ObjectFlow, Scene
from flowplan_msgs.srv import Scan
from flowplan_ros.client import Client, ClientOptions, Done, StageFailed
from flowplan_ros.conversions import document_to_msg, instruction_to_msg
from flowplan_ros.server import LATCHED
from launch_reader import LaunchNode, read_launch, share
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from flowplan.scene import Prompt

CLOSE = instruction_to_msg(Prompt("Close the laptop."))
PATIENT = ClientOptions(server_timeout=60.0, task_timeout=30.0)
PATIENCE = {
    "max_age": 3600.0,
    "state_timeout": 5.0,
    "response_timeout": 20.0,
    "watchdog_slack": 60.0,
}
"""Of the executor: one plan serves the whole module, and a machine that is busy is no failure."""
STILL = 0.02  # rad/s


@dataclass
class Cell:
    """The demo's processes and somebody who asks them for things."""

    ros: Ros
    client: Client
    nodes: dict[str, LaunchNode]
    processes: dict[str, Process] = field(default_factory=dict)

    def start(self, name: str) -> None:
        node = self.nodes[name]
        argv = command(node.package, node.executable) + node.ros_arguments(self.ros.folder)
        for parameter, value in PATIENCE.items() if name == "executor_node" else ():
            argv += ["-p", f"{parameter}:={value}"]
        self.processes[name] = self.ros.spawn(argv, name)

    def active(self) -> None:
        """Wait until every node is."""
        self.ros.wait_for(self._all_active, 180, "active nodes")

    def _all_active(self) -> bool:
        return self.ros.call(Trigger, "lifecycle_manager/is_active").success

    def restart(self, name: str) -> None:
        """Bring a node up again that was killed."""
        self.ros.wait_for(lambda: not self._all_active(), 60, f"notice of the death of {name}")
        self.start(name)
        self.active()

    def set(self, node: str, **values: object) -> None:
        parameters = [
            Parameter(name.replace("__", "."), value=value) for name, value in values.items()
        ]
        request = SetParameters.Request(parameters=[p.to_parameter_msg() for p in parameters])
        answer = self.ros.call(SetParameters, f"{node}/set_parameters", request)
        assert all(result.successful for result in answer.results), answer

    def reset(self) -> None:
        assert self.ros.call(Trigger, "task/reset", timeout=60).success
        assert self.ros.call(Trigger, "executor_node/hand_is_empty").success
        assert not self.closed()

    def closed(self) -> bool:
        return self.ros.call(Trigger, "task/success").success

    def joint_states(self) -> list[JointState]:
        """A list that grows while something waits, and that has one already."""
        states = self.ros.subscribe(JointState, "joint_states")
        self.ros.wait_for(lambda: states, 60, "joint states")
        return states

    def arm_stands(self) -> None:
        states = self.joint_states()
        self.ros.wait_for(
            lambda: max(map(abs, states[-1].velocity[:7])) < STILL, what="an arm that stands"
        )

    def fails(self, code: int, do, *arguments, **keywords) -> StageFailed:
        """What a client's call fails with, which has to have this code."""
        with pytest.raises(StageFailed) as caught:
            do(*arguments, **keywords)
        assert caught.value.code == code, caught.value
        return caught.value


@pytest.fixture(scope="module")
def whole_cell(shared_ros):
    nodes = {
        node.name: node
        for node in read_launch(share("flowplan_bringup") / "launch" / "demo.launch.xml")
    }
    with Client(options=PATIENT) as client:
        cell = Cell(shared_ros, client, nodes)
        for name in nodes:
            cell.start(name)
        cell.active()
        yield cell


@pytest.fixture(scope="module")
def first(whole_cell) -> Done:
    """The first run: from a sentence to a closed laptop."""
    whole_cell.reset()
    done = whole_cell.client.send(CLOSE)
    assert whole_cell.closed()
    return done


@pytest.fixture
def cell(whole_cell, first):
    whole_cell.reset()
    return whole_cell


def when(fraction: float, act, words: str = ""):
    """A listener to progress that acts once, when this much is done."""
    acted = []

    def listen(stage, done, status):
        if done >= fraction and words in status and not acted:
            acted.append(status)
            act()

    return listen


def test_a_sentence_closes_the_laptop(whole_cell, first):
    assert first.execution.error_code == ErrorCode.SUCCESS
    assert first.scene.objects[0].name == "laptop"
    assert first.plan.digest
    # Nothing was left behind by it: the same processes, none of them idle-waiting for a goal that
    # is over.
    assert all(process.alive for process in whole_cell.processes.values())


def test_who_comes_late_finds_everything(cell, first):
    """Latched: scene, flow, previews. And a client that joins now is served like the first."""
    seen = {
        topic: cell.ros.subscribe(kind, topic, LATCHED)
        for kind, topic in (
            (Scene, "scene"),
            (ObjectFlow, "flow"),
            (Instruction, "task/instruction"),
            (MarkerArray, "executor_node/preview"),
            (MarkerArray, "executor_node/flow"),
        )
    }
    cell.ros.wait_for(
        lambda: all(seen.values()), what=f"the latched messages among {', '.join(seen)}"
    )
    assert seen["scene"][-1] == first.scene
    with Client(options=PATIENT, name="late_client") as late:
        assert late.execute(first.plan, dry_run=True).error_code == ErrorCode.SUCCESS


def test_cancel_in_each_stage(cell, first):
    client = cell.client
    stop = []

    def canceled(do, *arguments, at=0.0, words=""):
        stop.clear()
        listen = when(at, lambda: stop.append(True), words)
        return cell.fails(
            ErrorCode.CANCELED, do, *arguments, on_progress=listen, stop=lambda: bool(stop)
        )

    canceled(client.scan, ["laptop"], words="scanning")
    cell.set("flow_node", flow_points=100_000)  # takes long enough to be canceled
    canceled(client.generate, first.scene, CLOSE, words="accepted")
    cell.set("flow_node", flow_points=2000)
    canceled(client.plan, first.scene, first.motion, at=0.01)
    canceled(client.execute, first.plan, at=0.3)
    cell.arm_stands()
    assert not cell.closed()
    # Everybody still works.
    cell.reset()
    assert client.generate(first.scene, CLOSE).motions
    assert client.execute(first.plan).error_code == ErrorCode.SUCCESS
    assert cell.closed()


def test_two_clients_at_once(cell, first):
    """Who asks later takes over; who asked first is told."""
    goal = GenerateFlow.Goal(scene=first.scene, instruction=CLOSE)
    cell.set("flow_node", flow_points=100_000)
    older = cell.ros.send_goal(GenerateFlow, "generate_flow", goal)
    cell.set("flow_node", flow_points=2000)
    assert cell.client.generate(first.scene, CLOSE).motions
    status, result = cell.ros.result(older)
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, ErrorCode.PREEMPTED)

    # A newer plan stops the arm on its way, and is refused because the arm is not where it starts.
    with Client(options=PATIENT, name="second_client") as second:
        refused = []

        def take_over():
            refused.append(cell.fails(ErrorCode.WRONG_START, second.execute, first.plan))

        cell.fails(
            ErrorCode.PREEMPTED, cell.client.execute, first.plan, on_progress=when(0.3, take_over)
        )
        assert refused
    cell.arm_stands()
    assert not cell.closed()

    # Scans wait for each other; both are answered. They want the arm at rest for a while.
    time.sleep(2.0)
    futures = [
        cell.ros.service(Scan, "scan").call_async(Scan.Request(names=["laptop"])) for _ in range(2)
    ]
    codes = [cell.ros.wait(future, 180, "a scan").error_code for future in futures]
    assert codes == [ErrorCode.SUCCESS] * 2


def test_a_stuck_joint_stops_the_arm_and_heals(cell, first):
    cell.set("sim_node", fault__stuck_joint="panda_joint2")
    failed = cell.fails(ErrorCode.MOTION_ABORTED, cell.client.execute, first.plan)
    assert "panda_joint2" in failed.text
    cell.arm_stands()
    assert not cell.closed()
    cell.set("sim_node", fault__stuck_joint="")
    cell.reset()
    assert cell.client.execute(first.plan).error_code == ErrorCode.SUCCESS
    assert cell.closed()


def test_a_planner_killed_in_the_middle_comes_back(cell, first):
    kill = when(0.01, cell.processes["plan_node"].kill)
    cell.fails(ErrorCode.NOT_READY, cell.client.plan, first.scene, first.motion, on_progress=kill)
    cell.restart("plan_node")
    assert cell.client.plan(first.scene, first.motion).plan.digest


def test_an_executor_killed_in_the_middle_comes_back(cell, first):
    kill = when(0.3, cell.processes["executor_node"].kill)
    cell.fails(ErrorCode.NOT_READY, cell.client.execute, first.plan, on_progress=kill)
    cell.restart("executor_node")
    cell.reset()
    assert cell.client.execute(first.plan).error_code == ErrorCode.SUCCESS
    assert cell.closed()


def test_a_robot_that_is_lost_in_the_middle_comes_back(cell, first):
    kill = when(0.3, cell.processes["sim_node"].kill)
    cell.fails(ErrorCode.FEEDBACK_LOST, cell.client.execute, first.plan, on_progress=kill)
    cell.start("sim_node")
    end = time.monotonic() + 60
    cell.ros.service(Trigger, "task/reset", timeout=60)
    assert cell.ros.call(Trigger, "executor_node/hand_is_empty").success
    cell.joint_states()
    # The executor hears the new robot once DDS has believed that the old one is gone.
    while (
        code := outcome(cell.client.execute, first.plan)
    ) == ErrorCode.NO_STATE and time.monotonic() < end:
        time.sleep(0.5)
    assert code == ErrorCode.SUCCESS
    assert cell.closed()


def outcome(do, *arguments):
    """The code that a client's call ends with."""
    try:
        return do(*arguments).error_code
    except StageFailed as failed:
        return failed.code


def altered(message, **values):
    """A copy with fields set, `a__b` for a.b."""
    message = copy.deepcopy(message)
    for name, value in values.items():
        *path, last = name.split("__")
        place = message
        for part in path:
            place = getattr(place, part)
        setattr(place, last, value)
    return message


BAD = {
    "scan: a name twice": (ErrorCode.BAD_GOAL, "names", lambda c, f: c.scan(["a", "a"])),
    "flow: nothing at all": (
        ErrorCode.BAD_GOAL,
        "scene",
        lambda c, f: c.generate(Scene(), Instruction()),
    ),
    "flow: another frame": (
        ErrorCode.BAD_GOAL,
        "scene.header.frame_id",
        lambda c, f: c.generate(altered(f.scene, header__frame_id="moon"), CLOSE),
    ),
    "flow: a sentence of no task": (
        ErrorCode.CANNOT_FOLLOW,
        "",
        lambda c, f: c.generate(f.scene, instruction_to_msg(Prompt("make coffee"))),
    ),
    "flow: not a document": (
        ErrorCode.BAD_GOAL,
        "instruction",
        lambda c, f: c.generate(f.scene, document_to_msg("{")),
    ),
    "flow: an object of another scene": (
        ErrorCode.BAD_GOAL,
        "laptop",
        lambda c, f: c.generate(renamed(f.scene, "lamp"), CLOSE),
    ),
    "plan: a motion of another scene": (
        ErrorCode.BAD_GOAL,
        "motion",
        lambda c, f: c.plan(renamed(f.scene, "lamp"), f.motion),
    ),
    "plan: a motion in another frame": (
        ErrorCode.BAD_GOAL,
        "motion.header.frame_id",
        lambda c, f: c.plan(f.scene, altered(f.motion, header__frame_id="moon")),
    ),
    "plan: times that do not rise": (
        ErrorCode.BAD_GOAL,
        "times",
        lambda c, f: c.plan(f.scene, altered(f.motion, times=f.motion.times[::-1])),
    ),
    "execute: nothing at all": (
        ErrorCode.NOT_CERTIFIED,
        "digest",
        lambda c, f: c.execute(type(f.plan)()),
    ),
    "execute: no certificate": (
        ErrorCode.NOT_CERTIFIED,
        "",
        lambda c, f: c.execute(altered(f.plan, digest="")),
    ),
    "execute: another robot's": (
        ErrorCode.NOT_CERTIFIED,
        "",
        lambda c, f: c.execute(altered(f.plan, robot="ur5e")),
    ),
    "execute: too fast": (
        ErrorCode.BAD_GOAL,
        "velocity_scaling",
        lambda c, f: c.execute(f.plan, velocity_scaling=2.0),
    ),
}


def renamed(scene, name):
    scene = copy.deepcopy(scene)
    scene.objects[0].name = name
    return scene


def test_bad_goals_are_named_and_change_nothing(cell, first):
    states = cell.joint_states()
    before = states[-1].position
    for name, (code, words, send) in BAD.items():
        with pytest.raises(StageFailed) as caught:
            send(cell.client, first)
        assert (caught.value.code, words in caught.value.text) == (code, True), (
            f"{name}: {caught.value}"
        )
    states.clear()
    cell.ros.wait_for(lambda: states, what="joint states after all that")
    assert states[-1].position == pytest.approx(before, abs=0.005)
    cell.active()
