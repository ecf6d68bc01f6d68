"""The inverse-kinematics protocol with synthetic methods and an untrained network."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from experiments.neurok.evaluate import (
    IkOptions,
    NeurokIkOptions,
    Result,
    evaluate,
    family_cases,
    ik_records,
    ik_table,
    neurok_method,
    object_cases,
    posed_pair,
    run_case,
)
from experiments.neurok.metrics import MetricOptions
from flowplan.geometry import pose
from flowplan.robot.urdf import Joint
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.families import HELD_OUT, HELD_OUT_SEED
from generators.neurok.kinematics.registration import static
from generators.neurok.kinematics.shape_fit import FitOptions
from generators.neurok.network.config import NeurokConfig
from generators.neurok.network.model import Neurok
from generators.neurok.options import ReduceOptions, SpaceOptions

QUICK = IkOptions(target_points=500, metrics=MetricOptions(points=1000, cells=40))


def drawer():
    """A block that slides out of another; everything in meters, off the origin."""
    body = trimesh.creation.box([0.4, 0.4, 0.4], transform=pose(translation=[1, 2, 0.2]))
    front = trimesh.creation.box([0.1, 0.3, 0.3], transform=pose(translation=[1.25, 2, 0.2]))
    joint = Joint("slide", "prismatic", "body", "front", pose(), np.array([1.0, 0, 0]), 0.0, 0.3)
    return ArticulatedObject("drawer", {"body": body, "front": front}, (joint,))


CASE = object_cases("given", {"drawer": drawer()})[0]


def oracle(mesh, target, *, seed):
    """Method that knows the slide, and reads its distance off the target's points."""
    vertices = np.array(mesh.vertices)
    vertices[8:, 0] += target[:, 0].max() - vertices[:, 0].max()
    return vertices


def test_the_first_pose_fills_the_cube_and_the_second_keeps_its_scale():
    mesh, target = posed_pair(CASE)
    np.testing.assert_allclose(mesh.bounds.mean(0), 0, atol=1e-12)
    assert mesh.extents.max() == pytest.approx(2)
    np.testing.assert_allclose(
        target.edges_unique_length, mesh.edges_unique_length
    )  # no piece was stretched
    np.testing.assert_allclose(target.vertices[:8], mesh.vertices[:8], atol=1e-12)  # the body stays
    assert np.abs(target.vertices[8:, 0] - mesh.vertices[8:, 0]).min() > 0.01
    again, _ = posed_pair(CASE)
    np.testing.assert_array_equal(again.vertices, mesh.vertices)
    other, _ = posed_pair(replace(CASE, seed=5))
    assert not np.allclose(other.vertices, mesh.vertices)


def test_a_method_that_knows_is_nearly_perfect_and_static_is_not():
    perfect, still = (
        run_case(CASE, "oracle", oracle, QUICK),
        run_case(CASE, "static", static, QUICK),
    )
    assert perfect.cd_l1 < 0.01
    assert perfect.iou > 0.95
    assert still.cd_l1 > 2 * perfect.cd_l1
    assert still.iou < perfect.iou


def test_methods_see_the_target_as_points_and_never_the_object():
    seen = {}

    def spy(mesh, target, *, seed):
        seen.update(mesh=mesh, target=target, seed=seed)
        return np.array(mesh.vertices)

    run_case(CASE, "spy", spy, QUICK)
    assert seen["target"].shape == (500, 3)
    assert seen["seed"] == CASE.seed
    assert np.abs(seen["mesh"].vertices).max() == pytest.approx(1)


def test_splits():
    trained, never = family_cases("trained", 70), family_cases("never_trained", 9)
    assert all(c.seed >= HELD_OUT_SEED for c in trained + never)
    assert not {c.name.split("/")[0] for c in trained} & set(HELD_OUT)
    assert {c.name.split("/")[0] for c in never} == set(HELD_OUT)
    assert len({c.name for c in trained}) == 70
    assert trained[0].build().name
    with pytest.raises(ValueError, match="split: expected one of trained, never_trained"):
        family_cases("test", 1)
    names = [
        c.name for c in object_cases("metaworld", {"door": drawer(), "drawer": drawer()}, repeats=2)
    ]
    assert names == ["door/0", "drawer/0", "door/1", "drawer/1"]


