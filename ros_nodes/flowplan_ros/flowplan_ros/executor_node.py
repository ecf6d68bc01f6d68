"""Action server `execute_plan`: a certified plan to the controllers of arm and gripper, or to a
preview.

The rules are in `flowplan_ros.execution`. This module implements its ports: ros2_control's
FollowJointTrajectory and GripperCommand actions, joint states, the operator behind the services
`~/confirm` and `~/hand_is_empty`, and RViz.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from action_msgs.msg import GoalStatus
from control_msgs.action import FollowJointTrajectory, GripperCommand
from flowplan_msgs.action import ExecutePlan
from flowplan_msgs.msg import CertifiedPlan, Grasps
from flowplan_msgs.msg import ObjectFlow as ObjectFlowMsg
from rclpy.action import ActionClient
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from visualization_msgs.msg import MarkerArray

from flowplan.robot import Robot, load_robot
from flowplan.trajectory import Trajectory
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from flowplan_ros import conversions, placed_robot, preview
from flowplan_ros.digest import digest
from flowplan_ros.execution import (
    ArmStep,
    Code,
    ExecutionEnded,
    ExecutionOptions,
    ExecutionRequest,
    ExecutionResult,
    Goal,
    GoalState,
    GripperStep,
    check_digest,
    check_hand,
    execute,
)
from flowplan_ros.joint_readings import JointReadings
from flowplan_ros.placed_robot import PlacedRobotOptions
from flowplan_ros.points import buffer
from flowplan_ros.server import LATCHED, Failure, GoalServer, ServerNode, spin
from flowplan_ros.server import Goal as Request
from flowplan_ros.turn import yield_to_executor

_TICK = 0.01  # seconds between two checks of a running motion
_GHOSTS = 0.1  # seconds between two previews of the robot


@dataclass(frozen=True)
class ExecutorNodeOptions(ExecutionOptions, PlacedRobotOptions):
    """Parameters of executor_node."""

    arm_action: str = "panda_arm_controller/follow_joint_trajectory"
    """Action of the arm's controller (control_msgs/FollowJointTrajectory)."""
    gripper_action: str = "panda_gripper/gripper_cmd"
    """Action of the gripper's controller (control_msgs/GripperCommand)."""
    gripper_open_position: float | None = None
    """Position of the fully open gripper. Defaults to its widest opening in meters."""
    gripper_closed_position: float = 0.0
    """Position of the closed gripper; openings between are interpolated."""
    gripper_effort: Annotated[float, Interval(0, 1000)] = 20.0
    """Force of the fingers (max_effort), newtons."""

    def __post_init__(self) -> None:
        ExecutionOptions.__post_init__(self)
        PlacedRobotOptions.__post_init__(self)
        for name in ("gripper_open_position", "gripper_closed_position"):
            position = getattr(self, name)
            if position is not None and not np.isfinite(position):
                raise ValueError(f"{name}: expected a finite position, got {position}")
        if self.gripper_open_position == self.gripper_closed_position:
            raise ValueError(
                "gripper_open_position: is that of the closed gripper; expected another"
            )


