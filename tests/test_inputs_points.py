"""Point clouds as sensors and other programs write them."""

import numpy as np
import pytest
import trimesh

from flowplan.scan import load_points
from flowplan.scan.point_cloud import PointOptions
from tests.input_files import refused

BALL = 5.236e-4  # cubic meters
COUNT = 3000


@pytest.fixture(scope="module")
def ball():
    sphere = trimesh.creation.icosphere(3, 0.05)
    return np.asarray(trimesh.sample.sample_surface(sphere, COUNT, seed=0)[0])


def volume(path):
    return float(load_points(path, options=PointOptions(cells=48)).mesh.volume)


def ply(path, table, names):
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(table)}\n"
    head += "".join(f"property float {n}\n" for n in names.split()) + "end_header\n"
    path.write_bytes(head.encode() + np.asarray(table).astype("<f4").tobytes())
    return path


@pytest.mark.parametrize("suffix", ["xyz", "npy"])
@pytest.mark.parametrize("kind", ["bytes", "shares", "red", "white"])
def test_colors_are_no_normals(tmp_path, ball, suffix, kind):
    rng = np.random.default_rng(0)
    colors = {
        "bytes": rng.integers(0, 256, ball.shape),
        "shares": rng.random(ball.shape),
        "red": np.broadcast_to([1.0, 0, 0], ball.shape),
        "white": np.ones(ball.shape),
    }[kind]
    path = tmp_path / f"c.{suffix}"
    (np.savetxt if suffix == "xyz" else np.save)(path, np.c_[ball, colors])
    refused(lambda: load_points(path), "normals")


def test_normals_without_a_name_are_used(tmp_path, ball):
    np.savetxt(tmp_path / "n.xyz", np.c_[ball, ball / 0.05])
    assert abs(volume(tmp_path / "n.xyz") / BALL - 1) < 0.03


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_normals_that_nobody_computed_are_estimated(tmp_path, ball, value):
    table = np.c_[ball, np.full((COUNT, 3), value), np.zeros(COUNT)]
    path = ply(tmp_path / "g.ply", table, "x y z nx ny nz opacity")
    with pytest.warns(UserWarning, match="normals are estimated"):
        assert abs(volume(path) / BALL - 1) < 0.03


@pytest.mark.parametrize("suffix", ["xyz", "npy", "ply"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_points_that_did_not_return_are_left_out(tmp_path, ball, suffix, value):
    points = ball.copy()
    points[::7] = value
    path = tmp_path / f"n.{suffix}"
    if suffix == "xyz":
        np.savetxt(path, points)
    elif suffix == "npy":
        np.save(path, points)
    else:
        ply(path, points, "x y z")
    assert abs(volume(path) / BALL - 1) < 0.03


def test_points_with_normals_that_did_not_return_are_left_out(tmp_path, ball):
    table = np.c_[ball, ball / 0.05]
    table[::7] = np.nan
    table[1::7, 3:] = np.nan
    np.save(tmp_path / "n.npy", table)
    assert abs(volume(tmp_path / "n.npy") / BALL - 1) < 0.03
