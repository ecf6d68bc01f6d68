"""The box experiment with a substitute network: a hinge with two redundant coordinates."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from experiments.neurok.box_experiment import (
    box_records,
    dynamics_speed_records,
    held_out_box,
    lid_inertia,
)
from experiments.neurok.box_scene import BoxOptions, BoxTruth
from flowplan.robot.urdf import Joint
from generators.common import dual_quaternion
from generators.common.charts import DPI, PANEL
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.export import write_urdf
from generators.data.objects.primitives import box as block
from generators.data.objects.primitives import shell_box
from generators.neurok.latent_space.space import KinematicSpace
from generators.neurok.network.config import NeurokConfig
from generators.neurok.network.model import Neurok
from generators.neurok.options import DynamicsOptions, ReduceOptions, SpaceOptions
from sim_envs.falling_lid import LidOptions, Push, RigidInertia, falling_lid

ANGLE = 1.0
OPTIONS = BoxOptions(
    particles=200,
    rim=16,
    chamfer_points=1000,
    dynamics=DynamicsOptions(step=3e-3, scheme="leapfrog", restitution=0.945, mass=2.0),
)
W, D, H = 0.4, 0.3, 0.2


@pytest.fixture(scope="module")
def box():
    X = np.eye(4)
    X[:3, 3] = 0, D / 2, H
    hinge = Joint("hinge", "revolute", "base", "lid", X, np.array([-1.0, 0, 0]), 0.0, 1.8)
    links = {
        "base": shell_box((W, D, H), 0.01, (0, 0, H / 2)),
        "lid": block((W, D, 0.01), (0, -D / 2, 0.005)),
    }
    return ArticulatedObject("box", links, (hinge,))


class Hinge(KinematicSpace):
    """Points above the rim in the open pose turn about the hinge, by both coordinates."""

    def __init__(self, mesh, seed):
        self.rest = self.mean = torch.zeros(2).double()
        scale = mesh.extents[1] / np.ptp([-D / 2, D / 2, D / 2 + 0.01 * np.sin(ANGLE)])
        lowest, front = mesh.bounds[0, 2], mesh.bounds[0, 1]
        self.hinge = torch.tensor([0.0, front + D * scale, lowest + H * scale]).double()

    def angle(self, q):
        return q[..., 0] + 0.5 * torch.sin(q[..., 1])

    def field(self, q, points):
        half = -0.5 * self.angle(q)[:, None] * (points[:, 2] > self.hinge[2] + 1e-9)
        turn = torch.stack([half.cos(), half.sin(), 0 * half, 0 * half], -1)
        about = self.hinge.expand(*turn.shape[:2], 3)
        return dual_quaternion.from_motion(turn, about - dual_quaternion.rotate(turn, about))


def told(fall):
    return BoxTruth(
        fall.times, fall.link_poses, float(fall.impacts[0]) if len(fall.impacts) else None
    )


@pytest.fixture(scope="module")
def truths(box, tmp_path_factory):
    """The fall, and pushes from below of half the lid's weight to twice that."""
    urdf = write_urdf(box, tmp_path_factory.mktemp("box"))
    inertia = RigidInertia(*lid_inertia(box, OPTIONS.dynamics.mass))
    soft = LidOptions(step=5e-4, restitution=0.3)

    def fall(angle, push=None, end=0.42):
        times = np.linspace(0, end, 21)
        return told(falling_lid(urdf, angle, times, inertia=inertia, push=push, options=soft))

    def pushed(size):
        return fall(0.0, Push([0, 0, size * 9.81 * inertia.mass], end=OPTIONS.push_seconds), 0.22)

    return fall(ANGLE), {size: pushed(size) for size in (0.5, 2.0)}


def test_the_lids_inertia_is_that_of_its_surface(box):
    mass, center, inertia = lid_inertia(box, 2.0)
    lid = box.links["lid"]
    points, _ = trimesh.sample.sample_surface(lid, 40_000, seed=0)
    assert mass == pytest.approx(2.0 * lid.area / (lid.area + box.links["base"].area))
    np.testing.assert_allclose(center, points.mean(0), atol=1e-3)
    away = points - points.mean(0)
    expected = mass * (np.mean(away**2, 0).sum() * np.eye(3) - away.T @ away / len(away))
    np.testing.assert_allclose(inertia, expected, atol=0.01 * inertia.max())


