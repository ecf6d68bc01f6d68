"""A box with a lid, its space of states, and its particles in a latent simulation.

Particles are drawn evenly over the surface, and each has the mass of the surface that is nearest to
it. Evenly drawn ones would meet too early or slip past each other where the lid comes down, so
there they are chosen: on the walls just as far below the closed lid as particles begin to repel
each other, with the point of the lid above each, and none of the base nearer to it. Particles at
the bottom of the base are held in place by springs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor
from torch.func import jvp

from flowplan.geometry import inverse, transform
from flowplan.scan.meshes.surface import raycasting_scene
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from generators.common.sampling import farthest_points, surface_points
from generators.data.objects.articulated import ArticulatedObject
from generators.neurok.dynamics import potentials
from generators.neurok.dynamics.forces import Force, ForceField
from generators.neurok.dynamics.initial_state import initial_coordinates
from generators.neurok.dynamics.simulation import Environment, LatentTrajectory, simulate
from generators.neurok.generate import Encode
from generators.neurok.latent_space.derivatives import decoded, forward_attention
from generators.neurok.latent_space.particles import Particles
from generators.neurok.latent_space.space import Frame
from generators.neurok.options import SIMULATED, DynamicsOptions, SelfCollision, SpaceOptions

_DENSE = 20_000  # points from which particles are chosen, and whose shares are their masses
_FINER = 3  # times per frame at which contacts are recorded
_BOTTOM = 0.02  # height of the held bottom of the base, half object lengths
_LEAST_POINTS = 0.1  # least mass of a particle, in points of the dense set
_RIM_BAND = 1.1  # largest distance of a rim's point from the closed lid, over the reach

Length = Annotated[float, Interval(1e-6, 10)]


@dataclass(frozen=True)
class BoxOptions:
    """Latent simulation of the box, and its comparison. Lengths are in half object lengths."""

    particles: Annotated[int, Interval(1, 10**5)] = 128
    """Particles of the simulation, those on the rim included."""
    rim: Annotated[int, Interval(1, 10**4)] = 24
    """Pairs of particles that meet when the lid closes."""
    reach: Length = 0.08
    """Distance at which particles begin to repel each other. Contacts are soft: over this distance
    they stop the lid."""
    apart: Length = 0.2
    """Pairs closer than this at the start never repel."""
    contact_stiffness: Annotated[float, Interval(1e-6, 1e6)] = 1.0
    """Stiffness of a contact, in 1 / step^2 per kilogram."""
    hold: Annotated[float, Interval(0, 1e9)] = 1e4
    """Stiffness of the springs that hold the bottom, 1/s^2 per kilogram."""
    push_seconds: Annotated[float, Interval(1e-6, 1e3)] = 0.1
    """Duration of a push."""
    dynamics: DynamicsOptions = field(
        default_factory=lambda: DynamicsOptions(
            step=1 / 120, scheme="leapfrog", restitution=0.92, latent_inertia=1e-3
        )
    )
    """See DynamicsOptions; its mass is the box's, its self-collision is set here. Contacts last a
    few steps, so that this restitution returns about 0.3 of a velocity."""
    space: SpaceOptions = field(default_factory=lambda: SpaceOptions(reduce=SIMULATED))
    """See SpaceOptions."""
    chamfer_points: Annotated[int, Interval(1, 10**7)] = 5000
    """Points drawn on each mesh of a frame."""

    def __post_init__(self) -> None:
        bounds.check(self)
        if self.particles <= 2 * self.rim:
            raise ValueError(
                f"BoxOptions.particles: expected more than the {2 * self.rim} on the rim, got "
                f"{self.particles}"
            )


@dataclass(frozen=True, eq=False)
class BoxTruth:
    """Motion of the box from a simulator that knows the hinge.

    Attributes:
        times: (T,) seconds from 0, those of the frames that are compared.
        link_poses: X_object_link (T, 4, 4) of every link; the object at rest at times[0].
        impact: time of the lid's first impact on the rim, seconds; None if there is none.
    """

    times: FloatArray
    link_poses: Mapping[str, FloatArray]
    impact: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", checks.times("BoxTruth.times", self.times))
        shape = (len(self.times), 4, 4)
        poses = {
            name: checks.poses(f"BoxTruth.link_poses[{name}]", X, shape)
            for name, X in self.link_poses.items()
        }
        object.__setattr__(self, "link_poses", poses)


def box_parts(box: ArticulatedObject) -> tuple[str, str]:
    """Names of the base and of the lid."""
    if len(box.links) != 2 or [j.kind for j in box.free] != ["revolute"]:
        kinds = ", ".join(f"{j.name} ({j.kind})" for j in box.free) or "none"
        raise ValueError(
            f"box: expected two links and a hinge, got {', '.join(box.links)} with joints {kinds}"
        )
    return box.free[0].parent, box.free[0].child


@dataclass(frozen=True, eq=False)
class Frames:
    """A latent motion at the frames that are compared.

    Attributes:
        z, zdot: (T, k).
        contact: time of the first contact, seconds; None if there is none, or from the start on.
        diverged: True if it broke off; the last state is then repeated.
    """

    z: FloatArray
    zdot: FloatArray
    contact: float | None
    diverged: bool


class BoxScene:
    """A box in its first pose, the space of its states, and its particles."""

    def __init__(
        self,
        encode: Encode,
        box: ArticulatedObject,
        truth: BoxTruth,
        options: BoxOptions,
        seed: int,
    ) -> None:
        self.box, self.options, self.seed = box, options, seed
        self.base, self.lid = box_parts(box)
        missing = sorted(set(box.links) - set(truth.link_poses))
        if missing:
            raise ValueError(
                f"BoxTruth.link_poses: expected every link of the box, {', '.join(missing)} missing"
            )
        # The mesh in the first pose, and its space.
        self.faces = box.posed(box.lower).faces
        start = self.vertices(truth)[0]
        self.frame = Frame.around(start)
        self.space = encode(self.mesh(self.frame.normalized(start)), seed)
        # The particles: link (n,), place in its frame (n, 3), share of the mass (n,).
        self.link_of, self.local, self.share = self._particles(truth)
        self.first = self.frame.normalized(self.placed(truth)[0])
        self.positions = Particles.from_space(self.space, self.tensor(self.first), self.frame)

    def mesh(self, vertices: FloatArray) -> trimesh.Trimesh:
        """The box with vertices (V, 3)."""
        return trimesh.Trimesh(vertices, self.faces, process=False)

    def tensor(self, values: FloatArray) -> Tensor:
        """Values in the space's dtype, on its device."""
        return torch.as_tensor(np.array(values)).to(self.space.rest)

    def vertices(self, truth: BoxTruth) -> FloatArray:
        """True vertices (T, V, 3), object frame, meters."""
        links = self.box.links.items()
        return np.concatenate([transform(truth.link_poses[k], m.vertices) for k, m in links], 1)

    def placed(self, truth: BoxTruth) -> FloatArray:
        """True positions (T, n, 3) of the particles, object frame, meters."""
        X = np.stack([truth.link_poses[k] for k in self.box.links], 1)[:, self.link_of]
        return (X[..., :3, :3] @ self.local[..., None])[..., 0] + X[..., :3, 3]

    def moved(self, z: FloatArray, points: FloatArray) -> FloatArray:
        """Positions (T, P, 3) of points (P, 3) of the first pose at states z (T, k), normalized."""
        with torch.no_grad():
            tracked = self.space.tracked(self.tensor(points))
            return np.stack([tracked(q[None])[0].double().cpu().numpy() for q in self.tensor(z)])

    def centers(self, positions: FloatArray) -> FloatArray:
        """Centers of mass (T, 3) of particles (T, n, 3)."""
        return np.einsum("n,tni->ti", self.share, positions)

    def simulate(self, times: FloatArray, start: Tensor, forces: Sequence[Force] = ()) -> Frames:
        """Latent motion at times (T,) from a state (k,) at rest."""
        # Contacts are recorded on a finer grid of times.
        frames = np.arange(len(times))
        finer = np.arange((len(times) - 1) * _FINER + 1) / _FINER
        run = self.run(np.interp(finer, frames, times), start, forces)
        touching = np.flatnonzero(run.contacts)
        contact = None
        if len(touching):
            contact = float(run.times[touching[0] - 1 : touching[0] + 1].mean())
        kept = np.minimum(frames * _FINER, len(run.times) - 1)
        return Frames(run.z[kept], run.zdot[kept], contact, run.failure is not None)

    def run(
        self, times: FloatArray, start: Tensor, forces: Sequence[Force] = ()
    ) -> LatentTrajectory:
        """The integrator's trajectory at times (T,) from a state (k,) at rest."""
        options, scale = self.options, self.frame.scale
        stiffness = options.contact_stiffness / options.dynamics.step**2
        contact = SelfCollision(options.reach * scale, options.apart * scale, stiffness)
        rest = decoded(self.positions, self.space.rest)
        environment = Environment(
            rest=rest, weights=self.tensor(self.share), forces=[*forces, self._hold(rest)]
        )
        return simulate(
            self.positions,
            times,
            start,
            environment=environment,
            options=replace(options.dynamics, self_collision=contact),
        )

    def push(self, size: float, truth: BoxTruth) -> tuple[FloatArray, FloatArray]:
        """Rise of the center of mass under a push on the lid.

        Args:
            size: force over the lid's weight.
            truth: the true motion under that push.

        Returns:
            The simulated and the true rise (T,), half object lengths.
        """
        dynamics = self.options.dynamics
        gravity = float(np.linalg.norm(dynamics.gravity))
        lid = np.flatnonzero(self.link_of == list(self.box.links).index(self.lid))
        vector = np.array([0.0, 0.0, size * self.share[lid].sum() * dynamics.mass * gravity])
        push = Force(vector, points=lid, end=self.options.push_seconds)

        placed = self.placed(truth)
        every = np.arange(len(self.local))
        start = initial_coordinates(self.positions, self.space.rest, every, placed[0])
        run = self.simulate(truth.times, start, [push])
        found = self.centers(self.moved(run.z, self.first))[:, 2]
        true = self.centers(self.frame.normalized(placed))[:, 2]
        return found - found[0], true - true[0]

    def energies(self, z: FloatArray, zdot: FloatArray) -> FloatArray:
        """Kinetic and potential energies (T, 2) at states z, zdot (T, k), joules; no contacts."""
        dynamics = self.options.dynamics
        rest = decoded(self.positions, self.space.rest)
        masses = torch.as_tensor(dynamics.mass * self.share).to(rest)
        parts = [potentials.uniform(torch.outer(masses, rest.new_tensor(dynamics.gravity)))]
        if dynamics.spring > 0:
            parts.append(potentials.springs(rest, masses, dynamics.spring, dynamics.neighbors))
        total = []
        with forward_attention():
            for q, v in zip(self.tensor(z), self.tensor(zdot), strict=True):
                x, velocity = (t.double() for t in jvp(self.positions, (q,), (v,)))
                kinetic = 0.5 * float(masses @ velocity.square().sum(1))
                total.append((kinetic, sum(float(part(x)[0]) for part in parts)))
        return np.array(total)

    def _hold(self, rest: Tensor) -> ForceField:
        """Springs from the bottom of the base to its place at rest (n, 3)."""
        bottom = np.flatnonzero(self.first[:, 2] < self.first[:, 2].min() + _BOTTOM)
        index = torch.as_tensor(bottom, device=rest.device)
        stiffness = self.options.hold * self.options.dynamics.mass
        pull = stiffness * torch.as_tensor(self.share).to(rest)[index, None]

        def field(x: Tensor, velocity: Tensor, time: float) -> Tensor:
            return torch.zeros_like(x).index_add_(0, index, pull * (rest[index] - x[index]))

        return field

    def _particles(self, truth: BoxTruth) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
        """Link (n,), place in its frame (n, 3), and share of the mass (n,) of each particle."""
        # Dense points on each link, in proportion to its area.
        names = list(self.box.links)
        areas = np.array([self.box.links[k].area for k in names])
        areas /= areas.sum()
        counts = np.maximum(np.round(areas * _DENSE).astype(int), 1)
        dense = [
            surface_points(self.box.links[k], n, seed=self.seed)[0]
            for k, n in zip(names, counts, strict=True)
        ]

        # Pairs on the rim, and even points everywhere else.
        clear, *rim = self._rim(truth, dense[names.index(self.base)])
        others = self.options.particles - 2 * len(rim[0])
        even = np.random.default_rng(self.seed).multinomial(others, areas)
        links, local, share = [], [], []
        for i, (points, count) in enumerate(zip(dense, even, strict=True)):
            evenly, meeting = (points[clear], rim[0]) if names[i] == self.base else (points, rim[1])
            chosen = np.concatenate([evenly[:count], meeting])
            # The mass of a particle is that of the surface nearest to it. Clamped to a minimum:
            # some particles have no surface of their own.
            nearest = np.bincount(cKDTree(chosen).query(points)[1], minlength=len(chosen))
            mass = np.maximum(nearest, _LEAST_POINTS)
            links.append(np.full(len(chosen), i))
            local.append(chosen)
            share.append(areas[i] * mass / mass.sum())
        return np.concatenate(links), np.concatenate(local), np.concatenate(share)

    def _rim(
        self, truth: BoxTruth, base: FloatArray
    ) -> tuple[NDArray[np.bool_], FloatArray, FloatArray]:
        """Contact points of base and lid, in the frames of their links.

        Args:
            truth: with the first pose.
            base: (P, 3) points of the base.

        Returns:
            The points of the base that the closed lid does not repel (P,); the contact points of
            the base (R, 3), and those of the lid (R, 3).
        """
        reach, scale = self.options.reach, self.frame.scale
        # Nearest points of the closed lid.
        poses = self.box.link_poses(self.box.lower[None])[0]
        closed = dict(zip(self.box.links, poses, strict=True))
        mesh = self.box.links[self.lid]
        lid = trimesh.Trimesh(transform(closed[self.lid], mesh.vertices), mesh.faces, process=False)
        at = transform(closed[self.base], base)
        nearest = raycasting_scene(lid).compute_closest_points(at.astype(np.float32))
        found = nearest["points"].numpy().astype(float)
        above = transform(inverse(closed[self.lid]), found)

        # Distances from the lid when closed, and in the first pose, over the reach.
        first = [
            transform(truth.link_poses[k][0], p) for k, p in ((self.base, base), (self.lid, above))
        ]
        shut, opened = (
            np.linalg.norm(a - b, axis=1) / (scale * reach) for a, b in ((found, at), first)
        )
        clear = shut >= 1
        rim = clear & (shut < _RIM_BAND) & (opened * reach > self.options.apart)
        meeting = np.flatnonzero(rim)
        if len(meeting) == 0:
            raise ValueError(
                "truth: at its start no point of the rim is clear of the lid; open it further"
            )
        chosen = meeting[farthest_points(at[meeting], self.options.rim)]
        return clear, base[chosen], above[chosen]
