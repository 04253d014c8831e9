"""What variants are compared by: each measure is declared once, and table, axes and order walk over the register."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from publisher.dashboard.charts import Tick, nice_ticks, number
from publisher.dashboard.presentation import count, perplexity
from publisher.dashboard.variant_numbers import VariantNumbers
from publisher.files.amounts import size
from publisher.store.models import Job

#: of what is shown in steps of 1,024
_SIZES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


class Across(StrEnum):
    """What the horizontal axis may show."""

    REDUCTION = "reduction"
    BYTES = "bytes"


class Up(StrEnum):
    """What the vertical axis may show."""

    GAIN_RETAINED = "gain_retained"
    RECOVERED = "recovered"


@dataclass(frozen=True)
class Measure:
    """`value` of a variant's numbers, None where it is not known; `said` for people; `unit`: of the largest value, what
    an axis counts in, as factor and word."""

    key: str
    title: str
    value: Callable[[VariantNumbers], float | None]
    said: Callable[[float], str]
    more_is_better: bool
    unit: Callable[[float], tuple[float, str]] = lambda largest: (1.0, "")
    #: where the column's head is too short for an axis
    axis_title: str = ""

    @property
    def long_title(self) -> str:
        return self.axis_title or self.title

    def ticks(self, values: Sequence[float]) -> list[Tick]:
        """Round values that enclose all of these."""
        factor, word = self.unit(max(values))
        ticks = nice_ticks(min(values) / factor, max(values) / factor)
        return [Tick(tick * factor, f"{number(tick)}{word}") for tick in ticks]


def _in_sizes(largest: float) -> tuple[float, str]:
    factor, word = next(((factor, word) for factor, word in _SIZES if largest >= factor), (1, "B"))
    return float(factor), f" {word}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _times(value: float) -> str:
    return f"{value:.2f} ×"


#: in the order of the table's columns
MEASURES: tuple[Measure, ...] = (
    Measure("parameters", "Parameters", lambda it: it.parameters, count, more_is_better=False),
    Measure(
        "reduction", "Reduction", lambda it: it.fewer, _times, more_is_better=True, unit=lambda largest: (1.0, " ×"),
        axis_title="Reduction: times fewer parameters",
    ),
    Measure(
        "bytes", "Bytes", lambda it: it.bytes, size, more_is_better=False, unit=_in_sizes,
        axis_title="Bytes of the weight files",
    ),
    Measure("memory", "To train", lambda it: it.memory, size, more_is_better=False, unit=_in_sizes),
    Measure(
        "gain_retained", "Gain retained", lambda it: it.gain_retained, _percent, more_is_better=True,
        unit=lambda largest: (0.01, " %"), axis_title="Gain retained of a LoRA trained on the base model",
    ),
    Measure(
        "base", "Base perplexity", lambda it: it.certificate.base if it.certificate else None, perplexity,
        more_is_better=False,
    ),
    Measure(
        "recovered", "Recovered perplexity", lambda it: it.certificate.recovered if it.certificate else None,
        perplexity, more_is_better=False, axis_title="Perplexity of the base model with a recovered LoRA",
    ),
)  # fmt: skip
_BY_KEY = {measure.key: measure for measure in MEASURES}


def measure(key: Across | Up) -> Measure:
    return _BY_KEY[key.value]


def took(job: Job | None) -> float | None:
    """Seconds of a job that has ended well."""
    if job is None or job.started_at is None or job.finished_at is None or job.failure:
        return None
    return job.finished_at - job.started_at
