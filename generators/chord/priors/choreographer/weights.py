"""The choreographer's weights as safetensors files.

`save`, `load` and `card` are those of `generators.common.weights_file.WeightsFile`.
"""

from __future__ import annotations

from generators.chord.priors.choreographer.config import ChoreographerConfig
from generators.chord.priors.choreographer.model import VideoTransformer
from generators.common.weights_file import WeightsFile

FILE: WeightsFile[VideoTransformer] = WeightsFile(
    "choreographer", "flowplan choreographer", 1, ChoreographerConfig, VideoTransformer
)
"""The format of the files."""

save, load, card = FILE.save, FILE.load, FILE.card
