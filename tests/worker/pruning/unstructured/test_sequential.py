"""Layer by layer from disk gives what the whole model in memory gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from publisher.architecture.sparsity import kept_weights, pattern_of, sparse_matrices
from publisher.errors import RequestFault, UnsupportedModel
from publisher.recipe import Pruning
from tests.devices import each_device
from tests.worker.pruning.unstructured.whole_model import prune_whole_model
from tests.worker.streaming.families import save_tiny
from worker.pruning.unstructured.criteria import by_magnitude, by_wanda
from worker.pruning.unstructured.sequential import PrunedMatrix, prune_by_inputs, prune_by_weights
from worker.pruning.unstructured.sparsegpt import by_sparsegpt
from worker.pruning.unstructured.sparsity import Pruned, sparsity_of
from worker.streaming.model import LayerStream
from worker.streaming.weights import read_geometry

FAMILIES = ["llama", "qwen2", "phi3", "gemma2", "gemma3", "mixtral", "qwen3_moe"]


def recipe(criterion: str = "sparsegpt", **fields: object) -> Pruning:
    defaults = {"method": "unstructured", "criterion": criterion, "protect_first": 1, "protect_last": 1}
    if fields.get("method") != "semi_structured":
        defaults |= {"ratio": 0.5}
    return Pruning.model_validate(defaults | {"calibration": {"corpus": "any"}} | fields)


def text(samples: int = 12, length: int = 256) -> Tensor:
    return torch.randint(1, 320, (samples, length), generator=torch.Generator().manual_seed(5))


def pruned_from_disk(
    folder: Path, pruning: Pruning, sequences: Tensor, scratch: Path, device: str = "cpu"
) -> dict[str, PrunedMatrix]:
    work = prune_by_inputs(
        LayerStream(folder, device),
        folder,
        read_geometry(folder),
        pruning,
        sequences=sequences,
        scratch=scratch,
        report=lambda done, total: None,
    )
    return {matrix.name: matrix for matrix in work}


def with_oracle(folder: Path, pruning: Pruning, sequences: Tensor) -> dict[str, Pruned]:
    def prune(weight: Tensor, inputs: Tensor) -> Pruned:
        if pruning.criterion == "wanda":
            return by_wanda(weight, inputs.square().mean(dim=0), sparsity_of(pruning))
        return by_sparsegpt([weight], inputs.T @ inputs / len(inputs), sparsity_of(pruning))[0]

    layers = read_geometry(folder).layers
    return prune_whole_model(folder, sequences, range(pruning.protect_first, layers - pruning.protect_last), prune)


def same_weights(matrix: PrunedMatrix, expected: Pruned) -> float:
    """Share of weights that are alike; near-ties may fall the other way when sums are made in another order."""
    close = torch.isclose(matrix.weight, expected.weight, rtol=1e-3, atol=1e-3)
    return float((close & (matrix.kept == expected.kept)).double().mean())


@each_device
@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_whole_model_in_memory(tmp_path: Path, family: str, criterion: str, device: str) -> None:
    folder = save_tiny(family, tmp_path / "base")
    pruning, sequences = recipe(criterion), text()
    pruned = pruned_from_disk(folder, pruning, sequences, tmp_path, device)
    expected = with_oracle(folder, pruning, sequences)
    assert len(pruned) == len(expected) > 0
    for name, matrix in pruned.items():
        in_memory = name.replace(".w1.", ".gate_proj.").replace(".w2.", ".down_proj.").replace(".w3.", ".up_proj.")
        in_memory = in_memory.replace("block_sparse_moe", "mlp")
        assert same_weights(matrix, expected[in_memory]) > {"cpu": 0.995, "cuda": 0.99}[device], name


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("shape", [{"ratio": 0.29}, {"method": "semi_structured", "pattern": "4:8"}])
def test_counts_are_those_of_the_plan(tmp_path: Path, criterion: str, shape: dict[str, object]) -> None:
    folder = save_tiny("llama", tmp_path / "base", dtype=torch.bfloat16)
    geometry, pruning = read_geometry(folder), recipe(criterion, **shape)
    if criterion == "magnitude":
        work = {m.name: m for m in prune_by_weights(folder, geometry, pruning, lambda done, total: None)}
    else:
        work = pruned_from_disk(folder, pruning, text(2, 64), tmp_path)
    planned = sparse_matrices(geometry, pruning)
    assert work.keys() == planned.keys()
    for name, matrix in work.items():
        assert matrix.weight.dtype == torch.bfloat16
        assert tuple(matrix.weight.shape) == planned[name]
        assert int(matrix.kept.sum()) == kept_weights(planned[name], pruning.ratio, pattern_of(pruning))
        assert not matrix.weight[~matrix.kept].any()


def test_magnitude_equals_the_kernel_on_the_stored_tensors(tmp_path: Path) -> None:
    folder = save_tiny("qwen3_moe", tmp_path / "base")
    stored, pruning = load_file(folder / "model.safetensors"), recipe("magnitude")
    for matrix in prune_by_weights(folder, read_geometry(folder), pruning, lambda done, total: None):
        expected = by_magnitude(stored[matrix.name], sparsity_of(pruning))
        assert torch.equal(matrix.kept, expected.kept)
        assert torch.equal(matrix.weight, expected.weight)


def test_the_same_text_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base", dtype=torch.bfloat16)
    first, second = (pruned_from_disk(folder, recipe(), text(3, 64), tmp_path) for _ in range(2))
    assert first.keys() == second.keys()
    for name, matrix in first.items():
        assert torch.equal(matrix.weight.view(torch.int16), second[name].weight.view(torch.int16))


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_experts_that_no_token_reaches_are_pruned_by_magnitude(tmp_path: Path, criterion: str) -> None:
    folder = save_tiny("mixtral", tmp_path / "base")
    stored, pruning = load_file(folder / "model.safetensors"), recipe(criterion)
    pruned = pruned_from_disk(folder, pruning, text(1, 1), tmp_path)  # one token reaches two of four experts
    alike = 0
    for name, matrix in pruned.items():
        weight = stored[name]
        if criterion == "wanda":
            expected = by_wanda(weight, torch.ones(weight.shape[1]), sparsity_of(pruning))
        else:
            expected = by_magnitude(weight, sparsity_of(pruning))
        alike += torch.equal(matrix.kept, expected.kept) and torch.equal(matrix.weight, expected.weight)
    assert alike == 2 * 3


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    name = "model.layers.2.mlp.up_proj.weight"
    tensors = load_file(folder / "model.safetensors")
    tensors[name][3, 4] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestFault, match=rf"weights of {name} are not finite"):
        pruned_from_disk(folder, recipe(), text(1, 16), tmp_path)
    with pytest.raises(RequestFault, match=rf"weights of {name} are not finite"):
        list(prune_by_weights(folder, read_geometry(folder), recipe("magnitude"), lambda done, total: None))


def test_inputs_that_overflow_are_refused_by_name(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.input_layernorm.weight"] *= 1e30
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestFault, match=r"inputs of model\.layers\.1\.self_attn\.q_proj\.weight are not finite"):
        pruned_from_disk(folder, recipe(), text(1, 16), tmp_path)


def test_rows_that_a_pattern_does_not_divide_are_refused_by_name(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 50}))
    pruning = recipe("magnitude", method="semi_structured")
    with pytest.raises(UnsupportedModel, match=r"mlp\.down_proj\.weight has rows of 50 weights"):
        list(prune_by_weights(folder, read_geometry(folder), pruning, lambda done, total: None))


def test_progress_is_complete_and_can_end_the_work(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base")
    seen: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    geometry, stream = read_geometry(folder), LayerStream(folder, "cpu")
    whole = prune_by_inputs(
        stream, folder, geometry, recipe(), sequences=text(), scratch=tmp_path, report=lambda *s: seen.append(s)
    )
    names = [matrix.name for matrix in whole]
    assert len(names) == 14
    assert seen[-1][0] == seen[-1][1]
    assert seen == sorted(seen)
    with pytest.raises(KeyboardInterrupt):
        list(prune_by_inputs(stream, folder, geometry, recipe(), sequences=text(), scratch=tmp_path, report=report))
