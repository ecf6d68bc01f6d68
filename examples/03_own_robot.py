"""Your own robot: a .toml file beside a URDF and meshes.

    python examples/03_own_robot.py

The robot of this example is a Panda with lower velocity limits. Prints a table: one
motion, planned for each robot.
"""

import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import trimesh
import tyro
from rich.console import Console
from rich.table import Table

import flowplan as fp
from generators.kinematic import kinematic


def write_robot(folder: Path) -> Path:
    """A robot description made from the Panda's; loading checks every name against the URDF."""
    source = Path(str(resources.files("robot_configs")))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source / "panda", folder / "panda", dirs_exist_ok=True)
    text = (source / "panda.toml").read_text()
    for old, new in (
        ('name = "panda"', 'name = "slow_panda"'),
        (
            "velocity = [2.1750, 2.1750, 2.1750, 2.1750, 2.6100,",
            "velocity = [0.6, 0.6, 0.6, 0.6, 0.6,",
        ),
    ):
        assert old in text, f"panda.toml has changed: no {old}"
        text = text.replace(old, new)
    path = folder / "slow_panda.toml"
    path.write_text(text)
    return path


def main(out: Path = Path("runs/examples/03_own_robot")) -> Path:
    """Plan one motion with three robots.

    Args:
        out: Folder for the robot's files and the table.
    """
    own = write_robot(out)

    brick = fp.SceneObject(
        "brick",
        trimesh.creation.box([0.05, 0.04, 0.08]).subdivide().subdivide(),
        fp.pose(translation=[0.45, -0.10, 0.041]),
    )
    scene = fp.Scene((brick,), support_height=0.0)
    handles = brick.vertices_world[:8]
    action = fp.Action("brick", handles, targets=handles + [0.0, 0.25, 0.0], duration=2.0)
    (motion,) = kinematic([fp.Rigid("brick", lift=0.10)])(scene, action)

    table = Table(title="One motion, three robots")
    for column in ("robot", "plan", "duration, s", "clearance, mm", "fastest joint, rad/s"):
        table.add_column(column)
    for source in ("panda", "ur5e", own):
        # The base may stand anywhere: here 5 cm behind the world's origin.
        robot = fp.load_robot(source, X_world_base=fp.pose(translation=[-0.05, 0.0, 0.0]))
        # "fast" runs as fast as the limits of the joints allow, so that the slower robot shows.
        result = fp.plan(scene, motion, robot, options=fp.PlanOptions(timing="fast"))
        if isinstance(result, fp.NoPlan):
            table.add_row(robot.name, "none", "", "", "")
            continue
        trajectory = result.trajectory
        table.add_row(
            robot.name,
            result.contact.kind[0],
            f"{np.ptp(trajectory.times):.1f}",
            f"{1000 * result.certificate.clearance:.1f}",
            f"{np.abs(trajectory.qd).max():.2f}",
        )
    console = Console(record=True, width=100)
    console.print(table)
    path = out / "table.txt"
    path.write_text(console.export_text())
    print(f"wrote {path}")
    return path


if __name__ == "__main__":
    tyro.cli(main)
