"""Kitchen and laundry appliances: hollow bodies whose doors, drawers, racks and knobs move; the
front looks along -y."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.families.appliance_parts import basket, dial, hob, keys, rack
from generators.data.objects.parts import (
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
    circle,
    cup,
    cylinder,
    frame_box,
    lathe,
    pipe,
    ring,
    rounded_box,
    shell_box,
    slab,
)


def microwave(rng: np.random.Generator) -> ArticulatedObject:
    """A door hinged at the left (seldom right or below) beside a panel of keys and perhaps a
    knob that turns."""
    a = Assembly("microwave", rng)
    w, d = rng.uniform(0.4, 0.62), rng.uniform(0.28, 0.46)
    h = w * rng.uniform(0.48, 0.65)
    wall = rng.uniform(0.012, 0.03)
    panel = w * rng.uniform(0.16, 0.28)  # right of the door; below it when the door falls
    hinge = pick(rng, ("left", "right", "bottom"), (8, 1, 1))
    thick = rng.uniform(0.02, 0.045)
    a.add("base", shell_box((w, d, h), wall, (0, 0, h / 2), open_to="-y"))
    if hinge == "bottom":
        panel *= 0.6
        low, high = (-w / 2, 0.0), (w / 2, h - panel)
        face, face_at = (w, thick, panel), (0.0, -d / 2 - thick / 2, h - panel / 2)
    else:
        side = 1 if hinge == "left" else -1  # where the panel is
        low, high = (
            (-w / 2 + (panel if side < 0 else 0.0), 0.0),
            (w / 2 - (panel if side > 0 else 0.0), h),
        )
        face, face_at = (panel, thick, h), (side * (w - panel) / 2, -d / 2 - thick / 2, h / 2)
        works = (side * (w - panel - wall) / 2, 0, h / 2)
        a.add("base", box((panel - wall, d - 1.5 * wall, h - 1.9 * wall), works))
    a.add("base", box(face, face_at))
    slit = 0.003
    low, high = (low[0] + slit, low[1] + slit), (high[0] - slit, high[1] - slit)
    window = (high[1] - low[1]) * rng.uniform(0.14, 0.28) if chance(rng, 0.85) else 0.0
    upper = rng.uniform(1.3, 1.6) if hinge == "bottom" else rng.uniform(1.4, 2.1)
    front = front_door(a, "door", (low, high), -d / 2, thick, hinge, upper, window=window)
    kind = pick(rng, ("bar", "bow", "bracket", "strip", "none"), (5, 2, 2, 1, 2))
    if kind != "none":
        length = (h if hinge != "bottom" else w) * rng.uniform(0.4, 0.8)
        a.add("door", door_handle(rng, kind, length, low, high, front[1], hinge, 0.025))
    if chance(rng, 0.7):  # the turntable
        x = (low[0] + high[0]) / 2
        r = 0.42 * min(high[0] - low[0], d) - wall
        a.add(
            "base",
            lathe([(0, 0), (0.9 * r, 0), (r, 0.01), (0, 0.012)], 24, "z", (x, 0, wall + 0.004)),
        )
    if chance(rng, 0.7):
        a.add("base", *feet(rng, w, d, rng.uniform(0.006, 0.02), 0.0, "round"))
    y = -d / 2 - thick
    small = min(face[0], face[2])
    if hinge != "bottom" and chance(rng, 0.3):
        for i, z in enumerate((0.28, 0.62)):
            dial(a, rng, f"knob_{i}", 0.28 * small, (face_at[0], y, z * h))
    else:
        keys(a, rng, (0.75 * face[0], 0.7 * face[2]), (face_at[0], y, face_at[2] - 0.05 * face[2]))
    return a.build()


def oven(rng: np.random.Generator) -> ArticulatedObject:
    """A door that falls, with a window and a bar; knobs above it, a hob, a drawer below it, or a
    small table oven."""
    a = Assembly("oven", rng)
    table = chance(rng, 0.25)
    if table:
        w, d, h = rng.uniform(0.35, 0.55), rng.uniform(0.25, 0.4), rng.uniform(0.2, 0.33)
    else:
        w, d, h = rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.68), rng.uniform(0.55, 0.95)
    wall = rng.uniform(0.03, 0.07) * h
    thick = rng.uniform(0.03, 0.06) * (0.6 if table else 1.0)
    drawer = not table and chance(rng, 0.35)
    bottom = h * rng.uniform(0.15, 0.25) if drawer else h * rng.uniform(0.0, 0.06)
    beside = table and chance(rng, 0.6)  # knobs at the right of the door instead of above it
    strip = (w * rng.uniform(0.18, 0.28)) if beside else h * rng.uniform(0.1, 0.2)
    top, right = (h, w / 2 - strip) if beside else (h - strip, w / 2)
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
    low, high = (-w / 2 + 0.004, bottom + 0.004), (right - 0.004, top - 0.004)
    window = rng.uniform(0.12, 0.28) * (top - bottom) if chance(rng, 0.85) else 0.0
    front = front_door(
        a, "door", (low, high), -d / 2, thick, "bottom", rng.uniform(1.3, 1.65), window=window
    )
    kind = pick(rng, ("bar", "bracket", "bow", "strip"), (6, 2, 1, 1))
    length = (high[0] - low[0]) * rng.uniform(0.55, 0.95)
    a.add(
        "door", door_handle(rng, kind, length, low, high, front[1], "bottom", 0.08 * (top - bottom))
    )
    if drawer:
        tray = (w - 2.2 * wall, d - 2 * wall, 0.7 * (bottom - wall))
        a.add("base", box((w - 2 * wall, d - wall, 0.6 * wall), (0, -wall / 2, bottom)))
        a.add("drawer", shell_box(tray, 0.3 * wall, (0, 0, wall + 0.55 * tray[2])))
        a.add(
            "drawer",
            box((w - 0.01, thick, bottom - 0.02), (0, -d / 2 - thick / 2, bottom / 2 + 0.005)),
        )
        if chance(rng, 0.6):
            a.add("drawer", handle(rng, kind, length, (0, -d / 2 - thick, 0.65 * bottom)))
        a.slide("base", "drawer", "-y", 0.0, d * rng.uniform(0.4, 0.7))
    elif bottom > 0.01:
        a.add("base", box((w - 0.01, 0.5 * wall, bottom), (0, -d / 2 + 0.3 * wall, bottom / 2)))
    count = int(rng.integers(2, 4)) if beside else int(rng.integers(2, 6))
    moving = chance(rng, 0.5)
    y = -d / 2 - (0.0 if beside else thick)
    r = 0.25 * strip if beside else min(0.3 * strip, 0.35 * w / count)
    like = int(rng.integers(2**31))
    for i in range(count):
        t = (i + 0.5) / count
        at = (
            (right + strip / 2, y, h * (0.12 + 0.76 * t))
            if beside
            else (w * 0.85 * (t - 0.5), y, top + strip / 2)
        )
        same = np.random.default_rng(like)
        if moving:
            dial(a, same, f"knob_{i}", r, at)
        else:
            a.add("base", placed(knob(same, r, 0.7 * r), at, "-y", "x"))
    if not table and chance(rng, 0.6):
        hob(a, rng, w, d, h)
    if chance(rng, 0.6):
        a.add("base", *feet(rng, w, d, h * rng.uniform(0.02, 0.06)))
    return a.build()


def refrigerator(rng: np.random.Generator) -> ArticulatedObject:
    """One door; a freezer above or below; two doors abreast; or two abreast above a freezer's
    drawer."""
    a = Assembly("refrigerator", rng)
    form = pick(rng, ("one", "stacked", "abreast", "french"), (3, 4, 2, 2))
    w = rng.uniform(0.42, 0.72) if form in ("one", "stacked") else rng.uniform(0.75, 1.0)
    d, h = rng.uniform(0.45, 0.72), rng.uniform(1.3, 1.95)
    if form == "one" and chance(rng, 0.6):
        h = rng.uniform(0.45, 1.3)
    wall, thick = rng.uniform(0.03, 0.06), rng.uniform(0.03, 0.08)
    base = h * rng.uniform(0.0, 0.05)
    a.add("base", shell_box((w, d, h), wall, (0, 0, h / 2), open_to="-y"))
    if chance(rng, 0.7):
        a.add("base", *feet(rng, w, d, rng.uniform(0.01, 0.05)))
    level = (
        h
        if form in ("one", "abreast")
        else h * (rng.uniform(0.6, 0.75) if chance(rng, 0.5) else rng.uniform(0.28, 0.42))
    )
    if form == "french":
        level = h * rng.uniform(0.28, 0.42)
    across = rng.uniform(-0.12, 0.02) * w if form == "abreast" else 0.0
    for z in np.linspace(0, h, int(h / rng.uniform(0.22, 0.4)) + 2)[1:-1]:
        a.add("base", box((w - 1.9 * wall, d - 2 * wall, 0.012), (0, 0.3 * wall, z)))
    if level < h:
        a.add("base", box((w - wall, d - wall, wall), (0, -wall / 2, level)))
    if form == "abreast":
        a.add("base", box((wall, d - wall, h - wall), (across, -wall / 2, h / 2)))

    kind = pick(rng, ("bar", "bow", "bracket", "strip", "none"), (5, 2, 3, 1, 1.5))
    side = pick(rng, ("left", "right"))
    s = 0.004
    doors: list[tuple[str, tuple[float, float], tuple[float, float]]] = []  # hinge, low, high
    if form in ("one", "stacked"):
        doors.append((side, (-w / 2, base), (w / 2, level - s)))
        if level < h:
            doors.append((side, (-w / 2, level + s), (w / 2, h)))
    else:
        z0 = base if form == "abreast" else level + s
        doors += [("left", (-w / 2, z0), (across - s, h)), ("right", (across + s, z0), (w / 2, h))]
    upper, like = rng.uniform(1.5, 2.4), int(rng.integers(2**31))
    fraction = rng.uniform(0.25, 0.75)
    for i, (hinge, low, high) in enumerate(doors):
        link = f"door_{i}"
        front = front_door(a, link, (low, high), -d / 2 - 0.002, thick, hinge, upper)
        size = (high[0] - low[0], high[1] - low[1])
        if kind != "none":
            a.add(
                link,
                door_handle(
                    np.random.default_rng(like),
                    kind,
                    fraction * size[1],
                    low,
                    high,
                    front[1],
                    hinge,
                    0.05,
                ),
            )
        if chance(rng, 0.6):  # trays on the inside, clear of the walls as the door turns
            tray = (size[0] - 4 * wall, 0.07, 0.08)
            at = (front[0], -d / 2 + 0.037, low[1] + size[1] * rng.uniform(0.2, 0.7))
            if tray[0] > 0.1 and size[1] > 0.3:
                a.add(link, shell_box(tray, 0.005, at))
    if form == "french":
        a.add(
            "freezer",
            box(
                (w, thick, level - base - s),
                (0, -d / 2 - 0.002 - thick / 2, (base + level - s) / 2),
            ),
        )
        a.add(
            "freezer",
            shell_box(
                (w - 3 * wall, d - 2 * wall, 0.6 * (level - wall)),
                0.01,
                (0, 0, wall + 0.33 * level),
            ),
        )
        if kind != "none":
            reach = np.random.default_rng(like)
            a.add(
                "freezer", handle(reach, kind, 0.7 * w, (0, -d / 2 - 0.002 - thick, level - 0.07))
            )
        a.slide("base", "freezer", "-y", 0.0, d * rng.uniform(0.5, 0.8))
    return a.build()


def washing_machine(rng: np.random.Generator) -> ArticulatedObject:
    """A front loader with a round door, or a top loader with a lid hinged at its rear; knobs,
    and a soap drawer."""
    a = Assembly("washing_machine", rng)
    w, d, h = rng.uniform(0.45, 0.7), rng.uniform(0.42, 0.68), rng.uniform(0.7, 1.0)
    if chance(rng, 0.6):
        a.add("base", *feet(rng, w, d, rng.uniform(0.01, 0.04)))
    (_front_loader if chance(rng, 0.65) else _top_loader)(a, rng, w, d, h)
    return a.build()


def _front_loader(a: Assembly, rng: np.random.Generator, w: float, d: float, h: float) -> None:
    wall = 0.02
    strip = h * rng.uniform(0.12, 0.2)
    r = 0.5 * min(w, h - strip) * rng.uniform(0.55, 0.8)
    z = (h - strip) * rng.uniform(0.48, 0.54)
    sections = 32
    a.add("base", shell_box((w, d, h), wall, (0, 0, h / 2), open_to="-y"))
    hole = circle(
        1.0, sections
    )  # axes (z, x) of a piece pointed along y; the square's points lie on the same rays
    half = np.array([min(z, h - strip - z), w / 2])
    square = hole * np.min(half / np.maximum(np.abs(hole), 1e-9), axis=1, keepdims=True)
    a.add("base", ring(square, hole * 0.9 * r, wall, "y", (0, -d / 2 + wall / 2, z)))
    for low, high in ((0.0, z - half[0]), (z + half[0], h)):  # the front above and below
        if high - low > 1e-6:
            a.add("base", box((w, wall, high - low), (0, -d / 2 + wall / 2, (low + high) / 2)))
    a.add(
        "base", cup([(0.75 * r, 0.0), (0.85 * r, 0.7 * d)], 0.01, sections, "-y", (0, 0.3 * d, z))
    )
    panel = rng.uniform(0.0, 0.03)
    if panel > 0.01:
        a.add("base", box((w, panel, strip), (0, -d / 2 - panel / 2, h - strip / 2)))
    else:
        panel = 0.0

    side = pick(rng, (-1, 1), (3, 1))
    thick, rim = rng.uniform(0.02, 0.05), rng.uniform(0.16, 0.35) * r
    y = -d / 2 - 0.002
    a.add("door", pipe(r, r - rim, thick, "y", (0, y - thick / 2, z), sections))
    bowl = np.linspace(0, 0.42 * np.pi, 5)  # the glass bulges in
    deep, glass = 0.25 * r, 0.97 * (r - rim) + 0.05 * rim
    profile = np.stack([glass * np.cos(bowl[::-1]), deep * (1 - np.sin(bowl[::-1]))], 1)
    a.add("door", cup(profile, 0.006, sections, "-y", (0, y + deep - 0.2 * thick, z)))
    kind = pick(rng, ("bracket", "bow", "tab"))
    at = (-side * (r - 0.5 * rim), y - thick, z)
    if kind == "tab":
        a.add("door", rounded_box((0.8 * rim, 0.02, 0.5 * r), (at[0], at[1] - 0.008, z), 0.006))
    else:
        a.add("door", handle(rng, kind, 0.5 * r, at, "-y", "z", reach=0.04))
    a.add("base", cylinder(0.012, 0.5 * r, "z", (side * (r + 0.01), y - 0.01, z), 10))
    a.hinge(
        "base",
        "door",
        (side * (r + 0.01), y - 0.01, z),
        "-z" if side < 0 else "z",
        0.0,
        rng.uniform(1.6, 2.7),
    )

    y, middle = -d / 2 - panel, h - strip / 2
    knob_x = rng.uniform(-0.05, 0.3) * w
    dial(a, rng, "knob", 0.3 * strip, (knob_x, y, middle))
    if chance(rng, 0.6):  # keys at the right
        keys(a, rng, (0.12 * w, 0.5 * strip), (min(knob_x + 0.25 * w, 0.42 * w), y, middle))
    if chance(rng, 0.6):
        size = (0.26 * w, d * 0.4, 0.7 * strip)
        at = (-0.34 * w, y + 0.5 * size[1] - 0.004, middle)
        a.add("soap_drawer", shell_box((0.9 * size[0], size[1], 0.7 * size[2]), 0.004, at))
        a.add("soap_drawer", box((size[0], 0.012, size[2]), (at[0], y - 0.006, middle), rng))
        a.slide("base", "soap_drawer", "-y", 0.0, size[1] * rng.uniform(0.5, 0.9))


def _top_loader(a: Assembly, rng: np.random.Generator, w: float, d: float, h: float) -> None:
    wall = 0.03
    console = rng.uniform(0.1, 0.22) if chance(rng, 0.75) else 0.0  # its height behind the lid
    deck = 0.16 * d
    a.add("base", shell_box((w, d, h), wall, (0, 0, h / 2), open_to="+z"))
    r = 0.42 * min(w, d - deck)
    a.add("base", cup([(0.95 * r, 0.0), (r, 0.6 * h)], 0.008, 28, "z", (0, -deck / 2, 0.3 * h)))
    if chance(rng, 0.7):  # the agitator
        a.add(
            "base",
            lathe(
                [(0, 0), (0.5 * r, 0), (0.2 * r, 0.12 * h), (0.15 * r, 0.45 * h), (0, 0.5 * h)],
                14,
                "z",
                (0, -deck / 2, 0.31 * h),
            ),
        )
    a.add("base", box((w, deck, 0.06 + console), (0, d / 2 - deck / 2, h + (console - 0.06) / 2)))
    hinge_y = d / 2 - deck - 0.004
    t = rng.uniform(0.015, 0.05)
    edge = rng.uniform(0.0, 0.08) * w
    size = np.array([w - 2 * edge, hinge_y + d / 2 - edge, t])
    middle = (0, hinge_y - size[1] / 2, h + t / 2 + 0.002)
    if edge > 0.02:
        a.add(
            "base",
            frame_box(
                (w, hinge_y + d / 2, 0.012),
                edge * 1.1,
                (0, (hinge_y - d / 2) / 2, h - 0.006),
                along="z",
            ),
        )
    if chance(rng, 0.5):
        rim = rng.uniform(0.1, 0.2) * size[1]
        a.add("lid", frame_box(size, rim, middle, along="z"))
        a.add("lid", box((size[0] - 1.9 * rim, size[1] - 1.9 * rim, 0.3 * t), middle))
    else:
        a.add("lid", box(size, middle, rng))
    if chance(rng, 0.6):
        front = hinge_y - size[1]
        a.add("lid", slab((0.3 * w, 0.05, 0.4 * t), (0, front - 0.01, h + 0.7 * t), 0.015, "z"))
    a.hinge("base", "lid", (0, hinge_y, h + t / 2), "-x", 0.0, rng.uniform(1.2, 1.9))
    if console > 0:
        y, z = d / 2 - deck, h + 0.55 * console
        for i in range(int(rng.integers(1, 4))):
            dial(a, rng, f"knob_{i}", 0.25 * console, (w * (0.35 - 0.22 * i), y, z))
        if chance(rng, 0.6):
            keys(a, rng, (0.2 * w, 0.4 * console), (-0.33 * w, y, z))
    else:
        keys(a, rng, (0.5 * w, 0.4 * deck), (0, d / 2 - deck / 2, h), up=True)


def dishwasher(rng: np.random.Generator) -> ArticulatedObject:
    """A door that falls over nearly the whole front, and racks that slide out behind it."""
    a = Assembly("dishwasher", rng)
    w, d = rng.uniform(0.44, 0.62), rng.uniform(0.5, 0.64)
    h = rng.uniform(0.76, 0.9) if chance(rng, 0.85) else rng.uniform(0.42, 0.55)
    wall, thick = rng.uniform(0.015, 0.035), rng.uniform(0.03, 0.07)
    kick = h * rng.uniform(0.04, 0.15)
    a.add("base", shell_box((w, d, h), wall, (0, 0, h / 2), open_to="-y"))
    a.add("base", box((w - 0.02, d - 0.06, kick), (0, 0.03, kick / 2)))
    fixed = h * rng.uniform(0.1, 0.16) if chance(rng, 0.3) else 0.0  # a strip of keys that stays
    low, high = (-w / 2 + 0.003, kick + 0.006), (w / 2 - 0.003, h - fixed - 0.003)
    front = front_door(
        a, "door", (low, high), -d / 2 - 0.002, thick, "bottom", rng.uniform(1.35, 1.6)
    )
    if fixed:
        a.add("base", box((w, thick, fixed), (0, -d / 2 - 0.002 - thick / 2, h - fixed / 2)))
    y = -d / 2 - 0.002 - thick
    kind = pick(rng, ("bar", "bracket", "bow", "strip", "cup", "none"), (4, 2, 1, 2, 1, 1.5))
    if kind != "none":
        length = w * (rng.uniform(0.5, 0.9) if kind != "cup" else 0.3)
        a.add(
            "door", door_handle(rng, kind, length, low, high, y, "bottom", 0.1 * (high[1] - low[1]))
        )
    if chance(rng, 0.6):
        link, z = ("base", h - fixed / 2) if fixed else ("door", high[1] - 0.02)
        keys(a, rng, (0.6 * w, 0.03), (0, y, z), link=link)
    if chance(rng, 0.3):
        a.add("door", box((0.85 * w, 0.006, 0.7 * (high[1] - low[1])), front - [0, 0, 0.05]))
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
