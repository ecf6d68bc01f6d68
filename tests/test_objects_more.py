"""What only some families promise: linkages, spacing, what is hollow, which way things open."""

from __future__ import annotations

import numpy as np
import pytest

from flowplan.geometry import transform
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.families import make

SEEDS = range(24)


def some(family: str, link: str = "") -> list[ArticulatedObject]:
    """Objects of a family, those that have the link."""
    objects = [o for o in (make(family, s) for s in SEEDS) if not link or link in o.links]
    assert len(objects) >= 3
    return objects


def vertices(obj: ArticulatedObject, link: str, q: np.ndarray | None = None) -> np.ndarray:
    """(V, 3) vertices of a link in the object frame at q, at rest unless given."""
    at = np.zeros(len(obj.free)) if q is None else q
    X = obj.link_poses(at[None])[0, list(obj.links).index(link)]
    return transform(X, obj.links[link].vertices)


def at(obj: ArticulatedObject, **positions: float) -> np.ndarray:
    """A configuration that is zero but for the joints of the named links."""
    return np.array([positions.get(j.child, 0.0) for j in obj.free])


def limit(obj: ArticulatedObject, link: str) -> tuple[float, float]:
    joint = next(j for j in obj.joints if j.child == link)
    return joint.lower, joint.upper


def test_a_pedal_goes_down_as_the_lid_goes_up_and_never_into_the_ground():
    for can in some("trash_can", "pedal"):
        assert [j.child for j in can.free] == ["lid"]
        top = limit(can, "lid")[1]
        lids, pedals = [], []
        for angle in np.linspace(0, top, 5):
            q = at(can, lid=angle)
            lids.append(vertices(can, "lid", q)[:, 2].max())
            pedals.append(vertices(can, "pedal", q)[:, 2].min())
        assert np.all(np.diff(lids[:3]) > 0)
        assert np.all(np.diff(pedals) < 0)
        assert pedals[-1] > 0
        positions = can.joint_positions([[top]])[0]
        for joint, position in zip(can.joints, positions, strict=True):
            assert joint.lower - 1e-12 <= position <= joint.upper + 1e-12


def test_a_folding_chair_folds_flat():
    for chair in some("folding_chair"):
        assert [j.child for j in chair.free] == ["rear"]
        folded = chair.upper
        frame = vertices(chair, "frame")
        normal = np.linalg.svd(frame - frame.mean(0), full_matrices=False)[2][2]
        for link in ("rear", "seat"):
            depth = [
                float(np.ptp(vertices(chair, link, q) @ normal)) for q in (np.zeros(1), folded)
            ]
            assert depth[1] < 0.3 * depth[0], link
        # and the limits of the seat, which follows, are those it reaches
        i = [j.child for j in chair.joints].index("seat")
        assert chair.joint_positions([folded])[0, i] == pytest.approx(chair.joints[i].upper)


def test_the_balls_of_a_cradle_touch_at_rest_and_swing_in_their_row():
    for cradle in some("newtons_cradle"):
        balls = [link for link in cradle.links if link.startswith("ball")]
        assert 3 <= len(balls) <= 7
        v = [vertices(cradle, b) for b in balls]
        gaps = np.diff([x[:, 0].min() + x[:, 0].max() for x in v]) / 2
        np.testing.assert_allclose(gaps, gaps[0], rtol=1e-6)
        assert (
            0.9 * gaps[0] < np.ptp(v[0][:, 0]) <= gaps[0]
        )  # a ball is the widest part of its link
        q = at(cradle, ball_0=cradle.upper[0])
        np.testing.assert_allclose(vertices(cradle, "ball_0", q)[:, 1], v[0][:, 1], atol=1e-12)
        assert (
            vertices(cradle, "ball_0", q)[:, 0].min() < v[0][:, 0].min() - gaps[0]
        )  # out of the row
        np.testing.assert_array_equal(vertices(cradle, "ball_1", q), v[1])


def test_a_chain_hangs_link_by_link_and_keeps_its_lengths():
    rng = np.random.default_rng(0)
    for chain in some("pendulum_chain"):
        assert [(j.parent, j.child) for j in chain.joints] == [
            (f"link_{k - 1}" if k else "base", f"link_{k}") for k in range(len(chain.joints))
        ]
        q = np.concatenate([np.zeros((1, len(chain.free))), chain.sample(rng, 5)])
        pivots = chain.link_poses(q)[:, 1:, :3, 3]
        lengths = np.linalg.norm(np.diff(pivots, axis=1), axis=-1)
        np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape), atol=1e-12)
        assert np.all(np.diff(pivots[0, :, 2]) < 0)  # at rest it hangs down


def test_what_is_cut_or_gripped_parts_when_the_handles_part():
    for family, still, moving in (
        ("scissors", "blade_0", "blade_1"),
        ("pliers", "half_0", "half_1"),
    ):
        for tool in some(family):
            closed, opened = (
                [vertices(tool, link, q) for link in (still, moving)]
                for q in (np.zeros(1), tool.upper)
            )
            for end in (1, -1):  # what cuts or grips, and the handles
                tips = [end * v[:, 1] > 0.9 * (end * v[:, 1]).max() for v in closed]
                (a, b), (c, d) = (
                    [v[t].mean(0)[0] for v, t in zip(pair, tips, strict=True)]
                    for pair in (closed, opened)
                )
                # Closed, the jaws do not cross; what moves then goes away from what stays.
                assert end * (b - a) > -0.002, family
                assert end * (d - c) > end * (b - a) + 0.003, family


