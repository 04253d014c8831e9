"""The recipe's part on pruning. Field names are a public contract."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from pydantic import Field, model_validator

from publisher.errors import listed
from publisher.recipe.criteria.register import criteria_for, criterion_spec
from publisher.recipe.criteria.spec import Criterion, CriterionSpec, PruningMethod
from publisher.recipe.parts import CorpusName, RecipePart, WeightedCorpora, shares_of


class Pattern(StrEnum):
    """n:m, of every m neighbouring weights of a row n stay."""

    TWO_OF_FOUR = "2:4"
    FOUR_OF_EIGHT = "4:8"

    @property
    def kept(self) -> int:
        return int(self.value.partition(":")[0])

    @property
    def of(self) -> int:
        return int(self.value.partition(":")[2])


class Scope(StrEnum):
    """Whether each layer loses the same share; one threshold over all layers decides, for heads and for neurons; or
    heads and neurons of all layers share one budget of parameters."""

    UNIFORM = "uniform"
    GLOBAL = "global"
    JOINT = "joint"


class Layout(StrEnum):
    """Widths by layer, or one width that the family's own config can say, so that stock transformers loads it."""

    PER_LAYER = "per_layer"
    UNIFORM = "uniform"


class Storage(StrEnum):
    """Zeros written out, or kept weights and a bit per weight alone."""

    DENSE = "dense"
    COMPRESSED = "compressed"


class Calibration(RecipePart):
    """Text on which importance is measured: `samples` sequences of `sequence_length` tokens."""

    corpus: CorpusName | None = Field(default=None, description="the one corpus that is read; or name `corpora`")
    corpora: WeightedCorpora = Field(
        default_factory=list, description="several corpora, which share the sequences by weight"
    )
    samples: int = Field(default=32, ge=1, le=65_536, description="sequences")
    sequence_length: int = Field(default=256, ge=8, le=131_072, description="tokens per sequence")

    @model_validator(mode="after")
    def _one_way_to_name_text(self) -> Self:
        if bool(self.corpus) == bool(self.corpora):
            given = "both are" if self.corpora else "none is"
            raise ValueError(f'name its text as "corpus" or, where there are several, as "corpora": {given} given')
        for name, samples in self.shares.items():
            if not samples:
                raise ValueError(
                    f"corpus {name} gets none of {self.samples} samples by its weight: raise samples or the weight, "
                    "or leave it out"
                )
        return self

    def field_of(self, name: str) -> str:
        """Where in `pruning` the recipe names that corpus."""
        if self.corpus:
            return "calibration.corpus"
        return f"calibration.corpora.{[corpus.name for corpus in self.corpora].index(name)}.name"

    @property
    def shares(self) -> dict[str, int]:
        """Sequences by corpus, in the recipe's order; together `samples`."""
        return {self.corpus: self.samples} if self.corpus else shares_of(self.corpora, self.samples)


def _furthest_scope(known: Mapping[str, Any]) -> Scope:
    """What carried furthest, by the fields before it; joint weighs heads against neurons, which few criteria can."""
    joint = {"method": PruningMethod.STRUCTURED, "layout": Layout.PER_LAYER}.items() <= known.items()
    return Scope.JOINT if joint and known.get("criterion") in _weighing_parameters() else Scope.UNIFORM


def _weighing_parameters() -> list[Criterion]:
    return [criterion for criterion in Criterion if criterion_spec(criterion).weighs_parameters]


def _names(specs: list[CriterionSpec]) -> str:
    return listed(spec.name for spec in specs)


def _in_words() -> str:
    """Every criterion, and the methods that it goes with."""
    described = []
    for criterion in Criterion:
        spec = criterion_spec(criterion)
        methods = listed(method for method in PruningMethod if spec.serves(method))
        described.append(f"{criterion} ({methods}): {spec.words}")
    return "; ".join(described)


