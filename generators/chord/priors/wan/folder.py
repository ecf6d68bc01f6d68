"""Wan's weights on disk or on the hub: located, checked and described before any is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flowplan.utils import text_files
from flowplan.utils.files import inside
from generators.chord.priors.wan.config import WanConfig
from generators.chord.priors.wan.parts import EXPERTS

KNOWN = "Wan-AI/Wan2.2-I2V-A14B-Diffusers or Wan-AI/Wan2.2-TI2V-5B-Diffusers"
_SMALL = ["model_index.json", "*/config.json", "tokenizer/*"]
_WEIGHTS = {
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}


def find(weights: str | Path) -> Path | None:
    """The folder of that name, or None for the name of a repository on the hub.

    Raises:
        ValueError: if it can be neither.
    """
    folder = Path(weights).expanduser()
    if folder.is_dir():
        return folder
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", str(weights)):
        return None
    raise ValueError(
        f"weights: no folder {folder}; expected one with Wan's weights, or {KNOWN} "
        "to get them from the hub"
    )


def download(repository: str, config: WanConfig | None = None) -> Path:
    """Download files of a repository on the hub into its cache.

    Args:
        repository: its name.
        config: download the weights of this model. Defaults to the files that describe the model.

    Raises:
        ValueError: if they are not available.
    """
    from huggingface_hub import snapshot_download

    files = _SMALL
    if config is not None:
        files = [f"{part}/*.{kind}" for part in parts(config) for kind in ("safetensors", "json")]
    try:
        return Path(snapshot_download(repository, allow_patterns=files))
    except Exception as error:  # the hub's client raises its own, its transport's and the system's
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"weights: no folder {repository} here, and it cannot be had from the hub ({reason}); "
            f"give a local folder, or {KNOWN} and a connection"
        ) from None


def parts(config: WanConfig) -> tuple[str, ...]:
    """Folders of the model's weights."""
    experts = EXPERTS[:1] if config.token_levels else EXPERTS
    return (*experts, "vae", "text_encoder")


def describe(folder: Path) -> WanConfig:
    """The model in a folder, from its small files.

    Raises:
        ValueError: for an incomplete folder, or one without a Wan 2.2 that takes a first frame.
    """
    if not (folder / "model_index.json").is_file():
        original = (folder / "high_noise_model").is_dir() or any(folder.glob("Wan2*_VAE.pth"))
        what = "Wan's original files" if original else "no model_index.json"
        raise ValueError(
            f"weights: {folder} has {what}; expected a pipeline as diffusers lays it out, "
            f"such as {KNOWN}"
        )
    index = _json(folder / "model_index.json")
    if index.get("_class_name") not in ("WanImageToVideoPipeline", "WanPipeline"):
        raise ValueError(f"weights: {folder} holds a {index.get('_class_name')}; expected {KNOWN}")
    return WanConfig(
        transformer=_json(folder / "transformer" / "config.json"),
        vae=_json(folder / "vae" / "config.json"),
        text=_json(folder / "text_encoder" / "config.json"),
        boundary=index.get("boundary_ratio"),
        token_levels=bool(index.get("expand_timesteps", False)),
    )


def check_files(folder: Path, config: WanConfig) -> None:
    """Check that all weights are there.

    Raises:
        ValueError: if some are missing, or pickled.
    """
    if not (folder / "tokenizer").is_dir():
        raise ValueError(f"weights: {folder} has no folder tokenizer; get it again")
    for part in parts(config):
        stem = folder / part / _WEIGHTS.get(part, _WEIGHTS["transformer"])
        index = stem.with_name(f"{stem.name}.safetensors.index.json")
        single = f"{stem.name}.safetensors"
        files = (
            sorted(set(_json(index).get("weight_map", {}).values()))
            if index.is_file()
            else [single]
        )
        missing = [name for name in files if not inside(folder / part, str(name), index).is_file()]
        if missing or not files:
            pickled = [
                p.name
                for p in (folder / part).glob("*")
                if p.suffix in (".bin", ".pt", ".pth", ".ckpt")
            ]
            instead = f"; {pickled[0]} is pickled and is not read" if pickled else ""
            raise ValueError(
                f"weights: {folder / part} lacks {len(missing)} of {len(files)} files of weights, "
                f"first {(missing or [single])[0]}{instead}; get it again"
            )


def _json(path: Path) -> dict[str, Any]:
    try:
        out = text_files.read_json(path)
    except ValueError as error:
        if not path.exists():
            raise ValueError(f"weights: no file {path}; get the folder again") from None
        raise ValueError(
            f"weights: {path} is not readable JSON ({error}); get the folder again"
        ) from None
    if not isinstance(out, dict):
        raise ValueError(
            f"weights: {path} holds a {type(out).__name__}, expected an object; "
            "get the folder again"
        )
    return out
