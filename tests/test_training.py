"""Training loop: clipping, averages, schedule, and restarts that end at the same weights."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from generators.common import training
from generators.common.train_options import LoopOptions
from generators.common.training import (
    CHECKPOINT,
    CURVES,
    average,
    clip_units,
    fit,
    learning_rate,
)
from generators.neurok.network import weights
from generators.neurok.train import WEIGHTS, train
from generators.neurok.train_options import TrainOptions

OPTIONS = LoopOptions(
    steps=12, learning_rate=0.02, warmup=3, log_every=2, evaluate_every=4, checkpoint_steps=4
)


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 1))


def objective(model, generator):
    x = torch.randn(16, 3, generator=generator)
    noise = torch.rand(())  # from torch's own generator, which a step seeds too
    return {"loss": (model(x) - x.square().sum(1, keepdim=True) - 0.1 * noise).square().mean()}


def run(folder, *, resume=False, options=OPTIONS, objective=objective, evaluate=None):
    """Train the small model in `folder`."""
    folder.mkdir(exist_ok=True)
    model = small()
    outcome = fit(
        model, objective, folder, options, samples_per_step=16, resume=resume, evaluate=evaluate
    )
    return model, outcome


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_clipping_by_units_is_its_formula():
    W = nn.Parameter(torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]))
    b = nn.Parameter(torch.tensor([1.0, 0.0]))
    W.grad = torch.tensor([[6.0, 8.0], [0.003, 0.004], [1.0, 0.0]])
    b.grad = torch.tensor([0.0, 0.5])
    norm = clip_units(iter([W, b]), 0.1)
    # Rows of norm 5, 0.5 and 0 (taken as 1e-3) may have gradients of 0.5, 0.05 and 1e-4.
    torch.testing.assert_close(W.grad, torch.tensor([[0.3, 0.4], [0.003, 0.004], [1e-4, 0.0]]))
    torch.testing.assert_close(b.grad, torch.tensor([0.0, 0.1]))
    torch.testing.assert_close(norm, torch.tensor((100 + 0.005**2 + 1 + 0.25) ** 0.5))


def test_no_clipping_leaves_gradients():
    p = nn.Parameter(torch.ones(2, 2))
    p.grad = torch.full((2, 2), 100.0)
    clip_units(iter([p]), 0.0)
    assert (p.grad == 100).all()


def test_averages_are_the_weighted_sum():
    model = nn.Linear(1, 1, bias=False)
    averages = {"weight": torch.zeros(1, 1)}
    for value in (1.0, 2.0, 5.0):
        nn.init.constant_(model.weight, value)
        average(averages, model, 0.9)
    assert averages["weight"].item() == pytest.approx(0.1 * (0.81 * 1 + 0.9 * 2 + 5))


def test_the_schedule_warms_up_falls_and_restarts():
    one = LoopOptions(learning_rate=1.0, learning_rate_end=0.1, warmup=10)
    assert learning_rate(0.0, 0, one) == pytest.approx(0.1)
    assert learning_rate(0.0, 4, one) == pytest.approx(0.5)
    assert learning_rate(0.5, 100, one) == pytest.approx(0.55)
    assert learning_rate(1.0, 100, one) == pytest.approx(0.1)
    three = LoopOptions(
        learning_rate=1.0, learning_rate_end=0.1, warmup=0, cycles=3
    )  # lengths 1, 2 and 4 sevenths
    for begin, length in ((0, 1), (1, 2), (3, 4)):
        assert learning_rate(begin / 7 + 1e-12, 9, three) == pytest.approx(1.0)
        assert learning_rate((begin + length / 2) / 7, 9, three) == pytest.approx(0.55)
        assert learning_rate((begin + length) / 7 - 1e-9, 9, three) == pytest.approx(0.1, abs=1e-6)


def test_one_seed_gives_one_result(tmp_path):
    a, outcome = run(tmp_path / "a")
    b, _ = run(tmp_path / "b")
    c, _ = run(tmp_path / "c", options=LoopOptions(**{**vars(OPTIONS), "seed": 1}))
    assert outcome.step == 12
    assert outcome.finished
    assert equal(a, b)
    assert not equal(a, c)


def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    through, _ = run(tmp_path / "through")
    folder = tmp_path / "killed"
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from tests.test_training import objective, run\ncalls = 0\n"
        "def deadly(model, generator):\n    global calls\n    calls += 1\n"
        "    if calls == 11: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return objective(model, generator)\n"
        f"run(Path({str(folder)!r}), objective=deadly)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert done.returncode == -signal.SIGKILL
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 10
    resumed, outcome = run(folder, resume=True)
    assert outcome.step == 12
    assert equal(through, resumed)
    steps = [line["step"] for line in training.read_metrics(folder)]
    assert steps == [2, 4, 6, 8, 10, 12]  # those of steps 9 and 10 are not repeated


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(tmp_path, number):
    calls = []

    def signaled(model, generator):
        calls.append(0)
        if len(calls) == 5:
            os.kill(os.getpid(), number)
        return objective(model, generator)

    before = signal.getsignal(number)
    _, outcome = run(tmp_path / "a", objective=signaled)
    assert not outcome.finished
    assert outcome.step == 5
    assert signal.getsignal(number) == before
    resumed, outcome = run(tmp_path / "a", resume=True)
    assert outcome.finished
    assert equal(resumed, run(tmp_path / "b")[0])


def test_what_cannot_be_resumed_is_refused(tmp_path):
    run(tmp_path / "a")
    with pytest.raises(ValueError, match="exists: resume that run, or give another folder"):
        run(tmp_path / "a")
    with pytest.raises(ValueError, match="a checkpoint of another model"):
        fit(nn.Linear(3, 1), objective, tmp_path / "a", OPTIONS, samples_per_step=16, resume=True)
    (tmp_path / "a" / CHECKPOINT).write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not a checkpoint"):
        run(tmp_path / "a", resume=True)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    with pytest.raises(FloatingPointError, match="the loss is nan at step 2"):
        run(tmp_path / "a", objective=lambda m, g: {"loss": objective(m, g)["loss"] * float("nan")})


def test_a_budget_in_minutes_ends_and_the_precision_is_mixed(tmp_path):
    precise = []

    def watched(model, generator):
        precise.append(torch.is_autocast_enabled("cpu"))
        return objective(model, generator)

    _, outcome = run(
        tmp_path / "a", options=LoopOptions(minutes=0.001, device="cpu"), objective=watched
    )
    assert outcome.finished
    assert 0 < outcome.step < LoopOptions().steps
    assert all(precise)


def test_evaluations_see_averaged_weights_and_are_drawn(tmp_path):
    seen = []

    def evaluate(model):
        seen.append([p.detach().clone() for p in model.parameters()])
        assert not model.training
        return {"error": 1.0 / len(seen)}

    model, outcome = run(tmp_path / "a", evaluate=evaluate)
    assert outcome.measures == {"error": pytest.approx(1 / 3)}
    assert all(torch.equal(a, b) for a, b in zip(seen[-1], model.parameters(), strict=True))
    with Image.open(tmp_path / "a" / CURVES) as image:
        assert image.size[0] > 300


def test_training_neurok_writes_weights_that_load(tmp_path):
    options = TrainOptions(
        out=tmp_path / "run",
        steps=2,
        batch=2,
        points=16,
        instances=1,
        families=("lever",),
        device="cpu",
    )
    path = train(options)
    assert path == tmp_path / "run" / WEIGHTS
    weights.load(path)
    card = weights.card(path)
    assert card["steps"] == 2
    assert card["data"]["families"] == ["lever"]
    again = train(
        replace(options, out=tmp_path / "again", steps=1, learning_rate=1e-12, start=str(path))
    )
    for a, b in zip(weights.load(path).parameters(), weights.load(again).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"TrainOptions.start: .* is not of the sizes of 'small' with displacement"
    ):
        train(replace(options, out=tmp_path / "other", deformation="displacement", start=str(path)))
    assert card["measures"]["held_out/point_error"] > 0
    with pytest.raises(ValueError, match=r"TrainOptions.families: got 'sofa'"):
        TrainOptions(families=("sofa",))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("optimizer/0/exp_avg", None, "lacks tensor 0/exp_avg"),
        ("optimizer/0/exp_avg", torch.zeros(2, 2), "has shape"),
        ("optimizer/1/exp_avg_sq", torch.full((8,), torch.nan), "not finite"),
        ("optimizer/1/exp_avg_sq", torch.full((8,), -1.0), "negative"),
        ("optimizer/9/step", torch.zeros(()), "unknown tensor 9/step"),
        ("average/0.bias", torch.full((8,), torch.inf), "not finite"),
        ("average/0.bias", None, "lacks tensor 0.bias"),
        ("model/0.bias", torch.zeros(8, dtype=torch.int32), "not finite numbers"),
    ],
)
def test_checkpoints_with_faulty_tensors_are_refused(tmp_path, key, value, words):
    run(tmp_path / "a")
    path = tmp_path / "a" / CHECKPOINT
    with safe_open(path, "pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        header = file.metadata()
    if value is None:
        del tensors[key]
    else:
        tensors[key] = value
    path.write_bytes(save(tensors, header))
    with pytest.raises(ValueError, match=words):
        run(tmp_path / "a", resume=True)
