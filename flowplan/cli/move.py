"""A move of one object, as options of a command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowplan.laws import Law
    from flowplan.scene import Action, Scene

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Move:
    """One of --by, --turn and --on, with its amounts (flowplan.moves)."""

    object: str | None = None
    """Name of the object that moves. Defaults to the only one."""
    by: Vector | None = None
    """Move by x, y, z in meters in the world frame."""
    turn: float | None = None
    """Turn by degrees, right-handed about --axis through --through."""
    axis: Vector | None = None
    """Direction of the axis of --turn in the world frame. Defaults to up."""
    through: Vector | None = None
    """Point on the axis of --turn, meters in the world frame. Defaults to the object's center."""
    on: str | None = None
    """Place on top of an object or obstacle, or on the support."""
    at: tuple[float, float] | None = None
    """x, y in meters where --on places the center. Defaults to the center of what is below."""
    lift: float | None = None
    """Meters by which the path of --by and --on rises. Defaults to 0, and 0.1 with --on."""
    duration: float | None = None
    """Seconds. Defaults to 2, and 3 with --on."""

    def told(self, scene: Scene) -> tuple[tuple[Law, ...], Action]:
        """The law and the action.

        Raises:
            ValueError: In one line, naming the option.
        """
        from flowplan.io.instruction import move_of

        entries = self._entries(scene)
        law, action = move_of(entries, self._name(scene), self.duration, scene)
        return (law,), action

    def _name(self, scene: Scene) -> str:
        names = [obj.name for obj in scene.objects]
        if self.object is None and len(names) == 1:
            return names[0]
        if self.object not in names:
            raise ValueError(f"--object: got {self.object!r}, expected one of {', '.join(names)}")
        return self.object

    def _entries(self, scene: Scene) -> dict[str, Any]:
        """The move as in a document (flowplan.io.instruction)."""
        given = [name for name in ("by", "turn", "on") if getattr(self, name) is not None]
        if len(given) != 1:
            got = " and ".join(f"--{name}" for name in given) or "none"
            raise ValueError(f"move: expected one of --by, --turn and --on, got {got}")
        belongs = {"axis": ("turn",), "through": ("turn",), "at": ("on",), "lift": ("by", "on")}
        for name, kinds in belongs.items():
            if getattr(self, name) is not None and given[0] not in kinds:
                raise ValueError(f"--{name}: goes with --{' or --'.join(kinds)}, got --{given[0]}")
        lift = {} if self.lift is None else {"lift": self.lift}
        if self.by is not None:
            return {"kind": "by", "vector": self.by} | lift
        if self.on is not None:
            at = {} if self.at is None else {"at": self.at}
            return {"kind": "on", "name": self.on} | at | lift
        through: Any = self.through
        if through is None:
            through = scene.objects[scene.index(self._name(scene))].mesh_world.bounds.mean(axis=0)
        axis = self.axis or (0.0, 0.0, 1.0)
        return {"kind": "turn", "axis": axis, "through": through, "degrees": self.turn}
