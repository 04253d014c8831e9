"""Nothing that is published says where on the publisher's machine the base model lay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from publisher.client.recover import recover
from publisher.manifest.manifest import Manifest
from tests.models import tiny_llama
from tests.worker.stages.building import PRUNING, prose
from worker.build.command import build

RECIPE: dict[str, Any] = {
    "pruning": PRUNING,
    "alignment": {"corpora": [{"name": "prose"}], "tokens": 256, "sequence_length": 32, "batch_tokens": 128},
    "quantization": {"scheme": "nf4"},
    "evaluation": {
        "corpora": ["prose"],
        "tokens": 128,
        "sequence_length": 32,
        "require_certificate": False,
        "probe_budget": {"steps": 2, "sequence_length": 32, "batch_size": 2},
    },
}
PLACE = "a-secret-place"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the publisher has the base model, text and the recipe; the base model's files know it as well."""
    place = tmp_path_factory.mktemp(PLACE)
    base = tiny_llama(place / "base-folder")
    for name, key in (("config.json", "_name_or_path"), ("tokenizer_config.json", "name_or_path")):
        config = json.loads((base / name).read_bytes())
        (base / name).write_text(json.dumps(config | {key: str(base)}))
    (place / "recipe.json").write_text(json.dumps(RECIPE))
    prose(place / "prose.jsonl")
    return place


def built(place: Path, out: Path, *more: str) -> Path:
    arguments = [str(place / "base-folder"), str(out), "--recipe", str(place / "recipe.json"), "--device", "cpu"]
    corpus = ["--corpus", f"prose={place / 'prose.jsonl'}", "--work", str(place / "work")]
    done = CliRunner().invoke(build, [*arguments, *corpus, *more])
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def unnamed(place: Path) -> Path:
    return built(place, place / "unnamed")


@pytest.fixture(scope="module")
def named(place: Path, unnamed: Path) -> Path:
    """From the same finished stages."""
    return built(place, place / "named", "--base-name", "org/base")


@pytest.fixture
def adapter(unnamed: Path, tmp_path: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(unnamed)
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def recovered(adapter: Path, checkpoint: Path, *more: str) -> Any:
    output = adapter.parent / "recovered"
    return CliRunner().invoke(recover, [str(adapter), "--checkpoint", str(checkpoint), "--output", str(output), *more])


def base_of(adapter: Path) -> str:
    config = json.loads((adapter.parent / "recovered" / "adapter_config.json").read_bytes())
    return str(config["base_model_name_or_path"])


@pytest.mark.parametrize("checkpoint", ["unnamed", "named"])
def test_no_published_file_holds_the_publisher_s_path(checkpoint: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(checkpoint)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"README.md", "loram.json", "config.json", "tokenizer_config.json"} <= {path.name for path in files}
    assert any(path.suffix == ".png" for path in files)
    assert [path.name for path in files if PLACE.encode() in path.read_bytes()] == []


def test_a_given_name_is_in_manifest_and_card(named: Path) -> None:
    base = Manifest.read(named).base
    assert (base.repo_id, base.commit, base.is_public) == ("org/base", None, True)
    card = (named / "README.md").read_text()
    assert "base_model: org/base" in card
    assert "AutoModelForCausalLM.from_pretrained('org/base', dtype=\"auto\")" in card
    assert "publisher recover adapter --checkpoint path/to/checkpoint --output recovered\n" in card


def test_without_a_name_the_card_asks_the_user_for_theirs(unnamed: Path) -> None:
    base = Manifest.read(unnamed).base
    assert (base.repo_id, base.commit, base.is_public) == ("base-folder", None, False)
    card = (unnamed / "README.md").read_text()
    assert "base_model:" not in card
    assert "publisher recover adapter --checkpoint path/to/checkpoint --output recovered --base DIR_OR_REPO\n" in card
    assert 'base_model = "DIR_OR_REPO"  # put in where you have the base model' in card
    assert 'recover_adapter(Path("adapter"), checkpoint, Path("recovered"), base_model=base_model)' in card


def test_an_adapter_of_a_named_base_names_it(named: Path, adapter: Path) -> None:
    done = recovered(adapter, named)
    assert done.exit_code == 0, done.output
    assert base_of(adapter) == "org/base"


def test_an_adapter_of_an_unnamed_base_is_recovered_only_when_the_base_is_named(unnamed: Path, adapter: Path) -> None:
    refused = recovered(adapter, unnamed)
    assert refused.exit_code == 4
    assert "base-folder" in refused.stderr
    assert "--base" in refused.stderr
    assert not (adapter.parent / "recovered").exists()
    assert recovered(adapter, unnamed, "--base", "my/base").exit_code == 0
    assert base_of(adapter) == "my/base"


def test_a_repository_cannot_be_given_another_name(place: Path, tmp_path: Path) -> None:
    arguments = ["org/base", str(tmp_path / "out"), "--recipe", str(place / "recipe.json"), "--base-name", "org/other"]
    done = CliRunner().invoke(build, [*arguments, "--corpus", f"prose={place / 'prose.jsonl'}"])
    assert done.exit_code == 4
    assert "--base-name is for folders" in done.output
