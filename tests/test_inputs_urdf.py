"""URDF files as people have them, read as scenes and as robots."""

import numpy as np
import pytest
import trimesh

from flowplan.robot.urdf import read_urdf
from flowplan.robot.urdf_meshes import collision_hulls
from flowplan.scan import load_mesh, load_urdf
from tests.input_files import BOX, joint, link, refused, urdf, warned, wedge

# With binary STL's float32.
CLOSE = 2e-3


def heights(path, joints=None):
    return [float(o.X_world_object[2, 3]) for o in load_urdf(path, joints, links=True)]


def mesh_link(name, tag="visual"):
    return link("l", f'<mesh filename="{name}"/>', tag)


@pytest.mark.parametrize("suffix", ["glb", "gltf"])
def test_gltf_files_are_turned_to_z_up(tmp_path, suffix):
    if suffix == "glb":
        wedge().export(tmp_path / "model.glb")
    else:
        files = trimesh.exchange.gltf.export_gltf(trimesh.Scene(wedge()))
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
    expected = load_mesh(tmp_path / f"model.{suffix}").mesh.bounds
    path = urdf(tmp_path / "u.urdf", mesh_link(f"model.{suffix}"))
    assert np.allclose(load_urdf(path)[0].mesh.bounds, expected, atol=CLOSE)
    path = urdf(tmp_path / "u.urdf", mesh_link(f"model.{suffix}", "collision"))
    assert np.allclose(collision_hulls(read_urdf(path))["l"].bounds, expected, atol=CLOSE)


def test_a_fixed_joint_may_have_a_zero_axis(tmp_path):
    fixed = (
        '<joint name="j" type="fixed"><parent link="a"/><child link="b"/>'
        '<origin xyz="0 0 0.2"/><axis xyz="0 0 0"/></joint>'
    )
    assert np.allclose(heights(urdf(tmp_path / "u.urdf", link("a") + link("b") + fixed)), (0, 0.2))


def test_followers_of_followers(tmp_path):
    body = (
        "".join(map(link, "abcd"))
        + joint("j3", "a", "d", '<mimic joint="j2" multiplier="3" offset="0.01"/>')
        + joint("j1", "a", "b")
        + joint("j2", "a", "c", '<mimic joint="j1" multiplier="2"/>')
    )
    path = urdf(tmp_path / "u.urdf", body)
    assert np.allclose(heights(path, {"j1": 0.1}), (0, 0.1, 0.2, 0.61), atol=CLOSE)


def test_a_follower_of_a_fixed_joint_stays_at_its_offset(tmp_path):
    body = (
        "".join(map(link, "abc"))
        + joint("j1", "a", "b", kind="fixed", limit="")
        + joint("j2", "a", "c", '<mimic joint="j1" offset="0.05"/>')
    )
    assert np.allclose(heights(urdf(tmp_path / "u.urdf", body)), (0, 0, 0.05))


@pytest.mark.parametrize("followed", [("j2", "j1"), ("j1", "j1")])
def test_a_ring_of_followers_is_refused(tmp_path, followed):
    mimics = [f'<mimic joint="{name}" multiplier="-1"/>' for name in followed]
    body = (
        "".join(map(link, "abc"))
        + joint("j1", "a", "b", mimics[0])
        + joint("j2", "a", "c", mimics[1])
    )
    refused(lambda: load_urdf(urdf(tmp_path / "u.urdf", body)), "loop")


def test_followers_may_be_named_where_they_are(tmp_path):
    body = (
        "".join(map(link, "abc"))
        + joint("j1", "a", "b")
        + joint("j2", "a", "c", '<mimic joint="j1"/>')
    )
    path = urdf(tmp_path / "u.urdf", body)
    assert np.allclose(heights(path, {"j1": 0.1, "j2": 0.1}), (0, 0.1, 0.1))
    assert np.allclose(heights(path, {"j2": 0.1 + 1e-8, "j1": 0.1}), (0, 0.1, 0.1))
    assert "'j1'" in refused(lambda: load_urdf(path, {"j2": 0.3}), "follow")
    refused(lambda: load_urdf(path, {"j1": 0.1, "j2": 0.3}), "follow")
    refused(lambda: load_urdf(path, {"j1": 0.1, "j2": np.nan}), "finite")


