"""Servers that answer at once, or go wrong in the way that parameter `fault` names; for the
client's tests.

`fault` is "STAGE fails", "STAGE waits" (until it is canceled), "STAGE hesitates" (two seconds
before it accepts, and then waits) or "asks" (the executor waits to be confirmed).
"""

import time
from functools import partial

from flowplan_msgs.action import ExecutePlan, GenerateFlow, PlanFlow
from flowplan_msgs.msg import ErrorCode, Instruction, SceneMotion, SceneObject
from flowplan_msgs.srv import Scan
from flowplan_ros.server import LATCHED, spin
from flowplan_ros.turn import yield_to_executor
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.node import Node
from std_srvs.srv import SetBool

DOCUMENT = '{"prompt": "Close the laptop.", "object": "laptop", "handles": [[0, 0, 0]], "targets": [[0, 0, 1]]}'


class FakeServers(Node):
    def __init__(self):
        super().__init__("fake_servers")
        self.declare_parameter("fault", "")
        self.said = None
        self.create_service(Scan, "scan", self.scan)
        self.create_service(SetBool, "executor_node/confirm", self.confirm)
        kinds = (("flow", GenerateFlow, "generate_flow"), ("plan", PlanFlow, "plan_flow"))
        kinds += (("execute", ExecutePlan, "execute_plan"),)
        self.servers = [
            ActionServer(
                self,
                kind,
                name,
                self.body(stage, kind),
                goal_callback=partial(self.accept, stage),
                cancel_callback=lambda handle: CancelResponse.ACCEPT,
            )
            for stage, kind, name in kinds
        ]
        self.tasks = self.create_publisher(Instruction, "task/instruction", LATCHED)
        self.tasks.publish(Instruction(kind=Instruction.DOCUMENT, text=DOCUMENT))
        self.create_timer(0.01, lambda: None)  # lets waiting bodies go on
        self.get_logger().info("ready")

    @property
    def fault(self):
        return self.get_parameter("fault").value

    def scan(self, request, response):
        if self.fault == "scan fails":
            response.error_code, response.error_msg = ErrorCode.NOTHING_SEEN, "an empty table"
        response.scene.objects = [SceneObject(name=name) for name in request.names]
        return response

    def confirm(self, request, response):
        self.said, response.success = request.data, True
        return response

    def accept(self, stage, request):
        if self.fault == f"{stage} hesitates":
            self.get_logger().info(f"{stage} asked")
            time.sleep(2.0)
        return GoalResponse.ACCEPT

    def body(self, stage, kind):
        async def run(handle):
            result = kind.Result()
            self.get_logger().info(f"{stage} begun")
            for _ in range(
                20
            ):  # the client's end of the topic may be there a moment later than its goal
                handle.publish_feedback(kind.Feedback(progress=0.5, status=f"{stage} half done"))
                await yield_to_executor()
            if stage == "execute" and self.fault == "asks":
                handle.publish_feedback(kind.Feedback(status="waiting for confirmation"))
                while self.said is None and not handle.is_cancel_requested:
                    await yield_to_executor()
                if not self.said:
                    result.error_code, result.error_msg = ErrorCode.NOT_CONFIRMED, "declined"
            begun = time.monotonic()
            while (
                self.fault in (f"{stage} waits", f"{stage} hesitates")
                and time.monotonic() - begun < 60
            ):
                await yield_to_executor()
                if handle.is_cancel_requested:
                    self.get_logger().info(f"{stage} canceled")
                    result.error_code, result.error_msg = ErrorCode.CANCELED, "canceled"
                    handle.canceled()
                    return result
            if self.fault == f"{stage} fails":
                result.error_code, result.error_msg = ErrorCode.INTERNAL, f"{stage} went wrong"
            if result.error_code:
                handle.abort()
                return result
            if stage == "flow":
                request = handle.request
                assert [o.name for o in request.scene.objects] == ["laptop"]
                result.motions = [SceneMotion(times=[0.0, 1.0])]
            if stage == "plan":
                assert len(handle.request.motion.times) == 2
                result.plan.robot = "panda"
            if stage == "execute":
                assert handle.request.plan.robot == "panda"
                result.error_msg = "dry run" if handle.request.dry_run else "done"
            handle.succeed()
            return result

        return run


if __name__ == "__main__":
    spin(FakeServers)
