"""Rooms whose tests are measured, and the quick tests of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Room:
    """Code that faults are planted in.

    Attributes:
        source: file or folder, relative to the project.
        tests: patterns of its test files, relative to `tests/`.
        import_root: folder that the source's modules are imported from.
        conftest: the tests need the fixtures of a conftest.py.
    """

    source: str
    tests: tuple[str, ...]
    import_root: str = "."
    conftest: bool = True

    @property
    def files(self) -> list[Path]:
        """Python files of the source."""
        source = ROOT / self.source
        return [source] if source.is_file() else sorted(source.rglob("*.py"))

    @property
    def test_files(self) -> list[Path]:
        """Its test files, each once."""
        return sorted({file for name in self.tests for file in (ROOT / "tests").glob(name)})

    def module(self, path: Path) -> str:
        """Name that a source file is imported by."""
        parts = list(path.relative_to(ROOT / self.import_root).with_suffix("").parts)
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


ROOMS = {
    "planner": Room("flowplan/planner", ("test_planner*.py", "test_plan_options.py")),
    "validation": Room(
        "flowplan/validation", ("test_validat*.py", "test_timing.py", "test_certificate*.py")
    ),
    "attachment": Room("flowplan/attachment", ("test_attachment*.py",)),
    "geometry": Room("flowplan/geometry.py", ("test_geometry*.py",)),
    "collision": Room("flowplan/collision", ("test_collision*.py", "test_planner_stages.py")),
    "grasp": Room("flowplan/grasp", ("test_grasp_*.py",)),
    # The rules of execution need no ROS; the nodes' conftest.py does.
    "execution": Room(
        "ros_nodes/flowplan_ros/flowplan_ros/execution",
        ("ros/test_execution*.py",),
        import_root="ros_nodes/flowplan_ros",
        conftest=False,
    ),
}
