"""Records on disk: exact round trips, and no wrong record from a damaged file."""

import dataclasses
import io
import os
import re
import sys
import tempfile
import typing
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flowplan.attachment import Attachment, Moments
from flowplan.attachment.screw import Screw
from flowplan.geometry import exp_se3
from flowplan.grasp import ContactCandidates
from flowplan.io import npz
from flowplan.io.mesh_colors import vertex_colors
from flowplan.motion import ObjectFlow, SceneMotion
from flowplan.planner import STAGES, Attempt, NoPlan, Plan
from flowplan.rollout import OUTCOMES, Rollout
from flowplan.scene import Scene, SceneObject
from flowplan.trajectory import Trajectory
from flowplan.validation.validator import Certificate

PLACE = Path("r.npz")
"""The file that all tests write to; a fixture puts it into a folder of its own."""
WORDS = st.text(st.characters(exclude_characters="\0"), max_size=12)
SIZES = st.integers(1, 5)
FLOATS = st.floats(-1e6, 1e6) | st.sampled_from([-0.0, 5e-324, 1.7e308])


@st.composite
def arrays(draw, *shape, low=-1.0, high=1.0):
    values = np.random.default_rng(draw(st.integers(0, 999))).uniform(low, high, shape)
    if values.size and low < 0:
        values.flat[draw(st.integers(0, values.size - 1))] = draw(FLOATS)
    return values


@st.composite
def clocks(draw, count):
    steps = draw(st.lists(st.floats(1e-3, 10), min_size=count - 1, max_size=count - 1))
    return np.concatenate([[0.0], np.cumsum(steps)])


def poses(count, seed):
    return exp_se3(np.random.default_rng(seed).uniform(-2, 2, (count, 6)))


@st.composite
def meshes(draw):
    V, F = draw(st.integers(3, 6)), draw(SIZES)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    colors = rng.integers(0, 256, (V, 4), dtype=np.uint8) if draw(st.booleans()) else None
    return trimesh.Trimesh(
        rng.normal(size=(V, 3)), rng.integers(0, V, (F, 3)), vertex_colors=colors, process=False
    )


@st.composite
def scenes(draw):
    names = draw(st.lists(WORDS, unique=True, max_size=4))
    objects = tuple(SceneObject(n, draw(meshes()), poses(1, draw(SIZES))[0]) for n in names)
    split = draw(st.integers(0, len(objects)))
    return Scene(objects[:split], draw(st.none() | st.floats(-10, 10)), objects[split:])


@st.composite
def motions(draw):
    T = draw(st.integers(2, 5))
    counts = draw(st.lists(SIZES, min_size=1, max_size=12))
    return SceneMotion(draw(clocks(T)), tuple(draw(arrays(T, n, 3)) for n in counts))


@st.composite
def flows(draw):
    T, N = draw(st.integers(2, 5)), draw(SIZES)
    return ObjectFlow(
        draw(clocks(T)), draw(arrays(T, N, 3)), draw(arrays(T, N, low=0)), np.arange(N) % 2
    )


@st.composite
def grasps(draw):
    G = draw(st.integers(0, 5))
    kind = tuple(draw(st.sampled_from(["grasp", "push", "pinch"])) for _ in range(G))
    return ContactCandidates(
        poses(G, 3), draw(arrays(G, low=0)), -np.sort(-draw(arrays(G))), kind, np.arange(G)
    )


@st.composite
def attachments(draw):
    T = draw(st.integers(2, 4))
    moments = Moments(*(draw(arrays(T, *s)) for s in ((), (), (3,), (3,), (3, 3), (3, 3), ())))
    screw = draw(
        st.none()
        | st.builds(
            Screw,
            st.sampled_from(["slide", "hinge", "helix"]),
            arrays(3),
            arrays(3),
            FLOATS,
            arrays(T),
            st.just(poses(T, 1)),
            FLOATS,
            st.booleans(),
            arrays(2, 3),
            arrays(5, 5),
            arrays(T),
        )
    )
    rest = (draw(arrays(T, 3, 3)), draw(arrays(T)), draw(arrays(T)), draw(arrays(draw(SIZES))))
    return Attachment(draw(clocks(T)), poses(T, 2), moments, *rest, screw)


