"""Household things of random proportions that stand on a table.

A thing stands on z = 0 about the z axis. Others can be put on its level surface: its top, the floor
of a vessel or the well of a plate, described by a height, the radius of what fits there and the
height of the rim around it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import trimesh

from generators.chord.priors.choreographer.scenes.sentence_templates import Names
from generators.data.objects.parts import chance, handle, pick
from generators.data.objects.primitives import (
    box,
    circle,
    cup,
    lathe,
    merge,
    moved,
    rectangle,
    rounded_box,
    shell_box,
    sphere,
    vessel,
)


@dataclass(frozen=True, eq=False)
class Thing:
    """One thing.

    Attributes:
        kind: a key of THINGS.
        mesh: its surface, z up, standing on z = 0 about the z axis, meters.
        floor: height at which another thing would stand on or in it, meters.
        room: radius of what can stand there, meters; 0 for nothing.
        rim: height to be crossed to get there, meters.
    """

    kind: str
    mesh: trimesh.Trimesh
    floor: float = 0.0
    room: float = 0.0
    rim: float = 0.0

    @property
    def radius(self) -> float:
        """Radius of the circle about the z axis that encloses it, meters."""
        return float(np.linalg.norm(self.mesh.vertices[:, :2], axis=1).max())

    @property
    def base(self) -> float:
        """Radius about the z axis of its lowest quarter, meters."""
        v = self.mesh.vertices
        return float(np.linalg.norm(v[v[:, 2] <= 0.25 * v[:, 2].max()][:, :2], axis=1).max())

    @property
    def height(self) -> float:
        """Height, meters."""
        return float(self.mesh.vertices[:, 2].max())


def cube(rng: np.random.Generator) -> Thing:
    """A block, most of them nearly cubes."""
    # Sides (3,): equal, or stretched one by one.
    e = rng.uniform(0.04, 0.09) * np.where(chance(rng, 0.5), np.ones(3), rng.uniform(0.6, 1.5, 3))
    return _flat_topped("cube", box(e, (0, 0, e[2] / 2), rng, bevel=0.2), e[2], min(e[:2]) / 2)


def book(rng: np.random.Generator) -> Thing:
    """A flat block, as books and cartons are."""
    e = np.array([rng.uniform(0.1, 0.2), rng.uniform(0.13, 0.26), rng.uniform(0.015, 0.05)])
    return _flat_topped("book", box(e, (0, 0, e[2] / 2)), e[2], min(e[:2]) / 2)


def can(rng: np.random.Generator) -> Thing:
    """A tin: a cylinder, some with beaded ends."""
    r, h = rng.uniform(0.025, 0.055), rng.uniform(0.05, 0.16)
    # Profile (radius, height); some have narrower, beaded ends.
    bead = rng.uniform(0.03, 0.12) * r if chance(rng, 0.6) else 0.0
    profile = [
        (0, 0),
        (r - bead, 0),
        (r, 1.5 * bead + 1e-4),
        (r, h - 1.5 * bead - 1e-4),
        (r - bead, h),
        (0, h),
    ]
    return _flat_topped("can", lathe(profile, int(rng.integers(16, 33))), h, 0.9 * r)


def bottle(rng: np.random.Generator) -> Thing:
    """A body, a shoulder, a neck and a cap."""
    r, h = rng.uniform(0.025, 0.05), rng.uniform(0.14, 0.28)
    # Profile (radius, height): foot, body, shoulder, neck and cap.
    neck, shoulder = r * rng.uniform(0.25, 0.5), rng.uniform(0.5, 0.72)
    cap = neck * rng.uniform(1.0, 1.25)
    profile = [
        (0, 0),
        (0.95 * r, 0),
        (r, 0.03 * h),
        (r, shoulder * h),
        (0.8 * r, (shoulder + 0.08) * h),
    ]
    profile += [(neck, (shoulder + 0.18) * h), (neck, 0.92 * h), (cap, 0.925 * h), (cap, h), (0, h)]
    return Thing("bottle", lathe(profile, int(rng.integers(16, 29))))


def bowl(rng: np.random.Generator) -> Thing:
    """A bowl on a small foot, rounded or conical."""
    r = rng.uniform(0.06, 0.12)
    h, foot = r * rng.uniform(0.45, 0.8), r * rng.uniform(0.4, 0.65)
    # Outer profile from foot to rim.
    t = np.linspace(0, 1, 8)
    out = foot + (r - foot) * (np.sin(t * np.pi / 2) ** rng.uniform(0.7, 1.0))
    wall = rng.uniform(0.003, 0.007)
    mesh = cup(
        np.column_stack([out, h * t ** rng.uniform(1.1, 1.6)]), wall, int(rng.integers(20, 33))
    )
    return Thing("bowl", mesh, wall + 0.001, foot - wall + 0.25 * (r - foot), h)


def ramekin(rng: np.random.Generator) -> Thing:
    """A small baking dish with steep walls."""
    r = rng.uniform(0.03, 0.055)
    h, foot, wall = (
        r * rng.uniform(0.7, 1.3),
        r * rng.uniform(0.75, 0.98),
        rng.uniform(0.003, 0.006),
    )
    mesh = cup([(foot, 0), (r, h)], wall, int(rng.integers(18, 33)))
    if chance(rng, 0.4):  # a lip
        mesh = merge(mesh, cup([(r, h - 0.006), (1.06 * r, h)], wall, 24))
    return Thing("ramekin", mesh, wall + 0.001, 0.85 * (foot - wall), h)


def mug(rng: np.random.Generator) -> Thing:
    """A cup with a handle on its side."""
    r, wall = rng.uniform(0.03, 0.048), rng.uniform(0.003, 0.005)
    h = r * rng.uniform(1.6, 2.8)
    mesh = cup(
        [(r * rng.uniform(0.8, 1.0), 0), (r, 0.3 * h), (r, h)], wall, int(rng.integers(18, 33))
    )
    # The grip on the mug's wall, upright.
    long = h * rng.uniform(0.5, 0.75)
    grip = handle(
        rng,
        pick(rng, ("bow", "bracket")),
        long,
        (0.97 * r, 0, h / 2),
        "x",
        "z",
        reach=rng.uniform(0.02, 0.035),
    )
    return Thing("mug", merge(mesh, grip), wall + 0.001, 0.7 * r, h)


def glass(rng: np.random.Generator) -> Thing:
    """A tumbler."""
    r = rng.uniform(0.028, 0.045)
    h = r * rng.uniform(2.0, 3.6)
    return Thing(
        "glass", cup([(r * rng.uniform(0.65, 1.0), 0), (r, h)], 0.003, int(rng.integers(16, 33)))
    )


def plate(rng: np.random.Generator) -> Thing:
    """A round plate with a raised edge."""
    r = rng.uniform(0.08, 0.145)
    well, h = r * rng.uniform(0.6, 0.78), r * rng.uniform(0.08, 0.2)
    thick = rng.uniform(0.003, 0.006)
    # Underside from the center out, then the upper side back in.
    outer = [(0, 0), (0.9 * well, 0), (well, 0.15 * h), (r, h)]
    inner = [
        (r - 0.3 * thick, h + 0.5 * thick),
        (0.98 * well, thick + 0.15 * h),
        (0.85 * well, thick),
        (0, thick),
    ]
    return Thing(
        "plate", lathe(outer + inner, int(rng.integers(24, 41))), thick, 0.95 * well, h + thick
    )


def tray(rng: np.random.Generator) -> Thing:
    """A flat rectangle with low walls."""
    e = np.array([rng.uniform(0.22, 0.4), rng.uniform(0.16, 0.28), rng.uniform(0.015, 0.045)])
    wall = rng.uniform(0.004, 0.012)
    if chance(rng, 0.5):
        mesh = shell_box(e, wall, (0, 0, e[2] / 2), floor=0.005)
    else:
        mesh = vessel(
            rectangle(e[0], e[1], rng.uniform(0.02, 0.06)),
            e[2],
            wall,
            (0, 0, e[2] / 2),
            floor=0.005,
        )
    return Thing("tray", mesh, 0.005, min(e[:2]) / 2 - 1.5 * wall, e[2])


def bin_box(rng: np.random.Generator) -> Thing:
    """An open box."""
    e = np.array([rng.uniform(0.14, 0.28), rng.uniform(0.12, 0.22), rng.uniform(0.05, 0.14)])
    wall = rng.uniform(0.004, 0.012)
    mesh = shell_box(e, wall, (0, 0, e[2] / 2), floor=wall)
    return Thing("box", mesh, wall, min(e[:2]) / 2 - 1.5 * wall, e[2])


def basket(rng: np.random.Generator) -> Thing:
    """A round or rounded basket, wider above than below."""
    r = rng.uniform(0.08, 0.13)
    h, wall = r * rng.uniform(0.6, 1.1), rng.uniform(0.004, 0.008)
    foot = r * rng.uniform(0.7, 0.95)
    mesh = moved(vessel(circle(r, int(rng.integers(10, 33))), h, wall), (0, 0, h / 2))
    vertices = np.array(mesh.vertices)
    # Narrower towards the foot, linearly with height.
    vertices[:, :2] *= (foot + (r - foot) * vertices[:, 2:] / h) / r
    if chance(rng, 0.5):
        vertices[:, 0] *= rng.uniform(1.1, 1.4)
    return Thing(
        "basket", trimesh.Trimesh(vertices, mesh.faces, process=False), wall, 0.9 * (foot - wall), h
    )


def pot(rng: np.random.Generator) -> Thing:
    """A cooking pot with two ears."""
    r = rng.uniform(0.075, 0.12)
    h = r * rng.uniform(0.7, 1.2)
    ears = [
        handle(rng, "bow", 0.06, (s * r, 0, 0.8 * h), side, "y", reach=0.03)
        for s, side in ((-1, "-x"), (1, "x"))
    ]
    return _pan(rng, "pot", r, h, *ears)


def pan(rng: np.random.Generator) -> Thing:
    """A frying pan with a long handle."""
    r, long = rng.uniform(0.075, 0.12), rng.uniform(0.1, 0.17)
    h = r * rng.uniform(0.35, 0.6)
    return _pan(
        rng,
        "pan",
        r,
        h,
        rounded_box((long, 0.022, 0.012), (r + long / 2 - 0.005, 0, 0.85 * h), 0.004),
    )


def _pan(rng: np.random.Generator, kind: str, r: float, h: float, *grips: trimesh.Trimesh) -> Thing:
    wall = 0.004
    mesh = cup([(0.93 * r, 0), (r, 0.1 * h), (r, h)], wall, int(rng.integers(20, 33)))
    return Thing(kind, merge(mesh, *grips), wall + 0.001, 0.85 * r, h)


def ball(rng: np.random.Generator) -> Thing:
    """A ball, or an egg-shaped fruit."""
    r = rng.uniform(0.02, 0.045)
    # Radii (3,): a ball, or each drawn by itself.
    radii = np.full(3, r) if chance(rng, 0.6) else r * rng.uniform(0.85, 1.2, 3)
    return Thing("ball", sphere(radii, (0, 0, radii[2]), 16))


def _flat_topped(kind: str, mesh: trimesh.Trimesh, height: float, room: float) -> Thing:
    return Thing(kind, mesh, height, room, height)


THINGS: dict[str, tuple[Callable[[np.random.Generator], Thing], Names]] = {
    "cube": (
        cube,
        Names(
            ("cube", "block"), ("brick",), ("wooden block", "toy block", "building block", "die")
        ),
    ),
    "book": (book, Names(("book",), ("volume",), ("hardcover", "paperback", "novel", "textbook"))),
    "can": (can, Names(("can", "tin"), ("soda can",), ("tin can", "drink can", "food can"))),
    "bottle": (
        bottle,
        Names(("bottle",), ("flask",), ("water bottle", "drink bottle", "plastic bottle")),
    ),
    "bowl": (bowl, Names(("bowl",), ("salad bowl",), ("soup bowl", "cereal bowl", "mixing bowl"))),
    "ramekin": (
        ramekin,
        Names(
            ("ramekin", "small bowl"),
            ("baking dish",),
            ("baking cup", "custard cup", "little dish", "souffle dish"),
        ),
    ),
    "mug": (
        mug,
        Names(("mug", "cup"), ("beaker",), ("coffee mug", "coffee cup", "tea mug", "teacup")),
    ),
    "glass": (glass, Names(("glass",), ("tumbler",), ("drinking glass", "water glass"))),
    "plate": (plate, Names(("plate",), ("platter",), ("dinner plate", "saucer"))),
    "tray": (tray, Names(("tray",), ("serving tray",), ("salver", "tea tray"))),
    "box": (bin_box, Names(("box", "bin"), ("tub",), ("small box", "little box", "carton"))),
    "basket": (basket, Names(("basket",), ("hamper",), ("wicker basket", "storage basket"))),
    "pot": (
        pot,
        Names(("pot",), ("saucepan",), ("cooking pot", "saucepot", "stockpot", "stew pot")),
    ),
    "pan": (pan, Names(("pan",), ("skillet",), ("frying pan", "frypan", "saute pan"))),
    "ball": (ball, Names(("ball",), ("sphere",), ("round ball", "toy ball", "orb"))),
}
"""For each kind, the function that draws a thing, and its names."""
