"""Numbers and times as people read them; Jinja filters."""

from __future__ import annotations

from datetime import UTC, datetime

from publisher.dashboard.charts import number
from publisher.jobs.waiting import WaitKind

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def count(value: float) -> str:
    """`134.5 M`; below a thousand the number itself."""
    for scale, letter in _SCALES:
        if abs(value) >= scale:
            return f"{value / scale:.1f} {letter}"
    return f"{value:g}"


def size(value: float) -> str:
    """Bytes in powers of 1024: `257.1 MiB`."""
    for exponent, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if value >= 1024**exponent:
            return f"{value / 1024**exponent:.1f} {unit}"
    return f"{value:.0f} B"


def amount(value: float, unit: str) -> str:
    """`done` and `total` of progress: bytes by size, everything else as a number."""
    return size(value) if unit == "bytes" else f"{value:,.0f}"


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


def perplexity(value: float) -> str:
    """Two decimals, `76.62`; none from a thousand on."""
    return f"{value:,.2f}" if value < 1000 else number(value)


def moment(at: float) -> str:
    """ISO 8601 in UTC, for `<time datetime>`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def clock(at: float) -> str:
    """`14:03:59` in UTC, as log lines begin."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def waited_for(kind: str) -> str:
    """`the Hub`, as in "waiting for …"; of a kind that another version wrote, its own name."""
    return WaitKind(kind).words if kind in {known.value for known in WaitKind} else kind


FILTERS = {
    "count": count,
    "size": size,
    "amount": amount,
    "duration": duration,
    "ago": ago,
    "moment": moment,
    "clock": clock,
    "number": number,
    "perplexity": perplexity,
    "waited_for": waited_for,
}