class ExecutorNode(ServerNode[ExecutorNodeOptions]):
    """Node that executes certified plans."""

    robot: Robot
    arm: ActionClient
    gripper: ActionClient
    ghost: preview.Ghost

    def __init__(self) -> None:
        fixed = (*placed_robot.FIXED, "arm_action", "gripper_action")
        super().__init__("executor_node", ExecutorNodeOptions(), fixed=fixed)
        # The operator's answer, and whether it is awaited.
        self.said: bool | None = None
        self._holding = False  # the fingers closed on something and did not open since
        self.asking = False
        self.joints = JointReadings(self.now, self.date)
        # Previews in RViz.
        self.path = self.create_publisher(MarkerArray, "~/preview", LATCHED)
        self.flow = self.create_publisher(MarkerArray, "~/flow", LATCHED)
        self.ghosts = self.create_publisher(MarkerArray, "~/ghost", 1)
        self.trajectory = self.create_publisher(JointTrajectory, "~/trajectory", LATCHED)
        # Inputs, the operator's answer, and the action.
        self.create_subscription(
            JointState, "joint_states", self.joints.take, qos_profile_sensor_data
        )
        self.create_subscription(ObjectFlowMsg, "flow", self._show_flow, LATCHED)
        self.create_service(SetBool, "~/confirm", self._confirm)
        self.create_service(Trigger, "~/hand_is_empty", self._empty)
        GoalServer(self, ExecutePlan, "execute_plan", self._execute)

    def configure(self) -> None:
        """Load the robot, and connect to its controllers."""
        options = self.options
        self.robot = load_robot(options.robot, options.X_world_base)
        self.ghost = preview.Ghost(self.robot)
        self.arm = ActionClient(self, FollowJointTrajectory, options.arm_action)
        self.gripper = ActionClient(self, GripperCommand, options.gripper_action)

    def cleanup(self) -> None:
        """Release the controllers."""
        self.arm.destroy()
        self.gripper.destroy()

    def _show_flow(self, msg: ObjectFlowMsg) -> None:
        try:
            self.flow.publish(preview.flow_markers(conversions.flow_from_msg(msg), msg.header))
        except ValueError as error:
            self.get_logger().warning(str(error))

    def _confirm(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success = self.asking
        if self.asking:
            self.said = request.data
            response.message = "confirmed" if request.data else "declined"
        else:
            response.message = "no plan waits for a confirmation"
        return response

    def _empty(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Statement of the operator that the hand holds nothing."""
        response.success = True
        response.message = "noted" if self._holding else "it was empty"
        self._holding = False
        return response

    async def _execute(self, request: Request) -> ExecutePlan.Result:
        try:
            plan = self._plan(request.request)
        except ExecutionEnded as end:
            raise Failure(end.code, str(end)) from None
        ports = _RosPorts(self, request, plan)
        timer = self.create_timer(_TICK, ports.wake, clock=self.steady)
        try:
            outcome = await execute(plan, ports, self.options)
        finally:
            self.asking = False
            self.destroy_timer(timer)
        self._holding = outcome.holding
        result = self._result(outcome)
        if outcome.code is Code.SUCCESS:
            self.get_logger().info(outcome.message)
            return result
        self.get_logger().warning(outcome.message)
        if request.stopped is not None:
            # The reason to end is known; the end of the motion is added to it.
            request.stopped = Failure(request.stopped.code, f"{request.stopped}; {outcome.message}")
        raise Failure(outcome.code, outcome.message, result)

    def _plan(self, goal: ExecutePlan.Goal) -> ExecutionRequest:
        plan: CertifiedPlan = goal.plan
        # The digest first: an altered plan is not worth reading.
        check_digest(plan.digest, digest(plan))
        check_hand(self._holding)
        if plan.robot != self.robot.name:
            raise ValueError(
                f"plan.robot: got {plan.robot!r}, this executor moves {self.robot.name!r}"
            )
        if np.isnan(plan.certified_clearance):
            raise ValueError("plan.certified_clearance: expected meters, got nan; plan again")
        # The robot, its joints in any order, and one contact.
        trajectory = conversions.trajectory_from_msg(plan)
        if set(trajectory.joint_names) != set(self.robot.joint_names):
            raise ValueError(
                f"plan.trajectory.joint_names: expected {', '.join(self.robot.joint_names)}, "
                f"got {', '.join(trajectory.joint_names)}"
            )
        if len(plan.grasp.kinds) != 1:
            raise ValueError(
                f"plan.grasp: expected the one contact that was chosen, got {len(plan.grasp.kinds)}"
            )
        holds = plan.grasp.kinds[0] != Grasps.PUSH
        stamp = conversions.seconds(plan.header.stamp)
        return ExecutionRequest(
            trajectory,
            holds,
            stamp,
            plan.header.frame_id,
            goal.dry_run,
            goal.velocity_scaling,
            plan.released,
        )

    def _result(self, outcome: ExecutionResult) -> ExecutePlan.Result:
        positions = self.joints.positions()
        state = JointState(name=list(positions), position=list(positions.values()))
        state.header.stamp = self.get_clock().now().to_msg()
        return ExecutePlan.Result(
            error_msg=outcome.message,
            duration=outcome.duration,
            max_tracking_error=outcome.max_error,
            holding=outcome.holding,
            final_state=state,
        )


class _RosPorts:
    """Ports of an execution (`execution.Ports`) in ROS."""

    def __init__(self, node: ExecutorNode, request: Request, plan: ExecutionRequest) -> None:
        self._node, self._request = node, request
        self._names, self._frame = plan.trajectory.joint_names, plan.frame
        self._awake = False
        self._last_ghost = -np.inf
        self._handles: dict[int, Any] = {}  # handles of accepted goals, by id(goal)
        self._unwanted: set[int] = set()  # goals canceled before they were accepted

    def wake(self) -> None:
        """Allow the next check; called by the node's timer."""
        self._awake = True

    def now(self) -> float:
        return self._node.now()

    def date(self) -> float:
        return self._node.date()

    async def tick(self) -> None:
        self._awake = False
        while not self._awake:
            await yield_to_executor()

    def stopped(self) -> bool:
        return self._request.stopped is not None

    def measured(self) -> tuple[float, FloatArray] | None:
        return self._node.joints.of(self._names)

    def missing(self) -> tuple[str, ...]:
        options = self._node.options
        clients = (
            (self._node.arm, options.arm_action),
            (self._node.gripper, options.gripper_action),
        )
        return tuple(name for client, name in clients if not client.server_is_ready())

    def ask(self, question: str) -> None:
        node = self._node
        node.said, node.asking = None, True
        service = f"{node.get_fully_qualified_name()}/confirm"
        node.get_logger().info(
            f"{question} Answer with: ros2 service call {service} std_srvs/srv/SetBool "
            f"'{{data: true}}'"
        )

    def answer(self) -> bool | None:
        if self._node.said is not None:
            self._node.asking = False
        return self._node.said

    def move(self, step: ArmStep) -> Goal:
        goal = Goal()
        message = FollowJointTrajectory.Goal()
        message.trajectory.joint_names = list(step.joint_names)
        message.trajectory.points = [
            JointTrajectoryPoint(
                positions=buffer("d", q),
                velocities=buffer("d", qd),
                accelerations=buffer("d", qdd),
                time_from_start=conversions.duration_to_msg(float(t)),
            )
            for t, q, qd, qdd in zip(step.times, step.q, step.qd, step.qdd, strict=True)
        ]
        self._send(
            self._node.arm, message, goal, self._arm_ended, partial(self._arm_feedback, goal)
        )
        return goal

    def close(self, step: GripperStep) -> Goal:
        goal = Goal()
        message = GripperCommand.Goal()
        message.command.position = float(np.interp(step.opening, *self._openings()))
        message.command.max_effort = self._node.options.gripper_effort
        self._send(self._node.gripper, message, goal, self._gripper_ended, None)
        return goal

    def cancel(self, goal: Goal) -> None:
        handle = self._handles.get(id(goal))
        if handle is None:
            self._unwanted.add(id(goal))
        else:
            handle.cancel_goal_async()

    def show(self, trajectory: Trajectory) -> None:
        header = Header(stamp=self._node.get_clock().now().to_msg(), frame_id=self._frame)
        self._node.path.publish(
            preview.plan_markers(self._node.robot, self._in_order(trajectory), header)
        )
        message = conversions.trajectory_to_msg(trajectory)
        message.header.frame_id = self._frame
        self._node.trajectory.publish(message)

    def pose(self, q: FloatArray, opening: float) -> None:
        # At most one ghost per period.
        now = time.monotonic()
        if now - self._last_ghost < _GHOSTS:
            return
        self._last_ghost = now
        header = Header(stamp=self._node.get_clock().now().to_msg(), frame_id=self._frame)
        # The plan's joints in the robot's order.
        order = [self._names.index(name) for name in self._node.robot.joint_names]
        self._node.ghosts.publish(self._node.ghost.markers(q[order], opening, header))

    def report(self, progress: float, status: str, phase: int, error: float) -> None:
        self._request.feedback(progress, status, phase=phase, tracking_error=float(error))

    def _in_order(self, trajectory: Trajectory) -> Trajectory:
        """Trajectory with its columns in the robot's order of joints."""
        names = self._node.robot.joint_names
        order = [trajectory.joint_names.index(name) for name in names]
        q, qd, qdd = (getattr(trajectory, name)[:, order] for name in ("q", "qd", "qdd"))
        fields = {
            name: getattr(trajectory, name) for name in ("times", "grip", "phase", "clearance")
        }
        errors = {name: getattr(trajectory, name) for name in ("position_error", "rotation_error")}
        return Trajectory(names, q=q, qd=qd, qdd=qdd, **fields, **errors)

    def _openings(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Openings (meters) and the gripper's positions there."""
        options, widest = self._node.options, self._node.robot.gripper.max_width
        wide = widest if options.gripper_open_position is None else options.gripper_open_position
        return (0.0, widest), (options.gripper_closed_position, wide)

    def _send(
        self, client: ActionClient, message: Any, goal: Goal, ended: Any, feedback: Any
    ) -> None:
        future = client.send_goal_async(message, feedback_callback=feedback)
        future.add_done_callback(partial(self._answered, goal, ended))

    def _answered(self, goal: Goal, ended: Any, future: Any) -> None:
        # A goal may be rejected, or canceled before its acceptance arrived.
        handle = future.result()
        if not handle.accepted:
            goal.state = GoalState.REJECTED
            return
        goal.state = GoalState.RUNNING
        self._handles[id(goal)] = handle
        handle.get_result_async().add_done_callback(lambda done: ended(goal, done.result()))
        if id(goal) in self._unwanted:
            handle.cancel_goal_async()

    def _arm_feedback(self, goal: Goal, message: Any) -> None:
        goal.heard = self.now()
        # The largest error of any joint counts.
        errors = message.feedback.error.positions
        goal.error = float(np.abs(errors).max()) if len(errors) else 0.0

    def _arm_ended(self, goal: Goal, response: Any) -> None:
        result = response.result
        said = result.error_string or (
            f"error code {result.error_code}" if result.error_code else ""
        )
        _end(goal, response.status, said)
        if (
            goal.state is GoalState.SUCCEEDED
            and result.error_code != FollowJointTrajectory.Result.SUCCESSFUL
        ):
            goal.state = GoalState.ABORTED

    def _gripper_ended(self, goal: Goal, response: Any) -> None:
        result = response.result
        # A line through both ends; a position beyond them gives an opening that no rule accepts.
        (narrow, wide), (closed, opened) = self._openings()
        share = (result.position - closed) / (opened - closed)
        goal.opening = narrow + share * (wide - narrow)
        goal.gripped = bool(result.stalled or result.reached_goal)
        _end(goal, response.status, "stalled" if result.stalled else "")


def _end(goal: Goal, status: int, message: str) -> None:
    ends = {
        GoalStatus.STATUS_SUCCEEDED: GoalState.SUCCEEDED,
        GoalStatus.STATUS_CANCELED: GoalState.CANCELED,
    }
    goal.message = message
    goal.state = ends.get(status, GoalState.ABORTED)


def main() -> None:
    """Entry point."""
    spin(ExecutorNode)


if __name__ == "__main__":
    main()
