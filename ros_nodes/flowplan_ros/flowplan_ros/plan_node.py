"""Action server `plan_flow`: a motion of a scene to a certified trajectory of the robot.

If a goal has an instruction in place of a motion, `generate_flow` makes the motion first. The
trajectory starts at the goal's start state, which defaults to `joint_states`, then to the robot's
home.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import numpy as np
from action_msgs.msg import GoalStatus
from flowplan_msgs.action import GenerateFlow, PlanFlow
from flowplan_msgs.msg import ErrorCode, SceneMotion
from rclpy.action import ActionClient
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from flowplan.geometry import matrix_from_quat_xyzw, pose
from flowplan.optimizers import registry as optimizers
from flowplan.planner import NoPlan, PlanOptions
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Choices, Interval
from flowplan_ros import conversions, jobs
from flowplan_ros.joint_readings import JointReadings
from flowplan_ros.server import Failure, Goal, GoalServer, ServerNode, spin
from flowplan_ros.worker import Worker


@dataclass(frozen=True)
class PlanNodeOptions:
    """Parameters of plan_node."""

    robot: str = "panda"
    """Name of a robot configuration, or path of a .toml file."""
    optimizer: Annotated[str, Choices(optimizers.NAMES)] = optimizers.DEFAULT
    """Trajectory optimizer."""
    frame: str = "world"
    """Frame of all scenes and of the robot's base."""
    base_position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Position of the robot's base in that frame, meters."""
    base_quat_xyzw: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    """Orientation of the base: unit quaternion x y z w."""
    state_age: Annotated[float, Interval(0.01, 60.0)] = 0.5
    """Largest age of a joint state that counts as measured, seconds."""
    warm_up_timeout: Annotated[float, Interval(1.0, 3600.0)] = 120.0
    """Seconds that loading the robot and the planner may take."""
    plan: PlanOptions = field(default_factory=PlanOptions)
    """Options of the planner."""

    def __post_init__(self) -> None:
        bounds.check(self)
        length = float(np.linalg.norm(self.base_quat_xyzw))
        if not abs(length - 1) < 1e-3:
            raise ValueError(
                f"base_quat_xyzw: expected a unit quaternion, got length {length:.4g}; normalize it"
            )
        checks.array("base_position", self.base_position, (3,))


class PlanNode(ServerNode[PlanNodeOptions]):
    """Node that plans."""

    worker: Worker

    def __init__(self) -> None:
        fixed = ("robot", "base_position", "base_quat_xyzw")
        super().__init__("plan_node", PlanNodeOptions(), fixed=fixed)
        self._joints = JointReadings(time.monotonic, self._date)
        self.create_subscription(JointState, "joint_states", self._joints.take, 10)
        self._generator: ActionClient = ActionClient(self, GenerateFlow, "generate_flow")
        GoalServer(self, PlanFlow, "plan_flow", self._plan)

    def configure(self) -> None:
        """Load the robot and the planner."""
        options = self.options
        X_world_base = pose(matrix_from_quat_xyzw(options.base_quat_xyzw), options.base_position)
        setup = partial(jobs.warm_planner, options.robot, X_world_base)
        self.worker = self.start_worker(setup, options.warm_up_timeout)

    def cleanup(self) -> None:
        """Unload them."""
        self.worker.close()

    def _date(self) -> float:
        """Seconds of the clock that stamps messages."""
        return float(self.get_clock().now().nanoseconds * 1e-9)

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
            *(scene, motion, flow, start, options.optimizer, options.plan, request.seed),
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
        return self._joints.positions(self.options.state_age)

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
