"""Options of CHORD: of the generator, of a distillation, and of its parts.

Nothing heavy is imported here, so that the options can be listed quickly. Lengths of a distillation
are in radii of the framed scene (`generators.chord.distill.stage`), so they do not depend on the
size of the scene. A pair is a value at the first and at the last iteration.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval

Density = Literal["uniform", "bell", "shift", "shift_bell"]
"""Density of noise levels (`generators.chord.distill.schedule`)."""

Count = Annotated[int, Interval(1, 1_000_000)]
Weight = Annotated[float, Interval(0, 1e9)]
Rate = Annotated[float, Interval(1e-12, 1e20)]
Share = Annotated[float, Interval(0, 1)]


@dataclass(frozen=True)
class CameraOptions:
    """Placement of the cameras."""

    field_of_view: Annotated[float, Interval(1, 179)] = 40.0
    """Degrees, across the smaller side of an image."""
    margin: Annotated[float, Interval(0.01, 100)] = 1.5
    """Radius of the ball that fills the view, in radii of the scene. It leaves room for motion."""
    elevation: tuple[
        Annotated[float, Interval(-89.9, 89.9)], Annotated[float, Interval(-89.9, 89.9)]
    ] = (20.0, 50.0)
    """Lowest and highest angle above the horizon, degrees."""
    reach: Annotated[float, Interval(0, 100)] = 0.5
    """Distance beyond the objects' bounding box within which obstacles are framed too, meters."""

    def __post_init__(self) -> None:
        bounds.check(self)
        low, high = self.elevation
        if low > high:
            raise ValueError(
                f"CameraOptions.elevation: expected low <= high, got {self.elevation}; swap them"
            )


@dataclass(frozen=True)
class ViewOptions:
    """Rendering of meshes as pictures."""

    samples: Annotated[int, Interval(1, 64)] = 2
    """Rays along each side of a pixel."""
    contrast: Share = 0.5
    """Brightness lost between facing the light and facing away; 0 for none."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class GaussianOptions:
    """Number and appearance of the Gaussians."""

    count: Annotated[int, Interval(1, 10_000_000)] = 1500
    """Gaussians of all objects together, distributed by area."""
    obstacle_count: Annotated[int, Interval(1, 10_000_000)] = 300
    """Gaussians of all obstacles together, distributed by area."""
    color: Annotated[tuple[float, float, float], Interval(0, 1)] | None = None
    """RGB in [0, 1] of meshes without colors. Defaults to gray."""
    require_color: bool = False
    """Refuse a mesh without colors if `color` is omitted, instead of painting it gray."""
    iterations: Annotated[int, Interval(0, 1_000_000)] = 200
    """Steps of the fit to pictures; 0 keeps the disks as they were sampled."""
    views: Annotated[int, Interval(1, 10_000)] = 32
    """Pictures of each object, from all around."""
    batch: Annotated[int, Interval(1, 10_000)] = 4
    """Pictures in a step."""
    pixels: Annotated[int, Interval(8, 8192)] = 64
    """Pixels across an image of the whole scene, as it will be rendered."""
    shading: ViewOptions = field(default_factory=ViewOptions)
    """Rendering of the meshes, see ViewOptions."""

    def __post_init__(self) -> None:
        bounds.check(self)


LEAST_SURFACE = 100
"""Minimum number of points of a surface cloud."""


@dataclass(frozen=True)
class ControlOptions:
    """Number of points that control an object's motion."""

    coarse: Count = 32
    """Control points of the coarse level, which carries the object as a whole."""
    fine: Count = 128
    """Control points of the fine level, which adds details."""
    surface_points: Annotated[int, Interval(LEAST_SURFACE, 1_000_000)] = 7500
    """Approximate number of voxel centers near the surface: the cloud that ARAP regularizes."""
    pieces: Annotated[int, Interval(1, 1000)] = 12
    """Maximum number of connected pieces of a mesh that get control points of their own, each its
    share of the above; 1 ignores pieces, as in the paper
    (`generators.chord.motion.connected_pieces`)."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class DeformationOptions:
    """Representation of motion."""

    neighbors: Annotated[int, Interval(1, 1000)] = 4
    """Control points that a point follows (K)."""
    temporal: Literal["fenwick", "independent"] = "fenwick"
    """Frames as sums over the nodes of a Fenwick tree, or each with its own parameters."""
    levels: Literal["both", "coarse", "fine"] = "both"
    """Control points: coarse ones with fine residuals, or one of the two alone."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class StageOptions:
    """Preparation of a scene for rendering."""

    cameras: CameraOptions = field(default_factory=CameraOptions)
    """See CameraOptions; a prior trained on renderings expects the cameras of its training."""
    gaussians: GaussianOptions = field(default_factory=GaussianOptions)
    """See GaussianOptions."""
    background: Share = 1.0
    """Brightness behind colored Gaussians."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class ChordOptions:
    """A distillation. The defaults are the paper's (appendix A.1) where it states them."""

    iterations: Count = 2000
    """Steps of the optimizer."""
    views: Annotated[int, Interval(1, 1000)] = 4
    """Cameras of an iteration: the paper's batch."""
    density: Density = "shift_bell"
    """Density of the noise levels that the iterations pass through; the paper does not print it."""
    shift: Annotated[float, Interval(1e-3, 1e6)] = 5.0
    """Shift toward more noise: of the density, if it has one, and of the levels between denoising
    steps."""
    guidance: tuple[Weight, Weight] | None = None
    """Scale of classifier-free guidance. Defaults to the prior's own (the paper's, for Wan 2.2, is
    25 to 12)."""
    denoising_steps: Annotated[int, Interval(1, 1000)] = 1
    """Steps in which the prior removes the noise. More than the paper's 1 commit to one of several
    possible outcomes, of which a single step at high noise predicts the mean."""
    motion_rate: tuple[Rate, Rate] = (6e-3, 6e-5)
    """Learning rate of the control points' rotations and translations, log-linear."""
    scale_rate: tuple[Rate, Rate] = (6e-3, 6e-5)
    """Learning rate of the control points' log-scales, log-linear."""
    rotation_rate: tuple[Rate, Rate] = (3e-3, 3e-5)
    """Learning rate of the rotations of the control points' covariances, log-linear."""
    betas: tuple[
        Annotated[float, Interval(0, 0.999999)], Annotated[float, Interval(0, 0.999999)]
    ] = (
        0.9,
        0.999,
    )
    """Adam's decay rates."""
    temporal_weight: tuple[Weight, Weight] = (9.6, 1.6)
    """Weight of the rendered flow (eq. 12), linear; 0 leaves it out."""
    rigid_weight: tuple[Weight, Weight] = (3000.0, 300.0)
    """Weight of ARAP (eq. 13), linear; 0 leaves it out."""
    rigid_frames: Annotated[int, Interval(1, 1_000_000)] | None = None
    """Frames that ARAP evaluates, drawn anew every iteration. Defaults to all."""
    split_iteration: Share = 0.05
    """Share of the iterations after which late frames restart; 0 for never."""
    split_frame: Share = 0.75
    """Share of the frames after which a frame is late: it restarts from the last early one."""
    fine_below: Share = 0.7
    """Noise level below which fine control points join; the paper says "once tau becomes
    smaller"."""
    duration: Annotated[float, Interval(1e-3, 3600)] = 2.0
    """Duration of the motion, seconds."""
    segments: Annotated[int, Interval(1, 1000)] = 1
    """Motions in a chain, each from the last frame of the one before."""
    samples: Annotated[int, Interval(1, 1000)] = 1
    """Motions distilled, each with its own seed; the one with the smallest residual comes first."""
    stage: StageOptions = field(default_factory=StageOptions)
    """See StageOptions."""
    control: ControlOptions = field(default_factory=ControlOptions)
    """See ControlOptions."""
    deformation: DeformationOptions = field(default_factory=DeformationOptions)
    """See DeformationOptions."""
    checkpoint_every: Count = 50
    """Iterations between checkpoints, if there is a folder."""
    preview_every: Count = 100
    """Iterations between previews, if there is a folder."""

    def __post_init__(self) -> None:
        bounds.check(self)


