from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

from publisher.checkpoint.compression import compress_folder
from publisher.manifest.evaluation import EvaluationReport
from publisher.manifest.manifest import Counts, Manifest, TextRecord, Widths
from publisher.manifest.verdict import Requirement, Verdict
from tests.checkpoint.pruned import STRUCTURED, make_pair, manifest, save_checkpoint, written
from tests.checkpoint.sparse import write_masks, zero_pruned
from tests.models import byte_tokenizer
from worker.card.card import CardSubject, model_card


def evaluation(
    recovered: float, strength: float = 1.0, *, documents: int = 12, error: float | None = 0.02
) -> EvaluationReport:
    """`documents`, `error`: over how many the certificate's gain was measured, and its standard error."""
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
                "tried_strengths": [
                    {"strength": 1.0, "loss": 4.25},
                    {"strength": 1.3, "loss": 4.125 if strength == 1.3 else 4.375},
                ],
                "training": {"seconds": 3.0, "peak_memory_bytes": 10, "tokens": 40960},
                "recovered_perplexity": {"moby": recovered, "speeches": 31.1},
                "base_perplexity": {"moby": 76.6, "speeches": 31.3},
                "differences": {
                    "moby": {"documents": documents, "mean": math.log(76.6 / recovered), "standard_error": error},
                    "speeches": {"documents": 9, "mean": math.log(31.3 / 31.1), "standard_error": 0.01},
                },
                "direct": 54.4,
                "direct_perplexity": {"moby": 54.4, "speeches": 30.8},
                "direct_training": {"seconds": 5.0, "peak_memory_bytes": 2**30, "tokens": 40960},
            },
            "gradient_fidelity": {"mean": 0.51, "whole": 0.62, "layers": [0.5, 0.52]},
            "tasks": {"arc_easy": {"base": {"acc": 0.61, "acc_stderr": 0.0123}, "recovered": {"acc": 0.63}}},
        }
    )


def older(recovered: float) -> EvaluationReport:
    """As publishers wrote it that did not measure document by document."""
    written = evaluation(recovered).model_dump(mode="json")
    for newer in ("differences", "verdict"):
        del written["certificate"][newer]
    return EvaluationReport.model_validate(written | {"certificate": written["certificate"] | {"improves": True}})


def described(tmp_path: Path, recipe: Mapping[str, object] | None = None, **changes: object) -> Manifest:
    """`recipe`: what is not said of pruning is as in STRUCTURED."""
    if recipe is not None:
        changes["recipe"] = written({"pruning": STRUCTURED} | dict(recipe))
    changes = {"parameters": Counts(base=100, pruned=50), **changes}
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
        (evaluation(64.0, error=0.1), "**Not certified: whether an adapter trained on this checkpoint improves"),
        (
            evaluation(76.55, error=1e-5),
            "**Not certified: the adapter that was trained on this checkpoint as a probe hardly",
        ),
        (evaluation(64.0, documents=7), "**Inconclusive: too few held-out documents"),
        (evaluation(64.0, documents=1, error=None), "**Inconclusive: too few held-out documents"),
        (older(64.0), "**No verdict: the publisher did not measure document by document"),
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


def test_a_licence_of_its_own_is_named_with_its_texts(tmp_path: Path) -> None:
    subject = CardSubject(
        described(tmp_path),
        "org/small",
        license="other",
        license_name="some-community",
        license_link="https://example.org/terms",
        legal_texts=("LICENSE", "USE POLICY.md"),
    )
    card = model_card(subject)
    data = metadata(card)
    assert (data.license, data.license_name) == ("other", "some-community")
    assert data.license_link == "https://example.org/terms"
    assert "The base model's licence goes for this checkpoint, too: `other`, `some-community`." in card
    assert "Its text: <https://example.org/terms>." in card
    assert "[LICENSE](LICENSE), [USE POLICY.md](USE%20POLICY.md)" in card


def test_a_card_without_a_licence_has_no_section_on_it(tmp_path: Path) -> None:
    assert "## Licence" not in model_card(CardSubject(described(tmp_path), "org/small"))


def test_local_base_model_is_not_offered_to_the_hub_as_a_repository(tmp_path: Path) -> None:
    local = described(tmp_path).base.model_copy(update={"endpoint": None, "repo_id": "/models/base"})
    data = metadata(model_card(CardSubject(described(tmp_path, base=local), "org/small")))
    assert data.base_model is None
    assert data.license is None


