"""What there is, before anything moves: objects, the support they stand on, obstacles, and what is asked of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import trimesh

from flowplan.geometry import pose, transform
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray


@dataclass(frozen=True, eq=False)
class SceneObject:
    """One object: a triangle mesh and where it is.

    Attributes:
        name: unique within its scene.
        mesh: trimesh.Trimesh, vertices in the object frame, metres. It need not be convex or watertight.
        X_world_object: (4, 4) pose of the object frame in the world.
    """

    name: str
    mesh: trimesh.Trimesh
    X_world_object: FloatArray = field(default_factory=pose)

    def __post_init__(self) -> None:
        where = f"SceneObject[{self.name}]"
        if not isinstance(self.mesh, trimesh.Trimesh):
            raise ValueError(
                f"{where}.mesh: expected a trimesh.Trimesh, got {type(self.mesh).__name__}"
            )
        if len(self.mesh.faces) == 0:
            raise ValueError(
                f"{where}.mesh: has no faces; scan again or mesh the point cloud first"
            )
        if not np.isfinite(self.mesh.vertices).all():
            raise ValueError(
                f"{where}.mesh: vertices are not all finite; repair the mesh with flowplan.scan.load_mesh"
            )
        object.__setattr__(
            self, "X_world_object", checks.poses(f"{where}.X_world_object", self.X_world_object)
        )

    @property
    def vertices_world(self) -> FloatArray:
        """Vertices (V, 3) in the world frame, metres."""
        return transform(self.X_world_object, self.mesh.vertices)

    @property
    def mesh_world(self) -> trimesh.Trimesh:
        """The mesh with its vertices in the world frame."""
        return trimesh.Trimesh(self.vertices_world, self.mesh.faces, process=False)


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything the planner knows of the world.

    Attributes:
        objects: what a generator may move; names are unique.
        support_height: z of the horizontal support plane in the world, metres; None where there is none.
        obstacles: what nothing moves and the robot must not touch, each convex or not; names are unique too.
    """

    objects: tuple[SceneObject, ...]
    support_height: float | None = 0.0
    obstacles: tuple[SceneObject, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "objects", tuple(self.objects))
        object.__setattr__(self, "obstacles", tuple(self.obstacles))
        names = [o.name for o in self.objects + self.obstacles]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(
                f"Scene.objects: names must be unique, got {twice} more than once; rename them"
            )
        if self.support_height is not None and not np.isfinite(self.support_height):
            raise ValueError(
                f"Scene.support_height: expected metres or None, got {self.support_height}"
            )

    def index(self, name: str) -> int:
        """Position of the object called `name` in `objects`."""
        names = [o.name for o in self.objects]
        checks.choice("object", name, names)
        return names.index(name)


@dataclass(frozen=True)
class Prompt:
    """Say it: "close the laptop"."""

    text: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("Prompt.text: expected a sentence, got an empty string")


@dataclass(frozen=True, eq=False)
class Action:
    """Show where some points of one object should go, or what pushes them.

    Attributes:
        object: name of the scene object.
        handles: (H, 3) points on it at t = 0, world frame, metres.
        targets: (H, 3) where they should be at the end, world frame, metres; or None.
        forces: (H, 3) newtons in the world frame, applied at the handles; or None.
        velocities: (H, 3) initial velocities, m/s, world frame; or None.
        duration: seconds.
    """

    object: str
    handles: FloatArray
    targets: FloatArray | None = None
    forces: FloatArray | None = None
    velocities: FloatArray | None = None
    duration: float = 2.0

    def __post_init__(self) -> None:
        handles = checks.array("Action.handles", self.handles, ("H", 3))
        object.__setattr__(self, "handles", handles)
        given = 0
        for name in ("targets", "forces", "velocities"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(
                    self, name, checks.array(f"Action.{name}", value, (len(handles), 3))
                )
                given += 1
        if not given:
            raise ValueError(
                "Action.targets: expected at least one of targets, forces, velocities; got none"
            )
        checks.positive("Action.duration", self.duration)


@dataclass(frozen=True, eq=False)
class Observation:
    """Demonstrate it: one point cloud per time, of the object as it moved.

    Attributes:
        object: name of the scene object.
        times: (T,) seconds, times[0] = 0.
        clouds: T arrays (P_t, 3), world frame, metres.
    """

    object: str
    times: FloatArray
    clouds: tuple[FloatArray, ...]

    def __post_init__(self) -> None:
        times = checks.times("Observation.times", self.times)
        object.__setattr__(self, "times", times)
        clouds = tuple(
            checks.array(f"Observation.clouds[{i}]", c, ("P", 3)) for i, c in enumerate(self.clouds)
        )
        if len(clouds) != len(times):
            raise ValueError(
                f"Observation.clouds: expected {len(times)} clouds, one a time, got {len(clouds)}"
            )
        object.__setattr__(self, "clouds", clouds)


Instruction = Prompt | Action | Observation