def test_blades_open_out_of_the_handle():
    for knife in some("knife"):
        for joint in knife.free:
            handle = vertices(knife, "handle")
            closed, opened = (
                vertices(knife, joint.child, at(knife, **{joint.child: a}))
                for a in (0.0, joint.upper)
            )
            reach = np.abs(handle[:, 1]).max()
            inside = np.abs(closed[:, 1]).max() <= reach
            assert inside, joint.name
            assert (
                max(np.abs(opened[:, 1]).max() - reach, opened[:, 0].max() - handle[:, 0].max())
                > 0.005
            )
            # half way it is on the open side, away from the back of the handle
            half = vertices(knife, joint.child, at(knife, **{joint.child: np.pi / 2}))
            assert half[:, 0].max() > 0.02


def test_temples_fold_behind_the_lenses():
    for glasses in some("eyeglasses"):
        width = np.abs(vertices(glasses, "front")[:, 0]).max()
        for side, sign in (("left", -1), ("right", 1)):
            open_, folded = (
                vertices(glasses, side, at(glasses, **{side: a}))
                for a in (0.0, limit(glasses, side)[1])
            )
            assert open_[:, 1].max() > folded[:, 1].max() + 0.05
            assert (sign * folded[:, 0]).min() < 0.2 * width  # its end lies towards the other side
            assert np.abs(folded[:, 0]).max() < 1.3 * width


def test_a_globe_turns_in_its_place():
    for globe in some("globe"):
        spin = at(globe, globe=2.0)
        before, after = vertices(globe, "globe"), vertices(globe, "globe", spin)
        joint = next(j for j in globe.joints if j.child == "globe")
        assert (joint.lower, joint.upper) == (-np.pi, np.pi)
        middle = globe.link_poses(spin[None])[0, list(globe.links).index("globe"), :3, 3]
        np.testing.assert_allclose(
            np.linalg.norm(after - middle, axis=1), np.linalg.norm(before - middle, axis=1)
        )
        np.testing.assert_allclose(
            (after - middle) @ joint.axis, (before - middle) @ joint.axis, atol=1e-12
        )


def test_a_bail_clears_the_rim_it_swings_over():
    for bucket in some("bucket"):
        body = vertices(bucket, "body")
        middle, half = (body.min(0) + body.max(0)) / 2, np.ptp(body, axis=0) / 2
        for angle in np.linspace(*limit(bucket, "handle"), 9):
            v = np.abs(
                vertices(bucket, "handle", at(bucket, handle=float(angle))) - middle * (1, 1, 0)
            )
            v = v[v[:, 0] < 0.3 * half[0]]
            assert np.all((v[:, 2] > body[:, 2].max()) | (v[:, 1] > half[1] - 0.012))


def test_what_holds_something_is_hollow():
    for family in ("bucket", "kettle", "trash_can", "suitcase"):
        for obj in some(family):
            body = obj.links["body"]
            middle = vertices(obj, "body")
            middle = (middle.min(0) + middle.max(0)) / 2
            X = obj.link_poses(np.zeros((1, len(obj.free))))[0, 0]
            assert not body.contains([middle - X[:3, 3]])[0], family
    for stick in some("usb_cap", "cap"):
        plug = vertices(stick, "stick")
        tip = plug[plug[:, 1] < plug[:, 1].min() + 1e-4]
        cap = stick.links["cap"]
        X = stick.link_poses(np.zeros((1, len(stick.free))))[0, list(stick.links).index("cap")]
        assert np.all(
            (tip - X[:3, 3] > cap.bounds[0]) & (tip - X[:3, 3] < cap.bounds[1])
        )  # covered
        assert not cap.contains(tip - X[:3, 3]).any()  # and not within its wall


def test_faucets_have_handles_about_the_vertical_and_others():
    upright, level, spouts, pairs = 0, 0, 0, 0
    for faucet in (make("faucet", s) for s in range(60)):
        handles = [j for j in faucet.free if "spout" not in j.name]
        assert handles
        upright += any(abs(j.axis[2]) > 0.999 for j in handles)
        level += any(abs(j.axis[2]) < 1e-9 for j in handles)
        spouts += "spout" in faucet.links
        pairs += len(handles) == 2
        assert 0.04 < faucet.posed(np.zeros(len(faucet.free))).extents.max() < 0.7
    assert upright >= 25
    assert min(level, spouts, pairs) >= 6


def test_wheels_stand_on_the_ground_and_steering_takes_two_along():
    steering = 0
    for wagon in some("wagon"):
        wheels = [link for link in wagon.links if link.endswith("wheel")]
        assert len(wheels) in (2, 4)
        for wheel in wheels:
            assert vertices(wagon, wheel)[:, 2].min() == pytest.approx(0.0, abs=2e-3)
        if "axle" in wagon.links:
            steering += 1
            q = at(wagon, axle=limit(wagon, "axle")[1])
            turned = [
                w for w in wheels if np.abs(vertices(wagon, w, q) - vertices(wagon, w)).max() > 1e-6
            ]
            assert len(turned) == 2
    assert steering


def test_seats_swing_above_the_ground_and_planks_come_down_to_it():
    for swing in some("swing"):
        for joint in swing.free:
            assert vertices(swing, joint.child)[:, 2].min() > 0.1
    for seesaw in some("seesaw"):
        low = vertices(seesaw, "plank", seesaw.upper)[:, 2].min()
        assert 0 <= low < 0.5 * vertices(seesaw, "plank")[:, 2].min()
