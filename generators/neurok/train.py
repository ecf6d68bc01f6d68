"""Training of NeuROK on procedural objects, and on recorded clips if given (4.2, C.3).

Objects 0, 1, 2, ... of every family but the held-out ones are trained on; the instances from
HELD_OUT_SEED on are those of the evaluations, and never trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from torch import Tensor, nn

import generators
from flowplan.motion import Progress, silent
from generators.common.train_options import LoopOptions
from generators.common.training import Objective, Outcome, cpu_only, fit, hardware
from generators.data.clips.clip import Clip
from generators.data.clips.clip_store import ClipStore
from generators.data.object_store import ArticulatedStore, StoreOptions
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.families import HELD_OUT_SEED, make, trained_families
from generators.data.pose_pairs import AugmentOptions, Mixture, PosePairs, Store, augment
from generators.neurok.network import weights
from generators.neurok.network.config import PAPER, SMALL
from generators.neurok.network.model import LossOptions, Neurok, elbo, moved, target
from generators.neurok.train_options import TrainOptions

WEIGHTS = "weights.safetensors"
AUGMENT = {
    "aligned": AugmentOptions(
        scale=(0.85, 1.15), yaw=(-10.0, 10.0), quarter_turns=True, translation=0.05
    ),
    "table7": AugmentOptions(),
    "none": AugmentOptions(scale=(1.0, 1.0), yaw=(0.0, 0.0), translation=0.0),
}
"""Variations of a pair. A network used through `LatentSpace` sees objects in their own normalized
frame, aligned up to quarter turns: "aligned" covers that with the errors of scans, and at equal
    steps
it learns more than "table7"."""

_CONFIGS = {"small": SMALL, "paper": PAPER}
_HELD_OUT_INSTANCES = 6  # of each family, for the measures during training
_EXAM_BATCH = 64
_NOT_IN_CARD = ("out", "start", "resume", "threads")


def train(
    options: TrainOptions, progress: Progress = silent, *, clips: Sequence[Clip] = ()
) -> Path:
    """Train, and write the averaged weights.

    Interrupted by SIGINT or SIGTERM it writes the weights so far, and a checkpoint to resume from.

    Returns:
        Path of the weights file.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    families = options.families or trained_families()
    state = PartialState(cpu=cpu_only(options.device))
    progress = progress if state.is_main_process else silent

    # Data: built once, by one process.
    held_out_seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + _HELD_OUT_INSTANCES)
    with state.main_process_first():
        store, held_out = (
            stored_objects(
                families,
                seeds,
                folder=options.out,
                scan_share=options.scan_share,
                progress=progress,
            )
            for seeds in (range(options.instances), held_out_seeds)
        )

    torch.manual_seed(options.seed)
    model = _network(options)
    exam = Exam(held_out, options.points, state.device)
    outcome = fit(
        model,
        _objective(options, store.to(state.device), clips),
        options.out,
        LoopOptions(
            steps=options.steps,
            minutes=options.minutes,
            learning_rate=options.learning_rate,
            learning_rate_end=options.learning_rate / 100,
            cycles=options.cycles,
            seed=options.seed,
            device=options.device,
        ),
        samples_per_step=options.batch,
        evaluate=exam,
        resume=options.resume,
        progress=progress,
    )
    path = options.out / WEIGHTS
    if state.is_main_process:
        card = _card(options, families, len(clips), outcome)
        card["hardware"] = hardware(state.device, state.num_processes)
        measures = outcome.measures or exam(model)
        card["measures"] = {k: round(v, 5) for k, v in measures.items()}
        weights.save(path, model, card)
    state.wait_for_everyone()
    return path


def _card(
    options: TrainOptions, families: Sequence[str], clips: int, outcome: Outcome
) -> dict[str, Any]:
    """Card of the weights: data, options and duration."""
    return {
        "data": {"families": list(families), "instances": options.instances, "clips": clips},
        "options": {k: v for k, v in asdict(options).items() if k not in _NOT_IN_CARD},
        "started_from": options.start and Path(options.start).name,
        "steps": outcome.step,
        "minutes": round(outcome.seconds / 60, 1),
        "finished": outcome.finished,
    }


def _network(options: TrainOptions) -> Neurok:
    """The network to train: new, or with the weights of `options.start`."""
    config = replace(_CONFIGS[options.config], deformation=options.deformation)
    if options.start is None:
        return Neurok(config)
    model = weights.load(options.start)
    if model.config != config:
        raise ValueError(
            f"TrainOptions.start: {options.start} is not of the sizes of {options.config!r} with "
            f"{options.deformation}; give the config and deformation that it was trained with"
        )
    return model.train()


