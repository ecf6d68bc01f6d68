"""Weights of a network as a safetensors file: the tensors, and as JSON in its metadata the configuration and a card.

Nothing in a file is executed, and a file that is damaged, of another kind or of a later version is refused in one line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from flowplan.utils.files import atomic_write

FOLDER = Path(__file__).parents[1] / "weights"
"""Where the weights that ship lie."""

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class WeightsFile(Generic[Network]):
    """How the weights of one kind of network are kept.

    Attributes:
        name: of the kind, as it is said in an error ("NeuROK").
        format: of the kind, as it is written in the file.
        version: of the file; raise it when a tensor or a field of the configuration changes its meaning.
        config: the record of the network's sizes.
        network: makes a network of such a record, which it keeps as its `config`.
        folder: where weights that are called by name lie.
    """

    name: str
    format: str
    version: int
    config: type[Any]
    network: Callable[[Any], Network]
    folder: Path = FOLDER

    def save(
        self,
        path: Path | str,
        model: Network,
        card: dict[str, Any],
        *,
        dtype: torch.dtype = torch.bfloat16,
    ) -> Path:
        """Write a network and its card (data, steps, metrics, ...; anything JSON holds); returns the path.

        Stored as bfloat16, half the size of float32, unless told otherwise. The file appears whole or not at all.
        """
        path = Path(path)
        config: Any = model.config
        metadata = {
            "format": self.format,
            "version": str(self.version),
            "config": json.dumps(asdict(config)),
            "card": json.dumps(card),
        }
        tensors = {
            name: t.detach().to("cpu", dtype).contiguous() for name, t in model.state_dict().items()
        }
        with atomic_write(path) as file:
            file.write(to_bytes(tensors, metadata))
        return path

    def load(self, name_or_path: Path | str) -> Network:
        """The network of a file, or of a name among those that ship: float32, on the processor, in evaluation mode.

        Raises:
            ValueError: no such file, or not one that `save` wrote; one line.
        """
        path = self._find(name_or_path)
        metadata, tensors = self._read(path)
        model = self.network(self._config(path, metadata))
        expected = model.state_dict()
        lacks, unknown = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
        for kind, names in (("lacks", lacks), ("has unknown", unknown)):
            if names:
                raise ValueError(
                    f"{path}: {kind} tensor {min(names)} ({len(names)} in all); give a file that `save` wrote"
                )
        for name, tensor in tensors.items():
            if tensor.shape != expected[name].shape:
                have, want = tuple(tensor.shape), tuple(expected[name].shape)
                raise ValueError(
                    f"{path}: tensor {name} has shape {have}, its configuration says {want}"
                )
            if not tensor.isfinite().all():
                raise ValueError(
                    f"{path}: tensor {name} has values that are not finite; train again from before then"
                )
        model.load_state_dict(tensors)
        return model.eval()

    def card(self, name_or_path: Path | str) -> dict[str, Any]:
        """What `save` was told about the network of a file or name."""
        path = self._find(name_or_path)
        metadata, _ = self._read(path, tensors=False)
        return _json(path, metadata, "card")

    def names(self) -> list[str]:
        """Those that ship of this kind, by name."""
        return sorted(p.stem for p in self.folder.glob("*.safetensors") if self._is_ours(p))

    def _is_ours(self, path: Path) -> bool:
        try:
            self._read(path, tensors=False)
        except ValueError:
            return False
        return True

    def _find(self, name_or_path: Path | str) -> Path:
        path = Path(name_or_path)
        if path.suffix == ".safetensors":
            if not path.is_file():
                raise ValueError(f"weights: no file {path}")
            return path
        shipped = self.folder / f"{name_or_path}.safetensors"
        if not shipped.is_file():
            raise ValueError(
                f"weights: no {str(name_or_path)!r}; expected a path to a .safetensors file or one of: "
                f"{', '.join(self.names()) or 'none'}"
            )
        return shipped

    def _read(
        self, path: Path, *, tensors: bool = True
    ) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                found = {name: file.get_tensor(name) for name in file.keys()} if tensors else {}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path}: not a readable safetensors file ({str(error).splitlines()[0]})"
            ) from None
        if metadata.get("format") != self.format:
            have = metadata.get("format")
            raise ValueError(
                f"{path}: not {self.name} weights (format {have!r}, expected {self.format!r})"
            )
        version = metadata.get("version", "")
        if version != str(self.version):
            raise ValueError(
                f"{path}: weights of version {version!r}, this program reads {self.version}; update it"
            )
        return metadata, found

    def _config(self, path: Path, metadata: dict[str, str]) -> Any:
        values = _json(path, metadata, "config")
        known = {field.name for field in fields(self.config)}
        if values.keys() != known:
            raise ValueError(
                f"{path}: configuration has fields {sorted(values.keys() ^ known)} too many or too few"
            )
        try:
            return self.config(**values)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from None


def _json(path: Path, metadata: dict[str, str], key: str) -> dict[str, Any]:
    try:
        out = json.loads(metadata[key])
    except (KeyError, json.JSONDecodeError):
        raise ValueError(
            f"{path}: its metadata has no readable {key!r}; give a file that `save` wrote"
        ) from None
    if not isinstance(out, dict):
        raise ValueError(f"{path}: its {key!r} is a {type(out).__name__}, expected an object")
    return out
