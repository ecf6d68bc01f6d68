"""Cases and methods of an evaluation of a network, and its timings."""

import torch

from experiments.neurok.ablations import ABLATIONS, METHODS, ik_cases, ik_methods, speed_records
from generators.data.objects.families import HELD_OUT, make
from generators.neurok.network.config import NeurokConfig
from generators.neurok.network.model import Neurok

TINY = NeurokConfig(
    tokens=8,
    channels=8,
    encoder_width=16,
    decoder_width=16,
    point_width=16,
    encoder_blocks=1,
    encoder_point_blocks=1,
    decoder_blocks=1,
    decoder_point_blocks=1,
    heads=2,
)


def test_cases_keep_the_splits_apart():
    cases = ik_cases(40, {"lamp": make("desk_lamp", 0)})
    families = {
        split: {c.name.split("/")[0] for c in cases if c.split == split}
        for split in ("trained", "never_trained")
    }
    assert not families["trained"] & set(HELD_OUT)
    assert families["never_trained"] == set(HELD_OUT)
    assert [c.split for c in cases].count("trained") == 40
    assert [c.split for c in cases].count("never_trained") == 20
    assert [c.name for c in cases if c.split == "metaworld"] == ["lamp/0", "lamp/1"]


def test_every_method_has_its_name():
    torch.manual_seed(0)
    model = Neurok(TINY)
    methods = ik_methods(model, METHODS + ABLATIONS, {"other": model})
    assert list(methods) == [*METHODS, *ABLATIONS, "other"]


def test_timings_are_of_what_they_say():
    torch.manual_seed(0)
    records = speed_records(Neurok(TINY), repeats=1)
    assert {r["key"] for r in records} == {f"neurok/speed/{name}_s" for name in ("ik", "motion")}
    assert all(r["value"] > 0 and r["n"] == 1 for r in records)
