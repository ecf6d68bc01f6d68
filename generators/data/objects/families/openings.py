"""Windows and doors in upright frames. They open to the front, -y, or slide along the frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import trimesh

from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.assembly import Assembly
from generators.data.objects.parts import OPENS, chance, handle, knob, pick, placed
from generators.data.objects.primitives import (
    ORIGIN,
    box,
    cylinder,
    frame_box,
    merge,
    mirrored,
    rounded_box,
    slab,
)
from generators.data.objects.sweeps import rounded_path, tube


def window(rng: np.random.Generator) -> ArticulatedObject:
    """Window with sashes that slide sideways or up, or with casements hinged at a side, the top or
    the bottom."""
    a = Assembly("window", rng)
    kind = pick(rng, ("sliding", "hung", "casement", "hopper"), (4, 2.5, 4, 1.5))
    w = rng.uniform(0.5, 1.6)
    h = rng.uniform(0.5, 1.6)
    bar = rng.uniform(0.025, 0.06)  # width of the frame
    t = rng.uniform(0.02, 0.045)  # thickness of a sash
    # frame and sill
    tracks = 2 if kind in ("sliding", "hung") else 1
    depth = tracks * t * 1.15 + 0.02
    a.add("base", frame_box((w, depth, h), bar, (0, 0, h / 2)))
    if chance(rng, 0.4):
        a.add("base", box((w * 1.08, depth * 1.8, 0.6 * bar), (0, -0.4 * depth, 0.2 * bar)))
    # sashes
    inner = np.array([w - 2 * bar, h - 2 * bar])
    muntins = (int(rng.integers(0, 3)), int(rng.integers(0, 3))) if chance(rng, 0.4) else (0, 0)
    sash = rng.uniform(0.025, 0.05)
    y = np.array([-0.575, 0.575]) * t
    lap = 0.5 * sash
    if kind in ("sliding", "hung"):
        i = 0 if kind == "sliding" else 1
        both = chance(rng, 0.35)
        size = np.array(inner)
        size[i] = inner[i] / 2 + lap
        for n, s in enumerate((-1, 1)):
            at = np.array([0.0, y[n], h / 2])
            at[2 * i] += s * (inner[i] - size[i]) / 2
            moves = n == 0 or both
            link = f"sash_{n}" if moves else "base"
            a.add(link, *_sash(Sash(size - 0.004, sash, t, muntins), at))
            if moves:
                front = at - [0, t / 2, 0]
                a.add(link, _pull(rng, front, size, sash, i, s))
                travel = (inner[i] - size[i]) * rng.uniform(0.8, 1.0)
                a.slide("base", link, -s * np.eye(3)[2 * i], 0.0, travel)
    elif kind == "casement":
        count = 1 if w < 0.8 else 2
        hinges = ("left", "right") if count == 2 else (pick(rng, ("left", "right")),)
        size = np.array([inner[0] / count, inner[1]]) - 0.005
        upper = rng.uniform(1.2, 1.9)
        for n, hinge in enumerate(hinges):
            at = np.array([(n - (count - 1) / 2) * inner[0] / count, 0.0, h / 2])
            free = 1 if hinge == "left" else -1
            _casement(a, rng, f"sash_{n}", at, Sash(size, sash, t, muntins), hinge, upper)
            grip = (at[0] + free * (size[0] / 2 - sash / 2), -t / 2, h / 2)
            _latch(a, rng, f"sash_{n}", grip, sash)
    else:
        hinge = pick(rng, ("top", "bottom"), (3, 2))
        at = np.array([0.0, 0.0, h / 2])
        casement = Sash(inner - 0.005, sash, t, muntins)
        _casement(a, rng, "sash_0", at, casement, hinge, rng.uniform(0.5, 1.3))
        z = h / 2 + (inner[1] / 2 - sash / 2) * (1 if hinge == "bottom" else -1)
        _latch(a, rng, "sash_0", (0.0, -t / 2, z), sash)
    return a.build()


class Sash(NamedTuple):
    """Dimensions of a sash.

    Attributes:
        size: (2,) width and height, m.
        bar: width of its frame, m.
        t: thickness of its frame, m.
        muntins: vertical and horizontal bars across the pane.
    """

    size: np.ndarray
    bar: float
    t: float
    muntins: tuple[int, int]


def _sash(sash: Sash, at: np.ndarray) -> list[trimesh.Trimesh]:
    """Frame, pane and muntins of a sash with its center at `at` (3,)."""
    (w, h), bar, t = sash.size, sash.bar, sash.t
    pieces = [frame_box((w, t, h), bar, at), box((w - 1.9 * bar, 0.15 * t, h - 1.9 * bar), at)]
    columns, rows = sash.muntins
    for x in np.linspace(-0.5, 0.5, columns + 2)[1:-1]:
        pieces.append(box((0.3 * bar, 0.5 * t, h - 1.5 * bar), at + np.array([x * w, 0, 0])))
    for z in np.linspace(-0.5, 0.5, rows + 2)[1:-1]:
        pieces.append(box((w - 1.5 * bar, 0.5 * t, 0.3 * bar), at + np.array([0, 0, z * h])))
    return pieces


def _pull(
    rng: np.random.Generator, front: np.ndarray, size: np.ndarray, bar: float, i: int, s: int
) -> trimesh.Trimesh:
    """Handle on the leading side of a sash that slides sideways (i = 0) or up (i = 1), in direction
    -s or s."""
    at = np.array(front)
    if i == 0:
        at[0] += -s * (size[0] - bar) / 2
        kind = pick(rng, ("bracket", "strip", "bar"))
        return handle(rng, kind, 0.15 * size[1], at, "-y", "z", reach=0.03)
    at[2] += s * (size[1] - bar) / 2
    kind = pick(rng, ("bracket", "strip", "cup"))
    return handle(rng, kind, 0.15 * size[0], at, "-y", "x", reach=0.025)


def _casement(
    a: Assembly,
    rng: np.random.Generator,
    link: str,
    at: np.ndarray,
    sash: Sash,
    hinge: str,
    upper: float,
) -> None:
    """Sash hinged at one side that opens to the front by 0 to `upper` (rad)."""
    size, t = sash.size, sash.t
    a.add(link, *_sash(sash, at))
    # front edge at the hinge, and its direction
    side = {"left": (-1, 0), "right": (1, 0), "top": (0, 1), "bottom": (0, -1)}[hinge]
    edge = at + np.array([side[0] * size[0] / 2, -t / 2, side[1] * size[1] / 2])
    along = np.array([0, 0, 1.0]) if side[0] else np.array([1.0, 0, 0])
    length = size[1 if side[0] else 0]
    if chance(rng, 0.6):
        for s in (-1, 1):
            a.add("base", cylinder(0.007, 0.07, along, edge + s * 0.35 * length * along, 10))
    a.hinge("base", link, edge, OPENS[hinge], 0.0, upper)


def _latch(
    a: Assembly, rng: np.random.Generator, sash: str, at: tuple[float, float, float], bar: float
) -> None:
    """Handle of a casement: a fixed pull, or a lever that turns."""
    if chance(rng, 0.4):
        kind = pick(rng, ("bow", "bracket", "knob"))
        a.add(sash, handle(rng, kind, 0.1, at, "-y", "z", reach=0.035))
        return
    # lever on a plate
    link = f"{sash}_lever"
    x, y, z = at
    a.add(sash, slab((0.6 * bar, 0.008, 0.07), (x, y - 0.003, z), 0.008, "y"))
    a.add(
        link,
        cylinder(0.007, 0.035, "y", (x, y - 0.0175, z), 10),
        rounded_box((0.014, 0.012, 0.12), (x, y - 0.035, z - 0.05), 0.004),
    )
    a.hinge(sash, link, at, "y", *((0.0, np.pi / 2) if chance(rng, 0.5) else (-np.pi / 2, 0.0)))


def door(rng: np.random.Generator) -> ArticulatedObject:
    """Door with one or two leaves in a frame; leaves are boards, paneled or glazed, with levers or
    knobs that turn."""
    a = Assembly("door", rng)
    double = chance(rng, 0.15)
    w = rng.uniform(0.65, 1.0) * (1.7 if double else 1.0)
    h = rng.uniform(1.8, 2.25) if chance(rng, 0.85) else rng.uniform(0.9, 1.4)
    t = rng.uniform(0.03, 0.055)
    jamb = rng.uniform(0.04, 0.12)
    depth = t * rng.uniform(1.0, 2.5)
    # frame with a sill and a stop behind the leaf; the leaf is flush with the frame's front
    y = -depth / 2
    for s in (-1, 1):
        a.add("base", box((jamb, depth, h + jamb), (s * (w + jamb) / 2, 0, (h + jamb) / 2)))
    a.add("base", box((w, depth, jamb), (0, 0, h + jamb / 2)))
    if chance(rng, 0.3):
        a.add("base", box((w, depth, 0.015), (0, 0, 0.0075)))
    if chance(rng, 0.5):
        z, stop = h - 0.01, 0.015
        for s in (-1, 1):
            a.add("base", box((stop, 0.01, h), (s * (w - stop) / 2, y + t + 0.006, h / 2)))
        a.add("base", box((w - 2 * stop, 0.01, stop), (0, y + t + 0.006, z)))
    # shared look of the leaves
    hinges = ("left", "right") if double else (pick(rng, ("left", "right")),)
    upper = rng.uniform(1.3, 1.7) if chance(rng, 0.6) else rng.uniform(1.7, 2.6)
    form = pick(rng, ("board", "panels", "glass", "half glass"), (3, 4, 1.5, 1.5))
    style = int(rng.integers(2**31))
    for i, hinge in enumerate(hinges):
        gap = 0.004
        wide = w / len(hinges) - 2 * gap
        x = (i - 0.5) * w / 2 if double else 0.0
        link = f"leaf_{i}"
        free = 1 if hinge == "left" else -1
        size = np.array([wide, t, h - 0.02 - gap])
        center = np.array([x, y + t / 2, 0.02 + size[2] / 2])
        a.add(link, *_leaf(np.random.default_rng(style), form, size, center))
        # hinges and handle
        edge = np.array([x - free * wide / 2, y, h / 2])
        for z in np.linspace(0.12, 0.88, int(rng.integers(2, 4))) * h:
            a.add("base", cylinder(0.009, 0.1, "z", (edge[0], y, z), 10))
        a.hinge("base", link, edge, OPENS[hinge], 0.0, upper)
        at = np.array([x + free * (wide / 2 - 0.065), y, min(h * rng.uniform(0.44, 0.52), 1.1)])
        _lever(a, np.random.default_rng(style), link, at, t, -free)
    return a.build()


def _leaf(
    rng: np.random.Generator, form: str, size: np.ndarray, center: np.ndarray
) -> list[trimesh.Trimesh]:
    """Leaf of a door: a board, a board with raised panels on both faces, or a frame with a pane."""
    w, t, h = size
    if form == "glass":
        bar = rng.uniform(0.12, 0.2) * w
        return [frame_box(size, bar, center), box((w - 1.9 * bar, 0.2 * t, h - 1.9 * bar), center)]
    if form == "half glass":
        low = h * rng.uniform(0.35, 0.5)
        bottom = center - np.array([0, 0, (h - low) / 2])
        top = center + np.array([0, 0, low / 2])
        bar = rng.uniform(0.14, 0.22) * w
        upper = (w, t, h - low)
        return [
            box((w, t, low), bottom),
            frame_box(upper, bar, top),
            box((w - 1.9 * bar, 0.2 * t, h - low - 1.9 * bar), top),
        ]
    pieces = [box(size, center)]
    if form == "panels":
        columns = int(rng.integers(1, 3))
        rows = int(rng.integers(1, 4))
        proud = rng.uniform(0.004, 0.012)
        cell = np.array([0.8 * w / columns, 0.88 * h / rows])
        for i in range(columns):
            for j in range(rows):
                x = (i - (columns - 1) / 2) * cell[0]
                z = (j - (rows - 1) / 2) * cell[1]
                panel = (0.75 * cell[0], t + 2 * proud, 0.82 * cell[1])
                at = center + np.array([x, 0, z])
                pieces.append(slab(panel, at, 0.0, "y", bevel=proud))
    return pieces


def _lever(
    a: Assembly, rng: np.random.Generator, leaf: str, at: np.ndarray, t: float, toward: int
) -> None:
    """Lever, knob or pull on both faces of a leaf, at `at` (3,) on its front; a lever points to the
    hinge, in the x direction `toward` (-1 or 1)."""
    kind = pick(rng, ("lever", "bent lever", "knob", "pull"), (5, 3, 2, 1.5))
    link = f"{leaf}_handle"
    plate = rng.uniform(0.022, 0.03)
    tall = rng.uniform(0.06, 0.12) if chance(rng, 0.4) else 0.0
    long = rng.uniform(0.09, 0.14)
    out = rng.uniform(0.04, 0.06)
    r = rng.uniform(0.007, 0.011)
    # candidates of every kind, drawn at the origin
    form = pick(rng, ("bar", "bow", "bracket"))
    pull = handle(rng, form, rng.uniform(0.15, 0.5), ORIGIN, "-y", "z", reach=out)
    grip = placed(knob(rng, rng.uniform(0.022, 0.03), out), ORIGIN, "-y", "x")
    # front, and its mirror image at the back
    for s, y in ((1, at[1]), (-1, at[1] + t)):
        face = np.array([at[0], y, at[2]])
        if kind == "pull":
            piece = pull
        elif kind == "knob":
            piece = grip
        else:
            end = np.array([toward * long, -out, 0])
            back = [end, end + np.array([0, 0.5 * out, 0])] if kind == "bent lever" else [end]
            piece = tube(rounded_path([ORIGIN, (0, -out, 0), *back], 0.4 * out), r, 10)
        if s < 0:
            piece = mirrored(piece, "y")
        if kind == "pull":
            a.add(leaf, merge(piece).apply_translation(face))
            continue
        a.add(link, merge(piece).apply_translation(face))
        rose = (
            slab((2 * plate, 0.008, 4 * tall), face, 0.01, "y")
            if tall
            else cylinder(plate, 0.008, "y", face, 18)
        )
        a.add(leaf, rose)
    if kind == "pull":
        return
    if kind == "knob":
        a.hinge(leaf, link, at, "y", -1.2, 1.2)
    else:  # the free end moves down: a turn about +y takes x to -z
        a.hinge(leaf, link, at, (0, toward, 0), 0.0, rng.uniform(0.6, 1.1))


FAMILIES: dict[str, Callable[[np.random.Generator], ArticulatedObject]] = {
    "window": window,
    "door": door,
}
