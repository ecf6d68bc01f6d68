"""Solid bodies for the independent collision check, and the signed distance between two of them (coal: GJK and EPA).

A convex body is its hull. Any other is a triangle surface (a tree of oriented boxes) inside its hull: the hull answers
first, because it is a hundred times cheaper and can only be nearer than the body itself; the surface is asked where the
hull says "too near". A surface has no inside: a body that lies wholly within a closed surface is found by the winding
number of a point of it (Jacobson et al., "Robust inside-outside segmentation using generalized winding numbers",
SIGGRAPH 2013).
"""

from __future__ import annotations

from dataclasses import dataclass

import coal
import numpy as np
import trimesh
from scipy.spatial import ConvexHull, QhullError

from flowplan.utils.checks import FloatArray

_MOST_CONTACTS = 1000
_HAIR = 1e-6  # metres
_MOST_NEIGHBOURS = 200  # of one corner of a hull
_DISTANCE = coal.DistanceRequest()
_CONTACTS = coal.CollisionRequest()
_CONTACTS.enable_contact = True
_CONTACTS.num_max_contacts = _MOST_CONTACTS


@dataclass(frozen=True, eq=False)
class Body:
    """A rigid solid in a frame of its own.

    Attributes:
        hull: coal convex geometry that contains the body.
        points: (V, 3) metres, points whose convex hull contains the body.
        surface: coal triangle tree where the body is not convex, else None.
        triangles: (F, 3, 3) corners of that surface, metres; empty for a convex body.
    """

    hull: coal.CollisionGeometry
    points: FloatArray
    surface: coal.BVHModelOBBRSS | None
    triangles: FloatArray


def mesh_body(mesh: trimesh.Trimesh, *, solid: bool = False) -> Body:
    """The body of a mesh, in the mesh's frame.

    Args:
        mesh: metres; convex, concave or open.
        solid: take its convex hull for the body, whatever its shape.
    """
    vertices = np.asarray(mesh.vertices, float)[np.unique(mesh.faces)]
    try:
        hull = ConvexHull(vertices)
        points = vertices[hull.vertices]
        fills_hull = mesh.is_watertight and abs(abs(mesh.volume) - hull.volume) < 1e-3 * hull.volume
    except QhullError:  # a flat sheet has no hull: its bounding box, a hair thicker, contains it
        points = _corners(vertices.min(0) - 1e-6, vertices.max(0) + 1e-6)
        fills_hull = False
    if solid or fills_hull:
        return Body(convex(points), points, None, np.zeros((0, 3, 3)))
    surface = coal.BVHModelOBBRSS()
    surface.beginModel(len(mesh.faces), len(mesh.vertices))
    surface.addVertices(np.asarray(mesh.vertices, float))
    surface.addTriangles(np.asarray(mesh.faces, np.int32))
    surface.endModel()
    return Body(convex(points), points, surface, np.asarray(mesh.triangles, float))


def shape_body(geometry: coal.CollisionGeometry) -> Body:
    """The body of a coal geometry of a robot link: a mesh becomes its hull, a primitive stays what it is."""
    if isinstance(geometry, coal.BVHModelBase):
        points = np.array(geometry.vertices())
        points = points[ConvexHull(points).vertices]
        return Body(convex(points), points, None, np.zeros((0, 3, 3)))
    geometry.computeLocalAABB()
    box = geometry.aabb_local
    return Body(geometry, _corners(box.min_, box.max_), None, np.zeros((0, 3, 3)))


def convex(points: FloatArray) -> coal.Convex:
    """The convex hull of points (V, 3) that span a volume."""
    hull = ConvexHull(points)
    if np.bincount(hull.simplices.ravel()).max() > _MOST_NEIGHBOURS:
        # A flat face of many corners comes as a fan about one of them, more than coal can hold. Seen a hair uneven
        # (joggled), it falls into triangles that share their corners out; the points stay what they are.
        hull = ConvexHull(points, qhull_options="QJ")
    index = np.zeros(len(points), int)
    index[hull.vertices] = np.arange(len(hull.vertices))
    vertices = coal.StdVec_Vec3s()
    vertices.extend(list(points[hull.vertices]))
    faces = coal.StdVec_Triangle()
    faces.extend([coal.Triangle(int(a), int(b), int(c)) for a, b, c in index[hull.simplices]])
    return coal.Convex(vertices, faces)


