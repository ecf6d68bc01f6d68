"""A box whose lid falls: latent dynamics against a simulator that is told how the box works (E.3-E.5, Figs. 8, 14, 15).

The network sees the mesh of an open box and nothing else: no hinge, no part, no limit. From that pose, at rest, gravity
and contacts move it in latent space; the truth is the same box with its hinge given. Both are compared as meshes, in
the frame in which the first pose fills [-1, 1]^3. Then the lid is closed and pushed from below, harder each time.

What both are told: mass, spread evenly over all surfaces, so inertias are those of shells (`lid_inertia`); and that the
box stands where it stands: particles at the bottom of the base are held there by springs. Particles of the latent
simulation are drawn evenly over the surface, and each weighs as much as the surface that is nearest to it. Evenly drawn
ones would meet too early or slip past each other where the lid comes down, so there they are chosen: on the walls just
as far below the closed lid as particles begin to push each other, with the point of the lid above each, and none of the
base nearer to it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor
from torch.func import jvp

from experiments.charts import Chart, draw_charts
from experiments.neurok.metrics import chamfer
from flowplan.geometry import inverse, transform
from flowplan.motion import Progress, silent
from flowplan.scan.meshes.surface import raycasting_scene
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.records import record
from generators.common.sampling import farthest_points, surface_points
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.families import HELD_OUT_SEED, make
from generators.neurok.dynamics import potentials
from generators.neurok.dynamics.contact import SelfCollision
from generators.neurok.dynamics.dynamics import DynamicsOptions, LatentTrajectory, simulate
from generators.neurok.dynamics.forces import Force, ForceField
from generators.neurok.dynamics.initial_state import initial_coordinates
from generators.neurok.generate import Encode
from generators.neurok.latent_space.active_subspace import SIMULATED
from generators.neurok.latent_space.derivatives import decoded, forward_attention
from generators.neurok.latent_space.particles import Particles
from generators.neurok.latent_space.space import Frame, LatentSpace, SpaceOptions
from generators.neurok.network import weights
from generators.neurok.network.model import Neurok

_DENSE = 20_000
"""Points from which particles are chosen, and whose shares are their masses."""
_FINER = 3
"""Times per frame at which contact is looked for."""
_BOTTOM = 0.02
"""Height of what is held at the bottom of the base, half object lengths."""
_UNIT = "half object lengths"


@dataclass(frozen=True)
class BoxOptions:
    """How the box is simulated in latent space, and how it is compared. Lengths are in half object lengths."""

    particles: int = 128
    """Particles of the simulation, those on the rim included."""
    rim: int = 24
    """Pairs of particles that meet when the lid closes."""
    reach: float = 0.08
    """Distance at which particles begin to push each other. Contacts are soft: over this way they stop the lid."""
    apart: float = 0.2
    """Those closer than this at the start never push."""
    contact_stiffness: float = 1.0
    """Of a contact, in 1 / step^2 per kilogram."""
    hold: float = 1e4
    """Stiffness of the springs that hold the bottom, 1/s^2 per kilogram."""
    push_seconds: float = 0.1
    """How long a push lasts."""
    dynamics: DynamicsOptions = field(
        default_factory=lambda: DynamicsOptions(
            step=1 / 120, scheme="leapfrog", restitution=0.92, latent_inertia=1e-3
        )
    )
    """See DynamicsOptions; its mass is the box's, its self-collision is set here. Contacts last a few steps, so that
    this restitution gives back about 0.3 of a velocity."""
    space: SpaceOptions = field(default_factory=lambda: SpaceOptions(reduce=SIMULATED))
    """See SpaceOptions."""
    chamfer_points: int = 5000
    """Points drawn on each mesh of a frame."""

    def __post_init__(self) -> None:
        for name in ("reach", "apart", "contact_stiffness", "push_seconds"):
            checks.positive(f"BoxOptions.{name}", getattr(self, name))
        checks.positive("BoxOptions.hold", self.hold, zero=True)
        for name in ("rim", "chamfer_points"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"BoxOptions.{name}: expected at least 1, got {getattr(self, name)}"
                )
        if self.particles <= 2 * self.rim:
            raise ValueError(
                f"BoxOptions.particles: expected more than the {2 * self.rim} on the rim, got {self.particles}"
            )


@dataclass(frozen=True, eq=False)
class BoxTruth:
    """What a simulator that knows the hinge says.

    Attributes:
        times: (T,) seconds from 0, those of the frames that are compared.
        link_poses: X_object_link (T, 4, 4) of every link; the object at rest at times[0].
        impact: when the lid first hit the rim, seconds; None if it did not.
    """

    times: FloatArray
    link_poses: Mapping[str, FloatArray]
    impact: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", checks.times("BoxTruth.times", self.times))
        poses = {
            k: checks.poses(f"BoxTruth.link_poses[{k}]", X, (len(self.times), 4, 4))
            for k, X in self.link_poses.items()
        }
        object.__setattr__(self, "link_poses", poses)


def held_out_box() -> ArticulatedObject:
    """A plain box with a flat lid, 30 cm wide, from seeds that training never reaches."""
    return make("hinged_box", HELD_OUT_SEED + 23)


def lid_inertia(box: ArticulatedObject, mass: float) -> tuple[float, FloatArray, FloatArray]:
    """Mass, centre (3,) and inertia (3, 3) about it, link frame, of the lid of a box of `mass` kilograms.

    The mass is spread evenly over all surfaces of the box.
    """
    _, lid = _parts(box)
    area = sum(float(m.area) for m in box.links.values())
    mesh = box.links[lid]
    a, b, c = np.moveaxis(mesh.triangles, 1, 0)
    share = mesh.area_faces / area * mass
    center = share @ (a + b + c) / 3 / share.sum()
    a, b, c = a - center, b - center, c - center
    second = sum(np.einsum("f,fi,fj->ij", share / 12, p, p) for p in (a, b, c, a + b + c))
    return float(share.sum()), center, np.trace(second) * np.eye(3) - second


def box_records(
    model: Neurok | str | Encode,
    box: ArticulatedObject,
    truth: BoxTruth,
    pushes: Mapping[float, BoxTruth] | None = None,
    options: BoxOptions = BoxOptions(),
    *,
    seed: int = 0,
    figure: Path | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """JSON records of the experiment.

    Args:
        model: the network or the name of its weights; or anything else that makes a space of states of a mesh.
        box: with a lid on one hinge whose lower limit is closed; see `lid_inertia` for what the truth takes it to weigh.
        truth: of the fall, from an open pose.
        pushes: truths of the closed box, by the upward force on its lid's centre of mass over the lid's weight, which
            acts for `push_seconds` from the start on.
        options: see BoxOptions.
        seed: of all points that are drawn.
        figure: PNG of the fall, its energy, and how far pushes lift the lid.

    Returns:
        Under `neurok/box`: `cd_l1` and `cd_l2` (the squared L2 of E.4) over the frames, and what they are if nothing
        moves (`still`); `center`, the distance of the centres of mass; `impact_error`, by which the first contact comes
        too early or too late, absent where one of both has none; `energy_drift` until then, in parts of the energy that
        the true fall sets free, and that of latents on a straight line; `diverged`, whether the simulation broke off
        (its last state is then compared). For every push `rise`, of the centre of mass of all, and its error;
        `pushes_in_order`, the share of neighbouring forces of which the larger lifts the lid higher.
    """
    scene = _Scene(_encoder(model, options), box, truth, options, seed)
    run = scene.simulate(truth.times, scene.space.rest)
    progress(0.5 if pushes else 1.0, "the lid has fallen")
    records = [*_comparison(scene, truth, run), *_energies(scene, truth, run)]
    rises, lifts = [], {}
    for index, (size, pushed) in enumerate(sorted((pushes or {}).items())):
        lifts[size] = scene.push(size, pushed)
        rise, expected = (float(height.max()) for height in lifts[size])
        rises.append(rise)
        records.append(_record(f"push_{size:g}/rise", rise, _UNIT, "up"))
        records.append(_record(f"push_{size:g}/rise_error", abs(rise - expected), _UNIT, "down"))
        progress(
            0.5 + 0.5 * (index + 1) / len(pushes or {}),
            f"pushed with {size:g} times the lid's weight",
        )
    if len(rises) > 1:
        # Half a percent is not a motion but the contact that gives way.
        ordered = [b > a or max(a, b) < 0.005 for a, b in pairwise(rises)]
        records.append(
            _record("pushes_in_order", float(np.mean(ordered)), "share", "up", len(ordered))
        )
    if figure is not None:
        draw_charts(figure, [*_fall_charts(scene, truth, run), *_push_charts(lifts, pushes or {})])
    return records


def dynamics_speed_records(
    model: Neurok | str | Encode,
    box: ArticulatedObject,
    truth: BoxTruth,
    options: BoxOptions = BoxOptions(),
    *,
    duration: float = 0.05,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """How many seconds one simulated second of the falling lid takes on this machine, measured over `duration`."""
    scene = _Scene(_encoder(model, options), box, truth, options, seed)
    start = time.perf_counter()
    run = scene.run(np.array([0.0, duration]), scene.space.rest)
    seconds = (time.perf_counter() - start) / duration
    steps = math.ceil(duration / options.dynamics.step - 1e-9)
    if run.failure is not None:
        return []
    return [record("neurok/speed/dynamics_s", seconds, "s per s", "down", steps, decimals=3)]


def _encoder(model: Neurok | str | Encode, options: BoxOptions) -> Encode:
    if isinstance(model, str):
        model = weights.load(model)
    if not isinstance(model, Neurok):
        return model
    network = model.requires_grad_(False)
    return lambda mesh, seed: LatentSpace.encode(mesh, network, options.space, seed=seed)


def _parts(box: ArticulatedObject) -> tuple[str, str]:
    """Names of the base and of the lid."""
    if len(box.links) != 2 or [j.kind for j in box.free] != ["revolute"]:
        kinds = ", ".join(f"{j.name} ({j.kind})" for j in box.free) or "none"
        raise ValueError(
            f"box: expected two links and a hinge, got {', '.join(box.links)} with joints {kinds}"
        )
    return box.free[0].parent, box.free[0].child


@dataclass(frozen=True, eq=False)
class _Frames:
    """A latent motion at the frames that are compared.

    Attributes:
        z, zdot: (T, k).
        contact: seconds when something first touched; None if nothing did, or did from the start on.
        diverged: whether it broke off, and stays where it was.
    """

    z: FloatArray
    zdot: FloatArray
    contact: float | None
    diverged: bool


class _Scene:
    """A box in its first pose, the space of its states, and the particles that stand for it."""

    def __init__(
        self,
        encode: Encode,
        box: ArticulatedObject,
        truth: BoxTruth,
        options: BoxOptions,
        seed: int,
    ) -> None:
        self.box, self.options, self.seed = box, options, seed
        self.base, self.lid = _parts(box)
        missing = sorted(set(box.links) - set(truth.link_poses))
        if missing:
            raise ValueError(
                f"BoxTruth.link_poses: expected every link of the box, {', '.join(missing)} missing"
            )
        self.faces = box.posed(box.lower).faces
        start = self.vertices(truth)[0]
        self.frame = Frame.around(start)
        self.space = encode(self.mesh(self.frame.normalised(start)), seed)
        self.link_of, self.local, self.share = self._particles(truth)
        self.first = self.frame.normalised(self.placed(truth)[0])
        self.positions = Particles.of(self.space, self.tensor(self.first), self.frame)

    def mesh(self, vertices: FloatArray) -> trimesh.Trimesh:
        """The box with vertices (V, 3)."""
        return trimesh.Trimesh(vertices, self.faces, process=False)

    def tensor(self, values: FloatArray) -> Tensor:
        """As the space computes."""
        return torch.as_tensor(np.array(values)).to(self.space.rest)

    def vertices(self, truth: BoxTruth) -> FloatArray:
        """(T, V, 3) true vertices, object frame, metres."""
        return np.concatenate(
            [transform(truth.link_poses[k], m.vertices) for k, m in self.box.links.items()], 1
        )

    def placed(self, truth: BoxTruth) -> FloatArray:
        """(T, n, 3) where the particles truly are, object frame, metres."""
        X = np.stack([truth.link_poses[k] for k in self.box.links], 1)[:, self.link_of]
        return (X[..., :3, :3] @ self.local[..., None])[..., 0] + X[..., :3, 3]

    def moved(self, z: FloatArray, points: FloatArray) -> FloatArray:
        """(T, P, 3) where points (P, 3) of the first pose are at states z (T, k), normalised frame."""
        with torch.no_grad():
            follow = self.space.followed(self.tensor(points))
            return np.stack([follow(q[None])[0].double().cpu().numpy() for q in self.tensor(z)])

    def centers(self, positions: FloatArray) -> FloatArray:
        """(T, 3) centres of mass of particles (T, n, 3)."""
        return np.einsum("n,tni->ti", self.share, positions)

    def simulate(self, times: FloatArray, start: Tensor, forces: Sequence[Force] = ()) -> _Frames:
        """The latent motion from a state at rest."""
        frames = np.arange(len(times))
        run = self.run(
            np.interp(np.arange((len(times) - 1) * _FINER + 1) / _FINER, frames, times),
            start,
            forces,
        )
        touching = np.flatnonzero(run.contacts)
        contact = (
            float(run.times[touching[0] - 1 : touching[0] + 1].mean()) if len(touching) else None
        )
        kept = np.minimum(frames * _FINER, len(run.times) - 1)
        return _Frames(run.z[kept], run.zdot[kept], contact, run.failure is not None)

    def run(
        self, times: FloatArray, start: Tensor, forces: Sequence[Force] = ()
    ) -> LatentTrajectory:
        """The same as the integrator tells it."""
        options, scale = self.options, self.frame.scale
        stiffness = options.contact_stiffness / options.dynamics.step**2
        contact = SelfCollision(options.reach * scale, options.apart * scale, stiffness)
        rest = decoded(self.positions, self.space.rest)
        return simulate(
            self.positions,
            times,
            start,
            rest=rest,
            weights=self.tensor(self.share),
            forces=[*forces, self._hold(rest)],
            options=replace(options.dynamics, self_collision=contact),
        )

    def push(self, size: float, truth: BoxTruth) -> tuple[FloatArray, FloatArray]:
        """How high the centre of mass is (T,), and truly is, half object lengths, at `size` times the lid's weight."""
        mass, gravity = (
            self.options.dynamics.mass,
            float(np.linalg.norm(self.options.dynamics.gravity)),
        )
        lid = np.flatnonzero(self.link_of == list(self.box.links).index(self.lid))
        force = np.array([0.0, 0.0, size * self.share[lid].sum() * mass * gravity])
        placed = self.placed(truth)
        start = initial_coordinates(
            self.positions, self.space.rest, np.arange(len(self.local)), placed[0]
        )
        run = self.simulate(
            truth.times, start, [Force(force, points=lid, end=self.options.push_seconds)]
        )
        found = self.centers(self.moved(run.z, self.first))[:, 2]
        true = self.centers(self.frame.normalised(placed))[:, 2]
        return found - found[0], true - true[0]

    def energies(self, z: FloatArray, zdot: FloatArray) -> FloatArray:
        """(T, 2) kinetic and potential energy of the particles at states z, zdot (T, k), joules; none of contacts."""
        dynamics = self.options.dynamics
        rest = decoded(self.positions, self.space.rest)
        masses = torch.as_tensor(dynamics.mass * self.share).to(rest)
        parts = [potentials.uniform(torch.outer(masses, rest.new_tensor(dynamics.gravity)))]
        if dynamics.spring > 0:
            parts.append(potentials.springs(rest, masses, dynamics.spring, dynamics.neighbours))
        total = []
        with forward_attention():
            for q, v in zip(self.tensor(z), self.tensor(zdot), strict=True):
                x, velocity = (t.double() for t in jvp(self.positions, (q,), (v,)))
                kinetic = 0.5 * float(masses @ velocity.square().sum(1))
                total.append((kinetic, sum(float(part(x)[0]) for part in parts)))
        return np.array(total)

    def _hold(self, rest: Tensor) -> ForceField:
        """Springs from the bottom of the base to where it stands."""
        index = torch.as_tensor(
            np.flatnonzero(self.first[:, 2] < self.first[:, 2].min() + _BOTTOM), device=rest.device
        )
        pull = (
            self.options.hold
            * self.options.dynamics.mass
            * torch.as_tensor(self.share).to(rest)[index, None]
        )

        def field(x: Tensor, velocity: Tensor, time: float) -> Tensor:
            return torch.zeros_like(x).index_add_(0, index, pull * (rest[index] - x[index]))

        return field

    def _particles(self, truth: BoxTruth) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
        """Link (n,) and place in its frame (n, 3) of each particle, and its share (n,) of the mass."""
        names = list(self.box.links)
        areas = np.array([self.box.links[k].area for k in names])
        areas /= areas.sum()
        counts = np.maximum(np.round(areas * _DENSE).astype(int), 1)
        dense = [
            surface_points(self.box.links[k], n, seed=self.seed)[0]
            for k, n in zip(names, counts, strict=True)
        ]
        clear, *rim = self._rim(truth, dense[names.index(self.base)])
        even = np.random.default_rng(self.seed).multinomial(
            self.options.particles - 2 * len(rim[0]), areas
        )
        links, local, share = [], [], []
        for i, (points, count) in enumerate(zip(dense, even, strict=True)):
            evenly, meeting = (points[clear], rim[0]) if names[i] == self.base else (points, rim[1])
            chosen = np.concatenate([evenly[:count], meeting])
            nearest = np.bincount(cKDTree(chosen).query(points)[1], minlength=len(chosen))
            # None may weigh nothing, though it have no surface of its own.
            mass = np.maximum(nearest, 0.1)
            links.append(np.full(len(chosen), i))
            local.append(chosen)
            share.append(areas[i] * mass / mass.sum())
        return np.concatenate(links), np.concatenate(local), np.concatenate(share)

    def _rim(
        self, truth: BoxTruth, base: FloatArray
    ) -> tuple[NDArray[np.bool_], FloatArray, FloatArray]:
        """Of points (P, 3) of the base: which the closed lid does not push; and those that it meets, with the lid's.

        All points are in the frames of their links.
        """
        closed = dict(
            zip(self.box.links, self.box.link_poses(self.box.lower[None])[0], strict=True)
        )
        mesh = self.box.links[self.lid]
        lid = trimesh.Trimesh(transform(closed[self.lid], mesh.vertices), mesh.faces, process=False)
        at = transform(closed[self.base], base)
        found = (
            raycasting_scene(lid)
            .compute_closest_points(at.astype(np.float32))["points"]
            .numpy()
            .astype(float)
        )
        above = transform(inverse(closed[self.lid]), found)
        first = [
            transform(truth.link_poses[k][0], p) for k, p in ((self.base, base), (self.lid, above))
        ]
        gap, opened = (
            np.linalg.norm(a - b, axis=1) / (self.frame.scale * self.options.reach)
            for a, b in ((found, at), first)
        )
        clear = gap >= 1
        meeting = np.flatnonzero(
            clear & (gap < 1.1) & (opened * self.options.reach > self.options.apart)
        )
        if len(meeting) == 0:
            raise ValueError(
                "truth: at its start no point of the rim is clear of the lid; open it further"
            )
        chosen = meeting[farthest_points(at[meeting], self.options.rim)]
        return clear, base[chosen], above[chosen]


