"""NeuROK as a generator: an object as it stands and an action on it, to motions of its mesh.

Targets are reached by a quasistatic drag (eq. 43): where they move handles as one body, by asking the encoder what goes
along (generators.neurok.kinematics.encoder_drag), and where they do not, or nothing does, by Gauss-Newton in the reduced space. Velocities
and forces start a simulation in latent space (theorem 1, eq. 42). Several samples differ in what chance has a say in:
which surface points the network sees and which drive the mesh, and the quarter turn at which it sees the object, which
means nothing to the object but something to a network. The one whose handles end nearest to their targets, with the
least stretch of its mesh, comes first.

The object is encoded in its own normalised frame, so its size and place play no part, and in the first sample its yaw
none either, up to quarter turns. Objects that the action does not name stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch
import trimesh
from torch import Tensor

from flowplan.laws import Law
from flowplan.motion import Generator, Progress, SceneMotion, silent
from flowplan.scan.meshes.surface import raycasting_scene
from flowplan.scene import Action, Instruction, Scene
from flowplan.utils.checks import FloatArray
from generators.common.mesh_driving import DriveOptions, drive_mesh
from generators.common.sampling import surface_points
from generators.neurok.dynamics.contact import HalfSpace
from generators.neurok.dynamics.dynamics import DynamicsOptions, simulate
from generators.neurok.dynamics.forces import Force
from generators.neurok.dynamics.initial_state import initial_velocity
from generators.neurok.kinematics.encoder_drag import LeadOptions, lead
from generators.neurok.kinematics.handle_paths import handle_paths, on_one_body
from generators.neurok.kinematics.inverse import DragOptions, drag
from generators.neurok.latent_space.active_subspace import SEARCHED, SIMULATED, ReduceOptions
from generators.neurok.latent_space.particles import Particles
from generators.neurok.latent_space.space import (
    Frame,
    KinematicSpace,
    LatentSpace,
    SpaceOptions,
    box_yaw,
)
from generators.neurok.network import weights
from generators.neurok.network.model import Neurok

Encode = Callable[[trimesh.Trimesh, int], KinematicSpace]
"""From an object's mesh in its normalised frame, and a seed, to the space of its states."""

_TAKES = "neurok takes an Action: targets of handles, or velocities and forces on them"


