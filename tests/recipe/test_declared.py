"""Every word of a recipe that comes in kinds is declared once, in the file of its name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import pytest

from publisher.recipe import Criterion, Optimizer, PruningMethod
from publisher.recipe import criteria as criteria_package
from publisher.recipe import optimizers as optimizers_package
from publisher.recipe.criteria.register import criteria_for, criterion_spec
from publisher.recipe.criteria.spec import CriterionSpec
from publisher.recipe.declared import NotDeclared, declaration
from publisher.recipe.optimizers.register import optimizer_spec


class Word(StrEnum):
    ADAMW = "adamw"
    HASTE = "haste"


@pytest.mark.parametrize(
    ("words", "spec_of", "package", "shared"),
    [
        (Criterion, criterion_spec, criteria_package, {"spec", "register"}),
        (Optimizer, optimizer_spec, optimizers_package, {"spec", "register", "state"}),
    ],
)
def test_every_word_has_its_file_and_every_file_its_word(
    words: type[StrEnum], spec_of: Callable[[StrEnum], object], package: object, shared: set[str]
) -> None:
    (folder,) = package.__path__  # type: ignore[attr-defined]
    files = {path.stem for path in Path(folder).glob("*.py")} - {"__init__"} - shared
    assert files == {word.value for word in words}
    assert all(spec_of(word).name is word for word in words)  # type: ignore[attr-defined]


def test_a_word_without_a_declaration_is_refused_by_the_file_that_it_lacks() -> None:
    with pytest.raises(NotDeclared, match=r"haste is not declared: add publisher/recipe/criteria/haste\.py with HASTE"):
        declaration("publisher.recipe.criteria", Word.HASTE, CriterionSpec)


def test_a_declaration_of_something_else_is_refused() -> None:
    with pytest.raises(NotDeclared, match=r"optimizers\.adamw declares adamw nowhere: add ADAMW = CriterionSpec"):
        declaration("publisher.recipe.optimizers", Word.ADAMW, CriterionSpec)


def test_a_criterion_is_asked_for_nothing_that_it_does_not_serve() -> None:
    with pytest.raises(NotDeclared, match="criterion sparsegpt scores no heads"):
        _ = criterion_spec(Criterion.SPARSEGPT).scoring
    with pytest.raises(NotDeclared, match="criterion taylor chooses no single weights"):
        _ = criterion_spec(Criterion.TAYLOR).pruning


@pytest.mark.parametrize("method", PruningMethod)
def test_every_method_has_criteria_and_one_that_needs_no_text(method: PruningMethod) -> None:
    assert criteria_for(method, reading_text=False)
    assert all(spec.serves(method) for spec in criteria_for(method))


@pytest.mark.parametrize("criterion", Criterion)
def test_a_criterion_that_looks_at_inputs_reads_text(criterion: Criterion) -> None:
    spec = criterion_spec(criterion)
    assert spec.serves(PruningMethod.STRUCTURED) or spec.serves(PruningMethod.UNSTRUCTURED)
    looks = [spec.weights is not None and spec.weights.inputs is not None]
    looks += [part.operations > 0 for part in (spec.units, spec.weights) if part is not None]
    assert any(looks) == spec.reads_text


def test_what_trains_beside_an_optimizer_of_matrices_trains_everything() -> None:
    beside = {optimizer_spec(name).beside for name in Optimizer} - {None}
    assert beside
    assert all(optimizer_spec(name).beside is None for name in beside if name)


def test_declarations_are_read_without_torch() -> None:
    script = (
        "import sys, publisher.recipe as r\n"
        "from publisher.recipe.criteria.register import criterion_spec\n"
        "from publisher.recipe.optimizers.register import optimizer_spec\n"
        "[*map(criterion_spec, r.Criterion), *map(optimizer_spec, r.Optimizer)]\n"
        "print({'torch', 'numpy', 'worker'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"
