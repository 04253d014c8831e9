"""Sentences for people."""

from __future__ import annotations

import pytest

from publisher.errors import listed


@pytest.mark.parametrize(("words", "said"), [("a", "a"), ("ab", "a and b"), ("abc", "a, b and c"), ("", "none")])
def test_words_are_listed_as_people_do(words: str, said: str) -> None:
    assert listed(words) == said
