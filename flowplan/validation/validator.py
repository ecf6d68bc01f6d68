"""Independent validation: continuous collision checking on exact geometry, and joint limits.

Nothing is shared with the optimizer. Links are the convex hulls of the URDF's collision meshes,
moved by pinocchio, against the obstacles' own meshes (flowplan.validation.collision_geometry),
while the optimizer uses spheres and a voxel field. Between samples the arm moves linearly in its
joints, and every instant in between is covered (flowplan.validation.continuous_collision). Limits
apply to the samples themselves, not to the stated derivatives (flowplan.validation.joint_limits).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
import pinocchio
import trimesh
from numpy.typing import NDArray

from flowplan.robot import Robot
from flowplan.trajectory import Phase, Trajectory
from flowplan.utils.checks import FloatArray
from flowplan.validation.collision_geometry import Body, mesh_body, shape_body
from flowplan.validation.contact_allowance import Stretch, most_allowed, stretches
from flowplan.validation.continuous_collision import (
    BodyPath,
    ClosestPair,
    JointPath,
    MovingBodies,
    Pairs,
    Sweep,
    Violation,
)
from flowplan.validation.joint_limits import limit_reasons
from flowplan.validation.options import ValidationOptions
from flowplan.validation.phase_world import HELD, Mover, PhaseWorld

_CACHED_FACES = 300_000
"""Triangles of all bodies that one robot keeps from one call to the next."""
_CACHED_ROBOTS = 2
"""Robots whose bodies are kept."""


@dataclass(frozen=True)
class Certificate:
    """Result of the validation of one trajectory.

    Attributes:
        ok: True if the trajectory is safe to execute.
        reasons: Why it is not, one line each with phase, time, joint or pair, and amount.
        clearance: Meters, the smallest distance between bodies that must not touch (negative:
            overlap), up to the horizon.
        worst_time: Seconds at which the clearance is smallest.
        closest: The two bodies that are closest then; empty if none are within the horizon.
        checked: Number of exact distance computations.
    """

    ok: bool
    reasons: tuple[str, ...]
    clearance: float
    worst_time: float
    closest: tuple[str, ...]
    checked: int


def validate(
    robot: Robot,
    trajectory: Trajectory,
    worlds: Mapping[int, PhaseWorld],
    options: ValidationOptions = ValidationOptions(),
) -> Certificate:
    """Certify a trajectory, or report why it fails.

    Args:
        robot: The arm; its validator is cached for the next call.
        trajectory: Motion from rest to rest.
        worlds: Surroundings of the robot in each phase. The step between two phases belongs to the
            first.
        options: Requirements.

    Raises:
        ValueError: If the trajectory is another robot's, a phase has no world, or a world names an
            unknown link.
    """
    return _validator(robot).certify(trajectory, worlds, options)


class Validator:
    """Bodies and kinematics of a robot, with a cache of obstacle bodies.

    Args:
        robot: The arm.
    """

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        path = str(robot.urdf_path)
        self.model = pinocchio.buildModelFromUrdf(path)
        self.data = self.model.createData()

        # Collision bodies of the links.
        shapes = pinocchio.buildGeomFromUrdf(
            self.model, path, pinocchio.COLLISION, package_dirs=[str(robot.urdf_path.parent)]
        ).geometryObjects
        placements = [s.placement.homogeneous for s in shapes]
        self.links = MovingBodies(
            names=tuple(self.model.frames[s.parentFrame].name for s in shapes),
            bodies=tuple(shape_body(s.geometry) for s in shapes),
            joint=np.array([s.parentJoint for s in shapes], int),
            X_joint_body=np.array(placements).reshape(-1, 4, 4),
        )

        # Kinematic tree; joint 0 is the world.
        count = self.model.njoints
        self.supports = np.zeros((count, count), bool)
        for j in range(1, count):
            self.supports[j] = self.supports[self.model.parents[j]]
            self.supports[j, j] = True
        self.length = np.array([np.linalg.norm(X.translation) for X in self.model.jointPlacements])
        screws = [np.ravel(self.model.joints[j].createData().S) for j in range(1, count)]
        revolute = [bool(np.any(s[3:])) for s in screws]
        axes = [s[3:] if turns else s[:3] for s, turns in zip(screws, revolute, strict=True)]
        self.axis = np.array([np.zeros(3), *axes])
        self.revolute = np.array([False, *revolute])

        # Joints that the trajectory moves, and the tool.
        self.arm = np.array([self.model.getJointId(name) for name in robot.joint_names])
        self.fingers = np.array([self.model.getJointId(name) for name in robot.gripper.joints], int)
        tool = self.model.frames[self.model.getFrameId(robot.tool_link, pinocchio.BODY)]
        self.tool = int(tool.parentJoint)
        self.X_joint_tool = tool.placement.homogeneous @ robot.X_link_tool

        self._bodies: OrderedDict[int, tuple[Body, int]] = OrderedDict()
        self._within: dict[bool, list[tuple[int, int]]] = {}

    def certify(
        self, trajectory: Trajectory, worlds: Mapping[int, PhaseWorld], options: ValidationOptions
    ) -> Certificate:
        """Certificate of a trajectory; see `validate`."""
        robot = self.robot
        if tuple(trajectory.joint_names) != tuple(robot.joint_names):
            raise ValueError(
                f"trajectory.joint_names: expected {robot.name}'s {', '.join(robot.joint_names)}, "
                f"got {', '.join(trajectory.joint_names)}; plan for the robot that is to execute it"
            )
        limits = limit_reasons(
            robot, trajectory, tolerance=options.limit_tolerance, at_rest=options.at_rest
        )
        reasons = list(limits)

        # Collisions, phase by phase.
        path = self._path(trajectory.q, trajectory.grip)
        phase = trajectory.phase
        index = np.arange(len(trajectory.times))
        closest, checked = ClosestPair(options.horizon, 0.0, ()), 0
        for number in np.unique(phase):
            if number not in worlds:
                raise ValueError(
                    f"worlds: expected one for phase {number} ({Phase(number).label}), "
                    f"got {sorted(worlds)}"
                )
            first, last = np.flatnonzero(phase == number)[[0, -1]]
            span = float(first), float(min(last + 1, index[-1]))
            world, violations = worlds[number], dict[tuple[str, str], Violation]()
            sweeps = self._swept(world, path, span, options)
            if world.opening is not None:
                opened = np.maximum(trajectory.grip, world.opening)
                held_open = self._path(trajectory.q, opened)
                sweeps.append(self._swept_fingers(world, held_open, span, options))
            for sweep in sweeps:
                for violation in sweep.violations.values():
                    known = violations.get(violation.names, violation)
                    violations[violation.names] = min(known, violation)
                nearest = sweep.nearest(closest.distance)
                closest = min(closest, nearest, key=lambda c: c.distance)
                checked += sweep.checked
            for violation in sorted(violations.values()):
                t = float(np.interp(violation.x, index, trajectory.times))
                reasons.append(_collision_reason(Phase(number).label, t, violation))
        worst_time = float(np.interp(closest.x, index, trajectory.times))
        return Certificate(
            ok=not reasons,
            reasons=tuple(reasons),
            clearance=closest.distance,
            worst_time=worst_time,
            closest=closest.names,
            checked=checked,
        )

    def _swept(
        self,
        world: PhaseWorld,
        path: JointPath,
        span: tuple[float, float],
        options: ValidationOptions,
    ) -> list[Sweep]:
        """Sweeps of a phase, one for each stretch of the carried object's way."""
        whole = self._sweep(world, path, options, span)
        carried = _carried(whole, world)
        contacts = np.flatnonzero(np.isin(whole.pairs.a, carried) & ~whole.pairs.counts)
        parts = [Stretch(*span, np.zeros(0))]
        if len(contacts):
            parts = self._stretches(whole, contacts, span, options)
        out = []
        for part in parts:
            threshold = whole.pairs.threshold.copy()
            threshold[contacts] = -part.allowed
            sweep = self._sweep(world, path, options, span, threshold=threshold)
            sweep.run(part.start, part.end, options.spacing)
            out.append(sweep)
        return out

    def _stretches(
        self,
        sweep: Sweep,
        contacts: NDArray[np.int64],
        span: tuple[float, float],
        options: ValidationOptions,
    ) -> list[Stretch]:
        """Allowed depths of the pairs `contacts`, by the distances at both ends of a span."""
        a, b = sweep.pairs.a[contacts], sweep.pairs.b[contacts]
        sweep = sweep.only(contacts, threshold=np.inf)
        indices = np.arange(len(contacts))
        at_start, at_end = (sweep.distances(x, indices, options.contact_distance) for x in span)
        bodies = [(sweep.bodies[i], sweep.bodies[j]) for i, j in zip(a, b, strict=True)]
        most = np.array([most_allowed(own, other, options) for own, other in bodies])
        samples = np.unique(np.append(np.arange(span[0], span[1] + 1), span[1]))
        poses = sweep.poses(int(a[0]), samples)
        return stretches(at_start, at_end, most, poses, bodies[0][0], span, options)

    def _swept_fingers(
        self,
        world: PhaseWorld,
        path: JointPath,
        span: tuple[float, float],
        options: ValidationOptions,
    ) -> Sweep:
        """Sweep of the bodies that the gripper's joints move."""
        whole = self._sweep(world, path, options, span)
        moved = self.supports[whole.moving.joint][:, self.fingers].any(axis=1)
        of_fingers = np.append(moved, np.zeros(len(world.obstacles), bool))
        pairs = np.flatnonzero(of_fingers[whole.pairs.a] | of_fingers[whole.pairs.b])
        sweep = whole.only(pairs)
        sweep.run(*span, options.spacing)
        return sweep

    def _sweep(
        self,
        world: PhaseWorld,
        path: JointPath,
        options: ValidationOptions,
        span: tuple[float, float] = (0.0, 0.0),
        *,
        threshold: FloatArray | None = None,
    ) -> Sweep:
        """Check of robot, attached object and movers against obstacles, each other and themselves.

        Args:
            world: Surroundings of the phase.
            path: Motion of all joints.
            options: Requirements.
            span: Fractional samples of the phase, where the movers move.
            threshold: (P,) thresholds of the pairs. Defaults to the margin.
        """
        world.check_touch(self.robot.name, self.robot.link_names)
        moving = self._moving(world)
        names, first_mover = moving.names, len(moving.names) - len(world.movers)
        known = {name: i for i, name in enumerate(names[first_mover:], first_mover)}
        known |= {name: i for i, (name, _) in enumerate(world.obstacles, len(names))}

        # Links and attached object against obstacles and movers; links that no joint moves do not
        # count against what stands still. Guarded movers against obstacles and the other movers.
        within = self._self_pairs(world.held is not None)
        movable = np.flatnonzero(self.supports[moving.joint].any(axis=1)).tolist()
        guarded = [known[mover.name] for mover in world.movers if mover.guarded]
        against = [
            (i, j)
            for name, j in known.items()
            for i in (*(range(first_mover) if j < len(names) else movable), *guarded)
            if i != j and (names[i], name) not in world.touch
        ]
        a, b = np.array([*within, *against], int).reshape(-1, 2).T

        # Contacts of carried objects do not count for the clearance.
        tolerance = np.zeros(len(names) + len(world.obstacles))
        tolerance[first_mover : len(names)] = [mover.tolerance for mover in world.movers]
        own = np.array([name == HELD for name in names])
        own[guarded] = True
        resting = own[a] & np.isin(b, list(known.values()))
        if threshold is None:
            threshold = options.margin + tolerance[a] + tolerance[b]
        pairs = Pairs(a, b, threshold, counts=~resting)
        obstacles = tuple((name, self.body(mesh)) for name, mesh in world.obstacles)
        paths = tuple(
            BodyPath(_over_all(mover, len(path.positions), span), self.body(mover.mesh))
            for mover in world.movers
        )
        return Sweep(self, path, moving, obstacles, pairs, options.resolution, paths)

    def _moving(self, world: PhaseWorld) -> MovingBodies:
        """The links, the attached object if there is one, and the movers."""
        moving = self.links if world.held is None else self._with_held(world.held)
        count = len(world.movers)
        return MovingBodies(
            names=(*moving.names, *(mover.name for mover in world.movers)),
            bodies=(*moving.bodies, *(self.body(mover.mesh) for mover in world.movers)),
            joint=np.append(moving.joint, np.zeros(count, int)),
            X_joint_body=np.concatenate([moving.X_joint_body, np.tile(np.eye(4), (count, 1, 1))]),
        )

    def _with_held(self, held: trimesh.Trimesh) -> MovingBodies:
        """The links and the attached object, which is the last body."""
        links = self.links
        return MovingBodies(
            names=(*links.names, HELD),
            bodies=(*links.bodies, self.body(held)),
            joint=np.append(links.joint, self.tool),
            X_joint_body=np.concatenate([links.X_joint_body, self.X_joint_tool[None]]),
        )

    def _self_pairs(self, held: bool) -> list[tuple[int, int]]:
        """Pairs of links that may not touch and that an arm joint moves relative to each other.

        With `held`, the attached object is the last link.
        """
        if held not in self._within:
            names = (*self.links.names, HELD) if held else self.links.names
            joints = np.append(self.links.joint, self.tool)
            by_arm = self.supports[joints][:, self.arm]
            self._within[held] = [
                (i, j)
                for i, j in combinations(range(len(names)), 2)
                if (by_arm[i] != by_arm[j]).any()
                and frozenset((names[i], names[j])) not in self.robot.ignored_link_pairs
            ]
        return self._within[held]

    def body(self, mesh: trimesh.Trimesh) -> Body:
        """Body of a mesh, cached by its content."""
        key = hash(mesh)
        if key not in self._bodies:
            self._bodies[key] = mesh_body(mesh), len(mesh.faces)
        self._bodies.move_to_end(key)
        body, _ = self._bodies[key]
        # The oldest go when all together have too many triangles.
        kept = sum(faces for _, faces in self._bodies.values())
        while kept > _CACHED_FACES and len(self._bodies) > 1:
            kept -= self._bodies.popitem(last=False)[1][1]
        return body

    def _path(self, q: FloatArray, opening: FloatArray) -> JointPath:
        """Positions and travel of all joints of the model at the samples, fingers included.

        Args:
            q: (S, J) positions of the arm.
            opening: (S,) opening of the gripper, meters.
        """
        gripper = self.robot.gripper
        positions = np.zeros((len(q), self.model.njoints))
        positions[:, self.arm] = q
        for i, joint in enumerate(self.fingers):
            table = gripper.table_joints[:, i]
            positions[:, joint] = np.interp(opening, gripper.table_width, table)
        travel = np.zeros_like(positions)
        travel[1:] = np.cumsum(np.abs(np.diff(positions, axis=0)), axis=0)
        return JointPath(positions, travel)

    def joint_poses(self, positions: FloatArray) -> FloatArray:
        """X_world_joint (n, joints, 4, 4) at positions (n, joints) of the model's joints."""
        q = np.zeros((len(positions), self.model.nq))
        for j in range(1, self.model.njoints):
            start = self.model.idx_qs[j]
            if self.model.nqs[j] == 2:  # a continuous joint is a point on the circle
                q[:, start] = np.cos(positions[:, j])
                q[:, start + 1] = np.sin(positions[:, j])
            else:
                q[:, start] = positions[:, j]
        X = np.empty((len(q), self.model.njoints, 4, 4))
        for i, row in enumerate(q):
            pinocchio.forwardKinematics(self.model, self.data, row)
            X[i] = [pose.np for pose in self.data.oMi]
        return self.robot.X_world_base @ X


