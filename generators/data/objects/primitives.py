"""Closed mesh pieces from which the families are built: boxes, shells and bodies of revolution.

Every function returns one closed surface with outward normals, by numpy alone: no boolean operation
is ever needed, because pieces of a link may touch or overlap.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray

from flowplan.geometry import exp_so3
from flowplan.utils.checks import FloatArray

Faces = NDArray[np.int64]
ORIGIN = (0.0, 0.0, 0.0)
DIRECTIONS = {
    f"{sign}{letter}": (1.0 if sign != "-" else -1.0) * np.eye(3)[i]
    for i, letter in enumerate("xyz")
    for sign in ("", "+", "-")
}


def direction(axis: str | ArrayLike) -> FloatArray:
    """Unit vector (3,) of "x", "+y", "-z" and so on, or of any (3,) vector."""
    if isinstance(axis, str):
        return DIRECTIONS[axis].copy()
    vector = np.asarray(axis, float)
    return vector / np.linalg.norm(vector)


def solid(vertices: ArrayLike, faces: ArrayLike) -> trimesh.Trimesh:
    """A mesh of vertices (V, 3) and triangles (F, 3) that close consistently, turned outward if
    they were inward."""
    v, f = np.asarray(vertices, float), np.asarray(faces, np.int64)
    a, b, c = (v - v.mean(0))[f.T]
    if np.einsum("ij,ij->", a, np.cross(b, c)) < 0:
        f = f[:, ::-1]
    return trimesh.Trimesh(v, f, process=False)


def moved(
    mesh: trimesh.Trimesh, translation: ArrayLike = ORIGIN, rotation: ArrayLike | None = None
) -> trimesh.Trimesh:
    """The mesh turned by rotation (3, 3) about the origin, then shifted by translation (3,) in
    meters."""
    vertices = mesh.vertices if rotation is None else mesh.vertices @ np.asarray(rotation, float).T
    return trimesh.Trimesh(vertices + np.asarray(translation, float), mesh.faces, process=False)


def turned(
    mesh: trimesh.Trimesh, axis: str | ArrayLike, angle: float, about: ArrayLike = ORIGIN
) -> trimesh.Trimesh:
    """The mesh turned by `angle` (rad) about the line through `about` (3,) along `axis`."""
    R, p = exp_so3(angle * direction(axis)), np.asarray(about, float)
    return moved(mesh, p - R @ p, R)


def mirrored(mesh: trimesh.Trimesh, axis: str, at: float = 0.0) -> trimesh.Trimesh:
    """The mesh reflected in the plane `axis` = `at`, still closed and outward."""
    i = "xyz".index(axis)
    vertices = np.array(mesh.vertices)
    vertices[:, i] = 2 * at - vertices[:, i]
    return trimesh.Trimesh(vertices, mesh.faces[:, ::-1], process=False)


def pointed(
    mesh: trimesh.Trimesh, axis: str | ArrayLike, center: ArrayLike = ORIGIN
) -> trimesh.Trimesh:
    """The mesh with its z axis turned onto `axis` and its origin moved to `center` (3,).

    Along x, y or z the turn is a permutation of the axes: what was x is then the next axis in the
    cycle x, y, z (pointed along "y": x -> z, y -> x; along "x": x -> y, y -> z), mirrored in pairs
    for the negative ones.
    """
    d = direction(axis)
    if np.abs(d).max() > 1 - 1e-12:
        i, sign = int(np.abs(d).argmax()), float(np.sign(d[np.abs(d).argmax()]))
        R = np.roll(np.eye(3), (i + 1) % 3, axis=0) * np.array([sign, 1.0, sign])
    else:
        x = np.cross([0.0, 0.0, 1.0], d)
        x /= np.linalg.norm(x)
        R = np.stack([x, np.cross(d, x), d], axis=1)
    return moved(mesh, center, R)


def merge(*meshes: trimesh.Trimesh) -> trimesh.Trimesh:
    """One mesh of several pieces, each keeping its own vertices."""
    offsets = np.cumsum([0, *(len(m.vertices) for m in meshes)])
    faces = [m.faces + o for m, o in zip(meshes, offsets[:-1], strict=True)]
    return trimesh.Trimesh(
        np.concatenate([m.vertices for m in meshes]), np.concatenate(faces), process=False
    )


# Boxes


@lru_cache(maxsize=64)
def _grid_surface(nx: int, ny: int, nz: int) -> tuple[NDArray[np.int64], Faces]:
    """The surface of a grid of nx x ny x nz nodes: node indices (V, 3) and triangles (F, 3),
    closed."""
    counts = np.array([nx, ny, nz])
    quads = []
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        a, b = np.meshgrid(np.arange(counts[j] - 1), np.arange(counts[k] - 1), indexing="ij")
        for side in (0, counts[i] - 1):
            corners = np.zeros((a.size, 4, 3), int)
            corners[..., i] = side
            corners[..., j] = a.reshape(-1, 1) + np.array([0, 1, 1, 0])
            corners[..., k] = b.reshape(-1, 1) + np.array([0, 0, 1, 1])
            quads.append(corners if side else corners[:, ::-1])
    nodes = np.concatenate(quads).reshape(-1, 3)
    unique, index = np.unique(nodes @ [ny * nz, nz, 1], return_inverse=True)
    q = index.reshape(-1, 4)
    surface = np.stack([unique // (ny * nz), unique // nz % ny, unique % nz], axis=1)
    return surface, np.concatenate([q[:, :3], q[:, [0, 2, 3]]])


def box(
    extents: ArrayLike,
    center: ArrayLike = ORIGIN,
    rng: np.random.Generator | None = None,
    *,
    bevel: float = 0.25,
) -> trimesh.Trimesh:
    """A box of side lengths `extents` (3,) about `center`; with `rng` its edges are, half of the
    time, rounded.

    The radius is then random, at most `bevel` of the shortest side.
    """
    e = np.asarray(extents, float)
    if rng is not None and rng.random() < 0.5:
        return rounded_box(
            e, center, rng.uniform(0.1, 1.0) * bevel * e.min(), segments=int(rng.integers(1, 3))
        )
    nodes, faces = _grid_surface(2, 2, 2)
    return trimesh.Trimesh((nodes - 0.5) * e + center, faces, process=False)


def rounded_box(
    extents: ArrayLike, center: ArrayLike, radius: float, segments: int = 1
) -> trimesh.Trimesh:
    """A box whose edges and corners are rounded with `radius` (m), in 2 `segments` chords; 1
    looks like a chamfer."""
    half = np.asarray(extents, float) / 2
    r = min(radius, 0.49 * 2 * half.min())
    # Angles evenly spaced on the rounding: tan maps them to the cube's faces, which project back
    # onto the sphere.
    inner = r * (1 - np.tan(np.linspace(np.pi / 4, 0.0, segments + 1)))
    nodes, faces = _grid_surface(*[2 * (segments + 1)] * 3)
    coordinates = [np.concatenate([-h + inner, (h - inner)[::-1]]) for h in half]
    p = np.stack([c[n] for c, n in zip(coordinates, nodes.T, strict=True)], axis=1)
    core = np.clip(p, -(half - r), half - r)
    d = p - core
    length = np.linalg.norm(d, axis=1, keepdims=True)
    return trimesh.Trimesh(core + r * d / np.maximum(length, 1e-12) + center, faces, process=False)


def shell_box(
    extents: ArrayLike,
    wall: float,
    center: ArrayLike = ORIGIN,
    *,
    floor: float | None = None,
    open_to: str = "+z",
) -> trimesh.Trimesh:
    """A box of outer side lengths `extents` that is hollow and open on one side, as one closed
    piece.

    `wall` and `floor` (m; `floor` defaults to `wall`) are thicknesses; `open_to` is the open
    side, "-y" and so on.
    """
    i = "xyz".index(open_to[-1])
    e = np.asarray(extents, float)
    height, (ex, ey) = e[i], (e[(i + 1) % 3], e[(i + 2) % 3])
    bottom, top, base = (
        -height / 2,
        height / 2,
        -height / 2 + min(wall if floor is None else floor, 0.9 * height),
    )
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    outer, inner = signs * [ex / 2, ey / 2], signs * [ex / 2 - wall, ey / 2 - wall]
    loops = [(outer, bottom), (outer, top), (inner, top), (inner, base)]
    mesh = skin(
        np.concatenate([np.column_stack([xy, np.full(4, z)]) for xy, z in loops]).reshape(4, 4, 3)
    )
    # The two axes after the open one, in a cycle, are the walls' own: a permutation keeps the
    # extents where they are.
    R = np.roll(np.eye(3), (i + 1) % 3, axis=0)
    mesh = moved(mesh, ORIGIN, R)
    return moved(mesh if open_to[0] != "-" else mirrored(mesh, open_to[-1]), center)


def vessel(
    outline: ArrayLike,
    height: float,
    wall: float,
    center: ArrayLike = ORIGIN,
    *,
    floor: float | None = None,
) -> trimesh.Trimesh:
    """An open-topped vessel of any convex outline (m, 2) about the z axis, its middle at
    `center`, as one closed piece."""
    o = np.asarray(outline, float)
    inner = o * (1 - 2 * wall / np.ptp(o, axis=0))
    base = min(wall if floor is None else floor, 0.9 * height) - height / 2
    loops = [(o, -height / 2), (o, height / 2), (inner, height / 2), (inner, base)]
    return moved(
        skin(np.stack([np.column_stack([p, np.full(len(p), z)]) for p, z in loops])), center
    )


def frame_box(
    extents: ArrayLike, wall: float, center: ArrayLike = ORIGIN, *, along: str = "y"
) -> trimesh.Trimesh:
    """A rectangular frame: a box of `extents` with a hole of the same shape, `wall` (m) smaller,
    through it `along`."""
    i = "xyz".index(along)
    e = np.asarray(extents, float)
    half = np.array([e[(i + 1) % 3], e[(i + 2) % 3]]) / 2
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    mesh = ring(signs * half, signs * (half - wall), e[i])
    return moved(mesh, center, np.roll(np.eye(3), (i + 1) % 3, axis=0))


# Outlines, extrusions and sweeps


def circle(radius: float, sections: int = 16) -> FloatArray:
    """(sections, 2) points of a circle, anticlockwise."""
    a = np.linspace(0, 2 * np.pi, sections, endpoint=False)
    return radius * np.stack([np.cos(a), np.sin(a)], axis=1)


def rectangle(width: float, depth: float, radius: float = 0.0, segments: int = 3) -> FloatArray:
    """(4 or 4 (segments + 1), 2) points of a rectangle about the origin, its corners rounded
    with `radius` (m)."""
    corners = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    if radius <= 0:
        return corners * [width / 2, depth / 2]
    r = min(radius, 0.49 * min(width, depth))
    a = np.linspace(0, np.pi / 2, segments + 1) + np.arange(4)[:, None] * np.pi / 2
    arcs = r * np.stack([np.cos(a), np.sin(a)], axis=-1)
    return (arcs + (corners * [width / 2 - r, depth / 2 - r])[:, None]).reshape(-1, 2)


def skin(loops: FloatArray, *, closed: bool = False) -> trimesh.Trimesh:
    """Triangles between successive loops (n, m, 3); both ends capped by a fan from their middle
    unless `closed`."""
    n, m, _ = loops.shape
    i, j = np.meshgrid(np.arange(n if closed else n - 1), np.arange(m), indexing="ij")
    a, b = i * m + j, i * m + (j + 1) % m
    c, d = (i + 1) % n * m + (j + 1) % m, (i + 1) % n * m + j
    faces = [np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)]
    vertices = [loops.reshape(-1, 3)]
    if not closed:
        k = np.arange(m)
        first, last = n * m, n * m + 1
        faces.append(np.stack([(k + 1) % m, k, np.full(m, first)], -1))
        faces.append(np.stack([(n - 1) * m + k, (n - 1) * m + (k + 1) % m, np.full(m, last)], -1))
        vertices.append(np.stack([loops[0].mean(0), loops[-1].mean(0)]))
    return solid(np.concatenate(vertices), np.concatenate(faces))


def extrude(
    outline: ArrayLike, length: float, axis: str | ArrayLike = "z", center: ArrayLike = ORIGIN
) -> trimesh.Trimesh:
    """A prism: the outline (m, 2), star-shaped about its mean, drawn out by `length` (m) along
    z, then `pointed`."""
    o = np.asarray(outline, float)
    loops = np.stack([np.column_stack([o, np.full(len(o), z)]) for z in (-length / 2, length / 2)])
    return pointed(skin(loops), axis, center)


def ring(
    outer: ArrayLike, inner: ArrayLike, length: float, axis: str = "z", center: ArrayLike = ORIGIN
) -> trimesh.Trimesh:
    """A prism with a hole: two outlines (m, 2) of as many points, in the same order, drawn out
    by `length` (m)."""
    o, i = np.asarray(outer, float), np.asarray(inner, float)
    low, high = np.full(len(o), -length / 2), np.full(len(o), length / 2)
    loops = [
        np.column_stack([o, low]),
        np.column_stack([o, high]),
        np.column_stack([i, high]),
        np.column_stack([i, low]),
    ]
    return pointed(skin(np.stack(loops), closed=True), axis, center)


def band(
    outer: ArrayLike, inner: ArrayLike, length: float, axis: str = "z", center: ArrayLike = ORIGIN
) -> trimesh.Trimesh:
    """A bent plate: the strip between two open lines (m, 2) of as many points, drawn out by
    `length` (m) along z."""
    o, i = np.asarray(outer, float), np.asarray(inner, float)
    section = np.stack(
        [o, i], axis=1
    )  # (m, 2, 2), each rung of the strip one edge of the loops below
    low, high = np.full((len(o), 2, 1), -length / 2), np.full((len(o), 2, 1), length / 2)
    bottom, top = np.concatenate([section, low], axis=2), np.concatenate([section, high], axis=2)
    return pointed(skin(np.concatenate([bottom, top[:, ::-1]], axis=1)), axis, center)


def slab(
    extents: ArrayLike,
    center: ArrayLike = ORIGIN,
    radius: float = 0.0,
    axis: str = "z",
    bevel: float = 0.0,
) -> trimesh.Trimesh:
    """A plate: `extents` (3,) in the object's axes, its outline seen along `axis` rounded by
    `radius` (m).

    With `bevel` (m) the edges of both faces are cut at 45 degrees.
    """
    i = "xyz".index(axis)
    e = np.asarray(extents, float)
    o = rectangle(e[(i + 1) % 3], e[(i + 2) % 3], radius)
    h, b = e[i] / 2, min(bevel, 0.45 * e[i])
    if b <= 0:
        return pointed(extrude(o, e[i]), axis, center)
    small = o * (1 - 2 * b / np.array([e[(i + 1) % 3], e[(i + 2) % 3]]))
    loops = [(small, -h), (o, -h + b), (o, h - b), (small, h)]
    return pointed(
        skin(np.stack([np.column_stack([p, np.full(len(p), z)]) for p, z in loops])), axis, center
    )


def lathe(
    profile: ArrayLike, sections: int = 24, axis: str | ArrayLike = "z", center: ArrayLike = ORIGIN
) -> trimesh.Trimesh:
    """A turned body: profile (n, 2) of (radius, height) in meters, turned about z, then `pointed`
    along `axis`.

    A profile whose first and last radius are 0 closes on the axis (a vase with walls goes up
    outside and down inside); any other is taken as a closed curve (a washer, a torus). No radius in
    between may be 0.
    """
    p = np.asarray(profile, float)
    on_axis = bool(p[0, 0] == 0 and p[-1, 0] == 0)
    rings = p[1:-1] if on_axis else p
    unit = circle(1.0, sections)
    loops = np.concatenate(
        [rings[:, None, :1] * unit, np.broadcast_to(rings[:, None, 1:], (len(rings), sections, 1))],
        axis=2,
    )
    mesh = skin(loops, closed=not on_axis)
    if on_axis:  # the fans' middles are the ends of the profile
        vertices = np.array(mesh.vertices)
        vertices[-2:] = [[0, 0, p[0, 1]], [0, 0, p[-1, 1]]]
        mesh = solid(vertices, mesh.faces)
    return pointed(mesh, axis, center)


def cylinder(
    radius: float,
    length: float,
    axis: str | ArrayLike = "z",
    center: ArrayLike = ORIGIN,
    sections: int = 20,
) -> trimesh.Trimesh:
    """A cylinder of `radius` and `length` (m) along `axis` about `center`."""
    h = length / 2
    return lathe([(0, -h), (radius, -h), (radius, h), (0, h)], sections, axis, center)


def pipe(
    outer: float,
    inner: float,
    length: float,
    axis: str | ArrayLike = "z",
    center: ArrayLike = ORIGIN,
    sections: int = 24,
) -> trimesh.Trimesh:
    """A hollow cylinder open at both ends, of radii `outer` and `inner` (m)."""
    h = length / 2
    return lathe([(outer, -h), (outer, h), (inner, h), (inner, -h)], sections, axis, center)


def cup(
    profile: ArrayLike,
    wall: float,
    sections: int = 24,
    axis: str | ArrayLike = "z",
    center: ArrayLike = ORIGIN,
) -> trimesh.Trimesh:
    """A turned vessel with walls: outer profile (n, 2) of (radius > wall, height) from the
    bottom to the open top."""
    p = np.asarray(profile, float)
    inside = p[::-1] - [wall, 0.0]
    inside[-1, 1] += wall
    return lathe(
        np.concatenate([[(0, p[0, 1])], p, inside, [(0, inside[-1, 1])]]), sections, axis, center
    )


def sphere(
    radius: float | ArrayLike, center: ArrayLike = ORIGIN, sections: int = 16
) -> trimesh.Trimesh:
    """A sphere, or with three radii an ellipsoid along the axes, about `center`."""
    a = np.linspace(-np.pi / 2, np.pi / 2, sections // 2 + 1)
    profile = np.stack([np.cos(a), np.sin(a)], axis=1)
    profile[[0, -1], 0] = 0.0
    mesh = lathe(profile, sections)
    return trimesh.Trimesh(
        mesh.vertices * np.asarray(radius, float) + np.asarray(center, float),
        mesh.faces,
        process=False,
    )


# Meshing
