"""The places of a LoRA, as this project tells them, against what PEFT makes on the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig

from publisher.checkpoint.recovery.built_skeleton import built_skeleton
from publisher.checkpoint.recovery.lora_places import NotPlain, is_plain, lora_places
from publisher.checkpoint.recovery.naming import Naming
from publisher.checkpoint.recovery.nothing_pruned import NothingPruned
from publisher.checkpoint.recovery.peft_places import peft_places
from publisher.checkpoint.recovery.places import places
from publisher.checkpoint.recovery.skeleton import Kind, Skeleton
from publisher.checkpoint.recovery.stored_skeleton import stored_skeleton
from publisher.errors import RequestFault
from publisher.families.known import known_families
from worker.families.tiny import options_of, tiny_config, tiny_model

NAMING = Naming((".lora_",))
#: What the quick tests take: plain, biases, scaled embeddings and more norms, other names
FEW = ("llama", "qwen2", "gemma3_text", "gpt_neox")
CONFIGS: dict[str, dict[str, Any]] = {
    "all linear": {"target_modules": "all-linear"},
    "attention": {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "query_key_value", "dense"]},
    "pattern": {"target_modules": r".*\.(self_attn|attention)\.(o_proj|dense|q_proj)"},
    "ranks": {"target_modules": "all-linear", "rank_pattern": {r"layers\.1\..*": 3, "o_proj": 5, "dense": 7}},
    "some layers": {
        "target_modules": ["q_proj", "query_key_value", "up_proj"],
        "layers_to_transform": [0, 2],
        "layers_pattern": "layers",
    },
    "one layer": {"target_modules": ["o_proj", "dense"], "layers_to_transform": 1},
    "without": {"target_modules": "all-linear", "exclude_modules": ["o_proj", "dense"], "lora_bias": True},
    "without a pattern": {"target_modules": "all-linear", "exclude_modules": r".*\.layers\.0\..*"},
    "embeddings and head": {"target_modules": ["embed_tokens", "embed_in", "lm_head", "embed_out", "q_proj"]},
    "saved whole": {"target_modules": "all-linear", "modules_to_save": ["lm_head", "embed_out", "embed_tokens"]},
    "a norm saved": {"target_modules": ["o_proj", "dense"], "modules_to_save": ["input_layernorm"]},
}


@pytest.fixture(scope="module", params=FEW)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(request.param, tmp_path_factory.mktemp(request.param))


def saved_model(family: str, folder: Path) -> Path:
    tiny_model(tiny_config(family, options_of(family))).save_pretrained(folder)
    return folder


def config(values: dict[str, Any]) -> dict[str, Any]:
    """adapter_config.json as PEFT writes it."""
    return LoraConfig(task_type="CAUSAL_LM", r=4, **values).to_dict()


@pytest.mark.parametrize("values", CONFIGS.values(), ids=CONFIGS)
def test_places_are_those_of_peft(folder: Path, values: dict[str, Any]) -> None:
    compare(folder, values)


@pytest.mark.long
@pytest.mark.parametrize("family", [each.family for each in known_families().families if each.supported])
def test_places_are_those_of_peft_in_every_family(tmp_path: Path, family: str) -> None:
    saved_model(family, tmp_path)
    compared = [compare(tmp_path, values) for values in CONFIGS.values()]
    assert any(compared) == (not built_skeleton(tmp_path).experts)


def compare(folder: Path, values: dict[str, Any]) -> bool:
    """Whether there was something to compare: a config that no module of the family is of is refused by both."""
    given, skeleton = config(values), built_skeleton(folder)
    assert is_plain(given)
    try:
        ours = lora_places(skeleton, given)
    except NotPlain:
        return False
    except ValueError:  # no module of the model is one of the targets
        with pytest.raises(Exception, match="does not fit the model"):
            peft_places(folder, given, NAMING)
        return False
    theirs = peft_places(folder, given, NAMING)
    assert ours.wanted == theirs.wanted
    assert {name: shape for name, shape in ours.also.items() if NAMING.is_whole(name)} == theirs.also
    assert ours.targets == theirs.targets
    assert (skeleton.embeddings, skeleton.vocabulary) == (theirs.input_embeddings, theirs.vocabulary)
    assert skeleton.vocabulary_modules == theirs.embeddings
    return True


# GPT-NeoX's files call the head otherwise than its modules, which transformers alone knows
@pytest.mark.parametrize("family", [family for family in FEW if family != "gpt_neox"])
def test_files_tell_the_same_places_without_transformers(tmp_path: Path, family: str) -> None:
    saved_model(family, tmp_path)
    built, stored = built_skeleton(tmp_path), stored_skeleton(tmp_path, NothingPruned())
    for values in CONFIGS.values():
        assert told(stored, values) == told(built, values)
    assert stored.vocabulary_modules == built.vocabulary_modules


def told(skeleton: Skeleton, values: dict[str, Any]) -> object:
    try:
        return lora_places(skeleton, config(values)).wanted
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize(
    "values",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"trainable_token_indices": [1, 2]},
        {"target_parameters": ["mlp.gate_up_proj"]},
        {"task_type": "SEQ_CLS"},
        {"something_of_tomorrow": 3},
        {"target_modules": None},
    ],
    ids=str,
)
def test_what_is_not_understood_is_left_to_peft(values: dict[str, Any]) -> None:
    plain = config({"target_modules": ["q_proj"]})
    assert is_plain(plain)
    assert not is_plain(plain | values)


def test_experts_are_left_to_peft_which_renames_them(tmp_path: Path) -> None:
    """PEFT takes the adapters of experts that were modules for what their one tensor is today."""
    folder = saved_model("mixtral", tmp_path)
    for skeleton in (built_skeleton(folder), stored_skeleton(folder, NothingPruned())):
        with pytest.raises(NotPlain):
            lora_places(skeleton, config({"target_modules": ["q_proj"]}))


def test_many_full_names_of_some_layers_are_left_to_peft_which_condenses_them(tmp_path: Path) -> None:
    """Of 20 names and more PEFT makes fewer, to which layers_to_transform applies and did not before."""
    skeleton = built_skeleton(folder := saved_model("llama", tmp_path))
    names = [name for name, module in skeleton.modules.items() if module.kind is Kind.LINEAR and name != skeleton.head]
    given = config({"target_modules": names, "layers_to_transform": [0]})
    assert {
        name for name in places(folder, given, NAMING, NothingPruned()).targets if ".layers.0." not in name
    } == set()


def test_a_pattern_of_ranks_that_is_none_is_refused_as_peft_does(tmp_path: Path) -> None:
    given = config({"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 2, "(": 3}})
    with pytest.raises(RequestFault, match="does not fit the model"):
        places(saved_model("llama", tmp_path), given, NAMING, NothingPruned())


def test_targets_that_are_no_linear_layers_are_left_to_peft(tmp_path: Path) -> None:
    folder = saved_model("llama", tmp_path)
    with pytest.raises(NotPlain):
        lora_places(built_skeleton(folder), config({"target_modules": ["mlp"]}))
    with pytest.raises(Exception, match=r"does not fit the model: Target module LlamaMLP"):
        places(folder, config({"target_modules": ["mlp"]}), NAMING, NothingPruned())
