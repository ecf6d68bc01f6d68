"""States of an object, inverse kinematics and drags, against closed-form maps."""

import numpy as np
import pytest
import torch
import trimesh

from flowplan.geometry import exp_se3, fit_rigid, pose, rotation_about, transform
from flowplan.scene import Action, Observation, Prompt, Scene, SceneObject
from generators import registry
from generators.common import dual_quaternion
from generators.common.sampling import surface_points
from generators.neurok.generate import generator
from generators.neurok.kinematics.drag import drag, solve_chain
from generators.neurok.kinematics.gauss_newton import jacobian
from generators.neurok.kinematics.handle_paths import handle_paths
from generators.neurok.kinematics.shape_fit import FitOptions, fit_shape
from generators.neurok.latent_space.active_subspace import active_subspace
from generators.neurok.latent_space.space import Frame, KinematicSpace, LatentSpace, box_yaw
from generators.neurok.network.config import NeurokConfig
from generators.neurok.network.model import Neurok, moved
from generators.neurok.options import (
    DragOptions,
    DynamicsOptions,
    NeurokOptions,
    ReduceOptions,
    SpaceOptions,
)

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
AXIS_POINT, AXIS = np.array([0.0, 0.1, 0.03]), np.array([1.0, 0.0, 0.0])
CUP = trimesh.creation.box([0.05, 0.05, 0.08])
TURN = exp_se3([0.4, -0.1, 0.3, 0.0, 0.0, 2.2])


class Laptop(KinematicSpace):
    """A lid that turns about its lower edge and slides with the whole, mixed into `dim`
    coordinates.

    It reads the hinge off the mesh that it is given, so it moves with the mesh, whatever its size
    and yaw.
    """

    def __init__(self, mesh, seed=0, dim=8):
        noise = torch.Generator().manual_seed(seed)
        mix = torch.linalg.qr(torch.randn(dim, 2, generator=noise, dtype=torch.float64))[0].T
        self.turn, self.push = 1.2 * mix[0], 0.3 * mix[1]
        self.vertices = torch.tensor(np.asarray(mesh.vertices))
        self.on_lid = torch.arange(len(self.vertices)) >= len(BASE.vertices)
        X = fit_rigid(
            LAPTOP.vertices, np.asarray(mesh.vertices) * np.ptp(LAPTOP.vertices[:, 0]) / self.width
        )
        self.point = torch.tensor(
            transform(X, AXIS_POINT[None])[0] / np.ptp(LAPTOP.vertices[:, 0]) * self.width
        )
        self.axis = torch.tensor(X[:3, :3] @ AXIS)
        self.rest, self.mean = torch.zeros(dim).double(), torch.zeros(dim).double()

    @property
    def width(self):
        a, b = np.argmin(LAPTOP.vertices[:, 0]), np.argmax(LAPTOP.vertices @ [1, 0, 0])
        return (
            float((self.vertices[b] - self.vertices[a]).norm())
            * 0.3
            / np.linalg.norm(LAPTOP.vertices[b] - LAPTOP.vertices[a])
        )

    def at(self, angle, push=0.0):
        """The least state (k,) with this angle in rad and this push."""
        return (
            angle * self.turn / self.turn.square().sum()
            + push * self.push / self.push.square().sum()
        )

    def angle(self, q):
        return (q @ self.turn).numpy()

    def field(self, q, points):
        lid = self.on_lid[torch.cdist(points.to(self.vertices), self.vertices).argmin(1)]
        half = (q @ self.turn)[:, None] * lid / 2
        quat = torch.cat([half.cos()[..., None], half.sin()[..., None] * self.axis], -1)
        point = self.point.expand(len(q), len(points), 3)
        push = (q @ self.push)[:, None, None] * self.axis
        return dual_quaternion.from_motion(quat, point - dual_quaternion.rotate(quat, point) + push)


@pytest.fixture(scope="module")
def laptop():
    return seen(LAPTOP)


def seen(mesh):
    return trimesh.Trimesh(
        Frame.around(mesh.vertices).normalized(mesh.vertices), mesh.faces, process=False
    )


def spread(mesh, count, seed):
    return torch.tensor(surface_points(mesh, count, seed=seed)[0])


def lid_points(mesh, count, seed=0):
    lid = trimesh.Trimesh(mesh.vertices, mesh.faces[len(BASE.faces) :], process=False)
    return spread(lid, count, seed)


