"""CHORD prompt: one sentence moves the objects of a scene; no handles, no joint, no law of motion.

    python examples/06_chord_prompt.py --prompt "Put the cup on the plate."

A video model (the small one that ships) judges films of the scene, and the motion follows its
judgment. Takes about 20 s on one idle core. Writes preview.gif, the motion from two sides, and
index.html.
"""

from pathlib import Path

import numpy as np
import trimesh
import tyro

import flowplan as fp
from flowplan.motion import sample_flow
from flowplan.viz.page import write_page
from flowplan.viz.run import Run
from generators.chord.options import Options
from generators.registry import factory


def main(
    prompt: str = "Put the cup on the plate.",
    iterations: int | None = None,
    seed: int = 0,
    out: Path = Path("runs/examples/06_chord_prompt"),
) -> Path:
    """Move things by a sentence.

    Args:
        prompt: What should happen, in English.
        iterations: Steps of the optimizer. Defaults to enough for the whole motion.
        seed: Random seed; another seed is another try.
        out: Folder for checkpoints, preview and page.
    """
    cup = fp.SceneObject(
        "cup",
        trimesh.creation.annulus(r_min=0.036, r_max=0.04, height=0.09, sections=48).subdivide(),
        fp.pose(translation=[0.45, -0.15, 0.046]),
    )
    plate = fp.SceneObject(
        "plate",
        trimesh.creation.cylinder(radius=0.11, height=0.015, sections=48).subdivide(),
        fp.pose(translation=[0.50, 0.15, 0.0085]),
    )
    scene = fp.Scene((cup,), support_height=0.0, obstacles=(plate,))

    # A run that was interrupted goes on from its checkpoint.
    options = Options(iterations=iterations, folder=out, resume=(out / "sample-0").exists())
    chord = factory("chord", options)(())
    (motion,) = chord(
        scene,
        fp.Prompt(prompt),
        seed=seed,
        progress=lambda share, text: print(f"{share:4.0%} {text}"),
    )

    end = motion.vertices[0][-1].mean(axis=0)
    apart = np.linalg.norm(end[:2] - plate.X_world_object[:2, 3])
    print(
        f"the cup's center ends {100 * apart:.1f} cm beside the plate's, {100 * end[2]:.1f} cm up"
    )

    page = write_page(
        out / "index.html", Run(scene, motion, sample_flow(scene, motion), title=prompt)
    )
    print(f"wrote {page} and {out / 'sample-0' / 'segment-0' / 'preview.gif'}")
    return page


if __name__ == "__main__":
    tyro.cli(main)
