"""Closed-form motions against closed form: amounts, rigidity, kept lengths, and a moved world that
moves the answer."""

import numpy as np
import pytest
import trimesh

from flowplan.geometry import exp_se3, exp_so3, fit_rigid, pose, rotation_about, transform
from flowplan.laws import Bend, Fold, Hinge, Rigid, Slide
from flowplan.motion import sample_flow
from flowplan.scene import Action, Observation, Prompt, Scene, SceneObject
from generators.kinematic import KinematicOptions, kinematic, minimum_jerk

BASE = (
    trimesh.creation.box([0.3, 0.2, 0.02], transform=pose(translation=[0, 0, 0.01]))
    .subdivide()
    .subdivide()
)
LID = (
    trimesh.creation.box([0.3, 0.01, 0.2], transform=pose(translation=[0, 0.1, 0.13]))
    .subdivide()
    .subdivide()
)
LAPTOP = trimesh.util.concatenate(BASE, LID)
AXIS_POINT, AXIS = np.array([0.0, 0.1, 0.025]), np.array([1.0, 0.0, 0.0])
TURN = exp_se3([0.4, -0.1, 0.0, 0.0, 0.0, 0.7])  # what a world with gravity and a table may do
ANY = exp_se3([0.4, -0.1, 0.3, 0.5, -0.9, 0.7])


def laptop(X=None):
    return Scene(
        (
            SceneObject("laptop", LAPTOP, pose() if X is None else X),
            SceneObject("cup", BASE, pose(None, [1, 0, 0])),
        )
    )


def hinge(X=None):
    X = pose() if X is None else X
    return Hinge(
        "laptop",
        transform(X, AXIS_POINT[None])[0],
        X[:3, :3] @ AXIS,
        part=transform(X, LID.vertices),
        rest=transform(X, BASE.vertices),
    )


def sheet(n=41, size=0.3):
    x, y = np.meshgrid(
        np.linspace(-size / 2, size / 2, n), np.linspace(-size / 2, size / 2, n), indexing="ij"
    )
    vertices = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3)
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = i[:-1, :-1].ravel(), i[1:, :-1].ravel(), i[1:, 1:].ravel(), i[:-1, 1:].ravel()
    return trimesh.Trimesh(
        vertices, np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]), process=False
    )


def animate(law, scene, handles, targets, **options):
    return kinematic([law], KinematicOptions(**options))(
        scene, Action(law.object, handles, targets)
    )[0]


def edge_stretch(mesh, vertices):
    """Largest change of an edge's length over the animation, as a fraction."""
    a, b = mesh.edges_unique.T
    length = np.linalg.norm(vertices[:, a] - vertices[:, b], axis=-1)
    return np.abs(length / length[0] - 1).max()


def test_minimum_jerk_starts_and_ends_at_rest():
    x = np.linspace(0, 1, 1001)
    s = minimum_jerk(x)
    assert (s[0], s[500], s[-1]) == (0, 0.5, 1)
    assert np.all(np.diff(s) >= 0)
    v = np.gradient(s, x)
    assert abs(v[0]) < 1e-4
    assert abs(v[-1]) < 1e-4
    assert v.max() == pytest.approx(15 / 8, rel=1e-4)  # the textbook peak


@pytest.mark.parametrize("degrees", [-170.0, -90.0, 35.0, 179.0])
def test_a_hinge_turns_its_part_alone_and_by_the_angle_asked(degrees):
    law, scene = hinge(), laptop()
    handles = LID.vertices[::7]
    X = rotation_about(AXIS_POINT, AXIS, np.radians(degrees))
    motion = animate(law, scene, handles, transform(X, handles))
    v, base = motion.vertices[0], len(BASE.vertices)
    assert v.shape == (41, len(LAPTOP.vertices), 3)
    np.testing.assert_allclose(v[-1, base:], transform(X, LID.vertices), atol=1e-12)
    np.testing.assert_array_equal(v[:, :base], np.broadcast_to(BASE.vertices, (41, base, 3)))
    np.testing.assert_array_equal(
        motion.vertices[1], np.broadcast_to(scene.objects[1].vertices_world, (41, base, 3))
    )
    fit = fit_rigid(np.broadcast_to(v[0, base:], v[:, base:].shape), v[:, base:])
    np.testing.assert_allclose(
        transform(fit, v[0, base:]), v[:, base:], atol=1e-12
    )  # rigid in every frame
    on_axis = AXIS_POINT + np.linspace(-1, 1, 5)[:, None] * AXIS
    np.testing.assert_allclose(
        transform(fit, on_axis), np.broadcast_to(on_axis, (41, 5, 3)), atol=1e-9
    )
    np.testing.assert_allclose(
        fit[20], rotation_about(AXIS_POINT, AXIS, np.radians(degrees) / 2), atol=1e-9
    )


