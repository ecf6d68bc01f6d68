"""Gaussians of a scene's meshes: where they start, what colors they get, and that fitting makes
pictures better."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from flowplan.geometry import matrix_from_quat_wxyz, pose
from flowplan.scene import Scene, SceneObject
from generators.chord.options import CameraOptions, GaussianOptions, ViewOptions
from generators.chord.render.cameras import Framing, around, framing
from generators.chord.render.compositor import Splats
from generators.chord.render.gaussians import Gaussians, gaussians
from generators.chord.render.mesh_views import GRAY, mesh_views, world_mesh
from generators.chord.render.splat import rasterize

UNLIT = ViewOptions(contrast=0.0)
SAMPLED = GaussianOptions(count=200, obstacle_count=80, iterations=0, shading=UNLIT)
FITTED = GaussianOptions(count=250, obstacle_count=80, iterations=80, views=12, pixels=40)
SIZE = 40


def colored(mesh):
    """Stripes of red and blue along z, green along x."""
    mesh = mesh.subdivide_to_size(0.01)
    x, _, z = ((mesh.vertices - mesh.bounds[0]) / mesh.extents).T
    rgb = np.stack([z > 0.5, 0 * x + 0.8 * x, z <= 0.5], -1)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=(255 * rgb).astype(np.uint8))
    return mesh


def textured():
    """A box with squares of four colors on its sides."""
    mesh = trimesh.creation.box(extents=(0.1, 0.08, 0.06))
    mesh.unmerge_vertices()
    uv = np.zeros((len(mesh.vertices), 2))
    for axis in range(3):
        on = np.abs(mesh.face_normals[:, axis]) > 0.9
        others = [i for i in range(3) if i != axis]
        uv[mesh.faces[on].ravel()] = (mesh.vertices[mesh.faces[on].ravel()] / mesh.extents + 0.5)[
            :, others
        ]
    squares = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8)
    image = Image.fromarray(squares).resize((64, 64), Image.Resampling.NEAREST)
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv, image=image)
    return mesh


def plain():
    return trimesh.creation.cylinder(radius=0.04, height=0.1)


def scene(*meshes, obstacles=()):
    def placed(kind, i, mesh):
        return SceneObject(f"{kind}_{i}", mesh, pose(translation=[0.4, 0.25 * i, 0.1]))

    return Scene(
        tuple(placed("object", i, m) for i, m in enumerate(meshes)),
        None,
        tuple(placed("obstacle", i + len(meshes), m) for i, m in enumerate(obstacles)),
    )


def tensor(values):
    return torch.tensor(values, dtype=torch.float32)


def errors(found: Gaussians, shown: Scene):
    """Mean squared errors of images: color before white, coverage, position."""
    framed = framing(shown)
    cameras = around(framed, np.linspace(0.2, 6.0, 7), np.linspace(0.35, 0.85, 7), SIZE, SIZE)
    views = mesh_views(
        [world_mesh(o) for o in shown.objects], cameras.viewmats, cameras.Ks, SIZE, SIZE
    )
    features = np.concatenate([found.colors, found.means - framed.center], axis=1)
    splats = Splats(
        tensor(found.means)[None],
        tensor(found.quat_wxyz)[None],
        tensor(found.scales),
        tensor(found.opacities),
        tensor(features),
        tensor(cameras.viewmats),
        tensor(cameras.Ks),
        SIZE,
        SIZE,
    )
    images, alphas = rasterize(splats)
    image, alpha = images[:, 0].numpy(), alphas[:, 0].numpy()
    color = image[..., :3] - alpha[..., None] - (views.rgb - views.alpha[..., None])
    place = image[..., 3:] - (views.points - views.alpha[..., None] * framed.center)
    return np.array([np.mean(off**2) for off in (color, alpha - views.alpha, place)])


@pytest.mark.parametrize("mesh", [colored(plain()), textured()], ids=["vertex_colored", "textured"])
def test_fitting_makes_views_better_that_were_not_fitted(mesh):
    shown = scene(mesh)
    before = errors(gaussians(shown, replace(FITTED, iterations=0)), shown)
    after = errors(gaussians(shown, FITTED), shown)
    assert (10 * np.log10(before / after) > 5).all()


def test_a_mesh_without_colors_is_fitted_to_its_shape():
    """Coverage and position, which a prior of rest positions needs."""
    shown = scene(plain())
    found = gaussians(shown, FITTED)
    before = errors(gaussians(shown, replace(FITTED, iterations=0)), shown)
    assert (10 * np.log10(before / errors(found, shown)) > 5)[1:].all()
    local = found.means - [0.4, 0.0, 0.1]
    beyond = np.stack([np.hypot(local[:, 0], local[:, 1]) - 0.04, np.abs(local[:, 2]) - 0.05]).max(
        0
    )
    assert np.abs(beyond).max() < 0.012  # the distance between neighbors


def test_discs_lie_on_the_surface_evenly_and_face_its_way():
    shown = scene(trimesh.creation.icosphere(subdivisions=4, radius=0.1))
    found = gaussians(shown, SAMPLED)
    local = found.means - [0.4, 0, 0.1]
    assert np.linalg.norm(local, axis=1) == pytest.approx(0.1, rel=0.01)
    normals = matrix_from_quat_wxyz(found.quat_wxyz)[:, :, 2]
    assert (normals * local / 0.1).sum(1).min() > 0.99
    assert (found.scales[:, 2] < 0.3 * found.scales[:, 0]).all()
    gap = np.sort(np.linalg.norm(local[:, None] - local, axis=-1), axis=1)[:, 1]
    spacing = np.sqrt(4 * np.pi * 0.01 / 200)
    assert 0.6 * spacing < gap.min()
    assert gap.max() < 1.6 * spacing


def test_normals_that_point_straight_down_are_turned_to_as_well():
    box = trimesh.creation.box(extents=(0.1, 0.1, 0.1))
    found = gaussians(scene(box), SAMPLED)
    bottom = found.means[:, 2] < 0.1 - 0.0499
    assert bottom.sum() > 10
    assert matrix_from_quat_wxyz(found.quat_wxyz)[bottom, :, 2] == pytest.approx(
        np.tile([0, 0, -1.0], (bottom.sum(), 1))
    )


def test_a_textured_mesh_gives_its_texture():
    found = gaussians(scene(textured()), SAMPLED)
    palette = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    distance = np.linalg.norm(found.colors[:, None] - palette, axis=-1)
    assert np.quantile(distance.min(1), 0.9) < 0.05
    assert set(distance.argmin(1)) == {0, 1, 2, 3}
    top = found.means[:, 2] > 0.1 + 0.0299
    left = found.means[:, 0] < 0.4 - 0.005
    far = found.means[:, 1] > 0.005
    assert np.median(found.colors[top & left & far], axis=0) == pytest.approx([1, 0, 0], abs=0.05)


def test_colors_are_lit_as_the_pictures_are():
    lit = gaussians(scene(plain()), GaussianOptions(count=200, iterations=0))
    top, bottom = lit.means[:, 2] > 0.1499, lit.means[:, 2] < 0.0501
    assert lit.colors[top].mean() > lit.colors[bottom].mean() + 0.1


def test_a_mesh_without_colors_is_grey_or_as_told_or_refused():
    shown = scene(plain())
    assert gaussians(shown, SAMPLED).colors == pytest.approx(np.tile(GRAY, (200, 1)))
    told = GaussianOptions(
        count=200, iterations=0, shading=UNLIT, color=(0.9, 0.5, 0.1), require_color=True
    )
    assert gaussians(shown, told).colors == pytest.approx(np.tile([0.9, 0.5, 0.1], (200, 1)))
    with pytest.raises(
        ValueError, match=r"SceneObject\[object_0\].mesh: has no colors; give it vertex colors"
    ):
        gaussians(shown, replace(SAMPLED, require_color=True))


def test_a_fit_keeps_the_color_that_was_told():
    told = GaussianOptions(
        count=100, iterations=30, views=8, pixels=24, color=(0.9, 0.5, 0.1), shading=UNLIT
    )
    colors = gaussians(scene(plain()), told).colors
    assert np.median(colors, axis=0) == pytest.approx([0.9, 0.5, 0.1], abs=0.05)


def test_objects_come_first_and_share_by_area():
    large = trimesh.creation.box(extents=(0.2, 0.2, 0.2))
    small = trimesh.creation.box(extents=(0.1, 0.1, 0.1))
    shown = scene(large, small, obstacles=[small, large])
    found = gaussians(shown, GaussianOptions(count=500, obstacle_count=250, iterations=0))
    assert np.array_equal(found.object_id, np.sort(found.object_id))
    assert np.bincount(found.object_id).tolist() == [400, 100, 50, 200]
    centers = [found.means[found.object_id == i].mean(0) for i in range(4)]
    assert np.array(centers) == pytest.approx(
        np.array([[0.4, 0.25 * i, 0.1] for i in range(4)]), abs=0.02
    )


def test_a_long_table_is_fitted_in_pictures_no_larger_than_the_scenes():
    """An obstacle a hundred times as large neither fills the memory nor is misplaced."""
    table = trimesh.creation.box(extents=(8.0, 8.0, 0.02))
    shown = scene(colored(plain()), obstacles=[table])
    found = gaussians(
        shown, GaussianOptions(count=60, obstacle_count=60, iterations=3, views=2, pixels=16)
    )
    flat = found.means[found.object_id == 1]
    assert np.abs(flat[:, 2] - 0.1).max() < 0.3
    assert np.ptp(flat[:, 0]) > 6


def test_the_same_seed_gives_the_same_bits():
    options = GaussianOptions(count=80, iterations=5, views=4, pixels=16)
    one, other, third = (gaussians(scene(colored(plain())), options, seed=s) for s in (1, 1, 2))
    for name in ("means", "quat_wxyz", "scales", "opacities", "colors"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert not np.array_equal(one.means, third.means)


def test_what_will_be_seen_decides_how_fine_the_pictures_are():
    """A distant Gaussian smaller than a pixel is fitted to be smaller or clearer."""
    shown = scene(colored(plain()))
    options = GaussianOptions(count=80, iterations=40, views=8, pixels=24)
    near = gaussians(shown, options)
    assert np.array_equal(near.means, gaussians(shown, options, framed=framing(shown)).means)
    afar = gaussians(
        shown, options, framed=Framing(framing(shown).center, 4 * framing(shown).radius)
    )
    away = gaussians(shown, options, cameras=CameraOptions(margin=6.0))
    assert np.array_equal(afar.means, away.means)
    assert np.median(afar.scales[:, 0]) < np.median(near.scales[:, 0])


def test_progress_ends_and_never_falls():
    said = []
    options = GaussianOptions(count=60, iterations=2, views=2, pixels=16)
    gaussians(
        scene(plain(), plain()), options, progress=lambda done, what: said.append((done, what))
    )
    done = [d for d, _ in said]
    assert done == sorted(done)
    assert done[-1] == 1.0
    assert {"Gaussians of object_0", "Gaussians of object_1"} <= {what for _, what in said}


@pytest.mark.parametrize(
    "name", ["count", "obstacle_count", "views", "batch", "pixels", "iterations"]
)
def test_numbers_that_make_no_sense_are_named(name):
    with pytest.raises(ValueError, match=rf"GaussianOptions.{name}: expected \d+ to "):
        GaussianOptions(**{name: -1})


def test_colors_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"GaussianOptions.color: expected 0 to 1"):
        GaussianOptions(color=(0.0, 2.0, 0.0))
    with pytest.raises(ValueError, match="Scene.objects: expected at least one object"):
        gaussians(Scene((), None, ()), SAMPLED)
