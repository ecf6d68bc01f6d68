"""Mesh files as modeling programs and scanners write them."""

import numpy as np
import pytest
import trimesh

from flowplan.scan import MeshOptions, load_mesh, load_scene, load_urdf
from tests.input_files import link, refused, urdf


def tee(size=0.1):
    """A closed box: an edge is split on one side alone, and a face of no area closes the gap."""
    box = trimesh.creation.box([size] * 3)
    vertices, faces = box.vertices.tolist(), box.faces.tolist()
    a, b = (int(i) for i in box.edges_unique[0])
    c = len(vertices)
    vertices.append(((box.vertices[a] + box.vertices[b]) / 2).tolist())
    split = faces.pop(next(i for i, face in enumerate(faces) if a in face and b in face))
    x = next(i for i in split if i not in (a, b))
    if split[(split.index(a) + 1) % 3] != b:
        a, b = b, a
    return trimesh.Trimesh(vertices, [*faces, [a, c, x], [c, b, x], [a, b, c]], process=False)


@pytest.mark.parametrize("suffix", ["ply", "stl", "obj"])
def test_a_sliver_that_closes_a_box_keeps_it_closed(tmp_path, suffix):
    tee().export(tmp_path / f"t.{suffix}")
    mesh = load_mesh(tmp_path / f"t.{suffix}").mesh
    assert mesh.is_watertight
    assert round(float(mesh.volume), 6) == 0.001
    assert mesh.area_faces.min() > 1e-6
    path = urdf(tmp_path / "u.urdf", link("l", f'<mesh filename="t.{suffix}"/>'))
    mesh = load_urdf(path)[0].mesh
    assert mesh.is_watertight
    assert round(float(mesh.volume), 6) == 0.001


def test_slivers_of_slivers_keep_a_mesh_closed(tmp_path):
    # The three corners of one side of a face, and all of another's, lie on one line.
    box = trimesh.creation.box([0.1] * 3)
    faces = box.faces.tolist()
    vertices = box.vertices.tolist()
    a, b = (int(i) for i in box.edges_unique[0])
    split = faces.pop(next(i for i, face in enumerate(faces) if a in face and b in face))
    x = next(i for i in split if i not in (a, b))
    if split[(split.index(a) + 1) % 3] != b:
        a, b = b, a
    first = len(vertices)
    vertices += [
        (box.vertices[a] + t * (box.vertices[b] - box.vertices[a])).tolist()
        for t in (0.2, 0.5, 0.7)
    ]
    p, q, r = first, first + 1, first + 2
    # The split side has four triangles; three slivers close it against the whole edge.
    faces += [[a, p, x], [p, q, x], [q, r, x], [r, b, x], [p, a, b], [q, p, b], [r, q, b]]
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight
    mesh.export(tmp_path / "s.ply")
    loaded = load_mesh(tmp_path / "s.ply").mesh
    assert loaded.is_watertight
    assert round(float(loaded.volume), 6) == 0.001


def box(size, x, inverted=False):
    out = trimesh.creation.box([size] * 3).apply_translation([x, 0, 0])
    if inverted:
        out.invert()
    return out


@pytest.mark.parametrize(
    ("parts", "volume"),
    [
        ([(0.1, 0), (0.08, 0.3, True)], 0.001512),
        ([(0.1, 0, True), (0.08, 0.3)], 0.001512),
        ([(0.1, 0, True), (0.08, 0.3, True)], 0.001512),
        ([(0.1, 0), (0.08, 0.3, True), (0.08, 0.5), (0.08, 0.7, True)], 0.002536),
        ([(0.1, 0), (0.08, 0, True)], 0.000488),  # a cavity
        ([(0.1, 0, True), (0.08, 0)], 0.000488),  # a cavity, all of it inside out
        ([(0.1, 0), (0.08, 0, True), (0.08, 0.3, True)], 0.001),  # a cavity, and another body
    ],
)
def test_every_body_faces_outward(tmp_path, parts, volume):
    mesh = trimesh.util.concatenate([box(*part) for part in parts])
    mesh.export(tmp_path / "a.obj")
    assert np.isclose(load_mesh(tmp_path / "a.obj").mesh.volume, volume, atol=1e-6)
    path = urdf(tmp_path / "u.urdf", link("l", '<mesh filename="a.obj"/>'))
    assert np.isclose(load_urdf(path)[0].mesh.volume, volume, atol=1e-6)


@pytest.mark.parametrize("missing", [1, 2, 4])
def test_an_open_box_that_faces_inward_is_closed(tmp_path, missing):
    inward = box(0.1, 0, inverted=True)
    mesh = trimesh.Trimesh(inward.vertices, inward.faces[:-missing], process=False)
    mesh.export(tmp_path / "o.ply")
    options = MeshOptions(repair="close")
    closed = load_mesh(tmp_path / "o.ply", options=options).mesh
    assert closed.is_watertight
    assert np.isclose(closed.volume, 0.001, atol=2e-5 if missing < 4 else 3e-4)


U = [(1, 1), (1, 3), (0, 3), (0, 0), (3, 0), (3, 3), (2, 3), (2, 1)]
L = [(0, 2), (0, 0), (2, 0), (2, 1), (1, 1), (1, 2)]
DART = [(0, 0), (2, 1), (0, 2), (1, 1)]
STAR = [
    ((1 + i % 2) * np.cos(np.pi * i / 20), (1 + i % 2) * np.sin(np.pi * i / 20)) for i in range(40)
]
SIZE = 0.03


