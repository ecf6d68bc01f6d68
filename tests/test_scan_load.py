"""Mesh and point files: what is read, what is repaired, what is warned about, what is refused."""

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scan_scene import bowl, chamfer, refusals_in_one_line

from flowplan.geometry import pose
from flowplan.scan import (
    MeshOptions,
    PointOptions,
    inspect_mesh,
    load_mesh,
    load_points,
    load_scene,
    surface_of_points,
)
from flowplan.scan.meshes.repair import cleaned, filled, remeshed


def box():
    return trimesh.creation.box([0.06, 0.08, 0.1]).subdivide()


def soup():
    """The box as triangles that share no vertices, as STL keeps them."""
    mesh = box()
    return trimesh.Trimesh(
        mesh.triangles.reshape(-1, 3), np.arange(3 * len(mesh.faces)).reshape(-1, 3), process=False
    )


def without_top():
    mesh = cleaned(box().subdivide())
    mesh.update_faces(mesh.face_normals[:, 2] < 0.9)
    return cleaned(mesh)


def save(mesh, path):
    mesh.export(path)
    return path


# --- files


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl"])
def test_a_closed_mesh_comes_back_welded(tmp_path, suffix):
    obj = load_mesh(save(soup(), tmp_path / f"thing.{suffix}"))
    assert obj.name == "thing"
    assert obj.mesh.is_watertight
    assert obj.mesh.volume == pytest.approx(0.00048, rel=1e-5)
    assert len(obj.mesh.vertices) == len(box().vertices)


@pytest.mark.parametrize("suffix", ["glb", "gltf"])
def test_gltf_points_up_along_y_and_its_parts_are_put_together(tmp_path, suffix):
    scene = trimesh.Scene([trimesh.creation.box(bounds=[[0, 0, 0], [0.1, 0.3, 0.1]])])
    scene.add_geometry(
        trimesh.creation.box(bounds=[[0, 0, 0], [0.1, 0.1, 0.1]]),
        transform=pose(translation=[0.2, 0, 0]),
    )
    (tmp_path / f"two.{suffix}").write_bytes(scene.export(file_type="glb"))
    if suffix == "gltf":
        for name, content in scene.export(file_type="gltf").items():
            (tmp_path / name.replace("model", "two")).write_bytes(content)
    obj = load_mesh(tmp_path / f"two.{suffix}")
    assert np.allclose(obj.mesh.bounds, [[0, -0.1, 0], [0.3, 0, 0.3]])
    assert obj.mesh.volume == pytest.approx(0.004)
    assert np.allclose(load_mesh(tmp_path / f"two.{suffix}", up="z").mesh.extents, [0.3, 0.3, 0.1])


def test_it_is_where_it_was_put(tmp_path):
    X = pose(translation=[0.4, 0, 0.1])
    obj = load_mesh(save(box(), tmp_path / "a.stl"), name="crate", X_world_object=X)
    assert obj.name == "crate"
    assert np.allclose(obj.vertices_world.mean(0), [0.4, 0, 0.1])


@pytest.mark.parametrize(
    ("unit", "scale"), [("mm", 1000), ("cm", 100), ("in", 1 / 0.0254), ("m", 1)]
)
def test_a_named_unit_is_believed_without_a_word(tmp_path, unit, scale):
    path = save(box().apply_scale(scale), tmp_path / "a.stl")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.allclose(load_mesh(path, unit=unit).mesh.extents, [0.06, 0.08, 0.1], rtol=1e-5)


def test_an_unlikely_size_is_warned_about_and_kept(tmp_path):
    with pytest.warns(UserWarning, match=r"100 m large.*looks like mm: pass unit='mm' \(0.1 m\)"):
        assert load_mesh(save(box().apply_scale(1000), tmp_path / "a.stl")).mesh.extents[
            2
        ] == pytest.approx(100)
    with pytest.warns(UserWarning, match="looks like cm"):
        load_mesh(save(box().apply_scale(100), tmp_path / "b.stl"))
    with pytest.warns(UserWarning, match=r"only 0.1 mm large"):
        load_mesh(save(box().apply_scale(1e-3), tmp_path / "c.stl"))


