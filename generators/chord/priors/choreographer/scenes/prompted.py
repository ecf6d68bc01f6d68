"""A scene, a sentence, and the motion that it asks for: training and test data of the
choreographer.

A scene consists of bodies. A rigid one has vertices at rest and a pose for every frame; a cloth has
vertices for every frame. Either way a material point at frame t is X_t p_t, and the animation of a
rigid body takes sixteen matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.geometry import inverse, pose, transform
from flowplan.motion import SceneMotion
from flowplan.scene import Prompt, Scene, SceneObject
from flowplan.utils.checks import FloatArray
from generators.chord.priors.choreographer.scenes.sentences import Phrase
from generators.chord.render.cameras import Framing, framing

FRAMES = 16
"""T, frames of a motion."""
DURATION = 3.0
"""Seconds from the first frame to the last."""
Manner = Literal["turn", "slide", "carry", "fold"]


@dataclass(frozen=True, eq=False)
class Ask:
    """A required motion in numbers, always a positive amount about or along `axis`.

    Attributes:
        object: name of the scene object.
        joint: name of the joint in the object's family; "" for a whole object or a cloth.
        manner: "turn" about a line, "slide" of a part or "carry" of a whole object along a
            direction, "fold" over a line.
        axis_point: (3,) point of the line at frame 0, or center of a carried object, world frame,
            meters.
        axis: (3,) unit direction of the line or of the travel, world frame; turns follow the
            right-hand rule.
        amount: rad of a turn or a fold, meters of a slide or a carry.
        vertices: (V,) true for vertices of the object that move by it.
    """

    object: str
    joint: str
    manner: Manner
    axis_point: FloatArray
    axis: FloatArray
    amount: float
    vertices: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Body:
    """A link, a thing or a cloth.

    Attributes:
        object: name of the scene's object or obstacle that it is part of.
        vertices: (1, V, 3) at frame 0 of a rigid body, or (T, V, 3) of a deforming one; world
            frame, meters.
        faces: (F, 3).
        X: (T, 4, 4) motion since frame 0 in the world, X[0] the identity; identities for a
            deforming body.
    """

    object: str
    vertices: FloatArray
    faces: NDArray[np.int64]
    X: FloatArray

    @property
    def positions(self) -> FloatArray:
        """Vertices (T, V, 3) in the world frame, meters."""
        return transform(self.X, self.vertices)


@dataclass(frozen=True, eq=False)
class PromptedScene:
    """A scene with a sentence and the motion that it asks for.

    Attributes:
        kind: one of `scenes.KINDS`.
        phrase: the meaning of the sentence.
        text: the sentence.
        bodies: of all objects and obstacles in turn, the one that is asked to move first.
        obstacles: names of those that are obstacles.
        placed: by name, X_world_object of every object and obstacle.
        asks: required motions, all of which must be fulfilled.
        alternatives: other asks, any one of which would fulfill the sentence (another corner of a
            cloth).
        others: sentences for other motions of this scene.
    """

    kind: str
    phrase: Phrase
    text: str
    bodies: tuple[Body, ...]
    obstacles: frozenset[str]
    placed: dict[str, FloatArray]
    asks: tuple[Ask, ...]
    alternatives: tuple[Ask, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def ask(self) -> Ask:
        """The first required motion; others are similar, as of the two doors of a cabinet."""
        return self.asks[0]

    @property
    def verb(self) -> str:
        """The action, such as "open", "put on" or "fold"."""
        return self.phrase.verb

    @property
    def prompt(self) -> Prompt:
        """The sentence as an instruction."""
        return Prompt(self.text)

    @cached_property
    def scene(self) -> Scene:
        """The scene at frame 0."""
        objects: list[SceneObject] = []
        obstacles: list[SceneObject] = []
        for name, bodies in self._things.items():
            X = self.placed[name]
            vertices = transform(inverse(X), np.concatenate([b.vertices[0] for b in bodies]))
            offsets = np.cumsum([0, *(b.vertices.shape[1] for b in bodies)])
            faces = np.concatenate([b.faces + o for b, o in zip(bodies, offsets[:-1], strict=True)])
            thing = SceneObject(name, trimesh.Trimesh(vertices, faces, process=False), X)
            (obstacles if name in self.obstacles else objects).append(thing)
        return Scene(tuple(objects), 0.0, tuple(obstacles))

    @cached_property
    def motion(self) -> SceneMotion:
        """The motion that the sentence asks for: T frames by minimum jerk."""
        things = {n: bodies for n, bodies in self._things.items() if n not in self.obstacles}
        vertices = tuple(
            np.concatenate([b.positions for b in bodies], axis=1) for bodies in things.values()
        )
        return SceneMotion(np.linspace(0.0, DURATION, FRAMES), vertices)

    @cached_property
    def moving(self) -> tuple[NDArray[np.bool_], ...]:
        """For each object, (V,) true for vertices that are asked to move."""
        things = {n: bodies for n, bodies in self._things.items() if n not in self.obstacles}
        return tuple(np.concatenate([_moves(b) for b in bodies]) for bodies in things.values())

    @property
    def _things(self) -> dict[str, list[Body]]:
        things: dict[str, list[Body]] = {}
        for body in self.bodies:
            things.setdefault(body.object, []).append(body)
        return things


@dataclass(frozen=True, eq=False)
class PointScene:
    """A prompted scene as surface points, small enough to keep thousands of them for training.

    Attributes:
        kind: of the scene.
        texts: sentences that describe the motion equally well.
        points: (1, P, 3) float32 at frame 0, or (T, P, 3) if something deforms; world frame,
            meters.
        body: (P,) int16 index of each point's body.
        X: (T, B, 4, 4) float32 motion of each body since frame 0, world frame.
        moving: (P,) true for points that are asked to move.
        framing: the ball that cameras look at.
    """

    kind: str
    texts: tuple[str, ...]
    points: NDArray[np.float32]
    body: NDArray[np.int16]
    X: NDArray[np.float32]
    moving: NDArray[np.bool_]
    framing: Framing

    @property
    def rest(self) -> NDArray[np.float32]:
        """Points (P, 3) at frame 0."""
        return self.points[0]

    def positions(self) -> NDArray[np.float32]:
        """Points (T, P, 3) in every frame."""
        out = np.empty((len(self.X), *self.points.shape[1:]), np.float32)
        for b in range(self.X.shape[1]):
            of = self.body == b
            R, t = self.X[:, b, :3, :3], self.X[:, b, None, :3, 3]
            out[:, of] = self.points[:, of] @ np.swapaxes(R, -1, -2) + t
        return out


def sampled(
    prompted: PromptedScene,
    points: int = 12000,
    *,
    texts: tuple[str, ...] | None = None,
    seed: int = 0,
) -> PointScene:
    """Points distributed evenly over the scene's surfaces at frame 0, obstacles included.

    Sampling is stratified by area, so that every patch gets points.

    Args:
        prompted: the scene.
        points: number of points.
        texts: sentences. Defaults to the scene's own.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)

    # A face for each point, by its place along the cumulated area.
    bodies = prompted.bodies
    corners = [np.take(b.vertices, b.faces, axis=1) for b in bodies]  # (1 or T, F, 3 corners, 3)
    area = np.concatenate([_areas(c[0]) for c in corners])
    total = np.cumsum(area)
    face = np.searchsorted(total, (np.arange(points) + rng.random(points)) * (total[-1] / points))
    face = np.minimum(face, len(area) - 1)
    first = np.cumsum([0, *(len(b.faces) for b in bodies)])
    body = np.searchsorted(first, face, side="right") - 1

    # Uniform barycentric coordinates (Turk, Graphics Gems 1990).
    u, v = rng.random((2, points))
    root = np.sqrt(u)
    weight = np.stack([1 - root, root * (1 - v), root * v], axis=-1)
    out = np.empty((max(c.shape[0] for c in corners), points, 3), np.float32)
    for b, c in enumerate(corners):
        of = body == b
        out[:, of] = np.einsum("pk,tpkc->tpc", weight[of], c[:, face[of] - first[b]])

    moves = np.array([not np.allclose(_end(b), b.vertices[0]) for b in bodies])
    X = np.stack([b.X for b in bodies], axis=1).astype(np.float32)
    moving = moves[body]
    return PointScene(
        prompted.kind,
        texts or (prompted.text,),
        out,
        body.astype(np.int16),
        X,
        moving,
        framing(prompted.scene),
    )