@st.composite
def trajectories(draw):
    S, J = draw(st.integers(2, 5)), draw(SIZES)
    names = draw(st.lists(WORDS, min_size=J, max_size=J))
    phase = np.sort(draw(st.lists(st.integers(0, 4), min_size=S, max_size=S)))
    qs, rows = (draw(arrays(S, J)) for _ in range(3)), [draw(arrays(S)) for _ in range(4)]
    return Trajectory(tuple(names), draw(clocks(S)), *qs, rows[0], phase, *rows[1:])


@st.composite
def rollouts(draw):
    S, J, P = draw(st.integers(2, 5)), draw(SIZES), draw(SIZES)
    names = tuple(draw(st.lists(WORDS, min_size=J, max_size=J)))
    measures = draw(st.dictionaries(WORDS, FLOATS, max_size=3))
    return Rollout(
        draw(clocks(S)),
        names,
        draw(arrays(S, J)),
        draw(arrays(S, P, 3)),
        draw(st.sampled_from(OUTCOMES)),
        measures,
    )


def of_fields(record, **known):
    """A strategy for a record of numbers and words, from its annotations."""
    simple = {str: WORDS, int: st.integers(-5, 5), float: FLOATS, bool: st.booleans()}
    simple |= {
        tuple[str, ...]: st.lists(WORDS, max_size=3).map(tuple),
        float | None: st.none() | FLOATS,
    }
    hints = typing.get_type_hints(record)
    return st.builds(
        record,
        **(
            {
                f.name: simple[hints[f.name]]
                for f in dataclasses.fields(record)
                if f.name not in known
            }
            | known
        ),
    )


ATTEMPTS = st.lists(of_fields(Attempt, stage=st.sampled_from(STAGES)), max_size=4).map(tuple)
RECORDS = {
    Scene: scenes(),
    SceneMotion: motions(),
    ObjectFlow: flows(),
    ContactCandidates: grasps(),
    Attachment: attachments(),
    Trajectory: trajectories(),
    Rollout: rollouts(),
    Plan: st.builds(
        Plan, grasps(), grasps(), attachments(), trajectories(), of_fields(Certificate), ATTEMPTS
    ),
    NoPlan: st.builds(NoPlan, ATTEMPTS),
}
KINDS = sorted(RECORDS, key=lambda k: k.__name__)
EACH = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)


def same(a, b):
    """True if two values are equal bit by bit."""
    if type(a) is not type(b):
        return False
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, trimesh.Trimesh):
        parts = (
            (a.vertices, b.vertices),
            (a.faces, b.faces),
            (vertex_colors(a), vertex_colors(b)),
        )
        return all(np.array_equal(x, y) for x, y in parts)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b