def test_many_faces_are_decimated_and_more_are_refused_before_they_are_read(tmp_path):
    path = save(trimesh.creation.icosphere(6, 0.1), tmp_path / "ball.stl")
    said = []
    obj = load_mesh(
        path, options=MeshOptions(faces=2000), progress=lambda f, m: said.append((f, m))
    )
    assert len(obj.mesh.faces) <= 2000
    assert obj.mesh.is_watertight
    assert obj.mesh.volume == pytest.approx(4 / 3 * np.pi * 1e-3, rel=0.01)
    assert said[0][0] == 0
    assert said[-1][0] == 1
    with pytest.raises(ValueError, match="faces: has 81920, expected at most 1000"):
        load_mesh(path, options=MeshOptions(largest=1000))
    (tmp_path / "ball.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 3\nelement face 60000000\nend_header\n"
    )
    with pytest.raises(
        ValueError, match="has 60000000, expected at most 10000000; decimate it first"
    ):
        load_mesh(tmp_path / "ball.ply")


# --- repair


def test_a_small_hole_is_filled_and_a_large_one_is_warned_about(tmp_path):
    mesh = cleaned(box().subdivide().subdivide().subdivide())
    mesh.update_faces(np.arange(len(mesh.faces)) > 1)
    assert load_mesh(save(mesh, tmp_path / "small.stl")).mesh.is_watertight
    with pytest.warns(UserWarning, match="is open .1 holes, 1 parts.*repair='close'"):
        assert not load_mesh(save(without_top(), tmp_path / "large.stl")).mesh.is_watertight
    closed = load_mesh(tmp_path / "large.stl", options=MeshOptions(repair="close")).mesh
    assert closed.is_watertight
    assert closed.volume == pytest.approx(0.00048, rel=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_mesh(tmp_path / "large.stl", options=MeshOptions(repair="none"))


def test_what_crosses_itself_is_made_anew():
    other = box().apply_translation([0.02, 0.03, 0.04])
    crossed = trimesh.util.concatenate([box(), other])
    report = inspect_mesh(crossed)
    assert report.crossings > 10
    assert report.components == 2
    mesh = remeshed(crossed, cells=80)
    assert mesh.is_watertight
    overlap = 0.04 * 0.05 * 0.06
    assert mesh.volume == pytest.approx(2 * 0.00048 - overlap, rel=0.01)
    assert inspect_mesh(mesh).components == 1


def test_crossing_itself_is_warned_about_and_closed(tmp_path):
    path = save(
        trimesh.util.concatenate([box(), box().apply_translation([0.02, 0.03, 0.04])]),
        tmp_path / "two.stl",
    )
    with pytest.warns(
        UserWarning, match=r"crosses itself \(\d+ edges pass through faces\).*repair='close'"
    ):
        assert load_mesh(path).mesh.is_watertight
    mesh = load_mesh(path, options=MeshOptions(repair="close", cells=64)).mesh
    assert mesh.volume == pytest.approx(2 * 0.00048 - 0.04 * 0.05 * 0.06, rel=0.02)


def test_a_thin_wall_survives_being_made_anew():
    mesh = remeshed(bowl(), cells=96)
    assert chamfer(bowl(), mesh) < 0.0003
    assert mesh.volume == pytest.approx(bowl().volume, rel=0.02)


def test_sides_are_agreed_on_and_face_outwards():
    mesh = box()
    mesh.faces[::3] = mesh.faces[::3, ::-1]
    good = cleaned(mesh)
    assert good.is_winding_consistent
    assert good.volume == pytest.approx(0.00048)


def test_filling_a_hole_keeps_the_direction_of_its_neighbors():
    mesh = filled(without_top(), 1.0)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(0.00048)
    assert not filled(without_top(), 0.01).is_watertight


def test_a_sheet_cannot_be_closed(tmp_path):
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(0, 0.2, 8), np.linspace(0, 0.2, 8))
    points = np.column_stack([x.ravel(), y.ravel(), 0 * x.ravel()])
    from scipy.spatial import Delaunay

    sheet = trimesh.Trimesh(
        points, Delaunay(points[:, :2] + 1e-4 * rng.standard_normal((64, 2))).simplices
    )
    path = save(sheet, tmp_path / "cloth.ply")
    with pytest.raises(ValueError, match="cloth.ply: mesh: encloses no volume"):
        load_mesh(path, options=MeshOptions(repair="close"))
    assert load_mesh(path, options=MeshOptions(repair="none")).mesh.area == pytest.approx(0.04)