@dataclass(frozen=True)
class NeurokOptions:
    """How an action becomes motions."""

    weights: str = "neurok-small"
    """Name of weights that ship with the generators, or path of a safetensors file."""
    samples: int = 2
    """Motions returned, best first."""
    frames: int = 41
    """Frames of the animation, evenly spaced over the action's duration."""
    driving_points: int = 1024
    """Surface points whose motion the mesh follows."""
    body_points: int = 64
    """Surface points that are held in place during a drag, or that carry the mass of a simulation."""
    space: SpaceOptions = field(default_factory=lambda: SpaceOptions(reduce=SEARCHED))
    """See SpaceOptions; its directions are those of a drag."""
    lead: LeadOptions = field(default_factory=LeadOptions)
    """See LeadOptions."""
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
        for name, least in (
            ("samples", 1),
            ("frames", 2),
            ("driving_points", 16),
            ("body_points", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(
                    f"NeurokOptions.{name}: expected a whole number from {least}, got {getattr(self, name)}"
                )


def neurok(laws: Sequence[Law] = (), options: NeurokOptions = NeurokOptions()) -> Generator:
    """A generator that has learned how objects move, and takes an `Action` on any of a scene's objects.

    Args:
        laws: of no use to it: what it has learned stands in for them.
        options: see NeurokOptions.

    Raises:
        ValueError: for weights that are not there; from the generator, for an instruction that it cannot follow.
    """
    return of_network(_load(options.weights), options)


def of_network(model: Neurok, options: NeurokOptions = NeurokOptions()) -> Generator:
    """The same with a network that is at hand; `options.weights` plays no part."""
    whole = replace(options.space, reduce=replace(options.space.reduce, dimension=None))
    return generator(lambda mesh, seed: LatentSpace.encode(mesh, model, whole, seed=seed), options)


@cache
def _load(name: str) -> Neurok:
    return weights.load(name).requires_grad_(False)


def generator(encode: Encode, options: NeurokOptions = NeurokOptions()) -> Generator:
    """The same with any source of kinematic spaces, such as one in closed form."""

    def generate(
        scene: Scene, instruction: Instruction, *, seed: int = 0, progress: Progress = silent
    ) -> list[SceneMotion]:
        action = _accept(instruction)
        instructed = scene.index(action.object)
        mesh = scene.objects[instructed].mesh_world
        times = np.linspace(0.0, action.duration, options.frames)
        still = [o.vertices_world for o in scene.objects]
        found, failures = [], []
        for index, at in enumerate(_seeds(seed, options.samples)):
            # The box's own heading first, then the other quarter turns, a little off as scans' boxes are.
            yaw = (
                box_yaw(mesh.vertices)
                + index * np.pi / 2
                + (at.uniform(-0.1, 0.1) if index else 0.0)
            )
            sample = _Sample(mesh, yaw, encode, int(at.integers(2**31)), options)
            try:
                vertices = sample.animate(action, times, scene.support_height)
            except _Diverged as failure:
                failures.append(str(failure))
                continue
            moved = [np.broadcast_to(v, (len(times), *v.shape)) for v in still]
            moved[instructed] = vertices
            found.append((_faults(mesh, vertices, action), SceneMotion(times, tuple(moved))))
            progress((index + 1) / options.samples, f"moved {action.object}")
        if not found:
            raise ValueError(
                f"Action: no sample of the motion held together ({failures[0]}); ask for less or be brief"
            )
        return [motion for _, motion in sorted(found, key=lambda f: f[0])]

    return generate


def _accept(instruction: Instruction) -> Action:
    if not isinstance(instruction, Action):
        raise ValueError(f"instruction: got a {type(instruction).__name__}; {_TAKES}")
    if instruction.targets is not None and (
        instruction.forces is not None or instruction.velocities is not None
    ):
        raise ValueError(
            f"Action.targets: got forces or velocities too, which would move the handles off; {_TAKES}"
        )
    return instruction


def _seeds(seed: int, count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(count)]


class _Diverged(Exception):
    """A simulation that did not hold together."""


class _Sample:
    """One way to see an object, and the motions that follow from it."""

    def __init__(
        self, mesh: trimesh.Trimesh, yaw: float, encode: Encode, seed: int, options: NeurokOptions
    ) -> None:
        self.frame = Frame.around(mesh.vertices, yaw)
        self.mesh = trimesh.Trimesh(self.frame.normalised(mesh.vertices), mesh.faces, process=False)
        self.world, self.options, self.seed = mesh.vertices, options, seed
        self.space = encode(self.mesh, seed)
        self.body = self._tensor(surface_points(self.mesh, options.body_points, seed=seed + 1)[0])

    def animate(self, action: Action, times: FloatArray, support: float | None) -> FloatArray:
        """Vertices (T, V, 3) at `times` (T,), world frame, metres."""
        handles = self._tensor(self.frame.normalised(action.handles))
        if action.targets is not None:
            space, q = self._drag(action.handles, action.targets, times)
        else:
            space = self._reduced(self.options.simulated)
            q = self._simulate(space, action, handles, times, support)
        points, on_face = surface_points(self.mesh, self.options.driving_points, seed=self.seed)
        with torch.no_grad():
            deformation = space.field(q, self._tensor(points)).double().cpu().numpy()
        driven = drive_mesh(
            self.mesh.vertices,
            self.mesh.faces,
            points,
            deformation,
            self.options.drive,
            point_faces=on_face,
        )
        vertices = self.frame.world(driven)
        vertices[0] = self.world  # to the last bit: the frame's arithmetic rounds
        return vertices

    def _reduced(self, options: ReduceOptions) -> KinematicSpace:
        return (
            self.space.reduced(options, seed=self.seed)
            if isinstance(self.space, LatentSpace)
            else self.space
        )

    def _drag(
        self, handles: FloatArray, targets: FloatArray, times: FloatArray
    ) -> tuple[KinematicSpace, Tensor]:
        """A space of states, and those (T, k) in which handles (H, 3) go to their targets, world frame, metres."""
        paths = self._tensor(
            self.frame.normalised(handle_paths(handles, targets, times / times[-1]))
        )
        at = self._tensor(self.frame.normalised(handles))
        if isinstance(self.space, LatentSpace) and on_one_body(handles, targets):
            latents = lead(self.space, at, paths, self.space.points, self.options.lead)
            if latents is not None:
                return self.space, self.space.coordinates(latents)
        space = self._reduced(self.options.space.reduce)
        return space, drag(space, at, paths, self.body, self.options.drag)

    def _simulate(
        self,
        space: KinematicSpace,
        action: Action,
        handles: Tensor,
        times: FloatArray,
        support: float | None,
    ) -> Tensor:
        """States (T, k) of the object under the action's velocities and forces, in metres and newtons."""
        positions = Particles.of(space, torch.cat([handles, self.body]), self.frame)
        start, count = space.rest, np.arange(len(handles))
        velocity = None
        if action.velocities is not None:
            velocity = initial_velocity(positions, start, count, action.velocities)
        forces = (
            ()
            if action.forces is None
            else [Force(f, points=count[i : i + 1]) for i, f in enumerate(action.forces)]
        )
        ground = () if support is None else [HalfSpace(support)]
        run = simulate(
            positions,
            times,
            start,
            velocity,
            forces=forces,
            obstacles=ground,
            options=self.options.dynamics,
        )
        if run.failure is not None:
            raise _Diverged(run.failure)
        return self._tensor(run.z)

    def _tensor(self, values: FloatArray | Tensor) -> Tensor:
        return (values if isinstance(values, Tensor) else torch.tensor(values)).to(self.space.rest)


def _faults(mesh: trimesh.Trimesh, vertices: FloatArray, action: Action) -> float:
    """What is wrong with a motion: the share of their way that handles are off at the end, plus the mesh's stretch."""
    a, b = mesh.edges_unique.T
    length = np.linalg.norm(vertices[0][a] - vertices[0][b], axis=1)
    long = length > 1e-6 * float(mesh.scale)
    last = np.linalg.norm(vertices[-1][a] - vertices[-1][b], axis=1)
    # Capped: the seam between two parts of a scan must stretch, and says nothing of how rigid the parts are.
    stretch = np.average(
        np.minimum(np.abs(last[long] / length[long] - 1), 0.1), weights=length[long]
    )
    if action.targets is None:
        return float(stretch)
    face, weight = _attach(mesh, action.handles)
    off = action.handles - np.einsum("hk,hkc->hc", weight, vertices[0][mesh.faces[face]])
    end = np.einsum("hk,hkc->hc", weight, vertices[-1][mesh.faces[face]]) + off
    way = float(np.linalg.norm(action.targets - action.handles))
    return float(np.linalg.norm(end - action.targets) / max(way, 1e-9) + stretch)


def _attach(mesh: trimesh.Trimesh, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The nearest face (H,) to each point (H, 3), and the nearest point's barycentric coordinates (H, 3) in it."""
    found = raycasting_scene(mesh).compute_closest_points(np.asarray(points, np.float32))
    uv = found["primitive_uvs"].numpy().astype(float)
    return found["primitive_ids"].numpy().astype(int), np.column_stack([1 - uv.sum(1), uv])