def _comparison(scene: _Scene, truth: BoxTruth, run: _Frames) -> list[dict[str, Any]]:
    """E.4: meshes, centres of mass, and when the lid hits the rim."""
    true, count = scene.frame.normalised(scene.vertices(truth)), len(truth.times)
    found = scene.moved(run.z, true[0])
    records = []
    for prefix, shown in (("", found), ("still/", np.broadcast_to(true[0], true.shape))):
        errors = np.array(
            [
                chamfer(
                    scene.mesh(a), scene.mesh(b), scene.options.chamfer_points, seed=scene.seed + i
                )
                for i, (a, b) in enumerate(zip(shown, true, strict=True))
            ]
        )
        records.append(_record(f"{prefix}cd_l1", errors[:, 0].mean(), _UNIT, "down", count))
        records.append(
            _record(
                f"{prefix}cd_l2", np.square(errors[:, 1]).mean(), f"{_UNIT} squared", "down", count
            )
        )
    centers = [
        scene.centers(p)
        for p in (scene.moved(run.z, scene.first), scene.frame.normalised(scene.placed(truth)))
    ]
    off = np.linalg.norm(centers[0] - centers[1], axis=1).mean()
    records.append(_record("center", off, _UNIT, "down", count))
    if run.contact is not None and truth.impact is not None:
        records.append(_record("impact_error", abs(run.contact - truth.impact), "s", "down"))
    return [*records, _record("diverged", float(run.diverged), "share", "down")]


