"""Conversion of records to messages and back, through numpy's buffers.

The frame of a message is that of its header. Records have one world frame, so the caller states it
(`frame_of`). Positions are sent in single precision (a tenth of a micrometer at one meter), poses
and joint values in double. Misfits raise a ValueError that names the field of the message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import trimesh
from builtin_interfaces.msg import Duration, Time
from flowplan_msgs import msg as messages
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from trimesh.visual import ColorVisuals

from flowplan.geometry import matrix_from_quat_xyzw, pose, quat_xyzw_from_matrix
from flowplan.grasp import ContactCandidates, ContactKind
from flowplan.io.instruction import parse_instruction, parse_json
from flowplan.laws import Law
from flowplan.motion import ObjectFlow, SceneMotion
from flowplan.scene import Action, Instruction, Observation, Prompt, Scene, SceneObject
from flowplan.trajectory import Trajectory
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan_ros.digest import digest
from flowplan_ros.points import buffer, cloud_from_msg, cloud_to_msg

# Imported late: the planner's packages are heavy, and nodes that pass messages on do not need them.
if TYPE_CHECKING:
    from flowplan.planner import Attempt, Plan

_DEFORMABLE = (None, False, True)  # by the constants of SceneObject.msg
_KINDS: tuple[ContactKind, ...] = ("grasp", "push", "pinch")


def frame_of(header: Header, frame: str, field: str) -> None:
    """Refuse a message that is not in the frame `frame`."""
    if header.frame_id != frame:
        raise ValueError(
            f"{field}.header.frame_id: got {header.frame_id!r}, expected {frame!r}; transform it, "
            "or set parameter frame"
        )


# -- Time --------------------------------------------------------------------------------------


def duration_to_msg(seconds: float) -> Duration:
    """Duration of non-negative seconds, to the nanosecond."""
    whole, rest = divmod(round(seconds * 1e9), 10**9)
    return Duration(sec=whole, nanosec=rest)


def seconds(stamp: Duration | Time) -> float:
    """Seconds of a duration or stamp."""
    return stamp.sec + 1e-9 * stamp.nanosec


# -- Poses -------------------------------------------------------------------------------------


def pose_to_msg(X: ArrayLike) -> Pose:
    """Pose of a rigid transform (4, 4)."""
    X = np.asarray(X, float)
    x, y, z, w = map(float, quat_xyzw_from_matrix(X[:3, :3]))
    return Pose(
        position=Point(**dict(zip("xyz", map(float, X[:3, 3]), strict=True))),
        orientation=Quaternion(x=x, y=y, z=z, w=w),
    )


def pose_from_msg(msg: Pose, field: str = "pose") -> FloatArray:
    """Rigid transform (4, 4); the quaternion may be off unit length by a thousandth."""
    p, q = msg.position, msg.orientation
    quat_xyzw = np.array([q.x, q.y, q.z, q.w])
    length = float(np.linalg.norm(quat_xyzw))
    if not abs(length - 1.0) < 1e-3:
        raise ValueError(
            f"{field}.orientation: expected a unit quaternion, got length {length:.4g}; normalize "
            "it"
        )
    return checks.poses(field, pose(matrix_from_quat_xyzw(quat_xyzw), [p.x, p.y, p.z]))


# -- Scenes and their motion -------------------------------------------------------------------


def scene_to_msg(scene: Scene, header: Header) -> messages.Scene:
    """Scene in the frame of `header`."""
    return messages.Scene(
        header=header,
        objects=[_object_to_msg(o) for o in scene.objects],
        obstacles=[_object_to_msg(o) for o in scene.obstacles],
        has_support=scene.support_height is not None,
        support_height=float(scene.support_height or 0.0),
    )


def scene_from_msg(msg: messages.Scene, field: str = "scene") -> Scene:
    """Scene in the frame of the message's header."""
    objects, obstacles = (
        tuple(_object_from_msg(o, f"{field}.{name}[{i}]") for i, o in enumerate(getattr(msg, name)))
        for name in ("objects", "obstacles")
    )
    if not objects:
        raise ValueError(f"{field}.objects: expected at least one object, got none; scan first")
    return Scene(objects, msg.support_height if msg.has_support else None, obstacles)


def _object_to_msg(obj: SceneObject) -> messages.SceneObject:
    visual = obj.mesh.visual
    colors: ArrayLike = (
        visual.vertex_colors[:, :3]
        if isinstance(visual, ColorVisuals) and visual.kind == "vertex"
        else []
    )
    return messages.SceneObject(
        name=obj.name,
        pose=pose_to_msg(obj.X_world_object),
        vertices=buffer("f", obj.mesh.vertices),
        triangles=buffer("I", obj.mesh.faces),
        colors=buffer("B", colors),
        deformable=_DEFORMABLE.index(obj.deformable),
    )