def stored_objects(
    families: Sequence[str],
    seeds: range,
    *,
    folder: Path,
    options: StoreOptions | None = None,
    scan_share: float = 0.5,
    progress: Progress = silent,
) -> ArticulatedStore:
    """A store of objects, kept in `folder` so that it is built once.

    The file's name contains a digest of its content and of the code that makes it.

    Args:
        families: of the objects.
        seeds: of the objects of each family.
        folder: of the file.
        options: see StoreOptions.
        scan_share: share of the pairs whose first pose is seen as by depth cameras.
        progress: called while the store is built.
    """
    options = options or StoreOptions()
    digest = hashlib.sha256(repr((tuple(families), seeds, options)).encode())
    here = Path(generators.__file__).parent
    sources = [
        *(here / "data/objects").rglob("*.py"),
        here / "data/object_store.py",
        here / "data/visibility.py",
    ]
    for source in sorted(sources):
        digest.update(source.read_bytes())
    path = folder / f"objects-{digest.hexdigest()[:12]}.safetensors"
    if path.exists():
        return ArticulatedStore.load(path, scan_share=scan_share)

    def objects() -> Iterator[ArticulatedObject]:
        for family in families:
            for seed in seeds:
                yield replace(make(family, seed), name=family)

    store = ArticulatedStore.build(
        objects(),
        options,
        seed=seeds.start,
        scan_share=scan_share,
        count=len(families) * len(seeds),
        # The bar is that of the training; this shows only the text.
        progress=lambda fraction, word: progress(0.0, f"{word} ({fraction:.0%})"),
    )
    store.save(path)
    return store


class Exam:
    """Measures on the same pairs of held-out instances every time."""

    def __init__(
        self, store: ArticulatedStore, points: int, device: torch.device, *, draws: int = 4
    ) -> None:
        generator = torch.Generator().manual_seed(HELD_OUT_SEED)
        objects = torch.arange(len(store.names)).repeat_interleave(draws)
        self._families = [store.names[i] for i in objects.tolist()]
        self._pairs = store.draw(objects, points, generator).to(device)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Errors of reconstructed points, and those of the identity ("nothing moves").

        Returns:
            `held_out/point_error` and `held_out/identity`, normalized units, their
            `held_out/ratio`, and the ratio for each family, `ratio/FAMILY`.
        """
        pairs = self._pairs
        identity = (pairs.moved - pairs.points).norm(dim=-1).mean(1)  # (B,)
        parts = _split(pairs, _EXAM_BATCH)
        error = torch.cat([_errors(cast(Neurok, model), part) for part in parts])  # (B,)
        out = {
            "held_out/point_error": error.mean().item(),
            "held_out/identity": identity.mean().item(),
        }
        out["held_out/ratio"] = out["held_out/point_error"] / out["held_out/identity"]
        for family in dict.fromkeys(self._families):
            mine = torch.tensor([f == family for f in self._families], device=error.device)
            ratio = error[mine].sum() / identity[mine].sum().clamp(min=1e-9)
            out[f"ratio/{family}"] = ratio.item()
        return out


@torch.no_grad()
def _errors(model: Neurok, pairs: PosePairs) -> Tensor:
    """Mean distances (B,) of points decoded from the posterior's mean to their true places."""
    with torch.autocast(pairs.points.device.type, torch.bfloat16):
        mean, _ = model.posterior(pairs.points, target(model.config, pairs))
        deformation = model.decode(mean, pairs.points, model.encode_shape(pairs.points))
    return (moved(pairs.points, deformation.float()) - pairs.moved).norm(dim=-1).mean(1)


def _split(pairs: PosePairs, size: int) -> Iterator[PosePairs]:
    """Batches of at most `size` pairs."""
    parts = (x.split(size) for x in (pairs.points, pairs.moved, pairs.quat_wxyz))
    for part in zip(*parts, strict=True):
        yield PosePairs(*part)


def _objective(options: TrainOptions, store: ArticulatedStore, clips: Sequence[Clip]) -> Objective:
    """Losses of a random batch."""
    source: Store = store.favoring(options.favor) if options.favor else store
    if clips:
        recorded = ClipStore.build(clips, seed=options.seed).to(store.device)
        source = Mixture((store, recorded), (1 - options.clip_share, options.clip_share))
    vary = replace(AUGMENT[options.augment], jitter=options.jitter)
    loss = LossOptions(kl_weight=options.kl_weight, balance=options.balance)
    compare = torch.compile(elbo) if options.compile else elbo

    def objective(model: nn.Module, generator: torch.Generator) -> Mapping[str, Tensor]:
        with torch.autocast(store.device.type, enabled=False):
            pairs = source.sample(options.batch, options.points, generator)
            pairs = augment(pairs, generator, vary)
        # Noise from torch's own generator, which the loop seeds too: a compiled graph takes none.
        losses = compare(cast(Neurok, model), pairs, None, loss)
        return {
            "loss": losses.total,
            "reconstruction": losses.reconstruction,
            "kl": losses.kl,
            "point_error": losses.point_error,
        }

    return objective
