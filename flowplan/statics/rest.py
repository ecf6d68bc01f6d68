"""Rest of an object that is let go where a motion ends.

A rigid object rests if it is balanced on the support plane, obstacles and other objects that rest
(flowplan.statics.rigid), and so are those objects together with it. A jointed one rests if it is
balanced as a whole, or fixed, since it did not stand on its own at the start either, and gravity
does not move its part (flowplan.statics.joint). A cloth rests if its points fall by little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.geometry import inverse, transform
from flowplan.motion import SceneMotion
from flowplan.motion_quality import rigid_parts
from flowplan.scene import Scene, SceneObject
from flowplan.statics.joint import JointLoad, joint_load, part_screw
from flowplan.statics.options import RestOptions
from flowplan.statics.rigid import Balance, balance
from flowplan.statics.solid import SHELL, Solid, joined
from flowplan.statics.supports import Supports
from flowplan.utils.checks import FloatArray

_STILL = 1e-3
"""Meters that something at rest moves at most."""
_SLOW = 0.05
"""Meters per second of the last step, up to which something that moved is at rest."""
_JOINT_WAY = 0.1
"""Share of an object's way, and at least a centimeter, that a part on a joint moves against it."""
_LEAST_AREA = 0.05
"""Share of an object's surface that is a part."""
_LEAST_PART = 0.1
"""Share of an object's vertices that is its base."""
_CLOTH_SHARE = 0.98
"""Share of a cloth's points that fall by little."""

Surface = tuple[FloatArray, NDArray[np.int64]]
"""Vertices (V, 3) in the world frame, meters, and faces (F, 3)."""


@dataclass(frozen=True)
class Rest:
    """An object that is let go where a motion ends.

    Attributes:
        rests: True if it stays there.
        reason: One line with the measurement that decided.
        drop: Meters that it falls first; infinite if nothing is below it.
        margin: Meters by which its center of mass is inside the polygon of contact, seen from
            above; negative outside; minus infinity without contact.
        load: Torque of gravity in N m about the joint of its part (N along a slide); 0 without one.
        assumptions: Guesses that this rests on, one line each.
    """

    rests: bool
    reason: str
    drop: float
    margin: float = -np.inf
    load: float = 0.0
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Around:
    """Everything but one object, at the end of the motion.

    Attributes:
        objects: Other objects that rest, by name.
        obstacles: Surfaces that never move.
        height: z of the support plane, or None.
        unfit: Names of other objects that do not rest.
    """

    objects: dict[str, Surface]
    obstacles: tuple[Surface, ...]
    height: float | None
    unfit: tuple[str, ...] = ()

    def surfaces(self, without: Sequence[str] = ()) -> list[Surface]:
        """All surfaces, without those of some objects."""
        kept = [surface for name, surface in self.objects.items() if name not in without]
        return [*self.obstacles, *kept]

    def supports(self, near: Solid, without: Sequence[str] = ()) -> Supports:
        """Surfaces below a body."""
        return Supports(self.surfaces(without), self.height, near)


def rest_at_end(
    scene: Scene,
    motion: SceneMotion,
    target: int,
    *,
    deformable: bool = False,
    options: RestOptions = RestOptions(),
) -> Rest:
    """Rest of one object that is let go where a motion ends.

    Args:
        scene: The objects, support plane and obstacles.
        motion: Their motion; everything stays where it ends.
        target: Index of the object.
        deformable: True for a cloth.
        options: Tolerances.
    """
    obj, vertices = scene.objects[target], motion.vertices[target]
    around = _around(scene, motion, target, options)
    body = Solid(vertices[-1], obj.mesh.faces)
    even = f"{obj.name} is of even density, for its center of mass"
    if deformable:
        found = _cloth(obj.name, body, around, options)
    elif (parts := _split(vertices, obj.mesh.faces)) is None:
        found = _rigid(obj.name, body, around, options)
        found = replace(found, assumptions=(even,) if np.isfinite(found.margin) else ())
    else:
        found = _jointed(scene, motion, target, parts, around, options)
        found = replace(found, assumptions=(even, *found.assumptions))
    if not found.rests and around.unfit:
        which = ", ".join(around.unfit)
        found = replace(found, reason=f"{found.reason} ({which} cannot carry it, at rest neither)")
    return found