def test_the_hinge_falls_like_the_truth(box, truths, tmp_path):
    told = box_records(Hinge, box, *truths, OPTIONS, figure=tmp_path / "box.png")
    records = {r["key"].removeprefix("neurok/box/"): r for r in told}
    with Image.open(tmp_path / "box.png") as picture:
        assert (
            picture.width == 4 * PANEL[0] * DPI
        )  # the fall, its energy, what pushes do, and how much
    value = {key: r["value"] for key, r in records.items()}
    assert value["diverged"] == 0
    assert value["still/cd_l1"] > 0.05
    assert value["cd_l1"] < 0.01
    assert value["cd_l2"] < 2e-4 < 1e-2 < value["still/cd_l2"]
    assert value["center"] < 0.005
    assert value["impact_error"] < 0.005
    assert value["energy_drift"] < 0.01
    assert value["interpolation/energy_drift"] > 0.2
    assert value["push_0.5/rise"] < 0.001
    assert value["push_2/rise"] > 0.05
    assert value["push_2/rise_error"] < 0.05 * value["push_2/rise"]
    assert value["pushes_in_order"] == 1
    assert records["cd_l1"]["n"] == 21
    assert records["cd_l1"]["direction"] == "down"


def test_a_still_box_is_distinguished_from_a_falling_one(box, truths):
    floating = BoxOptions(
        particles=60,
        rim=8,
        chamfer_points=300,
        dynamics=DynamicsOptions(scheme="leapfrog", step=1e-2, gravity=(0, 0, 0)),
    )
    value = {
        r["key"].removeprefix("neurok/box/"): r["value"]
        for r in box_records(Hinge, box, truths[0], None, floating)
    }
    assert value["cd_l1"] == pytest.approx(value["still/cd_l1"], rel=1e-3)
    assert "impact_error" not in value
    assert "energy_drift" not in value


def test_a_network_runs_through_the_experiment(box, truths):
    torch.manual_seed(0)
    network = Neurok(
        NeurokConfig(
            tokens=4, channels=4, encoder_width=16, decoder_width=16, point_width=16, frequencies=2, encoder_blocks=1,
            encoder_point_blocks=1, decoder_blocks=1, decoder_point_blocks=1, heads=2,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    truth, closed = truths[0], truths[1][2.0]
    few = [
        BoxTruth(t.times[:3], {k: X[:3] for k, X in t.link_poses.items()}, t.impact)
        for t in (truth, closed)
    ]
    options = replace(
        OPTIONS,
        particles=40,
        rim=8,
        chamfer_points=100,
        dynamics=DynamicsOptions(step=2e-2, scheme="leapfrog", latent_inertia=1e-2),
        space=SpaceOptions(points=64, refinements=1, reduce=ReduceOptions(dimension=3)),
    )
    records = box_records(network, box, few[0], {2.0: few[1]}, options)
    keys = {r["key"].removeprefix("neurok/box/") for r in records}
    assert {
        "cd_l1",
        "cd_l2",
        "still/cd_l1",
        "center",
        "energy_drift",
        "diverged",
        "push_2/rise",
    } <= keys
    assert all(np.isfinite(r["value"]) for r in records)


def test_the_box_of_the_experiment_is_plain():
    box = held_out_box()
    assert box.links["lid"].body_count == 1
    assert box.upper[0] > 1.2
    assert 0.2 < box.posed(box.lower).extents.max() < 0.5


def test_the_speed_of_the_dynamics_is_measured(box, truths):
    (record,) = dynamics_speed_records(Hinge, box, truths[0], OPTIONS, duration=0.01)
    assert record["key"] == "neurok/speed/dynamics_s"
    assert record["value"] > 0
    assert record["n"] == 4


def test_objects_other_than_an_open_box_are_refused(box, truths):
    truth = truths[0]
    with pytest.raises(
        ValueError, match="BoxTruth.link_poses: expected every link of the box, lid missing"
    ):
        box_records(
            Hinge, box, BoxTruth(truth.times, {"base": truth.link_poses["base"]}), None, OPTIONS
        )
    with pytest.raises(
        ValueError, match="truth: at its start no point of the rim is clear of the lid"
    ):
        box_records(Hinge, box, truths[1][0.5], None, OPTIONS)
    with pytest.raises(
        ValueError, match="box: expected two links and a hinge, got base with joints none"
    ):
        lid_inertia(ArticulatedObject("block", {"base": block((1, 1, 1))}, ()), 1.0)
    with pytest.raises(
        ValueError, match="BoxOptions.particles: expected more than the 48 on the rim, got 40"
    ):
        BoxOptions(particles=40)
