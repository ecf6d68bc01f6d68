"""The optimization loop of CHORD: distilling a motion from a video model.

An iteration renders the scene, as it moves so far, from a few random cameras, computes the score of
these videos under the prior (`generators.chord.distill.score`), and takes a step of Adam. Meanwhile
the noise level falls, and with it learning rates, guidance and the weights of the regularizers
(`generators.chord.options.ChordOptions`).

All lengths are in the unit frame (`generators.chord.distill.stage`). The score's part of the loss
is averaged over the elements of the latent, as the regularizers are over frames and points, so that
weights do not depend on the size of a prior's videos.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowplan.motion import Progress, SceneMotion, silent
from flowplan.scene import Scene
from flowplan.utils.checks import FloatArray
from flowplan.utils.files import locked
from generators.chord.distill import checkpoint
from generators.chord.distill.schedule import anneal, linear, log_linear
from generators.chord.distill.score import score
from generators.chord.distill.stage import UNIT, Moved, RenderObserver, Stage
from generators.chord.motion.regularizers import arap, temporal
from generators.chord.motion.rig import Rig
from generators.chord.options import ChordOptions
from generators.chord.preview import write_preview
from generators.chord.priors.protocol import VideoPrior
from generators.chord.render.cameras import Cameras, sample
from generators.common.interrupt import held_signals

PREVIEW = "preview.gif"


@dataclass(frozen=True, eq=False)
class Distilled:
    """A distilled motion.

    Attributes:
        motion: of the scene's objects.
        residuals: (I,) RMS of z - z_0, the change that the prior asks for, in units of its latent,
            for every iteration.
    """

    motion: SceneMotion
    residuals: FloatArray


def distill(
    scene: Scene,
    prompt: str,
    prior: VideoPrior,
    options: ChordOptions | None = None,
    *,
    seed: int = 0,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> Distilled:
    """Find a motion of a scene's objects that the prior accepts as a video of the sentence.

    Args:
        scene: world frame, meters.
        prompt: the sentence.
        prior: the video model.
        options: see ChordOptions.
        seed: Random seed.
        folder: folder of checkpoints and previews, created if needed. Defaults to keeping none.
        resume: continue from the folder's checkpoint if it has one.
        progress: called after every iteration.

    Raises:
        ValueError: for a scene without objects; a sentence that the prior refuses; a folder with a
            checkpoint if `resume` is not set, or with one of another run.
        FloatingPointError: if the loss is no longer finite.
        KeyboardInterrupt: after SIGINT or SIGTERM, once the iteration is complete and a checkpoint
            is written.
    """
    options = options or ChordOptions()
    stage = Stage(
        scene, prior.paint, options.stage, device=prior.device, seed=seed, progress=progress
    )
    run = _Run(stage, prompt, prior, options, seed)
    path = None if folder is None else _checkpoint_path(folder, resume)

    # Options that do not change the result of an iteration do not tell runs apart.
    settings = replace(options, checkpoint_every=1, preview_every=1, segments=1, samples=1)
    size = prior.frames, prior.height, prior.width
    name = checkpoint.fingerprint(scene, settings, prompt, seed, *size)
    if path is not None and path.exists():
        run.residuals = checkpoint.restore(path, run.deformation, run.optimizer, name)

    clock = _Clock(len(run.residuals), options.iterations)
    with nullcontext() if folder is None else locked(folder), held_signals() as stop:
        while len(run.residuals) < options.iterations:
            run.iterate()
            done = len(run.residuals)
            message = f"iteration {done}: {run.state()}, {clock.left(done)}"
            progress(done / options.iterations, message)
            last = stop.asked or done == options.iterations
            if path is not None and (last or done % options.checkpoint_every == 0):
                checkpoint.save(path, run.deformation, run.optimizer, run.residuals, name)
            if path is not None and (last or done % options.preview_every == 0):
                write_preview(path.with_name(PREVIEW), stage, run.moved())
            if stop.asked:
                kept = f"; resume it from {path.parent}" if path else ""
                raise KeyboardInterrupt(
                    f"stopped after {done} of {options.iterations} iterations{kept}"
                )
    times = np.linspace(0.0, options.duration, prior.frames)
    return Distilled(SceneMotion(times, run.vertices(scene)), np.array(run.residuals))


def _checkpoint_path(folder: Path, resume: bool) -> Path:
    """The path of the folder's checkpoint; the folder is created if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / checkpoint.NAME
    if path.exists() and not resume:
        raise ValueError(f"{path} exists: resume that run, or give another folder")
    return path