def test_an_interrupted_evaluation_resumes(tmp_path):
    log, calls = tmp_path / "log.jsonl", []

    def counted(mesh, target, *, seed):
        calls.append(seed)
        return np.array(mesh.vertices)

    cases = object_cases("given", {"drawer": drawer()}, repeats=3)
    told = []
    first = evaluate(
        cases[:2], {"still": counted}, QUICK, log=log, progress=lambda f, w: told.append((f, w))
    )
    assert len(calls) == 2
    assert told[-1][0] == 1.0
    assert "drawer/1 still" in told[-1][1]
    results = evaluate(cases, {"still": counted, "oracle": oracle}, QUICK, log=log)
    assert len(calls) == 3
    assert [(r.name, r.method) for r in results] == [
        (c.name, m) for c in cases for m in ("still", "oracle")
    ]
    assert [r for r in results if r.method == "still"][:2] == first
    assert len(log.read_text().splitlines()) == 6
    log.write_text(log.read_text() + "{broken\n")
    with pytest.raises(ValueError, match="line 7 is not a result"):
        evaluate(cases, {"still": counted}, QUICK, log=log)


def test_records_and_table():
    results = [Result("trained", f"a/{i}", "static", 0.1 * i, 0.2, 0.5, 1.0) for i in range(11)]
    records = {r["key"]: r for r in ik_records(results)}
    mean = records["neurok/ik/trained/static/cd_l1"]
    assert mean == {
        "key": "neurok/ik/trained/static/cd_l1",
        "value": 0.5,
        "unit": "half object lengths",
        "direction": "down",
        "n": 11,
    }
    assert records["neurok/ik/trained/static/cd_l1_low95"]["value"] < 0.4
    assert records["neurok/ik/trained/static/cd_l1_high95"]["value"] > 0.6
    assert records["neurok/ik/trained/static/iou"]["direction"] == "up"
    json.dumps(list(records.values()))
    assert "| trained | static | 0.500 [" in ik_table(results)


def test_an_untrained_network_goes_through_and_its_seed_decides():
    torch.manual_seed(0)
    sizes = NeurokConfig(
        4,
        8,
        32,
        32,
        32,
        heads=2,
        encoder_blocks=1,
        decoder_blocks=1,
        encoder_point_blocks=1,
        decoder_point_blocks=1,
    )
    options = NeurokIkOptions(
        driving_points=200,
        space=SpaceOptions(
            points=64, refinements=1, reduce=ReduceOptions(dimension=3, samples=8, points=32)
        ),
        fit=FitOptions(starts=4, kept=2, iterations=2, points=64),
    )
    method = neurok_method(Neurok(sizes), options)
    result = run_case(CASE, "neurok", method, QUICK)
    assert np.isfinite([result.cd_l1, result.cd_l2, result.iou]).all()
    again = run_case(CASE, "neurok", method, QUICK)
    assert (again.cd_l1, again.iou) == (result.cd_l1, result.iou)


def test_a_method_with_a_wrong_result_is_named():
    with pytest.raises(
        ValueError, match=r"methods\['bad'\]: expected finite vertices \(16, 3\), got \(3, 3\)"
    ):
        run_case(CASE, "bad", lambda mesh, target, *, seed: np.zeros((3, 3)), QUICK)
    with pytest.raises(ValueError, match=r"methods\['bad'\]"):
        run_case(CASE, "bad", lambda mesh, target, *, seed: np.full((16, 3), np.nan), QUICK)
    with pytest.raises(ValueError, match="IkOptions.target_points"):
        IkOptions(target_points=0)
