"""The oracle that replays plans: planted violations of every kind are found, sound plans pass."""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import trimesh

from experiments.certify.bench_certify import Outcome, compare, read_log, records, upper_bound
from experiments.certify.oracle import arm as arm_module
from experiments.certify.oracle.arm import read_arm
from experiments.certify.oracle.depth import below, overlap
from experiments.certify.oracle.recording import Part, Recording, load, save
from experiments.certify.oracle.replay import MANIPULATE, _Replay, replay
from experiments.certify.oracle.solid import SPACING, Solid, surface_points
from experiments.certify.problems import FRAMES, KINDS, Problem, random_problem
from experiments.certify.solve import solve
from flowplan.robot import load_robot
from flowplan.utils.json_lines import JsonLines

FOLDER = Path(arm_module.__file__).parent
PLANTED = 10
SLOW = [pytest.param(i, marks=pytest.mark.slow) for i in range(PLANTED)]
CASES = [0, *SLOW[1:]]


# Sound plans to plant faults in.


def brick(contact: str, size: tuple[float, float, float]) -> Problem:
    """A brick that is carried over the table, or pushed along it, with nothing around."""
    mesh = trimesh.creation.box(size)
    mesh.apply_translation([0.45, -0.12, size[2] / 2 + 1e-3])
    x = np.linspace(0, 1, FRAMES)
    s = x**3 * (10 - 15 * x + 6 * x**2)
    X = np.tile(np.eye(4), (FRAMES, 1, 1))
    X[:, 1, 3] = 0.24 * s
    X[:, 2, 3] = 0.4 * s * (1 - s) if contact == "grasp" else 0.0
    part = Part("target", np.array(mesh.vertices), np.array(mesh.faces), X, "target")
    kind = "push" if contact == "push" else "carry"
    still = np.zeros(7)
    return Problem(0, 0, "panda", kind, contact, "flow", np.eye(4), still, (part,), 3 * x)


@lru_cache(maxsize=2)
def sound(contact: str) -> Recording:
    size = (0.05, 0.04, 0.08) if contact == "grasp" else (0.06, 0.12, 0.10)
    solved = solve(brick(contact, size))
    assert solved.recording is not None, solved.reason
    return solved.recording


@lru_cache(maxsize=2)
def poses(contact: str) -> _Replay:
    recording = sound(contact)
    return _Replay(recording, read_arm(recording.robot))


def moment(contact: str, rng: np.random.Generator) -> int:
    """A step in the middle of the manipulation."""
    during = np.flatnonzero(poses(contact).phase == MANIPULATE)
    return int(during[int(len(during) * rng.uniform(0.35, 0.65))])


def with_part(recording: Recording, mesh: trimesh.Trimesh, X=None, role="obstacle") -> Recording:
    X = np.eye(4)[None] if X is None else X
    part = Part("planted", np.array(mesh.vertices), np.array(mesh.faces), X, role)
    return recording.changed(parts=(*recording.parts, part))


def names(recording: Recording) -> set[str]:
    """Everything that overlaps, by the names without their numbers."""
    found = replay(recording).overlaps
    return {"+".join(sorted(n.split("#")[0] for n in overlap.names)) for overlap in found}


def link_center(replayed: _Replay, link: str, step: int) -> np.ndarray:
    body = next(b for b in replayed.links if b.name.startswith(link))
    return body.X[step, :3, :3] @ body.solid.hull.mean(axis=0) + body.X[step, :3, 3]


@pytest.mark.parametrize("contact", ["grasp", pytest.param("push", marks=pytest.mark.slow)])
def test_a_sound_plan_passes(contact):
    verdict = replay(sound(contact))
    assert verdict.ok, verdict


# Planted faults.


@pytest.mark.parametrize("case", SLOW)
def test_an_obstacle_in_the_arm_is_found(case):
    rng = np.random.default_rng(case)
    link = ("panda_link4", "panda_link5", "panda_link6", "panda_link7", "panda_hand")[case % 5]
    center = link_center(poses("grasp"), link, moment("grasp", rng))
    mesh = trimesh.creation.box(rng.uniform(0.004, 0.03, 3))
    mesh.apply_translation(center)
    found = names(with_part(sound("grasp"), mesh))
    assert f"{link}+planted" in found


