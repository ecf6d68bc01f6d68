"""Node of the simulated robot: interfaces of a driver, controllers and cameras, and a task.

| name | type |
|---|---|
| `joint_states` | sensor_msgs/JointState of arm and gripper |
| `panda_arm_controller/follow_joint_trajectory` | action, control_msgs/FollowJointTrajectory |
| `panda_gripper/gripper_cmd` | action, control_msgs/GripperCommand; position is the gap in meters |
| `camera_0/depth/image` | sensor_msgs/Image (32FC1, meters) |
| `camera_0/depth/camera_info` | sensor_msgs/CameraInfo |
| `camera_0/color/image` | sensor_msgs/Image (rgb8), registered to the depth |
| `camera_0/pose` | geometry_msgs/PoseStamped of the optical frame in the world, with each image |
| `task/instruction` | flowplan_msgs/Instruction, latched: the document of the task |
| `task/success` | service, std_srvs/Trigger: current success, and the measures |
| `task/reset` | service, std_srvs/Trigger: rebuild the episode; running goals are aborted |
| `/clock` | with `use_sim_time` |

Images of all cameras that were taken together have one stamp. The robot has no depth in them unless
`camera.robot` is true. Parameters `fault.*` break the robot while it runs; those of the
controllers, `task` and `seed` take effect at the next reset.
"""

from __future__ import annotations

import math
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, TypeVar

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from control_msgs.action import FollowJointTrajectory, GripperCommand
from flowplan_msgs.msg import Instruction
from flowplan_ros.conversions import pose_to_msg, seconds
from flowplan_ros.parameters import Parameters
from flowplan_ros.points import buffer, depth_to_image, intrinsics_to_info
from flowplan_ros.server import LATCHED, spin
from flowplan_ros.turn import yield_to_executor
from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMsg
from sensor_msgs.msg import CameraInfo, Image
from sensor_msgs.msg import JointState as JointStateMsg
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from flowplan.robot import load_robot
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan_sim_hw.cameras import CameraOptions, Cameras, Shot
from flowplan_sim_hw.control_actions import ArmPort, ControllerAction, GripperPort
from flowplan_sim_hw.document import task_document
from flowplan_sim_hw.gripper import GripperOptions
from flowplan_sim_hw.pace import Pace
from flowplan_sim_hw.simulation import RIGID_TASKS, Episode, Faults, Simulation
from flowplan_sim_hw.trajectory_controller import ControllerOptions
from sim_envs.tasks import TASKS

T = TypeVar("T")


@cache
def _joint_names(robot: str) -> tuple[str, ...]:
    return load_robot(robot).joint_names


@dataclass(frozen=True)
class SimOptions:
    """Parameters of the simulated robot."""

    task: str = "close_laptop"
    """Task of the simulator, without cloth."""
    robot: str = "panda"
    """Name of a robot configuration, or path of a .toml file."""
    seed: Annotated[int, Interval(0, 2**31 - 1)] = 0
    """Random seed of the task's variation."""
    real_time_factor: Annotated[float, Interval(0.01, 100)] = 1.0
    """Simulated seconds per second; with use_sim_time all nodes keep up with it."""
    joint_state_rate: Annotated[float, Interval(1, 1000)] = 100.0
    """Joint states per second of real time."""
    action_monitor_rate: Annotated[float, Interval(0.1, 1000)] = 20.0
    """Rate of feedback and results, per second of real time."""
    world_frame: str = "world"
    """Frame of the camera poses; the robot's base is at its origin."""
    arm_controller: str = "panda_arm_controller"
    """Namespace of the action follow_joint_trajectory."""
    gripper_controller: str = "panda_gripper"
    """Namespace of the action gripper_cmd."""
    arm: ControllerOptions = field(
        default_factory=lambda: ControllerOptions(
            command_velocities=True, trajectory=0.2, goal=0.02
        )
    )
    gripper: GripperOptions = field(default_factory=GripperOptions)
    camera: CameraOptions = field(default_factory=CameraOptions)
    fault: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        checks.choice("task", self.task, RIGID_TASKS)
        bounds.check(self)
        if self.fault.stuck_joint:
            checks.choice("fault.stuck_joint", self.fault.stuck_joint, _joint_names(self.robot))

    @property
    def episode(self) -> Episode:
        """Simulated episode."""
        return Episode(self.task, self.robot, self.seed)


