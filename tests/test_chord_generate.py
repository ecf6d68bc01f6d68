"""CHORD as a generator, and scene files: prompts in, motions of meshes out, and every mistake
named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import moving_boxes
import numpy as np
import pytest
import torch
import trimesh

from experiments.chord.ablations import methods
from flowplan.cli import dispatch
from flowplan.io import npz
from flowplan.motion import SceneMotion
from flowplan.scene import Action, Prompt, Scene, SceneObject
from generators.chord.generate import from_options, from_prior, load_prior
from generators.chord.options import (
    PAPER,
    SMALL,
    ChordOptions,
    ControlOptions,
    GaussianOptions,
    Options,
    StageOptions,
    default_options,
)
from generators.chord.priors.choreographer.config import ChoreographerConfig
from generators.chord.priors.choreographer.model import VideoTransformer
from generators.chord.priors.choreographer.prior import Choreographer
from generators.chord.priors.choreographer.scenes.scenes import draw, wrong_text
from generators.chord.scene_file import MOTION, SCENE, read_job, run_job
from generators.registry import factory, takes

BRIEF = ChordOptions(
    iterations=3,
    views=1,
    motion_rate=(3e-2, 3e-2),
    stage=StageOptions(gaussians=GaussianOptions(count=60, iterations=0)),
    control=ControlOptions(coarse=4, fine=8, surface_points=120),
)


@pytest.fixture(scope="module")
def prior() -> Choreographer:
    """Knows nothing, quickly."""
    torch.manual_seed(0)
    config = ChoreographerConfig(frames=4, size=24, patch=6, width=16, blocks=1, heads=2)
    model = VideoTransformer(config)
    torch.nn.init.normal_(model.out.weight, std=0.1)
    return Choreographer(
        model, embed=lambda sentences: torch.ones(len(sentences), config.text_width)
    )


@pytest.fixture(scope="module")
def scene() -> Scene:
    return moving_boxes.pick_and_place()[0]


def test_a_prompt_becomes_motions_of_all_meshes(prior: Choreographer, scene: Scene) -> None:
    said: list[tuple[float, str]] = []
    motions = from_prior(prior, replace(BRIEF, samples=2, duration=3.0))(
        scene,
        Prompt("put the cup on the coaster"),
        progress=lambda share, word: said.append((share, word)),
    )
    assert len(motions) == 2
    for motion in motions:
        assert motion.times.tolist() == [0, 1, 2, 3]
        assert [v.shape for v in motion.vertices] == [
            (4, *o.mesh.vertices.shape) for o in scene.objects
        ]
        assert np.allclose(motion.vertices[0][0], scene.objects[0].vertices_world, atol=1e-12)
    assert not np.array_equal(motions[0].vertices[0], motions[1].vertices[0])
    shares = [share for share, _ in said]
    assert shares[-1] == 1.0
    assert any(word.startswith("2 of 2, iteration 3") and "left" in word for _, word in said)


def test_a_chain_goes_on_from_where_its_last_segment_ended(
    prior: Choreographer, scene: Scene
) -> None:
    one = from_prior(prior, BRIEF)(scene, Prompt("go"), seed=5)[0]
    two = from_prior(prior, replace(BRIEF, segments=2))(scene, Prompt("go"), seed=5)[0]
    assert np.allclose(two.times, np.linspace(0, 4, 7))
    for short, long in zip(one.vertices, two.vertices, strict=True):
        assert np.array_equal(long[:4], short)
        assert np.abs(long[6] - long[3]).max() > 1e-5


def test_what_is_not_a_prompt_and_a_scene_without_objects_are_refused(
    prior: Choreographer, scene: Scene
) -> None:
    generate = from_prior(prior, BRIEF)
    with pytest.raises(ValueError, match=r"instruction: got a Action; chord takes a Prompt"):
        generate(scene, Action("cup", np.zeros((1, 3)), targets=np.ones((1, 3))))
    with pytest.raises(ValueError, match=r"Scene\.objects: expected at least one object to move"):
        generate(Scene((), obstacles=scene.objects), Prompt("go"))
    with pytest.raises(ValueError, match="speaks of a laptop, and the scene has mug"):
        generate(Scene((SceneObject("mug", scene.objects[0].mesh),)), Prompt("close the laptop"))


def test_a_wrong_sentence_of_the_evaluation_may_speak_of_what_is_not_there(
    prior: Choreographer,
) -> None:
    prompted = draw("door_cabinet", 0, split="held_out", paraphrased=True)
    assert "cabinet" not in wrong_text(prompted, 0)
    motion = methods(prior, ["wrong_prompt"], BRIEF)["wrong_prompt"](prompted, seed=0)
    assert [v.shape[1:] for v in motion.vertices] == [
        o.mesh.vertices.shape for o in prompted.scene.objects
    ]


def test_priors_go_by_name(tmp_path: Path) -> None:
    assert takes("chord") == "prompt"
    assert (default_options("choreographer"), default_options("wan:somewhere")) == (SMALL, PAPER)
    with pytest.raises(
        ValueError, match="expected choreographer, choreographer:WEIGHTS or wan:MODEL"
    ):
        load_prior("sora")
    with pytest.raises((ValueError, OSError), match="nowhere"):
        load_prior(f"choreographer:{tmp_path / 'nowhere.safetensors'}")
    with pytest.raises((ValueError, OSError), match="nowhere"):
        load_prior(f"wan:{tmp_path / 'nowhere'}")


def test_the_weights_that_ship_are_there_and_make_a_generator() -> None:
    assert callable(factory("chord")(()))
    model = load_prior("choreographer").model  # type: ignore[attr-defined]
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(11.25e6, rel=0.02)
    assert callable(from_options(Options(distillation=BRIEF)))


def _write_job(folder: Path, text: str) -> Path:
    trimesh.creation.box(extents=[0.05, 0.03, 0.1]).export(folder / "cup.ply")
    path = folder / "job.toml"
    path.write_text(text)
    return path


JOB = """
prompt = "push the cup aside"
seed = 3
[[objects]]
source = "cup.ply"
name = "cup"
position = [0.45, -0.15]
yaw = 90
[[obstacles]]
source = "cup.ply"
name = "wall"
position = [0.6, 0.15]
"""


def test_a_scene_file_says_what_there_is_and_what_should_happen(
    prior: Choreographer, tmp_path: Path
) -> None:
    job = read_job(_write_job(tmp_path, JOB))
    assert (job.prompt, job.seed) == (Prompt("push the cup aside"), 3)
    (cup,), (wall,) = job.scene.objects, job.scene.obstacles
    assert (cup.name, wall.name) == ("cup", "wall")
    assert np.allclose(np.ptp(cup.vertices_world, axis=0), [0.03, 0.05, 0.1], atol=1e-6)
    assert np.allclose(cup.vertices_world.mean(0)[:2], [0.45, -0.15], atol=1e-6)
    assert np.allclose(wall.vertices_world[:, 2].min(), 0, atol=1e-6)
    motions = run_job(job, prior, tmp_path / "out", replace(BRIEF, samples=2))
    assert npz.load(tmp_path / "out" / SCENE, Scene).objects[0].name == "cup"
    for index, motion in enumerate(motions):
        kept = npz.load(tmp_path / "out" / MOTION.format(index), SceneMotion)
        assert np.allclose(kept.vertices[0], motion.vertices[0], atol=1e-6)
    again = run_job(job, prior, tmp_path / "out", replace(BRIEF, samples=2), resume=True)
    assert np.array_equal(again[0].vertices[0], motions[0].vertices[0])
    saved = _write_job(tmp_path, 'prompt = "go"\nscene = "out/scene.npz"\n')
    assert read_job(saved).scene.obstacles[0].name == "wall"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('seed = 1\n[[objects]]\nsource = "cup.ply"\n', "prompt"),
        ('prompt = "go"\n', "expected either objects or a scene"),
        (
            'prompt = "go"\nscene = "a.npz"\n[[objects]]\nsource = "cup.ply"\n',
            "expected either objects or a scene",
        ),
        ('prompt = "go"\n[[objects]]\nsource = "no.ply"\n', "no.ply"),
        ('prompt = "go"\n[[objects]]\nsource = "cup.ply"\nposition = [1.0]\n', "position"),
        ('prompt = "go"\n[[objects]]\nsource = "cup.ply"\nscale = 2\n', "scale"),
    ],
)
def test_a_mistake_in_a_scene_file_is_named(text: str, word: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, OSError), match=word):
        read_job(_write_job(tmp_path, text))


def test_the_command_line_refuses_what_it_would_have_to_ignore(tmp_path: Path) -> None:
    job = _write_job(tmp_path, JOB)
    with pytest.raises(ValueError, match="has its own prompt, seed and folder"):
        dispatch.call(["generate", "chord", str(job), "--seed", "1"])
    with pytest.raises(ValueError, match="expected either --prompt or a JSON file"):
        dispatch.call(["generate", "chord", str(tmp_path / "scene.npz")])
