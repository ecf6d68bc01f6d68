"""Surroundings of the robot in one phase of a trajectory, as the validator takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import trimesh

from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

HELD = "held"
"""Name of the attached object among the links, in `touch` and in reasons."""


@dataclass(frozen=True, eq=False)
class Mover:
    """A rigid body that moves by itself during a phase.

    Attributes:
        name: Unique among obstacles and movers.
        mesh: Mesh in the body's own frame, meters.
        X_world: (S, 4, 4) poses at the samples of the phase; the last one holds from then on.
        tolerance: Meters by which the true surface may leave this rigid one.
        guarded: Check it against obstacles and other movers too, as the attached object is.
    """

    name: str
    mesh: trimesh.Trimesh
    X_world: FloatArray
    tolerance: float = 0.0
    guarded: bool = False

    def __post_init__(self) -> None:
        X = checks.poses(f"Mover[{self.name}].X_world", self.X_world, ("S", 4, 4))
        object.__setattr__(self, "X_world", X)
        checks.positive(f"Mover[{self.name}].tolerance", self.tolerance, zero=True)


@dataclass(frozen=True, eq=False)
class PhaseWorld:
    """Surroundings of the robot in one phase.

    Attributes:
        obstacles: (name, mesh) pairs with unique names; meshes convex, concave or open, world
            frame, meters.
        held: Mesh of the object attached to the gripper, tool frame, meters; or None.
        touch: (link, obstacle) pairs that may touch; a link may be HELD or a mover, an obstacle a
            mover. The attached object may always touch the gripper.
        movers: Bodies that move by themselves.
        opening: Meters below which the object between the fingers does not let them close. Fingers
            are checked at the commanded opening and at this one. None if nothing is between them.
    """

    obstacles: tuple[tuple[str, trimesh.Trimesh], ...] = ()
    held: trimesh.Trimesh | None = None
    touch: frozenset[tuple[str, str]] = frozenset()
    movers: tuple[Mover, ...] = ()
    opening: float | None = None

    def __post_init__(self) -> None:
        names = [name for name, _ in self.obstacles] + [mover.name for mover in self.movers]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"PhaseWorld.obstacles: {name!r} is there twice; "
                    "give every obstacle its own name"
                )
        meshes = [(f"obstacles[{name}]", mesh) for name, mesh in self.obstacles]
        meshes += [(f"movers[{mover.name}]", mover.mesh) for mover in self.movers]
        if self.held is not None:
            meshes.append(("held", self.held))
        for field, mesh in meshes:
            if not len(mesh.faces) or not np.isfinite(mesh.vertices).all():
                raise ValueError(
                    f"PhaseWorld.{field}: expected a finite mesh, got {len(mesh.faces)} faces "
                    "or NaNs; repair it first"
                )
        if self.opening is not None:
            checks.positive("PhaseWorld.opening", self.opening, zero=True)

    def check_touch(self, robot_name: str, links: Sequence[str]) -> None:
        """Refuse an unknown link in `touch`."""
        known = {*links, HELD, *(mover.name for mover in self.movers)}
        for link, _ in self.touch:
            if link not in known:
                raise ValueError(
                    f"PhaseWorld.touch: no link {link!r} in {robot_name}; "
                    f"it has {', '.join(sorted(known))}"
                )
