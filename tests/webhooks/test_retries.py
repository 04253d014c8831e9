"""When a failed delivery comes again: ever later, within bounds, and as its receiver asks."""

from __future__ import annotations

import pytest

from publisher.webhooks.retries import Patience, iso, retry_after

DAY, HOUR = 86_400.0, 3600.0
PATIENCE = Patience(first_pause=5.0, give_up=3 * DAY, disable=5 * DAY)
#: 28 Nov 2026 17:05:13 UTC
NOW = 1795885513.25


def test_pauses_double_up_to_six_hours_and_differ() -> None:
    pauses = [PATIENCE.pause(attempt) for attempt in range(1, 30)]
    assert all(5 * 2**n <= pause <= 1.2 * 5 * 2**n for n, pause in enumerate(pauses[:10]))
    assert 6 * HOUR <= pauses[-1] <= 1.2 * 6 * HOUR
    assert PATIENCE.pause(10_000) <= 1.2 * 6 * HOUR
    assert len({PATIENCE.pause(5) for _ in range(10)}) > 1


def test_a_receiver_may_ask_for_more_time_and_not_for_less_or_for_ever() -> None:
    assert 600 <= PATIENCE.pause(1, asked=600) <= 720
    assert PATIENCE.pause(8, asked=1) >= 640
    assert PATIENCE.pause(1, asked=1e12) <= 1.2 * DAY


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("9" * 5000, 999_999_999.0),
        ("Sat, 28 Nov 2026 17:06:13 GMT", 59.75),
        ("Sat, 28 Nov 2026 18:06:13 +0100", 59.75),
        ("Sat, 28 Nov 2020 17:06:13 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("١٢", None),
        ("Sat, 99 Nov 2026 17:06:13 GMT", None),
        ("Sat, 28 Nov 99999999999999999999 17:06:13 GMT", None),
        ("Sat, 28 Nov 2026 17:06:13 +99999999999999", None),
        ("", None),
    ],
)
def test_what_receivers_write_is_read_or_passed_over(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


def test_times_are_written_in_utc() -> None:
    assert iso(NOW) == "2026-11-28T17:05:13.250Z"
