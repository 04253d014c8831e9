"""Whether a build on a GPU gave what the same recipe gives on a CPU, up to ties and rounding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.gpu_check_build import Made

#: Standard errors of the gain's difference that count as noise: the CPU's, since a GPU's own may be what is wrong.
NOISE = 2.0
#: How far, relative to the CPU's, perplexities and losses may be: they compute in bf16 and fp32.
APART = 0.1
#: How far from the cut, relative to it, the score of a unit that only one kept may be.
TIE = 0.1
_GAIN, _ERROR = "gain, nats", "gain's standard error"


@dataclass(frozen=True)
class Agreement:
    """Of one layer's heads or neurons.

    `equal`: share of the kept ones that both kept. `furthest`: of those that only one kept, the largest distance of
    the score from the least that the CPU kept, relative to it; 0 where there are none, and a tie is nearly 0. `scores`:
    median relative difference of the scores, which is how near the devices compute.
    """

    where: str
    kept: int
    equal: float
    furthest: float
    scores: float


@dataclass(frozen=True)
class Comparison:
    """`inputs`: files that were not the same, which makes all else worthless. `lacking`: what cannot be compared, since
    one side has no such heads or neurons, or another number. `figures`: name → (here, on the CPU). `beyond`: what is
    more than rounding and noise, in words."""

    inputs: list[str]
    lacking: list[str]
    layers: list[Agreement]
    figures: dict[str, tuple[float | None, float | None]]
    beyond: list[str]

    @property
    def within_noise(self) -> bool:
        return not self.beyond

    @property
    def equal(self) -> float:
        """Share of all kept units that both kept."""
        kept = sum(layer.kept for layer in self.layers)
        return sum(layer.equal * layer.kept for layer in self.layers) / kept if kept else 1.0


def compare(found: Made, wanted: Made) -> Comparison:
    """`wanted` is the CPU's."""
    names = sorted(found.kept.keys() | wanted.kept.keys())
    lacking = {name: said for name in names if (said := _lacking(found.scores.get(name), wanted.scores.get(name)))}
    layers = [_agreement(name, found, wanted) for name in names if name not in lacking]
    figures = {name: (found.figures.get(name), value) for name, value in wanted.figures.items()}
    return Comparison(
        inputs=other_inputs(found.inputs, wanted.inputs),
        lacking=[f"{name}: {said}" for name, said in lacking.items()],
        layers=layers,
        figures=figures,
        beyond=[*_other_units(layers), *_other_figures(figures), *_other_gain(found, wanted)],
    )


def other_inputs(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Files of which one side has another or none, by their sha256."""
    return [name for name in wanted | found if found.get(name) != wanted.get(name)]


def said_inputs(names: list[str]) -> str:
    return f"NOT THE SAME INPUTS: {', '.join(names)}"


def said(comparison: Comparison) -> Iterator[str]:
    """Lines for people."""
    if comparison.inputs:
        yield said_inputs(comparison.inputs)
    yield from (f"NOT COMPARED: {each}" for each in comparison.lacking)
    yield f"kept units that both kept: {comparison.equal:.4%}"
    for layer in comparison.layers:
        if layer.equal < 1:
            yield (
                f"  {layer.where}: {layer.equal:.4%} of {layer.kept}; others' scores at most {layer.furthest:.2e} from "
                f"the cut, scores {layer.scores:.2e} apart (median)"
            )
    yield f"  {'':24} {'this run':>10} {'CPU result':>10}"
    for name, (here, there) in comparison.figures.items():
        yield f"  {name:24} {_number(here):>10} {_number(there):>10}"
    if comparison.within_noise:
        yield "within rounding and noise of the CPU's"
    yield from (f"NOT WITHIN NOISE: {each}" for each in comparison.beyond)


def _lacking(here: list[float] | None, there: list[float] | None) -> str | None:
    """Why their scores cannot be compared, if so."""
    if not here or not there:
        return (
            "scores are only in the CPU's result" if there else "scores are only in this run" if here else "no scores"
        )
    return None if len(here) == len(there) else f"{len(here)} in this run, {len(there)} in the CPU's result"


def _agreement(name: str, found: Made, wanted: Made) -> Agreement:
    here, there = set(found.kept.get(name, [])), set(wanted.kept.get(name, []))
    scores, others = wanted.scores[name], found.scores[name]
    here, there = here or set(range(len(others))), there or set(range(len(scores)))  # one of both pruned none of them
    cut = min(scores[unit] for unit in there)
    return Agreement(
        where=name,
        kept=len(there),
        equal=len(here & there) / max(len(here), len(there)),
        furthest=max((_relative(scores[unit], cut) for unit in here ^ there), default=0.0),
        scores=median(_relative(one, other) for one, other in zip(others, scores, strict=True)),
    )


def _relative(value: float, wanted: float) -> float:
    return abs(value - wanted) / abs(wanted) if wanted else float(value != wanted)


def _other_units(layers: list[Agreement]) -> Iterator[str]:
    for layer in layers:
        if layer.furthest > TIE:
            yield f"{layer.where}: a unit {layer.furthest:.0%} from the cut was kept by one alone"


def _other_figures(figures: Mapping[str, tuple[float | None, float | None]]) -> Iterator[str]:
    for name, (here, there) in figures.items():
        if there is None or not (name.startswith("perplexity") or name.endswith("loss")):
            continue
        if here is None or not _relative(here, there) <= APART:  # NaN is beyond, too
            yield f"{name}: {_number(here)}, on the CPU {_number(there)}"


def _other_gain(found: Made, wanted: Made) -> Iterator[str]:
    """Both measured the same documents, so that this allows more than there should be."""
    if found.verdict != wanted.verdict:
        yield f"certificate {found.verdict}, on the CPU {wanted.verdict}"
    here, there, error = found.figures.get(_GAIN), wanted.figures.get(_GAIN), wanted.figures.get(_ERROR)
    if here is None or there is None or error is None:
        yield f"{_GAIN}: {_number(here)}, on the CPU {_number(there)} with a standard error of {_number(error)}"
    elif not abs(here - there) <= NOISE * 2**0.5 * error:
        yield f"{_GAIN}: {here:.4f}, on the CPU {there:.4f} with a standard error of {error:.4f}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
