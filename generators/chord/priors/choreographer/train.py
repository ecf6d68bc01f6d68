"""Training of the choreographer on procedural scenes with templated sentences.

Scenes 0, 1, 2, ... of every kind are trained on. The exam uses held-out scenes, with objects and
sentences that are never trained on: the error of the network's prediction from noise alone,
relative to "nothing moves", and compared with its prediction from a wrong sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from accelerate import PartialState
from torch import Tensor, nn

from flowplan.motion import Progress, silent
from generators.chord.priors.choreographer import weights
from generators.chord.priors.choreographer.config import ChoreographerConfig
from generators.chord.priors.choreographer.data import SceneTable, sample, stored_scenes
from generators.chord.priors.choreographer.model import VideoTransformer, flow_loss
from generators.chord.priors.choreographer.render import random_cameras, render
from generators.chord.priors.choreographer.scenes import scenes
from generators.chord.priors.choreographer.train_options import TrainOptions
from generators.common import text_encoder
from generators.common.train_options import LoopOptions
from generators.common.training import cpu_only, fit, hardware

WEIGHTS = "weights.safetensors"
EXAM_SCENES = 8
"""Held-out scenes of each kind."""


def train(options: TrainOptions, progress: Progress = silent) -> Path:
    """Train, and write the averaged weights.

    On SIGINT or SIGTERM it writes the weights so far, and a checkpoint to resume from.

    Returns:
        Path of the weights file.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    kinds = {k: scenes.KINDS[k] for k in options.kinds or scenes.KINDS if scenes.KINDS[k] > 0}
    state = PartialState(cpu=cpu_only(options.device))
    progress = progress if state.is_main_process else silent
    # The main process builds the tables of scenes, the others read them.
    with state.main_process_first():
        learned = [_table(kind, often, options, progress) for kind, often in kinds.items()]
        exam = Exam(options.config, list(kinds), options, state.device, progress)
    # Every process starts with the same weights.
    torch.manual_seed(options.seed)
    model = _network(options)
    loop = LoopOptions(
        steps=options.steps,
        minutes=options.minutes,
        learning_rate=options.learning_rate,
        learning_rate_end=options.learning_rate / 100,
        log_every=50,
        evaluate_every=500,
        seed=options.seed,
        device=options.device,
    )
    outcome = fit(
        model,
        _objective(
            options, [t.to(state.device) for t in learned], torch.tensor(list(kinds.values()))
        ),
        options.out,
        loop,
        samples_per_step=options.batch,
        evaluate=exam,
        resume=options.resume,
        progress=progress,
    )
    path = options.out / WEIGHTS
    if state.is_main_process:
        # Averaged weights, with a card of what made them.
        measures = outcome.measures or exam(model)
        card = {
            "data": {
                "scenes": {t.kind: len(t) for t in learned},
                "sentences": _count_sentences(learned),
            },
            "options": {
                k: v
                for k, v in asdict(options).items()
                if k not in ("out", "config", "start", "resume", "threads")
            },
            "started_from": options.start and Path(options.start).name,
            "steps": outcome.step,
            "minutes": round(outcome.seconds / 60, 1),
            "finished": outcome.finished,
            "hardware": hardware(state.device, state.num_processes),
            "measures": {k: round(v, 5) for k, v in measures.items()},
        }
        weights.save(path, model, card)
    state.wait_for_everyone()
    return path


def _table(kind: str, often: float, options: TrainOptions, progress: Progress) -> SceneTable:
    seeds = range(max(1, round(often * options.scenes)))
    return stored_scenes(
        kind,
        seeds,
        split="train",
        points=options.points,
        folder=options.out,
        progress=_building(progress),
    )


def _building(progress: Progress) -> Progress:
    """Progress of a preparation, as a message only: the bar belongs to the training."""
    return lambda fraction, word: progress(0.0, f"{word} ({fraction:.0%})")


def _network(options: TrainOptions) -> VideoTransformer:
    """The network to train: new, or with the weights of `options.start`."""
    if options.start is None:
        return VideoTransformer(options.config)
    model = weights.load(options.start)
    if model.config != options.config:
        raise ValueError(
            f"TrainOptions.start: {options.start} has other sizes; "
            "give the config it was trained with"
        )
    return model.train()


