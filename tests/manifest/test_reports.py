from __future__ import annotations

from pathlib import Path

import pytest

from publisher.manifest.reports import AlignmentReport, FetchedBase, read_document_losses, read_probe_losses

ALIGNED = {
    "objective": "distillation",
    "optimizer": "adamw",
    "quantization_aware": False,
    "optimizer_state_bytes": 7,
    "steps": 3,
    "skipped_steps": 0,
    "step": 2,
    "checks": [{"step": 2, "loss": None}],
    "tokens": 300,
    "loss": [3.0, 2.5, 2.25],
    "gradient_matching": 1.0,
    "gradient_cosine": [0.25, 0.5, 0.75],
    "seconds": 1.5,
    "tokens_per_second": 200.0,
    "data_wait_share": 0.125,
    "peak_memory_bytes": 9,
    "bf16_modules": ["a"],
    "reconstruction": None,
}


def test_manifest_has_of_alignment_all_but_the_numbers_of_each_step() -> None:
    report = AlignmentReport.model_validate(ALIGNED)
    assert report.model_dump(mode="json") == ALIGNED
    in_detail = {name: ALIGNED[name] for name in ("loss", "gradient_cosine")}
    ends = {"first_loss": 3.0, "last_loss": 2.25}
    assert report.summary().model_dump(mode="json") | in_detail == ALIGNED | ends


def test_reconstruction_alone_has_no_losses_and_the_mean_of_its_errors() -> None:
    matrices = [{"name": name, "before": 0.5, "after": after} for name, after in (("q", 0.25), ("k", 0.125))]
    solved = {"tokens": 64, "seconds": 1.0, "peak_memory_bytes": 1, "matrices": matrices}
    report = AlignmentReport.model_validate(ALIGNED | {"loss": [], "reconstruction": solved})
    summary = report.summary()
    assert (summary.first_loss, summary.last_loss) == (None, None)
    assert summary.reconstruction is not None
    assert (summary.reconstruction.error_before, summary.reconstruction.error_after) == (0.5, 0.1875)
    nothing = report.model_copy(update={"reconstruction": report.reconstruction.model_copy(update={"matrices": []})})
    assert nothing.summary().reconstruction is None


def test_base_that_is_read_as_it_was_fetched_says_nothing_of_rewriting() -> None:
    """The file's digest is the fetch stage's: stages that rest on it are reused."""
    fetched = FetchedBase(repo_id="org/base", revision="c", files={})
    assert fetched.content() == {"repo_id": "org/base", "revision": "c", "files": {}}
    record = {"size": 1, "sha256": "0" * 64}
    rewritten = FetchedBase.model_validate(fetched.content() | {"rewritten": {"config.json": record}})
    assert rewritten.content()["rewritten"] == {"config.json": record}


@pytest.mark.parametrize("read", [read_document_losses, read_probe_losses])
def test_what_was_not_measured_is_empty(read: object, tmp_path: Path) -> None:
    assert callable(read)
    assert read(None) == {}
