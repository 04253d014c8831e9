"""Bytes and seconds as people read them."""

from __future__ import annotations

from publisher.files.amounts import ago, duration, size


def test_durations_have_two_units() -> None:
    times = [duration(seconds) for seconds in (0, 9.94, 9.96, 59.6, 192, 3600, 7500, 90000)]
    assert times == ["0.0 s", "9.9 s", "10 s", "1 min", "3 min 12 s", "1 h", "2 h 5 min", "1 d 1 h"]


def test_sizes_count_in_powers_of_1024() -> None:
    told = ["12 B", "1023 B", "1.0 KiB", "81.4 MiB", "12.0 GiB", "1024.0 TiB"]
    assert [size(value) for value in (12, 1023, 1024, 85301888, 12 * 2**30, 2**50)] == told


def test_a_moment_is_placed_by_one_unit() -> None:
    assert [ago(0, now) for now in (0, 30, 90, 7200, 200000)] == [
        "just now",
        "just now",
        "2 min ago",
        "2 h ago",
        "2 d ago",
    ]
