"""Bytes and seconds in words, the same on every page, in every message and in every log."""

from __future__ import annotations

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def size(value: float) -> str:
    """Bytes in powers of 1024: `257.1 MiB`."""
    for exponent, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if value >= 1024**exponent:
            return f"{value / 1024**exponent:.1f} {unit}"
    return f"{value:.0f} B"


def duration(seconds: float | None) -> str:
    """The two largest units: `3 min 12 s`, `2 h 5 min`; tenths below ten seconds."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    rest = round(seconds)
    first = next(index for index, (length, _) in enumerate(_UNITS) if rest >= length)
    parts = []
    for length, unit in _UNITS[first : first + 2]:
        whole, rest = divmod(rest, length)
        if whole:
            parts.append(f"{whole} {unit}")
    return " ".join(parts)


def ago(at: float, now: float) -> str:
    """`3 min ago`: one unit is enough to place a moment."""
    passed = max(0.0, now - at)
    for length, unit in _UNITS:
        if passed >= length:
            return f"{passed / length:.0f} {unit} ago" if length > 1 else "just now"
    return "just now"