def test_a_hinge_takes_the_least_squares_angle_of_noisy_targets():
    rng = np.random.default_rng(3)
    handles = LID.vertices[::5]
    targets = transform(rotation_about(AXIS_POINT, AXIS, 1.0), handles) + rng.normal(
        scale=0.02, size=handles.shape
    )
    v = animate(hinge(), laptop(), handles, targets, frames=2).vertices[0][-1]

    def cost(angle):
        return ((transform(rotation_about(AXIS_POINT, AXIS, angle), handles) - targets) ** 2).sum()

    p = LAPTOP.vertices[-1] - AXIS_POINT
    moved = v[-1] - AXIS_POINT
    angle = np.arctan2(np.cross(p, moved) @ AXIS, p[1:] @ moved[1:])
    assert cost(angle) < min(cost(angle + 1e-4), cost(angle - 1e-4))


def test_handles_that_cannot_move_do_not_change_the_amount():
    handles = np.concatenate([LID.vertices[::9], BASE.vertices[::9]])
    targets = np.concatenate(
        [transform(rotation_about(AXIS_POINT, AXIS, 0.8), LID.vertices[::9]), BASE.vertices[::9]]
    )
    v = animate(hinge(), laptop(), handles, targets).vertices[0][-1]
    np.testing.assert_allclose(
        v[-1], transform(rotation_about(AXIS_POINT, AXIS, 0.8), LAPTOP.vertices[-1:])[0]
    )


def test_a_slide_moves_along_its_axis_by_the_mean_of_what_is_asked():
    law = Slide("laptop", [0, -2.0, 0], part=BASE.vertices, rest=LID.vertices)
    handles = BASE.vertices[:4]
    v = animate(
        law,
        laptop(),
        handles,
        handles + np.array([[0.05, -0.10, 0], [0, -0.14, 0.04], [0, -0.1, 0], [0, -0.14, 0]]),
    ).vertices[0]
    base = len(BASE.vertices)
    np.testing.assert_allclose(
        v[-1, :base] - v[0, :base], np.broadcast_to([0, -0.12, 0], (base, 3)), atol=1e-12
    )
    np.testing.assert_array_equal(v[-1, base:], v[0, base:])


def test_a_rigid_motion_ends_at_the_pose_and_rises_by_its_lift():
    X = pose(exp_so3([0.2, 0.1, 1.5]), [0.3, -0.2, 0.1])
    handles = LAPTOP.vertices[::11]
    v = animate(Rigid("laptop", lift=0.15), laptop(), handles, transform(X, handles)).vertices[0]
    np.testing.assert_allclose(v[-1], transform(X, LAPTOP.vertices), atol=1e-7)
    fit = fit_rigid(np.broadcast_to(v[0], v.shape), v)
    np.testing.assert_allclose(transform(fit, v[0]), v, atol=1e-12)
    center = v.mean(1)
    np.testing.assert_allclose(center[20], (center[0] + center[-1]) / 2 + [0, 0, 0.15], atol=1e-9)
    # It leaves upwards and arrives downwards: nothing is dragged along the table.
    assert np.linalg.norm(center[8, :2] - center[0, :2]) < 1e-12
    assert center[8, 2] - center[0, 2] > 0.05
    assert np.linalg.norm(center[-9, :2] - center[-1, :2]) < 1e-12
    assert np.abs(np.diff(center, 2, axis=0)).max() < 0.01  # no corner between the segments


def test_a_rigid_motion_without_lift_goes_straight():
    v = animate(Rigid("laptop"), laptop(), [[0, 0, 0.02]], [[0.2, 0.1, 0.02]]).vertices[0]
    s = minimum_jerk(np.linspace(0, 1, 41))
    np.testing.assert_allclose(
        v - v[0], np.broadcast_to(s[:, None, None] * [0.2, 0.1, 0], v.shape), atol=1e-12
    )


@pytest.mark.parametrize(
    "handles",
    [[[0.1, 0, 0.0]], [[0.1, 0, 0.0], [-0.1, 0, 0]], [[0.1, 0, 0], [0, 0, 0], [-0.2, 0, 0]]],
)
def test_few_handles_turn_the_object_no_more_than_they_must(handles):
    about_z = exp_so3([0, 0, 0.6])
    targets = np.asarray(handles) @ about_z.T + [0.1, 0.2, 0]
    v = animate(Rigid("laptop"), laptop(), handles, targets).vertices[0]
    R = fit_rigid(v[0], v[-1])[:3, :3]
    np.testing.assert_allclose(R, np.eye(3) if len(handles) == 1 else about_z, atol=1e-8)