def _object_from_msg(msg: messages.SceneObject, field: str) -> SceneObject:
    # Geometry in single precision widens to the records' types.
    vertices = _rows(msg.vertices, 3, f"{field}.vertices").astype(float)  # (V, 3)
    triangles = _rows(msg.triangles, 3, f"{field}.triangles").astype(np.int64)  # (F, 3)
    if not len(triangles) or triangles.max() >= len(vertices):
        raise ValueError(
            f"{field}.triangles: expected indices below {len(vertices)}, the number of vertices, "
            f"got {triangles.max() if len(triangles) else 'none'}"
        )
    # Colors are optional: one RGB a vertex.
    colors = _rows(msg.colors, 3, f"{field}.colors") if msg.colors else None
    if colors is not None and len(colors) != len(vertices):
        raise ValueError(
            f"{field}.colors: expected {len(vertices)}, one a vertex, or none; got {len(colors)}"
        )
    mesh = trimesh.Trimesh(vertices, triangles, vertex_colors=colors, process=False)
    if msg.deformable >= len(_DEFORMABLE):
        raise ValueError(
            f"{field}.deformable: expected UNKNOWN (0), RIGID (1) or DEFORMABLE (2), got "
            f"{msg.deformable}"
        )
    X_world_object = pose_from_msg(msg.pose, f"{field}.pose")
    return SceneObject(msg.name, mesh, X_world_object, _DEFORMABLE[msg.deformable])


def motion_to_msg(motion: SceneMotion, scene: Scene, header: Header) -> messages.SceneMotion:
    """Motion of `scene`, in the frame of `header`."""
    moves = [
        messages.ObjectMotion(name=obj.name, vertices=buffer("f", vertices))
        for obj, vertices in zip(scene.objects, motion.vertices, strict=True)
    ]
    return messages.SceneMotion(header=header, times=buffer("d", motion.times), objects=moves)


def motion_from_msg(msg: messages.SceneMotion, scene: Scene, field: str = "motion") -> SceneMotion:
    """Motion of `scene`, whose objects it must name in their order."""
    names = [o.name for o in msg.objects]
    if names != [o.name for o in scene.objects]:
        raise ValueError(
            f"{field}.objects: expected {', '.join(o.name for o in scene.objects)}, as the scene "
            f"has them, got {names}"
        )
    vertices: list[NDArray[Any]] = []
    for i, (obj, move) in enumerate(zip(scene.objects, msg.objects, strict=True)):
        expected = (len(msg.times), len(obj.mesh.vertices), 3)
        size = np.prod(expected)
        if len(move.vertices) != size:
            raise ValueError(
                f"{field}.objects[{i}].vertices: expected {size} numbers, (T, V, 3) = {expected}, "
                f"got {len(move.vertices)}"
            )
        vertices.append(np.frombuffer(move.vertices, np.float32).reshape(expected))
    return SceneMotion(np.asarray(msg.times), tuple(vertices))


def flow_to_msg(flow: ObjectFlow, header: Header) -> messages.ObjectFlow:
    """Object flow in the frame of `header`."""
    return messages.ObjectFlow(
        header=header,
        times=buffer("d", flow.times),
        points=flow.points.shape[1],
        positions=buffer("f", flow.points),
        confidence=buffer("f", flow.confidence),
        object_id=buffer("i", flow.object_id),
    )


def flow_from_msg(msg: messages.ObjectFlow, field: str = "flow") -> ObjectFlow:
    """Object flow in the frame of the message's header."""
    # Sizes first, since buffers carry no shape.
    T, N = len(msg.times), msg.points
    for name, expected in (("positions", T * N * 3), ("confidence", T * N), ("object_id", N)):
        if len(getattr(msg, name)) != expected:
            raise ValueError(
                f"{field}.{name}: expected {expected} numbers for {T} times and {N} points, "
                f"got {len(getattr(msg, name))}"
            )
    return ObjectFlow(
        np.asarray(msg.times),
        np.asarray(msg.positions, float).reshape(T, N, 3),
        np.asarray(msg.confidence, float).reshape(T, N),
        np.asarray(msg.object_id, np.int64),
    )


# -- Instructions ------------------------------------------------------------------------------


def plain(sentence: object) -> str:
    """Sentence without differences of case, spacing and punctuation."""
    return " ".join(str(sentence).casefold().rstrip(" .!").split())


