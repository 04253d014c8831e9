"""What an adapter's config says by the version of PEFT that wrote it: no version is taken for another in silence."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from peft import LoraConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from publisher.checkpoint.recovery.methods import method_of
from publisher.checkpoint.recovery.written_by import LORA_OPTIONS, without_unsaved_biases
from publisher.errors import RequestFault

LORA: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}


def refuse(config: dict[str, Any]) -> None:
    method_of(config).refuse(config)


def test_options_of_lora_are_those_of_peft() -> None:
    """A new one has to be looked at: does it change what A and B mean?"""
    assert {each.name for each in fields(LoraConfig)} <= LORA_OPTIONS


@pytest.mark.parametrize("value", [True, "fast", {"rate": 1}, 3])
def test_option_of_a_newer_peft_is_refused_by_name(value: Any) -> None:
    with pytest.raises(RequestFault, match="trained with use_tomorrow, which this version"):
        refuse(LORA | {"use_tomorrow": value})


@pytest.mark.parametrize("value", [None, False, {}, []])
def test_option_of_a_newer_peft_that_is_off_is_none(value: Any) -> None:
    refuse(LORA | {"use_tomorrow": value})


def test_option_that_the_installed_peft_would_leave_out_is_refused() -> None:
    with pytest.raises(RequestFault, match=r"PEFT \S+, which is installed does not know"):
        method_of({"peft_type": "LOHA", "r": 2, "use_tomorrow": True})
    method_of({"peft_type": "LOHA", "r": 2, "use_tomorrow": None})


def test_method_that_the_installed_peft_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(PEFT_TYPE_TO_CONFIG_MAPPING, PeftType.HIRA)
    with pytest.raises(RequestFault, match=r"has no HIRA.* Install PEFT 0.20.0"):
        method_of({"peft_type": "HIRA", "peft_version": "0.20.0"})


def test_what_was_drawn_without_a_seed_is_refused() -> None:
    with pytest.raises(RequestFault, match=r"PEFT 0.19.1, which drew parts .* --from-merged"):
        refuse({"peft_type": "ADAMSS", "peft_version": "0.19.1"})
    refuse({"peft_type": "ADAMSS", "peft_version": "0.20.0", "random_seed": 0})


@pytest.mark.parametrize(
    ("written", "tensors", "bias"),
    [
        (None, ["o_proj.lora_A.weight"], "none"),
        ("0.20.0", ["o_proj.lora_A.weight", "o_proj.lora_B.bias"], "none"),
        ("0.20.0", ["o_proj.lora_A.weight", "o_proj.base_layer.bias"], "lora_only"),
        ("0.21.0.dev0@UNKNOWN", ["o_proj.lora_A.weight"], "lora_only"),
        ("1.0.0", ["o_proj.lora_A.weight"], "lora_only"),
    ],
)
def test_biases_are_promised_where_that_peft_saved_them(written: str | None, tensors: list[str], bias: str) -> None:
    config = LORA | {"bias": "lora_only"} | ({} if written is None else {"peft_version": written})
    assert without_unsaved_biases(config, tensors) == config | {"bias": bias}
