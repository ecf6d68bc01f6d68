"""The last word on a trajectory: collisions of true shapes over continuous time, and joint limits as executed.

Nothing here is shared with the optimizer: links are the convex hulls of the URDF's collision meshes (flowplan.validation.collision_geometry),
moved by pinocchio, against the obstacles' own meshes, where the optimizer knows spheres and a voxel field. Between
samples the arm moves linearly in its joints, and every moment in between is covered (flowplan.validation.continuous_collision). Limits hold for
the samples themselves, not for what the trajectory says of their derivatives (flowplan.validation.joint_limits).
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

from flowplan.robot import Robot
from flowplan.trajectory import Phase, Trajectory
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.validation.collision_geometry import Body, mesh_body, shape_body
from flowplan.validation.continuous_collision import Carried, Failure, Nearest, Pairs, Path, Sweep
from flowplan.validation.joint_limits import limit_reasons

HELD = "held"
"""Name of the held object among the links: `touch` may hold (HELD, obstacle), reasons say it."""
_REMEMBERED = 512  # obstacle bodies kept from one call to the next


@dataclass(frozen=True)
class ValidationOptions:
    """What a trajectory must satisfy to be certified."""

    margin: float = 0.0
    """Metres that the robot must keep from itself and from everything it may not touch."""
    held_depth: float = 0.005
    """Metres the held object may sink into what it stands on or is put on: the error of a scan."""
    resolution: float = 5e-4
    """Metres: two bodies closer than this all along count as checked once neither moves farther between two looks."""
    spacing: float = 0.1
    """Metres that no body moves farther than between the first looks; clearance is measured at those."""
    horizon: float = 0.3
    """Metres beyond which clearance is not told apart."""
    limit_tolerance: float = 1e-4
    """Share by which a joint limit may be exceeded: round-off, not slack."""
    at_rest: bool = True
    """The arm stands still before the first and after the last sample: a jump from or to rest is an acceleration."""

    def __post_init__(self) -> None:
        for name in ("resolution", "spacing", "horizon"):
            checks.positive(f"ValidationOptions.{name}", getattr(self, name))
        for name in ("margin", "held_depth", "limit_tolerance"):
            checks.positive(f"ValidationOptions.{name}", getattr(self, name), zero=True)


@dataclass(frozen=True, eq=False)
class PhaseWorld:
    """What surrounds the robot in one phase.

    Attributes:
        obstacles: (name, mesh) pairs, names unique, meshes in the world frame, metres; convex, concave or open.
        held: mesh of what the gripper carries, in the tool frame, metres; or None.
        touch: (link, obstacle) pairs that are allowed to touch, the link HELD among them. The held object may always
            touch the gripper.
    """

    obstacles: tuple[tuple[str, trimesh.Trimesh], ...] = ()
    held: trimesh.Trimesh | None = None
    touch: frozenset[tuple[str, str]] = frozenset()

    def __post_init__(self) -> None:
        names = [name for name, _ in self.obstacles]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"PhaseWorld.obstacles: {name!r} is there twice; give every obstacle its own name"
                )
        named = [(f"obstacles[{name}]", mesh) for name, mesh in self.obstacles]
        for where, mesh in named if self.held is None else [*named, ("held", self.held)]:
            if not len(mesh.faces) or not np.isfinite(mesh.vertices).all():
                raise ValueError(
                    f"PhaseWorld.{where}: expected a finite mesh, got {len(mesh.faces)} faces or NaNs; repair it first"
                )


@dataclass(frozen=True)
class Certificate:
    """The verdict on one trajectory.

    Attributes:
        ok: safe to execute.
        reasons: why not, worst phase by phase: each names phase, time, joint or pair, and by how much.
        clearance: metres, the smallest gap found between what must not touch (negative: overlap), up to the horizon.
        worst_time: seconds at which the clearance is smallest.
        closest: the two bodies that are closest there; empty when nothing is within the horizon.
        checked: how many pairs of bodies were looked at closely.
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
    """Certify a trajectory, or say why not.

    Args:
        robot: the arm; what is built for it is kept for the next call.
        trajectory: from rest to rest.
        worlds: what surrounds the robot in each phase. The step between two phases belongs to the first.
        options: see ValidationOptions.

    Raises:
        ValueError: when the trajectory is another robot's, a phase has no world, or a world names an unknown link.
    """
    return _validator(robot).certify(trajectory, worlds, options)


