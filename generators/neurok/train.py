"""Training NeuROK on procedural objects, and on recorded clips where given (section 4.2, appendix C.3).

Objects 0, 1, 2, ... of every family but the held-out ones are what is learned; the instances from HELD_OUT_SEED on are
what the evaluations ask about, and are never trained on.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch
from accelerate import PartialState
from torch import Tensor, nn

import generators
from flowplan.motion import Progress, silent
from flowplan.utils import checks
from generators.common.training import LoopOptions, fit
from generators.data.clips.clip import Clip
from generators.data.clips.clip_store import ClipStore
from generators.data.object_store import ArticulatedStore, StoreOptions
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.families import FAMILIES, HELD_OUT_SEED, make, trained_families
from generators.data.pose_pairs import AugmentOptions, Mixture, PosePairs, Store, augment
from generators.neurok.network import weights
from generators.neurok.network.config import PAPER, SMALL
from generators.neurok.network.model import LossOptions, Neurok, elbo, moved, target

WEIGHTS = "weights.safetensors"
_CONFIGS = {"small": SMALL, "paper": PAPER}
AUGMENT = {
    "aligned": AugmentOptions(
        scale=(0.85, 1.15), yaw=(-10.0, 10.0), quarter_turns=True, translation=0.05
    ),
    "table7": AugmentOptions(),
    "none": AugmentOptions(scale=(1.0, 1.0), yaw=(0.0, 0.0), translation=0.0),
}
"""Variations of a pair. A network used through `LatentSpace` meets objects in their own normalised frame, aligned up to
quarter turns: "aligned" covers that with what scans get wrong, and at equal steps it learns more than "table7"."""


@dataclass(frozen=True)
class TrainOptions:
    """What to train, on what, and for how long."""

    out: Path = Path("runs/neurok")
    """Folder of the checkpoint, metrics, curves, objects and final weights."""
    config: Literal["small", "paper"] = "small"
    """Size of the network."""
    deformation: Literal["dual_quaternion", "displacement"] = "dual_quaternion"
    """What the network predicts; displacement is an ablation."""
    steps: int = 100_000
    """Steps to take."""
    minutes: float | None = None
    """Wall-clock budget; the learning rate falls to its end over it."""
    batch: int = 32
    """Pairs of a step and process."""
    points: int = 256
    """Surface points of a pair."""
    learning_rate: float = 2e-4
    """Highest learning rate. At 5e-4 and more the small network does not learn at all."""
    cycles: int = 1
    """Warm restarts of the cosine, and one."""
    kl_weight: float = 0.01
    """Weight of the KL divergence, averaged over latent dimensions."""
    families: tuple[str, ...] = ()
    """Families to learn; all but the held-out ones where empty."""
    favour: tuple[str, ...] = ()
    """Families to draw oftener, such as those that come out worst: each mention doubles a family's chance."""
    instances: int = 100
    """Objects of each family."""
    scan_share: float = 0.5
    """Share of the pairs whose first pose is seen as by depth cameras."""
    clip_share: float = 0.2
    """Share of the pairs that come from clips, where there are clips."""
    augment: Literal["aligned", "table7", "none"] = "aligned"
    """How size, heading and place vary: as boxes aligned by `box_yaw` do, as in Table 7, or not at all (ablation)."""
    balance: float | None = 0.3
    """See LossOptions; None for the paper's loss."""
    jitter: float = 0.01
    """Largest standard deviation of the points' noise, normalised units."""
    seed: int = 0
    """Of every random choice."""
    threads: int = 0
    """Threads of a processor; torch's own choice where 0."""
    start: str | None = None
    """Weights to begin with (a name among those that ship, or a file), of the same sizes; chance where not given."""
    resume: bool = False
    """Go on from the folder's checkpoint."""
    compile: bool = False
    """Compile the loss first: minutes, and then steps take two thirds of the time (needs a C++ compiler)."""
    cpu: bool = not torch.cuda.is_available()
    """Train on processors, even where there is a GPU."""

    def __post_init__(self) -> None:
        checks.choice("TrainOptions.config", self.config, tuple(_CONFIGS))
        checks.choice("TrainOptions.augment", self.augment, tuple(AUGMENT))
        for name in ("batch", "points", "instances"):
            checks.positive(f"TrainOptions.{name}", getattr(self, name))
        for family in self.families:
            checks.choice("TrainOptions.families", family, tuple(FAMILIES))
        for family in self.favour:
            checks.choice("TrainOptions.favour", family, self.families or trained_families())


