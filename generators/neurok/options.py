"""NeuROK's options, apart from the code so that reading them imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from generators.common.drive_options import DriveOptions

Measure = Literal["norm", "jacobian"]


@dataclass(frozen=True)
class ReduceOptions:
    """Active subspace of the latent space (`generators.neurok.latent_space.active_subspace`)."""

    dimension: Annotated[int, Interval(1, 10_000)] | None = 25
    """Latent directions kept (k_q); None keeps the whole latent space."""
    samples: Annotated[int, Interval(1, 10_000)] = 64
    """Latents drawn from the prior. At least `dimension` are drawn, since there are no more
    directions than gradients."""
    points: Annotated[int, Interval(1, 100_000)] = 128
    """Surface points whose deformation is differentiated."""
    measure: Measure = "norm"
    """Function that is differentiated: the norm of the deformation (the paper), or white-noise
    projections of the deformation ("jacobian")."""

    def __post_init__(self) -> None:
        bounds.check(self)


SEARCHED = ReduceOptions(dimension=64, samples=128, points=64, measure="jacobian")
"""For a search among states. On scans of the tasks (seeds 900 to 902) a drag through these 64
directions left two thirds of the error that the paper's 25 left."""
SIMULATED = replace(SEARCHED, dimension=25, points=128)
"""For a simulation, which differentiates along every direction in every step: the paper's number of
directions."""


@dataclass(frozen=True)
class SpaceOptions:
    """Encoding of a mesh as a space of states."""

    points: Annotated[int, Interval(1, 100_000)] = 512
    """Surface points that the encoders see."""
    refinements: Annotated[int, Interval(0, 1000)] = 5
    """Largest number of L-BFGS steps that bring the decoded rest state to the identity."""
    reduce: ReduceOptions = field(default_factory=ReduceOptions)
    """See ReduceOptions."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class EncoderDragOptions:
    """Search for the part that moves with the handles; lengths are in the normalized frame."""

    reaches: tuple[Annotated[float, Interval(0, 10)], ...] = (0.1, 0.2, 0.4, 0.8)
    """Initial beliefs: points within these distances of a handle move along."""
    rounds: Annotated[int, Interval(0, 100)] = 6
    """Largest number of belief updates."""
    parsimony: Annotated[float, Interval(0, 100)] = 0.2
    """Cost of the share of points that moves along, beside the mean distances in error."""
    tolerance: Annotated[float, Interval(0, 10)] = 0.3
    """Largest accepted error of the handles at the end, as a share of their travel."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class DragOptions:
    """Terms that decide what the handles' paths leave open; lengths are in the normalized frame."""

    key_times: Annotated[int, Interval(2, 1000)] = 8
    """Frames solved one after the other before all frames are solved together."""
    steps: Annotated[int, Interval(1, 1000)] = 8
    """Largest number of Gauss-Newton steps at each key time."""
    joint_steps: Annotated[int, Interval(0, 1000)] = 2
    """Gauss-Newton steps of all frames together."""
    handles: Annotated[int, Interval(1, 10_000)] = 24
    """Largest number of handles used, evenly picked from the list."""
    stay: Annotated[float, Interval(0, 100)] = 0.05
    """Weight of the body points' squared displacements beside the handles' squared errors."""
    let_go: Annotated[float, Interval(1e-6, 10)] = 0.05
    """Displacement beyond which a body point is hardly held back any more (Geman-McClure)."""
    prior: Annotated[float, Interval(0, 1)] = 1e-7
    """Weight of the squared distance from the rest state."""
    smooth: Annotated[float, Interval(0, 1)] = 1e-7
    """Weight of the squared rate of change of the state per unit of the whole time."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class SelfCollision:
    """Least distance between the object's own particles that are apart in the rest shape."""

    reach: Annotated[float, Interval(1e-9, 1e6)]
    """Distance at which two particles begin to repel each other: d_hat."""
    apart: Annotated[float, Interval(1e-9, 1e6)]
    """Pairs closer than this in the rest shape never repel: d_fit, at least `reach`."""
    stiffness: Annotated[float, Interval(1e-9, 1e12)] | None = None
    """1/s^2; None for the stiffest that the time step allows, with a few pairs at a time."""

    def __post_init__(self) -> None:
        bounds.check(self)
        if self.apart < self.reach:
            raise ValueError(
                f"SelfCollision.apart: expected at least reach = {self.reach:g}, got "
                f"{self.apart:g}; pairs in between would repel in the rest shape"
            )


