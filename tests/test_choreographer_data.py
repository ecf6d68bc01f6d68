"""Tables of scenes and the videos drawn from them: nothing is lost, a mirror shows what it may,
chance is seeded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from flowplan.geometry import exp_so3, pose  # noqa: E402
from generators.chord.priors.choreographer import data  # noqa: E402
from generators.chord.priors.choreographer.config import ChoreographerConfig  # noqa: E402
from generators.chord.priors.choreographer.data import (  # noqa: E402
    WAYS,
    SceneTable,
    mirrored,
    sample,
    stored_scenes,
)
from generators.chord.priors.choreographer.render import MovingPoints, random_cameras, render  # noqa: E402
from generators.chord.priors.choreographer.scenes import scenes  # noqa: E402
from generators.chord.priors.choreographer.scenes.prompted import PointScene  # noqa: E402
from generators.chord.priors.choreographer.scenes.sentences import ways  # noqa: E402
from generators.chord.render.cameras import Framing  # noqa: E402

FRAMES, POINTS, SIZE = 4, 400, 16
CONFIG = ChoreographerConfig(frames=FRAMES, size=SIZE)


def embed(sentences):
    """Three numbers of each, that tell the sentences here apart."""
    return torch.tensor(
        [[len(s), s.count("e"), s.count("l")] for s in sentences], dtype=torch.float32
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(data.text_encoder, "embed", embed)


def scene(*texts: str, bodies: int = 2, seed: int = 0) -> PointScene:
    """A crooked cloud of a few bodies, each on a way of its own, far from the world's origin."""
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 0.05, (1, POINTS, 3)) * [1.0, 0.5, 0.3] + [0.5, -0.2, 0.1]
    turns = np.linspace(0, 1, FRAMES)[:, None, None] * rng.normal(0, 0.4, (bodies, 3))
    X = pose(
        exp_so3(turns), np.linspace(0, 1, FRAMES)[:, None, None] * rng.normal(0, 0.05, (bodies, 3))
    )
    body = rng.integers(bodies, size=POINTS).astype(np.int16)
    framing = Framing(points[0].mean(0), 0.2)
    texts = texts or ("open the box",)
    return PointScene(
        "box", texts, points.astype(np.float32), body, X.astype(np.float32), body == 0, framing
    )


def positions(moving: MovingPoints) -> torch.Tensor:
    """(B, T, P, 3) where the points of scenes are."""
    rows = (
        torch.arange(len(moving.X))[:, None, None],
        torch.arange(moving.X.shape[1])[:, None],
        moving.body[:, None],
    )
    X = moving.X[rows[0], rows[1], rows[2].long()]
    return (
        torch.einsum(
            "btpij,btpj->btpi", X[..., :3, :3], moving.points.expand(-1, X.shape[1], -1, -1)
        )
        + X[..., :3, 3]
    )


def test_scenes_of_one_and_of_three_bodies_share_a_table():
    found = [scene(bodies=3), scene("close the box", bodies=1, seed=1)]
    table = SceneTable.of(found)
    assert len(table) == 2
    assert table.tables["X"].shape == (2, FRAMES, 3, 4, 4)
    assert torch.equal(
        table.tables["X"][1, :, 1:], torch.eye(4).expand(FRAMES, 2, 4, 4)
    )  # bodies that are not there
    for moved, one in zip(positions(table.scenes(torch.tensor([0, 1]))), found, strict=True):
        want = (one.positions() - one.framing.center) / one.framing.radius
        assert np.abs(moved.numpy() - want).max() < 2e-3  # float16
        assert np.abs(want[-1] - want[0]).max() > 0.1
    told = table.told(torch.tensor([1, 0]), torch.Generator())
    assert [table.sentences[i] for i in told] == ["close the box", "open the box"]
    assert torch.equal(table.text(told), embed(["close the box", "open the box"]))