def train(
    options: TrainOptions, progress: Progress = silent, *, clips: Sequence[Clip] = ()
) -> Path:
    """Train and write the averaged weights: the path of the weights file.

    Interrupted by SIGINT or SIGTERM it writes the weights so far, and a checkpoint to resume from.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    families = options.families or trained_families()
    state = PartialState(cpu=options.cpu)
    progress = progress if state.is_main_process else silent
    with state.main_process_first():
        store = stored_objects(
            families,
            range(options.instances),
            folder=options.out,
            scan_share=options.scan_share,
            progress=progress,
        )
        held_out = stored_objects(
            families,
            range(HELD_OUT_SEED, HELD_OUT_SEED + 6),
            folder=options.out,
            scan_share=options.scan_share,
            progress=progress,
        )
    torch.manual_seed(options.seed)
    model = _network(options)
    exam = Exam(held_out, options.points, state.device)
    loop = LoopOptions(
        steps=options.steps,
        minutes=options.minutes,
        learning_rate=options.learning_rate,
        learning_rate_end=options.learning_rate / 100,
        cycles=options.cycles,
        seed=options.seed,
        cpu=options.cpu,
    )
    outcome = fit(
        model,
        _objective(options, store.to(state.device), clips),
        options.out,
        loop,
        samples_per_step=options.batch,
        evaluate=exam,
        resume=options.resume,
        progress=progress,
    )
    path = options.out / WEIGHTS
    if state.is_main_process:
        measures = outcome.measures or exam(model)
        card = {
            "data": {
                "families": list(families),
                "instances": options.instances,
                "clips": len(clips),
            },
            "options": {
                k: v
                for k, v in asdict(options).items()
                if k not in ("out", "start", "resume", "threads")
            },
            "started_from": options.start and Path(options.start).name,
            "steps": outcome.step,
            "minutes": round(outcome.seconds / 60, 1),
            "finished": outcome.finished,
            "hardware": _hardware(state.device, state.num_processes),
            "measures": {k: round(v, 5) for k, v in measures.items()},
        }
        weights.save(path, model, card)
    state.wait_for_everyone()
    return path


def _network(options: TrainOptions) -> Neurok:
    """The network to train: new, or with the weights of `options.start`."""
    config = replace(_CONFIGS[options.config], deformation=options.deformation)
    if options.start is None:
        return Neurok(config)
    model = weights.load(options.start)
    if model.config != config:
        raise ValueError(
            f"TrainOptions.start: {options.start} is not of the sizes of {options.config!r} with {options.deformation}; "
            "give the config and deformation that it was trained with"
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
    """A store of some objects of some families, kept in `folder` so that it is built once.

    The file's name holds a digest of what is in it and of the code that makes it.
    """
    options = options or StoreOptions()
    digest = hashlib.sha256(repr((tuple(families), seeds, options)).encode())
    here = Path(generators.__file__).parent
    for source in sorted(
        [
            *(here / "data/objects").rglob("*.py"),
            here / "data/object_store.py",
            here / "data/visibility.py",
        ]
    ):
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
        # The bar is the training's own; this only tells what is happening.
        progress=lambda fraction, word: progress(0.0, f"{word} ({fraction:.0%})"),
    )
    store.save(path)
    return store


class Exam:
    """The same pairs of held-out instances every time: how far reconstructed points are off, beside "nothing moves"."""

    def __init__(
        self, store: ArticulatedStore, points: int, device: torch.device, *, draws: int = 4
    ) -> None:
        generator = torch.Generator().manual_seed(HELD_OUT_SEED)
        objects = torch.arange(len(store.names)).repeat_interleave(draws)
        self._families = [store.names[i] for i in objects.tolist()]
        self._pairs = store.draw(objects, points, generator).to(device)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """`held_out/point_error` and `held_out/identity`, normalised units, and `ratio/FAMILY` of the two."""
        pairs = self._pairs
        identity = (pairs.moved - pairs.points).norm(dim=-1).mean(1)
        error = torch.cat([_errors(cast(Neurok, model), part) for part in _split(pairs, 64)])
        out = {
            "held_out/point_error": error.mean().item(),
            "held_out/identity": identity.mean().item(),
        }
        out["held_out/ratio"] = out["held_out/point_error"] / out["held_out/identity"]
        for family in dict.fromkeys(self._families):
            mine = torch.tensor([f == family for f in self._families], device=error.device)
            out[f"ratio/{family}"] = (
                error[mine].sum() / identity[mine].sum().clamp(min=1e-9)
            ).item()
        return out


@torch.no_grad()
def _errors(model: Neurok, pairs: PosePairs) -> Tensor:
    """(B,) mean distance of the points decoded from the posterior's mean to where they should be."""
    with torch.autocast(pairs.points.device.type, torch.bfloat16):
        mean, _ = model.posterior(pairs.points, target(model.config, pairs))
        deformation = model.decode(mean, pairs.points, model.encode_shape(pairs.points))
    return (moved(pairs.points, deformation.float()) - pairs.moved).norm(dim=-1).mean(1)


def _split(pairs: PosePairs, size: int) -> Iterator[PosePairs]:
    for part in zip(
        pairs.points.split(size), pairs.moved.split(size), pairs.quat_wxyz.split(size), strict=True
    ):
        yield PosePairs(*part)


def _objective(
    options: TrainOptions, store: ArticulatedStore, clips: Sequence[Clip]
) -> Callable[[nn.Module, torch.Generator], Mapping[str, Tensor]]:
    """Draw a batch and compare it with what the network makes of it."""
    source: Store = store.favouring(options.favour) if options.favour else store
    if clips:
        recorded = ClipStore.build(clips, seed=options.seed).to(store.device)
        source = Mixture((store, recorded), (1 - options.clip_share, options.clip_share))
    vary = replace(AUGMENT[options.augment], jitter=options.jitter)
    loss = LossOptions(kl_weight=options.kl_weight, balance=options.balance)
    compare = torch.compile(elbo) if options.compile else elbo

    def objective(model: nn.Module, generator: torch.Generator) -> Mapping[str, Tensor]:
        with torch.autocast(store.device.type, enabled=False):
            pairs = augment(
                source.sample(options.batch, options.points, generator), generator, vary
            )
        # Noise from torch's own generator, which the loop seeds too: a compiled graph cannot take one.
        losses = compare(cast(Neurok, model), pairs, None, loss)
        return {
            "loss": losses.total,
            "reconstruction": losses.reconstruction,
            "kl": losses.kl,
            "point_error": losses.point_error,
        }

    return objective


def _hardware(device: torch.device, processes: int) -> str:
    if device.type == "cuda":
        return f"{processes} x {torch.cuda.get_device_name(device)}"
    return f"{platform.machine()} processor, {torch.get_num_threads()} of {os.cpu_count()} cores"
