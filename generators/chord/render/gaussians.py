"""A scene's meshes as 3D Gaussians: flat disks spread over the surfaces, then fitted to images.

Each object is fitted alone, so that hidden parts are right when it moves. The images show color,
coverage and the position of every pixel; the last makes a Gaussian lie where it appears to be,
which colors alone would not. Images are taken from the distance, and with the resolution, of later
views: a Gaussian smaller than a pixel still covers a whole one (eps2d), and the fit compensates for
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, radians, sin, tan
from typing import NamedTuple

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from torch import Tensor

from flowplan.geometry import inverse, look_at
from flowplan.motion import Progress, silent
from flowplan.scene import Scene, SceneObject
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from generators.chord.options import CameraOptions, GaussianOptions
from generators.chord.render.cameras import Framing, framing
from generators.chord.render.compositor import Splats
from generators.chord.render.mesh_views import (
    GRAY,
    MeshViews,
    brightness,
    mesh_views,
    surface_colors,
    world_mesh,
)
from generators.chord.render.splat import rasterize
from generators.common.sampling import farthest_points

MIN_COUNT = 50
"""Gaussians of even the smallest object."""
CANDIDATES = 8
"""Points drawn for each that is kept, to spread those kept evenly."""
DISK, THICKNESS, OPACITY = 0.6, 0.1, 0.95
"""Standard deviations of a disk along and across the surface, in distances between neighbors;
opacity."""
MAX_GROWTH = 1.5
"""Limit of a disk's growth: one that straddles two parts would smear when they separate."""


@dataclass(frozen=True, eq=False)
class Gaussians:
    """G Gaussians of a scene at rest.

    Attributes:
        means: (G, 3) world frame, meters.
        quat_wxyz: (G, 4) unit quaternions, world frame.
        scales: (G, 3) standard deviations along their axes, meters.
        opacities: (G,) in (0, 1).
        colors: (G, 3) RGB in [0, 1].
        object_id: (G,) the scene's objects in their order, then its obstacles.
    """

    means: FloatArray
    quat_wxyz: FloatArray
    scales: FloatArray
    opacities: FloatArray
    colors: FloatArray
    object_id: NDArray[np.int64]

    def __post_init__(self) -> None:
        count = len(self.means)
        shapes = {
            "means": (3,),
            "quat_wxyz": (4,),
            "scales": (3,),
            "opacities": (),
            "colors": (3,),
        }
        for name, shape in shapes.items():
            value = checks.array(f"Gaussians.{name}", getattr(self, name), (count, *shape))
            object.__setattr__(self, name, value)
        ids = checks.array("Gaussians.object_id", self.object_id, (count,), dtype=np.int64)
        object.__setattr__(self, "object_id", ids)
        if not (np.all(self.scales > 0) and np.all((self.opacities > 0) & (self.opacities < 1))):
            raise ValueError(
                "Gaussians.scales, opacities: expected positive scales and opacities in (0, 1)"
            )


class _View(NamedTuple):
    """The view that the scene will be rendered from."""

    distance: float
    """Meters."""
    focal: float
    """Focal length, pixels."""


