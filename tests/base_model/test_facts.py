"""Real files, damaged in the ways that files get damaged. transformers, which wrote them, is the oracle."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

from publisher.base_model.facts import BaseModelFacts, inspect_folder, inspect_repository
from publisher.errors import InfrastructureFault, UnsupportedModel
from publisher.weights.index import INDEX_FILE, SINGLE_FILE
from tests.models import byte_tokenizer, tiny_llama


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


def test_a_model_without_tokenizer_is_taken_with_a_note(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    (folder / "tokenizer.json").unlink()
    facts = inspect_folder(folder)
    assert not facts.has_tokenizer
    assert [note for note in facts.notes if "no tokenizer" in note and "tokenizer.json" in note]
    assert not [note for note in inspect_folder(single).notes if "tokenizer" in note]


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


def test_a_stored_copy_of_a_tied_head_and_old_rotary_buffers_are_let_through(tmp_path: Path) -> None:
    tiny_llama(tmp_path, tie_word_embeddings=True)
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change_tensors(
        tmp_path,
        lambda tensors: tensors.update(
            {name: torch.ones(4), "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
        ),
    )
    facts = inspect_folder(tmp_path)
    assert facts.geometry.tied_embeddings
    assert facts.notes == (f"left out, as transformers does when it loads the model: 1 tensors, 16 bytes ({name})",)


@pytest.mark.parametrize("head", [torch.float32, torch.bfloat16])
def test_another_head_than_the_tied_one_is_seen_as_transformers_loads_it(tmp_path: Path, head: torch.dtype) -> None:
    """One value differs, in the last row."""
    tiny_llama(tmp_path, tie_word_embeddings=True, dtype=torch.bfloat16)

    def add(tensors: dict[str, torch.Tensor]) -> None:
        other = tensors["model.embed_tokens.weight"].to(head, copy=True)
        other[-1, -1] += 1
        tensors["lm_head.weight"] = other

    change_tensors(tmp_path, add)
    facts = inspect_folder(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not facts.geometry.tied_embeddings
    assert facts.untied
    assert facts.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert "config.json ties lm_head.weight to the embeddings, and the files hold another" in facts.notes[0]


def test_a_copy_of_the_head_in_a_wider_type_is_still_tied(tmp_path: Path) -> None:
    tiny_llama(tmp_path, tie_word_embeddings=True, dtype=torch.bfloat16)
    change_tensors(
        tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].float()})
    )
    assert inspect_folder(tmp_path).geometry.tied_embeddings


def test_buffers_that_the_family_ignores_are_left_out_with_a_note(tmp_path: Path) -> None:
    config = GPTNeoXConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    GPTNeoXForCausalLM(config).save_pretrained(tmp_path)
    plain = inspect_folder(tmp_path)
    masks = {f"gpt_neox.layers.{i}.attention.bias": torch.ones(1, 1, 512, 512, dtype=torch.bool) for i in range(2)}
    change_tensors(tmp_path, lambda tensors: tensors.update(masks))
    facts = inspect_folder(tmp_path)
    assert (facts.parameters, facts.dtype) == (plain.parameters, plain.dtype)
    assert "2 tensors, 524,288 bytes (gpt_neox.layers.0.attention.bias" in facts.notes[0]
    change_tensors(tmp_path, lambda tensors: tensors.update({"gpt_neox.layers.0.attention.scale": torch.ones(1)}))
    assert "attention.scale is not part of a gpt_neox model" in refusal(tmp_path)


@pytest.mark.parametrize("counted", [0, 1])
def test_layers_for_multi_token_prediction_are_left_out_as_far_as_the_config_counts_them(
    single: Path, tmp_path: Path, counted: int
) -> None:
    folder = copy(single, tmp_path)
    change_config(folder, num_nextn_predict_layers=counted)
    change_tensors(folder, lambda tensors: tensors.update({"model.layers.4.eh_proj.weight": torch.ones(2, 2)}))
    if counted:
        assert "1 tensors" in inspect_folder(folder).notes[0]
    else:
        assert "model.layers.4.eh_proj.weight is not part of" in refusal(folder)


def test_kernels_of_another_machine_change_nothing(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    change_config(folder, attn_implementation="flash_attention_2", _attn_implementation="no-such-kernel")
    facts = inspect_folder(folder)
    assert facts.geometry == inspect_folder(single).geometry
    assert "attn_implementation = 'flash_attention_2': left out" in facts.notes[0]


def test_fields_of_other_versions_of_transformers_are_let_through(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    change_config(folder, torch_dtype="float32", dtype="float32", invented_in_2030={"a": [1, None]})
    assert inspect_folder(folder).geometry == inspect_folder(single).geometry


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


STRAY = (
    "._model.safetensors", ".ipynb_checkpoints/config.json", ".DS_Store", "trainer_state.json", "optimizer.pt",
    "training_args.bin", "rng_state_0.pth", "consolidated.safetensors", "original/params.json", "all_results.json",
    "adapter_config.json", "adapter_model.safetensors", "loram.json", "pytorch_model.bin.index.json", "model.gguf",
)  # fmt: skip
TAKEN = (
    "README.md", "LICENSE", "NOTICE", "LICENSE.md", "USE_POLICY.md", "Notice.txt", "license.txt", "LICENSE-MODEL",
    "Prohibited_Use_Policy.md", "THIRD_PARTY_NOTICES.md", "chat_template.jinja",
    "additional_chat_templates/tools.jinja", "spiece.model",
)  # fmt: skip


def test_only_what_belongs_to_the_model_is_taken_along(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    for name in (*STRAY, *TAKEN):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not a weight")
    assert inspect_folder(folder).files.keys() - inspect_folder(single).files.keys() == set(TAKEN)


def test_names_that_are_no_text_are_left_alone(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    (folder / os.fsdecode(b"Mod\xe8le.txt")).write_text("notes")
    assert inspect_folder(folder).files == inspect_folder(single).files


def test_a_tensor_whose_name_is_no_text_is_refused_in_text(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    content = (folder / SINGLE_FILE).read_bytes()
    name, half = b'"model.layers.0.mlp.up_proj.weight"', b'"model.layers.0.mlp.up_proj.\\ud800"'
    assert len(name) == len(half)
    (folder / SINGLE_FILE).write_bytes(content.replace(name, half))
    assert refusal(folder).encode()


def test_a_mended_card_or_licence_leaves_the_model_what_it_is(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    (folder / "README.md").write_text("---\nlicense: mit\n---")
    (folder / "LICENSE").write_text("MIT")
    assert inspect_folder(folder).revision == inspect_folder(single).revision


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4952\n"


@pytest.mark.parametrize("name", [SINGLE_FILE, "config.json", "tokenizer.json", "tokenizer.model", "merges.txt"])
def test_a_git_lfs_pointer_is_called_one(single: Path, tmp_path: Path, name: str) -> None:
    folder = copy(single, tmp_path)
    (folder / name).write_text(POINTER)
    message = refusal(folder)
    assert name in message
    assert "is a Git LFS pointer" in message
    assert "git lfs pull" in message


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json"])
def test_a_byte_order_mark_is_read_over(single: Path, tmp_path: Path, name: str) -> None:
    folder = copy(single, tmp_path)
    (folder / name).write_bytes(b"\xef\xbb\xbf" + (single / name).read_bytes())
    assert inspect_folder(folder).geometry == inspect_folder(single).geometry


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json", "tokenizer.json"])
def test_a_damaged_file_beside_the_weights_is_named(single: Path, tmp_path: Path, name: str) -> None:
    folder = copy(single, tmp_path)
    (folder / name).write_bytes((single / name).read_bytes()[:-3])
    assert f"{name} in {folder} is not JSON" in refusal(folder)


def test_nan_in_the_config_is_named(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    change_config(folder, rms_norm_eps=float("nan"))
    assert "config.json has rms_norm_eps = NaN" in refusal(folder)


def test_a_vocabulary_of_another_size_than_the_embeddings_is_named(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    change_config(folder, vocab_size=300)
    assert "has shape (320, 32); config.json asks for (300, 32)" in refusal(folder)


def test_an_end_of_text_beyond_the_embeddings_is_named(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"<{index}>" for index in range(62)])
    tokenizer.eos_token = "<61>"
    tokenizer.save_pretrained(folder)
    assert "'<61>'" in refusal(folder)


def change_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((folder / INDEX_FILE).read_text())
    change(index)
    (folder / INDEX_FILE).write_text(json.dumps(index), encoding="utf-8-sig")


def test_an_index_without_metadata_and_with_a_byte_order_mark_is_read(sharded: Path, tmp_path: Path) -> None:
    folder = copy(sharded, tmp_path)
    change_index(folder, lambda index: index.pop("metadata"))
    assert inspect_folder(folder).parameters == inspect_folder(sharded).parameters


@pytest.mark.parametrize("outside", ["../model/model-00001-of-00003.safetensors", "/etc/passwd", "a\\b.safetensors"])
def test_an_index_that_leads_out_of_the_folder_is_refused(sharded: Path, tmp_path: Path, outside: str) -> None:
    folder = copy(sharded, tmp_path)
    change_index(folder, lambda index: index["weight_map"].update({"lm_head.weight": outside}))
    assert f"names {outside!r}, which is not a file beside it" in refusal(folder)


def test_a_shard_that_transformers_would_unpickle_is_refused(sharded: Path, tmp_path: Path) -> None:
    folder = copy(sharded, tmp_path)
    shard = min(folder.glob("*.safetensors"))
    shard.rename(folder / "part.bin")
    renamed = {shard.name: "part.bin"}
    change_index(
        folder,
        lambda index: index.update(
            weight_map={key: renamed.get(name, name) for key, name in index["weight_map"].items()}
        ),
    )
    assert "names 'part.bin', which transformers would not read as safetensors" in refusal(folder)


def test_a_header_that_safetensors_cannot_read_is_refused(single: Path, tmp_path: Path) -> None:
    folder = copy(single, tmp_path)
    content = (folder / SINGLE_FILE).read_bytes()
    (folder / SINGLE_FILE).write_bytes(content.replace(b'{"format":"pt"}', b'{"format":1234}', 1))
    assert "has a header whose __metadata__ is not names and texts" in refusal(folder)


def test_a_tensor_in_two_shards_is_refused(sharded: Path, tmp_path: Path) -> None:
    folder = copy(sharded, tmp_path)
    first, second = sorted(folder.glob("*.safetensors"))[:2]
    name, tensor = next(iter(load_file(first).items()))
    save_file(load_file(second) | {name: tensor}, second)
    assert f"tensor {name} is in {first.name} and in {second.name}" in refusal(folder)


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
        "import sys; from pathlib import Path; from publisher.base_model.facts import inspect_folder;"
        f"inspect_folder(Path({str(single)!r})); print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
