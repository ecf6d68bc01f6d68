"""PyBullet world: a table top at z = 0 and the bodies on it.

Conventions: a pose is that of a link's own URDF frame, not of its center of mass, which PyBullet's
base poses refer to. PyBullet multiplies the friction coefficients of two bodies in contact. The
table and the fingers have 1, so an object's `friction` is its coefficient against either. Every
joint of an object resists with the Coulomb friction and the damping of its URDF.

Two worlds that get the same calls in the same order agree bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike

from flowplan.geometry import inverse, matrix_from_quat_xyzw, pose, quat_xyzw_from_matrix, transform
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from sim_envs.bullet import BulletClient, pybullet, quiet

TABLE = "table"
_BASE = -1  # PyBullet's index of a body's base link
_MOVABLE = (pybullet.JOINT_REVOLUTE, pybullet.JOINT_PRISMATIC)


@dataclass(frozen=True)
class WorldOptions:
    """Physics of a world."""

    rate: Annotated[float, Interval(1, 1e6)] = 240.0
    """Steps per second."""
    iterations: Annotated[int, Interval(1, 10_000)] = 60
    """Iterations of the contact solver per step."""
    gravity: Annotated[float, Interval(0, 1000)] = 9.81
    """Gravity, m/s^2, downward."""
    deformable: bool = False
    """Simulate cloth too (slower)."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class ClothOptions:
    """Mass-spring model of a cloth."""

    mass: float = 0.08
    """Mass, kg."""
    elastic: float = 40.0
    """Stiffness of the springs along edges, N/m."""
    bending: float = 0.5
    """Stiffness of the springs across two faces, N/m."""
    damping: float = 0.2
    """Damping of the springs, N s/m."""
    friction: float = 0.6
    """Friction coefficient."""
    margin: float = 0.003
    """Collision margin (half the thickness), meters."""


@dataclass(frozen=True, eq=False)
class Contact:
    """One contact point between a link of one body and another body.

    Attributes:
        link: link of the first body.
        body: name of the other body.
        force: normal force, newtons.
        normal: (3,) unit vector toward the link, world frame.
        position: (3,) point on the link, world frame, meters.
    """

    link: str
    body: str
    force: float
    normal: tuple[float, float, float]
    position: tuple[float, float, float]


