"""Many rounds in one sitting: python -m tests.faults.rounds --seeds 1:300

What happens in a round is its seed's; when it happens is up to the machine. A sitting goes on from any seed.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import click

from tests.faults.rounds.invariants import violations
from tests.faults.rounds.play import Play, report
from tests.faults.rounds.script import Form, Round
from tests.faults.rounds.site import LEASE_SECONDS, Site, site


@dataclass(frozen=True)
class Outcome:
    """`line` says in short what happened, `is_over` whether all jobs are final."""

    seed: int
    problems: list[str]
    line: str
    report: str
    is_over: bool


def play_round(site: Site, seed: int) -> Outcome:
    """Play the seed's round on a site where everything runs; the site is mended afterwards."""
    round = Round.of(seed, site.form, LEASE_SECONDS)
    play = Play.of(site, round)
    started = time.monotonic()
    try:
        play.run()
        problems = violations(play)
    finally:
        play.stop()
    site.mend()
    ends = ", ".join(str(job.recorder and job.recorder.state) for job in play.jobs)
    done = f"{play.reached} of {len(round.acts)} acts"
    line = f"seed {seed}: {time.monotonic() - started:.1f} s; {ends}; {done}; {round}"
    return Outcome(seed, problems, line, report(play), play.is_over)


def parsed(context: click.Context, parameter: click.Parameter, text: str) -> list[int]:
    """`1:300` is 1 to 300, `7` is 7, `7,20:22` is 7 and 20 to 22."""
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition(":")
            seeds += range(int(first), int(last or first) + 1)
    except ValueError:
        raise click.BadParameter("seeds as in 7 or 1:300 or 7,20:22") from None
    return seeds


def worded(seeds: list[int]) -> str:
    """The shortest text that `parsed` reads as these."""
    whole = len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]}:{seeds[-1]}" if whole else ",".join(map(str, seeds))


@click.command()
@click.option("--seeds", callback=parsed, default="1:300", show_default=True, help="as in 7 or 1:300 or 7,20:22")
@click.option("--form", type=click.Choice([form.value for form in Form]), default="distributed", show_default=True)
@click.option("--minutes", type=float, help="end the sitting after so long; the next goes on where it says")
@click.option("--log", type=click.Path(path_type=Path, dir_okay=False), default="fault-rounds.log", show_default=True)
def main(seeds: list[int], form: str, minutes: float | None, log: Path) -> None:
    """Play seeded rounds of faults on a real installation, and say which invariants broke."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # everything that was started is stopped, too
    deadline = time.monotonic() + (60 * minutes if minutes else float("inf"))
    with log.open("a", encoding="utf-8") as file:
        broken, left = _sit(seeds, Form(form), deadline, file)
    if left:
        click.echo(f"to go on: python -m tests.faults.rounds --form {form} --seeds {worded(left)}")
    named = ", ".join(map(str, broken)) or "none"
    click.echo(f"{len(seeds) - len(left)} rounds, {len(broken)} broke: {named}. See {log}.")
    sys.exit(bool(broken))


def _sit(seeds: list[int], form: Form, deadline: float, log: TextIO) -> tuple[list[int], list[int]]:
    """The seeds that broke, and those that were not played."""
    broken: list[int] = []
    with ExitStack() as stack:
        place: Site | None = None
        for number, seed in enumerate(seeds):
            if time.monotonic() > deadline:
                return broken, seeds[number:]
            if place is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fault-rounds-")))
                place = stack.enter_context(site(form, folder))
            outcome = play_round(place, seed)
            _tell(outcome, form, log)
            if outcome.problems:
                broken.append(seed)
            if not outcome.is_over:
                stack.close()  # what goes on must not break the next round
                place = None
    return broken, []


def _tell(outcome: Outcome, form: Form, log: TextIO) -> None:
    lines = [f"{'BROKE' if outcome.problems else 'ok   '} {outcome.line}"]
    lines += [f"      {problem}" for problem in outcome.problems]
    if outcome.problems:
        lines.append(f"      alone: python -m tests.faults.rounds --form {form} --seeds {outcome.seed}")
    text = "\n".join(lines)
    click.echo(text)
    log.write(f"{text}\n{outcome.report if outcome.problems else ''}\n")
    log.flush()


if __name__ == "__main__":
    main()
