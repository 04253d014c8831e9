"""The format over the years: nothing is lost, nothing comes without a version."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from publisher.manifest.manifest import Manifest
from publisher.manifest.versions import CAME_WITH, FormatVersion
from tests.manifest.contents import certificate, content, evaluation

Json = dict[str, Any]


def whole() -> Json:
    """A manifest that has every part there is."""
    measured = {"recovered": 62.0, "direct": 54.4, "direct_perplexity": {"novel": 54.4}}
    tried = {"strength": 1.15, "loss": 4.1, "error": 0.01}
    trained = {"seconds": 5.0, "peak_memory_bytes": 20, "tokens": 40960}
    certified = certificate(direct_training=trained, tried_strengths=[tried], **measured)
    fidelity = {"mean": 0.5, "whole": 0.6, "layers": [0.5, None]}
    sizes = {"tokens": 64, "seconds": 1.5, "peak_memory_bytes": 1}
    reconstruction = sizes | {"error_before": 0.5, "error_after": 0.25, "quantization_aware": True}
    losses = {"first_loss": 3.0, "last_loss": 2.25, "tokens_per_second": 42.5, "data_wait_share": 0.125}
    steps = {"steps": 3, "step": 3, "skipped_steps": 1, "checks": [{"step": 3, "loss": 2.5}, {"step": 4, "loss": None}]}
    counted = {"optimizer_state_bytes": 7, "bf16_modules": ["a"], "gradient_matching": 1.0, "quantization_aware": True}
    names = {"objective": "distillation", "optimizer": "adamw", "reconstruction": reconstruction}
    return content(
        base=content()["base"] | {"files": {"config.json": {"size": 1, "sha256": "1" * 64}}},
        alignment=sizes | losses | steps | counted | names,
        evaluation=evaluation(certified) | {"gradient_fidelity": fidelity, "tasks": {"t": {"base": {"acc": 0.5}}}},
        text={"before": ["<s>"], "close": ["</s>"]},
        software={"torch": "2"},
        stage_seconds={"fetch": 1.5},
    )


def fields(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Keys of what `model` is written as: `base.files[].size`."""
    yield from (above + name for name in model.model_computed_fields)
    for name, field in model.model_fields.items():
        yield from _fields_in(field.annotation, above + name)


def _fields_in(annotation: Any, name: str) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from fields(annotation, f"{name}.")
        return
    inner = [argument for argument in get_args(annotation) if argument is not type(None)]
    of_parts = "[]" if get_origin(annotation) in (list, dict) else ""
    found = [key for argument in inner for key in _fields_in(argument, name + of_parts)]
    parts = [key for key in found if "." in key.removeprefix(name)]
    yield from parts or [name]


def with_new_keys(part: Any, model: Any) -> Any:
    """`part` with a key that nobody knows in every object that is a type."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        known = {name: field.annotation for name, field in model.model_fields.items()}
        return {name: with_new_keys(value, known.get(name)) for name, value in part.items()} | {"newer": {"x": [1]}}
    inner = [argument for argument in get_args(model) if argument is not type(None)]
    if isinstance(part, list) and inner:
        return [
            with_new_keys(each, get_args(inner[0])[0] if get_origin(inner[0]) is list else inner[0]) for each in part
        ]
    if isinstance(part, Mapping) and get_origin(model) is dict:
        return {name: with_new_keys(value, inner[1]) for name, value in part.items()}
    return with_new_keys(part, inner[0]) if len(inner) == 1 and part is not None else part


def test_every_field_came_with_a_version() -> None:
    """A field that is missing here was added without one: add a minor version to CAME_WITH that brings it, so that
    readers of older manifests know that they lack it. One too many was removed or renamed: that takes a major version
    and a function in versions.py that upgrades older manifests."""
    brought = [key for keys in CAME_WITH.values() for key in keys]
    assert len(set(brought)) == len(brought)
    assert set(fields(Manifest)) == set(brought)


def test_what_was_published_stays_as_it_was_published() -> None:
    """Fields of a version that checkpoints have been published with are not added to: a new one takes a new version."""
    published = {"2.0": 56, "2.1": 12, "2.2": 25, "2.3": 3}
    assert {str(version): len(keys) for version, keys in CAME_WITH.items() if str(version) in published} == published


def test_reading_and_writing_loses_no_key_of_a_newer_minor_version(tmp_path: Path) -> None:
    newer = with_new_keys(whole(), Manifest) | {"format_version": "2.99"}
    assert json.dumps(newer).count('"newer"') == 25
    Manifest.parse(newer, "here").write(tmp_path)
    again = json.loads((tmp_path / "loram.json").read_text())
    assert _known(again, newer) == newer
    read = Manifest.read(tmp_path)
    read.write(tmp_path)
    assert json.loads((tmp_path / "loram.json").read_text()) == again


def _known(written: Any, asked: Any) -> Any:
    """Of what was written, the keys that were asked for: what follows from others is added."""
    if isinstance(asked, Mapping):
        return {name: _known(written[name], value) for name, value in asked.items()}
    if isinstance(asked, list):
        return [_known(one, other) for one, other in zip(written, asked, strict=True)]
    return written


def test_a_manifest_says_all_that_this_version_knows(tmp_path: Path) -> None:
    """What a manifest of each part is written with is what the table of versions tells of."""
    Manifest.parse(whole(), "here").write(tmp_path)
    written = json.loads((tmp_path / "loram.json").read_text())
    for key in (key for keys in CAME_WITH.values() for key in keys):
        assert _has(written, key.split(".")), key


def _has(part: Any, way: list[str]) -> bool:
    if not way:
        return True
    name = way[0].removesuffix("[]")
    if name not in part:
        return False
    inner = part[name]
    if not way[0].endswith("[]"):
        return _has(inner, way[1:])
    parts = inner.values() if isinstance(inner, dict) else inner
    return bool(parts) and all(_has(each, way[1:]) for each in parts)


@pytest.mark.parametrize("counted", ["pruned", "checkpoint"])
def test_first_major_version_is_upgraded_on_reading(counted: str) -> None:
    """1.0 had one width for all layers of the base model, and at first called the pruned count `checkpoint`."""
    old = content(format_version="1.0", parameters={"base": 100, counted: 60}, alignment={**ALIGNED, "loss_scale": 2})
    old["base_widths"] = old["base_widths"][0]
    read = Manifest.parse(old, "here")
    assert (read.format_version, read.parameters.base, read.parameters.pruned) == ("2.0", 100, 60)
    assert [width.neurons for width in read.base_widths] == [1536, 1536]
    assert read.recipe == old["recipe"]
    assert read.alignment is not None
    assert read.alignment.model_dump(exclude_defaults=True) == {**ALIGNED, "loss_scale": 2}


ALIGNED = {"steps": 3, "tokens": 300, "seconds": 1.5, "peak_memory_bytes": 7, "first_loss": 3.0, "last_loss": 2.5}


def test_older_minor_version_lacks_what_came_later_and_is_read() -> None:
    oldest = content(format_version="2.0", evaluation=evaluation(certificate()))
    for newer in ("differences", "base_perplexity"):
        del oldest["evaluation"]["certificate"][newer]
    read = Manifest.parse(oldest, "here").evaluation
    assert read is not None
    assert read.certificate is not None
    assert (read.certificate.differences, read.certificate.strength, read.tasks) == ({}, 1.0, {})


@pytest.mark.parametrize("text", [f"{'9' * 5000}.0", "2.²", "٢.٠", "2", "2.0.1", " 2.0", ""])
def test_what_is_no_version_is_none(text: str) -> None:
    assert FormatVersion.parse(text) is None