def _around(scene: Scene, motion: SceneMotion, target: int, options: RestOptions) -> _Around:
    """Everything but the target at the end; what moved carries it only if it rests itself."""
    obstacles = tuple((o.vertices_world, np.asarray(o.mesh.faces)) for o in scene.obstacles)
    ends = [
        (vertices[-1], np.asarray(obj.mesh.faces))
        for obj, vertices in zip(scene.objects, motion.vertices, strict=True)
    ]
    names = [obj.name for obj in scene.objects]
    moves = [bool(moving.any()) for moving in motion.moving(_STILL)]
    still = {
        name: end
        for i, (name, end) in enumerate(zip(names, ends, strict=True))
        if i != target and not moves[i]
    }
    fixed = _Around(still, obstacles, scene.support_height)
    carriers, unfit = dict(still), []
    for i, name in enumerate(names):
        if i == target or not moves[i]:
            continue
        body = Solid(*ends[i])
        speed = np.linalg.norm(motion.vertices[i][-1] - motion.vertices[i][-2], axis=-1).max()
        slow = speed <= _SLOW * float(motion.times[-1] - motion.times[-2])
        if slow and balance(body, fixed.supports(body), options).rests:
            carriers[name] = ends[i]
        else:
            unfit.append(name)
    return _Around(carriers, obstacles, scene.support_height, tuple(unfit))


def _rigid(name: str, body: Solid, around: _Around, options: RestOptions) -> Rest:
    """Balance of a rigid body, and of the objects that carry it together with it."""
    found = balance(body, around.supports(body), options)
    reason = _reason(name, found, options)
    rest = Rest(found.rests, reason, found.drop, found.margin)
    if not found.rests:
        return rest
    whole, below = body, list[str]()
    while below_it := _touched(whole, around, below, options):
        below += below_it
        whole = joined([whole, *(Solid(*around.objects[other]) for other in below_it)])
        stack = balance(whole, around.supports(whole, below), options)
        if not stack.rests:
            them = f"{name} on {', '.join(below)}"
            return replace(rest, rests=False, reason=_reason(them, stack, options))
    return rest


def _touched(
    body: Solid, around: _Around, without: Sequence[str], options: RestOptions
) -> list[str]:
    """Names of other objects onto which a body falls first, or nearly so."""
    drops = {
        name: Supports([surface], None, body).drop(body, np.eye(4))
        for name, surface in around.objects.items()
        if name not in without
    }
    return [name for name, drop in drops.items() if drop <= options.drop]


def _reason(name: str, found: Balance, options: RestOptions) -> str:
    """One line on a balance."""
    margin = f"{abs(1e3 * found.margin):.0f} mm {'inside' if found.margin > 0 else 'outside'}"
    if found.fault == "falls":
        if not np.isfinite(found.drop):
            return f"{name} would fall: nothing is below it"
        limit = 1e3 * options.drop
        return f"{name} would fall {1e3 * found.drop:.0f} mm (limit {limit:g} mm)"
    if found.fault == "tips":
        tilt, rise = np.rad2deg(options.tilt), f"{abs(1e3 * found.rise):.1f} mm"
        change = f"raises it by {rise} only" if found.rise >= 0 else f"lowers it by {rise}"
        return (
            f"{name} would tip over or roll: its center of mass is {margin} the contact, and a "
            f"tilt of {tilt:.0f} deg {change}"
        )
    if found.fault == "slides":
        slope = np.rad2deg(np.arctan(found.slide))
        return f"{name} would slide: it is on a slope of {slope:.0f} deg"
    fall = f"falls {1e3 * found.drop:.0f} mm and rests" if found.drop > 5e-4 else "rests"
    return f"{name} {fall}, its center of mass {margin} the contact"


def _cloth(name: str, body: Solid, around: _Around, options: RestOptions) -> Rest:
    """Fall of the points of a cloth, each on its own."""
    own, _ = around.supports(body).gaps(body, np.eye(4))
    drop = float(np.quantile(own, _CLOTH_SHARE, method="higher"))
    limit = 1e3 * options.cloth_drop
    if drop <= options.cloth_drop:
        return Rest(True, f"{name} lies: its points fall {1e3 * drop:.0f} mm at most", drop, 0.0)
    fall = f"{1e3 * drop:.0f} mm" if np.isfinite(drop) else "from everything"
    return Rest(False, f"{name} would fall {fall} in part (limit {limit:g} mm)", drop)


@dataclass(frozen=True, eq=False)
class _Parts:
    """A base and a part that moves against it.

    Attributes:
        fixed: (F,) mask of the faces of the base.
        moving: (V,) mask of the vertices of the part.
        relative: (T, V, 3) vertices with the base held where it is at t = 0.
        X_base: (4, 4) motion of the base from t = 0 to the end.
    """

    fixed: NDArray[np.bool_]
    moving: NDArray[np.bool_]
    relative: FloatArray
    X_base: FloatArray


