"""Wan 2.2 as a video prior, from a folder or from the hub: nothing is loaded before it is known to fit."""

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
    """The prior of a folder of weights, or of a repository on the hub such as Wan-AI/Wan2.2-TI2V-5B-Diffusers.

    The networks themselves are read as they are needed: the VAE here, the text encoder with the first sentence and
    then freed, an expert when its noise levels come.

    Args:
        device: in place of that of the options. "auto" keeps theirs.

    Raises:
        ValueError: no such folder, not a model that takes a first frame, not such a size, no such device, or too little
            memory on it; one line.
    """
    options = options or WanOptions()
    if device != "auto":
        options = replace(options, device=device)
    folder = find(weights)
    if folder is not None:  # what is wrong with it is told on any machine
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
