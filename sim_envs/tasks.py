"""Six tasks: CHORD's four (pick and place, close a laptop, lower a lamp, fold a cloth), a drawer, a
faucet.

Success is measured on the physical end state, after release and settling: a joint's angle, the pose
and the contacts of an object, the place of a cloth's corner. It has an upper bound too: a joint
that went too far is an overshoot, and what should stand still moves by `MAX_LEAK` at most.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from flowplan.geometry import transform
from flowplan.laws import Fold, Hinge, Rigid, Slide
from flowplan.scene import Action, Prompt
from flowplan.utils.checks import FloatArray
from sim_envs.assets import CLOTH
from sim_envs.task import (
    Measures,
    MovingPart,
    Task,
    TaskSetup,
    body_points,
    draw,
    leak,
    links_not_beyond,
    moving_part,
    on_table,
    stand,
    tilt,
    turned,
)

if TYPE_CHECKING:
    from sim_envs.world import World

FACING = -np.pi / 2  # yaw at which the y axis of a Meta-World model points away from the robot
SHARE = 0.8  # smallest share of the asked travel in a success
MOST = 1.2  # largest
PLATE_RADIUS = 0.137
LAPTOP_CLOSED = 1.57  # position of the lid's joint, rad
FOLD_RADIUS = 0.005


def pick_place(world: World, rng: np.random.Generator) -> TaskSetup:
    """Put a scanned ramekin onto a scanned plate."""
    side = rng.choice([-1.0, 1.0])
    drawn = draw(rng, x=0.45, y=0.16 * side, yaw=0.0, turn=np.pi)
    plate_drawn = draw(rng, x=0.50, y=-0.14 * side, yaw=0.0, turn=np.pi)
    ramekin, plate = stand(world, "ramekin", drawn), stand(world, "plate", plate_drawn)
    world.settle()
    X, X_plate = world.link_pose(ramekin), world.link_pose(plate)
    handles = body_points(world, ramekin, "ramekin", 12)
    # Bottom center of the ramekin to the plate's top, with a gap of 3 mm.
    leaked = leak(world, [(plate, link) for link in world.link_poses(plate)])
    goal = np.array([*X_plate[:2, 3], _height_at(world, plate, X_plate[:2, 3]) + 0.003])
    bottom = np.array([*X[:2, 3], 0.0])

    def measure(world: World) -> Measures:
        X = world.link_pose(ramekin)
        touched = {contact[2] for contact in world.bullet.getContactPoints(bodyA=ramekin)}
        return {
            "distance": float(np.linalg.norm(X[:2, 3] - world.link_pose(plate)[:2, 3])),
            "tilt": tilt(X),
            "on_plate": float(plate in touched),
            "touches_else": float(len(touched - {plate})),
            "leak": leaked(),
        }

    return TaskSetup(
        objects={"ramekin": ramekin},
        obstacles={"plate": plate},
        instruction=Action("ramekin", handles, targets=handles + goal - bottom, duration=3.0),
        laws=(Rigid("ramekin", lift=0.1),),
        measure=measure,
        success=lambda m: (
            m["distance"] < PLATE_RADIUS
            and m["tilt"] < 0.4
            and m["on_plate"] == 1.0
            and m["touches_else"] == 0.0
        ),
        randomized=drawn
        | {f"plate_{k}": plate_drawn[k] for k in ("x", "y", "friction", "mass_scale")},
    )


def close_laptop(world: World, rng: np.random.Generator) -> TaskSetup:
    """Close the lid of a laptop that faces the robot, free to slide on the table."""
    drawn = draw(rng, x=0.47, y=0.0, yaw=FACING) | {"open": float(rng.uniform(0.0, 0.25))}
    laptop = stand(world, "laptop", drawn, joints={"lid_joint": drawn["open"]})
    world.settle()
    lid = moving_part(world, laptop, "laptop", "lid_joint")
    angle = LAPTOP_CLOSED - world.joint_positions(laptop)["lid_joint"]
    leaked = leak(world, links_not_beyond(world, laptop, "laptop", "lid_joint"))

    def measure(world: World) -> Measures:
        left = LAPTOP_CLOSED - world.joint_positions(laptop)["lid_joint"]
        base_tilt = tilt(world.link_pose(laptop))
        return {"lid_angle": left, "base_tilt": base_tilt, "leak": leaked()}

    return TaskSetup(
        objects={"laptop": laptop},
        obstacles={},
        instruction=_turn("laptop", lid, angle, duration=3.0),
        laws=(Hinge("laptop", lid.axis_point, lid.axis, lid.part, lid.rest),),
        measure=measure,
        success=lambda m: abs(m["lid_angle"]) < np.radians(12) and m["base_tilt"] < 0.2,
        overshoot=lambda m: m["lid_angle"] <= -np.radians(12),
        randomized=drawn,
    )


def lower_lamp(world: World, rng: np.random.Generator) -> TaskSetup:
    """Lower the head of a desk lamp, whose arm reaches towards the robot, by turning its elbow."""
    drawn = draw(rng, x=0.58, y=0.0, yaw=np.pi) | {"asked": float(rng.uniform(0.5, 0.7))}
    lamp = stand(world, "desk_lamp", drawn)
    world.settle()
    arm = moving_part(world, lamp, "desk_lamp", "elbow")
    start = _elbow_to_head(world, lamp)
    leaked = leak(world, links_not_beyond(world, lamp, "desk_lamp", "elbow"))

    def measure(world: World) -> Measures:
        end = _elbow_to_head(world, lamp)
        # Signed angle about the elbow's axis.
        angle = np.arctan2(np.cross(start, end) @ arm.axis, start @ end)
        return {
            "lowered": float(angle),
            "share": float(angle / drawn["asked"]),
            "base_tilt": tilt(world.link_pose(lamp)),
            "leak": leaked(),
        }

    return TaskSetup(
        objects={"desk_lamp": lamp},
        obstacles={},
        instruction=_turn("desk_lamp", arm, drawn["asked"], duration=3.0),
        laws=(Hinge("desk_lamp", arm.axis_point, arm.axis, arm.part, arm.rest),),
        measure=measure,
        success=lambda m: SHARE < m["share"] < MOST and m["base_tilt"] < 0.2,
        overshoot=lambda m: m["share"] >= MOST,
        randomized=drawn,
    )


def open_drawer(world: World, rng: np.random.Generator) -> TaskSetup:
    """Pull open the drawer of a small case that is bolted to the table, handle towards the
    robot."""
    drawn = draw(rng, x=0.72, y=0.0, yaw=FACING)
    drawer = stand(world, "drawer", drawn, fixed=True)
    world.settle()
    box = moving_part(world, drawer, "drawer", "drawer_joint")
    asked, outwards = 0.12, -box.axis
    handles = box.handles()
    leaked = leak(world, links_not_beyond(world, drawer, "drawer", "drawer_joint"))

    def measure(world: World) -> Measures:
        opened = -world.joint_positions(drawer)["drawer_joint"]
        return {"opened": opened, "share": opened / asked, "leak": leaked()}

    return TaskSetup(
        objects={"drawer": drawer},
        obstacles={},
        instruction=Action("drawer", handles, targets=handles + asked * outwards, duration=3.0),
        laws=(Slide("drawer", outwards, box.part, box.rest),),
        measure=measure,
        success=lambda m: SHARE < m["share"] < MOST,
        overshoot=lambda m: m["share"] >= MOST,
        randomized=drawn,
    )


def turn_faucet(world: World, rng: np.random.Generator) -> TaskSetup:
    """Turn the handle of a faucet that is bolted to the table, to the left or to the right."""
    asked = float(rng.choice([-1.0, 1.0]) * rng.uniform(1.05, 1.25))
    drawn = draw(rng, x=0.58, y=0.0, yaw=FACING) | {"asked": asked}
    faucet = stand(world, "faucet", drawn, fixed=True)
    world.settle()
    handle = moving_part(world, faucet, "faucet", "handle_joint")
    leaked = leak(world, links_not_beyond(world, faucet, "faucet", "handle_joint"))

    def measure(world: World) -> Measures:
        angle = world.joint_positions(faucet)["handle_joint"]
        return {"turned": angle, "share": angle / asked, "leak": leaked()}

    return TaskSetup(
        objects={"faucet": faucet},
        obstacles={},
        instruction=_turn("faucet", handle, asked, duration=3.0),
        laws=(Hinge("faucet", handle.axis_point, handle.axis, handle.part, handle.rest),),
        measure=measure,
        success=lambda m: SHARE < m["share"] < MOST,
        overshoot=lambda m: m["share"] >= MOST,
        randomized=drawn,
    )


def fold_cloth(world: World, rng: np.random.Generator) -> TaskSetup:
    """Fold a square cloth along a diagonal: one of the corners near the robot goes onto the one
    across."""
    from sim_envs.world import ClothOptions

    drawn = draw(rng, x=0.50, y=0.0, yaw=0.0)
    X = on_table(drawn["x"], drawn["y"], drawn["yaw"], z=0.005)
    # PyBullet's soft contacts hold far less than their coefficient: at 0.7 the whole cloth slides
    # along with its corner, at three times that its other half stays.
    sheet = ClothOptions(mass=0.08 * drawn["mass_scale"], friction=3 * drawn["friction"])
    cloth = world.add_cloth(CLOTH, X, name="cloth", options=sheet)
    # Let the sheet settle for half a second.
    for _ in range(120):
        world.step()
    vertices, center = world.cloth_vertices(cloth), X[:3, 3] * [1, 1, 0]
    # Direction from the center to the corner.
    towards = transform(X, [[-1.0, rng.choice([-1.0, 1.0]), 0.0]])[0] - X[:3, 3]
    away = towards / np.linalg.norm(towards)
    # The four vertices nearest to the corner are the handles.
    corner = np.argsort(-(vertices - center) @ away)[:4]
    handles = vertices[corner]
    reach = (handles - center) @ away
    # Half a turn about the crease uses an arc of pi * radius and leaves the corner 2 * radius up.
    targets = handles + (np.pi * FOLD_RADIUS - 2 * reach)[:, None] * away + [0, 0, 2 * FOLD_RADIUS]

    stays = np.flatnonzero((vertices - center) @ away < -0.02)  # half that should stay

    def measure(world: World) -> Measures:
        now = world.cloth_vertices(cloth)
        # A cloth bends: the mean way of the half that should stay.
        dragged = float(np.linalg.norm(now[stays] - vertices[stays], axis=1).mean())
        corner_error = float(np.linalg.norm(now[corner] - targets, axis=1).mean())
        return {"corner_error": corner_error, "leak": dragged}

    return TaskSetup(
        objects={"cloth": cloth},
        obstacles={},
        instruction=Action("cloth", handles, targets=targets, duration=4.0),
        laws=(Fold("cloth", center, np.cross(away, [0, 0, 1]), radius=FOLD_RADIUS),),
        measure=measure,
        success=lambda m: m["corner_error"] < 0.05,
        randomized=drawn,
    )


def _turn(name: str, moving: MovingPart, angle: float, *, duration: float) -> Action:
    """Instruction to turn a part about its axis by `angle` rad."""
    handles = moving.handles()
    return Action(name, handles, targets=turned(moving, handles, angle), duration=duration)


def _elbow_to_head(world: World, lamp: int) -> FloatArray:
    """Vector (3,) from the elbow to the neck, world frame, meters: independent of which joint
    moved."""
    return world.link_pose(lamp, "head")[:3, 3] - world.link_pose(lamp, "upper_arm")[:3, 3]


def _height_at(world: World, body: int, xy: FloatArray) -> float:
    """Height of a body's upper surface above a point of the table, meters."""
    (hit,) = world.bullet.rayTest([*xy, 0.1], [*xy, -0.1])
    assert hit[0] == body, "another body covers this one"
    return float(hit[3][2])


MODULES: tuple[str, ...] = ()
"""Modules of further tasks, a line each; a module defines `TASK`."""

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("pick_place", Prompt("put the ramekin on the plate"), pick_place),
        Task("close_laptop", Prompt("close the laptop"), close_laptop),
        # The friction of its joints holds the lamp, which no motion shows.
        Task("lower_lamp", Prompt("lower the lamp"), lower_lamp, release="always"),
        Task("fold_cloth", Prompt("fold the cloth diagonally"), fold_cloth, deformable=True),
        Task("open_drawer", Prompt("open the drawer"), open_drawer),
        Task("turn_faucet", Prompt("turn the faucet"), turn_faucet),
        *(import_module(module).TASK for module in MODULES),
    )
}
"""Tasks by name."""
