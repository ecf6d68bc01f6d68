"""Solid bodies for independent collision checks, and the signed distance between two of them.

Distances come from coal (GJK and EPA). A convex body is represented by its hull. Any other is a
triangle surface (a tree of oriented boxes) inside its hull. The hull is queried first, as it is a
hundred times faster and its distance is a lower bound; the surface only if the hull is too near. A
surface has no inside: a body that lies wholly within a closed surface is detected by the winding
number of one of its points (Jacobson et al., "Robust inside-outside segmentation using generalized
winding numbers", SIGGRAPH 2013).

Two surfaces that cross have no depth of their own: it is the largest depth of a point of one, with
points evenly spaced whatever the triangles, below the surface of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import coal
import numpy as np
import trimesh
from scipy.spatial import ConvexHull, QhullError

from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d, surface_scene

_MOST_CONTACTS = 20_000
_MOST_NEIGHBORS = 200
"""Neighbors of one hull vertex that coal can store."""
_MOST_CORNERS = 4000
"""Corners of a hull beyond which the bounding box takes its place: coal copies them one by one."""
_TINY = 1e-6
"""Meters; smallest cutoff distance, and padding of flat sheets."""
_SPACING = 2e-3
"""Meters between the points of a surface whose depth is measured, on bodies of common size."""
_MOST_POINTS = 40_000
"""Number of such points, beyond which they are spaced further apart."""
_NO_TRIANGLES = np.zeros((0, 3, 3))
_DISTANCE = coal.DistanceRequest()
_CONTACTS = coal.CollisionRequest()
_CONTACTS.enable_contact = True
_CONTACTS.num_max_contacts = _MOST_CONTACTS


@dataclass(frozen=True, eq=False)
class Body:
    """A rigid solid in its own frame.

    Attributes:
        hull: coal convex geometry that contains the body.
        points: (V, 3) points whose convex hull contains the body, meters.
        surface: coal triangle tree of a non-convex body, else None.
        triangles: (F, 3, 3) corners of that surface, meters; empty for a convex body.
        thickness: Mean thickness 2 V / A in meters of a closed body: that of a plate, or of a
            vessel's wall. 0 for an open surface.
        closed: True if the surface has an inside.
    """

    hull: coal.CollisionGeometry
    points: FloatArray
    surface: coal.BVHModelOBBRSS | None
    triangles: FloatArray
    thickness: float = np.inf
    closed: bool = True

    @cached_property
    def _faces(self) -> FloatArray:
        """Corners (F, 3, 3) of the surface, which of a convex body is that of its hull."""
        if len(self.triangles):
            return self.triangles
        return np.asarray(self.points[ConvexHull(self.points).simplices], float)

    @cached_property
    def samples(self) -> FloatArray:
        """Points (M, 3) on the surface, evenly spaced whatever its triangles."""
        triangles = self._faces
        sides = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
        area = 0.5 * np.linalg.norm(np.cross(*sides), axis=-1).sum()
        edge = max(_SPACING, float(np.sqrt(4 * area / _MOST_POINTS)))
        faces = np.arange(3 * len(triangles)).reshape(-1, 3)
        corners = triangles.reshape(-1, 3)
        points, _ = trimesh.remesh.subdivide_to_size(corners, faces, edge, max_iter=20)
        return np.unique(np.round(points, 7), axis=0)

    @cached_property
    def inside_depth(self) -> Callable[[FloatArray], FloatArray]:
        """Function of points (M, 3): their depths (M,) below a closed surface, negative outside."""
        if self.surface is None:
            planes = ConvexHull(self.points).equations  # outward normals and offsets
            return lambda points: -(points @ planes[:, :3].T + planes[:, 3]).max(axis=1)
        o3d = open3d()
        vertices = self.triangles.reshape(-1, 3)
        scene = surface_scene((vertices, np.arange(len(vertices)).reshape(-1, 3)))

        def depth(points: FloatArray) -> FloatArray:
            query = o3d.core.Tensor(np.asarray(points, np.float32))
            distance = scene.compute_signed_distance(query, nsamples=3)
            return -np.asarray(distance.numpy(), float)

        return depth


def mesh_body(mesh: trimesh.Trimesh, *, solid: bool = False) -> Body:
    """Body of a mesh, in the mesh's frame.

    Args:
        mesh: Convex, concave or open; meters.
        solid: Use the convex hull, whatever the shape.
    """
    vertices = np.asarray(mesh.vertices, float)[np.unique(mesh.faces)]
    try:
        hull = ConvexHull(vertices)
        points = vertices[hull.vertices]
        deviation = abs(abs(mesh.volume) - hull.volume)
        is_convex = mesh.is_watertight and deviation < 1e-3 * hull.volume
        if len(points) > _MOST_CORNERS and not solid:
            points, is_convex = _box_corners(vertices.min(0), vertices.max(0)), False
    except QhullError:  # a flat sheet has no hull: its padded bounding box contains it
        points = _box_corners(vertices.min(0) - _TINY, vertices.max(0) + _TINY)
        is_convex = False
    closed = bool(mesh.is_watertight)
    thickness = 2 * abs(float(mesh.volume)) / max(float(mesh.area), 1e-12) if closed else 0.0
    if solid or is_convex:
        return Body(convex(points), points, None, _NO_TRIANGLES, thickness)
    surface = coal.BVHModelOBBRSS()
    surface.beginModel(len(mesh.faces), len(mesh.vertices))
    surface.addVertices(np.asarray(mesh.vertices, float))
    surface.addTriangles(np.asarray(mesh.faces, np.int32))
    surface.endModel()
    triangles = np.asarray(mesh.triangles, float)
    return Body(convex(points), points, surface, triangles, thickness, closed)


def shape_body(geometry: coal.CollisionGeometry) -> Body:
    """Body of a coal geometry of a robot link: the hull of a mesh, or the primitive itself."""
    if isinstance(geometry, coal.BVHModelBase):
        points = np.array(geometry.vertices())
        points = points[ConvexHull(points).vertices]
        return Body(convex(points), points, None, _NO_TRIANGLES)
    geometry.computeLocalAABB()
    box = geometry.aabb_local
    return Body(geometry, _box_corners(box.min_, box.max_), None, _NO_TRIANGLES)


def convex(points: FloatArray) -> coal.Convex:
    """Convex hull of points (V, 3) that span a volume."""
    hull = ConvexHull(points)
    if np.bincount(hull.simplices.ravel()).max() > _MOST_NEIGHBORS:
        # A flat face of many corners comes as a fan about one of them, more neighbors than coal can
        # store. Joggled input spreads its triangles over the corners; the points stay unchanged.
        hull = ConvexHull(points, qhull_options="QJ")
    # Number the hull's vertices from zero.
    index = np.zeros(len(points), int)
    index[hull.vertices] = np.arange(len(hull.vertices))
    vertices = coal.StdVec_Vec3s()
    vertices.extend(list(points[hull.vertices]))
    triangles = [coal.Triangle(int(a), int(b), int(c)) for a, b, c in index[hull.simplices]]
    faces = coal.StdVec_Triangle()
    faces.extend(triangles)
    return coal.Convex(vertices, faces)


def signed_distance(
    a: Body,
    X_a: coal.Transform3s,
    b: Body,
    X_b: coal.Transform3s,
    sufficient: float,
    threshold: float = np.inf,
) -> float:
    """Signed distance between two bodies, neither of which lies wholly inside the other.

    Lower bounds are returned where they decide the question, as they are cheaper by far.

    Args:
        a, b: The bodies.
        X_a, X_b: Their poses in one frame.
        sufficient: Meters. If the distance is at least this, any value between this and the
            distance may be returned.
        threshold: Meters. If one body is concave, any value on the same side of this as the
            distance may be returned too. Infinite for the distance itself.

    Returns:
        Meters, negative by the depth of an overlap.
    """
    # Hulls: a lower bound, and exact for convex bodies.
    result = coal.DistanceResult()
    distance = float(coal.distance(a.hull, X_a, b.hull, X_b, _DISTANCE, result))
    if distance >= sufficient or (a.surface is None and b.surface is None):
        return distance

    # One concave body: its surface against the hull. A triangle's depth is at most half the width
    # of a thin body that cuts through it, so an overlap that is allowed is measured both ways.
    if a.surface is None or b.surface is None:
        distance = _surface_distance(_shape(a), X_a, _shape(b), X_b, sufficient)
        if distance < 0 and not distance <= threshold < np.inf:
            return min(distance, _crossing_depth(a, X_a, b, X_b, distance))
        return distance

    # Two concave bodies: each surface against the other's hull, a bound from below.
    bound = _surface_distance(a.hull, X_a, b.surface, X_b, sufficient)
    if bound <= threshold:
        bound = max(bound, _surface_distance(a.surface, X_a, b.hull, X_b, sufficient))
    if bound > threshold:
        return bound

    # Both surfaces.
    cutoff = max(sufficient, _TINY)
    result.clear()
    result.min_distance = cutoff
    distance = float(coal.distance(a.surface, X_a, b.surface, X_b, _DISTANCE, result))
    return min(distance, cutoff) if distance > 0 else _crossing_depth(a, X_a, b, X_b, bound)


def _crossing_depth(
    a: Body, X_a: coal.Transform3s, b: Body, X_b: coal.Transform3s, bound: float
) -> float:
    """Signed distance of two surfaces that cross: the depth of the deepest point of either.

    An open surface has no inside: the depth within its hull, `bound`, stands for it.
    """
    if not (a.closed and b.closed):
        return bound
    X = coal.Transform3s(X_b).inverseTimes(X_a)  # from a to b
    R, t = X.getRotation(), X.getTranslation()
    depth = _deepest(a.samples @ R.T + t, b)
    depth = max(depth, _deepest((b.samples - t) @ R, a))
    return -max(depth, _TINY)


def _deepest(points: FloatArray, body: Body) -> float:
    """Largest depth in meters of points (M, 3) below the surface of a body, in its frame."""
    low, high = body.points.min(0), body.points.max(0)
    within = points[((points > low) & (points < high)).all(axis=1)]
    return float(body.inside_depth(within).max()) if len(within) else 0.0


def contained(a: Body, X_a: coal.Transform3s, b: Body, X_b: coal.Transform3s) -> bool:
    """True if a point of one body lies inside the closed surface of the other.

    The two surfaces need not touch.
    """
    return _contains(a, X_a, b, X_b) or _contains(b, X_b, a, X_a)


def _shape(body: Body) -> coal.CollisionGeometry:
    """The exact geometry of a body."""
    return body.hull if body.surface is None else body.surface


def _surface_distance(
    a: coal.CollisionGeometry,
    X_a: coal.Transform3s,
    b: coal.CollisionGeometry,
    X_b: coal.Transform3s,
    sufficient: float,
) -> float:
    """Signed distance between a convex geometry and a surface, in either order."""
    # Apart: the tree search is cut off at the sufficient distance.
    result = coal.DistanceResult()
    cutoff = max(sufficient, _TINY)
    result.min_distance = cutoff
    distance = float(coal.distance(a, X_a, b, X_b, _DISTANCE, result))
    if distance > 0:
        return min(distance, cutoff)
    # In contact: the deepest of the contacts.
    contacts = coal.CollisionResult()
    coal.collide(a, X_a, b, X_b, _CONTACTS, contacts)
    depths = (abs(c.penetration_depth) for c in contacts.getContacts())
    return -max(depths, default=0.0)


def _contains(
    outer: Body, X_outer: coal.Transform3s, inner: Body, X_inner: coal.Transform3s
) -> bool:
    """True if a point of `inner` lies inside the surface of `outer`."""
    if outer.surface is None:
        return False
    # Any point of the inner body, in the frame of the outer one.
    point = inner.points[0] if inner.surface is None else inner.triangles[0, 0]
    point = X_inner.getRotation() @ point + X_inner.getTranslation()
    point = X_outer.getRotation().T @ (point - X_outer.getTranslation())
    low, high = outer.points.min(0), outer.points.max(0)
    if (point < low).any() or (point > high).any():
        return False
    return winding_number(outer.triangles, point) > 0.5


def winding_number(triangles: FloatArray, point: FloatArray) -> float:
    """Generalized winding number of a surface about a point, in absolute value.

    The sum of the triangles' signed solid angles (Van Oosterom and Strackee 1983) over 4 pi.

    Args:
        triangles: (F, 3, 3) corners, meters, consistently oriented.
        point: (3,) meters.

    Returns:
        1 inside a closed surface, 0 outside.
    """
    # tan(angle / 2) = r0 . (r1 x r2) / (|r0||r1||r2| + (r0.r1)|r2| + (r1.r2)|r0| + (r2.r0)|r1|)
    r = triangles - point  # (F, 3, 3)
    length = np.linalg.norm(r, axis=-1)  # (F, 3)
    volume = np.einsum("fc,fc->f", r[:, 0], np.cross(r[:, 1], r[:, 2]))
    denominator = length.prod(1)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        denominator = denominator + np.einsum("fc,fc->f", r[:, i], r[:, j]) * length[:, k]
    solid_angle = 2 * np.arctan2(volume, denominator)
    return float(abs(solid_angle.sum()) / (4 * np.pi))


def _box_corners(low: FloatArray, high: FloatArray) -> FloatArray:
    """Corners (8, 3) of an axis-aligned box."""
    corners = [
        [x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])
    ]
    return np.array(corners)