def test_tables_hold_the_numbers(tmp_path: Path) -> None:
    card = model_card(CardSubject(described(tmp_path, evaluation=evaluation(64.0)), "org/small"))
    assert "| `moby` | 76.6 | 419 | – | 433.5 | 64 |" in card
    assert "| Parameters | 100 | 50 | 2.00× |" in card
    assert "| `moby` (trained on) | 76.6 | 64 | 54.4 | 57% | 0.18 ± 0.02 | 12 | passed |" in card
    assert "| `speeches` | 31.3 | 31.1 | 30.8 | 40% | 0.00641 ± 0.01 | 9 | not significant |" in card
    assert "on moby falls by 0.18 nats per token (standard error 0.02, 12 held-out documents)" in headline(card)
    assert "| The same LoRA on the base model | 1,024 MiB | 5 | 40,960 |" in card
    assert "| LoRA on this checkpoint (probe) | 0 MiB | 3 | 40,960 |" in card
    assert "Gradient fidelity: 0.510 on average" in card
    assert "| `arc_easy` | acc | 0.61 ± 0.012 | – | 0.63 |" in card
    assert "The same LoRA trained on the base model itself reaches 54.4: 57% of its gain carries over." in headline(
        card
    )


def test_certificate_says_at_which_strength_the_probe_was_recovered(tmp_path: Path) -> None:
    card = model_card(CardSubject(described(tmp_path, evaluation=evaluation(64.0, strength=1.3)), "org/small"))
    assert "The recovered LoRA's update was multiplied by 1.3: of what was tried, the least whose loss" in card
    assert "| Strength | 1 | 1.3 |" in card
    assert "| Loss, nats per token | 4.2500 | 4.1250 |" in card
    assert "| Standard error of its difference from the least | 0.0000 | 0.0000 |" in card
    older = evaluation(64.0).model_dump(exclude={"certificate": {"tried_strengths"}})
    subject = CardSubject(described(tmp_path, evaluation=EvaluationReport.model_validate(older)), "org/small")
    assert "multiplied" not in model_card(subject)


def test_certificate_without_upper_bound_shows_none(tmp_path: Path) -> None:
    report = EvaluationReport.model_validate(
        evaluation(64.0).model_dump(exclude={"certificate": {"direct", "direct_perplexity", "direct_training"}})
    )
    card = model_card(CardSubject(described(tmp_path, evaluation=report), "org/small"))
    assert "| `moby` (trained on) | 76.6 | 64 | – | – |" in card
    assert "The same LoRA" not in card


WITH_MOBY = {"corpora": [{"name": "classics", "weight": 3.0}, {"name": "moby", "weight": 1.0}]}
CLASSICS = {"corpora": [{"name": "classics", "weight": 1.0}]}


@pytest.mark.parametrize(
    ("criterion", "calibration", "alignment", "readers"),
    [
        ("taylor", {"corpus": "classics", "corpora": []}, WITH_MOBY, "alignment"),
        ("taylor", {"corpus": "moby", "corpora": []}, CLASSICS, "calibration"),
        ("wanda", {"corpus": None, **WITH_MOBY}, WITH_MOBY, "calibration and alignment"),
        ("magnitude", {"corpus": "moby", "corpora": []}, None, None),
        ("taylor", {"corpus": None, **CLASSICS}, CLASSICS, None),
        ("magnitude", None, None, None),
    ],
)
def test_card_says_what_else_read_the_text_that_the_probe_trains_on(
    tmp_path: Path,
    criterion: str,
    calibration: dict[str, Any] | None,
    alignment: dict[str, Any] | None,
    readers: str | None,
) -> None:
    pruning = {"ratio": 0.5, "criterion": criterion, "calibration": calibration}
    recipe = {"pruning": pruning, "alignment": alignment, "evaluation": {"corpora": ["moby"]}}
    card = model_card(CardSubject(described(tmp_path, evaluation=evaluation(64.0), recipe=recipe), "org/small"))
    if readers is None:
        assert "Training documents of" not in card
    else:
        assert f"Training documents of `moby` are among the text of this checkpoint's {readers}, so" in card


@pytest.mark.parametrize(
    ("report", "required", "said"),
    [
        (evaluation(80.0), True, "it was not published: its recipe requires the certificate"),
        (evaluation(80.0), "unless_failed", "it was not published: its recipe requires the certificate"),
        (evaluation(80.0), False, "all the same (`evaluation.require_certificate: false`)"),
        (
            evaluation(64.0, documents=7),
            "unless_failed",
            'all the same (`evaluation.require_certificate: "unless_failed"`)',
        ),
    ],
)
def test_certificate_that_did_not_pass_says_at_the_top_whether_the_recipe_required_it(
    tmp_path: Path, report: EvaluationReport, required: Requirement, said: str
) -> None:
    recipe = {"evaluation": {"corpora": ["moby"], "require_certificate": required}}
    card = model_card(CardSubject(described(tmp_path, evaluation=report, recipe=recipe), "org/small"))
    assert said in headline(card)


