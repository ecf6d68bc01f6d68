"""Images of meshes: visible side, coverage of a pixel, color of a surface."""

import numpy as np
import pytest
import trimesh
from PIL import Image

from flowplan.geometry import inverse, look_at, pose
from flowplan.scene import SceneObject
from generators.chord.options import ViewOptions
from generators.chord.render.mesh_views import (
    GRAY,
    LIGHT,
    brightness,
    mesh_views,
    surface_colors,
    world_mesh,
)

UNLIT = ViewOptions(contrast=0.0)
SIZE = 25
K = np.array([[60.0, 0.0, SIZE / 2], [0.0, 60.0, SIZE / 2], [0.0, 0.0, 1.0]])
SIDES = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
PALETTE = np.array(
    [[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0], [0, 200, 200], [200, 0, 200]]
)


def colored_cube(size=0.2):
    """Every side has its color of the palette."""
    cube = trimesh.creation.box(extents=[size] * 3)
    side = (cube.face_normals @ SIDES.T).argmax(1)
    cube.visual = trimesh.visual.ColorVisuals(cube, face_colors=PALETTE[side])
    return cube


def quad():
    """A square of 0.2 m in the plane z = 0, its corners in order (0, 0), (1, 0), (1, 1), (0, 1)."""
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    return trimesh.Trimesh(0.2 * corners - [0.1, 0.1, 0], [[0, 1, 2], [0, 2, 3]], process=False)


def looking(*eyes, at=(0.0, 0.0, 0.0)):
    viewmats = np.stack([inverse(look_at(eye, at)) for eye in eyes])
    return viewmats, np.tile(K, (len(eyes), 1, 1))


def pictures(meshes, *eyes, options=UNLIT):
    viewmats, Ks = looking(*eyes)
    return mesh_views(meshes, viewmats, Ks, SIZE, SIZE, options)


