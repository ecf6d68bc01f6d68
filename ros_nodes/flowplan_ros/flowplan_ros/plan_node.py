"""Action server `plan_flow`: a motion of a scene to a certified trajectory of the robot.

If a goal has an instruction in place of a motion, `generate_flow` makes the motion first. The
trajectory starts at the goal's start state, which defaults to `joint_states`; to the robot's home
if there never were any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any

from action_msgs.msg import GoalStatus
from flowplan_msgs.action import GenerateFlow, PlanFlow
from flowplan_msgs.msg import ErrorCode, SceneMotion
from rclpy.action import ActionClient
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from flowplan.optimizers import registry as optimizers
from flowplan.planner import NoPlan, PlanOptions
from flowplan.robot import load_robot
from flowplan.utils import bounds
from flowplan.utils.bounds import Choices, Interval
from flowplan_ros import conversions, jobs, placed_robot
from flowplan_ros.execution import state_fault
from flowplan_ros.joint_readings import JointReadings
from flowplan_ros.placed_robot import PlacedRobotOptions
from flowplan_ros.server import Failure, Goal, GoalServer, ServerNode, spin
from flowplan_ros.worker import Worker


@dataclass(frozen=True)
class PlanNodeOptions(PlacedRobotOptions):
    """Parameters of plan_node."""

    optimizer: Annotated[str, Choices(optimizers.NAMES)] = optimizers.DEFAULT
    """Trajectory optimizer."""
    frame: str = "world"
    """Frame of all scenes and of the robot's base."""
    state_age: Annotated[float, Interval(0.01, 60.0)] = 0.5
    """Largest age of a joint state that counts as measured, seconds."""
    warm_up_timeout: Annotated[float, Interval(1.0, 3600.0)] = 120.0
    """Seconds that loading the robot and the planner may take."""
    plan: PlanOptions = field(default_factory=PlanOptions)
    """Options of the planner."""

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds.check(self)


class PlanNode(ServerNode[PlanNodeOptions]):
    """Node that plans."""

    worker: Worker
    _joint_names: tuple[str, ...]

    def __init__(self) -> None:
        super().__init__("plan_node", PlanNodeOptions(), fixed=placed_robot.FIXED)
        self._joints = JointReadings(self.now, self.date)
        self.create_subscription(JointState, "joint_states", self._joints.take, 10)
        self._generator: ActionClient = ActionClient(self, GenerateFlow, "generate_flow")
        GoalServer(self, PlanFlow, "plan_flow", self._plan)

    def configure(self) -> None:
        """Load the robot and the planner."""
        options = self.options
        self._joint_names = load_robot(options.robot).joint_names
        setup = partial(jobs.warm_planner, options.robot, options.X_world_base)
        self.worker = self.start_worker(setup, options.warm_up_timeout)

    def cleanup(self) -> None:
        """Unload them."""
        self.worker.close()

    async def _plan(self, goal: Goal) -> PlanFlow.Result:
        request, options = goal.request, self.options
        # Scene, and the flow and the start if the goal states them.
        conversions.frame_of(request.scene.header, options.frame, "scene")
        scene = conversions.scene_from_msg(request.scene)
        flow = None
        if request.flow.times:
            conversions.frame_of(request.flow.header, options.frame, "flow")
            flow = conversions.flow_from_msg(request.flow)
        start = self._start(request.start_state)
        plan_options = options.plan
        if request.release:
            plan_options = replace(plan_options, release=request.release)
        # A motion that is made first takes the first half of the progress.
        begin, moving = 0.0, request.motion
        if not moving.times:
            begin, moving = 0.5, await self._generate(goal)
        conversions.frame_of(moving.header, options.frame, "motion")
        motion = conversions.motion_from_msg(moving, scene)
        # A canceled goal cancels the planning too.
        goal.on_stop(self.worker.cancel)
        planned = await self.worker.call(
            jobs.plan_motion,
            *(scene, motion, flow, start, options.optimizer, plan_options, request.seed),
            on_progress=lambda fraction, word: goal.feedback(begin + (1 - begin) * fraction, word),
        )
        return self._result(planned, moving)

    def _result(self, planned: jobs.Planned, motion: SceneMotion) -> PlanFlow.Result:
        result = PlanFlow.Result(
            motion=motion,
            attempts=[conversions.attempt_to_msg(attempt) for attempt in planned.found.attempts],
            planning_time=conversions.duration_to_msg(planned.seconds),
        )
        if isinstance(planned.found, NoPlan):
            raise Failure(ErrorCode.NO_PLAN, planned.found.reason, result)
        # The stamp is the time of certification.
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self.options.frame)
        result.plan = conversions.certified_plan(planned.found, planned.robot, header)
        return result

    def _start(self, asked: JointState) -> Mapping[str, float]:
        if asked.name:
            q = conversions.positions_from_joint_state(asked, asked.name, "start_state")
            return dict(zip(asked.name, map(float, q), strict=True))
        measured = self._joints.of(self._joint_names)
        if measured is None:
            # The planner names joints that are missing; without any it starts at home.
            return self._joints.positions(self.options.state_age)
        # A robot that was heard of is somewhere: a state that is not known is no reason for home.
        if fault := state_fault(measured, self.options.state_age):
            line = f"joint_states: {fault}; is the robot's driver running?"
            raise Failure(ErrorCode.NO_STATE, line)
        return dict(zip(self._joint_names, map(float, measured[1]), strict=True))

    async def _generate(self, goal: Goal) -> SceneMotion:
        """Best motion by `generate_flow` for the goal's instruction."""
        request = goal.request
        if not self._generator.server_is_ready():
            raise Failure(
                ErrorCode.NOT_READY,
                "generate_flow does not answer; start flow_node, or give a motion",
            )
        asked = GenerateFlow.Goal(
            scene=request.scene, instruction=request.instruction, seed=request.seed
        )
        # The generator's progress is the first half of this goal's.
        sending = self._generator.send_goal_async(
            asked,
            feedback_callback=lambda msg: goal.feedback(
                0.5 * msg.feedback.progress, msg.feedback.status
            ),
        )
        goal.on_stop(lambda: sending.add_done_callback(_cancel))
        handle: Any = await self.done(sending, goal)
        answer: Any = await self.done(handle.get_result_async(), goal)
        if answer.status != GoalStatus.STATUS_SUCCEEDED:
            raise Failure(answer.result.error_code, f"generate_flow: {answer.result.error_msg}")
        return answer.result.motions[0]


def _cancel(sent: Any) -> None:
    """Cancel a goal once it was answered."""
    sent.result().cancel_goal_async()


def main() -> None:
    """Entry point."""
    spin(PlanNode)


if __name__ == "__main__":
    main()
