"""Moves said without handles and targets: by a vector, about a line, on top of something."""

import json

import numpy as np
import pytest
import trimesh

from flowplan.cli import dispatch
from flowplan.geometry import exp_so3, pose, rotation_about, transform
from flowplan.io import npz
from flowplan.io.instruction import parse_instruction
from flowplan.motion import SceneMotion
from flowplan.moves import move_by, place_on, turn
from flowplan.scene import Scene, SceneObject
from generators.kinematic import kinematic
from tests.input_files import refused

CAN = SceneObject(
    "can", trimesh.creation.cylinder(0.03, 0.1, sections=24), pose(translation=[0.4, -0.1, 0.05])
)
SHELF = SceneObject(
    "shelf", trimesh.creation.box([0.2, 0.3, 0.04]), pose(translation=[0.6, 0.2, 0.3])
)


def scene(*obstacles, support=0.0):
    return Scene((CAN,), support, obstacles)


def ends(told, within):
    """Vertices of the can at the end."""
    law, action = told
    (motion,) = kinematic([law])(within, action)
    return motion.vertices[0][-1]


def test_a_move_by_a_vector_ends_there_and_rises_in_between():
    law, action = move_by(scene(), "can", [0.1, 0.2, 0.05], lift=0.1)
    (motion,) = kinematic([law])(scene(), action)
    way = motion.vertices[0] - CAN.vertices_world
    assert np.allclose(way[-1], [0.1, 0.2, 0.05], atol=1e-9)
    assert way[20, :, 2].min() == pytest.approx(0.125, abs=1e-6)


@pytest.mark.parametrize("degrees", [90.0, -30.0, 179.0, 1.0])
def test_a_turn_ends_at_its_angle_and_keeps_to_its_circle(degrees):
    axis, through = [0.2, 0.3, 1.0], [0.3, 0.0, 0.1]
    law, action = turn(scene(), "can", axis, through, np.deg2rad(degrees))
    (motion,) = kinematic([law])(scene(), action)
    X = rotation_about(np.array(through), law.axis, np.deg2rad([degrees]))[0]
    assert np.allclose(motion.vertices[0][-1], transform(X, CAN.vertices_world), atol=1e-9)
    along = (motion.vertices[0] - through) @ law.axis
    assert np.ptp(along, axis=0).max() < 1e-12


def test_a_turn_about_its_own_axis_is_found_from_points_beside_the_line():
    through = CAN.vertices_world.mean(axis=0)
    moved = ends(turn(scene(), "can", [0, 0, 1], through, 0.5), scene())
    X = rotation_about(through, np.array([0, 0, 1.0]), np.array([0.5]))[0]
    assert np.allclose(moved, transform(X, CAN.vertices_world), atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, np.pi, -4.0, np.nan])
def test_a_turn_of_half_a_turn_or_more_is_refused(angle):
    refused(lambda: turn(scene(), "can", [0, 0, 1], [0, 0, 0], angle), "angle", "179")


def test_a_line_through_all_of_an_object_is_refused():
    rod = Scene(
        (SceneObject("rod", trimesh.Trimesh([[0, 0, 0], [0, 0, 1], [0, 0, 2]], [[0, 1, 2]])),)
    )
    refused(lambda: turn(rod, "rod", [0, 0, 1], [0, 0, 0], 1.0), "axis", "rod")


def test_an_object_placed_on_a_shelf_stands_a_millimeter_above_its_middle():
    moved = ends(place_on(scene(SHELF), "can", "shelf"), scene(SHELF))
    assert moved[:, 2].min() == pytest.approx(0.321, abs=1e-5)
    assert np.allclose((moved.min(0) + moved.max(0))[:2] / 2, [0.6, 0.2])


def test_the_height_is_that_of_the_surface_below_and_not_of_the_box():
    """A step: low where the can is placed, high beside it."""
    low = trimesh.creation.box([0.2, 0.2, 0.02])
    high = trimesh.creation.box([0.1, 0.2, 0.3])
    high.apply_translation([0.2, 0, 0.14])
    step = SceneObject(
        "step", trimesh.util.concatenate([low, high]), pose(translation=[0.5, 0, 0.01])
    )
    moved = ends(place_on(scene(step), "can", "step", at=(0.5, 0.0)), scene(step))
    assert moved[:, 2].min() == pytest.approx(0.021, abs=1e-5)


def test_a_narrow_thing_below_a_wide_one_is_met():
    """A pin between the points of the plate above it is met by rays from its own tip."""
    pin = trimesh.creation.cone(0.002, 0.1)
    thing = SceneObject("pin", pin, pose(translation=[0.7013, 0.0027, 0.0]))
    within = Scene((SceneObject("plate", trimesh.creation.box([0.2, 0.2, 0.01])),), -1.0, (thing,))
    law, action = place_on(within, "plate", "pin", at=(0.7, 0.0))
    (motion,) = kinematic([law])(within, action)
    assert motion.vertices[0][-1][:, 2].min() == pytest.approx(0.101, abs=1e-5)


def test_an_object_placed_on_the_support_keeps_its_place_or_goes_to_another():
    within = scene(support=0.02)
    moved = ends(place_on(within, "can", "support"), within)
    assert moved[:, 2].min() == pytest.approx(0.021)
    assert np.allclose(moved[:, :2], CAN.vertices_world[:, :2])
    moved = ends(place_on(within, "can", "support", at=(0.5, 0.3)), within)
    assert np.allclose((moved.min(0) + moved.max(0))[:2] / 2, [0.5, 0.3])


