"""Boxes with one or two lids, flat, deep or vaulted, hinged at the rear or at the sides; safes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trimesh

from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.parts import chance, feet, handle, knob, pick, placed
from generators.data.objects.primitives import (
    ORIGIN,
    band,
    box,
    circle,
    cylinder,
    extrude,
    mirrored,
    pipe,
    rectangle,
    shell_box,
    slab,
    vessel,
)
from generators.data.objects.sweeps import tube


def hinged_box(rng: np.random.Generator) -> ArticulatedObject:
    """Hollow box with a lid that turns about the rear edge of the rim by 80 to 195 degrees."""
    if chance(rng, 0.2):
        return _tin(rng)
    a = Assembly("hinged_box", rng)
    # body and shape of the lid
    w, d, h, wall = _tray(a, rng, rng.uniform(0.15, 0.8))
    form = pick(rng, ("flat", "deep", "vault"), (4, 3, 1.5))
    gap = rng.uniform(0.0, 0.01) * h
    # overhang of a flat lid in front
    over = rng.uniform(0.0, 0.05) * d if form == "flat" else 0.0
    t = wall * rng.uniform(0.6, 1.6)
    low = gap
    # lid
    if form == "flat":
        a.add("lid", box((w + 2 * over, d + over, t), (0, -over / 2, gap + t / 2), rng))
        if chance(rng, 0.3):
            a.add("lid", box((w - 2.4 * wall, d - 2.4 * wall, 0.6 * t), (0, 0, gap - 0.2 * t)))
    elif form == "deep":
        thickness, t = t, h * rng.uniform(0.12, 0.6) + 1.5 * t
        a.add("lid", shell_box((w, d, t), wall, (0, 0, gap + t / 2), floor=thickness, open_to="-z"))
    else:
        t = d * rng.uniform(0.2, 0.5)
        a.add("lid", *_vault(w, d, t, wall, gap))
        low = gap - 0.4 * t  # the front of a vault is low
    # handle and hinge
    _lid_grip(a, rng, "lid", w * rng.uniform(0.15, 0.5), (0.0, -d / 2 - over), (low, gap + t), d)
    _barrels(a, rng, w, d / 2, gap, 0.4 * wall)
    upper = rng.uniform(1.4, 2.2) if chance(rng, 0.8) else rng.uniform(2.2, 3.4)
    a.hinge("base", "lid", (0, d / 2, gap), "-x", 0.0, upper)
    return a.build()


def _tin(rng: np.random.Generator) -> ArticulatedObject:
    """Hinged box with a rounded, oval or polygonal outline."""
    a = Assembly("hinged_box", rng)
    w = float(np.exp(rng.uniform(np.log(0.06), np.log(0.5))))
    d = w * rng.uniform(0.5, 1.0)
    h = w * rng.uniform(0.15, 0.9)
    # outline
    form = pick(rng, ("rounded", "oval", "polygon"), (3, 2, 1))
    if form == "rounded":
        outline = rectangle(w, d, rng.uniform(0.1, 0.45) * d, 4)
    else:
        sides = 28 if form == "oval" else int(rng.integers(5, 10))
        outline = circle(1.0, sides)
        outline = outline / np.ptp(outline, axis=0) * [w, d]
    # body and lid
    wall = max(rng.uniform(0.015, 0.06) * min(d, h), 0.001)
    rear = float(outline[:, 1].max())
    a.add("base", vessel(outline, h, wall, (0, 0, -h / 2)))
    deep = chance(rng, 0.6)
    t = h * rng.uniform(0.08, 0.4) + wall if deep else 1.5 * wall
    gap = rng.uniform(0.0, 0.005) * h
    if deep:
        a.add("lid", mirrored(vessel(outline, t, wall, (0, 0, -gap - t / 2)), "z"))
    else:
        a.add("lid", extrude(outline, t, "z", (0, 0, gap + t / 2)))
    # handle and hinge
    _lid_grip(a, rng, "lid", 0.3 * w, (0.0, float(outline[:, 1].min())), (gap, gap + t), d)
    a.add("base", cylinder(0.6 * wall, 0.25 * w, "x", (0, rear, gap), 10))
    a.hinge("base", "lid", (0, rear, gap), "-x", 0.0, rng.uniform(1.4, 2.4))
    return a.build()


def double_lid_box(rng: np.random.Generator) -> ArticulatedObject:
    """Box with two lids, hinged at opposite sides like a carton's or side by side at the rear."""
    a = Assembly("double_lid_box", rng)
    w, d, h, wall = _tray(a, rng, rng.uniform(0.2, 0.9))
    t = wall * rng.uniform(0.5, 1.5)
    gap = rng.uniform(0.0, 0.01) * h
    part = rng.uniform(0.4, 0.6) * w if chance(rng, 0.3) else 0.5 * w
    slit = 0.01 * w
    opposite = chance(rng, 0.65)
    upper = rng.uniform(1.4, 3.6) if opposite else rng.uniform(1.4, 2.4)
    # two lids of the same style
    style = int(rng.integers(2**31))
    for link, low, high in (("lid_0", -w / 2, part - w / 2), ("lid_1", part - w / 2, w / 2)):
        middle = (low + high) / 2
        width = high - low - slit
        a.add(link, box((width, d, t), (middle, 0, gap + t / 2)))
        same = np.random.default_rng(style)
        if opposite:
            side = -1 if low == -w / 2 else 1
            if chance(same, 0.5):
                form = pick(same, ("bar", "bow", "knob"))
                grip = handle(same, form, 0.3 * d, ORIGIN, "z", "y", reach=0.06 * d)
                grip.apply_translation((middle - side * 0.35 * width, 0, gap + t))
                a.add(link, grip)
            a.hinge("base", link, (side * w / 2, 0, gap), (0, side, 0), 0.0, upper)
        else:
            _lid_grip(a, same, link, width * 0.4, (middle, -d / 2), (gap, gap + t), d)
            a.hinge("base", link, (middle, d / 2, gap), "-x", 0.0, upper)
    # wall between the compartments
    if not opposite:
        a.add("base", box((wall, d - wall, h - wall), (part - w / 2, 0, -h / 2 + wall / 4)))
        _barrels(a, rng, w, d / 2, gap, 0.4 * wall)
    return a.build()