def test_a_table_comes_back(tmp_path):
    table = SceneTable.of([scene(), scene("turn the tap to the left", seed=1)])
    table.save(tmp_path / "table.safetensors")
    again = SceneTable.load(tmp_path / "table.safetensors")
    assert (again.kind, again.sentences) == ("box", ("open the box", "turn the tap to the left"))
    assert again.tables.keys() == table.tables.keys()
    for name, tensor in table.tables.items():
        assert again.tables[name].dtype == tensor.dtype
        assert torch.equal(again.tables[name], tensor)
    assert [f.name for f in tmp_path.iterdir()] == ["table.safetensors"]


def test_a_damaged_table_says_what_to_do(tmp_path):
    path = tmp_path / "table.safetensors"
    SceneTable.of([scene()]).save(path)
    whole = path.read_bytes()
    tables = dict(SceneTable.load(path).tables)

    def refused():
        with pytest.raises(
            ValueError, match="not a table of scenes .*; delete it to build it again"
        ) as caught:
            SceneTable.load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    for content in (b"", whole[: len(whole) // 2], b"\xff" * 4096):
        path.write_bytes(content)
        refused()
    save_file(tables, path)  # without a header
    refused()
    save_file(
        {k: v for k, v in tables.items() if k != "body"},
        path,
        {"kind": "box", "sentences": '["open"]'},
    )
    refused()


@pytest.mark.parametrize(
    ("text", "free"),
    [
        ("open the box", True),
        ("put the bright mug upright on the tray", True),
        ("turn the tap to the left", False),
        ("Right door: open", False),
        ("turn the wheel clockwise", False),
        ("turn the wheel anticlockwise", False),
        ("turn it counterclockwise, please", False),
    ],
)
def test_who_speaks_of_left_and_right_has_no_mirror(text, free):
    assert SceneTable.of([scene(text)]).tables["free"].tolist() == [free]


def test_what_is_turned_by_convention_has_no_mirror(tmp_path):
    """A valve that is turned on goes to the left whether this is said or not."""
    table = SceneTable.of([replace(scene("turn on the tap"), kind="faucet")])
    assert table.tables["free"].tolist() == [False]
    table.save(tmp_path / "table.safetensors")
    assert SceneTable.load(tmp_path / "table.safetensors").tables["free"].tolist() == [False]


def test_a_mirrored_video_is_the_video_of_a_mirrored_scene():
    """Mirrored in the upright plane through the camera and what it looks at."""
    table = SceneTable.of([scene(bodies=1)])
    seen = table.scenes(torch.tensor([0]))
    cameras = random_cameras(1, SIZE, torch.Generator().manual_seed(3))
    right = torch.as_tensor(cameras.X_world_heading[0, :, 0], dtype=torch.float32)
    M = torch.eye(4)
    M[:3, :3] -= 2 * torch.outer(right, right)
    turned = render(MovingPoints(seen.points @ M[:3, :3], seen.body, M @ seen.X @ M), cameras, 2)
    straight = render(seen, cameras, 2)
    off = (mirrored(straight.first) - turned.first).abs().amax(-1)
    assert (off < 1e-3).float().mean() > 0.98  # rounding may tip a point into the next pixel
    assert (mirrored(straight.video) - turned.video).abs().mean() < 0.2 * (
        straight.video - turned.video
    ).abs().mean()


def test_half_of_what_may_be_mirrored_is():
    said, handed = SceneTable.of([scene()]), SceneTable.of([scene("open the left box")])
    (free,), (kept,) = (
        [sample([t], torch.ones(1), 40, CONFIG, torch.Generator().manual_seed(0)).video]
        for t in (said, handed)
    )
    same = (free == kept).flatten(1).all(1)
    flipped = (free == mirrored(kept)).flatten(1).all(1)
    assert (same | flipped).all()
    assert 8 < flipped.sum() < 32


def test_chance_is_the_generators():
    tables = [
        SceneTable.of([scene(), scene("close the box", seed=1)]),
        SceneTable.of([scene("a", bodies=1, seed=2)]),
    ]
    draw = [
        sample(tables, torch.tensor([3.0, 1.0]), 6, CONFIG, torch.Generator().manual_seed(s))
        for s in (7, 7, 8)
    ]
    assert draw[0].video.shape == (6, FRAMES, SIZE, SIZE, 3)
    assert draw[0].first.shape == (6, 2 * SIZE, 2 * SIZE, 4)
    assert draw[0].text.shape == (6, 3)
    assert torch.equal(draw[0].video, draw[1].video)
    assert torch.equal(draw[0].text, draw[1].text)
    assert not torch.equal(draw[0].video, draw[2].video)
    assert len({float(v.sum()) for v in draw[0].video}) == 6  # every one from a camera of its own


def test_kinds_are_drawn_as_often_as_said_each_with_its_sentence():
    tables = [
        SceneTable.of([scene("a")]),
        SceneTable.of([scene("bb")]),
        SceneTable.of([scene("ccc")]),
    ]
    drawn = sample(
        tables, torch.tensor([3.0, 0.0, 1.0]), 200, CONFIG, torch.Generator().manual_seed(0)
    ).text[:, 0]
    assert set(drawn.tolist()) == {1.0, 3.0}
    assert 120 < (drawn == 1.0).sum() < 180


def test_all_scenes_are_drawn_each_with_its_sentence():
    still = scene("a")
    table = SceneTable.of(
        [replace(still, X=still.X[:1].repeat(FRAMES, 0)), scene("bb"), scene("cccc", seed=1)]
    )
    drawn = sample([table], torch.ones(1), 60, CONFIG, torch.Generator().manual_seed(0))
    length = drawn.text[:, 0]
    assert all((length == n).sum() > 8 for n in (1, 2, 4))
    moves = (drawn.video[:, -1] - drawn.video[:, 0]).abs().flatten(1).amax(1) > 0.1
    assert torch.equal(moves, length > 1)


def test_a_scene_is_told_in_all_its_ways_and_no_others():
    table = SceneTable.of([scene("a", "bb", "ccc"), scene("dddd", seed=1)])
    assert table.tables["said"].shape == (2, 3)
    told = sample([table], torch.ones(1), 80, CONFIG, torch.Generator().manual_seed(0)).text[:, 0]
    assert all((told == n).sum() > 4 for n in (1, 2, 3))
    assert (told == 4).sum() > 20  # a scene is not drawn more often for being said in more ways
    assert (table.tables["said"][1] == table.sentences.index("dddd")).all()


def test_scenes_are_made_once(tmp_path, monkeypatch):
    asked = []
    draw = scenes.draw

    def watched(kind, seed, **how):
        asked.append((kind, seed, how["split"], how["paraphrased"]))
        return draw(kind, seed, **how)

    monkeypatch.setattr(scenes, "draw", watched)
    heard = []

    def stored(seeds, split="train"):
        return stored_scenes(
            "hinged_box",
            seeds,
            split=split,
            points=50,
            folder=tmp_path,
            progress=lambda f, w: heard.append((f, w)),
        )

    first = stored(range(2))
    assert heard == [(0.5, "preparing scenes: hinged_box"), (1.0, "preparing scenes: hinged_box")]
    assert torch.equal(stored(range(2)).tables["points"], first.tables["points"])
    assert asked == [("hinged_box", 0, "train", False), ("hinged_box", 1, "train", False)]
    assert first.tables["points"].shape == (2, 1, 50, 3)
    for seed in range(2):
        said = {first.sentences[i] for i in first.tables["said"][seed]}
        assert said == set(ways(draw("hinged_box", seed).phrase, WAYS))
        assert len(said) == WAYS
    exam = stored(range(1), "held_out")
    assert exam.sentences == (draw("hinged_box", 0, split="held_out", paraphrased=True).text,)
    assert asked[2:] == [("hinged_box", 0, "held_out", True)]
    assert len(list(tmp_path.iterdir())) == 2
