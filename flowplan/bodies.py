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

from flowplan.checks import FloatArray

_MOST_CONTACTS = 1000
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


def gap(a: Body, X_a: coal.Transform3s, b: Body, X_b: coal.Transform3s, enough: float) -> float:
    """Metres between two bodies, negative by how deep they overlap.

    Where that is `enough` or more, any number from `enough` up to it may come back: looking closer would tell nothing.
    """
    result = coal.DistanceResult()
    distance = float(coal.distance(a.hull, X_a, b.hull, X_b, _DISTANCE, result))
    if distance >= enough or (a.surface is None and b.surface is None):
        return distance
    # From here on the hulls are too near, and at least one of the bodies is less than its hull.
    result.clear()
    reach = max(enough, 1e-6)
    result.min_distance = reach  # the trees leave out what is farther
    distance = min(float(coal.distance(_shape(a), X_a, _shape(b), X_b, _DISTANCE, result)), reach)
    if distance <= 0:
        return min(-_depth(a, X_a, b, X_b), -1e-9)
    if _within(a, X_a, b, X_b) or _within(b, X_b, a, X_a):
        return -distance
    return distance


def _shape(body: Body) -> coal.CollisionGeometry:
    return body.hull if body.surface is None else body.surface


def _depth(a: Body, X_a: coal.Transform3s, b: Body, X_b: coal.Transform3s) -> float:
    """Metres that the deepest triangle of one lies within the hull of the other (the smaller of the two ways)."""
    depths = []
    for first, second in ((_shape(a), b.hull), (a.hull, _shape(b))):
        contacts = coal.CollisionResult()
        coal.collide(first, X_a, second, X_b, _CONTACTS, contacts)
        depths.append(max((abs(c.penetration_depth) for c in contacts.getContacts()), default=0.0))
    return min(depths)


def _within(a: Body, X_a: coal.Transform3s, b: Body, X_b: coal.Transform3s) -> bool:
    """Does a point of `a` lie inside the surface of `b`?"""
    if not len(b.triangles):
        return False
    point = a.points[0] if not len(a.triangles) else a.triangles[0, 0]
    point = X_a.getRotation() @ point + X_a.getTranslation()
    point = X_b.getRotation().T @ (point - X_b.getTranslation())
    return winding_number(b.triangles, point) > 0.5


def winding_number(triangles: FloatArray, point: FloatArray) -> float:
    """How often the surface of `triangles` (F, 3, 3) winds around `point` (3,): 1 inside a closed one, 0 outside.

    The sum of the triangles' signed solid angles (Van Oosterom and Strackee 1983) over 4 pi, whichever way they face.
    """
    r = triangles - point
    length = np.linalg.norm(r, axis=-1)
    volume = np.einsum("fc,fc->f", r[:, 0], np.cross(r[:, 1], r[:, 2]))
    dots = [np.einsum("fc,fc->f", r[:, i], r[:, j]) * length[:, k] for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1))]
    solid = 2 * np.arctan2(volume, length.prod(1) + dots[0] + dots[1] + dots[2])
    return float(abs(solid.sum()) / (4 * np.pi))


def _corners(low: FloatArray, high: FloatArray) -> FloatArray:
    return np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
