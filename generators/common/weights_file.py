"""Network weights as a safetensors file: tensors, configuration and card.

Configuration and card are JSON in the file's metadata. Nothing in a file is executed. A file that
is damaged, of another kind or of a later version is refused in one line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from flowplan.utils import text_files
from flowplan.utils.files import atomic_write

FOLDER = Path(__file__).parents[1] / "weights"
"""Folder of the weights that ship."""

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class WeightsFile(Generic[Network]):
    """File format of the weights of one kind of network.

    Attributes:
        name: of the kind, for error messages ("NeuROK").
        format: of the kind, as written in the file.
        version: of the file; raise it when a tensor or a configuration field changes its meaning.
        config: record of the network's sizes.
        network: makes a network from such a record, and keeps it as its `config`.
        folder: folder of weights that are loaded by name.
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
        """Write a network and its card; the file appears whole or not at all.

        Args:
            path: of the file.
            model: the network.
            card: data, steps, metrics, ...: anything that JSON can hold.
            dtype: of the stored tensors. Defaults to bfloat16, half the size of float32.

        Returns:
            `path`.
        """
        path = Path(path)
        config: Any = model.config
        # Everything but the tensors is text in the file's header.
        metadata = {
            "format": self.format,
            "version": str(self.version),
            "config": json.dumps(asdict(config)),
            "card": json.dumps(card),
        }
        # On the CPU, in the stored precision.
        tensors = {
            name: t.detach().to("cpu", dtype).contiguous() for name, t in model.state_dict().items()
        }
        with atomic_write(path) as file:
            file.write(to_bytes(tensors, metadata))
        return path

    def load(self, name_or_path: Path | str) -> Network:
        """The network of a file or of a shipped name: float32, on the CPU, in evaluation mode.

        Raises:
            ValueError: if there is no such file, or it was not written by `save`; one line.
        """
        path = self._find(name_or_path)
        # Tensors must fit the sizes in the file before a network of these sizes takes memory.
        metadata, tensors = self._read(path)
        config = self._config(path, metadata)
        self._check(path, self._shapes(path, config, len(tensors)), tensors)
        model = self.network(config)
        model.load_state_dict(tensors)
        return model.eval()

    def _shapes(self, path: Path, config: Any, count: int) -> Mapping[str, torch.Tensor]:
        """Tensors without data of a network of these sizes, which has `count` tensors."""
        for field in fields(config):
            value = getattr(config, field.name)
            if "blocks" in field.name and value > count:
                raise ValueError(
                    f"{path}: its configuration has {field.name} = {value}, more than its {count} "
                    "tensors; give a file that `save` wrote"
                )
        try:
            with torch.device("meta"):
                return self.network(config).state_dict()
        except Exception as error:  # torch raises several types for sizes that cannot be
            raise ValueError(
                f"{path}: no network has the sizes of its configuration "
                f"({str(error).splitlines()[0][:120]})"
            ) from None

    def card(self, name_or_path: Path | str) -> dict[str, Any]:
        """The card that was saved with a network, by file or shipped name."""
        path = self._find(name_or_path)
        metadata, _ = self._read(path, tensors=False)
        return _json(path, metadata, "card")

    def names(self) -> list[str]:
        """Names of the shipped weights of this kind."""
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
                f"weights: no {str(name_or_path)!r}; expected a path to a .safetensors file or "
                f"one of: {', '.join(self.names()) or 'none'}"
            )
        return shipped

    def _read(
        self, path: Path, *, tensors: bool = True
    ) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
        """Metadata and, if asked for, tensors of a file of this kind and version."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                names = list(file.keys()) if tensors else []
                found = {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise ValueError(f"{path}: not a readable safetensors file ({reason})") from None
        # Another kind of network, or a later version.
        kind = metadata.get("format")
        if kind != self.format:
            raise ValueError(
                f"{path}: not {self.name} weights (format {kind!r}, expected {self.format!r})"
            )
        version = metadata.get("version", "")
        if version != str(self.version):
            raise ValueError(
                f"{path}: weights of version {version!r}, this program reads {self.version}; "
                "update it"
            )
        return metadata, found

    def _config(self, path: Path, metadata: dict[str, str]) -> Any:
        """The configuration record of a file's metadata."""
        values = _json(path, metadata, "config")
        # All fields of the record, and no others.
        known = {f.name for f in fields(self.config)}
        if values.keys() != known:
            raise ValueError(
                f"{path}: configuration has fields {sorted(values.keys() ^ known)} too many or "
                "too few"
            )
        try:
            return self.config(**values)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{path}: {error}") from None

    def _check(
        self, path: Path, expected: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """Refuse tensors that are missing, unknown, of a wrong shape or not finite."""
        # Names first, then shapes and values.
        lacks, unknown = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
        for kind, names in (("lacks", lacks), ("has unknown", unknown)):
            if names:
                raise ValueError(
                    f"{path}: {kind} tensor {min(names)} ({len(names)} in all); give a file that "
                    "`save` wrote"
                )
        for name, tensor in tensors.items():
            if tensor.shape != expected[name].shape:
                have, want = tuple(tensor.shape), tuple(expected[name].shape)
                raise ValueError(
                    f"{path}: tensor {name} has shape {have}, its configuration says {want}"
                )
            if not tensor.is_floating_point() or not tensor.isfinite().all():
                raise ValueError(
                    f"{path}: tensor {name} has values that are not finite; train again from "
                    "before then"
                )


def _json(path: Path, metadata: dict[str, str], key: str) -> dict[str, Any]:
    """A JSON object of a file's metadata."""
    try:
        out = text_files.parse_json(metadata[key], key)
    except (KeyError, ValueError):
        raise ValueError(
            f"{path}: its metadata has no readable {key!r}; give a file that `save` wrote"
        ) from None
    if not isinstance(out, dict):
        raise ValueError(f"{path}: its {key!r} is a {type(out).__name__}, expected an object")
    return out
