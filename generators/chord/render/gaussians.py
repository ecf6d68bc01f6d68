"""A scene's meshes as 3D Gaussians: flat disks spread evenly over the surfaces, then fitted to pictures of them.

Each object is fitted alone, so that what others hide now is right when it moves. Pictures show color, coverage and the
place of every pixel; the last makes a Gaussian lie where it looks to be, which colors alone would not. They are taken
from as far away, and with as many pixels, as the scene will be seen with later: a Gaussian that is smaller than a pixel
still covers a whole one (eps2d), and this is where the fit makes up for it.
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

LEAST = 50
"""Gaussians that even the smallest object gets."""
CANDIDATES = 8
"""Points drawn for each that is kept, to spread those kept evenly."""
DISC, THICKNESS, OPACITY = 0.6, 0.1, 0.95
"""Standard deviations of a disk along the surface and across it, in distances between neighbors; opacity."""
WIDEST = 1.5
"""How much wider a disk may become: what straddles two parts would smear when they part."""


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
        for name, shape in (
            ("means", (3,)),
            ("quat_wxyz", (4,)),
            ("scales", (3,)),
            ("opacities", ()),
            ("colors", (3,)),
        ):
            value = checks.array(f"Gaussians.{name}", getattr(self, name), (count, *shape))
            object.__setattr__(self, name, value)
        ids = checks.array("Gaussians.object_id", self.object_id, (count,), dtype=np.int64)
        object.__setattr__(self, "object_id", ids)
        if not (np.all(self.scales > 0) and np.all((self.opacities > 0) & (self.opacities < 1))):
            raise ValueError(
                "Gaussians.scales, opacities: expected positive scales and opacities in (0, 1)"
            )


class _Afar(NamedTuple):
    """How the scene will be seen."""

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
        framed: what the cameras look at that will see them; what `framing` says of the scene if not given.
        cameras: how far away those stand.

    Raises:
        ValueError: for a scene without objects, and a mesh without colors when colors are required and none is given.
    """
    everything = scene.objects + scene.obstacles
    counts = _shares(scene.objects, options.count) + _shares(
        scene.obstacles, options.obstacle_count
    )
    cameras = cameras or CameraOptions()
    framed = framed or framing(scene, cameras)
    half = radians(cameras.field_of_view) / 2
    afar = _Afar(cameras.margin * framed.radius / sin(half), options.pixels / 2 / tan(half))
    parts = []
    for i, (obj, count) in enumerate(zip(everything, counts, strict=True)):

        def step(done: float, i: int = i, name: str = obj.name) -> None:
            progress((i + done) / len(everything), f"Gaussians of {name}")

        step(0.0)
        part = _start(obj, i, count, options, seed)
        parts.append(_fit(part, obj, afar, options, seed, step) if options.iterations else part)
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
    """How many each gets, by area."""
    areas = np.array([o.mesh.area for o in objects])
    return [max(LEAST, round(count * area / areas.sum())) for area in areas]


def _start(
    obj: SceneObject, index: int, count: int, options: GaussianOptions, seed: int
) -> Gaussians:
    """Discs spread evenly over a surface, wide enough to leave no gaps."""
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
        scales=np.tile(spacing * np.array([DISC, DISC, THICKNESS]), (count, 1)),
        opacities=np.full(count, OPACITY),
        colors=colors * brightness(normals, options.shading)[:, None],
        object_id=np.full(count, index),
    )


def _facing(normals: FloatArray) -> FloatArray:
    """Quaternions (N, 4) that turn z to the normals (N, 3), the shorter way (about x where they point down)."""
    down = normals[:, 2] < -1 + 1e-9
    quat = np.stack([1 + normals[:, 2], -normals[:, 1], normals[:, 0], 0 * normals[:, 0]], axis=-1)
    quat[down] = [0.0, 1.0, 0.0, 0.0]
    return quat / np.linalg.norm(quat, axis=-1, keepdims=True)