@pytest.mark.parametrize("radius", [0.0, 0.006, 0.02])
def test_a_full_fold_lays_the_half_over_the_other_two_radii_above(radius):
    mesh = sheet()
    law = Fold("sheet", [0, 0, 0], [0, 1, 0], radius)
    handles = np.array([[0.15, 0.15, 0], [0.15, -0.15, 0]])
    # What is wound round the cylinder is missing from the reach: half a turn of arc.
    targets = handles * [-1, 1, 0] + [np.pi * radius, 0, 2 * radius]
    v = animate(law, Scene((SceneObject("sheet", mesh),)), handles, targets).vertices[0]
    x = mesh.vertices[:, 0]
    over, stays = x >= np.pi * radius + 1e-9, x <= 0
    np.testing.assert_allclose(v[-1, over, 0], np.pi * radius - x[over], atol=1e-8)
    np.testing.assert_allclose(v[-1, over, 2], 2 * radius, atol=1e-8)
    np.testing.assert_array_equal(v[:, stays], np.broadcast_to(v[0, stays], v[:, stays].shape))
    assert v[..., 2].min() > -1e-12  # never through the lower layer
    assert v[:, :, 2].max() > 0.1  # it swings over, not through


def test_a_fold_takes_the_side_of_its_handles_and_stops_where_asked():
    mesh = sheet()
    scene = Scene((SceneObject("sheet", mesh),))
    law = Fold("sheet", [0, 0, 0], [0, 1, 0], 0.0)
    v = animate(law, scene, [[-0.15, 0, 0]], [[0, 0, 0.15]]).vertices[0]
    x = mesh.vertices[:, 0]
    np.testing.assert_allclose(v[-1, x < 0, 2], -x[x < 0], atol=1e-8)
    np.testing.assert_array_equal(v[-1, x >= 0], mesh.vertices[x >= 0])


@pytest.mark.parametrize("crease", [[0, 1, 0], [1, 1, 0]])
def test_a_fold_and_a_bend_stretch_nothing(crease):
    scene = Scene((SceneObject("sheet", (mesh := sheet(81))),))
    fold = Fold("sheet", [0.01, 0, 0], crease, 0.01)
    corner = np.array([[0.15, -0.15, 0]])
    v = animate(fold, scene, corner, [[-0.12, 0.1, 0.02]]).vertices[0]
    # An edge across the bend is a chord: 1 - sinc(h / 2 r) ~ (h / r)^2 / 24 short, h = 3.75 sqrt 2
    # mm at most.
    assert edge_stretch(mesh, v) < (0.00375 * np.sqrt(2) / 0.01) ** 2 / 24 * 1.01
    bend = Bend("sheet", [-0.1, 0, 0], [0, -1, 0], [1, 0, 0], 0.15)
    v = animate(bend, scene, [[0.15, 0, 0]], [[0, 0, 0.15]]).vertices[0]
    assert np.abs(v[-1] - v[0]).max() > 0.1
    assert edge_stretch(mesh, v) < 1e-3


def test_a_bend_is_an_arc_then_its_tangent():
    beam = trimesh.creation.box([0.4, 0.02, 0.02]).subdivide().subdivide().subdivide()
    bend = Bend("beam", [-0.2, 0, 0], [0, -1, 0], [1, 0, 0], 0.3)
    angle = np.pi / 2
    radius = 0.3 / angle
    middle, tip = [-0.2 + radius, 0, radius], [-0.2 + radius, 0, radius + 0.1]
    handles = np.array([[0.1, 0, 0], [0.2, 0, 0]])
    v = animate(bend, Scene((SceneObject("beam", beam),)), handles, [middle, tip]).vertices[0]
    x, y, z = beam.vertices.T
    expected = np.where(
        x[:, None] > 0.1,
        np.stack([middle[0] - z, y, middle[2] + (x - 0.1)], -1),
        np.stack(
            [
                -0.2 + (radius - z) * np.sin((x + 0.2) / radius),
                y,
                radius - (radius - z) * np.cos((x + 0.2) / radius),
            ],
            -1,
        ),
    )
    np.testing.assert_allclose(v[-1], expected, atol=1e-7)


@pytest.mark.parametrize("angle", [-5.5, -1.0, 0.4, 4.0])
def test_a_bend_finds_its_angle_beyond_a_half_turn(angle):
    mesh = sheet()
    bend = Bend("sheet", [-0.15, 0, 0], [0, -1, 0], [1, 0, 0], 0.3)
    d = np.array([0.1, 0.2, 0.3])
    k = angle / 0.3
    targets = np.stack([np.sin(k * d) / k - 0.15, 0 * d, (1 - np.cos(k * d)) / k], -1)
    handles = np.stack([d - 0.15, 0 * d, 0 * d], -1)
    v = animate(bend, Scene((SceneObject("sheet", mesh),)), handles, targets).vertices[0]
    tip = mesh.vertices[:, 0] > 0.15 - 1e-9
    np.testing.assert_allclose(
        v[-1, tip][:, [0, 2]], np.broadcast_to(targets[-1, [0, 2]], (41, 2)), atol=1e-7
    )


