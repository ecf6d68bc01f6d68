"""CHORD as a generator: a scene and a sentence, to motions of the scene's meshes.

Samples differ in their seed, and the one in which the prior would have changed the least at the end comes first. A long
motion is a chain: each segment starts from the last frame of the one before, of which the prior sees nothing else.
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

_LAST = 0.1  # share of the iterations whose residuals judge a sample


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
    """A video model: "choreographer", our own; "choreographer:WEIGHTS", its weights by name or path; or "wan:MODEL",
    Wan 2.2 from a local folder or by its name on the hub.

    Raises:
        ValueError: for another name, or a model that is not there.
    """
    kind, _, what = name.partition(":")
    if kind == "choreographer":
        from generators.chord.priors.choreographer.prior import Choreographer

        return Choreographer.load(what or "choreographer-small", device)
    if kind == "wan" and what:
        from generators.chord.priors.wan.load import load

        return load(what, device=device)
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
    """The same with a prior that is at hand.

    Args:
        folder: of checkpoints and previews, in a folder for each sample and segment; none are kept where not given.
        resume: go on from what the folder holds.
    """

    def generate(
        scene: Scene, instruction: Instruction, *, seed: int = 0, progress: Progress = silent
    ) -> list[SceneMotion]:
        prompt = _accept(scene, instruction)
        chains = [
            _chain(
                scene,
                prompt,
                prior,
                options,
                seed=(seed, sample),
                folder=None if folder is None else folder / f"sample-{sample}",
                resume=resume,
                progress=_part(progress, sample, options.samples),
            )
            for sample in range(options.samples)
        ]
        return [_joined(chain) for chain in sorted(chains, key=_dislike)]

    return generate


def _accept(scene: Scene, instruction: Instruction) -> str:
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
    """One distillation after the other, each from where the one before ended."""
    chain: list[Distilled] = []
    for segment in range(options.segments):
        found = distill(
            scene,
            prompt,
            prior,
            options,
            seed=int(np.random.SeedSequence((*seed, segment)).generate_state(1)[0]),
            folder=None if folder is None else folder / f"segment-{segment}",
            resume=resume,
            progress=_part(progress, segment, options.segments),
        )
        chain.append(found)
        scene = _posed(scene, [v[-1] for v in found.motion.vertices])
    return chain


def _posed(scene: Scene, vertices: Sequence[FloatArray]) -> Scene:
    """The scene with its objects' vertices (V, 3) where they are said to be, world frame, meters."""
    objects = []
    for obj, moved in zip(scene.objects, vertices, strict=True):
        mesh = obj.mesh.copy()
        mesh.vertices = moved
        objects.append(SceneObject(obj.name, mesh, pose()))
    return replace(scene, objects=tuple(objects))


def _joined(chain: Sequence[Distilled]) -> SceneMotion:
    """The chain's motions as one; a segment's first frame is the last of the one before."""
    times, vertices = chain[0].motion.times, [[v] for v in chain[0].motion.vertices]
    for found in chain[1:]:
        times = np.concatenate([times, times[-1] + found.motion.times[1:]])
        for whole, v in zip(vertices, found.motion.vertices, strict=True):
            whole.append(v[1:])
    return SceneMotion(times, tuple(np.concatenate(v) for v in vertices))


def _dislike(chain: Sequence[Distilled]) -> float:
    """How much the prior would still change at the end."""
    return float(
        np.mean([f.residuals[-max(1, round(_LAST * len(f.residuals))) :].mean() for f in chain])
    )


def _part(progress: Progress, index: int, count: int) -> Progress:
    """Progress of one of several parts as that of the whole."""
    prefix = f"{index + 1} of {count}, " if count > 1 else ""
    return lambda fraction, message: progress((index + fraction) / count, prefix + message)
