"""Rounds are drawn from seeds."""

from __future__ import annotations

import pytest

from tests.faults.rounds.acts import ACTS
from tests.faults.rounds.script import POINTS, Act, Form, HubCall, Misbehaviour, Round
from tests.faults.rounds.site import LEASE_SECONDS

SEEDS = range(1, 301)


@pytest.fixture(params=Form)
def rounds(request: pytest.FixtureRequest) -> list[Round]:
    return [Round.of(seed, request.param, LEASE_SECONDS) for seed in SEEDS]


def test_the_same_seed_gives_the_same_round() -> None:
    assert Round.of(7, Form.DISTRIBUTED, LEASE_SECONDS) == Round.of(7, Form.DISTRIBUTED, LEASE_SECONDS)


def test_three_hundred_rounds_cancel_at_every_point_and_do_all_there_is(rounds: list[Round]) -> None:
    acts = [act for round in rounds for act in round.acts]
    assert {act.point for act in acts if act.kind is Act.CANCEL} == set(POINTS)
    assert {act.kind for act in acts} >= set(Act) - {Act.STOP_BROKER}
    faults = [fault for round in rounds for fault in round.hub_faults]
    assert {fault.kind for fault in faults} == set(Misbehaviour)
    assert {fault.call for fault in faults} == set(HubCall) - {HubCall.OTHER}


def test_every_act_can_be_done() -> None:
    assert set(ACTS) == set(Act) - {Act.CANCEL}
