"""Collision costs of bodies covered by spheres: hinges on distances to obstacles and between links,
swept over time.

A sphere k with center c and radius r that should keep a margin m costs max(0, m - (d(c) - r))^2,
where d is the distance field; a pair of spheres likewise, with their mutual distance (the model of
CHOMP and cuRobo). The distance changes by at most the motion of a point. So a sphere with distances
d_0, d_1 at two neighboring times and a motion of length L between them comes no closer than (d_0 +
d_1 - L) / 2. Only if that is below the margin is the motion between the two times checked too.

The derivative of a distance with normal n at a point c of a link is a wrench on the tool Jacobian,

    n . dc/dq_j = [n, (c - x) x n] . J_j

for each joint j that moves the link, with x the tool origin. So no sphere Jacobian is ever formed,
and only the few spheres close to something are evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import cross, transform
from flowplan.optimizers.protocol import TrackOptions, TrackProblem
from flowplan.robot import Robot
from flowplan.utils.checks import FloatArray

Indices = NDArray[np.int64]

_SHORT_STEP, _MEDIUM_STEP = 0.01, 0.04
"""Sphere motion in meters up to which the end points alone, or also the midpoint, are checked."""
_INSIDE = 1e-3
"""Meters by which a sphere's margin stays below the distance that the flow itself gives it."""
_MIN_DISTANCE = 1e-9
"""Meters; guards the division by the distance of two sphere centers."""


@dataclass(frozen=True, eq=False)
class ArmState:
    """Geometry of S x T configurations.

    Attributes:
        X: (S, T, 4, 4) tool poses.
        J: (S, T, 6, J) tool Jacobians, world-aligned.
        centers: (S, T, K, 3) spheres of robot and held object, world frame, meters.
    """

    X: FloatArray
    J: FloatArray
    centers: FloatArray


@dataclass(frozen=True, eq=False)
class ResidualRows:
    """M scalar residuals, each with derivatives at one time or at two neighboring times.

    Attributes:
        at: (M,) flat index s T + t of the first time.
        residual: (M,).
        row: (M, J) derivative with respect to q[s, t].
        following: (M, J) derivative with respect to q[s, t + 1], or None.
    """

    at: Indices
    residual: FloatArray
    row: FloatArray
    following: FloatArray | None = None


