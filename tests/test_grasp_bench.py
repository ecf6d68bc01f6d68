"""Records of the grasp benchmark: keys and units, not speed."""

import numpy as np

from experiments.grasping.bench_grasp import bench_grasp


def test_records_have_the_agreed_keys_and_positive_values():
    seen = []
    records = bench_grasp(repeats=1, progress=lambda fraction, word: seen.append(fraction))
    assert [r["key"] for r in records] == [
        "grasp/pairs_per_s",
        "grasp/checked_per_s",
        "grasp/top100_s",
    ]
    assert [r["unit"] for r in records] == ["1/s", "1/s", "s"]
    assert [r["direction"] for r in records] == ["up", "up", "down"]
    assert all(np.isfinite(r["value"]) and r["value"] > 0 and r["n"] == 5 for r in records)
    assert seen == sorted(seen)