_LIVE = ("task", "seed", "arm.", "gripper.", "fault.")  # parameters that may be set while it runs
_LOOK = 0.05  # seconds between two checks for subscribers of images


class SimNode(Node):
    """Robot that is ready as soon as the node exists: drivers have no lifecycle here."""

    def __init__(self) -> None:
        super().__init__("sim_node")
        self._parameters_of = Parameters(self, SimOptions(), (), self._may_change)
        self._sim_time = bool(self.get_parameter("use_sim_time").value)
        options = self.options
        # Physics, and the controllers' actions.
        self._pace = Pace(self._make, options.real_time_factor)
        self._faults = options.fault
        arm = ArmPort(self._pace, self._to_time, self._to_stamp)
        self._arm = ControllerAction(
            self, FollowJointTrajectory, f"{options.arm_controller}/follow_joint_trajectory", arm
        )
        self._gripper = ControllerAction(
            self,
            GripperCommand,
            f"{options.gripper_controller}/gripper_cmd",
            GripperPort(self._pace),
        )
        # Joint states, clock, and the task's interfaces.
        self._joint_states = self.create_publisher(JointStateMsg, "joint_states", 10)
        self._clock_topic = (
            self.create_publisher(ClockMsg, "/clock", 10) if self._sim_time else None
        )
        self._instruction = self.create_publisher(Instruction, "task/instruction", LATCHED)
        self.create_service(Trigger, "task/success", self._on_success)
        # A waiting coroutine blocks its callback group: the timers have another one.
        self.create_service(
            Trigger, "task/reset", self._on_reset, callback_group=ReentrantCallbackGroup()
        )
        # Cameras, rendered in another process.
        self._images = [_Camera(self, i) for i in range(options.camera.count)]
        self._cameras = Cameras(options.camera, options.episode) if options.camera.count else None
        self._shot_stamp, self._shot_at = Time(), -math.inf
        self._to_publish: deque[tuple[Shot, Time]] = deque()
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # with simulated time nothing would start
        self.create_timer(1 / options.joint_state_rate, self._tick, clock=steady)
        self.create_timer(1 / options.action_monitor_rate, self._monitor, clock=steady)
        self.create_timer(_LOOK, self._shoot, clock=steady)
        self._publish_instruction()
        self.get_logger().info(
            f"{options.robot} and task {options.task} with seed {options.seed} are simulated"
        )

    @property
    def options(self) -> SimOptions:
        """Options with the current values of the parameters."""
        return self._parameters_of.options

    def close(self) -> None:
        """End the physics and the cameras."""
        if self._cameras is not None:
            self._cameras.close()
        self._pace.close()

    def _may_change(self, name: str) -> str:
        return "" if name.startswith(_LIVE) else "read when the node starts; start it anew"

    def _make(self, start: float) -> Simulation:
        options = self.options
        simulation = Simulation(
            options.episode, options.arm, options.gripper, start=start, warn=self._warn
        )
        simulation.break_(options.fault)
        return simulation

    def _warn(self, text: str) -> None:
        self.get_logger().warning(text)

    def _to_time(self, stamp: Time) -> float:
        if self._sim_time:
            return seconds(stamp)
        with self._pace.held() as simulation:
            return simulation.time + seconds(stamp) - 1e-9 * self.get_clock().now().nanoseconds

    def _to_stamp(self, simulated: float) -> Time:
        """Stamp of an event just now, at `simulated` seconds."""
        if not self._sim_time:
            return self.get_clock().now().to_msg()
        return rclpy.time.Time(nanoseconds=round(1e9 * simulated)).to_msg()

    def _tick(self) -> None:
        if not self._pace.alive:
            raise RuntimeError("the physics has ended; see above")
        options = self.options
        with self._pace.held() as simulation:
            # Faults that changed since the last joint state.
            if options.fault != self._faults:
                simulation.break_(options.fault)
                self._faults = options.fault
            reading = simulation.reading()
        # Clock, joint states, and one camera's images.
        stamp = self._to_stamp(reading.time)
        if self._clock_topic is not None:
            self._clock_topic.publish(ClockMsg(clock=stamp))
        if not options.fault.mute:
            msg = JointStateMsg(header=Header(stamp=stamp), name=list(reading.names))
            msg.position, msg.velocity = (
                buffer("d", reading.positions),
                buffer("d", reading.velocities),
            )
            self._joint_states.publish(msg)
        self._publish_images()

    def _monitor(self) -> None:
        for action in (self._arm, self._gripper):
            action.monitor(mute=self.options.fault.mute)

    def _shoot(self) -> None:
        """Take images if somebody subscribes and it is time."""
        # One request at a time, at the camera's rate, and for subscribers only.
        since = time.monotonic() - self._shot_at
        if self._cameras is None or self._cameras.busy or since < 1 / self.options.camera.rate:
            return
        if not any(camera.wanted() for camera in self._images):
            return
        with self._pace.held() as simulation:
            snapshot = simulation.snapshot()
        self._shot_stamp, self._shot_at = self._to_stamp(snapshot.time), time.monotonic()
        self._with_cameras(lambda cameras: cameras.shoot(snapshot))

    def _publish_images(self) -> None:
        """Publish one camera at a time: bursts of megabytes are too much for best-effort
        subscribers."""
        if not self._to_publish:
            stamp = self._shot_stamp
            self._to_publish.extend(
                (shot, stamp) for shot in self._with_cameras(Cameras.arrived) or []
            )
        if self._to_publish:
            shot, stamp = self._to_publish.popleft()
            self._images[shot.camera].publish(shot, stamp, self.options.world_frame)

    def _with_cameras(self, do: Callable[[Cameras], T]) -> T | None:
        """Publish finished images."""
        if self._cameras is None:
            return None
        try:
            return do(self._cameras)
        except RuntimeError as error:
            self.get_logger().error(f"{error}; there are no images until the node is started anew")
            self._cameras.close()
            self._cameras = None
            return None

    def _publish_instruction(self) -> None:
        with self._pace.held() as simulation:
            task, setup = TASKS[simulation.episode.task], simulation.setup
        self._instruction.publish(
            Instruction(kind=Instruction.DOCUMENT, text=task_document(task, setup))
        )

    def _on_success(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._pace.held() as simulation:
            response.success, measures = simulation.verdict()
        response.message = ", ".join(f"{name} {value:.4g}" for name, value in measures.items())
        return response

    async def _on_reset(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        before = self._pace.resets
        self._pace.reset()
        while self._pace.resets == before and self._pace.error is None:
            await yield_to_executor()
        response.success = self._pace.error is None
        response.message = str(
            self._pace.error or f"{self.options.task} with seed {self.options.seed}"
        )
        self._publish_instruction()
        return response


class _Camera:
    """Topics of one camera."""

    def __init__(self, node: Node, number: int) -> None:
        name = f"camera_{number}"
        self._frame = f"{name}_optical_frame"
        self._depth = node.create_publisher(Image, f"{name}/depth/image", 5)
        self._info = node.create_publisher(CameraInfo, f"{name}/depth/camera_info", 5)
        self._color = node.create_publisher(Image, f"{name}/color/image", 5)
        self._pose = node.create_publisher(PoseStamped, f"{name}/pose", 5)

    def wanted(self) -> bool:
        """True if somebody subscribes."""
        return bool(self._depth.get_subscription_count() or self._color.get_subscription_count())

    def publish(self, shot: Shot, stamp: Time, world_frame: str) -> None:
        """Publish all topics of one image."""
        header = Header(stamp=stamp, frame_id=self._frame)
        height, width = shot.depth.shape
        pose = PoseStamped(
            header=Header(stamp=stamp, frame_id=world_frame), pose=pose_to_msg(shot.X_world_camera)
        )
        self._pose.publish(pose)
        self._info.publish(intrinsics_to_info(shot.intrinsics, height, width, header))
        self._depth.publish(depth_to_image(shot.depth, header))
        color = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
        color.data = array("B", np.ascontiguousarray(shot.color).tobytes())
        self._color.publish(color)


def main() -> None:
    """Entry point."""
    spin(SimNode)


if __name__ == "__main__":
    main()