def gap(
    a: Body,
    X_a: coal.Transform3s,
    b: Body,
    X_b: coal.Transform3s,
    enough: float,
    threshold: float = np.inf,
) -> float:
    """Metres between two bodies, negative by how deep they overlap; neither must lie wholly inside the other.

    Where that is `enough` or more, any number from `enough` up to it may come back: looking closer would tell nothing.
    Of two concave bodies any number above `threshold` may, up to it: such a bound costs a tenth of the truth.
    """
    result = coal.DistanceResult()
    distance = float(coal.distance(a.hull, X_a, b.hull, X_b, _DISTANCE, result))
    if distance >= enough or (a.surface is None and b.surface is None):
        return distance
    # From here on the hulls are too near, and at least one of the bodies is less than its hull.
    if a.surface is None or b.surface is None:
        return _surface_gap(_shape(a), X_a, _shape(b), X_b, enough)
    bound = _surface_gap(a.hull, X_a, b.surface, X_b, enough)
    if bound <= threshold:
        bound = max(bound, _surface_gap(a.surface, X_a, b.hull, X_b, enough))
    if bound > threshold:
        return bound
    result.clear()
    result.min_distance = max(enough, _HAIR)
    distance = float(coal.distance(a.surface, X_a, b.surface, X_b, _DISTANCE, result))
    # Two surfaces that cross have no depth of their own; what is within the other's hull has.
    return bound if distance <= 0 else min(distance, max(enough, _HAIR))


def contained(a: Body, X_a: coal.Transform3s, b: Body, X_b: coal.Transform3s) -> bool:
    """Does a point of one body lie inside the closed surface of the other? Their surfaces need not touch for that."""
    return _holds(a, X_a, b, X_b) or _holds(b, X_b, a, X_a)


def _shape(body: Body) -> coal.CollisionGeometry:
    return body.hull if body.surface is None else body.surface


def _surface_gap(
    a: coal.CollisionGeometry,
    X_a: coal.Transform3s,
    b: coal.CollisionGeometry,
    X_b: coal.Transform3s,
    enough: float,
) -> float:
    """`gap` of a convex geometry and a surface, in either order."""
    result = coal.DistanceResult()
    reach = max(enough, _HAIR)
    result.min_distance = reach  # the tree leaves out what is farther
    distance = float(coal.distance(a, X_a, b, X_b, _DISTANCE, result))
    if distance > 0:
        return min(distance, reach)
    contacts = coal.CollisionResult()
    coal.collide(a, X_a, b, X_b, _CONTACTS, contacts)
    return -max((abs(c.penetration_depth) for c in contacts.getContacts()), default=0.0)


def _holds(outer: Body, X_outer: coal.Transform3s, inner: Body, X_inner: coal.Transform3s) -> bool:
    if outer.surface is None:
        return False
    point = inner.points[0] if inner.surface is None else inner.triangles[0, 0]
    point = X_inner.getRotation() @ point + X_inner.getTranslation()
    point = X_outer.getRotation().T @ (point - X_outer.getTranslation())
    if (point < outer.points.min(0)).any() or (point > outer.points.max(0)).any():
        return False
    return winding_number(outer.triangles, point) > 0.5


def winding_number(triangles: FloatArray, point: FloatArray) -> float:
    """How often the surface of `triangles` (F, 3, 3) winds around `point` (3,): 1 inside a closed one, 0 outside.

    The sum of the triangles' signed solid angles (Van Oosterom and Strackee 1983) over 4 pi, whichever way they face.
    """
    r = triangles - point
    length = np.linalg.norm(r, axis=-1)
    volume = np.einsum("fc,fc->f", r[:, 0], np.cross(r[:, 1], r[:, 2]))
    dots = [
        np.einsum("fc,fc->f", r[:, i], r[:, j]) * length[:, k]
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1))
    ]
    solid = 2 * np.arctan2(volume, length.prod(1) + dots[0] + dots[1] + dots[2])
    return float(abs(solid.sum()) / (4 * np.pi))


def _corners(low: FloatArray, high: FloatArray) -> FloatArray:
    return np.array(
        [[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
    )
