"""`flowplan view`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval


@dataclass(frozen=True)
class View:
    """Show a run's folder in the browser until interrupted."""

    folder: Positional[Path]
    """Folder that `flowplan run` wrote."""
    robot: str = ""
    """Robot, by its name or the path of its .toml file, if the plan's own file has moved."""
    port: Annotated[int, Interval(1, 65535)] = 8080
    """Port to listen on."""

    def __post_init__(self) -> None:
        bounds.check(self)

    def run(self) -> int:
        from flowplan.robot import load_robot
        from flowplan.viz.viewer import serve_folder

        robot = load_robot(self.robot) if self.robot else None
        serve_folder(self.folder, port=self.port, robot=robot)
        return 0