def test_manifest_of_a_publisher_that_did_not_measure_by_document_is_read_without_a_verdict(tmp_path: Path) -> None:
    described(tmp_path, evaluation=older(64.0)).write(tmp_path)
    read = Manifest.read(tmp_path).evaluation
    assert read is not None
    assert read.certificate is not None
    assert (read.certificate.verdict, read.certificate.improves) == (Verdict.NOT_STATED, False)
    assert read.certificate.gain == pytest.approx(76.6 / 64.0)


def test_own_hub_is_named_in_the_code_and_hugging_face_is_not(tmp_path: Path) -> None:
    own = model_card(CardSubject(described(tmp_path), "org/small", endpoint="http://hub.example/hub"))
    assert "export HF_ENDPOINT=http://hub.example/hub" in own
    assert "HF_ENDPOINT" not in model_card(CardSubject(described(tmp_path), "o/s", endpoint="https://huggingface.co"))


@pytest.mark.parametrize("method", ["structured", "unstructured"])
def test_base_model_on_another_hub_than_the_checkpoint_is_loaded_from_there(tmp_path: Path, method: str) -> None:
    """HF_ENDPOINT names one Hub per process: with the checkpoint's the base model would not be found."""
    recipe = {"pruning": {"method": method, "criterion": "magnitude", "ratio": 0.5}}
    here, there = "http://hub.example", "https://huggingface.co"

    def recovering(base_at: str | None, checkpoint_at: str) -> str:
        made = described(tmp_path, recipe=recipe)
        made = made.model_copy(update={"base": made.base.model_copy(update={"endpoint": base_at})})
        return model_card(CardSubject(made, "org/small", endpoint=checkpoint_at)).split("## Use")[1]

    assert "another Hub: `unset HF_ENDPOINT` first" in recovering(there, here)
    assert f"open_checkpoint('org/small', endpoint={here!r}, weights=False)" in recovering(there, here)
    assert f"another Hub: `export HF_ENDPOINT={here}` first" in recovering(here, there)
    assert "If `org/base` is on huggingface.co, `unset HF_ENDPOINT` first" in recovering(None, here)
    for same in (recovering(here, here), recovering(there, there), recovering(None, there)):
        assert "unset HF_ENDPOINT" not in same
        assert "another Hub" not in same


TEXT = {"calibration": {"corpus": "text"}}
UNIFORM = STRUCTURED | {"layout": "uniform", "protect_first": 0, "protect_last": 0}
SEMI = {"method": "semi_structured", "criterion": "sparsegpt", "ratio": 0.5, "pattern": "4:8"} | TEXT
UNSTRUCTURED = {"method": "unstructured", "criterion": "wanda", "ratio": 0.6} | TEXT
COMPRESSED = UNSTRUCTURED | {"storage": "compressed"}


def card_of(tmp_path: Path, pruning: dict[str, object], **changes: object) -> str:
    recipe = {"pruning": pruning, "quantization": {"scheme": "none"}}
    return model_card(CardSubject(described(tmp_path, recipe=recipe, **changes), "org/small"))


@pytest.mark.parametrize(
    ("pruning", "said", "unsaid"),
    [
        (STRUCTURED, "removed attention heads (whole KV groups) and MLP neurons from 2 of its 4 layers", "masked"),
        (SEMI, "kept 4 of every 8 neighbouring weights in each row of the pruned layers' matrices", "Structured"),
        (UNSTRUCTURED, "removed 60% of the weights of the pruned layers' matrices", "hold only"),
        (COMPRESSED, "The files hold only the weights that were kept, and one bit for each weight", "Structured"),
    ],
    ids=["structured", "semi_structured", "unstructured", "compressed"],
)
def test_card_says_what_was_pruned_and_how(tmp_path: Path, pruning: dict[str, object], said: str, unsaid: str) -> None:
    whole, cut = Widths(query_heads=6, kv_heads=3, neurons=20), Widths(query_heads=4, kv_heads=2, neurons=8)
    card = card_of(tmp_path, pruning, widths=[whole, cut, cut, whole])
    assert said in card
    assert unsaid not in card
    assert f"- {str(pruning.get('method', 'structured')).replace('_', '-')}-pruning" in card


