"""Depth cameras around the scene, rendered in a process of their own.

The software renderer takes a tenth of a second per image, during which physics and control must go
on. The process builds the same world, places everything as in a `Snapshot`, and renders. It ends
when its end of the pipe closes, however its owner ended.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from flowplan_sim_hw.simulation import ROBOT, Episode, Snapshot
from sim_envs.camera import Camera, capture
from sim_envs.scan_views import scan_noise, viewpoints
from sim_envs.task import TaskSetup
from sim_envs.world import World


@dataclass(frozen=True)
class CameraOptions:
    """Depth cameras, all alike, around the objects of the task."""

    count: Annotated[int, Interval(0, 64)] = 8
    """Number of cameras."""
    rate: Annotated[float, Interval(0.01, 100)] = 1.0
    """Images per second and camera while somebody subscribes; fewer on a slow machine."""
    width: Annotated[int, Interval(2, 4096)] = 320
    """Columns."""
    height: Annotated[int, Interval(2, 4096)] = 240
    """Rows."""
    noise: bool = True
    """Add the episode's depth noise."""
    robot: bool = False
    """The cameras see the robot too. Otherwise it has no depth, as after a filter of its own."""

    def __post_init__(self) -> None:
        bounds.check(self)
        Camera(self.width, self.height)


@dataclass(frozen=True, eq=False)
class Shot:
    """One image of one camera.

    Attributes:
        camera: number of the camera.
        time: simulated seconds.
        depth: (H, W) float32, meters, 0 for no return.
        color: (H, W, 3) uint8 RGB.
        intrinsics: (3, 3) pixels.
        X_world_camera: (4, 4), OpenCV convention.
    """

    camera: int
    time: float
    depth: NDArray[np.float32]
    color: NDArray[np.uint8]
    intrinsics: FloatArray
    X_world_camera: FloatArray


class Cameras:
    """The rendering process, seen from outside.

    Attributes:
        options: the cameras.
        busy: True while requested images are still to come.
    """

    def __init__(self, options: CameraOptions, episode: Episode) -> None:
        """Start the process.

        Args:
            options: the cameras.
            episode: episode to build at once; another one is built if a snapshot shows it.
        """
        self.options = options
        self.busy = False
        self._shots: list[Shot] = []
        # Spawned: the process shares no memory with the simulation.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, options, episode), daemon=True)
        self._process.start()
        theirs.close()

    def shoot(self, snapshot: Snapshot) -> None:
        """Request an image of every camera."""
        self.busy = True
        try:
            self._pipe.send(snapshot)
        except OSError:
            raise self._death() from None

    def arrived(self) -> list[Shot]:
        """Requested images in the order of the cameras, once the last one has come; else none.

        Raises:
            RuntimeError: if the process has died; so does `shoot`.
        """
        try:
            while self._pipe.poll():
                self._shots.append(self._pipe.recv())
        except (EOFError, OSError):
            raise self._death() from None
        if len(self._shots) < self.options.count:
            return []
        shots, self._shots, self.busy = self._shots, [], False
        return shots

    def _death(self) -> RuntimeError:
        self._process.join(1.0)
        return RuntimeError(f"the cameras' process ended with status {self._process.exitcode}")

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.terminate()
        self._process.join()


def _serve(pipe: Connection, options: CameraOptions, episode: Episode) -> None:
    """Answer snapshots with images until the pipe closes."""
    # Ctrl-C goes to the whole process group; the owner closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)  # physics and control come first
    # Same world as the simulation, rebuilt if another episode is shown.
    stage = _Stage(episode, options)
    try:
        while True:
            snapshot: Snapshot = pipe.recv()
            if stage.episode != snapshot.episode:
                stage.world.close()
                stage = _Stage(snapshot.episode, options)
            stage.arrange(snapshot)
            for camera in range(options.count):
                pipe.send(stage.shot(camera, snapshot.time))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass


class _Stage:
    """A world like the simulated one, at rest."""

    def __init__(self, episode: Episode, options: CameraOptions) -> None:
        self.episode = episode
        self.world = World()
        self._setup: TaskSetup = episode.build(self.world)[1]
        self._views = viewpoints(self.world, self._setup, max(options.count, 1))
        self._camera = Camera(options.width, options.height)
        self._noise = scan_noise(self._setup) if options.noise else None
        self._unseen = () if options.robot else (ROBOT,)
        self._taken = 0

    def arrange(self, snapshot: Snapshot) -> None:
        for name, X_world_base in snapshot.bases.items():
            self.world.set_base_pose(self.world.bodies[name], X_world_base)
        for name, positions in snapshot.joints.items():
            self.world.set_joint_positions(self.world.bodies[name], positions)

    def shot(self, camera: int, time: float) -> Shot:
        # Noise differs from image to image, but not from run to run.
        X, seed = self._views[camera], (self.episode.seed << 20) + self._taken
        self._taken += 1
        frame = capture(
            self.world, X, self._camera, noise=self._noise, seed=seed, unseen=self._unseen
        )
        assert frame.color is not None
        return Shot(camera, time, frame.depth, frame.color, frame.intrinsics, X)