def _energies(scene: _Scene, truth: BoxTruth, run: _Frames) -> list[dict[str, Any]]:
    """E.3: how far the energy wanders before the impact, and on a straight line between the same latents."""
    dynamics = scene.options.dynamics
    centers = scene.centers(scene.placed(truth))
    released = dynamics.mass * float(((centers - centers[0]) @ np.array(dynamics.gravity)).max())
    free = truth.times < (np.inf if run.contact is None else run.contact)
    count = int(free.sum())
    if count < 2 or not released > 0:
        return []
    times, z = truth.times[free], run.z[free]
    velocity = np.broadcast_to((z[-1] - z[0]) / times[-1], z.shape)
    straight = z[0] + velocity * times[:, None]
    paths = {
        "energy_drift": (z, run.zdot[free]),
        "interpolation/energy_drift": (straight, velocity),
    }
    drifts = {key: np.ptp(scene.energies(*path).sum(1)) / released for key, path in paths.items()}
    return [
        _record(key, drift, "share of the energy released", "down", count)
        for key, drift in drifts.items()
    ]


def _fall_charts(scene: _Scene, truth: BoxTruth, run: _Frames) -> list[Chart]:
    true = scene.centers(scene.frame.normalised(scene.placed(truth)))[:, 2]
    found = scene.centers(scene.moved(run.z, scene.first))[:, 2]
    kinetic, potential = scene.energies(run.z, run.zdot).T
    potential = potential - potential[0]
    heights = {"simulator": true - true[0], "latent": found - true[0]}
    energies = {"kinetic": kinetic, "potential": potential, "sum": kinetic + potential}
    return [
        Chart(title, "s", {name: (truth.times, values) for name, values in lines.items()})
        for title, lines in (
            (f"centre of mass, {_UNIT}", heights),
            ("energy in latent space, J", energies),
        )
    ]


def _push_charts(
    lifts: Mapping[float, tuple[FloatArray, FloatArray]], truths: Mapping[float, BoxTruth]
) -> list[Chart]:
    if not lifts:
        return []
    heights = {f"{size:g} x": (truths[size].times, found) for size, (found, _) in lifts.items()}
    sizes, highest = (
        np.array(list(lifts)),
        np.array([[h.max() for h in both] for both in lifts.values()]),
    )
    rises = {name: (sizes, highest[:, i]) for i, name in ((1, "simulator"), (0, "latent"))}
    return [
        Chart("pushed by multiples of the lid's weight", "s", heights),
        Chart(f"rise of the centre of mass, {_UNIT}", "push over the lid's weight", rises),
    ]


def _record(key: str, value: float, unit: str, direction: str, n: int = 1) -> dict[str, Any]:
    rounded = float(f"{value:.4g}")
    return record(f"neurok/box/{key}", rounded, unit, direction, n)