PAPER = ChordOptions(stage=StageOptions(gaussians=GaussianOptions(count=15_000, pixels=256)))
"""The paper's, for Wan 2.2 on a large GPU."""

CAMERAS = CameraOptions(margin=1.1)
"""Cameras of the choreographer, in training and afterwards: closer than for a video in which things
move about, because a pixel shows the matter that was there at the first frame."""

SMALL = ChordOptions(
    iterations=150,
    views=2,
    density="shift",
    shift=50.0,
    motion_rate=(3e-2, 3e-3),
    temporal_weight=(0.1, 0.02),
    rigid_weight=(300.0, 30.0),
    rigid_frames=3,
    stage=StageOptions(cameras=CAMERAS, gaussians=GaussianOptions(count=2500, iterations=0)),
    control=ControlOptions(coarse=32, fine=128, surface_points=1500),
)
"""For the choreographer on two CPU cores. Most iterations are at high noise: at low noise the prior
sees that nothing has moved yet and predicts that nothing will. Tuned on training scenes."""


@dataclass(frozen=True)
class Options:
    """CHORD as a generator. Options that default to None come from `distillation`."""

    prior: str = "choreographer"
    """Video model: choreographer, choreographer:WEIGHTS (name or path), or wan:FOLDER-OR-NAME."""
    device: str = "auto"
    """Device of prior and renderer: auto (a GPU if there is one), cpu, cuda or cuda:N."""
    iterations: Count | None = None
    """Steps of the optimizer."""
    duration: Annotated[float, Interval(1e-3, 3600)] | None = None
    """Duration of a motion, seconds."""
    segments: Annotated[int, Interval(1, 1000)] | None = None
    """Motions in a chain, each from the last frame of the one before."""
    samples: Annotated[int, Interval(1, 1000)] | None = None
    """Motions distilled, best first."""
    folder: Path | None = None
    """Folder of checkpoints and previews. Defaults to keeping none."""
    resume: bool = False
    """Continue from the folder's checkpoints."""
    distillation: ChordOptions | None = None
    """Defaults to SMALL for the choreographer and PAPER for Wan."""

    def __post_init__(self) -> None:
        bounds.check(self)

    def resolved(self) -> ChordOptions:
        """The options of the distillation, with this record's overrides."""
        chosen = self.distillation or default_options(self.prior)
        overrides: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("iterations", "duration", "segments", "samples")
            if getattr(self, name) is not None
        }
        return replace(chosen, **overrides)


def default_options(prior: str) -> ChordOptions:
    """Options of a distillation that suit a prior."""
    return PAPER if prior.split(":")[0] == "wan" else SMALL
