"""Depth frames to scenes, measured against the meshes that were looked at."""

import numpy as np
import pytest
import scan_scene as world
import trimesh
from scan_scene import K, chamfer, distances, frames, standing

from flowplan.geometry import inverse, rotation_about, transform
from flowplan.scan import DepthFrame, ScanOptions, scan_frames
from flowplan.scan.depth import segment, tsdf
from flowplan.scan.meshes.surface import closed_surface
from flowplan.scan.meshes.winding import observed_jumps, winding_field
from flowplan.utils.open3d_loader import open3d

SHAPES = {
    "box": world.box,
    "sphere": lambda: trimesh.creation.icosphere(4, 0.04),
    "bowl": world.bowl,
    "torus": lambda: trimesh.creation.torus(0.05, 0.015),
    "laptop": world.laptop,
}


def shifted(frame: DepthFrame, X: np.ndarray) -> DepthFrame:
    return DepthFrame(
        frame.depth, frame.intrinsics, X @ frame.X_world_camera, frame.color, frame.mask
    )


# --- the winding number of a grid


@pytest.mark.parametrize("mirror", [False, True])
def test_a_closed_surface_has_winding_number_one_inside(mirror):
    cells = np.moveaxis(np.indices((20, 24, 28)), 0, -1)
    inside = (np.abs(cells - [10, 12, 0 if mirror else 14]) <= [4, 5, 8]).all(-1)
    jumps = observed_jumps(inside, np.ones_like(inside))
    assert np.abs(winding_field(jumps, mirror_bottom=mirror) - inside).max() < 1e-5


def test_a_hole_is_closed_by_a_membrane_at_one_half():
    cells = np.moveaxis(np.indices((32, 32, 32)), 0, -1)
    inside = (np.abs(cells - 16) <= 6).all(-1)
    known = np.ones_like(inside)
    known[12:21, 12:21, 20:26] = False  # the middle of the top was not seen
    chi = winding_field(observed_jumps(inside, known), mirror_bottom=False)
    column = chi[16, 16]
    assert column[16] > 0.85
    assert column[28] < 0.15
    assert 20 <= np.flatnonzero(column > 0.5).max() <= 23


def test_an_unseen_bottom_closes_on_the_support_only_with_the_mirror():
    cells = np.moveaxis(np.indices((24, 24, 24)), 0, -1)
    inside = (np.abs(cells[..., :2] - 12) <= 5).all(-1) & (cells[..., 2] < 10)
    known = np.ones_like(inside)
    known[8:17, 8:17, :9] = False  # nobody saw the inside
    assert winding_field(observed_jumps(inside, known), mirror_bottom=True)[12, 12, 0] > 0.9
    assert winding_field(observed_jumps(inside, known), mirror_bottom=False)[12, 12, 0] < 0.5


# --- accuracy


CASES = [(shape, True, False) for shape in SHAPES] + [
    (s, False, m) for s in ("box", "bowl") for m in (False, True)
]


@pytest.mark.parametrize(("shape", "noise", "masks"), [*CASES, ("bowl", True, True)])
def test_a_scan_is_close_to_what_was_scanned(shape, noise, masks):
    truth = standing(SHAPES[shape]())
    scene = scan_frames(frames([truth], noise=noise, masks=masks))
    assert len(scene.objects) == 1
    mesh = scene.objects[0].mesh_world
    assert chamfer(truth, mesh) < (0.0016 if noise else 0.0014)
    assert mesh.is_watertight
    assert mesh.volume > 0
    assert abs(scene.support_height) < 2e-4
    assert mesh.bounds[0, 2] == pytest.approx(scene.support_height, abs=1e-3)
    assert len(mesh.faces) <= ScanOptions().faces


def test_a_plate_that_is_flush_with_the_table_needs_a_mask():
    truth = standing(world.plate())
    mesh = scan_frames(frames([truth], noise=True, masks=True)).objects[0].mesh_world
    top = mesh.triangles_center[mesh.face_normals[:, 2] > 0.7]
    assert len(top) > 500
    assert distances(top, truth).mean() < 0.001
    assert mesh.is_watertight
    assert (
        chamfer(truth, mesh) < 0.003
    )  # the underside of the rim is hidden, and closed down to the table


@pytest.mark.parametrize("noise", [False, True])
def test_a_cloth_is_a_sheet_at_its_height(noise):
    truth = standing(world.cloth())
    scene = scan_frames(frames([truth], noise=noise, masks=True))
    mesh = scene.objects[0].mesh_world
    assert (
        abs(scene.support_height) < 6e-5
    )  # which the cloth, seen as part of the table, would lift
    assert np.abs(mesh.vertices[:, 2] - 0.002).max() < 0.0015
    assert mesh.vertices[:, 2].mean() == pytest.approx(0.002, abs=3e-4)
    assert mesh.area == pytest.approx(0.04, rel=0.04)
    assert (mesh.face_normals[:, 2] > 0.5).all()
    assert np.allclose(mesh.bounds[:, :2], truth.bounds[:, :2], atol=0.003)
    assert chamfer(truth, mesh) < 0.001
    assert mesh.body_count == 1


