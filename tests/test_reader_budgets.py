"""Budgets of the readers: small files that ask for gigabytes, and names that lead outside."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from flowplan.geometry import pose
from flowplan.io import documents, npz
from flowplan.motion import SceneMotion
from flowplan.robot import load_robot
from flowplan.scan import images, load_mesh, load_points, load_urdf, read_frames, write_frames
from flowplan.scan.depth.frames import DepthFrame
from flowplan.scene import SceneObject
from flowplan.utils import numpy_files, text_files

K = np.array([[40.0, 0, 15.5], [0, 40.0, 11.5], [0, 0, 1]])


def refused(read) -> str:
    with pytest.raises((ValueError, OSError)) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def member(shape=(3,), dtype="<f8") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.zeros(shape, dtype), version=(1, 0))
    return out.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_are_stored_or_deflated(tmp_path, method):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("times.npy", member((1000, 1000)))
    assert "another method than deflate" in refused(lambda: npz.load(path, SceneMotion))
    assert "another method than deflate" in refused(lambda: documents.read_archive(path))


def test_small_files_do_not_unpack_to_gigabytes(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("times.npy", bytes(numpy_files.FREE_BYTES + 1))
    assert path.stat().st_size < 1e6
    assert "unpacks to 0.1 GiB" in refused(lambda: npz.load(path, SceneMotion))


def test_large_records_of_equal_values_can_be_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(numpy_files, "FREE_BYTES", 10_000)
    motion = SceneMotion([0.0, 1.0], (np.zeros((2, 20_000, 3)),))
    path = npz.save(tmp_path / "m.npz", motion)
    assert npz.load(path, SceneMotion).vertices[0].shape == (2, 20_000, 3)


@pytest.mark.parametrize("head", [b"{'shape': (3,", b"{" * 300, b"{'descr': '<f8', 'x': }"])
def test_broken_npy_headers_are_one_line(tmp_path, head):
    text = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head
    (tmp_path / "a.npy").write_bytes(text + bytes(24))
    assert "a.npy" in refused(lambda: load_points(tmp_path / "a.npy"))
    assert "a.npy" in refused(lambda: documents.read_array(tmp_path / "a.npy"))


def test_shapes_are_those_of_the_bytes(tmp_path):
    out = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**9, 3)}
    np.lib.format.write_array_header_1_0(out, header)
    (tmp_path / "a.npy").write_bytes(out.getvalue() + bytes(72))
    assert "plain array" in refused(lambda: documents.read_array(tmp_path / "a.npy"))


@pytest.mark.parametrize(
    "text",
    ['{"a": ' + "9" * 400 + "}", "[" * 100_000, '{"a": [' + "1," * 6_000_000 + "1]}"],
    ids=["digits", "deep", "values"],
)
def test_json_has_budgets(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert "a.json" in refused(lambda: text_files.read_json(path))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "- " * 3000 + "a",
        "a: &a [*a]",
        "a: &a [0,0,0,0,0,0,0,0,0,0]\n"
        + "".join(
            f"{y}: &{y} [{','.join([f'*{x}'] * 10)}]\n"
            for x, y in zip("abcdefgh", "bcdefghi")  # noqa: B905
        ),
        "? [a, {b: c}]\n: d",
        "a: !!int x",
        "a: !!timestamp 2001-99-99",
    ],
    ids=["deep", "deep block", "ring", "laughs", "key", "tag", "date"],
)
def test_yaml_has_budgets(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert "a.yaml" in refused(lambda: documents.read_document(path))


@pytest.mark.parametrize("name", ["pipe.json", "zero.json"])
def test_pipes_and_devices_are_no_files(tmp_path, name):
    path = tmp_path / name
    if name == "pipe.json":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    assert "folder, pipe or device" in refused(lambda: text_files.read_json(path))


@pytest.fixture
def frames(tmp_path) -> Path:
    depth = np.full((24, 32), 0.5, np.float32)
    write_frames(tmp_path / "frames", [DepthFrame(depth, K, pose())] * 2)
    return tmp_path / "frames"


def test_large_images_are_refused_by_their_headers(frames, monkeypatch):
    Image.fromarray(np.zeros((5000, 5000), np.uint16)).save(frames / "depth" / "000001.png")
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    assert "000001.png: has 5000 x 5000 pixels" in refused(lambda: read_frames(frames))


def test_images_that_are_named_many_times_count_each_time(frames, monkeypatch):
    index = frames / "frames.json"
    document = json.loads(index.read_text())
    document["frames"] = document["frames"][:1] * 200
    index.write_text(json.dumps(document))
    monkeypatch.setattr(images, "MOST_PIXELS", 10_000)
    assert len(read_frames(frames)) == 200
    message = refused(lambda: read_frames(frames, most_pixels=100_000))
    assert "pass every=2" in message
    assert len(read_frames(frames, every=2, most_pixels=100_000)) == 100


def test_only_image_formats_are_read(frames):
    (frames / "depth" / "000000.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    )
    assert "not readable as an image" in refused(lambda: read_frames(frames))


def gltf(nodes: list, **other) -> dict:
    positions = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([0, 2, 1, 0, 1, 3, 0, 3, 2, 1, 2, 3], np.uint16)
    data = positions.tobytes() + faces.tobytes()
    import base64

    uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(nodes)))}],
        "nodes": nodes,
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": 12, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": 48},
            {"buffer": 0, "byteOffset": 48, "byteLength": 24},
        ],
        "buffers": [{"uri": uri, "byteLength": len(data)}],
    }
    return document | other


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (gltf([{"mesh": 0}] * 60_000), "nodes"),
        (gltf([{"mesh": 0}, {"children": [0]}, {"children": [0]}]), "several parents"),
        (gltf([{"mesh": 0}], asset=[]), "asset"),
        (gltf([{"mesh": 0}], accessors=[{"count": 10**12}] * 2), "numbers without data"),
        (gltf([3]), "list of objects"),
    ],
)
def test_gltf_has_budgets(tmp_path, document, words):
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps(document))
    assert words in refused(lambda: load_mesh(path, unit="m"))


def test_a_gltf_within_the_budgets_is_read(tmp_path):
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps(gltf([{"mesh": 0}])))
    assert len(load_mesh(path, unit="m").mesh.faces) == 4


@pytest.fixture
def package(tmp_path) -> Path:
    """A folder with a URDF, and a mesh beside the folder."""
    trimesh.creation.box([0.1, 0.1, 0.1]).export(tmp_path / "x.stl")
    (tmp_path / "robot_files").mkdir()
    return tmp_path / "robot_files"


def link(name: str) -> str:
    return (
        f'<robot name="r"><link name="l"><visual><geometry><mesh filename="{name}"/></geometry>'
        f'</visual><collision><geometry><mesh filename="{name}"/></geometry></collision></link>'
        "</robot>"
    )


@pytest.mark.parametrize("name", ["../x.stl", "{}/x.stl", "file://{}/x.stl", "..\\x.stl"])
def test_meshes_outside_are_read_only_if_that_is_allowed(package, name):
    path = package / "r.urdf"
    path.write_text(link(name.format(package.parent)))
    assert "lies outside" in refused(lambda: load_urdf(path))
    assert len(load_urdf(path, allow_outside=True)) == 1


def test_meshes_of_a_package_are_inside(package):
    (package.parent / "package.xml").write_text("<package/>")
    (package / "r.urdf").write_text(link("../x.stl"))
    assert len(load_urdf(package / "r.urdf")) == 1


def test_packages_hold_their_files(package):
    (package / "r.urdf").write_text(link("package://robot_files/../x.stl"))
    assert "lies outside" in refused(lambda: load_urdf(package / "r.urdf"))


def test_a_robot_file_names_a_urdf_in_its_folder(tmp_path):
    source = Path(load_robot("panda").urdf_path).parents[1] / "panda.toml"
    (tmp_path / "inner").mkdir()
    text = source.read_text().replace(
        'urdf = "panda/panda.urdf"', f'urdf = "{source.parent}/panda/panda.urdf"'
    )
    path = tmp_path / "inner" / "arm.toml"
    path.write_text(text)
    assert "lies outside" in refused(lambda: load_robot(path))
    assert load_robot(path, allow_outside=True).name == "panda"


def test_a_scene_file_names_sources_in_its_folder(tmp_path):
    from generators.chord.scene_file import read_job

    trimesh.creation.box([0.1, 0.1, 0.1]).export(tmp_path / "x.stl")
    (tmp_path / "inner").mkdir()
    path = tmp_path / "inner" / "job.toml"
    path.write_text('prompt = "Push it."\n[[objects]]\nsource = "../x.stl"\nunit = "m"\n')
    assert "lies outside" in refused(lambda: read_job(path))
    assert len(read_job(path, allow_outside=True).scene.objects) == 1


@pytest.mark.parametrize("value", ["1.8e19", "1e300"])
def test_poses_out_of_reach_are_refused(frames, value):
    index = frames / "frames.json"
    document = json.loads(index.read_text())
    document["frames"][0]["X_world_camera"][0][3] = float(value)
    index.write_text(json.dumps(document))
    assert "frames.json" in refused(lambda: read_frames(frames))
    with pytest.raises(ValueError, match="positions within"):
        SceneObject("box", trimesh.creation.box(), pose(translation=[float(value), 0, 0]))
