"""Ablations of CHORD with the choreographer: without parts, with a wrong sentence, and a static
baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from experiments.chord.evaluate import Method
from flowplan.motion import SceneMotion
from flowplan.scene import Prompt, Scene
from generators.chord.generate import from_prior
from generators.chord.options import SMALL, ChordOptions
from generators.chord.priors.choreographer.scenes.prompted import PromptedScene
from generators.chord.priors.choreographer.scenes.scenes import wrong_text
from generators.chord.priors.protocol import VideoPrior

METHODS = ("chord", "static", "wrong_prompt")
"""The method, a static scene, and the method with a wrong sentence."""
ABLATIONS = (
    *("uniform", "no_fenwick", "no_fine", "no_coarse", "no_temporal", "no_arap"),
    *("one_piece", "three_looks"),
)
"""CHORD without its density of noise levels, its tree over time, one of its two levels, or one of
its regularizers (4.3); without control points of connected pieces, which are ours; and with three
denoising steps."""


def ablation(name: str, options: ChordOptions) -> ChordOptions:
    """Options of an ablation."""
    # One change each.
    parts = options.deformation
    return {
        "uniform": replace(options, density="uniform"),
        "no_fenwick": replace(options, deformation=replace(parts, temporal="independent")),
        "no_fine": replace(options, deformation=replace(parts, levels="coarse")),
        "no_coarse": replace(options, deformation=replace(parts, levels="fine")),
        "no_temporal": replace(options, temporal_weight=(0.0, 0.0)),
        "no_arap": replace(options, rigid_weight=(0.0, 0.0)),
        "one_piece": replace(options, control=replace(options.control, pieces=1)),
        "three_looks": replace(options, denoising_steps=3),
    }[name]


def methods(
    prior: VideoPrior, names: Sequence[str] = METHODS, options: ChordOptions = SMALL
) -> dict[str, Method]:
    """Methods by name, from METHODS and ABLATIONS."""

    def distilled(options: ChordOptions) -> Method:
        generator = from_prior(prior, options)

        def solve(prompted: PromptedScene, *, seed: int) -> SceneMotion:
            return generator(prompted.scene, Prompt(prompted.text), seed=seed)[0]

        return solve

    # Under neutral names a wrong sentence is not refused.
    told = from_prior(prior, options)

    def misled(prompted: PromptedScene, *, seed: int) -> SceneMotion:
        return told(_nameless(prompted.scene), Prompt(wrong_text(prompted, seed)), seed=seed)[0]

    # All of them by name; generators are made, but nothing runs yet.
    every: dict[str, Method] = {
        "chord": distilled(options),
        "static": static,
        "wrong_prompt": misled,
    }
    every |= {name: distilled(ablation(name, options)) for name in ABLATIONS}
    return {name: every[name] for name in names}


def _nameless(scene: Scene) -> Scene:
    """The scene with neutral names, for which no sentence is refused."""
    objects, obstacles = (
        tuple(replace(thing, name=f"thing_{i}") for i, thing in enumerate(things, start))
        for things, start in ((scene.objects, 0), (scene.obstacles, len(scene.objects)))
    )
    return replace(scene, objects=objects, obstacles=obstacles)


def static(prompted: PromptedScene, *, seed: int) -> SceneMotion:
    """A motion in which nothing moves."""
    rest = (obj.vertices_world for obj in prompted.scene.objects)
    return SceneMotion(np.array([0.0, 1.0]), tuple(np.stack([v, v]) for v in rest))
