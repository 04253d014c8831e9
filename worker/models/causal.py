"""Causal language models on a device: loaded from a folder, and split at the LM head.

Everything that trains or measures takes a model's last hidden states and its head (head.py), never its logits:
those of a whole batch are the largest tensor there would be (see training/objective.py).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

import publisher.checkpoint  # noqa: F401 - teaches transformers layers of different widths
from publisher.files.reading import BASE, reading
from worker.models.measure import compute_dtype


def load_causal(folder: Path, device: torch.device | str, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Load from local files only, for inference; `dtype` is the one this device computes in unless given.

    Raises RequestFault if `folder` is the base model, and not one that was made of it, and cannot be loaded.
    """
    transformers_logging.disable_progress_bar()
    with reading(BASE, folder):
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype or compute_dtype(device),
            device_map={"": torch.device(device)},
            local_files_only=True,
        )
    return model.eval()


def hidden_states(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Final-norm hidden states (rows, length, hidden_size) of `tokens` (rows, length), every position causal."""
    states: Tensor = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    return states
