"""Recording of one episode: files of each stage, measures, a video and an HTML page."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.tasks.episode import Episode, EpisodeSpec, GeneratorFactory, Stages, run_episode
from flowplan.geometry import look_at
from flowplan.io import npz
from flowplan.io.gltf import export_gltf
from flowplan.motion import Progress, sample_flow, silent
from flowplan.planner import Plan, PlanOptions
from flowplan.report import feasibility
from flowplan.scan import write_frames
from flowplan.utils.files import atomic_write, locked
from flowplan.viz.page import write_page
from flowplan.viz.run import read_run
from sim_envs.camera import Recorder, write_video

FILES = (
    "scene.npz",
    "motion.npz",
    "flow.npz",
    "motion.glb",
    "candidates.npz",
    "plan.npz",
    "feasibility.txt",
    "rollout.npz",
    "index.html",
    "video.mp4",
    "metrics.json",
)
"""Files of a run in the order in which they are written, beside the folder of depth frames."""
_CAMERA, _CAMERA_TARGET = (1.35, -1.0, 0.85), (0.4, 0.0, 0.15)
"""Position of the video's camera, and the point that it looks at, world frame, meters."""


def run_and_record(
    spec: EpisodeSpec,
    generator: GeneratorFactory,
    folder: Path,
    *,
    options: PlanOptions = PlanOptions(),
    video: bool = True,
    progress: Progress = silent,
) -> tuple[Episode, str]:
    """Run an episode and write the output of each of its stages into a folder.

    An earlier run's files stay until the episode is over, and then all of them are replaced:
    metrics.json is written last. The folder is locked meanwhile.

    Files: frames/ (depth images), scene.npz, motion.npz, motion.glb, flow.npz, candidates.npz,
    plan.npz, feasibility.txt, rollout.npz, metrics.json, video.mp4 and index.html, as far as the
    episode got.

    Args:
        spec: specification of the episode.
        generator: makes a generator from the task's laws of motion.
        folder: folder to write, created if missing.
        options: of the planner; unused by the method "kabsch_ik".
        video: True to record a video of the execution.
        progress: called before each stage.

    Returns:
        The episode, and the feasibility report (empty for a method without one).

    Raises:
        ValueError: If another run writes to the folder.
    """
    with locked(folder):
        return _run_and_record(spec, generator, folder, options, video, progress)


def _run_and_record(
    spec: EpisodeSpec,
    generator: GeneratorFactory,
    folder: Path,
    options: PlanOptions,
    video: bool,
    progress: Progress,
) -> tuple[Episode, str]:
    # The episode, filmed if asked for.
    stages = Stages()
    recorder = Recorder(look_at(_CAMERA, _CAMERA_TARGET)) if video else None
    episode = run_episode(
        spec, generator, options=options, stages=stages, recorder=recorder, progress=progress
    )
    # Files of the stages that it reached.
    progress(0.8, "writing")
    for name in reversed(FILES):
        (folder / name).unlink(missing_ok=True)
    report = feasibility(stages.plan) if stages.plan is not None else ""
    _write_stages(folder, stages, report)
    if recorder is not None and recorder.frames:
        progress(0.9, "filming")
        write_video(recorder.frames, folder / "video.mp4")
    with atomic_write(folder / "metrics.json") as f:
        f.write((json.dumps(_metrics(episode, stages), indent=1) + "\n").encode())
    progress(1.0, episode.outcome)
    return episode, report


def _write_stages(folder: Path, stages: Stages, report: str) -> None:
    write_frames(folder / "frames", stages.frames)
    scene, motion, plan = stages.scene, stages.motion, stages.plan
    if scene is None or motion is None:  # an episode that did not raise has both
        return
    npz.save(folder / "scene.npz", scene)
    npz.save(folder / "motion.npz", motion)
    npz.save(folder / "flow.npz", sample_flow(scene, motion))
    export_gltf(folder / "motion.glb", scene, motion)
    if isinstance(plan, Plan):
        npz.save(folder / "candidates.npz", plan.candidates)
        npz.save(folder / "plan.npz", plan)
    if report:
        with atomic_write(folder / "feasibility.txt") as file:
            file.write((report + "\n").encode())
    if stages.rollout is not None:
        npz.save(folder / "rollout.npz", stages.rollout)
    write_page(folder / "index.html", read_run(folder))


def _metrics(episode: Episode, stages: Stages) -> dict[str, Any]:
    metrics: dict[str, Any] = asdict(episode)
    if isinstance(stages.plan, Plan):
        plan = stages.plan
        # Worst values over the plan, in SI units.
        metrics["plan"] = {
            "contact": plan.contact.kind[0],
            "attempts": len(plan.attempts),
            "max_slip_m": float(plan.attachment.slip.max()),
            "max_position_error_m": float(plan.trajectory.position_error.max()),
            "max_rotation_error_rad": float(plan.trajectory.rotation_error.max()),
            "clearance_m": float(plan.certificate.clearance),
            "duration_s": float(np.ptp(plan.trajectory.times)),
            "released": plan.ending.released,
            "ending": plan.ending.reason,
        }
    metrics["machine"] = (
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    )
    return metrics