class CollisionModel:
    """Spheres of robot and held object, the joints that move them, and the margins that they keep.

    Args:
        problem: the problem.
        options: margins and tolerances.
    """

    def __init__(self, problem: TrackProblem, options: TrackOptions) -> None:
        robot, held = problem.robot, problem.held_spheres
        self.robot, self.field, self.width = robot, problem.field, problem.width
        self.held = held[:, :3]  # (H, 3), tool frame
        self.count = len(
            robot.sphere_radius
        )  # spheres of the robot; those of the held object follow
        self.radius = np.concatenate([robot.sphere_radius, held[:, 3]])  # (K,)
        held_moves = np.ones((len(held), len(robot.joint_names)), bool)
        self.moved_by = np.concatenate([carried_spheres(robot), held_moves])  # (K, J)

        # Pairs of spheres to check against each other, with their center distance at contact.
        self.first, self.second, self.contact_distance = _pair_table(robot)
        self._add_held_pairs(held[:, 3])
        limit = (self.contact_distance + options.self_margin) ** 2
        checked = self.contact_distance > 0
        self.pair_limit = np.where(checked, limit, -1).astype(np.float32)

        self.self_margin = options.self_margin
        self.tolerance = options.clearance_tolerance
        self.margin = self._margins(problem, options.margin)  # (T, K)

    def _add_held_pairs(self, radius: FloatArray) -> None:
        """Check the held spheres of radius (H,) against all links not fixed to the tool."""
        arm = np.logical_not(self.moved_by[self.first].all(axis=1))
        contact = self.radius[self.first][:, None] + radius
        contact = np.where(arm[:, None], contact, -np.inf).astype(np.float32)
        self.second = np.concatenate([self.second, self.count + np.arange(len(radius))])
        self.contact_distance = np.concatenate([self.contact_distance, contact], axis=1)

    def arm_state(self, q: FloatArray) -> ArmState:
        """Geometry of trajectories q (S, T, J)."""
        S, T, n = q.shape
        flat = q.reshape(-1, n)
        X, J = self.robot.tool_jacobian(flat)
        centers = self.robot.spheres(flat, self.width)
        if len(self.held):
            centers = np.concatenate([centers, transform(X, self.held)], axis=1)
        return ArmState(X.reshape(S, T, 4, 4), J.reshape(S, T, 6, n), centers.reshape(S, T, -1, 3))

    def _margins(self, problem: TrackProblem, margin: float) -> FloatArray:
        """Margins (T, K).

        Static spheres (the base on its support) have none. Spheres fixed to the tool follow the
        flow, so they are not asked to keep farther away than the flow itself does.
        """
        attachment, robot = problem.attachment, problem.robot
        moving = self.moved_by.any(axis=1)
        out = np.where(moving, margin, -np.inf) * np.ones((len(problem.times), 1))

        # Distances that the flow gives the spheres fixed to the tool.
        fixed = self.moved_by.all(axis=1)
        some = robot.home[None]
        X = robot.tool_pose(some)
        in_tool = transform(np.linalg.inv(X[0]), robot.spheres(some, self.width)[0])
        local = np.concatenate([in_tool, self.held])[fixed]
        centers = transform(attachment.X_world_tool, local)
        distance = self.field.distance(centers) - self.radius[fixed]

        # A hand that is free to rotate may turn away from obstacles. The grasp itself is given.
        given = np.linalg.eigvalsh(attachment.K)[:, 0] > 0
        given[0] = True
        out[:, fixed] = np.where(given[:, None], np.minimum(margin, distance - _INSIDE), margin)
        return out

    def obstacle_rows(self, arm: ArmState) -> list[ResidualRows]:
        """Residuals of spheres near obstacles, at the times and on straight lines in between."""
        T = arm.centers.shape[1]
        bound = self.field.lower_bound(arm.centers) - self.radius  # (S, T, K)

        # At the times.
        s, t, k = np.nonzero(bound < self.margin)
        out = [self._obstacle(arm, s * T + t, k, arm.centers[s, t, k], self.margin[t, k])]

        # Between the times, where the bound on the distance does not exclude a collision.
        step = arm.centers[:, 1:] - arm.centers[:, :-1]
        length = np.sqrt(np.einsum("stkc,stkc->stk", step, step))
        margin = np.minimum(self.margin[1:], self.margin[:-1])
        nearest = 0.5 * (bound[:, 1:] + bound[:, :-1] - length)
        swept = (nearest < margin) & (length > _SHORT_STEP)
        s, t, k = np.nonzero(swept)
        if len(s):
            medium = length[swept].max() < _MEDIUM_STEP
            for share in (0.5,) if medium else (0.25, 0.5, 0.75):
                points = arm.centers[s, t, k] + share * step[s, t, k]
                out.append(self._obstacle(arm, s * T + t, k, points, margin[t, k], share))
        return out

    def _obstacle(
        self,
        arm: ArmState,
        at: Indices,
        k: Indices,
        points: FloatArray,
        margin: FloatArray,
        share: float = 0.0,
    ) -> ResidualRows:
        """Residuals of spheres k (M,) at points (M, 3), at a share of the way to the next time."""
        distance, normal = self.field.query(points)
        residual = (margin - (distance - self.radius[k])) / self.tolerance
        active = residual > 0
        at, k, normal = at[active], k[active], normal[active] * (-1 / self.tolerance)
        row = (1 - share) * self._derivative(arm, at, k, normal)
        following = share * self._derivative(arm, at + 1, k, normal) if share else None
        return ResidualRows(at, residual[active], row, following)

    def self_rows(self, arm: ArmState) -> ResidualRows:
        """Residuals of pairs of spheres near each other."""
        centers = arm.centers.reshape(-1, *arm.centers.shape[2:])  # (S T, K, 3)

        # Close pairs. One flat index is several times faster to search than three.
        squares = _squared_distances(centers, self.first, self.second)
        near = np.flatnonzero(squares < self.pair_limit)
        at, pair = np.divmod(near, self.contact_distance.size)
        a, b = self.first[pair // len(self.second)], self.second[pair % len(self.second)]

        # Exact distances of those.
        offset = centers[at, a] - centers[at, b]
        length = np.sqrt(np.einsum("mc,mc->m", offset, offset))
        residual = (self.self_margin + self.radius[a] + self.radius[b] - length) / self.tolerance
        active = residual > 0
        at, a, b = at[active], a[active], b[active]

        scale = -self.tolerance * np.maximum(length[active], _MIN_DISTANCE)
        normal = offset[active] / scale[:, None]
        row = self._derivative(arm, at, a, normal) - self._derivative(arm, at, b, normal)
        return ResidualRows(at, residual[active], row)

    def _derivative(self, arm: ArmState, at: Indices, k: Indices, normal: FloatArray) -> FloatArray:
        """Derivatives (M, J) of the positions of spheres k along normals (M, 3)."""
        J = arm.J.reshape(-1, *arm.J.shape[2:])
        X = arm.X.reshape(-1, 4, 4)
        centers = arm.centers.reshape(-1, *arm.centers.shape[2:])
        lever = centers[at, k] - X[at, :3, 3]
        wrench = np.concatenate([normal, cross(lever, normal)], axis=1)  # (M, 6)
        row: FloatArray = (wrench[:, None] @ J[at])[:, 0]
        row *= self.moved_by[k]
        return row

    def clearance(self, q: FloatArray, margins: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Distances (B,), (B,) in meters of robot and held object from obstacles and the robot.

        Args:
            q: (B, J) configurations.
            margins: (B, K) margins there. A negative one means that the flow itself requires an
                overlap of that sphere, which is then measured from that overlap.
        """
        centers = self.arm_state(q[None]).centers[0]  # (B, K, 3)
        moving = self.moved_by.any(axis=1)
        distance = self.field.distance(centers) - self.radius - np.minimum(margins, 0.0)
        distance = np.where(moving, distance, np.inf)
        gaps = _gaps(centers, self.first, self.second, self.contact_distance)

        own, n = len(self.second) - len(self.held), self.count
        robot = np.minimum(_smallest(distance[:, :n]), _smallest(gaps[:, :, :own]))
        held = np.minimum(_smallest(distance[:, n:]), _smallest(gaps[:, :, own:]))
        return robot, held


def self_clearance(robot: Robot, q: FloatArray) -> FloatArray:
    """Smallest distance (B,) in meters between the robot's links at q (B, J), gripper open."""
    return _smallest(_gaps(robot.spheres(q), *_pair_table(robot)))


def _squared_distances(centers: FloatArray, first: Indices, second: Indices) -> NDArray[np.float32]:
    """Squared distances (B, P1, P2) between spheres `first` and `second`, centers (B, K, 3).

    One matrix product, [-2 a, |a|^2, 1] . [b, 1, |b|^2]. Single precision resolves 0.01 mm
    at arm's length.
    """
    c = (centers - centers[0, 0]).astype(np.float32)
    square = np.einsum("bkc,bkc->bk", c, c)[..., None]
    one = np.ones_like(square)
    a = np.concatenate([-2 * c, square, one], axis=2)[:, first]  # (B, P1, 5)
    b = np.concatenate([c, one, square], axis=2)[:, second]  # (B, P2, 5)
    return a @ b.transpose(0, 2, 1)


def _gaps(
    centers: FloatArray, first: Indices, second: Indices, contact_distance: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Distances (B, P1, P2) between surfaces; infinite for pairs that are not checked."""
    gaps = _squared_distances(centers, first, second)
    np.maximum(gaps, 0.0, out=gaps)
    np.sqrt(gaps, out=gaps)
    gaps -= contact_distance
    return gaps


def _smallest(values: NDArray[np.floating]) -> FloatArray:
    """Minimum (B,) over all axes but the first; infinite if these are empty."""
    return values.min(axis=tuple(range(1, values.ndim)), initial=np.inf).astype(float)


@lru_cache(maxsize=16)
def carried_spheres(robot: Robot) -> NDArray[np.bool_]:
    """(K, J): True where joint j moves sphere k."""
    parent_joint = {joint.child: joint for joint in robot.joints}
    out = np.zeros((len(robot.sphere_link), len(robot.joint_names)), bool)
    for k, index in enumerate(robot.sphere_link):
        link = robot.link_names[index]
        while link in parent_joint:
            joint = parent_joint[link]
            if joint.name in robot.joint_names:
                out[k, robot.joint_names.index(joint.name)] = True
            link = joint.parent
    return out


@lru_cache(maxsize=16)
def _pair_table(robot: Robot) -> tuple[Indices, Indices, NDArray[np.float32]]:
    """Spheres (P1,) and (P2,) to check against each other, and distances (P1, P2) at contact.

    The distance is -inf for pairs that are not checked. All spheres not fixed to the tool are among
    the first.
    """
    carried = carried_spheres(robot)

    # The sphere closer to the base first: most spheres are then on one side, the table is small.
    pairs = robot.self_pairs.reshape(-1, 2)
    depth = carried.sum(axis=1)[pairs]
    pairs = np.where((depth[:, 0] > depth[:, 1])[:, None], pairs[:, ::-1], pairs)

    first = np.union1d(pairs[:, 0], np.flatnonzero(~carried.all(axis=1)))
    second = np.unique(pairs[:, 1])
    contact = np.full((len(first), len(second)), -np.inf, np.float32)
    row, column = np.searchsorted(first, pairs[:, 0]), np.searchsorted(second, pairs[:, 1])
    contact[row, column] = robot.sphere_radius[pairs].sum(axis=1)
    return first, second, contact
