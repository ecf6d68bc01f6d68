"""What a distillation can be told, and two sets of it: the paper's, and one for a laptop.

Lengths are in radii of the framed scene (`generators.chord.distill.stage`), so nothing here knows how large a scene is. A pair
is a value at the first and at the last iteration.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from generators.chord.distill.schedule import Density
from generators.chord.distill.stage import StageOptions
from generators.chord.motion.control_points import ControlOptions
from generators.chord.motion.deformation import DeformationOptions
from generators.chord.priors.choreographer.config import CAMERAS
from generators.chord.render.gaussians import GaussianOptions

Ends = tuple[float, float]


@dataclass(frozen=True)
class ChordOptions:
    """How motion is distilled. The defaults are the paper's (appendix A.1) where it gives them."""

    iterations: int = 2000
    """Steps of the optimiser."""
    views: int = 4
    """Cameras of an iteration: the paper's batch."""
    density: Density = "shift_bell"
    """Of the noise levels that the iterations pass through; the paper does not print its own."""
    shift: float = 5.0
    """Towards more noise: of the density, where it has one, and of the levels between denoising steps."""
    guidance: Ends | None = None
    """Scale of classifier-free guidance; the prior's own where not given (the paper's, for Wan 2.2, is 25 to 12)."""
    denoising_steps: int = 1
    """Steps in which the prior takes the noise away; more than the paper's 1 settle on one of the things that might be,
    where one look at much noise is their mean."""
    motion_rate: Ends = (6e-3, 6e-5)
    """Learning rate of the control points' rotations and translations, falling log-linearly."""
    scale_rate: Ends = (6e-3, 6e-5)
    """Of the control points' log-scales."""
    rotation_rate: Ends = (3e-3, 3e-5)
    """Of the rotations of the control points' covariances."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's."""
    temporal_weight: Ends = (9.6, 1.6)
    """Of the rendered flow (eq. 12), falling linearly; 0 leaves it out."""
    rigid_weight: Ends = (3000.0, 300.0)
    """Of ARAP (eq. 13), falling linearly; 0 leaves it out."""
    rigid_frames: int | None = None
    """Frames, drawn anew every iteration, that ARAP looks at; all where not given."""
    split_iteration: float = 0.05
    """Share of the iterations after which late frames begin again; 0 for never."""
    split_frame: float = 0.75
    """Share of the frames after which a frame is late: it begins again from the last that is not."""
    fine_below: float = 0.7
    """Noise level below which fine control points join; the paper says "once tau becomes smaller"."""
    duration: float = 2.0
    """Seconds that the motion takes."""
    segments: int = 1
    """Motions in a chain, each from the last frame of the one before."""
    samples: int = 1
    """Motions tried, with a seed each; the one that the prior finds the least to change in comes first."""
    stage: StageOptions = field(default_factory=StageOptions)
    """See StageOptions."""
    control: ControlOptions = field(default_factory=ControlOptions)
    """See ControlOptions."""
    deformation: DeformationOptions = field(default_factory=DeformationOptions)
    """See DeformationOptions."""
    checkpoint_every: int = 50
    """Iterations between checkpoints, where there is a folder."""
    preview_every: int = 100
    """Iterations between previews, where there is a folder."""


PAPER = ChordOptions(
    stage=StageOptions(gaussians=GaussianOptions(count=15_000, pixels=256), device="cuda")
)
"""The paper's, for Wan 2.2 on a large GPU."""

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
"""For the choreographer on two processor cores. Most of the iterations look at much noise: with less it sees in the videos
that nothing moves so far, and takes that for what is going to happen. Chosen on scenes of the training split."""
