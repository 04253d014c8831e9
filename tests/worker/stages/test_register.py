"""What stages declare of themselves: which stages each is made from, and what a change of the request makes anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from publisher.corpus.source import CorpusSource
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from tests.worker.stages.building import prose
from worker.request import BaseModelSource, BuildRequest, PublishTarget
from worker.stages.register import spec_of

Change = Callable[[BuildRequest], BuildRequest]

RECIPE: dict[str, Any] = {
    "pruning": {
        "criterion": "taylor",
        "ratio": 0.5,
        "calibration": {"corpus": "prose", "samples": 4, "sequence_length": 32},
    },
    "alignment": {"corpora": [{"name": "training", "weight": 1.0}], "tokens": 4096},
    "quantization": {"scheme": "nf4"},
    "evaluation": {"corpora": ["prose"]},
}


@pytest.fixture
def request_of(tmp_path: Path) -> Callable[..., BuildRequest]:
    def make(**parts: Any) -> BuildRequest:
        return BuildRequest(
            base=BaseModelSource("org/base", "c" * 40),
            recipe=Recipe.model_validate(RECIPE | parts),
            corpora={
                name: CorpusSource(name=name, path=prose(tmp_path / f"{name}.jsonl", 30 + len(name)))
                for name in ("prose", "training")
            },
            publish=PublishTarget("http://hub", "org/small", False, "token"),
        )

    return make


def digests(request: BuildRequest) -> dict[Stage, str]:
    """As the pipeline makes them: each from those of the stages that it needs and the recipe asks for."""
    found: dict[Stage, str] = {}
    for stage in Stage:
        spec = spec_of(stage)
        found[stage] = spec.digest(request, {needed: found[needed] for needed in spec.needs})
    return found


def changed(**fields: dict[str, Any]) -> dict[str, Any]:
    """Parts of RECIPE with other fields."""
    return {part: RECIPE[part] | values for part, values in fields.items()}


@pytest.mark.parametrize("stage", list(Stage))
def test_stage_needs_stages_before_it_and_depends_on_each(
    request_of: Callable[..., BuildRequest], stage: Stage
) -> None:
    spec, order, request = spec_of(stage), list(Stage), request_of()
    assert spec.name is stage
    assert all(order.index(needed) < order.index(stage) for needed in spec.needs)
    known = {needed: needed.value for needed in spec.needs}
    own = spec.digest(request, known)
    assert own == spec.digest(request, known)
    # what a stage is made from may itself be made from another one that it needs: then that one's digest is enough
    through_others = {before for needed in spec.needs for before in spec_of(needed).needs}
    for needed in set(spec.needs) - through_others:
        assert spec.digest(request, known | {needed: "another"}) != own, needed


@pytest.mark.parametrize("stage", [Stage.QUANTIZE, Stage.EVALUATE, Stage.PACKAGE])
def test_model_that_is_not_aligned_is_another(request_of: Callable[..., BuildRequest], stage: Stage) -> None:
    spec, request = spec_of(stage), request_of()
    known = {needed: needed.value for needed in spec.needs}
    assert spec.digest(request, known) != spec.digest(
        request, {needed: digest for needed, digest in known.items() if needed is not Stage.ALIGN}
    )


@pytest.mark.parametrize(
    ("parts", "first", "untouched"),
    [
        ({"seed": 1}, Stage.CALIBRATE, {Stage.FETCH}),
        (changed(pruning={"ratio": 0.6}), Stage.PRUNE, {Stage.FETCH, Stage.CALIBRATE}),
        (changed(pruning={"protect_last": 3}), Stage.PRUNE, {Stage.FETCH, Stage.CALIBRATE}),
        (
            changed(pruning={"calibration": {"corpus": "prose", "samples": 5, "sequence_length": 32}}),
            Stage.CALIBRATE,
            {Stage.FETCH},
        ),
        (changed(alignment={"tokens": 8192}), Stage.ALIGN, {Stage.FETCH, Stage.CALIBRATE, Stage.PRUNE}),
        (
            changed(evaluation={"tokens": 5000}),
            Stage.EVALUATE,
            {Stage.FETCH, Stage.CALIBRATE, Stage.PRUNE, Stage.ALIGN, Stage.QUANTIZE},
        ),
        (
            changed(evaluation={"require_certificate": False}),
            Stage.PACKAGE,
            {Stage.FETCH, Stage.CALIBRATE, Stage.PRUNE, Stage.ALIGN, Stage.QUANTIZE, Stage.EVALUATE},
        ),
    ],
)
def test_change_of_the_recipe_makes_anew_what_depends_on_it_and_nothing_else(
    request_of: Callable[..., BuildRequest], parts: dict[str, Any], first: Stage, untouched: set[Stage]
) -> None:
    before, after = digests(request_of()), digests(request_of(**parts))
    assert {stage for stage in Stage if before[stage] == after[stage]} == untouched
    assert next(stage for stage in Stage if before[stage] != after[stage]) is first


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (lambda request: replace(request, base=replace(request.base, revision="d" * 40)), Stage.FETCH),
        (lambda request: replace(request, publish=replace(request.publish, repo_id="org/other")), Stage.PACKAGE),
        (
            lambda request: replace(request, corpora=request.corpora | {"training": request.corpora["prose"]}),
            Stage.ALIGN,
        ),
        (lambda request: replace(request, base=replace(request.base, token="another")), None),
        (lambda request: replace(request, publish=replace(request.publish, token="another")), None),
        (lambda request: replace(request, device="cuda"), None),
    ],
)
def test_change_of_the_request_makes_anew_what_depends_on_it(
    request_of: Callable[..., BuildRequest], change: Change, first: Stage | None
) -> None:
    """Tokens and devices are nothing that a result is made of."""
    request = request_of()
    before, after = digests(request), digests(change(request))
    assert next((stage for stage in Stage if before[stage] != after[stage]), None) is first
