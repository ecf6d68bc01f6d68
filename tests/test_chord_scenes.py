"""Prompted scenes: what is said happens, happens to the right matter, and nothing of the exam is in
the lessons."""

from functools import cache
from itertools import chain, product

import numpy as np
import pytest
import trimesh
from scipy.spatial import ConvexHull

from flowplan.geometry import exp_so3, fit_rigid, transform
from flowplan.motion import SceneMotion
from generators.chord.priors.choreographer.scenes.articulated_kinds import ARTICULATED
from generators.chord.priors.choreographer.scenes.articulated_scenes import MIN_TRAVEL
from generators.chord.priors.choreographer.scenes.cloth_scenes import PHRASES
from generators.chord.priors.choreographer.scenes.scenes import (
    DURATION,
    FRAMES,
    KINDS,
    NEVER_TRAINED,
    achieved,
    draw,
    sampled,
    wrong_text,
)
from generators.chord.priors.choreographer.scenes.sentence_templates import AMOUNTS, Names
from generators.chord.priors.choreographer.scenes.sentences import (
    Phrase,
    _filled,
    gerund,
    paraphrases,
    pool,
    say,
    templates,
    third_person,
    ways,
)
from generators.chord.priors.choreographer.scenes.table_scenes import TABLE
from generators.chord.render.cameras import framing
from generators.data.objects.families import HELD_OUT, HELD_OUT_SEED
from generators.kinematic import minimum_jerk

ALL = (*KINDS, *NEVER_TRAINED)


def scene_of(kind, seed, **options):
    return draw(kind, seed, split="train" if kind in KINDS else "held_out", **options)


def still(prompted):
    v = prompted.motion.vertices
    return SceneMotion(prompted.motion.times, tuple(np.repeat(x[:1], FRAMES, axis=0) for x in v))


@pytest.mark.parametrize("kind", ALL)
def test_scene_is_one_motion_of_its_object_by_minimum_jerk(kind):
    for seed in range(2):
        p = scene_of(kind, seed)
        times, vertices = p.motion.times, p.motion.vertices
        assert len(times) == FRAMES
        assert times[-1] == DURATION
        assert p.text in trained(p.phrase)
        assert p.text not in paraphrases(p.phrase)
        assert p.verb == p.phrase.verb
        for obj, moved, moves in zip(p.scene.objects, vertices, p.moving, strict=True):
            np.testing.assert_allclose(moved[0], obj.vertices_world, atol=1e-9)
            np.testing.assert_allclose(
                moved[:, ~moves], np.repeat(moved[:1, ~moves], FRAMES, axis=0), atol=1e-3
            )
        assert any(m.any() for m in p.moving)
        part = vertices[p.scene.index(p.ask.object)][:, p.ask.vertices]
        assert p.moving[p.scene.index(p.ask.object)][p.ask.vertices].mean() > 0.9
        assert achieved(p, still(p)) == pytest.approx(0.0, abs=1e-9)
        assert achieved(p, p.motion) == pytest.approx(
            1.0, abs=0.08 if kind == "fold_cloth" else 1e-6
        )
        if p.ask.manner in ("turn", "slide"):
            turned = [_amount(p, part[[0, t]]) for t in range(FRAMES)]
            expected = p.ask.amount * minimum_jerk(np.linspace(0, 1, FRAMES))
            np.testing.assert_allclose(np.unwrap(turned), expected, atol=1e-6)


def _amount(prompted, part):
    """Angle about, or distance along, the asked axis, independent of `achieved`."""
    X, axis = fit_rigid(part[0], part[1]), prompted.ask.axis
    if prompted.ask.manner == "slide":
        return (X[:3, 3]) @ axis
    np.testing.assert_allclose(
        transform(X, prompted.ask.axis_point[None])[0], prompted.ask.axis_point, atol=1e-6
    )
    R = X[:3, :3]
    return np.arctan2(
        np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) @ axis, np.trace(R) - 1
    )