@pytest.mark.parametrize("case", SLOW)
def test_an_arm_in_itself_is_found(case):
    """For a few milliseconds, at a configuration that another checker says overlaps itself."""
    from flowplan.trajectory import Trajectory
    from flowplan.validation.validator import PhaseWorld, validate

    rng, robot = np.random.default_rng(case), load_robot("panda")
    while True:
        q = rng.uniform(robot.lower, robot.upper)
        still = np.tile(q, (2, 1))
        zeros, none = np.zeros((2, 7)), np.zeros(2)
        path = Trajectory(
            robot.joint_names, np.arange(2.0), still, zeros, zeros, none, np.full(2, 2),
            none, none, none,
        )  # fmt: skip
        verdict = validate(robot, path, {2: PhaseWorld()})
        if verdict.clearance < -0.004 and "overlap" in " ".join(verdict.reasons):
            break
    recording = sound("grasp")
    bent = recording.q.copy()
    step = np.flatnonzero(recording.phase == MANIPULATE)[len(bent) // 8]
    bent[step] = q
    a, b = sorted(verdict.closest)
    assert f"{a}+{b}" in names(recording.changed(q=bent))


@pytest.mark.parametrize("case", CASES)
def test_a_held_object_in_an_obstacle_is_found(case):
    rng, replayed = np.random.default_rng(case), poses("grasp")
    target = replayed.parts["target"]
    X = target.X[moment("grasp", rng)]
    corner = X[:3, :3] @ target.solid.corners[case % 8] + X[:3, 3]
    center = X[:3, :3] @ target.solid.box.mean(axis=0) + X[:3, 3]
    mesh = trimesh.creation.box([0.02, rng.uniform(0.002, 0.01), 0.02])
    mesh.apply_translation(corner + 0.15 * (center - corner))
    assert "planted+target" in names(with_part(sound("grasp"), mesh))


@pytest.mark.parametrize("case", CASES)
def test_a_held_object_in_the_support_is_found(case):
    """The arm dips by so much that the object is a few millimeters in the table."""
    rng, robot = np.random.default_rng(case), load_robot("panda")
    recording, replayed = sound("grasp"), poses("grasp")
    during = np.flatnonzero(recording.phase == MANIPULATE)
    middle = during[int(len(during) * rng.uniform(0.4, 0.6))]
    step = np.argmin(np.abs(replayed.t - recording.times[middle]))
    target = replayed.parts["target"]
    height = (target.X[step] @ np.c_[target.solid.hull, np.ones(len(target.solid.hull))].T)[2].min()
    depth = rng.uniform(0.003, 0.02)
    width = 0.15 * (recording.times[during[-1]] - recording.times[during[0]])
    gap = (recording.times - recording.times[middle]) / width
    dip = (height + depth) * np.exp(-(gap**2))
    q = recording.q.copy()
    goal = robot.tool_pose(q)
    goal[:, 2, 3] -= dip
    for _ in range(8):
        at, J = robot.tool_jacobian(q)
        error = np.concatenate([goal[:, :3, 3] - at[:, :3, 3], np.zeros((len(q), 3))], axis=1)
        q += np.einsum("sij,sj->si", np.linalg.pinv(J), error)
    assert "support+target" in names(recording.changed(q=q))


@pytest.mark.parametrize("case", SLOW)
def test_a_finger_in_an_obstacle_is_found_at_its_true_opening(case):
    """Where the finger is because of what it holds; shut, it would be clear."""
    rng, replayed = np.random.default_rng(case), poses("grasp")
    step, finger = moment("grasp", rng), replayed.arm.fingers[case % 2]
    body = next(b for b in replayed.links if b.name.startswith(finger))
    outward = 1.0 if case % 2 == 0 else -1.0
    tips = body.solid.hull[np.argsort(outward * body.solid.hull[:, 1])[-4:]].mean(axis=0)
    place = body.X[step, :3, :3] @ (tips - [0, outward * 0.003, 0]) + body.X[step, :3, 3]
    mesh = trimesh.creation.icosphere(2, rng.uniform(0.003, 0.006))
    mesh.apply_translation(place)
    assert f"{finger}+planted" in names(with_part(sound("grasp"), mesh))


@pytest.mark.parametrize("case", SLOW)
def test_a_hand_in_the_held_object_is_found(case):
    """The object reaches up between the fingers, into the palm."""
    rng, recording = np.random.default_rng(case), sound("grasp")
    replayed = poses("grasp")
    palm = link_center(replayed, "panda_hand", int(np.flatnonzero(replayed.phase == 1)[0]))
    mesh = trimesh.creation.box([0.01, 0.01, rng.uniform(0.02, 0.06)])
    mesh.apply_translation(palm + rng.uniform(-0.01, 0.01, 3))
    target = recording.target
    grown = trimesh.util.concatenate([trimesh.Trimesh(target.vertices, target.faces), mesh])
    part = Part(
        "target", np.array(grown.vertices), np.array(grown.faces), target.X_since_start, "target"
    )
    assert "panda_hand+target" in names(recording.changed(parts=(part,)))


@pytest.mark.parametrize("case", SLOW)
def test_an_object_pushed_through_a_wall_is_found(case):
    rng, replayed = np.random.default_rng(case), poses("push")
    target = replayed.parts["target"]
    X = target.X[moment("push", rng)]
    mesh = trimesh.creation.box([0.3, rng.uniform(0.0015, 0.005), 0.04])
    edge = X[:3, 3] + X[:3, :3] @ [0.45, target.solid.box[1, 1], 0.03]
    mesh.apply_translation(edge - [0, 0.004, 0])
    assert "planted+target" in names(with_part(sound("push"), mesh))


@pytest.mark.parametrize("case", SLOW)
def test_an_object_that_flies_through_the_arm_is_found(case):
    """For a twelfth of the motion; it is far away before and after."""
    rng, replayed = np.random.default_rng(case), poses("grasp")
    link = ("panda_hand", "panda_link7", "panda_link6")[case % 3]
    step = moment("grasp", rng)
    mesh = trimesh.creation.icosphere(2, rng.uniform(0.01, 0.03))
    mesh.apply_translation(link_center(replayed, link, step))
    frame = replayed._frames()[step]
    X = np.tile(np.eye(4), (FRAMES, 1, 1))
    X[:, 0, 3] = np.where(np.abs(np.arange(FRAMES) - frame) < 1.5, 0.0, 1.0)
    assert f"{link}+planted" in names(with_part(sound("grasp"), mesh, X, "other"))


def _faults(recording: Recording, rng: np.random.Generator) -> dict[str, Recording]:
    """Executions beyond a limit of one joint."""
    t, q = recording.times, recording.q
    joint, step = rng.integers(7), rng.integers(20, len(t) - 20)
    one = np.zeros_like(q)
    one[step, joint] = 1.0
    arm = read_arm(recording.robot)
    far = q + one * (arm.upper[joint] + rng.uniform(0.002, 0.1) - q[step, joint])
    jump = q.copy()
    jump[step:, joint] += rng.uniform(0.01, 0.1)
    nan = q.copy()
    nan[step, joint] = np.nan
    return {
        "position": recording.changed(q=far),
        "velocity": recording.changed(times=t / rng.uniform(12, 30)),
        "acceleration": recording.changed(q=jump),
        "jerk": recording.changed(q=q + one * rng.uniform(4e-3, 1e-2)),
        "starts": recording.changed(start=recording.start + rng.uniform(0.001, 0.1)),
        "finite": recording.changed(q=nan),
        "increase": recording.changed(times=np.where(np.arange(len(t)) == step, t[step - 1], t)),
        "opening": recording.changed(grip=recording.grip + rng.uniform(0.001, 0.02) + 0.04),
    }


@pytest.mark.parametrize("case", range(PLANTED))
def test_exceeded_limits_are_found(case):
    from experiments.certify.oracle.limits import limit_findings

    recording = sound("grasp")
    arm = read_arm(recording.robot)
    assert not limit_findings(recording, arm)
    for word, planted in _faults(recording, np.random.default_rng(case)).items():
        assert any(word in line for line in limit_findings(planted, arm)), word


# The oracle's own parts.


def test_the_oracle_shares_no_code_with_what_it_judges():
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in found:
                assert name.split(".")[0] not in ("flowplan", "pinocchio", "coal"), path
                assert not name.startswith("experiments") or ".oracle" in name, path


@pytest.mark.parametrize("name", ["panda", "ur5e"])
def test_links_are_where_a_simulator_puts_them(name):
    import pybullet

    robot = load_robot(name)
    folder = Path(robot.urdf_path).parent.parent
    arm = read_arm(str(folder / f"{name}.toml"))
    rng = np.random.default_rng(0)
    q, opening = (
        rng.uniform(robot.lower, robot.upper, (5, len(robot.lower))),
        rng.uniform(0, 0.08, 5),
    )
    ours = arm.links(q, opening, np.eye(4))
    client = pybullet.connect(pybullet.DIRECT)
    try:
        body = pybullet.loadURDF(str(robot.urdf_path), useFixedBase=True, physicsClientId=client)
        info = [
            pybullet.getJointInfo(body, j, physicsClientId=client)
            for j in range(pybullet.getNumJoints(body, physicsClientId=client))
        ]
        for i in range(5):
            at = dict(zip(arm.arm_joints, q[i], strict=True))
            for joint, table in arm.opening_joints.items():
                at[joint] = np.interp(opening[i], arm.openings, table)
            for j, row in enumerate(info):
                if row[1].decode() in at:
                    value = at[row[1].decode()]
                    pybullet.resetJointState(body, j, value, physicsClientId=client)
            for j, row in enumerate(info):
                state = pybullet.getLinkState(
                    body, j, computeForwardKinematics=True, physicsClientId=client
                )
                link = row[12].decode()
                np.testing.assert_allclose(ours[link][i, :3, 3], state[4], atol=1e-5)
    finally:
        pybullet.disconnect(client)


@pytest.mark.parametrize(
    "mesh", [trimesh.creation.box([0.1, 0.02, 0.05]), trimesh.creation.icosphere(2, 0.03)]
)
def test_points_of_a_surface_are_a_millimeter_apart(mesh):
    from scipy.spatial import cKDTree

    points = surface_points(mesh)
    random, _ = trimesh.sample.sample_surface(mesh, 3000, seed=0)
    assert cKDTree(points).query(random)[0].max() < SPACING
    assert np.abs(Solid(mesh).signed_distance(points)).max() < 1e-6


@pytest.mark.parametrize("depth", [-0.01, -0.001, 0.0015, 0.004, 0.012])
@pytest.mark.parametrize("fine", [0, 3])
def test_depth_of_a_sphere_in_a_box(depth, fine):
    box = trimesh.creation.box([0.2, 0.2, 0.2])
    for _ in range(fine):
        box = box.subdivide()
    ball, R = trimesh.creation.icosphere(4, 0.03), 0.03
    X = np.tile(np.eye(4), (200, 1, 1))
    X[:, 0, 3] = np.linspace(0.5, 0.1 + R - depth, 200)  # it arrives from far away
    found = overlap(Solid(ball), X, Solid(box), np.tile(np.eye(4), (200, 1, 1)), 1e-3)
    assert found[-1] == pytest.approx(max(depth, 0.0), abs=3e-4)
    assert found[:100].max() == 0.0
    assert below(Solid(ball), X, -0.02)[-1] == pytest.approx(0.01, abs=3e-4)


def test_depth_does_not_depend_on_which_is_first():
    rng = np.random.default_rng(0)
    plate, rod = trimesh.creation.box([0.1, 0.1, 0.004]), trimesh.creation.cylinder(0.01, 0.1)
    X = np.tile(np.eye(4), (64, 1, 1))
    X[:, :3, 3] = rng.uniform(-0.04, 0.04, (64, 3))
    still = np.tile(np.eye(4), (64, 1, 1))
    a, b = Solid(plate), Solid(rod)
    np.testing.assert_allclose(overlap(a, X, b, still, 1e-3), overlap(b, still, a, X, 1e-3))


def test_an_open_surface_has_no_inside_but_is_met():
    sheet = trimesh.Trimesh(
        [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], [[0, 1, 2], [0, 2, 3]]
    )
    sheet.apply_scale(0.05)
    box, still = Solid(trimesh.creation.box([0.02, 0.02, 0.02])), np.eye(4)[None]
    assert overlap(box, still, Solid(sheet), still, 1e-3)[0] == pytest.approx(0.01, abs=1e-6)


# The benchmark.


def test_a_recording_comes_back_from_its_file(tmp_path):
    recording = sound("grasp")
    save(recording, tmp_path / "plan.npz")
    back = load(tmp_path / "plan.npz")
    np.testing.assert_array_equal(back.q, recording.q)
    assert [p.name for p in back.parts] == ["target"]
    assert back.kind == "grasp"


def test_problems_are_their_seeds_and_differ():
    for index in range(6):
        one, two = random_problem(3, index, "ur5e"), random_problem(3, index, "ur5e")
        other = random_problem(4, index, "ur5e")
        np.testing.assert_array_equal(one.parts[0].vertices, two.parts[0].vertices)
        assert one.kind == KINDS[index % 3]
        first, second = (p.parts[0].vertices for p in (one, other))
        assert first.shape != second.shape or not np.allclose(first, second)


def outcome(index: int, certified: bool, overlaps=(), limits=()) -> Outcome:
    kind = KINDS[index % 3]
    deepest = 0.004 if overlaps else 0.0
    return Outcome(
        0, index, "panda", kind, "flow", certified, "", list(overlaps), deepest, list(limits), 1, 1
    )


def test_records_count_what_certificates_let_through():
    found = records([outcome(0, True), outcome(1, True, ["a"]), outcome(2, False)])
    values = {r["key"]: r for r in found}
    assert values["certify/overlap_over_1mm"]["value"] == 1
    assert values["certify/overlap_over_1mm"]["n"] == 2
    assert values["certify/limit_violations"]["value"] == 0
    assert values["certify/certified_share"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert values["certify/sound_share"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    assert values["certify/push/overlap_over_1mm"]["value"] == 1
    assert values["certify/grasp/overlap_over_1mm"]["value"] == 0
    assert values["certify/deepest_overlap"]["value"] == pytest.approx(4)


def test_an_upper_bound_of_none_of_many():
    assert upper_bound(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100), abs=1e-5)
    assert upper_bound(0, 0) == 1.0
    assert upper_bound(3, 3) == 1.0


def test_a_comparison_subtracts_unsound_plans():
    ours = [outcome(0, True), outcome(1, False), outcome(2, True)]
    theirs = [outcome(0, True, ["a"]), outcome(1, True), outcome(2, True)]
    values = {r["key"]: r["value"] for r in compare(ours, theirs)}
    assert values["certify/paired/now/sound_share"] == pytest.approx(2 / 3, abs=1e-4)
    assert values["certify/paired/before/certified_share"] == 1.0
    assert values["certify/paired/before/sound_share"] == pytest.approx(2 / 3, abs=1e-4)
    assert values["certify/paired/only_now"] == values["certify/paired/only_before"] == 1


def test_a_log_whose_last_line_is_cut_resumes(tmp_path):
    import json
    from dataclasses import asdict

    log = tmp_path / "log.jsonl"
    line = json.dumps(asdict(outcome(0, True)))
    log.write_text(line + "\n" + line[:20])
    with JsonLines(log) as lines:
        assert len(read_log(lines)) == 1
    assert log.read_text() == line + "\n"
