"""Replay of one plan in steps of a millisecond, and every overlap that is not meant.

What is meant: the robot's base stands on the support; the pads touch the target from grip to
release, and the hand's other parts never do; the target may be as deep in what it touches at its
start as it is there, and a millimeter more, within three centimeters of its start; likewise at its
end; between them, if it touches the same thing at both. Nothing is allowed a depth of more than a
quarter of the thickness of the thinner of two closed bodies, or of five millimeters.

A target that is grasped moves with the tool from where it stood when the fingers closed. One that
is pushed, the parts of an articulated object and everything else move as the motion says, at the
time at which the tool is nearest to its pose along it. The fingers are as wide apart as the target
lets them be, and once more as commanded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation, Slerp

from experiments.certify.oracle.arm import Arm, read_arm
from experiments.certify.oracle.depth import below, overlap
from experiments.certify.oracle.limits import limit_findings
from experiments.certify.oracle.recording import SUPPORT, Floats, Part, Recording
from experiments.certify.oracle.solid import Solid

APPROACH, GRIP, MANIPULATE, RELEASE, RETREAT = range(5)
_PHASES = ("approach", "grip", "manipulate", "release", "retreat")
STEP = 1e-3
"""Seconds between the instants at which bodies are compared."""
TOLERANCE = 1e-3
"""Meters of overlap that no body may exceed beyond what is meant."""
_THIN_SHARE = 0.25
"""Share of the thickness of a body that is not tolerated, however thin it is."""
_DEEPEST_CONTACT = 5e-3
"""Meters, the deepest contact at the start or the end that is meant."""
_NEAR_END = 0.03
"""Meters from its start or its end within which the target may touch what it touches there."""
_FINGER_STEP = 5e-4
"""Meters between the openings tried to find where the fingers stop."""
_FINGER_DEPTH = 2e-4
"""Meters of overlap with the target at which a finger has stopped."""


@dataclass(frozen=True)
class Overlap:
    """Largest overlap of two bodies beyond what is meant.

    Attributes:
        names: The bodies.
        depth: Meters by which they overlap.
        allowed: Meters that were meant or tolerated.
        time: Seconds of the plan.
        phase: Number of the phase.
    """

    names: tuple[str, str]
    depth: float
    allowed: float
    time: float
    phase: int

    def __str__(self) -> str:
        a, b = self.names
        depth, allowed = 1e3 * self.depth, 1e3 * self.allowed
        where = f"{_PHASES[self.phase]}, t = {self.time:.3f} s"
        return f"{where}: {a} and {b} overlap by {depth:.1f} mm ({allowed:.1f} mm meant)"


@dataclass(frozen=True)
class Verdict:
    """Findings of a replay."""

    overlaps: tuple[Overlap, ...]
    limits: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True if the plan does what its certificate says."""
        return not self.overlaps and not self.limits


@dataclass(frozen=True, eq=False)
class _Body:
    """A solid with its poses at all steps, and those at which it counts."""

    name: str
    solid: Solid
    X: Floats


def replay(recording: Recording) -> Verdict:
    """Overlaps and exceeded limits of a plan."""
    arm = read_arm(recording.robot)
    limits = tuple(limit_findings(recording, arm))
    if not all(np.isfinite(a).all() for a in (recording.times, recording.q, recording.grip)):
        return Verdict((), limits)  # nothing can be replayed
    return Verdict(tuple(_Replay(recording, arm).overlaps()), limits)


