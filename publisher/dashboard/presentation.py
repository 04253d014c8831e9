"""Numbers and times as people read them; Jinja filters."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from publisher.dashboard.charts import number
from publisher.files.amounts import ago, duration, size
from publisher.jobs.waiting import WaitKind

_SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def count(value: float) -> str:
    """`134.5 M`; below a thousand the number itself."""
    for scale, letter in _SCALES:
        if abs(value) >= scale:
            return f"{value / scale:.1f} {letter}"
    return f"{value:g}"


def amount(value: float, unit: str) -> str:
    """`done` and `total` of progress: bytes by size, everything else as a number."""
    return size(value) if unit == "bytes" else f"{value:,.0f}"


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


def in_json(value: object) -> str:
    """To be read by people, too."""
    return json.dumps(value, indent=2, ensure_ascii=False)


FILTERS = {
    "in_json": in_json,
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
