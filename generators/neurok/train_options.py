"""Options of NeuROK's training, apart from the code so that reading them does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from flowplan.utils import checks
from flowplan.utils.bounds import Interval
from generators.common import train_options

Share = Annotated[float, Interval(0, 1)]


@dataclass(frozen=True)
class TrainOptions(train_options.TrainOptions):
    """Network, data and duration of a training."""

    out: Path = Path("runs/neurok")
    """Folder of the checkpoint, metrics, curves, objects and final weights."""
    batch: Annotated[int, Interval(1, 10**6)] = 32
    """Pairs per step and process."""
    learning_rate: Annotated[float, Interval(1e-15, 1)] = 2e-4
    """Highest learning rate. At 5e-4 and more the small network does not learn."""
    config: Literal["small", "paper"] = "small"
    """Size of the network."""
    deformation: Literal["dual_quaternion", "displacement"] = "dual_quaternion"
    """Output of the network; displacement is an ablation."""
    points: Annotated[int, Interval(1, 10**6)] = 256
    """Surface points of a pair."""
    cycles: Annotated[int, Interval(1, 1000)] = 1
    """Number of cosines of the learning rate (warm restarts, plus one)."""
    kl_weight: Annotated[float, Interval(0, 1000)] = 0.01
    """Weight of the KL divergence, averaged over latent dimensions."""
    families: tuple[str, ...] = ()
    """Families to learn. Defaults to all but the held-out ones."""
    favor: tuple[str, ...] = ()
    """Families to draw more often, such as those with the largest errors: each mention doubles a
    family's probability."""
    instances: Annotated[int, Interval(1, 10**6)] = 100
    """Objects of each family."""
    scan_share: Share = 0.5
    """Share of the pairs whose first pose is seen as by depth cameras."""
    clip_share: Share = 0.2
    """Share of the pairs that come from clips, if there are clips."""
    augment: Literal["aligned", "table7", "none"] = "aligned"
    """Variation of size, yaw and place: as of boxes aligned by `box_yaw`, as in Table 7, or none
    (ablation)."""
    balance: Annotated[float, Interval(1e-6, 1000)] | None = 0.3
    """See `LossOptions`; None for the paper's loss."""
    jitter: Annotated[float, Interval(0, 1)] = 0.01
    """Largest standard deviation of the points' noise, normalized units."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.families and not self.favor:
            return
        # Imported here: it takes all families of objects.
        from generators.data.objects.families import FAMILIES, trained_families

        for family in self.families:
            checks.choice("TrainOptions.families", family, tuple(FAMILIES))
        for family in self.favor:
            checks.choice("TrainOptions.favor", family, self.families or trained_families())
