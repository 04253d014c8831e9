"""How an API key is written: `loramk_`, 256 random bits, and a checksum of both.

The checksum tells a mistyped or truncated key without a look-up, and lets scanners of leaked secrets find keys without
false alarms: `loramk_[A-Za-z0-9_-]{43}[0-9A-Za-z]{6}`, where the last six are the CRC-32 of all before them in base 62
(digits, upper case, lower case), as GitHub's tokens have it. Keys from before, and chosen ones, begin otherwise.
"""

from __future__ import annotations

import re
import secrets
import zlib

PREFIX = "loramk_"
#: for scanners
PATTERN = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}[0-9A-Za-z]{{6}}")

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CHECKSUM_LETTERS = 6


def new_key() -> str:
    body = f"{PREFIX}{secrets.token_urlsafe(32)}"
    return body + checksum(body)


def is_damaged(key: str) -> bool:
    """Whether this was a key of this form before somebody mistyped it or cut it short."""
    if not key.startswith(PREFIX):
        return False
    return PATTERN.fullmatch(key) is None or checksum(key[:-_CHECKSUM_LETTERS]) != key[-_CHECKSUM_LETTERS:]


def checksum(body: str) -> str:
    """CRC-32 in base 62, six digits."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_LETTERS):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
