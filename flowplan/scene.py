"""Scenes (objects, support plane, obstacles) and the instructions given to a motion generator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from flowplan.geometry import pose, transform
from flowplan.parts import Articulation
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    import trimesh


@dataclass(frozen=True, eq=False)
class SceneObject:
    """One object: a triangle mesh and its pose.

    Attributes:
        name: unique within its scene.
        mesh: trimesh.Trimesh, vertices in the object frame, meters. It need not be convex or
            watertight.
        X_world_object: (4, 4) pose of the object frame in the world.
        deformable: True for cloth and the like, which is pinched at one point and does not block
            the fingers; False for anything rigid or articulated, which is grasped or pushed and is
            an obstacle. None lets the planner guess
            (flowplan.collision.phase_geometry.is_deformable) and report its guess.
        articulation: its rigid parts and their joints, if they are known; a part for each face of
            the mesh, joints in the object frame.
    """

    name: str
    mesh: trimesh.Trimesh
    X_world_object: FloatArray = field(default_factory=pose)
    deformable: bool | None = None
    articulation: Articulation | None = None

    def __post_init__(self) -> None:
        import trimesh

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
                f"{where}.mesh: vertices are not all finite; "
                "repair the mesh with flowplan.scan.load_mesh"
            )
        if self.deformable not in (True, False, None):
            raise ValueError(
                f"{where}.deformable: expected True, False or None, got {self.deformable!r}"
            )
        if self.articulation is not None and len(self.articulation.part) != len(self.mesh.faces):
            raise ValueError(
                f"{where}.articulation: names parts of {len(self.articulation.part)} faces, the "
                f"mesh has {len(self.mesh.faces)}; estimate it again, or set it to None"
            )
        object.__setattr__(
            self, "X_world_object", checks.poses(f"{where}.X_world_object", self.X_world_object)
        )

    @property
    def vertices_world(self) -> FloatArray:
        """Vertices (V, 3) in the world frame, meters."""
        return transform(self.X_world_object, self.mesh.vertices)

    @property
    def mesh_world(self) -> trimesh.Trimesh:
        """The mesh with its vertices in the world frame."""
        import trimesh

        return trimesh.Trimesh(self.vertices_world, self.mesh.faces, process=False)

    def at(self, joints: Mapping[str, float]) -> SceneObject:
        """The object with its joints at other positions, its root part where it is.

        Args:
            joints: positions by joint name, rad or m.

        Raises:
            ValueError: if the object has no articulation, or no such joint.
        """
        import trimesh

        if self.articulation is None:
            raise ValueError(f"SceneObject[{self.name}].articulation: None, so it has no joints")
        X = self.articulation.displacements(joints)
        owner = self.articulation.part_of_vertex(self.mesh.faces, len(self.mesh.vertices))
        vertices = np.einsum("vij,vj->vi", X[owner, :3, :3], self.mesh.vertices) + X[owner, :3, 3]
        mesh = trimesh.Trimesh(vertices, self.mesh.faces, process=False)
        mesh.visual = self.mesh.visual
        return replace(self, mesh=mesh, articulation=self.articulation.moved(joints))


@dataclass(frozen=True, eq=False)
class Scene:
    """The planner's model of the world.

    Attributes:
        objects: objects that a generator may move.
        support_height: z of the horizontal support plane in the world frame, meters; None without a
            support.
        obstacles: static objects that the robot must not touch, convex or not. Names are unique
            among all objects and obstacles.
    """

    objects: tuple[SceneObject, ...]
    support_height: float | None = 0.0
    obstacles: tuple[SceneObject, ...] = ()

    def __post_init__(self) -> None:
        for field_name in ("objects", "obstacles"):
            object.__setattr__(self, field_name, _scene_objects(self, field_name))
        names = [o.name for o in self.objects + self.obstacles]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(
                f"Scene.objects: names must be unique, got {twice} more than once; rename them"
            )
        if self.support_height is not None and not np.isfinite(self.support_height):
            raise ValueError(
                f"Scene.support_height: expected meters or None, got {self.support_height}"
            )

    def index(self, name: str) -> int:
        """Index in `objects` of the object with this name."""
        names = [o.name for o in self.objects]
        checks.choice("object", name, names)
        return names.index(name)


def _scene_objects(scene: Scene, field_name: str) -> tuple[SceneObject, ...]:
    """A field of the scene as a tuple of scene objects."""
    value = getattr(scene, field_name)
    items = tuple(value) if isinstance(value, Iterable) else (value,)
    wrong = [type(item).__name__ for item in items if not isinstance(item, SceneObject)]
    if wrong or not isinstance(value, Iterable):
        got = wrong[0] if wrong else "a single one"
        raise ValueError(f"Scene.{field_name}: expected a tuple of SceneObjects, got {got}")
    return items


@dataclass(frozen=True)
class Prompt:
    """A sentence, such as "close the laptop"."""

    text: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("Prompt.text: expected a sentence, got an empty string")


@dataclass(frozen=True, eq=False)
class Action:
    """Targets, forces or velocities of some points of one object.

    Attributes:
        object: name of the scene object.
        handles: (H, 3) points on the object at t = 0, world frame, meters.
        targets: (H, 3) positions of the handles at the end, world frame, meters; or None.
        forces: (H, 3) forces applied at the handles, world frame, newtons; or None.
        velocities: (H, 3) initial velocities, world frame, m/s; or None.
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

    def require_handles_on(self, obj: SceneObject) -> None:
        """Refuse handles that lie far from the object, which are in another unit or frame.

        Raises:
            ValueError: in one line with the distance, if a handle is further from the object's
                bounding box than half of its diagonal and 5 cm.
        """
        lower, upper = obj.mesh_world.bounds
        beside = np.maximum(np.maximum(lower - self.handles, self.handles - upper), 0.0)
        distance = np.linalg.norm(beside, axis=-1)  # (H,)
        worst = int(np.argmax(distance))
        if distance[worst] > 0.05 + 0.5 * float(np.linalg.norm(upper - lower)):
            raise ValueError(
                f"Action.handles[{worst}]: {self.handles[worst].tolist()} lies "
                f"{distance[worst]:.3g} m from {obj.name!r}, whose box reaches from "
                f"{lower.round(3).tolist()} to {upper.round(3).tolist()}; give points on the "
                "object in the world frame, meters"
            )


@dataclass(frozen=True, eq=False)
class Observation:
    """A demonstration: one point cloud of the moving object per time.

    Attributes:
        object: name of the scene object.
        times: (T,) seconds, times[0] = 0.
        clouds: T arrays (P_t, 3), world frame, meters.
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
                f"Observation.clouds: expected {len(times)} clouds, one per time, got {len(clouds)}"
            )
        object.__setattr__(self, "clouds", clouds)


Instruction = Prompt | Action | Observation
