"""Texts that people write and others are shown, in one line."""

from __future__ import annotations

#: a letter, also at a terminal: neither control characters nor line breaks, nor marks that turn what follows
LETTER = r"[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
