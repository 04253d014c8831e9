"""The example in docs/serving.md runs as pasted, on a tiny base model with two users' adapters, and each row of its
batch is what that adapter generates alone; the page names the versions that the code was written after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from publisher.checkpoint.recovery.serving import ENGINES, VLLM_RANKS
from tests.docs.blocks import ROOT, blocks_of
from tests.models import tiny_llama

PAGE = ROOT / "docs" / "serving.md"


def test_every_row_is_answered_by_its_own_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_llama(tmp_path / "org" / "base")
    for seed, user in enumerate(("ann", "bob")):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "org" / "base")
        torch.manual_seed(seed)
        config = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=2 + seed, init_lora_weights=False)
        get_peft_model(model, config).save_pretrained(tmp_path / "recovered" / user)
    monkeypatch.chdir(tmp_path)
    (block,) = [block for block in blocks_of(PAGE) if block.language == "python"]
    scope: dict[str, Any] = {}
    exec(block.text, scope)
    batch, answers = scope["batch"], scope["answers"]
    for row, user in enumerate(("ann", "bob", None)):
        model = AutoModelForCausalLM.from_pretrained("org/base")
        if user:
            model = PeftModel.from_pretrained(model, f"recovered/{user}")
        alone = model.eval().generate(**batch, max_new_tokens=20, do_sample=False)
        assert answers[row].tolist() == alone[row].tolist()


def test_the_page_names_the_versions_and_the_ranks() -> None:
    text = " ".join(PAGE.read_text().split())
    for engine in ENGINES:
        assert f"{engine.title} {engine.looked_at.split(' ')[0].rstrip(',')}" in text, engine.title
    *first, last = VLLM_RANKS
    assert f"which is {', '.join(map(str, first))} or {last}" in text
