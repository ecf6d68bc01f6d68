"""Parameter files of flowplan_bringup, written from the options of the nodes.

    . build/ros/environment.sh && python ros_nodes/write_config.py

Each file lists all parameters of a node with their defaults; the comments are the options'
docstrings.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import yaml
from flowplan_ros.executor_node import ExecutorNodeOptions
from flowplan_ros.flow_node import FlowNodeOptions
from flowplan_ros.lifecycle_manager import ManagerOptions
from flowplan_ros.parameters import Spec, specs
from flowplan_ros.plan_node import PlanNodeOptions
from flowplan_ros.scan_node import ScanNodeOptions
from flowplan_sim_hw.sim_node import SimOptions

CONFIG = Path(__file__).parent / "flowplan_bringup" / "config"
NODES: dict[str, tuple[Any, Collection[str]]] = {
    "executor_node": (ExecutorNodeOptions(), ()),
    "flow_node": (FlowNodeOptions(), ()),
    "lifecycle_manager": (ManagerOptions(), ()),
    "plan_node": (PlanNodeOptions(), ()),
    "scan_node": (ScanNodeOptions(), ("scan.names",)),
    "sim_node": (SimOptions(), ()),
}
"""Options of each node, and the names of those that are not parameters."""


def text(node: str) -> str:
    """Parameter file of a node."""
    options, left_out = NODES[node]
    declared = [spec for spec in specs(options) if spec.name not in left_out]
    head = f"# Parameters of {node}: all of them, with their defaults.\n/**:\n  ros__parameters:\n"
    return head + "\n".join(_lines(declared)) + "\n"


def _lines(declared: Iterable[Spec]) -> Iterable[str]:
    """Comment and value of each parameter, nested by the dots in its name."""
    above: list[str] = []
    for spec in declared:
        *groups, name = spec.name.split(".")
        for depth, group in enumerate(groups):
            if above[: depth + 1] != groups[: depth + 1]:
                yield f"{_indent(depth)}{group}:"
        above = groups
        indent = _indent(len(groups))
        choices = f" (one of {', '.join(map(str, spec.choices))})" if spec.choices else ""
        yield from textwrap.wrap(
            spec.description + choices,
            100,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}# ",
        )
        yield f"{indent}{name}: {_value(spec.default)}"


def _indent(depth: int) -> str:
    return "  " * (depth + 2)


def _value(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, str):
        return f'"{value}"'
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).split("\n...")[0].strip()


def main() -> None:
    """Write all files."""
    for node in NODES:
        (CONFIG / f"{node}.yaml").write_text(text(node))


if __name__ == "__main__":
    main()
