"""The networks of a Wan pipeline, built on demand: read from a folder, or blank.

Blank ones have the shapes of the real ones and arbitrary values. On torch's "meta" device they take
no memory, which serves planning. On a GPU they take the time and memory of the real ones, which
serves benchmarks without weights.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from generators.chord.priors.wan.config import WORDS, WanConfig
from generators.chord.priors.wan.encoder import Encoder
from generators.chord.priors.wan.options import WanOptions

EXPERTS = ("transformer", "transformer_2")
"""Names of the experts for high and for low noise."""


class Parts(Protocol):
    """Source of networks. The caller owns them, and frees one by dropping its reference."""

    def encoder(self) -> Encoder:
        """The VAE's encoder."""
        ...

    def expert(self, name: str) -> nn.Module:
        """The transformer of a name in EXPERTS."""
        ...

    def sentences(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (n, 512, D) of n sentences; the text encoder is freed afterwards."""
        ...


class FolderParts:
    """Weights in a folder in diffusers' layout; only safetensors, so no code is executed."""

    def __init__(self, folder: Path, options: WanOptions) -> None:
        self.folder, self.options = folder, options
        self.dtype = getattr(torch, options.dtype)

    def encoder(self) -> Encoder:
        # Read on the CPU, so that the decoder never reaches the device.
        vae = _read(
            AutoencoderKLWan,
            self.folder / "vae",
            "cpu",
            torch_dtype=getattr(torch, self.options.vae_dtype),
        )
        return Encoder(vae).to(self.options.device)

    def expert(self, name: str) -> nn.Module:
        return _read(
            WanTransformer3DModel, self.folder / name, self.options.device, torch_dtype=self.dtype
        )

    @torch.no_grad()
    def sentences(self, texts: Sequence[str]) -> Tensor:
        tokenizer = AutoTokenizer.from_pretrained(self.folder / "tokenizer", local_files_only=True)
        clean = [" ".join(html.unescape(html.unescape(text)).split()) for text in texts]
        longest = max(len(ids) for ids in tokenizer(clean).input_ids)
        if longest > WORDS:
            raise ValueError(
                f"text: expected a sentence of at most {WORDS} tokens, got {longest}; shorten it"
            )
        tokens = tokenizer(clean, padding="max_length", max_length=WORDS, return_tensors="pt")
        network = _read(
            UMT5EncoderModel, self.folder / "text_encoder", self.options.device, dtype=self.dtype
        )
        mask = tokens.attention_mask.to(network.device)
        return (
            network(tokens.input_ids.to(network.device), mask).last_hidden_state * mask[..., None]
        )


class BlankParts:
    """Networks with the shapes of a configuration and arbitrary values."""

    def __init__(self, config: WanConfig, options: WanOptions) -> None:
        self.config, self.options = config, options

    def encoder(self) -> Encoder:
        with _blank(self.options.device, self.options.vae_dtype):
            return Encoder(AutoencoderKLWan.from_config(dict(self.config.vae)))

    def expert(self, name: str) -> nn.Module:
        with _blank(self.options.device, self.options.dtype):
            network = WanTransformer3DModel.from_config(dict(self.config.transformer))
        for path, module in network.named_modules():  # as diffusers loads it
            if set(path.split(".")) & set(network._keep_in_fp32_modules):
                module.float()
        return network.requires_grad_(False).eval()

    def text_encoder(self) -> nn.Module:
        """The text encoder."""
        with _blank(self.options.device, self.options.dtype):
            return (
                UMT5EncoderModel(UMT5Config.from_dict(dict(self.config.text)))
                .requires_grad_(False)
                .eval()
            )

    @torch.no_grad()
    def sentences(self, texts: Sequence[str]) -> Tensor:
        return self.text_encoder()(
            torch.ones(len(texts), WORDS, dtype=torch.long, device=self.options.device)
        )[0]


@contextmanager
def _blank(device: str, dtype: str) -> Iterator[None]:
    """Networks made inside have this type and device, and always the same values."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.random.fork_rng(enabled=device != "meta"), torch.device(device):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(before)


def _read(model: Any, folder: Path, device: str, **precision: torch.dtype) -> Any:
    """A complete network from its folder, in evaluation mode and without gradients."""
    try:
        network, info = model.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            device_map={"": device},
            output_loading_info=True,
            **precision,
        )
    except torch.OutOfMemoryError:
        raise ValueError(
            f"{folder}: no memory left for it on {device}; free some, or raise WanOptions.spare"
        ) from None
    except NotImplementedError:  # diffusers puts a weight on the device that no file had
        raise ValueError(
            f"{folder}: weights and config.json do not belong together "
            "(some weights are in no file); get it again"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{folder}: not readable as {model.__name__} ({reason}); get it again"
        ) from None
    for kind in ("missing_keys", "mismatched_keys", "error_msgs"):
        if info.get(kind):
            raise ValueError(
                f"{folder}: weights and config.json do not belong together "
                f"({len(info[kind])} {kind.replace('_', ' ')}, "
                f"first {sorted(map(str, info[kind]))[0]}); get it again"
            )
    return network.requires_grad_(False).eval()