class _Run:
    """The state of a distillation between two iterations.

    Attributes:
        deformation: the motion so far.
        optimizer: Adam over its parameters.
        residuals: one for each completed iteration.
    """

    def __init__(
        self, stage: Stage, prompt: str, prior: VideoPrior, options: ChordOptions, seed: int
    ) -> None:
        self._stage = stage
        self._prompt = prompt
        self._prior = prior
        self._options = options
        self._seed = seed

        meshes = [o.mesh_world for o in stage.scene.objects]
        self._rig = Rig(meshes, prior.frames, options.control, options.deformation, seed=seed)
        self.deformation = self._rig.deformation.to(stage.points[0].device)
        self.optimizer = torch.optim.Adam(
            [{"params": p, "name": name} for name, p in self.deformation.groups().items()],
            betas=options.betas,
            eps=1e-15,  # as in 3D Gaussian splatting: gradients may be tiny
        )
        self.residuals: list[float] = []
        self._schedules = Schedules.of(options, prior.guidance)

        # The points that follow the control points: the objects' clouds, then their Gaussians.
        self._bound = self._rig.bind([p.double().cpu().numpy() for p in stage.points])
        self._cloud = stage.tensor(np.concatenate(self._rig.clouds))
        self._neighbors, self._contacts = (
            torch.as_tensor(x, device=self._cloud.device)
            for x in (self._rig.neighbors, self._rig.contacts)
        )

    def iterate(self) -> None:
        """One step of the optimizer."""
        options, step = self._options, len(self.residuals)
        now = self._schedules.at(step)

        # All random numbers of an iteration come from the seed and its index.
        random = np.random.default_rng((self._seed, step))
        noise = torch.Generator().manual_seed(int(random.integers(2**62)))
        cameras = self._cameras(random)
        if isinstance(self._prior, RenderObserver):
            self._prior.observe(self._stage, cameras)

        # Render the motion so far.
        moved, clouds = self._moved(now.tau)
        shot = self._stage.render(moved, cameras, self._prior.sharpness)
        condition = self._prior.condition(self._prompt, shot.first, seed=self._seed)
        z = self._prior.encode(shot.video)

        # The gradient of the loss by z is the score g.
        g = score(
            self._prior,
            z.detach(),
            now.tau,
            condition,
            guidance=now.guidance,
            generator=noise,
            steps=options.denoising_steps,
            shift=options.shift,
        )
        loss = (z * g).mean()
        if now.temporal_weight:
            loss = loss + now.temporal_weight * temporal(shot.flow)
        if now.rigid_weight:
            loss = loss + now.rigid_weight * self._arap(clouds, random)
        self._step(loss, now)
        self.residuals.append(now.tau * float(g.square().mean().sqrt()))

        # Late frames restart once from the last early one.
        if len(self.residuals) == round(options.split_iteration * options.iterations):
            late = round(options.split_frame * (self._prior.frames - 1))
            self.deformation.restart_after(late, self.optimizer)

    def _cameras(self, random: np.random.Generator) -> Cameras:
        width, height = self._prior.width, self._prior.height
        options = self._options
        return sample(UNIT, options.views, width, height, options.stage.cameras, generator=random)

    def _step(self, loss: Tensor, now: ScheduleValues) -> None:
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} at iteration {len(self.residuals)}; lower motion_rate"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = getattr(now, f"{group['name']}_rate")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def _moved(self, tau: float) -> tuple[Moved, list[Tensor]]:
        """The moved Gaussians and the moved surface cloud (T, S_i, 3) of every object."""
        whole = self._rig(self._bound, fine=tau < self._options.fine_below)
        counts = [len(c) for c in self._rig.clouds]
        moved = [(p[:, n:], q[:, n:]) for (p, q), n in zip(whole, counts, strict=True)]
        return moved, [p[:, :n] for (p, _), n in zip(whole, counts, strict=True)]

    def _arap(self, clouds: Sequence[Tensor], random: np.random.Generator) -> Tensor:
        """ARAP of the objects' clouds (T, S_i, 3), at all moving frames or at random ones."""
        whole = torch.cat(list(clouds), dim=1)
        frames, count = np.arange(1, len(whole)), self._options.rigid_frames
        if count is not None and count < len(frames):
            frames = np.sort(random.choice(frames, count, replace=False))
        moved = whole[torch.as_tensor(frames, device=whole.device)]
        return arap(moved, self._cloud, self._neighbors, self._contacts)

    def _tau(self) -> float:
        """The noise level of the last iteration."""
        return self._schedules.at(max(len(self.residuals) - 1, 0)).tau

    @torch.no_grad()
    def moved(self) -> Moved:
        """The Gaussians as they move so far."""
        return self._moved(self._tau())[0]

    def state(self) -> str:
        """Noise level and residual of the last iteration, for the progress message."""
        return f"noise {self._tau():.2f}, residual {self.residuals[-1]:.4f}"

    @torch.no_grad()
    def vertices(self, scene: Scene) -> tuple[FloatArray, ...]:
        """Moved vertices (T, V, 3) of the scene's objects, world frame, meters."""
        found = self._rig(self._rig.bind_vertices(), fine=self._tau() < self._options.fine_below)
        out = []
        for obj, (positions, _) in zip(scene.objects, found, strict=True):
            displacement = (positions - positions[0]).double().cpu().numpy()
            out.append(obj.vertices_world + self._stage.framed.radius * displacement)
        return tuple(out)