def test_a_frame_is_inverted():
    points = transform(TURN, LAPTOP.vertices)
    frame = Frame.around(points, 0.3)
    inside = frame.normalized(points)
    np.testing.assert_allclose([inside.min(0) + inside.max(0)], 0, atol=1e-12)
    assert np.ptp(inside, axis=0).max() == pytest.approx(2)
    np.testing.assert_allclose(frame.world(inside), points, atol=1e-12)
    A, b = frame.affine
    np.testing.assert_allclose(inside @ A.T + b, points, atol=1e-12)
    X = fit_rigid(points, inside * frame.scale)
    np.testing.assert_allclose(X[2, :3], [0, 0, 1], atol=1e-9)  # up stays up


@pytest.mark.parametrize("yaw", [-2.0, -0.6, 0.0, 0.4, 3.0])
def test_the_yaw_of_a_box(yaw):
    corners = transform(rotation_about(np.zeros(3), [0, 0, 1], yaw), BASE.vertices)
    assert np.sin(2 * (box_yaw(corners) - yaw)) == pytest.approx(
        0, abs=1e-8
    )  # equal up to quarter turns
    assert box_yaw(corners[:2]) == pytest.approx(
        box_yaw(corners[:2] + np.array([1, 2, 3]))
    )  # a line has a yaw too


@pytest.mark.parametrize("measure", ["norm", "jacobian"])
def test_reduction_finds_the_directions_that_matter(measure):
    generator = torch.Generator().manual_seed(0)
    true = torch.linalg.qr(torch.randn(60, 3, generator=generator, dtype=torch.float64))[0]
    out = torch.randn(3, 30, generator=generator, dtype=torch.float64)
    latents = torch.randn(40, 60, generator=generator, dtype=torch.float64)
    basis, spread = active_subspace(
        lambda z: (torch.sin(z @ true * torch.tensor([3.0, 1.0, 0.3])) @ out).unflatten(1, (10, 3)),
        latents,
        6,
        measure,
        generator,
    )
    np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-9)
    assert torch.linalg.matrix_norm(true - basis[:, :3] @ (basis[:, :3].T @ true)) < 1e-9
    assert spread[3] < 1e-9 * spread[0]


def test_a_direction_that_turns_without_growing_needs_the_jacobian():
    latents = torch.randn(50, 5, generator=torch.Generator().manual_seed(1)).double()

    def circle(z):
        return torch.stack([z[:, 0].cos(), z[:, 0].sin(), 0.1 * z[:, 1]], -1)[:, None]

    assert abs(active_subspace(circle, latents, 1, "norm")[0][0, 0]) < 0.1
    assert abs(active_subspace(circle, latents, 1, "jacobian")[0][0, 0]) > 0.99


def test_more_directions_than_samples_are_refused():
    with pytest.raises(
        ValueError, match="expected 1 to 4, for 4 samples of 9 latent dimensions, got 5"
    ):
        active_subspace(lambda z: z[:, None], torch.zeros(4, 9), 5)
    with pytest.raises(
        ValueError, match=r"ReduceOptions.measure: got 'both', expected one of norm, jacobian"
    ):
        ReduceOptions(measure="both")


def test_the_jacobian_is_that_of_finite_differences(laptop):
    space = Laptop(laptop)
    points = spread(laptop, 20, 0)
    q = torch.randn(3, space.dim, generator=torch.Generator().manual_seed(2)).double()
    J = jacobian(space.tracked(points), q)
    step = 1e-6 * torch.eye(space.dim).double()
    for i in range(space.dim):
        difference = space.positions(q + step[i], points) - space.positions(q - step[i], points)
        np.testing.assert_allclose(J[..., i], difference / 2e-6, atol=1e-8)


@pytest.mark.parametrize(("angle", "push"), [(-1.3, 0.0), (0.7, 0.2), (1.5, -0.1)])
def test_a_shape_is_found_without_correspondence(laptop, angle, push):
    space = Laptop(laptop)
    truth = space.at(angle, push)
    target = space.positions(truth[None], spread(laptop, 2000, 1))[0]
    found = fit_shape(space, spread(laptop, 900, 2), target, seed=3)
    assert space.angle(found.q) == pytest.approx(angle, abs=0.01)
    assert float(found.q @ space.push) == pytest.approx(push, abs=0.05)  # edges alone tell of it
    assert found.distance < 0.5 * found.start_distance


def test_a_shape_is_found_among_strays_and_without_newton(laptop):
    space = Laptop(laptop)
    target = space.positions(space.at(0.9)[None], spread(laptop, 900, 1))[0]
    strays = torch.tensor(np.random.default_rng(0).uniform(-1, 1, (60, 3)))
    points = spread(laptop, 900, 2)
    found = fit_shape(space, points, torch.cat([target, strays]), seed=3)
    assert space.angle(found.q) == pytest.approx(0.9, abs=0.04)
    rough = FitOptions(newton_dimension=1, points=200, target_points=400, iterations=8)
    found = fit_shape(space, points, target, rough, seed=3)
    assert space.angle(found.q) == pytest.approx(0.9, abs=0.05)


