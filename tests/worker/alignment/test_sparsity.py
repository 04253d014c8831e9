"""Weights that were pruned one by one are still gone after alignment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from publisher.checkpoint.weight_masks import WeightMaskWriter
from publisher.recipe import Pruning
from tests.worker.alignment.builds import inputs_in, prepare, request
from worker.context import RecordingContext
from worker.stages.align import stage as align

WEIGHT = "model.layers.1.mlp.up_proj.weight"


def test_alignment_trains_what_was_kept_and_leaves_the_rest_at_zero(tmp_path: Path) -> None:
    prepare(tmp_path)
    file = tmp_path / "pruned" / "model.safetensors"
    weights = load_file(file)
    kept = torch.rand(weights[WEIGHT].shape, generator=torch.Generator().manual_seed(0)) < 0.5
    save_file(weights | {WEIGHT: weights[WEIGHT] * kept}, file, metadata={"format": "pt"})
    with WeightMaskWriter(tmp_path / "pruning_masks.safetensors", {WEIGHT: tuple(kept.shape)}) as masks:
        masks.write(WEIGHT, kept)
    asked = request(tmp_path)
    pruning = Pruning(method="unstructured", criterion="magnitude", ratio=0.5)
    asked = replace(asked, recipe=asked.recipe.model_copy(update={"pruning": pruning}))
    align.run(asked, inputs_in(tmp_path), tmp_path / "out", RecordingContext())
    aligned = load_file(tmp_path / "out" / "model" / "model.safetensors")[WEIGHT]
    assert torch.equal(aligned[~kept], torch.zeros_like(aligned[~kept]))
    before = weights[WEIGHT].to(aligned.dtype)
    assert (aligned[kept] != before[kept]).float().mean() > 0.5
