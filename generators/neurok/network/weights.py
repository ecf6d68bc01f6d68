"""NeuROK's weights as safetensors files: `save`, `load` and `card` are those of `WeightsFile`."""

from __future__ import annotations

from generators.common.weights_file import WeightsFile
from generators.neurok.network.config import NeurokConfig
from generators.neurok.network.model import Neurok

FILE: WeightsFile[Neurok] = WeightsFile("NeuROK", "flowplan neurok", 1, NeurokConfig, Neurok)
"""File format of the weights."""

save, load, card = FILE.save, FILE.load, FILE.card
