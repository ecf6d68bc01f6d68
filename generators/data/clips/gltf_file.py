"""glTF 2.0 files as arrays: the JSON document, its buffers and its accessors (Khronos
specification, sections 3.6, 4.4).

Both containers are read: .glb, and .gltf with buffers embedded as data URIs or in files beside it.
Accessors may be interleaved (a byte stride), sparse (a few elements replaced), normalized integers,
or without a buffer view (zeros).
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from flowplan.utils import mesh_loader
from flowplan.utils.files import read_bytes

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
PLAIN = (
    "KHR_materials_",
    "KHR_texture_",
    "KHR_lights_",
    "KHR_mesh_quantization",
    "EXT_texture_",
    "MSFT_texture_",
)
"""Beginnings of the extensions that a file may require without its geometry or motion being
encoded otherwise."""
LARGEST = 50_000_000
"""Numbers in one accessor; a damaged count must not take all memory."""


class GltfFile:
    """A document and its binary data.

    Attributes:
        path: the file.
        document: its JSON.
    """

    def __init__(self, path: str | Path) -> None:
        """Read a .glb or .gltf.

        Raises:
            ValueError: in one line that names the file, when it cannot be read or requires what is
                not supported.
        """
        self.path = Path(path)
        data = read_bytes(self.path)
        # A .glb has its JSON and its binary in chunks, a .gltf is the JSON.
        self.document = mesh_loader.gltf_document(self.path, data)
        binary = data[:4] == b"glTF"
        self._binary = mesh_loader.gltf_chunks(self.path, data)[1] if binary else None
        # Version 2, without extensions that change how geometry is encoded.
        version = self.document["asset"].get("version")
        if version is None or not str(version).startswith("2."):
            raise ValueError(
                f"{self.path}: asset.version: got {version!r}, expected 2.x; convert the file "
                "to glTF 2.0"
            )
        other = [
            e for e in self.document.get("extensionsRequired", []) if not str(e).startswith(PLAIN)
        ]
        if other:
            raise ValueError(
                f"{self.path}: requires {', '.join(other)}; export it without these extensions"
            )
        self._buffers: dict[int, bytes] = {}

    def items(self, kind: str) -> list[dict[str, Any]]:
        """The document's "nodes", "meshes", ...; empty where it has none."""
        return self.document.get(kind) or []

    def array(self, index: int) -> NDArray[Any]:
        """One accessor (count, width): integers as they are, everything else float64 with
        normalization undone."""
        accessor = self.items("accessors")[index]
        dtype, width = np.dtype(COMPONENTS[accessor["componentType"]]), WIDTHS[accessor["type"]]
        count = int(accessor["count"])
        if not 0 <= count * width <= LARGEST:
            raise ValueError(
                f"{self.path}: accessor {index} has {count} elements, expected 0 to "
                f"{LARGEST // width}"
            )
        # Zeros, or the elements of a buffer view.
        out = np.zeros((count, width), dtype)
        if "bufferView" in accessor:
            out = self._view(accessor, dtype, width, count)
        if "sparse" in accessor:
            # A few elements replaced, in a copy.
            sparse = accessor["sparse"]
            number = int(sparse["count"])
            at = self._view(
                sparse["indices"],
                np.dtype(COMPONENTS[sparse["indices"]["componentType"]]),
                1,
                number,
            )
            out = out.copy()
            out[at[:, 0]] = self._view(sparse["values"], dtype, width, number)
        if accessor.get("normalized") and dtype.kind in "iu":
            return np.maximum(out.astype(float) / np.iinfo(dtype).max, -1.0)
        return out.astype(float) if dtype.kind == "f" else out

    def _view(
        self, part: dict[str, Any], dtype: np.dtype[Any], width: int, count: int
    ) -> NDArray[Any]:
        # Rows may be interleaved with other data: a stride between their starts.
        view = self.items("bufferViews")[part["bufferView"]]
        stride = view.get("byteStride", 0) or width * dtype.itemsize
        start = view.get("byteOffset", 0) + part.get("byteOffset", 0)
        buffer = self._buffer(view["buffer"])
        end = start + (count - 1) * stride + width * dtype.itemsize
        if start < 0 or end > len(buffer):
            raise ValueError(
                f"{self.path}: an accessor ends at byte {end} of {len(buffer)}; the file is cut off"
            )
        return np.ndarray((count, width), dtype, buffer, start, (stride, dtype.itemsize))

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            uri = self.items("buffers")[index].get("uri")
            if uri is None:
                if self._binary is None:
                    raise ValueError(
                        f"{self.path}: buffer {index} has neither a URI nor a binary chunk"
                    )
                self._buffers[index] = self._binary
            elif uri.startswith("data:"):
                try:
                    self._buffers[index] = base64.b64decode(uri.partition(",")[2])
                except binascii.Error:
                    raise ValueError(
                        f"{self.path}: buffer {index}: its data URI is not base64"
                    ) from None
            else:
                self._buffers[index] = self._beside(uri)
        return self._buffers[index]

    def _beside(self, uri: str) -> bytes:
        folder = self.path.resolve().parent
        file = (folder / unquote(uri)).resolve()
        if not file.is_relative_to(
            folder
        ):  # a data set's file has no business outside of its folder
            raise ValueError(
                f"{self.path}: buffer {uri!r} lies outside of the file's folder; move it there"
            )
        try:
            return file.read_bytes()
        except OSError as error:
            raise ValueError(
                f"{self.path}: buffer {uri!r} cannot be read ({error.strerror})"
            ) from None
