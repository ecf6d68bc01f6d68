"""NeuROK as a generator: from an object at rest and an action on it to motions of its mesh.

Targets are reached by a quasistatic drag (eq. 43): if they move the handles as one body, by
querying the encoder for the part that moves along (`generators.neurok.kinematics.encoder_drag`),
and otherwise, or if the handles do not arrive, by Gauss-Newton in the reduced space
(`generators.neurok.kinematics.drag`). Velocities and forces start a simulation in latent space
(theorem 1, eq. 42).

Several samples differ in the random numbers: the surface points that the network sees, those that
drive the mesh, and the quarter turn at which the network sees the object, which means nothing to
the object but something to a network. The sample whose handles end nearest to their targets, with
the least stretch of its mesh, comes first.

The object is encoded in its own normalized frame, so its size and place have no effect, nor has its
yaw in the first sample, up to quarter turns. Objects that the action does not name stay in place.

The network runs on the device of the options. Random numbers are drawn on the CPU, so a GPU's
result differs from the CPU's by rounding alone; the Jacobians of both are in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
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
from generators.common.device import resolve
from generators.common.mesh_driving import drive_mesh
from generators.common.sampling import surface_points
from generators.neurok.dynamics.contact import HalfSpace
from generators.neurok.dynamics.forces import Force
from generators.neurok.dynamics.initial_state import initial_velocity
from generators.neurok.dynamics.simulation import Environment, simulate
from generators.neurok.kinematics.drag import drag
from generators.neurok.kinematics.encoder_drag import encoder_drag
from generators.neurok.kinematics.handle_paths import handle_paths, on_one_body
from generators.neurok.latent_space.particles import Particles
from generators.neurok.latent_space.space import Frame, KinematicSpace, LatentSpace, box_yaw
from generators.neurok.network import weights
from generators.neurok.network.model import Neurok
from generators.neurok.options import NeurokOptions, ReduceOptions

Encode = Callable[[trimesh.Trimesh, int], KinematicSpace]
"""An object's mesh in its normalized frame, and a seed, to the space of its states."""

_TAKES = "neurok takes an Action: targets of handles, or velocities and forces on them"
_YAW_JITTER = 0.1  # rad, of the samples after the first, as the boxes of scans are off
_MOST_STRETCH = 0.1  # relative stretch of an edge that counts at most


def neurok(laws: Sequence[Law] = (), options: NeurokOptions = NeurokOptions()) -> Generator:
    """A generator that has learned how objects move; takes an `Action` on any of a scene's objects.

    Args:
        laws: ignored: the network has learned how objects move.
        options: see NeurokOptions.

    Raises:
        ValueError: for weights or a device that are missing; from the generator, for an instruction
            that it cannot follow.
    """
    return from_network(_load(options.weights, resolve(options.device)), options)


def from_network(model: Neurok, options: NeurokOptions = NeurokOptions()) -> Generator:
    """The generator of a network, on the network's device.

    `options.weights` and `options.device` are ignored.
    """
    whole = replace(options.space, reduce=replace(options.space.reduce, dimension=None))
    return generator(lambda mesh, seed: LatentSpace.encode(mesh, model, whole, seed=seed), options)


@cache
def _load(name: str, device: torch.device) -> Neurok:
    return weights.load(name).requires_grad_(False).to(device)


def generator(encode: Encode, options: NeurokOptions = NeurokOptions()) -> Generator:
    """The generator of any source of kinematic spaces, such as one in closed form."""

    def generate(
        scene: Scene, instruction: Instruction, *, seed: int = 0, progress: Progress = silent
    ) -> list[SceneMotion]:
        action = _accept(instruction)
        instructed = scene.index(action.object)
        mesh = scene.objects[instructed].mesh_world
        times = np.linspace(0.0, action.duration, options.frames)
        still = [o.vertices_world for o in scene.objects]

        found, failures = [], []
        for index, random in enumerate(_random_streams(seed, options.samples)):
            # The box's own yaw first, then the other quarter turns, a little off.
            off = random.uniform(-_YAW_JITTER, _YAW_JITTER) if index else 0.0
            yaw = box_yaw(mesh.vertices) + index * np.pi / 2 + off
            sample = _Sample(mesh, yaw, encode, int(random.integers(2**31)), options)
            try:
                vertices = sample.animate(action, times, scene.support_height)
            except _Diverged as failure:
                failures.append(str(failure))
                continue
            moved = [np.broadcast_to(v, (len(times), *v.shape)) for v in still]
            moved[instructed] = vertices
            found.append((_cost(mesh, vertices, action), SceneMotion(times, tuple(moved))))
            progress((index + 1) / options.samples, f"moved {action.object}")

        if not found:
            raise ValueError(
                f"Action: every sample of the motion diverged ({failures[0]}); ask for a smaller "
                "or shorter motion"
            )
        return [motion for _, motion in sorted(found, key=lambda f: f[0])]

    return generate


def _accept(instruction: Instruction) -> Action:
    """The instruction, if this generator can follow it."""
    if not isinstance(instruction, Action):
        raise ValueError(f"instruction: got a {type(instruction).__name__}; {_TAKES}")
    pushed = instruction.forces is not None or instruction.velocities is not None
    if instruction.targets is not None and pushed:
        raise ValueError(
            "Action.targets: got forces or velocities too, which would move the handles off; "
            f"{_TAKES}"
        )
    return instruction