@pytest.mark.parametrize(
    ("kind", "lower", "upper"), [("revolute", 1.5, -1.5), ("prismatic", 0.2, -0.2)]
)
def test_swapped_limits_are_refused(tmp_path, kind, lower, upper):
    limit = f'<limit lower="{lower}" upper="{upper}" effort="1" velocity="1"/>'
    body = link("a") + link("b") + joint("j", "a", "b", kind=kind, limit=limit)
    path = urdf(tmp_path / "u.urdf", body)
    assert "swap" in refused(lambda: load_urdf(path), "lower")
    refused(lambda: read_urdf(path), "lower")


def test_readings_that_round_past_a_limit_are_at_it(tmp_path):
    path = urdf(tmp_path / "u.urdf", link("a") + link("b") + joint("j", "a", "b"))
    assert np.allclose(heights(path, {"j": -1e-8}), (0, 0), atol=1e-6)
    assert heights(path, {"j": 0.5 + 1e-8})[1] == 0.5
    refused(lambda: load_urdf(path, {"j": -1e-3}), "expected 0 to 0.5")
    refused(lambda: load_urdf(path, {"j": "half"}), "expected numbers")
    limit = '<limit lower="0" upper="0.3"/>'
    body = link("a") + link("b") + joint("j", "a", "b", limit=limit)
    path = urdf(tmp_path / "u.urdf", body)
    assert np.allclose(heights(path, {"j": float(np.float32(0.3))}), (0, 0.3), atol=1e-6)


XACRO = '<robot name="r" xmlns:xacro="http://www.ros.org/wiki/xacro">'


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (XACRO, link("base") + '<xacro:arm prefix="l"/>'),
        (XACRO, '<xacro:include filename="arm.xacro"/>' + link("base")),
        (XACRO.replace("www.", ""), link("base") + "<xacro:arm/>"),
        ('<robot name="r">', link("base") + "<xacro:arm/>"),
        ('<robot name="r">', link("${prefix}base")),
        ('<robot name="r">', mesh_link("$(find arm)/meshes/a.stl")),
    ],
)
@pytest.mark.parametrize("read", [load_urdf, read_urdf])
def test_what_is_left_of_xacro_is_refused(tmp_path, head, body, read):
    refused(lambda: read(urdf(tmp_path / "u.urdf", body, head)), "xacro")


def test_a_urdf_may_declare_xacro_without_using_it(tmp_path):
    assert len(load_urdf(urdf(tmp_path / "u.urdf", link("base"), XACRO))) == 1


def test_unlikely_sizes_and_distances_are_warned_about(tmp_path):
    wedge().apply_scale(1000).export(tmp_path / "w.stl")
    path = tmp_path / "u.urdf"
    assert "325 m" in warned(lambda: load_urdf(urdf(path, mesh_link("w.stl"))))
    assert "120 m" in warned(lambda: load_urdf(urdf(path, link("l", '<box size="120 80 60"/>'))))
    far = joint("j", "a", "b", '<origin xyz="0 0 200"/>')
    assert "200.1 m apart" in warned(lambda: load_urdf(urdf(path, link("a") + link("b") + far)))
    assert warned(lambda: load_urdf(urdf(path, link("l")))) == ""


@pytest.fixture
def package(tmp_path):
    meshes = tmp_path / "pkg" / "meshes"
    meshes.mkdir(parents=True)
    wedge().export(meshes / "my part.stl")
    wedge().export(meshes / "w.stl")
    return tmp_path / "pkg"


