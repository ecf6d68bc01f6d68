"""Training the choreographer in small: it learns, a stopped run goes on bit for bit, its weights
say how they were made."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from safetensors.torch import load_file  # noqa: E402

from generators.chord.priors.choreographer import data, weights  # noqa: E402
from generators.chord.priors.choreographer import train as training  # noqa: E402
from generators.chord.priors.choreographer.config import ChoreographerConfig  # noqa: E402
from generators.chord.priors.choreographer.data import sample  # noqa: E402
from generators.chord.priors.choreographer.model import VideoTransformer, flow_loss  # noqa: E402
from generators.chord.priors.choreographer.train import (  # noqa: E402
    EXAM_SCENES,
    WEIGHTS,
    Exam,
    train,
)
from generators.chord.priors.choreographer.train_options import (  # noqa: E402
    LossOptions,
    TrainOptions,
)
from generators.common.training import CHECKPOINT, METRICS, read_metrics  # noqa: E402

TINY = ChoreographerConfig(size=12, patch=6, width=16, blocks=3, heads=2, text_width=4)
KIND = "hinged_box"
WAYS = 2
"""Of saying what happens, for a network that has no room for more."""


def embed(sentences):
    """Four numbers of each."""
    counts = [[len(s) / 20, s.count("o"), s.count("l"), s.count("t")] for s in sentences]
    return torch.tensor(counts, dtype=torch.float32).reshape(-1, 4)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(training.text_encoder, "embed", embed)
    monkeypatch.setattr(data, "WAYS", WAYS)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder whose scenes are made already."""
    folder = tmp_path_factory.mktemp("scenes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.text_encoder, "embed", embed)
        patch.setattr(data, "WAYS", WAYS)
        train(options(folder, steps=1))
    return folder


def options(folder, **changes):
    given = {
        "config": TINY,
        "steps": 6,
        "batch": 2,
        "kinds": (KIND,),
        "scenes": 1,
        "points": 300,
        "device": "cpu",
    }
    return TrainOptions(out=folder, **(given | changes))


@pytest.fixture
def folder(kept, tmp_path):
    """One with the same scenes, and nothing else."""
    for path in kept.glob("scenes-*"):
        os.link(path, tmp_path / path.name)
    return tmp_path


def same(a, b):
    """Do the weights and the checkpoints of two runs hold the same bits?"""
    pairs = [(load_file(a / name), load_file(b / name)) for name in (WEIGHTS, CHECKPOINT)]
    return all(
        x.keys() == y.keys() and all(torch.equal(v, y[k]) for k, v in x.items()) for x, y in pairs
    )


def stop_at(step, monkeypatch):
    """SIGINT while this step is being taken."""
    drawn = []

    def watched(*arguments):
        drawn.append(0)
        if len(drawn) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return sample(*arguments)

    monkeypatch.setattr(training, "sample", watched)


def test_a_run_leaves_weights_that_say_how_they_were_made(folder):
    heard = []
    path = train(options(folder, seed=5), lambda fraction, word: heard.append((fraction, word)))
    assert path == folder / WEIGHTS
    assert weights.load(path).config == TINY
    card = weights.card(path)
    assert card["data"] == {
        "scenes": {KIND: 2},
        "sentences": 2 * WAYS,
    }  # of a kind that counts twice
    assert card["steps"] == 6
    assert card["finished"] is True
    assert card["options"]["seed"] == 5
    assert card["options"]["batch"] == 2
    assert card["options"]["kinds"] == [KIND]
    assert card["started_from"] is None
    assert "processor" in card["hardware"]
    assert card["measures"].keys() == {"held_out/ratio", "held_out/wrong_text", f"ratio/{KIND}"}
    assert card["measures"]["held_out/ratio"] == pytest.approx(1.0, abs=0.2)  # it has hardly begun
    assert str(folder) not in str(card)
    assert heard[-1][0] == 1.0
    assert heard[-1][1].startswith("step 6: loss ")
    assert {METRICS, CHECKPOINT, WEIGHTS, "curves.png"} <= {p.name for p in folder.iterdir()}
    assert [line["step"] for line in read_metrics(folder)] == [6, 6]


def test_an_interrupted_run_leaves_weights_and_goes_on_bit_for_bit(
    folder, kept, tmp_path_factory, monkeypatch
):
    through = tmp_path_factory.mktemp("through")
    for path in kept.glob("scenes-*"):
        os.link(path, through / path.name)
    train(options(through))
    stop_at(3, monkeypatch)
    cut = train(options(folder))
    card = weights.card(cut)
    assert (card["steps"], card["finished"]) == (3, False)
    assert card["measures"]["held_out/ratio"] > 0
    assert not same(folder, through)
    with pytest.raises(ValueError, match="exists: resume that run, or give another folder"):
        train(options(folder))
    train(options(folder, resume=True))
    assert same(folder, through)
    assert weights.card(cut)["steps"] == 6


def test_it_goes_on_from_weights_of_its_sizes(folder, tmp_path):
    torch.manual_seed(1)
    model = VideoTransformer(TINY)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    start = weights.save(tmp_path / "start.safetensors", model, {})
    path = train(options(folder, steps=1, learning_rate=1e-12, start=str(start)))
    for a, b in zip(weights.load(path).parameters(), weights.load(start).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert weights.card(path)["started_from"] == "start.safetensors"
    with pytest.raises(
        ValueError, match=r"TrainOptions.start: .* has other sizes; give the config"
    ):
        train(options(folder, config=replace(TINY, width=32), start=str(start), resume=True))


def test_the_exam_is_one_for_who_moves_nothing_and_zero_for_who_knows(folder):
    exam = Exam(TINY, [KIND], options(folder), torch.device("cpu"), lambda fraction, word: None)
    still = exam(VideoTransformer(TINY).eval())
    assert still == {
        k: pytest.approx(1.0, abs=1e-3)
        for k in ("held_out/ratio", "held_out/wrong_text", f"ratio/{KIND}")
    }

    class Knows(VideoTransformer):
        """Answers by heart where the sentence is the scene's own, and else that nothing moves."""

        def forward(self, z_tau, tau, first, words, said):
            videos, firsts, texts, _ = exam._parts
            guesses = []
            for one, asked in zip(first, words, strict=True):
                (index,) = (
                    ((firsts.float() - one).flatten(1).abs().amax(1) < 1e-6).nonzero()[0].tolist()
                )
                known = torch.equal(texts[index], asked)
                guesses.append(
                    self.encode(videos[index].float()) if known else torch.zeros_like(z_tau[0])
                )
            return torch.stack(guesses)

    assert len(exam._parts[0]) == EXAM_SCENES
    knows = exam(Knows(TINY).eval())
    assert knows["held_out/ratio"] == pytest.approx(0.0, abs=1e-6)
    assert knows["held_out/wrong_text"] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch": 0}, "TrainOptions.batch"),
        ({"points": -1}, "TrainOptions.points"),
        ({"kinds": ("sofa",)}, "TrainOptions.kinds: got 'sofa'"),
    ],
)
def test_bad_options(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        options(tmp_path, **fields)


@pytest.mark.slow
def test_it_learns_its_few_scenes(folder):
    """The error falls to a fraction, on training scenes from new cameras."""
    chosen = options(folder, steps=600, batch=4, learning_rate=4e-3, seed=1)
    trained = weights.load(train(chosen))
    table = training._table(KIND, 2.0, chosen, lambda fraction, word: None)
    videos = sample([table], torch.ones(1), 24, TINY, torch.Generator().manual_seed(99))
    measured = []
    for model in (VideoTransformer(TINY), trained):
        torch.manual_seed(0)  # of noise and its levels
        with torch.no_grad():
            measured.append(
                [
                    float(x)
                    for x in flow_loss(
                        model, videos.video, videos.first, videos.text, LossOptions()
                    )
                ]
            )
    (loss_before, before), (loss_after, after) = measured
    assert before == pytest.approx(1.0, abs=1e-3)
    assert after < 0.7
    assert loss_after < 0.7 * loss_before
