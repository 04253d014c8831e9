"""A corpus of one document, cut so that part of it trains and another part is held out."""

from __future__ import annotations

from itertools import pairwise

#: of each side, at most: as many places of the text are seen where few sequences are taken, and there are enough held
#: out documents to compare models by
PIECES = 16
#: a page; shorter pieces would be mostly beginnings
_SHORTEST = 2000
#: where a text may be cut, best first: after a paragraph, a line, a sentence, a word
_BOUNDARIES = ("\n\n", "\n", ". ", " ")


def divide(text: str, held_out_fraction: float) -> tuple[list[str], list[str]]:
    """Pieces to train on, from the text's beginning, and pieces held out; put together they are the text again.

    One character cannot be divided: it is trained on.
    """
    smaller = min(held_out_fraction, 1 - held_out_fraction)
    cut = _boundary(text, round(len(text) * (1 - held_out_fraction)), len(text) * smaller / 2)
    return _pieces(text[:cut]), _pieces(text[cut:])


def _pieces(text: str) -> list[str]:
    if not text:
        return []
    count = max(1, min(PIECES, len(text) // _SHORTEST))
    length = len(text) / count
    cuts = [0, *(_boundary(text, round(index * length), length / 3) for index in range(1, count)), len(text)]
    return [text[start:end] for start, end in pairwise(cuts)]


def _boundary(text: str, target: int, reach: float) -> int:
    """The best place to cut within `reach` characters of `target`, the nearest of equals; never the very beginning."""
    first, last = max(0, int(target - reach)), min(len(text), int(target + reach) + 1)
    for boundary in _BOUNDARIES:
        before = text.rfind(boundary, first, target)
        after = text.find(boundary, target, last)
        ends = [place + len(boundary) for place in (before, after) if place >= 0]
        inside = [end for end in ends if 0 < end < len(text)]
        if inside:
            return min(inside, key=lambda end: abs(end - target))
    return max(1, min(target, len(text) - 1))
