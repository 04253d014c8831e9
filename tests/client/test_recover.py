from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from peft import LoraConfig, PeftConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from publisher.client.recover import recover
from publisher.manifest.manifest import Manifest
from tests.checkpoint.pruned import describe_again, lora, make_pair, save_checkpoint, zero_removed
from tests.checkpoint.sparse import write_masks, zero_pruned
from tests.worker.card.test_card import evaluation


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    pair = make_pair()
    pair.base.save_pretrained(tmp_path / "base")
    return save_checkpoint(tmp_path / "checkpoint", pair.pruned, base=str(tmp_path / "base"))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    lora(make_pair().pruned).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_printed_lines_use_the_recovered_adapter(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    output = tmp_path / "recovered"
    result = CliRunner().invoke(recover, [str(adapter), "--checkpoint", str(checkpoint), "--output", str(output)])
    assert result.exit_code == 0, result.output
    assert f"into {output}\n" in result.stdout
    assert "\nServes in: PEFT; vLLM from max_lora_rank 8; SGLang\n" in result.stdout
    scope: dict[str, object] = {}
    exec(result.stdout.split("\n\n")[1], scope)
    assert type(scope["model"]).__name__ == "PeftModelForCausalLM"


def test_command_says_verified_unverified_and_forced(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    lora(model).save_pretrained(tmp_path / "tied")
    other = save_checkpoint(tmp_path / "other", model.float(), base=str(tmp_path / "base"))
    said = {}
    for trained, on, option in (
        ("adapter", checkpoint, []),
        ("tied", checkpoint, []),
        ("tied", other, []),
        ("tied", other, ["--force"]),
    ):
        output = tmp_path / f"out{len(said)}"
        arguments = [str(tmp_path / trained), "--checkpoint", str(on), "--output", str(output), *option]
        result = CliRunner().invoke(recover, arguments)
        said[len(said)] = (result.exit_code, result.stdout + result.stderr)
    assert [code for code, _ in said.values()] == [0, 0, 4, 0]
    for (_, output_of), word in zip(said.values(), ("(unverified:", "(verified:", "--force", "(forced:"), strict=True):
        assert word in output_of


def test_strength_is_the_recovered_adapter_s_own(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    for strength, output in (("1", "as it is"), ("1.5", "stronger")):
        arguments = [str(adapter), "--checkpoint", str(checkpoint), "--output", str(tmp_path / output)]
        assert CliRunner().invoke(recover, [*arguments, "--strength", strength]).exit_code == 0
    alphas = [PeftConfig.from_pretrained(tmp_path / output).lora_alpha for output in ("as it is", "stronger")]
    assert alphas[1] == 1.5 * alphas[0]
    refused = CliRunner().invoke(recover, [*arguments[:-1], str(tmp_path / "none"), "--strength", "0"])
    assert (refused.exit_code, refused.stderr.count("\n")) == (4, 1)
    assert refused.stderr.startswith("Error: An update cannot be multiplied by 0.0.")


def test_rank_merge_and_strict_decide_how_an_adapter_ends(checkpoint: Path, tmp_path: Path) -> None:
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], use_dora=True)
    get_peft_model(make_pair().pruned.float(), config).save_pretrained(tmp_path / "dora")
    said = {}
    for option in ("--rank=3", "--merge", "--strict", "--rank=0"):
        output = tmp_path / f"out{option}"
        arguments = [str(tmp_path / "dora"), "--checkpoint", str(checkpoint), "--output", str(output), option]
        result = CliRunner().invoke(recover, [*arguments, "--base", str(tmp_path / "base")])
        said[option] = (result.exit_code, result.stdout + result.stderr)
    assert [code for code, _ in said.values()] == [0, 0, 4, 2]
    assert "Note: The update is a LoRA of rank 3" in said["--rank=3"][1]
    assert "Note: What DoRA does depends on the weights" in said["--merge"][1]
    assert "Merged the update of" in said["--merge"][1]
    assert "--strict refuses it" in said["--strict"][1]


def test_strength_is_the_certificate_s_unless_told_otherwise(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    certified = Manifest.read(checkpoint).model_copy(update={"evaluation": evaluation(64.0, strength=1.3)})
    certified.write(checkpoint)
    alphas = {}
    for output, options in {"by default": [], "as trained": ["--strength", "1"]}.items():
        arguments = [str(adapter), "--checkpoint", str(checkpoint), "--output", str(tmp_path / output), *options]
        said = CliRunner().invoke(recover, arguments).stdout
        assert ("Strength: 1.3 times what was trained, as this checkpoint's certificate" in said) == (not options)
        alphas[output] = PeftConfig.from_pretrained(tmp_path / output).lora_alpha
    assert alphas["by default"] == 1.3 * alphas["as trained"]


def test_refusal_is_one_line_and_exit_1(checkpoint: Path, tmp_path: Path) -> None:
    lora(make_pair().base).save_pretrained(tmp_path / "other")
    arguments = [str(tmp_path / "other"), "--checkpoint", str(checkpoint), "--output", str(tmp_path / "recovered")]
    result = CliRunner().invoke(recover, arguments)
    assert result.exit_code == 4
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: The adapter does not fit the checkpoint: base_model.model.model.layers.1.")
    assert not (tmp_path / "recovered").exists()


def test_checkpoint_that_is_none_is_one_line_and_exit_1(adapter: Path, tmp_path: Path) -> None:
    arguments = [str(adapter), "--checkpoint", str(tmp_path), "--output", str(tmp_path / "recovered")]
    result = CliRunner().invoke(recover, arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1)
    assert "is not a LoRAM checkpoint: it has no loram.json" in result.stderr


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """A checkpoint that lost single weights, an adapter trained on it beside it, and the base model."""
    make_pair().base.save_pretrained(tmp_path / "dense")
    checkpoint = save_checkpoint(tmp_path / "sparse", make_pair().base)
    zero_pruned(checkpoint, write_masks(tmp_path / "dense", checkpoint / "pruning_masks.safetensors"))
    describe_again(checkpoint)
    lora(make_pair().base).save_pretrained(tmp_path / "sparse-adapter")
    return checkpoint


def test_update_of_single_weights_is_merged_into_the_base_and_the_printed_lines_load_it(
    sparse: Path, tmp_path: Path
) -> None:
    arguments = [str(tmp_path / "sparse-adapter"), "--checkpoint", str(sparse), "--base", str(tmp_path / "dense")]
    result = CliRunner().invoke(recover, [*arguments, "--output", str(tmp_path / "merged")])
    assert result.exit_code == 0, result.output
    assert f"parameters in {tmp_path / 'merged'}\n" in result.stdout
    scope: dict[str, object] = {}
    exec(result.stdout.split("\n\n")[1], scope)
    assert type(scope["model"]).__name__ == "LlamaForCausalLM"


def test_update_of_single_weights_asks_for_the_base_models_folder_in_one_line(sparse: Path, tmp_path: Path) -> None:
    arguments = [str(tmp_path / "sparse-adapter"), "--checkpoint", str(sparse), "--output", str(tmp_path / "merged")]
    result = CliRunner().invoke(recover, arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1)
    assert "name its folder with --base" in result.stderr
    assert not (tmp_path / "merged").exists()


def test_asking_for_help_does_not_load_torch() -> None:
    code = "import sys, publisher.client.recover; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_the_owner_should_know_is_said(checkpoint: Path, tmp_path: Path) -> None:
    """An untrained adapter, whose embeddings were resized."""
    model = make_pair().pruned
    model.resize_token_embeddings(70)
    untrained = lora(model, init_lora_weights=True)
    untrained.save_pretrained(tmp_path / "a", save_embedding_layers=True)
    arguments = [str(tmp_path / "a"), "--checkpoint", str(checkpoint), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(recover, arguments)
    assert result.exit_code == 0, result.output
    assert "Note: This adapter is not trained" in result.stdout
    scope: dict[str, object] = {}
    exec(result.stdout.split("\n\n")[1], scope)
    assert scope["model"].get_input_embeddings().weight.shape[0] == 70  # type: ignore[attr-defined]


def test_adapter_that_diverged_is_one_line_and_exit_1(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    state = load_file(adapter / "adapter_model.safetensors")
    name = sorted(state)[0]
    save_file(state | {name: state[name] * float("nan")}, adapter / "adapter_model.safetensors")
    arguments = [str(adapter), "--checkpoint", str(checkpoint), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(recover, arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1)
    assert f"{name} of the adapter holds NaN" in result.stderr


def test_classifier_is_recovered_with_its_head_and_the_printed_lines_load_it(checkpoint: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=3)
    config = LoraConfig(task_type="SEQ_CLS", target_modules="all-linear", init_lora_weights=False)
    tuned = get_peft_model(model, config).eval()
    tuned.save_pretrained(tmp_path / "adapter")
    output = str(tmp_path / "out")
    result = CliRunner().invoke(
        recover, [str(tmp_path / "adapter"), "--checkpoint", str(checkpoint), "--output", output]
    )
    assert result.exit_code == 0, result.output
    assert "whole parameters" not in result.stdout
    silenced = make_pair().base
    zero_removed(silenced)
    silenced.save_pretrained(tmp_path / "base")
    scope: dict[str, Any] = {}
    exec(result.stdout.split("\n\n")[1], scope)
    tokens = torch.arange(1, 13).view(1, 12)
    loaded = scope["model"].eval()(tokens).logits
    assert loaded.shape == (1, 3)
    torch.testing.assert_close(loaded, tuned(tokens).logits, rtol=0, atol=1e-5)