def _split(vertices: FloatArray, faces: NDArray[np.int64]) -> _Parts | None:
    """Base and moving part of an object, or None if it moves as one body."""
    groups = rigid_parts(vertices)
    # The base is the group, of some size, that moves least.
    way = np.linalg.norm(vertices - vertices[0], axis=-1).max(axis=0)  # (V,)
    sizes = np.bincount(groups.label, minlength=len(groups.X_world)) / len(way)
    large = np.flatnonzero(sizes >= _LEAST_PART)
    if not len(large):
        return None
    base = min(large, key=lambda group: way[groups.label == group].mean())
    X_base = groups.X_world[base]  # (T, 4, 4)
    relative = transform(inverse(X_base), vertices)
    apart = np.linalg.norm(relative - relative[0], axis=-1).max(axis=0)
    # Groups that move against it are the part, with their vertices near the axis.
    least = max(0.01, _JOINT_WAY * float(way.max()))
    goes = [apart[groups.label == group].max(initial=0.0) > least for group in range(len(sizes))]
    goes[base] = False
    moving = np.asarray(goes, bool)[groups.label]
    fixed: NDArray[np.bool_] = ~np.any(moving[faces], axis=1)
    area = trimesh.triangles.area(vertices[0][faces])
    share = float(area[fixed].sum() / max(area.sum(), 1e-12))
    if not _LEAST_AREA <= share <= 1 - _LEAST_AREA:
        return None
    return _Parts(fixed, moving, relative, X_base[-1])


def _jointed(
    scene: Scene,
    motion: SceneMotion,
    target: int,
    parts: _Parts,
    around: _Around,
    options: RestOptions,
) -> Rest:
    """Balance of an object with a part on a joint, and gravity on that part."""
    obj, vertices = scene.objects[target], motion.vertices[target]
    faces = np.asarray(obj.mesh.faces)
    whole, name = Solid(vertices[-1], faces), obj.name
    standing = _rigid(name, whole, around, options)
    assumptions = list(_standing_assumption(obj, vertices, parts, standing, around, options))
    if not standing.rests and not assumptions:
        return standing
    part = Solid(vertices[-1], faces[~parts.fixed])
    base: Surface = vertices[-1], faces[parts.fixed]
    screw = part_screw(motion.times, parts.relative[:, parts.moving])
    if screw is None:
        # A part that is on no joint is a body of its own, which the base may carry.
        on_base = replace(around, obstacles=(*around.obstacles, base))
        free = _rigid(f"{name}'s moving part", part, on_base, options)
        return replace(free, assumptions=tuple(assumptions))
    screw = replace(
        screw,
        direction=parts.X_base[:3, :3] @ screw.direction,
        point=transform(parts.X_base, screw.point[None])[0],
    )
    stops = [*around.surfaces(), base]
    load = joint_load(part, screw, stops, around.height, options)
    made = "has" if part.closed else f"has walls of {1e3 * SHELL:g} mm and"
    assumptions.append(
        f"{name} {made} a density of {options.density:g} kg/m^3, for the {_quantity(load)} of "
        f"gravity about its {load.kind}"
    )
    return Rest(
        load.stays,
        _load_reason(name, load),
        max(standing.drop, 0.0) if standing.rests else 0.0,
        standing.margin if standing.rests else 0.0,
        load.load,
        tuple(assumptions),
    )


def _standing_assumption(
    obj: SceneObject,
    vertices: FloatArray,
    parts: _Parts,
    standing: Rest,
    around: _Around,
    options: RestOptions,
) -> Iterator[str]:
    """The guess that a base is fixed: it never moves, and would not stand on its own at t = 0."""
    name, faces = obj.name, np.asarray(obj.mesh.faces)
    corners = np.unique(faces[parts.fixed])
    way = np.linalg.norm(vertices[:, corners] - vertices[0, corners], axis=-1).max()
    if standing.rests or not way <= 2 * _STILL:
        return
    before = _rigid(name, Solid(vertices[0], faces), around, options)
    if not before.rests:
        yield f"{name} is fixed where it stands: it would not stand on its own at the start either"


def _quantity(load: JointLoad) -> str:
    return "force" if load.kind == "slide" else "torque"


def _load_reason(name: str, load: JointLoad) -> str:
    """One line on a part under gravity."""
    amount = f"{load.load:.2g} {'N' if load.kind == 'slide' else 'N m'}"
    if load.stays:
        how = "a stop holds it" if load.stopped else "its joint is balanced"
        return f"{name} rests: gravity on its {load.kind} is {amount}, and {how}"
    return f"{name} would move: gravity on its {load.kind} is {amount}, and no stop is near"
