"""Depth frames and folders of them, ours and others'."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scan_scene import refusals_in_one_line

from flowplan.geometry import inverse, look_at
from flowplan.scan import DepthFrame, intrinsics_from_fov, read_frames, write_frames

K = np.array([[120.0, 0, 31.5], [0, 118.0, 23.5], [0, 0, 1]])
POSES = [look_at([0.5, 0.1 * i, 0.6], [0, 0, 0]) for i in range(3)]
OPENGL_FROM_OPENCV = np.diag([1.0, -1, -1, 1])


def make_frames(count=3, **extra):
    rng = np.random.default_rng(0)
    depths = np.round(rng.uniform(0.3, 2, (count, 48, 64)), 3)
    depths[:, 0, 0] = 0
    return [DepthFrame(d, K, X, **extra) for d, X in zip(depths, POSES, strict=False)]


def save_depths(folder, frames, names, scale=1000):
    for frame, name in zip(frames, names, strict=True):
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(np.round(frame.depth * scale).astype(np.uint16)).save(path)


def assert_same(read, frames):
    assert len(read) == len(frames)
    for a, b in zip(read, frames, strict=True):
        assert np.allclose(a.depth, b.depth, atol=6e-4)
        assert np.allclose(a.intrinsics, b.intrinsics)
        assert np.allclose(a.X_world_camera, b.X_world_camera, atol=1e-5)


def by_columns(matrix):
    return np.asarray(matrix).T.ravel().tolist()


def test_a_pixel_is_where_its_ray_says():
    frame = make_frames(1)[0]
    u, v = 40, 10
    p_camera = inverse(frame.X_world_camera) @ [*frame.points_world[v, u], 1]
    assert p_camera[2] == pytest.approx(frame.depth[v, u], abs=1e-6)
    assert np.allclose(K @ p_camera[:3] / p_camera[2], [u, v, 1], atol=1e-5)


def test_field_of_view_spans_the_image():
    K = intrinsics_from_fov(320, 240, np.radians(60))
    top = (-0.5 - K[1, 2]) / K[1, 1]
    assert np.arctan(-top) == pytest.approx(np.radians(30))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth": np.zeros(5)}, "DepthFrame.depth: expected shape"),
        ({"depth": np.full((48, 64), np.nan)}, "set pixels without a return to 0"),
        ({"depth": -np.ones((48, 64))}, "meters >= 0"),
        ({"intrinsics": K.T}, "not transposed"),
        ({"X_world_camera": 2 * np.eye(4)}, "DepthFrame.X_world_camera: expected rigid"),
        ({"mask": np.zeros((4, 4))}, r"DepthFrame.mask: expected shape \(48, 64\)"),
        ({"color": np.zeros((48, 64))}, "DepthFrame.color"),
        ({"confidence": np.full((48, 64), 2.0)}, "DepthFrame.confidence"),
    ],
)
def test_a_bad_frame_names_its_field(change, words):
    good = {"depth": np.ones((48, 64)), "intrinsics": K, "X_world_camera": np.eye(4)}
    with pytest.raises(ValueError, match=words):
        DepthFrame(**{**good, **change})


def test_our_own_folder_comes_back(tmp_path):
    rng = np.random.default_rng(0)
    extra = {
        "color": rng.integers(0, 256, (48, 64, 3)),
        "mask": rng.integers(0, 400, (48, 64)),
        "confidence": rng.integers(0, 256, (48, 64)) / 255,
    }
    frames = make_frames(**extra)
    write_frames(tmp_path, frames)
    read = read_frames(tmp_path)
    assert_same(read, frames)
    assert np.array_equal(read[0].color, extra["color"])
    assert np.array_equal(read[0].mask, extra["mask"])
    assert np.allclose(read[0].confidence, extra["confidence"])
    assert read[0].X_world_camera.tolist() == frames[0].X_world_camera.tolist()
    assert len(read_frames(tmp_path, every=2)) == 2
    assert read_frames(tmp_path, color=False)[0].color is None


def test_a_depth_beyond_16_bits_names_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="pass depth_scale=1000"):
        write_frames(tmp_path, [DepthFrame(np.full((48, 64), 8.0), K, np.eye(4))])
    assert not (tmp_path / "frames.json").exists()


def test_open3d_trajectory(tmp_path):
    frames = make_frames()
    save_depths(tmp_path, frames, [f"depth/{i:05d}.png" for i in range(3)])
    camera = {"width": 64, "height": 48, "intrinsic_matrix": by_columns(K)}
    parameters = [{"extrinsic": by_columns(inverse(X)), "intrinsic": camera} for X in POSES]
    document = {"class_name": "PinholeCameraTrajectory", "parameters": parameters}
    (tmp_path / "camera_trajectory.json").write_text(json.dumps(document))
    assert_same(read_frames(tmp_path), frames)


def test_redwood_log(tmp_path):
    frames = make_frames()
    save_depths(tmp_path, frames, [f"depth/{i:05d}.png" for i in range(3)])
    lines = []
    for i, X in enumerate(POSES):
        lines += [f"{i} {i} {i + 1}", *(" ".join(f"{v:.8f}" for v in row) for row in X)]
    (tmp_path / "trajectory.log").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="no intrinsics"):
        read_frames(tmp_path)
    (tmp_path / "intrinsic.json").write_text(json.dumps({"intrinsic_matrix": by_columns(K)}))
    assert_same(read_frames(tmp_path), frames)


def test_bundlefusion_poses_and_lost_tracking(tmp_path):
    frames = make_frames()
    save_depths(tmp_path, frames, [f"frame-{i:06d}.depth.png" for i in range(3)], scale=2000)
    for i, X in enumerate(POSES):
        np.savetxt(tmp_path / f"frame-{i:06d}.pose.txt", X, fmt="%.7f")
    K4 = np.eye(4)
    K4[:3, :3] = K
    numbers = " ".join(str(v) for v in K4.ravel())
    (tmp_path / "info.txt").write_text(
        f"m_depthShift = 2000\nm_calibrationDepthIntrinsic = {numbers}\n"
    )
    assert_same(read_frames(tmp_path), frames)
    (tmp_path / "frame-000001.pose.txt").write_text("-inf -inf -inf -inf\n" * 4)
    with pytest.warns(UserWarning, match="tracking was lost"):
        assert_same(read_frames(tmp_path), [frames[0], frames[2]])


def test_nerfstudio_looks_the_other_way_and_counts_pixels_from_corners(tmp_path):
    frames = make_frames()
    save_depths(tmp_path, frames, [f"depth/{i}.png" for i in range(3)])
    document = {
        "fl_x": 120.0, "fl_y": 118.0, "cx": 32.0, "cy": 24.0, "w": 64, "h": 48,
        "frames": [
            {"file_path": f"images/{i}.png", "depth_file_path": f"depth/{i}.png",
             "transform_matrix": (X @ OPENGL_FROM_OPENCV).tolist()}
            for i, X in enumerate(POSES)
        ],
    }  # fmt: skip
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    assert_same(read_frames(tmp_path, color=False), frames)
    document["k1"] = 0.1
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    with pytest.warns(UserWarning, match="lens distortion"):
        read_frames(tmp_path, color=False)


def test_instant_ngp_scale_and_angle(tmp_path):
    frames = [
        DepthFrame(f.depth, [[120, 0, 31.5], [0, 120, 23.5], [0, 0, 1]], f.X_world_camera)
        for f in make_frames()
    ]
    save_depths(tmp_path, frames, [f"d{i}.png" for i in range(3)], scale=4000)
    document = {
        "camera_angle_x": 2 * np.arctan(32 / 120), "w": 64, "h": 48,
        "integer_depth_scale": 1 / 4000,
        "frames": [{"depth_path": f"d{i}", "transform_matrix": (X @ OPENGL_FROM_OPENCV).tolist()}
                   for i, X in enumerate(POSES)],
    }  # fmt: skip
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    assert_same(read_frames(tmp_path), frames)


def broken(tmp_path, change):
    """A folder of ours with its index changed."""
    write_frames(tmp_path, make_frames())
    path = tmp_path / "frames.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(version=2), "version: expected 1, got 2"),
        (lambda d: d.update(format="x"), "format: expected"),
        (lambda d: d.pop("frames"), "frames: missing"),
        (lambda d: d.update(frames=[3]), r"frames\[0\]: expected an object"),
        (lambda d: d.update(frames=[]), "holds no frames"),
        (lambda d: d["frames"][1].pop("depth"), r"frames\[1\]: depth: missing"),
        (lambda d: d["frames"][1].update(depth="none.png"), "none.png: the depth image is missing"),
        (lambda d: d["frames"][1].update(depth="frames.json"), "not readable as an image"),
        (
            lambda d: d["frames"][1].update(X_world_camera=[[1]]),
            r"frames\[1\].X_world_camera: expected shape",
        ),
        (
            lambda d: d["frames"][1]["X_world_camera"][0].__setitem__(0, 3.0),
            "not a rigid transform",
        ),
        (
            lambda d: d["frames"][0].update(intrinsics=[[float("nan")] * 3] * 3),
            "intrinsics: 9 of 9 values are not",
        ),
        (lambda d: d.update(depth_scale=0), "depth_scale: expected a positive"),
    ],
)
def test_a_broken_index_is_one_line(tmp_path, change, words):
    with pytest.raises(ValueError, match=words) as error:
        read_frames(broken(tmp_path, change))
    assert "\n" not in str(error.value)


def test_eight_bit_depth_and_other_sizes_are_refused(tmp_path):
    write_frames(tmp_path, make_frames(color=np.zeros((48, 64, 3))))
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(tmp_path / "color/000001.png")
    with pytest.raises(ValueError, match=r"is 10 x 10, its depth image 64 x 48.*color=False"):
        read_frames(tmp_path)
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(tmp_path / "depth/000000.png")
    with pytest.raises(ValueError, match="16-bit gray PNG"):
        read_frames(tmp_path)


def test_what_is_no_folder_of_frames(tmp_path):
    with pytest.raises(ValueError, match="no known layout"):
        read_frames(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        read_frames(tmp_path / "missing")
    (tmp_path / "frames.json").write_text("{")
    with pytest.raises(ValueError, match="not readable as JSON"):
        read_frames(tmp_path)


KEYS = [
    "frames",
    "depth_scale",
    "integer_depth_scale",
    "fl_x",
    "depth_file_path",
    "transform_matrix",
    "intrinsic",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    layout=st.sampled_from(["frames.json", "transforms.json", "camera_trajectory.json"]),
    key=st.sampled_from(KEYS),
    value=json_values,
)
def test_any_index_is_read_or_refused_in_one_line(tmp_path, layout, key, value):
    for file in tmp_path.glob("*.json"):
        file.unlink()
    item = {
        "depth": "d.png",
        "depth_file_path": "d.png",
        "X_world_camera": np.eye(4).tolist(),
        "intrinsics": K.tolist(),
    }
    item |= {
        "transform_matrix": np.eye(4).tolist(),
        "extrinsic": by_columns(np.eye(4)),
        "intrinsic": {},
    }
    document = {
        "format": "flowplan-frames",
        "version": 1,
        "depth_scale": 1000,
        "fl_x": 100,
        "cx": 3,
        "cy": 3,
    }
    document |= {"frames": [item], "parameters": [item]}
    (item if key in item else document)[key] = value
    (tmp_path / layout).write_text(json.dumps(document))
    Image.fromarray(np.ones((6, 6), np.uint16)).save(tmp_path / "d.png")
    with refusals_in_one_line():
        read_frames(tmp_path)