class Exam:
    """Errors of predictions on fixed videos of held-out scenes."""

    def __init__(
        self,
        config: ChoreographerConfig,
        kinds: Sequence[str],
        options: TrainOptions,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self._kinds, self._device = kinds, device
        videos, firsts, texts, wrong = [], [], [], []
        generator = torch.Generator().manual_seed(0)
        seeds = range(EXAM_SCENES)
        for kind in kinds:
            table = stored_scenes(
                kind,
                seeds,
                split="held_out",
                points=options.points,
                folder=options.out,
                progress=_building(progress),
            )
            # One video a scene from a random camera, with its own sentence and a wrong one.
            every = torch.arange(len(table))
            seen = render(
                table.scenes(every),
                random_cameras(len(table), config.size, generator),
                config.sharpness,
            )
            videos.append(seen.video.half())
            firsts.append(seen.first.half())
            texts.append(table.text(table.tables["said"][:, 0].long()))
            asked = [scenes.draw(kind, seed, split="held_out", paraphrased=True) for seed in seeds]
            wrong.append(
                text_encoder.embed(
                    [scenes.wrong_text(p, seed) for p, seed in zip(asked, seeds, strict=True)]
                )
            )
        self._parts = tuple(map(torch.cat, (videos, firsts, texts, wrong)))
        self._noise = torch.randn(self._parts[0].shape[1:], generator=generator)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Squared errors relative to those of "nothing moves".

        `held_out/ratio` is of all scenes with their own sentences, `held_out/wrong_text` with wrong
        ones, and `ratio/KIND` of one kind.
        """
        network = cast(VideoTransformer, model)
        errors = [
            self._errors(network, *(x.to(self._device) for x in part))
            for part in zip(*(x.split(12) for x in self._parts), strict=True)
        ]
        right, wrong, still = torch.cat(errors, dim=1).cpu()
        # Errors summed by kind, relative to a still scene's.
        of = torch.arange(len(self._kinds)).repeat_interleave(EXAM_SCENES)
        sums = torch.zeros(3, len(self._kinds)).index_add_(
            1, of, torch.stack([right, wrong, still])
        )
        ratio = sums[0] / sums[2].clamp(min=1e-9)
        out = {f"ratio/{kind}": r for kind, r in zip(self._kinds, ratio.tolist(), strict=True)}
        out["held_out/ratio"] = ratio.mean().item()
        out["held_out/wrong_text"] = (sums[1] / sums[2].clamp(min=1e-9)).mean().item()
        return out

    @torch.no_grad()
    def _errors(
        self, model: VideoTransformer, video: Tensor, first: Tensor, right: Tensor, wrong: Tensor
    ) -> Tensor:
        """Mean squared errors (3, B): right sentence, wrong sentence, and nothing moves."""
        # From noise alone, at level 1.
        z = model.encode(video.float())
        tau = torch.ones(len(z), device=z.device)
        noise = self._noise.to(z.device).expand_as(z)
        with torch.autocast(z.device.type, torch.bfloat16):
            guesses = [model(noise, tau, first.float(), said, tau > 0) for said in (right, wrong)]
        return torch.stack(
            [(g - z).square().flatten(1).mean(1) for g in (*guesses, torch.zeros_like(z))]
        )


def _objective(
    options: TrainOptions, tables: Sequence[SceneTable], often: Tensor
) -> Callable[[nn.Module, torch.Generator], Mapping[str, Tensor]]:
    """The loss of a random batch."""
    compare = torch.compile(flow_loss) if options.compile else flow_loss

    def objective(model: nn.Module, generator: torch.Generator) -> Mapping[str, Tensor]:
        with torch.autocast(generator.device.type, enabled=False):
            videos = sample(tables, often, options.batch, options.config, generator)
        # Noise comes from torch's global generator, which the loop seeds too: a compiled graph
        # cannot take a generator.
        loss, ratio = compare(
            cast(VideoTransformer, model), videos.video, videos.first, videos.text, options.loss
        )
        return {"loss": loss, "ratio": ratio}

    return objective


def _count_sentences(tables: Sequence[SceneTable]) -> int:
    return len({sentence for table in tables for sentence in table.sentences})
