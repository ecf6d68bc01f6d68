"""Kitchen appliances: hollow bodies with moving doors, drawers, racks and knobs. The front faces
-y."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.families.appliance_parts import basket, cooktop, dial, keys, rack
from generators.data.objects.families.washing_machine import washing_machine
from generators.data.objects.parts import (
    DoorArea,
    chance,
    door_handle,
    feet,
    front_door,
    handle,
    knob,
    pick,
    placed,
)
from generators.data.objects.primitives import (
    box,
    lathe,
    shell_box,
)


def microwave(rng: np.random.Generator) -> ArticulatedObject:
    """Microwave oven: a door hinged at the left (rarely right or bottom) beside a panel with keys
    or knobs."""
    a = Assembly("microwave", rng)
    w = rng.uniform(0.4, 0.62)
    d = rng.uniform(0.28, 0.46)
    h = w * rng.uniform(0.48, 0.65)
    wall = rng.uniform(0.012, 0.03)
    panel = w * rng.uniform(0.16, 0.28)
    hinge = pick(rng, ("left", "right", "bottom"), (8, 1, 1))
    thick = rng.uniform(0.02, 0.045)
    # body, and the panel beside the door, or above a door hinged at the bottom
    a.add("base", shell_box((w, d, h), wall, (0, 0, h / 2), open_to="-y"))
    if hinge == "bottom":
        panel *= 0.6
        low = (-w / 2, 0.0)
        high = (w / 2, h - panel)
        face = (w, thick, panel)
        face_at = (0.0, -d / 2 - thick / 2, h - panel / 2)
    else:
        side = 1 if hinge == "left" else -1  # of the panel
        low, high = (
            (-w / 2 + (panel if side < 0 else 0.0), 0.0),
            (w / 2 - (panel if side > 0 else 0.0), h),
        )
        face = (panel, thick, h)
        face_at = (side * (w - panel) / 2, -d / 2 - thick / 2, h / 2)
        # closed compartment behind the panel
        works = (side * (w - panel - wall) / 2, 0, h / 2)
        a.add("base", box((panel - wall, d - 1.5 * wall, h - 1.9 * wall), works))
    a.add("base", box(face, face_at))
    # door with a window and a handle
    slit = 0.003
    low, high = (low[0] + slit, low[1] + slit), (high[0] - slit, high[1] - slit)
    area = DoorArea(low, high, hinge)
    window = (high[1] - low[1]) * rng.uniform(0.14, 0.28) if chance(rng, 0.85) else 0.0
    upper = rng.uniform(1.3, 1.6) if hinge == "bottom" else rng.uniform(1.4, 2.1)
    front = front_door(a, "door", area, -d / 2, thick, upper, window=window)
    kind = pick(rng, ("bar", "bow", "bracket", "strip", "none"), (5, 2, 2, 1, 2))
    if kind != "none":
        length = (h if hinge != "bottom" else w) * rng.uniform(0.4, 0.8)
        a.add("door", door_handle(rng, kind, length, area, front[1], 0.025))
    # turntable
    if chance(rng, 0.7):
        x = (low[0] + high[0]) / 2
        r = 0.42 * min(high[0] - low[0], d) - wall
        a.add(
            "base",
            lathe([(0, 0), (0.9 * r, 0), (r, 0.01), (0, 0.012)], 24, "z", (x, 0, wall + 0.004)),
        )
    if chance(rng, 0.7):
        a.add("base", *feet(rng, w, d, rng.uniform(0.006, 0.02), 0.0, "round"))
    # knobs or keys on the panel
    y = -d / 2 - thick
    small = min(face[0], face[2])
    if hinge != "bottom" and chance(rng, 0.3):
        for i, z in enumerate((0.28, 0.62)):
            dial(a, rng, f"knob_{i}", 0.28 * small, (face_at[0], y, z * h))
    else:
        keys(a, rng, (0.75 * face[0], 0.7 * face[2]), (face_at[0], y, face_at[2] - 0.05 * face[2]))
    return a.build()


def oven(rng: np.random.Generator) -> ArticulatedObject:
    """Oven, a kitchen range or a small countertop one: a door hinged at the bottom, knobs, and on
    some a cooktop or a drawer."""
    a = Assembly("oven", rng)
    table = chance(rng, 0.25)
    if table:
        w = rng.uniform(0.35, 0.55)
        d = rng.uniform(0.25, 0.4)
        h = rng.uniform(0.2, 0.33)
    else:
        w = rng.uniform(0.5, 0.9)
        d = rng.uniform(0.5, 0.68)
        h = rng.uniform(0.55, 0.95)
    wall = rng.uniform(0.03, 0.07) * h
    thick = rng.uniform(0.03, 0.06) * (0.6 if table else 1.0)
    # heights of the door and of the strip with the knobs, which is above the door or right of it
    drawer = not table and chance(rng, 0.35)
    bottom = h * rng.uniform(0.15, 0.25) if drawer else h * rng.uniform(0.0, 0.06)
    beside = table and chance(rng, 0.6)  # knobs right of the door
    strip = (w * rng.uniform(0.18, 0.28)) if beside else h * rng.uniform(0.1, 0.2)
    top, right = (h, w / 2 - strip) if beside else (h - strip, w / 2)
    # body, knob strip and racks
    a.add("base", shell_box((w, d, h), wall, (0, 0, h / 2), open_to="-y"))
    if beside:
        a.add("base", box((strip, d - 0.5 * wall, h), (right + strip / 2, -0.3 * wall, h / 2)))
    else:
        a.add("base", box((w, d - 0.5 * wall, strip), (0, -0.3 * wall, top + strip / 2)))
        a.add("base", box((w, thick, strip), (0, -d / 2 - thick / 2, top + strip / 2), rng))
    for z in np.linspace(bottom, top, int(rng.integers(3, 6)))[1:-1]:
        a.add(
            "base", *rack((right + w / 2 - 2.2 * wall, d - 2 * wall), ((right - w / 2) / 2, 0, z))
        )
    # door with a window and a handle
    low = (-w / 2 + 0.004, bottom + 0.004)
    high = (right - 0.004, top - 0.004)
    area = DoorArea(low, high, "bottom")
    window = rng.uniform(0.12, 0.28) * (top - bottom) if chance(rng, 0.85) else 0.0
    upper = rng.uniform(1.3, 1.65)
    front = front_door(a, "door", area, -d / 2, thick, upper, window=window)
    kind = pick(rng, ("bar", "bracket", "bow", "strip"), (6, 2, 1, 1))
    length = (high[0] - low[0]) * rng.uniform(0.55, 0.95)
    a.add("door", door_handle(rng, kind, length, area, front[1], 0.08 * (top - bottom)))
    # drawer or plinth below the door
    if drawer:
        _oven_drawer(a, (w, d, bottom), wall, thick)
        if chance(rng, 0.6):
            a.add("drawer", handle(rng, kind, length, (0, -d / 2 - thick, 0.65 * bottom)))
        a.slide("base", "drawer", "-y", 0.0, d * rng.uniform(0.4, 0.7))
    elif bottom > 0.01:
        a.add("base", box((w - 0.01, 0.5 * wall, bottom), (0, -d / 2 + 0.3 * wall, bottom / 2)))
    # equal knobs in a column or a row, fixed or turning
    count = int(rng.integers(2, 4)) if beside else int(rng.integers(2, 6))
    moving = chance(rng, 0.5)
    y = -d / 2 - (0.0 if beside else thick)
    r = 0.25 * strip if beside else min(0.3 * strip, 0.35 * w / count)
    style = int(rng.integers(2**31))
    for i in range(count):
        t = (i + 0.5) / count
        at = (
            (right + strip / 2, y, h * (0.12 + 0.76 * t))
            if beside
            else (w * 0.85 * (t - 0.5), y, top + strip / 2)
        )
        same = np.random.default_rng(style)
        if moving:
            dial(a, same, f"knob_{i}", r, at)
        else:
            a.add("base", placed(knob(same, r, 0.7 * r), at, "-y", "x"))
    # cooktop and feet
    if not table and chance(rng, 0.6):
        cooktop(a, rng, w, d, h)
    if chance(rng, 0.6):
        a.add("base", *feet(rng, w, d, h * rng.uniform(0.02, 0.06)))
    return a.build()


def _oven_drawer(a: Assembly, size: tuple[float, float, float], wall: float, thick: float) -> None:
    """Drawer in the space of `size` (width, depth, height) under an oven: floor, tray and front."""
    w, d, height = size
    tray = (w - 2.2 * wall, d - 2 * wall, 0.7 * (height - wall))
    a.add("base", box((w - 2 * wall, d - wall, 0.6 * wall), (0, -wall / 2, height)))
    a.add("drawer", shell_box(tray, 0.3 * wall, (0, 0, wall + 0.55 * tray[2])))
    front = (w - 0.01, thick, height - 0.02)
    a.add("drawer", box(front, (0, -d / 2 - thick / 2, height / 2 + 0.005)))


def refrigerator(rng: np.random.Generator) -> ArticulatedObject:
    """Refrigerator: one door; two doors one above the other; two side by side; or two side by side
    above a freezer drawer."""
    a = Assembly("refrigerator", rng)
    form = pick(rng, ("one", "stacked", "side by side", "french"), (3, 4, 2, 2))
    w = rng.uniform(0.42, 0.72) if form in ("one", "stacked") else rng.uniform(0.75, 1.0)
    d = rng.uniform(0.45, 0.72)
    h = rng.uniform(1.3, 1.95)
    if form == "one" and chance(rng, 0.6):
        h = rng.uniform(0.45, 1.3)
    wall = rng.uniform(0.03, 0.06)
    thick = rng.uniform(0.03, 0.08)
    base = h * rng.uniform(0.0, 0.05)
    a.add("base", shell_box((w, d, h), wall, (0, 0, h / 2), open_to="-y"))
    if chance(rng, 0.7):
        a.add("base", *feet(rng, w, d, rng.uniform(0.01, 0.05)))
    # height of the lower compartment's top, and x between two doors
    level = (
        h
        if form in ("one", "side by side")
        else h * (rng.uniform(0.6, 0.75) if chance(rng, 0.5) else rng.uniform(0.28, 0.42))
    )
    if form == "french":
        level = h * rng.uniform(0.28, 0.42)
    across = rng.uniform(-0.12, 0.02) * w if form == "side by side" else 0.0
    # shelves and partitions
    for z in np.linspace(0, h, int(h / rng.uniform(0.22, 0.4)) + 2)[1:-1]:
        a.add("base", box((w - 1.9 * wall, d - 2 * wall, 0.012), (0, 0.3 * wall, z)))
    if level < h:
        a.add("base", box((w - wall, d - wall, wall), (0, -wall / 2, level)))
    if form == "side by side":
        a.add("base", box((wall, d - wall, h - wall), (across, -wall / 2, h / 2)))

    # areas of the doors
    kind = pick(rng, ("bar", "bow", "bracket", "strip", "none"), (5, 2, 3, 1, 1.5))
    side = pick(rng, ("left", "right"))
    s = 0.004
    doors: list[DoorArea] = []
    if form in ("one", "stacked"):
        doors.append(DoorArea((-w / 2, base), (w / 2, level - s), side))
        if level < h:
            doors.append(DoorArea((-w / 2, level + s), (w / 2, h), side))
    else:
        z0 = base if form == "side by side" else level + s
        doors.append(DoorArea((-w / 2, z0), (across - s, h), "left"))
        doors.append(DoorArea((across + s, z0), (w / 2, h), "right"))
    # doors with equal handles
    upper = rng.uniform(1.5, 2.4)
    style = int(rng.integers(2**31))
    fraction = rng.uniform(0.25, 0.75)
    for i, area in enumerate(doors):
        link = f"door_{i}"
        low = area.low
        high = area.high
        front = front_door(a, link, area, -d / 2 - 0.002, thick, upper)
        size = (high[0] - low[0], high[1] - low[1])
        if kind != "none":
            same = np.random.default_rng(style)
            a.add(link, door_handle(same, kind, fraction * size[1], area, front[1], 0.05))
        # tray on the inside, clear of the walls as the door turns
        if chance(rng, 0.6):
            tray = (size[0] - 4 * wall, 0.07, 0.08)
            at = (front[0], -d / 2 + 0.037, low[1] + size[1] * rng.uniform(0.2, 0.7))
            if tray[0] > 0.1 and size[1] > 0.3:
                a.add(link, shell_box(tray, 0.005, at))
    if form == "french":
        # freezer drawer: front, tray and handle
        y = -d / 2 - 0.002 - thick / 2
        a.add("freezer", box((w, thick, level - base - s), (0, y, (base + level - s) / 2)))
        tray = (w - 3 * wall, d - 2 * wall, 0.6 * (level - wall))
        a.add("freezer", shell_box(tray, 0.01, (0, 0, wall + 0.33 * level)))
        if kind != "none":
            same = np.random.default_rng(style)
            at = (0, -d / 2 - 0.002 - thick, level - 0.07)
            a.add("freezer", handle(same, kind, 0.7 * w, at))
        a.slide("base", "freezer", "-y", 0.0, d * rng.uniform(0.5, 0.8))
    return a.build()


def dishwasher(rng: np.random.Generator) -> ArticulatedObject:
    """Dishwasher: a door hinged at the bottom over nearly the whole front, and racks that slide
    out."""
    a = Assembly("dishwasher", rng)
    w = rng.uniform(0.44, 0.62)
    d = rng.uniform(0.5, 0.64)
    h = rng.uniform(0.76, 0.9) if chance(rng, 0.85) else rng.uniform(0.42, 0.55)
    wall = rng.uniform(0.015, 0.035)
    thick = rng.uniform(0.03, 0.07)
    kick = h * rng.uniform(0.04, 0.15)
    # body and kick plate
    a.add("base", shell_box((w, d, h), wall, (0, 0, h / 2), open_to="-y"))
    a.add("base", box((w - 0.02, d - 0.06, kick), (0, 0.03, kick / 2)))
    # fixed strip with keys above the door, and the door
    fixed = h * rng.uniform(0.1, 0.16) if chance(rng, 0.3) else 0.0
    low = (-w / 2 + 0.003, kick + 0.006)
    high = (w / 2 - 0.003, h - fixed - 0.003)
    area = DoorArea(low, high, "bottom")
    front = front_door(a, "door", area, -d / 2 - 0.002, thick, rng.uniform(1.35, 1.6))
    if fixed:
        a.add("base", box((w, thick, fixed), (0, -d / 2 - 0.002 - thick / 2, h - fixed / 2)))
    # handle, keys and a decorative panel
    y = -d / 2 - 0.002 - thick
    kind = pick(rng, ("bar", "bracket", "bow", "strip", "cup", "none"), (4, 2, 1, 2, 1, 1.5))
    if kind != "none":
        length = w * (rng.uniform(0.5, 0.9) if kind != "cup" else 0.3)
        a.add("door", door_handle(rng, kind, length, area, y, 0.1 * (high[1] - low[1])))
    if chance(rng, 0.6):
        link, z = ("base", h - fixed / 2) if fixed else ("door", high[1] - 0.02)
        keys(a, rng, (0.6 * w, 0.03), (0, y, z), link=link)
    if chance(rng, 0.3):
        a.add("door", box((0.85 * w, 0.006, 0.7 * (high[1] - low[1])), front - [0, 0, 0.05]))
    # racks
    count = (1 if h < 0.6 else 2) if chance(rng, 0.7) else 0
    for i in range(count):
        z = kick + (h - kick) * (0.14 + 0.45 * i) + wall
        tall = 0.2 * (h - kick) * (1.0 if count == 2 else 1.6)
        a.add(
            f"rack_{i}",
            *basket((w - 3 * wall, d - 2.5 * wall, tall), (0, -0.1 * wall, z + tall / 2)),
        )
        a.slide("base", f"rack_{i}", "-y", 0.0, d * rng.uniform(0.6, 0.85))
    return a.build()


FAMILIES: dict[str, Callable[[np.random.Generator], ArticulatedObject]] = {
    "microwave": microwave,
    "oven": oven,
    "refrigerator": refrigerator,
    "washing_machine": washing_machine,
    "dishwasher": dishwasher,
}
