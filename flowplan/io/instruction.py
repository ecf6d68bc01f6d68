"""Instructions and laws of motion from a JSON file, for planning from the command line.

    {"object": "box",
     "law": {"kind": "hinge", "axis_point": [0.4, 0, 0.1], "axis": [0, 1, 0],
             "part": {"lower": [0.3, -0.2, 0.1], "upper": [0.5, 0.2, 0.2]}},
     "handles": [[0.3, 0, 0.1]], "targets": [[0.35, 0, 0.18]], "duration": 2.0}

A move in place of law, handles and targets says the amount by itself (flowplan.moves):

    {"object": "box", "move": {"kind": "by", "vector": [0, 0.2, 0], "lift": 0.1}}
    {"object": "box", "move": {"kind": "turn", "axis": [0, 0, 1], "through": [0.4, 0, 0],
                               "degrees": 90}}
    {"object": "box", "move": {"kind": "on", "name": "shelf", "at": [0.5, 0.2]}}

Of a law, `kind` is rigid, hinge, slide, bend or fold; the other entries of the law are the fields
of that record in `flowplan.laws`. The moving link of a hinge or slide is the part of the object
inside a box, or `part` and `rest` list points on it and on everything that stays. Everything is in
meters in the world frame. A `prompt` alone is a sentence to follow; next to other entries it is the
sentence that they answer.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from flowplan import laws, moves
from flowplan.scene import Action, Instruction, Prompt, Scene
from flowplan.utils import checks, text_files

_KINDS = {
    "rigid": laws.Rigid,
    "hinge": laws.Hinge,
    "slide": laws.Slide,
    "bend": laws.Bend,
    "fold": laws.Fold,
}

_MOVES = {
    "by": ({"vector"}, {"lift"}),
    "turn": ({"axis", "through", "degrees"}, set()),
    "on": ({"name"}, {"at", "lift"}),
}
"""Entries of a move by its kind: those that it needs, and those that it may have."""


def read_instruction(path: str | Path, scene: Scene) -> tuple[tuple[laws.Law, ...], Instruction]:
    """The laws (none or one) and the instruction in a JSON file.

    Args:
        path: The file.
        scene: Scene that they refer to.

    Raises:
        ValueError: In one line, naming the file and the field.
    """
    path = Path(path)
    return parse_instruction(text_files.read_json(path), scene, str(path))


def parse_json(text: str, where: str) -> Any:
    """The content of a JSON text; `where` names it in the error."""
    return text_files.parse_json(text, where)


def parse_instruction(
    entries: Any, scene: Scene, where: str
) -> tuple[tuple[laws.Law, ...], Instruction]:
    """The laws (none or one) and the instruction in a JSON document.

    Args:
        entries: Content of the document.
        scene: Scene that they refer to.
        where: Name of the document in errors.

    Raises:
        ValueError: In one line, naming the document and the field.
    """
    if not isinstance(entries, dict):
        raise ValueError(
            f"{where}: expected a JSON object with 'object' and 'move', "
            "with 'object', 'handles' and 'targets', or with 'prompt'"
        )
    try:
        # A sentence alone, or an action with its law.
        if set(entries) == {"prompt"}:
            return (), Prompt(str(entries["prompt"]))
        if "move" in entries:
            return _move(entries, scene)
        _only(
            entries,
            {"prompt", "object", "law", "handles", "targets", "forces", "velocities", "duration"},
        )
        name = checks.choice("object", entries.get("object"), [o.name for o in scene.objects])
        law = (_law(entries["law"], name, scene),) if "law" in entries else ()
        points = {
            key: entries[key]
            for key in ("handles", "targets", "forces", "velocities", "duration")
            if key in entries
        }
        if "handles" not in points:
            raise ValueError(
                "handles: missing; give at least one [x, y, z] on the object, or a 'move'"
            )
        action = Action(name, **points)
        action.require_handles_on(scene.objects[scene.index(name)])
        return law, action
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def move_of(entries: Any, name: str, duration: Any, scene: Scene) -> tuple[laws.Law, Action]:
    """The law and the action of a move of the object with this name.

    Args:
        entries: The move, as in a document.
        name: The object's name.
        duration: Seconds; None for the default of the move.
        scene: Scene of the object.

    Raises:
        ValueError: In one line, naming the field.
    """
    if not isinstance(entries, dict):
        raise ValueError("move: expected an object with 'kind' and the entries of that move")
    kind = checks.choice("move.kind", entries.get("kind"), list(_MOVES))
    given = {key: value for key, value in entries.items() if key != "kind"}
    needed, optional = _MOVES[kind]
    _only(given, needed | optional, "move.")
    if needed - set(given):
        raise ValueError(f"move: {kind!r} also needs {', '.join(sorted(needed - set(given)))}")

    numbers = {
        key: _number(f"move.{key}", given[key]) for key in ("lift", "degrees") if key in given
    }
    options = {"lift": numbers["lift"]} if "lift" in numbers else {}
    if duration is not None:
        options["duration"] = _number("duration", duration)
    try:
        if kind == "by":
            return moves.move_by(scene, name, given["vector"], **options)
        if kind == "turn":
            angle = np.deg2rad(numbers["degrees"])
            return moves.turn(scene, name, given["axis"], given["through"], angle, **options)
        on = str(given["name"])
        return moves.place_on(scene, name, on, at=given.get("at"), **options)
    except ValueError as error:
        raise ValueError(f"move: {error}") from None


def _move(entries: dict[str, Any], scene: Scene) -> tuple[tuple[laws.Law, ...], Action]:
    """The law and the action of a document with a move."""
    _only(entries, {"prompt", "object", "move", "duration"})
    name = checks.choice("object", entries.get("object"), [o.name for o in scene.objects])
    law, action = move_of(entries["move"], name, entries.get("duration"), scene)
    return (law,), action


def _number(field: str, value: Any) -> float:
    return float(checks.array(field, value, ()))


def _law(entries: Any, name: str, scene: Scene) -> laws.Law:
    """The law of motion of the object with this name."""
    if not isinstance(entries, dict):
        raise ValueError("law: expected an object with 'kind' and the fields of that law")
    kind = _KINDS[checks.choice("law.kind", entries.get("kind"), list(_KINDS))]
    # Fields of the law's record; the object's name is known.
    given = {key: value for key, value in entries.items() if key != "kind"}
    allowed = {f.name for f in fields(kind)} - {"object"}
    _only(given, allowed, "law.")
    # A box in place of lists of points.
    if "part" in allowed and "rest" not in given:
        given["part"], given["rest"] = _split(given.get("part"), name, scene)
    try:
        return kind(object=name, **given)
    except TypeError:
        missing = sorted(allowed - set(given) - {"rest", "lift", "radius"})
        raise ValueError(f"law: a {entries['kind']} also needs {', '.join(missing)}") from None


def _split(box: Any, name: str, scene: Scene) -> tuple[Any, Any]:
    """Vertices of the object inside and outside a box {"lower": [...], "upper": [...]}."""
    if not isinstance(box, dict) or set(box) != {"lower", "upper"}:
        raise ValueError(
            'law.part: expected a box {"lower": [x, y, z], "upper": [x, y, z]} around the moving '
            "link, or a list of its points next to law.rest"
        )
    lower, upper = (checks.array(f"law.part.{key}", box[key], (3,)) for key in ("lower", "upper"))
    # The moving link is what the box holds.
    vertices = scene.objects[scene.index(name)].vertices_world  # (V, 3)
    inside = np.all((vertices >= lower) & (vertices <= upper), axis=1)
    if not inside.any() or inside.all():
        raise ValueError(
            f"law.part: the box holds {inside.sum()} of the {len(inside)} vertices of {name!r}; "
            "it must hold the moving link and leave the rest out"
        )
    return vertices[inside], vertices[~inside]


def _only(entries: dict[str, Any], allowed: set[str], prefix: str = "") -> None:
    """Refuse entries that are not allowed."""
    unknown = sorted(set(entries) - allowed)
    if unknown:
        raise ValueError(
            f"{prefix}{unknown[0]}: unknown entry; expected some of {', '.join(sorted(allowed))}"
        )