@pytest.mark.parametrize(
    "uri",
    [
        "file://{package}/meshes/my%20part.stl",
        "file:{package}/meshes/w.stl",
        "file://localhost{package}/meshes/w.stl",
        "package://pkg/meshes/my%20part.stl",
        "package://pkg//meshes/w.stl",
        "package://pkg/meshes/w.stl",
        "../meshes/my%20part.stl",
        "../meshes/my part.stl",
        "..\\meshes\\w.stl",
    ],
)
def test_mesh_paths_are_uris(package, uri):
    uri = uri.replace("{package}", str(package))
    path = urdf(package / "urdf" / "r.urdf", mesh_link(uri))
    assert np.allclose(load_urdf(path)[0].mesh.extents, wedge().extents, atol=CLOSE)
    path = urdf(package / "urdf" / "r.urdf", mesh_link(uri, "collision"))
    hulls = collision_hulls(read_urdf(path))
    assert np.allclose(hulls["l"].extents, wedge().extents, atol=CLOSE)


@pytest.mark.parametrize("variable", ["ROS_PACKAGE_PATH", "AMENT_PREFIX_PATH"])
def test_packages_are_found_in_the_paths_of_ros(tmp_path, monkeypatch, variable):
    share = tmp_path / "ros" / ("share" if variable == "AMENT_PREFIX_PATH" else "")
    (share / "arm").mkdir(parents=True)
    wedge().export(share / "arm" / "w.stl")
    path = urdf(tmp_path / "elsewhere" / "u.urdf", mesh_link("package://arm/w.stl"))
    monkeypatch.setenv(variable, str(tmp_path / "ros"))
    assert np.allclose(load_urdf(path)[0].mesh.extents, wedge().extents, atol=CLOSE)


@pytest.mark.parametrize("unit", ["0.01", "1"])
@pytest.mark.parametrize("up", ["Z_UP", "Y_UP"])
def test_collada_is_to_be_converted(tmp_path, unit, up):
    text = (
        '<?xml version="1.0"?><COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" '
        f'version="1.4.1"><asset><unit meter="{unit}"/><up_axis>{up}</up_axis></asset></COLLADA>'
    )
    (tmp_path / "c.dae").write_text(text)
    path = urdf(tmp_path / "u.urdf", mesh_link("c.dae", "collision"))
    for read in (lambda: collision_hulls(read_urdf(path)), lambda: load_urdf(path)):
        message = refused(read, "collada")
        assert "convert" in message
        assert "export it again" not in message


POINTS = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"


@pytest.mark.parametrize("empty", [POINTS, POINTS + "f 1 1 1\n"])
def test_a_shape_without_faces_is_left_out(tmp_path, empty):
    (tmp_path / "e.obj").write_text(empty)
    wedge().export(tmp_path / "w.obj")
    shapes = "".join(
        f'<visual><geometry><mesh filename="{name}.obj"/></geometry></visual>' for name in "we"
    )
    path = urdf(tmp_path / "u.urdf", f'<link name="l">{shapes}</link>' + link("m"))
    path.write_text(path.read_text().replace("</robot>", joint("j", "l", "m") + "</robot>"))
    with pytest.warns(UserWarning, match="link 'l' visual: mesh 'e.obj' has no faces"):
        objects = load_urdf(path, links=True)
    assert np.allclose(objects[0].mesh.extents, wedge().extents, atol=CLOSE)
    assert np.allclose(objects[1].mesh.extents, 0.1)


def test_a_link_of_empty_shapes_alone_uses_the_other_kind(tmp_path):
    (tmp_path / "e.obj").write_text(POINTS)
    collision = f"<collision><geometry>{BOX}</geometry></collision></link>"
    body = mesh_link("e.obj").replace("</link>", collision)
    with pytest.warns(UserWarning, match="no faces"):
        (only,) = load_urdf(urdf(tmp_path / "u.urdf", body))
    assert np.allclose(only.mesh.extents, 0.1)
