"""The other side of one_shot: llm-compressor, in a virtual environment that has neither this project nor its versions.

Takes one argument, JSON: folders `model`, `calibration` and `output`, and `criterion`.
"""

from __future__ import annotations

from pathlib import Path

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


def prune(model_folder: Path, calibration: Path, criterion: str, output: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype="auto")
    tokens = load_file(calibration / "calibration.safetensors")["tokens"]
    rows = tokens.tolist()
    oneshot(
        model=model,
        tokenizer=AutoTokenizer.from_pretrained(model_folder),
        dataset=Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}),
        recipe=MODIFIERS[criterion](sparsity=0.5, mask_structure="0:0", ignore=["re:.*lm_head"]),
        num_calibration_samples=tokens.shape[0],
        max_seq_length=tokens.shape[1],
        shuffle_calibration_samples=False,
    )
    model.save_pretrained(output / "model", save_compressed=False)


if __name__ == "__main__":
    asked = asked_side()
    assert asked is not None, "started by one_shot"
    criterion = str(asked["criterion"])
    model, calibration, output = (Path(asked[name]) for name in ("model", "calibration", "output"))
    report_side(lambda: prune(model, calibration, criterion, output))