class Pruning(RecipePart):
    method: PruningMethod = PruningMethod.STRUCTURED
    criterion: Criterion = Field(default=Criterion.TAYLOR, description=_in_words())
    ratio: float = Field(
        gt=0, lt=1, description="fraction removed of the layers that are not protected; 0.5 for semi_structured"
    )
    pattern: Pattern = Field(default=Pattern.TWO_OF_FOUR, description="semi_structured only")
    protect_first: int = Field(default=4, ge=0, description="decoder layers kept whole at the start")
    protect_last: int = Field(default=2, ge=0, description="decoder layers kept whole at the end")
    calibration: Calibration | None = None
    round_to: int = Field(
        default=1,
        ge=1,
        le=4096,
        description="structured only: kept neurons and attention channels, rounded up to a multiple of this",
    )
    layout: Layout = Field(
        default=Layout.PER_LAYER, description="structured only; uniform: loads in transformers without this package"
    )
    scope: Scope = Field(
        default_factory=_furthest_scope,
        description="structured only; global: as many units in total, wherever they matter most; joint: as many "
        "parameters, in whatever heads and neurons they matter most. Without it: joint with criterion "
        f"{listed(_weighing_parameters(), 'or')} and layout per_layer, otherwise uniform",
    )
    neuron_floor: float = Field(
        default=0.1, gt=0, le=1, description="scope global and joint only: share of the neurons that every layer keeps"
    )
    storage: Storage = Field(
        default=Storage.DENSE, description="semi_structured and unstructured without quantization only"
    )

    @model_validator(mode="before")
    @classmethod
    def _ratio_of_patterns(cls, given: Any) -> Any:
        """Both patterns remove one half, so their recipes need not say it."""
        if isinstance(given, Mapping) and given.get("method") == PruningMethod.SEMI_STRUCTURED:
            return {"ratio": 0.5, **given}
        return given

    @model_validator(mode="after")
    def _known_combination(self) -> Self:
        if not criterion_spec(self.criterion).serves(self.method):
            raise ValueError(
                f"criterion {self.criterion} does not go with method {self.method}, which takes "
                f"{_names(criteria_for(self.method))}"
            )
        self._refuse_foreign_fields()
        if self.method is PruningMethod.SEMI_STRUCTURED and self.ratio != 0.5:
            raise ValueError(
                f"ratio {self.ratio} cannot be had with pattern {self.pattern}, which removes 0.5; "
                "method unstructured takes any ratio"
            )
        return self

    def _refuse_foreign_fields(self) -> None:
        """A field that does nothing here must not look as if it did."""
        for name in self.unread:
            value = getattr(self, name)
            field = type(self).model_fields[name]
            if value == field.get_default(call_default_factory=True, validated_data=dict(self)):
                continue
            if name == "neuron_floor":
                raise ValueError(f"neuron_floor {value} is for scope global and joint; leave it out, or ask for that")
            raise ValueError(
                f"{name} {value} does not go with method {self.method}, but with {listed(_READ_BY[name])}; leave it out"
            )

    @property
    def unread(self) -> list[str]:
        """Fields that mean nothing with this method and scope."""
        unread = [name for name, methods in _READ_BY.items() if self.method not in methods]
        return [*unread, "neuron_floor"] if self.scope is Scope.UNIFORM else unread

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.layout is not Layout.UNIFORM:
            return self
        if self.protect_first or self.protect_last:
            raise ValueError(
                f"layout uniform has one width for all layers: set protect_first {self.protect_first} and "
                f"protect_last {self.protect_last} to 0, or leave layout out"
            )
        if self.scope is not Scope.UNIFORM:
            raise ValueError(
                f"layout uniform has one width for all layers, scope {self.scope} one for each; choose one"
            )
        return self

    @model_validator(mode="after")
    def _weighed_against_each_other(self) -> Self:
        if self.scope is Scope.JOINT and not criterion_spec(self.criterion).weighs_parameters:
            raise ValueError(
                f"scope joint weighs heads against neurons, which {self.criterion}'s scores do not tell; choose "
                f"criterion {listed(_weighing_parameters(), 'or')}, or scope global"
            )
        return self

    @model_validator(mode="after")
    def _text_for_criterion(self) -> Self:
        if criterion_spec(self.criterion).reads_text and self.calibration is None:
            without = criteria_for(self.method, reading_text=False)
            raise ValueError(
                f'criterion {self.criterion} needs "calibration": {{"corpus": …}}; '
                f"{_names(without)} {'do' if len(without) > 1 else 'does'} without"
            )
        return self


_NOT_STRUCTURED = tuple(method for method in PruningMethod if not method.removes_units)
_READ_BY: Mapping[str, tuple[PruningMethod, ...]] = {
    "pattern": (PruningMethod.SEMI_STRUCTURED,),
    "scope": (PruningMethod.STRUCTURED,),
    "round_to": (PruningMethod.STRUCTURED,),
    "layout": (PruningMethod.STRUCTURED,),
    "storage": _NOT_STRUCTURED,
}