def achieved(prompted: PromptedScene, motion: SceneMotion) -> float:
    """Share of the asked amount that a motion achieves: 1 for all of it, negative for the wrong
    way.

    It is the least of several asks that must all be fulfilled, or the best of the alternatives.
    """
    together = min(_share(prompted, ask, motion) for ask in prompted.asks)
    return max(together, *(_share(prompted, ask, motion) for ask in prompted.alternatives), -np.inf)


def _share(prompted: PromptedScene, ask: Ask, motion: SceneMotion) -> float:
    """Share of one ask."""
    moved = motion.vertices[prompted.scene.index(ask.object)][:, ask.vertices]
    if ask.manner in ("slide", "carry"):
        return float((moved[-1] - moved[0]).mean(0) @ ask.axis / ask.amount)
    r = moved - ask.axis_point
    r = r - (r @ ask.axis)[..., None] * ask.axis
    # The best-fitting angle about the line, frame by frame, so that it can exceed half a turn.
    sine = (np.cross(r[:1], r) @ ask.axis).sum(-1)
    angle = np.unwrap(np.arctan2(sine, (r[:1] * r).sum((-1, -2))))
    return float(angle[-1] / ask.amount)


def still() -> FloatArray:
    """Poses (T, 4, 4) of a body that does not move."""
    return np.broadcast_to(pose(), (FRAMES, 4, 4))


def _areas(corners: FloatArray) -> FloatArray:
    a, b, c = (corners[:, k] for k in range(3))
    return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)


def _end(body: Body) -> FloatArray:
    return transform(body.X[-1], body.vertices[-1])


def _moves(body: Body) -> NDArray[np.bool_]:
    """(V,) true for vertices that move: of a deforming body, by more than a millimeter."""
    count = body.vertices.shape[1]
    if len(body.vertices) == 1:
        return np.full(count, not np.allclose(body.X[-1], np.eye(4), atol=1e-9))
    return np.linalg.norm(_end(body) - body.vertices[0], axis=1) > 1e-3