def safe(rng: np.random.Generator) -> ArticulatedObject:
    """Safe: thick walls, a heavy door hinged left or right, a dial or keys, and on most a turning
    handle."""
    a = Assembly("safe", rng)
    w = rng.uniform(0.25, 0.6)
    d = rng.uniform(0.22, 0.55)
    h = rng.uniform(0.2, 0.8)
    wall = rng.uniform(0.05, 0.12) * min(w, d, h)
    thick = wall * rng.uniform(0.7, 1.6)
    # body with feet and a shelf
    a.add("base", shell_box((w, d, h), wall, (0, 0, h / 2), open_to="-y"))
    if chance(rng, 0.5):
        a.add("base", *feet(rng, w, d, h * rng.uniform(0.02, 0.1)))
    if chance(rng, 0.5):
        shelf = (w - 2 * wall, d - 2.2 * wall, wall * 0.3)
        a.add("base", box(shelf, (0, wall * 0.5, h * rng.uniform(0.35, 0.65))))
    # door inside the opening or in front of it
    inset = chance(rng, 0.5)
    side = pick(rng, (-1, 1))  # of the hinge
    door_w, door_h = (w - 2.3 * wall, h - 2.3 * wall) if inset else (w - 0.3 * wall, h - 0.3 * wall)
    front = -d / 2 - (0.15 * thick if inset else thick)
    a.add("door", box((door_w, thick, door_h), (0, front + thick / 2, h / 2), rng))
    if not inset and chance(rng, 0.6):  # part of the door that fills the opening
        plug = (w - 2.4 * wall, 0.6 * wall, h - 2.4 * wall)
        a.add("door", box(plug, (0, -d / 2 + 0.3 * wall, h / 2)))
    # Hinges. A turn about +z moves the free edge of a door hinged on the right to the front.
    x = side * door_w / 2
    pin = rng.uniform(0.1, 0.25) * wall
    height = rng.uniform(0.08, 0.2) * h
    for z in (0.22 * h, 0.78 * h):
        a.add("base", cylinder(pin, height, "z", (x, front, z), 10))
    a.hinge(
        "base", "door", (x, front, h / 2), "z" if side > 0 else "-z", 0.0, rng.uniform(1.4, 2.4)
    )

    # handle, fixed or turning
    r = min(door_w, door_h) * rng.uniform(0.06, 0.14)
    at = np.array([-side * door_w * rng.uniform(0.0, 0.28), front, h * rng.uniform(0.45, 0.6)])
    link = "door"
    if chance(rng, 0.6):
        link = "handle"
        limits = (-np.pi, np.pi) if chance(rng, 0.3) else (0.0, rng.uniform(0.8, 1.7))
        a.hinge("door", "handle", at, "-y", *limits)
    a.add(link, *_turning_handle(rng, r, at))
    # dial or keys beside it
    other = at + np.array([side * 2.6 * r if abs(at[0]) > 0.1 * door_w else -side * 2.6 * r, 0, 0])
    if chance(rng, 0.4):
        a.add("door", placed(knob(rng, 0.8 * r, 0.6 * r), other, "-y", "x"))
    elif chance(rng, 0.7):
        s = 0.45 * r
        keys = [(i * 1.2 * s, 0.0, j * 1.2 * s) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        a.add("door", box((4.2 * s, 0.3 * r, 4.6 * s), other))
        a.add("door", *(box((s, 0.2 * r, s), other + k - [0, 0.2 * r, 0]) for k in keys))
    return a.build()


def _tray(
    a: Assembly, rng: np.random.Generator, slimness: float
) -> tuple[float, float, float, float]:
    """Body with its rim in the plane z = 0, added to an assembly; returns width, depth, height and
    wall thickness."""
    w = float(np.exp(rng.uniform(np.log(0.08), np.log(0.7))))
    d = w * rng.uniform(0.45, 1.0)
    h = w * slimness
    wall = max(rng.uniform(0.02, 0.08) * min(w, d, 2 * h), 0.001)
    floor = wall * rng.uniform(0.7, 1.5)
    a.add("base", shell_box((w, d, h), wall, (0, 0, -h / 2), floor=floor, open_to="+z"))
    # feet and an inner partition
    if chance(rng, 0.35):
        a.add("base", *feet(rng, w, d, h * rng.uniform(0.03, 0.15), -h))
    if chance(rng, 0.15):
        partition = (wall * 0.6, d - wall, h * 0.8 - wall)
        a.add("base", box(partition, (w * rng.uniform(-0.2, 0.2), 0, -0.6 * h)))
    # equal handles at both sides
    if chance(rng, 0.2):
        style = int(rng.integers(2**31))
        for s, normal in ((-1, "-x"), (1, "x")):
            same = np.random.default_rng(style)
            form = pick(same, ("bar", "bow", "bracket"))
            a.add("base", handle(same, form, 0.4 * d, (s * w / 2, 0, -0.35 * h), normal, "y"))
    # bands around the body
    if chance(rng, 0.2):
        b = 0.06 * h
        z = -h * rng.uniform(0.3, 0.8)
        a.add("base", *(box((w * 1.02, 0.02 * d, b), (0, s * d / 2, z)) for s in (-1, 1)))
        a.add("base", *(box((0.02 * w, d, b), (s * w / 2, 0, z)) for s in (-1, 1)))
    return w, d, h, wall


def _vault(w: float, d: float, rise: float, wall: float, z: float) -> list[trimesh.Trimesh]:
    """Lid of a chest: a vault of height `rise` (m) over the depth d, closed at both ends."""
    t = np.linspace(0, np.pi, 11)
    circle = np.stack([np.cos(t), np.sin(t)], 1)
    thick = min(wall, 0.3 * rise)
    outer = circle * [d / 2, rise]  # (y, z), the axes of a piece pointed along x
    inner = circle * [d / 2 - thick, rise - thick]
    ends = [extrude(outer, thick, "x", (s * (w - thick) / 2, 0, z)) for s in (-1, 1)]
    return [band(outer, inner, w - thick, "x", (0, 0, z)), *ends]


def _lid_grip(
    a: Assembly,
    rng: np.random.Generator,
    link: str,
    length: float,
    front: tuple[float, float],
    z: tuple[float, float],
    d: float,
) -> None:
    """Handle or knob on top of a lid, tab or latch at its front (x, y) between two heights z, or
    nothing."""
    (x, y), (low, high) = front, z
    kind = pick(rng, ("top", "tab", "latch", "none"), (3, 2, 2, 3))
    if kind == "top":
        form = pick(rng, ("bar", "bow", "bracket", "knob"))
        reach = min(0.3 * length, 0.15 * d)
        at = (x, y + d * rng.uniform(0.2, 0.5), high)
        a.add(link, handle(rng, form, length, at, "z", "x", reach=reach))
    elif kind == "tab":
        z_tab = (low + high) / 2 if low >= 0 else 0.01 * d
        tab = (length, 0.12 * d, min(0.02 * d, high - low))
        a.add(link, box(tab, (x, y - 0.04 * d, z_tab)))
    elif kind == "latch":
        tall = 0.12 * d
        at = (x, y - 0.015 * d, max(low, 0) + 0.1 * tall)
        a.add(link, slab((0.6 * length, 0.03 * d, tall), at, 0.02 * d, "y"))


def _barrels(a: Assembly, rng: np.random.Generator, w: float, y: float, z: float, r: float) -> None:
    """Knuckles along a hinge, on half of the boxes."""
    if chance(rng, 0.5):
        count = int(rng.integers(2, 4))
        length = w * rng.uniform(0.06, 0.15)
        a.add(
            "base",
            *(cylinder(r, length, "x", (x, y, z), 10) for x in np.linspace(-0.36, 0.36, count) * w),
        )


def _turning_handle(rng: np.random.Generator, r: float, at: np.ndarray) -> list[trimesh.Trimesh]:
    """Lever, wheel with spokes, or star of spokes, on a hub at `at` along -y."""
    kind = pick(rng, ("lever", "wheel", "star"))
    stem = r * rng.uniform(0.4, 0.9)
    hub = at - [0, stem, 0]
    pieces = [cylinder(0.28 * r, stem * 1.2, "y", at - [0, stem * 0.6, 0], 14)]
    if kind == "lever":
        long = r * rng.uniform(1.3, 2.2)
        at = hub + np.array([pick(rng, (-1, 1)) * 0.4 * long, 0, 0])
        return [*pieces, box((long, 0.28 * r, 0.35 * r), at, rng)]

    # spokes, and a rim or a knob at each tip
    count = int(rng.integers(3, 6))
    angles = np.arange(count) * 2 * np.pi / count + rng.uniform(0, 1)
    tips = [hub + r * np.array([np.cos(t), 0, np.sin(t)]) for t in angles]
    pieces += [tube([hub, tip], 0.11 * r, 8) for tip in tips]
    if kind == "wheel":
        pieces.append(pipe(1.1 * r, 0.88 * r, 0.2 * r, "y", hub, 24))
    else:
        pieces += [cylinder(0.18 * r, 0.3 * r, "y", tip, 10) for tip in tips]
    return pieces


FAMILIES: dict[str, Callable[[np.random.Generator], ArticulatedObject]] = {
    "hinged_box": hinged_box,
    "double_lid_box": double_lid_box,
    "safe": safe,
}
