"""The stages of a run that can be shown, and the folder that they are read from."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from flowplan.grasp import ContactCandidates
from flowplan.io.gltf import check_fits_scene
from flowplan.io.npz import load
from flowplan.motion import ObjectFlow, SceneMotion
from flowplan.robot import Robot, load_robot
from flowplan.rollout import Rollout
from flowplan.scene import Scene
from flowplan.trajectory import Phase, Trajectory


@dataclass(frozen=True, eq=False)
class Run:
    """Everything that can be shown; a stage that did not happen is None.

    Attributes:
        scene: Objects and obstacles.
        motion: Requested motion of the objects.
        flow: Points on them.
        candidates: Candidate contacts, best first.
        chosen: The contact that the robot makes (one).
        robot: The robot that was planned with.
        trajectory: Trajectory of the robot; needs `robot`.
        rollout: Measurements on the trajectory's clock; its points are shown.
        title: Title of the page.
    """

    scene: Scene
    motion: SceneMotion | None = None
    flow: ObjectFlow | None = None
    candidates: ContactCandidates | None = None
    chosen: ContactCandidates | None = None
    robot: Robot | None = None
    trajectory: Trajectory | None = None
    rollout: Rollout | None = None
    title: str = "flowplan"

    def __post_init__(self) -> None:
        if self.motion is not None:
            check_fits_scene(self.scene, self.motion)
        if self.trajectory is not None and self.robot is None:
            raise ValueError("Run.robot: expected the robot of the trajectory, got None")
        for field in ("trajectory", "rollout"):
            record = getattr(self, field)
            if record is None or self.robot is None:
                continue
            if record.joint_names != self.robot.joint_names:
                expected, got = ", ".join(self.robot.joint_names), ", ".join(record.joint_names)
                raise ValueError(
                    f"Run.{field}: expected joints {expected} of {self.robot.name}, got {got}; "
                    "give the robot that moved"
                )

    @property
    def duration(self) -> float:
        """Duration on the robot's clock, or on the motion's if no robot moves, seconds."""
        robot = [r.times[-1] for r in (self.trajectory, self.rollout) if r is not None]
        flow = [r.times[-1] for r in (self.motion, self.flow) if r is not None]
        return float(max(robot or flow or [0.0]))

    def flow_time(self, t: float) -> float:
        """Time on the flow's clock at time t of the robot's, seconds.

        It stands at 0 until the robot manipulates, and runs from the flow's first frame to its last
        while it does.
        """
        end = max((r.times[-1] for r in (self.motion, self.flow) if r is not None), default=0.0)
        if self.trajectory is None:
            return min(t, float(end))
        # First and last sample of the manipulation carry the whole flow.
        held = self.trajectory.times[self.trajectory.phase == Phase.MANIPULATE]
        return float(np.interp(t, [held[0], held[-1]], [0.0, end])) if len(held) > 1 else 0.0


def read_run(folder: str | Path, robot: Robot | None = None) -> Run:
    """The run in a folder: scene.npz, and motion, flow, candidates, plan and rollout if present.

    Args:
        folder: Written by `flowplan run`, or by anyone who names the files so.
        robot: The robot. Defaults to the one of this project with the joints of the plan or the
            rollout. If there is none, the trajectory is not shown.
    """
    from flowplan.planner import Plan  # loads the optimizers

    folder = Path(folder)

    def stage(kind: Any, *names: str) -> Any:
        files = [folder / f"{name}.npz" for name in names]
        return next((load(file, kind) for file in files if file.is_file()), None)

    # The plan's or the rollout's joints identify the robot.
    plan, rollout = stage(Plan, "plan"), stage(Rollout, "rollout")
    if robot is None and (plan or rollout):
        robot = _robot_with((plan.trajectory if plan else rollout).joint_names)
    return Run(
        scene=load(folder / "scene.npz", Scene),
        motion=stage(SceneMotion, "motion"),
        flow=stage(ObjectFlow, "flow"),
        candidates=stage(ContactCandidates, "candidates", "grasps"),  # grasps: the former name
        chosen=plan.contact if plan else None,
        robot=robot,
        trajectory=plan.trajectory if plan and robot else None,
        rollout=rollout,
        title=folder.resolve().name,
    )


def _robot_with(joints: tuple[str, ...]) -> Robot | None:
    """The robot of this project with these joints."""
    files = sorted(p.name for p in resources.files("robot_configs").iterdir())
    names = [name.removesuffix(".toml") for name in files if name.endswith(".toml")]
    return next((r for r in map(load_robot, names) if r.joint_names == joints), None)