def gaussians(
    scene: Scene,
    options: GaussianOptions = GaussianOptions(),
    *,
    framed: Framing | None = None,
    cameras: CameraOptions | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Gaussians:
    """Gaussians on the surfaces of a scene's objects and obstacles.

    Args:
        scene: world frame, meters.
        options: see GaussianOptions.
        framed: the ball that later cameras look at. Defaults to the scene's `framing`.
        cameras: options of those cameras.
        seed: Random seed.
        progress: called after every step.

    Raises:
        ValueError: for a scene without objects, and for a mesh without colors if they are required
            and none is given.
    """
    everything = scene.objects + scene.obstacles
    counts = _shares(scene.objects, options.count)
    counts += _shares(scene.obstacles, options.obstacle_count)
    cameras = cameras or CameraOptions()
    framed = framed or framing(scene, cameras)
    half = radians(cameras.field_of_view) / 2
    view = _View(cameras.margin * framed.radius / sin(half), options.pixels / 2 / tan(half))
    parts = []
    for i, (obj, count) in enumerate(zip(everything, counts, strict=True)):

        def step(done: float, i: int = i, name: str = obj.name) -> None:
            progress((i + done) / len(everything), f"Gaussians of {name}")

        step(0.0)
        part = _sample(obj, i, count, options, seed)
        parts.append(_fit(part, obj, view, options, seed, step) if options.iterations else part)
    progress(1.0, f"{sum(counts)} Gaussians")
    return Gaussians(
        means=np.concatenate([p.means for p in parts]),
        quat_wxyz=np.concatenate([p.quat_wxyz for p in parts]),
        scales=np.concatenate([p.scales for p in parts]),
        opacities=np.concatenate([p.opacities for p in parts]),
        colors=np.concatenate([p.colors for p in parts]),
        object_id=np.concatenate([p.object_id for p in parts]),
    )


def _shares(objects: tuple[SceneObject, ...], count: int) -> list[int]:
    """Number of Gaussians of each object, by area."""
    areas = np.array([o.mesh.area for o in objects])
    return [max(MIN_COUNT, round(count * area / areas.sum())) for area in areas]


def _sample(
    obj: SceneObject, index: int, count: int, options: GaussianOptions, seed: int
) -> Gaussians:
    """Disks spread evenly over a surface, wide enough to leave no gaps."""
    # Many candidates, thinned by farthest-point sampling.
    mesh = world_mesh(obj)
    points, face = trimesh.sample.sample_surface(mesh, CANDIDATES * count, seed=seed)
    chosen = farthest_points(np.asarray(points, float), count)
    points, face = np.asarray(points, float)[chosen], np.asarray(face)[chosen]

    barycentric = trimesh.triangles.points_to_barycentric(np.asarray(mesh.triangles)[face], points)
    colors = surface_colors(mesh, face, barycentric)
    if colors is None:
        if options.color is None and options.require_color:
            raise ValueError(
                f"SceneObject[{obj.name}].mesh: has no colors; give it vertex colors or a texture, "
                "or set GaussianOptions.color"
            )
        colors = np.tile(GRAY if options.color is None else options.color, (count, 1))

    normals = np.asarray(mesh.face_normals, float)[face]
    spacing = np.sqrt(mesh.area / count)
    return Gaussians(
        means=points,
        quat_wxyz=_facing(normals),
        scales=np.tile(spacing * np.array([DISK, DISK, THICKNESS]), (count, 1)),
        opacities=np.full(count, OPACITY),
        colors=colors * brightness(normals, options.shading)[:, None],
        object_id=np.full(count, index),
    )


def _facing(normals: FloatArray) -> FloatArray:
    """Quaternions (N, 4) of the shortest rotations of z to the normals (N, 3)."""
    down = normals[:, 2] < -1 + 1e-9
    quat = np.stack([1 + normals[:, 2], -normals[:, 1], normals[:, 0], 0 * normals[:, 0]], axis=-1)
    quat[down] = [0.0, 1.0, 0.0, 0.0]
    return quat / np.linalg.norm(quat, axis=-1, keepdims=True)


def _fit(
    start: Gaussians,
    obj: SceneObject,
    view: _View,
    options: GaussianOptions,
    seed: int,
    step: Callable[[float], None],
) -> Gaussians:
    """Gaussians fitted to images of the mesh by Adam."""
    center, radius = _ball(start.means)
    viewmats, K, side = _cameras_around(center, radius, view, options)
    Ks = np.tile(K, (len(viewmats), 1, 1))
    views = mesh_views([_painted_mesh(obj, options)], viewmats, Ks, side, side, options.shading)
    target = _image(views, center, radius)  # (V, H, W, 7)
    cameras, intrinsics = _tensor(viewmats), _tensor(K).expand(options.batch, 3, 3)

    # Parameters, lengths in radii of the object's ball.
    means = _tensor((start.means - center) / radius).requires_grad_()
    quats = _tensor(start.quat_wxyz).requires_grad_()
    log_scales = _tensor(np.log(start.scales / radius)).requires_grad_()
    logits = torch.logit(_tensor(start.opacities)).requires_grad_()
    colors = _tensor(start.colors).requires_grad_()
    widest = log_scales.detach().amax() + np.log(MAX_GROWTH)
    rates = {
        means: 0.05 * float(log_scales.detach().amax().exp()),
        quats: 0.01,
        log_scales: 0.02,
        logits: 0.05,
        colors: 0.02,
    }
    adam = torch.optim.Adam([{"params": [p], "lr": rate} for p, rate in rates.items()], eps=1e-15)
    generator = torch.Generator().manual_seed(seed)
    for i in range(options.iterations):
        # Compare some of the views; rates fall to a tenth.
        shown = torch.randperm(len(cameras), generator=generator)[: options.batch]
        splats = Splats(
            means[None] * radius + _tensor(center),
            quats[None],
            log_scales.exp() * radius,
            logits.sigmoid(),
            torch.cat([colors, means], dim=-1),
            cameras[shown],
            intrinsics[: len(shown)],
            side,
            side,
        )
        images, alphas = rasterize(splats)
        found = torch.cat([images, alphas[..., None]], dim=-1)[:, 0]
        loss = (found - target[shown]).abs().mean()
        adam.zero_grad()
        loss.backward()
        for group, rate in zip(adam.param_groups, rates.values(), strict=True):
            group["lr"] = rate * 0.1 ** (i / options.iterations)
        adam.step()
        with torch.no_grad():
            log_scales.clamp_(max=widest)
            logits.clamp_(-7, 7)
            colors.clamp_(0, 1)
        step((i + 1) / options.iterations)
    return Gaussians(
        means=_array(means) * radius + center,
        quat_wxyz=_array(torch.nn.functional.normalize(quats, dim=-1)),
        scales=_array(log_scales.exp()) * radius,
        opacities=_array(logits.sigmoid()),
        colors=_array(colors),
        object_id=start.object_id,
    )


def _painted_mesh(obj: SceneObject, options: GaussianOptions) -> trimesh.Trimesh:
    """The object's mesh in the world, in the color of the options if it has none of its own."""
    mesh = world_mesh(obj)
    anywhere = np.zeros(1, int), np.full((1, 3), 1 / 3)
    if options.color is not None and surface_colors(mesh, *anywhere) is None:
        mesh.visual = trimesh.visual.ColorVisuals(mesh, face_colors=[*options.color, 1.0])
    return mesh


def _ball(points: FloatArray) -> tuple[FloatArray, float]:
    """Center and radius of the ball around the points' bounding box."""
    low, high = points.min(0), points.max(0)
    return (low + high) / 2, float(np.linalg.norm(high - low) / 2)


def _cameras_around(
    center: FloatArray, radius: float, view: _View, options: GaussianOptions
) -> tuple[FloatArray, FloatArray, int]:
    """Viewmats (V, 4, 4) all around a ball, their K (3, 3), and the side of the square images.

    The ball just fills an image.
    """
    # An object larger than the scene, such as a long table, is seen from farther away, so that no
    # image has more pixels than the scene's.
    distance = max(view.distance, radius * (1 + 2 * view.focal / options.pixels))
    side = 2 * ceil(view.focal * radius / (distance - radius)) + 4

    # Directions evenly over the sphere, on a golden spiral.
    height = 1 - (2 * np.arange(options.views) + 1) / options.views
    azimuth = np.pi * (3 - np.sqrt(5)) * np.arange(options.views)
    flat = np.sqrt(1 - height**2)
    directions = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), height], -1)
    eyes = center + distance * directions
    viewmats = np.stack([inverse(look_at(eye, center)) for eye in eyes])
    K = np.array([[view.focal, 0, side / 2], [0, view.focal, side / 2], [0, 0, 1.0]])
    return viewmats, K, side


def _image(views: MeshViews, center: FloatArray, radius: float) -> Tensor:
    """(V, H, W, 7): color, position in radii from the center, coverage."""
    position = (views.points - views.alpha[..., None] * center) / radius
    return _tensor(np.concatenate([views.rgb, position, views.alpha[..., None]], axis=-1))


def _tensor(values: FloatArray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def _array(values: Tensor) -> FloatArray:
    return values.detach().numpy().astype(float)