def instruction_to_msg(instruction: Instruction) -> messages.Instruction:
    """Instruction in the frame of its scene."""
    msg = messages.Instruction()
    match instruction:
        case Prompt():
            msg.kind, msg.text = messages.Instruction.PROMPT, instruction.text
        case Action():
            msg.kind, msg.object = messages.Instruction.ACTION, instruction.object
            msg.duration = float(instruction.duration)
            msg.handles = _vectors(instruction.handles, Point)
            for name, kind in (("targets", Point), ("forces", Vector3), ("velocities", Vector3)):
                if getattr(instruction, name) is not None:
                    setattr(msg, name, _vectors(getattr(instruction, name), kind))
        case Observation():
            msg.kind, msg.object = messages.Instruction.OBSERVATION, instruction.object
            msg.times = buffer("d", instruction.times)
            msg.clouds = [cloud_to_msg(cloud, Header()) for cloud in instruction.clouds]
    return msg


def document_to_msg(text: str) -> messages.Instruction:
    """JSON document (`flowplan.io.instruction`), law of motion included."""
    return messages.Instruction(kind=messages.Instruction.DOCUMENT, text=text)


def as_prompt(msg: messages.Instruction) -> messages.Instruction:
    """Sentence of a document that has one; any other instruction unchanged."""
    if msg.kind != messages.Instruction.DOCUMENT:
        return msg
    document = parse_json(msg.text, "instruction.text")
    prompt = document.get("prompt") if isinstance(document, dict) else None
    return (
        messages.Instruction(kind=messages.Instruction.PROMPT, text=prompt)
        if isinstance(prompt, str)
        else msg
    )


def instruction_from_msg(
    msg: messages.Instruction, scene: Scene, field: str = "instruction"
) -> tuple[tuple[Law, ...], Instruction]:
    """Laws of motion (only in a document) and instruction for `scene`."""
    if msg.kind == messages.Instruction.DOCUMENT:
        return parse_instruction(parse_json(msg.text, f"{field}.text"), scene, f"{field}.text")
    try:
        return (), _instruction(msg, scene)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def _instruction(msg: messages.Instruction, scene: Scene) -> Instruction:
    if msg.kind == messages.Instruction.PROMPT:
        return Prompt(msg.text)
    if msg.kind not in (messages.Instruction.ACTION, messages.Instruction.OBSERVATION):
        raise ValueError(
            f"kind: got {msg.kind}, expected PROMPT (0), ACTION (1), OBSERVATION (2) or DOCUMENT "
            "(3)"
        )
    checks.choice("object", msg.object, [o.name for o in scene.objects])
    if msg.kind == messages.Instruction.OBSERVATION:
        clouds = tuple(cloud_from_msg(cloud, f"clouds[{i}]") for i, cloud in enumerate(msg.clouds))
        return Observation(msg.object, np.asarray(msg.times), clouds)
    # Vectors of an action: an empty field is one that was not given.
    points = {
        name: _points(getattr(msg, name)) for name in ("handles", "targets", "forces", "velocities")
    }
    given = {name: value for name, value in points.items() if len(value)}
    if "handles" not in given:
        raise ValueError("handles: expected at least one point on the object, got none")
    rest: dict[str, Any] = given | ({"duration": msg.duration} if msg.duration else {})
    return Action(msg.object, **rest)


# -- Contacts and plans ------------------------------------------------------------------------


def grasps_to_msg(grasps: ContactCandidates, header: Header) -> messages.Grasps:
    """Contacts in the frame of `header`, best first."""
    return messages.Grasps(
        header=header,
        tool_poses=[pose_to_msg(X) for X in grasps.X_world_tool],
        widths=buffer("d", grasps.width),
        scores=buffer("d", grasps.score),
        kinds=buffer("B", [_KINDS.index(kind) for kind in grasps.kind]),
    )


def grasps_from_msg(msg: messages.Grasps, field: str = "grasp") -> ContactCandidates:
    """Contacts in the frame of the message's header; the message does not name their object."""
    poses = [pose_from_msg(p, f"{field}.tool_poses[{i}]") for i, p in enumerate(msg.tool_poses)]
    if any(kind >= len(_KINDS) for kind in msg.kinds):
        raise ValueError(
            f"{field}.kinds: expected GRASP (0), PUSH (1) or PINCH (2), got {max(msg.kinds)}"
        )
    kinds = tuple(_KINDS[kind] for kind in msg.kinds)
    return ContactCandidates(np.array(poses), np.asarray(msg.widths), np.asarray(msg.scores), kinds)