@lru_cache(maxsize=_CACHED_ROBOTS)
def _validator(robot: Robot) -> Validator:
    return Validator(robot)


def _carried(sweep: Sweep, world: PhaseWorld) -> NDArray[np.int64]:
    """Indices of the attached object and of the guarded movers among the moving bodies."""
    carried = {HELD, *(mover.name for mover in world.movers if mover.guarded)}
    return np.flatnonzero([name in carried for name in sweep.moving.names])


def _over_all(mover: Mover, samples: int, span: tuple[float, float]) -> FloatArray:
    """Poses (S, 4, 4) of a mover at all samples of a trajectory; it rests outside its phase."""
    index = np.arange(samples) - int(span[0])
    return np.asarray(mover.X_world)[np.clip(index, 0, len(mover.X_world) - 1)]


def _collision_reason(phase: str, t: float, violation: Violation) -> str:
    """One line that names phase, time, pair and amount."""
    a, b = violation.names
    distance, threshold = 1e3 * violation.distance, 1e3 * violation.threshold
    prefix = f"{phase} phase, t = {t:.3f} s: {a} and {b}"
    if distance <= 0:
        allowed = f" ({-threshold:.1f} mm allowed)" if threshold < 0 else ""
        return f"{prefix} overlap by {-distance:.1f} mm{allowed}"
    return f"{prefix} come within {distance:.1f} mm ({threshold:.1f} mm required)"