def test_a_fit_that_starts_true_stays_and_one_seed_gives_one_fit(laptop):
    space = Laptop(laptop)
    points = spread(laptop, 500, 0)
    found, again = (fit_shape(space, points, points, seed=4) for _ in range(2))
    assert abs(space.angle(found.q)) < 0.01
    assert torch.equal(found.q, again.q)
    with pytest.raises(ValueError, match=r"target: expected shape \(P, 3\), got \(500, 2\)"):
        fit_shape(space, points, points[:, :2])


@pytest.mark.parametrize("angle", [-1.4, 0.3, 2.0])
def test_a_dragged_lid_turns_on_an_arc_and_nothing_else_moves(laptop, angle):
    space = Laptop(laptop)
    handles = lid_points(laptop, 4)
    angles = angle * torch.linspace(0, 1, 21).double() ** 2
    paths = space.positions(angles[:, None] * space.at(1.0), handles)
    q = drag(space, handles, paths, spread(laptop, 64, 1))
    assert torch.equal(q[0], space.rest)
    np.testing.assert_allclose(space.angle(q), angles, atol=2e-3)
    np.testing.assert_allclose(q @ space.push, 0, atol=1e-4)


def test_straight_paths_bend_to_what_the_object_can_do(laptop):
    space = Laptop(laptop)
    handles = lid_points(laptop, 2)
    end = space.positions(space.at(1.2)[None], handles)[0]
    paths = handles + torch.linspace(0, 1, 21).double()[:, None, None] * (end - handles)
    q = drag(space, handles, paths, spread(laptop, 64, 1))
    assert space.angle(q[-1]) == pytest.approx(1.2, abs=3e-3)
    assert np.all(np.diff(space.angle(q)) > 0)
    radius = (space.positions(q, handles) - space.point)[..., 1:].norm(
        dim=-1
    )  # about the hinge, which lies along x
    np.testing.assert_allclose(radius, radius[:1].expand(21, -1), atol=1e-9)


def test_what_the_handles_leave_open_is_left_alone(laptop):
    """A handle on the base, near the hinge's axis: pushed along it, the whole slides."""
    space = Laptop(laptop)
    handles = torch.tensor([[0.3, -0.5, -0.8]]).double()
    paths = handles + torch.linspace(0, 0.2, 11).double()[:, None, None] * space.axis
    q = drag(space, handles, paths, spread(laptop, 64, 1))
    assert float(q[-1] @ space.push) == pytest.approx(0.2, abs=0.01)
    assert abs(space.angle(q[-1])) < 1e-3
    assert torch.equal(
        drag(space, handles, handles.expand(5, -1, -1), handles), torch.zeros(5, 8).double()
    )


class Loose(Laptop):
    """Two coordinates: the lid's angle, and three times as strong, that of the whole laptop."""

    def __init__(self, mesh):
        super().__init__(mesh, dim=2)
        self.turn, self.push = torch.tensor([1.0, 3.0]).double(), torch.zeros(2).double()

    def field(self, q, points):
        whole = Laptop.field(self, torch.stack([0 * q[:, 0], q[:, 1]], 1), self.vertices[-1:])
        lid = self.on_lid[torch.cdist(points.to(self.vertices), self.vertices).argmin(1)]
        return torch.where(lid[:, None], super().field(q, points), whole)


def test_a_body_that_could_come_along_stays(laptop):
    space = Loose(laptop)
    handles = lid_points(laptop, 4)
    angles = torch.linspace(0, 1, 11).double()
    paths = space.positions(torch.stack([angles, 0 * angles], 1), handles)
    body = spread(laptop, 64, 1)
    np.testing.assert_allclose(
        drag(space, handles, paths, body), torch.stack([angles, 0 * angles], 1), atol=2e-2
    )
    # Nothing but the prior decides where nothing is held: the stronger coordinate takes most of it.
    loose = drag(space, handles, paths, body, DragOptions(stay=0.0, prior=1e-5, smooth=1e-5))
    assert loose[-1, 1] > 0.25


def test_a_drag_that_stops_and_turns_back(laptop):
    space = Laptop(laptop)
    handles = lid_points(laptop, 4)
    angles = torch.tensor([0, 0, 0.2, 0.5, 0.5, 0.5, 0.9, 0.6, 0.1, 0.1]).double()
    paths = space.positions(angles[:, None] * space.at(1.0), handles)
    q = drag(space, handles, paths, spread(laptop, 64, 1), DragOptions(smooth=0.0))
    np.testing.assert_allclose(space.angle(q), angles, atol=5e-3)