def test_memory_of_a_checkpoint_that_lost_single_weights_is_not_praised(tmp_path: Path) -> None:
    for pruning in (SEMI, UNSTRUCTURED, COMPRESSED):
        card = card_of(tmp_path, pruning)
        assert "take as much memory as a dense model" in card
        assert "| Parameters that are kept | 100 | 50 | 2.00× |" in card
        assert "mask_adapter(model, checkpoint)" in card


def test_one_width_loads_without_this_package_and_the_card_says_so(tmp_path: Path) -> None:
    assert "import publisher.checkpoint " in card_of(tmp_path, STRUCTURED)
    card = card_of(tmp_path, UNIFORM)
    assert "import publisher.checkpoint " not in card
    assert "transformers loads it as it is" in card


def run_code(card: str) -> dict[str, object]:
    scope: dict[str, object] = {}
    for code in re.findall(r"```python\n(.+?)```", card, flags=re.S):
        exec(code, scope)
    return scope


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
    scope = run_code(model_card(subject).replace("DIR_OR_REPO", str(tmp_path / "base")))
    assert (tmp_path / "recovered" / "adapter_model.safetensors").is_file()
    assert type(scope["model"]).__name__ == "PeftModelForCausalLM"


@pytest.mark.parametrize("strength", [1.0, 1.3])
def test_code_for_compressed_single_weights_runs_as_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strength: float
) -> None:
    """Expand, train masked, use on the base model masked, and merge: at the certificate's strength both."""
    make_pair(vocab_size=260).base.save_pretrained(tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "dense")
    masks = write_masks(tmp_path / "dense", tmp_path / "masks.safetensors")
    zero_pruned(tmp_path / "dense", masks)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    compress_folder(tmp_path / "dense", masks, checkpoint)
    byte_tokenizer().save_pretrained(checkpoint)
    local = described(checkpoint).base.model_copy(update={"endpoint": None, "repo_id": str(tmp_path / "base")})
    recipe = {"pruning": COMPRESSED, "quantization": {"scheme": "none"}}
    told = described(checkpoint, base=local, recipe=recipe, evaluation=evaluation(64.0, strength))
    told.write(checkpoint)
    monkeypatch.chdir(tmp_path)
    card = model_card(CardSubject(told, str(checkpoint))).replace("DIR_OR_REPO", str(tmp_path / "base"))
    training = "[weight.data.normal_() for name, weight in model.named_parameters() if 'lora_B' in name]"
    assert "# … train with" in card
    scope = run_code(re.sub("# … train with.*", training, card))
    tokens = torch.arange(12)[None]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    live: Any = scope["model"]
    torch.testing.assert_close(merged(tokens).logits, live(tokens).logits)


@pytest.mark.parametrize("include_embeddings", [False, True])
def test_one_width_loads_anywhere_unless_embeddings_are_in_four_bits(tmp_path: Path, include_embeddings: bool) -> None:
    quantization = {"scheme": "nf4", "include_embeddings": include_embeddings}
    recipe = {"pruning": UNIFORM, "quantization": quantization}
    card = model_card(CardSubject(described(tmp_path, recipe=recipe), "org/small"))
    assert ("transformers loads it as it is" in card) != include_embeddings
    assert ("import publisher.checkpoint  #" in card) == include_embeddings


def test_card_of_a_mixture_trains_what_can_be_recovered(tmp_path: Path) -> None:
    """PEFT's "all-linear" would train fused experts."""
    sizes = {"vocab_size": 260, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 2}
    MixtralForCausalLM(MixtralConfig(**sizes, **heads)).save_pretrained(tmp_path / "mixture")
    byte_tokenizer().save_pretrained(tmp_path / "mixture")
    widths = [Widths(query_heads=2, kv_heads=1, neurons=0, experts=2)] * 2
    told = described(tmp_path / "mixture", base_widths=widths, widths=widths)
    card = model_card(CardSubject(told, str(tmp_path / "mixture")))
    train = re.findall(r"```python\n(.+?)```", card, flags=re.S)[0].replace(
        '"adapter"', repr(str(tmp_path / "adapter"))
    )
    exec(train, {})
    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", framework="pt") as file:
        modules = {name.split(".")[-3] for name in file.keys()}  # noqa: SIM118 - not a mapping
    assert modules == {"q_proj", "k_proj", "v_proj", "o_proj"}


@pytest.mark.parametrize(("before", "said"), [([], False), (["<bos>"], True)])
def test_card_says_what_sequences_have_to_begin_with(tmp_path: Path, before: list[str], said: bool) -> None:
    text = TextRecord(before=before, close=["<eos>"])
    card = model_card(CardSubject(described(tmp_path, text=text), "me/small"))
    assert ("begin with `<bos>`" in card) == said