def test_things_that_touch_are_told_apart_by_masks():
    a, b = standing(world.box()), standing(trimesh.creation.cylinder(0.03, 0.12), x=0.56)
    scene = scan_frames(frames([a, b], noise=True, masks=True), ScanOptions(names=("box", "can")))
    assert [o.name for o in scene.objects] == ["box", "can"]
    for truth, obj in zip((a, b), scene.objects, strict=True):
        assert chamfer(truth, obj.mesh_world) < 0.002
        assert obj.mesh.volume == pytest.approx(truth.volume, rel=0.15)


def test_things_that_stand_apart_are_clusters_largest_first():
    big, small = trimesh.creation.box([0.1, 0.12, 0.1]), world.box()
    truths = [standing(small, y=-0.15), standing(big, y=0.1)]
    looks = frames(truths, noise=True, masks=False)
    scene = scan_frames(looks)
    assert [o.name for o in scene.objects] == ["object_0", "object_1"]
    assert chamfer(truths[1], scene.objects[0].mesh_world) < 0.001
    assert chamfer(truths[0], scene.objects[1].mesh_world) < 0.001
    assert [o.name for o in scan_frames(looks, ScanOptions(names=("crate",))).objects] == ["crate"]


def test_four_views_do():
    truth = standing(world.box())
    scene = scan_frames(frames([truth], noise=True, masks=False, count=4))
    assert chamfer(truth, scene.objects[0].mesh_world) < 0.001


def test_without_a_support_what_is_seen_is_an_object():
    truth = standing(trimesh.creation.torus(0.05, 0.015), z=0.2)
    looks = frames([truth], noise=False, masks=False)
    scene = scan_frames(looks, ScanOptions(support=False, lower=(-1, -1, 0.1)))
    assert scene.support_height is None
    assert chamfer(truth, scene.objects[0].mesh_world) < 0.002
    assert scene.objects[0].mesh.is_watertight


# --- invariance, determinism, agreement


def test_moving_the_world_moves_the_scan():
    looks = frames([standing(world.box())], noise=True, masks=False)
    X = rotation_about([0.3, 0.1, 0], [0, 0, 1], 0.7)
    X[:3, 3] += [0.2, -0.1, 0.3]
    here = scan_frames(looks)
    there = scan_frames([shifted(f, X) for f in looks])
    assert there.support_height == pytest.approx(here.support_height + 0.3, abs=1e-4)
    moved = trimesh.Trimesh(
        transform(X, here.objects[0].vertices_world), here.objects[0].mesh.faces
    )
    assert chamfer(moved, there.objects[0].mesh_world) < 0.0005


def test_a_slightly_tilted_support_is_followed():
    truth = standing(world.box())
    X = rotation_about([0.5, 0, 0], [1, 0.3, 0], np.radians(3))
    scene = scan_frames([shifted(f, X) for f in frames([truth], noise=True, masks=False)])
    assert chamfer(truth.copy().apply_transform(X), scene.objects[0].mesh_world) < 0.001


def test_the_same_frames_give_the_same_scan():
    looks = frames([standing(world.box())], noise=True, masks=False)
    a, b = (scan_frames(looks, seed=3).objects[0].mesh for _ in range(2))
    assert np.array_equal(a.vertices, b.vertices)
    assert np.array_equal(a.faces, b.faces)


def test_the_signed_distance_agrees_with_open3ds_fusion_and_is_nearer_to_the_truth():
    truth = standing(world.box())
    looks = frames([truth], noise=False, masks=True)
    o3d = open3d()
    tensor = o3d.core.Tensor
    kinds = (o3d.core.float32, o3d.core.float32)
    volume = o3d.t.geometry.VoxelBlockGrid(("tsdf", "weight"), kinds, ((1), (1)), 0.003, 16, 5000)
    for frame in looks:
        depth = o3d.t.geometry.Image(tensor(np.where(frame.mask == 1, frame.depth, 0)))
        camera = (tensor(K), tensor(inverse(frame.X_world_camera)), 1.0, 3.0, 4.0)
        volume.integrate(volume.compute_unique_block_coordinates(depth, *camera), depth, *camera)
    theirs = np.array(volume.extract_triangle_mesh(weight_threshold=1.0).to_legacy().vertices)
    theirs = theirs[theirs[:, 2] > 0.012]
    ours = scan_frames(looks, ScanOptions(blur=0, smoothing=0, faces=100_000)).objects[0].mesh_world
    assert len(theirs) > 2000
    assert np.median(distances(theirs, ours)) < 0.0015
    assert np.median(distances(ours.vertices, truth)) < 0.5 * np.median(distances(theirs, truth))