def test_places_that_are_not_there_are_refused():
    refused(lambda: place_on(scene(SHELF), "can", "table"), "on", "shelf", "support")
    refused(lambda: place_on(scene(support=None), "can", "support"), "on")
    refused(lambda: place_on(scene(), "can", "can"), "on", "support")
    refused(lambda: place_on(scene(SHELF), "can", "shelf", at=(0.0, 0.0)), "at", "shelf")


@pytest.mark.parametrize(
    ("move", "end"),
    [
        ({"kind": "by", "vector": [0, 0.2, 0], "lift": 0.1}, [0.4, 0.1, 0.05]),
        (
            {"kind": "turn", "axis": [0, 0, 2], "through": [0, 0, 0], "degrees": 90},
            [0.1, 0.4, 0.05],
        ),
        ({"kind": "on", "name": "shelf"}, [0.6, 0.2, 0.371]),
        ({"kind": "on", "name": "support", "at": [0.5, 0.3], "lift": 0}, [0.5, 0.3, 0.051]),
    ],
)
def test_a_move_in_a_document_is_the_same(move, end):
    document = {"object": "can", "move": move, "duration": 3}
    laws, action = parse_instruction(document, scene(SHELF), "m.json")
    (motion,) = kinematic(laws)(scene(SHELF), action)
    last = motion.vertices[0][-1]
    assert motion.times[-1] == 3
    assert np.allclose((last.min(0) + last.max(0)) / 2, end, atol=1e-6)


@pytest.mark.parametrize(
    ("move", "words"),
    [
        ([0, 0.2, 0], ["move"]),
        ({"kind": "fly"}, ["move.kind", "by, turn, on"]),
        ({"kind": "by"}, ["vector"]),
        ({"kind": "by", "vector": [0, 1]}, ["by", "(3,)"]),
        ({"kind": "by", "vector": [0, 0, 1], "degrees": 3}, ["move.degrees"]),
        ({"kind": "turn", "axis": [0, 0, 1], "through": [0, 0, 0], "degrees": "x"}, ["degrees"]),
        ({"kind": "on", "name": "moon"}, ["moon"]),
        ({"kind": "by", "vector": [0, 0, 1], "lift": [1]}, ["move.lift"]),
    ],
)
def test_a_wrong_move_is_refused_with_its_entry(move, words):
    document = {"object": "can", "move": move}
    refused(lambda: parse_instruction(document, scene(), "m.json"), "m.json", *words)


def test_targets_that_no_rigid_motion_reaches_are_refused_with_the_distance():
    handles = CAN.vertices_world[[0, 10, 20, 30]]
    mixed = handles + np.array([0, 0.2, 0])
    mixed[2] = [400.0, 100, 50]  # one of them in millimeters
    document = {"object": "can", "law": {"kind": "rigid"}, "handles": handles, "targets": mixed}
    laws, action = parse_instruction(document, scene(), "m.json")
    refused(lambda: kinematic(laws)(scene(), action), "targets", " m ")
    turned = transform(pose(exp_so3([0, 0, 1.0])), handles)
    document["targets"] = turned + 0.005  # rough ones are taken
    laws, action = parse_instruction(document, scene(), "m.json")
    kinematic(laws)(scene(), action)


def test_the_command_line_takes_a_move(tmp_path, capsys):
    npz.save(tmp_path / "scene.npz", scene(SHELF))
    words = ["generate", "kinematic", str(tmp_path / "scene.npz")]
    out = ["--out", str(tmp_path / "motion.npz")]

    def center(*given):
        assert dispatch.call([*words, *given, *out]) == 0
        last = npz.load(tmp_path / "motion.npz", SceneMotion).vertices[0][-1]
        return (last.min(0) + last.max(0)) / 2

    assert np.allclose(center("--by", "0", "0.2", "0"), [0.4, 0.1, 0.05], atol=1e-6)
    assert np.allclose(center("--on", "shelf", "--object", "can"), [0.6, 0.2, 0.371], atol=1e-6)
    assert np.allclose(center("--turn", "45"), [0.4, -0.1, 0.05], atol=1e-3)
    turned = center("--turn", "90", "--through", "0", "0", "0", "--axis", "0", "0", "1")
    assert np.allclose(turned, [0.1, 0.4, 0.05], atol=1e-6)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], ["move", "JSON"]),
        (["--by", "0", "0", "1", "--turn", "3"], ["--by and --turn"]),
        (["--lift", "0.1"], ["none"]),
        (["--turn", "30", "--lift", "0.1"], ["--lift", "--by or --on"]),
        (["--by", "0", "0", "1", "--object", "mug"], ["--object", "mug", "can"]),
        (["m.json", "--by", "0", "0", "1"], ["both"]),
    ],
)
def test_a_wrong_move_on_the_command_line_is_told_in_a_line(tmp_path, given, words):
    npz.save(tmp_path / "scene.npz", scene())
    (tmp_path / "m.json").write_text(json.dumps({"object": "can"}))
    given = [str(tmp_path / w) if w == "m.json" else w for w in given]
    start = ["generate", "kinematic", str(tmp_path / "scene.npz")]
    refused(lambda: dispatch.call([*start, *given]), *words)