def test_a_chain_is_solved_as_its_dense_matrix():
    rng = np.random.default_rng(0)
    root = torch.tensor(rng.normal(size=(5, 3, 3)))
    matrix, right = root @ root.mT + torch.eye(3), torch.tensor(rng.normal(size=(5, 3)))
    dense = torch.block_diag(*matrix)
    links = 0.7 * (2 * np.eye(5) - np.eye(5, k=1) - np.eye(5, k=-1))
    links[-1, -1] = 0.7  # nothing holds the last from beyond
    dense += torch.tensor(np.kron(links, np.eye(3)))
    np.testing.assert_allclose(
        solve_chain(matrix, right, 0.7).ravel(), torch.linalg.solve(dense, right.ravel())
    )


def test_handles_on_one_body_go_along_its_screw():
    handles = LID.vertices[::9]
    X = rotation_about(AXIS_POINT, AXIS, 1.5)
    paths = handle_paths(handles, transform(X, handles), np.linspace(0, 1, 11))
    np.testing.assert_allclose(paths[0], handles, atol=1e-12)
    np.testing.assert_allclose(paths[-1], transform(X, handles), atol=1e-12)
    np.testing.assert_allclose(
        paths[5], transform(rotation_about(AXIS_POINT, AXIS, 0.75), handles), atol=1e-12
    )


@pytest.mark.parametrize("handles", [LID.vertices[:2], [[0, 0, 0], [1, 0, 0], [2, 0, 0.0]]])
def test_too_few_handles_for_a_turn_go_straight(handles):
    handles = np.asarray(handles, float)
    targets = transform(rotation_about(AXIS_POINT, [0, 1, 0], 1.5), handles)
    paths = handle_paths(handles, targets, np.linspace(0, 1, 11))
    np.testing.assert_allclose(paths[5], (handles + targets) / 2, atol=1e-12)


def test_a_network_leaves_the_object_alone_at_rest(laptop):
    torch.manual_seed(0)
    sizes = dict(tokens=4, channels=6, encoder_width=16, decoder_width=16, point_width=16, heads=2)
    for kind in ("dual_quaternion", "displacement"):
        model = Neurok(
            NeurokConfig(**sizes, frequencies=4, deformation=kind, condition_decoder=True)
        )
        torch.nn.init.normal_(model.decoder.head.weight, std=0.1)
        for dimension in (5, None):
            reduce = ReduceOptions(dimension, samples=8)
            space = LatentSpace.encode(
                laptop, model, SpaceOptions(points=64, reduce=reduce), seed=1
            )
            assert space.dim == (dimension or 24)
            points = spread(laptop, 30, 2).float()
            with torch.no_grad():
                at_rest = space.positions(space.rest[None], points)[0]
                q = torch.randn(2, space.dim, generator=torch.Generator().manual_seed(0))
                away, field = space.positions(q, points), space.field(q, points)
                assert field.shape == (2, 30, 8 if kind == "dual_quaternion" else 3)
                decoded = [
                    model.decode(z, points, space.shape)
                    for z in (space.z_rest[None], space.latent(q))
                ]
            np.testing.assert_allclose(at_rest, points, atol=1e-5)
            # What the field does to a point that the decoder leaves astray at rest is what the
            # decoder does to it.
            np.testing.assert_allclose(
                moved(moved(points, decoded[0]), field), moved(points, decoded[1]), atol=1e-5
            )
            assert (away - points).abs().max() > 1e-2
            again = LatentSpace.encode(
                laptop, model, SpaceOptions(points=64, reduce=reduce), seed=1
            )
            assert torch.equal(again.latent(q), space.latent(q))


# --- the generator

QUICK = NeurokOptions(samples=1, frames=9, driving_points=300)


def scene(X=None, scale=1.0):
    mesh = trimesh.Trimesh(scale * LAPTOP.vertices, LAPTOP.faces, process=False)
    cup = SceneObject("cup", CUP, pose(None, [1, 0, 0.04]))
    return Scene((cup, SceneObject("laptop", mesh, pose() if X is None else X)))


def close(angle=1.0, X=None, scale=1.0):
    X = pose() if X is None else X
    handles = LID.vertices[[3, 30, 60, 90]]
    targets = transform(rotation_about(AXIS_POINT, AXIS, angle), handles)
    return Action(
        "laptop", transform(X, scale * handles), transform(X, scale * targets), duration=1.5
    )


