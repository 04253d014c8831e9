"""Real files, damaged in the ways that files get damaged. transformers, which wrote them, is the oracle."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from publisher.base_model import INDEX_FILE, SINGLE_FILE, BaseModelFacts, inspect_folder, inspect_repository
from publisher.errors import InfrastructureFault, UnsupportedModel
from tests.models import tiny_llama


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("sharded"), dtype=torch.bfloat16, max_shard_size="20KB")


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "model"))


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / SINGLE_FILE)
    change(tensors)
    save_file(tensors, folder / SINGLE_FILE)


def refusal(folder: Path) -> str:
    with pytest.raises(UnsupportedModel) as caught:
        inspect_folder(folder)
    return str(caught.value)


def test_counts_agree_with_transformers(single: Path) -> None:
    facts = inspect_folder(single)
    model = AutoModelForCausalLM.from_pretrained(single)
    assert facts.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert facts.bytes == (single / SINGLE_FILE).stat().st_size
    assert facts.dtype == "float32"
    assert facts.geometry.layers == model.config.num_hidden_layers
    assert facts.has_tokenizer


def test_shards_are_counted_together(sharded: Path) -> None:
    facts = inspect_folder(sharded)
    shards = sorted(path.name for path in sharded.glob("*.safetensors"))
    assert len(shards) > 1
    assert facts.bytes == sum((sharded / name).stat().st_size for name in shards)
    assert set(shards) < set(facts.files)
    assert facts.dtype == "bfloat16"


def test_facts_survive_json(single: Path) -> None:
    facts = inspect_folder(single)
    assert BaseModelFacts.model_validate(facts.model_dump(mode="json")) == facts


def test_a_model_with_tied_embeddings_and_biases_is_read(tmp_path: Path) -> None:
    tiny_llama(tmp_path, tie_word_embeddings=True, attention_bias=True, mlp_bias=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert inspect_folder(tmp_path).parameters == sum(parameter.numel() for parameter in model.parameters())


def test_a_stored_head_of_tied_embeddings_and_old_rotary_buffers_are_let_through(tmp_path: Path) -> None:
    tiny_llama(tmp_path, tie_word_embeddings=True)
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4), "lm_head.weight": torch.zeros(320, 32)}
    change_tensors(tmp_path, lambda tensors: tensors.update(extra))
    assert inspect_folder(tmp_path).geometry.tied_embeddings


def test_a_copy_has_the_same_revision_and_a_changed_tokenizer_another(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    assert inspect_folder(folder).revision == inspect_folder(single).revision
    (folder / "tokenizer_config.json").write_text("{}")
    assert inspect_folder(folder).revision != inspect_folder(single).revision


def test_code_beside_the_weights_is_left_out(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    facts = inspect_folder(folder)
    assert facts == inspect_folder(single).model_copy(update={"repo_id": str(folder), "path": folder})


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'} does not exist" in refusal(tmp_path / "none")


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    assert "has no config.json" in refusal(tmp_path)


def test_a_config_that_is_not_json_is_refused(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    (folder / "config.json").write_text("{")
    assert "config.json" in refusal(folder)


def test_pickles_are_refused_with_the_way_to_convert_them(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    (folder / SINGLE_FILE).rename(folder / "pytorch_model.bin")
    message = refusal(folder)
    assert "pytorch_model.bin" in message
    assert "safetensors" in message


def test_no_weights_at_all_are_refused(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    (folder / SINGLE_FILE).unlink()
    assert f"neither {SINGLE_FILE}" in refusal(folder)


def test_remote_code_is_refused(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    change_config(folder, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    assert "remote code" in refusal(folder)


def test_an_unsupported_family_is_named(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    change_config(folder, model_type="mamba")
    assert "'mamba' is not supported" in refusal(folder)


def test_a_missing_shard_is_named(sharded: Path, tmp_path: Path) -> None:
    folder = copy(sharded, tmp_path)
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    assert f"lacks {shard.name}" in refusal(folder)


def test_an_index_that_disagrees_with_its_shards_is_refused(sharded: Path, tmp_path: Path) -> None:
    folder = copy(sharded, tmp_path)
    index = json.loads((folder / INDEX_FILE).read_text())
    shards = sorted(set(index["weight_map"].values()))
    name = next(tensor for tensor, shard in index["weight_map"].items() if shard == shards[0])
    index["weight_map"][name] = shards[1]
    (folder / INDEX_FILE).write_text(json.dumps(index))
    assert f"places tensor {name} in {shards[1]}" in refusal(folder)


@pytest.mark.parametrize("kept", [0, 5, 200, 20_000])
def test_a_truncated_file_is_refused_wherever_it_ends(single: Path, tmp_path: Path, kept: int) -> None:
    folder = copy(single, tmp_path)
    (folder / SINGLE_FILE).write_bytes((single / SINGLE_FILE).read_bytes()[:kept])
    message = refusal(folder)
    assert SINGLE_FILE in message
    assert "truncated" in message or "not a safetensors file" in message


def test_one_byte_short_is_refused(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    content = (single / SINGLE_FILE).read_bytes()
    (folder / SINGLE_FILE).write_bytes(content[:-1])
    assert "is truncated" in refusal(folder)


def test_bytes_left_over_are_refused(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    with (folder / SINGLE_FILE).open("ab") as file:
        file.write(b"\0" * 8)
    assert "holds 8 bytes" in refusal(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'{"', b"{[", "not JSON"),
        (b'"shape":[320,32]', b'"shape":[320,31]', "takes 39680"),
        (b'"data_offsets":[0,', b'"data_offsets":[9,', "model.embed_tokens.weight|lm_head.weight"),
        (b'"dtype"', b'"dtypo"', "without dtype"),
    ],
)
def test_a_corrupt_header_is_refused(single: Path, tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    folder = copy(single, tmp_path)
    content = (single / SINGLE_FILE).read_bytes()
    assert old in content
    (folder / SINGLE_FILE).write_bytes(content.replace(old, new, 1))
    with pytest.raises(UnsupportedModel, match=message):
        inspect_folder(folder)


def test_a_missing_tensor_is_named(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    change_tensors(folder, lambda tensors: tensors.pop("model.layers.2.mlp.up_proj.weight"))
    assert "model.layers.2.mlp.up_proj.weight is missing" in refusal(folder)


def test_a_tensor_of_another_shape_is_named(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    change_config(folder, intermediate_size=64)
    message = refusal(folder)
    assert "mlp.down_proj.weight has shape (32, 48); config.json asks for (32, 64)" in message


def test_a_tensor_that_does_not_belong_is_named(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    change_tensors(folder, lambda tensors: tensors.update({"model.layers.9.extra": torch.ones(2)}))
    assert "model.layers.9.extra is not part of a llama model" in refusal(folder)


def test_weights_stored_as_integers_are_refused(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    name = "model.layers.0.mlp.up_proj.weight"
    change_tensors(folder, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    assert f"{name} is stored as I8" in refusal(folder)


def test_a_hub_that_does_not_answer_is_not_the_requests_fault() -> None:
    with pytest.raises(InfrastructureFault, match=r"127\.0\.0\.1:9 did not answer for org/model"):
        inspect_repository("org/model", endpoint="http://127.0.0.1:9")


def test_a_repository_id_with_bad_letters_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="not a repository id"):
        inspect_repository("org/mo del", endpoint="http://127.0.0.1:9")


def test_inspecting_needs_no_torch(single: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from publisher.base_model import inspect_folder;"
        f"inspect_folder(Path({str(single)!r})); print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