class Validator:
    """A robot's bodies and kinematics, and the obstacles seen so far, held ready.

    Args:
        robot: the arm.
    """

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        path = str(robot.urdf_path)
        self.model = pinocchio.buildModelFromUrdf(path)
        self.data = self.model.createData()
        shapes = pinocchio.buildGeomFromUrdf(
            self.model, path, pinocchio.COLLISION, package_dirs=[str(robot.urdf_path.parent)]
        ).geometryObjects
        self.links = Carried(
            names=tuple(self.model.frames[s.parentFrame].name for s in shapes),
            bodies=tuple(shape_body(s.geometry) for s in shapes),
            joint=np.array([s.parentJoint for s in shapes], int),
            X_joint_body=np.array([s.placement.homogeneous for s in shapes]).reshape(-1, 4, 4),
        )
        # Joint 0 is the universe; supports[j, m]: does joint m carry what is fixed to joint j?
        count = self.model.njoints
        self.supports = np.zeros((count, count), bool)
        for j in range(1, count):
            self.supports[j] = self.supports[self.model.parents[j]]
            self.supports[j, j] = True
        self.length = np.array([np.linalg.norm(X.translation) for X in self.model.jointPlacements])
        screws = [np.ravel(self.model.joints[j].createData().S) for j in range(1, count)]
        self.axis = np.array([np.zeros(3), *[s[3:] if np.any(s[3:]) else s[:3] for s in screws]])
        self.turns = np.array([False, *[bool(np.any(s[3:])) for s in screws]])
        self.arm = np.array([self.model.getJointId(name) for name in robot.joint_names])
        self.fingers = np.array([self.model.getJointId(name) for name in robot.gripper.joints], int)
        tool = self.model.frames[self.model.getFrameId(robot.tool_link, pinocchio.BODY)]
        self.tool = int(tool.parentJoint)
        self.X_joint_tool = tool.placement.homogeneous @ robot.X_link_tool
        self._seen: OrderedDict[int, Body] = OrderedDict()
        self._within: dict[bool, list[tuple[int, int]]] = {}

    def certify(
        self, trajectory: Trajectory, worlds: Mapping[int, PhaseWorld], options: ValidationOptions
    ) -> Certificate:
        """See `validate`."""
        robot = self.robot
        if tuple(trajectory.joint_names) != tuple(robot.joint_names):
            raise ValueError(
                f"trajectory.joint_names: expected {robot.name}'s {', '.join(robot.joint_names)}, "
                f"got {', '.join(trajectory.joint_names)}; plan for the robot that is to execute it"
            )
        reasons = list(
            limit_reasons(
                robot, trajectory, tolerance=options.limit_tolerance, at_rest=options.at_rest
            )
        )
        path = self._path(trajectory)
        phase, index = np.asarray(trajectory.phase), np.arange(len(trajectory.times))
        nearest, checked = Nearest(options.horizon, 0.0, ()), 0
        for number in np.unique(phase):
            if number not in worlds:
                raise ValueError(
                    f"worlds: expected one for phase {number} ({Phase(number).label}), got {sorted(worlds)}"
                )
            first, last = np.flatnonzero(phase == number)[[0, -1]]
            sweep = self._sweep(worlds[number], path, options)
            sweep.run(float(first), float(min(last + 1, index[-1])), options.spacing)
            for failure in sorted(sweep.failed.values()):
                t = float(np.interp(failure.x, index, trajectory.times))
                reasons.append(_collision_reason(Phase(number).label, t, failure))
            nearest = min(nearest, sweep.nearest(nearest.gap), key=lambda n: n.gap)
            checked += sweep.checked
        worst_time = float(np.interp(nearest.x, index, trajectory.times))
        return Certificate(
            not reasons, tuple(reasons), nearest.gap, worst_time, nearest.names, checked
        )

    def _sweep(self, world: PhaseWorld, path: Path, options: ValidationOptions) -> Sweep:
        """The checks that one world asks for: robot and held object against obstacles, and the robot against itself."""
        carried = self.links
        if world.held is not None:
            carried = Carried(
                (*carried.names, HELD),
                (*carried.bodies, self.body(world.held)),
                np.append(carried.joint, self.tool),
                np.concatenate([carried.X_joint_body, self.X_joint_tool[None]]),
            )
        known = {*self.robot.link_names, HELD}
        for link, _ in world.touch:
            if link not in known:
                raise ValueError(
                    f"PhaseWorld.touch: no link {link!r} in {self.robot.name}; it has {', '.join(sorted(known))}"
                )
        within = self._self_pairs(world.held is not None)
        # What no joint moves (the base) stands where it was put, whatever the arm does.
        moving = np.flatnonzero(self.supports[carried.joint].any(axis=1))
        count = len(carried.names)
        against = [
            (i, count + o)
            for o, (name, _) in enumerate(world.obstacles)
            for i in moving
            if (carried.names[i], name) not in world.touch
        ]
        a, b = np.array([*within, *against], int).reshape(-1, 2).T
        resting = (np.array(carried.names)[a] == HELD) & (b >= count)
        pairs = Pairs(a, b, np.where(resting, -options.held_depth, options.margin), ~resting)
        obstacles = tuple((name, self.body(mesh)) for name, mesh in world.obstacles)
        return Sweep(self, path, carried, obstacles, pairs, options.resolution)

    def _self_pairs(self, held: bool) -> list[tuple[int, int]]:
        """Pairs of links, and of the held object as the last, that an arm joint moves and that may not touch anyway."""
        if held not in self._within:
            names = (*self.links.names, HELD) if held else self.links.names
            by_arm = self.supports[np.append(self.links.joint, self.tool)][:, self.arm]
            self._within[held] = [
                (i, j)
                for i, j in combinations(range(len(names)), 2)
                if (by_arm[i] != by_arm[j]).any()
                and frozenset((names[i], names[j])) not in self.robot.ignored_link_pairs
            ]
        return self._within[held]

    def body(self, mesh: trimesh.Trimesh) -> Body:
        """The body of a mesh, remembered by its content."""
        key = hash(mesh)
        if key not in self._seen:
            self._seen[key] = mesh_body(mesh)
        self._seen.move_to_end(key)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return self._seen[key]

    def _path(self, trajectory: Trajectory) -> Path:
        """Positions of all joints of the model at the samples, fingers included, and how far each has travelled."""
        gripper = self.robot.gripper
        positions = np.zeros((len(trajectory.times), self.model.njoints))
        positions[:, self.arm] = trajectory.q
        for i, joint in enumerate(self.fingers):
            positions[:, joint] = np.interp(
                trajectory.grip, gripper.table_width, gripper.table_joints[:, i]
            )
        travel = np.zeros_like(positions)
        travel[1:] = np.cumsum(np.abs(np.diff(positions, axis=0)), axis=0)
        return Path(positions, travel)

    def joint_poses(self, positions: FloatArray) -> FloatArray:
        """X_world_joint (n, joints, 4, 4) at positions (n, joints) of the model's joints."""
        q = np.zeros((len(positions), self.model.nq))
        for j in range(1, self.model.njoints):
            start = self.model.idx_qs[j]
            if self.model.nqs[j] == 2:  # a continuous joint is a point on the circle
                q[:, start], q[:, start + 1] = np.cos(positions[:, j]), np.sin(positions[:, j])
            else:
                q[:, start] = positions[:, j]
        X = np.empty((len(q), self.model.njoints, 4, 4))
        for i, row in enumerate(q):
            pinocchio.forwardKinematics(self.model, self.data, row)
            X[i] = [pose.np for pose in self.data.oMi]
        return self.robot.X_world_base @ X


@lru_cache(maxsize=8)
def _validator(robot: Robot) -> Validator:
    return Validator(robot)


def _collision_reason(phase: str, t: float, failure: Failure) -> str:
    where = f"{phase} phase, t = {t:.3f} s: {failure.names[0]} and {failure.names[1]}"
    if failure.gap <= 0:
        allowed = f" ({-1e3 * failure.threshold:.1f} mm allowed)" if failure.threshold < 0 else ""
        return f"{where} overlap by {-1e3 * failure.gap:.1f} mm{allowed}"
    return f"{where} come within {1e3 * failure.gap:.1f} mm ({1e3 * failure.threshold:.1f} mm required)"