def _random_streams(seed: int, count: int) -> list[np.random.Generator]:
    """Independent random generators of the samples."""
    return [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(count)]


class _Diverged(Exception):
    """A simulation that diverged."""


class _Sample:
    """One encoding of an object, and the motions that follow from it."""

    def __init__(
        self, mesh: trimesh.Trimesh, yaw: float, encode: Encode, seed: int, options: NeurokOptions
    ) -> None:
        self.frame = Frame.around(mesh.vertices, yaw)
        self.mesh = trimesh.Trimesh(self.frame.normalized(mesh.vertices), mesh.faces, process=False)
        self.world, self.options, self.seed = mesh.vertices, options, seed
        self.space = encode(self.mesh, seed)
        self.body = self._tensor(surface_points(self.mesh, options.body_points, seed=seed + 1)[0])

    def animate(self, action: Action, times: FloatArray, support: float | None) -> FloatArray:
        """Vertices (T, V, 3) at `times` (T,), world frame, meters."""
        # States at these times.
        if action.targets is not None:
            space, q = self._drag(action.handles, action.targets, times)
        else:
            space = self._reduced(self.options.simulated)
            handles = self._tensor(self.frame.normalized(action.handles))
            q = self._simulate(space, action, handles, times, support)

        # Motions of driving points, and of the vertices with them.
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
        vertices[0] = self.world  # exactly: the frame's arithmetic rounds
        return vertices

    def _reduced(self, options: ReduceOptions) -> KinematicSpace:
        """The active subspace of a latent space; any other space as it is."""
        if isinstance(self.space, LatentSpace):
            return self.space.reduced(options, seed=self.seed)
        return self.space

    def _drag(
        self, handles: FloatArray, targets: FloatArray, times: FloatArray
    ) -> tuple[KinematicSpace, Tensor]:
        """States in which handles go to their targets.

        Args:
            handles: (H, 3), world frame, meters.
            targets: (H, 3).
            times: (T,).

        Returns:
            The space, and states (T, k) of it.
        """
        world = handle_paths(handles, targets, times / times[-1])
        paths = self._tensor(self.frame.normalized(world))
        at = self._tensor(self.frame.normalized(handles))
        if isinstance(self.space, LatentSpace) and on_one_body(handles, targets):
            latents = encoder_drag(
                self.space, at, paths, self.space.points, self.options.encoder_drag
            )
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
        """States (T, k) of the object under the action's velocities and forces, in SI units."""
        positions = Particles.from_space(space, torch.cat([handles, self.body]), self.frame)
        indices = np.arange(len(handles))
        velocity = None
        if action.velocities is not None:
            velocity = initial_velocity(positions, space.rest, indices, action.velocities)
        forces = [
            Force(f, points=indices[i : i + 1])
            for i, f in enumerate(() if action.forces is None else action.forces)
        ]
        ground = [] if support is None else [HalfSpace(support)]
        run = simulate(
            positions,
            times,
            space.rest,
            velocity,
            environment=Environment(forces=forces, obstacles=ground),
            options=self.options.dynamics,
        )
        if run.failure is not None:
            raise _Diverged(run.failure)
        return self._tensor(run.z)

    def _tensor(self, values: FloatArray | Tensor) -> Tensor:
        """Values in the space's dtype, on its device."""
        return (values if isinstance(values, Tensor) else torch.tensor(values)).to(self.space.rest)


def _cost(mesh: trimesh.Trimesh, vertices: FloatArray, action: Action) -> float:
    """Error of a motion: relative error of the handles at the end, plus stretch of the mesh.

    Args:
        mesh: the object at rest, world frame.
        vertices: (T, V, 3) of the motion.
        action: with the handles and their targets, if any.
    """
    # Relative change of the edges' lengths.
    a, b = mesh.edges_unique.T
    length = np.linalg.norm(vertices[0][a] - vertices[0][b], axis=1)
    long = length > 1e-6 * float(mesh.scale)
    last = np.linalg.norm(vertices[-1][a] - vertices[-1][b], axis=1)
    # Capped: the seam between two parts of a scan must stretch, which says nothing about rigidity.
    change = np.minimum(np.abs(last[long] / length[long] - 1), _MOST_STRETCH)
    stretch = np.average(change, weights=length[long])
    if action.targets is None:
        return float(stretch)

    # Handles attached to the mesh, at the end.
    face, weight = _attach(mesh, action.handles)
    corners = mesh.faces[face]
    offset = action.handles - np.einsum("hk,hkc->hc", weight, vertices[0][corners])
    end = np.einsum("hk,hkc->hc", weight, vertices[-1][corners]) + offset
    travel = float(np.linalg.norm(action.targets - action.handles))
    return float(np.linalg.norm(end - action.targets) / max(travel, 1e-9) + stretch)


def _attach(mesh: trimesh.Trimesh, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Face (H,) nearest to each point (H, 3), and barycentric coordinates (H, 3) in it."""
    found = raycasting_scene(mesh).compute_closest_points(np.asarray(points, np.float32))
    uv = found["primitive_uvs"].numpy().astype(float)
    return found["primitive_ids"].numpy().astype(int), np.column_stack([1 - uv.sum(1), uv])
