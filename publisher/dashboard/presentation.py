"""Numbers and times as people read them; Jinja filters."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from math import ceil, floor, inf
from pathlib import PurePath

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
    return size(value) if is_bytes(unit) else f"{value:,.0f}"


def is_bytes(unit: str) -> bool:
    """`bytes`, or `bytes sent`."""
    return unit.split(" ", maxsplit=1)[0] == "bytes"


def what_of(unit: str) -> str:
    """What stands behind an amount: `tokens`; of `bytes sent` the size says that it is bytes."""
    return unit.removeprefix("bytes").strip() if is_bytes(unit) else unit


def perplexity(value: float) -> str:
    """Two decimals, `76.62`; none from a thousand on."""
    return f"{value:,.2f}" if value < 1000 else number(value)


def model_name(repo_id: str, path: str | None) -> str:
    """Of a base model: its repository's, or that of the folder that it lies in."""
    return PurePath(path).name or path if path else repo_id


def percent(share: float | None) -> int | None:
    """Of a job that runs: never all of it."""
    return None if share is None else min(99, int(100 * share))


def left_words(earliest: float | None, latest: float | None, now: float) -> str:
    """`4 to 7 min left`: rounded away from each other, and never nothing."""
    if earliest is None or latest is None:
        return ""
    low, high = max(earliest - now, 0.0), max(latest - now, 1.0)
    first, of_first = _rounded(low, high, floor)
    last, of_last = _rounded(high, high, ceil)
    if not first:
        first, of_first = _rounded(low, low, floor)
    if (first, of_first) == (last, of_last):
        return f"about {last} {of_last} left"
    if not first:
        return f"up to {last} {of_last} left"
    return f"{first}{'' if of_first == of_last else f' {of_first}'} to {last} {of_last} left"


def _rounded(seconds: float, scale_of: float, rounding: Callable[[float], int]) -> tuple[int, str]:
    step, unit, word = next(scale for scale in _LEFT if scale_of < scale[3])[:3]
    return rounding(seconds / step) * (step // unit), word


#: seconds that are rounded to, seconds of the unit, its name, and up to how many seconds it is used
_LEFT = (
    (1, 1, "s", 20),
    (5, 1, "s", 90),
    (60, 60, "min", 120 * 60),
    (3600, 3600, "h", 72 * 3600),
    (86400, 86400, "d", inf),
)


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
    "what_of": what_of,
    "model_name": model_name,
    "percent": percent,
    "left_words": left_words,
    "duration": duration,
    "ago": ago,
    "moment": moment,
    "clock": clock,
    "number": number,
    "perplexity": perplexity,
    "waited_for": waited_for,
}
