"""NeuROK weights as safetensors files: the tensors, and as JSON in the file's metadata the configuration and a card.

Nothing in a file is executed, and a file that is damaged, of another kind or of a later version is refused in one line.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from flowplan.files import atomic
from generators.neurok.config import NeurokConfig
from generators.neurok.model import Neurok

FOLDER = Path(__file__).parents[1] / "weights"
"""Where weights that are called by name lie."""

_FORMAT = "flowplan neurok"
_VERSION = 1


def save(path: Path | str, model: Neurok, card: dict[str, Any], *, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write a network and its card (data, steps, metrics, ...; anything JSON holds); returns the path.

    Stored as bfloat16, half the size of float32, unless told otherwise. The file appears whole or not at all.
    """
    path = Path(path)
    metadata = {
        "format": _FORMAT,
        "version": str(_VERSION),
        "config": json.dumps(asdict(model.config)),
        "card": json.dumps(card),
    }
    tensors = {name: t.detach().to("cpu", dtype).contiguous() for name, t in model.state_dict().items()}
    with atomic(path) as file:
        file.write(to_bytes(tensors, metadata))
    return path


def load(name_or_path: Path | str) -> Neurok:
    """The network of a file, or of a name among those that ship: float32, on the processor, in evaluation mode.

    Raises:
        ValueError: no such file, or not one that `save` wrote; one line.
    """
    path = _find(name_or_path)
    metadata, tensors = _read(path)
    model = Neurok(_config(path, metadata))
    expected = model.state_dict()
    for kind, names in (("lacks", expected.keys() - tensors.keys()), ("has unknown", tensors.keys() - expected.keys())):
        if names:
            raise ValueError(f"{path}: {kind} tensor {min(names)} ({len(names)} in all); give a file that `save` wrote")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            have, want = tuple(tensor.shape), tuple(expected[name].shape)
            raise ValueError(f"{path}: tensor {name} has shape {have}, its configuration says {want}")
        if not tensor.isfinite().all():
            raise ValueError(f"{path}: tensor {name} has values that are not finite; train again from before they came")
    model.load_state_dict(tensors)
    return model.eval()


def card(name_or_path: Path | str) -> dict[str, Any]:
    """What `save` was told about the network of a file or name."""
    path = _find(name_or_path)
    metadata, _ = _read(path, tensors=False)
    return _json(path, metadata, "card")


def _find(name_or_path: Path | str) -> Path:
    path = Path(name_or_path)
    if path.suffix != ".safetensors":
        shipped = FOLDER / f"{name_or_path}.safetensors"
        if not shipped.is_file():
            names = ", ".join(sorted(p.stem for p in FOLDER.glob("*.safetensors"))) or "none"
            raise ValueError(
                f"weights: no {str(name_or_path)!r}; expected a path to a .safetensors file or one of: {names}"
            )
        return shipped
    if not path.is_file():
        raise ValueError(f"weights: no file {path}")
    return path


def _read(path: Path, *, tensors: bool = True) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in file.keys()} if tensors else {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({str(error).splitlines()[0]})") from None
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path}: not NeuROK weights (format {metadata.get('format')!r}, expected {_FORMAT!r})")
    version = metadata.get("version", "")
    if version != str(_VERSION):
        raise ValueError(f"{path}: weights of version {version!r}, this program reads {_VERSION}; update it")
    return metadata, found


def _json(path: Path, metadata: dict[str, str], key: str) -> dict[str, Any]:
    try:
        out = json.loads(metadata[key])
    except (KeyError, json.JSONDecodeError):
        raise ValueError(f"{path}: its metadata has no readable {key!r}; give a file that `save` wrote") from None
    if not isinstance(out, dict):
        raise ValueError(f"{path}: its {key!r} is a {type(out).__name__}, expected an object")
    return out


def _config(path: Path, metadata: dict[str, str]) -> NeurokConfig:
    values = _json(path, metadata, "config")
    known = {field.name for field in fields(NeurokConfig)}
    if values.keys() != known:
        raise ValueError(f"{path}: configuration has fields {sorted(values.keys() ^ known)} too many or too few")
    try:
        return NeurokConfig(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