class _Replay:
    """Poses of everything at every step."""

    def __init__(self, recording: Recording, arm: Arm) -> None:
        self.recording, self.arm = recording, arm
        # Every millisecond, and the samples.
        end = recording.times[-1]
        self.t = np.union1d(np.arange(0.0, end, STEP), recording.times)
        index = np.searchsorted(recording.times, self.t, side="right") - 1
        self.phase = recording.phase[index]
        joints = [np.interp(self.t, recording.times, q) for q in recording.q.T]
        self.q = np.stack(joints, axis=1)
        self.commanded = np.interp(self.t, recording.times, recording.grip)
        self.parts = self._parts()
        self.opening = self._true_opening()
        self.links = self._links(self.opening)

    def overlaps(self) -> Iterator[Overlap]:
        """All overlaps beyond what is meant, one for each pair."""
        yield from self._robot_overlaps(self.links, np.ones(len(self.t), bool))
        # Fingers as commanded, while something keeps them apart.
        apart = self.opening > self.commanded + 1e-6
        if apart.any():
            links = [b for b in self._links(self.commanded) if _link(b) in self.arm.gripper]
            yield from self._robot_overlaps(links, apart, as_commanded=True)
        yield from self._target_overlaps()

    # Poses.

    def _links(self, opening: Floats) -> list[_Body]:
        X = self.arm.links(self.q, opening, self.recording.X_world_base)
        return [
            _Body(f"{name}#{i}", _solid_of(shape), X[name])
            for name, shapes in self.arm.meshes.items()
            for i, shape in enumerate(shapes)
        ]

    def _parts(self) -> dict[str, _Body]:
        """Bodies of the scene where the motion, or the tool, puts them."""
        recording = self.recording
        frame = self._frames()
        bodies = {}
        for part in recording.parts:
            X = _interpolated(part.X_since_start, frame, part.vertices.mean(axis=0))
            if part.role == "target" and self._held:
                X = self._carried(X)
            bodies[part.name] = _Body(part.name, _solid_of_part(part), X)
        return bodies

    @property
    def _held(self) -> bool:
        """True if the target moves with the tool: grasped, and free of a fixed part."""
        fixed = any(part.role == "fixed" for part in self.recording.parts)
        return self.recording.kind == "grasp" and not fixed

    def _carried(self, X_motion: Floats) -> Floats:
        """Poses since the start (n, 4, 4) of a target that the closed fingers carry."""
        tool = self.arm.tools(self.q, self.recording.X_world_base)
        during = np.flatnonzero(self.phase == MANIPULATE)
        if not len(during):
            return X_motion
        X = X_motion.copy()
        X[during] = tool[during] @ np.linalg.inv(tool[during[0]])
        X[during[-1] :] = X[during[-1]]  # it stays where it is let go
        return X

    def _frames(self) -> Floats:
        """Fractional frame (n,) of the motion at every step."""
        recording = self.recording
        last = len(recording.flow_times) - 1
        frame = np.where(self.phase < MANIPULATE, 0.0, float(last))
        during = np.flatnonzero(self.phase == MANIPULATE)
        if not len(during):
            return frame
        # The frame whose tool pose is nearest, never going back.
        fine = np.linspace(0, last, 40 * last + 1)
        path = _interpolated(recording.X_world_tool, fine)
        tool = self.arm.tools(self.q[during], recording.X_world_base)
        # A hand that pushes is free to turn.
        columns = slice(3) if recording.kind == "push" else slice(None)
        features, wanted = _features(path)[:, columns], _features(tool)[:, columns]
        share = np.linspace(0, 1, len(during)) * last
        near = np.empty(len(during))
        for i, row in enumerate(wanted):
            gap = np.linalg.norm(features - row, axis=1)
            # Of equally near frames, the one that even progress would be at.
            close = np.flatnonzero(gap <= gap.min() + 2e-5)
            near[i] = fine[close[np.argmin(np.abs(fine[close] - share[i]))]]
        frame[during] = np.maximum.accumulate(near)
        return frame

    def _true_opening(self) -> Floats:
        """Opening (n,) of the fingers, which the target keeps apart."""
        if self.recording.kind != "grasp":
            return self.commanded
        within = (self.phase >= GRIP) & (self.phase <= RELEASE)
        at = np.flatnonzero(self.phase == MANIPULATE)
        if not len(at):
            return self.commanded
        wide = float(self.commanded[self.phase <= GRIP].max())
        openings = np.arange(wide, 0.0, -_FINGER_STEP)
        q = np.repeat(self.q[at[:1]], len(openings), axis=0)
        X = self.arm.links(q, openings, self.recording.X_world_base)
        target = self.parts[self.recording.target.name]
        X_target = np.repeat(target.X[at[:1]], len(openings), axis=0)
        stops = []
        for finger in self.arm.fingers:
            depth = np.zeros(len(openings))
            for shape in self.arm.meshes[finger]:
                solid = _solid_of(shape)
                found = overlap(solid, X[finger], target.solid, X_target, _FINGER_DEPTH)
                depth = np.maximum(depth, found)
            stopped = np.flatnonzero(depth > _FINGER_DEPTH)
            stops.append(openings[stopped[0]] if len(stopped) else 0.0)
        return np.where(within, np.maximum(self.commanded, min(stops)), self.commanded)

    # Pairs.

    def _robot_overlaps(
        self, links: list[_Body], when: np.ndarray, *, as_commanded: bool = False
    ) -> Iterator[Overlap]:
        """The robot against the scene, the support and itself."""
        recording, arm = self.recording, self.arm
        target = recording.target.name
        for body in links:
            link = _link(body)
            fixed = not arm.moving_joints(link)
            for part in recording.parts:
                if fixed and len(part.X_since_start) == 1:
                    continue  # neither moves
                steps = when.copy()
                if part.name == target and link in arm.fingers:
                    steps &= (self.phase < GRIP) | (self.phase > RELEASE)
                if part.name == target and as_commanded:
                    continue
                yield from self._compare(body, self.parts[part.name], steps)
            if recording.support_height is not None and not fixed:
                depth = below(body.solid, body.X[when], recording.support_height)
                yield from self._worst((body.name, SUPPORT), depth, TOLERANCE, when)
        yield from self._self_overlaps(links if not as_commanded else [], when)

    def _self_overlaps(self, links: list[_Body], when: np.ndarray) -> Iterator[Overlap]:
        for a, b in combinations(links, 2):
            names = _link(a), _link(b)
            if frozenset(names) in self.arm.ignored:
                continue
            if self.arm.moving_joints(names[0]) == self.arm.moving_joints(names[1]):
                continue
            yield from self._compare(a, b, when)

    def _target_overlaps(self) -> Iterator[Overlap]:
        """The target against everything but the robot."""
        recording = self.recording
        target = self.parts[recording.target.name]
        for part in recording.parts:
            if part.role in ("target", "fixed"):
                continue
            other = self.parts[part.name]
            most = _most(target.solid, other.solid)

            def depths(rows: np.ndarray, other: _Body = other) -> Floats:
                return overlap(target.solid, target.X[rows], other.solid, other.X[rows], 1e-4)

            yield from self._with_contact((target.name, part.name), depths, most)
        if recording.support_height is not None:
            height = recording.support_height

            def under(rows: np.ndarray) -> Floats:
                return below(target.solid, target.X[rows], height)

            most = _most(target.solid, target.solid)
            yield from self._with_contact((target.name, SUPPORT), under, most)

    def _with_contact(self, names, depths, most: float) -> Iterator[Overlap]:  # type: ignore[no-untyped-def]
        """Depths of the target beyond those that it has at its start and at its end."""
        target = self.parts[self.recording.target.name]
        steps = np.ones(len(self.t), bool)
        depth = depths(steps)
        goal = self.recording.target.X_since_start[-1]
        ends = []
        for X in (np.eye(4), goal):
            moved = _displacement(target.solid, target.X, X)
            nearest = depth[moved <= moved.min() + 1e-6]
            own = min(float(nearest.min()), _DEEPEST_CONTACT)
            ends.append((own, moved <= _NEAR_END))
        tolerance = min(TOLERANCE, most)
        allowed = np.full(len(depth), tolerance)
        if min(own for own, _ in ends) > 0:
            allowed[:] = max(own for own, _ in ends) + tolerance
        for own, near in ends:
            allowed[near] = np.maximum(allowed[near], own + tolerance)
        yield from self._worst(names, depth, np.minimum(allowed, most), steps)

    def _compare(self, a: _Body, b: _Body, when: np.ndarray) -> Iterator[Overlap]:
        if not when.any():
            return
        allowed = min(TOLERANCE, _most(a.solid, b.solid))
        depth = overlap(a.solid, a.X[when], b.solid, b.X[when], allowed)
        yield from self._worst((a.name, b.name), depth, allowed, when)

    def _worst(
        self, names: tuple[str, str], depth: Floats, allowed: Floats | float, when: np.ndarray
    ) -> Iterator[Overlap]:
        """The step at which a pair is deepest beyond what is allowed, if it is."""
        over = depth - allowed
        i = int(np.argmax(over))
        if over[i] > 0:
            step = np.flatnonzero(when)[i]
            limit = float(np.broadcast_to(allowed, depth.shape)[i])
            t, phase = float(self.t[step]), int(self.phase[step])
            yield Overlap(names, float(depth[i]), limit, t, phase)


