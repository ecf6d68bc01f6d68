"""Cabinets with drawers or with doors, from a box on a desk to a wardrobe. The front faces -y."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.parts import (
    HANDLES,
    DoorArea,
    chance,
    door_handle,
    feet,
    front_door,
    handle,
    pick,
)
from generators.data.objects.primitives import box, shell_box


def drawer_cabinet(rng: np.random.Generator) -> ArticulatedObject:
    """Cabinet with one to four rows of drawers, in one or two columns, that pull out to the
    front."""
    a = Assembly("drawer_cabinet", rng)
    # overall size
    if chance(rng, 0.5):  # for a table top
        w = rng.uniform(0.14, 0.4)
        d = rng.uniform(0.12, 0.35)
        rows = int(pick(rng, (1, 2, 3), (5, 3, 1)))
        columns = 1
        h = rows * rng.uniform(0.05, 0.13)
    else:
        w = rng.uniform(0.35, 1.1)
        d = rng.uniform(0.35, 0.6)
        rows = int(rng.integers(1, 5))
        columns = 1
        if rows <= 2 and w > 0.6 and chance(rng, 0.5):
            columns = 2
        h = rows * rng.uniform(0.12, 0.3)
    wall = rng.uniform(0.02, 0.07) * min(w, d, 2 * h)
    a.add("base", shell_box((w, d, h), wall, (0, 0, h / 2), floor=wall, open_to="-y"))
    _dress(a, rng, w, d, h, wall)

    # cells of the drawers: equal widths, random or equal heights
    inner_w = w - 2 * wall
    inner_h = h - 2 * wall
    cell_w = (inner_w - (columns - 1) * wall) / columns
    weights = rng.uniform(0.7, 1.3, rows) if chance(rng, 0.4) else np.ones(rows)
    heights = weights / weights.sum() * (inner_h - (rows - 1) * wall)
    # shared look of all drawers
    overlay = chance(rng, 0.5)
    kind = pick(rng, (*HANDLES, "none"), (6, 2, 3, 1, 1, 4, 2))
    length = cell_w * rng.uniform(0.2, 0.9)
    style = int(rng.integers(2**31))
    travel = d * rng.uniform(0.45, 0.85)
    z = wall
    for row in range(rows):
        for column in range(columns):
            x = -inner_w / 2 + cell_w / 2 + column * (cell_w + wall)
            center = (x, z + heights[row] / 2)
            link = f"drawer_{row * columns + column}"
            _drawer(a, rng, link, center, (cell_w, d - wall, heights[row]), wall, overlay)
            if kind != "none":
                front = -d / 2 - (0.9 * wall if overlay else 0.0)
                same = np.random.default_rng(style)
                a.add(link, handle(same, kind, length, (center[0], front, center[1])))
            a.slide("base", link, "-y", 0.0, travel)
            if column:  # wall between the columns
                at = (x - cell_w / 2 - wall / 2, 0, center[1])
                a.add("base", box((wall, d - wall, heights[row]), at))
        # board between the rows
        z += heights[row]
        if row < rows - 1:
            a.add("base", box((inner_w, d - wall, wall), (0, -wall / 2, z + wall / 2)))
        z += wall
    return a.build()


def _drawer(
    a: Assembly,
    rng: np.random.Generator,
    link: str,
    center: tuple[float, float],
    cell: tuple[float, float, float],
    wall: float,
    overlay: bool,
) -> None:
    """Drawer: a tray that fills its cell (width, depth, height) up to a gap, and a front board over
    or inside the opening."""
    x, z = center
    gap = 0.03 * min(cell) + 0.0005
    tray = (
        cell[0] - 2 * gap,
        cell[1] - 2 * gap - 0.4 * wall,
        cell[2] * rng.uniform(0.6, 0.95) - 2 * gap,
    )
    thin = wall * rng.uniform(0.4, 0.8)
    front = -(cell[1] + wall) / 2  # plane of the cabinet's front
    y = front + tray[1] / 2 + (0.0 if overlay else 0.4 * wall)
    a.add(link, shell_box(tray, thin, (x, y, z - cell[2] / 2 + gap + tray[2] / 2), open_to="+z"))
    # front board over the opening, or inside it
    if overlay:
        board = (cell[0] + 0.85 * wall, 0.9 * wall, cell[2] + 0.85 * wall)
        a.add(link, box(board, (x, front - 0.45 * wall - 0.0005, z), rng))
    else:
        a.add(
            link,
            box((cell[0] - 1.2 * gap, wall, cell[2] - 1.2 * gap), (x, front + wall / 2, z), rng),
        )


def _dress(
    a: Assembly, rng: np.random.Generator, w: float, d: float, h: float, wall: float
) -> None:
    """Optional parts of a cabinet: a top with an overhang, feet and a back board."""
    if chance(rng, 0.35):
        lip = rng.uniform(0.0, 0.06) * w
        t = wall * rng.uniform(0.6, 1.6)
        a.add("base", box((w + 2 * lip, d + lip, t), (0, -lip / 4, h + t / 2), rng))
    if chance(rng, 0.55):
        a.add("base", *feet(rng, w, d, min(h, 1.0) * rng.uniform(0.03, 0.2)))
    if chance(rng, 0.1):
        b = min(h, 0.7) * rng.uniform(0.1, 0.3)
        a.add("base", box((w, wall, b), (0, d / 2 - wall / 2, h + b / 2)))


def door_cabinet(rng: np.random.Generator) -> ArticulatedObject:
    """Cabinet with shelves behind one or two doors hinged at the outer sides; on some a drawer on
    top."""
    a = Assembly("door_cabinet", rng)
    # body
    doors = 1 if chance(rng, 0.5) else 2
    w = rng.uniform(0.2, 0.6) if doors == 1 else rng.uniform(0.4, 1.2)
    d, h = (
        rng.uniform(0.15, 0.6),
        rng.uniform(0.25, 1.0) if chance(rng, 0.7) else rng.uniform(1.0, 2.0),
    )
    wall = rng.uniform(0.02, 0.06) * min(w, 2 * d, h)
    a.add("base", shell_box((w, d, h), wall, (0, 0, h / 2), open_to="-y"))
    _dress(a, rng, w, d, h, wall)
    inside_w = w - 1.9 * wall
    inside_d = d - 1.5 * wall
    # drawer above the doors
    top = h
    if chance(rng, 0.2) and h < 1.2:
        top = h * rng.uniform(0.65, 0.82)
        a.add("base", box((inside_w, d - wall, wall), (0, -wall / 2, top)))
        cell = (w - 2 * wall, d - wall, h - wall - top - wall / 2)
        _drawer(a, rng, "drawer", (0.0, top + wall / 2 + cell[2] / 2), cell, wall, chance(rng, 0.5))
        a.slide("base", "drawer", "-y", 0.0, d * rng.uniform(0.45, 0.8))
    # shelves
    for z in np.linspace(0, top, int(rng.integers(2, 6)))[1:-1]:
        a.add("base", box((inside_w, inside_d, 0.7 * wall), (0, 0.1 * wall, z)))

    # placement of the doors, inside the opening (inset) or in front of it
    inset = chance(rng, 0.35)
    edge = 1.05 * wall if inset else rng.uniform(0.0, 0.4) * wall
    thick = wall * rng.uniform(0.6, 1.1)
    y = -d / 2 + (thick * 0.95 if inset else 0.0)
    left = -w / 2 + edge
    right = w / 2 - edge
    slit = 0.005 * w
    hinges = ("left", "right") if doors == 2 else (pick(rng, ("left", "right")),)
    # shared look of the doors: handle, window or raised panel
    kind = pick(rng, (*HANDLES, "none"), (5, 3, 3, 1, 0.5, 5, 1.5))
    window = rng.uniform(0.12, 0.25) * (right - left) / doors if chance(rng, 0.25) else 0.0
    raised = window == 0 and chance(rng, 0.35)
    upper = rng.uniform(1.4, 1.9) if inset or chance(rng, 0.7) else rng.uniform(1.9, 2.9)
    style = int(rng.integers(2**31))
    length = min((top - edge) * rng.uniform(0.12, 0.4), 0.4)
    for i, hinge in enumerate(hinges):
        x0 = left if doors == 1 or i == 0 else slit / 2
        x1 = right if doors == 1 or i == 1 else -slit / 2
        area = DoorArea((x0, edge), (x1, top - edge), hinge)
        link = f"door_{i}"
        front = front_door(a, link, area, y, thick, upper, window=window)
        if raised:
            board = (0.7 * (x1 - x0), 0.3 * thick, (top - 2 * edge) - 0.3 * (x1 - x0))
            if board[2] > 0:
                a.add(link, box(board, front, np.random.default_rng(style)))
        if kind != "none":
            inset_handle = max(0.09 * (x1 - x0), 0.01)
            same = np.random.default_rng(style)
            a.add(link, door_handle(same, kind, length, area, front[1], inset_handle))
    return a.build()


FAMILIES: dict[str, Callable[[np.random.Generator], ArticulatedObject]] = {
    "drawer_cabinet": drawer_cabinet,
    "door_cabinet": door_cabinet,
}