@pytest.fixture(scope="module", autouse=True)
def place():
    """A new folder, without waiting for the disk."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)
        patch.setattr(sys.modules[__name__], "PLACE", Path(folder) / "r.npz")
        yield


def stored(record):
    """The bytes that `save` writes."""
    return npz.save(PLACE, record).read_bytes()


def read(data, kind):
    """The record that `load` reads from bytes, or the one-line error."""
    PLACE.write_bytes(data)
    try:
        return npz.load(PLACE, kind)
    except ValueError as caught:
        line = str(caught)
    assert line.startswith(f"{PLACE}: ")
    assert "\n" not in line
    return line


def members(data):
    with np.load(io.BytesIO(data)) as file:
        return dict(file)


def packed(values):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for key, value in values.items():
            body = io.BytesIO()
            np.lib.format.write_array(body, np.asanyarray(value), allow_pickle=True)
            archive.writestr(f"{key}.npy", body.getvalue())
    return out.getvalue()


def test_every_file_type_is_tested():
    assert {k.__name__ for k in KINDS} == set(npz.VERSIONS)


@EACH
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_records_come_back_as_they_were(kind, data):
    record = data.draw(RECORDS[kind])
    written = stored(record)
    assert same(read(written, kind), record)
    assert written == stored(record)  # equal records are equal files


def damaged_bytes_give_one_line_or_the_same_record(record, data):
    written = bytearray(stored(record))
    if data.draw(st.booleans()):
        del written[data.draw(st.integers(0, len(written) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            written[data.draw(st.integers(0, len(written) - 1))] ^= data.draw(st.integers(1, 255))
    out = read(bytes(written), type(record))
    assert isinstance(out, str) or same(out, record)


TYPES = {
    "drop": lambda v: None,
    "narrower": lambda v: np.zeros(v.shape, np.float32) if v.dtype.kind == "f" else v.astype("U"),
    "big-endian": lambda v: (
        v.astype(v.dtype.newbyteorder(">")) if v.dtype.itemsize > 1 else v.astype(float)
    ),
    "complex": lambda v: np.zeros(v.shape, complex),
    "object": lambda v: np.full(v.shape, {"a": print}, object),
    "record": lambda v: np.zeros(v.shape, [("a", float)]),
    "nan": lambda v: np.full(v.shape, np.nan),
}
CHANGES = TYPES | {
    "longer": lambda v: np.concatenate([np.atleast_1d(v)] * 2),
    "deeper": lambda v: v[None],
    "scalar": lambda v: np.asarray(v.flat[0]) if v.size else np.asarray(1.5),
    "empty": lambda v: v.reshape(-1)[:0],
    "huge": lambda v: (
        np.full(v.shape, 1e300) if v.dtype.kind != "U" else np.full(v.shape, "x" * 4000)
    ),
    "negative": lambda v: -1 - v if v.dtype.kind in "fi" else ~v if v.dtype.kind == "b" else v,
}


def another_value_is_refused_or_taken_as_it_is(record, data):
    values = members(stored(record))
    key = data.draw(st.sampled_from(sorted(values)))
    change = data.draw(st.sampled_from(sorted(CHANGES)))
    changed = {
        k: v for k, v in (values | {key: CHANGES[change](values[key])}).items() if v is not None
    }
    out = read(packed(changed), type(record))
    if isinstance(out, str):
        return
    # A different valid number, or the same in another form: never another type.
    old = values[key]
    assert old.size == 0 or change not in TYPES or old.dtype.kind == "U"
    assert same(read(stored(out), type(record)), out)


@EACH
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_damaged_files_give_no_wrong_record(kind, data):
    record = data.draw(RECORDS[kind])
    damaged_bytes_give_one_line_or_the_same_record(record, data)
    another_value_is_refused_or_taken_as_it_is(record, data)


@pytest.mark.slow
@EACH
@settings(max_examples=2000, deadline=None)
@given(data=st.data())
def test_thousands_of_damaged_files_give_no_wrong_record(kind, data):
    record = data.draw(RECORDS[kind])
    damaged_bytes_give_one_line_or_the_same_record(record, data)
    another_value_is_refused_or_taken_as_it_is(record, data)


VERSION_1 = Path(__file__).parent / "data" / "records_v1"
"""One file of each record, written when all of them had version 1."""


@EACH
def test_files_of_version_1_are_read(kind):
    path = VERSION_1 / f"{npz.RENAMED.get(kind.__name__, kind.__name__)}.npz"
    record = npz.load(path, kind)
    again = read(stored(record), kind)
    assert same(again, record)
    old, new = members(path.read_bytes()), members(stored(record))
    for key in old.keys() - {"_schema", "_version"}:
        assert old[key].dtype == new[key].dtype
        np.testing.assert_array_equal(old[key], new[key])


def test_contacts_of_version_1_keep_their_kinds():
    assert npz.load(VERSION_1 / "Grasps.npz", ContactCandidates).kind == ("grasp", "push", "grasp")
    plan = npz.load(VERSION_1 / "Plan.npz", Plan)
    assert plan.contact.kind == ("grasp",)
    assert plan.candidates.kind == ("grasp", "push", "grasp")
    assert [attempt.kind for attempt in plan.attempts] == ["push", "grasp"]


def test_a_former_name_is_read_at_version_1_only():
    values = members((VERSION_1 / "Grasps.npz").read_bytes()) | {"_version": np.array(2)}
    assert "ContactCandidates: expected a file of flowplan.ContactCandidates" in read(
        packed(values), ContactCandidates
    )


def test_fields_added_later_get_their_default_in_earlier_files_only(monkeypatch):
    values = members(stored(Scene((SceneObject("box", trimesh.creation.box()),))))
    earlier = {k: v for k, v in values.items() if k != "objects/0/X_world_object"}
    assert "Scene.objects.0.X_world_object: is missing" in read(packed(earlier), Scene)
    latest = npz.VERSIONS["Scene"] + 1
    monkeypatch.setitem(npz.VERSIONS, "Scene", latest)
    monkeypatch.setitem(npz.ADDED, "SceneObject", {"X_world_object": latest})
    scene = read(packed(earlier), Scene)
    np.testing.assert_array_equal(scene.objects[0].X_world_object, np.eye(4))
    later = earlier | {"_version": np.array(latest)}
    assert "Scene.objects.0.X_world_object: is missing" in read(packed(later), Scene)
    assert "the file has version 0, expected 1 to" in read(
        packed(values | {"_version": np.array(0)}), Scene
    )


def flow():
    return ObjectFlow([0, 1.0], np.zeros((2, 3, 3)), np.ones((2, 3)), np.zeros(3, int))


def test_what_is_wrong_is_named():
    good = members(stored(flow()))
    nan = np.zeros((2, 3, 3))
    nan[1, 0, 0] = nan[1, 2, 1] = np.nan
    cases = {
        r"ObjectFlow.points: is missing": {"points": None},
        r"ObjectFlow.points: expected shape \(2, N, 3\), got \(2, 4, 2\)": {
            "points": np.zeros((2, 4, 2))
        },
        r"ObjectFlow.points: 2 of 18 values are NaN \(first at \(1, 0, 0\)\)": {"points": nan},
        r"ObjectFlow.confidence: expected float64 values, got float32": {
            "confidence": np.ones((2, 3), np.float32)
        },
        r"ObjectFlow.confidence: expected values in \[0, 1\]": {"confidence": np.full((2, 3), 2.0)},
        r"ObjectFlow.object_id: is not a plain array": {
            "object_id": np.array([print, 1, None], object)
        },
        r"ObjectFlow: the file has version 2, this flowplan reads up to 1; upgrade": {
            "_version": np.array(2)
        },
        r"ObjectFlow: expected a file of flowplan.ObjectFlow, this one holds 'flowplan.Sauce'": {
            "_schema": np.array("flowplan.Sauce")
        },
        r"ObjectFlow: the file has no _schema": {"_schema": None},
        r"ObjectFlow.spice: is not a field of ObjectFlow": {"spice": np.zeros(3)},
    }
    for match, change in cases.items():
        values = {k: v for k, v in (good | change).items() if v is not None}
        out = read(packed(values), ObjectFlow)
        assert isinstance(out, str)
        assert re.search(match, out), out
    rollout = members(
        stored(
            Rollout(
                [0, 1.0], (), np.zeros((2, 0)), np.zeros((2, 1, 3)), "success", {"a": 1.0, "b": 2.0}
            )
        )
    )
    for keys in (["a", "a"], ["a"]):
        assert "Rollout.measures: has " in read(
            packed(rollout | {"measures/keys": np.array(keys)}), Rollout
        )
    motion = stored(SceneMotion([0, 1.0], (np.zeros((2, 4, 3)),)))
    assert "this one holds 'flowplan.SceneMotion'" in read(motion, ObjectFlow)
    assert "is damaged or not an .npz file" in read(b"not a zip", ObjectFlow)


@pytest.mark.parametrize(
    "key",
    [
        "slip",
        "X_world_tool",
        "moments/S",
        "moments/weight",
        "held",
        "screw/normals",
        "screw/amount",
    ],
)
def test_shapes_of_records_without_checks_of_their_own_are_checked(key):
    T = 3
    moments = Moments(*(np.zeros((T, *s)) for s in ((), (), (3,), (3,), (3, 3), (3, 3), ())))
    axis, X = np.array([0, 0, 1.0]), poses(T, 1)
    across, spread = np.zeros((2, 3)), np.zeros((5, 5))
    screw = Screw("hinge", axis, axis, 0.0, np.zeros(T), X, 0.0, True, across, spread, np.zeros(T))
    zeros = np.zeros(T)
    values = members(
        stored(
            Attachment(np.arange(3.0), X, moments, np.zeros((T, 3, 3)), zeros, zeros, zeros, screw)
        )
    )
    name = key.split("/")[-1]
    assert name in read(packed(values | {key: values[key][:, None]}), Attachment)
    if key != "held":
        assert name in read(packed(values | {key: values[key][:-1]}), Attachment)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in ("_schema", "_version", "times"):
            archive.writestr(f"{key}.npy", bytes(2**20))
    monkeypatch.setattr(npz, "MAX_BYTES", 2**21)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked"))
    assert len(out.getvalue()) < 5000
    assert "unpacks to" in read(out.getvalue(), ObjectFlow)
    with pytest.raises(ValueError, match=r"holds .* GiB, the most is"):
        stored(SceneMotion([0, 1.0], (np.zeros((2, 50_000, 3)),)))


def test_a_shape_that_the_bytes_do_not_fill_allocates_nothing():
    body = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        body, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)}
    )
    values = members(stored(flow()))
    del values["points"]
    out = io.BytesIO(packed(values))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("points.npy", body.getvalue() + bytes(64))
    assert "ObjectFlow.points: is not a plain array" in read(out.getvalue(), ObjectFlow)


def test_saving_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "flow.npz"
    npz.save(path, flow())
    before = path.read_bytes()

    def full(*_args, **_options):
        raise OSError("no space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="no space"):
        npz.save(path, flow())
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["flow.npz"]


def test_what_cannot_be_written_is_refused(tmp_path):
    rollout = Rollout(
        [0, 1.0], ("a",), np.zeros((2, 1)), np.zeros((2, 1, 3)), "success", {"angle": np.nan}
    )
    with pytest.raises(ValueError, match=r"Rollout\.measures\.values: 1 of 1 values are NaN"):
        npz.save(tmp_path / "r.npz", rollout)
    named = dataclasses.replace(rollout, joint_names=("a\0",), measures={})
    with pytest.raises(ValueError, match=r"Rollout\.joint_names: holds a zero character"):
        npz.save(tmp_path / "r.npz", named)
    with pytest.raises(ValueError, match=r"expected a name that ends in \.npz"):
        npz.save(tmp_path / "flow.pkl", flow())
    with pytest.raises(ValueError, match="record: got a dict, expected one of"):
        npz.save(tmp_path / "flow.npz", {})
    with pytest.raises(ValueError, match="kind: got dict, expected one of"):
        npz.load(tmp_path / "flow.npz", dict)
    with pytest.raises(ValueError, match="its folder does not exist"):
        npz.save(tmp_path / "nowhere" / "flow.npz", flow())
    with pytest.raises(ValueError, match="no such file"):
        npz.load(tmp_path / "flow.npz", ObjectFlow)
    assert not os.listdir(tmp_path)


def test_files_are_plain_npz_for_everyone_else(tmp_path):
    path = npz.save(tmp_path / "flow.npz", flow())
    with np.load(path, allow_pickle=False) as file:
        assert set(file) == {"_schema", "_version", "times", "points", "confidence", "object_id"}
        np.testing.assert_array_equal(file["confidence"], np.ones((2, 3)))


def test_colors_of_faces_and_textures_are_kept_at_the_vertices():
    box = trimesh.creation.box()
    assert vertex_colors(box) is None
    box.visual = trimesh.visual.TextureVisuals(
        uv=np.zeros((8, 2)), image=Image.new("RGB", (4, 4), (3, 200, 7))
    )
    np.testing.assert_array_equal(vertex_colors(box), np.broadcast_to([3, 200, 7, 255], (8, 4)))
    scene = read(stored(Scene((SceneObject("box", box),))), Scene)
    np.testing.assert_array_equal(scene.objects[0].mesh.visual.vertex_colors[0], [3, 200, 7, 255])
    box.visual = trimesh.visual.TextureVisuals()
    assert vertex_colors(box) is None