def test_cells_behind_another_thing_are_not_taken_for_air():
    """A view of another object tells the air in front of it, and nothing about cells behind it."""
    depth = np.full((40, 40), 1.0, np.float32)
    frame = DepthFrame(depth, [[40, 0, 19.5], [0, 40, 19.5], [0, 0, 1]], np.eye(4))
    one = tsdf.view(frame, np.full((40, 40), 2, np.int32), 0.02)
    grid = tsdf.Grid(np.eye(4), np.array([0.0, 0, 0.9]), (1, 1, 40), 0.005)
    f, seen = tsdf.fuse([one], grid, 1, front=0.02, behind=0.01, union_with_support=False)
    z = 0.9 + 0.005 * np.arange(40)
    assert seen[0, 0, z < 0.999].all()
    assert (f[0, 0, z < 0.999] > 0).all()
    assert not seen[0, 0, z > 1.012].any()


def test_marching_cubes_faces_outwards_and_closes_flat_on_the_support():
    cells = np.moveaxis(np.indices((20, 20, 12)), 0, -1) * 0.01
    f = np.linalg.norm(cells[..., :2] - 0.1, axis=-1) - 0.05
    mesh = closed_surface(f.astype(np.float32), 0.01, np.array([0, 0, 0.005]), flat_bottom=True)
    assert mesh.is_watertight
    assert mesh.bounds[0, 2] == pytest.approx(0, abs=1e-6)
    assert mesh.volume == pytest.approx(np.pi * 0.05**2 * 0.12, rel=0.05)


# --- pixels


def test_the_far_side_of_an_edge_is_not_trusted_and_the_near_side_is():
    depth = np.full((10, 10), 1.2)
    depth[:, :5] = 0.8
    depth[0, 9] = 0
    trusted = segment.trusted_pixels(DepthFrame(depth, K, np.eye(4)), 0.02)
    assert trusted[:, :5].all()
    assert not trusted[:, 5].any()
    assert trusted[1:, 6:].all()
    assert not trusted[0, 9]


def test_a_pixel_without_confidence_is_not_trusted():
    confidence = np.ones((10, 10))
    confidence[3] = 0
    trusted = segment.trusted_pixels(
        DepthFrame(np.ones((10, 10)), K, np.eye(4), confidence=confidence), 0.02
    )
    assert not trusted[3].any()
    assert trusted[4:].all()


def test_vertices_carry_the_colors_of_the_frames():
    looks = frames([standing(world.box())], noise=False, masks=False)
    red = np.zeros((240, 320, 3), np.uint8)
    red[..., 0] = 200
    mesh = (
        scan_frames([DepthFrame(f.depth, f.intrinsics, f.X_world_camera, color=red) for f in looks])
        .objects[0]
        .mesh
    )
    colors = np.asarray(mesh.visual.vertex_colors)[:, :3]
    top = mesh.vertices[:, 2] > 0.03
    assert (colors[top] == [200, 0, 0]).all()


# --- what cannot be scanned


def test_a_wall_is_no_support():
    X = rotation_about([0.5, 0, 0], [1, 0, 0], 1.2)
    looks = [shifted(f, X) for f in frames([], noise=False, masks=False)]
    with pytest.raises(
        ValueError, match=r"no horizontal support plane among planes tilted by 69 deg"
    ):
        scan_frames(looks)


def test_an_empty_table_and_missing_names_say_so():
    with pytest.raises(ValueError, match="no depth in any of them"):
        scan_frames([DepthFrame(np.zeros((240, 320)), K, np.eye(4))])
    with pytest.raises(ValueError, match="no object above the support"):
        scan_frames(frames([], noise=False, masks=False))
    looks = frames([standing(world.box())], noise=False, masks=True)
    with pytest.raises(
        ValueError, match=r"'cup' \(mask id 2\) is seen in no frame; found mask ids \[1\]"
    ):
        scan_frames(looks, ScanOptions(names=("box", "cup")))
    with pytest.raises(ValueError, match="expected at least one DepthFrame"):
        scan_frames([])
    mixed = [looks[0], DepthFrame(looks[1].depth, K, looks[1].X_world_camera)]
    with pytest.raises(ValueError, match="1 of 2 have a mask"):
        scan_frames(mixed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"voxel": 0}, "ScanOptions.voxel"),
        ({"faces": 3}, "ScanOptions.faces"),
        ({"names": ("a", "a")}, "ScanOptions.names"),
        ({"support": False, "support_height": 0.1}, "ScanOptions.support_height"),
        ({"lower": (0, 0, 0), "upper": (1, 0, 1)}, "ScanOptions.lower"),
    ],
)
def test_bad_options_name_their_field(options, words):
    with pytest.raises(ValueError, match=words):
        ScanOptions(**options)
