"""Options of the planner: one tree with everything that a plan depends on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from flowplan.attachment import AttachmentOptions
from flowplan.collision.phase_geometry import VOXEL
from flowplan.grasp import GraspOptions, PinchOptions, PushOptions, RankOptions
from flowplan.motion_quality.options import MotionOptions
from flowplan.optimizers import TrackOptions
from flowplan.paths.approach import ApproachOptions
from flowplan.paths.time_parameterization import TimingOptions
from flowplan.statics.options import RestOptions
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan.validation.options import ValidationOptions


@dataclass(frozen=True)
class GeometryOptions:
    """Resolution of the planner's world model, and its tolerances of contact."""

    voxel: Annotated[float, Interval(1e-3, 0.1)] = VOXEL
    """Edge length in meters of the voxels of the distance fields."""
    padding: Annotated[float, Interval(0.05, 2)] = 0.25
    """Margin in meters of the distance fields around the robot's base and all objects."""
    held_spheres: Annotated[int, Interval(1, 1000)] = 24
    """Number of spheres that cover the held object during trajectory optimization."""
    pinch_slack: Annotated[float, Interval(0, 0.1)] = 0.015
    """Meters by which the distance fields lower the support for pinches. Fingertips that pinch a
    cloth come closer to the support than the spheres that cover them; the validator checks their
    exact shape."""
    push_margin: Annotated[float, Interval(0, 0.2)] = 0.002
    """Largest clearance in meters that the approach of a push keeps: the hand waits just off the
    surface."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class SizeLimits:
    """Largest scene and motion that is planned for."""

    duration: Annotated[float, Interval(0.1, 36_000)] = 600.0
    """Seconds of a motion."""
    frames: Annotated[int, Interval(2, 100_000)] = 5000
    """Times of a motion."""
    bodies: Annotated[int, Interval(1, 100_000)] = 1000
    """Objects and obstacles of a scene."""
    faces: Annotated[int, Interval(1, 100_000_000)] = 1_000_000
    """Triangles of a scene."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class PlanOptions:
    """Options of every step from a motion to a certified plan."""

    contact: Literal["any", "grasp", "push"] = "any"
    """Kinds of contact to propose on rigid and articulated objects. Deformable ones are always
    pinched."""
    rank: bool = True
    """Rank the contacts jointly with the flow. Otherwise they are tried in the given order."""
    candidates: Annotated[int, Interval(1, 1000)] = 16
    """Number of contacts to try, best first, before giving up."""
    flow_points: Annotated[int, Interval(100, 100_000)] = 2000
    """Points sampled on each object."""
    timing: Literal["flow", "fast"] = "flow"
    """Keep the flow's timing (slowed down where limits require it), or move as fast as the limits
    allow."""
    release: Literal["auto", "always", "never"] = "auto"
    """Let go of the object at the end if it then rests (auto), whatever happens (always), or not
    (never). A plan that does not let go ends holding it, or in contact with it after a push."""
    dwell: Annotated[float, Interval(0, 10)] = 0.8
    """Seconds that the arm waits for the fingers to close, and again for them to open."""
    max_position_error: Annotated[float, Interval(1e-4, 1)] = 0.015
    """Meters between the tool and the flow above which a contact is refused."""
    max_rotation_error: Annotated[float, Interval(1e-3, 3.2)] = 0.25
    """Radians between the tool and the flow, over the observed rotations, above which a contact is
    refused."""
    grasp: GraspOptions = field(default_factory=GraspOptions)
    """Search for antipodal grasps."""
    push: PushOptions = field(default_factory=PushOptions)
    """Search for pushes."""
    pinch: PinchOptions = field(default_factory=PinchOptions)
    """Search for pinches of deformable objects."""
    ranking: RankOptions = field(default_factory=RankOptions)
    """Ranking of contacts with the flow."""
    attachment: AttachmentOptions = field(default_factory=AttachmentOptions)
    """Choice and robust fit of the held patch."""
    track: TrackOptions = field(default_factory=TrackOptions)
    """Trajectory optimization along the flow."""
    reach: ApproachOptions = field(default_factory=ApproachOptions)
    """Approach and retreat."""
    clock: TimingOptions = field(
        default_factory=lambda: TimingOptions(velocity=0.8, acceleration=0.6, jerk=0.6)
    )
    """Sampling period, and the fraction of the joint limits to use."""
    geometry: GeometryOptions = field(default_factory=GeometryOptions)
    """Distance fields, held spheres and contact tolerances."""
    size: SizeLimits = field(default_factory=SizeLimits)
    """Size of scenes and motions that is accepted: memory and time grow with it."""
    motion: MotionOptions = field(default_factory=MotionOptions)
    """Requirements on the motion itself, before it is planned for."""
    rest: RestOptions = field(default_factory=RestOptions)
    """Requirements for an object to rest where it is let go."""
    validation: ValidationOptions = field(default_factory=ValidationOptions)
    """Requirements of the independent validator."""

    def __post_init__(self) -> None:
        bounds.check(self)