@dataclass(frozen=True)
class ScheduleValues:
    """Values of all schedules at one iteration; see ChordOptions."""

    tau: float
    guidance: float
    motion_rate: float
    scale_rate: float
    rotation_rate: float
    temporal_weight: float
    rigid_weight: float


@dataclass(frozen=True, eq=False)
class Schedules:
    """All schedules of a run: for each field of `ScheduleValues`, its values (I,)."""

    values: dict[str, FloatArray]

    @classmethod
    def of(cls, options: ChordOptions, guidance: tuple[float, float]) -> Schedules:
        """The schedules of a distillation; `guidance` is the prior's own."""
        count = options.iterations
        values = {
            "tau": anneal(count, options.density, options.shift),
            "guidance": linear(options.guidance or guidance, count),
        }
        for name in ("motion_rate", "scale_rate", "rotation_rate"):
            values[name] = log_linear(getattr(options, name), count)
        for name in ("temporal_weight", "rigid_weight"):
            values[name] = linear(getattr(options, name), count)
        return cls(values)

    def at(self, step: int) -> ScheduleValues:
        """The values at one iteration, from 0."""
        return ScheduleValues(**{k: float(v[step]) for k, v in self.values.items()})


class _Clock:
    """Estimate of the time left, from the pace since this process began."""

    def __init__(self, done: int, total: int) -> None:
        self._begin, self._first, self._total = time.monotonic(), done, total

    def left(self, done: int) -> str:
        """The time left after `done` iterations, as hours:minutes:seconds."""
        pace = (time.monotonic() - self._begin) / max(done - self._first, 1)
        hours, rest = divmod(math.ceil(pace * (self._total - done)), 3600)
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d} left"
