"""Folders of depth frames as programs write them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from flowplan.geometry import pose
from flowplan.scan import read_frames, scan_frames
from flowplan.scan.depth.render import render_frame
from tests.input_files import (
    CAMERA,
    HEIGHT,
    IDENTITY,
    WIDTH,
    nerfstudio_folder,
    open3d_folder,
    paired,
    redwood_folder,
    refused,
    size_seen,
    warned,
)


@pytest.mark.parametrize("make", [redwood_folder, open3d_folder])
@pytest.mark.parametrize(
    "names",
    [
        [f"{i}.png" for i in range(12)],
        [f"frame{i}.png" for i in range(8, 12)],
        [f"{i:05d}-{33366 * i:012d}.png" for i in range(12)],
        [f"Depth_{i}_raw.PNG" for i in range(12)],
    ],
)
def test_images_are_paired_with_poses_by_number(tmp_path, make, names):
    folder = make(tmp_path, names)
    assert paired(folder) == [(i, 1000 + 10 * i) for i in range(len(names))]


def test_an_order_that_is_not_clear_is_refused(tmp_path):
    folder = redwood_folder(tmp_path, ["0.5.png", "0.25.png"])
    refused(lambda: read_frames(folder), "order", "pad")


def test_hidden_files_are_no_images(tmp_path):
    folder = redwood_folder(tmp_path, ["0.png", "1.png"])
    (folder / "depth" / "._0.png").write_bytes(b"resource fork")
    assert len(read_frames(folder)) == 2


def bundlefusion_folder(folder, names, width, height, focal):
    folder = redwood_folder(folder, names)
    (folder / "trajectory.log").unlink()
    (folder / "depth" / names[0]).rename(folder / "frame-000000.depth.png")
    np.savetxt(folder / "frame-000000.pose.txt", np.eye(4))
    K = f"{focal} 0 {width / 2 - 0.5} 0 0 {focal} {height / 2 - 0.5} 0 0 0 1 0 0 0 0 1"
    (folder / "info.txt").write_text(
        f"m_depthWidth = {width}\nm_depthHeight = {height}\nm_calibrationDepthIntrinsic = {K}\n"
    )
    return folder


@pytest.mark.parametrize("make", [redwood_folder, open3d_folder, bundlefusion_folder])
def test_a_calibration_for_larger_images_is_scaled(tmp_path, make):
    folder = make(tmp_path, ["0.png"], 128, 96, 120.0)
    assert np.allclose(size_seen(read_frames(folder)[0]), (31 / 30, 23 / 30), atol=2e-2)


@pytest.mark.parametrize("per_frame", [False, True])
def test_a_nerfstudio_calibration_for_larger_images_is_scaled(tmp_path, per_frame):
    camera = {"w": 128, "h": 96, "fl_x": 120, "fl_y": 120, "cx": 64, "cy": 48}
    folder = nerfstudio_folder(tmp_path, *([{}, camera] if per_frame else [camera]))
    frame = read_frames(folder, color=False)[0]
    assert np.allclose(size_seen(frame), (31 / 30, 23 / 30), atol=2e-2)
    assert np.allclose(frame.intrinsics, [[30, 0, 15.5], [0, 30, 11.5], [0, 0, 1]])


def test_a_calibration_for_images_of_another_shape_is_refused(tmp_path):
    folder = open3d_folder(tmp_path, ["0.png"], 100, 96, 120.0)
    message = refused(lambda: read_frames(folder), "100 x 96")
    assert "32 x 24 pixels" in message
    K = [[30, 0, 15.5], [0, 30, 11.5], [0, 0, 1]]
    assert np.allclose(read_frames(folder, intrinsics=K)[0].intrinsics, K)


def test_both_angles_of_view_are_used(tmp_path):
    x, y = 2 * np.arctan(16 / 30), 2 * np.arctan(12 / 60)
    angles = {"camera_angle_x": x, "camera_angle_y": y}
    size = {"w": WIDTH, "h": HEIGHT}
    folders = [
        nerfstudio_folder(tmp_path / "a", {**size, **angles}),
        nerfstudio_folder(tmp_path / "b", size, angles),
        nerfstudio_folder(tmp_path / "c", {**size, "fl_x": 77, "fl_y": 77}, angles),
    ]
    for folder in folders:
        assert np.allclose(np.diag(read_frames(folder)[0].intrinsics)[:2], (30, 60), atol=2e-3)


def test_an_angle_in_degrees_is_refused(tmp_path):
    folder = nerfstudio_folder(tmp_path, {"w": WIDTH, "h": HEIGHT, "camera_angle_x": 56.0})
    refused(lambda: read_frames(folder), "radians")


@pytest.mark.parametrize(
    "entry",
    [
        {"camera_model": "OPENCV_FISHEYE"},
        {"camera_model": "EQUIRECTANGULAR"},
        {"is_fisheye": True},
        {"ftheta_p0": 0.5},
    ],
)
@pytest.mark.parametrize("per_frame", [False, True])
def test_a_camera_that_is_no_pinhole_is_refused(tmp_path, entry, per_frame):
    camera, frame = (CAMERA, entry) if per_frame else ({**CAMERA, **entry}, None)
    folder = nerfstudio_folder(tmp_path, camera, frame)
    refused(lambda: read_frames(folder), "pinhole")


def test_pinholes_by_other_names_are_read(tmp_path):
    folder = nerfstudio_folder(tmp_path, {**CAMERA, "camera_model": "PINHOLE", "is_fisheye": False})
    assert warned(lambda: read_frames(folder)) == ""


@pytest.mark.parametrize(("scale", "baseline"), [(0.5, 1.0), (0.1, 5.0), (2, 0.25)])
def test_positions_are_divided_by_the_applied_scale(tmp_path, scale, baseline):
    X = np.eye(4)
    X[0, 3] = 0.5
    folder = nerfstudio_folder(tmp_path, {**CAMERA, "applied_scale": scale}, poses=(np.eye(4), X))
    a, b = read_frames(folder)
    distance = np.linalg.norm(b.X_world_camera[:3, 3] - a.X_world_camera[:3, 3])
    assert np.isclose(distance / a.depth[0, 0], baseline, atol=2e-3)


@pytest.mark.parametrize("text", ["started\n", "", "a\nb\nc\nd\ne\n"])
def test_the_trajectory_is_the_log_that_holds_poses(tmp_path, text):
    folder = redwood_folder(tmp_path, ["0.png", "1.png"])
    (folder / "capture.log").write_text(text)
    assert len(read_frames(folder)) == 2
    (folder / "trajectory.log").rename(folder / "poses.log")
    assert len(read_frames(folder)) == 2


def test_two_logs_that_hold_poses_are_refused_unless_one_is_called_trajectory(tmp_path):
    folder = redwood_folder(tmp_path, ["0.png", "1.png"])
    (folder / "a.log").write_text((folder / "trajectory.log").read_text())
    assert len(read_frames(folder)) == 2
    (folder / "trajectory.log").rename(folder / "b.log")
    refused(lambda: read_frames(folder), "a.log, b.log")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_read(tmp_path, encoding):
    folder = nerfstudio_folder(tmp_path / "a", CAMERA)
    path = folder / "transforms.json"
    path.write_bytes(path.read_text().encode(encoding))
    assert len(read_frames(folder)) == 1
    folder = redwood_folder(tmp_path / "b", ["0.png"])
    for name in ("trajectory.log", "intrinsic.json"):
        (folder / name).write_bytes((folder / name).read_text().encode(encoding))
    assert len(read_frames(folder)) == 1


def test_backslashes_separate_folders(tmp_path):
    folder = nerfstudio_folder(tmp_path, CAMERA, {"depth_file_path": "depth\\0.png"})
    assert len(read_frames(folder)) == 1


@pytest.mark.parametrize("name", ["../0.png", "depth/../../0.png", "/etc/hostname"])
def test_images_outside_of_the_folder_are_not_read(tmp_path, name):
    folder = nerfstudio_folder(tmp_path / "a", CAMERA, {"depth_file_path": name})
    (tmp_path / "a/depth/0.png").rename(tmp_path / "0.png")
    refused(lambda: read_frames(folder), "outside of the folder")


def test_an_index_that_is_too_deep_or_holds_a_giant_number_is_one_line(tmp_path):
    folder = nerfstudio_folder(tmp_path, CAMERA)
    path = folder / "transforms.json"
    text = path.read_text()
    path.write_text("[" * 100_000)
    refused(lambda: read_frames(folder), "nested too deeply")
    path.write_text(text.replace('"w": 32', '"w": ' + "9" * 400))
    refused(lambda: read_frames(folder), "400 digits")
    document = json.loads(text)
    document["frames"] = 3
    path.write_text(json.dumps(document))
    refused(lambda: read_frames(folder), "frames")


# A table with a box and a can, seen from eight places around them.


def looking(eye, at):
    z = np.array(at) - eye
    z /= np.linalg.norm(z)
    x = np.cross(z, [0, 0, 1.0])
    x /= np.linalg.norm(x)
    return pose(np.stack([x, np.cross(z, x), z], 1), eye)


@pytest.fixture(scope="module")
def around_a_table():
    table = trimesh.creation.box([1.2, 1.2, 0.02]).apply_translation([0.5, 0, -0.01])
    box = trimesh.creation.box([0.1, 0.06, 0.12]).apply_translation([0.5, 0, 0.06])
    can = trimesh.creation.cylinder(0.035, 0.1).apply_translation([0.62, 0.2, 0.05])
    K = np.array([[190, 0, 79.5], [0, 190, 59.5], [0, 0, 1.0]])
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    eyes = [np.array([0.5 + 0.5 * np.cos(a), 0.5 * np.sin(a), 0.45]) for a in angles]
    views = [looking(eye, [0.53, 0.07, 0.04]) for eye in eyes]
    return [
        replace(render_frame([table, box, can], K, X, width=160, height=120), mask=None)
        for X in views
    ]


def turned(frames, R, after=IDENTITY):
    X = np.eye(4)
    X[:3, :3] = R
    return [replace(f, X_world_camera=X @ f.X_world_camera @ after) for f in frames]


Y_UP = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
Z_DOWN = [[1, 0, 0], [0, -1, 0], [0, 0, -1]]


def test_the_box_and_the_can_are_found(around_a_table):
    sizes = [max(o.mesh.extents) for o in scan_frames(around_a_table).objects]
    assert len(sizes) == 2
    assert abs(sizes[0] - 0.12) < 0.015


@pytest.mark.parametrize("R", [Y_UP, Z_DOWN])
def test_a_world_with_another_axis_up_is_refused(around_a_table, R):
    refused(lambda: scan_frames(turned(around_a_table, R)), " up")
    refused(lambda: scan_frames(turned(around_a_table[5:6], R)), " up")


def test_cameras_of_another_convention_are_refused(around_a_table):
    frames = turned(around_a_table, np.eye(3), after=np.diag([1, -1, -1, 1.0]))
    refused(lambda: scan_frames(frames), " up")
