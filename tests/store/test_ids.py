"""Ids sort by age: what is made one after the other is listed so."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from publisher.store.models import new_id

#: that of ids alone: other threads of this process read time, too
CLOCK = "publisher.store.models.table._clock"


def test_ids_of_one_millisecond_are_in_the_order_in_which_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CLOCK, lambda: 1764421200.25)
    ids = [new_id("job") for _ in range(2000)]
    assert ids == sorted(set(ids))
    assert {len(id) for id in ids} == {len("job_") + 22}


def test_ids_go_on_when_the_clock_is_set_back_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([2_000_000_000.0, 1_999_999_995.0, 2_000_000_000.001])
    monkeypatch.setattr(CLOCK, lambda: next(times))
    ids = [new_id("job") for _ in range(3)]
    assert ids == sorted(set(ids))


def test_a_clock_that_was_years_ahead_once_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([3_000_000_000.0, 2_000_000_000.0, 2_000_000_000.0])
    monkeypatch.setattr(CLOCK, lambda: next(times))
    ahead, *after = (new_id("job") for _ in range(3))
    assert after == sorted(set(after))
    assert ahead > after[-1]


def test_threads_never_make_the_same_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(new_id, ["job"] * 4000))
    assert len(set(ids)) == 4000
