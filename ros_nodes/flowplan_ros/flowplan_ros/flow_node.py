"""Action server `generate_flow`: an instruction to motions of a scene, by any generator.

The generator chord follows sentences. Others need a document on the latched topic
`task/instruction` whose `prompt` is the sentence. The flow of the newest motion is published for
previews, to late subscribers too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from flowplan_msgs.action import GenerateFlow
from flowplan_msgs.msg import ErrorCode, Instruction, ObjectFlow

from flowplan.utils import bounds
from flowplan.utils.bounds import Choices, Interval
from flowplan_ros import conversions, jobs
from flowplan_ros.server import LATCHED, Failure, Goal, GoalServer, ServerNode, spin
from flowplan_ros.worker import Worker
from generators import registry


@dataclass(frozen=True)
class FlowNodeOptions:
    """Parameters of flow_node."""

    generator: Annotated[str, Choices(registry.NAMES)] = "kinematic"
    """Generator of the motions."""
    device: str = "auto"
    """Device of a generator that computes with torch: auto, cpu or cuda[:N]."""
    flow_points: Annotated[int, Interval(100, 100_000)] = 2000
    """Points of object flow sampled on each object."""
    frame: str = "world"
    """Frame of all scenes."""
    warm_up_timeout: Annotated[float, Interval(1.0, 3600.0)] = 120.0
    """Seconds that loading the generator may take."""

    def __post_init__(self) -> None:
        bounds.check(self)


class FlowNode(ServerNode[FlowNodeOptions]):
    """Node that generates motions."""

    worker: Worker

    def __init__(self) -> None:
        super().__init__("flow_node", FlowNodeOptions(), fixed=("generator", "device"))
        self._documents: dict[str, str] = {}
        self._flow = self.create_lifecycle_publisher(ObjectFlow, "flow", LATCHED)
        self.create_subscription(Instruction, "task/instruction", self._learn, LATCHED)
        GoalServer(self, GenerateFlow, "generate_flow", self._generate)

    def configure(self) -> None:
        """Load the generator."""
        self.worker = self.start_worker(
            partial(jobs.warm_generator, self.options.generator, self.options.device),
            self.options.warm_up_timeout,
        )

    def cleanup(self) -> None:
        """Unload the generator."""
        self.worker.close()

    def _learn(self, msg: Instruction) -> None:
        """Remember a document by its sentence."""
        try:
            prompt = json.loads(msg.text).get("prompt", "")
        except (ValueError, AttributeError) as error:
            self.get_logger().warning(
                f"task/instruction.text: not a JSON object ({error}); ignored"
            )
            return
        self._documents[conversions.plain(prompt)] = msg.text

    def _asked(self, instruction: Instruction) -> Instruction:
        """Instruction as the generator takes it: a sentence, or the document of a sentence."""
        if registry.takes(self.options.generator) == "prompt":
            return conversions.as_prompt(instruction)
        if (
            instruction.kind == Instruction.PROMPT
            and conversions.plain(instruction.text) in self._documents
        ):
            return conversions.document_to_msg(self._documents[conversions.plain(instruction.text)])
        return instruction

    async def _generate(self, goal: Goal) -> GenerateFlow.Result:
        request, options = goal.request, self.options
        conversions.frame_of(request.scene.header, options.frame, "scene")
        scene = conversions.scene_from_msg(request.scene)
        laws, instruction = conversions.instruction_from_msg(
            self._asked(request.instruction), scene
        )
        goal.on_stop(self.worker.cancel)
        arguments = (laws, scene, instruction, options.flow_points, request.seed)
        try:
            made = await self.worker.call(
                jobs.generate_motions, *arguments, on_progress=goal.feedback
            )
        except ValueError as error:
            raise Failure(ErrorCode.CANNOT_FOLLOW, str(error)) from None
        header = request.scene.header
        flow = conversions.flow_to_msg(made.flow, header)
        self._flow.publish(flow)
        return GenerateFlow.Result(
            motions=[conversions.motion_to_msg(motion, scene, header) for motion in made.motions],
            flow=flow,
            generation_time=conversions.duration_to_msg(made.seconds),
        )


def main() -> None:
    """Entry point."""
    spin(FlowNode)


if __name__ == "__main__":
    main()