def test_a_cube_shows_the_side_that_faces_the_camera():
    views = pictures([colored_cube()], *SIDES)
    assert views.rgb.shape == (6, SIZE, SIZE, 3)
    middle = views.rgb[:, SIZE // 2, SIZE // 2]
    assert middle == pytest.approx(PALETTE / 255)
    assert not views.rgb[:, 0, 0].any()
    assert views.depth[:, SIZE // 2, SIZE // 2] == pytest.approx(0.9, abs=1e-6)
    assert views.points[:, SIZE // 2, SIZE // 2] == pytest.approx(0.1 * SIDES, abs=1e-6)
    # 0.2 m at 0.9 m and 60 pixels: 13.3 pixels square
    assert views.alpha.sum((1, 2)) == pytest.approx((60 * 0.2 / 0.9) ** 2, rel=0.05)


def test_left_is_left_and_up_is_up():
    """Seen from the front, -y: a ball at +x is right of the middle, one at +z above it."""
    right = trimesh.creation.icosphere(radius=0.02).apply_translation([0.1, 0, 0])
    top = trimesh.creation.icosphere(radius=0.02).apply_translation([0, 0, 0.1])
    ids = pictures([right, top], [0.0, -1.0, 0.0]).mesh_id[0]
    assert set(np.unique(ids)) == {-1, 0, 1}
    y, x = np.argwhere(ids == 0).mean(0)
    assert (x - SIZE // 2, y - SIZE // 2) == pytest.approx((6, 0), abs=0.7)
    y, x = np.argwhere(ids == 1).mean(0)
    assert (x - SIZE // 2, y - SIZE // 2) == pytest.approx((0, -6), abs=0.7)


def test_coverage_of_a_sphere_is_its_outlines_area():
    """The outline of a ball is a circle of radius f r / sqrt(d^2 - r^2)."""
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.15)
    views = pictures(
        [ball], [1.0, 0, 0], [0.6, -0.8, 0], options=ViewOptions(samples=4, contrast=0.0)
    )
    assert views.alpha.sum((1, 2)) == pytest.approx(
        np.pi * 60**2 * 0.15**2 / (1 - 0.15**2), rel=0.01
    )
    assert ((views.alpha > 0) & (views.alpha < 1)).any()
    full = views.alpha == 1
    assert np.linalg.norm(views.points[full], axis=-1) == pytest.approx(0.15, rel=0.02)
    assert views.rgb == pytest.approx(views.alpha[..., None] * GRAY, abs=1e-9)


def test_what_is_nearer_hides_what_is_behind():
    front, back = colored_cube(0.1), colored_cube(0.3)
    front.apply_translation([0.4, 0, 0])
    views = pictures([back, front], [1.0, 0, 0], [-1.0, 0, 0])
    assert views.mesh_id[:, SIZE // 2, SIZE // 2].tolist() == [1, 0]


def test_light_comes_from_the_world_not_from_the_camera():
    options = ViewOptions(contrast=0.6)
    views = pictures([trimesh.creation.box(extents=[0.2] * 3)], *SIDES, options=options)
    middle = views.rgb[:, SIZE // 2, SIZE // 2, 0]
    assert middle == pytest.approx(0.6 * (1 - 0.6 * (1 - SIDES @ LIGHT) / 2))
    assert middle.argmax() == 4  # the top
    assert brightness(np.stack([LIGHT, -LIGHT]), options) == pytest.approx([1.0, 0.4])


def test_winding_does_not_matter():
    cube, inside_out = colored_cube(), colored_cube()
    inside_out.faces = inside_out.faces[:, ::-1]
    one, other = (
        pictures([mesh], [0.7, 0.5, 0.6], options=ViewOptions()) for mesh in (cube, inside_out)
    )
    assert one.rgb == pytest.approx(other.rgb)


def test_a_texture_lies_as_its_coordinates_say():
    square = quad()
    image = Image.fromarray(
        np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
    )
    uv = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    square.visual = trimesh.visual.TextureVisuals(
        uv=uv, image=image.resize((64, 64), Image.Resampling.NEAREST)
    )
    near = np.array(
        [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]
    )  # each corner of the first face
    colors = surface_colors(square, np.zeros(3, int), near)
    # v = 0 is the image's last row
    assert colors == pytest.approx(np.array([[0, 0, 1.0], [1, 1, 1], [0, 1, 0]]), abs=0.02)
    views = pictures([square], [0.0, -0.5, 1.0])
    on = views.rgb[0, SIZE // 2 - 3, SIZE // 2 - 3]  # up and left of the middle: u small, v large
    assert on == pytest.approx([1.0, 0, 0], abs=0.02)


def test_a_texture_without_an_image_is_its_materials_color():
    square = quad()
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[51, 102, 204, 255])
    square.visual = trimesh.visual.TextureVisuals(uv=np.zeros((4, 2)), material=material)
    assert surface_colors(square, np.zeros(1, int), np.full((1, 3), 1 / 3)) == pytest.approx(
        np.array([[0.2, 0.4, 0.8]]), abs=1e-3
    )


def test_vertex_colors_are_blended():
    square = quad()
    square.visual = trimesh.visual.ColorVisuals(
        square, vertex_colors=np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]])
    )
    barycentric = np.array([[0.5, 0.25, 0.25]])
    assert surface_colors(square, np.zeros(1, int), barycentric) == pytest.approx(barycentric)


def test_a_mesh_without_colors_has_none():
    assert surface_colors(quad(), np.zeros(1, int), np.full((1, 3), 1 / 3)) is None


def test_the_world_mesh_keeps_its_colors():
    obj = SceneObject("cube", colored_cube(), pose(translation=[0.0, 0.0, 0.3]))
    mesh = world_mesh(obj)
    assert mesh.bounds.mean(0) == pytest.approx([0, 0, 0.3])
    assert np.array_equal(mesh.visual.face_colors, obj.mesh.visual.face_colors)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="ViewOptions.samples: expected 1 to 64, got 0"):
        ViewOptions(samples=0)
    with pytest.raises(ValueError, match="ViewOptions.contrast"):
        ViewOptions(contrast=1.5)
    viewmats, Ks = looking([1.0, 0, 0], [0, 1.0, 0])
    with pytest.raises(ValueError, match="Ks"):
        mesh_views([quad()], viewmats, Ks[:1], SIZE, SIZE)
