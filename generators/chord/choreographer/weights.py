"""The choreographer's weights as safetensors files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from generators.chord.choreographer.config import ChoreographerConfig
from generators.chord.choreographer.model import VideoTransformer
from generators.common.weights_file import FOLDER, WeightsFile

_FILE = WeightsFile("choreographer", "flowplan choreographer", 1, ChoreographerConfig, VideoTransformer)


def save(
    path: Path | str, model: VideoTransformer, card: dict[str, Any], *, dtype: torch.dtype = torch.bfloat16
) -> Path:
    """Write a network and its card; see `WeightsFile.save`."""
    return _FILE.save(path, model, card, dtype=dtype)


def load(name_or_path: Path | str) -> VideoTransformer:
    """The network of a file, or of a name among those that ship; see `WeightsFile.load`."""
    return _FILE.load(name_or_path, FOLDER)


def card(name_or_path: Path | str) -> dict[str, Any]:
    """What `save` was told about the network of a file or name."""
    return _FILE.card(name_or_path, FOLDER)