@pytest.mark.parametrize(
    ("kind", "X"), [("hinge", ANY), ("slide", ANY), ("rigid", TURN), ("fold", TURN), ("bend", ANY)]
)
def test_moving_the_world_moves_the_motion(kind, X):
    R, t = X[:3, :3], X[:3, 3]
    mesh = sheet() if kind in ("fold", "bend") else LAPTOP

    def run(X):
        R, at = X[:3, :3], lambda p: transform(X, np.atleast_2d(p))
        law = {
            "hinge": lambda: hinge(X),
            "slide": lambda: Slide("laptop", R @ [0, 1, 0.2], at(LID.vertices), at(BASE.vertices)),
            "rigid": lambda: Rigid("laptop", 0.1),
            "fold": lambda: Fold("laptop", at([0, 0, 0])[0], R @ [0, 1, 0], 0.01),
            "bend": lambda: Bend("laptop", at([0, 0, 0])[0], R @ [0, 1, 0], R @ [1, 0, 0], 0.1),
        }[kind]()
        handles = np.array([[0.1, 0.1, 0.2], [0.15, 0.1, 0.1], [0.12, 0.1, 0.15]])
        if kind in ("fold", "bend"):
            handles[:, 2] = 0
        targets = handles + np.array(
            [[-0.05, -0.1, 0.05], [-0.04, -0.08, 0.0], [-0.05, -0.09, 0.01]]
        )
        return animate(
            law, Scene((SceneObject("laptop", mesh, X),)), at(handles), at(targets)
        ).vertices[0]

    np.testing.assert_allclose(run(X), run(pose()) @ R.T + t, atol=1e-7)


def test_a_wrong_instruction_is_told_what_the_generator_takes():
    generate, scene = kinematic([hinge(), Rigid("cup")]), laptop()
    lid = LID.vertices[:2]
    wrong = [
        (
            Prompt("close the laptop"),
            "instruction: got a Prompt; .* takes an Action with targets alone, on one of laptop",
        ),
        (
            Observation("cup", [0, 1.0], (lid, lid)),
            "instruction: got a Observation; .* takes an Action",
        ),
        (Action("laptop", lid, forces=lid), "Action.forces: .* takes an Action with targets"),
        (Action("laptop", lid, lid, velocities=lid), "Action.velocities"),
        (Action("plate", lid, lid), "Action.object: no law for 'plate'; .* laptop, cup"),
        (
            Action("laptop", BASE.vertices[:2], lid),
            "Action.handles: none of 2 points .* choose handles",
        ),
    ]
    for instruction, match in wrong:
        with pytest.raises(ValueError, match=match) as caught:
            generate(scene, instruction)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="object: got 'cup', expected one of sheet"):
        generate(Scene((SceneObject("sheet", sheet()),)), Action("cup", lid, lid))
    middle = LID.centroid[None]
    spin = kinematic([Hinge("laptop", middle[0], AXIS, LID.vertices, BASE.vertices)])
    with pytest.raises(ValueError, match=r"Action\.handles: all lie on the hinge's axis"):
        spin(scene, Action("laptop", middle + 0.1 * AXIS, middle))
    fold = kinematic([Fold("sheet", [0, 0, 0], [1, 0, 0])])
    with pytest.raises(ValueError, match=r"Action\.handles: lie on the crease"):
        fold(
            Scene((SceneObject("sheet", sheet()),)),
            Action("sheet", [[0, 0.1, 0], [0, -0.1, 0]], lid),
        )
    bend = kinematic([Bend("sheet", [0, 0, 0], [0, 1, 0], [1, 0, 0], 0.1)])
    with pytest.raises(ValueError, match=r"Action\.handles: all lie on the fixed side of 'sheet'"):
        bend(Scene((SceneObject("sheet", sheet()),)), Action("sheet", [[-0.1, 0, 0]], [[0, 0, 0]]))
    for laws in ([], [Rigid("cup"), Rigid("cup")]):
        with pytest.raises(ValueError, match="laws: expected one law per object"):
            kinematic(laws)
    with pytest.raises(ValueError, match=r"KinematicOptions\.frames"):
        KinematicOptions(frames=1)


def test_the_motion_is_one_the_pipeline_takes():
    heard = []
    handles = LID.vertices[::7]
    action = Action(
        "laptop", handles, transform(rotation_about(AXIS_POINT, AXIS, 1.2), handles), duration=3.0
    )
    motions = kinematic([hinge()])(
        laptop(), action, seed=5, progress=lambda f, word: heard.append((f, word))
    )
    assert len(motions) == 1
    assert motions[0].times[-1] == 3.0
    assert heard[-1][0] == 1.0
    flow = sample_flow(laptop(), motions[0], points_per_object=200)
    assert flow.points.shape == (41, 400, 3)