def test_the_report_says_what_is_there():
    mesh = without_top()
    report = inspect_mesh(mesh)
    assert (
        report.watertight,
        report.components,
        report.holes,
        report.crossings,
        report.volume,
    ) == (
        False,
        1,
        1,
        0,
        0.0,
    )
    assert np.allclose(report.extents, [0.06, 0.08, 0.1])
    assert inspect_mesh(box()).volume == pytest.approx(0.00048)
    assert inspect_mesh(box().apply_scale(1000)).likely_unit == "mm"
    line = trimesh.Trimesh(
        [[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0]], [[0, 1, 2], [0, 1, 3]], process=False
    )
    assert inspect_mesh(line).degenerate == 1


# --- what is refused


def write_obj(path, lines):
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            ["v 0 0 0", "v 1 0 0", "v 0 1 0"],
            "no faces; if it is a point cloud, use load_points|not readable",
        ),
        (["v 0 0 nan", "v 1 0 0", "v 0 1 0", "f 1 2 3"], "vertices: 1 of 9 values are not finite"),
        (["v 0 0 0", "v 1 0 0", "v 2 0 0", "f 1 2 3"], "on one line, so no face has an area"),
        (["v 0 0 0", "v 1e300 0 0", "v 0 1 0", "f 1 2 3"], r"reach out to 1e\+300"),
        (["v 0 0 0", "v 1 0 0", "v 0 1 0", "f 1 2 9"], "not readable|name vertex 8 of 3"),
        (["v 0 0 0", "v 0 0 0", "v 0 0 0", "f 1 2 3"], "all lie in one point"),
        ([], "not readable|no faces"),
    ],
)
def test_broken_meshes_are_refused_in_one_line(tmp_path, lines, words):
    with pytest.raises(ValueError, match=words) as error:
        load_mesh(write_obj(tmp_path / "a.obj", lines))
    assert "\n" not in str(error.value)
    assert "a.obj" in str(error.value)