@pytest.mark.parametrize("kind", [kind for kind in ARTICULATED if ARTICULATED[kind].halves])
def test_halves_turn_as_far_as_each_other_about_a_pivot_that_stands(kind):
    for seed in range(3):
        p = draw(kind, seed)
        one, other = p.asks
        assert one.amount == other.amount
        np.testing.assert_allclose(one.axis, -other.axis)
        assert (one.vertices ^ other.vertices).all()
        (moved,) = p.motion.vertices
        for ask in p.asks:
            X = fit_rigid(moved[0, ask.vertices], moved[-1, ask.vertices])
            np.testing.assert_allclose(X[:3, :3], exp_so3(ask.amount * ask.axis), atol=1e-9)
            np.testing.assert_allclose(
                transform(X, one.axis_point[None])[0], one.axis_point, atol=1e-9
            )
        # Turned by one half alone, the tool is not where it should be.
        alone = moved.copy()
        alone[:, other.vertices] = moved[0, other.vertices]
        assert achieved(p, SceneMotion(p.motion.times, (alone,))) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("kind", ["drawer_cabinet", "put", "fold_cloth"])
def test_points_follow_the_meshes(kind):
    p = draw(kind, 3)
    points = sampled(p, 3000)
    positions = points.positions()
    assert positions.shape == (FRAMES, 3000, 3)
    assert positions.dtype == np.float32
    framed = framing(p.scene)
    np.testing.assert_allclose(points.framing.center, framed.center)
    for b, body in enumerate(p.bodies):
        of = points.body == b
        # As a share of all points what its area is of all area.
        share = _area(body) / sum(_area(other) for other in p.bodies)
        assert of.mean() == pytest.approx(share, abs=0.01)
        if len(body.vertices) == 1 and of.any():
            moved = transform(body.X[-1], points.rest[of])
            np.testing.assert_allclose(positions[-1, of], moved, atol=1e-5)
    assert points.moving.any()
    ends = np.linalg.norm(positions[-1] - positions[0], axis=1)
    assert ends[~points.moving].max(initial=0.0) < 1e-3


def _area(body):
    a, b, c = np.moveaxis(body.vertices[0][body.faces], 1, 0)
    return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()


def test_points_lie_on_the_surface():
    p = draw("put", 1)
    points = sampled(p, 500)
    mesh = p.scene.objects[0].mesh_world
    of = points.rest[points.body == 0]
    _, distance, _ = trimesh.proximity.closest_point_naive(mesh, of)
    assert distance.max() < 1e-6


def test_draws_are_deterministic_and_differ_by_seed():
    a, b, c = draw("push", 7), draw("push", 7), draw("push", 8)
    assert a.text == b.text
    np.testing.assert_array_equal(a.motion.vertices[0], b.motion.vertices[0])
    assert a.motion.vertices[0].shape != c.motion.vertices[0].shape or not np.allclose(
        a.motion.vertices[0], c.motion.vertices[0]
    )


def test_paraphrase_changes_the_sentence_alone():
    for kind in ("laptop", "put", "fold_cloth"):
        plain, other = (
            draw(kind, 2, split="held_out"),
            draw(kind, 2, split="held_out", paraphrased=True),
        )
        assert other.text in paraphrases(plain.phrase)
        assert other.text not in trained(plain.phrase)
        assert plain.text in trained(plain.phrase)
        assert plain.text not in paraphrases(plain.phrase)
        np.testing.assert_array_equal(plain.motion.vertices[0], other.motion.vertices[0])


def test_nothing_held_out_is_trained(monkeypatch):
    from generators.chord.priors.choreographer.scenes import articulated_scenes as module

    seeds = {"train": [], "held_out": []}
    split = "train"
    made = module._made

    def record(family, seed):
        seeds[split].append((family, seed))
        return made(family, seed)

    monkeypatch.setattr(module, "_made", record)
    for split in ("train", "held_out"):
        for kind in ("laptop", "scissors"):
            draw(kind, 0, split=split)
    assert all(seed < HELD_OUT_SEED and family not in HELD_OUT for family, seed in seeds["train"])
    assert all(seed >= HELD_OUT_SEED for _, seed in seeds["held_out"])
    assert {ARTICULATED[k].family for k in NEVER_TRAINED} <= set(HELD_OUT)
    with pytest.raises(ValueError, match=r"kind of the split 'train': got 'microwave'"):
        draw("microwave", 0)


