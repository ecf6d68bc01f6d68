"""CHORD as a generator: from a scene and a sentence to motions of the scene's meshes.

Samples differ in their seed; the one with the smallest residual of the prior at the end comes
first. A long motion is a chain of segments: each starts from the last frame of the one before, of
which the prior sees nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from flowplan.geometry import pose
from flowplan.motion import Generator, Progress, SceneMotion, silent
from flowplan.scene import Instruction, Prompt, Scene, SceneObject
from flowplan.utils.checks import FloatArray
from generators.chord.distill.loop import Distilled, distill
from generators.chord.distill.subject import require_subjects
from generators.chord.options import SMALL, ChordOptions, Options
from generators.chord.priors.protocol import VideoPrior

_FINAL_SHARE = 0.1
"""Share of the iterations, at the end, whose residuals rank a sample."""


def from_options(options: Options = Options()) -> Generator:
    """A generator that takes a `Prompt` and moves all objects of a scene.

    Raises:
        ValueError: for a prior that does not exist; from the generator, for an instruction that it
            cannot follow or that mentions things missing from the scene.
    """
    return from_prior(
        load_prior(options.prior, options.device),
        options.resolved(),
        folder=options.folder,
        resume=options.resume,
    )


@cache
def load_prior(name: str, device: str = "auto") -> VideoPrior:
    """A video model by name.

    Args:
        name: "choreographer" (the model that ships), "choreographer:WEIGHTS" (name or path of its
            weights), or "wan:MODEL" (Wan 2.2 from a local folder, or by its name on the hub).
        device: see `generators.common.device.resolve`.

    Raises:
        ValueError: for an unknown name, or a model or device that does not exist.
    """
    # Packages of a prior are loaded only if it is asked for.
    kind, _, model = name.partition(":")
    if kind == "choreographer":
        from generators.chord.priors.choreographer.prior import Choreographer

        return Choreographer.load(model or "choreographer-small", device)
    if kind == "wan" and model:
        from generators.chord.priors.wan.load import load

        return load(model, device=device)
    raise ValueError(
        f"prior: got {name!r}, expected choreographer, choreographer:WEIGHTS or wan:MODEL"
    )


def from_prior(
    prior: VideoPrior,
    options: ChordOptions = SMALL,
    *,
    folder: Path | None = None,
    resume: bool = False,
) -> Generator:
    """A generator that distills from a given prior.

    Args:
        prior: the video model.
        options: see ChordOptions.
        folder: folder of checkpoints and previews, with one folder for each sample and segment.
            Defaults to keeping none.
        resume: continue from the checkpoints in `folder`.
    """

    def generate(
        scene: Scene, instruction: Instruction, *, seed: int = 0, progress: Progress = silent
    ) -> list[SceneMotion]:
        prompt = _require_prompt(scene, instruction)
        # Independent samples, ranked by the prior's final residual.
        chains = [
            _chain(
                scene,
                prompt,
                prior,
                options,
                seed=(seed, sample),
                folder=None if folder is None else folder / f"sample-{sample}",
                resume=resume,
                progress=_partial_progress(progress, sample, options.samples),
            )
            for sample in range(options.samples)
        ]
        return [_joined(chain) for chain in sorted(chains, key=_mean_residual)]

    return generate


def _require_prompt(scene: Scene, instruction: Instruction) -> str:
    """The text of an instruction that can be followed in this scene."""
    if not isinstance(instruction, Prompt):
        kind = type(instruction).__name__
        raise ValueError(
            f'instruction: got a {kind}; chord takes a Prompt, such as Prompt("close the laptop")'
        )
    if not scene.objects:
        raise ValueError(
            "Scene.objects: expected at least one object to move, got none; scan or load one first"
        )
    require_subjects(scene, instruction.text)
    return instruction.text


def _chain(
    scene: Scene,
    prompt: str,
    prior: VideoPrior,
    options: ChordOptions,
    *,
    seed: tuple[int, int],
    folder: Path | None,
    resume: bool,
    progress: Progress,
) -> list[Distilled]:
    """Consecutive distillations, each from the last frame of the one before."""
    chain: list[Distilled] = []
    for segment in range(options.segments):
        # A seed of its own for each sample and segment.
        found = distill(
            scene,
            prompt,
            prior,
            options,
            seed=int(np.random.SeedSequence((*seed, segment)).generate_state(1)[0]),
            folder=None if folder is None else folder / f"segment-{segment}",
            resume=resume,
            progress=_partial_progress(progress, segment, options.segments),
        )
        chain.append(found)
        # The next segment starts where this one ends.
        scene = _posed(scene, [v[-1] for v in found.motion.vertices])
    return chain


def _posed(scene: Scene, vertices: Sequence[FloatArray]) -> Scene:
    """The scene with its objects' vertices moved to (V, 3) each, world frame, meters."""
    objects = []
    for obj, moved in zip(scene.objects, vertices, strict=True):
        mesh = obj.mesh.copy()
        mesh.vertices = moved
        objects.append(SceneObject(obj.name, mesh, pose()))
    return replace(scene, objects=tuple(objects))


def _joined(chain: Sequence[Distilled]) -> SceneMotion:
    """The motions of a chain as one; a segment's first frame repeats the last one before it."""
    times, vertices = chain[0].motion.times, [[v] for v in chain[0].motion.vertices]
    for found in chain[1:]:
        # Each segment's clock goes on from the end of the last.
        times = np.concatenate([times, times[-1] + found.motion.times[1:]])
        for whole, v in zip(vertices, found.motion.vertices, strict=True):
            whole.append(v[1:])
    return SceneMotion(times, tuple(np.concatenate(v) for v in vertices))


def _mean_residual(chain: Sequence[Distilled]) -> float:
    """Mean residual of the last iterations of all segments."""
    means = []
    for found in chain:
        count = max(1, round(_FINAL_SHARE * len(found.residuals)))
        means.append(found.residuals[-count:].mean())
    return float(np.mean(means))


def _partial_progress(progress: Progress, index: int, count: int) -> Progress:
    """Progress of one of several parts, as progress of the whole."""
    prefix = f"{index + 1} of {count}, " if count > 1 else ""
    return lambda fraction, message: progress((index + fraction) / count, prefix + message)