def true_area(outline):
    o = np.array(outline, float)
    following = np.roll(o, -1, 0)
    ends = abs((o[:, 0] * following[:, 1] - o[:, 1] * following[:, 0]).sum())
    return SIZE**2 * (ends + np.linalg.norm(following - o, axis=1).sum())


def prism(outline):
    """Vertices and polygons of a prism of height SIZE."""
    n = len(outline)
    vertices = [(x * SIZE, y * SIZE, z * SIZE) for z in (0, 1) for x, y in outline]
    ring = list(range(n))
    sides = [[i, (i + 1) % n, (i + 1) % n + n, i + n] for i in ring]
    return vertices, [ring[::-1], [i + n for i in ring], *sides]


@pytest.mark.parametrize("outline", [U, L, DART, STAR, U[3:] + U[:3]])
@pytest.mark.parametrize("kind", ["obj", "slashes", "backward", "continued", "ply"])
def test_polygons_that_are_not_convex_have_their_area(tmp_path, outline, kind):
    if outline is U and outline[0] == (1, 1):
        outline = outline if true_area(outline) > 0 else outline[::-1]
    vertices, polygons = prism(outline)
    path = tmp_path / ("p.ply" if kind == "ply" else "p.obj")
    if kind == "ply":
        head = ["ply", "format ascii 1.0", f"element vertex {len(vertices)}"]
        head += [f"property float {axis}" for axis in "xyz"] + [f"element face {len(polygons)}"]
        head += ["property list uchar int vertex_indices", "end_header"]
        rows = [" ".join(map(str, v)) for v in vertices]
        rows += [" ".join(map(str, [len(p), *p])) for p in polygons]
        path.write_text("\n".join(head + rows) + "\n")
    else:
        one = {
            "obj": lambda i: f"{i + 1}",
            "slashes": lambda i: f"{i + 1}//1",
            "backward": lambda i: f"{i - len(vertices)}",
            "continued": lambda i: f"{i + 1} \\\n",
        }[kind]
        lines = [f"v {x} {y} {z}" for x, y, z in vertices] + ["vn 0 0 1"]
        lines += ["f " + " ".join(one(i) for i in p) for p in polygons]
        path.write_text("\n".join(lines) + "\n")
    mesh = load_mesh(path).mesh
    assert np.isclose(mesh.area / true_area(outline), 1, atol=1e-6)
    assert mesh.is_watertight


def test_convex_polygons_are_read_as_before(tmp_path):
    vertices, polygons = prism([(0, 0), (2, 0), (3, 1), (2, 2), (0, 2)])
    lines = [f"v {x} {y} {z}" for x, y, z in vertices]
    lines += ["f " + " ".join(str(i + 1) for i in p) for p in polygons]
    (tmp_path / "p.obj").write_text("\n".join(lines) + "\n")
    mesh = load_mesh(tmp_path / "p.obj").mesh
    assert mesh.is_watertight
    assert len(mesh.faces) == 2 * 3 + 5 * 2


BINARY_STL = trimesh.creation.box([0.1, 0.2, 0.3]).export(file_type="stl")
ASCII_STL = trimesh.creation.box([0.1, 0.2, 0.3]).export(file_type="stl_ascii").encode()


@pytest.mark.parametrize(
    "data",
    [
        BINARY_STL[:-30],
        BINARY_STL[:-1],
        BINARY_STL[:200],
        BINARY_STL[:50],
        b"solid " + BINARY_STL[6:-50],
        ASCII_STL[:-30],
        ASCII_STL[: len(ASCII_STL) // 2],
    ],
)
def test_an_stl_file_that_was_cut_short_is_refused(tmp_path, data):
    (tmp_path / "t.stl").write_bytes(data)
    message = refused(lambda: load_mesh(tmp_path / "t.stl"), "cut short")
    assert "point cloud" not in message


@pytest.mark.parametrize(
    "data",
    [
        BINARY_STL + b"\0" * 20,
        BINARY_STL + b"\n",
        b"solid " + BINARY_STL[6:],
        ASCII_STL,
        ASCII_STL + b"\n\n",
    ],
)
def test_a_whole_stl_file_is_read(tmp_path, data):
    (tmp_path / "t.stl").write_bytes(data)
    assert np.allclose(load_mesh(tmp_path / "t.stl").mesh.extents, (0.1, 0.2, 0.3), atol=2e-3)


@pytest.mark.parametrize(
    "lines",
    [
        [f"comment {i} {'x' * 60}" for i in range(75)],
        ["comment element face 0"],
        [f"obj_info {i} {'x' * 60}" for i in range(75)],
        [],
    ],
)
def test_a_ply_mesh_with_a_long_header_is_a_mesh(tmp_path, lines):
    mesh = trimesh.creation.box([0.1] * 3).subdivide().subdivide()
    head = ["ply", "format ascii 1.0", *lines, f"element vertex {len(mesh.vertices)}"]
    head += [f"property float {axis}" for axis in "xyz"] + [f"element face {len(mesh.faces)}"]
    head += ["property list uchar int vertex_indices", "end_header"]
    rows = [" ".join(map(str, v)) for v in mesh.vertices]
    rows += [f"3 {a} {b} {c}" for a, b, c in mesh.faces]
    (tmp_path / "a.ply").write_text("\n".join(head + rows) + "\n")
    assert len(load_scene(tmp_path / "a.ply").objects[0].mesh.faces) == 192
