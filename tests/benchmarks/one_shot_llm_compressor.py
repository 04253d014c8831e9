"""The other side of one_shot: llm-compressor, in a virtual environment that has neither this project nor its versions.

Takes one argument, JSON: folders `model`, `calibration` and `output`, and `criterion`: `sparsegpt` or `wanda`, which
prune half of the weights, or `gptq`, which rounds them to 4 bits; where it computes is its own choice.
"""

from __future__ import annotations

from pathlib import Path

import torch
from datasets import Dataset  # type: ignore[import-not-found]
from llmcompressor import oneshot  # type: ignore[import-not-found]
from llmcompressor.modifiers.pruning import (  # type: ignore[import-not-found]
    SparseGPTModifier,
    WandaPruningModifier,
)
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.benchmarks.sides import asked_side, report_side

MODIFIERS = {"sparsegpt": SparseGPTModifier, "wanda": WandaPruningModifier}
HEAD = ["re:.*lm_head"]


def prune(model_folder: Path, calibration: Path, criterion: str, output: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype="auto")
    tokens = load_file(calibration / "calibration.safetensors")["tokens"]
    rows = tokens.tolist()
    oneshot(
        model=model,
        tokenizer=AutoTokenizer.from_pretrained(model_folder),
        dataset=Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}),
        recipe=_modifier(criterion),
        num_calibration_samples=tokens.shape[0],
        max_seq_length=tokens.shape[1],
        shuffle_calibration_samples=False,
    )
    model.save_pretrained(output / "model", save_compressed=False)


def _modifier(criterion: str) -> object:
    if criterion != "gptq":
        return MODIFIERS[criterion](sparsity=0.5, mask_structure="0:0", ignore=HEAD)
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme  # type: ignore[import-not-found]
    from llmcompressor.modifiers.quantization import GPTQModifier  # type: ignore[import-not-found]

    # by rows: pruned widths are no multiples of a group
    weights = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="channel")
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    return GPTQModifier(config_groups={"rows": scheme}, ignore=HEAD)


if __name__ == "__main__":
    asked = asked_side()
    assert asked is not None, "started by one_shot"
    criterion = str(asked["criterion"])
    model, calibration, output = (Path(asked[name]) for name in ("model", "calibration", "output"))
    report_side(lambda: prune(model, calibration, criterion, output), "cuda" if torch.cuda.is_available() else "cpu")
