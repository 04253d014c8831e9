"""What a pruning criterion says of itself, once: recipe, plan, stages and card read it here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from publisher.recipe.declared import NotDeclared


class PruningMethod(StrEnum):
    """What goes: whole heads, neurons and experts; n of every m neighbouring weights; or any weights."""

    STRUCTURED = "structured"
    SEMI_STRUCTURED = "semi_structured"
    UNSTRUCTURED = "unstructured"

    @property
    def removes_units(self) -> bool:
        """Whether matrices get smaller. Otherwise single weights become zero, shapes stay, and a mask says which."""
        match self:
            case PruningMethod.STRUCTURED:
                return True
            case PruningMethod.SEMI_STRUCTURED | PruningMethod.UNSTRUCTURED:
                return False
            case _:
                assert_never(self)


class Criterion(StrEnum):
    """How importance is measured; what messages propose first stands first. Each is declared in the file of its name
    beside this one."""

    TAYLOR = "taylor"
    SPARSEGPT = "sparsegpt"
    WANDA = "wanda"
    MAGNITUDE = "magnitude"
    RANDOM = "random"


class Comparison(StrEnum):
    """How far scores of units can be compared as they are.

    `within_layer`: they grow with a layer's scale, so scope global divides them by the layer's mean. `across_layers`:
    of one kind of unit. `per_parameter`: a head with as many parameters of neurons, which scope joint asks for.
    """

    WITHIN_LAYER = "within_layer"
    ACROSS_LAYERS = "across_layers"
    PER_PARAMETER = "per_parameter"


class InputStatistic(StrEnum):
    """What is measured of a matrix's input `(tokens, in)`: each channel's mean square `(in,)`, or X Xᵀ / tokens
    `(in, in)`, whose inverse the plan counts as well."""

    SQUARES = "squares"
    HESSIAN = "hessian"


@dataclass(frozen=True, kw_only=True)
class UnitScoring:
    """Scores of heads, neurons and experts, for method structured; the calibrate stage makes them.

    `score`: `module:name` of (worker.pruning.scoring.ScoringWork) → {importance key: `(units,)`}, larger is more
    important. What it costs: `readings` of the whole base model, and `operations` (2 for a product) per weight and
    token of calibration text. `checks_weights`: it refuses every weight that it looks at and that is not finite, so
    that pruning need not look for them again.
    """

    score: str
    compared: Comparison
    readings: int = 0
    operations: int = 0
    checks_weights: bool = False


@dataclass(frozen=True, kw_only=True)
class WeightPruning:
    """Which weights of matrices stay, for the methods that remove single weights; the prune stage asks.

    `prune`: `module:name` of (matrices `(out, in)` that read one input, what is known of it, sparsity) → one
    worker.pruning.unstructured.sparsity.Pruned each. `inputs`: what it is told of the input; None: it reads no text
    and is handed None. `operations` as in UnitScoring.
    """

    prune: str
    inputs: InputStatistic | None
    operations: int = 0


@dataclass(frozen=True, kw_only=True)
class CriterionSpec:
    """A criterion. `words` stand after "chosen by" in cards and docs; `reads_text`: it needs calibration text, whose
    documents the seed shuffles; `draws`: the seed decides without text, too.

    `units` and `weights`: how it serves the methods that remove units, and those that remove single weights; None: it
    does not.
    """

    name: Criterion
    words: str
    reads_text: bool
    draws: bool = False
    units: UnitScoring | None = None
    weights: WeightPruning | None = None

    @property
    def depends_on_seed(self) -> bool:
        return self.draws or self.reads_text

    def serves(self, method: PruningMethod) -> bool:
        return (self.units if method.removes_units else self.weights) is not None

    @property
    def scoring(self) -> UnitScoring:
        """Raises NotDeclared for a criterion that scores no units."""
        if self.units is None:
            raise NotDeclared(f"criterion {self.name} scores no heads, neurons or experts: it declares no units")
        return self.units

    @property
    def pruning(self) -> WeightPruning:
        """Raises NotDeclared for a criterion that chooses no single weights."""
        if self.weights is None:
            raise NotDeclared(f"criterion {self.name} chooses no single weights: it declares no weights")
        return self.weights

    @property
    def weighs_parameters(self) -> bool:
        """Whether scope joint can be had."""
        return self.units is not None and self.units.compared is Comparison.PER_PARAMETER
