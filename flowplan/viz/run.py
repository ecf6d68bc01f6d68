"""The stages of a run that can be shown, and the folder that they are read from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowplan.grasp import ContactCandidates
from flowplan.io.gltf import check_fits_scene
from flowplan.io.npz import load
from flowplan.motion import ObjectFlow, SceneMotion
from flowplan.robot import Robot, load_robot
from flowplan.rollout import Rollout
from flowplan.scene import Scene
from flowplan.trajectory import Phase, Trajectory
from flowplan.utils.checks import FloatArray
from flowplan.validation.validator import Certificate

if TYPE_CHECKING:
    from flowplan.planner import Plan

_LONGEST_REPORT = 100_000
"""Characters of a written report that are shown, at most."""


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
        certificate: Certificate of the trajectory, with its least clearance.
        flow_times: (S,) seconds on the flow's clock at each sample of the trajectory. Defaults to
            an even pace from the start of the manipulation to its end.
        report: Feasibility report, as text.
        notes: Lines on what could not be shown, and why.
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
    certificate: Certificate | None = None
    flow_times: FloatArray | None = None
    report: str = ""
    notes: tuple[str, ...] = ()
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
        if self.trajectory is not None and self.flow_times is not None:
            S, shape = len(self.trajectory.times), np.shape(self.flow_times)
            if shape != (S,):
                raise ValueError(
                    f"Run.flow_times: expected one for each of the trajectory's {S} samples, "
                    f"got shape {shape}; give those of the same plan"
                )

    @classmethod
    def of_plan(
        cls,
        scene: Scene,
        motion: SceneMotion,
        plan: Plan,
        robot: Robot,
        *,
        flow: ObjectFlow | None = None,
        title: str = "flowplan",
    ) -> Run:
        """The run of a plan that has not been executed, with its certificate and report.

        Args:
            scene: The scene that was planned in.
            motion: The motion that was planned for.
            plan: Result of flowplan.plan.
            robot: The robot, with its base where it stood.
            flow: Points on the objects. Defaults to none.
            title: Title of the page.
        """
        from flowplan.report import feasibility

        return cls(
            scene,
            motion,
            flow,
            chosen=plan.contact,
            robot=robot,
            trajectory=plan.trajectory,
            certificate=plan.certificate,
            flow_times=plan.flow_time,
            report=feasibility(plan),
            title=title,
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
        while it does, at the pace of `flow_times`.
        """
        end = max((r.times[-1] for r in (self.motion, self.flow) if r is not None), default=0.0)
        if self.trajectory is None:
            return min(t, float(end))
        if self.flow_times is not None:
            return float(np.interp(t, self.trajectory.times, self.flow_times))
        # First and last sample of the manipulation carry the whole flow.
        held = self.trajectory.times[self.trajectory.phase == Phase.MANIPULATE]
        return float(np.interp(t, [held[0], held[-1]], [0.0, end])) if len(held) > 1 else 0.0


def read_run(folder: str | Path, robot: Robot | None = None) -> Run:
    """The run in a folder: scene.npz, and motion, flow, candidates, plan and rollout if present.

    Args:
        folder: Written by `flowplan run`, or by anyone who names the files so.
        robot: The robot, with its base where it stood. Defaults to the plan's own, else to the one
            of this project with the joints of the plan or the rollout. If there is none, the
            trajectory is not shown, and a note says so.
    """
    from flowplan.planner import Plan  # loads the optimizers

    folder = Path(folder)

    def stage(kind: Any, *names: str) -> Any:
        files = [folder / f"{name}.npz" for name in names]
        return next((load(file, kind) for file in files if file.is_file()), None)

    plan, rollout = stage(Plan, "plan"), stage(Rollout, "rollout")
    notes: tuple[str, ...] = ()
    if robot is None and plan is not None:
        robot, notes = _robot_of(plan)
    elif robot is None and rollout is not None:
        robot = _robot_with(rollout.joint_names)
    shown = plan if robot is not None else None
    return Run(
        scene=load(folder / "scene.npz", Scene),
        motion=stage(SceneMotion, "motion"),
        flow=stage(ObjectFlow, "flow"),
        candidates=stage(ContactCandidates, "candidates", "grasps"),  # grasps: the former name
        chosen=plan.contact if plan else None,
        robot=robot,
        trajectory=shown.trajectory if shown else None,
        rollout=rollout,
        certificate=plan.certificate if plan else None,
        flow_times=plan.flow_time if plan and len(plan.flow_time) else None,
        report=_report(folder, plan),
        notes=notes,
        title=folder.resolve().name,
    )


def _report(folder: Path, plan: Plan | None) -> str:
    """The feasibility report: of the plan, or the one that was written where there is none."""
    if plan is not None:
        from flowplan.report import feasibility

        return feasibility(plan)
    file = folder / "feasibility.txt"
    if not file.is_file():
        return ""
    with file.open(errors="replace") as text:
        return text.read(_LONGEST_REPORT)


def _robot_of(plan: Plan) -> tuple[Robot | None, tuple[str, ...]]:
    """The robot of a plan where it stood; None and a note if its file cannot be read."""
    mounting, joints = plan.mounting, plan.trajectory.joint_names
    try:
        robot = load_robot(mounting.file) if mounting.file else _robot_with(joints)
        if robot is None:
            raise ValueError(f"no robot of this project has the joints {', '.join(joints)}")
        if robot.joint_names != joints:
            raise ValueError(f"{mounting.file}: has other joints than the plan")
    except ValueError as error:
        # The file has moved or changed; a robot of this project may do.
        robot = _robot_with(joints)
        note = f"{mounting.name or 'robot'}: {error}; name its file with --robot"
        if robot is None:
            return None, (f"The arm is not drawn. {note}",)
        return replace(robot, X_world_base=mounting.X_world_base), (
            f"Drawn with this project's {robot.name}. {note}",
        )
    return replace(robot, X_world_base=mounting.X_world_base), ()


def _robot_with(joints: tuple[str, ...]) -> Robot | None:
    """The robot of this project with these joints."""
    files = sorted(p.name for p in resources.files("robot_configs").iterdir())
    names = [name.removesuffix(".toml") for name in files if name.endswith(".toml")]
    return next((r for r in map(load_robot, names) if r.joint_names == joints), None)