def test_plain_sentences_ask_for_much_and_opposites_go_the_other_way():
    for seed in range(12):
        p = draw("laptop", seed, split="train")
        if p.phrase.amount:
            continue
        lid = p.motion.vertices[0][:, p.ask.vertices]
        height = lid[..., 2].max(1)
        assert p.ask.amount > MIN_TRAVEL * 1.8  # the least upper limit of a laptop's lid
        if (
            p.verb == "close"
        ):  # closed lids lie level: from the first frame to the last the highest point sinks
            assert height[-1] < height.max() - 1e-3
            assert np.ptp(lid[-1, :, 2]) < 0.05
        else:
            assert height.max() > height[0] + 1e-3


def test_lamps_are_lowered_down_and_raised_up():
    for seed in range(6):
        p = draw("desk_lamp", seed)
        head = p.bodies[-1].positions[..., 2].mean(1)
        assert np.all(np.diff(head) < 0) if p.verb == "lower" else np.all(np.diff(head) > 0)


def test_what_is_put_somewhere_ends_there_and_passes_through_nothing():
    for kind in ("put", "stack", "push"):
        for seed in range(4):
            p = draw(kind, seed)
            mover, goal = p.bodies[0], p.bodies[1]
            end = mover.positions[-1]
            middle, target = (end.min(0) + end.max(0)) / 2, goal.vertices[0]
            if kind == "push":
                assert end[:, 2].min() == pytest.approx(0.0, abs=1e-6)
            else:
                assert np.all((target.min(0) < middle)[:2] & (middle < target.max(0))[:2])
                assert mover.positions[:, :, 2].min(1).max() > 0.08
            points = sampled(p, 3000)
            others = points.rest[points.body != 0]
            hull = ConvexHull(mover.vertices[0]).equations
            for X in mover.X:
                inside = (hull[:, :3] @ (others - X[:3, 3]).T + hull[:, 3:]).max(0) < -1e-4
                assert not inside.any()


def test_pushed_things_touch_what_they_are_pushed_against():
    for seed in range(6):
        p = draw("push", seed)
        hulls = [p.bodies[0].positions[-1], p.bodies[1].vertices[0]]
        difference = (hulls[1][:, None, :2] - hulls[0][None, :, :2]).reshape(-1, 2)
        # The outlines are apart by as much as the origin is outside the hull of all differences of
        # their points.
        outside = ConvexHull(difference).equations[:, 2].max()
        assert 0.0 < outside < 0.003


def test_cloths_may_fold_to_any_side():
    p = draw("fold_cloth", 0)
    assert len(p.alternatives) == 3
    v = p.motion.vertices[0]
    middle, turn = v[0].mean(0), np.diag([-1.0, -1.0, 1.0])
    other = SceneMotion(
        p.motion.times, ((v - middle) @ turn + middle,)
    )  # the same fold seen from the other side
    np.testing.assert_allclose(np.sort(other.vertices[0][0][:, 0]), np.sort(v[0][:, 0]), atol=1e-9)
    # Vertices keep their places by the half turn of a symmetric grid: reorder them to the scene's
    # own.
    order = np.lexsort(np.round(other.vertices[0][0], 6).T), np.lexsort(np.round(v[0], 6).T)
    mirrored = np.empty_like(v)
    mirrored[:, order[1]] = other.vertices[0][:, order[0]]
    assert achieved(p, SceneMotion(p.motion.times, (mirrored,))) > 0.9


def test_wrong_sentences_are_trained_ones_for_something_else():
    for kind in ("laptop", "put", "push", "stack", "fold_cloth", "faucet"):
        for seed in range(6):
            p = draw(kind, seed)
            for i in range(4):
                wrong = wrong_text(p, i)
                assert wrong != p.text
                assert wrong not in every_paraphrase()
                assert any(
                    wrong in trained(phrase) for phrase in phrases() if may_say(phrase, wrong)
                )


