"""Joint trajectories along a flow: one problem, one options record, one solution, whichever optimizer solves it.

An optimizer is a function `(TrackProblem, TrackOptions, *, seed) -> TrackSolution`. `flowplan.optimizers.levenberg_marquardt`
runs anywhere; others live in modules of this package that import their own heavy dependencies.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import trimesh

from flowplan.attachment import Attachment
from flowplan.collision.distance_field import DistanceField
from flowplan.robot import Robot
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray


@dataclass(frozen=True, eq=False)
class TrackProblem:
    """Follow an attachment with a robot, among obstacles.

    Attributes:
        robot: the arm.
        times: (T,) seconds, those of the attachment.
        attachment: what the flow asks of the tool.
        field: distance to what robot and held object must not touch.
        held_spheres: (H, 4) x, y, z, radius in the tool frame: the held object; possibly empty.
        q_start: (J,) configuration of the first time, or None to choose one that puts the tool at the grasp.
        width: metres the gripper stays open, or None for wide open.
        obstacles: meshes that `field` measures, world frame, meters, the support plane as a slab. Optimizers may use
            either; possibly empty if the caller has the field alone.
    """

    robot: Robot
    times: FloatArray
    attachment: Attachment
    field: DistanceField
    held_spheres: FloatArray = dataclasses.field(default_factory=lambda: np.zeros((0, 4)))
    q_start: FloatArray | None = None
    width: float | None = None
    obstacles: tuple[trimesh.Trimesh, ...] = ()

    def __post_init__(self) -> None:
        times = checks.times("TrackProblem.times", self.times)
        if len(times) != len(self.attachment.X_world_tool):
            raise ValueError(
                f"TrackProblem.times: expected {len(self.attachment.X_world_tool)} times, one per pose of the "
                f"attachment, got {len(times)}"
            )
        object.__setattr__(self, "times", times)
        spheres = np.asarray(self.held_spheres, float)
        if spheres.size:
            spheres = checks.array("TrackProblem.held_spheres", spheres, ("H", 4))
        object.__setattr__(self, "held_spheres", spheres.reshape(-1, 4))
        if self.q_start is not None:
            q = checks.array("TrackProblem.q_start", self.q_start, (len(self.robot.joint_names),))
            object.__setattr__(self, "q_start", q)


@dataclass(frozen=True)
class TrackOptions:
    """What a trajectory along a flow is worth."""

    position_tolerance: float = 1e-3
    """Metres off the flow that cost one unit; every other tolerance is weighed against it."""
    margin: float = 0.015
    """Metres that robot and held object keep from obstacles where the flow lets them."""
    self_margin: float = 0.01
    """Metres that the robot's links keep from each other."""
    clearance_tolerance: float = 2e-3
    """Metres short of a margin that cost one unit."""
    clearance: float = 0.0
    """Metres between the robot and anything that a solution must keep to count as converged."""
    max_position_error: float = 5e-3
    """Metres off the flow beyond which a solution does not count as converged, and other seeds are tried."""
    max_rotation_error: float = 0.05
    """Radians off the flow, over the rotations that it shows, likewise."""
    smoothness: float = 1.0
    """Cost, per time, of an acceleration at the joint's limit."""
    shortness: float = 0.2
    """Cost, per time, of a velocity at the joint's limit."""
    limit_share: float = 0.95
    """Share of the joint velocity, acceleration and jerk limits to stay within, where the flow's clock lets it."""
    min_manipulability: float = 0.02
    """Yoshikawa's measure below which coming nearer to a singularity costs."""
    free_rotation: float = 1e-3
    """Metres: lever arm with which a rotation that the flow does not show is held near the least turning."""
    seeds: int = 3
    """Trajectories optimised side by side in the first round."""
    starts: int = 24
    """Configurations that reach for the first pose, from which the seeds are chosen."""
    rounds: int = 3
    """Sets of seeds, until a solution is within the tolerances; the later ones are larger and follow the path closer."""
    iterations: int = 40
    """Levenberg-Marquardt steps per set of seeds at most."""

    def __post_init__(self) -> None:
        for name in (
            "position_tolerance",
            "clearance_tolerance",
            "max_position_error",
            "max_rotation_error",
        ):
            checks.positive(f"TrackOptions.{name}", getattr(self, name))
        for name in (
            "margin",
            "self_margin",
            "clearance",
            "smoothness",
            "shortness",
            "min_manipulability",
        ):
            checks.positive(f"TrackOptions.{name}", getattr(self, name), zero=True)
        checks.positive("TrackOptions.free_rotation", self.free_rotation, zero=True)
        if not 0 < self.limit_share <= 1:
            raise ValueError(
                f"TrackOptions.limit_share: expected a share in (0, 1], got {self.limit_share:g}"
            )
        for name in ("seeds", "starts", "rounds", "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"TrackOptions.{name}: expected at least 1, got {getattr(self, name)}"
                )


@dataclass(frozen=True, eq=False)
class TrackSolution:
    """A joint trajectory at the flow's own times, and what it is worth.

    Attributes:
        q: (T, J) positions, within the joint limits.
        position_error: (T,) metres between the middle of the held patch and where the flow takes it.
        rotation_error: (T,) radians off the flow, over the rotations that it shows.
        clearance: (T,) metres from the robot to the nearest obstacle or other part of itself, at each time and half
            way to the next (negative: penetration). Obstacles farther than the field's reach count as that far. What
            the flow itself brings into touch (fingers that pick up a coin) is measured from there.
        held_clearance: (T,) likewise from the held object to obstacles and to the arm; infinite where nothing is held.
        slowdown: factor, at least 1, by which the clock must be slowed uniformly to meet the velocity, acceleration
            and jerk limits.
        converged: errors and clearance are within the tolerances of the options.
        iterations: optimizer steps, over all rounds.
        cost: final value of the objective, dimensionless.
    """

    q: FloatArray
    position_error: FloatArray
    rotation_error: FloatArray
    clearance: FloatArray
    held_clearance: FloatArray
    slowdown: float
    converged: bool
    iterations: int
    cost: float

    def __post_init__(self) -> None:
        T = len(self.q)
        object.__setattr__(self, "q", checks.array("TrackSolution.q", self.q, (T, "J")))
        for name in ("position_error", "rotation_error", "clearance"):
            object.__setattr__(
                self, name, checks.array(f"TrackSolution.{name}", getattr(self, name), (T,))
            )
        held = checks.array("TrackSolution.held_clearance", self.held_clearance, (T,), finite=False)
        object.__setattr__(self, "held_clearance", held)


class Optimizer(Protocol):
    """Solves a TrackProblem; the same seed gives the same solution."""

    def __call__(
        self, problem: TrackProblem, options: TrackOptions = ..., *, seed: int = 0
    ) -> TrackSolution: ...


__all__ = ["Optimizer", "TrackOptions", "TrackProblem", "TrackSolution"]