_SOLIDS: dict[int, tuple[trimesh.Trimesh, Solid]] = {}


def _solid_of(shape: trimesh.Trimesh) -> Solid:
    """The solid of a link's mesh, kept for the next plan."""
    if id(shape) not in _SOLIDS:
        _SOLIDS[id(shape)] = shape, Solid(shape)
    return _SOLIDS[id(shape)][1]


def _solid_of_part(part: Part) -> Solid:
    return Solid(trimesh.Trimesh(part.vertices, part.faces, process=True))


def _link(body: _Body) -> str:
    return body.name.rsplit("#", 1)[0]


def _most(a: Solid, b: Solid) -> float:
    """Largest depth of two bodies that is ever tolerated, meters."""
    return min(_DEEPEST_CONTACT, _THIN_SHARE * min(a.thickness, b.thickness))


def _displacement(solid: Solid, X: Floats, reference: Floats) -> Floats:
    """Meters (n,) that some point of a solid is from where a reference pose puts it."""
    shift = X[:, :3, :3] - reference[:3, :3]
    moved = solid.corners @ np.swapaxes(shift, 1, 2) + (X[:, None, :3, 3] - reference[:3, 3])
    return np.linalg.norm(moved, axis=-1).max(axis=1)


def _features(X: Floats) -> Floats:
    """Position and a tenth of a meter along two axes of poses (n, 4, 4), as rows (n, 9)."""
    tips = [X[:, :3, 3] + 0.1 * X[:, :3, i] for i in (0, 1)]
    return np.concatenate([X[:, :3, 3], *tips], axis=1)


def _interpolated(X: Floats, frame: Floats, center: Floats | None = None) -> Floats:
    """Poses (n, 4, 4) at fractional frames (n,) of poses (T, 4, 4): a center goes on lines.

    Args:
        X: The poses.
        frame: The frames.
        center: (3,) in the frame that the poses map. Defaults to its origin.
    """
    if len(X) == 1:
        return np.repeat(X, len(frame), axis=0)
    center = np.zeros(3) if center is None else center
    index = np.arange(len(X), dtype=float)
    frame = np.clip(frame, 0, len(X) - 1)
    out = np.tile(np.eye(4), (len(frame), 1, 1))
    out[:, :3, :3] = Slerp(index, Rotation.from_matrix(X[:, :3, :3]))(frame).as_matrix()
    way = X[:, :3, :3] @ center + X[:, :3, 3]
    at = np.stack([np.interp(frame, index, row) for row in way.T], axis=1)
    out[:, :3, 3] = at - out[:, :3, :3] @ center
    return out
