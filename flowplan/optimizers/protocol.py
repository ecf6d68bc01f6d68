"""Trajectory optimization along a flow: the problem, options and solution that all optimizers
share.

An optimizer is a function `(TrackProblem, TrackOptions, *, seed) -> TrackSolution`; see
`Optimizer`. The default, `flowplan.optimizers.levenberg_marquardt`, runs on every machine. Others
are modules with their own heavy dependencies, listed in `flowplan.optimizers.registry`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Protocol

import numpy as np

from flowplan.attachment import Attachment
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    import trimesh

    from flowplan.collision.distance_field import DistanceField
    from flowplan.robot import Robot


@dataclass(frozen=True, eq=False)
class TrackProblem:
    """A robot that should follow an attachment among obstacles.

    Attributes:
        robot: the arm.
        times: (T,) seconds, those of the attachment.
        attachment: desired tool motion, with its weights.
        field: distance to the obstacles of robot and held object.
        held_spheres: (H, 4) x, y, z, radius in the tool frame that cover the held object; possibly
            empty.
        q_start: (J,) configuration at the first time, or None to choose one that reaches the grasp.
        width: gripper opening in meters, or None for fully open.
        obstacles: meshes that `field` measures, world frame, meters; the support plane as a slab.
            An optimizer may use either representation. Empty if the caller has the field alone.
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
                f"TrackProblem.times: expected {len(self.attachment.X_world_tool)} times, "
                f"one per pose of the attachment, got {len(times)}"
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
    """Costs, tolerances and effort of trajectory optimization.

    Every cost is in units of a tolerance, so that one unit is about one millimeter off the flow.
    """

    position_tolerance: Annotated[float, Interval(1e-5, 0.1)] = 1e-3
    """Meters off the flow that cost one unit."""
    margin: Annotated[float, Interval(0, 0.2)] = 0.015
    """Clearance in meters of robot and held object from obstacles, where the flow permits it."""
    self_margin: Annotated[float, Interval(0, 0.2)] = 0.01
    """Clearance in meters between the robot's links."""
    clearance_tolerance: Annotated[float, Interval(1e-5, 0.1)] = 2e-3
    """Meters of missing clearance that cost one unit."""
    clearance: Annotated[float, Interval(0, 0.2)] = 0.0
    """Clearance in meters of the robot that a converged solution must have."""
    converged_position_error: Annotated[float, Interval(1e-4, 1)] = 5e-3
    """Largest position error in meters of a converged solution. Otherwise further seeds are
    tried."""
    converged_rotation_error: Annotated[float, Interval(1e-3, 3.2)] = 0.05
    """Largest error in radians, over the observed rotations, of a converged solution."""
    smoothness: Annotated[float, Interval(0, 1000)] = 1.0
    """Cost per time of an acceleration at the joint's limit."""
    shortness: Annotated[float, Interval(0, 1000)] = 0.2
    """Cost per time of a velocity at the joint's limit."""
    limit_share: Annotated[float, Interval(0.01, 1)] = 0.95
    """Fraction of the joint velocity, acceleration and jerk limits to use, where the flow's timing
    permits it."""
    min_manipulability: Annotated[float, Interval(0, 1)] = 0.02
    """Yoshikawa's manipulability below which the distance to a singularity costs."""
    free_rotation: Annotated[float, Interval(0, 10)] = 1e-3
    """Lever arm in meters that keeps unobserved rotations near the least turning."""
    seeds: Annotated[int, Interval(1, 100)] = 3
    """Trajectories optimized side by side in the first round."""
    starts: Annotated[int, Interval(1, 1000)] = 24
    """Configurations at the first pose from which the seeds are selected."""
    rounds: Annotated[int, Interval(1, 100)] = 3
    """Sets of seeds to try until a solution converges. Later sets are larger and follow the path
    more closely."""
    iterations: Annotated[int, Interval(1, 10_000)] = 40
    """Maximum number of Levenberg-Marquardt steps per set of seeds."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, eq=False)
class TrackSolution:
    """A joint trajectory at the flow's times, with its errors.

    Attributes:
        q: (T, J) positions, within the joint limits.
        position_error: (T,) meters between the center of the held patch and its target in the flow.
        rotation_error: (T,) radians off the flow, over the observed rotations.
        clearance: (T,) meters from the robot to the nearest obstacle or other part of itself, at
            each time and halfway to the next (negative: penetration), at most the reach of the
            field. Overlaps that the flow itself requires (fingers that pick up a coin) do not
            count.
        held_clearance: (T,) the same from the held object to obstacles and the arm; infinite if
            nothing is held.
        slowdown: factor, at least 1, by which all times must be stretched to meet the velocity,
            acceleration and jerk limits.
        converged: errors and clearance are within the tolerances of the options.
        iterations: number of optimizer steps, over all rounds.
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
            value = checks.array(f"TrackSolution.{name}", getattr(self, name), (T,))
            object.__setattr__(self, name, value)
        held = checks.array("TrackSolution.held_clearance", self.held_clearance, (T,), finite=False)
        object.__setattr__(self, "held_clearance", held)


class Optimizer(Protocol):
    """Solver of track problems; the same seed gives the same solution."""

    def __call__(
        self, problem: TrackProblem, options: TrackOptions = ..., *, seed: int = 0
    ) -> TrackSolution: ...


__all__ = ["Optimizer", "TrackOptions", "TrackProblem", "TrackSolution"]