class World:
    """A simulation, closed at the end of its `with` block.

    Attributes:
        bullet: PyBullet client, for everything not wrapped here.
        options: physics options.
        bodies: body id by name.
        time: simulated time, seconds.
    """

    def __init__(self, options: WorldOptions = WorldOptions()) -> None:
        self.options = options
        with quiet():
            self.bullet: Any = BulletClient(pybullet.DIRECT)
        self.bodies: dict[str, int] = {}
        self.time = 0.0
        self._links: dict[int, dict[str, int]] = {}
        self._joints: dict[int, dict[str, int]] = {}
        self._cloths: set[int] = set()
        self._anchors: dict[int, list[int]] = {}
        if options.deformable:
            self.bullet.resetSimulation(pybullet.RESET_USE_DEFORMABLE_WORLD)
        self.bullet.setPhysicsEngineParameter(
            fixedTimeStep=1 / options.rate,
            numSolverIterations=options.iterations,
            deterministicOverlappingPairs=1,
            enableFileCaching=0,  # a file rewritten at the same path must not load as the old one
        )
        self.bullet.setGravity(0, 0, -options.gravity)
        self._add_table()

    def __enter__(self) -> World:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the simulation. A second call does nothing."""
        if self.bullet._client >= 0:
            self.bullet.disconnect()
            self.bullet._client = -1

    def _add_table(self) -> None:
        # A box, since cloth comes to rest 10 cm above PyBullet's infinite plane.
        # Collision shape: a thick slab below z = 0.
        half = [2.0, 2.0, 0.25]
        slab = self.bullet.createCollisionShape(
            pybullet.GEOM_BOX, halfExtents=half, collisionFramePosition=[0, 0, -0.25]
        )
        # Visual shape: a smaller table top.
        top = self.bullet.createVisualShape(
            pybullet.GEOM_BOX,
            halfExtents=[1.0, 1.0, 0.01],
            visualFramePosition=[0, 0, -0.01],
            rgbaColor=[0.72, 0.66, 0.58, 1],
        )
        body = self.bullet.createMultiBody(0, slab, top)
        self.bullet.changeDynamics(body, _BASE, lateralFriction=1.0)
        self._register(TABLE, body)

    def _register(self, name: str, body: int) -> None:
        links, joints = {self.bullet.getBodyInfo(body)[0].decode(): _BASE}, {}
        for i in range(self.bullet.getNumJoints(body)):
            info = self.bullet.getJointInfo(body, i)
            links[info[12].decode()] = i
            if info[2] in _MOVABLE:
                joints[info[1].decode()] = i
        self.bodies[name] = body
        self._links[body], self._joints[body] = links, joints

    def load(
        self,
        urdf_path: str | Path,
        X_world_base: ArrayLike | None = None,
        *,
        name: str,
        fixed: bool = False,
        friction: float = 0.6,
        mass_scale: float = 1.0,
    ) -> int:
        """Load an object.

        Args:
            urdf_path: URDF file; mesh paths are relative to it.
            X_world_base: (4, 4) pose of the base link's frame. Defaults to the world's origin.
            name: unique name in this world.
            fixed: fix the base link to the world.
            friction: friction coefficient of every link against the table and the fingers.
            mass_scale: factor on every mass and inertia.

        Returns:
            Body id.
        """
        self._new_name(name)
        checks.positive("friction", friction, zero=True)
        checks.positive("mass_scale", mass_scale)
        body = self._load_urdf(urdf_path, X_world_base, fixed=fixed)
        self._register(name, body)
        # Scale the URDF's masses and inertias, and set the friction.
        for link in self._links[body].values():
            mass, _, inertia = self.bullet.getDynamicsInfo(body, link)[:3]
            self.bullet.changeDynamics(
                body,
                link,
                mass=mass * mass_scale,
                localInertiaDiagonal=[mass_scale * i for i in inertia],
                lateralFriction=friction,
            )
        # A velocity motor with target 0 and limited force is Coulomb friction.
        for joint in self._joints[body].values():
            coulomb = self.bullet.getJointInfo(body, joint)[7]
            self.bullet.setJointMotorControl2(
                body, joint, pybullet.VELOCITY_CONTROL, targetVelocity=0, force=coulomb
            )
        return body

    def load_mechanism(
        self, urdf_path: str | Path, X_world_base: ArrayLike | None = None, *, name: str
    ) -> int:
        """Load a URDF bolted to the world, its joints, masses and friction left as they are.

        Args:
            urdf_path: URDF file; meshes are looked up relative to it.
            X_world_base: (4, 4) pose of its base link. Defaults to the world's origin.
            name: unique name in this world.

        Returns:
            Body id.
        """
        self._new_name(name)
        body = self._load_urdf(urdf_path, X_world_base, fixed=True)
        self._register(name, body)
        return body

    def _new_name(self, name: str) -> None:
        if name in self.bodies:
            raise ValueError(
                f"name: {name!r} is already in this world; it has {', '.join(self.bodies)}"
            )

    def _load_urdf(
        self, urdf_path: str | Path, X_world_base: ArrayLike | None, *, fixed: bool
    ) -> int:
        X = pose() if X_world_base is None else checks.poses("X_world_base", X_world_base)
        if not Path(urdf_path).is_file():
            raise ValueError(f"urdf_path: no such file: {urdf_path}")
        try:
            with quiet():
                body: int = self.bullet.loadURDF(
                    str(urdf_path),
                    X[:3, 3].tolist(),
                    quat_xyzw_from_matrix(X[:3, :3]).tolist(),
                    useFixedBase=fixed,
                    flags=pybullet.URDF_USE_INERTIA_FROM_FILE,
                )
        except pybullet.error as error:
            raise ValueError(
                f"urdf_path: PyBullet cannot load {urdf_path} ({error}); are its meshes there?"
            ) from None
        return body

    def name_of(self, body: int) -> str:
        """Name of a body."""
        return next(name for name, b in self.bodies.items() if b == body)

    def link_index(self, body: int, link: str) -> int:
        """PyBullet index of a link; -1 for the base."""
        links = self._links[body]
        checks.choice("link", link, list(links))
        return links[link]

    def link_pose(self, body: int, link: str | None = None) -> FloatArray:
        """X_world_link (4, 4) of a link's URDF frame. Defaults to the base link."""
        index = _BASE if link is None else self.link_index(body, link)
        if index != _BASE:
            # Entries 4 and 5 are the URDF frame, 0 and 1 the center of mass.
            state = self.bullet.getLinkState(body, index, computeForwardKinematics=True)
            return _pose(state[4], state[5])
        # PyBullet has the base's center of mass only.
        X_world_com = _pose(*self.bullet.getBasePositionAndOrientation(body))
        return X_world_com @ inverse(self._base_com(body))

    def link_poses(self, body: int) -> dict[str, FloatArray]:
        """X_world_link (4, 4) of every link."""
        return {link: self.link_pose(body, link) for link in self._links[body]}

    def set_base_pose(self, body: int, X_world_base: ArrayLike) -> None:
        """Place a body at rest, its base link's frame at X_world_base (4, 4)."""
        X_world_com = checks.poses("X_world_base", X_world_base) @ self._base_com(body)
        quat_xyzw = quat_xyzw_from_matrix(X_world_com[:3, :3])
        self.bullet.resetBasePositionAndOrientation(
            body, X_world_com[:3, 3].tolist(), quat_xyzw.tolist()
        )

    def _base_com(self, body: int) -> FloatArray:
        info = self.bullet.getDynamicsInfo(body, _BASE)
        return _pose(info[3], info[4])

    def joint_positions(self, body: int) -> dict[str, float]:
        """Positions of all movable joints, rad or m."""
        return {
            name: self.bullet.getJointState(body, j)[0] for name, j in self._joints[body].items()
        }

    def set_joint_positions(self, body: int, positions: Mapping[str, float]) -> None:
        """Place joints at rest at these positions, rad or m."""
        for name, value in positions.items():
            checks.choice("joint", name, list(self._joints[body]))
            self.bullet.resetJointState(body, self._joints[body][name], float(value))

    def joint_index(self, body: int, joint: str) -> int:
        """PyBullet index of a movable joint."""
        checks.choice("joint", joint, list(self._joints[body]))
        return self._joints[body][joint]

    def add_cloth(
        self,
        obj_path: str | Path,
        X_world_cloth: ArrayLike,
        *,
        name: str,
        options: ClothOptions = ClothOptions(),
    ) -> int:
        """Load a cloth into a deformable world.

        Args:
            obj_path: triangle mesh (.obj) of the sheet, meters.
            X_world_cloth: (4, 4) pose of the mesh's frame.
            name: unique name in this world.
            options: material.

        Returns:
            Body id.
        """
        if not self.options.deformable:
            raise ValueError(
                "WorldOptions.deformable: is False; a world with cloth needs deformable=True"
            )
        self._new_name(name)
        X = checks.poses("X_world_cloth", X_world_cloth)
        body: int = self.bullet.loadSoftBody(
            str(obj_path),
            basePosition=X[:3, 3].tolist(),
            baseOrientation=quat_xyzw_from_matrix(X[:3, :3]).tolist(),
            mass=options.mass,
            useMassSpring=1,
            useBendingSprings=1,
            springElasticStiffness=options.elastic,
            springBendingStiffness=options.bending,
            springDampingStiffness=options.damping,
            springDampingAllDirections=1,
            frictionCoeff=options.friction,
            collisionMargin=options.margin,
            useFaceContact=0,
            useSelfCollision=0,
        )
        self.bodies[name] = body
        self._cloths.add(body)
        self._links[body], self._joints[body] = {name: _BASE}, {}
        return body

    def is_cloth(self, body: int) -> bool:
        """True for a body made by `add_cloth`."""
        return body in self._cloths

    def cloth_vertices(self, cloth: int) -> FloatArray:
        """Vertices (V, 3) of a cloth in the order of its file, world frame, meters."""
        _, vertices = self.bullet.getMeshData(cloth, flags=pybullet.MESH_DATA_SIMULATION_MESH)
        return np.array(vertices)

    def anchor_cloth(self, cloth: int, vertices: ArrayLike, body: int, link: str) -> None:
        """Anchor vertices (indices) of a cloth to a link at their current place until
        `release_cloth`.

        This replaces a pinch: friction between fingers and a mass-spring sheet is unreliable.
        """
        # Anchors are given in the link's frame.
        X_link_world = inverse(self.link_pose(body, link))
        index = self.link_index(body, link)
        points = transform(X_link_world, self.cloth_vertices(cloth))
        for vertex in np.asarray(vertices, np.int64):
            anchor = self.bullet.createSoftBodyAnchor(
                cloth, int(vertex), body, index, points[vertex].tolist()
            )
            self._anchors.setdefault(cloth, []).append(anchor)

    def release_cloth(self, cloth: int) -> None:
        """Remove all anchors of a cloth."""
        for anchor in self._anchors.pop(cloth, []):
            self.bullet.removeConstraint(anchor)

    def contacts(self, body: int) -> list[Contact]:
        """Contact points of a body with all others in the last step."""
        # Entries of a contact point: 2 body B, 3 link A, 5 position on A, 7 normal on B, 9 normal
        # force.
        names = {other: name for name, other in self.bodies.items()}
        links = {index: link for link, index in self._links[body].items()}
        points = self.bullet.getContactPoints(bodyA=body)
        return [Contact(links[c[3]], names[c[2]], c[9], c[7], c[5]) for c in points if c[2] != body]

    def step(self) -> None:
        """One simulation step."""
        self.bullet.stepSimulation()
        self.time += 1 / self.options.rate

    def settle(self, limit: float = 2.0, *, speed: float = 0.002) -> float:
        """Simulation until nothing moves, for at most `limit` seconds.

        Args:
            limit: largest simulated time, seconds.
            speed: speed of a body at rest, m/s (rad/s for joints).

        Returns:
            Simulated time, seconds.
        """
        start = self.time
        # Compare coordinates a tenth of a second apart: single steps jitter.
        window = max(1, round(0.1 * self.options.rate))
        while self.time - start < limit:
            before = self._coordinates()
            for _ in range(window):
                self.step()
            if np.abs(self._coordinates() - before).max() < speed * window / self.options.rate:
                break
        return self.time - start

    def _coordinates(self) -> FloatArray:
        """Coordinates of all bases, joints and cloth vertices, m and rad."""
        values: list[float] = []
        for body in self.bodies.values():
            if body in self._cloths:
                values += self.cloth_vertices(body).ravel().tolist()
            else:
                # Position and rotation matrix; changes of its entries are close to radians.
                values += self.link_pose(body)[:3].ravel().tolist()
                values += self.joint_positions(body).values()
        return np.array(values)


def _pose(position: ArrayLike, quat_xyzw: ArrayLike) -> FloatArray:
    return pose(matrix_from_quat_xyzw(quat_xyzw), position)