@cache
def phrases():
    """Everything that can be meant."""
    articulated = (phrase for kind in ARTICULATED.values() for phrase in kind.phrases())
    tables = (
        phrase for errands in TABLE.values() for errand in errands for phrase in errand.phrases()
    )
    return (*articulated, *tables, *PHRASES)


@cache
def trained(phrase):
    """Every trained sentence that says this."""
    names = [n.trained + n.more for n in (phrase.thing, phrase.other, AMOUNTS[phrase.amount])]
    every = product(chain(*templates(phrase)), *names)
    return {_filled(t, thing, phrase.part, other, far) for t, thing, other, far in every}


def may_say(phrase, sentence):
    """True if a sentence names the phrase's thing or part, and its goal."""
    thing, other = (n.trained + n.more for n in (phrase.thing, phrase.other))
    return any(n in sentence for n in (*thing, phrase.part) if n) and any(
        n in sentence for n in other
    )


@cache
def every_paraphrase():
    return {sentence for phrase in phrases() for sentence in paraphrases(phrase)}


def test_pools_are_large_and_their_halves_apart():
    """No template, name, amount or sentence is both trained and held out."""
    for phrase in phrases():
        plain, framed = templates(phrase)
        assert len(plain) >= 12
        assert len(framed) >= 300
        assert len(pool(phrase).held_out) >= 5
        assert not {*plain, *framed} & set(pool(phrase).held_out)
        for names in (phrase.thing, phrase.other, AMOUNTS[phrase.amount]):
            assert (
                names == Names(("",))
                or names == AMOUNTS[""]
                or not {*names.trained, *names.more} & {*names.held_out}
            )
        assert not every_paraphrase() & set(ways(phrase, 40))


def test_the_plainest_sentences_are_trained():
    for sentence in (
        *(
            "close the laptop",
            "put the ramekin on the plate",
            "lower the lamp",
            "fold the cloth diagonally",
        ),
        *("open the drawer", "turn the faucet"),
    ):
        assert any(
            sentence in trained(phrase) for phrase in phrases() if may_say(phrase, sentence)
        ), sentence


def test_a_phrase_is_always_said_in_the_same_ways():
    phrase = Phrase("lower", Names(("lamp",)))
    first = ways(phrase, 50)
    assert len(set(first)) == 50
    assert first[:20] == ways(phrase, 20)
    assert first != ways(Phrase("lower", Names(("light",))), 50)
    assert all("lamp" in sentence for sentence in first)
    assert not any("{" in sentence or "  " in sentence for sentence in first)
    assert not any("{" in sentence for phrase in phrases() for sentence in ways(phrase, 10))
    assert "please lower the lamp" in {say(phrase, np.random.default_rng(i)) for i in range(1000)}


@pytest.mark.parametrize(
    ("base", "third", "ing"),
    [
        ("push it", "pushes it", "pushing it"),
        ("put it on", "puts it on", "putting it on"),
        ("close up", "closes up", "closing up"),
        ("flip", "flips", "flipping"),
        ("lower", "lowers", "lowering"),
        ("spread out", "spreads out", "spreading out"),
        ("carry", "carries", "carrying"),
        ("lay", "lays", "laying"),
        ("undo", "undoes", "undoing"),
        ("swing", "swings", "swinging"),
        ("see", "sees", "seeing"),
        ("have it open", "has it open", "having it open"),
    ],
)
def test_verbs_are_inflected(base, third, ing):
    assert third_person(base) == third
    assert gerund(base) == ing


def test_doors_are_several():
    phrase = Phrase("open", Names(("cabinet",)), "doors")
    said = ways(phrase, 3000)
    assert "the doors of the cabinet are opening" in said
    assert not any("doors is" in s or "doors opens" in s for s in said)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="kind of the split"):
        draw("spaceship", 0)
    with pytest.raises(ValueError, match="split"):
        draw("laptop", 0, split="test")
    with pytest.raises(ValueError, match=r"Phrase\.verb"):
        Phrase("juggle", Names(("ball",)))
