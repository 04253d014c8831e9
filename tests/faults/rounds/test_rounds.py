"""Three rounds, and with the long tests ten in which everything is done once. Many more: python -m tests.faults.rounds
--seeds 1:300"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.rounds.__main__ import play_round
from tests.faults.rounds.invariants import remains
from tests.faults.rounds.script import Act, Form, Round
from tests.faults.rounds.site import LEASE_SECONDS, Site, site

#: of one job each, which makes them short
SEEDS = (12, 13, 15, 16, 20, 26, 34, 41, 207, 216)
#: played in every run
OFTEN = SEEDS[:1]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(Form.DISTRIBUTED, tmp_path_factory.mktemp("rounds")) as running:
        yield running


def test_the_ten_do_all_there_is() -> None:
    rounds = [Round.of(seed, Form.DISTRIBUTED, LEASE_SECONDS) for seed in SEEDS]
    assert {act.kind for round in rounds for act in round.acts} == set(Act)


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=() if seed in OFTEN else pytest.mark.long) for seed in SEEDS]
)
def test_everything_holds_after_a_round_of_faults(running: Site, seed: int) -> None:
    outcome = play_round(running, seed)
    assert not outcome.problems, f"{outcome.line}\n{outcome.problems}\n{outcome.report}"


def test_a_collection_leaves_nothing_of_the_rounds(running: Site) -> None:
    assert not remains(running)
