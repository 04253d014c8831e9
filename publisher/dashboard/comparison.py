"""Variants beside each other: a table in a chosen order, a scatter plot with its front, and how recipes differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Query

from publisher.dashboard.measures import MEASURES, Across, Measure, Up, measure, took
from publisher.dashboard.recipe_view import Difference, differences, path_words, value_words
from publisher.dashboard.scatter import Axis, Scatter, Spot, draw_scatter, pareto
from publisher.dashboard.variant_numbers import VariantNumbers
from publisher.manifest.verdict import Verdict
from publisher.recipe import Recipe
from publisher.recipe.variations import value_at
from publisher.store.models import Job, Variant
from publisher.store.variant_content import recipe_of

#: variants on one page: as many as a sweep makes
MOST = 100
NAME, VERDICT, TOOK = "name", "verdict", "took"
#: what may be sorted by, and its head in the table
SORTED_BY = {NAME: "Variant", VERDICT: "Verdict", **{each.key: each.title for each in MEASURES}, TOOK: "Took"}


@dataclass(frozen=True)
class Choice:
    """What somebody wants to see. `sort` is one of SORTED_BY, after a minus from large to small; empty: as given."""

    x: Across = Across.REDUCTION
    y: Up = Up.GAIN_RETAINED
    sort: str = ""

    @property
    def by(self) -> str:
        return self.sort.removeprefix("-")

    @property
    def falls(self) -> bool:
        return self.sort.startswith("-")


def wanted_choice(
    x: Across = Across.REDUCTION,
    y: Up = Up.GAIN_RETAINED,
    sort: Annotated[str, Query(pattern=rf"^(-?({'|'.join(SORTED_BY)}))?$")] = "",
) -> Choice:
    return Choice(x, y, sort)


WantedChoice = Annotated[Choice, Depends(wanted_choice)]


@dataclass(frozen=True)
class Compared:
    """One of them; `varied`: the values of what its sweep varies, in words."""

    variant: Variant
    numbers: VariantNumbers | None
    recipe: Recipe | None
    varied: Sequence[str] = ()

    @property
    def job(self) -> Job | None:
        return self.variant.jobs[-1] if self.variant.jobs else None

    @property
    def name(self) -> str:
        return self.variant.publish_repo_id

    @property
    def short(self) -> str:
        """Without its namespace."""
        return self.name.rpartition("/")[2]

    def value(self, key: str) -> float | None:
        numbers = self.numbers
        return next((each.value(numbers) for each in MEASURES if each.key == key), None) if numbers else None

    def said(self, each: Measure) -> str | None:
        value = self.value(each.key)
        return None if value is None else each.said(value)

    def rank(self, by: str) -> float | str | None:
        """What it is sorted by."""
        if by == NAME:
            return self.name
        if by == TOOK:
            return took(self.job)
        if by == VERDICT:
            verdict = self.numbers.verdict if self.numbers else None
            return None if verdict is None else float(list(Verdict).index(verdict))
        return self.value(by)


@dataclass(frozen=True)
class Comparison:
    """`given`: in the order that was asked for; `path` and `kept` make up the address of the page it stands on; `vary`:
    fields whose values have columns of their own."""

    given: Sequence[Compared]
    choice: Choice
    path: str
    kept: Sequence[tuple[str, str]] = ()
    vary: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        variants: Sequence[Variant],
        choice: Choice,
        path: str,
        kept: Sequence[tuple[str, str]] = (),
        vary: Sequence[str] = (),
    ) -> Comparison:
        """Of rows whose session is open."""
        return cls([_compared(each, vary) for each in variants], choice, path, kept, vary)

    @property
    def measures(self) -> Sequence[Measure]:
        return MEASURES

    @cached_property
    def items(self) -> list[Compared]:
        """In the chosen order; those of which it is not known come last."""
        if not self.choice.sort:
            return list(self.given)
        known = [
            (rank, place) for place, each in enumerate(self.given) if (rank := each.rank(self.choice.by)) is not None
        ]
        known.sort(key=lambda pair: pair[0], reverse=self.choice.falls)
        places = {place for _, place in known}
        rest = [each for place, each in enumerate(self.given) if place not in places]
        return [self.given[place] for _, place in known] + rest

    @property
    def x(self) -> Measure:
        return measure(self.choice.x)

    @property
    def y(self) -> Measure:
        return measure(self.choice.y)

    @cached_property
    def _placed(self) -> list[tuple[Compared, float, float]]:
        """Those that have both values."""
        found = [(each, each.value(self.x.key), each.value(self.y.key)) for each in self.items]
        return [(each, x, y) for each, x, y in found if x is not None and y is not None]

    @cached_property
    def _spots(self) -> list[Spot]:
        return [
            Spot(
                each.short,
                f"/variants/{each.variant.id}",
                x,
                y,
                f"{each.name}: {self.x.title.lower()} {self.x.said(x)}, {self.y.title.lower()} {self.y.said(y)}",
            )
            for each, x, y in self._placed
        ]

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return Axis(self.x.long_title, self.x.more_is_better), Axis(self.y.long_title, self.y.more_is_better)

    @cached_property
    def scatter(self) -> Scatter | None:
        spots = self._spots
        if not spots:
            return None
        x_ticks, y_ticks = self.x.ticks([each.x for each in spots]), self.y.ticks([each.y for each in spots])
        return draw_scatter(spots, *self.axes, x_ticks=x_ticks, y_ticks=y_ticks)

    @cached_property
    def front(self) -> set[str]:
        """Ids of the variants that none of the others beats on both axes."""
        return {self._placed[place][0].variant.id for place in pareto(self._spots, *self.axes)}

    @property
    def not_placed(self) -> int:
        return len(self.given) - len(self._placed)

    @cached_property
    def differences(self) -> list[Difference]:
        return differences([each.recipe for each in self.items])

    @cached_property
    def notes(self) -> list[str]:
        """Why numbers may not be comparable."""
        bases = {each.variant.base_model_id for each in self.given}
        certificates = [each.numbers.certificate for each in self.given if each.numbers and each.numbers.certificate]
        corpora = sorted({certificate.corpus for certificate in certificates})
        found = ["They are of different base models."] if len(bases) > 1 else []
        if len(corpora) > 1:
            found.append(f"Their certificates are of different texts, whose perplexities differ: {', '.join(corpora)}.")
        measured = {
            (each.budget.model_dump_json(), tuple(sorted(report.held_out_tokens.items())))
            for report in (item.numbers.evaluation for item in self.given if item.numbers and item.numbers.evaluation)
            if (each := report.certificate)
        }
        if len(measured) > 1:
            found.append(
                "They were not measured alike: the LoRAs of their certificates were trained differently long, or more "
                "text was scored. Gains beside each other say little then; the recipes below say what differs."
            )
        return found

    @property
    def varied_heads(self) -> list[str]:
        return [path_words(path) for path in self.vary]

    @property
    def orders(self) -> dict[str, str]:
        return SORTED_BY

    def link(self, **changes: str) -> str:
        """The page's address with another choice."""
        chosen = {"x": self.choice.x.value, "y": self.choice.y.value, "sort": self.choice.sort} | changes
        return f"{self.path}?{urlencode([*self.kept, *(pair for pair in chosen.items() if pair[1])])}"

    def sort_link(self, by: str) -> str:
        """Sorts by a column, and the other way round where it does already."""
        return self.link(sort=f"-{by}" if self.choice.sort == by else by)

    def sorted_as(self, by: str) -> str | None:
        """aria-sort of a column."""
        if by != self.choice.by:
            return None
        return "descending" if self.choice.falls else "ascending"


def _compared(variant: Variant, vary: Sequence[str]) -> Compared:
    recipe = recipe_of(variant)
    known = recipe if isinstance(recipe, Recipe) else None
    varied = [value_words(value_at(variant.recipe, path)) for path in vary]
    return Compared(variant, VariantNumbers.of(variant), known, varied)
