"""Whatever is trained on the checkpoint: what it changed there is what the recovered adapter changes of the base model
at the kept places, and nothing elsewhere. PEFT itself merges on both sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import PeftType
from transformers import LlamaConfig, Qwen2Config, Qwen3Config

from publisher.checkpoint.recovery import recover_adapter
from publisher.checkpoint.recovery.method import AdapterMethod, Ending
from publisher.checkpoint.recovery.methods import METHODS
from tests.checkpoint.recovery.methods.oracle import SIZES, Folders, error, folders, in_4_bits
from tests.checkpoint.recovery.methods.peft_configs import UPDATES, method_key, tuned

#: Llama's, Qwen3's and one with biases
FAMILIES = {"llama": LlamaConfig, "qwen3": Qwen3Config, "qwen2": Qwen2Config}
#: enough for any matrix of the tiny models: what is left is rounding
FULL = 24
#: of fp32, in the largest entry of a change
ROUNDING = 4e-6
#: PEFT has no form of them for modules in 4 bits; what they draw from the weights depends on the dtype of these
NEVER_IN_4_BITS = ("FROD", "TINYLORA + unsaved")
#: prompts, norms, tokens and biases have oracles of their own, as has what PEFT does not make any more
ELSEWHERE = {
    "BEFT", "POLY", "BONE", "BONE init_weights=bat", "PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "CPT",
    "LN_TUNING", "TRAINABLE_TOKENS",
}  # fmt: skip


#: what was done to a checkpoint beside pruning
KINDS = ("unaligned", "aligned", "NF4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Folders]:
    found = {}
    for family, config in FAMILIES.items():
        unaligned, aligned, packed = KINDS
        for kind in (unaligned, aligned):
            root = tmp_path_factory.mktemp(family)
            found[family, kind] = folders(config(**SIZES), root, aligned=kind == aligned)
        found[family, packed] = in_4_bits(found[family, aligned], tmp_path_factory.mktemp(family))
    return found


def _cases() -> list[Any]:
    """The family with biases, aligned, for every method; all the others are long."""
    return [
        pytest.param(
            case, family, kind, id=f"{case}-{family}-{kind}",
            marks=[] if (family, kind) == ("qwen2", "aligned") else [pytest.mark.long],
        )
        for case in UPDATES
        for family in FAMILIES
        for kind in KINDS
        if kind != "NF4" or case not in NEVER_IN_4_BITS
    ]  # fmt: skip


@pytest.mark.parametrize(("case", "family", "kind"), _cases())
def test_change_on_the_base_model_is_that_on_the_checkpoint_at_kept_places_and_nothing_elsewhere(
    tmp_path: Path,
    made: dict[tuple[str, str], Folders],
    record_property: Callable[[str, object], None],
    case: str,
    family: str,
    kind: str,
) -> None:
    given, method = made[family, kind], METHODS[method_key(case)]
    # what multiplies the base model's own weights there is compared with what it does to these
    by_the_base = method.ending is Ending.EXACT and bool(method.on_weights)
    as_trained = made[family, "unaligned"] if by_the_base else given
    adapted = tuned(as_trained.trainable(), case)
    adapted.save_pretrained(tmp_path / "adapter")
    expected = as_trained.expected(adapted)
    rank = FULL if method.ending is Ending.REALISED else None
    options: dict[str, Any] = {"base_model": str(given.base), "force": by_the_base}

    recover_adapter(tmp_path / "adapter", given.checkpoint, tmp_path / "recovered", rank=rank, **options)
    report = recover_adapter(tmp_path / "adapter", given.checkpoint, tmp_path / "merged", merge=True, **options)

    assert report.merged
    found = error(given.recovered(tmp_path / "recovered"), expected), error(given.merged(tmp_path / "merged"), expected)
    record_property("error", max(found))
    assert max(found) < ROUNDING


def test_none_of_pefts_methods_is_without_a_declaration() -> None:
    """And Bone, which files of older versions carry."""
    assert {method.peft_type for method in METHODS.values()} == {kind.value for kind in PeftType} | {"BONE"}


def test_every_method_has_an_oracle_or_a_reason() -> None:
    refused = {key for key, method in METHODS.items() if method.ending is Ending.REFUSED}
    held = {method_key(case) for case in UPDATES}
    assert held | ELSEWHERE | refused == METHODS.keys()
    assert not held & (ELSEWHERE | refused)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_declaration_says_why(method: AdapterMethod) -> None:
    assert method.title
    assert method.naming.marks
    assert method.why
    assert not method.why.endswith(".")
