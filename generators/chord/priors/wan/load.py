"""Wan 2.2 as a video prior, from a folder or from the hub: nothing is loaded before it is known to
fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from generators.chord.priors.wan.folder import check_files, describe, download, find
from generators.chord.priors.wan.memory import free_memory, settle
from generators.chord.priors.wan.options import WanOptions
from generators.chord.priors.wan.parts import FolderParts
from generators.chord.priors.wan.prior import WanPrior, size


def load(
    weights: str | Path, options: WanOptions | None = None, *, device: str = "auto"
) -> WanPrior:
    """The prior of a folder of weights, or of a repository on the hub.

    The networks are read when they are needed: the VAE here, the text encoder for the first
    sentence (and then freed), an expert when its noise levels come.

    Args:
        weights: folder, or name of a repository such as Wan-AI/Wan2.2-TI2V-5B-Diffusers.
        options: see WanOptions.
        device: overrides the device of the options, unless it is "auto".

    Raises:
        ValueError: for a missing folder, a model without first frame, an impossible size, a missing
            device, or too little memory on it.
    """
    options = options or WanOptions()
    if device != "auto":
        options = replace(options, device=device)
    folder = find(weights)
    if folder is not None:  # its mistakes are reported on any machine
        config = describe(folder)
        check_files(folder, config)
    free = free_memory(options.device)
    if folder is None:
        config = describe(download(str(weights)))
    size(config, options)
    forget = settle(config, options, free)
    if folder is None:
        folder = download(str(weights), config)
        check_files(folder, config)
    return WanPrior(config, FolderParts(folder, options), options, forget=forget)