def test_a_motion_closes_the_lid_and_leaves_the_rest():
    world = scene()
    motion = generator(Laptop, QUICK)(world, close())[0]
    np.testing.assert_allclose(motion.times, np.linspace(0, 1.5, 9))
    cup, v = motion.vertices
    np.testing.assert_array_equal(cup, np.broadcast_to(world.objects[0].vertices_world, cup.shape))
    np.testing.assert_array_equal(v[0], world.objects[1].vertices_world)
    lid = len(BASE.vertices)
    np.testing.assert_allclose(
        v[-1, lid:], transform(rotation_about(AXIS_POINT, AXIS, 1.0), LID.vertices), atol=2e-3
    )
    np.testing.assert_allclose(
        v[:, :lid], np.broadcast_to(BASE.vertices, v[:, :lid].shape), atol=2e-3
    )


@pytest.mark.parametrize("scale", [0.2, 7.0])
def test_a_moved_and_scaled_world_moves_the_motion(scale):
    here = generator(Laptop, QUICK)(scene(), close())[0].vertices[1]
    there = generator(Laptop, QUICK)(scene(TURN, scale), close(1.0, TURN, scale))[0].vertices[1]
    np.testing.assert_allclose(there, transform(TURN, scale * here), atol=1e-3 * scale)


def test_samples_differ_come_in_order_and_repeat_by_seed():
    def encode(mesh, seed):
        space = Laptop(mesh)
        if calls:  # the first space cannot turn its lid as far
            space.turn = 1e-9 * space.turn
        calls.append(seed)
        return space

    calls = []
    best, worst = generator(encode, NeurokOptions(samples=2, frames=3, driving_points=300))(
        scene(), close()
    )
    moved = [
        np.linalg.norm(m.vertices[1][-1] - m.vertices[1][0], axis=1).max() for m in (best, worst)
    ]
    assert moved[0] > 0.1 > 0.01 > moved[1]
    assert calls[0] != calls[1]
    once, again, other = (
        generator(Laptop, QUICK)(scene(), close(), seed=s)[0].vertices[1] for s in (5, 5, 6)
    )
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - other).max() > 0


def test_a_pushed_lid_swings():
    handles = LID.vertices[LID.vertices[:, 2] > 0.22]
    swing = np.cross(AXIS, handles - AXIS_POINT)
    dynamics = DynamicsOptions(step=0.01, scheme="leapfrog")
    options = NeurokOptions(samples=1, frames=3, driving_points=300, dynamics=dynamics)

    def angles(**push):
        v = generator(Laptop, options)(scene(), Action("laptop", handles, **push, duration=0.06))[
            0
        ].vertices[1]
        lid = v[:, len(BASE.vertices) :]
        X = fit_rigid(np.broadcast_to(lid[0], lid.shape), lid)
        return np.arctan2(X[:, 2, 1], X[:, 2, 2])

    # As fast as it was pushed, before gravity tells.
    np.testing.assert_allclose(angles(velocities=0.8 * swing), [0, 0.024, 0.048], atol=2e-3)
    weak, strong = (angles(forces=f * swing) for f in (5.0, 10.0))
    assert 0.01 < weak[2] < 0.6 * strong[2]
    assert strong[2] == pytest.approx(4 * strong[1], rel=0.1)  # a steady acceleration


def test_an_instruction_that_it_cannot_take_is_refused():
    generate = generator(Laptop, QUICK)
    takes = "neurok takes an Action: targets of handles, or velocities and forces on them"
    clouds = (BASE.vertices, BASE.vertices)
    for wrong in (Prompt("close the laptop"), Observation("laptop", [0, 1], clouds)):
        with pytest.raises(ValueError, match=f"instruction: got a {type(wrong).__name__}; {takes}"):
            generate(scene(), wrong)
    with pytest.raises(ValueError, match=r"Action.targets: got forces or velocities too"):
        generate(scene(), Action("laptop", [[0, 0, 0]], targets=[[0, 0, 1]], forces=[[0, 0, 1]]))
    with pytest.raises(ValueError, match=r"object: got 'kettle', expected one of cup, laptop"):
        generate(scene(), Action("kettle", [[0, 0, 0]], targets=[[0, 0, 1]]))
    with pytest.raises(ValueError, match=r"NeurokOptions.samples: expected 1 to 100, got 0"):
        NeurokOptions(samples=0)


def test_it_goes_by_the_name_of_neurok():
    assert registry.options_type("neurok") is NeurokOptions
    assert registry.takes("neurok") == "action"
    with pytest.raises(ValueError, match="nowhere"):
        registry.factory("neurok", NeurokOptions(weights="nowhere"))(())
