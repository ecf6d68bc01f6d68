"""Names in the registries, each of which is imported when it is asked."""

from __future__ import annotations

from importlib import resources


def robots() -> list[str]:
    """Robots that ship, by the name of their configuration."""
    folder = resources.files("robot_configs")
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def generators() -> tuple[str, ...]:
    """Generators of motion."""
    from generators.registry import NAMES

    return NAMES


def tasks() -> list[str]:
    """Simulated tasks."""
    from sim_envs.tasks import TASKS

    return list(TASKS)


def optimizers() -> tuple[str, ...]:
    """Trajectory optimizers."""
    from flowplan.optimizers.registry import NAMES

    return NAMES


def methods() -> tuple[str, ...]:
    """The planner and its baselines."""
    from experiments.tasks.options import METHODS

    return METHODS