def _fit(
    start: Gaussians,
    obj: SceneObject,
    afar: _Afar,
    options: GaussianOptions,
    seed: int,
    step: Callable[[float], None],
) -> Gaussians:
    """Gaussians whose pictures are nearer to the mesh's, by Adam on what 3D Gaussian splatting optimizes."""
    center, radius = _ball(start.means)
    viewmats, K, side = _cameras_around(center, radius, afar, options)
    mesh = world_mesh(obj)
    if (
        options.color is not None
        and surface_colors(mesh, np.zeros(1, int), np.full((1, 3), 1 / 3)) is None
    ):
        mesh.visual = trimesh.visual.ColorVisuals(mesh, face_colors=[*options.color, 1.0])
    target = _picture(
        mesh_views(
            [mesh], viewmats, np.tile(K, (len(viewmats), 1, 1)), side, side, options.shading
        ),
        center,
        radius,
    )
    cameras, intrinsics = _tensor(viewmats), _tensor(K).expand(options.batch, 3, 3)

    means, quats = (
        _tensor((start.means - center) / radius).requires_grad_(),
        _tensor(start.quat_wxyz).requires_grad_(),
    )
    spread = _tensor(np.log(start.scales / radius)).requires_grad_()
    logits, colors = (
        torch.logit(_tensor(start.opacities)).requires_grad_(),
        _tensor(start.colors).requires_grad_(),
    )
    widest = spread.detach().amax() + np.log(WIDEST)
    rates = {
        means: 0.05 * float(spread.detach().amax().exp()),
        quats: 0.01,
        spread: 0.02,
        logits: 0.05,
        colors: 0.02,
    }
    adam = torch.optim.Adam([{"params": [p], "lr": rate} for p, rate in rates.items()], eps=1e-15)
    generator = torch.Generator().manual_seed(seed)
    for i in range(options.iterations):
        shown = torch.randperm(len(cameras), generator=generator)[: options.batch]
        images, alphas = rasterize(
            means[None] * radius + _tensor(center), quats[None], spread.exp() * radius, logits.sigmoid(),
            torch.cat([colors, means], dim=-1), cameras[shown], intrinsics[: len(shown)], side, side,
        )  # fmt: skip
        loss = (torch.cat([images, alphas[..., None]], dim=-1)[:, 0] - target[shown]).abs().mean()
        adam.zero_grad()
        loss.backward()
        for group, rate in zip(adam.param_groups, rates.values(), strict=True):
            group["lr"] = rate * 0.1 ** (i / options.iterations)
        adam.step()
        with torch.no_grad():
            spread.clamp_(max=widest)
            logits.clamp_(-7, 7)
            colors.clamp_(0, 1)
        step((i + 1) / options.iterations)
    return Gaussians(
        means=_array(means) * radius + center,
        quat_wxyz=_array(torch.nn.functional.normalize(quats, dim=-1)),
        scales=_array(spread.exp()) * radius,
        opacities=_array(logits.sigmoid()),
        colors=_array(colors),
        object_id=start.object_id,
    )


def _ball(points: FloatArray) -> tuple[FloatArray, float]:
    """Center and radius of the ball around the points' bounding box."""
    low, high = points.min(0), points.max(0)
    return (low + high) / 2, float(np.linalg.norm(high - low) / 2)


def _cameras_around(
    center: FloatArray, radius: float, afar: _Afar, options: GaussianOptions
) -> tuple[FloatArray, FloatArray, int]:
    """Viewmats (V, 4, 4) all around a ball, and K (3, 3), side of their square images, which the ball just fills."""
    # What is larger than the scene, a long table, is seen from so far that no image has more pixels than the scene's.
    distance = max(afar.distance, radius * (1 + 2 * afar.focal / options.pixels))
    side = 2 * ceil(afar.focal * radius / (distance - radius)) + 4
    height = 1 - (2 * np.arange(options.views) + 1) / options.views
    azimuth = np.pi * (3 - np.sqrt(5)) * np.arange(options.views)
    flat = np.sqrt(1 - height**2)
    eyes = center + distance * np.stack(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), height], -1
    )
    viewmats = np.stack([inverse(look_at(eye, center)) for eye in eyes])
    return (
        viewmats,
        np.array([[afar.focal, 0, side / 2], [0, afar.focal, side / 2], [0, 0, 1.0]]),
        side,
    )


def _picture(views: MeshViews, center: FloatArray, radius: float) -> Tensor:
    """(V, H, W, 7): color, place in radii from the center, coverage."""
    place = (views.points - views.alpha[..., None] * center) / radius
    return _tensor(np.concatenate([views.rgb, place, views.alpha[..., None]], axis=-1))


def _tensor(values: FloatArray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def _array(values: Tensor) -> FloatArray:
    return values.detach().numpy().astype(float)
