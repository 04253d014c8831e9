"""Whether what a job's page says is left of it was left: python -m tests.benchmarks.progress_interval

Three recipes run on a real service, some times each; what they told is replayed up to 25, 50 and 75 % of their time. Of
the first run of a recipe a plan is all that is known, of later ones what those before took.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter

from publisher.files.amounts import duration
from publisher.jobs.forecast import Left, Phase, StageSpans, learn, left_of, planned
from tests.benchmarks.recorded_runs import Run, Told, record

_RUNS = TypeAdapter(list[Run])
_SHARES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Moment:
    """What was forecast at some share of a run's time, and the seconds that were really left."""

    run: Run
    share: float
    said: Left
    truth: float

    @property
    def holds(self) -> bool:
        return self.said.span.low <= self.truth <= self.said.span.high

    def __str__(self) -> str:
        span = self.said.span
        return (
            f"{self.run.recipe:27} run {self.run.number}  {100 * self.share:2.0f} % of the time, bar at "
            f"{100 * self.said.share:2.0f} %  {duration(span.low):>12} to {duration(span.high):>12}, likely "
            f"{duration(span.likely):>12}; truth {duration(self.truth):>12}  {'inside' if self.holds else 'OUTSIDE'}"
        )


@click.command(help=__doc__)
@click.option("--runs", default=4, show_default=True, help="of each recipe")
@click.option("--recorded", type=click.Path(path_type=Path), help="a file that is read if it is there, else written")
def main(runs: int, recorded: Path | None) -> None:
    if recorded and recorded.exists():
        found = _RUNS.validate_json(recorded.read_bytes())
    else:
        found = record(runs)
        if recorded:
            recorded.write_bytes(_RUNS.dump_json(found, indent=1))
    moments = list(replay(found))
    for moment in moments:
        print(moment)
    print(f"{sum(moment.holds for moment in moments)} of {len(moments)} inside")


def replay(runs: Sequence[Run]) -> Iterator[Moment]:
    for run in runs:
        earlier = [each.stages for each in runs if each.recipe == run.recipe and each.number < run.number]
        expected = learn(earlier) or planned(run.planned)
        started = next(event.at for event in run.events if event.data.get("state") == "running")
        whole = run.events[-1].at - started
        for share in _SHARES:
            said = forecast(run.events, expected, started, started + share * whole)
            assert said is not None
            yield Moment(run, share, said, (1 - share) * whole)


def forecast(events: Sequence[Told], expected: StageSpans, started: float, now: float) -> Left | None:
    """As publisher.jobs.outlook does it, from what was told until `now`."""
    stages: dict[str, dict[str, Any]] = {}
    began, told = started, list[Told]()
    for event in (each for each in events if each.at <= now):
        if event.kind == "stage":
            stages[event.data["stage"]], began, told = event.data, event.at, []
        elif event.kind == "progress":
            told = [*[one for one in told if one.data["unit"] == event.data["unit"]][:1], event]
    runs = any(said["state"] == "started" for said in stages.values())
    phase = _phase(told, began) if runs and told else None
    return left_of(expected, stages, now - started, spent=now - began if runs else None, phase=phase)


def _phase(told: Sequence[Told], began: float) -> Phase:
    first, last = told[0], told[-1]
    done, total = last.data["done"], last.data["total"]
    return Phase(last.data["unit"], first.data["done"], first.at - began, done, total, last.at - began)


if __name__ == "__main__":
    main()