def test_what_is_no_mesh_file(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        load_mesh(tmp_path / "a.stl")
    with pytest.raises(ValueError, match=r"file type: got '.step', expected one of .obj"):
        load_mesh(tmp_path / "a.step")
    (tmp_path / "a.stl").write_bytes(b"\x80" * 500)
    with pytest.raises(ValueError, match="a.stl: was cut short or damaged"):
        load_mesh(tmp_path / "a.stl")
    with pytest.raises(ValueError, match="unit: got 'km'"):
        load_mesh(tmp_path / "a.stl", unit="km")
    with pytest.raises(ValueError, match="MeshOptions.cells"):
        MeshOptions(cells=1000)


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    files = [save(box(), folder / f"mesh.{s}") for s in ("stl", "ply", "obj", "glb")]
    points = box().sample(200, seed=0)
    np.save(folder / "points.npy", points)
    np.savetxt(folder / "points.xyz", points)
    write_pcd(folder / "points.pcd", points, "binary")
    return [*files, folder / "points.npy", folder / "points.xyz", folder / "points.pcd"]


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused_in_one_line(good_files, tmp_path, data):
    source = data.draw(st.sampled_from(good_files))
    content = bytearray(source.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / source.name
    path.write_bytes(content)
    with refusals_in_one_line():
        if source.stem == "mesh":
            load_mesh(path)
        else:
            load_points(path, options=PointOptions(cells=16))


# --- points


def write_pcd(path, points, layout, pack=None):
    header = "VERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\nCOUNT 1 1 1 1\n"
    header += f"POINTS {len(points)}\nDATA {layout}\n"
    rows = np.zeros(len(points), [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])
    for i, name in enumerate("xyz"):
        rows[name] = points[:, i]
    if layout == "ascii":
        body = "\n".join(f"{x} {y} {z} 0" for x, y, z in points).encode()
    elif layout == "binary":
        body = rows.tobytes()
    else:
        plain = b"".join(rows[name].tobytes() for name in rows.dtype.names)
        packed = pack(plain)
        body = struct.pack("<II", len(packed), len(plain)) + packed
    path.write_bytes(header.encode() + body)
    return path


def as_literals(plain):
    """LZF without any compression."""
    return b"".join(
        bytes([len(plain[i : i + 32]) - 1]) + plain[i : i + 32] for i in range(0, len(plain), 32)
    )


def with_a_run(plain):
    """LZF whose last bytes, all zero, are one literal and copies of it."""
    zeros = len(plain) - len(plain.rstrip(b"\0"))
    out, left = as_literals(plain[:-zeros] + b"\0"), zeros - 1
    while left:
        count = min(left, 264)
        if count < 9:
            return out + as_literals(b"\0" * left)
        out += bytes([7 << 5, count - 9, 0])
        left -= count
    return out


def sphere_points(count=4000, noise=0.0005):
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return 0.05 * directions + noise * rng.standard_normal((count, 3)), directions


@pytest.mark.parametrize("suffix", ["npy", "xyz", "ply", "pcd"])
def test_points_become_a_closed_surface(tmp_path, suffix):
    points, _ = sphere_points()
    path = tmp_path / f"ball.{suffix}"
    if suffix == "npy":
        np.save(path, points)
    elif suffix == "xyz":
        np.savetxt(path, points)
    elif suffix == "ply":
        trimesh.PointCloud(points).export(path)
    else:
        write_pcd(path, points, "binary")
    obj = load_points(path, options=PointOptions(cells=48, faces=3000))
    assert obj.name == "ball"
    assert obj.mesh.is_watertight
    assert obj.mesh.volume == pytest.approx(4 / 3 * np.pi * 0.05**3, rel=0.02)
    assert chamfer(trimesh.creation.icosphere(4, 0.05), obj.mesh) < 0.0005


def test_all_layouts_of_a_pcd_say_the_same(tmp_path):
    from flowplan.scan.pcd import read_pcd

    points = np.round(sphere_points(300)[0], 6)
    packs = {"ascii": None, "binary": None, "binary_compressed": with_a_run}
    for layout, pack in packs.items():
        fields = read_pcd(write_pcd(tmp_path / "a.pcd", points, layout, pack))
        assert np.allclose(np.stack([fields[n] for n in "xyz"], -1), points, atol=1e-7)
        assert not fields["rgb"].any()
    fields = read_pcd(write_pcd(tmp_path / "a.pcd", points, "binary_compressed", as_literals))
    assert np.allclose(fields["z"], points[:, 2], atol=1e-7)


def test_normals_in_the_file_are_used():
    truth = trimesh.creation.box([0.1, 0.1, 0.006])
    points, faces = trimesh.sample.sample_surface(
        truth, 3000, seed=0
    )  # too few to tell the wall's sides apart
    mesh = surface_of_points(points, truth.face_normals[faces], PointOptions(cells=64))
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(truth.volume, rel=0.1)


def test_ball_pivoting_leaves_a_sheet_open():
    x, y = np.meshgrid(np.linspace(0, 0.1, 40), np.linspace(0, 0.1, 40))
    points = np.column_stack([x.ravel(), y.ravel(), 0.005 * np.sin(40 * x.ravel())])
    mesh = surface_of_points(points, options=PointOptions(method="ball_pivoting"))
    assert not mesh.is_watertight
    assert mesh.extents[2] == pytest.approx(np.ptp(points[:, 2]), abs=1e-3)


def test_a_missing_side_is_warned_about():
    points, _ = sphere_points(3000)
    with pytest.warns(UserWarning, match="% of the surface is far from any point"):
        surface_of_points(points[points[:, 2] > -0.01], options=PointOptions(cells=32))


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.zeros((10, 3)), "expected at least 50, got 10"),
        (np.zeros((100, 3)), "one point or on one line"),
        (np.column_stack([np.linspace(0, 1, 100)] * 3), "one point or on one line"),
        (
            np.column_stack([np.random.default_rng(0).random((100, 2)), np.zeros(100)]),
            "all lie in one plane",
        ),
        (np.random.default_rng(0).random((100, 3)) * 1e300, "points: reach out to"),
        (np.full((100, 3), np.nan), "drop points without a return"),
        (np.zeros((100, 4)), r"expected \(P, 3\), or \(P, 6\) with normals, got \(100, 4\)"),
    ],
)
def test_bad_points_are_refused_in_one_line(tmp_path, points, words):
    np.save(tmp_path / "a.npy", points)
    with pytest.raises(ValueError, match=words) as error:
        load_points(tmp_path / "a.npy")
    assert "\n" not in str(error.value)


def test_no_pickle_is_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="not readable as numbers"):
        load_points(tmp_path / "a.npy")


def test_a_path_of_any_kind_becomes_a_scene(tmp_path):
    scene = load_scene(save(box(), tmp_path / "crate.ply"), position=(0.5, 0.1))
    assert scene.objects[0].name == "crate"
    assert np.allclose(scene.objects[0].mesh_world.bounds, [[0.47, 0.06, 0], [0.53, 0.14, 0.1]])
    trimesh.PointCloud(sphere_points(1500)[0]).export(tmp_path / "ball.ply")
    assert load_scene(tmp_path / "ball.ply").objects[0].mesh.is_watertight
    with pytest.raises(ValueError, match="no such file or folder"):
        load_scene(Path("nowhere"))
