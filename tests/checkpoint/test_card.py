from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from publisher.checkpoint.card import CardSubject, model_card
from publisher.checkpoint.evaluation import EvaluationReport
from publisher.checkpoint.manifest import Manifest
from tests.checkpoint.pruned import make_pair, manifest, save_checkpoint
from tests.models import byte_tokenizer


def evaluation(recovered: float) -> EvaluationReport:
    budget = {"steps": 40, "batch_size": 4, "sequence_length": 256, "rank": 8, "learning_rate": 1e-3}
    return EvaluationReport.model_validate(
        {
            "perplexity": {"moby": {"base": 76.6, "pruned": 419.0, "aligned": None, "quantized": 433.5}},
            "held_out_tokens": {"moby": 16384},
            "bytes": {"base": 400, "pruned": 200, "quantized": 60},
            "certificate": {
                "corpus": "moby",
                "budget": budget,
                "base": 76.6,
                "recovered": recovered,
                "training": {"seconds": 3.0, "peak_memory_bytes": 10, "tokens": 40960},
                "recovered_perplexity": {"moby": recovered},
            },
        }
    )


def described(tmp_path: Path, **changes: object) -> Manifest:
    return manifest(tmp_path, "org/base", "c" * 40).model_copy(update=changes)


def metadata(card: str) -> Any:
    """As huggingface_hub reads it; its attributes are the YAML's keys."""
    return ModelCard(card).data


def headline(card: str) -> str:
    """The first paragraph below the title."""
    return re.split(r"\n# .+\n\n", card, maxsplit=1)[1].split("\n\n")[0]


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (evaluation(64.0), "**Certified: an adapter trained on this checkpoint improves the base model.**"),
        (evaluation(80.0), "does not improve the base model"),
        (None, "**Not certified.**"),
    ],
)
def test_card_opens_with_the_verdict(tmp_path: Path, report: EvaluationReport | None, said: str) -> None:
    card = model_card(CardSubject(described(tmp_path, evaluation=report), "org/small"))
    assert said in headline(card)


def test_metadata_is_what_the_hub_understands(tmp_path: Path) -> None:
    subject = CardSubject(
        described(tmp_path, recipe={"quantization": {"scheme": "nf4"}}), "org/small", license="apache-2.0"
    )
    data = metadata(model_card(subject))
    assert (data.base_model, data.base_model_relation) == ("org/base", "quantized")
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "text-generation", "apache-2.0")
    assert {"loram", "pruned"} <= set(data.tags)


def test_local_base_model_is_not_offered_to_the_hub_as_a_repository(tmp_path: Path) -> None:
    local = described(tmp_path).base.model_copy(update={"endpoint": None, "repo_id": "/models/base"})
    data = metadata(model_card(CardSubject(described(tmp_path, base=local), "org/small")))
    assert data.base_model is None
    assert data.license is None


def test_tables_hold_the_numbers(tmp_path: Path) -> None:
    card = model_card(CardSubject(described(tmp_path, evaluation=evaluation(64.0)), "org/small"))
    assert "| `moby` | 76.6 | 419 | – | 433.5 | 64 |" in card
    assert "| Parameters | 100 | 50 | 2.00× |" in card


def test_own_hub_is_named_in_the_code_and_hugging_face_is_not(tmp_path: Path) -> None:
    own = model_card(CardSubject(described(tmp_path), "org/small", endpoint="http://hub.example/hub"))
    assert "export HF_ENDPOINT=http://hub.example/hub" in own
    assert "HF_ENDPOINT" not in model_card(CardSubject(described(tmp_path), "o/s", endpoint="https://huggingface.co"))


def test_code_of_the_card_runs_as_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load, wrap in a LoRA, save, recover, and use on the base model."""
    pair = make_pair(vocab_size=260)
    pair.base.save_pretrained(tmp_path / "base")
    checkpoint = save_checkpoint(tmp_path / "checkpoint", pair.pruned)
    byte_tokenizer().save_pretrained(checkpoint)
    local = described(checkpoint).base.model_copy(update={"endpoint": None, "repo_id": str(tmp_path / "base")})
    subject = CardSubject(described(checkpoint, base=local), str(checkpoint))
    described(checkpoint, base=local).write(checkpoint)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for code in re.findall(r"```python\n(.+?)```", model_card(subject), flags=re.S):
        exec(code, scope)
    assert (tmp_path / "recovered" / "adapter_model.safetensors").is_file()
    assert type(scope["model"]).__name__ == "PeftModelForCausalLM"