def attempt_to_msg(attempt: Attempt) -> messages.Attempt:
    """One attempted contact."""
    return messages.Attempt(
        **{name: getattr(attempt, name) for name in messages.Attempt.get_fields_and_field_types()}
    )


def certified_plan(plan: Plan, robot: str, header: Header) -> messages.CertifiedPlan:
    """Certified plan, sealed with its digest.

    Args:
        plan: the planner's plan.
        robot: name of the robot.
        header: stamp: time of certification; frame_id: frame of the plan's world poses.

    Raises:
        ValueError: for a plan whose certificate is not a pass.
    """
    if not plan.certificate.ok:
        raise ValueError(
            f"plan.certificate: expected a pass, got {plan.certificate.reasons}; plan again"
        )
    # Trajectory and contact, then a column per certified quantity, sealed last.
    t = plan.trajectory
    msg = messages.CertifiedPlan(
        header=header,
        robot=robot,
        trajectory=trajectory_to_msg(t),
        phase=buffer("B", t.phase),
        certified_clearance=float(plan.certificate.clearance),
        grasp=grasps_to_msg(plan.contact, header),
        released=plan.ending.released,
        ending=plan.ending.reason,
    )
    for name in ("grip", "position_error", "rotation_error", "clearance"):
        setattr(msg, name, buffer("d", getattr(t, name)))
    msg.digest = digest(msg)
    return msg


def trajectory_to_msg(trajectory: Trajectory) -> JointTrajectory:
    """Arm's part of a trajectory, to start on arrival (stamp 0)."""
    rows = zip(trajectory.times, trajectory.q, trajectory.qd, trajectory.qdd, strict=True)
    points = [
        JointTrajectoryPoint(
            positions=buffer("d", q),
            velocities=buffer("d", qd),
            accelerations=buffer("d", qdd),
            time_from_start=duration_to_msg(float(t)),
        )
        for t, q, qd, qdd in rows
    ]
    return JointTrajectory(joint_names=list(trajectory.joint_names), points=points)


def trajectory_from_msg(msg: messages.CertifiedPlan, field: str = "plan") -> Trajectory:
    """Trajectory of a plan, with phase, grip and errors of every sample."""
    # Columns (S, J) of the arm's points.
    points, joints = msg.trajectory.points, len(msg.trajectory.joint_names)
    columns = {}
    for name, part in (("q", "positions"), ("qd", "velocities"), ("qdd", "accelerations")):
        for i, point in enumerate(points):
            count = len(getattr(point, part))
            if count != joints:
                raise ValueError(
                    f"{field}.trajectory.points[{i}].{part}: expected {joints} numbers, "
                    f"one a joint, got {count}"
                )
        columns[name] = np.array([getattr(point, part) for point in points])
    # Columns (S,) that stand beside the points.
    for name in ("grip", "phase", "position_error", "rotation_error", "clearance"):
        values = np.asarray(getattr(msg, name))
        if len(values) != len(points):
            raise ValueError(
                f"{field}.{name}: expected {len(points)} numbers, one a point, got {len(values)}"
            )
        columns[name] = values
    times = np.array([seconds(point.time_from_start) for point in points])
    return Trajectory(tuple(msg.trajectory.joint_names), times, **columns)


def positions_from_joint_state(
    msg: JointState, joint_names: Sequence[str], field: str = "joint_states"
) -> FloatArray:
    """Positions (J,) of `joint_names`, by name; other joints in the message are ignored."""
    if len(msg.position) != len(msg.name):
        raise ValueError(
            f"{field}.position: expected {len(msg.name)} numbers, one a name, got "
            f"{len(msg.position)}"
        )
    known = dict(zip(msg.name, msg.position, strict=True))
    missing = [name for name in joint_names if name not in known]
    if missing:
        raise ValueError(
            f"{field}.name: lacks {missing[0]!r} ({len(missing)} missing); got "
            f"{', '.join(known) or 'none'}"
        )
    return checks.array(
        f"{field}.position", [known[name] for name in joint_names], (len(joint_names),)
    )


def _vectors(rows: FloatArray, kind: type) -> list[Any]:
    return [kind(x=float(x), y=float(y), z=float(z)) for x, y, z in rows]


def _points(vectors: Sequence[Any]) -> FloatArray:
    return np.array([[v.x, v.y, v.z] for v in vectors]).reshape(-1, 3)


def _rows(values: Sequence[float], width: int, field: str) -> NDArray[Any]:
    """Rows of `width` of a flat field."""
    if len(values) % width:
        raise ValueError(f"{field}: expected a multiple of {width} numbers, got {len(values)}")
    return np.asarray(values).reshape(-1, width)