@dataclass(frozen=True)
class DynamicsOptions:
    """The object, the world around it, and the time integration of its motion."""

    step: Annotated[float, Interval(1e-7, 1)] = 5e-4
    """Longest time step, seconds; a whole number of equal steps separates saved times."""
    scheme: Literal["symplectic_euler", "leapfrog"] = "symplectic_euler"
    """"symplectic_euler" (the paper), or "leapfrog", which allows ten times the step and decoders
    that are only nearly smooth."""
    mass: Annotated[float, Interval(1e-6, 1e6)] = 1.0
    """Mass of the whole object, kilograms."""
    gravity: tuple[float, float, float] = (0.0, 0.0, -9.81)
    """Acceleration of a falling body."""
    uniform_force: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Constant force on the whole object, newtons, distributed by mass: the potential of eq. 41."""
    spring: Annotated[float, Interval(0, 1e12)] = 0.0
    """Stiffness of the edge springs of eq. 13, 1/s^2 per kilogram: k_e / m."""
    neighbors: Annotated[int, Interval(1, 1000)] = 8
    """Springs from each particle to its nearest ones in the rest shape."""
    self_collision: SelfCollision | None = None
    """Repulsion between the object's own particles; None for none."""
    restitution: Annotated[float, Interval(1e-6, 1)] = 1.0
    """Factor on the velocity for every 5e-4 s of contact (the paper's rule at the paper's step,
    whatever the step here); 1 is elastic."""
    damping: Annotated[float, Interval(0, 1e6)] = 0.0
    """Rate of decay of velocities, exp(-damping t), 1/s."""
    cutoff: Annotated[float, Interval(0, 0.99)] = 1e-8
    """Eigenvalues of M below this share of the largest count as zero. Below 1e-10 the noise of a
    float32 decoder is taken for a direction."""
    latent_inertia: Annotated[float, Interval(0, 1e6)] = 0.0
    """Mass of each coordinate as a share of the mean eigenvalue of M at the start. 0 is theorem 1
    as it stands; more stabilizes a network whose M has no gap between the directions that matter
    and those that do not."""
    energy_excess: Annotated[float, Interval(1e-6, 1e6)] = 1.0
    """Unaccounted energy at which the simulation counts as diverged, as a multiple of the largest
    kinetic energy so far."""
    trace: bool = False
    """Trace the derivatives once and replay them: several times faster for small decoders. The
    decoder must do the same operations at every z."""

    def __post_init__(self) -> None:
        bounds.check(self)
        for name in ("gravity", "uniform_force"):
            checks.array(f"DynamicsOptions.{name}", getattr(self, name), (3,))


@dataclass(frozen=True)
class NeurokOptions:
    """From an action to motions."""

    weights: str = "neurok-small"
    """Name of weights that ship with the generators, or path of a safetensors file."""
    device: str = "auto"
    """Device of the network: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N"."""
    samples: Annotated[int, Interval(1, 100)] = 2
    """Motions returned, best first."""
    frames: Annotated[int, Interval(2, 10_000)] = 41
    """Frames of the animation, evenly spaced over the action's duration."""
    driving_points: Annotated[int, Interval(16, 100_000)] = 1024
    """Surface points whose motion the mesh follows."""
    body_points: Annotated[int, Interval(1, 10_000)] = 64
    """Surface points that a drag holds in place, or that carry the mass of a simulation."""
    space: SpaceOptions = field(default_factory=lambda: SpaceOptions(reduce=SEARCHED))
    """See SpaceOptions; its directions are those of a drag."""
    encoder_drag: EncoderDragOptions = field(default_factory=EncoderDragOptions)
    """See EncoderDragOptions."""
    drag: DragOptions = field(default_factory=DragOptions)
    """See DragOptions."""
    simulated: ReduceOptions = SIMULATED
    """Directions of a simulation, see ReduceOptions."""
    dynamics: DynamicsOptions = field(
        default_factory=lambda: DynamicsOptions(
            step=9e-3, scheme="leapfrog", restitution=0.9, latent_inertia=1e-3
        )
    )
    """See DynamicsOptions; gravity acts, and the scene's support is solid."""
    drive: DriveOptions = field(default_factory=DriveOptions)
    """See DriveOptions."""

    def __post_init__(self) -> None:
        bounds.check(self)
